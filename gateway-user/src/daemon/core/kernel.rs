//! SAs: what the engine wants, what the kernel says, what leases allow.

use super::{Core, Deferred, Pair, Switch};
use crate::ha::NodeState;
use crate::id::{IkeVersion, Spi};
use crate::ike::{IkeCommand, IkeEvent, IkeRecord};
use crate::ports::{Direction, ReplaySet, SaInstall, SaUsed, XfrmEvent};
use crate::sad::{ChildRecord, ChildSa, ChildStage, Counters, Lease, LeaseAction, Selector};
use crate::ssp::{Client, CounterUpdate, Message};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// Datagrams held back for the partner's acknowledgement; more are refused (the peer repeats its request).
const OUTBOX_MAX: usize = 4096;
/// How long the initiator of a rekey waits for the peer to use the new pair before it does itself.
const SWITCH_WAIT: Duration = Duration::from_secs(1);
/// Outbound kernel events per lease: enough to renew at half of it.
const OUT_EVENTS_PER_LEASE: u64 = 8;
/// With extended numbers the data path's floor follows the traffic in steps of 2^30.
const ESN_FLOOR_STEP_BITS: u32 = 30;
/// Longest time between two outbound kernel events while packets flow.
const OUT_EVENT_TIME: Duration = Duration::from_millis(100);

impl Core {
    pub(super) fn pump_engine(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(command) = self.engine.poll_command() {
            busy = true;
            self.ike_command(command, now);
        }
        while let Some(event) = self.engine.poll_event() {
            busy = true;
            self.ike_event(event, now);
        }
        while let Some(t) = self.engine.poll_transmit() {
            busy = true;
            let wait_for = self.last_record;
            if wait_for > self.acked() {
                if self.outbox.len() < OUTBOX_MAX {
                    self.outbox.push_back((wait_for, t));
                } else {
                    *self.stats.ike_refused.entry("outbox_full").or_default() += 1;
                }
            } else {
                self.transmit_ike(t);
            }
        }
        while let Some(job) = self.engine.poll_job() {
            busy = true;
            self.outputs.push_back(super::Output::Job(job));
        }
        busy
    }

    pub(super) fn transmit_ike(&mut self, t: crate::ike::Transmit) {
        self.stats.ike_sent += 1;
        self.outputs.push_back(super::Output::Ike(t));
    }

    fn ike_command(&mut self, command: IkeCommand, now: Instant) {
        match command {
            IkeCommand::MoveChild { spi_in, peer, encap } => self.move_child(spi_in, peer, encap, now),
            IkeCommand::InstallInbound(child) => self.add_pair(*child, ChildStage::Inbound, now),
            IkeCommand::InstallChild(child) => {
                let stage = if self.waits_for_peer(&child) { ChildStage::Pending } else { ChildStage::Live };
                if stage == ChildStage::Pending {
                    self.switches.push(Switch { spi: child.spi_in, at: now + SWITCH_WAIT, retire: Vec::new() });
                }
                self.add_pair(*child, stage, now);
            }
            IkeCommand::RetireOutbound(spi) => {
                let flow = self.pairs.get(&spi).map(|p| flow_of(&p.child));
                let pairs = &self.pairs;
                match self.switches.iter_mut().find(|s| pairs.get(&s.spi).map(|p| flow_of(&p.child)) == flow) {
                    Some(s) if s.spi != spi => s.retire.push(spi),
                    Some(_) | None => self.retire_pair(spi, now),
                }
            }
            IkeCommand::RemoveChild(spi) => {
                // The pair that still sends goes away: no more waiting for the peer.
                self.finish_switches(|s| s.retire.contains(&spi), now);
                self.switches.retain(|s| s.spi != spi);
                let seq = if self.pairs.contains_key(&spi) {
                    self.send_record(Message::Delete { client: Client::Ipsec, key: ChildRecord::key(spi) }, now)
                } else {
                    None
                };
                self.defer(seq, Deferred::Remove(spi), now);
            }
            IkeCommand::ReleaseSpi(spi) => {
                if !self.pairs.contains_key(&spi)
                    && let Ok(mut t) = self.spis.lock()
                {
                    t.release(spi);
                }
            }
        }
    }

    /// We started the rekey of a flow that is sending: see [`Switch`]. In IKEv2 the peer's answer shows that it has the pair.
    fn waits_for_peer(&self, child: &ChildSa) -> bool {
        child.version == IkeVersion::V1
            && child.initiator
            && self.pairs.values().any(|p| p.out_installed && p.child.spi_in != child.spi_in && flow_of(&p.child) == flow_of(child))
    }

    pub(super) fn retire_pair(&mut self, spi: Spi, now: Instant) {
        if let Some(p) = self.pairs.get_mut(&spi) {
            p.stage = ChildStage::Retired;
        }
        let seq = self.mirror_pair(spi, now);
        self.defer(seq, Deferred::RetireOutbound(spi), now);
    }

    /// Starts sending on the new pairs of the switches that are due, and stops on the old ones.
    pub(super) fn finish_switches(&mut self, due: impl Fn(&Switch) -> bool, now: Instant) {
        let (ready, rest) = std::mem::take(&mut self.switches).into_iter().partition(|s| due(s));
        self.switches = rest;
        let ready: Vec<Switch> = ready;
        for s in ready {
            if let Some(p) = self.pairs.get_mut(&s.spi) {
                p.stage = ChildStage::Live;
                let seq = self.mirror_pair(s.spi, now);
                self.defer(seq, Deferred::InstallOutbound(s.spi), now);
            }
            for old in s.retire {
                self.retire_pair(old, now);
            }
        }
    }

    /// After a takeover: pairs that the old active had negotiated and never sent on.
    pub(super) fn promote_pending(&mut self, now: Instant) {
        let pending: Vec<Spi> = self.pairs.values().filter(|p| p.stage == ChildStage::Pending).map(|p| p.child.spi_in).collect();
        for spi in pending {
            if let Some(p) = self.pairs.get_mut(&spi) {
                p.stage = ChildStage::Live;
            }
            self.install_outbound(spi, now);
        }
    }

    fn ike_event(&mut self, event: IkeEvent, now: Instant) {
        match event {
            IkeEvent::Sync(IkeRecord::Upsert { id, body }) => {
                let key = [id.initiator, id.responder].concat();
                self.send_record(Message::Upsert { client: Client::Ike, key, body }, now);
            }
            IkeEvent::Sync(IkeRecord::Delete { id }) => {
                let key = [id.initiator, id.responder].concat();
                self.send_record(Message::Delete { client: Client::Ike, key }, now);
            }
            IkeEvent::IsakmpUp { id, peer, initiator, rekey } => info!(%id, %peer, initiator, ?rekey, "ISAKMP SA up"),
            IkeEvent::IsakmpDown { id, peer, cause } => info!(%id, %peer, cause, "ISAKMP SA down"),
            IkeEvent::ChildUp { spi_in, peer, rekey } => info!(%spi_in, %peer, ?rekey, "IPsec SA up"),
            IkeEvent::ChildDown { spi_in, cause } => info!(%spi_in, cause, "IPsec SA down"),
            IkeEvent::Refused { from, reason, detail } => {
                *self.stats.ike_refused.entry(reason).or_default() += 1;
                debug!(%from, reason, detail, "IKE input refused");
            }
            IkeEvent::Notice { peer, text } => info!(%peer, text, "IKE"),
        }
    }

    /// Work that must not happen before the partner acknowledged `seq`, nor before earlier deferred work.
    fn defer(&mut self, seq: Option<u64>, work: Deferred, now: Instant) {
        let seq = seq.unwrap_or(0).max(self.deferred.back().map_or(0, |(s, _)| *s));
        if seq > self.acked() {
            self.deferred.push_back((seq, work));
        } else {
            self.do_deferred(work, now);
        }
    }

    fn add_pair(&mut self, child: ChildSa, stage: ChildStage, now: Instant) {
        let spi = child.spi_in;
        match self.pairs.get_mut(&spi) {
            Some(p) => {
                p.stage = stage;
                p.child = child;
            }
            None => {
                if let Ok(mut t) = self.spis.lock() {
                    t.reserve(spi);
                }
                let mut lease = Lease::new(self.lease_policy(&child.map, child.esn));
                lease.set_partner(self.holds_ours(), self.live.is_some());
                let r = self.ports.path.set_inbound(spi, child.local, 0, child.esn);
                self.check(r);
                self.install(&child, Direction::In, 0, SaUsed::default(), &lease);
                self.pairs.insert(
                    spi,
                    Pair {
                        child,
                        stage,
                        created: now,
                        counters: Counters::default(),
                        lease,
                        out_installed: false,
                        dormant: false,
                        dirty: false,
                        mirrored_at: None,
                        mirrored: Counters::default(),
                        moved_at: None,
                    },
                );
            }
        }
        let seq = self.mirror_pair(spi, now);
        if stage == ChildStage::Live {
            self.defer(seq, Deferred::InstallOutbound(spi), now);
        }
    }

    /// Sends the pair's record to a partner that holds (or is receiving) our state.
    pub(super) fn mirror_pair(&mut self, spi: Spi, now: Instant) -> Option<u64> {
        let record = self.record(self.pairs.get(&spi)?, now);
        self.send_record(Message::Upsert { client: Client::Ipsec, key: ChildRecord::key(spi), body: record.encode() }, now)
    }

    pub(super) fn record(&self, p: &Pair, now: Instant) -> ChildRecord {
        ChildRecord { child: p.child.clone(), stage: p.stage, age: p.age(now), counters: p.counters, lease_hi: p.lease.hi() }
    }

    pub(super) fn install(&mut self, child: &ChildSa, direction: Direction, replay: u64, used: SaUsed, lease: &Lease) -> bool {
        let interval = self.config.replay.get(&child.map);
        let (event_packets, event_time) = match direction {
            Direction::In => {
                (interval.map_or(1000, |r| r.inbound_packets), interval.map_or(Duration::from_millis(100), |r| r.inbound_time))
            }
            Direction::Out => {
                (((lease.hi() - lease.used().min(lease.hi())) / OUT_EVENTS_PER_LEASE).clamp(32, 1 << 20) as u32, OUT_EVENT_TIME)
            }
        };
        let reqid = super::reqid(&child.map, child.map_seq, child.ace);
        let sa = SaInstall { child, direction, reqid, replay, used, event_packets, event_time };
        let results = self.ports.xfrm.install(&[sa]);
        results.into_iter().all(|r| self.check(r))
    }

    pub(super) fn install_outbound(&mut self, spi: Spi, now: Instant) {
        let Some(p) = self.pairs.get(&spi) else { return };
        if p.out_installed || p.stage != ChildStage::Live {
            return;
        }
        let (child, lease) = (p.child.clone(), p.lease.clone());
        if self.outbound_taken(spi, &child) {
            // The peer chose an SPI that another one at its address has: the kernel knows outbound SAs by these two alone.
            warn!(%spi, spi_out = %child.spi_out, peer = %child.peer, "outbound SPI is taken: the pair is replaced");
            if let Err(e) = self.engine.handle_request(crate::ike::IkeRequest::RekeyChild(spi), now) {
                warn!(%spi, error = e, "rekey was not started");
            }
            return;
        }
        // Ours from here on, whatever fails: what was made of it goes with the pair.
        self.outbound.insert((child.spi_out, child.peer), spi);
        // The guard's range first: a packet must never meet an SA without one.
        let r = self.ports.path.set_outbound(child.spi_out, child.peer, lease.guard_lo(), lease.limit(), child.esn);
        if self.check(r)
            && self.install(
                &child,
                Direction::Out,
                lease.lo(),
                SaUsed { age_s: p_age(self.pairs.get(&spi), now), ..SaUsed::default() },
                &lease,
            )
        {
            if let Some(p) = self.pairs.get_mut(&spi) {
                p.out_installed = true;
            }
            self.point_policy(&child);
            self.replace_orphans(super::reqid(&child.map, child.map_seq, child.ace));
        }
    }

    /// True when another pair sends to this peer under this SPI.
    pub(super) fn outbound_taken(&self, spi: Spi, child: &ChildSa) -> bool {
        self.outbound.get(&(child.spi_out, child.peer)).is_some_and(|owner| *owner != spi)
    }

    /// A daemon that restarts as the active: what its predecessor left in the kernel goes on carrying traffic. Its SPIs are taken.
    pub(super) fn find_orphans(&mut self) {
        let dump = match self.ports.xfrm.dump() {
            Ok(dump) => dump,
            Err(e) => return self.port_error(&e),
        };
        for sa in dump {
            let Some(flow) = self.flows.iter().find(|f| f.policy.reqid == sa.reqid) else { continue };
            if flow.policy.tunnel_local == sa.dst
                && let Ok(mut t) = self.spis.lock()
            {
                t.reserve(sa.spi);
            }
            self.orphans.entry(sa.reqid).or_default().push((sa.spi, sa.dst));
        }
    }

    /// Nobody has the state of these SAs any more: nothing would rekey them, and the partner cannot continue them. New ones replace them.
    pub(super) fn renew_orphans(&mut self, now: Instant) {
        self.orphans.retain(|_, list| {
            list.retain(|(spi, dst)| {
                self.pairs.get(spi).is_none_or(|p| p.child.local != *dst) && !self.outbound.contains_key(&(*spi, *dst))
            });
            !list.is_empty()
        });
        let mut entries: Vec<(String, u32)> =
            self.flows.iter().filter(|f| self.orphans.contains_key(&f.policy.reqid)).map(|f| (f.map.clone(), f.seq)).collect();
        entries.dedup();
        for (map, seq) in entries {
            warn!(map, seq, "state of a predecessor is lost: new SAs are negotiated");
            if let Err(e) = self.engine.handle_request(crate::ike::IkeRequest::Initiate { map, seq }, now) {
                warn!(error = e, "negotiation was not started");
            }
        }
    }

    fn replace_orphans(&mut self, reqid: u32) {
        for (spi, dst) in self.orphans.remove(&reqid).unwrap_or_default() {
            let inbound = self.pairs.get(&spi).is_some_and(|p| p.child.local == dst);
            if !inbound && !self.outbound.contains_key(&(spi, dst)) {
                self.remove_leftover(spi, dst);
            }
        }
    }

    /// Removes an SA that no pair accounts for.
    pub(super) fn remove_leftover(&mut self, spi: Spi, dst: IpAddr) {
        info!(%spi, %dst, "leftover SA removed");
        let r = self.ports.xfrm.remove(spi, dst);
        self.check(r);
        if self.flows.iter().any(|f| f.policy.tunnel_local == dst) {
            let r = self.ports.path.remove_inbound(spi);
            self.check(r);
            if let Ok(mut t) = self.spis.lock() {
                t.release(spi);
            }
        } else {
            let r = self.ports.path.remove_outbound(spi, dst);
            self.check(r);
        }
    }

    pub(super) fn retire_outbound(&mut self, spi: Spi) {
        let Some(p) = self.pairs.get_mut(&spi) else { return };
        p.out_installed = false;
        let (out, peer) = (p.child.spi_out, p.child.peer);
        // What this pair never installed may be another's. What is nobody's is removed once more: a call may have failed.
        if self.outbound.get(&(out, peer)).is_some_and(|owner| *owner != spi) {
            return;
        }
        self.outbound.remove(&(out, peer));
        let r = self.ports.xfrm.remove(out, peer);
        self.check(r);
        let r = self.ports.path.remove_outbound(out, peer);
        self.check(r);
    }

    pub(super) fn remove_pair(&mut self, spi: Spi) {
        self.retire_outbound(spi);
        let Some(p) = self.pairs.remove(&spi) else { return };
        let r = self.ports.xfrm.remove(spi, p.child.local);
        self.check(r);
        let r = self.ports.path.remove_inbound(spi);
        self.check(r);
        if let Ok(mut t) = self.spis.lock() {
            t.release(spi);
        }
        self.restore_policy(&p.child);
    }

    pub(super) fn drop_state(&mut self) {
        let all: Vec<Spi> = self.pairs.keys().copied().collect();
        if !all.is_empty() {
            warn!(pairs = all.len(), "state of unknown age is dropped");
        }
        // The partner may hold these pairs and mirror them here again: what was used of their numbers must not be forgotten with them.
        self.dropped = self.numbers_sent();
        if self.dropped.len() > 2 * self.config.dataplane.sa_max as usize {
            self.dropped.clear();
        }
        for spi in all {
            self.remove_pair(spi);
        }
        // A predecessor may have left some that this process never knew.
        self.remove_strangers();
        self.engine.clear_imported();
    }

    /// After a takeover every pair starts above what the other node may have used; kernel and guard hold that already.
    pub(super) fn resume_leases(&mut self, now: Instant) {
        for p in self.pairs.values_mut().filter(|p| p.dormant) {
            let floor = p.lease.standby_floor();
            p.lease = Lease::resume(p.lease.policy(), floor, floor);
            p.lease.on_used(floor, now);
            p.counters.seq_out = floor;
            p.dormant = false;
        }
    }

    /// The guard's ranges follow what the partner holds and whether it can be asked.
    pub(super) fn partner_state(&mut self, competitor: bool, contact: bool, now: Instant) {
        let active = matches!(self.node.state(), NodeState::Active | NodeState::Adopting);
        let mut limits = Vec::new();
        for p in self.pairs.values_mut() {
            let before = p.lease.limit();
            p.lease.set_partner(competitor, contact);
            if active && p.out_installed && p.lease.limit() != before {
                limits.push((p.child.spi_out, p.child.peer, p.lease.guard_lo(), p.lease.limit(), p.child.esn));
            }
        }
        for (spi, peer, lo, hi, esn) in limits {
            let r = self.ports.path.set_outbound(spi, peer, lo, hi, esn);
            self.check(r);
        }
        if !contact {
            self.grants.clear();
            self.last_record = 0;
            // Nobody is left to wait for.
            self.run_deferred(u64::MAX, now);
            while let Some((_, t)) = self.outbox.pop_front() {
                self.transmit_ike(t);
            }
        }
    }

    /// Both nodes were active apart: the pairs the partner held keep to their old range until they are replaced.
    pub(super) fn contest(&mut self, now: Instant) {
        let mut pairs = 0;
        for p in self.pairs.values_mut().filter(|p| !p.lease.is_contested()) {
            p.lease.contest();
            pairs += usize::from(p.lease.is_contested());
        }
        if pairs > 0 {
            warn!(pairs, "both nodes were active: pairs of the time before are rekeyed");
            // Those that are only half made follow when they are whole.
            self.renew_sequence_leases(now);
        }
    }

    /// Exact counters of every SA, from the kernel.
    pub(super) fn read_counters(&mut self, now: Instant) {
        match self.ports.xfrm.dump() {
            Ok(dump) => {
                for sa in dump {
                    self.count(sa.spi, sa.dst, sa.seq, sa.oseq, sa.bytes, sa.packets, now);
                }
            }
            Err(e) => self.port_error(&e),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one kernel record")]
    fn count(&mut self, spi: Spi, dst: IpAddr, seq: u64, oseq: u64, bytes: u64, packets: u64, now: Instant) {
        if let Some(p) = self.pairs.get_mut(&spi).filter(|p| p.child.local == dst) {
            if seq > p.counters.seq_in || packets > p.counters.packets_in {
                let raised = raised_floor(p.child.esn, p.counters.seq_in, seq);
                p.counters.seq_in = p.counters.seq_in.max(seq);
                p.counters.bytes_in = p.counters.bytes_in.max(bytes);
                p.counters.packets_in = p.counters.packets_in.max(packets);
                p.dirty = true;
                if let Some(floor) = raised {
                    let r = self.ports.path.set_inbound(spi, dst, floor, true);
                    self.check(r);
                }
                self.engine.handle_traffic(spi, now);
                self.finish_switches(|s| s.spi == spi, now);
            }
            return;
        }
        let Some(spi_in) = self.outbound.get(&(spi, dst)) else { return };
        if let Some(p) = self.pairs.get_mut(spi_in) {
            p.counters.seq_out = p.counters.seq_out.max(oseq);
            p.counters.bytes_out = p.counters.bytes_out.max(bytes);
            p.counters.packets_out = p.counters.packets_out.max(packets);
            p.lease.on_used(oseq, now);
            p.dirty = true;
        }
    }

    pub(super) fn on_xfrm(&mut self, events: Vec<XfrmEvent>, now: Instant) {
        if !matches!(self.node.state(), NodeState::Active | NodeState::Draining) {
            return;
        }
        for event in events {
            match event {
                XfrmEvent::Acquire(a) => match self.flows.iter().find(|f| f.policy.reqid == a.reqid) {
                    Some(f) => {
                        let (map, seq, ace) = (f.map.clone(), f.seq, f.ace);
                        self.engine.handle_acquire(a, &map, seq, ace, now);
                    }
                    None => debug!(?a, "acquire for a policy that is not ours"),
                },
                XfrmEvent::Expire { spi, dst, hard } => {
                    let known = self.pairs.get(&spi).is_some_and(|p| p.child.local == dst) || self.outbound.contains_key(&(spi, dst));
                    if known {
                        info!(%spi, %dst, hard, "lifetime reached");
                        self.engine.handle_expire(spi, hard, now);
                    }
                }
                XfrmEvent::Replay { spi, dst, seq, oseq, bytes, packets } => self.count(spi, dst, seq, oseq, bytes, packets, now),
                XfrmEvent::Mapping { spi, dst, peer, port } => self.mapping_changed(spi, dst, peer, port, now),
                XfrmEvent::Overrun => {
                    warn!("kernel events were lost: reading all counters");
                    self.read_counters(now);
                }
            }
        }
        self.renew_sequence_leases(now);
        self.mirror_counters(now);
    }

    fn renew_sequence_leases(&mut self, now: Instant) {
        // An armed partner cannot raise what it is about to use itself.
        if self.node.handing_over() {
            return;
        }
        let mut ask = Vec::new();
        let mut rekey = Vec::new();
        for (spi, p) in &mut self.pairs {
            if p.stage != ChildStage::Live {
                continue;
            }
            if p.lease.used() >= p.lease.limit() {
                self.stats.lease_stalls += 1;
            }
            match p.lease.poll() {
                Some(LeaseAction::Extend(hi)) => ask.push((*spi, hi)),
                Some(LeaseAction::Rekey) => rekey.push(*spi),
                None => {}
            }
        }
        for spi in rekey {
            warn!(%spi, "outbound sequence numbers run low: rekey");
            if let Err(e) = self.engine.handle_request(crate::ike::IkeRequest::RekeyChild(spi), now) {
                warn!(%spi, error = e, "rekey was not started");
            }
        }
        if ask.is_empty() {
            return;
        }
        let updates = ask.iter().filter_map(|(spi, hi)| self.pairs.get(spi).map(|p| update(p, *hi))).collect();
        self.stats.lease_requests += ask.len() as u64;
        if let Some(seq) = self.send_record(Message::Counters(updates), now) {
            self.grants.push_back((seq, ask));
        }
    }

    /// Tells the partner the counters that moved.
    pub(super) fn mirror_counters(&mut self, now: Instant) {
        if self.node.state() != NodeState::Active || self.live.is_none() {
            return;
        }
        let updates: Vec<CounterUpdate> = self.pairs.values().filter(|p| p.dirty).map(|p| update(p, p.lease.hi())).collect();
        if updates.is_empty() {
            return;
        }
        for p in self.pairs.values_mut().filter(|p| p.dirty) {
            p.dirty = false;
            p.mirrored = p.counters;
            p.mirrored_at = Some(now);
        }
        self.send_counters(updates, now);
    }

    pub(super) fn send_final_counters(&mut self, now: Instant) {
        self.read_counters(now);
        let updates: Vec<CounterUpdate> = self.pairs.values().map(|p| update(p, p.lease.hi())).collect();
        self.send_counters(updates, now);
    }

    pub(super) fn on_granted(&mut self, acked: u64) {
        while self.grants.front().is_some_and(|(seq, _)| *seq <= acked) {
            let Some((_, list)) = self.grants.pop_front() else { return };
            for (spi, hi) in list {
                let Some(p) = self.pairs.get_mut(&spi) else { continue };
                if p.lease.on_granted(hi) && p.out_installed {
                    let (out, peer, esn) = (p.child.spi_out, p.child.peer, p.child.esn);
                    let (lo, limit) = (p.lease.guard_lo(), p.lease.limit());
                    let r = self.ports.path.set_outbound(out, peer, lo, limit, esn);
                    self.check(r);
                }
            }
        }
    }

    pub(super) fn raise_floors(&mut self) {
        let floors: Vec<_> = self.pairs.values().map(|p| (p.child.spi_in, p.child.local, p.counters.seq_in, p.child.esn)).collect();
        for (spi, local, floor, esn) in floors {
            let r = self.ports.path.set_inbound(spi, local, floor, esn);
            self.check(r);
        }
    }

    /// Writes mirrored numbers into dormant SAs.
    pub(super) fn write_replay(&mut self, sets: &[ReplaySet]) {
        if sets.is_empty() {
            return;
        }
        for r in self.ports.xfrm.set_replay(sets) {
            self.check(r);
        }
    }
}

/// The floor that the data path needs when the highest inbound number of a pair with extended numbers rises from `before` to `seq`: below the
/// window, so that it refuses nothing, and often enough that it never comes to lie ahead of the traffic
/// ([`crate::ports::Dataplane::set_inbound`]).
pub(super) fn raised_floor(esn: bool, before: u64, seq: u64) -> Option<u64> {
    let due = esn && seq >> ESN_FLOOR_STEP_BITS > before >> ESN_FLOOR_STEP_BITS;
    due.then(|| seq.saturating_sub(crate::netlink::xfrm::codec::REPLAY_WINDOW_MAX.into()))
}

/// What makes two pairs protect the same traffic.
fn flow_of(c: &ChildSa) -> (&str, u32, u32, Selector, Selector, IpAddr) {
    (&c.map, c.map_seq, c.ace, c.ts_local, c.ts_remote, c.peer)
}

fn p_age(p: Option<&Pair>, now: Instant) -> u64 {
    p.map_or(0, |p| p.age(now).as_secs())
}

/// A counter message for one pair, asking for numbers up to `lease_hi`.
pub(super) fn update(p: &Pair, lease_hi: u64) -> CounterUpdate {
    let c = &p.counters;
    CounterUpdate {
        spi_in: p.child.spi_in,
        seq_in: c.seq_in,
        seq_out: c.seq_out,
        lease_hi,
        bytes_in: c.bytes_in,
        bytes_out: c.bytes_out,
        packets_in: c.packets_in,
        packets_out: c.packets_out,
    }
}
