//! A simulated gateway machine: two devices, neighbours, virtual addresses, forwarding, XFRM, data path. It lives on when the daemon dies.

use super::arp::{self, Neighbours};
use super::clock::{Ns, Time};
use super::dice::Dice;
use super::frame::{self, ALL_ROUTERS, ALL_ROUTERS_MAC, Arp, BROADCAST, Ip, Mac};
use super::kernel::{FakeKernel, Outbound};
use super::path::{FakePath, HasPath, Ingress, PathPort};
use super::plan::{self, INSIDE, OUTSIDE, Setup, Side};
use super::xfrm_port::{HasKernel, XfrmPort};
use gateway_common::verdict::RoleNow;
use gateway_user::daemon::core::Ports;
use gateway_user::hsrp::virtual_mac;
use gateway_user::ike::Transmit;
use gateway_user::ports::{LinkState, Links, PortError, PortResult, RoleWord};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One Ethernet device.
struct Device {
    name: &'static str,
    mac: Mac,
    address: Ipv4Addr,
    carrier: bool,
    neighbours: Neighbours,
    groups: BTreeSet<u8>,
}

/// What a packet became for a process on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// HSRP.
    Hsrp {
        /// Device.
        device: usize,
        /// Sender.
        source: Ipv4Addr,
        /// Hops left.
        ttl: u8,
        /// Destination.
        dst: Ipv4Addr,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// IKE.
    Ike {
        /// Sender.
        from: SocketAddr,
        /// Our end.
        to: SocketAddr,
        /// UDP payload.
        bytes: Vec<u8>,
    },
}

/// A frame that left, and what the node was at that moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Device.
    pub device: usize,
    /// The frame.
    pub frame: Vec<u8>,
    /// Role in force, by the role word and the clock.
    pub role: RoleNow,
    /// The role word.
    pub word: Option<RoleWord>,
    /// A stray that was sent on to the partner.
    pub redirected: bool,
}

/// The machine.
pub struct Machine {
    /// `a` or `b`.
    pub name: &'static str,
    time: Time,
    devices: Vec<Device>,
    vips: BTreeSet<(usize, u8, Ipv4Addr)>,
    /// XFRM.
    pub kernel: FakeKernel,
    /// Data path.
    pub path: FakePath,
    tx: Vec<Sent>,
    deliveries: Vec<Delivery>,
    /// Packets accepted by XFRM: SPI and number, in order, for the checks.
    pub verified: Vec<(u32, u32)>,
    /// Drops of the stack by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Calls on links that fail, of ten thousand.
    pub fail_per_10k: u32,
    dice: Dice,
    /// What must not happen and did.
    pub violations: Vec<String>,
}

/// A machine and its hands.
pub type Shared = Arc<Mutex<Machine>>;

/// Locks; a panic in a test ends the world anyway.
pub fn lock(machine: &Shared) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HasKernel for Machine {
    fn kernel(&mut self) -> &mut FakeKernel {
        &mut self.kernel
    }
}

impl HasPath for Machine {
    fn path(&mut self) -> &mut FakePath {
        &mut self.path
    }
}

impl Machine {
    /// A machine that was just switched on.
    pub fn new(side: Side, setup: &Setup, time: Time, monotonic_offset: Ns, mut dice: Dice, sa_max: u32) -> Self {
        let devices: Vec<Device> = [INSIDE, OUTSIDE]
            .into_iter()
            .map(|d| Device {
                name: plan::DEVICES[d],
                mac: plan::mac(side, d),
                address: plan::address(side, d),
                carrier: true,
                neighbours: Neighbours::default(),
                groups: BTreeSet::new(),
            })
            .collect();
        let list: Vec<(&str, Mac, bool)> = devices.iter().enumerate().map(|(i, d)| (d.name, d.mac, i == OUTSIDE)).collect();
        let mut path = FakePath::new(time.clone(), monotonic_offset, &list, sa_max);
        path.knobs = setup.path_knobs;
        let mut kernel = FakeKernel::new(time.clone(), Dice::new(dice.range(0..=u64::MAX - 1), 1));
        kernel.knobs = setup.kernel_knobs;
        Self {
            name: side.name(),
            time,
            devices,
            vips: BTreeSet::new(),
            kernel,
            path,
            tx: Vec::new(),
            deliveries: Vec::new(),
            verified: Vec::new(),
            drops: BTreeMap::new(),
            fail_per_10k: 0,
            dice,
            violations: Vec::new(),
        }
    }

    /// The product's ports on this machine.
    pub fn ports(shared: &Shared) -> Ports {
        Ports {
            xfrm: Box::new(XfrmPort(shared.clone())),
            links: Box::new(LinkPort(shared.clone())),
            path: Box::new(PathPort(shared.clone())),
        }
    }

    /// Frames that left, in order.
    pub fn take_tx(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.tx)
    }

    /// What arrived for processes.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// True when the address is on this machine.
    pub fn is_local(&self, addr: Ipv4Addr) -> bool {
        self.devices.iter().any(|d| d.address == addr) || self.vips.iter().any(|v| v.2 == addr)
    }

    /// Virtual addresses on this machine.
    pub fn vips(&self) -> usize {
        self.vips.len()
    }

    /// Cable in or out. True when that is a change.
    pub fn set_carrier(&mut self, device: usize, on: bool) -> bool {
        let d = &mut self.devices[device];
        if !on {
            d.neighbours.clear();
        }
        std::mem::replace(&mut d.carrier, on) != on
    }

    /// State of the cable.
    pub fn carrier(&self, device: usize) -> bool {
        self.devices[device].carrier
    }

    fn drop(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    fn put_on_wire(&mut self, device: usize, frame: Vec<u8>, redirected: bool) {
        let (role, word) = (self.path.true_role(), self.path.role_word());
        self.tx.push(Sent { device, frame, role, word, redirected });
    }

    /// tc egress and the wire.
    fn emit(&mut self, device: usize, frame: Vec<u8>) {
        if !self.devices[device].carrier {
            return self.drop("no_carrier");
        }
        if self.path.egress(device, &frame) {
            self.put_on_wire(device, frame, false);
        }
    }

    /// A frame arrived.
    pub fn receive(&mut self, device: usize, frame: &[u8]) {
        let d = &self.devices[device];
        if !d.carrier {
            return;
        }
        let dst = frame::dst_mac(frame);
        let ours = dst == d.mac || dst[0] & 1 == 1 || d.groups.iter().any(|g| virtual_mac(*g) == dst);
        if !ours {
            return;
        }
        match self.path.ingress(device, frame) {
            Ingress::Drop => {}
            Ingress::Redirect(to) => {
                let mut again = frame.to_vec();
                frame::readdress(&mut again, self.devices[device].mac, to);
                if self.devices[device].carrier {
                    // Marked: the guard lets it out.
                    self.put_on_wire(device, again, true);
                }
            }
            Ingress::Pass => self.stack(device, frame),
        }
    }

    fn stack(&mut self, device: usize, frame: &[u8]) {
        if let Some(arp) = frame::arp_of(frame) {
            return self.arp(device, &arp);
        }
        let Some(ip) = frame::ip_of(frame) else { return };
        if ip.dst.is_multicast() {
            if ip.dst == ALL_ROUTERS {
                self.hsrp_in(device, &ip);
            }
            return;
        }
        if self.is_local(ip.dst) {
            return self.local(device, &ip);
        }
        if frame::dst_mac(frame)[0] & 1 == 1 {
            return self.drop("broadcast_not_local");
        }
        if frame::esp_or_natt(&ip).is_some() && plan::VIPS.contains(&ip.dst) {
            self.violations.push(format!(
                "{}: ESP for {} passed the data path without the address being here: the kernel would route it out",
                self.name, ip.dst
            ));
            return;
        }
        if self.kernel.refuses_clear(&ip) {
            return;
        }
        let packet = ip.packet.to_vec();
        self.forward(&packet);
    }

    fn hsrp_in(&mut self, device: usize, ip: &Ip<'_>) {
        if let Some((_, 1985, payload)) = frame::udp_of(ip) {
            let (source, ttl, dst) = (ip.src, ip.ttl, ip.dst);
            self.deliveries.push(Delivery::Hsrp { device, source, ttl, dst, payload: payload.to_vec() });
        }
    }

    fn local(&mut self, device: usize, ip: &Ip<'_>) {
        if let Some((esp, _)) = frame::esp_or_natt(ip) {
            match self.kernel.input(ip) {
                Ok(inner) => {
                    self.verified.push((esp.spi, esp.seq));
                    self.forward(&inner);
                }
                Err(_) => self.drop("esp_refused"),
            }
            return;
        }
        match frame::udp_of(ip) {
            Some((_, 4500, [0xff])) => self.drop("keepalive"),
            Some((sport, dport @ (500 | 4500), payload)) => {
                let from = SocketAddr::new(IpAddr::V4(ip.src), sport);
                let to = SocketAddr::new(IpAddr::V4(ip.dst), dport);
                self.deliveries.push(Delivery::Ike { from, to, bytes: payload.to_vec() });
            }
            Some((_, 1985, _)) => self.hsrp_in(device, ip),
            _ => self.drop("local_other"),
        }
    }

    fn arp(&mut self, device: usize, arp: &Arp) {
        let now = self.time.now();
        let d = &mut self.devices[device];
        let ours = arp.target == d.address;
        let waiting = d.neighbours.heard(arp, ours && arp.ip != d.address, now);
        for packet in waiting {
            let frame = frame::ip_frame(self.devices[device].mac, arp.mac, &packet);
            self.emit(device, frame);
        }
        if arp.reply || arp.ip == arp.target {
            return;
        }
        if ours {
            let reply = arp::reply(self.devices[device].mac, arp.target, arp);
            self.emit(device, reply);
        } else if let Some((_, group, vip)) = self.vips.iter().find(|v| v.0 == device && v.2 == arp.target).copied() {
            self.emit(device, arp::reply(virtual_mac(group), vip, arp));
        }
    }

    fn forward(&mut self, packet: &[u8]) {
        let mut packet = packet.to_vec();
        if packet[8] <= 1 {
            return self.drop("ttl");
        }
        packet[8] -= 1;
        let Some(ip) = frame::ip(&packet) else { return };
        let (devices, vips) = (&self.devices, &self.vips);
        let local = |a: Ipv4Addr| devices.iter().any(|d| d.address == a) || vips.iter().any(|v| v.2 == a);
        match self.kernel.output(&ip, local) {
            Outbound::Clear => self.route(&packet),
            Outbound::Protected(outer) => self.route(&outer),
            Outbound::Drop(reason) => self.drop(reason),
        }
    }

    fn route(&mut self, packet: &[u8]) {
        let Some(ip) = frame::ip(packet) else { return };
        let Some((device, hop)) = plan::route(ip.dst) else { return self.drop("no_route") };
        let now = self.time.now();
        let found = self.devices[device].neighbours.resolve(hop, packet, now);
        let (mac, address) = (self.devices[device].mac, self.devices[device].address);
        if found.ask {
            self.emit(device, arp::request(mac, address, hop));
        }
        if let Some(to) = found.mac {
            let frame = frame::ip_frame(mac, to, packet);
            self.emit(device, frame);
        }
    }

    /// The daemon sends HSRP.
    pub fn send_hsrp(&mut self, device: usize, payload: &[u8], source: Mac) {
        let packet = frame::ip_packet(self.devices[device].address, ALL_ROUTERS, frame::UDP, 1, &frame::udp(1985, 1985, payload));
        let frame = frame::ip_frame(source, ALL_ROUTERS_MAC, &packet);
        self.emit(device, frame);
    }

    /// The daemon sends IKE.
    pub fn send_ike(&mut self, t: &Transmit) {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (t.from.ip(), t.to.ip()) else { return };
        if !self.is_local(src) {
            return self.drop("ike_source_not_local");
        }
        let packet = frame::ip_packet(src, dst, frame::UDP, 64, &frame::udp(t.from.port(), t.to.port(), &t.payload));
        self.route(&packet);
    }
}

/// The links port.
struct LinkPort(Shared);

impl LinkPort {
    fn with<R>(&self, call: &'static str, device: &str, work: impl FnOnce(&mut Machine, usize) -> R) -> PortResult<R> {
        let mut m = lock(&self.0);
        let error = |source| PortError { call, object: device.to_owned(), source };
        let rate = m.fail_per_10k;
        if m.dice.chance(rate) {
            return Err(error(std::io::Error::from_raw_os_error(libc::ENOBUFS)));
        }
        let at = m.devices.iter().position(|d| d.name == device).ok_or_else(|| error(std::io::Error::from_raw_os_error(libc::ENODEV)))?;
        Ok(work(&mut m, at))
    }
}

impl Links for LinkPort {
    fn prepare_vip(&mut self, device: &str, group: u8) -> PortResult<()> {
        self.with("RTM_NEWLINK", device, |m, d| {
            m.devices[d].groups.insert(group);
        })
    }

    fn add_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()> {
        self.with("RTM_NEWADDR", device, |m, d| {
            if !m.devices[d].groups.contains(&group) {
                m.violations.push(format!("{}: VIP {vip} without a macvlan", m.name));
            }
            m.vips.insert((d, group, vip));
        })
    }

    fn remove_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()> {
        self.with("RTM_DELADDR", device, |m, d| {
            m.vips.remove(&(d, group, vip));
        })
    }

    fn has_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<bool> {
        self.with("RTM_GETADDR", device, |m, d| m.vips.contains(&(d, group, vip)))
    }

    fn gratuitous_arp(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()> {
        self.with("sendto", device, |m, d| {
            let mac = virtual_mac(group);
            for _ in 0..2 {
                for reply in [false, true] {
                    let arp = Arp { reply, mac, ip: vip, target: vip };
                    let target = if reply { BROADCAST } else { [0; 6] };
                    m.emit(d, frame::arp_frame(mac, BROADCAST, &arp, target));
                }
            }
        })
    }

    fn link(&mut self, device: &str) -> PortResult<LinkState> {
        self.with("RTM_GETLINK", device, |m, d| LinkState {
            ifindex: d as u32 + 2,
            mac: m.devices[d].mac,
            up: m.devices[d].carrier,
            mtu: 1500,
        })
    }
}
