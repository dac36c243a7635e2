//! The other node: sessions, snapshots, mirrored records.

use super::{Conn, Core, Output, Pair, Staging};
use crate::ha::NodeState;
use crate::id::{IkeSaId, Spi};
use crate::ike::IkeRecord;
use crate::ports::{Direction, Partner, ReplaySet, SaUsed};
use crate::sad::{ChildRecord, ChildStage, ESN_SLACK, Lease};
use crate::ssp::{Client, CounterUpdate, Hello, Message, Session, SessionEvent, Timing};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tracing::{Level, debug, enabled, info, warn};
use zeroize::Zeroize;

/// Connections that may be open at once, authenticated or not.
const CONNS_MAX: usize = 5;
/// Bounds of the time without a record after which the partner's session ends.
const DEAD_MIN: Duration = Duration::from_secs(1);
const DEAD_MAX: Duration = Duration::from_secs(3);
/// Records of one snapshot: two per SA table slot.
const SNAPSHOT_RECORDS_PER_SLOT: usize = 2;

impl Core {
    /// A TCP connection to or from the partner is up.
    pub fn handle_ssp_connected(&mut self, conn: u64, initiator: bool, now: Instant) {
        debug!(target: "debug::ssp::socket", conn, initiator, "connected");
        let Some(group) = self.config.ssp.as_ref() else { return };
        if self.conns.len() >= CONNS_MAX {
            self.outputs.push_back(Output::SspClose { conn, cause: "too many connections".into() });
            return;
        }
        let mut ephemeral = [0; 32];
        self.rng.fill(&mut ephemeral);
        let session = Session::with_timing(initiator, &group.secret, ephemeral, self.session_timing(), now);
        ephemeral.zeroize();
        match session {
            Ok(session) => {
                self.conns.insert(conn, Conn { session, established: false, hello: false });
            }
            Err(e) => {
                warn!(conn, error = %e, "SSP session cannot be made");
                self.outputs.push_back(Output::SspClose { conn, cause: e.to_string() });
            }
        }
        self.pump(now);
    }

    /// A partner is held for dead on its session no sooner than HSRP would, and late enough for a busy machine.
    fn session_timing(&self) -> Timing {
        let hold = self.groups.iter().map(|s| s.group.config().hold).max().unwrap_or_default();
        let dead_after = (hold * 3).clamp(DEAD_MIN, DEAD_MAX);
        Timing { keepalive: dead_after / 5, dead_after, ..Timing::default() }
    }

    /// Bytes of a connection.
    pub fn handle_ssp_bytes(&mut self, conn: u64, bytes: &[u8], now: Instant) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        if let Err(e) = c.session.handle_bytes(bytes, now) {
            self.drop_conn(conn, &e.to_string(), now);
        }
        self.pump(now);
    }

    /// A connection is gone.
    pub fn handle_ssp_closed(&mut self, conn: u64, cause: &str, now: Instant) {
        self.forget_conn(conn, cause, now);
        self.pump(now);
    }

    pub(super) fn conn_timeouts(&mut self, now: Instant) {
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            if let Some(c) = self.conns.get_mut(&id)
                && let Err(e) = c.session.handle_timeout(now)
            {
                self.drop_conn(id, &e.to_string(), now);
            }
        }
    }

    fn drop_conn(&mut self, conn: u64, cause: &str, now: Instant) {
        self.outputs.push_back(Output::SspClose { conn, cause: cause.to_owned() });
        self.forget_conn(conn, cause, now);
    }

    fn forget_conn(&mut self, conn: u64, cause: &str, now: Instant) {
        debug!(target: "debug::ssp::socket", conn, cause, "closed");
        if self.conns.remove(&conn).is_none() {
            return;
        }
        if self.live == Some(conn) {
            warn!(cause, "SSP session down");
            self.live = None;
            self.staging = None;
            self.complete = None;
            self.snapshot_sent = false;
            self.resync_wanted = false;
            self.node.handle_down(now);
        } else {
            debug!(conn, cause, "SSP connection closed");
        }
    }

    pub(super) fn pump_sessions(&mut self, now: Instant) -> bool {
        let mut busy = false;
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            while let Some(event) = self.conns.get_mut(&id).and_then(|c| c.session.poll_event()) {
                busy = true;
                match event {
                    SessionEvent::Established => self.established(id, now),
                    SessionEvent::Message { seq, message } => {
                        if self.live == Some(id) {
                            self.on_message(id, seq, message, now);
                        }
                    }
                    SessionEvent::Acked(seq) => {
                        if self.live == Some(id) {
                            self.on_acked(seq, now);
                        }
                    }
                }
            }
            while let Some(bytes) = self.conns.get_mut(&id).and_then(|c| c.session.poll_transmit()) {
                busy = true;
                self.outputs.push_back(Output::Ssp { conn: id, bytes });
            }
        }
        busy
    }

    fn established(&mut self, id: u64, now: Instant) {
        if let Some(old) = self.live.filter(|old| *old != id) {
            // The partner restarted, or both connected: the newest authenticated session is the one it will use.
            self.drop_conn(old, "replaced by a newer session", now);
        }
        if let Some(c) = self.conns.get_mut(&id) {
            c.established = true;
        }
        self.outputs.push_back(Output::SspAuthenticated { conn: id });
        self.live = Some(id);
        self.last_record = 0;
        self.snapshot_sent = false;
        info!(conn = id, "SSP session authenticated");
        debug!(target: "debug::ssp::fsm", conn = id, "established");
        let mut interfaces = Vec::new();
        for i in &self.config.interfaces {
            if let Ok(l) = self.ports.links.link(&i.device) {
                interfaces.push((i.name.clone(), IpAddr::V4(i.address), l.mac));
            }
        }
        let hello = Hello {
            hostname: self.config.hostname.clone(),
            role: self.node.role(),
            epoch: self.node.epoch(),
            has_state: self.node.has_state(),
            config: self.config.digests.clone(),
            interfaces,
        };
        self.send(Message::Hello(hello), now);
    }

    /// Sends on the live session; a full queue ends the session (a new one starts with a snapshot).
    pub(super) fn send(&mut self, message: Message, now: Instant) -> Option<u64> {
        let id = self.live?;
        let c = self.conns.get_mut(&id)?;
        self.resync_wanted |= matches!(message, Message::ResyncRequest { .. });
        let text = enabled!(target: "debug::ssp::packet", Level::DEBUG).then(|| format!("{message:?}"));
        match c.session.send(message, now) {
            Ok(seq) => {
                if let Some(message) = text {
                    debug!(target: "debug::ssp::packet", seq, message, "sent");
                }
                Some(seq)
            }
            Err(e) => {
                self.drop_conn(id, &e.to_string(), now);
                None
            }
        }
    }

    /// True when the partner has our snapshot, or has it coming.
    pub(super) fn holds_ours(&self) -> bool {
        self.live.is_some() && self.snapshot_sent
    }

    /// Mirrors a record; datagrams and kernel work that depend on it wait for its acknowledgement.
    pub(super) fn send_record(&mut self, message: Message, now: Instant) -> Option<u64> {
        if !self.holds_ours() || !self.is_active() {
            return None;
        }
        if let Message::Upsert { client: Client::Ike, .. } = &message {
            self.stats.isakmp_adds += 1;
        }
        if let Message::Delete { client: Client::Ike, .. } = &message {
            self.stats.isakmp_deletes += 1;
        }
        let seq = self.send(message, now)?;
        self.last_record = seq;
        Some(seq)
    }

    pub(super) fn send_counters(&mut self, updates: Vec<CounterUpdate>, now: Instant) {
        if self.holds_ours() && !updates.is_empty() {
            for chunk in updates.chunks(crate::ssp::COUNTERS_MAX) {
                self.send(Message::Counters(chunk.to_vec()), now);
            }
        }
    }

    pub(super) fn acked(&self) -> u64 {
        self.live.and_then(|id| self.conns.get(&id)).map_or(u64::MAX, |c| c.session.acked())
    }

    fn on_acked(&mut self, seq: u64, now: Instant) {
        self.on_granted(seq);
        self.run_deferred(seq, now);
        while self.outbox.front().is_some_and(|(s, _)| *s <= seq) {
            if let Some((_, t)) = self.outbox.pop_front() {
                self.transmit_ike(t);
            }
        }
    }

    pub(super) fn send_snapshot(&mut self, now: Instant) {
        if self.live.is_none() {
            return;
        }
        let active = self.is_active();
        // Also a node that is not active may have used numbers: while it was armed, or under an epoch that is over.
        let mut sent = HashMap::new();
        let mut offered = Vec::new();
        if active {
            // From here the partner may take over: no number above what it will hold as reserved may leave.
            self.read_counters(now);
            let mut limits = Vec::new();
            for p in self.pairs.values_mut() {
                let hi = p.lease.offer();
                sent.insert((p.child.spi_out, p.child.peer), hi);
                if hi > p.lease.hi() {
                    offered.push((p.child.spi_in, hi));
                }
                p.lease.set_partner(true, true);
                if p.out_installed {
                    limits.push((p.child.spi_out, p.child.peer, p.lease.guard_lo(), p.lease.limit(), p.child.esn));
                }
            }
            for (spi, peer, lo, hi, esn) in limits {
                let r = self.ports.path.set_outbound(spi, peer, lo, hi, esn);
                self.check(r);
            }
        } else {
            sent = self.numbers_sent();
        }
        self.snapshot_id += 1;
        let (id, epoch) = (self.snapshot_id, self.node.epoch());
        let mut messages = vec![Message::SnapshotBegin { id, epoch }];
        for r in self.engine.export(now) {
            if let IkeRecord::Upsert { id, body } = r {
                messages.push(Message::Upsert { client: Client::Ike, key: [id.initiator, id.responder].concat(), body });
            }
        }
        for p in self.pairs.values() {
            let mut record = self.record(p, now);
            record.lease_hi = record.lease_hi.max(sent.get(&(p.child.spi_out, p.child.peer)).copied().unwrap_or(0));
            messages.push(Message::Upsert { client: Client::Ipsec, key: ChildRecord::key(p.child.spi_in), body: record.encode() });
        }
        let records = messages.len() as u64 - 1;
        messages.push(Message::SnapshotEnd { id, records });
        info!(id, %epoch, records, "snapshot sent");
        let mut last = 0;
        for m in messages {
            let Some(seq) = self.send(m, now) else { return };
            last = seq;
        }
        if !offered.is_empty() {
            self.grants.push_back((last, offered));
        }
        self.snapshot_sent = true;
    }

    fn acknowledge(&mut self, id: u64, seq: u64, now: Instant) {
        if let Some(c) = self.conns.get_mut(&id) {
            c.session.acknowledge(seq, now);
        }
    }

    fn on_message(&mut self, id: u64, seq: u64, message: Message, now: Instant) {
        // Bodies of records are not printed: they hold keys.
        debug!(target: "debug::ssp::packet", seq, ?message, "received");
        let hello_seen = self.conns.get(&id).is_some_and(|c| c.hello);
        if !hello_seen && !matches!(message, Message::Hello(_)) {
            self.drop_conn(id, "the partner did not say hello first", now);
            return;
        }
        match message {
            Message::Hello(hello) => self.on_hello(id, &hello, now),
            Message::State { role, epoch, ready } => self.node.handle_state(role, epoch, ready, now),
            Message::ResyncRequest { .. } => {
                if self.is_active() || self.node.has_state() {
                    self.send_snapshot(now);
                }
            }
            Message::SnapshotBegin { id, epoch } => self.staging = Some(Staging { id, epoch, records: Vec::new(), ack: 0 }),
            Message::SnapshotEnd { id: snapshot, records } => match self.staging.take() {
                Some(mut s) if s.id == snapshot && s.records.len() as u64 == records => {
                    s.ack = seq;
                    self.complete = Some(s);
                    // Applied, and acknowledged, as soon as this node's state allows (`pump`).
                    return;
                }
                _ => {
                    self.drop_conn(id, "a snapshot ended that was not whole", now);
                    return;
                }
            },
            Message::Upsert { client, key, mut body } => {
                let max = self.config.dataplane.sa_max as usize * SNAPSHOT_RECORDS_PER_SLOT;
                match &mut self.staging {
                    Some(s) if s.records.len() < max => s.records.push((client, key, body)),
                    Some(_) => {
                        self.drop_conn(id, "a snapshot holds more records than the SA table has room for", now);
                        return;
                    }
                    None => {
                        self.flush_complete(now);
                        if self.mirrors() {
                            self.apply_upsert(client, &key, &body, &HashMap::new(), now);
                        }
                        body.zeroize();
                    }
                }
            }
            Message::Delete { client, key } => {
                self.flush_complete(now);
                if self.mirrors() {
                    self.apply_delete(client, &key);
                }
            }
            Message::Counters(updates) => {
                self.flush_complete(now);
                self.apply_counters(&updates, now);
            }
            Message::HandoverPrepare { epoch } => self.node.handle_prepare(epoch, now),
            Message::HandoverArmed { epoch, refused } => self.node.handle_armed(epoch, &refused, now),
            Message::HandoverGo { epoch } => self.node.handle_go(epoch, now),
            Message::Ping | Message::Ack => {}
        }
        if self.complete.is_none() {
            self.acknowledge(id, seq, now);
        }
    }

    /// Records behind a snapshot must not overtake it.
    fn flush_complete(&mut self, now: Instant) {
        if self.complete.is_some() && self.mirrors() {
            self.apply_snapshot(now);
        }
    }

    fn mirrors(&self) -> bool {
        matches!(self.node.state(), NodeState::Standby | NodeState::Armed)
    }

    fn on_hello(&mut self, id: u64, hello: &Hello, now: Instant) {
        if let Some(c) = self.conns.get_mut(&id) {
            c.hello = true;
        }
        self.partner_digests = Some(hello.config.clone());
        debug!(target: "debug::ssp::peers", ?hello, "partner");
        debug!(target: "debug::ssp::config", items = hello.config.len(), ours = self.config.digests.len(), "digests");
        let difference = first_difference(&self.config.digests, &hello.config);
        info!(partner = %hello.hostname, role = ?hello.role, epoch = %hello.epoch, has_state = hello.has_state, ?difference, "SSP hello");
        if let Some(d) = &difference {
            warn!(item = %d, "the two nodes' configurations differ: no takeover with state until they agree");
        }
        for i in self.config.interfaces.clone() {
            let mac = hello.interfaces.iter().find(|(_, ip, _)| in_subnet(*ip, i.address, i.prefix)).map(|(_, _, mac)| *mac);
            let r = self.ports.path.set_partner(&i.device, mac.map(|mac| Partner { mac }));
            self.check(r);
        }
        self.node.handle_hello(hello, difference, now);
    }

    fn refuse_record(&mut self, reason: &'static str, detail: &str) {
        *self.stats.records_refused.entry(reason).or_default() += 1;
        warn!(reason, detail, "mirrored record refused");
    }

    pub(super) fn apply_snapshot(&mut self, now: Instant) {
        let Some(s) = self.complete.take() else { return };
        let adopting = self.node.state() == NodeState::Active;
        self.resync_wanted = false;
        let mut keep: BTreeSet<Spi> = BTreeSet::new();
        let mut ike = Vec::new();
        let mut children = Vec::new();
        for (client, key, body) in s.records {
            match client {
                Client::Ike => ike.push((key, body)),
                Client::Ipsec => children.push((key, body)),
            }
        }
        let (ike_records, child_records) = (ike.len(), children.len());
        // Numbers this node used itself, or a predecessor here did: the partner may not know them.
        let sent = self.numbers_sent();
        keep.extend(children.iter().filter_map(|(key, _)| ChildRecord::parse_key(key).ok()));
        // First what is to go, so that nothing of it stands in the way of what comes.
        let gone: Vec<Spi> = self.pairs.keys().filter(|spi| !adopting && !keep.contains(spi)).copied().collect();
        for spi in gone {
            self.remove_pair(spi);
            self.engine.forget_child(spi);
        }
        self.engine.clear_imported();
        self.stats.isakmp_replies += ike_records as u64;
        for (key, mut body) in ike {
            self.apply_upsert(Client::Ike, &key, &body, &sent, now);
            body.zeroize();
        }
        for (key, mut body) in children {
            if adopting {
                self.adopt_child(&body, now);
            } else {
                self.apply_upsert(Client::Ipsec, &key, &body, &sent, now);
            }
            body.zeroize();
        }
        // An active keeps what it made since it restarted.
        self.remove_strangers();
        info!(epoch = %s.epoch, isakmp = ike_records, children = child_records, "snapshot applied");
        if let Some(id) = self.live {
            self.acknowledge(id, s.ack, now);
        }
        self.node.handle_snapshot_complete(s.epoch, now);
    }

    /// Last outbound number of every SA in the kernel, and of those that this node gave up.
    pub(super) fn numbers_sent(&mut self) -> HashMap<(Spi, IpAddr), u64> {
        let mut sent = self.dropped.clone();
        match self.ports.xfrm.dump() {
            Ok(dump) => {
                for sa in dump {
                    let n = sent.entry((sa.spi, sa.dst)).or_default();
                    *n = sa.oseq.max(*n);
                }
            }
            Err(e) => self.port_error(&e),
        }
        sent
    }

    /// Removes SAs of ours (by reqid) that no pair accounts for: leftovers of a predecessor.
    pub(super) fn remove_strangers(&mut self) {
        let ours: HashSet<u32> = self.flows.iter().map(|f| f.policy.reqid).collect();
        self.orphans.clear();
        match self.ports.xfrm.dump() {
            Ok(dump) => {
                for sa in dump.into_iter().filter(|sa| ours.contains(&sa.reqid)) {
                    let inbound = self.pairs.get(&sa.spi).is_some_and(|p| p.child.local == sa.dst);
                    if !inbound && !self.outbound.contains_key(&(sa.spi, sa.dst)) {
                        self.remove_leftover(sa.spi, sa.dst);
                    }
                }
            }
            Err(e) => self.port_error(&e),
        }
    }

    fn apply_upsert(&mut self, client: Client, key: &[u8], body: &[u8], sent: &HashMap<(Spi, IpAddr), u64>, now: Instant) {
        match client {
            Client::Ike => {
                let Some(id) = parse_ike_key(key) else { return self.refuse_record("bad_key", "IKE record key") };
                debug!(target: "debug::crypto_isakmp_ha::update", %id, bytes = body.len(), "dormant ISAKMP SA");
                if let Err(e) = self.engine.import(&IkeRecord::Upsert { id, body: body.to_vec() }, now) {
                    self.refuse_record("bad_isakmp_record", &e);
                }
            }
            Client::Ipsec => match ChildRecord::decode(body) {
                Ok(r) => self.mirror_child(r, sent, now),
                Err(e) => self.refuse_record("bad_child_record", &e.to_string()),
            },
        }
    }

    fn policy_agrees(&mut self, r: &ChildRecord) -> bool {
        let c = &r.child;
        let agrees = self.config.ike.entries.iter().any(|e| e.map == c.map && e.seq == c.map_seq && e.digest == c.digest);
        if !agrees {
            let item = format!("crypto map {} {}", c.map, c.map_seq);
            self.refuse_record("policy_mismatch", &item);
        }
        agrees
    }

    /// A pair of the active: into our kernel at once, dormant.
    fn mirror_child(&mut self, mut r: ChildRecord, sent: &HashMap<(Spi, IpAddr), u64>, now: Instant) {
        if !self.policy_agrees(&r) {
            return;
        }
        let c = &r.child;
        let spi = c.spi_in;
        debug!(target: "debug::crypto_ipsec_ha::update", %spi, spi_out = %c.spi_out, peer = %c.peer, stage = ?r.stage, lease_hi = r.lease_hi, "dormant IPsec SA");
        if !self.spis.lock().is_ok_and(|mut t| t.reserve(spi)) {
            return self.refuse_record("spi_slot_taken", &spi.to_string());
        }
        let age_s = r.age.as_secs();
        let used = |bytes, packets| SaUsed { age_s, bytes, packets };
        let mut lease = Lease::new(self.lease_policy(&c.map, c.esn));
        // The numbers that were sent to where the peer was before count as well.
        let ends = [Some(c.peer), self.pairs.get(&spi).map(|p| p.child.peer)];
        let used_here = ends.into_iter().flatten().filter_map(|end| sent.get(&(c.spi_out, end))).max().copied().unwrap_or(0);
        self.relocate(spi, r.child.peer, r.child.encap);
        let c = &r.child;
        let held = self.pairs.get(&spi).map_or(0, |p| p.lease.hi());
        lease = Lease::resume(lease.policy(), 0, r.lease_hi.max(held).max(used_here.saturating_sub(lease.policy().isolated_range())));
        let floor = lease.standby_floor();
        let known = self.pairs.get(&spi);
        let mut out_installed = known.is_some_and(|p| p.out_installed);
        let seq_in = known.map_or(0, |p| p.counters.seq_in).max(r.counters.seq_in);
        r.counters.seq_in = seq_in;
        if known.is_none() {
            let res = self.ports.path.set_inbound(spi, c.local, 0, c.esn);
            self.check(res);
        }
        // An SA that is there already is left as it is; one that reached its lifetime here comes back.
        self.install(&r.child, Direction::In, seq_in, used(r.counters.bytes_in, r.counters.packets_in), &lease);
        let c = &r.child;
        match r.stage {
            ChildStage::Live if self.outbound_taken(spi, c) => {
                warn!(%spi, spi_out = %c.spi_out, peer = %c.peer, "outbound SPI is taken");
            }
            ChildStage::Live => {
                let res = self.ports.path.set_outbound(c.spi_out, c.peer, floor, lease.policy().sequence_max(), c.esn);
                self.check(res);
                if !out_installed {
                    out_installed = self.install(c, Direction::Out, floor, used(r.counters.bytes_out, r.counters.packets_out), &lease);
                    self.outbound.insert((c.spi_out, c.peer), spi);
                }
                self.point_policy(c);
            }
            ChildStage::Retired if out_installed => {
                self.retire_outbound(spi);
                out_installed = false;
            }
            ChildStage::Retired | ChildStage::Inbound | ChildStage::Pending => {}
        }
        let mut sets = vec![self.replay_set(&r, Direction::In, r.counters.seq_in)];
        if out_installed {
            sets.push(self.replay_set(&r, Direction::Out, floor));
        }
        self.write_replay(&sets);
        if let Err(e) = self.engine.import_child_stage(c, r.stage, r.age, now) {
            self.refuse_record("bad_child_record", &e);
        }
        let created = now.checked_sub(r.age).unwrap_or(now);
        let pair = Pair {
            child: r.child,
            stage: r.stage,
            created,
            counters: r.counters,
            lease,
            out_installed,
            dormant: true,
            dirty: false,
            mirrored_at: Some(now),
            mirrored: r.counters,
            moved_at: None,
        };
        self.pairs.insert(spi, pair);
    }

    fn replay_set(&self, r: &ChildRecord, direction: Direction, replay: u64) -> ReplaySet {
        let c = &r.child;
        let (spi, dst) = match direction {
            Direction::In => (c.spi_in, c.local),
            Direction::Out => (c.spi_out, c.peer),
        };
        ReplaySet { spi, dst, direction, replay, window: c.replay_window, esn: c.esn, used: None }
    }

    /// A pair of our own past, told by the partner after a restart: the kernel's SAs are adopted as they are.
    fn adopt_child(&mut self, body: &[u8], now: Instant) {
        let r = match ChildRecord::decode(body) {
            Ok(r) => r,
            Err(e) => return self.refuse_record("bad_child_record", &e.to_string()),
        };
        if !self.policy_agrees(&r) {
            return;
        }
        let spi = r.child.spi_in;
        if let Ok(mut t) = self.spis.lock() {
            t.reserve(spi);
        }
        let dump = match self.ports.xfrm.dump() {
            Ok(d) => d,
            Err(e) => return self.port_error(&e),
        };
        let inbound = dump.iter().find(|s| s.spi == spi && s.dst == r.child.local);
        let outbound = dump.iter().find(|s| s.spi == r.child.spi_out && s.dst == r.child.peer);
        let used = outbound.map_or(r.lease_hi, |s| s.oseq);
        let policy = self.lease_policy(&r.child.map, r.child.esn);
        let mut lease = Lease::resume(policy, used, r.lease_hi);
        lease.set_partner(true, self.live.is_some());
        let c = &r.child;
        let used_in = SaUsed { age_s: r.age.as_secs(), bytes: r.counters.bytes_in, packets: r.counters.packets_in };
        let used_out = SaUsed { age_s: r.age.as_secs(), bytes: r.counters.bytes_out, packets: r.counters.packets_out };
        if inbound.is_none() {
            let res = self.ports.path.set_inbound(spi, c.local, 0, c.esn);
            self.check(res);
            self.install(c, Direction::In, r.counters.seq_in, used_in, &lease);
        }
        let mut out_installed = outbound.is_some();
        if r.stage == ChildStage::Live && !self.outbound_taken(spi, c) {
            // What left before and is still on its way to the guard.
            let lo = if c.esn { used.saturating_sub(ESN_SLACK) } else { 0 };
            let res = self.ports.path.set_outbound(c.spi_out, c.peer, lo, lease.limit(), c.esn);
            self.check(res);
            if outbound.is_none() {
                out_installed = self.install(c, Direction::Out, used, used_out, &lease);
            }
            self.outbound.insert((c.spi_out, c.peer), spi);
            self.point_policy(c);
        }
        if let Err(e) = self.engine.import_child_stage(c, r.stage, r.age, now) {
            self.refuse_record("bad_child_record", &e);
        }
        let mut counters = r.counters;
        counters.seq_out = used;
        counters.seq_in = counters.seq_in.max(inbound.map_or(0, |s| s.seq));
        let created = now.checked_sub(r.age).unwrap_or(now);
        let pair = Pair {
            child: r.child,
            stage: r.stage,
            created,
            counters,
            lease,
            out_installed,
            dormant: false,
            dirty: true,
            mirrored_at: Some(now),
            mirrored: r.counters,
            moved_at: None,
        };
        self.pairs.insert(spi, pair);
    }

    fn apply_delete(&mut self, client: Client, key: &[u8]) {
        match client {
            Client::Ike => {
                let Some(id) = parse_ike_key(key) else { return self.refuse_record("bad_key", "IKE record key") };
                let now = self.clock.now();
                if let Err(e) = self.engine.import(&IkeRecord::Delete { id }, now) {
                    self.refuse_record("bad_isakmp_record", &e);
                }
            }
            Client::Ipsec => match ChildRecord::parse_key(key) {
                Ok(spi) => {
                    self.remove_pair(spi);
                    self.engine.forget_child(spi);
                }
                Err(e) => self.refuse_record("bad_key", &e.to_string()),
            },
        }
    }

    fn apply_counters(&mut self, updates: &[CounterUpdate], now: Instant) {
        if !self.mirrors() {
            return;
        }
        // Armed: packets reach this kernel already; its own numbers are ahead of what the partner still reports.
        let write = self.node.state() == NodeState::Standby;
        let mut sets = Vec::new();
        let mut ranges = Vec::new();
        let mut floors = Vec::new();
        for u in updates {
            debug!(target: "debug::crypto_ipsec_ha::detail", spi_in = %u.spi_in, seq_in = u.seq_in, seq_out = u.seq_out, lease_hi = u.lease_hi, "counters");
            let Some(p) = self.pairs.get_mut(&u.spi_in) else { continue };
            if let Some(floor) = super::kernel::raised_floor(p.child.esn, p.counters.seq_in, u.seq_in) {
                floors.push((u.spi_in, p.child.local, floor));
            }
            let c = &mut p.counters;
            // Never back: a number that was mirrored stays.
            c.seq_in = c.seq_in.max(u.seq_in);
            c.seq_out = c.seq_out.max(u.seq_out);
            c.bytes_in = c.bytes_in.max(u.bytes_in);
            c.bytes_out = c.bytes_out.max(u.bytes_out);
            c.packets_in = c.packets_in.max(u.packets_in);
            c.packets_out = c.packets_out.max(u.packets_out);
            p.mirrored_at = Some(now);
            p.mirrored = *c;
            let rose = write && p.lease.on_granted(u.lease_hi);
            if !write {
                continue;
            }
            let age_s = p.age(now).as_secs();
            let (window, esn) = (p.child.replay_window, p.child.esn);
            sets.push(ReplaySet {
                spi: p.child.spi_in,
                dst: p.child.local,
                direction: Direction::In,
                replay: p.counters.seq_in,
                window,
                esn,
                used: Some(SaUsed { age_s, bytes: p.counters.bytes_in, packets: p.counters.packets_in }),
            });
            if p.out_installed {
                let floor = p.lease.standby_floor();
                sets.push(ReplaySet {
                    spi: p.child.spi_out,
                    dst: p.child.peer,
                    direction: Direction::Out,
                    replay: floor,
                    window,
                    esn,
                    used: Some(SaUsed { age_s, bytes: p.counters.bytes_out, packets: p.counters.packets_out }),
                });
                if rose {
                    ranges.push((p.child.spi_out, p.child.peer, floor, p.lease.policy().sequence_max(), esn));
                }
            }
        }
        self.write_replay(&sets);
        for (spi, peer, floor, end, esn) in ranges {
            let r = self.ports.path.set_outbound(spi, peer, floor, end, esn);
            self.check(r);
        }
        for (spi, local, floor) in floors {
            let r = self.ports.path.set_inbound(spi, local, floor, true);
            self.check(r);
        }
    }
}

fn parse_ike_key(key: &[u8]) -> Option<IkeSaId> {
    let key: &[u8; 16] = key.try_into().ok()?;
    let (mut initiator, mut responder) = ([0; 8], [0; 8]);
    initiator.copy_from_slice(&key[..8]);
    responder.copy_from_slice(&key[8..]);
    Some(IkeSaId { initiator, responder })
}

pub(super) fn in_subnet(ip: IpAddr, net: std::net::Ipv4Addr, prefix: u8) -> bool {
    let IpAddr::V4(ip) = ip else { return false };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    u32::from(ip) & mask == u32::from(net) & mask
}

/// Name of the first item that is not equal on both nodes.
pub(super) fn first_difference(ours: &[(String, [u8; 32])], theirs: &[(String, [u8; 32])]) -> Option<String> {
    let find = |list: &[(String, [u8; 32])], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, d)| *d);
    for (name, digest) in ours {
        match find(theirs, name) {
            Some(d) if d == *digest => {}
            Some(_) => return Some(name.clone()),
            None => return Some(format!("{name} (only here)")),
        }
    }
    theirs.iter().find(|(n, _)| find(ours, n).is_none()).map(|(n, _)| format!("{n} (only on the partner)"))
}
