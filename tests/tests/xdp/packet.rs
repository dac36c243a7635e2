//! Frames, byte by byte, independent of the code under test.

use std::net::Ipv4Addr;

/// One Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

/// An Ethernet header without type.
pub struct Eth([u8; 12]);

/// Starts a frame.
pub fn eth(dst: [u8; 6], src: [u8; 6]) -> Eth {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&dst);
    macs[6..].copy_from_slice(&src);
    Eth(macs)
}

/// ESP header and some ciphertext: 16 bytes.
pub fn esp(spi: u32, seq: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &seq.to_be_bytes(), &[0x5a; 8]].concat()
}

/// UDP without checksum.
pub fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    [&src.to_be_bytes()[..], &dst.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

impl Eth {
    /// Any ethertype.
    pub fn raw(self, ethertype: u16, payload: &[u8]) -> Frame {
        Frame([&self.0[..], &ethertype.to_be_bytes(), payload].concat())
    }

    /// IPv4 without options.
    pub fn ipv4(self, src: Ipv4Addr, dst: Ipv4Addr, proto: u8, payload: &[u8]) -> Frame {
        self.ipv4_with(src, dst, proto, 0, 0, payload)
    }

    /// IPv4 with a fragment word and bytes of options (no-operations).
    pub fn ipv4_with(self, src: Ipv4Addr, dst: Ipv4Addr, proto: u8, fragment: u16, options: usize, payload: &[u8]) -> Frame {
        let mut p = vec![0_u8; 20];
        p.extend(std::iter::repeat_n(1, options));
        p[0] = 0x40 | (p.len() / 4) as u8;
        let total = (p.len() + payload.len()) as u16;
        p[2..4].copy_from_slice(&total.to_be_bytes());
        p[6..8].copy_from_slice(&fragment.to_be_bytes());
        p[8] = 64;
        p[9] = proto;
        p[12..16].copy_from_slice(&src.octets());
        p[16..20].copy_from_slice(&dst.octets());
        let sum: u32 = p.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        p.extend_from_slice(payload);
        self.raw(0x0800, &p)
    }

    /// ARP reply.
    pub fn arp(self, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
        let head = [0, 1, 8, 0, 6, 4, 0, 2];
        self.raw(0x0806, &[&head[..], &sender_mac, &sender.octets(), &[0; 6], &target.octets()].concat())
    }

    /// HSRP version 1 to 224.0.0.2 (RFC 2281 5.1), group 2.
    pub fn hsrp(self, src: Ipv4Addr, opcode: u8, state: u8) -> Frame {
        let mut message = vec![0, opcode, state, 3, 10, 100, 2, 0];
        message.extend_from_slice(b"cisco\0\0\0");
        message.extend_from_slice(&[203, 0, 113, 1]);
        self.ipv4(src, Ipv4Addr::new(224, 0, 0, 2), 17, &udp(1985, 1985, &message))
    }
}

impl Frame {
    /// The first `len` bytes.
    pub fn cut(mut self, len: usize) -> Self {
        self.0.truncate(len);
        self
    }

    /// One byte changed.
    pub fn with_byte(mut self, at: usize, byte: u8) -> Self {
        self.0[at] = byte;
        self
    }

    /// VLAN tags, outermost first.
    pub fn tagged(self, tags: &[u16]) -> Self {
        let mut out = self.0[..12].to_vec();
        for tag in tags {
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&[0, 7]);
        }
        out.extend_from_slice(&self.0[12..]);
        Self(out)
    }
}
