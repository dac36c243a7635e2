//! HSRP on the wire: UDP 1985 to 224.0.0.2 with TTL 1, received and sent as whole Ethernet frames on the interface's own device.
//!
//! Whole frames, because hellos of the active carry the *virtual* MAC address as their source. For the same reason the socket taps the device
//! (`ETH_P_ALL`) instead of asking for IPv4 only: the standby has a macvlan with the same virtual MAC on the device, and the kernel gives frames
//! from that address to the macvlan before IPv4 handlers of the device see them. Taps come first.

use super::sockopt;
use crate::wire::{Decode, DecodeError, Reader, Writer};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, SockaddrLike, bind, recvfrom};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// UDP port (RFC 2281 5).
pub const PORT: u16 = 1985;
/// All routers (RFC 2281 5).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Ethernet address of [`GROUP`] (RFC 1112 6.4).
pub const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x02];
/// Longest payload that is passed on; version 1 has 20 bytes, and 48 more with MD5 authentication.
pub const PAYLOAD_BYTES_MAX: usize = 512;

const FRAME_BYTES_MAX: usize = 1518 + 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_UDP: u8 = 17;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Class selector 6: internetwork control.
const TOS: u8 = 0xc0;
const TTL: u8 = 1;

/// A datagram that arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HsrpDatagram {
    /// Sender's own address on the LAN.
    pub source: Ipv4Addr,
    /// Where it was sent to; [`GROUP`] for hellos.
    pub destination: Ipv4Addr,
    /// Time to live as received; RFC 2281 sends 1.
    pub ttl: u8,
    /// Ethernet source: the virtual MAC when the active sent it, else the router's own.
    pub source_mac: [u8; 6],
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// The HSRP end of one interface.
pub struct HsrpSocket {
    fd: AsyncFd<Socket>,
    /// Holds the IGMP membership, so that switches with snooping forward the group to us; never read.
    _membership: Socket,
    own_mac: [u8; 6],
    own_address: Ipv4Addr,
    refused: AtomicU64,
}

impl HsrpSocket {
    /// Opens the tap on `device` (the parent device, not the macvlan). Must be called inside a tokio runtime, with CAP_NET_RAW. `own_mac` and
    /// `own_address` are the interface's own: frames that bear them come from a loop or a duplicate address, and are counted and skipped.
    pub fn open(device: &str, own_mac: [u8; 6], own_address: Ipv4Addr) -> io::Result<Self> {
        let ifindex = if_nametoindex(device)?;
        // Protocol 0 receives nothing: no frame can slip in before the filter and the device are set.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        socket.attach_filter(&filter())?;
        sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        let mut mr_address = [0; 8];
        mr_address[..6].copy_from_slice(&GROUP_MAC);
        let request = libc::packet_mreq {
            mr_ifindex: ifindex as libc::c_int,
            mr_type: libc::PACKET_MR_MULTICAST as libc::c_ushort,
            mr_alen: 6,
            mr_address,
        };
        sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        bind(socket.as_raw_fd(), &link_address(ifindex)?)?;
        let membership = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        membership.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(ifindex))?;
        // Errors wake the reader too: a device that goes down is heard at once, not with the next frame.
        let interest = Interest::READABLE | Interest::ERROR;
        // SAFETY: the socket owns its descriptor, always the same one, until it is dropped inside the `AsyncFd`; nothing here takes it out.
        let fd = unsafe { AsyncFd::register_with_interest(socket, interest) }?;
        Ok(Self { fd, _membership: membership, own_mac, own_address, refused: AtomicU64::new(0) })
    }

    /// The next datagram. Frames that are not well formed, or are our own, are counted and skipped. `ENETDOWN` when the device goes down: call
    /// again, it goes on when the device is up. A device that was removed says the same; then [`HsrpSocket::send`] says `ENXIO`: open a new socket.
    /// Safe to cancel: nothing is lost.
    pub async fn recv(&self) -> io::Result<HsrpDatagram> {
        let mut buf = [0; FRAME_BYTES_MAX];
        loop {
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            let (n, from) = match ready.try_io(|fd| Ok(recvfrom::<LinkAddr>(fd.get_ref().as_raw_fd(), &mut buf)?)) {
                Ok(Ok(got)) => got,
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => continue,
            };
            let for_us = from.is_some_and(|a| !matches!(a.pkttype(), libc::PACKET_OUTGOING | libc::PACKET_OTHERHOST));
            match parse(buf.get(..n).unwrap_or_default()) {
                Ok(d) if for_us && d.source_mac != self.own_mac && d.source != self.own_address => return Ok(d),
                Ok(_) | Err(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Multicasts `payload` from our own address and `source_mac` (the virtual MAC while active). Never waits; a full queue is `WouldBlock`.
    pub fn send(&self, payload: &[u8], source_mac: [u8; 6]) -> io::Result<()> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "HSRP payload is too long"));
        }
        let (socket, frame) = (self.fd.get_ref(), frame(source_mac, self.own_address, payload));
        match socket.send(&frame) {
            // May be the echo of a time when the device was down: reporting it has cleared it.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => socket.send(&frame)?,
            result => result?,
        };
        Ok(())
    }

    /// Frames skipped by [`HsrpSocket::recv`].
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn link_address(ifindex: u32) -> io::Result<LinkAddr> {
    let sll = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a whole `sockaddr_ll` that lives through the call, and the length given is its size.
    let address = unsafe { LinkAddr::from_raw((&raw const sll).cast(), Some(size_of::<libc::sockaddr_ll>() as libc::socklen_t)) };
    address.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Classic BPF: no VLAN (or VLAN 0), IPv4, UDP, not a later fragment, destination port 1985. The kernel takes VLAN tags off before taps see a
/// frame, so offsets are those of an untagged one; a frame of another VLAN than this device's still carries its tag beside it.
fn filter() -> [SockFilter; 14] {
    const LD_W_ABS: u16 = 0x20;
    const LD_H_ABS: u16 = 0x28;
    const LD_B_ABS: u16 = 0x30;
    const LD_H_IND: u16 = 0x48;
    const LDX_B_MSH: u16 = 0xb1;
    const AND_K: u16 = 0x54;
    const JEQ_K: u16 = 0x15;
    const JSET_K: u16 = 0x45;
    const RET_K: u16 = 0x06;
    let vlan_tag = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG) as u32;
    [
        SockFilter::new(LD_W_ABS, 0, 0, vlan_tag),
        SockFilter::new(AND_K, 0, 0, 0x0fff),
        SockFilter::new(JEQ_K, 0, 10, 0),
        SockFilter::new(LD_H_ABS, 0, 0, 12),
        SockFilter::new(JEQ_K, 0, 8, ETHERTYPE_IPV4.into()),
        SockFilter::new(LD_B_ABS, 0, 0, 23),
        SockFilter::new(JEQ_K, 0, 6, PROTOCOL_UDP.into()),
        SockFilter::new(LD_H_ABS, 0, 0, 20),
        SockFilter::new(JSET_K, 4, 0, 0x1fff),
        SockFilter::new(LDX_B_MSH, 0, 0, 14),
        SockFilter::new(LD_H_IND, 0, 0, 16),
        SockFilter::new(JEQ_K, 0, 1, PORT.into()),
        SockFilter::new(RET_K, 0, 0, 0xffff),
        SockFilter::new(RET_K, 0, 0, 0),
    ]
}

/// Takes an Ethernet frame apart: with one VLAN tag in it or without, IPv4, whole, header checksum right, UDP to port 1985. The UDP checksum is
/// not checked: on virtual devices the kernel leaves it to be filled in by hardware that is not there.
fn parse(frame: &[u8]) -> Decode<HsrpDatagram> {
    let mut r = Reader::new(frame);
    r.take(6, "ethernet destination")?;
    let source_mac = r.array("ethernet source")?;
    let mut ethertype = r.u16("ethertype")?;
    if ethertype == ETHERTYPE_VLAN {
        r.u16("vlan tag")?;
        ethertype = r.u16("ethertype")?;
    }
    if ethertype != ETHERTYPE_IPV4 {
        return Err(DecodeError::Value { field: "ethertype", got: ethertype.into() });
    }
    let packet = r.rest();
    let first = Reader::new(packet).u8("version")?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_bytes < IPV4_BYTES {
        return Err(DecodeError::Value { field: "version", got: first.into() });
    }
    let mut r = Reader::new(packet);
    let header = r.take(header_bytes, "ipv4 header")?;
    if checksum(0, header) != 0 {
        return Err(DecodeError::Value { field: "ipv4 checksum", got: 0 });
    }
    let mut h = Reader::new(header);
    h.take(2, "ipv4 header")?;
    let total = usize::from(h.u16("ipv4 length")?);
    h.u16("ipv4 identification")?;
    let fragment = h.u16("ipv4 fragment")?;
    let ttl = h.u8("ipv4 ttl")?;
    let protocol = h.u8("ipv4 protocol")?;
    h.u16("ipv4 checksum")?;
    let source = Ipv4Addr::from(h.array::<4>("ipv4 source")?);
    let destination = Ipv4Addr::from(h.array::<4>("ipv4 destination")?);
    // Bit 13: more fragments; bits 12 to 0: offset.
    if fragment & 0x3fff != 0 {
        return Err(DecodeError::Value { field: "ipv4 fragment", got: fragment.into() });
    }
    if protocol != PROTOCOL_UDP {
        return Err(DecodeError::Value { field: "ipv4 protocol", got: protocol.into() });
    }
    let body_bytes = total.checked_sub(header_bytes).ok_or(DecodeError::Length { field: "ipv4 length", got: total })?;
    let mut r = r.sub(body_bytes, "ipv4 length")?;
    r.u16("udp source")?;
    let port = r.u16("udp destination")?;
    if port != PORT {
        return Err(DecodeError::Value { field: "udp destination", got: port.into() });
    }
    let length = usize::from(r.u16("udp length")?);
    r.u16("udp checksum")?;
    let payload_bytes = length.checked_sub(UDP_BYTES).filter(|n| *n <= PAYLOAD_BYTES_MAX);
    let payload = r.take(payload_bytes.ok_or(DecodeError::Length { field: "udp length", got: length })?, "udp length")?;
    Ok(HsrpDatagram { source, destination, ttl, source_mac, payload: payload.to_vec() })
}

/// Builds the frame of a datagram from `source` to [`GROUP`]. The caller bounds the payload.
fn frame(source_mac: [u8; 6], source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_bytes = UDP_BYTES + payload.len();
    let mut ip = Writer::new();
    // Identification 0 and "don't fragment": RFC 6864 4.1.
    ip.u8(0x45).u8(TOS).u16((IPV4_BYTES + udp_bytes) as u16).u16(0).u16(0x4000).u8(TTL).u8(PROTOCOL_UDP).u16(0);
    ip.bytes(&source.octets()).bytes(&GROUP.octets());
    let sum = checksum(0, ip.as_slice());
    ip.patch_u16(10, sum);
    let mut udp = Writer::new();
    udp.u16(PORT).u16(PORT).u16(udp_bytes as u16).u16(0).bytes(payload);
    let mut pseudo = Writer::new();
    pseudo.bytes(&source.octets()).bytes(&GROUP.octets()).u16(PROTOCOL_UDP.into()).u16(udp_bytes as u16);
    let sum = checksum(sum_words(0, pseudo.as_slice()), udp.as_slice());
    // RFC 768: a sum of 0 is sent as all ones, 0 means "no checksum".
    udp.patch_u16(6, if sum == 0 { 0xffff } else { sum });
    let mut out = Writer::new();
    out.bytes(&GROUP_MAC).bytes(&source_mac).u16(ETHERTYPE_IPV4).bytes(ip.as_slice()).bytes(udp.as_slice());
    out.into_vec()
}

/// Sum of 16-bit words, an odd last byte padded with 0. Inputs here are far below the length at which `u32` could overflow.
fn sum_words(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, w| sum + u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])))
}

/// Internet checksum (RFC 1071).
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum_words(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[path = "hsrp_tests.rs"]
mod tests;
