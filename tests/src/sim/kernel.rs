//! XFRM of a simulated machine, with the adapter in front of it: what the product's `Xfrm` port sees and what packets meet.
//!
//! Rules as found by experiment on real kernels: numbers of 32 or 64 bits in the bitmap form of the replay state, a window that is checked before
//! the integrity value and moved after it, all ones at and below a number that is set, events by threshold and by time with one deferred event after
//! idleness, soft and hard limits by time and bytes, one acquire per policy until it is answered or its time is over, SAs that send
//! only while their source address is on the machine, an event when an encapsulated packet comes from somewhere else than the SA says.

use super::clock::{Ns, SEC, Time};
use super::dice::Dice;
use super::frame::{self, Ip};
use super::window::{Replayed, Window};
use gateway_user::id::Spi;
use gateway_user::ike::Acquire;
use gateway_user::ports::{Direction, FlowPolicy, XfrmEvent};
use gateway_user::sad::{EspKeys, Lifetime, Selector};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

/// Events that wait for the daemon; more are lost (ENOBUFS).
pub const EVENTS_MAX: usize = 256;
/// How long the kernel waits for an answer to an acquire (`xfrm_acq_expires`).
const ACQUIRE_WAIT: Ns = 30 * SEC;
/// Wall clock of the kernel's lifetimes, whole seconds.
const EPOCH_S: u64 = 1_700_000_000;

/// SPI and destination.
pub type Key = (Spi, IpAddr);

/// Deviations for mutation tests: what a broken kernel adapter would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelKnobs {
    /// Replay writes of outbound SAs answer "ok" and write nothing: the lease is acknowledged before anything holds it.
    pub forget_out_writes: bool,
    /// Replay writes of inbound SAs leave the bitmap empty instead of full.
    pub empty_bitmap: bool,
}

/// One SA.
#[derive(Clone, Debug)]
pub struct Sa {
    /// Source.
    pub src: IpAddr,
    /// reqid.
    pub reqid: u32,
    /// Which half the product said it is.
    pub direction: Direction,
    /// Fingerprint of the keys.
    pub icv: u64,
    pub(super) window: Window,
    /// Last number sent.
    pub oseq: u64,
    /// Extended sequence numbers.
    pub esn: bool,
    /// UDP encapsulation: source and destination port.
    pub encap: Option<(u16, u16)>,
    /// Another source that was told, and until when it is not told again.
    pub(super) mapping: Option<(IpAddr, u16, Ns)>,
    pub(super) told: (u64, u64),
    pub(super) event_packets: u32,
    pub(super) event_time: Ns,
    pub(super) event_at: Option<Ns>,
    pub(super) event_deferred: bool,
    pub(super) bytes: u64,
    pub(super) packets: u64,
    /// Packets beyond the window, replayed, with a wrong check value.
    pub(super) refused: [u32; 3],
    pub(super) added_s: u64,
    pub(super) soft: Lifetime,
    pub(super) hard: Lifetime,
    pub(super) dying: bool,
    pub(super) order: u64,
}

impl Sa {
    /// Highest number verified.
    pub fn seq(&self) -> u64 {
        self.window.top
    }

    pub(super) fn replay(&self) -> (u64, u64) {
        (self.window.top, self.oseq)
    }

    /// Highest number it can use.
    fn last(&self) -> u64 {
        if self.esn { u64::MAX } else { u32::MAX.into() }
    }

    /// Integrity value of a packet: with extended numbers it covers the high half, which is not on the wire.
    fn icv_of(&self, number: u64) -> u64 {
        self.icv ^ (number >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Why a received packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum InDrop {
    /// XfrmInNoStates.
    NoState,
    /// XfrmInStateSeqError.
    Replay(Replayed),
    /// XfrmInStateProtoError.
    Integrity,
    /// XfrmInStateExpired.
    Expired,
    /// XfrmInStateMismatch: plain where UDP is agreed, or the other way.
    Encapsulation,
    /// XfrmInTmplMismatch, or the inner packet is none.
    Template,
}

/// What happens to a packet that is about to leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outbound {
    /// No policy selects it: in clear.
    Clear,
    /// Dropped, by the kernel's counter.
    Drop(&'static str),
    /// Protected: the outer packet.
    Protected(Vec<u8>),
}

/// XFRM of one machine.
pub struct FakeKernel {
    pub(super) time: Time,
    pub(super) sas: BTreeMap<Key, Sa>,
    pub(super) policies: Vec<FlowPolicy>,
    pub(super) acquiring: BTreeMap<u32, Ns>,
    events: VecDeque<XfrmEvent>,
    overrun: bool,
    listening: bool,
    pub(super) next_order: u64,
    /// Highest numbers an SA with these keys ever had here, also after its removal.
    pub(super) past: BTreeMap<(Spi, u64), (u64, u64)>,
    pub(super) dice: Dice,
    /// Calls that fail, of ten thousand.
    pub fail_per_10k: u32,
    /// Events that are lost, of ten thousand.
    pub lose_per_10k: u32,
    /// Deviations.
    pub knobs: KernelKnobs,
    /// What the product asked for and must not.
    pub violations: Vec<String>,
    /// Drops by counter.
    pub drops: BTreeMap<&'static str, u64>,
}

fn fnv(parts: &[&[u8]]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for b in *part {
            h = (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        }
        h = h.wrapping_mul(0x100_0000_01b3);
    }
    h
}

pub(super) fn icv(keys: &EspKeys) -> u64 {
    fnv(&[keys.encr.expose(), keys.integ.expose()])
}

/// A number as an SA can hold it.
pub(super) fn fitting(number: u64, esn: bool) -> u64 {
    if esn { number } else { number.min(u32::MAX.into()) }
}

/// True when the selector covers the end of a packet.
pub fn covers(s: &Selector, addr: Ipv4Addr, proto: u8, port: Option<u16>) -> bool {
    let IpAddr::V4(net) = s.addr else { return false };
    let mask = u32::MAX.checked_shl(32 - u32::from(s.prefix)).unwrap_or(0);
    u32::from(addr) & mask == u32::from(net) & mask
        && (s.proto == 0 || s.proto == proto)
        && (s.port == 0 || port.is_none_or(|p| p == s.port))
}

fn ports(ip: &Ip<'_>) -> (Option<u16>, Option<u16>) {
    match frame::udp_of(ip) {
        Some((src, dst, _)) => (Some(src), Some(dst)),
        None => (None, None),
    }
}

fn bytes_of(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit.saturating_mul(1024) }
}

impl FakeKernel {
    /// An empty kernel.
    pub fn new(time: Time, dice: Dice) -> Self {
        Self {
            time,
            sas: BTreeMap::new(),
            policies: Vec::new(),
            acquiring: BTreeMap::new(),
            events: VecDeque::new(),
            overrun: false,
            listening: true,
            next_order: 0,
            past: BTreeMap::new(),
            dice,
            fail_per_10k: 0,
            lose_per_10k: 0,
            knobs: KernelKnobs::default(),
            violations: Vec::new(),
            drops: BTreeMap::new(),
        }
    }

    pub(super) fn now_s(&self) -> u64 {
        EPOCH_S + self.time.now() / SEC
    }

    fn count(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// A daemon opened its sockets, or is gone.
    pub fn listen(&mut self, on: bool) {
        self.listening = on;
        self.events.clear();
        self.overrun = false;
    }

    /// True when a daemon would be woken.
    pub fn has_events(&self) -> bool {
        self.overrun || !self.events.is_empty()
    }

    /// What the daemon reads.
    pub fn take_events(&mut self) -> Vec<XfrmEvent> {
        let lost = std::mem::take(&mut self.overrun).then_some(XfrmEvent::Overrun);
        lost.into_iter().chain(self.events.drain(..)).collect()
    }

    fn emit(&mut self, event: XfrmEvent) {
        if !self.listening {
            return;
        }
        if self.events.len() >= EVENTS_MAX || self.dice.chance(self.lose_per_10k) {
            self.overrun = true;
            return;
        }
        self.events.push_back(event);
    }

    /// All SAs.
    pub fn sas(&self) -> impl Iterator<Item = (Key, &Sa)> {
        self.sas.iter().map(|(k, sa)| (*k, sa))
    }

    /// One SA.
    pub fn sa(&self, spi: Spi, dst: IpAddr) -> Option<&Sa> {
        self.sas.get(&(spi, dst))
    }

    /// Flows with policies.
    pub fn policies(&self) -> &[FlowPolicy] {
        &self.policies
    }

    /// When a lifetime or an event time ends.
    pub fn next_timer(&self) -> Option<Ns> {
        let acquires = self.acquiring.values().copied().min();
        let sas = self.sas.values().filter_map(|sa| {
            let at = |s: u64| (s != 0).then(|| (sa.added_s + s).saturating_sub(EPOCH_S) * SEC);
            let soft = if sa.dying { None } else { at(sa.soft.seconds) };
            [sa.event_at, soft, at(sa.hard.seconds)].into_iter().flatten().min()
        });
        sas.chain(acquires).min()
    }

    /// Time went on.
    pub fn on_timer(&mut self) {
        let (now, now_s) = (self.time.now(), self.now_s());
        self.acquiring.retain(|_, until| *until > now);
        let keys: Vec<Key> = self.sas.keys().copied().collect();
        for key in keys {
            let Some(sa) = self.sas.get_mut(&key) else { continue };
            let age = now_s.saturating_sub(sa.added_s);
            if sa.hard.seconds != 0 && age >= sa.hard.seconds {
                self.drop_sa(key);
                self.emit(XfrmEvent::Expire { spi: key.0, dst: key.1, hard: true });
                continue;
            }
            if !sa.dying && sa.soft.seconds != 0 && age >= sa.soft.seconds {
                sa.dying = true;
                self.emit(XfrmEvent::Expire { spi: key.0, dst: key.1, hard: false });
            }
            if self.sas.get(&key).is_some_and(|sa| sa.event_at.is_some_and(|at| at <= now)) {
                self.event_timer(key);
            }
        }
    }

    fn event_timer(&mut self, key: Key) {
        let Some(sa) = self.sas.get_mut(&key) else { return };
        sa.event_at = None;
        if sa.replay() == sa.told || !self.listening {
            sa.event_deferred = true;
            return;
        }
        self.tell(key);
    }

    /// `xfrm_replay_notify(XFRM_REPLAY_UPDATE)`.
    fn moved(&mut self, key: Key) {
        let Some(sa) = self.sas.get(&key) else { return };
        if !self.listening {
            return;
        }
        let (seq, oseq) = sa.replay();
        let below = seq - sa.told.0 < sa.event_packets.into() && oseq - sa.told.1 < sa.event_packets.into();
        if (sa.event_packets == 0 || below) && !sa.event_deferred {
            return;
        }
        self.tell(key);
    }

    fn tell(&mut self, key: Key) {
        let now = self.time.now();
        let Some(sa) = self.sas.get_mut(&key) else { return };
        sa.told = sa.replay();
        if sa.event_time != 0 {
            sa.event_at = Some(now + sa.event_time);
            sa.event_deferred = false;
        }
        let event = XfrmEvent::Replay { spi: key.0, dst: key.1, seq: sa.window.top, oseq: sa.oseq, bytes: sa.bytes, packets: sa.packets };
        self.emit(event);
    }

    pub(super) fn drop_sa(&mut self, key: Key) {
        if let Some(sa) = self.sas.remove(&key) {
            let past = self.past.entry((key.0, sa.icv)).or_default();
            *past = (past.0.max(sa.window.top), past.1.max(sa.oseq));
        }
    }

    /// `xfrm_state_check_expire`: false when the SA may not be used any more.
    fn usable(&mut self, key: Key) -> bool {
        let Some(sa) = self.sas.get_mut(&key) else { return false };
        if sa.bytes >= bytes_of(sa.hard.kilobytes) {
            self.drop_sa(key);
            self.emit(XfrmEvent::Expire { spi: key.0, dst: key.1, hard: true });
            return false;
        }
        if !sa.dying && sa.bytes >= bytes_of(sa.soft.kilobytes) {
            sa.dying = true;
            self.emit(XfrmEvent::Expire { spi: key.0, dst: key.1, hard: false });
        }
        true
    }

    /// A packet to our own address with protocol ESP: the inner packet, or why not.
    pub fn input(&mut self, outer: &Ip<'_>) -> Result<Vec<u8>, InDrop> {
        let result = self.receive(outer);
        if let Err(drop) = &result {
            self.count(match drop {
                InDrop::NoState => "in_no_states",
                InDrop::Replay(_) => "in_state_seq_error",
                InDrop::Integrity => "in_state_proto_error",
                InDrop::Expired => "in_state_expired",
                InDrop::Encapsulation => "in_state_mismatch",
                InDrop::Template => "in_tmpl_mismatch",
            });
        }
        result
    }

    fn refused(&mut self, key: Key, why: usize) {
        if let Some(sa) = self.sas.get_mut(&key) {
            sa.refused[why] += 1;
        }
    }

    fn receive(&mut self, outer: &Ip<'_>) -> Result<Vec<u8>, InDrop> {
        let (esp, ports) = frame::esp_or_natt(outer).ok_or(InDrop::NoState)?;
        let key = (Spi(esp.spi), IpAddr::V4(outer.dst));
        let sa = self.sas.get(&key).ok_or(InDrop::NoState)?;
        if sa.encap.is_some() != ports.is_some() {
            return Err(InDrop::Encapsulation);
        }
        let number = if sa.esn { sa.window.extend(esp.seq) } else { esp.seq.into() };
        if let Err(replayed) = sa.window.check(number) {
            self.refused(key, if replayed == Replayed::TooOld { 0 } else { 1 });
            return Err(InDrop::Replay(replayed));
        }
        if !self.usable(key) {
            return Err(InDrop::Expired);
        }
        let sa = self.sas.get_mut(&key).ok_or(InDrop::NoState)?;
        if esp.icv != sa.icv_of(number) {
            self.refused(key, 2);
            return Err(InDrop::Integrity);
        }
        sa.window.advance(number);
        sa.bytes += esp.inner.len() as u64;
        sa.packets += 1;
        let reqid = sa.reqid;
        self.moved(key);
        if let Some((port, _)) = ports {
            self.mapping(key, outer.src, port);
        }
        let inner = frame::ip(esp.inner).ok_or(InDrop::Template)?;
        if self.policy_in(&inner).is_some_and(|want| want == reqid) { Ok(esp.inner.to_vec()) } else { Err(InDrop::Template) }
    }

    /// `km_new_mapping`, with the limit of one event a second.
    fn mapping(&mut self, key: Key, src: Ipv4Addr, port: u16) {
        let now = self.time.now();
        let Some(sa) = self.sas.get_mut(&key) else { return };
        let peer = IpAddr::V4(src);
        if (sa.src, sa.encap.map(|e| e.0)) == (peer, Some(port)) {
            return;
        }
        if sa.mapping.is_some_and(|(_, told, until)| told == port && now < until) {
            return;
        }
        sa.mapping = Some((peer, port, now + SEC));
        self.emit(XfrmEvent::Mapping { spi: key.0, dst: key.1, peer, port });
    }

    fn policy_in(&self, ip: &Ip<'_>) -> Option<u32> {
        let (sport, dport) = ports(ip);
        let matches = |p: &&FlowPolicy| covers(&p.remote, ip.src, ip.proto, sport) && covers(&p.local, ip.dst, ip.proto, dport);
        self.policies.iter().filter(matches).min_by_key(|p| p.priority).map(|p| p.reqid)
    }

    /// True when a packet that came in clear must be dropped: it belongs to a protected flow.
    pub fn refuses_clear(&mut self, ip: &Ip<'_>) -> bool {
        let refused = self.policy_in(ip).is_some();
        if refused {
            self.count("in_tmpl_mismatch");
        }
        refused
    }

    /// A packet that is about to leave. `local`: whether an address is on this machine now.
    pub fn output(&mut self, packet: &Ip<'_>, local: impl Fn(Ipv4Addr) -> bool) -> Outbound {
        let (sport, dport) = ports(packet);
        let matches =
            |p: &&FlowPolicy| covers(&p.local, packet.src, packet.proto, sport) && covers(&p.remote, packet.dst, packet.proto, dport);
        let Some(policy) = self.policies.iter().filter(matches).min_by_key(|p| p.priority).cloned() else { return Outbound::Clear };
        let result = self.protect(&policy, packet, local);
        if let Outbound::Drop(reason) = result {
            self.count(reason);
        }
        result
    }

    fn protect(&mut self, policy: &FlowPolicy, packet: &Ip<'_>, local: impl Fn(Ipv4Addr) -> bool) -> Outbound {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (policy.tunnel_local, policy.tunnel_peer) else { return Outbound::Drop("out_error") };
        let fits = |(key, sa): &(&Key, &Sa)| sa.reqid == policy.reqid && key.1 == policy.tunnel_peer && sa.src == policy.tunnel_local;
        // Not dying first, then the youngest (in whole seconds), then the one that was installed last.
        let best = self.sas.iter().filter(fits).max_by_key(|(_, sa)| (!sa.dying, sa.added_s, sa.order)).map(|(k, _)| *k);
        let Some(key) = best else {
            self.acquire(policy, packet);
            return Outbound::Drop("out_no_states");
        };
        if !local(from) {
            return Outbound::Drop("out_bundle_gen_error");
        }
        if !self.usable(key) {
            return Outbound::Drop("out_state_expired");
        }
        let Some(sa) = self.sas.get_mut(&key) else { return Outbound::Drop("out_state_expired") };
        if sa.oseq == sa.last() {
            return Outbound::Drop("out_state_seq_error");
        }
        sa.oseq += 1;
        sa.bytes += packet.packet.len() as u64;
        sa.packets += 1;
        let esp = frame::esp(key.0.0, sa.oseq as u32, sa.icv_of(sa.oseq), packet.packet);
        let outer = match sa.encap {
            None => frame::ip_packet(from, to, frame::ESP, 64, &esp),
            Some((sport, dport)) => frame::ip_packet(from, to, frame::UDP, 64, &frame::udp(sport, dport, &esp)),
        };
        self.moved(key);
        Outbound::Protected(outer)
    }

    fn acquire(&mut self, policy: &FlowPolicy, packet: &Ip<'_>) {
        let now = self.time.now();
        if self.acquiring.get(&policy.reqid).is_some_and(|until| *until > now) {
            return;
        }
        // Without a listener there is nobody to wait for (ESRCH).
        if !self.listening {
            return;
        }
        self.acquiring.insert(policy.reqid, now + ACQUIRE_WAIT);
        let (sport, dport) = ports(packet);
        let end = |addr, port: Option<u16>| Selector { addr: IpAddr::V4(addr), prefix: 32, proto: packet.proto, port: port.unwrap_or(0) };
        let acquire = Acquire { peer: policy.tunnel_peer, reqid: policy.reqid, src: end(packet.src, sport), dst: end(packet.dst, dport) };
        self.emit(XfrmEvent::Acquire(acquire));
    }
}
