//! What an observer sees, and what must hold when things have settled.

use super::{Violation, World};
use crate::sim::check::{Checker, Moment};
use crate::sim::clock::{MS, Ns, SEC};
use crate::sim::kernel::Sa;
use crate::sim::machine::lock;
use crate::sim::path;
use crate::sim::plan::{self, GROUPS, Side};
use gateway_common::verdict::RoleNow;
use gateway_user::hsrp::virtual_mac;
use gateway_user::id::{Epoch, Spi};
use gateway_user::ports::Direction;
use std::net::IpAddr;

impl World {
    pub(super) fn moment(&self) -> Moment {
        let view = |side: Side| {
            let node = self.node(side);
            if !node.powered {
                return (None, None);
            }
            let m = lock(&node.machine);
            (Some(m.path.true_role()), m.path.role_word())
        };
        let (a, b) = (view(Side::A), view(Side::B));
        let talk = self.node(Side::A).runs() && self.node(Side::B).runs() && self.both_ways();
        let contact = if talk { self.streams.whole_since() } else { None };
        Moment { now: self.now(), roles: [a.0, b.0], words: [a.1, b.1], contact }
    }

    pub(super) fn observe(&mut self) {
        let moment = self.moment();
        let result = self.check.on_moment(&moment);
        self.fail(result);
    }

    /// The node that owns the addresses, when there is exactly one.
    pub fn active(&self) -> Option<Side> {
        let m = self.moment();
        let is = |s: Side| Checker::owns(m.words[s.index()]) && m.roles[s.index()] == Some(RoleNow::Active);
        match (is(Side::A), is(Side::B)) {
            (true, false) => Some(Side::A),
            (false, true) => Some(Side::B),
            _ => None,
        }
    }

    /// Runs until a node is active and both agree to be synchronised, at most `limit`.
    pub fn run_until_ready(&mut self, limit: Ns) -> Result<Side, Box<Violation>> {
        let end = self.now() + limit;
        while self.now() < end {
            self.run(20 * MS)?;
            if let Some(side) = self.active()
                && self.same_sas()
                && lock(&self.node(side).machine).kernel.sas().count() >= 2 * self.peers.len()
                && self.moment().contact.is_some()
            {
                return Ok(side);
            }
        }
        Err(self.violation(format!("the pair is not ready after {} ms", limit / MS)))
    }

    /// Epoch in a node's role word.
    pub fn epoch(&self, side: Side) -> Epoch {
        path::epoch_of(self.moment().words[side.index()])
    }

    /// Inbound SAs in a node's kernel.
    pub fn pairs(&self, side: Side) -> usize {
        lock(&self.node(side).machine).kernel.sas().filter(|(_, sa)| sa.direction == Direction::In).count()
    }

    /// SPI and destination of every SA in a node's kernel.
    pub fn sas(&self, side: Side) -> Vec<(Spi, IpAddr)> {
        lock(&self.node(side).machine).kernel.sas().map(|(k, _)| k).collect()
    }

    /// Ports of the UDP encapsulation of every outbound SA of a node's kernel: ours, the peer's.
    pub fn outbound_ports(&self, side: Side) -> Vec<Option<(u16, u16)>> {
        let machine = lock(&self.node(side).machine);
        machine.kernel.sas().filter(|(_, sa)| sa.direction == Direction::Out).map(|(_, sa)| sa.encap).collect()
    }

    /// True when both kernels hold the same SAs.
    pub fn same_sas(&self) -> bool {
        self.sas(Side::A) == self.sas(Side::B)
    }

    /// What must hold once nothing is broken any more and `quiet` has passed: traffic of the last `quiet` flows, one owner, equal SAs
    /// everywhere, no leftovers.
    pub fn check_settled(&self, quiet: Ns) -> Result<(), Box<Violation>> {
        let mut wrong = Vec::new();
        let now = self.now();
        let Some(active) = self.active() else {
            return Err(self.violation(format!("not exactly one active node: {:?}", self.moment())));
        };
        for side in Side::BOTH {
            let node = self.node(side);
            let m = lock(&node.machine);
            let want = if side == active { 2 } else { 0 };
            if m.vips() != want {
                wrong.push(format!("{} has {} VIPs, not {want}", side.name(), m.vips()));
            }
            if node.core.as_ref().is_none_or(|c| c.is_active() != (side == active)) {
                wrong.push(format!("{}: core and role word disagree", side.name()));
            }
            let (mut spis_in, mut keys_out) = (Vec::new(), Vec::new());
            for ((spi, dst), sa) in m.kernel.sas() {
                match sa.direction {
                    Direction::In => spis_in.push(spi),
                    Direction::Out => keys_out.push((spi, dst)),
                }
            }
            if m.path.inbound_spis() != spis_in {
                wrong.push(format!("{}: inbound table {:?}, kernel {spis_in:?}", side.name(), m.path.inbound_spis()));
            }
            if m.path.outbound_keys() != keys_out {
                wrong.push(format!("{}: outbound table {:?}, kernel {keys_out:?}", side.name(), m.path.outbound_keys()));
            }
            // One pair in use for each flow, and those on their way out: a replaced one stays for up to 30 s.
            let most = if self.setup.child_lifetime_s < 60 { 3 } else { 2 };
            if spis_in.len() > most * self.peers.len() {
                wrong.push(format!("{}: {} inbound SAs for {} flows", side.name(), spis_in.len(), self.peers.len()));
            }
        }
        if !self.same_sas() {
            wrong.push(format!("kernels differ: a {:?}, b {:?}", self.sas(Side::A), self.sas(Side::B)));
        }
        for (lan, group) in GROUPS.into_iter().enumerate() {
            let port = self.lans[lan].port_of(virtual_mac(group));
            if port != Some(active.index()) {
                wrong.push(format!("the switch of LAN {lan} sends the virtual MAC to port {port:?}"));
            }
        }
        for slot in &self.peers {
            let theirs: Vec<_> = slot.peer.kernel().sas().map(|(k, _)| k).collect();
            let to = IpAddr::V4(plan::peer_address(slot.peer.index));
            // The other half of a replaced pair stays longer here or there.
            let missing: Vec<_> = self.sas(active).into_iter().filter(|k| k.1 == to && !theirs.contains(k)).collect();
            if !missing.is_empty() {
                wrong.push(format!("peer {} does not have {missing:?}", slot.peer.index + 1));
            }
            if slot.peer.spis_in_use() != slot.peer.children().count() {
                wrong.push(format!("peer {} leaks SPIs", slot.peer.index + 1));
            }
            if slot.peer.clear > 0 {
                wrong.push(format!("peer {} got {} packets in clear", slot.peer.index + 1, slot.peer.clear));
            }
        }
        if self.flowing && wrong.is_empty() {
            let lost = self.traffic.report(now.saturating_sub(quiet)..now.saturating_sub(SEC / 4));
            if !lost.is_empty() {
                let m = lock(&self.node(active).machine);
                let outbound = m.kernel.sas().filter(|(_, sa)| sa.direction == Direction::Out);
                let state = |((spi, dst), sa): ((Spi, IpAddr), &Sa)| format!("{spi} at {}, may send {:?}", sa.oseq, m.path.range(spi, dst));
                wrong.push(outbound.map(state).collect::<Vec<_>>().join(", "));
            }
            wrong.extend(lost);
        }
        if wrong.is_empty() { Ok(()) } else { Err(self.violation(wrong.join("; "))) }
    }
}
