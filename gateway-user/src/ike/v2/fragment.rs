//! IKE fragmentation (RFC 7383): the content of an Encrypted payload in several messages, each protected on its own.

use crate::crypto::CryptoError;
use crate::ike::v2::message::{Fault, HEADER_LEN, Header, Opened, PayloadKind, SealKeys, open_body, outer, seal_body};
use crate::wire::{DecodeError, Reader, Writer};
use std::collections::BTreeMap;

/// Fragments of one message. At the smallest size that anybody uses (576 bytes) it is more than [`BYTES_MAX`] needs.
pub const FRAGMENTS_MAX: u16 = 128;
/// Bytes of one message put together: what a datagram could have carried, cut to what certificates need.
pub const BYTES_MAX: usize = 48 * 1024;
/// Smallest IP packet to cut for: every IPv4 path carries it.
const PACKET_MIN: u16 = 576;
/// Generic header and the two numbers.
const HEAD_LEN: usize = 8;

/// Bytes of one IKE message, so that its IP packet has at most `packet` bytes (576 at least).
pub fn message_max(packet: u16, ipv6: bool, non_esp_marker: bool) -> usize {
    let ip = if ipv6 { 40 } else { 20 };
    usize::from(packet.max(PACKET_MIN)) - ip - 8 - if non_esp_marker { 4 } else { 0 }
}

/// Cuts the content of an Encrypted payload into messages of at most `message_max` bytes each. `iv` fills a fresh IV for each.
///
/// # Errors
/// Keys have not the length of the algorithm, or the content needs more than [`FRAGMENTS_MAX`] messages.
pub fn split(
    header: &Header,
    first: u8,
    plain: &[u8],
    keys: &SealKeys,
    iv: &mut dyn FnMut(&mut [u8]),
    message_max: usize,
) -> Result<Vec<Vec<u8>>, CryptoError> {
    let block = keys.encr.block_len();
    let overhead = HEADER_LEN + HEAD_LEN + keys.sealed_len(0) - block;
    // Whole blocks, one byte of them for the pad length.
    let room = message_max.saturating_sub(overhead) / block * block;
    let room = room.saturating_sub(1).max(1);
    let total = plain.len().div_ceil(room).max(1);
    let too_many = CryptoError::DataLength { got: plain.len(), block: room };
    let total = u16::try_from(total).ok().filter(|n| *n <= FRAGMENTS_MAX).ok_or(too_many)?;
    let mut parts = plain.chunks(room);
    let mut out = Vec::with_capacity(total.into());
    for number in 1..=total {
        let part = parts.next().unwrap_or_default();
        let payload = HEAD_LEN + keys.sealed_len(part.len());
        let mut w = Writer::new();
        Header { next: PayloadKind::Skf.number(), ..*header }.encode(HEADER_LEN + payload, &mut w);
        w.u8(if number == 1 { first } else { 0 }).u8(0).u16(payload as u16).u16(number).u16(total);
        let mut fresh = vec![0; keys.iv_len()];
        iv(&mut fresh);
        out.push(seal_body(w, part, keys, &fresh)?);
    }
    Ok(out)
}

/// True for a message that is a fragment.
pub fn is_fragment(header: &Header) -> bool {
    header.next == PayloadKind::Skf.number()
}

/// What a fragment says of itself, not yet authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its number, 1 to `total`. Number 1 alone may draw the repeated answer to a request that was answered before.
    pub number: u16,
    /// How many there are.
    pub total: u16,
    first: u8,
    at: usize,
}

impl Place {
    /// Reads number and total of a fragment, unauthenticated.
    ///
    /// # Errors
    /// No fragment, numbers out of range, or the payload does not reach to the end of the message.
    pub fn read(datagram: &[u8], header: &Header) -> Result<Self, Fault> {
        let (first, at) = outer(datagram, header, PayloadKind::Skf)?;
        let mut r = Reader::new(datagram);
        r.take(at, "header")?;
        let number = r.u16("fragment number")?;
        let total = r.u16("fragments in total")?;
        if total == 0 || total > FRAGMENTS_MAX {
            return Err(DecodeError::Value { field: "fragments in total", got: total.into() }.into());
        }
        if number == 0 || number > total {
            return Err(DecodeError::Value { field: "fragment number", got: number.into() }.into());
        }
        Ok(Self { number, total, first, at: at + 4 })
    }
}

/// The fragments of one message that have arrived. The caller keeps one for the message ID it waits for, and drops it in time.
#[derive(Default)]
pub struct Reassembly {
    total: u16,
    first: u8,
    parts: BTreeMap<u16, Vec<u8>>,
    bytes: usize,
}

impl Reassembly {
    /// Nothing arrived.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes one fragment: checks that it is wanted, authenticates it, stores it. Gives the whole content with the last one.
    ///
    /// A larger total than before starts anew (the sender cut smaller, RFC 7383 2.5.2), a smaller one is dropped, as are repeats.
    ///
    /// # Errors
    /// Form, integrity, or more than [`BYTES_MAX`]: then everything is forgotten.
    pub fn add(&mut self, datagram: &[u8], header: &Header, keys: &SealKeys) -> Result<Option<Opened>, Fault> {
        let place = Place::read(datagram, header)?;
        // What is not wanted does not cost a decryption.
        if place.total < self.total || (place.total == self.total && self.parts.contains_key(&place.number)) {
            return Ok(None);
        }
        let plain = open_body(datagram, place.at, keys)?;
        if place.total > self.total {
            *self = Self { total: place.total, ..Self::default() };
        }
        if self.bytes + plain.len() > BYTES_MAX {
            *self = Self::default();
            return Err(DecodeError::Length { field: "fragments together", got: plain.len() }.into());
        }
        if place.number == 1 {
            self.first = place.first;
        }
        self.bytes += plain.len();
        self.parts.insert(place.number, plain);
        if self.parts.len() < usize::from(self.total) {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(Opened { first: whole.first, plain: whole.parts.into_values().flatten().collect() }))
    }
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
