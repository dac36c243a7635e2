//! Real packets between two namespaces: acquires, ESP on the wire, replay events, takeover numbers, block policies.

use crate::lab::*;
use crate::pair::Pair;
use gateway_user::ike::Acquire;
use gateway_user::netlink::socket::{Family, NetlinkSocket};
use gateway_user::netlink::xfrm::policy;
use gateway_user::ports::*;
use gateway_user::sad::{ChildSa, Lifetime, Selector};
use std::time::Duration;

#[test]
fn a_packet_without_sa_asks_and_does_not_leave() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nlth", child());
    let mut events = Events::open(&p.lab.a);
    assert_eq!(p.send(1), 0);
    let Some(XfrmEvent::Acquire(acquire)) = events.wait(Duration::from_secs(3), |e| matches!(e, XfrmEvent::Acquire(_))) else {
        panic!("no acquire");
    };
    let host = |addr, port| Selector { addr: ip(addr), prefix: 32, proto: 17, port };
    let want = Acquire { peer: ip("192.0.2.2"), reqid: REQID, src: host("10.1.0.1", 5000), dst: host("10.2.0.1", 5001) };
    assert_eq!(acquire, want);
    assert_eq!(p.tap.esp_and_clear(), (0, 0), "nothing on the wire");
    // The kernel waits 30 seconds for the answer; the SA ends the wait.
    p.install();
    assert_eq!(p.send(2), 2);
    assert_eq!(p.tap.esp_and_clear(), (2, 0));
}

#[test]
fn packets_cross_as_esp_and_events_follow() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nlti", child());
    let (mut events_a, mut events_b) = (Events::open(&p.lab.a), Events::open(&p.lab.b));
    p.install();
    assert_eq!(p.send(80), 80, "in and fwd blocks lie beneath the templates");
    assert_eq!(p.tap.esp_and_clear(), (80, 0));
    assert_eq!(p.numbers(), (80, 80));
    let dump = p.b.dump().unwrap();
    let sa = dump.iter().find(|d| d.spi == p.child_b.spi_in).unwrap();
    // 128 bytes of inner packet each, 80 times; the kernel counts them decrypted.
    assert_eq!((sa.packets, sa.bytes, sa.seq), (80, 80 * 128, 80));

    let quiet = Duration::from_millis(1500);
    let (a, b) = (events_a.drain(quiet), events_b.drain(quiet));
    let numbers = |events: &[XfrmEvent]| -> Vec<u64> {
        let number = |e: &XfrmEvent| match e {
            XfrmEvent::Replay { seq, oseq, .. } => Some(*seq + *oseq),
            _ => None,
        };
        events.iter().filter_map(number).collect()
    };
    let (a, b) = (numbers(&a), numbers(&b));
    for seen in [&a, &b] {
        assert!(seen.contains(&32) && seen.contains(&64), "by packets: {seen:?}");
        assert_eq!(seen.last(), Some(&80), "and the rest by time: {seen:?}");
    }

    let window = p.child_b.replay_window;
    let set =
        ReplaySet { spi: p.child_b.spi_in, dst: p.child_b.local, direction: Direction::In, replay: 81, window, esn: false, used: None };
    all_ok(p.b.set_replay(&[set]));
    assert_eq!(events_b.drain(Duration::from_millis(300)), [], "our own write gives no event");
}

#[test]
fn takeover_numbers_hold() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltj", child());
    p.install();
    assert_eq!(p.send(10), 10);
    let window = p.child_a.replay_window;
    let floor =
        ReplaySet { spi: p.child_b.spi_in, dst: p.child_b.local, direction: Direction::In, replay: 5000, window, esn: false, used: None };
    all_ok(p.b.set_replay(&[floor]));
    assert_eq!(p.send(5), 0, "below the mirrored number nothing is accepted");
    let refused = |p: &mut Pair| {
        let spi = p.child_b.spi_in;
        let sa = p.b.dump().unwrap().into_iter().find(|sa| sa.spi == spi).unwrap();
        (sa.replay_window, sa.replay, sa.integrity_failed)
    };
    assert_eq!(refused(&mut p), (5, 0, 0), "the kernel counts what it refused, and why");
    let lease =
        ReplaySet { spi: p.child_a.spi_out, dst: p.child_a.peer, direction: Direction::Out, replay: 9000, window, esn: false, used: None };
    all_ok(p.a.set_replay(&[lease]));
    assert_eq!(p.send(5), 5);
    assert_eq!(p.numbers(), (9005, 9005));

    // A number beyond 32 bits: the outbound SA is at its end and must not start again at one.
    let end = ReplaySet { replay: 1 << 33, ..lease };
    all_ok(p.a.set_replay(&[end]));
    p.tap.frames();
    assert_eq!(p.send(3), 0);
    assert_eq!(p.tap.esp_and_clear(), (0, 0), "nothing leaves, in clear or otherwise");
}

#[test]
fn a_floor_beneath_live_traffic_is_closed_without_loss() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltr", child());
    p.install();
    let window = p.child_a.replay_window;
    let out = |replay| {
        let (spi, dst) = (p.child_a.spi_out, p.child_a.peer);
        ReplaySet { spi, dst, direction: Direction::Out, replay, window, esn: false, used: None }
    };
    // Numbers 1 to 20 went elsewhere; 21 to 30 arrive here; then the final count of the other node comes: 20.
    all_ok(p.a.set_replay(&[out(20)]));
    let held = p.b.replay(p.child_b.spi_in, p.child_b.local).unwrap();
    assert_eq!((held.seq, held.bits), (0, 0));
    assert_eq!(exchange(&p.from, &p.to, 10), 10);
    let floor =
        ReplaySet { spi: p.child_b.spi_in, dst: p.child_b.local, direction: Direction::In, replay: 20, window, esn: false, used: None };
    all_ok(p.b.set_replay(&[floor]));
    let held = p.b.replay(p.child_b.spi_in, p.child_b.local).unwrap();
    assert_eq!((held.seq, held.bits), (30, 30), "1 to 20 closed, 21 to 30 received");
    // The sender is set up anew and repeats all of them.
    p.a.remove(p.child_a.spi_out, p.child_a.peer).unwrap();
    all_ok(p.a.install(&[half(&p.child_a, Direction::Out)]));
    assert_eq!(p.send(30), 0, "none is taken twice");
    let counted = p.b.dump().unwrap().into_iter().find(|sa| sa.spi == p.child_b.spi_in).map(|sa| (sa.replay_window, sa.replay));
    assert_eq!(counted, Some((0, 30)));
    assert_eq!(p.send(5), 5, "31 to 35");
    let held = p.b.replay(p.child_b.spi_in, p.child_b.local).unwrap();
    assert_eq!((held.seq, held.bits), (35, 35));
}

#[test]
fn lost_events_are_told() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nlts", child());
    let mut events = Events::open(&p.lab.a);
    p.install();
    // Nobody reads meanwhile; echoes of our own writes fill the queue as well as anything.
    let window = p.child_a.replay_window;
    let (spi, dst) = (p.child_a.spi_out, p.child_a.peer);
    let set = ReplaySet { spi, dst, direction: Direction::Out, replay: 7, window, esn: false, used: None };
    all_ok(p.a.set_replay(&vec![set; 40_000]));
    assert_eq!(events.drain(Duration::from_millis(500)), [XfrmEvent::Overrun], "told once; the echoes themselves are dropped");
    assert_eq!(p.send(40), 40);
    let seen = events.wait(Duration::from_secs(3), |e| matches!(e, XfrmEvent::Replay { oseq: 8.., .. }));
    assert!(seen.is_some(), "and the reader goes on");
}

#[test]
fn a_byte_limit_counts_what_the_other_node_used() {
    let Some(_turn) = enter() else { return };
    let limited =
        ChildSa { lifetime: Lifetime { seconds: 3600, kilobytes: 10 }, soft: Lifetime { seconds: 3000, kilobytes: 9 }, ..child() };
    let mut p = Pair::new("nltk", limited);
    let mut events = Events::open(&p.lab.a);
    all_ok(p.b.install(&both(&p.child_b)));
    let used = SaUsed { bytes: 9000, ..SaUsed::default() };
    let c = p.child_a.clone();
    all_ok(p.a.install(&[half(&c, Direction::In), SaInstall { used, ..half(&c, Direction::Out) }]));
    assert!(p.send(1) == 1);
    let expired = |e: &XfrmEvent| matches!(e, XfrmEvent::Expire { .. });
    assert_eq!(events.drain(Duration::from_millis(300)).iter().filter(|e| expired(e)).count(), 0, "9128 of 9216 bytes");
    p.send(2);
    let event = |hard| Some(XfrmEvent::Expire { spi: c.spi_out, dst: c.peer, hard });
    assert_eq!(events.wait(Duration::from_secs(2), expired), event(false));
    p.send(20);
    assert_eq!(events.wait(Duration::from_secs(3), expired), event(true));
}

#[test]
fn clear_packets_are_refused_and_blocks_stand_alone() {
    let Some(_turn) = enter() else { return };
    let mut p = Pair::new("nltl", child());
    p.install();
    assert_eq!(p.send(2), 2);
    assert_eq!(p.tap.esp_and_clear(), (2, 0));
    // `a` turns careless: it sends in clear.
    p.a.sync_policies(&[]).unwrap();
    assert_eq!(p.send(3), 0, "the inbound template refuses what was not protected");
    assert_eq!(p.tap.esp_and_clear(), (0, 3), "it was on the wire");
    // Somebody takes the templates of `b` away: the blocks go on refusing.
    let templates = |child: &ChildSa| -> Vec<policy::PolicyKey> {
        policy::wanted(&[flow(child)]).unwrap().into_keys().filter(|k| k.mark == policy::MARK_PROTECT).collect()
    };
    let mut socket_b = within(&p.lab.b, || NetlinkSocket::open(Family::Xfrm).unwrap());
    all_ok(socket_b.pipeline(templates(&p.child_b).iter().map(policy::delete), |_, _, _| ()));
    assert_eq!(p.send(3), 0);
    assert_eq!(p.tap.esp_and_clear(), (0, 3));
    // The same on the sending side.
    p.a.sync_policies(&[flow(&p.child_a)]).unwrap();
    let mut socket_a = within(&p.lab.a, || NetlinkSocket::open(Family::Xfrm).unwrap());
    all_ok(socket_a.pipeline(templates(&p.child_a).iter().map(policy::delete), |_, _, _| ()));
    assert_eq!(p.send(3), 0);
    assert_eq!(p.tap.esp_and_clear(), (0, 0), "nothing leaves");
    // And a sync puts all of it right.
    p.a.sync_policies(&[flow(&p.child_a)]).unwrap();
    p.b.sync_policies(&[flow(&p.child_b)]).unwrap();
    assert_eq!(p.send(3), 3);
    assert_eq!(p.tap.esp_and_clear(), (3, 0));
}
