//! Every transform with real packets, extended sequence numbers, transport mode.

use crate::lab::*;
use crate::pair::Pair;
use gateway_user::crypto::{AesKey, CipherAlg, Icv, IntegAlg};
use gateway_user::netlink::xfrm::XfrmAdapter;
use gateway_user::ports::*;
use gateway_user::sad::{ChildSa, Mode, Selector};
use std::time::Duration;

/// Every cipher that goes with its own integrity, and every integrity beside CBC and counter mode.
fn transforms() -> Vec<(CipherAlg, Option<IntegAlg>)> {
    let mut all = vec![(CipherAlg::ChaCha20Poly1305, None)];
    for key in [AesKey::Bits128, AesKey::Bits192, AesKey::Bits256] {
        for icv in Icv::ALL {
            all.push((CipherAlg::AesGcm(key, icv), None));
            all.push((CipherAlg::AesCcm(key, icv), None));
        }
        for integ in [IntegAlg::HmacSha1, IntegAlg::HmacSha256, IntegAlg::HmacSha512] {
            all.push((CipherAlg::AesCtr(key), Some(integ)));
        }
    }
    for integ in [IntegAlg::HmacMd5, IntegAlg::HmacSha384, IntegAlg::AesXcbc, IntegAlg::AesCmac] {
        all.push((CipherAlg::Aes256, Some(integ)));
        all.push((CipherAlg::AesCtr(AesKey::Bits128), Some(integ)));
        all.push((CipherAlg::Null, Some(integ)));
    }
    all.push((CipherAlg::Des, Some(IntegAlg::HmacMd5)));
    all.push((CipherAlg::TripleDes, Some(IntegAlg::HmacSha1)));
    all
}

#[test]
fn every_transform_carries_packets_with_short_and_long_numbers() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltv", child());
    for (encr, integ) in transforms() {
        p.a.prepare(encr, integ).unwrap_or_else(|e| panic!("{encr:?} {integ:?}: {e}"));
        for esn in [false, true] {
            let c = ChildSa { esn, ..with_transform(child(), encr, integ) };
            (p.child_b, p.child_a) = (mirror(&c), c);
            p.install();
            let name = format!("{encr:?} {integ:?} esn {esn}");
            assert_eq!((p.send(3), p.answer(3)), (3, 3), "{name}");
            // The answers come in as ESP and are seen once more in clear.
            assert_eq!(p.tap.esp_and_clear().0, 6, "{name}");
            assert_eq!(p.numbers(), (3, 3), "{name}");
            let mut restarted = within(&p.lab.a, || XfrmAdapter::open().unwrap());
            all_ok(restarted.install(&both(&p.child_a)));
            assert_eq!(p.numbers(), (3, 3), "{name}: taken over as it is");
            for (xfrm, c) in [(&mut p.a, &p.child_a), (&mut p.b, &p.child_b)] {
                xfrm.remove(c.spi_in, c.local).unwrap();
                xfrm.remove(c.spi_out, c.peer).unwrap();
            }
        }
    }
}

#[test]
fn what_the_kernel_cannot_do_is_told_when_it_is_prepared() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltw");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    xfrm.prepare(CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16), None).unwrap();
    assert_eq!(xfrm.dump().unwrap(), [], "the probe is gone");
    let none = xfrm.prepare(CipherAlg::Aes128, None).unwrap_err();
    assert!(none.to_string().contains("integrity"), "{none}");
}

fn esn_child() -> ChildSa {
    ChildSa { esn: true, ..with_transform(child(), CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16), None) }
}

#[test]
fn long_numbers_go_on_across_the_wrap_and_on_the_second_node() {
    let Some(_turn) = enter() else { return };
    for c in [esn_child(), ChildSa { esn: true, replay_window: 96, ..child() }] {
        let mut p = Pair::new("nltx", c);
        let mut events = Events::open(&p.lab.b);
        p.install();
        let wrap = 1u64 << 32;
        let (window, esn) = (p.child_a.replay_window, true);
        let (out, inn) = ((p.child_a.spi_out, p.child_a.peer), (p.child_b.spi_in, p.child_b.local));
        let set = |(spi, dst), direction, replay| ReplaySet { spi, dst, direction, replay, window, esn, used: None };
        // A receiver knows the high half only by having come near: both ends are set.
        all_ok(p.a.set_replay(&[set(out, Direction::Out, wrap - 6)]));
        all_ok(p.b.set_replay(&[set(inn, Direction::In, wrap - 6)]));
        assert_eq!(p.send(40), 40, "the low half wraps after five of them");
        assert_eq!(p.numbers(), (wrap + 34, wrap + 34));
        let dump = p.b.dump().unwrap();
        assert_eq!(dump.iter().find(|d| d.spi == inn.0).unwrap().seq, wrap + 34);
        let told = events.drain(Duration::from_millis(800));
        let last = told.iter().rev().find_map(|e| if let XfrmEvent::Replay { seq, .. } = e { Some(*seq) } else { None });
        assert_eq!(last, Some(wrap + 34), "events carry 64 bits");

        // The sender's second node: the same SA from a number that its partner cannot have used.
        p.a.remove(out.0, out.1).unwrap();
        let c = p.child_a.clone();
        all_ok(p.a.install(&[SaInstall { replay: wrap + 5000, ..half(&c, Direction::Out) }]));
        assert_eq!(p.send(5), 5);
        assert_eq!(p.numbers(), (wrap + 5005, wrap + 5005));
        // The receiver's second node, with the mirrored number: what was received is not received again.
        let held = p.b.replay(inn.0, inn.1).unwrap().seq;
        p.b.remove(inn.0, inn.1).unwrap();
        let c = p.child_b.clone();
        all_ok(p.b.install(&[SaInstall { replay: held, ..half(&c, Direction::In) }]));
        p.a.remove(out.0, out.1).unwrap();
        let c = p.child_a.clone();
        all_ok(p.a.install(&[SaInstall { replay: wrap + 5000, ..half(&c, Direction::Out) }]));
        assert_eq!(p.send(5), 0, "repeated numbers");
        assert_eq!(p.send(3), 3);
        // Back is refused, also from one epoch of the low half to the one before.
        let back = p.a.set_replay(&[set(out, Direction::Out, wrap - 1)]).pop().unwrap();
        assert!(back.is_err());
        // A node that lost the high half would be heard by nobody: that is why it is mirrored.
        p.a.remove(out.0, out.1).unwrap();
        all_ok(p.a.install(&[SaInstall { replay: 6000, ..half(&c, Direction::Out) }]));
        assert_eq!(p.send(3), 0);
    }
}

#[test]
fn a_floor_below_live_traffic_is_closed_across_the_wrap() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltxa", esn_child());
    let wrap = 1u64 << 32;
    let (a, b) = (p.child_a.clone(), p.child_b.clone());
    all_ok(p.b.install(&[SaInstall { replay: wrap - 30, ..half(&b, Direction::In) }, half(&b, Direction::Out)]));
    all_ok(p.a.install(&[SaInstall { replay: wrap - 10, ..half(&a, Direction::Out) }, half(&a, Direction::In)]));
    // wrap - 29 to wrap - 10 went elsewhere; the next twenty arrive here; then the other node's final count comes.
    assert_eq!(p.send(20), 20);
    let (spi, dst, window) = (b.spi_in, b.local, b.replay_window);
    let floor = ReplaySet { spi, dst, direction: Direction::In, replay: wrap - 10, window, esn: true, used: None };
    all_ok(p.b.set_replay(&[floor]));
    assert_eq!(p.b.replay(spi, dst).unwrap().seq, wrap + 10);
    p.a.remove(a.spi_out, a.peer).unwrap();
    all_ok(p.a.install(&[SaInstall { replay: wrap - 30, ..half(&a, Direction::Out) }]));
    assert_eq!(p.send(40), 0, "none is taken twice, none of the others' at all");
    assert_eq!(p.send(5), 5);
}

#[test]
fn transport_mode_protects_the_ends_own_traffic_by_protocol_and_port() {
    let Some(_turn) = enter() else { return };
    let end = |addr, port| Selector { addr: ip(addr), prefix: 32, proto: 17, port };
    let c = ChildSa {
        mode: Mode::Transport,
        ts_local: end("192.0.2.1", 0),
        ts_remote: end("192.0.2.2", 5001),
        ..with_transform(child(), CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16), None)
    };
    let mut p = Pair::between("nlty", c, "192.0.2.1:5000", "192.0.2.2:5001");
    assert_eq!(p.send(1), 0, "no SA yet");
    p.install();
    assert_eq!((p.send(3), p.answer(3)), (3, 3));
    assert_eq!(p.numbers(), (3, 3));
    let esp = p.tap.frames().into_iter().filter(|f| f.proto == 50).map(|f| f.bytes.len()).collect::<Vec<_>>();
    // Ethernet, IP, ESP header, IV, UDP with 100 bytes padded to a multiple of four with its trailer, check value: no second IP header.
    assert_eq!(esp, [14 + 20 + 8 + 8 + 112 + 16; 6]);
    // Another port is no business of the policy.
    let other = udp(&p.lab.b, "192.0.2.2:5002");
    assert_eq!(exchange(&p.from, &other, 2), 2);
    assert_eq!(p.tap.esp_and_clear(), (0, 2));
    // A peer that puts what was not negotiated into the SA is not heard: the receiver's SA selects too.
    let wide = FlowPolicy { local: end("192.0.2.1", 0), remote: end("192.0.2.2", 0), ..flow(&p.child_a) };
    p.a.sync_policies(&[wide]).unwrap();
    p.a.remove(p.child_a.spi_out, p.child_a.peer).unwrap();
    let any_port = ChildSa { ts_remote: end("192.0.2.2", 0), ..p.child_a.clone() };
    all_ok(p.a.install(&[SaInstall { replay: 100, ..half(&any_port, Direction::Out) }]));
    assert_eq!(exchange(&p.from, &other, 2), 0);
    assert_eq!(p.tap.esp_and_clear(), (2, 0));
    assert_eq!(p.send(2), 2, "the negotiated port passes");
}
