//! One packet parser for the XDP and tc programs, the tests and the fuzz target.
//!
//! It reads Ethernet, up to two VLAN tags, ARP, IPv4 with options, and of the transport only what a verdict needs: SPI and
//! sequence number of ESP (RFC 4303 2), AH (RFC 4302 2) and ESP in UDP (RFC 3948 2), IKE, NAT keepalives, HSRP (RFC 2281 5),
//! and the ports of other packets. Every read is bounds-checked by [`Packet::window`]; no input makes it panic or loop.

/// Ethernet header without tags.
pub const ETH_LEN: usize = 14;
/// Bytes of a frame the parser may look at: two tags, the longest IPv4 header, UDP and the first 12 bytes behind it.
pub const PARSE_LEN: usize = ETH_LEN + 8 + 60 + 8 + 12;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// IP protocol numbers.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;
/// ESP.
pub const PROTO_ESP: u8 = 50;
/// AH.
pub const PROTO_AH: u8 = 51;
/// SCTP.
pub const PROTO_SCTP: u8 = 132;

const PORT_IKE: u16 = 500;
const PORT_NATT: u16 = 4500;
const PORT_HSRP: u16 = 1985;
const UDP_LEN: u32 = 8;
/// ISAKMP header, RFC 2408 3.1.
const ISAKMP_LEN: u32 = 28;
const IP_FLAG_MF: u16 = 0x2000;
const IP_OFFSET: u16 = 0x1fff;

/// Some bytes of a packet that are known to be there. Fields in network order lie on multiples of their size from two bytes
/// in front of the frame (where the kernel puts it), so a program may load them whole.
pub trait Window {
    /// One byte.
    fn byte(&self, i: usize) -> u8;
    /// Two bytes.
    fn half(&self, i: usize) -> u16;
    /// Four bytes.
    fn word(&self, i: usize) -> u32;
}

/// Where a packet lies. `offset` counts from the first byte of the Ethernet header.
pub trait Packet {
    /// What [`Packet::window`] gives.
    type Window: Window;

    /// Bytes of the whole frame, readable in place or not.
    fn frame_len(&self) -> u32;

    /// `len` bytes at `offset`, or `None` when they are not all there.
    fn window(&self, offset: usize, len: usize) -> Option<Self::Window>;

    /// True for a packet that stands for several (GSO, GRO): its length fields need not match.
    #[inline(always)]
    fn aggregated(&self) -> bool {
        false
    }
}

impl Window for &[u8] {
    fn byte(&self, i: usize) -> u8 {
        self.get(i).copied().unwrap_or(0)
    }

    fn half(&self, i: usize) -> u16 {
        u16::from_be_bytes([self.byte(i), self.byte(i + 1)])
    }

    fn word(&self, i: usize) -> u32 {
        u32::from_be_bytes([self.byte(i), self.byte(i + 1), self.byte(i + 2), self.byte(i + 3)])
    }
}

impl<'a> Packet for &'a [u8] {
    type Window = &'a [u8];

    fn frame_len(&self) -> u32 {
        self.len() as u32
    }

    fn window(&self, offset: usize, len: usize) -> Option<&'a [u8]> {
        self.get(offset..offset.checked_add(len)?)
    }
}

/// A MAC as a number: the first byte is the highest of the low 48 bits.
pub const fn mac(bytes: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
}

/// Whose well-known port counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received: the destination port.
    In,
    /// Sent: the source port.
    Out,
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Another ethertype, or a frame too short to have one.
    NotIp,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv6.
    Ipv6,
    /// IPv4 whose fixed header is cut off.
    HeaderTruncated,
    /// IPv4, addresses known, cut off behind them.
    Truncated,
    /// IPv4, addresses known, with a length field that contradicts another or the frame.
    BadLength,
    /// IPv4 fragment after the first.
    LaterFragment,
    /// ESP.
    Esp,
    /// AH.
    Ah,
    /// IKE on UDP 500.
    Ike,
    /// IKE on UDP 4500 (non-ESP marker).
    NattIke,
    /// ESP on UDP 4500.
    NattEsp,
    /// NAT keepalive on UDP 4500.
    Keepalive,
    /// HSRP (UDP 1985).
    Hsrp,
    /// Other IPv4.
    Other,
}

/// A parsed packet. Fields that the kind does not have are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// Destination MAC, see [`mac`].
    pub dst_mac: u64,
    /// Source MAC.
    pub src_mac: u64,
    /// What it is.
    pub kind: Kind,
    /// IP protocol.
    pub proto: u8,
    /// True for the first fragment of several.
    pub first_fragment: bool,
    /// True when the ports were read.
    pub has_ports: bool,
    /// IPv4 source, or ARP sender; host order.
    pub src: u32,
    /// IPv4 destination, or ARP target; host order.
    pub dst: u32,
    /// IPv4 total length.
    pub ip_len: u32,
    /// SPI of ESP and AH.
    pub spi: u32,
    /// Sequence number (low 32 bits) of ESP and AH.
    pub seq: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sender's MAC in ARP.
    pub arp_mac: u64,
    /// HSRP version 0 op code (0 hello, 1 coup, 2 resign).
    pub hsrp_opcode: u8,
    /// HSRP version 0 state (16 active).
    pub hsrp_state: u8,
}

impl Parsed {
    #[inline(always)]
    const fn new() -> Self {
        Self {
            dst_mac: 0,
            src_mac: 0,
            kind: Kind::NotIp,
            proto: 0,
            first_fragment: false,
            has_ports: false,
            src: 0,
            dst: 0,
            ip_len: 0,
            spi: 0,
            seq: 0,
            src_port: 0,
            dst_port: 0,
            arp_mac: 0,
            hsrp_opcode: 0,
            hsrp_state: 0,
        }
    }

    /// True for broadcast and multicast frames.
    #[inline(always)]
    pub const fn to_group(&self) -> bool {
        self.dst_mac >> 40 & 1 == 1
    }

    /// True for everything that IPsec sends or that may be a part of it: what a node without the role must not see.
    #[inline(always)]
    pub const fn ipsec(&self) -> bool {
        match self.kind {
            Kind::Esp | Kind::Ah | Kind::Ike | Kind::NattIke | Kind::NattEsp | Kind::Keepalive => true,
            Kind::Truncated | Kind::BadLength | Kind::LaterFragment => {
                matches!(self.proto, PROTO_ESP | PROTO_AH | PROTO_UDP)
            }
            Kind::NotIp | Kind::Arp | Kind::Ipv6 | Kind::HeaderTruncated | Kind::Hsrp | Kind::Other => false,
        }
    }
}

/// Parses one Ethernet frame.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, direction: Direction) -> Parsed {
    let mut p = Parsed::new();
    let Some(eth) = packet.window(0, ETH_LEN) else { return p };
    p.dst_mac = (eth.half(0) as u64) << 32 | eth.word(2) as u64;
    p.src_mac = (eth.word(6) as u64) << 16 | eth.half(10) as u64;
    let mut ethertype = eth.half(12);
    let mut l3 = ETH_LEN;
    if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
        let Some(tag) = packet.window(l3, 4) else { return p };
        ethertype = tag.half(2);
        l3 = ETH_LEN + 4;
        if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
            let Some(tag) = packet.window(l3, 4) else { return p };
            ethertype = tag.half(2);
            l3 = ETH_LEN + 8;
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4(packet, l3, direction, &mut p),
        ETHERTYPE_ARP => parse_arp(packet, l3, &mut p),
        ETHERTYPE_IPV6 => p.kind = Kind::Ipv6,
        _ => {}
    }
    p
}

/// RFC 826; only Ethernet and IPv4.
#[inline(always)]
fn parse_arp<P: Packet>(packet: &P, l3: usize, p: &mut Parsed) {
    let Some(arp) = packet.window(l3, 28) else { return };
    if arp.word(0) != 0x0001_0800 || arp.half(4) != 0x0604 {
        return;
    }
    p.kind = Kind::Arp;
    p.arp_mac = (arp.word(8) as u64) << 16 | arp.half(12) as u64;
    // The addresses are not aligned here.
    p.src = (arp.half(14) as u32) << 16 | arp.half(16) as u32;
    p.dst = arp.word(24);
}

#[inline(always)]
fn parse_ipv4<P: Packet>(packet: &P, l3: usize, direction: Direction, p: &mut Parsed) {
    let Some(ip) = packet.window(l3, 20) else {
        p.kind = Kind::HeaderTruncated;
        return;
    };
    p.proto = ip.byte(9);
    p.src = ip.word(12);
    p.dst = ip.word(16);
    let first = ip.byte(0);
    let header = (first & 0xf) as u32 * 4;
    let frame = packet.frame_len();
    let available = frame.saturating_sub(l3 as u32);
    let mut total = ip.half(2) as u32;
    if packet.aggregated() {
        total = available;
    }
    p.ip_len = total;
    p.kind = Kind::BadLength;
    if first >> 4 != 4 || header < 20 || total < header {
        return;
    }
    p.kind = Kind::Truncated;
    if total > available {
        return;
    }
    let fragment = ip.half(6);
    if fragment & IP_OFFSET != 0 {
        p.kind = Kind::LaterFragment;
        return;
    }
    p.first_fragment = fragment & IP_FLAG_MF != 0;
    let l4 = l3 + header as usize;
    let payload = total - header;
    match p.proto {
        PROTO_ESP => {
            if payload < 8 {
                return;
            }
            let Some(esp) = packet.window(l4, 8) else { return };
            p.spi = esp.word(0);
            p.seq = esp.word(4);
            p.kind = Kind::Esp;
        }
        PROTO_AH => {
            if payload < 12 {
                return;
            }
            let Some(ah) = packet.window(l4, 12) else { return };
            p.spi = ah.word(4);
            p.seq = ah.word(8);
            p.kind = Kind::Ah;
        }
        PROTO_UDP => parse_udp(packet, l4, payload, direction, p),
        PROTO_TCP | PROTO_SCTP => {
            p.kind = Kind::Other;
            if payload >= 4
                && let Some(ports) = packet.window(l4, 4)
            {
                p.has_ports = true;
                p.src_port = ports.half(0);
                p.dst_port = ports.half(2);
            }
        }
        _ => p.kind = Kind::Other,
    }
}

/// The kind is `Truncated` on entry.
#[inline(always)]
fn parse_udp<P: Packet>(packet: &P, l4: usize, payload: u32, direction: Direction, p: &mut Parsed) {
    if payload < UDP_LEN {
        return;
    }
    let Some(udp) = packet.window(l4, 8) else { return };
    p.has_ports = true;
    p.src_port = udp.half(0);
    p.dst_port = udp.half(2);
    let len = udp.half(4) as u32;
    // A first fragment holds less than its UDP length says.
    let whole = !p.first_fragment && !packet.aggregated();
    let data = if whole {
        if len < UDP_LEN || len > payload {
            p.kind = Kind::BadLength;
            return;
        }
        len - UDP_LEN
    } else {
        payload - UDP_LEN
    };
    if p.dst_port == PORT_HSRP {
        if data < 8 {
            return;
        }
        let Some(hsrp) = packet.window(l4 + 8, 3) else { return };
        p.kind = Kind::Hsrp;
        if hsrp.byte(0) == 0 {
            p.hsrp_opcode = hsrp.byte(1);
            p.hsrp_state = hsrp.byte(2);
        }
        return;
    }
    let port = match direction {
        Direction::In => p.dst_port,
        Direction::Out => p.src_port,
    };
    if port == PORT_IKE {
        if data >= ISAKMP_LEN || !whole {
            p.kind = Kind::Ike;
        }
        return;
    }
    if port != PORT_NATT {
        p.kind = Kind::Other;
        return;
    }
    // RFC 3948 2.3: a single 0xff; 2.2: four zero bytes before IKE; anything else is an SPI.
    if data == 1 {
        let Some(byte) = packet.window(l4 + 8, 1) else { return };
        if byte.byte(0) == 0xff {
            p.kind = Kind::Keepalive;
        }
        return;
    }
    if data < 4 {
        return;
    }
    let Some(marker) = packet.window(l4 + 8, 4) else { return };
    if marker.word(0) == 0 {
        if data >= 4 + ISAKMP_LEN || !whole {
            p.kind = Kind::NattIke;
        }
        return;
    }
    if data < 8 {
        return;
    }
    let Some(esp) = packet.window(l4 + 8, 8) else { return };
    p.spi = esp.word(0);
    p.seq = esp.word(4);
    p.kind = Kind::NattEsp;
}
