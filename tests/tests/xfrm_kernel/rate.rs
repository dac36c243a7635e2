//! How fast it goes: printed, not asserted.

use crate::lab::*;
use gateway_user::id::Spi;
use gateway_user::netlink::xfrm::XfrmAdapter;
use gateway_user::ports::*;
use gateway_user::sad::{ChildSa, Selector};
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Instant;

const PAIRS: u32 = 5000;

fn timed(what: &str, count: usize, mut work: impl FnMut()) {
    let start = Instant::now();
    work();
    let each = start.elapsed().as_secs_f64() / count as f64;
    let _ = writeln!(std::io::stderr(), "RATE {what}: {:.0}/s, {:.1} us each, {count} of them", 1.0 / each, each * 1e6);
}

fn children() -> Vec<ChildSa> {
    let one = |i| ChildSa {
        spi_in: Spi(0x8000_0000 + i),
        spi_out: Spi(0x9000_0000 + i),
        peer: Ipv4Addr::from(0x0a80_0000 + i).into(),
        ..child()
    };
    (0..PAIRS).map(one).collect()
}

/// Scrambled: consecutive reqids beside consecutive peers make one long chain of the kernel's hash table.
fn reqid(i: usize) -> u32 {
    (i as u32).wrapping_mul(0x9e37_79b1) | 1
}

#[test]
fn sas_per_second() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltm");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let children = children();
    let scrambled = |(i, c)| both(c).map(|sa| SaInstall { reqid: reqid(i), ..sa });
    let sas: Vec<SaInstall<'_>> = children.iter().enumerate().flat_map(scrambled).collect();
    timed("NEWSA", sas.len(), || all_ok(xfrm.install(&sas)));
    timed("NEWSA again (taken over)", sas.len(), || all_ok(xfrm.install(&sas)));
    let set = |c: &ChildSa| ReplaySet {
        spi: c.spi_in,
        dst: c.local,
        direction: Direction::In,
        replay: 77,
        window: c.replay_window,
        esn: false,
        used: None,
    };
    let sets: Vec<ReplaySet> = children.iter().map(set).collect();
    timed("NEWAE", sets.len(), || all_ok(xfrm.set_replay(&sets)));
    timed("dump", sas.len(), || assert_eq!(xfrm.dump().unwrap().len(), sas.len()));
    timed("DELSA one by one", sas.len(), || {
        for c in &children {
            xfrm.remove(c.spi_in, c.local).unwrap();
            xfrm.remove(c.spi_out, c.peer).unwrap();
        }
    });
}

#[test]
fn policies_per_second() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltq");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let one = |(i, c): (usize, &ChildSa)| {
        let remote = Selector::net4(Ipv4Addr::from(0x0b00_0000 + ((i as u32) << 8)), 24);
        FlowPolicy { remote, reqid: reqid(i), ..flow(c) }
    };
    let flows: Vec<FlowPolicy> = children().iter().enumerate().map(one).collect();
    timed("policies", flows.len() * 6, || xfrm.sync_policies(&flows).unwrap());
    timed("policies again (unchanged)", flows.len() * 6, || xfrm.sync_policies(&flows).unwrap());
    timed("policies removed", flows.len() * 6, || xfrm.sync_policies(&[]).unwrap());
}
