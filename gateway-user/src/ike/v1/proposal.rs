//! Policies to transforms and back (RFC 2407 4.5, RFC 2409 appendix A, RFC 3602, RFC 4868).

use super::message::{Attribute, NatDialect, Proposal, SaPayload, Transform, protocol};
use crate::crypto::{AesKey, CipherAlg, DhGroup, HashAlg, Icv, IntegAlg};
use crate::id::Spi;
use crate::ike::policy::{AuthMethod, EspTransform, IsakmpPolicy, MapEntry};
use crate::sad::{Lifetime, Mode};

/// Lifetime of an ISAKMP SA when the peer names none or zero, seconds.
pub const ISAKMP_LIFETIME_DEFAULT_S: u64 = 86_400;
/// Lifetime of a child pair when nobody names one, seconds (RFC 2407 4.5).
pub const ESP_LIFETIME_DEFAULT_S: u64 = 28_800;
/// Largest volume that is honoured, kilobytes; keeps byte counts inside 64 bits.
pub const LIFETIME_MAX_KB: u64 = 1 << 50;
/// Longest lifetime that is honoured, seconds; keeps deadlines inside what `Instant` can hold.
pub const LIFETIME_MAX_S: u64 = 10 * 365 * 86_400;

const KEY_IKE: u8 = 1;
const AUTH_PSK: u16 = 1;
/// The other methods with public keys decrypt what a stranger sends (4, 5) or are not in use (2).
const AUTH_RSA_SIGNATURE: u16 = 3;
const LIFE_SECONDS: u16 = 1;
const LIFE_KILOBYTES: u16 = 2;

/// Attribute types of phase 1 (RFC 2409 appendix A).
mod p1 {
    pub(super) const ENCRYPTION: u16 = 1;
    pub(super) const HASH: u16 = 2;
    pub(super) const AUTHENTICATION: u16 = 3;
    pub(super) const GROUP: u16 = 4;
    pub(super) const GROUP_TYPE: u16 = 5;
    pub(super) const LIFE_TYPE: u16 = 11;
    pub(super) const LIFE_DURATION: u16 = 12;
    pub(super) const KEY_LENGTH: u16 = 14;
}

/// Attribute types of phase 2 (RFC 2407 4.5).
mod p2 {
    pub(super) const LIFE_TYPE: u16 = 1;
    pub(super) const LIFE_DURATION: u16 = 2;
    pub(super) const GROUP: u16 = 3;
    pub(super) const MODE: u16 = 4;
    pub(super) const AUTHENTICATION: u16 = 5;
    pub(super) const KEY_LENGTH: u16 = 6;
}

/// Why nothing was chosen, or an answer was refused. Words for the log.
pub type Refusal = String;

fn p1_cipher(c: CipherAlg) -> Option<(u16, Option<u16>)> {
    Some(match c {
        CipherAlg::Des => (1, None),
        CipherAlg::TripleDes => (5, None),
        CipherAlg::Aes128 => (7, Some(128)),
        CipherAlg::Aes192 => (7, Some(192)),
        CipherAlg::Aes256 => (7, Some(256)),
        CipherAlg::Null | CipherAlg::AesCtr(_) | CipherAlg::AesGcm(..) | CipherAlg::AesCcm(..) | CipherAlg::ChaCha20Poly1305 => {
            return None;
        }
    })
}

const fn p1_hash(h: HashAlg) -> u16 {
    match h {
        HashAlg::Md5 => 1,
        HashAlg::Sha1 => 2,
        HashAlg::Sha256 => 4,
        HashAlg::Sha384 => 5,
        HashAlg::Sha512 => 6,
    }
}

const fn bits(key: AesKey) -> u16 {
    key.len() as u16 * 8
}

const fn esp_cipher(c: CipherAlg) -> (u8, Option<u16>) {
    match c {
        CipherAlg::Des => (2, None),
        CipherAlg::TripleDes => (3, None),
        CipherAlg::Aes128 => (12, Some(128)),
        CipherAlg::Aes192 => (12, Some(192)),
        CipherAlg::Aes256 => (12, Some(256)),
        CipherAlg::Null => (11, None),
        CipherAlg::AesCtr(k) => (13, Some(bits(k))),
        CipherAlg::AesCcm(k, Icv::Bytes8) => (14, Some(bits(k))),
        CipherAlg::AesCcm(k, Icv::Bytes12) => (15, Some(bits(k))),
        CipherAlg::AesCcm(k, Icv::Bytes16) => (16, Some(bits(k))),
        CipherAlg::AesGcm(k, Icv::Bytes8) => (18, Some(bits(k))),
        CipherAlg::AesGcm(k, Icv::Bytes12) => (19, Some(bits(k))),
        CipherAlg::AesGcm(k, Icv::Bytes16) => (20, Some(bits(k))),
        CipherAlg::ChaCha20Poly1305 => (28, None),
    }
}

const fn esp_integ(i: IntegAlg) -> u16 {
    match i {
        IntegAlg::HmacMd5 => 1,
        IntegAlg::HmacSha1 => 2,
        IntegAlg::HmacSha256 => 5,
        IntegAlg::HmacSha384 => 6,
        IntegAlg::HmacSha512 => 7,
        IntegAlg::AesXcbc => 9,
        // Without a number in the registry of version 1: never offered there.
        IntegAlg::AesCmac => 0,
    }
}

/// What a transform asks for, whichever phase: each attribute at most once, lifetimes in pairs.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Wishes {
    /// Type and value of every basic attribute that is not a lifetime, sorted.
    basic: Vec<(u16, u16)>,
    seconds: Option<u64>,
    kilobytes: Option<u64>,
}

impl Wishes {
    /// Reads attributes; `None` when one is doubled, in the wrong format, or a lifetime has no type.
    fn read(attributes: &[Attribute], life_type: u16, life_duration: u16) -> Option<Self> {
        let mut w = Self::default();
        let mut unit = None;
        for a in attributes {
            if a.kind == life_type {
                if unit.is_some() {
                    return None;
                }
                unit = Some(a.as_basic()?);
            } else if a.kind == life_duration {
                let slot = match unit.take()? {
                    LIFE_SECONDS => &mut w.seconds,
                    LIFE_KILOBYTES => &mut w.kilobytes,
                    _ => return None,
                };
                if slot.replace(a.as_number()).is_some() {
                    return None;
                }
            } else {
                if w.get(a.kind).is_some() {
                    return None;
                }
                w.basic.push((a.kind, a.as_basic()?));
            }
        }
        if unit.is_some() {
            return None;
        }
        w.basic.sort_unstable();
        Some(w)
    }

    fn get(&self, kind: u16) -> Option<u16> {
        self.basic.iter().find(|(k, _)| *k == kind).map(|(_, v)| *v)
    }
}

fn wishes_1(t: &Transform) -> Option<Wishes> {
    if t.id != KEY_IKE {
        return None;
    }
    let mut w = Wishes::read(&t.attributes, p1::LIFE_TYPE, p1::LIFE_DURATION)?;
    // Group type MODP beside a numbered group says nothing new.
    w.basic.retain(|&(k, v)| (k, v) != (p1::GROUP_TYPE, 1));
    Some(w)
}

fn wishes_2(t: &Transform) -> Option<Wishes> {
    Wishes::read(&t.attributes, p2::LIFE_TYPE, p2::LIFE_DURATION)
}

/// True for a group of version 1 that can be computed here; key encapsulation has no place in it.
fn spoken_group(group: DhGroup) -> bool {
    !group.is_kem() && DhGroup::ALL.contains(&group)
}

/// True when a policy can be offered at all.
pub fn is_spoken(p: &IsakmpPolicy) -> bool {
    policy_attributes(p).is_some()
}

/// Basic attributes a policy stands for; `None` when version 1 cannot say it.
fn policy_attributes(p: &IsakmpPolicy) -> Option<Vec<(u16, u16)>> {
    let (cipher, bits) = p1_cipher(p.encryption)?;
    let method = match p.authentication {
        AuthMethod::PreShared => AUTH_PSK,
        AuthMethod::Signature => AUTH_RSA_SIGNATURE,
    };
    if !spoken_group(p.group) {
        return None;
    }
    let mut out = vec![(p1::ENCRYPTION, cipher), (p1::HASH, p1_hash(p.hash)), (p1::AUTHENTICATION, method), (p1::GROUP, p.group.number())];
    out.extend(bits.map(|b| (p1::KEY_LENGTH, b)));
    Some(out)
}

/// The lifetime both sides can live with, seconds: the shorter one, ours where the peer names none.
pub fn isakmp_lifetime(ours: u64, offered: Option<u64>) -> u64 {
    let ours = if ours == 0 { ISAKMP_LIFETIME_DEFAULT_S } else { ours };
    let theirs = offered.filter(|&s| s != 0).unwrap_or(ISAKMP_LIFETIME_DEFAULT_S);
    ours.min(theirs).clamp(1, LIFETIME_MAX_S)
}

/// Our phase 1 offer: one proposal, one transform for each policy in order.
pub fn isakmp_offer(policies: &[IsakmpPolicy]) -> SaPayload {
    let transforms = policies
        .iter()
        .filter_map(|p| Some((p, policy_attributes(p)?)))
        .zip(1..=u8::MAX)
        .map(|((p, basic), number)| {
            let mut attributes: Vec<_> = basic.into_iter().map(|(k, v)| Attribute::basic(k, v)).collect();
            attributes.push(Attribute::basic(p1::LIFE_TYPE, LIFE_SECONDS));
            attributes.push(Attribute::number(p1::LIFE_DURATION, isakmp_lifetime(p.lifetime_s, Some(u64::MAX))));
            Transform { number, id: KEY_IKE, attributes }
        })
        .collect();
    SaPayload { proposals: vec![Proposal { number: 1, protocol: protocol::ISAKMP, spi: Vec::new(), transforms }] }
}

/// The policy that a transform meets, and the lifetime it names.
fn isakmp_match(policies: &[IsakmpPolicy], t: &Transform) -> Option<(usize, Option<u64>)> {
    let wishes = wishes_1(t)?;
    let index = policies.iter().position(|p| {
        policy_attributes(p).is_some_and(|mut basic| {
            basic.sort_unstable();
            basic == wishes.basic
        })
    })?;
    Some((index, wishes.seconds))
}

/// What a responder chose in phase 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsakmpChoice {
    /// Index of the policy.
    pub index: usize,
    /// The answer to send.
    pub answer: SaPayload,
    /// Agreed lifetime, seconds.
    pub lifetime_s: u64,
    /// True when ours is shorter than the offered one, so that RESPONDER-LIFETIME is due.
    pub shortened: bool,
}

/// Chooses from a phase 1 offer: our first policy that some transform meets.
pub fn isakmp_choose(policies: &[IsakmpPolicy], offer: &SaPayload) -> Result<IsakmpChoice, Refusal> {
    let [proposal] = &offer.proposals[..] else {
        return Err(format!("{} proposals in phase 1, only one is allowed", offer.proposals.len()));
    };
    if proposal.protocol != protocol::ISAKMP || !matches!(proposal.spi.len(), 0 | 8 | 16) {
        return Err("phase 1 proposal is not for ISAKMP".into());
    }
    let found = proposal.transforms.iter().filter_map(|t| isakmp_match(policies, t).map(|(i, life)| (i, life, t))).min_by_key(|(i, ..)| *i);
    let Some((index, life, t)) = found else {
        return Err(format!("none of {} transforms meets an isakmp policy", proposal.transforms.len()));
    };
    let answer = SaPayload { proposals: vec![Proposal { transforms: vec![t.clone()], ..proposal.clone() }] };
    let lifetime_s = isakmp_lifetime(policies[index].lifetime_s, life);
    let offered = life.filter(|&s| s != 0).unwrap_or(ISAKMP_LIFETIME_DEFAULT_S);
    Ok(IsakmpChoice { index, answer, lifetime_s, shortened: lifetime_s < offered.min(LIFETIME_MAX_S) })
}

/// Checks the responder's phase 1 answer against our offer: exactly one transform, unchanged. Gives the index of the policy.
pub fn isakmp_accept(policies: &[IsakmpPolicy], offer: &SaPayload, answer: &SaPayload) -> Result<(usize, u64), Refusal> {
    let ([ours], [theirs]) = (&offer.proposals[..], &answer.proposals[..]) else {
        return Err("the answer does not hold exactly one proposal".into());
    };
    let [t] = &theirs.transforms[..] else {
        return Err(format!("the answer holds {} transforms", theirs.transforms.len()));
    };
    if theirs.protocol != protocol::ISAKMP {
        return Err("the answer is not for ISAKMP".into());
    }
    let offered = ours
        .transforms
        .iter()
        .find(|o| o.number == t.number && wishes_1(o).is_some() && wishes_1(o) == wishes_1(t))
        .ok_or("the answer's transform differs from what was offered")?;
    let (index, life) = isakmp_match(policies, offered).ok_or("the policy is gone")?;
    Ok((index, isakmp_lifetime(policies[index].lifetime_s, life)))
}

/// What a quick mode agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspChoice {
    /// Index of the transform set in the entry.
    pub transform: usize,
    /// The peer's inbound SPI.
    pub spi: Spi,
    /// PFS group.
    pub pfs: Option<DhGroup>,
    /// Agreed hard lifetimes.
    pub lifetime: Lifetime,
    /// The answer to send (responder), with the SPI of the peer still in it.
    pub answer: SaPayload,
    /// True when ours are shorter than the offered ones, so that RESPONDER-LIFETIME is due.
    pub shortened: bool,
}

/// What stands between the ends, and which encapsulations the traffic allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The dialect of NAT traversal, when there is a NAT.
    pub nat: Option<NatDialect>,
    /// Tunnel mode is possible.
    pub tunnel: bool,
    /// Transport mode is possible: the traffic is that of the two ends themselves.
    pub transport: bool,
}

impl Ends {
    fn allow(self, mode: Mode) -> bool {
        match mode {
            Mode::Tunnel => self.tunnel,
            Mode::Transport => self.transport,
        }
    }
}

/// Encapsulation modes of RFC 2407 4.5, RFC 3947 5.1 and the drafts before that.
const fn mode_number(mode: Mode, nat: Option<NatDialect>) -> u16 {
    match (mode, nat) {
        (Mode::Tunnel, None) => 1,
        (Mode::Transport, None) => 2,
        (Mode::Tunnel, Some(NatDialect::Rfc)) => 3,
        (Mode::Transport, Some(NatDialect::Rfc)) => 4,
        (Mode::Tunnel, Some(NatDialect::Draft03 | NatDialect::Draft02Line | NatDialect::Draft02)) => 61_443,
        (Mode::Transport, Some(NatDialect::Draft03 | NatDialect::Draft02Line | NatDialect::Draft02)) => 61_444,
    }
}

fn esp_attributes(t: &EspTransform, pfs: Option<DhGroup>, nat: Option<NatDialect>) -> Vec<(u16, u16)> {
    let mut out = vec![(p2::MODE, mode_number(t.mode, nat))];
    out.extend(t.integ.map(|i| (p2::AUTHENTICATION, esp_integ(i))));
    out.extend(esp_cipher(t.encr).1.map(|b| (p2::KEY_LENGTH, b)));
    out.extend(pfs.map(|g| (p2::GROUP, g.number())));
    out
}

/// True when a set can be offered at all: something must protect the data, in words of version 1. Counter mode is nothing without a check
/// (RFC 3686 7), combined modes have their own, and AES-CMAC has no number.
fn usable(t: &EspTransform) -> bool {
    match t.encr {
        CipherAlg::Null | CipherAlg::AesCtr(_) => t.integ.is_some_and(|i| i != IntegAlg::AesCmac),
        CipherAlg::Des | CipherAlg::TripleDes | CipherAlg::Aes128 | CipherAlg::Aes192 | CipherAlg::Aes256 => {
            t.integ != Some(IntegAlg::AesCmac)
        }
        CipherAlg::AesGcm(..) | CipherAlg::AesCcm(..) | CipherAlg::ChaCha20Poly1305 => t.integ.is_none(),
    }
}

/// The attributes of a lifetime: seconds always, kilobytes when limited.
fn lifetime_attributes(l: Lifetime) -> Vec<Attribute> {
    let mut out = Vec::new();
    if l.seconds != 0 {
        out.push(Attribute::basic(p2::LIFE_TYPE, LIFE_SECONDS));
        out.push(Attribute::number(p2::LIFE_DURATION, l.seconds));
    }
    if l.kilobytes != 0 {
        out.push(Attribute::basic(p2::LIFE_TYPE, LIFE_KILOBYTES));
        out.push(Attribute::number(p2::LIFE_DURATION, l.kilobytes));
    }
    out
}

/// Our phase 2 offer: one ESP proposal with one transform for each possible set in order.
pub fn esp_offer(entry: &MapEntry, spi: Spi, ends: Ends) -> SaPayload {
    let transforms = entry
        .transforms
        .iter()
        .filter(|t| usable(t) && ends.allow(t.mode))
        .zip(1..=u8::MAX)
        .map(|(t, number)| {
            let mut attributes = lifetime_attributes(entry.lifetime);
            attributes.extend(esp_attributes(t, entry.pfs, ends.nat).into_iter().map(|(k, v)| Attribute::basic(k, v)));
            Transform { number, id: esp_cipher(t.encr).0, attributes }
        })
        .collect();
    let spi = spi.0.to_be_bytes().to_vec();
    SaPayload { proposals: vec![Proposal { number: 1, protocol: protocol::ESP, spi, transforms }] }
}

/// The set of the entry that a transform meets (PFS group aside); tunnel mode where none is named. Behind a NAT the numbers of the RFC
/// and of the drafts mean the same: some peers mix them.
fn esp_match(entry: &MapEntry, t: &Transform, ends: Ends) -> Option<(usize, Wishes)> {
    let wishes = wishes_2(t)?;
    let mut basic: Vec<_> = wishes.basic.iter().copied().filter(|(k, _)| *k != p2::GROUP && *k != p2::MODE).collect();
    basic.push((
        p2::MODE,
        match (wishes.get(p2::MODE), ends.nat) {
            (None, None) => 1,
            (None | Some(61_443), Some(_)) => 3,
            (Some(61_444), Some(_)) => 4,
            (Some(mode), _) => mode,
        },
    ));
    basic.sort_unstable();
    let index = entry.transforms.iter().position(|ours| {
        let mut want = esp_attributes(ours, None, ends.nat.map(|_| NatDialect::Rfc));
        want.sort_unstable();
        usable(ours) && ends.allow(ours.mode) && esp_cipher(ours.encr).0 == t.id && want == basic
    })?;
    Some((index, wishes))
}

fn shorter(ours: u64, theirs: Option<u64>) -> u64 {
    match (ours, theirs.unwrap_or(0)) {
        (a, 0) => a,
        (0, b) => b,
        (a, b) => a.min(b),
    }
}

fn agreed_lifetime(ours: Lifetime, wishes: &Wishes) -> Lifetime {
    let seconds = match shorter(ours.seconds, wishes.seconds) {
        0 => ESP_LIFETIME_DEFAULT_S,
        s => s.min(LIFETIME_MAX_S),
    };
    Lifetime { seconds, kilobytes: shorter(ours.kilobytes, wishes.kilobytes).min(LIFETIME_MAX_KB) }
}

/// The shorter of two lifetimes, each field by itself; 0 is no limit.
pub fn shorter_lifetime(a: Lifetime, b: Lifetime) -> Lifetime {
    Lifetime { seconds: shorter(a.seconds, Some(b.seconds)), kilobytes: shorter(a.kilobytes, Some(b.kilobytes)) }
}

/// The PFS group of an offer: the same in every transform of every proposal, or in none (RFC 2409 5.5).
fn offered_group(offer: &SaPayload) -> Result<Option<u16>, Refusal> {
    let mut groups = offer
        .proposals
        .iter()
        .flat_map(|p| &p.transforms)
        .map(|t| t.attributes.iter().find(|a| a.kind == p2::GROUP).map(Attribute::as_number));
    let first = groups.next().flatten();
    if groups.any(|g| g != first) {
        return Err("the PFS group is not the same in every transform".into());
    }
    first.map(|g| u16::try_from(g).map_err(|_| format!("PFS group {g}"))).transpose()
}

/// Chooses from a phase 2 offer: our first set that some transform of an ESP-only proposal meets.
pub fn esp_choose(entry: &MapEntry, offer: &SaPayload, ends: Ends) -> Result<EspChoice, Refusal> {
    let group = offered_group(offer)?;
    let pfs = match group {
        None => None,
        Some(n) => Some(DhGroup::from_number(n).filter(|g| spoken_group(*g)).ok_or_else(|| format!("PFS group {n} is not supported"))?),
    };
    if entry.pfs.is_some() && pfs != entry.pfs {
        return Err(format!(
            "PFS group {} was offered, this map entry wants {}",
            group.map_or("none".into(), |g| g.to_string()),
            entry.pfs.map_or(0, DhGroup::number),
        ));
    }
    let alone = |p: &Proposal| offer.proposals.iter().filter(|o| o.number == p.number).count() == 1;
    let found = offer
        .proposals
        .iter()
        .filter(|p| p.protocol == protocol::ESP && p.spi.len() == 4 && alone(p))
        .flat_map(|p| p.transforms.iter().filter_map(move |t| esp_match(entry, t, ends).map(|(i, w)| (i, w, p, t))))
        .min_by_key(|(i, ..)| *i);
    let Some((transform, wishes, p, t)) = found else {
        return Err("no proposal meets a transform set of this map entry".into());
    };
    let lifetime = agreed_lifetime(entry.lifetime, &wishes);
    let longer = |ours: u64, theirs: Option<u64>| ours != 0 && theirs.is_none_or(|t| t == 0 || t > ours);
    // A peer that names no time means eight hours, one that names no volume means none (RFC 2407 4.5).
    let theirs_s = wishes.seconds.filter(|&s| s != 0).or(Some(ESP_LIFETIME_DEFAULT_S));
    Ok(EspChoice {
        transform,
        spi: read_spi(p)?,
        pfs,
        lifetime,
        answer: SaPayload { proposals: vec![Proposal { transforms: vec![t.clone()], ..p.clone() }] },
        shortened: longer(entry.lifetime.seconds, theirs_s) || longer(entry.lifetime.kilobytes, wishes.kilobytes),
    })
}

/// SPIs up to 255 are reserved (RFC 2406 2.1).
fn read_spi(p: &Proposal) -> Result<Spi, Refusal> {
    let bytes: [u8; 4] = p.spi[..].try_into().map_err(|_| "the SPI is not four bytes long")?;
    match u32::from_be_bytes(bytes) {
        n @ 0..=255 => Err(format!("SPI {n} is reserved")),
        n => Ok(Spi(n)),
    }
}

/// Checks the responder's phase 2 answer against our offer: one ESP proposal, one transform, unchanged.
pub fn esp_accept(entry: &MapEntry, offer: &SaPayload, answer: &SaPayload, ends: Ends) -> Result<EspChoice, Refusal> {
    let ([ours], [theirs]) = (&offer.proposals[..], &answer.proposals[..]) else {
        return Err("the answer does not hold exactly one proposal".into());
    };
    let [t] = &theirs.transforms[..] else {
        return Err(format!("the answer holds {} transforms", theirs.transforms.len()));
    };
    if theirs.protocol != protocol::ESP || theirs.number != ours.number {
        return Err("the answer is for another proposal".into());
    }
    let offered = ours
        .transforms
        .iter()
        .find(|o| o.number == t.number && o.id == t.id && wishes_2(o).is_some() && wishes_2(o) == wishes_2(t))
        .ok_or("the answer's transform differs from what was offered")?;
    let (transform, wishes) = esp_match(entry, offered, ends).ok_or("the transform set is gone")?;
    Ok(EspChoice {
        transform,
        spi: read_spi(theirs)?,
        pfs: wishes.get(p2::GROUP).and_then(DhGroup::from_number),
        lifetime: agreed_lifetime(entry.lifetime, &wishes),
        answer: answer.clone(),
        shortened: false,
    })
}

/// Data of RESPONDER-LIFETIME for an ISAKMP SA.
pub fn isakmp_lifetime_data(seconds: u64) -> Vec<u8> {
    attribute_data(vec![Attribute::basic(p1::LIFE_TYPE, LIFE_SECONDS), Attribute::number(p1::LIFE_DURATION, seconds)])
}

/// Data of RESPONDER-LIFETIME for a child SA.
pub fn lifetime_data(l: Lifetime) -> Vec<u8> {
    attribute_data(lifetime_attributes(l))
}

fn attribute_data(attributes: Vec<Attribute>) -> Vec<u8> {
    let t = Transform { number: 0, id: 0, attributes };
    let sa = SaPayload { proposals: vec![Proposal { number: 0, protocol: 0, spi: Vec::new(), transforms: vec![t] }] };
    // DOI, situation, proposal header, transform header: 8 + 8 + 8 bytes before the attributes.
    sa.encode().split_off(24)
}

/// Reads the data of RESPONDER-LIFETIME; `None` when it is malformed. `phase1` tells whose attribute numbers are meant.
pub fn read_lifetime_data(data: &[u8], phase1: bool) -> Option<Lifetime> {
    let attributes = Attribute::decode_list(data).ok()?;
    let (kind, duration) = if phase1 { (p1::LIFE_TYPE, p1::LIFE_DURATION) } else { (p2::LIFE_TYPE, p2::LIFE_DURATION) };
    let w = Wishes::read(&attributes, kind, duration)?;
    Some(Lifetime { seconds: w.seconds.unwrap_or(0), kilobytes: w.kilobytes.unwrap_or(0) })
}

#[cfg(test)]
#[path = "proposal_tests.rs"]
mod tests;
