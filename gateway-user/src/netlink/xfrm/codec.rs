//! SA messages of NETLINK_XFRM (`linux/xfrm.h`), by hand, in native byte order where the kernel wants it so.

use super::super::message::*;
use super::weak;
use crate::crypto::{CipherAlg, IntegAlg};
use crate::id::Spi;
use crate::ports::{Direction, ReplaySet, SaInstall, SaUsed};
use crate::sad::{EspKeys, Lifetime, Mode};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

pub(super) const XFRM_MSG_NEWSA: u16 = 0x10;
pub(super) const XFRM_MSG_DELSA: u16 = 0x11;
pub(super) const XFRM_MSG_GETSA: u16 = 0x12;
pub(super) const XFRM_MSG_NEWAE: u16 = 0x1e;
pub(super) const XFRM_MSG_GETAE: u16 = 0x1f;

pub(super) const XFRMA_ALG_CRYPT: u16 = 2;
pub(super) const XFRMA_TMPL: u16 = 5;
pub(super) const XFRMA_LTIME_VAL: u16 = 9;
pub(super) const XFRMA_REPLAY_VAL: u16 = 10;
const XFRMA_REPLAY_THRESH: u16 = 11;
const XFRMA_ETIMER_THRESH: u16 = 12;
const XFRMA_ALG_AUTH_TRUNC: u16 = 20;
pub(super) const XFRMA_REPLAY_ESN_VAL: u16 = 23;
const XFRMA_PROTO: u16 = 25;

/// `struct xfrm_selector`.
pub(super) const SELECTOR_LEN: usize = 56;
/// `struct xfrm_usersa_info`.
pub(super) const SA_INFO_LEN: usize = 224;
/// `struct xfrm_aevent_id`.
pub(super) const AEVENT_LEN: usize = 48;
/// `struct xfrm_lifetime_cur`.
const LIFETIME_CUR_LEN: usize = 32;
/// `struct xfrm_replay_state_esn` without its bitmap.
const REPLAY_ESN_LEN: usize = 24;
const XFRM_INF: u64 = u64::MAX;
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

/// A replay number as the SA can hold it. Without ESN there are 32 bits; above them the SA is at its end: an outbound one
/// refuses to send, an inbound one to receive, and the rekey decides.
pub(super) fn replay32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Why an SA is refused before the kernel sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// The kernel would take it; no packet's origin would be proven.
    #[error("no integrity algorithm: ESP without authentication is refused; name one in the transform set")]
    NoIntegrity,
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

const fn cipher_name(cipher: CipherAlg) -> &'static str {
    match cipher {
        CipherAlg::Des => "cbc(des)",
        CipherAlg::TripleDes => "cbc(des3_ede)",
        CipherAlg::Aes128 | CipherAlg::Aes192 | CipherAlg::Aes256 => "cbc(aes)",
        CipherAlg::Null => "ecb(cipher_null)",
        CipherAlg::AesCtr(_) => "rfc3686(ctr(aes))",
        CipherAlg::AesGcm(..) => "rfc4106(gcm(aes))",
        CipherAlg::AesCcm(..) => "rfc4309(ccm(aes))",
        CipherAlg::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
    }
}

const fn integ_name(integ: IntegAlg) -> &'static str {
    match integ {
        IntegAlg::HmacMd5 => "hmac(md5)",
        IntegAlg::HmacSha1 => "hmac(sha1)",
        IntegAlg::HmacSha256 => "hmac(sha256)",
        IntegAlg::HmacSha384 => "hmac(sha384)",
        IntegAlg::HmacSha512 => "hmac(sha512)",
        IntegAlg::AesXcbc => "xcbc(aes)",
        IntegAlg::AesCmac => "cmac(aes)",
    }
}

/// What the kernel would take and we do not.
pub fn check(sa: &SaInstall<'_>) -> Result<(), Unfit> {
    let child = sa.child;
    let half = half(sa);
    let Some(integ) = child.integ else { return Err(Unfit::NoIntegrity) };
    let sized = |what, got, want| if got == want { Ok(()) } else { Err(Unfit::KeyLength { what, got, want }) };
    sized("encryption", half.keys.encr.len(), child.encr.key_len())?;
    sized("integrity", half.keys.integ.len(), integ.key_len())?;
    let weak = match child.encr {
        CipherAlg::Des => weak::des(half.keys.encr.expose()),
        CipherAlg::TripleDes => weak::triple_des(half.keys.encr.expose()),
        CipherAlg::Aes128
        | CipherAlg::Aes192
        | CipherAlg::Aes256
        | CipherAlg::Null
        | CipherAlg::AesCtr(_)
        | CipherAlg::AesGcm(..)
        | CipherAlg::AesCcm(..)
        | CipherAlg::ChaCha20Poly1305 => false,
    };
    if weak {
        return Err(Unfit::WeakKey);
    }
    if child.replay_window > REPLAY_WINDOW_MAX {
        return Err(Unfit::Window(child.replay_window));
    }
    if half.spi.0 < 256 {
        return Err(Unfit::ReservedSpi(half.spi));
    }
    if half.src.is_ipv4() != half.dst.is_ipv4() {
        return Err(Unfit::MixedFamilies);
    }
    Ok(())
}

fn name64(r: &mut Request, name: &str) {
    r.bytes(name.as_bytes()).zeros(64 - name.len());
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
pub(super) fn put_replay(r: &mut Request, direction: Direction, number: u64, window: u32) {
    let fill = if direction == Direction::In && number != 0 { u32::MAX } else { 0 };
    put_bitmap(r, direction, number, window, &vec![fill; bitmap_words(window) as usize]);
}

fn put_bitmap(r: &mut Request, direction: Direction, number: u64, window: u32, bitmap: &[u32]) {
    let number = replay32(number);
    let (oseq, seq) = match direction {
        Direction::Out => (number, 0),
        Direction::In => (0, number),
    };
    r.attr(XFRMA_REPLAY_ESN_VAL, |r| {
        r.u32(bitmap.len() as u32).u32(oseq).u32(seq).u32(0).u32(0).u32(window);
        for word in bitmap {
            r.u32(*word);
        }
    });
}

/// XFRM_MSG_NEWSA for one half. `hz`: jiffies per second; `now_s`: wall clock, Unix seconds. [`check`] comes first.
pub fn new_sa(sa: &SaInstall<'_>, hz: u32, now_s: u64) -> Request {
    let child = sa.child;
    let half = half(sa);
    let mut r = Request::new(XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL);
    // Selector 0/0: the policies select. Its family is that of the inner packets, which may differ from the tunnel's.
    r.zeros(40).u16(family_of(child.ts_local.addr)).zeros(14);
    r.addr16(half.dst).be32(half.spi.0).u8(IPPROTO_ESP).zeros(3).addr16(half.src);
    put_limits(&mut r, child.lifetime, child.soft);
    r.zeros(32 + 12 + 4).u32(sa.reqid).u16(family_of(half.dst));
    r.u8(match child.mode {
        Mode::Transport => 0,
        Mode::Tunnel => 1,
    });
    // No legacy window (the bitmap form forbids it), no flags.
    r.zeros(9);
    r.attr(XFRMA_ALG_CRYPT, |r| {
        name64(r, cipher_name(child.encr));
        r.u32(half.keys.encr.len() as u32 * 8).bytes(half.keys.encr.expose());
    });
    if let Some(integ) = child.integ {
        r.attr(XFRMA_ALG_AUTH_TRUNC, |r| {
            name64(r, integ_name(integ));
            r.u32(half.keys.integ.len() as u32 * 8).u32(integ.trunc_bits()).bytes(half.keys.integ.expose());
        });
    }
    put_replay(&mut r, sa.direction, sa.replay, child.replay_window);
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
    put_bitmap(&mut r, set.direction, set.replay, set.window, bitmap);
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

/// Counter and bitmap to write so that an inbound SA at `held`, with `bitmap`, takes nothing at or below `floor` again, goes on
/// knowing what it has received above, and never goes back. The bit of number n is (n - 1) modulo the window (RFC 6479).
pub fn merged(held: u64, bitmap: &[u32], window: u32, floor: u64) -> (u64, Vec<u32>) {
    let (held, floor) = (u64::from(replay32(held)), u64::from(replay32(floor)));
    if floor >= held {
        return (floor, vec![if floor == 0 { 0 } else { u32::MAX }; bitmap.len()]);
    }
    let mut bitmap = bitmap.to_vec();
    let oldest = (held + 1).saturating_sub(window.into()).max(1);
    for number in oldest..=floor {
        let bit = (number - 1) % u64::from(window.max(1));
        if let Some(word) = bitmap.get_mut((bit / 32) as usize) {
            *word |= 1 << (bit % 32);
        }
    }
    (held, bitmap)
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
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Creation, Unix seconds.
    pub created_s: u64,
    /// Hard limit in seconds from creation, 0 = none.
    pub hard_s: u64,
    /// Replay state.
    pub replay: Replay,
    attrs: &'a [u8],
}

/// Decodes an SA; `None` when the message is too short.
pub fn sa_view(body: &[u8]) -> Option<SaView<'_>> {
    let f = Fields::new(body, SA_INFO_LEN)?;
    let family = f.u16(212);
    let attrs = body.get(SA_INFO_LEN..)?;
    Some(SaView {
        spi: Spi(f.be32(72)),
        src: f.addr16(80, family),
        dst: f.addr16(56, family),
        proto: f.u8(76),
        reqid: f.u32(208),
        tunnel: f.u8(214) == 1,
        bytes: f.u64(160),
        packets: f.u64(168),
        created_s: f.u64(176),
        hard_s: f.u64(136),
        replay: replay_of(Attrs::after(attrs, 0)),
        attrs,
    })
}

impl SaView<'_> {
    /// True when this is the SA that `sa` would install: ends, mode, reqid, window, algorithms and keys. A kernel in lockdown
    /// shows no keys (zeros); they are then taken for equal.
    pub fn is(&self, sa: &SaInstall<'_>) -> bool {
        let half = half(sa);
        let Some(integ) = sa.child.integ else { return false };
        let same_key = |kind: u16, at: usize, name: &str, key: &[u8]| {
            Attrs::after(self.attrs, 0).find(|(k, _)| *k == kind).is_some_and(|(_, v)| {
                let named = v.get(..64).is_some_and(|n| n.split(|b| *b == 0).next() == Some(name.as_bytes()));
                let held = v.get(at..).unwrap_or_default();
                let hidden = held.len() == key.len() && held.iter().all(|b| *b == 0);
                named && (hidden || held.ct_eq(key).into())
            })
        };
        self.spi == half.spi
            && self.dst == half.dst
            && self.src == half.src
            && self.reqid == sa.reqid
            && self.tunnel == (sa.child.mode == Mode::Tunnel)
            && self.replay.words == Some(bitmap_words(sa.child.replay_window))
            && same_key(XFRMA_ALG_CRYPT, 68, cipher_name(sa.child.encr), half.keys.encr.expose())
            && same_key(XFRMA_ALG_AUTH_TRUNC, 72, integ_name(integ), half.keys.integ.expose())
    }
}
