//! Gratuitous ARP (RFC 826, RFC 5227 3) over a packet socket.

use nix::errno::Errno;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Ethernet header and ARP for IPv4, bytes.
pub(super) const FRAME_LEN: usize = 42;
const BROADCAST: [u8; 6] = [0xff; 6];

/// Form of an announcement; some receivers heed only one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// ARP request for the own address.
    Request,
    /// Unasked reply.
    Reply,
}

/// A broadcast frame that binds `vip` to `mac`.
pub(super) fn announcement(form: Form, mac: [u8; 6], vip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let (operation, target) = match form {
        Form::Request => (1u8, [0; 6]),
        Form::Reply => (2u8, mac),
    };
    let vip = vip.octets();
    let head: [u8; 10] = [0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, operation];
    let mut frame = [0; FRAME_LEN];
    let mut at = 0;
    for part in [&BROADCAST[..], &mac, &head, &mac, &vip, &target, &vip] {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    frame
}

/// A packet socket that only sends. Opened once: closing one waits for the kernel's grace period.
pub(super) struct Sender(OwnedFd);

impl Sender {
    /// Opens it. Protocol 0: it receives nothing.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: plain call without pointers.
        let raw = Errno::result(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: `raw` was just opened and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Sends a whole Ethernet frame out of a link.
    pub(super) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
            sll_ifindex: ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        };
        let len = size_of_val(&to) as libc::socklen_t;
        let fd = self.0.as_raw_fd();
        // SAFETY: frame and address outlive the call, both lengths are theirs, the fd is open. MSG_DONTWAIT: never blocks.
        let sent = unsafe { libc::sendto(fd, frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT, (&raw const to).cast(), len) };
        Errno::result(sent)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn both_forms_name_the_virtual_mac() {
        let (mac, vip) = (crate::hsrp::virtual_mac(7), Ipv4Addr::new(192, 0, 2, 1));
        let request = hex!("ffffffffffff 00000c07ac07 0806 0001 0800 06 04 0001 00000c07ac07 c0000201 000000000000 c0000201");
        assert_eq!(announcement(Form::Request, mac, vip), request);
        let reply = hex!("ffffffffffff 00000c07ac07 0806 0001 0800 06 04 0002 00000c07ac07 c0000201 00000c07ac07 c0000201");
        assert_eq!(announcement(Form::Reply, mac, vip), reply);
    }
}
