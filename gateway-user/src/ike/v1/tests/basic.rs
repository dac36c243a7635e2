//! Whole exchanges over a good network, and over bad ones.

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg};

#[test]
fn main_and_quick_mode_from_either_end() {
    for starter in [A, B] {
        let mut net = Net::new(1, usual());
        net.initiate(starter);
        net.secs(5);
        net.assert_settled(1);
        for n in &net.nodes {
            assert_eq!(n.up(net.now), 1);
            assert!(n.refusals().is_empty(), "{:?}", n.refusals());
        }
        assert_eq!(net.nodes[starter].sent.len(), 5, "three of main mode, two of quick mode");
        assert_eq!(net.nodes[1 - starter].sent.len(), 4);
        assert!(net.nodes[starter].live()[0].initiator && !net.nodes[1 - starter].live()[0].initiator);
    }
}

#[test]
fn every_suite_works() {
    use CipherAlg::*;
    use HashAlg::*;
    let suites = [
        (Des, Md5, DhGroup::Modp768, (Des, Some(IntegAlg::HmacMd5))),
        (TripleDes, Sha1, DhGroup::Modp1024, (TripleDes, Some(IntegAlg::HmacSha1))),
        (Aes128, Sha256, DhGroup::Modp1536, (Aes128, Some(IntegAlg::HmacSha256))),
        (Aes192, Sha384, DhGroup::Ecp384, (Aes192, Some(IntegAlg::HmacSha384))),
        (Aes256, Sha512, DhGroup::Ecp256, (Null, Some(IntegAlg::HmacSha512))),
        (Aes256, Md5, DhGroup::Ecp256, (Aes256, None)),
    ];
    for (cipher, hash, group, esp) in suites {
        for pfs in [None, Some(group)] {
            let mut net = Net::new(2, configs(1, &[policy(cipher, hash, group)], esp, pfs));
            net.initiate(A);
            net.secs(5);
            net.assert_settled(1);
            assert_eq!(net.nodes[A].live()[0].pfs, pfs);
        }
    }
}

#[test]
fn several_flows_under_one_isakmp_sa() {
    let policies = [policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Ecp256)];
    let mut net = Net::new(3, configs(40, &policies, (CipherAlg::Aes128, Some(IntegAlg::HmacSha1)), Some(DhGroup::Ecp256)));
    net.initiate(A);
    net.secs(10);
    net.assert_settled(40);
    assert_eq!(net.nodes[A].up(net.now), 1);
}

#[test]
fn wrong_key_makes_no_sa_and_says_why() {
    let mut c = usual();
    c[B].keys[0].key = crate::crypto::Secret::new(b"another key, also long enough".to_vec());
    let mut net = Net::new(4, c);
    net.initiate(A);
    net.secs(300);
    net.assert_settled(0);
    assert_eq!(net.nodes[A].up(net.now) + net.nodes[B].up(net.now), 0);
    let refused = net.nodes[B].refusals().iter().filter(|r| **r == "auth_failed").count();
    let told = net.nodes[B].notices().iter().filter(|t| t.contains("refused (auth_failed)") && t.contains("pre-shared keys")).count();
    assert!((1..=300 / 60 + 1).contains(&told) && told < refused, "the responder's operator hears of it, seldom: {told} of {refused}");
    assert!(net.nodes[A].notices().iter().any(|t| t.contains("no answer (WaitAuth)")), "{:?}", net.nodes[A].notices());
}

#[test]
fn other_flows_and_proposals_are_refused_under_protection() {
    let mut c = usual();
    c[B].entries[0].flows[0].remote.prefix = 25;
    let mut net = Net::new(5, c);
    net.initiate(A);
    net.secs(100);
    net.assert_settled(0);
    assert_eq!(net.nodes[A].up(net.now), 1);
    assert!(net.nodes[B].refusals().contains(&"invalid_id"));
    assert!(net.nodes[A].notices().iter().any(|t| t.contains("error 18")), "{:?}", net.nodes[A].notices());
    assert!(net.nodes[B].notices().iter().any(|t| t.contains("refused (invalid_id)")), "{:?}", net.nodes[B].notices());

    let mut c = usual();
    c[B].entries[0].pfs = Some(DhGroup::Ecp256);
    let mut net = Net::new(5, c);
    net.initiate(A);
    net.secs(100);
    net.assert_settled(0);
    assert!(net.nodes[A].notices().iter().any(|t| t.contains("error 14")));

    let mut c = usual();
    c[B].policies[0].hash = HashAlg::Sha1;
    let mut net = Net::new(5, c);
    net.initiate(A);
    net.secs(200);
    assert_eq!(net.nodes[A].up(net.now), 0);
    assert!(net.nodes[B].refusals().contains(&"no_proposal_chosen"));
    assert!(net.nodes[B].notices().iter().any(|t| t.contains("refused (no_proposal_chosen)")), "{:?}", net.nodes[B].notices());
}

/// Loss, repetition, reordering: every run ends with one pair at both ends, whoever starts, even when both do.
#[test]
fn bad_networks_end_well() {
    let weathers = [
        Weather { loss: 10, repeat: 10, delay_ms: 50 },
        Weather { loss: 25, repeat: 25, delay_ms: 1500 },
        Weather { loss: 0, repeat: 90, delay_ms: 3000 },
    ];
    for seed in 0..120 {
        let policies = [policy(CipherAlg::Aes128, HashAlg::Sha256, DhGroup::Ecp256)];
        let pfs = (seed % 2 == 0).then_some(DhGroup::Ecp256);
        let flows = 1 + (seed % 3) as u8;
        let mut c = configs(flows, &policies, (CipherAlg::Aes128, Some(IntegAlg::HmacSha1)), pfs);
        for c in &mut c {
            c.retransmit_tries = 8;
        }
        let mut net = Net::new(seed, c);
        net.weather = weathers[seed as usize % 3];
        for _ in 0..20 {
            // Traffic asks as long as there is no SA for it.
            match seed % 4 {
                0 | 1 => net.acquire(A),
                2 => net.acquire(B),
                _ => {
                    net.acquire(A);
                    net.acquire(B);
                }
            }
            net.secs(50);
        }
        net.weather = Weather::default();
        net.secs(100);
        println!("seed {seed}");
        net.assert_settled(flows.into());
    }
}
