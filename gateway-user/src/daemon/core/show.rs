//! The core's state as the operator sees it.

use super::{Core, Pair};
use crate::config::{Config, encr_word, integ_word};
use crate::daemon::metrics::{Metrics, Sample};
use crate::daemon::views::{
    DatapathView, FlowView, HaStatus, IpsecHaView, IsakmpHaView, IsakmpSaView, IsakmpSspView, Router, SaView, SspClientView, SspGroupRow,
    SspPacketView, SspPeerView, SspRedundancyView, SspView, StandbyView, StateSource, TakeoverView, VersionView,
};
use crate::ha::NodeState;
use crate::hsrp;
use crate::id::{IkeVersion, Spi};
use crate::sad::ChildStage;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, UNIX_EPOCH};

/// UDP ports of IKE, without a NAT and with one.
const IKE_PORTS: (u16, u16) = (500, 4500);

/// The core at one moment, for `show`.
pub struct CoreView<'a> {
    core: &'a Core,
    now: Instant,
    datapath: DatapathView,
    /// MTU by device.
    mtus: Vec<(String, u32)>,
    /// Packets that each SA (SPI and destination) refused.
    errors: HashMap<(Spi, IpAddr), u64>,
}

fn transform(p: &Pair) -> String {
    let encr = encr_word(p.child.encr);
    p.child.integ.map_or_else(|| encr.to_owned(), |i| format!("{encr} {}", integ_word(i)))
}

impl Core {
    /// What `show` reads; asks the programs for their counters.
    pub fn view(&mut self, now: Instant) -> CoreView<'_> {
        let reasons = self.reasons();
        let (role, epoch) = self.role;
        let lease_left_ms = self.lease_until.map(|at| at.saturating_duration_since(now).as_millis() as u64);
        let datapath = DatapathView { role, epoch, lease_left_ms, attached: self.ports.path.attached(), reasons };
        CoreView { core: self, now, datapath, mtus: Vec::new(), errors: HashMap::new() }
    }

    /// [`Self::view`] with what only the kernel knows of SAs and devices.
    pub(super) fn view_sas(&mut self, now: Instant) -> CoreView<'_> {
        let mut mtus = Vec::new();
        for device in self.config.interfaces.iter().filter(|i| i.crypto_map.is_some()).map(|i| i.device.clone()).collect::<Vec<_>>() {
            match self.ports.links.link(&device) {
                Ok(l) => mtus.push((device, l.mtu)),
                Err(e) => self.port_error(&e),
            }
        }
        let mut errors = HashMap::new();
        match self.ports.xfrm.dump() {
            Ok(dump) => errors.extend(dump.iter().map(|sa| ((sa.spi, sa.dst), sa.errors()))),
            Err(e) => self.port_error(&e),
        }
        CoreView { mtus, errors, ..self.view(now) }
    }
}

impl Core {
    /// Brings the metrics page up to date.
    pub fn export_metrics(&mut self, metrics: &Metrics) {
        let now = self.clock.now();
        let started = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let uptime = now.saturating_duration_since(self.started).as_secs_f64();
        let view = self.view(now);
        let status = view.status();
        let datapath = view.datapath.clone();
        let active = status == HaStatus::Active;
        let split = |n: u64| if active { (n, 0) } else { (0, n) };
        let session = self.live.and_then(|id| self.conns.get(&id)).map(|c| c.session.stats());
        let differing = self.partner_digests.as_ref().map_or(0, |theirs| {
            let view = crate::daemon::views::DigestView::compare(&self.config.digests, Some(theirs));
            view.items.iter().filter(|i| !i.equal).count() as u64
        });
        let ike = self.engine.view(now);
        metrics.update(&Sample {
            version: env!("CARGO_PKG_VERSION"),
            started_unix: started - uptime,
            role: Some(status),
            epoch: self.node.epoch().0,
            ready: active || self.node.ready(),
            config_differing: differing,
            isakmp_sas: [IkeVersion::V1, IkeVersion::V2].map(|version| split(ike.iter().filter(|s| s.version == version).count() as u64)),
            sas: split(self.pairs.len() as u64),
            ssp_connected: self.live.is_some(),
            ssp_lag_packets: self.pairs.values().map(|p| p.counters.seq_in.saturating_sub(p.mirrored.seq_in)).max().unwrap_or(0),
            ssp_lag_seconds: self
                .pairs
                .values()
                .filter(|p| p.dirty)
                .filter_map(|p| p.mirrored_at)
                .map(|at| now.saturating_duration_since(at).as_secs_f64())
                .fold(0.0, f64::max),
            last_takeover_seconds: self.takeovers.back().and_then(|t| t.total_ms).map(|ms| ms / 1000.0),
            ssp_messages: session.map_or((0, 0), |s| (s.frames_sent, s.frames_received)),
            ssp_bytes: session.map_or((0, 0), |s| (s.bytes_sent, s.bytes_received)),
            ike_messages: (self.stats.ike_sent, self.stats.ike_received),
            ssp_refused: self.stats.records_refused.iter().map(|(k, v)| (*k, *v)).collect(),
            ike_refused: self.stats.ike_refused.iter().map(|(k, v)| (*k, *v)).collect(),
            hsrp_refused: self.stats.hsrp_refused.iter().map(|(k, v)| (*k, *v)).collect(),
            takeovers: self.stats.takeovers.iter().map(|(k, v)| (*k, *v)).collect(),
            xfrm_errors: self.stats.port_errors.iter().map(|(k, v)| (*k, *v)).collect(),
            lease_stalls: self.stats.lease_stalls,
            queue_drops: Vec::new(),
            datapath: Some(datapath),
        });
    }
}

impl CoreView<'_> {
    fn status(&self) -> HaStatus {
        match self.core.node.state() {
            NodeState::Init => HaStatus::Init,
            NodeState::Active | NodeState::Adopting => HaStatus::Active,
            NodeState::Standby | NodeState::Armed | NodeState::Draining => HaStatus::Standby,
        }
    }

    fn since(&self) -> i64 {
        self.core.role_since.1.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
    }

    fn device_towards(&self, address: IpAddr) -> String {
        self.core
            .config
            .interfaces
            .iter()
            .find(|i| super::partner::in_subnet(address, i.address, i.prefix))
            .map_or_else(|| "-".to_owned(), |i| i.device.clone())
    }

    /// VIPs that a crypto map uses, with their devices.
    fn vips(&self) -> Vec<(String, IpAddr)> {
        let mut out: Vec<(String, IpAddr)> = Vec::new();
        for i in self.core.config.interfaces.iter().filter(|i| i.crypto_map.is_some()) {
            for g in &i.groups {
                out.push((i.device.clone(), IpAddr::V4(g.vip)));
            }
        }
        out
    }

    fn sa(&self, p: &Pair, outbound: bool, flow_id: u32, conn_id: u32) -> SaView {
        let c = &p.child;
        let bytes = if outbound { p.counters.bytes_out } else { p.counters.bytes_in };
        SaView {
            spi: if outbound { c.spi_out } else { c.spi_in },
            transform: transform(p),
            conn_id,
            flow_id,
            map: c.map.clone(),
            remaining_kb: (c.lifetime.kilobytes > 0).then(|| c.lifetime.kilobytes.saturating_sub(bytes / 1024)),
            remaining_s: (c.lifetime.seconds > 0).then(|| c.lifetime.seconds.saturating_sub(p.age(self.now).as_secs())),
            mode: c.mode,
            encap: c.encap,
            esn: c.esn,
            iv_bytes: c.encr.iv_len(),
            replay_window: c.replay_window,
            status: self.status(),
            seq: if outbound { p.counters.seq_out } else { p.counters.seq_in },
            lease_hi: outbound.then(|| p.lease.hi()),
        }
    }
}

impl StateSource for CoreView<'_> {
    fn config(&self) -> &Config {
        &self.core.config
    }

    fn ssp(&self) -> SspView {
        let core = self.core;
        let stats = core.live.and_then(|id| core.conns.get(&id)).map(|c| c.session.stats());
        let version = (crate::ssp::Versions::OURS.max, 0);
        let running = stats.as_ref().map_or((0, 0), |s| (s.version, 0));
        let group = core.config.ssp.as_ref();
        let port = group.map_or(crate::ssp::DEFAULT_PORT, |g| g.port);
        let packet =
            stats.as_ref().map_or(SspPacketView { local_port: port, server_port: port, ..SspPacketView::default() }, |s| SspPacketView {
                socket_age_s: Some(self.now.saturating_duration_since(s.created).as_secs()),
                local_port: port,
                server_port: port,
                packets_sent: s.frames_sent,
                bytes_sent: s.bytes_sent,
                packets_received: s.frames_received,
                bytes_received: s.bytes_received,
            });
        let peers = group
            .map(|g| SspPeerView {
                address: g.remote,
                state: if core.live.is_some() {
                    "Connected"
                } else if core.conns.is_empty() {
                    "Not connected"
                } else {
                    "Connecting"
                }
                .to_owned(),
                interface: self.device_towards(g.remote),
            })
            .into_iter()
            .collect();
        let names = group.map(|g| g.redundancy.clone()).unwrap_or_default();
        let groups = core
            .config
            .interfaces
            .iter()
            .flat_map(|i| i.groups.iter().map(move |g| (i, g)))
            .filter(|(_, g)| names.contains(&g.name))
            .map(|(i, g)| SspGroupRow { vip: g.vip, name: g.name.clone(), interface: i.device.clone() })
            .collect();
        let not_ready = core
            .node
            .difference()
            .map(|d| format!("the configurations differ: {d}"))
            .or_else(|| core.node.why_not_ready().map(str::to_owned));
        SspView {
            clients: SspClientView::both(version, running),
            packet,
            peers,
            redundancy: SspRedundancyView {
                state: self.status(),
                for_s: self.now.saturating_duration_since(core.role_since.0).as_secs(),
                epoch: core.node.epoch(),
                not_ready,
                groups,
            },
        }
    }

    fn isakmp_ha(&self) -> Vec<IsakmpHaView> {
        let sas = self.core.engine.view(self.now);
        self.vips()
            .into_iter()
            .map(|(_, vip)| {
                let mine: Vec<_> = sas.iter().filter(|s| s.local == vip).collect();
                // Changes whenever the set of cookies does.
                let stamp = mine.iter().fold(0u32, |acc, s| {
                    let [.., a, b, c, d] = s.id.initiator;
                    let [e, f, g, h, ..] = s.id.responder;
                    acc ^ u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h])
                });
                IsakmpHaView { vip, sas: mine.len() as u64, stamp, state: self.status(), since: self.since() }
            })
            .collect()
    }

    fn isakmp_sas(&self) -> Vec<IsakmpSaView> {
        // A NAT on the way shows in the pairs of an SA.
        let encaps: HashMap<_, _> = self.core.pairs.values().filter_map(|p| Some((p.child.isakmp, p.child.encap?.peer_port))).collect();
        self.core
            .engine
            .view(self.now)
            .into_iter()
            .enumerate()
            .map(|(n, s)| {
                let detail = self.core.engine.detail(&s.id, self.now);
                let nat = encaps.get(&s.id).copied();
                let local = SocketAddr::new(s.local, nat.map_or(IKE_PORTS.0, |_| IKE_PORTS.1));
                let remote = SocketAddr::new(s.peer, nat.unwrap_or(IKE_PORTS.0));
                IsakmpSaView {
                    version: s.version,
                    dst: if s.initiator { s.peer } else { s.local },
                    src: if s.initiator { s.local } else { s.peer },
                    local: detail.as_ref().map_or(local, |d| d.local),
                    remote: detail.as_ref().map_or(remote, |d| d.peer),
                    initiator: s.initiator,
                    state: s.state,
                    id: s.id,
                    conn_id: n as u32 + 1,
                    status: if s.dormant { HaStatus::Standby } else { HaStatus::Active },
                    remaining_s: s.remaining_s,
                    ikev2: detail.map(Into::into),
                }
            })
            .collect()
    }

    fn isakmp_ssp(&self) -> Vec<IsakmpSspView> {
        let s = &self.core.stats;
        self.vips()
            .into_iter()
            .map(|(_, vip)| IsakmpSspView {
                vip,
                adds: s.isakmp_adds,
                deletes: s.isakmp_deletes,
                requests: s.isakmp_requests,
                replies: s.isakmp_replies,
            })
            .collect()
    }

    fn ipsec_ha(&self) -> Vec<IpsecHaView> {
        self.vips()
            .into_iter()
            .map(|(interface, vip)| {
                let sas = self.core.pairs.values().filter(|p| p.child.local == vip).map(|p| 1 + u64::from(p.out_installed)).sum();
                IpsecHaView { interface, vip, sas, state: self.status(), since: self.since() }
            })
            .collect()
    }

    fn ipsec_flows(&self) -> Vec<FlowView> {
        let core = self.core;
        let mut by_flow: HashMap<(&str, u32, u32), Vec<&Pair>> = HashMap::new();
        for p in core.pairs.values() {
            by_flow.entry((&p.child.map, p.child.map_seq, p.child.ace)).or_default().push(p);
        }
        core.flows
            .iter()
            .enumerate()
            .map(|(n, f)| {
                let flow_id = n as u32 + 1;
                let pairs = by_flow.remove(&(f.map.as_str(), f.seq, f.ace)).unwrap_or_default();
                let errors = |sas: &mut dyn Iterator<Item = (Spi, IpAddr)>| sas.filter_map(|sa| self.errors.get(&sa)).sum();
                let interface = core.config.interfaces.iter().find(|i| i.crypto_map.as_deref() == Some(f.map.as_str()));
                let live = pairs.iter().filter(|p| p.stage == ChildStage::Live && p.out_installed).max_by_key(|p| p.created);
                let mtu = interface.and_then(|i| self.mtus.iter().find(|(d, _)| *d == i.device)).map_or(0, |(_, mtu)| *mtu);
                let conn = |i: usize| flow_id * 1000 + i as u32;
                FlowView {
                    interface: interface.map_or_else(String::new, |i| i.device.clone()),
                    interface_name: interface.map_or_else(String::new, |i| i.name.clone()),
                    map: f.map.clone(),
                    local_addr: f.policy.tunnel_local,
                    local: f.policy.local,
                    remote: f.policy.remote,
                    peer: f.policy.tunnel_peer,
                    packets_out: pairs.iter().map(|p| p.counters.packets_out).sum(),
                    packets_in: pairs.iter().map(|p| p.counters.packets_in).sum(),
                    send_errors: errors(&mut pairs.iter().map(|p| (p.child.spi_out, p.child.peer))),
                    recv_errors: errors(&mut pairs.iter().map(|p| (p.child.spi_in, p.child.local))),
                    path_mtu: mtu,
                    media_mtu: mtu,
                    plaintext_mtu: live.map(|p| p.child.plaintext_mtu(mtu)),
                    current_spi_out: live.map(|p| p.child.spi_out),
                    inbound: pairs.iter().enumerate().map(|(i, p)| self.sa(p, false, flow_id, conn(2 * i))).collect(),
                    outbound: pairs
                        .iter()
                        .enumerate()
                        .filter(|(_, p)| p.out_installed)
                        .map(|(i, p)| self.sa(p, true, flow_id, conn(2 * i + 1)))
                        .collect(),
                }
            })
            .collect()
    }

    fn standby(&self) -> Vec<StandbyView> {
        let router = |own: bool, other: Option<std::net::Ipv4Addr>| if own { Some(Router::Local) } else { other.map(Router::Address) };
        self.core
            .groups
            .iter()
            .map(|s| {
                let (g, c) = (&s.group, s.group.config());
                StandbyView {
                    interface: self.core.config.interfaces[s.interface].device.clone(),
                    group: c.group,
                    priority: c.priority,
                    preempt: c.preempt,
                    state: g.state(),
                    active: router(g.state() == hsrp::State::Active, g.active_router()),
                    standby: router(g.state() == hsrp::State::Standby, g.standby_router()),
                    vip: c.vip,
                }
            })
            .collect()
    }

    fn takeovers(&self) -> Vec<TakeoverView> {
        self.core.takeovers.iter().cloned().collect()
    }

    fn datapath(&self) -> DatapathView {
        self.datapath.clone()
    }

    fn version(&self) -> VersionView {
        VersionView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.core.config.hostname.clone(),
            kernel: nix::sys::utsname::uname().map_or_else(|_| String::new(), |u| u.release().to_string_lossy().into_owned()),
            abi: gateway_common::abi::ABI_VERSION,
            ssp: crate::ssp::Versions::OURS.max,
            uptime_s: self.now.saturating_duration_since(self.core.started).as_secs(),
            manifest: self.core.manifest.clone(),
        }
    }

    fn partner_digests(&self) -> Option<Vec<(String, [u8; 32])>> {
        self.core.partner_digests.clone()
    }

    fn debugging(&self) -> Vec<String> {
        crate::cli::logging::debugging()
    }
}
