//! The eBPF data path of a simulated node: the same decisions (`gateway_common::verdict`) over ordinary tables instead of maps.

use super::clock::Time;
use gateway_common::abi::Program;
use gateway_common::classify::{self, Direction, Parsed, parse};
use gateway_common::layout::{
    Device, InboundSa, OutboundSa, ROLE_ACTIVE, ROLE_ARMED, ROLE_DRAINING, ROLE_STANDBY, RoleWord as Word, SA_ESN, SA_VALID,
};
use gateway_common::reason::{Action, Classify, Guard, Shunt};
use gateway_common::verdict::{self, GuardFacts, Inbound, Lease, RoleNow, ShuntFacts};
use gateway_user::id::{Epoch, Spi};
use gateway_user::ports::{Dataplane, Partner, PathRole, PortResult, ReasonCount, RoleWord};
use gateway_user::sad::{Counters, Selector};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

/// Deviations for mutation tests: programs that do not do what they promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathKnobs {
    /// `guard` lets every sequence number out.
    pub ignore_range: bool,
    /// The lease in the role word is not looked at.
    pub ignore_lease: bool,
    /// `guard` lets everything out.
    pub guard_off: bool,
}

#[derive(Default)]
struct Tables {
    role: Option<RoleWord>,
    vips: BTreeMap<usize, Vec<(Ipv4Addr, u8)>>,
    protected: BTreeMap<usize, Vec<(Selector, Selector)>>,
    partners: BTreeMap<usize, Partner>,
    inbound: HashMap<u32, InboundSa>,
    outbound: HashMap<(Spi, IpAddr), OutboundSa>,
}

/// Data path of one node.
pub struct FakePath {
    time: Time,
    monotonic_offset: u64,
    devices: Vec<String>,
    macs: Vec<[u8; 6]>,
    /// Which device is an outside one.
    outside: Vec<bool>,
    sa_mask: u32,
    tables: Tables,
    counts: BTreeMap<(u32, u32), u64>,
    /// Deviations.
    pub knobs: PathKnobs,
    /// What the product asked for and must not.
    pub violations: Vec<String>,
}

/// What becomes of a frame that arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ingress {
    /// To the kernel.
    Pass,
    /// Dropped.
    Drop,
    /// Out again, readdressed to the partner.
    Redirect([u8; 6]),
}

impl FakePath {
    /// Empty tables. `devices`: name, MAC, and whether it is an outside device.
    pub fn new(time: Time, monotonic_offset: u64, devices: &[(&str, [u8; 6], bool)], sa_max: u32) -> Self {
        Self {
            time,
            monotonic_offset,
            devices: devices.iter().map(|d| d.0.to_owned()).collect(),
            macs: devices.iter().map(|d| d.1).collect(),
            outside: devices.iter().map(|d| d.2).collect(),
            sa_mask: sa_max - 1,
            tables: Tables::default(),
            counts: BTreeMap::new(),
            knobs: PathKnobs::default(),
            violations: Vec::new(),
        }
    }

    fn device(&self, name: &str) -> usize {
        self.devices.iter().position(|d| d == name).unwrap_or(usize::MAX)
    }

    fn word(&self) -> Word {
        let Some(w) = self.tables.role else { return Word::default() };
        let role = match w.role {
            PathRole::Standby => ROLE_STANDBY,
            PathRole::Armed => ROLE_ARMED,
            PathRole::Active => ROLE_ACTIVE,
            PathRole::Draining => ROLE_DRAINING,
        };
        Word { role, reserved: 0, epoch: w.epoch.0, lease_until_ns: w.lease_until_ns }
    }

    /// CLOCK_MONOTONIC of the node.
    pub fn monotonic(&self) -> u64 {
        self.time.now() + self.monotonic_offset
    }

    fn role_now(&self) -> RoleNow {
        let mut word = self.word();
        if self.knobs.ignore_lease {
            word.lease_until_ns = u64::MAX;
        }
        verdict::role_now(&word, || self.monotonic())
    }

    /// What the role word says at this moment, read without the knobs.
    pub fn true_role(&self) -> RoleNow {
        verdict::role_now(&self.word(), || self.monotonic())
    }

    /// The role word as it was written.
    pub fn role_word(&self) -> Option<RoleWord> {
        self.tables.role
    }

    /// SPIs in the inbound table.
    pub fn inbound_spis(&self) -> Vec<Spi> {
        let mut all: Vec<Spi> = self.tables.inbound.values().map(|e| Spi(e.spi)).collect();
        all.sort_unstable();
        all
    }

    /// Keys of the outbound table.
    pub fn outbound_keys(&self) -> Vec<(Spi, IpAddr)> {
        let mut all: Vec<_> = self.tables.outbound.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// Range of an outbound SA.
    pub fn range(&self, spi: Spi, dst: IpAddr) -> Option<(u64, u64)> {
        self.tables.outbound.get(&(spi, dst)).map(|e| (e.lo, e.hi))
    }

    fn vip(&self, addr: u32) -> Option<u8> {
        self.tables.vips.values().flatten().find(|(vip, _)| u32::from(*vip) == addr).map(|(_, g)| *g)
    }

    fn layout(&self, device: usize) -> Device {
        let mut d = Device { ifindex: device as u32 + 2, flags: 0, mac: classify::mac(self.macs[device]), partner: 0, groups: [0; 4] };
        for (_, g) in self.tables.vips.get(&device).into_iter().flatten() {
            d.groups[usize::from(*g) / 64] |= 1 << (g % 64);
        }
        d
    }

    fn count(&mut self, program: Program, reason: u32) {
        *self.counts.entry((program as u32, reason)).or_default() += 1;
    }

    /// Packets that met an outcome.
    pub fn counted(&self, program: Program, reason: u32) -> u64 {
        self.counts.get(&(program as u32, reason)).copied().unwrap_or(0)
    }

    fn look_up_inbound(&mut self, p: &Parsed) -> Inbound {
        let Some(entry) = self.tables.inbound.get_mut(&(p.spi & self.sa_mask)) else { return Inbound::Unknown };
        let answer = verdict::inbound(entry, p.spi, p.seq);
        match answer {
            Inbound::Known => {
                entry.seen = entry.seen.max(verdict::inbound_number(entry, p.seq));
                entry.packets += 1;
                entry.bytes += u64::from(p.ip_len);
            }
            Inbound::Below => entry.below += 1,
            Inbound::Unknown => {}
        }
        answer
    }

    /// XDP (outside devices), then tc ingress.
    pub fn ingress(&mut self, device: usize, frame: &[u8]) -> Ingress {
        let p = parse(&frame, Direction::In);
        let role = self.role_now();
        let to_vip = self.vip(p.dst).is_some();
        if self.outside[device] {
            let reason = {
                let mut found = None;
                // The closure of the verdict is asked at most once; the table cannot be borrowed inside it twice.
                let peek = verdict::classify(&p, role, to_vip, |_, _| {
                    found = Some(());
                    Inbound::Known
                });
                if found.is_some() {
                    let answer = self.look_up_inbound(&p);
                    verdict::classify(&p, role, to_vip, |_, _| answer)
                } else {
                    peek
                }
            };
            self.count(Program::Classify, reason as u32);
            if reason.action() == Action::Drop {
                return Ingress::Drop;
            }
        }
        let layout = self.layout(device);
        let partner = self.tables.partners.get(&device).copied();
        let reason = verdict::shunt(
            &p,
            role,
            ShuntFacts {
                to_virtual_mac: verdict::virtual_mac_on(&layout, p.dst_mac),
                from_partner: partner.is_some_and(|x| classify::mac(x.mac) == p.src_mac),
                partner_known: partner.is_some(),
                to_vip,
            },
        );
        self.count(Program::Shunt, reason as u32);
        match (reason.action(), partner) {
            (Action::Pass, _) => Ingress::Pass,
            (Action::Redirect, Some(x)) => Ingress::Redirect(x.mac),
            (Action::Drop | Action::Redirect, _) => Ingress::Drop,
        }
    }

    /// tc egress; frames that `shunt` redirected do not come here. True when the frame leaves.
    pub fn egress(&mut self, device: usize, frame: &[u8]) -> bool {
        let p = parse(&frame, Direction::Out);
        let vip = self.vip(p.src);
        let layout = self.layout(device);
        let facts = GuardFacts {
            from_virtual_mac: verdict::virtual_mac_on(&layout, p.src_mac),
            from_vip: vip.is_some(),
            arp_mac_matches: vip.is_some_and(|g| verdict::is_virtual_mac(p.arp_mac, g.into())),
            outside: self.outside[device],
        };
        let role = self.role_now();
        let mut lease = match self.tables.outbound.get(&(Spi(p.spi), IpAddr::V4(Ipv4Addr::from(p.dst)))) {
            Some(entry) => verdict::lease(entry, p.spi, p.seq),
            None => Lease::None,
        };
        if self.knobs.ignore_range && lease == Lease::Outside {
            lease = Lease::Inside;
        }
        let protected = self.protects(device, &p);
        let reason = verdict::guard(&p, role, facts, |_, _| lease, || protected);
        self.count(Program::Guard, reason as u32);
        if reason == Guard::Esp
            && let Some(entry) = self.tables.outbound.get_mut(&(Spi(p.spi), IpAddr::V4(Ipv4Addr::from(p.dst))))
        {
            entry.last = entry.last.max(verdict::outbound_number(entry, p.seq));
            entry.packets += 1;
            entry.bytes += u64::from(p.ip_len);
        }
        reason.action() != Action::Drop || self.knobs.guard_off
    }

    fn protects(&self, device: usize, p: &Parsed) -> bool {
        let ends =
            |s: &Selector, addr: u32, port: u16| super::kernel::covers(s, Ipv4Addr::from(addr), p.proto, p.has_ports.then_some(port));
        self.tables
            .protected
            .get(&device)
            .into_iter()
            .flatten()
            .any(|(local, remote)| ends(local, p.src, p.src_port) && ends(remote, p.dst, p.dst_port))
    }
}

fn state(esn: bool) -> u32 {
    SA_VALID | if esn { SA_ESN } else { 0 }
}

/// Anything that has a [`FakePath`] inside.
pub trait HasPath: Send {
    /// It.
    fn path(&mut self) -> &mut FakePath;
}

/// The port.
pub struct PathPort<T>(pub Arc<Mutex<T>>);

impl<T: HasPath> PathPort<T> {
    fn with<R>(&self, work: impl FnOnce(&mut FakePath) -> R) -> R {
        let mut held = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(held.path())
    }
}

impl<T: HasPath> Dataplane for PathPort<T> {
    fn set_role(&mut self, word: RoleWord) -> PortResult<()> {
        self.with(|p| {
            if let Some(old) = p.tables.role
                && word.epoch < old.epoch
            {
                p.violations.push(format!("the epoch fell from {} to {} ({:?})", old.epoch, word.epoch, word.role));
            }
            p.tables.role = Some(word);
        });
        Ok(())
    }

    fn role(&mut self) -> PortResult<Option<RoleWord>> {
        Ok(self.with(|p| p.tables.role))
    }

    fn set_vips(&mut self, device: &str, vips: &[(Ipv4Addr, u8)]) -> PortResult<()> {
        self.with(|p| p.tables.vips.insert(p.device(device), vips.to_vec()));
        Ok(())
    }

    fn set_protected(&mut self, device: &str, flows: &[(Selector, Selector)]) -> PortResult<()> {
        self.with(|p| p.tables.protected.insert(p.device(device), flows.to_vec()));
        Ok(())
    }

    fn set_partner(&mut self, device: &str, partner: Option<Partner>) -> PortResult<()> {
        self.with(|p| {
            let at = p.device(device);
            match partner {
                Some(partner) => p.tables.partners.insert(at, partner),
                None => p.tables.partners.remove(&at),
            }
        });
        Ok(())
    }

    fn set_inbound(&mut self, spi: Spi, dst: IpAddr, floor: u64, esn: bool) -> PortResult<()> {
        self.with(|p| {
            let IpAddr::V4(v4) = dst else { return };
            let dst = gateway_common::layout::mapped(v4.into());
            let slot = spi.0 & p.sa_mask;
            match p.tables.inbound.get_mut(&slot) {
                Some(e) if e.spi == spi.0 => e.floor = e.floor.max(floor),
                Some(e) => p.violations.push(format!("{spi} takes the slot of {}", Spi(e.spi))),
                None => {
                    p.tables.inbound.insert(slot, InboundSa { spi: spi.0, state: state(esn), floor, dst, ..InboundSa::default() });
                }
            }
        });
        Ok(())
    }

    fn remove_inbound(&mut self, spi: Spi) -> PortResult<()> {
        self.with(|p| {
            let slot = spi.0 & p.sa_mask;
            if p.tables.inbound.get(&slot).is_some_and(|e| e.spi == spi.0) {
                p.tables.inbound.remove(&slot);
            }
        });
        Ok(())
    }

    fn set_outbound(&mut self, spi: Spi, dst: IpAddr, lo: u64, hi: u64, esn: bool) -> PortResult<()> {
        self.with(|p| {
            let IpAddr::V4(v4) = dst else { return };
            let mapped = gateway_common::layout::mapped(v4.into());
            let e = p.tables.outbound.entry((spi, dst)).or_insert(OutboundSa { spi: spi.0, dst: mapped, ..OutboundSa::default() });
            (e.lo, e.hi, e.state) = (lo, hi, state(esn));
        });
        Ok(())
    }

    fn remove_outbound(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()> {
        self.with(|p| p.tables.outbound.remove(&(spi, dst)));
        Ok(())
    }

    fn reasons(&mut self) -> PortResult<Vec<ReasonCount>> {
        Ok(self.with(|p| {
            let one = |program: Program, reason: &'static str, action: Action, index: u32| ReasonCount {
                program: program.name(),
                reason,
                drop: action == Action::Drop,
                packets: p.counted(program, index),
            };
            let classify = Classify::ALL.iter().map(|r| one(Program::Classify, r.name(), r.action(), *r as u32));
            let shunt = Shunt::ALL.iter().map(|r| one(Program::Shunt, r.name(), r.action(), *r as u32));
            let guard = Guard::ALL.iter().map(|r| one(Program::Guard, r.name(), r.action(), *r as u32));
            classify.chain(shunt).chain(guard).collect()
        }))
    }

    fn hints(&mut self, spi_in: Spi, spi_out: Spi, peer: IpAddr) -> PortResult<Counters> {
        Ok(self.with(|p| {
            let i = p.tables.inbound.get(&(spi_in.0 & p.sa_mask)).copied().filter(|e| e.spi == spi_in.0).unwrap_or_default();
            let o = p.tables.outbound.get(&(spi_out, peer)).copied().unwrap_or_default();
            Counters {
                seq_in: i.seen,
                seq_out: o.last,
                bytes_in: i.bytes,
                bytes_out: o.bytes,
                packets_in: i.packets,
                packets_out: o.packets,
            }
        }))
    }

    fn attached(&self) -> Vec<(String, &'static str)> {
        self.with(|p| p.devices.iter().map(|d| (d.clone(), "native")).collect())
    }
}

/// Epoch in the role word, zero before the first.
pub fn epoch_of(word: Option<RoleWord>) -> Epoch {
    word.map_or(Epoch(0), |w| w.epoch)
}
