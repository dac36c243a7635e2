//! SA messages of NETLINK_XFRM (`linux/xfrm.h`), by hand, in native byte order where the kernel wants it so.

use super::super::message::*;
use super::algs;
use crate::id::Spi;
use crate::ports::{Direction, ReplaySet, SaInstall, SaUsed};
use crate::sad::{ChildSa, EspKeys, Lifetime, Mode, Selector};
use std::net::IpAddr;

pub(super) const XFRM_MSG_NEWSA: u16 = 0x10;
pub(super) const XFRM_MSG_DELSA: u16 = 0x11;
pub(super) const XFRM_MSG_GETSA: u16 = 0x12;
const XFRM_MSG_UPDSA: u16 = 0x1a;
pub(super) const XFRM_MSG_NEWAE: u16 = 0x1e;
pub(super) const XFRM_MSG_GETAE: u16 = 0x1f;

pub(super) const XFRMA_ENCAP: u16 = 4;
pub(super) const XFRMA_TMPL: u16 = 5;
pub(super) const XFRMA_LTIME_VAL: u16 = 9;
pub(super) const XFRMA_REPLAY_VAL: u16 = 10;
const XFRMA_REPLAY_THRESH: u16 = 11;
const XFRMA_ETIMER_THRESH: u16 = 12;
pub(super) const XFRMA_REPLAY_ESN_VAL: u16 = 23;
const XFRMA_PROTO: u16 = 25;
const XFRMA_MTIMER_THRESH: u16 = 32;

/// `struct xfrm_selector`.
pub(super) const SELECTOR_LEN: usize = 56;
/// `struct xfrm_usersa_info`.
pub(super) const SA_INFO_LEN: usize = 224;
/// `struct xfrm_aevent_id`.
pub(super) const AEVENT_LEN: usize = 48;
const XFRM_INF: u64 = u64::MAX;
/// `XFRM_STATE_ESN` in `xfrm_usersa_info.flags`.
pub(super) const STATE_ESN: u8 = 128;
/// `UDP_ENCAP_ESPINUDP` (RFC 3948).
const ENCAP_ESPINUDP: u16 = 2;
/// At most one event about a changed NAT mapping in this time, seconds; without it there would be one per packet.
const MAPPING_EVENT_S: u32 = 1;
const IPPROTO_ESP: u8 = libc::IPPROTO_ESP as u8;
/// `XFRM_AE_RTHR | XFRM_AE_ETHR` of a GETAE.
const AE_THRESHOLDS: u32 = 1 | 8;
/// Largest bitmap the kernel takes, in 32-bit words.
pub const BITMAP_WORDS_MAX: u32 = 128;
/// Largest replay window, packets.
pub const REPLAY_WINDOW_MAX: u32 = BITMAP_WORDS_MAX * 32;

/// Bitmap length of a replay window in 32-bit words; also without a window there is one, to keep the bitmap form.
pub const fn bitmap_words(window: u32) -> u32 {
    if window == 0 { 1 } else { window.div_ceil(32) }
}

/// The window an SA gets. With extended numbers it is a power of two: the kernel finds a number's bit by the low 32 bits modulo the window,
/// so that another window would change its bits' meaning where the low half wraps. A wider window refuses no less.
pub const fn window_of(window: u32, esn: bool) -> u32 {
    if esn { window.next_power_of_two() } else { window }
}

/// A replay number as the SA can hold it. Without ESN there are 32 bits; above them the SA is at its end: an outbound one
/// refuses to send, an inbound one to receive, and the rekey decides.
pub(super) fn replay_number(number: u64, esn: bool) -> u64 {
    if esn { number } else { number.min(u32::MAX.into()) }
}

/// Why an SA is refused before the kernel sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// The kernel would take it; no packet's origin would be proven.
    #[error("no integrity algorithm: ESP without authentication is refused; name one in the transform set")]
    NoIntegrity,
    /// The kernel takes one or the other.
    #[error("a combined-mode cipher with an integrity algorithm beside it; name one of the two in the transform set")]
    SecondIntegrity,
    /// Key bytes do not fit the algorithm.
    #[error("{what} key has {got} bytes, the algorithm wants {want}")]
    KeyLength {
        /// Which key.
        what: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes wanted.
        want: usize,
    },
    /// DES weak, semi-weak, or degenerate Triple-DES.
    #[error("weak encryption key; negotiate again")]
    WeakKey,
    /// Larger than the kernel's bitmap.
    #[error("replay window {0} is above {REPLAY_WINDOW_MAX}")]
    Window(u32),
    /// The high half of a number is found through the window (RFC 4303 appendix A).
    #[error("extended sequence numbers need a replay window")]
    NoWindow,
    /// Reserved (RFC 4303 2.1).
    #[error("SPI {0} is reserved")]
    ReservedSpi(Spi),
    /// One end IPv4, the other IPv6.
    #[error("tunnel ends of different address families")]
    MixedFamilies,
}

/// Ends, SPI and keys of one half of a pair.
pub(super) struct Half<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) spi: Spi,
    pub(super) keys: &'a EspKeys,
}

pub(super) fn half<'a>(sa: &SaInstall<'a>) -> Half<'a> {
    let c = sa.child;
    match sa.direction {
        Direction::In => Half { src: c.peer, dst: c.local, spi: c.spi_in, keys: &c.keys_in },
        Direction::Out => Half { src: c.local, dst: c.peer, spi: c.spi_out, keys: &c.keys_out },
    }
}

/// Source and destination port of the encapsulation of one half.
pub(super) fn encap_ports(sa: &SaInstall<'_>) -> Option<(u16, u16)> {
    sa.child.encap.map(|e| match sa.direction {
        Direction::In => (e.peer_port, e.local_port),
        Direction::Out => (e.local_port, e.peer_port),
    })
}

/// What the kernel would take and we do not.
pub fn check(sa: &SaInstall<'_>) -> Result<(), Unfit> {
    let child = sa.child;
    let half = half(sa);
    algs::check(child, half.keys)?;
    if child.replay_window > REPLAY_WINDOW_MAX {
        return Err(Unfit::Window(child.replay_window));
    }
    if child.esn && child.replay_window == 0 {
        return Err(Unfit::NoWindow);
    }
    if half.spi.0 < 256 {
        return Err(Unfit::ReservedSpi(half.spi));
    }
    if half.src.is_ipv4() != half.dst.is_ipv4() {
        return Err(Unfit::MixedFamilies);
    }
    Ok(())
}

fn put_limits(r: &mut Request, hard: Lifetime, soft: Lifetime) {
    let bytes = |l: Lifetime| if l.kilobytes == 0 { XFRM_INF } else { l.kilobytes.saturating_mul(1024) };
    // Bytes and packets: all ones is no limit. Seconds: zero is (all ones would be a negative time left).
    r.u64(bytes(soft)).u64(bytes(hard)).u64(XFRM_INF).u64(XFRM_INF);
    r.u64(soft.seconds).u64(hard.seconds).u64(0).u64(0);
}

/// `struct xfrm_lifetime_cur`: the limits stay counted from the SA's creation, whichever node installed it.
pub(super) fn put_used(r: &mut Request, used: SaUsed, now_s: u64) {
    let created = now_s.saturating_sub(used.age_s);
    let first_use = if used.packets == 0 { 0 } else { created };
    r.u64(used.bytes).u64(used.packets).u64(created).u64(first_use);
}

/// `XFRMA_REPLAY_ESN_VAL` in the bitmap form. An inbound number above zero comes with an all-ones bitmap: everything at or below
/// it was either received or is lost, never accepted again.
fn put_replay(r: &mut Request, direction: Direction, number: u64, window: u32, esn: bool) {
    let fill = if direction == Direction::In && number != 0 { u32::MAX } else { 0 };
    put_bitmap(r, direction, number, window, esn, &vec![fill; bitmap_words(window_of(window, esn)) as usize]);
}

fn put_bitmap(r: &mut Request, direction: Direction, number: u64, window: u32, esn: bool, bitmap: &[u32]) {
    let number = replay_number(number, esn);
    let (oseq, seq) = match direction {
        Direction::Out => (number, 0),
        Direction::In => (0, number),
    };
    let high = |number: u64| (number >> 32) as u32;
    r.attr(XFRMA_REPLAY_ESN_VAL, |r| {
        r.u32(bitmap.len() as u32).u32(oseq as u32).u32(seq as u32).u32(high(oseq)).u32(high(seq)).u32(window_of(window, esn));
        for word in bitmap {
            r.u32(*word);
        }
    });
}

/// XFRM_MSG_NEWSA for one half. `hz`: jiffies per second; `now_s`: wall clock, Unix seconds. [`check`] comes first.
pub fn new_sa(sa: &SaInstall<'_>, hz: u32, now_s: u64) -> Request {
    sa_message(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, sa, hz, now_s)
}

/// XFRM_MSG_UPDSA for one half that is installed: the kernel takes over the ports of the encapsulation and the lifetimes, and leaves
/// the replay state alone.
pub fn update_sa(sa: &SaInstall<'_>, hz: u32, now_s: u64) -> Request {
    sa_message(XFRM_MSG_UPDSA, NLM_F_REPLACE, sa, hz, now_s)
}

/// `struct xfrm_selector` of an SA. In tunnel mode 0/0: the policies select. In transport mode the kernel compares the packet that was inside
/// with the SA's own selector: protocol and ports are the negotiated ones. Addresses stay open, the policy has them, and a NAT changes them.
/// The family is that of the inner packets, which may differ from the tunnel's.
fn put_selector(r: &mut Request, child: &ChildSa, direction: Direction) {
    let (to, from) = match direction {
        Direction::In => (child.ts_local, child.ts_remote),
        Direction::Out => (child.ts_remote, child.ts_local),
    };
    let family = family_of(child.ts_local.addr);
    if child.mode == Mode::Tunnel {
        r.zeros(40).u16(family).zeros(14);
        return;
    }
    let port = |r: &mut Request, s: Selector| {
        r.be16(s.port).be16(if s.port == 0 { 0 } else { u16::MAX });
    };
    r.zeros(32);
    port(r, to);
    port(r, from);
    r.u16(family).zeros(2).u8(child.ts_local.proto).zeros(3 + 4 + 4);
}

fn sa_message(kind: u16, flags: u16, sa: &SaInstall<'_>, hz: u32, now_s: u64) -> Request {
    let child = sa.child;
    let half = half(sa);
    let mut r = Request::new(kind, flags);
    put_selector(&mut r, child, sa.direction);
    r.addr16(half.dst).be32(half.spi.0).u8(IPPROTO_ESP).zeros(3).addr16(half.src);
    put_limits(&mut r, child.lifetime, child.soft);
    r.zeros(32 + 12 + 4).u32(sa.reqid).u16(family_of(half.dst));
    r.u8(match child.mode {
        Mode::Transport => 0,
        Mode::Tunnel => 1,
    });
    // No legacy window (the bitmap form forbids it).
    r.zeros(1).u8(if child.esn { STATE_ESN } else { 0 }).zeros(7);
    algs::put(&mut r, child, half.keys);
    if let Some((from, to)) = encap_ports(sa) {
        r.attr(XFRMA_ENCAP, |r| {
            // The original address (`encap_oa`) is not looked at.
            r.u16(ENCAP_ESPINUDP).be16(from).be16(to).zeros(2 + 16);
        });
        if sa.direction == Direction::In {
            r.attr(XFRMA_MTIMER_THRESH, |r| {
                r.u32(MAPPING_EVENT_S);
            });
        }
    }
    put_replay(&mut r, sa.direction, sa.replay, child.replay_window, child.esn);
    r.attr(XFRMA_LTIME_VAL, |r| put_used(r, sa.used, now_s));
    r.attr(XFRMA_REPLAY_THRESH, |r| {
        r.u32(sa.event_packets);
    });
    r.attr(XFRMA_ETIMER_THRESH, |r| {
        r.u32(jiffies(sa.event_time.as_millis(), hz));
    });
    r
}

/// Jiffies in a time, at least one when it is not zero.
pub(super) fn jiffies(millis: u128, hz: u32) -> u32 {
    u32::try_from((millis * u128::from(hz)).div_ceil(1000)).unwrap_or(u32::MAX)
}

/// `struct xfrm_usersa_id`.
fn put_sa_id(r: &mut Request, spi: Spi, dst: IpAddr) {
    r.addr16(dst).be32(spi.0).u16(family_of(dst)).u8(IPPROTO_ESP).zeros(1);
}

/// XFRM_MSG_GETSA for one SA.
pub fn get_sa(spi: Spi, dst: IpAddr) -> Request {
    let mut r = Request::new(XFRM_MSG_GETSA, 0);
    put_sa_id(&mut r, spi, dst);
    r
}

/// XFRM_MSG_DELSA.
pub fn delete_sa(spi: Spi, dst: IpAddr) -> Request {
    let mut r = Request::new(XFRM_MSG_DELSA, 0);
    put_sa_id(&mut r, spi, dst);
    r
}

/// XFRM_MSG_GETSA as a dump of ESP SAs.
pub fn dump_sas() -> Request {
    let mut r = Request::new(XFRM_MSG_GETSA, 0);
    r.attr(XFRMA_PROTO, |r| {
        r.u8(IPPROTO_ESP);
    });
    r
}

fn put_aevent(r: &mut Request, spi: Spi, dst: IpAddr, flags: u32) {
    put_sa_id(r, spi, dst);
    // Source address and reqid are not looked at.
    r.zeros(16).u32(flags).u32(0);
}

/// XFRM_MSG_NEWAE: writes replay state in the bitmap form, and lifetimes used when given. `bitmap`: see [`merged`].
pub fn new_ae(set: &ReplaySet, bitmap: &[u32], now_s: u64) -> Request {
    let mut r = Request::new(XFRM_MSG_NEWAE, NLM_F_REPLACE);
    put_aevent(&mut r, set.spi, set.dst, 0);
    put_bitmap(&mut r, set.direction, set.replay, set.window, set.esn, bitmap);
    if let Some(used) = set.used {
        r.attr(XFRMA_LTIME_VAL, |r| put_used(r, used, now_s));
    }
    r
}

/// XFRM_MSG_GETAE: replay state and event thresholds, without keys.
pub fn get_ae(spi: Spi, dst: IpAddr) -> Request {
    let mut r = Request::new(XFRM_MSG_GETAE, 0);
    put_aevent(&mut r, spi, dst, AE_THRESHOLDS);
    r
}

/// Thresholds in the answer to a GETAE: packets, and time in units of 100 ms.
pub fn thresholds(body: &[u8]) -> Option<(u32, u32)> {
    let value = |kind| Attrs::after(body, AEVENT_LEN).find(|(k, _)| *k == kind).and_then(|(_, v)| Fields::new(v, 4)).map(|f| f.u32(0));
    Some((value(XFRMA_REPLAY_THRESH)?, value(XFRMA_ETIMER_THRESH)?))
}

/// Counter and bitmap to write so that an inbound SA at `held`, with `bitmap`, takes nothing at or below `floor` again, goes on
/// knowing what it has received above, and never goes back. The bit of number n is (n - 1) modulo the window (RFC 6479).
/// Both numbers are such as the SA can hold ([`replay_number`]), and `window` is the SA's own ([`window_of`]).
pub fn merged(held: u64, bitmap: &[u32], window: u32, floor: u64) -> (u64, Vec<u32>) {
    if floor >= held {
        return (floor, vec![if floor == 0 { 0 } else { u32::MAX }; bitmap.len()]);
    }
    let mut bitmap = bitmap.to_vec();
    let oldest = held.saturating_add(1).saturating_sub(window.into()).max(1);
    for number in oldest..=floor {
        let bit = (number - 1) % u64::from(window.max(1));
        if let Some(word) = bitmap.get_mut((bit / 32) as usize) {
            *word |= 1 << (bit % 32);
        }
    }
    (held, bitmap)
}
