//! Requests under an established SA: of a peer who proved himself and does wrong, and of others who pretend.

use super::*;
use crate::ike::v2::proposal::Transform;

/// A peer with an IKE SA of his own beside the tunnel that must not notice.
struct Insider {
    mallory: Mallory,
    next: u32,
    /// Pairs of the live tunnel, as node B's kernel has them.
    beside: Vec<Spi>,
}

impl Insider {
    fn new(net: &mut Net) -> Self {
        let beside: Vec<Spi> = net.nodes[B].kernel.keys().copied().collect();
        let mallory = Mallory::new(net, 5);
        let mut out = Outgoing::new();
        out.id(true, &mallory.identity()).auth(2, &mallory.proof(net, None));
        assert_eq!(mallory.ask(net, Exchange::Auth, 1, &out), Some(vec![]));
        net.nodes[B].events.clear();
        Self { mallory, next: 2, beside }
    }

    fn ask(&mut self, net: &mut Net, exchange: Exchange, out: &Outgoing) -> Vec<NotifyType> {
        let answer = self.mallory.ask(net, exchange, self.next, out).expect("every request is answered");
        self.next += 1;
        answer
    }

    /// Asks for something that is refused with this, and leaves nothing.
    fn refused(&mut self, net: &mut Net, exchange: Exchange, kind: NotifyType, fill: &dyn Fn(&Net, &mut Outgoing)) {
        let mut out = Outgoing::new();
        fill(net, &mut out);
        let before = net.nodes[B].engine.sas.len();
        assert_eq!(self.ask(net, exchange, &out), [kind]);
        assert_eq!(net.nodes[B].engine.sas.len(), before);
        self.unharmed(net);
    }

    /// The tunnel beside is as it was, nothing was added.
    fn unharmed(&self, net: &Net) {
        let n = &net.nodes[B];
        assert_eq!(n.kernel.keys().copied().collect::<Vec<_>>(), self.beside);
        assert_eq!(n.spis.0.lock().unwrap().iter().copied().collect::<Vec<_>>(), self.beside, "SPIs");
        assert!(n.kernel.values().all(|k| k.outbound && !k.retired));
    }

    /// Ends his SA; the tunnel works.
    fn leave(mut self, net: &mut Net) {
        let mut out = Outgoing::new();
        out.delete_ike();
        assert_eq!(self.ask(net, Exchange::Informational, &out), []);
        still_works(net);
    }
}

#[test]
fn children_that_are_asked_for_wrongly() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    let child = Exchange::CreateChildSa;
    let nonce = [6; 32];
    m.refused(&mut net, child, NotifyType::INVALID_SYNTAX, &|_, _| {});
    m.refused(&mut net, child, NotifyType::INVALID_SYNTAX, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&child_offer(net, 0x7000)).ts(&i, &r);
    });
    m.refused(&mut net, child, NotifyType::INVALID_SYNTAX, &|net, out| {
        out.sa(&child_offer(net, 0x7000)).nonce(&nonce);
    });
    m.refused(&mut net, child, NotifyType::INVALID_SYNTAX, &|net, out| {
        let (i, r) = flow_ts(net);
        out.nonce(&nonce).ts(&i, &r);
    });
    m.refused(&mut net, child, NotifyType::TS_UNACCEPTABLE, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&child_offer(net, 0x7000)).nonce(&nonce).ts(&r, &i);
    });
    m.refused(&mut net, child, NotifyType::NO_PROPOSAL_CHOSEN, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&child_offer(net, 7)).nonce(&nonce).ts(&i, &r);
    });
    let with_group = |net: &Net, group: u16| {
        let mut offer = child_offer(net, 0x7000);
        offer[0].transforms.push(Transform { kind: 4, id: group, key_bits: None, understood: true });
        offer
    };
    // A group in the proposal, but no KE, one of another group, one of a wrong length, one that is no point.
    m.refused(&mut net, child, NotifyType::INVALID_KE_PAYLOAD, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&with_group(net, 19)).nonce(&nonce).ts(&i, &r);
    });
    m.refused(&mut net, child, NotifyType::INVALID_KE_PAYLOAD, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&with_group(net, 19)).nonce(&nonce).ke(14, &[1; 256]).ts(&i, &r);
    });
    m.refused(&mut net, child, NotifyType::INVALID_SYNTAX, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&with_group(net, 19)).nonce(&nonce).ke(19, &[1; 63]).ts(&i, &r);
    });
    m.refused(&mut net, child, NotifyType::INVALID_SYNTAX, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&with_group(net, 19)).nonce(&nonce).ke(19, &[0; 64]).ts(&i, &r);
    });
    m.refused(&mut net, child, NotifyType::NO_PROPOSAL_CHOSEN, &|net, out| {
        let (i, r) = flow_ts(net);
        out.sa(&with_group(net, 1025)).nonce(&nonce).ke(1025, &[1; 64]).ts(&i, &r);
    });
    m.leave(&mut net);
}

/// CVE-2023-38710: REKEY_SA with protocol 0 or 1; and SPIs that are not his.
#[test]
fn rekeys_of_what_is_not_there() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    let theirs = net.nodes[B].live()[0].spi_out;
    let mut rekey = |protocol: Protocol, spi: &[u8]| {
        m.refused(&mut net, Exchange::CreateChildSa, NotifyType::CHILD_SA_NOT_FOUND, &|net, out| {
            let (i, r) = flow_ts(net);
            out.notify(protocol, spi, NotifyType::REKEY_SA, &[]);
            out.sa(&child_offer(net, 0x7000)).nonce(&[6; 32]).ts(&i, &r);
        });
    };
    let spi = theirs.0.to_be_bytes();
    for protocol in [Protocol::None, Protocol::Ike, Protocol::Ah, Protocol::Esp, Protocol::Other(200)] {
        // The last one with four bytes is the pair of the tunnel beside: it belongs to another IKE SA.
        for spi in [&[][..], &[0; 8], &[0; 4], &[1; 255], &spi] {
            rekey(protocol, spi);
        }
    }
    m.leave(&mut net);
}

#[test]
fn new_ike_sas_that_are_asked_for_wrongly() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    let public = first(9).0.public;
    let mut rekey = |kind: NotifyType, fill: &dyn Fn(&mut Outgoing)| {
        m.refused(&mut net, Exchange::CreateChildSa, kind, &|_, out| fill(out));
    };
    let offer = ike_offer(&[fast()], Some([7; 8]));
    rekey(NotifyType::INVALID_SYNTAX, &|o| {
        o.sa(&offer);
    });
    rekey(NotifyType::INVALID_SYNTAX, &|o| {
        o.sa(&offer).ke(19, &public);
    });
    rekey(NotifyType::INVALID_KE_PAYLOAD, &|o| {
        o.sa(&offer).nonce(&[6; 32]).ke(1025, &public);
    });
    rekey(NotifyType::INVALID_SYNTAX, &|o| {
        o.sa(&offer).nonce(&[6; 32]).ke(19, &public[1..]);
    });
    for spi in [vec![], vec![0; 8], vec![1; 4]] {
        let mut offer = offer.clone();
        offer[0].spi = spi;
        rekey(NotifyType::NO_PROPOSAL_CHOSEN, &|o| {
            o.sa(&offer).nonce(&[6; 32]).ke(19, &public);
        });
    }
    let mut unknown = offer.clone();
    unknown[0].transforms.iter_mut().for_each(|t| t.id = 999);
    rekey(NotifyType::NO_PROPOSAL_CHOSEN, &|o| {
        o.sa(&unknown).nonce(&[6; 32]).ke(19, &public);
    });
    m.leave(&mut net);
}

/// CVE-2023-38712 and its like.
#[test]
fn deletes_of_everything_at_once() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    let theirs = net.nodes[B].live()[0].clone();
    let mut out = Outgoing::new();
    // Pairs of others, by either SPI; pairs that are not there; a protocol that we do not have; nothing.
    out.delete_esp(&[theirs.spi_out, theirs.spi_in, Spi(0), Spi(255), Spi(0x7000), Spi(0x7000)]).delete_esp(&[]);
    out.add(PayloadKind::Delete, &[2, 4, 0, 1, 0, 0, 1, 0]).add(PayloadKind::Delete, &[77, 0, 0, 0]);
    assert_eq!(m.ask(&mut net, Exchange::Informational, &out), []);
    m.unharmed(&net);
    let mut out = Outgoing::new();
    out.delete_ike().delete_ike().delete_esp(&[theirs.spi_out]).delete_ike();
    assert_eq!(m.ask(&mut net, Exchange::Informational, &out), []);
    m.unharmed(&net);
    net.assert_settled(1, 1);
    still_works(&mut net);
}

#[test]
fn unknown_payloads_and_malformed_ones() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    for exchange in [Exchange::Informational, Exchange::CreateChildSa] {
        let header = Header::new(m.mallory.id, exchange, true, false, m.next);
        let keys = m.mallory.keys.seal_keys(&m.mallory.suite, true);
        let bytes = seal(&header, 222, &[0, 0x80, 0, 4], &keys, &vec![3; keys.iv_len()]).unwrap();
        let sent = net.nodes[B].sent.len();
        deliver(&mut net, m.mallory.from, &bytes);
        let opened = m.mallory.open(&net.nodes[B].sent[sent]);
        let answer = Message::decode(opened.first, &opened.plain).unwrap();
        assert_eq!((answer.notifies[0].kind, answer.notifies[0].data), (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[222][..]));
        m.next += 1;
        m.unharmed(&net);
    }
    for body in [&[1, 0, 0, 0, 7, 0, 0, 8][..], &[9], &[]] {
        m.refused(&mut net, Exchange::Informational, NotifyType::INVALID_SYNTAX, &|_, out| {
            out.add(PayloadKind::TsI, body);
        });
    }
    // What an INFORMATIONAL may hold and we do not act upon.
    let mut out = Outgoing::new();
    out.status(NotifyType(40_000), &[1; 300]).status(NotifyType(8191), b"error").vendor(b"x").add(PayloadKind::Cp, &[1, 0, 0, 0]);
    assert_eq!(m.ask(&mut net, Exchange::Informational, &out), []);
    m.unharmed(&net);
    m.leave(&mut net);
}

#[test]
fn exchanges_of_the_beginning_on_an_sa_that_stands() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    for exchange in [Exchange::Auth, Exchange::Intermediate, Exchange::FollowupKe] {
        let mut out = m.mallory.good(&net);
        out.status(NotifyType::INITIAL_CONTACT, &[]);
        let before = net.nodes[B].engine.sas.len();
        let answer = m.mallory.ask(&mut net, exchange, m.next, &out);
        m.next += u32::from(answer.is_some());
        assert!(answer.is_none_or(|kinds| kinds.iter().all(|k| k.is_error())), "{exchange:?}");
        assert_eq!(net.nodes[B].engine.sas.len(), before);
        m.unharmed(&net);
    }
    m.leave(&mut net);
}

#[test]
fn message_ids_outside_the_window() {
    let mut net = up();
    let m = Insider::new(&mut net);
    for n in [0, 1, m.next + 1, m.next + 100, u32::MAX - 1, u32::MAX] {
        let mut out = Outgoing::new();
        out.delete_ike();
        assert_eq!(m.mallory.ask(&mut net, Exchange::Informational, n, &out), None, "{n}");
        m.unharmed(&net);
    }
    // An answer to nothing, with good encryption.
    let header = Header::new(m.mallory.id, Exchange::Informational, true, true, 0);
    let keys = m.mallory.keys.seal_keys(&m.mallory.suite, true);
    let bytes = Outgoing::new().seal(&header, &keys, &vec![0; keys.iv_len()]).unwrap();
    net.nodes[B].events.clear();
    deliver(&mut net, m.mallory.from, &bytes);
    assert_eq!(net.nodes[B].refusals(), ["unexpected_response"]);
    m.leave(&mut net);
}

/// CVE-2007-1841, CVE-2009-0790 and their like: whoever sees the SPIs, without keys.
#[test]
fn unprotected_messages_with_good_spis() {
    let mut net = up();
    let id = net.nodes[B].sa(net.now);
    let spi = net.nodes[B].live()[0].spi_out;
    for initiator in [true, false] {
        for response in [true, false] {
            for exchange in Exchange::ALL {
                for message_id in 0..5 {
                    let mut out = Outgoing::new();
                    out.status(NotifyType::INVALID_IKE_SPI, &[]).status(NotifyType::AUTHENTICATION_FAILED, &[]);
                    out.status(NotifyType::INITIAL_CONTACT, &[]).delete_esp(&[spi]).delete_ike();
                    let bytes = out.plain(&Header::new(id, exchange, initiator, response, message_id));
                    let (reasons, answer) = refused(&mut net, &bytes);
                    assert!(reasons.len() == 1 && answer.is_none(), "{exchange:?}: {reasons:?}");
                    // The same in what looks like encryption.
                    let keys = crate::ike::v2::message::tests::all_keys().remove(1);
                    let bytes = out.seal(&Header::new(id, exchange, initiator, response, message_id), &keys, &[0; 16]).unwrap();
                    let (reasons, answer) = refused(&mut net, &bytes);
                    assert!(reasons.len() == 1 && answer.is_none(), "{exchange:?}: {reasons:?}");
                }
            }
        }
    }
    still_works(&mut net);
}

/// Our own messages sent back to us, and everything recorded so far again.
#[test]
fn reflection_and_replay() {
    let mut net = up();
    net.rekey_child(A);
    net.secs(40);
    net.rekey_ike(B);
    net.secs(40);
    net.rekey_child(B);
    net.secs(40);
    net.assert_settled(1, 1);
    let all: Vec<Vec<u8>> = net.nodes.iter().flat_map(|n| n.sent.clone()).collect();
    assert!(all.len() > 10);
    for bytes in &all {
        // A first message of before may draw an answer; it is half-open until it ages out.
        let from = peer(&net);
        let sent = net.nodes[B].sent.len();
        deliver(&mut net, from, bytes);
        assert!(net.nodes[B].sent.len() <= sent + 1);
        net.secs(35);
        net.assert_settled(1, 1);
    }
    still_works(&mut net);
}

/// A peer who asks for the same child over and over: what he can take is bounded, and it is all gone with his SA.
#[test]
fn children_without_end() {
    let mut net = up();
    let mut m = Insider::new(&mut net);
    let mut made = 0;
    for n in 0..400 {
        let mut out = Outgoing::new();
        let (i, r) = flow_ts(&net);
        out.sa(&child_offer(&net, 0x8000 + n)).nonce(&[n as u8; 32]).ts(&i, &r);
        made += usize::from(m.ask(&mut net, Exchange::CreateChildSa, &out).iter().all(|k| !k.is_error()));
    }
    assert_eq!(made, 128);
    assert!(net.nodes[B].kernel.len() <= made + m.beside.len());
    m.leave(&mut net);
}
