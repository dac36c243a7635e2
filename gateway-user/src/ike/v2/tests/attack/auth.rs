//! IKE_AUTH from somebody who came through IKE_SA_INIT: he has keys, but nobody vouches for him.

use super::*;

/// Sends one request after IKE_SA_INIT; afterwards nothing is left but the tunnel of the real peer.
fn attempt(reason: &str, exchange: Exchange, message_id: u32, notify: Option<NotifyType>, fill: &dyn Fn(&Mallory, &Net, &mut Outgoing)) {
    let mut net = up();
    let mallory = Mallory::new(&mut net, 5);
    let mut out = Outgoing::new();
    fill(&mallory, &net, &mut out);
    net.nodes[B].events.clear();
    let answer = mallory.ask(&mut net, exchange, message_id, &out);
    assert_eq!(net.nodes[B].refusals().last(), Some(&reason));
    assert_eq!(answer, notify.map(|n| vec![n]), "{reason}");
    assert_eq!(net.nodes[B].up(net.now), 1);
    // The half-open state is gone at once, or ages out.
    net.secs(31);
    net.assert_settled(1, 1);
    still_works(&mut net);
}

const FAILED: Option<NotifyType> = Some(NotifyType::AUTHENTICATION_FAILED);

#[test]
fn the_right_payloads_make_an_sa() {
    // So that the refusals below are refusals of what they say.
    let mut net = up();
    let mallory = Mallory::new(&mut net, 5);
    let out = mallory.good(&net);
    assert_eq!(mallory.ask(&mut net, Exchange::Auth, 1, &out), Some(vec![]));
    assert_eq!(net.nodes[B].up(net.now), 2);
}

#[test]
fn a_wrong_key_or_none() {
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, net, out| {
        out.id(true, &m.identity()).auth(2, &m.proof(net, Some(b"guess")));
    });
    for data in [vec![], vec![0; 31], vec![0; 32], vec![0; 33], vec![0; 5000]] {
        attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, _, out| {
            out.id(true, &m.identity()).auth(2, &data);
        });
    }
    // His own proof for another identity.
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, net, out| {
        out.id(true, &Identity::Fqdn("gw".into())).auth(2, &m.proof(net, None));
    });
}

#[test]
fn other_methods_and_eap() {
    for method in [0, 1, 3, 9, 12, 13, 14, 201, 255] {
        attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, net, out| {
            out.id(true, &m.identity()).auth(method, &m.proof(net, None));
        });
    }
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, _, out| {
        out.id(true, &m.identity()).add(PayloadKind::Eap, &[1, 1, 0, 5, 1]);
    });
}

/// CVE-2013-6466, CVE-2013-6467: an expected payload is missing.
#[test]
fn payloads_that_are_missing() {
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|_, _, _| {});
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, net, out| {
        out.auth(2, &m.proof(net, None));
    });
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, _, out| {
        out.id(true, &m.identity());
    });
    attempt("authentication_failed", Exchange::Auth, 1, FAILED, &|m, net, out| {
        out.id(false, &m.identity()).auth(2, &m.proof(net, None));
    });
}

/// The IKE SA stands in these, as RFC 7296 1.2 wants it; the child does not.
#[test]
fn a_child_that_is_asked_for_wrongly() {
    type Fill<'a> = &'a dyn Fn(&Net, &mut Outgoing);
    let cases: [(NotifyType, Fill<'_>); 5] = [
        (NotifyType::INVALID_SYNTAX, &|net, out| {
            out.sa(&child_offer(net, 0x5000));
        }),
        (NotifyType::INVALID_SYNTAX, &|net, out| {
            let (i, r) = flow_ts(net);
            out.ts(&i, &r);
        }),
        (NotifyType::TS_UNACCEPTABLE, &|net, out| {
            let (i, r) = flow_ts(net);
            out.sa(&child_offer(net, 0x5000)).ts(&r, &i);
        }),
        (NotifyType::NO_PROPOSAL_CHOSEN, &|net, out| {
            let (i, r) = flow_ts(net);
            let mut offer = child_offer(net, 0x5000);
            offer[0].transforms[0].id = 30;
            out.sa(&offer).ts(&i, &r);
        }),
        // A reserved SPI.
        (NotifyType::NO_PROPOSAL_CHOSEN, &|net, out| {
            let (i, r) = flow_ts(net);
            out.sa(&child_offer(net, 255)).ts(&i, &r);
        }),
    ];
    for (kind, fill) in cases {
        let mut net = up();
        let mallory = Mallory::new(&mut net, 5);
        let mut out = Outgoing::new();
        out.id(true, &mallory.identity()).auth(2, &mallory.proof(&net, None));
        fill(&net, &mut out);
        let answer = mallory.ask(&mut net, Exchange::Auth, 1, &out);
        assert_eq!(answer, Some(vec![kind]));
        assert_eq!(net.nodes[B].live().len(), 1, "no pair is made");
        assert_eq!(net.nodes[B].spis.0.lock().unwrap().len(), 1, "no SPI is kept");
    }
}

/// CVE-2023-23009 and the decoders' own tables: malformed payloads under good encryption.
#[test]
fn malformed_payloads_under_good_encryption() {
    let bodies: [(PayloadKind, &[u8], &str); 9] = [
        (PayloadKind::TsI, &[1, 0, 0, 0, 7, 0, 0, 8], "payload_truncated"),
        (PayloadKind::TsI, &[1, 0, 0, 0, 7, 0, 0, 3], "payload_length"),
        (PayloadKind::TsR, &[255, 0, 0, 0], "payload_truncated"),
        (PayloadKind::Sa, &[0, 0, 0, 200, 1, 3, 4, 1], "payload_truncated"),
        (PayloadKind::Delete, &[3, 4, 0xff, 0xff], "payload_length"),
        (PayloadKind::Notify, &[3, 255, 0, 1], "payload_truncated"),
        (PayloadKind::IdI, &[1], "payload_length"),
        (PayloadKind::Sk, &[0; 80], "payload_misplaced"),
        (PayloadKind::Nonce, &[1; 3], "payload_length"),
    ];
    for (kind, body, reason) in bodies {
        attempt(reason, Exchange::Auth, 1, Some(NotifyType::INVALID_SYNTAX), &|_, _, out| {
            out.add(kind, body);
        });
    }
}

/// CVE-2019-12312, CVE-2014-2338: another exchange before the peer proved himself.
#[test]
fn exchanges_out_of_order() {
    for exchange in [Exchange::Informational, Exchange::CreateChildSa, Exchange::FollowupKe] {
        attempt("exchange", exchange, 1, None, &|_, _, out| {
            out.delete_ike();
        });
    }
    // No additional key exchange was agreed on.
    attempt("out_of_order", Exchange::Intermediate, 1, None, &|_, _, out| {
        out.ke(36, &[1; 1184]);
    });
    attempt("out_of_order", Exchange::Auth, 2, None, &|m, net, out| *out = m.good(net));
    attempt("out_of_order", Exchange::Auth, 0, None, &|m, net, out| *out = m.good(net));
    attempt("out_of_order", Exchange::CreateChildSa, u32::MAX, None, &|_, _, out| {
        out.nonce(&[1; 32]).sa(&ike_offer(&[fast()], Some([6; 8])));
    });
}

/// Without the keys nothing at all happens, whatever the bytes.
#[test]
fn bytes_that_are_not_authentic() {
    let mut net = up();
    let mallory = Mallory::new(&mut net, 5);
    let good = mallory.seal(Exchange::Auth, 1, &mallory.good(&net));
    let sent = net.nodes[B].sent.len();
    for at in HEADER_LEN + 4..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        net.nodes[B].events.clear();
        deliver(&mut net, mallory.from, &bad);
        // Padding, content and check value are all the same to him.
        assert_eq!(net.nodes[B].refusals(), ["integrity"], "{at}");
    }
    let plain = mallory.good(&net).plain(&Header::new(mallory.id, Exchange::Auth, true, false, 1));
    deliver(&mut net, mallory.from, &plain);
    assert_eq!(net.nodes[B].refusals().last(), Some(&"not_encrypted"));
    assert_eq!(net.nodes[B].sent.len(), sent);
    // And then the good one is taken.
    deliver(&mut net, mallory.from, &good);
    assert_eq!(net.nodes[B].up(net.now), 2);
}

/// Nobody takes over a half-open SA, and the answer to the first message is bound to its address.
#[test]
fn the_first_message_of_another_with_the_same_spi() {
    let mut net = up();
    let mallory = Mallory::new(&mut net, 5);
    let sas = net.nodes[B].engine.sas.len();
    let mut f = first(5).0;
    f.nonce = vec![9; 32];
    deliver(&mut net, mallory.from, &f.build());
    assert_eq!(net.nodes[B].refusals().last(), Some(&"repeated"));
    assert_eq!(net.nodes[B].engine.sas.len(), sas);
    let out = mallory.good(&net);
    assert!(mallory.ask(&mut net, Exchange::Auth, 1, &out).is_some());
    assert_ne!(mallory.response, mallory.request);
    assert_ne!(mallory.ni, mallory.nr);
}
