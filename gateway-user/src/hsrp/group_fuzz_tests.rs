//! One group against random inputs in random order.

use super::group_tests::{Bench, OURS, config};
use super::packet::Packet;
use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Poke {
    Bytes(u8, u8, Vec<u8>),
    Packet { from: u8, opcode: u8, state: usize, priority: u8 },
    Wait(u16),
    Interface(bool),
    Eligible(bool),
    Grant,
    Yield(bool),
    Adopt,
}

fn poke() -> impl Strategy<Value = Poke> {
    prop_oneof![
        1 => (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(s, t, b)| Poke::Bytes(s, t, b)),
        8 => (1..5u8, 0..4u8, 0..6usize, 98..103u8)
            .prop_map(|(from, opcode, state, priority)| Poke::Packet { from, opcode, state, priority }),
        6 => (0..500u16).prop_map(Poke::Wait),
        1 => any::<bool>().prop_map(Poke::Interface),
        1 => any::<bool>().prop_map(Poke::Eligible),
        1 => Just(Poke::Grant),
        1 => any::<bool>().prop_map(Poke::Yield),
        1 => Just(Poke::Adopt),
    ]
}

proptest! {
    /// Whatever comes in whatever order: no panic, no Active without a decision, no proposal while not eligible or active,
    /// no virtual MAC outside Active, and always a timer while running.
    #[test]
    fn no_order_of_inputs_breaks_the_rules(pokes in proptest::collection::vec(poke(), 0..60)) {
        let mut b = Bench::new(config(OURS));
        let mut eligible = false;
        for poke in pokes {
            let before = b.group.state();
            let mut decided = false;
            match poke {
                Poke::Bytes(source, ttl, bytes) => {
                    let _ = b.group.handle_packet(Ipv4Addr::new(10, 0, 0, source), ttl, MULTICAST, &bytes, b.now);
                    let _ = b.group.handle_packet(Ipv4Addr::new(10, 0, 0, source), TTL, MULTICAST, &bytes, b.now);
                }
                Poke::Packet { from, opcode, state, priority } => {
                    let from = Ipv4Addr::new(10, 0, 0, from);
                    let mut bytes = Packet::of(&GroupConfig { priority, ..config(from) }, Opcode::Hello, State::Listen).encode();
                    (bytes[1], bytes[2]) = (opcode, [0, 1, 2, 4, 8, 16][state]);
                    let _ = b.group.handle_packet(from, TTL, MULTICAST, &bytes, b.now);
                }
                Poke::Wait(ms) => b.wait(Duration::from_millis(ms.into())),
                Poke::Interface(up) => b.group.handle_interface(up, Duration::from_millis(50), b.now),
                Poke::Eligible(value) => {
                    eligible = value;
                    b.group.set_eligible(value, b.now);
                }
                Poke::Grant => {
                    decided = true;
                    b.group.grant_active(b.now);
                }
                Poke::Yield(resign) => {
                    decided = true;
                    b.group.yield_active(resign, b.now);
                }
                Poke::Adopt => {
                    decided = true;
                    b.group.adopt_active(b.now);
                }
            }
            b.drain();
            let after = b.group.state();
            prop_assert!(decided || before == State::Active || after != State::Active, "{before} to {after}");
            prop_assert!(after != State::Learn);
            prop_assert!(eligible || !matches!(after, State::Speak | State::Standby));
            for event in b.events.drain(..) {
                if let Event::Proposal { .. } = event {
                    prop_assert!(eligible && before != State::Active);
                }
            }
            prop_assert!(b.sent.drain(..).all(|t| t.virtual_source == (t.sent_state == State::Active)));
            if matches!(after, State::Speak | State::Standby | State::Active) {
                prop_assert!(b.group.poll_timeout().is_some());
            }
        }
    }
}
