//! Namespaces, links, addresses and routes of the lab.
//!
//! ```text
//! phost 192.168.4.10 -- peer 192.168.3.1 (40.0.0.254) -- [osw] -- gw-a 40.0.0.100 / gw-b 40.0.0.6 -- [isw] -- host 172.16.31.50
//! ```

use super::plan::{Place, Protected, plan};
use super::sys::{self, LinkSwitch};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Namespace of the remote peer.
pub const PEER: &str = "gwlab-peer";
/// Namespace of the host behind the peer.
pub const PHOST: &str = "gwlab-phost";
/// Namespace of the outside switch.
pub const OSW: &str = "gwlab-osw";
/// Namespace of the inside switch.
pub const ISW: &str = "gwlab-isw";
/// Namespace of the host on the inside LAN.
pub const HOST: &str = "gwlab-host";
/// All namespaces of the lab.
pub const ALL: [&str; 7] = [PEER, PHOST, OSW, ISW, HOST, Node::A.ns(), Node::B.ns()];

/// The peer's tunnel end.
pub const PEER_IKE: Place = Place(|p| p.peer_ike);
/// A second tunnel end of the peer, for a connection that must not come up.
pub const PEER_IKE_2: Place = Place(|p| p.peer_ike_2);
/// The peer on the outside LAN.
pub const PEER_OUTSIDE: Place = Place(|p| p.peer_outside);
/// The peer on its own network.
pub const PEER_INSIDE: Place = Place(|p| p.peer_inside);
/// Host behind the peer.
pub const PHOST_IP: Place = Place(|p| p.phost);
/// Host on the inside LAN.
pub const HOST_IP: Place = Place(|p| p.host);
/// Outside virtual IP: the gateway's tunnel end.
pub const VIP_OUT: Place = Place(|p| p.vips[0]);
/// Inside virtual IP: the host's router.
pub const VIP_IN: Place = Place(|p| p.vips[1]);
/// Network behind the peer: what the tunnel protects.
pub const PROTECTED: Protected = Protected;
/// The host behind the peer, in a second network.
pub const PHOST_IP_2: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 10);
/// The peer in that network.
const PEER_INSIDE_2: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 1);
/// That network.
pub const PROTECTED_2: &str = "192.168.5.0/24";
/// Largest packet of the hosts, so that ESP never needs fragments.
const HOST_MTU: u32 = 1360;

/// One of the two gateways.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Node {
    /// The guide's `7200-1`.
    A,
    /// The guide's `7200-2`.
    B,
}

impl Node {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its namespace.
    pub const fn ns(self) -> &'static str {
        match self {
            Self::A => "gwlab-a",
            Self::B => "gwlab-b",
        }
    }
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "gw-a",
            Self::B => "gw-b",
        }
    }
    /// Its port on either switch.
    pub const fn port(self) -> &'static str {
        match self {
            Self::A => "p-a",
            Self::B => "p-b",
        }
    }
    /// Own address on the outside LAN.
    pub fn outside(self) -> Ipv4Addr {
        plan().outside[self as usize]
    }
    /// Own address on the inside LAN.
    pub fn inside(self) -> Ipv4Addr {
        plan().inside[self as usize]
    }
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Runs `ip -batch` in a namespace (`None`: where we are); any failing line is an error.
pub fn ip_batch(ns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(ns) = ns {
        command.args(["-n", ns]);
    }
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("ip (package iproute2)")?;
    child.stdin.take().context("stdin of ip")?.write_all(lines.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "ip -batch in {}: {}", ns.unwrap_or("the machine"), String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// Output of an `ip` command in a namespace.
pub fn ip_output(ns: &str, args: &[&str]) -> Result<String> {
    let out = sys::give_way(&mut Command::new("ip")).args(["-n", ns]).args(args).output().context("ip (package iproute2)")?;
    ensure!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The lab's networks. Dropping it removes them.
pub struct Topology {
    outside: LinkSwitch,
    inside: LinkSwitch,
}

impl Topology {
    /// Lays everything out; remains of an earlier run are removed first.
    pub fn build() -> Result<Self> {
        remove_all();
        let namespaces: String = ALL.iter().map(|ns| format!("netns add {ns}\n")).collect();
        ip_batch(None, &namespaces)?;
        for ns in ALL {
            settings(ns, matches!(ns, PEER))?;
        }
        ip_batch(
            None,
            &format!(
                "link add p-peer netns {OSW} type veth peer name eth1 netns {PEER}\n\
                 link add eth0 netns {PEER} type veth peer name eth0 netns {PHOST}\n\
                 link add p-host netns {ISW} type veth peer name eth0 netns {HOST}\n"
            ),
        )?;
        for (ns, port) in [(OSW, "p-peer"), (ISW, "p-host")] {
            ip_batch(
                Some(ns),
                &format!(
                    "link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\nlink set {port} master br0 up\nlink set lo up\n"
                ),
            )?;
        }
        ip_batch(
            Some(PEER),
            &format!(
                "link set lo up\naddr add {PEER_IKE}/32 dev lo\naddr add {PEER_IKE_2}/32 dev lo\nlink set eth1 up\naddr add {PEER_OUTSIDE}/24 dev eth1\n\
                 link set eth0 up\naddr add {PEER_INSIDE}/24 dev eth0\n\
                 addr add {PEER_INSIDE_2}/24 dev eth0\nroute add default via {VIP_OUT} dev eth1\n"
            ),
        )?;
        ip_batch(
            Some(PHOST),
            &format!(
                "link set lo up\nlink set eth0 mtu {HOST_MTU} up\naddr add {PHOST_IP}/24 dev eth0\naddr add {PHOST_IP_2}/24 dev eth0\n\
                 route add default via {PEER_INSIDE}\n"
            ),
        )?;
        ip_batch(
            Some(HOST),
            &format!("link set lo up\nlink set eth0 mtu {HOST_MTU} up\naddr add {HOST_IP}/24 dev eth0\nroute add default via {VIP_IN}\n"),
        )?;
        let topology = Self { outside: LinkSwitch::open(OSW)?, inside: LinkSwitch::open(ISW)? };
        for (ns, devices) in [(PEER, &["eth0", "eth1"][..]), (PHOST, &["eth0"]), (HOST, &["eth0"])] {
            let links = LinkSwitch::open(ns)?;
            for device in devices {
                links.no_offloads(device)?;
            }
        }
        topology.outside.no_offloads("p-peer")?;
        topology.inside.no_offloads("p-host")?;
        for node in Node::BOTH {
            topology.wire_gateway(node)?;
        }
        Ok(topology)
    }

    /// Plugs a gateway's two links in: devices, addresses and static routes as its operator configured them.
    fn wire_gateway(&self, node: Node) -> Result<()> {
        let (ns, port) = (node.ns(), node.port());
        // A machine keeps its cards through a loss of power: its partner's ARP entries stay right.
        let mac = format!("02:00:00:00:{:02x}", node as u8 + 1);
        ip_batch(
            None,
            &format!(
                "link add {port} netns {OSW} type veth peer name eth1 netns {ns}\n\
                 link add {port} netns {ISW} type veth peer name eth0 netns {ns}\n"
            ),
        )?;
        let links = LinkSwitch::open(ns)?;
        for device in ["eth0", "eth1"] {
            links.no_offloads(device)?;
        }
        self.outside.no_offloads(port)?;
        self.inside.no_offloads(port)?;
        ip_batch(
            Some(ns),
            &format!(
                "link set lo up\nlink set eth0 address {mac}:01 up\naddr add {}/24 dev eth0\n\
                 link set eth1 address {mac}:02 up\naddr add {}/24 dev eth1\n\
                 route add {} via {PEER_OUTSIDE}\nroute add {PROTECTED} via {PEER_OUTSIDE}\n\
                 route add {PROTECTED_2} via {PEER_OUTSIDE}\n",
                node.inside(),
                node.outside(),
                plan().tunnel_ends()
            ),
        )?;
        for switch in [OSW, ISW] {
            ip_batch(Some(switch), &format!("link set {port} master br0 up\n"))?;
        }
        Ok(())
    }

    /// Cuts both links of a gateway at once.
    pub fn cut(&self, node: Node) -> Result<()> {
        let outside = self.outside.set_up(node.port(), false);
        self.inside.set_up(node.port(), false)?;
        outside
    }

    /// Plugs both links in again; the gateway's kernel state stays as it was.
    pub fn restore(&self, node: Node) -> Result<()> {
        self.outside.set_up(node.port(), true)?;
        self.inside.set_up(node.port(), true)
    }

    /// A machine that lost its power has nothing left in its kernel: a new namespace, wired anew.
    pub fn reboot(&self, node: Node) -> Result<()> {
        let (ns, port) = (node.ns(), node.port());
        for switch in [OSW, ISW] {
            ip_batch(Some(switch), &format!("link del {port}\n"))?;
        }
        ip_batch(None, &format!("netns del {ns}\nnetns add {ns}\n"))?;
        settings(ns, false)?;
        self.wire_gateway(node)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        remove_all();
    }
}

fn remove_all() {
    for ns in ALL {
        if std::path::Path::new("/run/netns").join(ns).exists() {
            let _ = Command::new("ip").args(["netns", "del", ns]).stderr(Stdio::null()).status();
        }
    }
}

/// Router settings of every machine of the lab, made before its devices.
fn settings(ns: &str, peer: bool) -> Result<()> {
    let forward = peer || Node::BOTH.iter().any(|n| n.ns() == ns);
    sys::in_ns(ns, move || {
        let mut values = vec![
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ];
        if forward {
            values.extend([("ipv4/ip_forward", "1"), ("ipv4/conf/all/send_redirects", "0"), ("ipv4/conf/default/send_redirects", "0")]);
        }
        for (key, value) in values {
            let path = format!("/proc/sys/net/{key}");
            if !key.starts_with("ipv6") || std::path::Path::new(&path).exists() {
                std::fs::write(&path, value).with_context(|| path.clone())?;
            }
        }
        Ok(())
    })
}
