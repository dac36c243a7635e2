//! The pair in virtual time: named scenarios, a sweep over seeds, and proof that the checks find what they are for.
//!
//! `SIM_SEED=n` runs one seed of the sweep, `SIM_SEEDS=n` that many, from `SIM_FIRST=n` on; `SIM_ECHO=1` prints the diary as it is written.

use gateway_tests::sim::clock::{MS, Ns, SEC};
use gateway_tests::sim::{Fault, INSIDE, OUTSIDE, Setup, Side, Violation, Way, World, sweep};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<Violation>>;

/// Both daemons start, traffic flows, SAs come up. Gives the active node.
fn bring_up(setup: Setup) -> Outcome<(World, Side)> {
    let mut w = World::new(setup);
    w.start(Side::A);
    w.start(Side::B);
    w.start_traffic(&Way::BOTH);
    let active = w.run_until_ready(15 * SEC)?;
    w.run(SEC)?;
    Ok((w, active))
}

#[track_caller]
fn ok<T>(outcome: Outcome<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(violation) => panic!("{violation}"),
    }
}

/// Longest silence of any stream since then.
fn gap(w: &World, since: Ns) -> Ns {
    Way::BOTH.into_iter().map(|way| w.traffic.gap(0, way, since..w.now() - 50 * MS)).max().unwrap_or(0)
}

/// Packets lost since then, in words.
fn losses(w: &World, since: Ns) -> Vec<String> {
    w.traffic.report(since..w.now() - 50 * MS)
}

#[test]
fn either_end_brings_the_tunnel_up() {
    for way in Way::BOTH {
        let mut w = World::new(Setup { peers: 2, ..Setup::calm(1) });
        w.start(Side::A);
        w.start(Side::B);
        w.start_traffic(&[way]);
        ok(w.run_until_ready(15 * SEC));
        ok(w.run(SEC));
        w.start_traffic(&[if way == Way::In { Way::Out } else { Way::In }]);
        ok(w.run(4 * SEC));
        ok(w.check_settled(3 * SEC));
        assert_eq!(w.pairs(Side::A), 2, "one pair for each peer");
    }
}

#[test]
fn a_peer_behind_a_nat_is_followed_and_the_standby_knows_where_it_is() {
    for seed in [1, 2, 3] {
        // The peer does not ask by itself whether we live: what it sends is ESP.
        let mut w = World::new(Setup { gap: 10 * MS, dpd_s: 60, ..Setup::calm(seed) });
        w.remap(0, 20_000);
        w.start(Side::A);
        w.start(Side::B);
        // Only the peer can begin: nothing comes through its NAT uninvited.
        w.start_traffic(&[Way::In]);
        let active = ok(w.run_until_ready(15 * SEC));
        w.start_traffic(&[Way::Out]);
        ok(w.run(2 * SEC));
        let ports = |w: &World, side, port| {
            let held = w.outbound_ports(side);
            assert!(!held.is_empty() && held.iter().all(|p| *p == Some((4500, port))), "seed {seed}: {held:?}, not {port}");
        };
        ports(&w, active, 24_500);
        ports(&w, active.other(), 24_500);
        let (before, since) = (w.sas(active), w.now());
        w.remap(0, 21_000);
        ok(w.run(2 * SEC));
        ports(&w, active, 25_500);
        ports(&w, active.other(), 25_500);
        assert_eq!(w.sas(active), before, "no negotiation");
        let silence = gap(&w, since);
        assert!(silence <= SEC / 2, "seed {seed}: silent for {} ms", silence / MS);
        // The other node goes on where the peer is now, and follows it as well.
        let limit = Setup::calm(seed).takeover();
        let since = w.now();
        w.plan(since, Fault::PowerOff(active));
        ok(w.run(4 * SEC));
        assert_eq!((w.active(), w.sas(active.other())), (Some(active.other()), before));
        let silence = gap(&w, since);
        assert!(silence <= limit, "seed {seed}: silent for {} ms", silence / MS);
        w.remap(0, 22_000);
        ok(w.run(2 * SEC));
        ports(&w, active.other(), 26_500);
    }
}

#[test]
fn moves_that_fail_half_way_send_no_number_twice() {
    for seed in 0..10 {
        let mut w = World::new(Setup { gap: 10 * MS, port_failures: 400, ..Setup::calm(seed) });
        w.remap(0, 20_000);
        w.start(Side::A);
        w.start(Side::B);
        w.apply_injection(false);
        w.start_traffic(&[Way::In]);
        ok(w.run_until_ready(15 * SEC));
        w.start_traffic(&[Way::Out]);
        w.apply_injection(true);
        for turn in 1..12 {
            w.remap(0, 20_000 + turn * 100);
            ok(w.run(1500 * MS));
            if turn % 4 == 0 {
                let now = w.now();
                w.plan(now, Fault::Switchover);
            }
        }
        w.apply_injection(false);
        ok(w.run(10 * SEC));
        ok(w.check_settled(3 * SEC));
    }
}

#[test]
fn different_configurations_do_not_leave_the_addresses_without_an_owner() {
    let mut w = World::new(Setup { priority: [110, 100], ..Setup::calm(13) });
    w.start(Side::A);
    w.start(Side::B);
    w.start_traffic(&Way::BOTH);
    ok(w.run(10 * SEC));
    let active = w.active().expect("an owner");
    assert_eq!(losses(&w, 8 * SEC), Vec::<String>::new());
    let now = w.now();
    w.plan(now, Fault::Switchover);
    ok(w.run(SEC));
    assert_eq!(w.active(), Some(active), "but no hand-over");
}

#[test]
fn the_standby_goes_on_with_the_same_sas_after_a_loss_of_power() {
    for seed in 0..6 {
        let setup = Setup::calm(seed);
        let limit = setup.takeover();
        let (mut w, active) = ok(bring_up(setup));
        let (before, since) = (w.sas(active), w.now());
        w.plan(since, Fault::PowerOff(active));
        ok(w.run(4 * SEC));
        assert_eq!(w.active(), Some(active.other()));
        assert_eq!(w.sas(active.other()), before, "no negotiation");
        let silence = gap(&w, since);
        assert!(silence <= limit, "silent for {} ms", silence / MS);
    }
}

#[test]
fn a_node_that_returns_becomes_standby_and_can_take_over_again() {
    let (mut w, first) = ok(bring_up(Setup::calm(3)));
    let before = w.sas(first);
    for node in [first, first.other(), first] {
        let now = w.now();
        w.plan(now, Fault::PowerOff(node));
        w.plan(now + 3 * SEC, Fault::PowerOn(node));
        ok(w.run(8 * SEC));
        assert_eq!(w.active(), Some(node.other()));
        ok(w.check_settled(3 * SEC));
    }
    assert_eq!(w.sas(first), before, "three takeovers and no negotiation");
}

#[test]
fn a_switchover_and_back_loses_no_packet() {
    for seed in 0..8 {
        let (mut w, first) = ok(bring_up(Setup { gap: 3 * MS, inbound_packets: 50, lease: Some(2000), ..Setup::calm(seed) }));
        let (before, since) = (w.sas(first), w.now());
        for owner in [first.other(), first, first.other()] {
            let at = w.now();
            w.plan(at, Fault::Switchover);
            ok(w.run(2 * SEC));
            assert_eq!(w.active(), Some(owner), "seed {seed}");
            ok(w.check_settled(SEC));
        }
        assert_eq!(losses(&w, since), Vec::<String>::new(), "seed {seed}");
        assert_eq!(w.traffic.doubled(), 0);
        assert_eq!(w.sas(first), before);
    }
}

#[test]
fn a_crash_of_either_daemon_does_not_stop_traffic() {
    for which in [false, true] {
        let (mut w, active) = ok(bring_up(Setup::calm(5)));
        let victim = if which { active } else { active.other() };
        let (before, epoch, since) = (w.sas(active), w.epoch(active), w.now());
        w.plan(since, Fault::Crash(victim));
        w.plan(since + 300 * MS, Fault::Start(victim));
        ok(w.run(8 * SEC));
        assert_eq!((w.active(), w.epoch(active)), (Some(active), epoch), "adopted");
        assert_eq!(losses(&w, since), Vec::<String>::new());
        assert_eq!(w.sas(active), before);
        ok(w.check_settled(3 * SEC));
        // The adopted state is good for a takeover.
        let at = w.now();
        w.plan(at, Fault::PowerOff(active));
        ok(w.run(4 * SEC));
        assert_eq!(w.active(), Some(active.other()));
        assert_eq!(w.sas(active.other()), before);
        assert!(gap(&w, at) <= w.setup.takeover());
    }
}

#[test]
fn a_daemon_that_stays_dead_is_replaced_by_the_standby() {
    let (mut w, active) = ok(bring_up(Setup::calm(6)));
    let at = w.now();
    w.plan(at, Fault::Crash(active));
    ok(w.run(4 * SEC));
    assert_eq!(w.active(), Some(active.other()), "its lease ran out");
    let now = w.now();
    w.plan(now, Fault::Start(active));
    ok(w.run(4 * SEC));
    assert_eq!(w.active(), Some(active.other()), "it joins as standby");
    ok(w.check_settled(2 * SEC));
}

#[test]
fn a_stopped_daemon_wakes_up_mute() {
    for seconds in [1, 2, 5] {
        let (mut w, active) = ok(bring_up(Setup::calm(7)));
        let at = w.now();
        w.plan(at, Fault::Pause(active));
        w.plan(at + seconds * SEC, Fault::Resume(active));
        ok(w.run(seconds * SEC + 5 * SEC));
        assert_eq!(w.active(), Some(active.other()));
        ok(w.check_settled(3 * SEC));
    }
}

#[test]
fn rekeys_from_either_end_are_mirrored_and_survive_takeovers() {
    for (seed, rekey) in [Fault::RekeyGateway, Fault::RekeyPeer(0), Fault::RekeyIsakmp].into_iter().enumerate() {
        let (mut w, active) = ok(bring_up(Setup::calm(seed as u64)));
        let before = w.sas(active);
        let at = w.now();
        w.plan(at, rekey);
        ok(w.run(3 * SEC));
        assert_eq!(w.sas(active) != before, rekey != Fault::RekeyIsakmp);
        ok(w.check_settled(2 * SEC));
        let now = w.now();
        w.plan(now, Fault::Switchover);
        ok(w.run(2 * SEC));
        let now = w.now();
        w.plan(now, rekey);
        ok(w.run(2 * SEC));
        assert_eq!(losses(&w, at), Vec::<String>::new());
        // Replaced pairs are gone from everywhere.
        ok(w.run(45 * SEC));
        assert_eq!(w.pairs(Side::A), 1);
        ok(w.check_settled(3 * SEC));
    }
}

#[test]
fn a_rekey_at_the_moment_of_a_takeover_ends_well() {
    for step in 0..12 {
        let (mut w, active) = ok(bring_up(Setup::calm(40 + step)));
        let at = w.now();
        w.plan(at, if step % 2 == 0 { Fault::RekeyGateway } else { Fault::RekeyPeer(0) });
        w.plan(at + step * 2 * MS, if step % 3 == 0 { Fault::Switchover } else { Fault::PowerOff(active) });
        w.plan(at + 4 * SEC, Fault::Heal);
        ok(w.run(60 * SEC));
        ok(w.check_settled(3 * SEC));
        assert_eq!(w.pairs(Side::A), 1, "step {step}");
    }
}

#[test]
fn a_split_lan_heals_into_one_owner() {
    for lan in [INSIDE, OUTSIDE] {
        for lasts in [SEC / 2, SEC, 3 * SEC] {
            let (mut w, _) = ok(bring_up(Setup::calm(9)));
            let at = w.now();
            w.plan(at, Fault::Split(lan, true));
            w.plan(at + lasts, Fault::Heal);
            ok(w.run(lasts + 10 * SEC));
            ok(w.check_settled(3 * SEC));
        }
    }
}

#[test]
fn both_lans_split_and_both_nodes_go_on_apart() {
    let (mut w, _) = ok(bring_up(Setup::calm(10)));
    let at = w.now();
    w.plan(at, Fault::Split(INSIDE, true));
    w.plan(at, Fault::Split(OUTSIDE, true));
    w.plan(at + 6 * SEC, Fault::Heal);
    ok(w.run(20 * SEC));
    ok(w.check_settled(3 * SEC));
}

#[test]
fn a_cable_that_is_pulled_moves_both_groups() {
    for device in [INSIDE, OUTSIDE] {
        let (mut w, active) = ok(bring_up(Setup::calm(11)));
        let at = w.now();
        w.plan(at, Fault::Cable(active, device, false));
        ok(w.run(3 * SEC));
        assert_eq!(w.active(), Some(active.other()));
        let now = w.now();
        w.plan(now, Fault::Heal);
        ok(w.run(6 * SEC));
        ok(w.check_settled(3 * SEC));
    }
}

#[test]
fn a_peer_that_goes_away_and_returns_is_served_again() {
    let (mut w, _) = ok(bring_up(Setup::calm(12)));
    let at = w.now();
    w.plan(at, Fault::PeerCable(0, false));
    w.plan(at + 10 * SEC, Fault::PeerCable(0, true));
    // The kernel asks again when it has waited 30 s for the first answer.
    ok(w.run(45 * SEC));
    ok(w.check_settled(3 * SEC));
}

/// Runs seeds of the sweep with something broken until a check finds it; gives what it said.
fn first_violation(seeds: u64, break_it: impl Fn(&mut Setup)) -> Option<String> {
    (0..seeds).find_map(|seed| {
        let mut setup = sweep::setup(seed);
        break_it(&mut setup);
        sweep::run(&mut sweep::world_of(setup)).err().map(|v| format!("seed {seed}: {}", v.what))
    })
}

#[track_caller]
fn found(what: Option<String>, words: &str) {
    let what = what.unwrap_or_else(|| panic!("no check finds it"));
    eprintln!("{what}");
    assert!(what.contains(words), "found something else: {what}");
}

// What follows breaks one promise's enforcement at a time and shows that a check sees it.

#[test]
fn mutation_a_guard_without_ranges_lets_numbers_out_twice() {
    found(first_violation(120, |s| s.path_knobs.ignore_range = true), "left");
}

#[test]
fn mutation_a_path_that_ignores_the_lease_speaks_while_it_must_be_mute() {
    found(first_violation(60, |s| s.path_knobs.ignore_lease = true), "while Quiet");
}

#[test]
fn mutation_no_guard_at_all() {
    found(first_violation(60, |s| s.path_knobs.guard_off = true), "while");
}

#[test]
fn mutation_an_acknowledgement_before_the_standby_holds_the_lease() {
    // With the guard, the numbers below the lease do not get out: nothing passes.
    found(first_violation(60, |s| s.kernel_knobs.forget_out_writes = true), "lost");
    // Without it, they do.
    let both = |s: &mut Setup| {
        s.kernel_knobs.forget_out_writes = true;
        s.path_knobs.ignore_range = true;
    };
    found(first_violation(60, both), "left");
}

#[test]
fn mutation_an_empty_bitmap_takes_old_packets_again() {
    let found_it = first_violation(60, |s| {
        s.kernel_knobs.empty_bitmap = true;
        s.replay_attack = 5000;
        s.window = 1024;
    });
    found(found_it, "had mirrored");
}

#[test]
fn the_same_seed_makes_the_same_world() {
    let run = || {
        let mut w = sweep::world(77);
        ok(sweep::run(&mut w));
        (w.steps, w.trace.digest())
    };
    assert_eq!(run(), run());
}

#[test]
fn kernel_calls_that_fail_break_no_promise() {
    for seed in 0..40 {
        let mut setup = sweep::setup(seed);
        setup.port_failures = 100;
        ok(sweep::run(&mut sweep::world_of(setup)));
    }
}

#[test]
fn no_seed_of_the_sweep_breaks_a_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        let mut w = sweep::world(seed);
        return ok(sweep::run(&mut w));
    }
    let (seeds, budget) = (number("SIM_SEEDS"), Duration::from_secs(60));
    let begin = Instant::now();
    let first = number("SIM_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let broken = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = seeds.is_none() && begin.elapsed() > budget;
            if seed >= first + seeds.unwrap_or(200) || over {
                return;
            }
            if let Err(v) = sweep::run(&mut sweep::world(seed)) {
                broken.lock().unwrap().push(v);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let mut broken = broken.into_inner().unwrap();
    broken.sort_by_key(|v| v.seed);
    if let Some(first) = broken.first() {
        let list: Vec<String> = broken.iter().map(|v| format!("seed {}: {}", v.seed, v.what)).collect();
        panic!("{} seeds break a promise:\n{}\n\nthe first in full:\n{first}", list.len(), list.join("\n"));
    }
}
