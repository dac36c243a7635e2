//! Offers, choices, answers.

use super::*;
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg};
use crate::id::Spi;
use crate::ike::policy::{EspTransform, Ikev2Proposal};
use crate::ike::v2::message::Protocol;
use crate::sad::Mode;
use crate::wire::{Decode, DecodeError, Reader};
use proptest::prelude::*;

const GCM: CipherAlg = CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16);

fn classic() -> Ikev2Proposal {
    Ikev2Proposal {
        name: "classic".into(),
        encryption: vec![CipherAlg::Aes256, CipherAlg::Aes128],
        integrity: vec![IntegAlg::HmacSha256, IntegAlg::HmacSha1],
        prf: vec![PrfAlg::HmacSha256, PrfAlg::HmacSha1],
        groups: vec![DhGroup::X25519, DhGroup::Modp2048],
        additional: Vec::new(),
    }
}

fn combined() -> Ikev2Proposal {
    Ikev2Proposal { name: "combined".into(), encryption: vec![GCM], integrity: Vec::new(), prf: vec![PrfAlg::HmacSha384], ..classic() }
}

fn hybrid() -> Ikev2Proposal {
    Ikev2Proposal { name: "hybrid".into(), additional: vec![vec![DhGroup::MlKem768]], ..combined() }
}

fn set(encr: CipherAlg, integ: Option<IntegAlg>) -> EspTransform {
    EspTransform { name: encr.name().into(), encr, integ, mode: Mode::Tunnel }
}

fn wire(proposals: &[Proposal]) -> Decode<Vec<Proposal>> {
    Proposal::decode_all(Reader::new(&Proposal::encode_all(proposals)))
}

/// Answer as it arrives, with our SPI in it.
fn answered(mut answer: Proposal, spi: &[u8]) -> Vec<Proposal> {
    answer.spi = spi.to_vec();
    wire(&[answer]).unwrap()
}

fn esp(transforms: &[Transform]) -> Proposal {
    Proposal { number: 1, protocol: Protocol::Esp, spi: vec![0, 0, 1, 0], transforms: transforms.to_vec() }
}

fn ike(transforms: &[Transform]) -> Proposal {
    Proposal { number: 1, protocol: Protocol::Ike, spi: Vec::new(), transforms: transforms.to_vec() }
}

fn t(kind: u8, id: u16) -> Transform {
    Transform::new(kind, id)
}

fn aes(bits: u16) -> Transform {
    Transform { key_bits: Some(bits), ..t(1, 12) }
}

#[test]
fn bytes_of_an_offer() {
    let ours = [Ikev2Proposal {
        encryption: vec![CipherAlg::Aes128],
        integrity: vec![IntegAlg::HmacSha256],
        prf: vec![PrfAlg::HmacSha256],
        groups: vec![DhGroup::Modp2048],
        ..classic()
    }];
    // The first proposal of the recorded exchange with the same algorithms.
    let want = hex_literal::hex!("0000002c 01010004  0300000c 0100000c 800e0080  03000008 0300000c  03000008 02000005  00000008 0400000e");
    assert_eq!(Proposal::encode_all(&ike_offer(&ours, None)), want);
}

#[test]
fn both_ends_agree_on_what_the_responder_prefers() {
    let ours = [hybrid(), combined(), classic()];
    for n in 0..ours.len() {
        let theirs = &ours[n..];
        let offer = wire(&ike_offer(&ours, None)).unwrap();
        let choice = choose_ike(theirs, &offer, Some(31), false).unwrap();
        assert_eq!(choice.answer.number as usize, n + 1);
        assert_eq!((choice.suite.encr, choice.suite.prf), (theirs[0].encryption[0], theirs[0].prf[0]));
        assert_eq!(choice.suite.additional.len(), theirs[0].additional.len());
        let accepted = accept_ike(&ours, &offer, &answered(choice.answer, &[]), false).unwrap();
        assert_eq!(accepted.suite, choice.suite);
    }
}

#[test]
fn the_group_of_the_peer_is_taken_when_it_is_allowed() {
    let offer = ike_offer(&[classic()], None);
    let group = |ke| choose_ike(&[classic()], &offer, ke, false).unwrap().suite.group;
    assert_eq!(group(Some(14)), DhGroup::Modp2048);
    assert_eq!(group(Some(31)), DhGroup::X25519);
    // Not offered, or unknown: ours, and the engine answers INVALID_KE_PAYLOAD with it.
    assert_eq!(group(Some(19)), DhGroup::X25519);
    assert_eq!(group(Some(1025)), DhGroup::X25519);
    assert_eq!(group(None), DhGroup::X25519);
}

#[test]
fn our_order_counts_not_the_peer_s() {
    let mut theirs = classic();
    theirs.encryption.reverse();
    theirs.integrity.reverse();
    theirs.prf.reverse();
    let offer = ike_offer(&[theirs, combined()], None);
    let choice = choose_ike(&[classic(), combined()], &offer, None, false).unwrap();
    assert_eq!(
        (choice.suite.encr, choice.suite.integ, choice.suite.prf),
        (CipherAlg::Aes256, Some(IntegAlg::HmacSha256), PrfAlg::HmacSha256)
    );
    assert_eq!(choose_ike(&[combined(), classic()], &offer, None, false).unwrap().suite.encr, GCM);
}

#[test]
fn what_we_do_not_know_is_passed_over() {
    let good = ike_offer(&[classic()], None).remove(0);
    let choose = |p: &Proposal| choose_ike(&[classic()], std::slice::from_ref(p), None, false);
    assert!(choose(&good).is_ok());
    // More transforms than we know, an implicit-IV suite among them (RFC 8750).
    let mut more = good.clone();
    more.transforms.extend([t(1, 30), t(1, 999), t(2, 99), t(3, 7), t(4, 33), Transform { key_bits: Some(256), ..t(1, 30) }]);
    assert_eq!(choose(&more).unwrap().suite, choose(&good).unwrap().suite);
    // A transform type that we do not know makes the proposal useless, another protocol too.
    let mut strange = good.clone();
    strange.transforms.push(t(13, 1));
    assert_eq!(choose(&strange), Err(NoProposal::NothingInCommon));
    assert_eq!(choose(&Proposal { protocol: Protocol::Ah, ..good.clone() }), Err(NoProposal::NothingInCommon));
    assert_eq!(choose_ike(&[classic()], &[strange, good], None, false).unwrap().answer.number, 1);
    // IKE_SA_INIT without a group (CVE-2016-5391), or without a PRF.
    for kind in [transform_type::KE, transform_type::PRF, transform_type::INTEG, transform_type::ENCR] {
        let mut p = ike_offer(&[classic()], None).remove(0);
        p.transforms.retain(|t| t.kind != kind);
        assert_eq!(choose(&p), Err(NoProposal::NothingInCommon), "{kind}");
        p.transforms.push(t(kind, 0));
        assert_eq!(choose(&p), Err(NoProposal::NothingInCommon), "none of {kind}");
    }
    assert_eq!(choose(&ike(&[])), Err(NoProposal::NothingInCommon));
    assert_eq!(choose_ike(&[], &[ike(&[])], None, false), Err(NoProposal::NothingInCommon));
}

#[test]
fn aes_needs_its_key_length_and_others_must_not_have_one() {
    let base = [t(3, 12), t(2, 5), t(4, 31)];
    let choose = |encr: Transform| {
        let ours = Ikev2Proposal { encryption: vec![CipherAlg::Aes128, CipherAlg::TripleDes], ..classic() };
        choose_ike(&[ours], &[ike(&[&[encr][..], &base].concat())], None, false).map(|c| c.suite.encr)
    };
    assert_eq!(choose(aes(128)), Ok(CipherAlg::Aes128));
    assert_eq!(choose(t(1, 3)), Ok(CipherAlg::TripleDes));
    for bad in
        [t(1, 12), aes(129), aes(0), aes(256), Transform { key_bits: Some(192), ..t(1, 3) }, Transform { understood: false, ..aes(128) }]
    {
        assert_eq!(choose(bad), Err(NoProposal::NothingInCommon), "{bad:?}");
    }
}

#[test]
fn combined_modes_go_without_integrity() {
    let gcm = Transform::encr(GCM);
    let rest = [t(2, 6), t(4, 31)];
    let choose = |more: &[Transform]| choose_ike(&[combined()], &[ike(&[&[gcm], &rest[..], more].concat())], None, false);
    assert_eq!(choose(&[]).unwrap().suite.integ, None);
    let none = choose(&[t(3, 0)]).unwrap();
    assert!(none.answer.transforms.contains(&t(3, 0)), "every type of the offer is answered");
    assert_eq!(choose(&[t(3, 0), t(3, 12)]).unwrap().suite.integ, None);
    // RFC 7296 3.3: combined and other ciphers never share a proposal.
    assert_eq!(choose(&[t(3, 12)]), Err(NoProposal::NothingInCommon));
}

#[test]
fn additional_key_exchanges() {
    let base = [Transform::encr(GCM), t(2, 6), t(4, 31)];
    let choose =
        |ours: &Ikev2Proposal, more: &[Transform]| choose_ike(std::slice::from_ref(ours), &[ike(&[&base[..], more].concat())], None, false);
    let kem = DhGroup::MlKem768;
    assert_eq!(choose(&hybrid(), &[t(6, 36)]).unwrap().suite.additional, [kem]);
    assert_eq!(choose(&hybrid(), &[t(6, 35), t(6, 36), t(6, 0), t(7, 0)]).unwrap().suite.additional, [kem]);
    // The peer must have it, and must not insist on one that we do not want.
    assert_eq!(choose(&hybrid(), &[]), Err(NoProposal::NothingInCommon));
    assert_eq!(choose(&hybrid(), &[t(6, 0)]), Err(NoProposal::NothingInCommon));
    assert_eq!(choose(&hybrid(), &[t(7, 36)]), Err(NoProposal::NothingInCommon));
    assert_eq!(choose(&hybrid(), &[t(6, 36), t(7, 36)]), Err(NoProposal::NothingInCommon));
    assert_eq!(choose(&combined(), &[t(6, 36)]), Err(NoProposal::NothingInCommon));
    let without = choose(&combined(), &[t(6, 36), t(6, 0)]).unwrap();
    assert!(without.suite.additional.is_empty() && without.answer.transforms.contains(&t(6, 0)));
    // The same method twice is no gain (RFC 9370 2.2.1).
    let twice = Ikev2Proposal { additional: vec![vec![kem], vec![kem, DhGroup::Ecp384]], ..combined() };
    assert_eq!(choose(&twice, &[t(6, 36), t(7, 36)]), Err(NoProposal::NothingInCommon));
    assert_eq!(choose(&twice, &[t(6, 36), t(7, 36), t(7, 20)]).unwrap().suite.additional, [kem, DhGroup::Ecp384]);
    let again = Ikev2Proposal { additional: vec![vec![DhGroup::X25519, kem]], ..combined() };
    assert_eq!(choose(&again, &[t(6, 31), t(6, 36)]).unwrap().suite.additional, [kem]);
    // A slot that is left out.
    let gap = Ikev2Proposal { additional: vec![vec![], vec![kem]], ..combined() };
    let offer = ike_offer(std::slice::from_ref(&gap), None);
    assert_eq!(offer[0].transforms.iter().filter(|t| t.kind >= 6).map(|t| t.kind).collect::<Vec<_>>(), [7]);
    let choice = choose_ike(std::slice::from_ref(&gap), &offer, None, false).unwrap();
    assert_eq!(accept_ike(&[gap], &offer, &answered(choice.answer, &[]), false).unwrap().suite.additional, [kem]);
}

#[test]
fn a_rekeyed_ike_sa_has_an_spi() {
    let offer = ike_offer(&[classic()], Some([7; 8]));
    assert_eq!(choose_ike(&[classic()], &offer, None, true).unwrap().spi, Some([7; 8]));
    for spi in [vec![], vec![0; 8], vec![1; 4], vec![1; 255]] {
        let bad = [Proposal { spi, ..offer[0].clone() }];
        assert_eq!(choose_ike(&[classic()], &bad, None, true), Err(NoProposal::Spi));
        assert_eq!(choose_ike(&[classic()], &bad, None, false).unwrap().spi, None);
    }
}

#[test]
fn an_answer_must_follow_from_the_offer() {
    let ours = [classic(), combined()];
    let offer = ike_offer(&ours, None);
    let good = choose_ike(&ours, &offer, None, false).unwrap().answer;
    let accept = |answer: &[Proposal]| accept_ike(&ours, &offer, answer, false).map(|c| c.suite.encr);
    assert_eq!(accept(std::slice::from_ref(&good)), Ok(CipherAlg::Aes256));
    let refused = Err(NoProposal::AnswerNotOffered);
    assert_eq!(accept(&[]), refused);
    assert_eq!(accept(&[good.clone(), good.clone()]), refused);
    assert_eq!(accept(&offer[..1]), refused, "two of a type");
    for number in [0, 2, 3, 255] {
        assert_eq!(accept(&[Proposal { number, ..good.clone() }]), refused);
    }
    assert_eq!(accept(&[Proposal { protocol: Protocol::Esp, ..good.clone() }]), refused);
    for at in 0..good.transforms.len() {
        let mut bad = good.clone();
        bad.transforms.remove(at);
        assert_eq!(accept(&[bad]), refused, "one of type {} is missing", good.transforms[at].kind);
        let mut bad = good.clone();
        bad.transforms[at].id += 100;
        assert_eq!(accept(&[bad]), refused);
        let mut bad = good.clone();
        bad.transforms[at].key_bits = Some(64);
        assert_eq!(accept(&[bad]), refused);
    }
    let mut more = good.clone();
    more.transforms.push(t(6, 36));
    assert_eq!(accept(&[more]), refused);
    let mut none = good;
    none.transforms.push(t(6, 0));
    assert_eq!(accept(&[none]), Ok(CipherAlg::Aes256), "saying none of what was not offered does no harm");
}

#[test]
fn esp_from_both_ends() {
    let ours = [set(GCM, None), set(CipherAlg::Aes128, Some(IntegAlg::HmacSha1)), set(CipherAlg::Null, Some(IntegAlg::HmacMd5))];
    let spi = Spi(0xabcd_ef01);
    for n in 0..3 {
        for esn in [false, true] {
            for group in [None, Some(DhGroup::Ecp256)] {
                let offer = wire(&esp_offer(&ours, Mode::Tunnel, group, esn, spi)).unwrap();
                let dh = group.map_or(ChildDh::Any, ChildDh::Only);
                let choice = choose_esp(&ours[n..], Mode::Tunnel, dh, esn, &offer, None).unwrap();
                assert_eq!((choice.spi, choice.suite.name.as_str(), choice.suite.esn), (spi, ours[n].encr.name(), esn));
                assert_eq!(choice.suite.group, group);
                let answer = answered(choice.answer, &[9, 9, 9, 9]);
                let accepted = accept_esp(&ours, Mode::Tunnel, &offer, &answer).unwrap();
                assert_eq!((accepted.suite, accepted.spi), (choice.suite, Spi(0x0909_0909)));
            }
        }
    }
}

#[test]
fn forward_secrecy_and_esn_follow_the_rules() {
    let ours = [set(CipherAlg::Aes128, Some(IntegAlg::HmacSha256))];
    let base = [aes(128), t(3, 12)];
    let choose = |dh, esn, more: &[Transform]| {
        choose_esp(&ours, Mode::Tunnel, dh, esn, &[esp(&[&base[..], more].concat())], Some(14))
            .map(|c| (c.suite.group, c.suite.esn, c.answer))
    };
    let refused = Err(NoProposal::NothingInCommon);
    let (group14, group19) = (Some(DhGroup::Modp2048), Some(DhGroup::Ecp256));
    let pick = |r: Result<(Option<DhGroup>, bool, Proposal), NoProposal>| r.map(|(g, e, _)| (g, e));
    assert_eq!(pick(choose(ChildDh::Absent, false, &[t(4, 19)])), Ok((None, false)));
    assert_eq!(pick(choose(ChildDh::Any, false, &[])), Ok((None, false)));
    assert_eq!(pick(choose(ChildDh::Any, false, &[t(4, 19), t(4, 0)])), Ok((None, false)));
    assert_eq!(pick(choose(ChildDh::Any, false, &[t(4, 19), t(4, 14)])), Ok((group14, false)), "the group of the KE payload");
    assert_eq!(pick(choose(ChildDh::Any, false, &[t(4, 19)])), Ok((group19, false)));
    assert_eq!(pick(choose(ChildDh::Any, false, &[t(4, 1025)])), refused);
    assert_eq!(pick(choose(ChildDh::Only(DhGroup::Ecp256), false, &[t(4, 19), t(4, 14)])), Ok((group19, false)));
    assert_eq!(pick(choose(ChildDh::Only(DhGroup::Ecp256), false, &[t(4, 14)])), refused);
    assert_eq!(pick(choose(ChildDh::Only(DhGroup::Ecp256), false, &[])), refused);
    assert_eq!(pick(choose(ChildDh::Any, false, &[t(6, 36)])), refused);
    let (_, _, answer) = choose(ChildDh::Any, true, &[t(4, 0), t(5, 0), t(5, 1), t(6, 0)]).unwrap();
    assert_eq!(answer.transforms, [aes(128), t(3, 12), t(4, 0), t(6, 0), t(5, 1)]);
    assert_eq!(pick(choose(ChildDh::Absent, false, &[t(5, 1), t(5, 0)])), Ok((None, false)));
    assert_eq!(pick(choose(ChildDh::Absent, true, &[t(5, 0)])), Ok((None, false)));
    assert_eq!(pick(choose(ChildDh::Absent, false, &[t(5, 1)])), refused);
    assert_eq!(pick(choose(ChildDh::Absent, true, &[t(5, 2)])), refused);
    let mode = choose_esp(&ours, Mode::Transport, ChildDh::Absent, false, &[esp(&base)], None);
    assert_eq!(mode, Err(NoProposal::NothingInCommon));
}

#[test]
fn reserved_spis_and_encryption_without_integrity() {
    let bare = [set(CipherAlg::TripleDes, None)];
    let choose = |p: Proposal| choose_esp(&bare, Mode::Tunnel, ChildDh::Absent, false, &[p], None).map(|c| c.suite.integ);
    assert_eq!(choose(esp(&[t(1, 3)])), Ok(None));
    assert_eq!(choose(esp(&[t(1, 3), t(3, 0)])), Ok(None));
    assert_eq!(choose(esp(&[t(1, 3), t(3, 2)])), Err(NoProposal::NothingInCommon));
    for spi in [vec![0, 0, 0, 255], vec![0; 4], vec![], vec![1; 8]] {
        assert_eq!(choose(Proposal { spi, ..esp(&[t(1, 3)]) }), Err(NoProposal::Spi));
    }
    let with = [set(CipherAlg::TripleDes, Some(IntegAlg::HmacSha1))];
    assert!(choose_esp(&with, Mode::Tunnel, ChildDh::Absent, false, &[esp(&[t(1, 3), t(3, 0)])], None).is_err());
}

#[test]
fn lengths_and_counts_inside_are_checked() {
    let good = Proposal::encode_all(&ike_offer(&[classic(), combined()], None));
    let first = usize::from(good[3]);
    let read = |change: &[(usize, u8)]| {
        let mut bytes = good.clone();
        change.iter().for_each(|&(at, v)| bytes[at] = v);
        Proposal::decode_all(Reader::new(&bytes)).map(|p| p.len())
    };
    assert_eq!(read(&[]), Ok(2));
    let value = |field, got| Err(DecodeError::Value { field, got });
    assert_eq!(read(&[(0, 0)]), value("last proposal", 0));
    assert_eq!(read(&[(0, 1)]), value("last proposal", 1));
    assert_eq!(read(&[(first, 2)]), value("last proposal", 2));
    assert_eq!(read(&[(2, 0xff)]), Err(DecodeError::Truncated { field: "proposal" }));
    assert_eq!(read(&[(3, 3)]), Err(DecodeError::Length { field: "proposal length", got: 3 }));
    assert_eq!(read(&[(3, 0)]), Err(DecodeError::Length { field: "proposal length", got: 0 }));
    assert_eq!(read(&[(6, 255)]), Err(DecodeError::Truncated { field: "SPI" }));
    // One transform less than there are, one more, none.
    assert_eq!(read(&[(7, good[7] - 1)]), value("last transform", 3));
    assert_eq!(read(&[(7, good[7] + 1)]), value("last transform", 0));
    assert!(matches!(read(&[(7, 0)]), Err(DecodeError::Trailing { field: "proposal", .. })));
    assert_eq!(read(&[(11, 3)]), Err(DecodeError::Length { field: "transform length", got: 3 }));
    assert_eq!(read(&[(10, 9)]), Err(DecodeError::Truncated { field: "transform" }));
    for n in 0..good.len() {
        assert!(Proposal::decode_all(Reader::new(&good[..n])).is_err(), "{n}");
    }
    let many: Vec<Proposal> = (0..65).map(|_| ike(&[])).collect();
    assert_eq!(wire(&many), Err(DecodeError::Length { field: "proposals", got: 65 }));
    assert_eq!(wire(&many[..64]).unwrap().len(), 64);
}

#[test]
fn attributes_that_we_do_not_know_spoil_their_transform() {
    let read = |attributes: &[u8]| {
        let body = [&[1, 0, 0, 12], attributes].concat();
        let length = (body.len() + 4) as u8;
        let bytes = [&[0, 0, 0, length + 8, 1, 1, 0, 1, 0, 0, 0, length], &body[..]].concat();
        Proposal::decode_all(Reader::new(&bytes)).map(|p| (p[0].transforms[0].key_bits, p[0].transforms[0].understood))
    };
    assert_eq!(read(&[]), Ok((None, true)));
    assert_eq!(read(&[0x80, 14, 0, 128]), Ok((Some(128), true)));
    assert_eq!(read(&[0x80, 14, 0, 128, 0x80, 14, 1, 0]), Ok((Some(128), false)));
    assert_eq!(read(&[0x80, 99, 0, 128]), Ok((None, false)));
    assert_eq!(read(&[0, 14, 0, 2, 0, 128]), Ok((None, false)));
    assert_eq!(read(&[0, 99, 0, 0, 0x80, 14, 0, 128]), Ok((Some(128), false)));
    assert_eq!(read(&[0, 99, 0, 9, 1]), Err(DecodeError::Truncated { field: "attribute value" }));
    assert_eq!(read(&[0x80, 14, 0]), Err(DecodeError::Truncated { field: "attribute length" }));
}

#[test]
fn every_algorithm_has_a_number_of_its_own() {
    use {AesKey::*, Icv::*};
    let mut all = vec![CipherAlg::Des, CipherAlg::TripleDes, CipherAlg::Null, CipherAlg::ChaCha20Poly1305];
    all.extend([CipherAlg::Aes128, CipherAlg::Aes192, CipherAlg::Aes256]);
    for key in [Bits128, Bits192, Bits256] {
        all.push(CipherAlg::AesCtr(key));
        all.extend([Bytes8, Bytes12, Bytes16].map(|icv| CipherAlg::AesGcm(key, icv)));
        all.extend([Bytes8, Bytes12, Bytes16].map(|icv| CipherAlg::AesCcm(key, icv)));
    }
    let numbers: std::collections::HashSet<_> = all.iter().map(|a| Transform::encr(*a)).collect();
    assert_eq!(numbers.len(), all.len());
    // RFC 8750: 29, 30 and 31 are the implicit-IV suites.
    assert!(numbers.iter().all(|t| t.id <= 28));
    let prfs: std::collections::HashSet<_> = PrfAlg::ALL.iter().map(|a| Transform::prf(*a)).collect();
    assert_eq!(prfs.len(), PrfAlg::ALL.len());
}

fn any_transform() -> impl Strategy<Value = Transform> {
    (0..14u8, 0..40u16, prop::option::of(prop::sample::select(vec![128u16, 192, 256]))).prop_map(|(kind, id, key_bits)| Transform {
        kind,
        id,
        key_bits,
        understood: true,
    })
}

fn any_proposal() -> impl Strategy<Value = Proposal> {
    let transforms = prop::collection::vec(any_transform(), 0..12);
    (any::<u8>(), 0..5u8, prop::collection::vec(any::<u8>(), 0..9), transforms).prop_map(|(number, protocol, spi, transforms)| Proposal {
        number,
        protocol: Protocol::from_number(protocol),
        spi,
        transforms,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn proposals_survive_the_wire(all in prop::collection::vec(any_proposal(), 1..6)) {
        prop_assert_eq!(wire(&all), Ok(all));
    }

    /// Whatever is offered: a choice is inside the offer and inside the configuration.
    #[test]
    fn a_choice_is_in_the_offer(all in prop::collection::vec(any_proposal(), 1..6), more in any_proposal(), ke in 0..40u16) {
        let mut offer = all;
        let mut own = ike_offer(&[classic(), hybrid()], None);
        own[0].transforms.extend(more.transforms);
        offer.append(&mut own);
        for ours in [vec![classic()], vec![combined(), classic()], vec![hybrid()]] {
            if let Ok(choice) = choose_ike(&ours, &offer, Some(ke), false) {
                let p = offer.iter().find(|p| {
                    p.number == choice.answer.number && choice.answer.transforms.iter().all(|t| p.transforms.contains(t))
                });
                prop_assert!(p.is_some());
                prop_assert!(ours.iter().any(|o| o.encryption.contains(&choice.suite.encr) && o.groups.contains(&choice.suite.group)));
                prop_assert_eq!(choice.suite.integ.is_none(), choice.suite.encr.is_aead());
            }
        }
    }

    #[test]
    fn mutations_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = Proposal::encode_all(&ike_offer(&[classic(), hybrid()], None));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(offer) = Proposal::decode_all(Reader::new(&bytes)) {
            let _ = choose_ike(&[classic(), hybrid()], &offer, Some(31), true);
            let _ = choose_esp(&[set(GCM, None)], Mode::Tunnel, ChildDh::Any, true, &offer, None);
        }
    }
}
