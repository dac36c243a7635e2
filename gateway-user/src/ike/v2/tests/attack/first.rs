//! IKE_SA_INIT from anybody.

use super::*;
use crate::ike::IkeEvent;
use crate::ike::v2::proposal::{Transform, transform_type};

#[test]
fn headers_that_cannot_be() {
    let mut net = up();
    let good = first(3).0.build();
    for (at, value, reason) in [
        (17, 0x30, "header_version"),
        (17, 0x00, "header_version"),
        (18, 33, "unknown_exchange"),
        (18, 38, "unknown_exchange"),
        (18, 255, "unknown_exchange"),
        (18, 35, "header_spi"),
        (19, 0x00, "header_sa_init"),
        (19, 0x28, "header_sa_init"),
        (19, 0x20, "unknown_spi"),
        (23, 1, "header_sa_init"),
        (8, 1, "header_spi"),
        (27, 0, "header_length"),
        (24, 0x80, "header_length"),
        (16, 0, "payload_trailing"),
        (16, 1, "payload_of_version_1"),
        (16, 20, "payload_of_version_1"),
        (16, 46, "payload_misplaced"),
        (16, 53, "payload_misplaced"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(refused(&mut net, &bytes).0, [reason], "byte {at} is {value}");
    }
    let mut zero = good.clone();
    zero[..8].fill(0);
    assert_eq!(refused(&mut net, &zero).0, ["header_spi"]);
    // CVE-2013-4564: shorter than the header, or than it says.
    for n in 0..good.len() {
        let reason = if n < HEADER_LEN { "header_short" } else { "header_length" };
        assert_eq!(refused(&mut net, &good[..n]).0, [reason]);
    }
    // The same with a length that fits: the chain is cut somewhere.
    for n in HEADER_LEN..good.len() {
        let mut bytes = good[..n].to_vec();
        bytes[24..28].copy_from_slice(&(n as u32).to_be_bytes());
        let (reasons, answer) = refused(&mut net, &bytes);
        assert!(reasons.len() == 1 && answer.is_none(), "{n}: {reasons:?}");
    }
    let long = [good.clone(), vec![0; 9000]].concat();
    assert_eq!(refused(&mut net, &long).0, ["datagram_size"]);
    still_works(&mut net);
}

#[test]
fn a_higher_major_version_is_answered_and_only_so_often() {
    let mut net = up();
    let mut bytes = first(3).0.build();
    bytes[17] = 0x30;
    let answer = refused(&mut net, &bytes).1.unwrap();
    assert_eq!((answer.len(), answer[17], answer[19]), (36, 0x20, 0x20));
    let answers = (0..1000).filter(|_| refused(&mut net, &bytes).1.is_some()).count();
    assert!(answers < 20, "{answers}");
    still_works(&mut net);
}

/// Each shape is refused by this name and, where an answer is due, with this notify.
#[test]
fn shapes_of_the_first_message() {
    let mut net = up();
    let mut shape = |reason: &str, notify: Option<NotifyType>, change: &dyn Fn(&mut First)| {
        let mut f = first(3).0;
        change(&mut f);
        let (reasons, answer) = refused(&mut net, &f.build());
        assert_eq!(reasons, [reason]);
        let got = answer.map(|bytes| {
            let header = Header::decode(&bytes).unwrap();
            Message::decode(header.next, &bytes[HEADER_LEN..]).unwrap().error().unwrap().kind
        });
        assert_eq!(got, notify, "{reason}");
    };
    let none = Some(NotifyType::NO_PROPOSAL_CHOSEN);
    // CVE-2016-5391: no group in the proposal; CVE-2016-3071: a transform that we cannot do.
    shape("no_proposal_chosen", none, &|f| f.offer[0].transforms.retain(|t| t.kind != transform_type::KE));
    shape("no_proposal_chosen", none, &|f| f.offer[0].transforms.iter_mut().for_each(|t| t.id = 999));
    shape("no_proposal_chosen", none, &|f| f.offer[0].protocol = Protocol::Esp);
    shape("no_proposal_chosen", none, &|f| f.offer[0].transforms.clear());
    shape("no_proposal_chosen", none, &|f| f.offer[0].transforms.push(Transform { kind: 77, id: 1, key_bits: None, understood: true }));
    // CVE-2014-9221: a private group; and groups that we have but did not agree to.
    for group in [1025, 0, 14, 31, u16::MAX] {
        shape("ke_group", Some(NotifyType::INVALID_KE_PAYLOAD), &|f| f.group = group);
    }
    shape("ke_length", None, &|f| f.public.truncate(63));
    shape("ke_length", None, &|f| f.public.push(0));
    shape("ke_length", None, &|f| f.public = vec![4; 2000]);
    shape("payload_length", None, &|f| f.public.clear());
    shape("payload_length", None, &|f| f.nonce.truncate(15));
    shape("payload_length", None, &|f| f.nonce = vec![1; 257]);
    shape("payload_truncated", None, &|f| f.offer.clear());
    still_works(&mut net);
}

#[test]
fn payloads_missing_repeated_or_unknown() {
    let mut net = up();
    let f = first(3).0;
    let mut build = |reason: &str, fill: &dyn Fn(&mut Outgoing)| {
        let mut out = Outgoing::new();
        fill(&mut out);
        let (reasons, answer) = refused(&mut net, &out.plain(&f.header()));
        assert_eq!(reasons, [reason]);
        answer
    };
    assert_eq!(build("init_payloads", &|_| {}), None);
    let no_sa: &dyn Fn(&mut Outgoing) = &|o| {
        o.ke(19, &f.public).nonce(&f.nonce);
    };
    assert_eq!(build("init_payloads", no_sa), None);
    let no_ke: &dyn Fn(&mut Outgoing) = &|o| {
        o.sa(&f.offer).nonce(&f.nonce);
    };
    assert_eq!(build("init_payloads", no_ke), None);
    let no_nonce: &dyn Fn(&mut Outgoing) = &|o| {
        o.sa(&f.offer).ke(19, &f.public);
    };
    assert_eq!(build("init_payloads", no_nonce), None);
    for twice in [PayloadKind::Sa, PayloadKind::Ke, PayloadKind::Nonce] {
        let body: Vec<u8> = match twice {
            PayloadKind::Ke => [&[0, 19, 0, 0][..], &f.public].concat(),
            PayloadKind::Sa => {
                let mut o = Outgoing::new();
                o.sa(&f.offer);
                o.bytes()[4..].to_vec()
            }
            _ => vec![7; 32],
        };
        let build_it: &dyn Fn(&mut Outgoing) = &|o| {
            o.sa(&f.offer).ke(19, &f.public).nonce(&f.nonce).add(twice, &body);
        };
        assert_eq!(build("payload_repeated", build_it), None);
    }
    let flood: &dyn Fn(&mut Outgoing) = &|o| {
        (0..65).for_each(|_| {
            o.vendor(b"");
        });
    };
    assert_eq!(build("payload_count", flood), None);
    // A zero-length payload loops nowhere.
    let mut looping = f.build();
    looping[30..32].fill(0);
    assert_eq!(refused(&mut net, &looping).0, ["payload_length"]);
    // Inner lengths beyond the packet (CVE-2016-6415).
    for at in [HEADER_LEN + 4 + 2, HEADER_LEN + 4 + 6, HEADER_LEN + 4 + 7, HEADER_LEN + 12 + 2] {
        let mut bytes = f.build();
        bytes[at] = 0x7f;
        let (reasons, answer) = refused(&mut net, &bytes);
        assert!(answer.is_none() && reasons[0].starts_with("payload_"), "{at}: {reasons:?}");
    }
    // Unknown and critical: RFC 7296 2.5.
    let mut bytes = f.build();
    bytes[16] = 200;
    bytes[29] = 0x80;
    let (reasons, answer) = refused(&mut net, &bytes);
    assert_eq!(reasons, ["payload_critical"]);
    let answer = answer.unwrap();
    let m = Message::decode(answer[16], &answer[HEADER_LEN..]).unwrap();
    assert_eq!((m.notifies[0].kind, m.notifies[0].data), (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[200][..]));
    still_works(&mut net);
}

/// CVE-2015-3240: public values that are no points. The work is done before it is known; afterwards nothing is left.
#[test]
fn public_values_that_are_not_in_the_group() {
    for value in [vec![0; 64], vec![0xff; 64], vec![1; 64]] {
        let mut net = up();
        let mut f = first(3).0;
        f.public = value;
        let (_, answer) = refused(&mut net, &f.build());
        assert!(answer.is_none());
        assert!(net.nodes[B].events.iter().all(|e| !matches!(e, IkeEvent::IsakmpUp { .. })));
        still_works(&mut net);
    }
}

#[test]
fn strangers_get_no_state_and_no_answer() {
    let mut net = up();
    let sent = net.nodes[B].sent.len();
    for n in 0..50 {
        deliver(&mut net, SocketAddr::new(STRANGER.into(), 500), &first(n + 1).0.build());
    }
    assert_eq!(net.nodes[B].sent.len(), sent);
    assert!(net.nodes[B].refusals().iter().all(|r| *r == "no_profile"));
    net.assert_settled(1, 1);
    still_works(&mut net);
}

/// Attack 2 of the list: one spoofed first message draws one answer, once.
#[test]
fn the_answer_is_never_repeated_by_itself() {
    let mut net = up();
    let bytes = first(3).0.build();
    let sent = net.nodes[B].sent.len();
    let from = peer(&net);
    deliver(&mut net, from, &bytes);
    assert_eq!(net.nodes[B].sent.len(), sent + 1);
    assert!(net.nodes[B].sent[sent].len() <= bytes.len() + 120, "{} for {}", net.nodes[B].sent[sent].len(), bytes.len());
    net.secs(60);
    assert_eq!(net.nodes[B].sent.len(), sent + 1);
    net.assert_settled(1, 1);
    // Repeated at once: not more often than the engine allows.
    deliver(&mut net, from, &bytes);
    for _ in 0..100 {
        deliver(&mut net, from, &bytes);
    }
    assert_eq!(net.nodes[B].sent.len(), sent + 2);
    net.secs(60);
    still_works(&mut net);
}

/// Answers that anybody can forge do not end what the real peer goes on with.
#[test]
fn forged_answers_do_not_stop_an_initiator() {
    for kind in [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_MAJOR_VERSION,
        NotifyType(8191),
    ] {
        let mut net = Net::new(5, usual());
        net.weather.delay_ms = 50;
        net.initiate(A);
        net.pump();
        let request = Header::decode(&net.nodes[A].sent[0]).unwrap();
        let mut out = Outgoing::new();
        out.status(kind, &[]);
        net.inject(A, &out.plain(&request.answer()));
        net.secs(5);
        net.assert_settled(1, 1);
    }
    // A group that was not offered, and a group that is none.
    for group in [2u16, 1025, 19] {
        let mut net = Net::new(6, usual());
        net.weather.delay_ms = 50;
        net.initiate(A);
        net.pump();
        let request = Header::decode(&net.nodes[A].sent[0]).unwrap();
        let mut out = Outgoing::new();
        out.status(NotifyType::INVALID_KE_PAYLOAD, &group.to_be_bytes());
        net.inject(A, &out.plain(&request.answer()));
        net.secs(5);
        net.assert_settled(1, 1);
        assert_eq!(net.nodes[A].live()[0].encr, GCM.0);
    }
}

/// A responder that asks for cookies without end gets a bounded number of requests.
#[test]
fn cookies_without_end() {
    let mut net = Net::new(7, usual());
    net.nodes[B].engine.set_active(false, net.now);
    net.initiate(A);
    net.pump();
    for n in 0..200u8 {
        let request = Header::decode(net.nodes[A].sent.last().unwrap()).unwrap();
        if request.exchange == Exchange::SaInit {
            let mut out = Outgoing::new();
            out.status(NotifyType::COOKIE, &[n; 32]);
            net.inject(A, &out.plain(&request.answer()));
        }
    }
    assert!(net.nodes[A].sent.len() < 10, "{}", net.nodes[A].sent.len());
    for length in [0, 65, 300] {
        let mut net = Net::new(8, usual());
        net.nodes[B].engine.set_active(false, net.now);
        net.initiate(A);
        net.pump();
        let request = Header::decode(&net.nodes[A].sent[0]).unwrap();
        let mut out = Outgoing::new();
        out.status(NotifyType::COOKIE, &vec![1; length]);
        net.inject(A, &out.plain(&request.answer()));
        assert_eq!(net.nodes[A].sent.len(), 1);
        assert!(net.nodes[A].refusals().contains(&"cookie"));
    }
}

/// Everything of the answer is checked before any key is made of it.
#[test]
fn forged_first_answers() {
    let mut net = Net::new(9, usual());
    net.weather.delay_ms = 50;
    net.initiate(A);
    net.pump();
    let request = net.nodes[A].sent[0].clone();
    let header = Header::decode(&request).unwrap().answer();
    let header = Header { id: IkeSaId { responder: [9; 8], ..header.id }, ..header };
    let asked = Message::decode(request[16], &request[HEADER_LEN..]).unwrap();
    let own = asked.ke.unwrap().data.to_vec();
    let offer = asked.sa.clone().unwrap();
    let public = first(1).0.public;
    let mut send = |reason: &str, offer: &[Proposal], group: u16, public: &[u8], header: &Header| {
        let mut out = Outgoing::new();
        out.sa(offer).ke(group, public).nonce(&[4; 32]);
        net.nodes[A].events.clear();
        net.inject(A, &out.plain(header));
        assert_eq!(net.nodes[A].refusals(), [reason]);
    };
    let mut other = offer.clone();
    other[0].transforms[0].key_bits = Some(128);
    send("proposal_answer", &other, 19, &public, &header);
    let mut two = offer.clone();
    two.push(two[0].clone());
    send("proposal_answer", &two, 19, &public, &header);
    send("payload_truncated", &[], 19, &public, &header);
    send("ke_group", &offer, 14, &public, &header);
    send("ke_group", &offer, 19, &public[1..], &header);
    send("reflected", &offer, 19, &own, &header);
    send("header_spi", &offer, 19, &public, &Header { id: IkeSaId { responder: [0; 8], ..header.id }, ..header });
    send("unknown_spi", &offer, 19, &public, &Header { id: IkeSaId { initiator: [1; 8], ..header.id }, ..header });
    net.secs(5);
    net.assert_settled(1, 1);
}
