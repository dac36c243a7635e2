//! Messages of NETLINK_ROUTE for links and addresses (`linux/rtnetlink.h`, `linux/if_link.h`).

use super::message::*;
use std::net::Ipv4Addr;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// `MACVLAN_MODE_PRIVATE`: nothing passes between the macvlans of one parent.
pub(super) const MACVLAN_MODE_PRIVATE: u32 = 1;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFF_UP: u32 = libc::IFF_UP as u32;
const IFF_RUNNING: u32 = libc::IFF_RUNNING as u32;
/// `struct ifinfomsg`.
const LINK_LEN: usize = 16;
/// `struct ifaddrmsg`.
const ADDR_LEN: usize = 8;

/// A link as the kernel shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// All zero where the device has no Ethernet address.
    pub(super) mac: [u8; 6],
    /// Administratively up and with carrier.
    pub(super) up: bool,
    pub(super) parent: u32,
    pub(super) kind: String,
    pub(super) macvlan_mode: u32,
    /// Bytes of an IP packet.
    pub(super) mtu: u32,
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn number(value: &[u8]) -> u32 {
    Fields::new(value, 4).map_or(0, |f| f.u32(0))
}

/// Decodes RTM_NEWLINK or RTM_DELLINK. `None` for those that speak about a bridge port: the link itself goes on.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let f = Fields::new(body, LINK_LEN)?;
    if i32::from(f.u8(0)) != libc::AF_UNSPEC {
        return None;
    }
    let up = f.u32(8) & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING;
    let mut link = Link { index: f.u32(4), up, ..Link::default() };
    for (kind, value) in Attrs::after(body, LINK_LEN) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value),
            IFLA_LINK => link.parent = number(value),
            IFLA_LINKINFO => {
                for (kind, value) in Attrs::after(value, 0) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = text(value),
                        IFLA_INFO_DATA => {
                            let mode = Attrs::after(value, 0).find(|(k, _)| *k == IFLA_MACVLAN_MODE);
                            link.macvlan_mode = mode.map_or(0, |(_, v)| number(v));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn put_link(r: &mut Request, index: u32, flags: u32, change: u32) {
    r.u8(0).u8(0).u16(0).u32(index).u32(flags).u32(change);
}

fn put_name(r: &mut Request, name: &str) {
    r.attr(IFLA_IFNAME, |r| {
        r.bytes(name.as_bytes()).u8(0);
    });
}

/// Asks for a link by name.
pub(super) fn get_link(name: &str) -> Request {
    let mut r = Request::new(RTM_GETLINK, 0);
    put_link(&mut r, 0, 0, 0);
    put_name(&mut r, name);
    r
}

/// Makes a private macvlan, down.
pub(super) fn new_macvlan(name: &str, parent: u32, mac: [u8; 6]) -> Request {
    let mut r = Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    put_link(&mut r, 0, 0, 0);
    put_name(&mut r, name);
    r.attr(IFLA_ADDRESS, |r| {
        r.bytes(&mac);
    });
    r.attr(IFLA_LINK, |r| {
        r.u32(parent);
    });
    r.attr(IFLA_LINKINFO, |r| {
        r.attr(IFLA_INFO_KIND, |r| {
            r.bytes(b"macvlan\0");
        });
        r.attr(IFLA_INFO_DATA, |r| {
            r.attr(IFLA_MACVLAN_MODE, |r| {
                r.u32(MACVLAN_MODE_PRIVATE);
            });
        });
    });
    r
}

/// Removes a link.
pub(super) fn delete_link(index: u32) -> Request {
    let mut r = Request::new(RTM_DELLINK, 0);
    put_link(&mut r, index, 0, 0);
    r
}

/// No IPv6 address by itself.
pub(super) fn no_ipv6_addresses(index: u32) -> Request {
    let mut r = Request::new(RTM_NEWLINK, 0);
    put_link(&mut r, index, 0, 0);
    r.attr(IFLA_AF_SPEC, |r| {
        r.attr(libc::AF_INET6 as u16, |r| {
            r.attr(IFLA_INET6_ADDR_GEN_MODE, |r| {
                r.u8(ADDR_GEN_MODE_NONE);
            });
        });
    });
    r
}

/// Sets a link up.
pub(super) fn set_up(index: u32) -> Request {
    let mut r = Request::new(RTM_NEWLINK, 0);
    put_link(&mut r, index, IFF_UP, IFF_UP);
    r
}

fn address(kind: u16, flags: u16, index: u32, addr: Ipv4Addr) -> Request {
    let mut r = Request::new(kind, flags);
    r.u8(libc::AF_INET as u8).u8(32).u8(0).u8(0).u32(index);
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        r.attr(kind, |r| {
            r.bytes(&addr.octets());
        });
    }
    r
}

/// Adds an address as /32.
pub(super) fn add_address(index: u32, addr: Ipv4Addr) -> Request {
    address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, addr)
}

/// Removes an address given as /32.
pub(super) fn remove_address(index: u32, addr: Ipv4Addr) -> Request {
    address(RTM_DELADDR, 0, index, addr)
}

/// All IPv4 addresses.
pub(super) fn dump_addresses() -> Request {
    let mut r = Request::new(RTM_GETADDR, 0);
    r.u8(libc::AF_INET as u8).zeros(7);
    r
}

/// Decodes an entry of an address dump: link index, address, prefix length.
pub(super) fn address_of(kind: u16, body: &[u8]) -> Option<(u32, Ipv4Addr, u8)> {
    let f = Fields::new(body, ADDR_LEN)?;
    if kind != RTM_NEWADDR || i32::from(f.u8(0)) != libc::AF_INET {
        return None;
    }
    let local = Attrs::after(body, ADDR_LEN).find(|(k, _)| *k == IFA_LOCAL)?.1;
    let octets: [u8; 4] = local.try_into().ok()?;
    Some((f.u32(4), octets.into(), f.u8(1)))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn a_macvlan_is_asked_for_as_iproute_does() {
        let body = new_macvlan("hsrp-3-7", 3, [0, 0, 0x0c, 7, 0xac, 7]);
        let want = hex!(
            "00000000 00000000 00000000 00000000"
            "0d00 0300 687372702d332d3700 000000"
            "0a00 0100 00000c07ac07 0000"
            "0800 0500 03000000"
            "1c00 1200 0c00 0100 6d6163766c616e00 0c00 0200 0800 0100 01000000"
        );
        assert_eq!(body.body(), want);
        assert_eq!(body.kind(), 16);
    }

    #[test]
    fn a_link_is_read_back() {
        let made = new_macvlan("hsrp-3-7", 3, [0, 0, 0x0c, 7, 0xac, 7]);
        let mut body = made.body().to_vec();
        body[4] = 9;
        body[8..12].copy_from_slice(&(IFF_UP | IFF_RUNNING | 0x1000).to_ne_bytes());
        let name = String::from("hsrp-3-7");
        let kind = String::from("macvlan");
        let want = Link { index: 9, name, mac: [0, 0, 0x0c, 7, 0xac, 7], up: true, parent: 3, kind, macvlan_mode: 1, mtu: 0 };
        assert_eq!(link(&body), Some(want));
        body[8] &= !(IFF_UP as u8);
        assert_eq!(link(&body).map(|l| l.up), Some(false), "running alone is not up");
        body[0] = libc::AF_BRIDGE as u8;
        assert_eq!(link(&body), None);
        assert_eq!(link(&body[..15]), None);
    }

    #[test]
    fn an_address_is_a_slash_32() {
        let request = add_address(9, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(request.body(), hex!("02 20 00 00 09000000 0800 0200 c0000201 0800 0100 c0000201"));
        assert_eq!(address_of(RTM_NEWADDR, request.body()), Some((9, Ipv4Addr::new(192, 0, 2, 1), 32)));
        assert_eq!(address_of(RTM_DELADDR, request.body()), None);
    }
}
