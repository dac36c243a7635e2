//! UDP 500 and 4500: receives with the local address, sends from a chosen one (the VIP), is never caught by our own IPsec policies.

use super::sockopt::{self, OptionValue};
use crate::ike::Transmit;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Receive buffer: some 2 000 large or 10 000 usual datagrams while the core is busy. Given whole with CAP_NET_ADMIN, else up to `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// UDP encapsulation of ESP, RFC 3948.
const PORT_NATT: u16 = 4500;
/// `UDP_ENCAP` of `linux/udp.h`, at the level of UDP.
const UDP_ENCAP: libc::c_int = 100;
/// `UDP_ENCAP_ESPINUDP`.
const UDP_ENCAP_ESPINUDP: libc::c_int = 2;
/// In front of IKE on port 4500 (RFC 3948 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Class selector 6, network control (RFC 4594 3.1).
const TOS_NETWORK_CONTROL: u32 = 0xc0;

/// Counters of one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IkeSocketStats {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams refused because they were longer than the caller's buffer, or carried no local address.
    pub refused: u64,
    /// NAT keepalives that the kernel left to us.
    pub keepalives: u64,
    /// Datagrams on the port of the encapsulation that are neither IKE nor a keepalive: ESP that the kernel left to us, or rubbish.
    pub not_ike: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams not sent because the socket's buffer was full.
    pub send_full: u64,
    /// Datagrams not sent for another reason.
    pub send_failed: u64,
}

#[derive(Default)]
struct Counters {
    received: AtomicU64,
    refused: AtomicU64,
    keepalives: AtomicU64,
    not_ike: AtomicU64,
    sent: AtomicU64,
    send_full: AtomicU64,
    send_failed: AtomicU64,
}

/// One IKE port on all IPv4 addresses.
pub struct IkeSocket {
    socket: UdpSocket,
    port: u16,
    bypass_error: Option<io::Error>,
    /// ESP in UDP arrives here.
    natt: bool,
    encap_error: Option<io::Error>,
    counters: Counters,
}

impl IkeSocket {
    /// Binds `port` (500 or 4500) on 0.0.0.0. Must be called inside a tokio runtime. Fails with `EADDRINUSE` when another IKE daemon runs
    /// (an IKE daemon already runs), `EACCES` without the right to low ports.
    pub fn bind(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.set_tos_v4(TOS_NETWORK_CONTROL)?;
        sockopt::set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &1)?;
        // IKE messages above the path MTU must leave in fragments, not be lost (RFC 7296 2).
        sockopt::set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DONT)?;
        // An ICMP error about one peer must not become a receive error of all peers.
        sockopt::set(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, &0)?;
        let wanted = RECEIVE_BUFFER_BYTES as libc::c_int;
        if sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &wanted).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        let bypass_error = match bypass(&socket) {
            Ok(()) => None,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EPERM)) => Some(e),
            Err(e) => return Err(e),
        };
        let natt = port == PORT_NATT;
        let encap_error = if natt { encapsulate(&socket)? } else { None };
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
        let port = socket.local_addr()?.as_socket_ipv4().map_or(port, |a| a.port());
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, port, bypass_error, natt, encap_error, counters: Counters::default() })
    }

    /// The port bound.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Why the bypass policies are not set: a kernel without XFRM, or no CAP_NET_ADMIN. With policies that cover IKE's own traffic the
    /// socket is then useless; the daemon reports it.
    pub fn bypass_error(&self) -> Option<&io::Error> {
        self.bypass_error.as_ref()
    }

    /// Why ESP in UDP does not reach the kernel's IPsec: a kernel without it. Peers behind a NAT then get no traffic; the daemon reports it.
    pub fn encap_error(&self) -> Option<&io::Error> {
        self.encap_error.as_ref()
    }

    /// Receives one datagram into `buf`: its length, where it came from, and which local address and port it was sent to.
    /// Longer datagrams than `buf` are counted and skipped; on port 4500 so is what has no non-ESP marker. The marker stays in `buf`.
    /// Safe to cancel: nothing is lost.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
        loop {
            match self.socket.async_io(Interest::READABLE, || receive(&self.socket, buf)).await {
                Ok(Some((n, from, to))) => {
                    if let Some(counter) = self.passes_over(buf.get(..n).unwrap_or_default()) {
                        counter.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    self.counters.received.fetch_add(1, Ordering::Relaxed);
                    return Ok((n, from.into(), SocketAddrV4::new(to, self.port).into()));
                }
                Ok(None) => {
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What is no IKE on the port of the encapsulation, and where it is counted. The kernel usually takes it before us.
    fn passes_over(&self, datagram: &[u8]) -> Option<&AtomicU64> {
        match datagram {
            _ if !self.natt => None,
            [0xff] => Some(&self.counters.keepalives),
            ike if ike.len() > NON_ESP_MARKER.len() && ike.starts_with(&NON_ESP_MARKER) => None,
            _ => Some(&self.counters.not_ike),
        }
    }

    /// Sends one datagram from `transmit.from`'s address (its port is this socket's). Never waits: a full buffer is `WouldBlock`, counted, and
    /// the retransmission repairs it. `EINVAL` when the source is not an address of this machine (a VIP that has left).
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (transmit.from, transmit.to) else {
            self.counters.send_failed.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::Unsupported, "IKE over IPv6"));
        };
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.ip().octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let data = [IoSlice::new(&transmit.payload)];
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        match sendmsg(self.socket.as_raw_fd(), &data, &control, MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn::from(to))) {
            Ok(_) => {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => {
                let full = matches!(e, nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS);
                if full { &self.counters.send_full } else { &self.counters.send_failed }.fetch_add(1, Ordering::Relaxed);
                Err(e.into())
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> IkeSocketStats {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        IkeSocketStats {
            received: get(&self.counters.received),
            refused: get(&self.counters.refused),
            keepalives: get(&self.counters.keepalives),
            not_ike: get(&self.counters.not_ike),
            sent: get(&self.counters.sent),
            send_full: get(&self.counters.send_full),
            send_failed: get(&self.counters.send_failed),
        }
    }
}

/// ESP in UDP goes to the kernel's IPsec, IKE comes to us. The reason why not, when the kernel cannot.
fn encapsulate(socket: &Socket) -> io::Result<Option<io::Error>> {
    match sockopt::set(socket, libc::IPPROTO_UDP, UDP_ENCAP, &UDP_ENCAP_ESPINUDP) {
        Ok(()) => Ok(None),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)) => Ok(Some(e)),
        Err(e) => Err(e),
    }
}

fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Option<(usize, SocketAddrV4, Ipv4Addr)>> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo);
    let mut data = [IoSliceMut::new(buf)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut data, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let Some(from) = message.address else { return Ok(None) };
    for item in message.cmsgs()? {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = item {
            let to = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
            return Ok(Some((message.bytes, from.into(), to)));
        }
    }
    Ok(None)
}

/// `struct xfrm_userpolicy_info` of `linux/xfrm.h`, all fields that are 0 here put together.
#[repr(C)]
#[derive(Clone, Copy)]
struct XfrmUserPolicy {
    /// `xfrm_selector`: addresses, ports and their masks (40 bytes), then family, prefix lengths, protocol, interface, user.
    selector_addresses: [u8; 40],
    selector_family: u16,
    selector_prefixes: [u8; 2],
    selector_proto: u8,
    selector_pad: [u8; 3],
    selector_ifindex: i32,
    selector_user: u32,
    /// `xfrm_lifetime_cfg`: soft and hard bytes, packets, and four times in seconds.
    limits: [u64; 8],
    /// `xfrm_lifetime_cur`.
    current: [u64; 4],
    priority: u32,
    index: u32,
    dir: u8,
    action: u8,
    flags: u8,
    share: u8,
    pad: [u8; 4],
}

const _: () = assert!(std::mem::size_of::<XfrmUserPolicy>() == 168);
const _: () = assert!(std::mem::offset_of!(XfrmUserPolicy, limits) == 56);
const _: () = assert!(std::mem::offset_of!(XfrmUserPolicy, dir) == 160);

// SAFETY: `repr(C)`, integers only, and the padding is spelled out (the size is asserted above).
unsafe impl OptionValue for XfrmUserPolicy {}

const XFRM_POLICY_IN: u8 = 0;
const XFRM_POLICY_OUT: u8 = 1;
const XFRM_POLICY_ALLOW: u8 = 0;
/// `XFRM_INF`: no limit.
const XFRM_INF: u64 = u64::MAX;

/// Policies of this socket alone, in both directions: pass everything in clear. They come before the policies of the system.
fn bypass(socket: &Socket) -> io::Result<()> {
    for dir in [XFRM_POLICY_IN, XFRM_POLICY_OUT] {
        let policy = XfrmUserPolicy {
            selector_addresses: [0; 40],
            selector_family: libc::AF_INET as u16,
            selector_prefixes: [0; 2],
            selector_proto: 0,
            selector_pad: [0; 3],
            selector_ifindex: 0,
            selector_user: 0,
            limits: [XFRM_INF, XFRM_INF, XFRM_INF, XFRM_INF, 0, 0, 0, 0],
            current: [0; 4],
            priority: 0,
            index: 0,
            dir,
            action: XFRM_POLICY_ALLOW,
            flags: 0,
            share: 0,
            pad: [0; 4],
        };
        sockopt::set(socket, libc::IPPROTO_IP, libc::IP_XFRM_POLICY, &policy)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{in_namespace, ip};
    use std::time::Duration;
    use tokio::time::timeout;

    fn addr(a: [u8; 4], port: u16) -> SocketAddr {
        (a, port).into()
    }

    #[tokio::test]
    async fn both_addresses_of_a_datagram_are_the_ones_chosen() {
        let (a, b) = (IkeSocket::bind(0).unwrap(), IkeSocket::bind(0).unwrap());
        let to = addr([127, 0, 0, 2], b.port());
        let from = addr([127, 0, 0, 3], a.port());
        a.send(&Transmit { from, to, payload: b"hello".to_vec() }).unwrap();
        let mut buf = [0; 100];
        let got = timeout(Duration::from_secs(5), b.recv(&mut buf)).await.unwrap().unwrap();
        assert_eq!(got, (5, from, to));
        assert_eq!(&buf[..5], b"hello");
        assert_eq!((a.stats().sent, b.stats().received), (1, 1));
    }

    #[tokio::test]
    async fn a_datagram_longer_than_the_buffer_is_skipped_and_counted() {
        let (a, b) = (IkeSocket::bind(0).unwrap(), IkeSocket::bind(0).unwrap());
        let to = addr([127, 0, 0, 1], b.port());
        let from = addr([127, 0, 0, 1], a.port());
        for payload in [vec![1; 101], vec![2; 100]] {
            a.send(&Transmit { from, to, payload }).unwrap();
        }
        let mut buf = [0; 100];
        let (n, ..) = timeout(Duration::from_secs(5), b.recv(&mut buf)).await.unwrap().unwrap();
        assert_eq!((n, buf[0], b.stats().refused), (100, 2, 1));
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_an_error() {
        let a = IkeSocket::bind(0).unwrap();
        let from = addr([192, 0, 2, 77], a.port());
        let e = a.send(&Transmit { from, to: addr([127, 0, 0, 1], 9), payload: vec![0] }).unwrap_err();
        assert!(matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH)), "{e}");
        assert_eq!(a.stats().send_failed, 1);
        let v6: SocketAddr = "[::1]:500".parse().unwrap();
        assert_eq!(a.send(&Transmit { from: v6, to: v6, payload: vec![0] }).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn an_unreachable_peer_does_not_break_receiving() {
        let (a, b) = (IkeSocket::bind(0).unwrap(), IkeSocket::bind(0).unwrap());
        let from = addr([127, 0, 0, 1], a.port());
        // Nobody listens on the port of a socket that is closed: ICMP port unreachable comes back.
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        a.send(&Transmit { from, to: gone, payload: vec![0] }).unwrap();
        b.send(&Transmit { from: addr([127, 0, 0, 1], b.port()), to: from, payload: b"x".to_vec() }).unwrap();
        let (n, ..) = timeout(Duration::from_secs(5), a.recv(&mut [0; 10])).await.unwrap().unwrap();
        assert_eq!(n, 1);
    }

    #[tokio::test]
    async fn the_bypass_is_set_or_the_reason_is_known() {
        let a = IkeSocket::bind(0).unwrap();
        if let Some(e) = a.bypass_error() {
            assert!(matches!(e.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EPERM)), "{e}");
        }
    }

    #[test]
    fn only_ike_passes_on_the_port_of_the_encapsulation() {
        in_namespace(|| async {
            let b = IkeSocket::bind(4500).unwrap();
            let a = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let ike = [vec![0; 4], vec![9; 28]].concat();
            // Shorter than an ESP header, the kernel leaves it to us even where it does IPsec.
            for payload in [&[0xff][..], &[0xfe], &[1, 2, 3, 4, 5], &[0; 4], &ike] {
                a.send_to(payload, "127.0.0.1:4500").unwrap();
            }
            let mut buf = [0; 100];
            let (n, ..) = timeout(Duration::from_secs(5), b.recv(&mut buf)).await.unwrap().unwrap();
            assert_eq!(&buf[..n], ike);
            let keepalives = if b.encap_error().is_some() { 1 } else { 0 };
            assert_eq!((b.stats().received, b.stats().not_ike, b.stats().keepalives), (1, 3, keepalives));
        });
    }

    /// Policies that block everything in both directions stop another socket's datagrams, and none of this one's.
    #[test]
    fn our_own_policies_do_not_catch_ike() {
        in_namespace(|| async {
            // The loopback device is exempt from policies unless told otherwise.
            for key in ["disable_xfrm", "disable_policy"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/lo/{key}"), "0").unwrap();
            }
            let (a, b) = (IkeSocket::bind(500).unwrap(), IkeSocket::bind(4500).unwrap());
            if a.bypass_error().is_some() {
                eprintln!("skipped: a kernel without XFRM");
                return;
            }
            for dir in ["in", "out"] {
                ip(&format!("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir {dir} action block priority 1"));
            }
            let (from, to) = (addr([127, 0, 0, 1], 500), addr([127, 0, 0, 2], 4500));
            let plain = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            assert!(plain.send_to(b"stopped", to).is_err(), "the policies work");
            a.send(&Transmit { from, to, payload: b"\0\0\0\0passes".to_vec() }).unwrap();
            let mut buf = [0; 100];
            let got = timeout(Duration::from_secs(5), b.recv(&mut buf)).await.unwrap().unwrap();
            assert_eq!((got, &buf[4..10]), ((10, from, to), &b"passes"[..]));
        });
    }
}
