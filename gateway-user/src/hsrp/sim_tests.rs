//! Several routers of one group on one LAN, in virtual time. The node's decision is played by the simplest rule: grant every
//! proposal, yield to every winner.

use super::group_tests::config;
use super::*;
use crate::rng::{Random, Seeded};
use proptest::prelude::*;
use std::time::Instant;

const HOLD: Duration = Duration::from_millis(300);
const LATENCY: Duration = Duration::from_millis(1);
/// Cold start to Standby: two hold times, a proposal, and slack for the packets.
const SETTLE: Duration = Duration::from_millis(1500);

struct Router {
    group: Group,
    /// Runs; a dead one neither sends nor hears nor sees its timers.
    alive: bool,
    /// Part of the LAN; packets reach only the same part.
    part: u8,
    /// The node grants proposals.
    grants: bool,
}

struct Lan {
    routers: Vec<Router>,
    start: Instant,
    now: Instant,
    /// (arrival, sender, payload)
    flying: Vec<(Instant, usize, Vec<u8>)>,
    /// (time, router, to)
    log: Vec<(Duration, usize, State)>,
    /// Time during which two routers of the same part were active.
    double: Duration,
    loss_percent: u32,
    rng: Seeded,
}

impl Lan {
    /// Routers 10.0.0.1, .2, … with these priorities, interface up at once.
    fn new(priorities: &[u8]) -> Self {
        let now = Instant::now();
        let routers = (1..)
            .zip(priorities)
            .map(|(last, priority)| {
                let mut group = Group::new(GroupConfig { priority: *priority, ..config(Ipv4Addr::new(10, 0, 0, last)) }, now);
                group.set_eligible(true, now);
                group.handle_interface(true, Duration::ZERO, now);
                Router { group, alive: true, part: 0, grants: true }
            })
            .collect();
        Self { routers, start: now, now, flying: Vec::new(), log: Vec::new(), double: Duration::ZERO, loss_percent: 0, rng: Seeded::new(1) }
    }

    /// A LAN that has elected.
    fn settled(priorities: &[u8]) -> Self {
        let mut lan = Self::new(priorities);
        lan.run(SETTLE);
        lan.log.clear();
        lan.double = Duration::ZERO;
        lan
    }

    fn drain(&mut self, n: usize) {
        let router = &mut self.routers[n];
        while let Some(transmit) = router.group.poll_transmit() {
            self.flying.push((self.now + LATENCY, n, transmit.payload));
        }
        while let Some(event) = router.group.poll_event() {
            match event {
                Event::StateChanged { to, .. } => self.log.push((self.now - self.start, n, to)),
                Event::Proposal { .. } => {
                    if router.grants {
                        router.group.grant_active(self.now);
                    }
                }
                Event::ActiveHeard { .. } => router.group.yield_active(false, self.now),
                Event::LoserHeard { .. } => {}
            }
            while let Some(transmit) = router.group.poll_transmit() {
                self.flying.push((self.now + LATENCY, n, transmit.payload));
            }
        }
    }

    fn step(&mut self, end: Instant) -> bool {
        let timers = self.routers.iter().filter(|r| r.alive).filter_map(|r| r.group.poll_timeout()).map(|(at, _)| at);
        let Some(next) = timers.chain(self.flying.iter().map(|f| f.0)).min().filter(|at| *at <= end) else { return false };
        let next = next.max(self.now);
        if self.two_in_one_part() {
            self.double += next - self.now;
        }
        self.now = next;
        let (arrived, flying) = self.flying.drain(..).partition(|f| f.0 <= self.now);
        self.flying = flying;
        for (_, from, payload) in arrived {
            let (source, part) = (self.routers[from].group.config().address, self.routers[from].part);
            for n in 0..self.routers.len() {
                let lost = self.rng.u32() % 100 < self.loss_percent;
                let router = &mut self.routers[n];
                if n != from && router.alive && router.part == part && !lost {
                    let heard = router.group.handle_packet(source, TTL, MULTICAST, &payload, self.now);
                    assert!(matches!(heard, Ok(()) | Err(Refused::NotRunning)), "{heard:?}");
                    self.drain(n);
                }
            }
        }
        for n in 0..self.routers.len() {
            if self.routers[n].alive {
                self.routers[n].group.handle_timeout(self.now);
                self.drain(n);
            }
        }
        true
    }

    fn two_in_one_part(&self) -> bool {
        let active: Vec<_> = self.actives().map(|n| self.routers[n].part).collect();
        (1..active.len()).any(|i| active[..i].contains(&active[i]))
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    fn actives(&self) -> impl Iterator<Item = usize> {
        let active = |r: &Router| r.alive && r.group.state() == State::Active;
        self.routers.iter().enumerate().filter(move |(_, r)| active(r)).map(|(n, _)| n)
    }

    fn states(&self) -> Vec<State> {
        self.routers.iter().map(|r| r.group.state()).collect()
    }

    /// Power loss: nothing more is sent, packets on their way arrive.
    fn kill(&mut self, n: usize) {
        self.routers[n].alive = false;
    }

    /// The dead router boots, with nothing remembered.
    fn boot(&mut self, n: usize) {
        let mut group = Group::new(self.routers[n].group.config().clone(), self.now);
        group.set_eligible(true, self.now);
        group.handle_interface(true, Duration::ZERO, self.now);
        self.routers[n].group = group;
        self.routers[n].alive = true;
        self.drain(n);
    }

    fn with(&mut self, n: usize, act: impl FnOnce(&mut Group, Instant)) {
        act(&mut self.routers[n].group, self.now);
        self.drain(n);
    }

    /// When router `n` last became active, since the start.
    fn became_active(&self, n: usize) -> Option<Duration> {
        self.log.iter().rev().find(|(_, who, to)| *who == n && *to == State::Active).map(|(at, _, _)| *at)
    }
}

#[test]
fn of_two_equal_routers_the_higher_address_is_elected() {
    let mut lan = Lan::new(&[100, 100]);
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Standby, State::Active]);
    assert_eq!(lan.double, Duration::ZERO);
    assert_eq!(lan.log.iter().filter(|(_, _, to)| *to == State::Active).count(), 1, "elected once");
    for router in &lan.routers {
        assert_eq!(router.group.active_router(), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(router.group.standby_router(), Some(Ipv4Addr::new(10, 0, 0, 1)));
    }
}

#[test]
fn of_three_routers_the_next_two_are_standby_and_listener() {
    let mut lan = Lan::new(&[100, 100, 100]);
    lan.run(SETTLE * 2);
    assert_eq!(lan.states(), [State::Listen, State::Standby, State::Active]);
    let mut lan = Lan::new(&[110, 100, 105]);
    lan.run(SETTLE * 2);
    assert_eq!(lan.states(), [State::Active, State::Listen, State::Standby]);
}

#[test]
fn a_lonely_router_takes_the_address_after_two_hold_times() {
    let mut lan = Lan::new(&[100]);
    lan.run(SETTLE);
    assert_eq!(lan.became_active(0), Some(HOLD * 2));
}

#[test]
fn the_standby_router_takes_over_within_the_hold_time_after_a_power_loss() {
    for cut_ms in [0, 1, 37, 99, 100, 150] {
        let mut lan = Lan::settled(&[100, 100, 100]);
        lan.run(Duration::from_millis(cut_ms));
        lan.kill(2);
        let cut = lan.now - lan.start;
        lan.run(HOLD + LATENCY);
        let took = lan.became_active(1).map(|at| at - cut);
        assert!(took.is_some_and(|t| t <= HOLD + LATENCY), "cut at {cut_ms}: {took:?}");
        assert!(took.is_some_and(|t| t >= HOLD - Duration::from_millis(100)), "not before the hold time: {took:?}");
        lan.run(SETTLE);
        assert_eq!(lan.states()[..2], [State::Standby, State::Active], "the listener moves up");
        assert_eq!(lan.double, Duration::ZERO);
    }
}

#[test]
fn after_a_resign_the_standby_router_takes_over_at_once() {
    let mut lan = Lan::settled(&[100, 100]);
    let cut = lan.now - lan.start;
    lan.with(1, |group, now| group.handle_interface(false, Duration::ZERO, now));
    lan.run(LATENCY);
    assert_eq!(lan.became_active(0), Some(cut + LATENCY));
    assert_eq!(lan.states(), [State::Active, State::Initial]);
    assert_eq!(lan.double, Duration::ZERO);
}

#[test]
fn a_returned_router_of_equal_priority_becomes_standby_whatever_its_address() {
    let mut lan = Lan::settled(&[100, 100]);
    lan.kill(1);
    lan.run(SETTLE);
    lan.boot(1);
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Active, State::Standby]);
    assert_eq!(lan.double, Duration::ZERO);
}

#[test]
fn a_returned_router_of_higher_priority_preempts() {
    let mut lan = Lan::settled(&[110, 100]);
    assert_eq!(lan.states(), [State::Active, State::Standby]);
    lan.kill(0);
    lan.run(SETTLE);
    assert_eq!(lan.states()[1], State::Active);
    lan.boot(0);
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Active, State::Standby]);
    assert!(lan.double <= LATENCY * 2, "{:?}", lan.double);
}

#[test]
fn two_actives_after_a_heal_become_one_within_a_hello() {
    let mut lan = Lan::settled(&[100, 100, 100]);
    lan.routers[2].part = 1;
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Standby, State::Active, State::Active]);
    assert_eq!(lan.double, Duration::ZERO, "each part has its own");
    lan.routers[2].part = 0;
    lan.run(Duration::from_millis(100) + LATENCY * 2);
    assert_eq!(lan.actives().collect::<Vec<_>>(), [2], "the higher address stays");
    assert!(lan.double <= Duration::from_millis(100) + LATENCY * 2);
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Listen, State::Standby, State::Active]);
}

#[test]
fn a_planned_handover_needs_no_hold_time_and_does_not_swing_back() {
    let mut lan = Lan::settled(&[100, 100]);
    // Nothing of the old active may be in flight: it would win by address, and the epoch that settles this is not played here.
    lan.run(LATENCY * 2);
    lan.with(0, |group, now| group.grant_active(now));
    lan.with(1, |group, now| group.yield_active(false, now));
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Active, State::Standby]);
    assert_eq!(lan.log.iter().filter(|(_, _, to)| *to == State::Active).count(), 1);
}

#[test]
fn a_daemon_that_restarts_and_adopts_in_time_is_never_replaced() {
    let mut lan = Lan::settled(&[100, 100]);
    lan.kill(1);
    lan.run(Duration::from_millis(150));
    lan.boot(1);
    lan.with(1, |group, now| group.adopt_active(now));
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Standby, State::Active]);
    assert_eq!(lan.became_active(0), None);
}

#[test]
fn a_router_that_may_not_take_over_lets_the_next_one() {
    let mut lan = Lan::settled(&[100, 100, 100]);
    lan.with(1, |group, now| group.set_eligible(false, now));
    lan.run(SETTLE);
    assert_eq!(lan.states(), [State::Standby, State::Listen, State::Active]);
    lan.kill(2);
    lan.run(SETTLE);
    assert_eq!(lan.states()[..2], [State::Active, State::Listen]);
}

#[test]
fn a_proposal_that_is_not_granted_leaves_the_address_alone_until_it_is() {
    let mut lan = Lan::settled(&[100, 100]);
    lan.routers[0].grants = false;
    lan.kill(1);
    lan.run(SETTLE);
    assert_eq!(lan.states()[0], State::Standby);
    lan.routers[0].grants = true;
    lan.run(Duration::from_millis(100));
    assert_eq!(lan.states()[0], State::Active, "asked again within a hello time");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Loss, deaths, partitions in any order; when the LAN is whole again, there is one active and one standby router.
    #[test]
    fn a_whole_lan_always_settles_on_one_active_and_one_standby(
        seed in any::<u64>(),
        priorities in proptest::collection::vec(99..102u8, 2..5),
        loss in 0..40u32,
        acts in proptest::collection::vec((0..4usize, 0..5u8, 0..700u64), 0..20),
    ) {
        let mut lan = Lan::new(&priorities);
        (lan.rng, lan.loss_percent) = (Seeded::new(seed), loss);
        for (n, act, ms) in acts {
            let n = n % priorities.len();
            match act {
                0 => lan.kill(n),
                1 => lan.boot(n),
                2 => lan.routers[n].part ^= 1,
                3 => lan.with(n, |group, now| group.handle_interface(false, Duration::ZERO, now)),
                _ => lan.with(n, |group, now| group.handle_interface(true, Duration::ZERO, now)),
            }
            lan.run(Duration::from_millis(ms));
        }
        lan.loss_percent = 0;
        for n in 0..priorities.len() {
            lan.routers[n].part = 0;
            if !lan.routers[n].alive {
                lan.boot(n);
            }
            lan.with(n, |group, now| group.handle_interface(true, Duration::ZERO, now));
        }
        lan.run(SETTLE * 3);
        let states = lan.states();
        prop_assert_eq!(states.iter().filter(|s| **s == State::Active).count(), 1, "{:?}", states);
        prop_assert_eq!(states.iter().filter(|s| **s == State::Standby).count(), 1, "{:?}", states);
        prop_assert!(states.iter().all(|s| matches!(s, State::Active | State::Standby | State::Listen)), "{:?}", states);
        let best = priorities.iter().max();
        let active = lan.actives().next().map(|n| &priorities[n]);
        prop_assert_eq!(active, best, "preemption brings the highest priority up");
    }
}
