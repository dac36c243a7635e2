//! SAs as the kernel shows them: replay state, use, and whether it is the SA we mean.

use super::super::message::*;
use super::algs;
use super::codec::{
    SA_INFO_LEN, STATE_ESN, XFRMA_ENCAP, XFRMA_LTIME_VAL, XFRMA_REPLAY_ESN_VAL, XFRMA_REPLAY_VAL, bitmap_words, half, window_of,
};
use crate::id::Spi;
use crate::ports::{Direction, SaInstall};
use crate::sad::Mode;
use std::net::IpAddr;

/// `struct xfrm_lifetime_cur`.
const LIFETIME_CUR_LEN: usize = 32;
/// `struct xfrm_replay_state_esn` without its bitmap.
const REPLAY_ESN_LEN: usize = 24;
/// `struct xfrm_encap_tmpl`.
const ENCAP_LEN: usize = 24;

/// Replay counters of an SA or an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replay {
    /// Highest verified inbound number.
    pub seq: u64,
    /// Last outbound number.
    pub oseq: u64,
    /// Bitmap length in words, `None` in the legacy form.
    pub words: Option<u32>,
    /// Window in packets (bitmap form only).
    pub window: u32,
    /// Fingerprint of the bitmap: bits set.
    pub bits: u32,
}

/// Replay state from `XFRMA_REPLAY_ESN_VAL` or `XFRMA_REPLAY_VAL`.
pub fn replay_of(attrs: Attrs<'_>) -> Replay {
    let mut replay = Replay::default();
    for (kind, value) in attrs {
        if kind == XFRMA_REPLAY_ESN_VAL
            && let Some(f) = Fields::new(value, REPLAY_ESN_LEN)
        {
            let long = |low: usize, high: usize| u64::from(f.u32(low)) | u64::from(f.u32(high)) << 32;
            let bits = value.iter().skip(REPLAY_ESN_LEN).map(|b| b.count_ones()).sum();
            return Replay { seq: long(8, 16), oseq: long(4, 12), words: Some(f.u32(0)), window: f.u32(20), bits };
        }
        if kind == XFRMA_REPLAY_VAL
            && let Some(f) = Fields::new(value, 12)
        {
            replay = Replay { seq: f.u32(4).into(), oseq: f.u32(0).into(), words: None, window: 0, bits: f.u32(8).count_ones() };
        }
    }
    replay
}

/// The bitmap words of `XFRMA_REPLAY_ESN_VAL`; empty in the legacy form.
pub fn bitmap_of(mut attrs: Attrs<'_>) -> Vec<u32> {
    let value = attrs.find(|(kind, _)| *kind == XFRMA_REPLAY_ESN_VAL).map(|(_, v)| v).unwrap_or_default();
    let words = value.get(REPLAY_ESN_LEN..).unwrap_or_default().chunks_exact(4);
    words.map(|w| Fields::new(w, 4).map_or(0, |f| f.u32(0))).collect()
}

/// Bytes and packets from `XFRMA_LTIME_VAL`.
pub fn used_of(attrs: Attrs<'_>) -> (u64, u64) {
    let ltime = attrs.into_iter().find(|(kind, _)| *kind == XFRMA_LTIME_VAL);
    ltime.and_then(|(_, v)| Fields::new(v, LIFETIME_CUR_LEN)).map_or((0, 0), |f| (f.u64(0), f.u64(8)))
}

/// An SA as the kernel shows it (XFRM_MSG_NEWSA in an answer). Borrows the datagram: its keys are not copied.
pub struct SaView<'a> {
    /// SPI.
    pub spi: Spi,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IP protocol: 50 for ESP.
    pub proto: u8,
    /// reqid.
    pub reqid: u32,
    /// True in tunnel mode.
    pub tunnel: bool,
    /// True with extended sequence numbers.
    pub esn: bool,
    /// UDP encapsulation: source and destination port.
    pub encap: Option<(u16, u16)>,
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Creation, Unix seconds.
    pub created_s: u64,
    /// Hard limit in seconds from creation, 0 = none.
    pub hard_s: u64,
    /// `struct xfrm_stats`: packets beyond the window, replayed, with a wrong check value.
    pub refused: [u32; 3],
    /// Replay state.
    pub replay: Replay,
    attrs: &'a [u8],
}

/// Decodes an SA; `None` when the message is too short.
pub fn sa_view(body: &[u8]) -> Option<SaView<'_>> {
    let f = Fields::new(body, SA_INFO_LEN)?;
    let family = f.u16(212);
    let attrs = body.get(SA_INFO_LEN..)?;
    let encap = Attrs::after(attrs, 0).find(|(kind, _)| *kind == XFRMA_ENCAP).and_then(|(_, v)| Fields::new(v, ENCAP_LEN));
    Some(SaView {
        spi: Spi(f.be32(72)),
        src: f.addr16(80, family),
        dst: f.addr16(56, family),
        proto: f.u8(76),
        reqid: f.u32(208),
        tunnel: f.u8(214) == 1,
        esn: f.u8(216) & STATE_ESN != 0,
        encap: encap.map(|e| (e.be16(2), e.be16(4))),
        bytes: f.u64(160),
        packets: f.u64(168),
        created_s: f.u64(176),
        hard_s: f.u64(136),
        refused: [192, 196, 200].map(|at| f.u32(at)),
        replay: replay_of(Attrs::after(attrs, 0)),
        attrs,
    })
}

impl SaView<'_> {
    /// The bitmap.
    pub fn bitmap(&self) -> Vec<u32> {
        bitmap_of(Attrs::after(self.attrs, 0))
    }

    /// True when this is the SA that `sa` would install: ends, mode, reqid, window, kind of numbers, encapsulation (its ports may differ),
    /// algorithms and keys. The source of an inbound SA is not looked at: it is the one the peer had when the SA was made (`moves`).
    pub fn is(&self, sa: &SaInstall<'_>) -> bool {
        let child = sa.child;
        let half = half(sa);
        self.spi == half.spi
            && self.dst == half.dst
            && (self.src == half.src || sa.direction == Direction::In)
            && self.reqid == sa.reqid
            && self.tunnel == (child.mode == Mode::Tunnel)
            && self.esn == child.esn
            && self.encap.is_some() == child.encap.is_some()
            && self.replay.words == Some(bitmap_words(window_of(child.replay_window, child.esn)))
            && algs::same(self.attrs, child, half.keys)
    }
}
