//! Random worlds: weather, settings and faults from a seed.

use super::clock::{MS, Ns, SEC};
use super::dice::Dice;
use super::fault::{Fault, random_faults};
use super::plan::{Setup, Side};
use super::traffic::Way;
use super::world::{Violation, World};

/// When the faults begin.
const CALM: Ns = 5 * SEC;
/// When everything is mended.
const MENDED: Ns = 15 * SEC;
/// When everything must have settled: probes, retransmissions, replaced pairs.
/// Not a whole second: lifetimes end on those, and the daemon hears of it a moment later.
const SETTLED: Ns = 60 * SEC + SEC / 2;

/// What a seed stands for.
pub fn setup(seed: u64) -> Setup {
    let mut d = Dice::new(seed, 60);
    let mut s = Setup::calm(seed);
    s.peers = d.range(1..=2) as usize;
    s.gap = d.pick(&[10, 20, 50]) * MS;
    s.lease = d.pick(&[None, Some(32), Some(128), Some(1024)]);
    s.inbound_packets = d.pick(&[4, 16, 1000]) as u32;
    s.inbound_time = d.pick(&[20, 50, 100]) * MS;
    s.window = d.pick(&[32, 64, 1024]) as u32;
    s.hello = d.pick(&[100, 200]) * MS;
    s.hold = s.hello * d.range(3..=5);
    s.preempt = d.chance(5000);
    s.delay = d.pick(&[100, 1000, 5000]) * 1000;
    if d.chance(6000) {
        s.jitter = d.range(0..=s.delay * 2);
        s.loss = d.pick(&[0, 20, 200]) as u32;
        s.duplicate = d.pick(&[0, 50, 300]) as u32;
        s.reorder = d.pick(&[0, 50, 300]) as u32;
    }
    if d.chance(2000) {
        s.child_lifetime_s = 30;
    }
    s.pfs = d.chance(2000);
    if d.chance(3000) {
        s.event_loss = 500;
    }
    if d.chance(3000) {
        s.replay_attack = 1000;
    }
    s
}

/// The world of a seed, before its time begins.
pub fn world(seed: u64) -> World {
    world_of(setup(seed))
}

/// The world of a setup, with the faults of its seed.
pub fn world_of(setup: Setup) -> World {
    let faults = random_faults(&setup, CALM, MENDED);
    let mut w = World::new(setup);
    for (at, fault) in faults {
        w.plan(at, fault);
    }
    w.plan(MENDED, Fault::Heal);
    w
}

/// Lets it live, and looks at the end.
pub fn run(w: &mut World) -> Result<(), Box<Violation>> {
    w.start(Side::A);
    w.run(w.setup.seed % 7 * 50 * MS)?;
    w.start(Side::B);
    w.start_traffic(&Way::BOTH);
    w.run_until(MENDED + 10 * SEC)?;
    w.slow_down(200 * MS);
    w.run_until(SETTLED)?;
    w.check_settled(5 * SEC)
}
