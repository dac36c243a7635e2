//! A peer that is somewhere else than before: another address, another port of its NAT.

use super::Core;
use crate::ha::NodeState;
use crate::id::Spi;
use crate::ike::MapEntry;
use crate::sad::{ChildSa, ChildStage, Encap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A pair follows what the kernel saw at most once in this time: whoever can repeat the peer's packets from two places must not keep us busy.
const FOLLOW_MIN: Duration = Duration::from_secs(1);

impl Core {
    /// A pair's peer moved, proven by an authenticated packet. The partner learns it from the pair's record.
    pub(super) fn move_child(&mut self, spi: Spi, peer: IpAddr, encap: Option<Encap>, now: Instant) {
        let Some(from) = self.pairs.get(&spi).map(|p| p.child.peer) else { return };
        if from.is_ipv4() != peer.is_ipv4() || peer.is_multicast() || peer.is_loopback() || peer.is_unspecified() {
            return;
        }
        match self.relocate(spi, peer, encap) {
            Moved::No => {}
            Moved::Yes => {
                info!(%spi, %from, to = %peer, port = encap.map(|e| e.peer_port), "peer moved");
                self.mirror_pair(spi, now);
            }
            Moved::Broken => {
                // Whatever was the last number, this pair does not send again.
                self.retire_pair(spi, now);
                if let Err(e) = self.engine.handle_request(crate::ike::IkeRequest::RekeyChild(spi), now) {
                    warn!(%spi, error = e, "rekey was not started");
                }
            }
        }
    }

    /// Kernel, data path and tables follow a pair's peer. On a standby, the record of the active says where to.
    pub(super) fn relocate(&mut self, spi: Spi, peer: IpAddr, encap: Option<Encap>) -> Moved {
        let Some(p) = self.pairs.get(&spi) else { return Moved::No };
        if (p.child.peer, p.child.encap) == (peer, encap) {
            return Moved::No;
        }
        let old = p.child.clone();
        let sends = p.out_installed;
        let elsewhere = sends && old.peer != peer;
        if elsewhere && self.outbound_taken(spi, &ChildSa { peer, ..old.clone() }) {
            self.retire_outbound(spi);
            if let Some(p) = self.pairs.get_mut(&spi) {
                (p.child.peer, p.child.encap) = (peer, encap);
            }
            return Moved::Broken;
        }
        let (lo, hi) =
            if p.dormant { (p.lease.standby_floor(), p.lease.policy().sequence_max()) } else { (p.lease.guard_lo(), p.lease.limit()) };
        // The guard's range first: a packet must never meet an SA without one.
        let mut ok = true;
        if elsewhere {
            let r = self.ports.path.set_outbound(old.spi_out, peer, lo, hi, old.esn);
            ok = self.check(r);
        }
        if ok {
            let r = self.ports.xfrm.move_peer(&old, peer, encap);
            ok = self.check(r);
        }
        if elsewhere {
            self.outbound.remove(&(old.spi_out, old.peer));
            self.outbound.insert((old.spi_out, peer), spi);
            let r = self.ports.path.remove_outbound(old.spi_out, old.peer);
            self.check(r);
        }
        if let Some(p) = self.pairs.get_mut(&spi) {
            p.child.peer = peer;
            p.child.encap = encap;
        }
        if !ok {
            // How far it got is not known: neither the old nor the new SA may send.
            let r = self.ports.xfrm.remove(old.spi_out, old.peer);
            self.check(r);
            self.retire_outbound(spi);
            return Moved::Broken;
        }
        if sends {
            self.point_policy(&ChildSa { peer, encap, ..old });
        }
        Moved::Yes
    }

    /// A packet of this pair, authenticated by the kernel and no replay, came from somewhere else (RFC 7296 2.23, RFC 3948 appendix). Its IKE SA
    /// decides, and its commands move all of its pairs. Without one (version 1 keeps pairs whose ISAKMP SA has ended) the pairs of the old mapping
    /// follow by themselves.
    pub(super) fn mapping_changed(&mut self, spi: Spi, dst: IpAddr, peer: IpAddr, port: u16, now: Instant) {
        if self.node.state() != NodeState::Active {
            return;
        }
        let Some(p) = self.pairs.get_mut(&spi).filter(|p| p.child.local == dst) else { return };
        let Some(before) = p.child.encap else { return };
        let after = Encap { peer_port: port, ..before };
        let from = p.child.peer;
        if (from, before) == (peer, after) || port == 0 || p.moved_at.is_some_and(|at| now.saturating_duration_since(at) < FOLLOW_MIN) {
            return;
        }
        p.moved_at = Some(now);
        if self.engine.handle_mapping(spi, SocketAddr::new(peer, port), now) {
            return;
        }
        let Some(p) = self.pairs.get(&spi) else { return };
        let isakmp = p.child.isakmp;
        // Only to where this entry's peers may be: the packet proves who sent it, not that the address is its own.
        let allowed = |e: &&MapEntry| e.map == p.child.map && e.seq == p.child.map_seq && e.peers.contains(&peer);
        if peer != from && !self.config.ike.entries.iter().any(|e| allowed(&e)) {
            return;
        }
        let together = self.pairs.values().filter(|p| (p.child.isakmp, p.child.peer, p.child.encap) == (isakmp, from, Some(before)));
        let together: Vec<Spi> = together.map(|p| p.child.spi_in).collect();
        for spi in together {
            self.move_child(spi, peer, Some(after), now);
        }
    }

    /// The outbound template of a flow names the tunnel end that its packets go to: the peer of the pair that sends.
    pub(super) fn point_policy(&mut self, child: &ChildSa) {
        // The usual case costs no search among the flows.
        if self.redirected > 0 || self.configured_peer(child) != Some(child.peer) {
            self.set_tunnel_end(child, child.peer);
        }
    }

    /// A pair of a flow is gone: its policy names the peer of the newest pair that still sends, or else the configured one, so that an acquire does.
    pub(super) fn restore_policy(&mut self, child: &ChildSa) {
        let Some(entry) = self.config.ike.entries.iter().find(|e| e.map == child.map && e.seq == child.map_seq) else { return };
        if self.redirected == 0 && entry.peers.len() < 2 {
            return;
        }
        let configured = entry.peers.first().copied();
        let same = |c: &ChildSa| c.map == child.map && c.map_seq == child.map_seq && c.ace == child.ace;
        let sending = self.pairs.values().filter(|p| p.stage == ChildStage::Live && p.out_installed && same(&p.child));
        if let Some(peer) = sending.max_by_key(|p| p.created).map(|p| p.child.peer).or(configured) {
            self.set_tunnel_end(child, peer);
        }
    }

    fn configured_peer(&self, child: &ChildSa) -> Option<IpAddr> {
        self.config.ike.entries.iter().find(|e| e.map == child.map && e.seq == child.map_seq)?.peers.first().copied()
    }

    fn set_tunnel_end(&mut self, child: &ChildSa, peer: IpAddr) {
        let configured = self.configured_peer(child);
        let flow = self.flows.iter_mut().find(|f| f.map == child.map && f.seq == child.map_seq && f.ace == child.ace);
        let Some(flow) = flow.filter(|f| f.policy.tunnel_peer != peer) else { return };
        let was = configured != Some(flow.policy.tunnel_peer);
        self.redirected = self.redirected + usize::from(configured != Some(peer)) - usize::from(was);
        flow.policy.tunnel_peer = peer;
        let policy = flow.policy.clone();
        let r = self.ports.xfrm.update_policies(&[policy]);
        self.check(r);
    }
}

/// What became of a move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moved {
    /// The pair is there already, or unknown.
    No,
    /// Done.
    Yes,
    /// The pair cannot send any more.
    Broken,
}

#[cfg(test)]
mod tests {
    use super::super::kernel::raised_floor;
    use gateway_common::layout::{InboundSa, SA_ESN, SA_VALID};
    use gateway_common::verdict::{Inbound, inbound};

    /// Two rounds of the low half in steps of what two kernel events may lie apart: the floor that follows never meets the traffic.
    #[test]
    fn the_floor_of_extended_numbers_follows_the_traffic_round_and_round() {
        let mut entry = InboundSa { spi: 300, state: SA_VALID | SA_ESN, floor: 70_000, ..InboundSa::default() };
        let (mut seq, mut raised) = (70_000_u64, 0);
        while seq < 3 << 32 {
            let next = seq + 40_000_000;
            if let Some(floor) = raised_floor(true, seq, next) {
                assert!(floor > entry.floor && floor < next);
                entry.floor = floor;
                raised += 1;
            }
            seq = next;
            for late in [0, 1, 1000] {
                assert_eq!(inbound(&entry, 300, (seq - late) as u32), Inbound::Known, "number {}", seq - late);
            }
        }
        assert_eq!(raised, 12, "four times in each round");
        assert_eq!(raised_floor(false, 0, 1 << 40), None);
    }
}
