//! [`XfrmEvents`]: acquires, expiries, replay events and changed NAT mappings, from a socket of their own.

use super::super::events::Listener;
use super::super::message::*;
use super::super::socket::Family;
use super::codec::{AEVENT_LEN, SA_INFO_LEN, SELECTOR_LEN, XFRM_MSG_NEWAE, XFRMA_TMPL};
use super::policy::{POLICY_LEN, TMPL_LEN, selectors, tmpl};
use super::view::{replay_of, used_of};
use crate::id::Spi;
use crate::ike::Acquire;
use crate::ports::XfrmEvent;
use crate::sad::Selector;
use std::io;

const XFRM_MSG_ACQUIRE: u16 = 0x17;
const XFRM_MSG_EXPIRE: u16 = 0x18;
const XFRMNLGRP_ACQUIRE: u32 = 1;
const XFRMNLGRP_EXPIRE: u32 = 2;
const XFRMNLGRP_AEVENTS: u32 = 5;
const XFRM_MSG_MAPPING: u16 = 0x26;
const XFRMNLGRP_MAPPING: u32 = 8;
/// `XFRM_AE_CU`: somebody wrote the state, the packets did not move it.
const AE_WRITTEN: u32 = 64;
/// `struct xfrm_user_acquire`.
const ACQUIRE_LEN: usize = 24 + 16 + SELECTOR_LEN + POLICY_LEN + 16;
/// `struct xfrm_user_mapping`.
const MAPPING_LEN: usize = 64;
/// `struct xfrm_user_expire`.
const EXPIRE_LEN: usize = SA_INFO_LEN + 8;

/// XFRM events of the network namespace it was opened in. ESP only.
pub struct XfrmEvents {
    listener: Listener,
}

impl XfrmEvents {
    /// Joins the groups. Call it inside a tokio runtime, before the SAs are installed. Errors: no CAP_NET_ADMIN, no XFRM.
    pub fn open() -> io::Result<Self> {
        let groups = [XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_AEVENTS, XFRMNLGRP_MAPPING];
        Ok(Self { listener: Listener::open(Family::Xfrm, &groups)? })
    }

    /// Waits for events; at least one comes. [`XfrmEvent::Overrun`] stands where the kernel had to drop some. Cancel-safe.
    pub async fn recv(&mut self) -> io::Result<Vec<XfrmEvent>> {
        self.listener.recv(XfrmEvent::Overrun, |m| event(m.kind, m.body)).await
    }
}

/// Decodes one event; `None` for what is no business of ours.
pub(super) fn event(kind: u16, body: &[u8]) -> Option<XfrmEvent> {
    match kind {
        XFRM_MSG_ACQUIRE => acquire(body).map(XfrmEvent::Acquire),
        XFRM_MSG_EXPIRE => expire(body),
        XFRM_MSG_NEWAE => replay(body),
        XFRM_MSG_MAPPING => mapping(body),
        _ => None,
    }
}

fn is_esp(proto: u8) -> bool {
    i32::from(proto) == libc::IPPROTO_ESP
}

fn acquire(body: &[u8]) -> Option<Acquire> {
    let f = Fields::new(body, ACQUIRE_LEN)?;
    let (src, dst) = selectors(&f.sub(40, SELECTOR_LEN)?);
    let value = Attrs::after(body, ACQUIRE_LEN).find(|(k, _)| *k == XFRMA_TMPL).map(|(_, v)| v)?;
    let (tmpl, _) = tmpl(&Fields::new(value, TMPL_LEN)?);
    // "Ports" of other protocols are ICMP types and the like.
    let has_ports = |s: &Selector| {
        matches!(
            i32::from(s.proto),
            libc::IPPROTO_TCP | libc::IPPROTO_UDP | libc::IPPROTO_SCTP | libc::IPPROTO_DCCP | libc::IPPROTO_UDPLITE
        )
    };
    let tidy = |s: Selector| Selector { port: if has_ports(&s) { s.port } else { 0 }, ..s };
    is_esp(f.u8(20)).then(|| Acquire { peer: tmpl.dst, reqid: tmpl.reqid, src: tidy(src), dst: tidy(dst) })
}

fn expire(body: &[u8]) -> Option<XfrmEvent> {
    let f = Fields::new(body, EXPIRE_LEN)?;
    let spi = Spi(f.be32(72));
    // SPI 0: the placeholder of an acquire nobody answered.
    (is_esp(f.u8(76)) && spi.0 != 0).then(|| XfrmEvent::Expire { spi, dst: f.addr16(56, f.u16(212)), hard: f.u8(SA_INFO_LEN) != 0 })
}

fn replay(body: &[u8]) -> Option<XfrmEvent> {
    let f = Fields::new(body, AEVENT_LEN)?;
    if f.u32(40) & AE_WRITTEN != 0 || !is_esp(f.u8(22)) {
        return None;
    }
    let state = replay_of(Attrs::after(body, AEVENT_LEN));
    let (bytes, packets) = used_of(Attrs::after(body, AEVENT_LEN));
    Some(XfrmEvent::Replay { spi: Spi(f.be32(16)), dst: f.addr16(0, f.u16(20)), seq: state.seq, oseq: state.oseq, bytes, packets })
}

/// `struct xfrm_user_mapping`: the SA's id, its reqid, old and new source address, old and new source port.
fn mapping(body: &[u8]) -> Option<XfrmEvent> {
    let f = Fields::new(body, MAPPING_LEN)?;
    let family = f.u16(20);
    is_esp(f.u8(22)).then(|| XfrmEvent::Mapping {
        spi: Spi(f.be32(16)),
        dst: f.addr16(0, family),
        peer: f.addr16(44, family),
        port: f.be16(62),
    })
}
