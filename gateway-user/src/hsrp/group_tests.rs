//! One group against single packets and timers.

use super::packet::{Packet, Received, decode};
use super::*;
use std::time::Instant;

pub(super) const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const LOWER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HIGHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const HELLO: Duration = Duration::from_millis(100);
const HOLD: Duration = Duration::from_millis(300);

pub(super) fn config(address: Ipv4Addr) -> GroupConfig {
    GroupConfig {
        group: 1,
        name: "ISP".into(),
        vip: Ipv4Addr::new(10, 0, 0, 254),
        address,
        priority: 100,
        hello: HELLO,
        hold: HOLD,
        preempt: true,
        authentication: *b"cisco\0\0\0",
        delay_minimum: Duration::ZERO,
        delay_reload: Duration::ZERO,
    }
}

/// A group and a clock; what the group gives out is collected after each input.
pub(super) struct Bench {
    pub(super) group: Group,
    pub(super) now: Instant,
    pub(super) sent: Vec<Transmit>,
    pub(super) events: Vec<Event>,
}

impl Bench {
    pub(super) fn new(config: GroupConfig) -> Self {
        let now = Instant::now();
        Self { group: Group::new(config, now), now, sent: Vec::new(), events: Vec::new() }
    }

    /// Eligible and in the state, with nothing left to drain.
    fn in_state(state: State) -> Self {
        let mut bench = Self::new(config(OURS));
        bench.group.set_eligible(true, bench.now);
        if state != State::Initial {
            bench.group.handle_interface(true, Duration::ZERO, bench.now);
        }
        if matches!(state, State::Speak | State::Standby) {
            bench.wait(HOLD);
        }
        if state == State::Standby {
            bench.wait(HOLD);
        }
        if state == State::Active {
            bench.group.grant_active(bench.now);
        }
        bench.drain();
        assert_eq!(bench.group.state(), state);
        bench.sent.clear();
        bench.events.clear();
        bench
    }

    pub(super) fn drain(&mut self) {
        self.sent.extend(std::iter::from_fn(|| self.group.poll_transmit()));
        self.events.extend(std::iter::from_fn(|| self.group.poll_event()));
    }

    /// Time passes; timers are served when due.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.group.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.group.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn hear(&mut self, from: Ipv4Addr, opcode: Opcode, state: State, priority: u8) {
        let mut config = config(from);
        config.priority = priority;
        let payload = Packet::of(&config, opcode, state).encode();
        assert_eq!(self.group.handle_packet(from, TTL, MULTICAST, &payload, self.now), Ok(()));
        self.drain();
    }

    fn hello(&mut self, from: Ipv4Addr, state: State) {
        self.hear(from, Opcode::Hello, state, 100);
    }

    fn take_sent(&mut self) -> Vec<(Opcode, State)> {
        self.drain();
        self.sent.drain(..).map(|t| (t.opcode, t.sent_state)).collect()
    }

    fn take_proposals(&mut self) -> Vec<&'static str> {
        self.drain();
        self.events
            .drain(..)
            .filter_map(|e| match e {
                Event::Proposal { cause } => Some(cause),
                Event::StateChanged { .. } | Event::ActiveHeard { .. } | Event::LoserHeard { .. } => None,
            })
            .collect()
    }
}

#[test]
fn a_lonely_group_climbs_to_standby_and_proposes_but_never_becomes_active() {
    let mut b = Bench::new(config(OURS));
    b.group.set_eligible(true, b.now);
    b.group.handle_interface(true, Duration::from_secs(30), b.now);
    b.wait(Duration::from_millis(29_999));
    assert_eq!(b.group.state(), State::Initial);
    b.wait(Duration::from_millis(1));
    assert_eq!(b.group.state(), State::Listen);
    b.wait(HOLD);
    assert_eq!(b.group.state(), State::Speak);
    b.wait(HOLD);
    assert_eq!((b.group.state(), b.group.standby_router()), (State::Standby, Some(OURS)));
    assert_eq!(b.take_proposals(), ["no active router"]);
    b.wait(Duration::from_secs(1));
    assert_eq!(b.take_proposals().len(), 10, "once per hello time");
    assert_eq!(b.group.state(), State::Standby);
    b.group.grant_active(b.now);
    assert_eq!((b.group.state(), b.group.active_router()), (State::Active, Some(OURS)));
    assert_eq!(b.group.since(), b.now);
    b.wait(Duration::from_secs(1));
    assert_eq!(b.take_proposals(), [""; 0]);
}

#[test]
fn a_group_that_is_not_eligible_listens_and_stays_silent() {
    let mut b = Bench::new(config(OURS));
    b.group.handle_interface(true, Duration::ZERO, b.now);
    b.wait(Duration::from_secs(10));
    b.hear(LOWER, Opcode::Hello, State::Active, 50);
    b.hear(LOWER, Opcode::Resign, State::Active, 50);
    b.wait(Duration::from_secs(10));
    assert_eq!(b.group.state(), State::Listen);
    assert_eq!((b.take_sent(), b.take_proposals()), (vec![], vec![]));
    b.group.set_eligible(true, b.now);
    assert_eq!(b.group.state(), State::Speak, "what ended meanwhile counts at once");
    b.group.set_eligible(false, b.now);
    assert_eq!(b.group.state(), State::Listen);
    assert!(b.group.poll_timeout().is_some_and(|(at, _)| at == b.now + HOLD), "the next timer is no hello");
    b.take_sent();
    b.wait(Duration::from_secs(10));
    assert_eq!(b.take_sent(), [], "no hello timer in Listen");
}

#[test]
fn losing_eligibility_takes_standby_back_to_listen_and_leaves_active_alone() {
    let mut b = Bench::in_state(State::Standby);
    b.group.set_eligible(false, b.now);
    assert_eq!(b.group.state(), State::Listen);
    let mut b = Bench::in_state(State::Active);
    b.group.set_eligible(false, b.now);
    assert_eq!(b.group.state(), State::Active);
    b.group.yield_active(false, b.now);
    assert_eq!(b.group.state(), State::Listen);
}

#[test]
fn standby_proposes_the_moment_the_hold_time_of_the_active_ends() {
    let mut b = Bench::in_state(State::Standby);
    b.hello(HIGHER, State::Active);
    assert_eq!(b.group.active_router(), Some(HIGHER));
    b.take_proposals();
    b.wait(HOLD - Duration::from_millis(1));
    assert_eq!(b.take_proposals(), [""; 0]);
    b.wait(Duration::from_millis(1));
    assert_eq!(b.take_proposals(), ["active timer expired"]);
    assert_eq!(b.group.active_router(), None);
    // The reason ends with the next hello of an active router.
    b.hello(HIGHER, State::Active);
    b.wait(HOLD - Duration::from_millis(1));
    assert_eq!(b.take_proposals(), [""; 0]);
}

#[test]
fn standby_proposes_at_once_when_the_active_resigns() {
    let mut b = Bench::in_state(State::Standby);
    b.hello(HIGHER, State::Active);
    b.take_proposals();
    b.hear(LOWER, Opcode::Resign, State::Active, 100);
    assert_eq!(b.take_proposals(), [""; 0], "only the active router can resign");
    b.hear(HIGHER, Opcode::Resign, State::Speak, 100);
    assert_eq!(b.take_proposals(), ["resign heard"]);
    // A forger who alternates hello and resign does not get more than one proposal per hello time.
    for _ in 0..5 {
        b.hello(HIGHER, State::Active);
        b.hear(HIGHER, Opcode::Resign, State::Speak, 100);
    }
    assert_eq!(b.take_proposals(), [""; 0]);
    b.wait(HELLO);
    assert_eq!(b.take_proposals(), ["resign heard"]);
}

#[test]
fn a_strictly_higher_priority_preempts_and_the_address_alone_does_not() {
    for state in [State::Listen, State::Speak, State::Standby] {
        let mut b = Bench::in_state(state);
        b.hear(LOWER, Opcode::Hello, State::Active, 100);
        assert_eq!(b.take_proposals(), [""; 0], "equal priority in {state}");
        b.hear(LOWER, Opcode::Hello, State::Active, 99);
        assert_eq!(b.take_proposals(), ["preempt"], "lower priority in {state}");
        assert_eq!(b.group.state(), state);
        b.hear(LOWER, Opcode::Hello, State::Active, 99);
        assert_eq!(b.take_proposals(), [""; 0], "not more often than once per hello time");
        b.group.grant_active(b.now);
        assert_eq!(b.take_sent().last(), Some(&(Opcode::Hello, State::Active)));
    }
}

#[test]
fn without_preempt_priority_does_not_matter_to_a_living_active() {
    let mut config = config(OURS);
    config.preempt = false;
    let mut b = Bench::new(config);
    b.group.set_eligible(true, b.now);
    b.group.handle_interface(true, Duration::ZERO, b.now);
    b.hear(LOWER, Opcode::Hello, State::Active, 1);
    assert_eq!(b.take_proposals(), [""; 0]);
}

#[test]
fn a_coup_precedes_the_hello_only_when_a_living_active_is_preempted() {
    let mut b = Bench::in_state(State::Listen);
    b.hear(LOWER, Opcode::Hello, State::Active, 99);
    b.group.grant_active(b.now);
    assert_eq!(b.take_sent(), [(Opcode::Coup, State::Listen), (Opcode::Hello, State::Active)]);
    let mut b = Bench::in_state(State::Standby);
    b.hear(LOWER, Opcode::Hello, State::Active, 100);
    b.group.grant_active(b.now);
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Active)]);
}

#[test]
fn grant_works_from_every_running_state_and_not_with_the_interface_down() {
    for state in [State::Listen, State::Speak, State::Standby] {
        let mut b = Bench::in_state(state);
        b.group.grant_active(b.now);
        assert_eq!(b.group.state(), State::Active);
        assert!(b.take_sent().contains(&(Opcode::Hello, State::Active)));
        b.group.grant_active(b.now);
        assert_eq!(b.take_sent(), [], "a second grant changes nothing");
    }
    let mut b = Bench::in_state(State::Initial);
    b.group.grant_active(b.now);
    assert_eq!(b.group.state(), State::Initial);
    // During the start delay the interface is up: the groups of a node must not part.
    b.group.handle_interface(true, Duration::from_secs(30), b.now);
    b.group.grant_active(b.now);
    assert_eq!(b.group.state(), State::Active);
    b.wait(Duration::from_secs(31));
    assert_eq!(b.group.state(), State::Active, "the end of the delay no longer matters");
}

#[test]
fn adoption_goes_straight_to_active() {
    let mut b = Bench::in_state(State::Initial);
    b.group.adopt_active(b.now);
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Active)]);
    b.group.handle_interface(true, Duration::from_secs(60), b.now);
    b.wait(HELLO);
    assert_eq!((b.group.state(), b.take_sent()), (State::Active, vec![(Opcode::Hello, State::Active)]));
}

#[test]
fn hellos_are_periodic_and_a_late_loop_does_not_send_the_missed_ones() {
    let mut b = Bench::in_state(State::Active);
    b.wait(Duration::from_secs(1));
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Active); 10]);
    b.now += Duration::from_secs(60);
    b.group.handle_timeout(b.now);
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Active)]);
}

#[test]
fn the_virtual_mac_is_the_source_only_while_active() {
    let mut b = Bench::in_state(State::Active);
    b.wait(HELLO);
    assert!(b.sent.drain(..).all(|t| t.virtual_source));
    b.group.yield_active(true, b.now);
    b.drain();
    let sent: Vec<_> = b.sent.iter().map(|t| (t.opcode, t.sent_state, t.virtual_source)).collect();
    assert_eq!(sent, [(Opcode::Resign, State::Speak, false), (Opcode::Hello, State::Speak, false)]);
}

#[test]
fn a_hello_not_yet_sent_dies_with_the_active_state() {
    let mut b = Bench::in_state(State::Active);
    b.now += HELLO;
    b.group.handle_timeout(b.now);
    b.group.yield_active(false, b.now);
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Speak)]);
}

#[test]
fn yielding_remembers_the_winner_and_does_nothing_outside_active() {
    let mut b = Bench::in_state(State::Active);
    b.hello(HIGHER, State::Active);
    b.group.yield_active(false, b.now);
    assert_eq!((b.group.state(), b.group.active_router()), (State::Speak, Some(HIGHER)));
    b.group.yield_active(true, b.now);
    assert_eq!(b.group.state(), State::Speak);
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Speak)]);
}

#[test]
fn the_router_that_was_preempted_is_forgotten() {
    let mut b = Bench::in_state(State::Standby);
    b.hear(LOWER, Opcode::Hello, State::Active, 99);
    b.group.grant_active(b.now);
    b.take_proposals();
    b.group.yield_active(false, b.now);
    assert_eq!(b.group.active_router(), None);
    b.group.set_eligible(false, b.now);
    b.group.set_eligible(true, b.now);
    assert_eq!(b.take_proposals(), [""; 0], "nobody is left to preempt");
}

#[test]
fn an_active_group_reports_the_winner_and_stays_until_told() {
    let mut b = Bench::in_state(State::Active);
    for (from, priority) in [(HIGHER, 100), (LOWER, 101)] {
        b.hear(from, Opcode::Hello, State::Active, priority);
        assert_eq!(b.events.pop(), Some(Event::ActiveHeard { router: from, priority }));
        b.hear(from, Opcode::Coup, State::Listen, priority);
        assert_eq!(b.events.pop(), Some(Event::ActiveHeard { router: from, priority }));
    }
    assert_eq!((b.group.state(), b.group.active_router()), (State::Active, Some(OURS)));
    assert_eq!(b.take_sent(), []);
    b.hear(LOWER, Opcode::Coup, State::Listen, 100);
    assert_eq!(b.events, [], "a coup that loses is nothing");
}

#[test]
fn an_active_group_answers_a_loser_with_a_hello_but_not_every_time() {
    let mut b = Bench::in_state(State::Active);
    b.hello(LOWER, State::Active);
    assert_eq!(b.events.pop(), Some(Event::LoserHeard { router: LOWER }));
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Active)]);
    for _ in 0..50 {
        b.hello(LOWER, State::Active);
    }
    assert_eq!(b.events.len(), 50);
    assert_eq!(b.take_sent(), []);
    b.wait(HELLO / 4);
    b.hello(LOWER, State::Active);
    assert_eq!(b.take_sent(), [(Opcode::Hello, State::Active)]);
}

#[test]
fn between_speakers_and_between_standby_routers_the_address_decides() {
    for (state, from, want) in [
        (State::Speak, HIGHER, State::Listen),
        (State::Speak, LOWER, State::Speak),
        (State::Standby, HIGHER, State::Listen),
        (State::Standby, LOWER, State::Standby),
    ] {
        let mut b = Bench::in_state(state);
        b.hello(from, State::Speak);
        assert_eq!(b.group.state(), want, "{state} hears the speaker {from}");
    }
    for (state, from, want) in [
        (State::Listen, HIGHER, State::Listen),
        (State::Listen, LOWER, State::Speak),
        (State::Speak, HIGHER, State::Listen),
        (State::Speak, LOWER, State::Standby),
        (State::Standby, HIGHER, State::Listen),
        (State::Standby, LOWER, State::Standby),
        (State::Active, HIGHER, State::Active),
    ] {
        let mut b = Bench::in_state(state);
        b.hello(from, State::Standby);
        assert_eq!(b.group.state(), want, "{state} hears the standby router {from}");
    }
}

#[test]
fn active_and_standby_routers_are_known_until_their_hold_time_ends() {
    let mut b = Bench::in_state(State::Listen);
    b.group.set_eligible(false, b.now);
    b.hello(LOWER, State::Standby);
    b.hello(HIGHER, State::Active);
    assert_eq!((b.group.active_router(), b.group.standby_router()), (Some(HIGHER), Some(LOWER)));
    b.hello(LOWER, State::Active);
    assert_eq!(b.group.active_router(), Some(HIGHER), "of two active routers the better one counts");
    assert_eq!(b.group.standby_router(), None, "a standby router that became active is none");
    b.hello(HIGHER, State::Speak);
    b.hello(LOWER, State::Active);
    assert_eq!(b.group.active_router(), Some(LOWER), "the better one stepped down");
    b.wait(HOLD);
    assert_eq!((b.group.active_router(), b.group.standby_router()), (None, None));
}

#[test]
fn an_active_router_is_noticed_already_during_the_start_delay() {
    let mut b = Bench::in_state(State::Initial);
    b.group.handle_interface(true, Duration::from_secs(30), b.now);
    b.hear(LOWER, Opcode::Hello, State::Active, 50);
    assert_eq!((b.group.state(), b.group.active_router()), (State::Initial, Some(LOWER)));
    assert_eq!((b.take_sent(), b.take_proposals()), (vec![], vec![]));
    b.wait(HOLD);
    assert_eq!(b.group.active_router(), None);
}

#[test]
fn interface_down_ends_everything_and_an_active_group_resigns() {
    for state in [State::Listen, State::Speak, State::Standby, State::Active] {
        let mut b = Bench::in_state(state);
        b.hello(HIGHER, State::Active);
        b.take_sent();
        b.group.handle_interface(false, Duration::ZERO, b.now);
        assert_eq!(b.group.state(), State::Initial);
        let want = if state == State::Active { vec![(Opcode::Resign, State::Initial)] } else { vec![] };
        assert_eq!(b.take_sent(), want, "{state}");
        b.wait(Duration::from_secs(10));
        assert_eq!((b.take_sent(), b.group.poll_timeout()), (vec![], None));
        assert_eq!(b.group.active_router(), None);
    }
}

#[test]
fn every_change_of_state_is_one_event_with_its_cause() {
    let mut b = Bench::in_state(State::Standby);
    b.group.grant_active(b.now);
    b.group.yield_active(false, b.now);
    b.drain();
    let change = |from, to, cause| Event::StateChanged { from, to, cause };
    assert_eq!(b.events, [change(State::Standby, State::Active, "granted"), change(State::Active, State::Speak, "yielded")]);
}

#[test]
fn the_next_timeout_carries_its_reason() {
    let mut b = Bench::in_state(State::Initial);
    assert_eq!(b.group.poll_timeout(), None);
    b.group.handle_interface(true, Duration::from_secs(3), b.now);
    assert_eq!(b.group.poll_timeout(), Some((b.now + Duration::from_secs(3), "start delay")));
    b.wait(Duration::from_secs(3));
    assert_eq!(b.group.poll_timeout(), Some((b.now + HOLD, "active")));
    b.group.grant_active(b.now);
    assert_eq!(b.group.poll_timeout(), Some((b.now + HELLO, "hello")));
}

#[test]
fn a_packet_that_is_wrong_in_any_way_is_refused_by_name_and_changes_nothing() {
    let mut b = Bench::in_state(State::Standby);
    let good = Packet::of(&config(HIGHER), Opcode::Hello, State::Active);
    let vip = good.vip;
    let bytes = |change: &dyn Fn(&mut Packet)| {
        let mut packet = good;
        change(&mut packet);
        packet.encode()
    };
    let plain = good.encode();
    let unicast = Ipv4Addr::new(10, 0, 0, 2);
    let mut bad_state = plain.clone();
    bad_state[2] = 3;
    let cases: Vec<(Ipv4Addr, u8, Ipv4Addr, Vec<u8>, &str)> = vec![
        (HIGHER, 1, unicast, plain.clone(), "bad_destination"),
        (HIGHER, 1, Ipv4Addr::new(224, 0, 0, 102), plain.clone(), "bad_destination"),
        (HIGHER, 2, MULTICAST, plain.clone(), "bad_ttl"),
        (HIGHER, 255, MULTICAST, plain.clone(), "bad_ttl"),
        (HIGHER, 0, MULTICAST, plain.clone(), "bad_ttl"),
        (OURS, 1, MULTICAST, plain.clone(), "own_address"),
        (Ipv4Addr::UNSPECIFIED, 1, MULTICAST, plain.clone(), "bad_source"),
        (MULTICAST, 1, MULTICAST, plain.clone(), "bad_source"),
        (vip, 1, MULTICAST, plain.clone(), "bad_source"),
        (HIGHER, 1, MULTICAST, plain[..19].to_vec(), "truncated"),
        (HIGHER, 1, MULTICAST, vec![], "truncated"),
        (HIGHER, 1, MULTICAST, [&plain[..], &[4, 28]].concat(), "bad_length"),
        (HIGHER, 1, MULTICAST, bad_state, "bad_value"),
        (HIGHER, 1, MULTICAST, bytes(&|p| p.group = 2), "other_group"),
        (HIGHER, 1, MULTICAST, bytes(&|p| p.authentication = [0; 8]), "bad_auth"),
        (HIGHER, 1, MULTICAST, bytes(&|p| p.vip = OURS), "wrong_vip"),
    ];
    for (source, ttl, dst, payload, reason) in cases {
        let refused = b.group.handle_packet(source, ttl, dst, &payload, b.now);
        assert_eq!(refused.map_err(|r| r.reason()), Err(reason));
        b.drain();
        assert_eq!((b.group.state(), b.group.active_router()), (State::Standby, None), "{reason}");
        assert_eq!((b.sent.len(), b.events.len()), (0, 0), "{reason}");
    }
    assert_eq!(b.group.handle_packet(HIGHER, 1, MULTICAST, &plain, b.now), Ok(()));
    assert_eq!(b.group.active_router(), Some(HIGHER));
    b.group.handle_interface(false, Duration::ZERO, b.now);
    assert_eq!(b.group.handle_packet(HIGHER, 1, MULTICAST, &plain, b.now), Err(Refused::NotRunning));
}

#[test]
fn an_advertisement_and_a_hello_of_a_bystander_change_nothing() {
    let mut b = Bench::in_state(State::Standby);
    assert_eq!(b.group.handle_packet(HIGHER, 1, MULTICAST, &[0, 3, 0, 1, 0, 10, 2, 0], b.now), Ok(()));
    for state in [State::Initial, State::Learn, State::Listen] {
        b.hello(HIGHER, state);
    }
    assert_eq!((b.group.state(), b.events.len(), b.sent.len()), (State::Standby, 0, 0));
}

#[test]
fn what_we_send_is_what_we_are() {
    let mut b = Bench::in_state(State::Active);
    b.wait(HELLO);
    let sent = b.sent.pop().map(|t| decode(&t.payload));
    let want = Packet::of(&config(OURS), Opcode::Hello, State::Active);
    assert_eq!(sent, Some(Ok(Received::Packet(want))));
    assert_eq!((want.hellotime, want.holdtime, want.priority, want.group), (1, 1, 100, 1));
}

#[test]
fn a_caller_who_never_drains_costs_bounded_memory() {
    let mut b = Bench::in_state(State::Active);
    let payload = Packet::of(&config(LOWER), Opcode::Hello, State::Active).encode();
    for _ in 0..1000 {
        b.now += HELLO;
        b.group.handle_timeout(b.now);
        assert_eq!(b.group.handle_packet(LOWER, 1, MULTICAST, &payload, b.now), Ok(()));
    }
    b.drain();
    assert!(b.sent.len() <= 8 && b.events.len() <= 16);
}
