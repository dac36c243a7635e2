//! Frames: built as bytes, so that the product's own packet parser reads them.

use std::net::Ipv4Addr;

/// Ethernet address.
pub type Mac = [u8; 6];

/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// 224.0.0.2, all routers: where HSRP goes (RFC 2281 5).
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Its Ethernet address.
pub const ALL_ROUTERS_MAC: Mac = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x02];
/// ESP.
pub const ESP: u8 = 50;
/// UDP.
pub const UDP: u8 = 17;
/// Port of UDP encapsulation.
const NATT: u16 = 4500;

const ETH: usize = 14;
const IP: usize = 20;

/// Destination of a frame.
pub fn dst_mac(frame: &[u8]) -> Mac {
    [frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]]
}

/// Source of a frame.
pub fn src_mac(frame: &[u8]) -> Mac {
    [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]]
}

/// Puts other addresses into a frame.
pub fn readdress(frame: &mut [u8], src: Mac, dst: Mac) {
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
}

fn eth(src: Mac, dst: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = Vec::with_capacity(ETH + payload.len());
    f.extend_from_slice(&dst);
    f.extend_from_slice(&src);
    f.extend_from_slice(&kind.to_be_bytes());
    f.extend_from_slice(payload);
    f
}

/// An IPv4 packet in a frame.
pub fn ip_frame(src: Mac, dst: Mac, packet: &[u8]) -> Vec<u8> {
    eth(src, dst, 0x0800, packet)
}

/// What is behind the Ethernet header, if it is IPv4.
pub fn ip_of(frame: &[u8]) -> Option<Ip<'_>> {
    if frame.get(12..14)? != [0x08, 0x00] {
        return None;
    }
    ip(frame.get(ETH..)?)
}

/// An ARP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// True for a reply.
    pub reply: bool,
    /// Sender.
    pub mac: Mac,
    /// Sender.
    pub ip: Ipv4Addr,
    /// Asked for, or answered to.
    pub target: Ipv4Addr,
}

/// An ARP frame.
pub fn arp_frame(src: Mac, dst: Mac, arp: &Arp, target_mac: Mac) -> Vec<u8> {
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, if arp.reply { 2 } else { 1 }];
    p.extend_from_slice(&arp.mac);
    p.extend_from_slice(&arp.ip.octets());
    p.extend_from_slice(&target_mac);
    p.extend_from_slice(&arp.target.octets());
    eth(src, dst, 0x0806, &p)
}

/// ARP in a frame.
pub fn arp_of(frame: &[u8]) -> Option<Arp> {
    if frame.get(12..14)? != [0x08, 0x06] {
        return None;
    }
    let p = frame.get(ETH..ETH + 28)?;
    let addr = |i: usize| Ipv4Addr::new(p[i], p[i + 1], p[i + 2], p[i + 3]);
    Some(Arp { reply: p[7] == 2, mac: [p[8], p[9], p[10], p[11], p[12], p[13]], ip: addr(14), target: addr(24) })
}

/// An IPv4 packet, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip<'a> {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol.
    pub proto: u8,
    /// Hops left.
    pub ttl: u8,
    /// Behind the header.
    pub payload: &'a [u8],
    /// The whole packet.
    pub packet: &'a [u8],
}

/// Takes an IPv4 packet (without options) apart.
pub fn ip(packet: &[u8]) -> Option<Ip<'_>> {
    if packet.len() < IP || packet[0] != 0x45 {
        return None;
    }
    let addr = |i: usize| Ipv4Addr::new(packet[i], packet[i + 1], packet[i + 2], packet[i + 3]);
    let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let packet = packet.get(..len)?;
    Some(Ip { src: addr(12), dst: addr(16), proto: packet[9], ttl: packet[8], payload: packet.get(IP..)?, packet })
}

/// An IPv4 packet. Nobody here checks the header's checksum; it is zero.
pub fn ip_packet(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0; IP];
    p[0] = 0x45;
    p[2..4].copy_from_slice(&((IP + payload.len()) as u16).to_be_bytes());
    p[8] = ttl;
    p[9] = proto;
    p[12..16].copy_from_slice(&src.octets());
    p[16..20].copy_from_slice(&dst.octets());
    p.extend_from_slice(payload);
    p
}

/// A UDP datagram (without the IP header).
pub fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut p = Vec::with_capacity(8 + payload.len());
    p.extend_from_slice(&src.to_be_bytes());
    p.extend_from_slice(&dst.to_be_bytes());
    p.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    p.extend_from_slice(&[0, 0]);
    p.extend_from_slice(payload);
    p
}

/// Source port, destination port and payload of a UDP datagram.
pub fn udp_of<'a>(ip: &Ip<'a>) -> Option<(u16, u16, &'a [u8])> {
    if ip.proto != UDP {
        return None;
    }
    let h = ip.payload.get(..8)?;
    let half = |i: usize| u16::from_be_bytes([h[i], h[i + 1]]);
    Some((half(0), half(2), ip.payload.get(8..usize::from(half(4)))?))
}

/// ESP in simulation: the inner packet is not hidden, and the integrity value is a fingerprint of the keys.
pub fn esp(spi: u32, seq: u32, icv: u64, inner: &[u8]) -> Vec<u8> {
    let mut p = Vec::with_capacity(16 + inner.len());
    p.extend_from_slice(&spi.to_be_bytes());
    p.extend_from_slice(&seq.to_be_bytes());
    p.extend_from_slice(&icv.to_be_bytes());
    p.extend_from_slice(inner);
    p
}

/// ESP, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Esp<'a> {
    /// SPI.
    pub spi: u32,
    /// Sequence number.
    pub seq: u32,
    /// Fingerprint of the keys.
    pub icv: u64,
    /// Inner packet.
    pub inner: &'a [u8],
}

/// ESP in an IPv4 packet.
pub fn esp_of<'a>(ip: &Ip<'a>) -> Option<Esp<'a>> {
    if ip.proto != ESP {
        return None;
    }
    let p = ip.payload;
    let h = p.get(..16)?;
    let word = |i: usize| u32::from_be_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]);
    Some(Esp { spi: word(0), seq: word(4), icv: u64::from(word(8)) << 32 | u64::from(word(12)), inner: &p[16..] })
}

/// ESP in an IPv4 packet, plain or in UDP to port 4500 (RFC 3948 2.1); with the ports of the latter.
pub fn esp_or_natt<'a>(ip: &Ip<'a>) -> Option<(Esp<'a>, Option<(u16, u16)>)> {
    if let Some(esp) = esp_of(ip) {
        return Some((esp, None));
    }
    let (from, to, payload) = udp_of(ip)?;
    if to != NATT || payload.get(..4)? == [0; 4] {
        return None;
    }
    esp_of(&Ip { proto: ESP, payload, ..*ip }).map(|esp| (esp, Some((from, to))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_common::classify::{Direction, Kind, parse};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    #[test]
    fn the_programs_parser_reads_our_frames() {
        let (m, n) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let f = ip_frame(m, n, &ip_packet(A, B, ESP, 64, &esp(0x1234_5678, 77, 5, b"inner")));
        let p = parse(&f.as_slice(), Direction::Out);
        assert_eq!((p.kind, p.spi, p.seq, p.src), (Kind::Esp, 0x1234_5678, 77, u32::from(A)));
        let f = ip_frame(m, n, &ip_packet(A, B, UDP, 64, &udp(500, 500, &[0; 40])));
        assert_eq!(parse(&f.as_slice(), Direction::In).kind, Kind::Ike);
        let f = ip_frame(m, ALL_ROUTERS_MAC, &ip_packet(A, ALL_ROUTERS, UDP, 1, &udp(1985, 1985, &[0, 0, 16, 1, 3, 100, 1, 0])));
        let p = parse(&f.as_slice(), Direction::Out);
        assert_eq!((p.kind, p.hsrp_state), (Kind::Hsrp, 16));
        let f = arp_frame(m, BROADCAST, &Arp { reply: false, mac: m, ip: A, target: B }, [0; 6]);
        let p = parse(&f.as_slice(), Direction::Out);
        assert_eq!((p.kind, p.src, p.dst), (Kind::Arp, u32::from(A), u32::from(B)));
        assert_eq!(arp_of(&f).unwrap().target, B);
    }

    #[test]
    fn esp_survives_the_way() {
        let inner = ip_packet(A, B, UDP, 9, &udp(1, 2, b"x"));
        let f = ip_frame([0; 6], [1; 6], &ip_packet(A, B, ESP, 64, &esp(300, 4, u64::MAX - 1, &inner)));
        let outer = ip_of(&f).unwrap();
        let e = esp_of(&outer).unwrap();
        assert_eq!((e.spi, e.seq, e.icv), (300, 4, u64::MAX - 1));
        assert_eq!(udp_of(&ip(e.inner).unwrap()).unwrap(), (1, 2, b"x".as_slice()));
    }
}
