//! Netlink framing: messages and attributes in the machine's own byte order, padded to four bytes (`linux/netlink.h`).
//!
//! Only the kernel writes what is parsed here, yet every read is checked: a short message gives `None`, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zeroize::Zeroizing;

/// Length of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;
/// `NLMSG_ERROR`: an answer, error 0 is the acknowledgement.
pub const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: end of a dump.
pub const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the table changed under the dump.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_REPLACE`.
pub const NLM_F_REPLACE: u16 = 0x100;
/// `NLM_F_CAPPED` of an answer: the request is not echoed.
pub const NLM_F_CAPPED: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const NLM_F_EXCL: u16 = 0x200;
/// `NLM_F_ACK_TLVS` of an answer: attributes with the kernel's text follow.
pub const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLM_F_DUMP`.
pub const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub const NLM_F_CREATE: u16 = 0x400;

/// Bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Room for the largest message that carries keys (an SA with a 4096-packet window is 1 100 bytes), so that no reallocation
/// leaves a copy of a key behind.
const REQUEST_CAPACITY: usize = 2048;

const fn align4(len: usize) -> usize {
    (len + 3) & !3
}

/// One request without its header: message type, flags, body. The body is zeroised when dropped, it may hold keys.
pub struct Request {
    kind: u16,
    flags: u16,
    body: Zeroizing<Vec<u8>>,
}

impl Request {
    /// An empty request of a message type; `NLM_F_REQUEST` and the acknowledgement are the socket's business.
    pub fn new(kind: u16, flags: u16) -> Self {
        Self { kind, flags, body: Zeroizing::new(Vec::with_capacity(REQUEST_CAPACITY)) }
    }

    /// The bytes after the header.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Message type.
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// Appends header and body to `out`, asking for an answer under `seq`. `extra` is added to the flags.
    pub fn write_to(&self, out: &mut Vec<u8>, seq: u32, extra: u16) {
        let len = HEADER_LEN + self.body.len();
        out.extend_from_slice(&(len as u32).to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | NLM_F_REQUEST | extra).to_ne_bytes());
        out.extend_from_slice(&seq.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&self.body);
        out.resize(out.len() + align4(len) - len, 0);
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend_from_slice(bytes);
        self
    }

    /// `count` zero bytes.
    pub fn zeros(&mut self, count: usize) -> &mut Self {
        let len = self.body.len() + count;
        self.body.resize(len, 0);
        self
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.bytes(&[v])
    }

    /// 16 bits, native order.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_ne_bytes())
    }

    /// 32 bits, native order.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_ne_bytes())
    }

    /// 64 bits, native order.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes(&v.to_ne_bytes())
    }

    /// 16 bits, network order.
    pub fn be16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// 32 bits, network order.
    pub fn be32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// An address in 16 bytes (`xfrm_address_t`): IPv4 in the first four.
    pub fn addr16(&mut self, addr: IpAddr) -> &mut Self {
        match addr {
            IpAddr::V4(a) => self.bytes(&a.octets()).zeros(12),
            IpAddr::V6(a) => self.bytes(&a.octets()),
        }
    }

    /// An attribute whose value `fill` writes; nests. Length and padding are set here.
    pub fn attr(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.body.len();
        self.u16(0).u16(kind);
        fill(self);
        let len = self.body.len() - start;
        if let Some(field) = self.body.get_mut(start..start + 2) {
            field.copy_from_slice(&(len as u16).to_ne_bytes());
        }
        self.zeros(align4(len) - len)
    }
}

/// One received message.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number of the request it answers; 0 for events.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of one datagram. Stops at the first that does not fit.
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Over a received datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = Fields::new(self.0, HEADER_LEN)?;
        let len = header.u32(0) as usize;
        let body = self.0.get(HEADER_LEN..len)?;
        let message = Message { kind: header.u16(4), flags: header.u16(6), seq: header.u32(8), body };
        self.0 = self.0.get(align4(len)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes of a message or of a nest: (type without flags, value). Stops at the first that does not fit.
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// Over the bytes after the fixed part of a message; `fixed` is its length.
    pub fn after(body: &'a [u8], fixed: usize) -> Self {
        Self(body.get(align4(fixed)..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let header = Fields::new(self.0, 4)?;
        let len = header.u16(0) as usize;
        let value = self.0.get(4..len)?;
        let kind = header.u16(2) & NLA_TYPE_MASK;
        self.0 = self.0.get(align4(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A fixed structure: fields by offset. Its length was checked when it was made; a read beyond it gives zero.
#[derive(Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The first `len` bytes of `bytes`, or `None` when there are fewer.
    pub fn new(bytes: &'a [u8], len: usize) -> Option<Self> {
        bytes.get(..len).map(Self)
    }

    /// A structure inside this one.
    pub fn sub(&self, at: usize, len: usize) -> Option<Self> {
        Self::new(self.0.get(at..)?, len)
    }

    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    /// One byte.
    pub fn u8(&self, at: usize) -> u8 {
        u8::from_ne_bytes(self.take(at))
    }

    /// 16 bits, native order.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.take(at))
    }

    /// 32 bits, native order.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.take(at))
    }

    /// 64 bits, native order.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.take(at))
    }

    /// 16 bits, network order.
    pub fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.take(at))
    }

    /// 32 bits, network order.
    pub fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.take(at))
    }

    /// A 16-byte address of `family` (`AF_INET6`, everything else is read as IPv4).
    pub fn addr16(&self, at: usize, family: u16) -> IpAddr {
        if i32::from(family) == libc::AF_INET6 {
            IpAddr::V6(Ipv6Addr::from(self.take::<16>(at)))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.take::<4>(at)))
        }
    }
}

/// Address family number of an address.
pub fn family_of(addr: IpAddr) -> u16 {
    match addr {
        IpAddr::V4(_) => libc::AF_INET as u16,
        IpAddr::V6(_) => libc::AF_INET6 as u16,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn a_request_is_framed_and_padded() {
        let mut request = Request::new(0x1a, NLM_F_CREATE);
        request.u32(0x0102_0304).attr(5, |r| {
            r.bytes(b"abc");
        });
        let mut out = Vec::new();
        request.write_to(&mut out, 7, NLM_F_ACK);
        assert_eq!(out, hex!("1c000000 1a00 0504 07000000 00000000 04030201 0700 0500 61626300"));
    }

    #[test]
    fn nested_attributes_carry_their_own_lengths() {
        let mut request = Request::new(16, 0);
        request.attr(18, |r| {
            r.attr(1, |r| {
                r.bytes(b"macvlan");
            })
            .attr(2, |r| {
                r.attr(1, |r| {
                    r.u32(1);
                });
            });
        });
        assert_eq!(request.body(), hex!("1c00 1200 0b00 0100 6d6163766c616e00 0c00 0200 0800 0100 01000000"));
    }

    #[test]
    fn messages_and_attributes_end_at_damage() {
        let whole = hex!("18000000 0200 0000 01000000 00000000 0800 0100 05000000 18000000 0300 0000 02000000");
        let seen: Vec<_> = Messages::new(&whole).map(|m| (m.kind, m.seq, m.body.len())).collect();
        assert_eq!(seen, [(2, 1, 8)], "the second message is cut off");
        let attrs: Vec<_> = Attrs::after(&hex!("0500 0180 ff000000 0300 0200 0900 0300 01"), 0).collect();
        assert_eq!(attrs, [(1, &[0xff][..])], "a length below four ends the list");
        for cut in 0..whole.len() {
            let _ = Messages::new(&whole[..cut]).map(|m| Attrs::after(m.body, 0).count()).sum::<usize>();
        }
    }
}
