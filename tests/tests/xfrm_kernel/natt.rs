//! ESP in UDP: encapsulation both ways, a NAT whose mapping changes, a peer that is somewhere else.

use crate::lab::*;
use crate::pair::Pair;
use gateway_user::crypto::{AesKey, CipherAlg, Icv};
use gateway_user::ike::Transmit;
use gateway_user::net::ike::IkeSocket;
use gateway_user::ports::*;
use gateway_user::sad::{ChildSa, Encap};
use std::net::SocketAddr;
use std::time::Duration;

const NATT: Encap = Encap { local_port: 4500, peer_port: 4500 };

fn gcm() -> ChildSa {
    with_transform(child(), CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16), None)
}

/// UDP 4500 as the daemon has it, on a runtime that keeps it alive.
struct Natt {
    runtime: tokio::runtime::Runtime,
    socket: IkeSocket,
}

impl Natt {
    fn open(ns: &str) -> Self {
        within(ns, || {
            let runtime = runtime();
            let socket = runtime.block_on(async { IkeSocket::bind(4500) }).unwrap();
            assert!(socket.encap_error().is_none(), "{:?}", socket.encap_error());
            Self { runtime, socket }
        })
    }

    fn recv(&self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = [0; 2048];
        let got = self.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(300), self.socket.recv(&mut buffer)).await });
        got.ok().map(|r| r.unwrap()).map(|(n, from, _)| (buffer[..n].to_vec(), from))
    }
}

/// UDP frames by source and destination port.
fn udp_ports(frames: &[Frame]) -> Vec<(u16, u16)> {
    let port = |f: &Frame, at: usize| u16::from_be_bytes([f.bytes[at], f.bytes[at + 1]]);
    frames.iter().filter(|f| f.proto == 17).map(|f| (port(f, 34), port(f, 36))).collect()
}

#[test]
fn esp_in_udp_crosses_and_ike_goes_to_its_socket() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltna", ChildSa { encap: Some(NATT), esn: true, ..gcm() });
    let (natt_a, natt_b) = (Natt::open(&p.lab.a), Natt::open(&p.lab.b));
    p.install();
    assert_eq!((p.send(5), p.answer(5)), (5, 5));
    assert_eq!(p.numbers(), (5, 5));
    let frames = p.tap.frames();
    assert_eq!(frames.iter().filter(|f| f.proto == 50).count(), 0, "all of it is in UDP");
    assert_eq!(udp_ports(&frames).iter().filter(|ports| **ports == (4500, 4500)).count(), 10);
    // IKE with its marker is for the socket, a keepalive for nobody.
    let (from, to): (SocketAddr, SocketAddr) = ("192.0.2.1:4500".parse().unwrap(), "192.0.2.2:4500".parse().unwrap());
    for payload in [vec![0xff], [vec![0; 4], vec![7; 40]].concat()] {
        natt_a.socket.send(&Transmit { from, to, payload }).unwrap();
    }
    let (ike, sender) = natt_b.recv().expect("IKE");
    assert_eq!((ike.len(), &ike[..5], sender), (44, &[0, 0, 0, 0, 7][..], from));
    assert_eq!(natt_b.recv(), None);
    assert_eq!(natt_b.socket.stats().received, 1);
    // Plain ESP does not belong to an encapsulated SA.
    p.a.remove(p.child_a.spi_out, p.child_a.peer).unwrap();
    let plain = ChildSa { encap: None, ..p.child_a.clone() };
    all_ok(p.a.install(&[SaInstall { replay: 50, ..half(&plain, Direction::Out) }]));
    assert_eq!(p.send(2), 0);
}

#[test]
fn another_port_is_followed_in_place() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltnb", ChildSa { encap: Some(NATT), ..gcm() });
    let _natt = (Natt::open(&p.lab.a), Natt::open(&p.lab.b));
    p.install();
    let mut events = Events::open(&p.lab.b);
    assert_eq!(p.send(3), 3);
    // What a NAT would do: `a`'s packets come from another port from now on.
    let moved_a = ChildSa { encap: Some(Encap { local_port: 4501, ..NATT }), ..p.child_a.clone() };
    let before = p.numbers();
    p.a.move_peer(&p.child_a, moved_a.peer, moved_a.encap).unwrap();
    p.child_a = moved_a;
    assert_eq!(p.numbers(), before, "no number moved");
    assert_eq!(p.send(3), 3, "the receiver takes what is authentic, wherever it comes from");
    let seen = events.wait(Duration::from_secs(2), |e| matches!(e, XfrmEvent::Mapping { .. }));
    let want = XfrmEvent::Mapping { spi: p.child_b.spi_in, dst: p.child_b.local, peer: ip("192.0.2.1"), port: 4501 };
    assert_eq!(seen, Some(want));
    let more = events.drain(Duration::from_millis(300));
    assert_eq!(more.iter().filter(|e| matches!(e, XfrmEvent::Mapping { .. })).count(), 0, "one event for three packets");
    // And follows: its answers go to the new port.
    let to = Some(Encap { peer_port: 4501, ..NATT });
    p.b.move_peer(&p.child_b, p.child_b.peer, to).unwrap();
    p.child_b.encap = to;
    p.tap.frames();
    p.answer(2);
    assert_eq!(udp_ports(&p.tap.frames())[..], [(4500, 4501); 2]);
    assert_eq!(p.send(2), 2);
    assert_eq!(p.numbers(), (8, 8));
    std::thread::sleep(Duration::from_millis(1200));
    p.send(2);
    let more = events.drain(Duration::from_millis(300));
    assert_eq!(more.iter().filter(|e| matches!(e, XfrmEvent::Mapping { .. })).count(), 0, "it is where the SA says");
}

#[test]
fn another_address_is_followed_without_a_number_twice() {
    let Some(_turn) = enter() else { return };
    for (prefix, encap, esn) in [("nltnc", Some(NATT), true), ("nltnd", None, false)] {
        let mut p = Pair::new(prefix, ChildSa { encap, esn, ..gcm() });
        let _natt = (Natt::open(&p.lab.a), Natt::open(&p.lab.b));
        p.install();
        assert_eq!((p.send(7), p.answer(4)), (7, 4));
        // `b` is somewhere else.
        run(&format!("ip -n {0} addr add 192.0.2.3/24 dev {0}", p.lab.b));
        let there = ip("192.0.2.3");
        let used = p.a.dump().unwrap();
        p.a.move_peer(&p.child_a, there, encap).unwrap();
        p.child_a.peer = there;
        p.a.sync_policies(&[flow(&p.child_a)]).unwrap();
        let dump = p.a.dump().unwrap();
        assert_eq!(dump.len(), 2, "nothing is left of the old one");
        let (old, new) =
            (used.iter().find(|d| d.spi == p.child_a.spi_out).unwrap(), dump.iter().find(|d| d.spi == p.child_a.spi_out).unwrap());
        assert_eq!((new.dst, new.oseq, new.bytes, new.packets, new.reqid), (there, 7, old.bytes, old.packets, REQID));
        assert_eq!(dump.iter().find(|d| d.spi == p.child_a.spi_in).unwrap().seq, 4);
        // The same on the side that moved: its own end changes, which for it is a new pair with the old numbers.
        let held = p.b.replay(p.child_b.spi_in, p.child_b.local).unwrap();
        let out = p.b.replay(p.child_b.spi_out, p.child_b.peer).unwrap();
        for (spi, dst) in [(p.child_b.spi_in, p.child_b.local), (p.child_b.spi_out, p.child_b.peer)] {
            p.b.remove(spi, dst).unwrap();
        }
        p.child_b.local = there;
        p.b.sync_policies(&[flow(&p.child_b)]).unwrap();
        let c = p.child_b.clone();
        all_ok(p.b.install(&[
            SaInstall { replay: held.seq, ..half(&c, Direction::In) },
            SaInstall { replay: out.oseq, ..half(&c, Direction::Out) },
        ]));
        assert_eq!((p.send(5), p.answer(5)), (5, 5), "both ways, also into the inbound SA that names the old address");
        assert_eq!(p.numbers(), (12, 12));
        let restarted = within(&p.lab.a, || gateway_user::netlink::xfrm::XfrmAdapter::open().unwrap()).install(&both(&p.child_a));
        all_ok(restarted);
    }
}

#[test]
fn encapsulation_that_begins_closes_what_was_received() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltne", gcm());
    let _natt = (Natt::open(&p.lab.a), Natt::open(&p.lab.b));
    p.install();
    assert_eq!((p.send(7), p.answer(4)), (7, 4));
    p.a.move_peer(&p.child_a, p.child_a.peer, Some(NATT)).unwrap();
    p.b.move_peer(&p.child_b, p.child_b.peer, Some(NATT)).unwrap();
    (p.child_a.encap, p.child_b.encap) = (Some(NATT), Some(NATT));
    let window = u64::from(p.child_b.replay_window);
    assert_eq!(p.numbers(), (7, 7 + window));
    assert_eq!(p.send(3), 0, "numbers inside the window that was closed");
    let c = p.child_a.clone();
    let past = ReplaySet {
        spi: c.spi_out,
        dst: c.peer,
        direction: Direction::Out,
        replay: 7 + window,
        window: c.replay_window,
        esn: false,
        used: None,
    };
    all_ok(p.a.set_replay(&[past]));
    assert_eq!(p.send(3), 3);
}

#[test]
fn a_pair_that_is_not_installed_moves_without_an_error() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltnf", gcm());
    p.a.move_peer(&p.child_a, ip("192.0.2.9"), Some(NATT)).unwrap();
    all_ok(p.a.install(&[half(&p.child_a, Direction::In)]));
    p.a.move_peer(&p.child_a, ip("192.0.2.9"), None).unwrap();
    assert_eq!(p.a.dump().unwrap().len(), 1);
}
