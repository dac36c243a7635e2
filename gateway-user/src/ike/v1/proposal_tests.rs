//! Tests of `proposal`.

use super::*;
use crate::id::PolicyDigest;
use crate::ike::AuthMethod;
use crate::sad::Selector;

fn policy(number: u32, encryption: CipherAlg, hash: HashAlg, group: DhGroup) -> IsakmpPolicy {
    IsakmpPolicy { number, encryption, hash, group, lifetime_s: 86_400, authentication: AuthMethod::PreShared }
}

fn policies() -> Vec<IsakmpPolicy> {
    vec![
        policy(1, CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Modp2048),
        policy(2, CipherAlg::TripleDes, HashAlg::Sha1, DhGroup::Modp1024),
        policy(3, CipherAlg::Aes128, HashAlg::Sha512, DhGroup::Ecp256),
    ]
}

fn entry(transforms: &[(CipherAlg, Option<IntegAlg>)], pfs: Option<DhGroup>) -> MapEntry {
    MapEntry {
        map: "CMAP_1".into(),
        seq: 1,
        local: [40, 0, 0, 1].into(),
        peers: vec![[192, 168, 3, 1].into()],
        transforms: transforms.iter().map(|&(encr, integ)| EspTransform { name: "T".into(), encr, integ, mode: Mode::Tunnel }).collect(),
        pfs,
        lifetime: Lifetime { seconds: 3600, kilobytes: 4_608_000 },
        replay_window: 64,
        flows: vec![crate::ike::Flow { ace: 0, local: Selector::ANY4, remote: Selector::ANY4 }],
        esn: false,
        ikev1: true,
        ikev2: None,
        digest: PolicyDigest::default(),
    }
}

const AES: (CipherAlg, Option<IntegAlg>) = (CipherAlg::Aes256, Some(IntegAlg::HmacSha256));
const DES3: (CipherAlg, Option<IntegAlg>) = (CipherAlg::TripleDes, Some(IntegAlg::HmacSha1));

#[test]
fn phase_1_both_ends_agree_on_the_responders_first_policy() {
    let offer = SaPayload::decode(&isakmp_offer(&policies()).encode()).unwrap();
    assert_eq!(offer.proposals[0].transforms.len(), 3);
    let mut mine = policies();
    mine.rotate_left(1);
    let (index, answer, life) = isakmp_choose(&mine, &offer).unwrap();
    assert_eq!((index, life), (0, 86_400));
    assert_eq!(answer.proposals[0].transforms, [offer.proposals[0].transforms[1].clone()], "unchanged");
    assert_eq!(isakmp_accept(&policies(), &offer, &answer), Ok((1, 86_400)));
}

#[test]
fn phase_1_answer_that_changes_anything_is_refused() {
    let offer = isakmp_offer(&policies());
    let (_, good, _) = isakmp_choose(&policies(), &offer).unwrap();
    let change = |f: &dyn Fn(&mut SaPayload)| {
        let mut answer = good.clone();
        f(&mut answer);
        isakmp_accept(&policies(), &offer, &answer)
    };
    assert!(change(&|_| {}).is_ok());
    assert!(change(&|a| a.proposals[0].transforms[0].attributes[3] = Attribute::basic(4, 2)).is_err(), "group");
    assert!(change(&|a| a.proposals[0].transforms[0].attributes.truncate(5)).is_err(), "lifetime gone");
    assert!(change(&|a| a.proposals[0].transforms[0].number = 2).is_err(), "number of another transform");
    assert!(change(&|a| a.proposals[0].transforms.push(offer.proposals[0].transforms[1].clone())).is_err(), "two");
    assert!(change(&|a| a.proposals.push(a.proposals[0].clone())).is_err(), "two proposals");
    assert!(change(&|a| a.proposals[0].protocol = 3).is_err(), "protocol");
    // The same lifetime in the other format is the same lifetime.
    assert!(
        change(&|a| {
            let life = a.proposals[0].transforms[0].attributes.last_mut().unwrap();
            life.value = crate::ike::v1::message::AttributeValue::Variable(vec![0, 0, 0, 0, 0, 1, 0x51, 0x80]);
        })
        .is_ok()
    );
}

#[test]
fn phase_1_refuses_what_it_has_no_policy_for() {
    let mut offer = isakmp_offer(&policies());
    assert!(isakmp_choose(&policies()[..0], &offer).is_err());
    for t in &mut offer.proposals[0].transforms {
        t.attributes[2] = Attribute::basic(3, 3);
    }
    assert!(isakmp_choose(&policies(), &offer).is_err(), "RSA signatures");
    let mut two = isakmp_offer(&policies());
    two.proposals.push(two.proposals[0].clone());
    assert!(isakmp_choose(&policies(), &two).is_err());
    // AES without a key length, and a basic attribute in the variable format (RFC 2409 appendix A).
    let mut odd = isakmp_offer(&policies()[..1]);
    odd.proposals[0].transforms[0].attributes.retain(|a| a.kind != 14);
    assert!(isakmp_choose(&policies(), &odd).is_err());
    let mut odd = isakmp_offer(&policies()[..1]);
    odd.proposals[0].transforms[0].attributes[0].value = crate::ike::v1::message::AttributeValue::Variable(vec![0, 7]);
    assert!(isakmp_choose(&policies(), &odd).is_err());
}

#[test]
fn phase_1_lifetimes() {
    assert_eq!(isakmp_lifetime(3600, Some(86_400)), 3600);
    assert_eq!(isakmp_lifetime(86_400, Some(3600)), 3600);
    assert_eq!(isakmp_lifetime(86_400, None), 86_400);
    assert_eq!(isakmp_lifetime(0, Some(0)), ISAKMP_LIFETIME_DEFAULT_S);
    assert_eq!(isakmp_lifetime(u64::MAX, Some(u64::MAX)), LIFETIME_MAX_S);
    let mut offer = isakmp_offer(&policies()[..1]);
    offer.proposals[0].transforms[0].attributes.truncate(5);
    assert_eq!(isakmp_choose(&policies(), &offer).unwrap().2, 86_400);
}

#[test]
fn phase_2_both_ends_agree() {
    for pfs in [None, Some(DhGroup::Modp1024)] {
        let a = entry(&[DES3, AES], pfs);
        let mut b = entry(&[AES, DES3], pfs);
        b.lifetime.seconds = 600;
        let offer = SaPayload::decode(&esp_offer(&a, Spi(0x1234_5678)).encode()).unwrap();
        let mut choice = esp_choose(&b, &offer).unwrap();
        assert_eq!((choice.transform, choice.spi, choice.pfs), (0, Spi(0x1234_5678), pfs));
        assert_eq!(choice.lifetime, Lifetime { seconds: 600, kilobytes: 4_608_000 });
        assert!(choice.shortened);
        choice.answer.proposals[0].spi = vec![0x80, 0, 0, 1];
        let got = esp_accept(&a, &offer, &choice.answer).unwrap();
        assert_eq!((got.transform, got.spi, got.pfs), (1, Spi(0x8000_0001), pfs));
        assert_eq!(got.lifetime.seconds, 3600);
    }
}

#[test]
fn phase_2_pfs_rules() {
    let with = |pfs| entry(&[AES], pfs);
    let offer = |pfs| esp_offer(&with(pfs), Spi(0x1000));
    let g2 = Some(DhGroup::Modp1024);
    let g14 = Some(DhGroup::Modp2048);
    assert!(esp_choose(&with(g14), &offer(g14)).is_ok());
    assert!(esp_choose(&with(g14), &offer(g2)).is_err());
    assert!(esp_choose(&with(g14), &offer(None)).is_err());
    assert_eq!(esp_choose(&with(None), &offer(g2)).unwrap().pfs, g2);
    let mut mixed = esp_offer(&entry(&[AES, DES3], g2), Spi(0x1000));
    mixed.proposals[0].transforms[1].attributes.retain(|a| a.kind != 3);
    assert!(esp_choose(&with(None), &mixed).is_err());
    let mut unknown = offer(g2);
    unknown.proposals[0].transforms[0].attributes.retain(|a| a.kind != 3);
    unknown.proposals[0].transforms[0].attributes.push(Attribute::basic(3, 1025));
    assert!(esp_choose(&with(None), &unknown).is_err(), "CVE-2014-9221");
}

#[test]
fn phase_2_bundles_compression_and_reserved_spis_are_refused() {
    let e = entry(&[AES], None);
    let good = esp_offer(&e, Spi(0x1000));
    let mut bundle = good.clone();
    bundle.proposals.push(Proposal { protocol: protocol::AH, ..good.proposals[0].clone() });
    assert!(esp_choose(&e, &bundle).is_err(), "AH and ESP together");
    let mut either = bundle.clone();
    either.proposals[1].number = 2;
    assert!(esp_choose(&e, &either).is_ok(), "ESP alone is still acceptable");
    for spi in [0u32, 255] {
        let mut b = good.clone();
        b.proposals[0].spi = spi.to_be_bytes().to_vec();
        assert!(esp_choose(&e, &b).is_err());
    }
    let mut long = good.clone();
    long.proposals[0].spi = vec![1; 8];
    assert!(esp_choose(&e, &long).is_err());
    let none = entry(&[(CipherAlg::Null, None)], None);
    assert!(esp_offer(&none, Spi(0x1000)).proposals[0].transforms.is_empty());
    let mut nothing = good;
    nothing.proposals[0].transforms[0].id = 11;
    nothing.proposals[0].transforms[0].attributes.retain(|a| a.kind == 4);
    assert!(esp_choose(&none, &nothing).is_err(), "keymat of zero bytes (CVE-2024-3652)");
}

#[test]
fn phase_2_answer_that_changes_anything_is_refused() {
    let e = entry(&[AES], Some(DhGroup::Modp1024));
    let offer = esp_offer(&e, Spi(0x1000));
    let good = esp_choose(&e, &offer).unwrap().answer;
    for (kind, value) in [(3, 14), (4, 2), (5, 2), (6, 128)] {
        let mut answer = good.clone();
        for a in &mut answer.proposals[0].transforms[0].attributes {
            if a.kind == kind {
                *a = Attribute::basic(kind, value);
            }
        }
        assert_ne!(answer, good);
        assert!(esp_accept(&e, &offer, &answer).is_err(), "attribute {kind}");
    }
    assert!(esp_accept(&e, &offer, &good).is_ok());
}

#[test]
fn mode_absent_means_tunnel() {
    let e = entry(&[AES], None);
    let mut offer = esp_offer(&e, Spi(0x1000));
    offer.proposals[0].transforms[0].attributes.retain(|a| a.kind != 4);
    assert!(esp_choose(&e, &offer).is_ok());
}

#[test]
fn responder_lifetime_data_reads_back() {
    let l = Lifetime { seconds: 600, kilobytes: 1 << 40 };
    assert_eq!(read_lifetime_data(&lifetime_data(l), false), Some(l));
    assert_eq!(read_lifetime_data(&[0x80, 11, 0, 1, 0, 12, 0, 4, 0, 0, 14, 16], true).unwrap().seconds, 3600);
    assert_eq!(read_lifetime_data(&[0x80, 1, 0, 1], false), None);
    assert_eq!(read_lifetime_data(&[0x80, 1, 0], false), None);
}
