//! [`LinkAdapter`]: links, virtual MACs and virtual addresses behind [`Links`]; [`LinkEvents`]: carrier changes.
//!
//! The virtual MAC of a group lives on a macvlan `hsrp-<ifindex of the parent>-<group>` in private mode, always up. Its address
//! is the switch: with the VIP on it, and only then, this node answers ARP for it and the dormant SAs come alive.

use super::arp::{Form, Sender, announcement};
use super::events::Listener;
use super::route::{self, Link, RTM_DELLINK, RTM_NEWLINK};
use super::socket::{Family, NetlinkSocket, errno_of};
use super::sysctl::{Want, ensure};
use crate::hsrp::virtual_mac;
use crate::ports::{LinkState, Links, PortError, PortResult};
use std::io;
use std::net::Ipv4Addr;

/// `IFNAMSIZ` without the final zero.
const NAME_MAX: usize = 15;
/// Rounds of gratuitous ARP; a lost one would keep a switch on the old port.
const ARP_ROUNDS: usize = 2;
const RTNLGRP_LINK: u32 = 1;

/// Links of the network namespace it was opened in; call it from a thread of that namespace (`/proc/sys/net` follows the thread).
pub struct LinkAdapter {
    socket: NetlinkSocket,
    arp: Sender,
}

fn fail(call: &'static str, object: impl ToString) -> impl FnOnce(io::Error) -> PortError {
    let object = object.to_string();
    move |source| PortError { call, object, source }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Name of the macvlan of a group on the link with this index.
pub fn macvlan_name(ifindex: u32, group: u8) -> io::Result<String> {
    let name = format!("hsrp-{ifindex}-{group}");
    if name.len() > NAME_MAX {
        return Err(invalid("the interface index has more digits than fit a device name; reboot or recreate the device"));
    }
    Ok(name)
}

fn check_name(name: &str) -> io::Result<()> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != "..";
    if fits && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(invalid("not a device name"))
}

/// Passes over the given error of the kernel.
fn unless(result: io::Result<()>, errnos: &[i32]) -> io::Result<()> {
    match result {
        Err(e) if errno_of(&e).is_some_and(|n| errnos.contains(&n)) => Ok(()),
        other => other,
    }
}

impl LinkAdapter {
    /// Opens its sockets in the calling thread's network namespace. Errors: no CAP_NET_ADMIN or CAP_NET_RAW.
    pub fn open() -> PortResult<Self> {
        let socket = NetlinkSocket::open(Family::Route).map_err(fail("socket", "NETLINK_ROUTE"))?;
        let arp = Sender::open().map_err(fail("socket", "AF_PACKET"))?;
        Ok(Self { socket, arp })
    }

    fn find(&mut self, name: &str) -> io::Result<Link> {
        check_name(name)?;
        let mut found = None;
        self.socket.request(route::get_link(name), |kind, body| {
            if kind == RTM_NEWLINK {
                found = route::link(body);
            }
        })?;
        // Asked by name, the kernel also answers to an alternative name: everything below works with indices.
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn find_or_none(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.find(name) {
            Ok(link) => Ok(Some(link)),
            Err(e) if errno_of(&e) == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The macvlan of a group; `None` when the parent or the macvlan is not there.
    fn macvlan(&mut self, device: &str, group: u8) -> io::Result<Option<Link>> {
        let Some(parent) = self.find_or_none(device)? else { return Ok(None) };
        self.find_or_none(&macvlan_name(parent.index, group)?)
    }

    fn make_macvlan(&mut self, parent: &Link, name: &str, mac: [u8; 6]) -> PortResult<Link> {
        let held = self.find_or_none(name).map_err(fail("RTM_GETLINK", name))?;
        if let Some(link) = held {
            if link.kind != "macvlan" {
                return Err(fail("RTM_NEWLINK", name)(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "a device of this name exists and is no macvlan; rename it",
                )));
            }
            if (link.parent, link.mac, link.macvlan_mode) == (parent.index, mac, route::MACVLAN_MODE_PRIVATE) {
                return Ok(link);
            }
            self.socket.request(route::delete_link(link.index), |_, _| ()).map_err(fail("RTM_DELLINK", name))?;
        }
        self.socket.request(route::new_macvlan(name, parent.index, mac), |_, _| ()).map_err(fail("RTM_NEWLINK", name))?;
        self.find(name).map_err(fail("RTM_GETLINK", name))
    }

    fn settings(parent: &str, macvlan: &str) -> PortResult<()> {
        let conf = |device: &str, key: &str| format!("ipv4/conf/{device}/{key}");
        let wants = [
            // First: turning it on resets other settings.
            ("ipv4/ip_forward".to_string(), Want::Exactly(1)),
            // Only the macvlan answers for the VIP; and what leaves through the parent with the VIP as source must not make
            // the parent ask with the VIP as sender, which would teach the neighbours the parent's MAC for it.
            (conf(parent, "arp_ignore"), Want::AtLeast(1)),
            (conf(parent, "arp_announce"), Want::AtLeast(2)),
            (conf(macvlan, "arp_ignore"), Want::AtLeast(1)),
            (conf(macvlan, "arp_announce"), Want::AtLeast(2)),
            // Packets come in on the macvlan while routes point out of the parent. The higher of `all` and device counts.
            ("ipv4/conf/all/rp_filter".to_string(), Want::NotStrict),
            (conf(parent, "rp_filter"), Want::NotStrict),
            (conf(macvlan, "rp_filter"), Want::Exactly(0)),
            // The parent would redirect hosts past the virtual MAC. Either of `all` and device turns it on.
            ("ipv4/conf/all/send_redirects".to_string(), Want::Exactly(0)),
            (conf(parent, "send_redirects"), Want::Exactly(0)),
            (conf(macvlan, "send_redirects"), Want::Exactly(0)),
        ];
        for (key, want) in wants {
            ensure(&key, want).map_err(fail("sysctl", format!("net/{key}")))?;
        }
        // A kernel without IPv6 has no such setting and needs none.
        let key = format!("ipv6/conf/{macvlan}/disable_ipv6");
        match ensure(&key, Want::Exactly(1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("sysctl", format!("net/{key}"))(e)),
            _ => Ok(()),
        }
    }
}

impl Links for LinkAdapter {
    fn prepare_vip(&mut self, device: &str, group: u8) -> PortResult<()> {
        let parent = self.find(device).map_err(fail("RTM_GETLINK", device))?;
        let name = macvlan_name(parent.index, group).map_err(fail("RTM_NEWLINK", device))?;
        let macvlan = self.make_macvlan(&parent, &name, virtual_mac(group))?;
        Self::settings(&parent.name, &name)?;
        let quiet = self.socket.request(route::no_ipv6_addresses(macvlan.index), |_, _| ());
        unless(quiet, &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP]).map_err(fail("RTM_NEWLINK", &name))?;
        self.socket.request(route::set_up(macvlan.index), |_, _| ()).map_err(fail("RTM_NEWLINK", &name))
    }

    fn add_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()> {
        let object = || format!("{vip} on group {group} of {device}");
        let macvlan = self.macvlan(device, group).map_err(fail("RTM_GETLINK", device))?;
        let missing = || fail("RTM_NEWADDR", object())(io::Error::new(io::ErrorKind::NotFound, "no macvlan; prepare_vip makes it"));
        let macvlan = macvlan.ok_or_else(missing)?;
        let added = self.socket.request(route::add_address(macvlan.index, vip), |_, _| ());
        unless(added, &[libc::EEXIST]).map_err(fail("RTM_NEWADDR", object()))
    }

    fn remove_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()> {
        let Some(macvlan) = self.macvlan(device, group).map_err(fail("RTM_GETLINK", device))? else { return Ok(()) };
        let removed = self.socket.request(route::remove_address(macvlan.index, vip), |_, _| ());
        let object = || format!("{vip} on group {group} of {device}");
        unless(removed, &[libc::EADDRNOTAVAIL, libc::ENODEV]).map_err(fail("RTM_DELADDR", object()))
    }

    fn has_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<bool> {
        let Some(macvlan) = self.macvlan(device, group).map_err(fail("RTM_GETLINK", device))? else { return Ok(false) };
        let all = self.socket.dump(&route::dump_addresses(), route::address_of).map_err(fail("RTM_GETADDR", device))?;
        Ok(all.iter().any(|(index, addr, _)| (*index, *addr) == (macvlan.index, vip)))
    }

    fn gratuitous_arp(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()> {
        let parent = self.find(device).map_err(fail("RTM_GETLINK", device))?;
        for _ in 0..ARP_ROUNDS {
            for form in [Form::Request, Form::Reply] {
                let frame = announcement(form, virtual_mac(group), vip);
                let object = || format!("gratuitous ARP for {vip} out of {device}");
                self.arp.send(parent.index, &frame).map_err(fail("sendto", object()))?;
            }
        }
        Ok(())
    }

    fn link(&mut self, device: &str) -> PortResult<LinkState> {
        let link = self.find(device).map_err(fail("RTM_GETLINK", device))?;
        Ok(LinkState { ifindex: link.index, mac: link.mac, up: link.up, mtu: link.mtu })
    }
}

/// A change of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// Something about the device changed (not necessarily `up`).
    Changed {
        /// Its name.
        device: String,
        /// Up and with carrier; false when it is gone.
        up: bool,
    },
    /// Events were lost: ask for every link again.
    Overrun,
}

/// Link changes of the network namespace it was opened in.
pub struct LinkEvents {
    listener: Listener,
}

impl LinkEvents {
    /// Joins RTNLGRP_LINK. Call it inside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        Ok(Self { listener: Listener::open(Family::Route, &[RTNLGRP_LINK])? })
    }

    /// Waits for changes; at least one comes. Cancel-safe.
    pub async fn recv(&mut self) -> io::Result<Vec<LinkEvent>> {
        self.listener.recv(LinkEvent::Overrun, |m| event(m.kind, m.body)).await
    }
}

fn event(kind: u16, body: &[u8]) -> Option<LinkEvent> {
    if kind != RTM_NEWLINK && kind != RTM_DELLINK {
        return None;
    }
    let link = route::link(body)?;
    Some(LinkEvent::Changed { device: link.name, up: link.up && kind == RTM_NEWLINK })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macvlan_names_fit() {
        assert_eq!(macvlan_name(3, 7).unwrap(), "hsrp-3-7");
        assert_eq!(macvlan_name(999_999, 255).unwrap().len(), NAME_MAX);
        assert!(macvlan_name(1_000_000, 255).is_err());
    }

    #[test]
    fn device_names_stay_inside_their_directory() {
        for good in ["eth0", "eth0.100", "vl-ä"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "../x", "a/b", "a b", "a:1", "0123456789abcdef", "a\n"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_link_that_goes_is_down() {
        let made = route::new_macvlan("x0", 3, [2; 6]);
        let mut body = made.body().to_vec();
        body[8..12].copy_from_slice(&((libc::IFF_UP | libc::IFF_RUNNING) as u32).to_ne_bytes());
        let changed = |up| Some(LinkEvent::Changed { device: "x0".into(), up });
        assert_eq!(event(RTM_NEWLINK, &body), changed(true));
        assert_eq!(event(RTM_DELLINK, &body), changed(false));
        assert_eq!(event(20, &body), None);
    }
}
