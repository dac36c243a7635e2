//! What we offer.

use super::codec::{Proposal, Transform, transform_type};
use crate::crypto::DhGroup;
use crate::id::Spi;
use crate::ike::policy::{EspTransform, Ikev2Proposal};
use crate::ike::v2::message::Protocol;
use crate::sad::Mode;

/// Additional key exchanges that exist (RFC 9370).
pub(super) const ADDITIONAL_MAX: usize = (transform_type::ADDITIONAL_KE_7 - transform_type::ADDITIONAL_KE_1 + 1) as usize;

/// One proposal for each that is configured, in its order. `spi` is our SPI when an IKE SA is rekeyed.
pub fn ike_offer(proposals: &[Ikev2Proposal], spi: Option<[u8; 8]>) -> Vec<Proposal> {
    let spi = spi.map_or_else(Vec::new, |s| s.to_vec());
    let one = |(number, p): (u8, &Ikev2Proposal)| {
        let mut transforms: Vec<Transform> = p.encryption.iter().copied().map(Transform::encr).collect();
        transforms.extend(p.integrity.iter().copied().map(Transform::integ));
        transforms.extend(p.prf.iter().copied().map(Transform::prf));
        transforms.extend(p.groups.iter().copied().map(Transform::ke));
        for (slot, groups) in (0..).zip(p.additional.iter().take(ADDITIONAL_MAX)) {
            transforms.extend(groups.iter().map(|g| Transform::additional(slot, *g)));
        }
        Proposal { number, protocol: Protocol::Ike, spi: spi.clone(), transforms }
    };
    (1..=u8::MAX).zip(proposals).map(one).collect()
}

/// One proposal for each transform set of this mode, in its order. `group` is given in CREATE_CHILD_SA only.
pub fn esp_offer(sets: &[EspTransform], mode: Mode, group: Option<DhGroup>, esn: bool, spi: Spi) -> Vec<Proposal> {
    let one = |(number, set): (u8, &EspTransform)| {
        let mut transforms = vec![Transform::encr(set.encr)];
        transforms.extend(set.integ.map(Transform::integ));
        transforms.extend(group.map(Transform::ke));
        if esn {
            transforms.push(Transform::esn(true));
        }
        transforms.push(Transform::esn(false));
        Proposal { number, protocol: Protocol::Esp, spi: spi.0.to_be_bytes().to_vec(), transforms }
    };
    (1..=u8::MAX).zip(sets.iter().filter(|s| s.mode == mode)).map(one).collect()
}
