//! A host on each LAN that means no good: malformed IKE, ESP, HSRP and SSP at the pair for as long as the run lasts.
//!
//! What it sends is wrong in itself or comes from nobody: a pair that serves it in any way, or is kept from its work by it, breaks a promise of
//! the report. It does not do what a LAN's own members may always do (ARP, a right HSRP hello of a higher priority).

use super::sys::{self, LinkSwitch};
use super::topology::{ISW, Node, OSW, VIP_IN, VIP_OUT, ip_batch};
use anyhow::{Context, Result};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Namespaces of the two hosts.
const HOSTS: [&str; 2] = ["gwlab-bad-out", "gwlab-bad-in"];
/// Frames per second from each.
const PPS: u64 = 100;
/// HSRP's group of all routers and its port (RFC 2281 5.3).
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const HSRP: u16 = 1985;
const SSP: u16 = 3249;

/// Both hosts, sending. Dropping it ends them.
pub struct Hostile {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Hostile {
    /// Plugs the hosts in and begins.
    pub fn start(seed: u64) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        for (n, (ns, switch)) in HOSTS.into_iter().zip([OSW, ISW]).enumerate() {
            let outside = n == 0;
            let own = own_address(outside);
            let _ = Command::new("ip").args(["netns", "del", ns]).stderr(Stdio::null()).status();
            ip_batch(None, &format!("netns add {ns}\nlink add p-bad netns {switch} type veth peer name eth0 netns {ns}\n"))?;
            ip_batch(Some(switch), "link set p-bad master br0 up\n")?;
            ip_batch(Some(ns), &format!("link set eth0 up\naddr add {own}/24 dev eth0\n"))?;
            let mac = LinkSwitch::open(ns)?.mac_of("eth0")?;
            let (stop, sent) = (stop.clone(), sent.clone());
            let mut dice = Dice(seed.wrapping_add(n as u64));
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let frame = frame(&mut dice, outside, mac);
                    if sys::inject(ns, "eth0", &frame).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    // A stranger at the SSP port now and then: its connection costs more than a frame.
                    if !outside && dice.below(50) == 0 {
                        let _ = stranger(ns, &mut dice);
                    }
                    sys::sleep_ms(1000 / PPS);
                }
            }));
        }
        Ok(Self { stop, sent, threads })
    }

    /// Ends both; answers how many frames they sent.
    pub fn finish(mut self) -> u64 {
        self.end();
        self.sent.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for ns in HOSTS {
            let _ = Command::new("ip").args(["netns", "del", ns]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.end();
        }
    }
}

/// The hosts' own addresses: the last of their LANs that nobody else has.
fn own_address(outside: bool) -> Ipv4Addr {
    let vip = if outside { VIP_OUT.ip() } else { VIP_IN.ip() };
    let [a, b, c, _] = vip.octets();
    Ipv4Addr::new(a, b, c, 253)
}

/// splitmix64: the same seed, the same packets.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn len(&mut self, max: u64) -> usize {
        usize::try_from(self.below(max)).unwrap_or(0)
    }
}

/// One frame at the pair.
fn frame(dice: &mut Dice, outside: bool, mac: [u8; 6]) -> Vec<u8> {
    let vip = if outside { VIP_OUT.ip() } else { VIP_IN.ip() };
    let own = |node: Node| if outside { node.outside() } else { node.inside() };
    let group = if outside { 2 } else { 1 };
    let virtual_mac = [0x00, 0x00, 0x0c, 0x07, 0xac, group];
    let stranger = Ipv4Addr::from(0xc633_6400 | (dice.next() as u32 & 0xff));
    // To the virtual address, or to one of the machines themselves.
    let to = match dice.below(4) {
        0 => own(Node::A),
        1 => own(Node::B),
        _ => vip,
    };
    match dice.below(8) {
        0..=2 => ethernet(virtual_mac, mac, &udp(stranger, to, [500, 500], &ike(dice), 64)),
        3 => {
            let mut natt = vec![0; 4];
            natt.extend(ike(dice));
            ethernet(virtual_mac, mac, &udp(stranger, to, [4500, 4500], &natt, 64))
        }
        4 | 5 => {
            // SPIs of the shape that both nodes give out, of strangers, and packets shorter than any.
            let len = dice.len(200);
            ethernet(virtual_mac, mac, &ipv4(stranger, to, 50, &dice.bytes(len), 64))
        }
        6 => {
            let from = if dice.below(2) == 0 { own_address(outside) } else { own(Node::A) };
            let (payload, ttl) = hsrp(dice, group, vip);
            ethernet([1, 0, 0x5e, 0, 0, 2], mac, &udp(from, ALL_ROUTERS, [HSRP, HSRP], &payload, ttl))
        }
        _ => {
            // A segment out of nowhere that claims to be the partner's.
            let mut tcp = [&SSP.to_be_bytes()[..], &SSP.to_be_bytes(), &dice.bytes(8), &[0x50, 0x18, 0x20, 0, 0, 0, 0, 0]].concat();
            let len = dice.len(100);
            tcp.extend(dice.bytes(len));
            ethernet([0xff; 6], mac, &ipv4(own(Node::B), own(Node::A), 6, &tcp, 64))
        }
    }
}

/// An IKE message that is wrong somewhere.
fn ike(dice: &mut Dice) -> Vec<u8> {
    let body_len = dice.len(300);
    let mut body = dice.bytes(body_len);
    let mut message = dice.bytes(16);
    if dice.below(2) == 0 {
        // A first message: no responder cookie yet.
        message[8..16].fill(0);
    }
    let version = [0x10, 0x20, 0x11, 0x2f, 0x30][dice.len(5)];
    let exchange = [2, 4, 5, 32, 34, 35, 36, 37, 0, 255][dice.len(10)];
    let first = [1, 4, 5, 8, 11, 12, 13, 33, 41, 42, 46, 53, 132, 0, 255][dice.len(15)];
    message.extend([first, version, exchange, dice.next().to_le_bytes()[0]]);
    message.extend(dice.bytes(4));
    let mut length = 28 + body.len();
    match dice.below(6) {
        0 => length += dice.len(60_000),
        1 => length = dice.len(28),
        2 => body.truncate(dice.len(4)),
        3 => {
            // Payloads whose lengths lead nowhere: zero, or past the end.
            for at in (0..body.len().saturating_sub(4)).step_by(16) {
                body[at + 2..at + 4].copy_from_slice(&[[0, 0], [0xff, 0xff], [0, 3]][at / 16 % 3]);
            }
        }
        _ => {}
    }
    message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.extend(body);
    if dice.below(8) == 0 {
        message.truncate(dice.len(28));
    }
    message
}

/// An HSRP packet that must be ignored, and its TTL.
fn hsrp(dice: &mut Dice, group: u8, vip: Ipv4Addr) -> (Vec<u8>, u8) {
    let mut packet = vec![0, 0, 16, 3, 10, 255, group, 0];
    packet.extend(b"cisco\0\0\0");
    packet.extend(vip.octets());
    let mut ttl = 1;
    match dice.below(6) {
        // Another password, another version, no such operation, another group's address, cut short, from far away.
        0 => packet[8..16].copy_from_slice(b"wrong\0\0\0"),
        1 => packet[0] = 1 + dice.next().to_le_bytes()[0] % 250,
        2 => packet[1] = 3 + dice.next().to_le_bytes()[0] % 250,
        3 => packet[6] = 77,
        4 => packet.truncate(dice.len(20)),
        _ => ttl = 64,
    }
    (packet, ttl)
}

/// A connection to the pair's SSP port from a host that is not the partner.
fn stranger(ns: &str, dice: &mut Dice) -> Result<()> {
    let to = SocketAddr::V4(SocketAddrV4::new(Node::BOTH[dice.len(2)].inside(), SSP));
    let bytes = dice.bytes(200);
    sys::in_ns(ns, move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(50)).context("SSP")?;
        stream.set_write_timeout(Some(Duration::from_millis(50)))?;
        stream.write_all(&bytes).context("SSP")
    })
}

fn ethernet(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[8, 0], packet].concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8], ttl: u8) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, ttl, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = header.chunks(2).fold(0_u32, |sum, pair| sum + (u32::from(pair[0]) << 8) + u32::from(pair[1]));
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header.extend(payload);
    header
}

/// Without a checksum, which UDP allows: the receiver's own checks shall decide.
fn udp(from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], payload: &[u8], ttl: u8) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    datagram.extend(payload);
    ipv4(from, to, 17, &datagram, ttl)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::frames::{Frame, parse};

    #[test]
    fn frames_reach_every_protocol_and_are_repeatable() {
        let frames = |seed| {
            let mut dice = Dice(seed);
            (0..400).map(|_| frame(&mut dice, true, [2; 6])).collect::<Vec<_>>()
        };
        assert_eq!(frames(7), frames(7));
        let protocols: std::collections::BTreeSet<u8> = frames(7).iter().map(|f| f[23]).collect();
        assert_eq!(protocols.into_iter().collect::<Vec<_>>(), [6, 17, 50]);
        assert!(frames(7).iter().any(|f| matches!(parse(f), Frame::Ike { .. })));
        for f in frames(7) {
            let sum: u32 = f[14..34].chunks(2).map(|p| (u32::from(p[0]) << 8) + u32::from(p[1])).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "IP checksum of {f:02x?}");
        }
    }

    #[test]
    fn no_hsrp_packet_is_one_that_a_router_would_have_to_obey() {
        let mut dice = Dice(3);
        for _ in 0..200 {
            let (p, ttl) = hsrp(&mut dice, 2, Ipv4Addr::new(40, 0, 0, 1));
            let right = p.len() == 20 && p[0] == 0 && p[1] < 3 && p[6] == 2 && &p[8..13] == b"cisco" && ttl == 1;
            assert!(!right, "{p:02x?} ttl {ttl}");
        }
    }
}
