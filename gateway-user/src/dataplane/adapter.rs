//! Loads, attaches and fills the programs.

use super::log::LogReader;
use super::tables::{InboundTable, OutboundTable, addr16};
use super::{NO_OBJECT, OBJECT, attach, bpffs, failed, protect, refused};
use crate::config::DataplaneConfig;
use crate::id::{Epoch, Spi};
use crate::ports::{Dataplane, Partner, PathRole, PortResult, ReasonCount, RoleWord};
use crate::sad::{Counters, Selector};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType, Xdp};
use aya::{Ebpf, EbpfLoader};
use gateway_common::abi::{
    ABI_MAGIC, ABI_VERSION, COUNTERS, DEVICE_OUTSIDE, DEVICE_PARTNER, DEVICE_SHUNT_CLASSIFIES, DEVICE_SLOTS, LARGEST_SA_MAX, MAP_COUNTERS,
    MAP_DEVICES, MAP_INBOUND, MAP_LOGS, MAP_META, MAP_OUTBOUND, MAP_OUTBOUND_INDEX, MAP_PROTECTED, MAP_ROLE, MAP_SETTINGS, MAP_VIPS,
    MAX_DEVICES, MAX_PROTECTED, MAX_VIPS, PINNED_MAPS, Program, SETTING_LOG, VIP_SLOTS, counter_index,
};
use gateway_common::classify::mac;
use gateway_common::layout::{
    self, Device, Meta, Protected, ProtectedKey, ROLE_ACTIVE, ROLE_ARMED, ROLE_DRAINING, ROLE_STANDBY, Settings, Table, Vip,
};
use gateway_common::reason::{self, Action};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A device and how it is attached.
struct Attached {
    name: String,
    ifindex: u32,
    outside: bool,
    mode: &'static str,
}

/// The loaded data path. Dropping it leaves programs attached and maps pinned; [`DataplaneAdapter::close_all`] does not.
pub struct DataplaneAdapter {
    pub(super) ebpf: Ebpf,
    /// `None` when nothing is pinned.
    dir: Option<bpffs::PinDir>,
    devices: Vec<Attached>,
    device_entries: Vec<Device>,
    vip_entries: Vec<Vip>,
    meta: Array<MapData, Meta>,
    role: Array<MapData, layout::RoleWord>,
    settings: Array<MapData, Settings>,
    vips_map: Array<MapData, Vip>,
    devices_map: Array<MapData, Device>,
    protected: LpmTrie<MapData, ProtectedKey, Protected>,
    counters: PerCpuArray<MapData, u64>,
    inbound: InboundTable,
    outbound: OutboundTable,
    adopted: bool,
    _log: Option<LogReader>,
}

impl DataplaneAdapter {
    /// Loads the programs and attaches them to `devices` (name, true for outside). Maps, links and filters of a predecessor
    /// with the same ABI and table size are taken over without a gap; others are replaced, program by program.
    pub fn open(config: &DataplaneConfig, devices: &[(String, bool)]) -> PortResult<Self> {
        check(config.sa_max, devices.len())?;
        let dir = bpffs::prepare(&config.pin_dir)?;
        let meta = adoptable(&dir, config.sa_max);
        let adopted = meta.is_some();
        if !adopted {
            for map in PINNED_MAPS {
                bpffs::unpin(&dir.join(map))?;
            }
        }
        // A restarted daemon of the same build finds its own programs attached: verifying and attaching them again would only cost the time in
        // which its partner's hold timer runs.
        let same_object = meta.is_some_and(|m| m.object == object_digest());
        let mut this = Self::load(Some(&dir), config.sa_max, config.log, !same_object)?;
        this.adopted = adopted;
        let before = this.read_tables()?;
        let known = |ifindex: u32| before.iter().find(|d| d.ifindex == ifindex);
        let mut intact = same_object;
        for (name, outside) in devices {
            // Where tc classifies, native mode is tried again.
            let attached = known(attach::ifindex(name)?).is_some_and(|d| !*outside || d.flags & DEVICE_SHUNT_CLASSIFIES == 0);
            intact &= attached && attach::intact(&dir, name, *outside) && config.xdp != crate::config::XdpMode::Generic;
        }
        if same_object && !intact {
            drop(this);
            this = Self::load(Some(&dir), config.sa_max, config.log, true)?;
            this.adopted = adopted;
            this.read_tables()?;
        }
        if !intact {
            this.write_meta(config.sa_max, 0)?;
        }
        let mut entries = Vec::new();
        for (name, outside) in devices {
            let ifindex = attach::ifindex(name)?;
            let old = before.iter().find(|d| d.ifindex == ifindex).copied().unwrap_or_default();
            entries.push(Device {
                ifindex,
                // Whether `shunt` classifies stays until the new XDP attachment is known.
                flags: old.flags & (DEVICE_PARTNER | DEVICE_SHUNT_CLASSIFIES) | if *outside { DEVICE_OUTSIDE } else { 0 },
                mac: mac(attach::hardware_address(name)?),
                ..old
            });
        }
        this.write_devices(entries)?;
        this.vip_entries.retain(|v| this.device_entries.iter().any(|d| d.ifindex == v.ifindex));
        this.write_vips()?;
        for (name, outside) in devices {
            let ifindex = attach::ifindex(name)?;
            if intact {
                let mode = if *outside { attach::NATIVE } else { attach::INSIDE };
                this.devices.push(Attached { name: name.clone(), ifindex, outside: *outside, mode });
                continue;
            }
            attach::tc(tc(&mut this.ebpf, Program::Guard)?, name, TcAttachType::Egress)?;
            attach::tc(tc(&mut this.ebpf, Program::Shunt)?, name, TcAttachType::Ingress)?;
            let mode = if *outside {
                attach::xdp(xdp(&mut this.ebpf)?, &dir, name, ifindex, config.xdp)?
            } else {
                attach::detach_xdp(&dir, name)?;
                attach::INSIDE
            };
            let classifies = mode == attach::GENERIC;
            this.change_device(ifindex, |d| {
                d.flags = d.flags & !DEVICE_SHUNT_CLASSIFIES | if classifies { DEVICE_SHUNT_CLASSIFIES } else { 0 };
            })?;
            this.devices.push(Attached { name: name.clone(), ifindex, outside: *outside, mode });
        }
        for gone in before.iter().filter(|d| !this.device_entries.iter().any(|e| e.ifindex == d.ifindex)) {
            if let Some(name) = attach::name(gone.ifindex) {
                attach::detach(&dir, &name)?;
            }
        }
        this.write_meta(config.sa_max, object_digest())?;
        this.dir = Some(dir);
        Ok(this)
    }

    fn write_meta(&mut self, sa_max: u32, object: u32) -> PortResult<()> {
        let made = Meta { magic: ABI_MAGIC, version: ABI_VERSION, sa_max, object };
        self.meta.set(0, made, 0).map_err(|e| failed("bpf map update", MAP_META, e))
    }

    /// Loads the programs without pinning or attaching anything, for [`DataplaneAdapter::run`]. `devices`: name for the other
    /// calls, index, MAC, true for outside.
    pub fn open_detached(sa_max: u32, log: bool, devices: &[(&str, u32, [u8; 6], bool)]) -> PortResult<Self> {
        check(sa_max, devices.len())?;
        let mut this = Self::load(None, sa_max, log, true)?;
        this.devices = devices
            .iter()
            .map(|&(name, ifindex, _, outside)| Attached { name: name.into(), ifindex, outside, mode: attach::INSIDE })
            .collect();
        let entries = devices
            .iter()
            .map(|&(_, ifindex, address, outside)| Device {
                ifindex,
                flags: if outside { DEVICE_OUTSIDE } else { 0 },
                mac: mac(address),
                ..Device::default()
            })
            .collect();
        this.write_devices(entries)?;
        Ok(this)
    }

    /// Makes `shunt` classify on a device, as on one without XDP.
    pub fn classify_in_shunt(&mut self, device: &str) -> PortResult<()> {
        let ifindex = self.device(device)?.ifindex;
        self.change_device(ifindex, |d| d.flags |= DEVICE_SHUNT_CLASSIFIES)
    }

    /// True when the maps of a predecessor were taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Detaches and unpins everything: traffic is no longer guarded.
    pub fn close_all(mut self) -> PortResult<()> {
        let Some(dir) = self.dir.take() else { return Ok(()) };
        let names: Vec<String> = self.devices.iter().map(|d| d.name.clone()).collect();
        drop(self);
        flush(&dir, &names)
    }

    /// Detaches and unpins what a predecessor left, without loading anything. `devices` are looked at besides those its maps name.
    pub fn flush(config: &DataplaneConfig, devices: &[(String, bool)]) -> PortResult<()> {
        let Some(dir) = bpffs::existing(&config.pin_dir) else { return Ok(()) };
        let mut names: Vec<String> = devices.iter().map(|(name, _)| name.clone()).collect();
        if let Ok(map) = MapData::from_pin(dir.join(MAP_DEVICES))
            && let Ok(map) = Array::<_, Device>::try_from(Map::Array(map))
        {
            names.extend(map.iter().filter_map(Result::ok).filter(|d| d.ifindex != 0).filter_map(|d| attach::name(d.ifindex)));
        }
        flush(&dir, &names)
    }

    fn load(dir: Option<&Path>, sa_max: u32, log: bool, programs: bool) -> PortResult<Self> {
        if OBJECT.is_empty() {
            return Err(refused("load", "eBPF object", NO_OBJECT));
        }
        let mut loader = EbpfLoader::new();
        for map in [MAP_INBOUND, MAP_OUTBOUND, MAP_OUTBOUND_INDEX] {
            loader.map_max_entries(map, sa_max);
        }
        if let Some(dir) = dir {
            for map in PINNED_MAPS {
                loader.map_pin_path(map, dir.join(map));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| failed("load", "eBPF object", e))?;
        // The programs' code names the maps by descriptor, so they are loaded while all of them are open.
        if programs {
            xdp(&mut ebpf)?.load().map_err(|e| failed("load program", Program::Classify.name(), e))?;
            for program in [Program::Shunt, Program::Guard] {
                tc(&mut ebpf, program)?.load().map_err(|e| failed("load program", program.name(), e))?;
            }
        }
        let name = |what: &'static str| move |e| failed("open map", what, e);
        let meta = Array::<_, Meta>::try_from(take(&mut ebpf, MAP_META)?).map_err(name(MAP_META))?;
        let role = Array::try_from(take(&mut ebpf, MAP_ROLE)?).map_err(name(MAP_ROLE))?;
        let mut settings = Array::<_, Settings>::try_from(take(&mut ebpf, MAP_SETTINGS)?).map_err(name(MAP_SETTINGS))?;
        let vips_map = Array::try_from(take(&mut ebpf, MAP_VIPS)?).map_err(name(MAP_VIPS))?;
        let devices_map = Array::try_from(take(&mut ebpf, MAP_DEVICES)?).map_err(name(MAP_DEVICES))?;
        let protected = LpmTrie::try_from(take(&mut ebpf, MAP_PROTECTED)?).map_err(name(MAP_PROTECTED))?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, MAP_COUNTERS)?).map_err(name(MAP_COUNTERS))?;
        let inbound = InboundTable::new(take(&mut ebpf, MAP_INBOUND)?, sa_max)?;
        let outbound = OutboundTable::new(take(&mut ebpf, MAP_OUTBOUND_INDEX)?, take(&mut ebpf, MAP_OUTBOUND)?, sa_max)?;
        let log = if log { Some(LogReader::start(&mut ebpf)?) } else { take(&mut ebpf, MAP_LOGS).map(|_| None)? };

        let old = settings.get(&0, 0).map_err(|e| failed("bpf map lookup", MAP_SETTINGS, e))?;
        let flags = if log.is_some() { SETTING_LOG } else { 0 };
        let new = Settings { flags, sa_mask: sa_max - 1, ..old };
        settings.set(0, new, 0).map_err(|e| failed("bpf map update", MAP_SETTINGS, e))?;

        Ok(Self {
            ebpf,
            meta,
            dir: None,
            devices: Vec::new(),
            device_entries: Vec::new(),
            vip_entries: Vec::new(),
            role,
            settings,
            vips_map,
            devices_map,
            protected,
            counters,
            inbound,
            outbound,
            adopted: false,
            _log: log,
        })
    }

    fn settings(&self) -> PortResult<Settings> {
        self.settings.get(&0, 0).map_err(|e| failed("bpf map lookup", MAP_SETTINGS, e))
    }

    /// Takes the tables of a predecessor over; answers its devices.
    fn read_tables(&mut self) -> PortResult<Vec<Device>> {
        let settings = self.settings()?;
        let mut devices = Vec::new();
        for slot in 0..DEVICE_SLOTS {
            let index = (settings.devices.bank & 1) * DEVICE_SLOTS + slot;
            let d = self.devices_map.get(&index, 0).map_err(|e| failed("bpf map lookup", MAP_DEVICES, e))?;
            if d.ifindex != 0 {
                devices.push(d);
            }
        }
        self.vip_entries.clear();
        for slot in 0..VIP_SLOTS {
            let index = (settings.vips.bank & 1) * VIP_SLOTS + slot;
            let v = self.vips_map.get(&index, 0).map_err(|e| failed("bpf map lookup", MAP_VIPS, e))?;
            if v.ifindex != 0 {
                self.vip_entries.push(v);
            }
        }
        Ok(devices)
    }

    /// Fills the other bank with `entries`, then switches.
    fn write_devices(&mut self, entries: Vec<Device>) -> PortResult<()> {
        let keys: Vec<u32> = entries.iter().map(|d| d.ifindex).collect();
        let mut settings = self.settings()?;
        let table = next_table(settings.devices, &keys, DEVICE_SLOTS, MAP_DEVICES)?;
        let mut bank = vec![Device::default(); DEVICE_SLOTS as usize];
        for d in &entries {
            bank[layout::slot(d.ifindex, table.multiplier, DEVICE_SLOTS) as usize] = *d;
        }
        for (i, d) in (table.bank * DEVICE_SLOTS..).zip(bank) {
            self.devices_map.set(i, d, 0).map_err(|e| failed("bpf map update", MAP_DEVICES, e))?;
        }
        settings.devices = table;
        self.settings.set(0, settings, 0).map_err(|e| failed("bpf map update", MAP_SETTINGS, e))?;
        self.device_entries = entries;
        Ok(())
    }

    fn write_vips(&mut self) -> PortResult<()> {
        let keys: Vec<u32> = self.vip_entries.iter().map(|v| layout::unmapped(&v.addr)).collect();
        let mut settings = self.settings()?;
        let table = next_table(settings.vips, &keys, VIP_SLOTS, MAP_VIPS)?;
        let mut bank = vec![Vip::default(); VIP_SLOTS as usize];
        for (v, key) in self.vip_entries.iter().zip(keys) {
            bank[layout::slot(key, table.multiplier, VIP_SLOTS) as usize] = *v;
        }
        for (i, v) in (table.bank * VIP_SLOTS..).zip(bank) {
            self.vips_map.set(i, v, 0).map_err(|e| failed("bpf map update", MAP_VIPS, e))?;
        }
        settings.vips = table;
        self.settings.set(0, settings, 0).map_err(|e| failed("bpf map update", MAP_SETTINGS, e))
    }

    fn device(&self, name: &str) -> PortResult<&Attached> {
        self.devices.iter().find(|d| d.name == name).ok_or_else(|| refused("data path", name, "not one of its devices"))
    }

    fn change_device(&mut self, ifindex: u32, change: impl Fn(&mut Device)) -> PortResult<()> {
        let mut entries = self.device_entries.clone();
        for d in entries.iter_mut().filter(|d| d.ifindex == ifindex) {
            change(d);
        }
        if entries == self.device_entries { Ok(()) } else { self.write_devices(entries) }
    }
}

fn xdp(ebpf: &mut Ebpf) -> PortResult<&mut Xdp> {
    let name = Program::Classify.name();
    let program = ebpf.program_mut(name).ok_or_else(|| refused("load program", name, "not in the object"))?;
    program.try_into().map_err(|e| failed("load program", name, e))
}

fn tc(ebpf: &mut Ebpf, program: Program) -> PortResult<&mut SchedClassifier> {
    let name = program.name();
    let program = ebpf.program_mut(name).ok_or_else(|| refused("load program", name, "not in the object"))?;
    program.try_into().map_err(|e| failed("load program", name, e))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> PortResult<Map> {
    ebpf.take_map(name).ok_or_else(|| refused("open map", name, "not in the object"))
}

fn check(sa_max: u32, devices: usize) -> PortResult<()> {
    if !sa_max.is_power_of_two() || !(2..=LARGEST_SA_MAX).contains(&sa_max) {
        return Err(refused("dataplane.sa_max", sa_max.to_string(), format!("a power of two, 2 to {LARGEST_SA_MAX}")));
    }
    if devices > MAX_DEVICES {
        return Err(refused("data path", format!("{devices} devices"), format!("at most {MAX_DEVICES}")));
    }
    Ok(())
}

/// Who made the pins in `dir`, when they are ours and of the layout we would make.
fn adoptable(dir: &Path, sa_max: u32) -> Option<Meta> {
    let read = || {
        let map = Array::<_, Meta>::try_from(Map::Array(MapData::from_pin(dir.join(MAP_META)).ok()?)).ok()?;
        map.get(&0, 0).ok()
    };
    let meta = read()?;
    let ours = Meta { magic: ABI_MAGIC, version: ABI_VERSION, sa_max, object: meta.object };
    if meta != ours {
        tracing::warn!(found = ?meta, expected = ?ours, "pinned maps of another layout are replaced: counters start again");
        return None;
    }
    PINNED_MAPS.iter().all(|map| dir.join(map).exists()).then_some(meta)
}

/// First bytes of the embedded object's SHA-256; never 0.
fn object_digest() -> u32 {
    let d = ring::digest::digest(&ring::digest::SHA256, OBJECT);
    let b = d.as_ref();
    u32::from_be_bytes([b[0], b[1], b[2], b[3]]).max(1)
}

fn flush(dir: &Path, devices: &[String]) -> PortResult<()> {
    for device in devices {
        attach::detach(dir, device)?;
    }
    for map in PINNED_MAPS {
        bpffs::unpin(&dir.join(map))?;
    }
    Ok(())
}

fn next_table(now: Table, keys: &[u32], slots: u32, name: &'static str) -> PortResult<Table> {
    let multiplier = layout::multiplier(keys, slots).ok_or_else(|| refused("table", name, "no collision-free layout for these keys"))?;
    Ok(Table { multiplier, bank: (now.bank ^ 1) & 1 })
}

fn role_number(role: PathRole) -> u32 {
    match role {
        PathRole::Standby => ROLE_STANDBY,
        PathRole::Armed => ROLE_ARMED,
        PathRole::Active => ROLE_ACTIVE,
        PathRole::Draining => ROLE_DRAINING,
    }
}

impl Dataplane for DataplaneAdapter {
    fn set_role(&mut self, word: RoleWord) -> PortResult<()> {
        let io = |e| failed("bpf map update", MAP_ROLE, e);
        let new = layout::RoleWord { role: role_number(word.role), reserved: 0, epoch: word.epoch.0, lease_until_ns: word.lease_until_ns };
        let old = self.role.get(&0, 0).map_err(|e| failed("bpf map lookup", MAP_ROLE, e))?;
        if new.role == ROLE_ACTIVE && old.role != ROLE_ACTIVE {
            // The kernel copies word by word: no program may see the new role with an old, longer lease.
            self.role.set(0, layout::RoleWord { role: old.role, ..new }, 0).map_err(io)?;
        }
        self.role.set(0, new, 0).map_err(io)
    }

    fn role(&mut self) -> PortResult<Option<RoleWord>> {
        let word = self.role.get(&0, 0).map_err(|e| failed("bpf map lookup", MAP_ROLE, e))?;
        let role = match word.role {
            ROLE_STANDBY => PathRole::Standby,
            ROLE_ARMED => PathRole::Armed,
            ROLE_ACTIVE => PathRole::Active,
            ROLE_DRAINING => PathRole::Draining,
            _ => return Ok(None),
        };
        Ok(Some(RoleWord { role, epoch: Epoch(word.epoch), lease_until_ns: word.lease_until_ns }))
    }

    fn set_vips(&mut self, device: &str, vips: &[(Ipv4Addr, u8)]) -> PortResult<()> {
        let ifindex = self.device(device)?.ifindex;
        let mut entries: Vec<Vip> = self.vip_entries.iter().filter(|v| v.ifindex != ifindex).copied().collect();
        entries.extend(vips.iter().map(|&(addr, group)| Vip { ifindex, group: group.into(), addr: addr16(IpAddr::V4(addr)) }));
        if entries.len() > MAX_VIPS {
            return Err(refused("set_vips", device, format!("at most {MAX_VIPS} virtual addresses")));
        }
        let mut groups = [0_u64; 4];
        for &(_, group) in vips {
            groups[usize::from(group >> 6)] |= 1 << (group & 63);
        }
        self.vip_entries = entries;
        self.write_vips()?;
        self.change_device(ifindex, |d| d.groups = groups)
    }

    fn set_protected(&mut self, device: &str, flows: &[(Selector, Selector)]) -> PortResult<()> {
        let ifindex = self.device(device)?.ifindex;
        let entries = protect::compile(ifindex, flows, MAX_PROTECTED as usize / MAX_DEVICES)
            .map_err(|s| refused("set_protected", device, format!("selector {s:?} is not IPv4")))?;
        // New ones first: there is no moment in which a flow that stays protected is not.
        for (bits, key, value) in &entries {
            self.protected.insert(&Key::new(*bits, *key), value, 0).map_err(|e| failed("bpf map update", MAP_PROTECTED, e))?;
        }
        let keep: std::collections::HashSet<(u32, ProtectedKey)> = entries.iter().map(|(bits, key, _)| (*bits, *key)).collect();
        let mut stale = Vec::new();
        for key in self.protected.keys() {
            let key = key.map_err(|e| failed("bpf map lookup", MAP_PROTECTED, e))?;
            let (bits, data) = (key.prefix_len(), key.data());
            if data.ifindex == ifindex.to_ne_bytes() && !keep.contains(&(bits, data)) {
                stale.push(key);
            }
        }
        for key in stale {
            self.protected.remove(&key).map_err(|e| failed("bpf map delete", MAP_PROTECTED, e))?;
        }
        Ok(())
    }

    fn set_partner(&mut self, device: &str, partner: Option<Partner>) -> PortResult<()> {
        let ifindex = self.device(device)?.ifindex;
        // The device's own address may have been changed since.
        let own = if self.dir.is_some() { Some(mac(attach::hardware_address(device)?)) } else { None };
        self.change_device(ifindex, |d| {
            d.mac = own.unwrap_or(d.mac);
            d.partner = partner.map_or(0, |p| mac(p.mac));
            if partner.is_some() {
                d.flags |= DEVICE_PARTNER;
            } else {
                d.flags &= !DEVICE_PARTNER;
            }
        })
    }

    fn set_inbound(&mut self, spi: Spi, dst: IpAddr, floor: u64, esn: bool) -> PortResult<()> {
        self.inbound.set(spi.0, dst, floor, esn)
    }

    fn remove_inbound(&mut self, spi: Spi) -> PortResult<()> {
        self.inbound.remove(spi.0);
        Ok(())
    }

    fn set_outbound(&mut self, spi: Spi, dst: IpAddr, lo: u64, hi: u64, esn: bool) -> PortResult<()> {
        self.outbound.set(spi.0, dst, lo, hi, esn)
    }

    fn remove_outbound(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()> {
        self.outbound.remove(spi.0, dst)
    }

    fn reasons(&mut self) -> PortResult<Vec<ReasonCount>> {
        let mut all = Vec::with_capacity(COUNTERS as usize);
        for program in Program::ALL {
            for index in 0.. {
                let Some((name, action)) = reason::describe(program, index) else { break };
                let per_cpu =
                    self.counters.get(&counter_index(program, index), 0).map_err(|e| failed("bpf map lookup", MAP_COUNTERS, e))?;
                all.push(ReasonCount {
                    program: program.name(),
                    reason: name,
                    drop: action == Action::Drop,
                    packets: per_cpu.iter().sum(),
                });
            }
        }
        Ok(all)
    }

    fn hints(&mut self, spi_in: Spi, spi_out: Spi, peer: IpAddr) -> PortResult<Counters> {
        let incoming = self.inbound.counted(spi_in.0).unwrap_or_default();
        let outgoing = self.outbound.counted(spi_out.0, peer).unwrap_or_default();
        Ok(Counters {
            seq_in: incoming.seq,
            seq_out: outgoing.seq,
            bytes_in: incoming.bytes,
            bytes_out: outgoing.bytes,
            packets_in: incoming.packets,
            packets_out: outgoing.packets,
        })
    }

    fn attached(&self) -> Vec<(String, &'static str)> {
        self.devices.iter().map(|d| (d.name.clone(), d.mode)).collect()
    }
}

impl std::fmt::Debug for DataplaneAdapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices: Vec<_> = self.devices.iter().map(|d| (&d.name, d.outside, d.mode)).collect();
        f.debug_struct("DataplaneAdapter").field("dir", &self.dir).field("devices", &devices).finish_non_exhaustive()
    }
}
