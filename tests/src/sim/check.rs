//! What must never happen, checked after every event.

use super::clock::{MS, Ns, SEC};
use super::frame;
use super::kernel::covers;
use super::lan::Weather;
use super::machine::Sent;
use super::peer::Refused;
use super::plan::{OUTSIDE, Side, VIPS};
use gateway_common::classify::{Direction, Kind, parse};
use gateway_common::verdict::RoleNow;
use gateway_user::ports::{FlowPolicy, PathRole, RoleWord};
use std::collections::{BTreeMap, HashMap};

/// State byte of an active HSRP router.
const HSRP_ACTIVE: u8 = 16;
/// Op code of a router that gives up.
const HSRP_RESIGN: u8 = 2;
/// A connection must stand for this time before it can be expected to mirror.
const MIRROR_WARMUP: Ns = SEC / 2;

/// What is true about the pair at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Now.
    pub now: Ns,
    /// Role in force by side; `None` without power.
    pub roles: [Option<RoleNow>; 2],
    /// Role words.
    pub words: [Option<RoleWord>; 2],
    /// Both daemons run, and an SSP connection stands with both ends and an open way: since when.
    pub contact: Option<Ns>,
}

/// The checks and what they remember.
pub struct Checker {
    sent: HashMap<(u32, u32), BTreeMap<u32, (Side, Ns)>>,
    first_sent: HashMap<(u32, u32, Side), Ns>,
    verified: HashMap<(u32, u32), (Side, Ns)>,
    peer_verified: HashMap<(usize, u32), BTreeMap<u32, u8>>,
    /// Intervals in which what a side verified had to be mirrored, and since when such a one lasts.
    mirrored: [Vec<(Ns, Ns)>; 2],
    mirroring: [Option<Ns>; 2],
    rivals: Option<Ns>,
    /// Last moment something was broken on purpose.
    pub disturbed: Option<Ns>,
    mirror_slack: Ns,
    rivals_max: Ns,
    weather: Weather,
    attacked: bool,
    flows: Vec<FlowPolicy>,
    /// Duplicates and late packets that a peer refused, all explained.
    pub explained: u64,
    /// Packets that both nodes accepted because the first died before it could say so.
    pub exposed: u64,
}

impl Checker {
    /// `flows`: from the gateway's side. `takeover`: longest time two nodes that hear each other may both be active.
    pub fn new(weather: Weather, inbound_time: Ns, takeover: Ns, attacked: bool) -> Self {
        Self {
            sent: HashMap::new(),
            first_sent: HashMap::new(),
            verified: HashMap::new(),
            peer_verified: HashMap::new(),
            mirrored: [Vec::new(), Vec::new()],
            mirroring: [None, None],
            rivals: None,
            disturbed: None,
            mirror_slack: 2 * inbound_time + 100 * MS + weather.delay_max(),
            rivals_max: takeover + SEC / 2,
            weather,
            attacked,
            flows: Vec::new(),
            explained: 0,
            exposed: 0,
        }
    }

    /// The protected flows, from the gateway's side.
    pub fn protect(&mut self, flows: &[FlowPolicy]) {
        if self.flows.is_empty() {
            self.flows = flows.to_vec();
        }
    }

    /// A frame left a node.
    pub fn on_tx(&mut self, side: Side, sent: &Sent, now: Ns) -> Result<(), String> {
        if sent.redirected {
            return Ok(());
        }
        let p = parse(&sent.frame.as_slice(), Direction::Out);
        let name = side.name();
        let from_vip = VIPS.iter().any(|v| u32::from(*v) == p.src);
        let (role, word) = (sent.role, sent.word);
        let quiet = matches!(role, RoleNow::Quiet);
        let active = matches!(role, RoleNow::Active);
        match p.kind {
            Kind::Esp | Kind::NattEsp if from_vip && quiet => return Err(format!("{name} sends ESP of a VIP while {role:?} ({word:?})")),
            Kind::Ike | Kind::NattIke if from_vip && !role.takes() => {
                return Err(format!("{name} sends IKE of a VIP while {role:?} ({word:?})"));
            }
            Kind::Arp if from_vip && !active => return Err(format!("{name} sends ARP of a VIP while {role:?} ({word:?})")),
            Kind::Hsrp if p.hsrp_state == HSRP_ACTIVE && p.hsrp_opcode != HSRP_RESIGN && !active => {
                return Err(format!("{name} says it is active while {role:?} ({word:?})"));
            }
            _ => {}
        }
        if sent.device != OUTSIDE {
            return Ok(());
        }
        if matches!(p.kind, Kind::Esp | Kind::NattEsp) && from_vip {
            self.first_sent.entry((p.spi, p.dst, side)).or_insert(now);
            if let Some((before, at)) = self.sent.entry((p.spi, p.dst)).or_default().insert(p.seq, (side, now)) {
                return Err(format!("SPI {:#010x} number {} left {name}, and {} before at {} ms", p.spi, p.seq, before.name(), at / MS));
            }
        } else if let Some(ip) = frame::ip_of(&sent.frame) {
            let clear = |f: &FlowPolicy| covers(&f.local, ip.src, ip.proto, None) && covers(&f.remote, ip.dst, ip.proto, None);
            if self.flows.iter().any(clear) {
                return Err(format!("{name} sends {} to {} in clear", ip.src, ip.dst));
            }
        }
        Ok(())
    }

    /// A gateway's kernel accepted a packet.
    pub fn on_verified(&mut self, side: Side, spi: u32, seq: u32, now: Ns) -> Result<(), String> {
        let Some((before, at)) = self.verified.insert((spi, seq), (side, now)) else { return Ok(()) };
        if before == side {
            return Err(format!("{} accepts SPI {spi:#010x} number {seq} again, first at {} ms", side.name(), at / MS));
        }
        let open = self.mirroring[before.index()].map(|since| (since, now));
        let had_to = self.mirrored[before.index()]
            .iter()
            .copied()
            .chain(open)
            .any(|(from, to)| at >= from + MIRROR_WARMUP && at + self.mirror_slack <= to);
        if had_to {
            return Err(format!(
                "{} accepts SPI {spi:#010x} number {seq}, which {} accepted at {} ms and had mirrored",
                side.name(),
                before.name(),
                at / MS
            ));
        }
        self.exposed += 1;
        Ok(())
    }

    /// A peer accepted a packet.
    pub fn on_peer_verified(&mut self, peer: usize, spi: u32, seq: u32) -> Result<(), String> {
        if self.peer_verified.entry((peer, spi)).or_default().insert(seq, 1).is_some() {
            return Err(format!(
                "the fake kernel of peer {} accepts SPI {spi:#010x} number {seq} twice: the simulation is broken",
                peer + 1
            ));
        }
        Ok(())
    }

    /// A peer refused a packet as a replay.
    pub fn on_peer_refused(&mut self, peer: usize, dst: u32, refused: &Refused, now: Ns) -> Result<(), String> {
        let Refused { spi, seq, why, top } = *refused;
        let known = self.sent.get(&(spi, dst));
        let told = format!("peer {} refuses SPI {spi:#010x} number {seq} ({why:?}, window at {top})", peer + 1);
        let taken = self.peer_verified.get(&(peer, spi)).is_some_and(|s| s.contains_key(&seq));
        if taken {
            if self.weather.duplicate == 0 && !self.attacked {
                return Err(format!("{told}: it has it already and the network makes no duplicates"));
            }
            self.explained += 1;
            return Ok(());
        }
        let Some((side, at)) = known.and_then(|s| s.get(&seq)).copied() else {
            return Err(format!("{told}: nobody sent it"));
        };
        let rival = known.and_then(|s| s.get(&(top as u32))).map(|(s, _)| *s).filter(|s| *s != side);
        let explained = match rival {
            // A copy that an attacker kept, of a packet that was lost at first.
            _ if self.attacked => true,
            Some(rival) => {
                let began = self.first_sent.get(&(spi, dst, rival)).copied().unwrap_or(0);
                at <= began + self.weather.delay_max() || self.disturbed.is_some_and(|d| now <= d + 10 * SEC)
            }
            // A burst that the network shuffled (packets that waited for an ARP answer leave all at once).
            None => {
                let shuffles = self.weather.jitter > 0 || self.weather.reorder > 0;
                shuffles && known.and_then(|s| s.get(&(top as u32))).is_some_and(|(_, newest)| *newest <= at + self.weather.delay_max())
            }
        };
        if !explained {
            let history = self.history(spi, dst);
            return Err(format!(
                "{told}: {} sent it at {} ms, the window was moved by {rival:?}; sent were {history}",
                side.name(),
                at / MS
            ));
        }
        self.explained += 1;
        Ok(())
    }

    /// Who sent which numbers of an SA, in order of the numbers.
    fn history(&self, spi: u32, dst: u32) -> String {
        let mut runs: Vec<(Side, u32, u32, Ns, Ns)> = Vec::new();
        for (seq, (side, at)) in self.sent.get(&(spi, dst)).into_iter().flatten() {
            match runs.last_mut() {
                Some(run) if run.0 == *side && *at >= run.4 => (run.2, run.4) = (*seq, *at),
                _ => runs.push((*side, *seq, *seq, *at, *at)),
            }
        }
        let show = |(side, from, to, at, until): &(Side, u32, u32, Ns, Ns)| {
            format!("{} {from}..{to} at {}..{} ms", side.name(), at / MS, until / MS)
        };
        runs.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    /// After every event.
    pub fn on_moment(&mut self, m: &Moment) -> Result<(), String> {
        let active = |i: usize| m.roles[i] == Some(RoleNow::Active);
        for i in 0..2 {
            let mirrors = m.contact.is_some() && active(i) && !active(1 - i);
            match (self.mirroring[i], mirrors) {
                (None, true) => self.mirroring[i] = Some(m.now),
                (Some(since), false) => {
                    self.mirrored[i].push((since, m.now));
                    self.mirroring[i] = None;
                }
                (None, false) | (Some(_), true) => {}
            }
        }
        let both = active(0) && active(1);
        // Two owners are unavoidable while the nodes cannot hear each other; never for long when they can.
        if !both || m.contact.is_none() {
            self.rivals = None;
            return Ok(());
        }
        let since = *self.rivals.get_or_insert(m.now);
        if m.now >= since + self.rivals_max {
            return Err(format!("both nodes are active since {} ms though they are in contact: {:?}", since / MS, m.words));
        }
        Ok(())
    }

    /// True when a node owns the addresses.
    pub fn owns(word: Option<RoleWord>) -> bool {
        word.is_some_and(|w| w.role == PathRole::Active)
    }
}
