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

/// Hosts that allow everything.
const fn between(nat: Option<NatDialect>) -> Ends {
    Ends { nat, tunnel: true, transport: true }
}

const AES: (CipherAlg, Option<IntegAlg>) = (CipherAlg::Aes256, Some(IntegAlg::HmacSha256));
const DES3: (CipherAlg, Option<IntegAlg>) = (CipherAlg::TripleDes, Some(IntegAlg::HmacSha1));

#[test]
fn phase_1_both_ends_agree_on_the_responders_first_policy() {
    let offer = SaPayload::decode(&isakmp_offer(&policies()).encode()).unwrap();
    assert_eq!(offer.proposals[0].transforms.len(), 3);
    let mut mine = policies();
    mine.rotate_left(1);
    let IsakmpChoice { index, answer, lifetime_s, shortened } = isakmp_choose(&mine, &offer).unwrap();
    assert_eq!((index, lifetime_s, shortened), (0, 86_400, false));
    mine[0].lifetime_s = 3600;
    let choice = isakmp_choose(&mine, &offer).unwrap();
    assert_eq!((choice.lifetime_s, choice.shortened), (3600, true), "RESPONDER-LIFETIME is due");
    assert_eq!(answer.proposals[0].transforms, [offer.proposals[0].transforms[1].clone()], "unchanged");
    assert_eq!(isakmp_accept(&policies(), &offer, &answer), Ok((1, 86_400)));
}

#[test]
fn phase_1_answer_that_changes_anything_is_refused() {
    let offer = isakmp_offer(&policies());
    let good = isakmp_choose(&policies(), &offer).unwrap().answer;
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
    assert_eq!(isakmp_choose(&policies(), &offer).unwrap().lifetime_s, 86_400);
    let mut short = policies();
    short[0].lifetime_s = 3600;
    assert!(isakmp_choose(&short, &offer).unwrap().shortened, "the default is longer");
}

#[test]
fn phase_2_both_ends_agree() {
    for pfs in [None, Some(DhGroup::Modp1024)] {
        let a = entry(&[DES3, AES], pfs);
        let mut b = entry(&[AES, DES3], pfs);
        b.lifetime.seconds = 600;
        let offer = SaPayload::decode(&esp_offer(&a, Spi(0x1234_5678), between(None)).encode()).unwrap();
        let mut choice = esp_choose(&b, &offer, between(None)).unwrap();
        assert_eq!((choice.transform, choice.spi, choice.pfs), (0, Spi(0x1234_5678), pfs));
        assert_eq!(choice.lifetime, Lifetime { seconds: 600, kilobytes: 4_608_000 });
        assert!(choice.shortened);
        choice.answer.proposals[0].spi = vec![0x80, 0, 0, 1];
        let got = esp_accept(&a, &offer, &choice.answer, between(None)).unwrap();
        assert_eq!((got.transform, got.spi, got.pfs), (1, Spi(0x8000_0001), pfs));
        assert_eq!(got.lifetime.seconds, 3600);
    }
}

#[test]
fn phase_2_pfs_rules() {
    let with = |pfs| entry(&[AES], pfs);
    let offer = |pfs| esp_offer(&with(pfs), Spi(0x1000), between(None));
    let g2 = Some(DhGroup::Modp1024);
    let g14 = Some(DhGroup::Modp2048);
    assert!(esp_choose(&with(g14), &offer(g14), between(None)).is_ok());
    assert!(esp_choose(&with(g14), &offer(g2), between(None)).is_err());
    assert!(esp_choose(&with(g14), &offer(None), between(None)).is_err());
    assert_eq!(esp_choose(&with(None), &offer(g2), between(None)).unwrap().pfs, g2);
    let mut mixed = esp_offer(&entry(&[AES, DES3], g2), Spi(0x1000), between(None));
    mixed.proposals[0].transforms[1].attributes.retain(|a| a.kind != 3);
    assert!(esp_choose(&with(None), &mixed, between(None)).is_err());
    for (group, why) in [(1025, "CVE-2014-9221"), (DhGroup::MlKem768.number(), "a key encapsulation"), (0, "zero")] {
        let mut unknown = offer(g2);
        unknown.proposals[0].transforms[0].attributes.retain(|a| a.kind != 3);
        unknown.proposals[0].transforms[0].attributes.push(Attribute::basic(3, group));
        assert!(esp_choose(&with(None), &unknown, between(None)).is_err(), "{why}");
    }
}

#[test]
fn phase_2_bundles_compression_and_reserved_spis_are_refused() {
    let e = entry(&[AES], None);
    let good = esp_offer(&e, Spi(0x1000), between(None));
    let mut bundle = good.clone();
    bundle.proposals.push(Proposal { protocol: protocol::AH, ..good.proposals[0].clone() });
    assert!(esp_choose(&e, &bundle, between(None)).is_err(), "AH and ESP together");
    let mut either = bundle.clone();
    either.proposals[1].number = 2;
    assert!(esp_choose(&e, &either, between(None)).is_ok(), "ESP alone is still acceptable");
    for spi in [0u32, 255] {
        let mut b = good.clone();
        b.proposals[0].spi = spi.to_be_bytes().to_vec();
        assert!(esp_choose(&e, &b, between(None)).is_err());
    }
    let mut long = good.clone();
    long.proposals[0].spi = vec![1; 8];
    assert!(esp_choose(&e, &long, between(None)).is_err());
    let none = entry(&[(CipherAlg::Null, None)], None);
    assert!(esp_offer(&none, Spi(0x1000), between(None)).proposals[0].transforms.is_empty());
    let mut nothing = good;
    nothing.proposals[0].transforms[0].id = 11;
    nothing.proposals[0].transforms[0].attributes.retain(|a| a.kind == 4);
    assert!(esp_choose(&none, &nothing, between(None)).is_err(), "keymat of zero bytes (CVE-2024-3652)");
}

#[test]
fn phase_2_answer_that_changes_anything_is_refused() {
    let e = entry(&[AES], Some(DhGroup::Modp1024));
    let offer = esp_offer(&e, Spi(0x1000), between(None));
    let good = esp_choose(&e, &offer, between(None)).unwrap().answer;
    for (kind, value) in [(3, 14), (4, 2), (5, 2), (6, 128)] {
        let mut answer = good.clone();
        for a in &mut answer.proposals[0].transforms[0].attributes {
            if a.kind == kind {
                *a = Attribute::basic(kind, value);
            }
        }
        assert_ne!(answer, good);
        assert!(esp_accept(&e, &offer, &answer, between(None)).is_err(), "attribute {kind}");
    }
    assert!(esp_accept(&e, &offer, &good, between(None)).is_ok());
}

#[test]
fn mode_absent_means_tunnel() {
    let e = entry(&[AES], None);
    let mut offer = esp_offer(&e, Spi(0x1000), between(None));
    offer.proposals[0].transforms[0].attributes.retain(|a| a.kind != 4);
    assert!(esp_choose(&e, &offer, between(None)).is_ok());
}

#[test]
fn phase_1_auth_methods_that_no_policy_has_are_refused() {
    // 2 DSS, 3 RSA signatures, 4 and 5 RSA encryption (Bleichenbacher), 65001 XAUTH.
    for method in [2, 3, 4, 5, 65_001] {
        let mut offer = isakmp_offer(&policies());
        for t in &mut offer.proposals[0].transforms {
            t.attributes[2] = Attribute::basic(3, method);
        }
        assert!(isakmp_choose(&policies(), &offer).is_err(), "method {method}");
    }
}

#[test]
fn key_encapsulation_is_not_offered() {
    let mut p = policies();
    p[0].group = DhGroup::MlKem768;
    assert_eq!(isakmp_offer(&p).proposals[0].transforms.len(), p.len() - 1);
    assert!(!is_spoken(&p[0]) && is_spoken(&p[1]));
}

#[test]
fn signatures_are_method_3() {
    let mut p = policies();
    p[1].authentication = AuthMethod::Signature;
    let offer = isakmp_offer(&p);
    let method = |n: usize| offer.proposals[0].transforms[n].attributes.iter().find(|a| a.kind == 3).cloned();
    assert_eq!((method(0), method(1)), (Some(Attribute::basic(3, 1)), Some(Attribute::basic(3, 3))));
    assert_eq!(isakmp_choose(&p[1..2], &offer).map(|c| c.index), Ok(0));
}

#[test]
fn combined_modes_and_counter_mode_have_their_own_rules() {
    use crate::crypto::{AesKey, Icv};
    let gcm = CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16);
    let ctr = CipherAlg::AesCtr(AesKey::Bits128);
    for (set, offered) in [
        ((gcm, None), true),
        ((gcm, Some(IntegAlg::HmacSha256)), false),
        ((CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes8), None), true),
        ((CipherAlg::ChaCha20Poly1305, None), true),
        ((ctr, Some(IntegAlg::HmacSha1)), true),
        ((ctr, None), false),
        ((CipherAlg::Aes128, Some(IntegAlg::AesXcbc)), true),
        ((CipherAlg::Aes128, Some(IntegAlg::AesCmac)), false),
        ((CipherAlg::Null, Some(IntegAlg::AesCmac)), false),
    ] {
        let e = entry(&[set], None);
        let offer = esp_offer(&e, Spi(0x1000), between(None));
        assert_eq!(offer.proposals[0].transforms.len(), usize::from(offered), "{set:?}");
        if offered {
            let t = &offer.proposals[0].transforms[0];
            assert_eq!(t.attributes.iter().any(|a| a.kind == 5), set.1.is_some(), "no AUTH attribute for combined modes");
            assert!(esp_choose(&e, &offer, between(None)).is_ok());
        }
    }
    let mut with_auth = esp_offer(&entry(&[(gcm, None)], None), Spi(0x1000), between(None));
    with_auth.proposals[0].transforms[0].attributes.push(Attribute::basic(5, 5));
    assert!(esp_choose(&entry(&[(gcm, None)], None), &with_auth, between(None)).is_err(), "a check value beside that of GCM");
}

#[test]
fn encapsulation_modes_behind_a_nat() {
    let modes = |entry: &MapEntry, nat| {
        let offer = esp_offer(entry, Spi(0x1000), between(nat));
        let mode = offer.proposals[0].transforms[0].attributes.iter().find(|a| a.kind == 4).map(Attribute::as_number);
        (mode.unwrap(), offer)
    };
    let tunnel = entry(&[AES], None);
    let mut transport = tunnel.clone();
    transport.transforms[0].mode = Mode::Transport;
    for (entry, nat, number) in [
        (&tunnel, None, 1),
        (&transport, None, 2),
        (&tunnel, Some(NatDialect::Rfc), 3),
        (&transport, Some(NatDialect::Rfc), 4),
        (&tunnel, Some(NatDialect::Draft02), 61_443),
        (&transport, Some(NatDialect::Draft03), 61_444),
    ] {
        let (mode, offer) = modes(entry, nat);
        assert_eq!(mode, number);
        let choice = esp_choose(entry, &offer, between(nat)).unwrap();
        assert_eq!(choice.answer.proposals[0].transforms, offer.proposals[0].transforms, "unchanged");
        assert!(esp_accept(entry, &offer, &choice.answer, between(nat)).is_ok());
        // The other numbers of the same thing are understood, those of another thing are not.
        let understood = [(1, 3, 61_443), (2, 4, 61_444)].iter().any(|m| [m.1, m.2].contains(&number));
        assert_eq!(esp_choose(entry, &offer, between(Some(NatDialect::Rfc))).is_ok(), understood);
        assert_eq!(esp_choose(entry, &offer, between(None)).is_ok(), nat.is_none());
        let other = if entry == &tunnel { &transport } else { &tunnel };
        assert!(esp_choose(other, &offer, between(nat)).is_err());
    }
}

#[test]
fn transport_mode_is_for_the_ends_alone() {
    let mut e = entry(&[AES, DES3], None);
    e.transforms[0].mode = Mode::Transport;
    let nets = Ends { nat: None, tunnel: true, transport: false };
    assert_eq!(esp_offer(&e, Spi(0x1000), between(None)).proposals[0].transforms.len(), 2);
    let offer = esp_offer(&e, Spi(0x1000), nets);
    assert_eq!(offer.proposals[0].transforms.len(), 1);
    assert_eq!(esp_choose(&e, &offer, between(None)).unwrap().transform, 1);
    let both = esp_offer(&e, Spi(0x1000), between(None));
    assert_eq!(esp_choose(&e, &both, between(None)).unwrap().transform, 0);
    assert_eq!(esp_choose(&e, &both, nets).unwrap().transform, 1);
    assert!(esp_choose(&e, &both, Ends { nat: None, tunnel: false, transport: false }).is_err());
}

#[test]
fn missing_zero_and_huge_lifetimes_of_a_child() {
    let offer_with = |l: Lifetime| {
        let mut e = entry(&[AES], None);
        e.lifetime = l;
        esp_offer(&e, Spi(0x1000), between(None))
    };
    let ours = entry(&[AES], None);
    let choose = |l| esp_choose(&ours, &offer_with(l), between(None)).unwrap();
    let missing = choose(Lifetime { seconds: 0, kilobytes: 0 });
    assert_eq!((missing.lifetime, missing.shortened), (ours.lifetime, true), "the default of eight hours is longer than ours");
    let huge = choose(Lifetime { seconds: u64::MAX, kilobytes: u64::MAX });
    assert_eq!((huge.lifetime, huge.shortened), (ours.lifetime, true));
    let short = choose(Lifetime { seconds: 60, kilobytes: 100 });
    assert_eq!((short.lifetime, short.shortened), (Lifetime { seconds: 60, kilobytes: 100 }, false));
    let mut endless = ours.clone();
    endless.lifetime = Lifetime { seconds: 0, kilobytes: 0 };
    let none = esp_choose(&endless, &offer_with(Lifetime::default()), between(None)).unwrap();
    assert_eq!(none.lifetime, Lifetime { seconds: ESP_LIFETIME_DEFAULT_S, kilobytes: 0 });
    let most = esp_choose(&endless, &offer_with(Lifetime { seconds: u64::MAX, kilobytes: u64::MAX }), between(None)).unwrap();
    assert_eq!(most.lifetime, Lifetime { seconds: LIFETIME_MAX_S, kilobytes: LIFETIME_MAX_KB });
}

#[test]
fn responder_lifetime_data_reads_back() {
    assert_eq!(read_lifetime_data(&isakmp_lifetime_data(3600), true), Some(Lifetime { seconds: 3600, kilobytes: 0 }));
    assert_eq!(read_lifetime_data(&isakmp_lifetime_data(1 << 40), true), Some(Lifetime { seconds: 1 << 40, kilobytes: 0 }));
    let l = Lifetime { seconds: 600, kilobytes: 1 << 40 };
    assert_eq!(read_lifetime_data(&lifetime_data(l), false), Some(l));
    assert_eq!(read_lifetime_data(&[0x80, 11, 0, 1, 0, 12, 0, 4, 0, 0, 14, 16], true).unwrap().seconds, 3600);
    assert_eq!(read_lifetime_data(&[0x80, 1, 0, 1], false), None);
    assert_eq!(read_lifetime_data(&[0x80, 1, 0], false), None);
}
