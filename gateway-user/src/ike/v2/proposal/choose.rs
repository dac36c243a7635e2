//! Choosing from an offer (RFC 7296 2.7), and checking an answer.

use super::codec::{Proposal, Transform, transform_type};
use super::offer::ADDITIONAL_MAX;
use super::{EspSuite, IkeSuite};
use crate::crypto::{CipherAlg, DhGroup, IntegAlg};
use crate::id::Spi;
use crate::ike::policy::{EspTransform, Ikev2Proposal};
use crate::ike::v2::message::Protocol;
use crate::sad::Mode;

/// Why there is no common proposal, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoProposal {
    /// Nothing of the offer meets what is configured.
    NothingInCommon,
    /// The answer does not follow from our offer.
    AnswerNotOffered,
    /// The SPI is reserved or has a wrong length.
    Spi,
}

impl std::fmt::Display for NoProposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NothingInCommon => "nothing of the offer meets what is configured",
            Self::AnswerNotOffered => "the answer is not part of the offer",
            Self::Spi => "the SPI of the proposal is not valid",
        })
    }
}

/// What is agreed for an IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeChoice {
    /// The algorithms.
    pub suite: IkeSuite,
    /// The peer's SPI, when an IKE SA is rekeyed.
    pub spi: Option<[u8; 8]>,
    /// Responder: the proposal to answer with. Its SPI is empty: put ours in when an IKE SA is rekeyed.
    pub answer: Proposal,
}

/// What is agreed for a pair of ESP SAs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspChoice {
    /// The algorithms.
    pub suite: EspSuite,
    /// The peer's SPI, on which it receives.
    pub spi: Spi,
    /// Responder: the proposal to answer with. Its SPI is empty: put ours in.
    pub answer: Proposal,
}

/// How a child SA may use Diffie-Hellman.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildDh {
    /// IKE_AUTH has no KE payload: groups of the offer are passed over (RFC 7296 1.2).
    Absent,
    /// Nothing configured: without if the peer lets us, else with a group of the peer.
    Any,
    /// This group and no other.
    Only(DhGroup),
}

/// Transforms of one type in one proposal.
fn of_type(p: &Proposal, kind: u8) -> impl Iterator<Item = &Transform> {
    p.transforms.iter().filter(move |t| t.kind == kind && t.understood)
}

fn has_type(p: &Proposal, kind: u8) -> bool {
    p.transforms.iter().any(|t| t.kind == kind)
}

fn offers(p: &Proposal, t: Transform) -> bool {
    p.transforms.contains(&t)
}

/// The "none" of a type (number 0), to be answered when the peer offers the type and we take nothing of it. `Err` when it must be taken.
fn none_of(p: &Proposal, kind: u8) -> Result<Option<Transform>, ()> {
    let none = Transform::new(kind, 0);
    match (has_type(p, kind), offers(p, none)) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(none)),
        (true, false) => Err(()),
    }
}

/// Chooses for an IKE SA: our first proposal that one of the peer's meets, in it our first algorithm of each type. `ke_group` is the group
/// of the peer's KE payload: taken when it is allowed, because any other costs a round trip (compare [`IkeSuite::group`] with it, and
/// answer INVALID_KE_PAYLOAD when they differ). `rekey`: the peer's proposals must have an SPI.
///
/// # Errors
/// Nothing in common, or the SPI is not valid.
pub fn choose_ike(ours: &[Ikev2Proposal], offer: &[Proposal], ke_group: Option<u16>, rekey: bool) -> Result<IkeChoice, NoProposal> {
    let found = ours.iter().find_map(|our| {
        let usable = offer.iter().filter(|p| p.protocol == Protocol::Ike && only_types(p, &IKE_TYPES));
        usable.filter_map(|p| meet_ike(our, p, ke_group).map(|(suite, transforms)| (suite, transforms, p))).next()
    });
    let (suite, transforms, p) = found.ok_or(NoProposal::NothingInCommon)?;
    let spi = ike_spi(p, rekey)?;
    Ok(IkeChoice { suite, spi, answer: Proposal { number: p.number, protocol: Protocol::Ike, spi: Vec::new(), transforms } })
}

fn ike_spi(p: &Proposal, rekey: bool) -> Result<Option<[u8; 8]>, NoProposal> {
    match (rekey, p.ike_spi()) {
        (true, Some(spi)) => Ok(Some(spi)),
        // RFC 7296 3.3.1: the size must be zero, what is there is ignored.
        (false, _) => Ok(None),
        (true, None) => Err(NoProposal::Spi),
    }
}

const IKE_TYPES: [u8; 11] = [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12];
const ESP_TYPES: [u8; 11] = [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// A proposal with a transform type that we do not know cannot be accepted (RFC 7296 3.3.6).
fn only_types(p: &Proposal, known: &[u8]) -> bool {
    p.transforms.iter().all(|t| known.contains(&t.kind))
}

fn meet_ike(our: &Ikev2Proposal, p: &Proposal, ke_group: Option<u16>) -> Option<(IkeSuite, Vec<Transform>)> {
    let (encr, integ, mut transforms) = our.encryption.iter().find_map(|encr| meet_cipher(*encr, our.integrity.iter().copied(), p))?;
    if integ.is_none() && !encr.is_aead() {
        return None;
    }
    let prf = our.prf.iter().copied().find(|prf| offers(p, Transform::prf(*prf)))?;
    let allowed = || our.groups.iter().copied().filter(|g| offers(p, Transform::ke(*g)));
    let group = allowed().find(|g| ke_group == Some(g.number())).or_else(|| allowed().next())?;
    transforms.extend([Transform::prf(prf), Transform::ke(group)]);
    let mut additional = Vec::new();
    for slot in 0..ADDITIONAL_MAX as u8 {
        let wanted = our.additional.get(usize::from(slot)).map_or(&[][..], Vec::as_slice);
        if wanted.is_empty() {
            transforms.extend(none_of(p, transform_type::ADDITIONAL_KE_1 + slot).ok()?);
            continue;
        }
        // RFC 9370 2.2.1: no method twice.
        let fresh = |g: &DhGroup| *g != group && !additional.contains(g);
        let method = wanted.iter().copied().find(|g| fresh(g) && offers(p, Transform::additional(slot, *g)))?;
        transforms.push(Transform::additional(slot, method));
        additional.push(method);
    }
    Some((IkeSuite { encr, integ, prf, group, additional }, transforms))
}

/// Encryption with the integrity that goes with it, as the proposal has them.
fn meet_cipher(
    encr: CipherAlg,
    mut integrity: impl Iterator<Item = IntegAlg>,
    p: &Proposal,
) -> Option<(CipherAlg, Option<IntegAlg>, Vec<Transform>)> {
    if !offers(p, Transform::encr(encr)) {
        return None;
    }
    let mut transforms = vec![Transform::encr(encr)];
    let integ = if encr.is_aead() { None } else { integrity.find(|i| offers(p, Transform::integ(*i))) };
    match integ {
        Some(integ) => transforms.push(Transform::integ(integ)),
        None => transforms.extend(none_of(p, transform_type::INTEG).ok()?),
    }
    Some((encr, integ, transforms))
}

/// Chooses for a pair of ESP SAs: our first transform set of this mode that one of the peer's proposals meets. `ke_group` as for
/// [`choose_ike`].
///
/// # Errors
/// Nothing in common, or the SPI is not valid.
pub fn choose_esp(
    sets: &[EspTransform],
    mode: Mode,
    dh: ChildDh,
    esn: bool,
    offer: &[Proposal],
    ke_group: Option<u16>,
) -> Result<EspChoice, NoProposal> {
    let found = sets.iter().filter(|s| s.mode == mode).find_map(|set| {
        let usable = offer.iter().filter(|p| p.protocol == Protocol::Esp && only_types(p, &ESP_TYPES));
        usable.filter_map(|p| meet_esp(set, dh, esn, p, ke_group).map(|(suite, transforms)| (suite, transforms, p))).next()
    });
    let (suite, transforms, p) = found.ok_or(NoProposal::NothingInCommon)?;
    let spi = p.esp_spi().ok_or(NoProposal::Spi)?;
    Ok(EspChoice { suite, spi, answer: Proposal { number: p.number, protocol: Protocol::Esp, spi: Vec::new(), transforms } })
}

fn meet_esp(set: &EspTransform, dh: ChildDh, esn: bool, p: &Proposal, ke_group: Option<u16>) -> Option<(EspSuite, Vec<Transform>)> {
    let (encr, integ, mut transforms) = meet_cipher(set.encr, set.integ.into_iter(), p)?;
    if integ != set.integ {
        return None;
    }
    let group = match dh {
        ChildDh::Absent => None,
        ChildDh::Only(group) => Some(group).filter(|g| offers(p, Transform::ke(*g)))?.into(),
        ChildDh::Any => match none_of(p, transform_type::KE) {
            Ok(none) => {
                transforms.extend(none);
                None
            }
            Err(()) => {
                let known = || of_type(p, transform_type::KE).filter_map(|t| DhGroup::from_number(t.id)).filter(|g| !g.is_kem());
                let group = known().find(|g| ke_group == Some(g.number())).or_else(|| known().next())?;
                Some(group)
            }
        },
    };
    transforms.extend(group.map(Transform::ke));
    if dh != ChildDh::Absent {
        for kind in transform_type::ADDITIONAL_KE_1..=transform_type::ADDITIONAL_KE_7 {
            transforms.extend(none_of(p, kind).ok()?);
        }
    }
    // A peer that leaves the type out means 32-bit numbers.
    let esn = match has_type(p, transform_type::ESN) {
        false => false,
        true => {
            let esn = [true, false].into_iter().filter(|on| esn || !on).find(|on| offers(p, Transform::esn(*on)))?;
            transforms.push(Transform::esn(esn));
            esn
        }
    };
    Some((EspSuite { name: set.name.clone(), encr, integ, group, esn }, transforms))
}

/// Checks the answer to our [`super::ike_offer`].
///
/// # Errors
/// It is not one proposal with one transform of each type that we offered under that number; or its SPI is not valid.
pub fn accept_ike(ours: &[Ikev2Proposal], offer: &[Proposal], answer: &[Proposal], rekey: bool) -> Result<IkeChoice, NoProposal> {
    let p = accept(offer, answer)?;
    let our = ours.get(usize::from(p.number).wrapping_sub(1)).ok_or(NoProposal::AnswerNotOffered)?;
    // With one transform of each type left, choosing finds exactly those.
    let (suite, transforms) = meet_ike(our, p, None).ok_or(NoProposal::AnswerNotOffered)?;
    let spi = ike_spi(p, rekey)?;
    Ok(IkeChoice { suite, spi, answer: Proposal { spi: Vec::new(), transforms, ..p.clone() } })
}

/// Checks the answer to our [`super::esp_offer`].
///
/// # Errors
/// As [`accept_ike`].
pub fn accept_esp(sets: &[EspTransform], mode: Mode, offer: &[Proposal], answer: &[Proposal]) -> Result<EspChoice, NoProposal> {
    let p = accept(offer, answer)?;
    let set = sets.iter().filter(|s| s.mode == mode).nth(usize::from(p.number).wrapping_sub(1)).ok_or(NoProposal::AnswerNotOffered)?;
    let group = of_type(p, transform_type::KE).find_map(|t| DhGroup::from_number(t.id));
    let dh = group.map_or(ChildDh::Absent, ChildDh::Only);
    let (suite, transforms) = meet_esp(set, dh, true, p, None).ok_or(NoProposal::AnswerNotOffered)?;
    let spi = p.esp_spi().ok_or(NoProposal::Spi)?;
    Ok(EspChoice { suite, spi, answer: Proposal { spi: Vec::new(), transforms, ..p.clone() } })
}

/// The one proposal of an answer, when it is part of the offer: same number and protocol, one transform for each type, each of them offered.
fn accept<'a>(offer: &[Proposal], answer: &'a [Proposal]) -> Result<&'a Proposal, NoProposal> {
    let [p] = answer else { return Err(NoProposal::AnswerNotOffered) };
    let offered = offer.iter().find(|o| o.number == p.number && o.protocol == p.protocol).ok_or(NoProposal::AnswerNotOffered)?;
    let once = |t: &Transform| p.transforms.iter().filter(|o| o.kind == t.kind).count() == 1;
    let complete = offered.transforms.iter().all(|o| has_type(p, o.kind));
    // "None" of integrity or of a key exchange may be said where we left the type out.
    let said = |t: &Transform| offered.transforms.contains(t) || (t.id == 0 && t.kind != transform_type::ESN && !has_type(offered, t.kind));
    if complete && p.transforms.iter().all(|t| once(t) && said(t)) { Ok(p) } else { Err(NoProposal::AnswerNotOffered) }
}
