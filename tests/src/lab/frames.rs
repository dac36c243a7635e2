//! Reads captured Ethernet frames, as far as the report needs them. Pure.

use super::plan::plan;
use super::tcp::{FNV_START, fnv};
use std::net::Ipv4Addr;

/// Where a frame entered the outside LAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Port {
    /// The remote peer (or on the inside LAN the host).
    Far,
    /// First gateway.
    A,
    /// Second gateway.
    B,
    /// The switch itself.
    Switch,
}

impl Port {
    /// By the switch's device name.
    pub fn by_name(name: &str) -> Self {
        match name {
            "p-a" => Self::A,
            "p-b" => Self::B,
            "p-peer" | "p-host" => Self::Far,
            _ => Self::Switch,
        }
    }
}

/// What a frame is to the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// ESP, plain or in UDP.
    Esp {
        /// Outer source.
        src: Ipv4Addr,
        /// Outer destination.
        dst: Ipv4Addr,
        /// SPI.
        spi: u32,
        /// Sequence number (low 32 bits).
        seq: u32,
        /// Of all bytes behind the Ethernet header except TTL and IP checksum: equal for a frame that is only forwarded again.
        fingerprint: u64,
    },
    /// IKE (UDP 500 or 4500).
    Ike {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
        /// Initiator cookie.
        initiator: u64,
        /// Responder cookie.
        responder: u64,
        /// Exchange type (RFC 2408 3.1).
        exchange: u8,
        /// Message id.
        message_id: u32,
        /// As of ESP.
        fingerprint: u64,
    },
    /// A packet of a protected flow in clear.
    Clear {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
        /// IP protocol.
        protocol: u8,
    },
    /// Anything else.
    Other,
}

/// Exchange types of RFC 2408 3.1 and RFC 2409 5.
pub mod exchange {
    /// Identity Protection: main mode.
    pub const MAIN: u8 = 2;
    /// Aggressive mode.
    pub const AGGRESSIVE: u8 = 4;
    /// Informational.
    pub const INFORMATIONAL: u8 = 5;
    /// Quick mode.
    pub const QUICK: u8 = 32;
    /// Informational of IKEv2 (RFC 7296 3.1).
    pub const INFORMATIONAL_2: u8 = 37;
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
fn ip(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    be32(bytes, at).map(Ipv4Addr::from)
}

/// True for an address of the protected network.
pub fn protected(address: Ipv4Addr) -> bool {
    u32::from(address) >> 8 == u32::from(plan().peer_inside) >> 8
}

/// Classifies one Ethernet frame. Whatever cannot be read is [`Frame::Other`].
pub fn parse(frame: &[u8]) -> Frame {
    parse_ip(frame).unwrap_or(Frame::Other)
}

fn parse_ip(frame: &[u8]) -> Option<Frame> {
    let mut at = 12;
    let mut ethertype = be16(frame, at)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        at += 4;
        ethertype = be16(frame, at)?;
    }
    if ethertype != 0x0800 {
        return None;
    }
    let packet = frame.get(at + 2..)?;
    let length = usize::from(be16(packet, 2)?);
    // Short frames are padded; the padding is not the packet's.
    let packet = packet.get(..length)?;
    let header = usize::from(packet.first()? & 15) * 4;
    let (src, dst, protocol) = (ip(packet, 12)?, ip(packet, 16)?, *packet.get(9)?);
    if be16(packet, 6)? & 0x1fff == 0 {
        let body = packet.get(header..)?;
        let fingerprint = || fnv(fnv(fnv(FNV_START, &packet[..8]), &packet[12..]), &[protocol]);
        let esp = |body: &[u8]| Some(Frame::Esp { src, dst, spi: be32(body, 0)?, seq: be32(body, 4)?, fingerprint: fingerprint() });
        let ike = |body: &[u8]| {
            Some(Frame::Ike {
                src,
                dst,
                initiator: be64(body, 0)?,
                responder: be64(body, 8)?,
                exchange: *body.get(18)?,
                message_id: be32(body, 20)?,
                fingerprint: fingerprint(),
            })
        };
        match protocol {
            50 => return esp(body),
            17 => {
                let (from, to) = (be16(body, 0)?, be16(body, 2)?);
                let payload = body.get(8..)?;
                if !protected(src) && !protected(dst) {
                    if from == 500 || to == 500 {
                        return ike(payload);
                    }
                    if (from == 4500 || to == 4500) && payload.len() > 8 {
                        return if be32(payload, 0)? == 0 { ike(payload.get(4..)?) } else { esp(payload) };
                    }
                }
            }
            _ => {}
        }
    }
    (protected(src) || protected(dst)).then_some(Frame::Clear { src, dst, protocol })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An Ethernet frame with an IPv4 packet.
    pub(crate) fn ethernet(src: [u8; 4], dst: [u8; 4], protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0]);
        frame.extend(((20 + body.len()) as u16).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(src);
        frame.extend(dst);
        frame.extend(body);
        frame
    }

    const VIP: [u8; 4] = [40, 0, 0, 1];
    const PEER: [u8; 4] = [192, 168, 3, 1];

    #[test]
    fn esp_gives_spi_and_sequence_and_ignores_padding() {
        let mut body = vec![0xc1, 2, 3, 4, 0, 0, 0, 9];
        body.extend([7; 16]);
        let mut frame = ethernet(VIP, PEER, 50, &body);
        let Frame::Esp { spi, seq, fingerprint, .. } = parse(&frame) else { panic!("not ESP") };
        assert_eq!((spi, seq), (0xc102_0304, 9));
        frame.extend([0; 8]);
        frame[0] = 0xee;
        let Frame::Esp { fingerprint: same, .. } = parse(&frame) else { panic!("not ESP") };
        assert_eq!(fingerprint, same, "another destination MAC and padding are the same packet");
        frame[14 + 20 + 12] ^= 1;
        let Frame::Esp { fingerprint: other, .. } = parse(&frame) else { panic!("not ESP") };
        assert_ne!(fingerprint, other);
    }

    #[test]
    fn ike_header_is_read_on_both_ports() {
        let mut isakmp = vec![];
        isakmp.extend(0x1111_2222_3333_4444_u64.to_be_bytes());
        isakmp.extend(5_u64.to_be_bytes());
        isakmp.extend([8, 0x10, exchange::QUICK, 1]);
        isakmp.extend(77_u32.to_be_bytes());
        isakmp.extend(28_u32.to_be_bytes());
        for (port, marker) in [(500_u16, &[][..]), (4500, &[0; 4])] {
            let mut udp = vec![];
            udp.extend(port.to_be_bytes());
            udp.extend(port.to_be_bytes());
            udp.extend([0, 0, 0, 0]);
            udp.extend(marker);
            udp.extend(&isakmp);
            let Frame::Ike { initiator, exchange, message_id, .. } = parse(&ethernet(PEER, VIP, 17, &udp)) else { panic!("not IKE") };
            assert_eq!((initiator, exchange, message_id), (0x1111_2222_3333_4444, exchange::QUICK, 77));
        }
    }

    #[test]
    fn a_packet_of_the_protected_network_is_clear_text_whatever_it_carries() {
        let inner = [192, 168, 4, 10];
        assert!(matches!(parse(&ethernet([172, 16, 31, 50], inner, 17, &[0; 16])), Frame::Clear { protocol: 17, .. }));
        assert!(matches!(parse(&ethernet(inner, [172, 16, 31, 50], 6, &[0; 20])), Frame::Clear { protocol: 6, .. }));
        // A fragment without transport header, and UDP 500 between protected hosts.
        let mut fragment = ethernet(inner, [172, 16, 31, 50], 17, &[0; 16]);
        fragment[14 + 7] = 5;
        assert!(matches!(parse(&fragment), Frame::Clear { .. }));
        let ike_like = [[1, 0xf4, 1, 0xf4].as_slice(), &[0; 40]].concat();
        assert!(matches!(parse(&ethernet(inner, [172, 16, 31, 50], 17, &ike_like)), Frame::Clear { .. }));
        let mut tagged = ethernet(inner, VIP, 1, &[0; 8]);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert!(matches!(parse(&tagged), Frame::Clear { protocol: 1, .. }));
    }

    #[test]
    fn cut_frames_are_other_and_never_panic() {
        let frame = ethernet(VIP, PEER, 50, &[1; 24]);
        for len in 0..frame.len() {
            assert_eq!(parse(&frame[..len]), Frame::Other, "cut at {len}");
        }
        assert_eq!(parse(&ethernet(VIP, PEER, 1, &[8, 0, 0, 0])), Frame::Other);
    }
}
