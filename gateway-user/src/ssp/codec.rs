//! Messages to bytes and back, and the frame header around them. The layout is drawn in the module's own page ([`super`]).
//!
//! Decoding never panics and allocates nothing for a count or length it has not checked against both a named limit and the bytes there are.

use super::message::{Client, CounterUpdate, Hello, Message, Role};
use crate::id::{Epoch, Spi};
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Bytes of a frame after its length field: type, sequence number, acknowledgement and body.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the length field.
pub const FRAME_LENGTH_BYTES: usize = 4;
/// Bytes of type, sequence number and acknowledgement.
pub const FRAME_FIXED_BYTES: usize = 2 + 8 + 8;
/// Bytes of a message's body.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_FIXED_BYTES;
/// Bytes of a name: host, configuration item, interface.
pub const NAME_BYTES_MAX: usize = 255;
/// Configuration items in a hello. More than this would not fit a frame with long names, and encoding then fails as a whole.
pub const CONFIG_ITEMS_MAX: usize = 4096;
/// Interfaces in a hello.
pub const INTERFACES_MAX: usize = 64;
/// Bytes of a record's key.
pub const KEY_BYTES_MAX: usize = 256;
/// Bytes of a record's body.
pub const RECORD_BYTES_MAX: usize = 192 * 1024;
/// SA pairs in one `Counters` message; a longer list is sent as several messages.
pub const COUNTERS_MAX: usize = 4096;
/// Bytes of a refusal's text.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Bytes of one `CounterUpdate` on the wire.
const COUNTER_BYTES: usize = 4 + 7 * 8;
/// Shortest configuration item: an empty name and the digest.
const CONFIG_ITEM_BYTES_MIN: usize = 2 + 32;
/// Shortest interface: an empty name, an IPv4 address, a MAC address.
const INTERFACE_BYTES_MIN: usize = 2 + 5 + 6;

/// Number of a message on the wire. A newtype, because the partner may be newer than we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Kind(pub u16);

impl Kind {
    /// [`Message::Hello`].
    pub const HELLO: Self = Self(1);
    /// [`Message::State`].
    pub const STATE: Self = Self(2);
    /// [`Message::ResyncRequest`].
    pub const RESYNC_REQUEST: Self = Self(3);
    /// [`Message::SnapshotBegin`].
    pub const SNAPSHOT_BEGIN: Self = Self(4);
    /// [`Message::SnapshotEnd`].
    pub const SNAPSHOT_END: Self = Self(5);
    /// [`Message::Upsert`].
    pub const UPSERT: Self = Self(6);
    /// [`Message::Delete`].
    pub const DELETE: Self = Self(7);
    /// [`Message::Counters`].
    pub const COUNTERS: Self = Self(8);
    /// [`Message::HandoverPrepare`].
    pub const HANDOVER_PREPARE: Self = Self(9);
    /// [`Message::HandoverArmed`].
    pub const HANDOVER_ARMED: Self = Self(10);
    /// [`Message::HandoverGo`].
    pub const HANDOVER_GO: Self = Self(11);
    /// [`Message::Ping`].
    pub const PING: Self = Self(12);
    /// [`Message::Ack`].
    pub const ACK: Self = Self(13);

    /// Keepalives and bare acknowledgements have no sequence number and are never acknowledged.
    pub const fn is_numbered(self) -> bool {
        !matches!(self, Self::PING | Self::ACK)
    }
}

/// Versions of this protocol a node can speak, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// Oldest.
    pub min: u16,
    /// Newest.
    pub max: u16,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Self = Self { min: 1, max: 1 };

    /// The newest version both speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// Why a message cannot be sent: one of its parts is longer than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{field}: {got} is more than the limit of {max}")]
pub struct TooLarge {
    /// Which part.
    pub field: &'static str,
    /// Its size: bytes, or items of a list.
    pub got: usize,
    /// The limit.
    pub max: usize,
}

/// Header of a frame as received, after its length field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: Kind,
    /// Sequence number: 1, 2, 3 … for numbered kinds, 0 for the others.
    pub seq: u64,
    /// The sender has applied everything up to and including this number of the other direction.
    pub ack: u64,
}

/// Appends a whole frame to `out`. The body's length was bounded by [`encode`].
pub fn put_frame(out: &mut Vec<u8>, header: FrameHeader, body: &[u8]) {
    let length = (FRAME_FIXED_BYTES + body.len()) as u32;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&header.kind.0.to_be_bytes());
    out.extend_from_slice(&header.seq.to_be_bytes());
    out.extend_from_slice(&header.ack.to_be_bytes());
    out.extend_from_slice(body);
}

/// Takes the first frame off `bytes`: its header, its body, and how many bytes it used. `Ok(None)` = more bytes are needed.
/// A length beyond the limit is refused as soon as it can be read.
pub fn take_frame(bytes: &[u8]) -> Decode<Option<(FrameHeader, &[u8], usize)>> {
    let Some((length, rest)) = bytes.split_first_chunk::<FRAME_LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(FRAME_FIXED_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        return Err(DecodeError::Length { field: "frame", got: length });
    }
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let mut r = Reader::new(frame);
    let header = FrameHeader { kind: Kind(r.u16("frame type")?), seq: r.u64("frame sequence")?, ack: r.u64("frame acknowledgement")? };
    Ok(Some((header, r.rest(), FRAME_LENGTH_BYTES + length)))
}

/// Kind of a message.
pub fn kind(message: &Message) -> Kind {
    match message {
        Message::Hello(_) => Kind::HELLO,
        Message::State { .. } => Kind::STATE,
        Message::ResyncRequest { .. } => Kind::RESYNC_REQUEST,
        Message::SnapshotBegin { .. } => Kind::SNAPSHOT_BEGIN,
        Message::SnapshotEnd { .. } => Kind::SNAPSHOT_END,
        Message::Upsert { .. } => Kind::UPSERT,
        Message::Delete { .. } => Kind::DELETE,
        Message::Counters(_) => Kind::COUNTERS,
        Message::HandoverPrepare { .. } => Kind::HANDOVER_PREPARE,
        Message::HandoverArmed { .. } => Kind::HANDOVER_ARMED,
        Message::HandoverGo { .. } => Kind::HANDOVER_GO,
        Message::Ping => Kind::PING,
        Message::Ack => Kind::ACK,
    }
}

fn limit(field: &'static str, got: usize, max: usize) -> Result<(), TooLarge> {
    if got > max { Err(TooLarge { field, got, max }) } else { Ok(()) }
}

/// Body of a message. A hello carries `versions` before everything else.
pub fn encode(message: &Message, versions: Versions) -> Result<Vec<u8>, TooLarge> {
    let mut w = Writer::new();
    match message {
        Message::Hello(hello) => put_hello(&mut w, hello, versions)?,
        Message::State { role, epoch, ready } => {
            w.u8(role_number(*role)).u64(epoch.0).u8(u8::from(*ready));
        }
        Message::ResyncRequest { client, peer } => {
            w.u8(client.map_or(0, client_number));
            match peer {
                None => {
                    w.u8(0);
                }
                Some(peer) => put_ip(&mut w, *peer),
            }
        }
        Message::SnapshotBegin { id, epoch } => {
            w.u64(*id).u64(epoch.0);
        }
        Message::SnapshotEnd { id, records } => {
            w.u64(*id).u64(*records);
        }
        Message::Upsert { client, key, body } => {
            limit("record key", key.len(), KEY_BYTES_MAX)?;
            limit("record body", body.len(), RECORD_BYTES_MAX)?;
            w.u8(client_number(*client)).bytes16(key).u32(body.len() as u32).bytes(body);
        }
        Message::Delete { client, key } => {
            limit("record key", key.len(), KEY_BYTES_MAX)?;
            w.u8(client_number(*client)).bytes16(key);
        }
        Message::Counters(updates) => {
            limit("counters", updates.len(), COUNTERS_MAX)?;
            w.u16(updates.len() as u16);
            for u in updates {
                w.u32(u.spi_in.0).u64(u.seq_in).u64(u.seq_out).u64(u.lease_hi);
                w.u64(u.bytes_in).u64(u.bytes_out).u64(u.packets_in).u64(u.packets_out);
            }
        }
        Message::HandoverPrepare { epoch } | Message::HandoverGo { epoch } => {
            w.u64(epoch.0);
        }
        Message::HandoverArmed { epoch, refused } => {
            limit("refusal", refused.len(), TEXT_BYTES_MAX)?;
            w.u64(epoch.0).bytes16(refused.as_bytes());
        }
        Message::Ping | Message::Ack => {}
    }
    limit("message", w.len(), BODY_BYTES_MAX)?;
    Ok(w.into_vec())
}

/// The versions at the start of a hello's body; this part keeps its place in every version, so that the refusal can name them.
pub fn hello_versions(body: &[u8]) -> Decode<Versions> {
    let mut r = Reader::new(body);
    Ok(Versions { min: r.u16("hello versions")?, max: r.u16("hello versions")? })
}

/// Reads a body. `Ok(None)` = a kind this build does not know.
pub fn decode(kind: Kind, body: &[u8]) -> Decode<Option<Message>> {
    let mut r = Reader::new(body);
    let message = match kind {
        Kind::HELLO => Message::Hello(hello(&mut r)?),
        Kind::STATE => Message::State { role: role(&mut r)?, epoch: epoch(&mut r)?, ready: flag(&mut r, "state ready")? },
        Kind::RESYNC_REQUEST => {
            let client = match r.u8("resync client")? {
                0 => None,
                n => Some(client_of(n, "resync client")?),
            };
            Message::ResyncRequest { client, peer: optional_ip(&mut r, "resync peer")? }
        }
        Kind::SNAPSHOT_BEGIN => Message::SnapshotBegin { id: r.u64("snapshot id")?, epoch: epoch(&mut r)? },
        Kind::SNAPSHOT_END => Message::SnapshotEnd { id: r.u64("snapshot id")?, records: r.u64("snapshot records")? },
        Kind::UPSERT => {
            let client = client_of(r.u8("record client")?, "record client")?;
            let key = r.bytes16(KEY_BYTES_MAX, "record key")?.to_vec();
            let length = r.u32("record body")? as usize;
            if length > RECORD_BYTES_MAX {
                return Err(DecodeError::Length { field: "record body", got: length });
            }
            Message::Upsert { client, key, body: r.take(length, "record body")?.to_vec() }
        }
        Kind::DELETE => {
            let client = client_of(r.u8("record client")?, "record client")?;
            Message::Delete { client, key: r.bytes16(KEY_BYTES_MAX, "record key")?.to_vec() }
        }
        Kind::COUNTERS => {
            let n = count(&mut r, COUNTERS_MAX, COUNTER_BYTES, "counters")?;
            let mut updates = Vec::with_capacity(n);
            for _ in 0..n {
                updates.push(counter(&mut r)?);
            }
            Message::Counters(updates)
        }
        Kind::HANDOVER_PREPARE => Message::HandoverPrepare { epoch: epoch(&mut r)? },
        Kind::HANDOVER_ARMED => Message::HandoverArmed { epoch: epoch(&mut r)?, refused: text(&mut r, TEXT_BYTES_MAX, "refusal")? },
        Kind::HANDOVER_GO => Message::HandoverGo { epoch: epoch(&mut r)? },
        Kind::PING => Message::Ping,
        Kind::ACK => Message::Ack,
        Kind(_) => return Ok(None),
    };
    r.finish("message")?;
    Ok(Some(message))
}

fn put_hello(w: &mut Writer, hello: &Hello, versions: Versions) -> Result<(), TooLarge> {
    limit("host name", hello.hostname.len(), NAME_BYTES_MAX)?;
    limit("configuration items", hello.config.len(), CONFIG_ITEMS_MAX)?;
    limit("interfaces", hello.interfaces.len(), INTERFACES_MAX)?;
    w.u16(versions.min).u16(versions.max).bytes16(hello.hostname.as_bytes());
    w.u8(role_number(hello.role)).u64(hello.epoch.0).u8(u8::from(hello.has_state)).u16(hello.config.len() as u16);
    for (name, digest) in &hello.config {
        limit("configuration item", name.len(), NAME_BYTES_MAX)?;
        w.bytes16(name.as_bytes()).bytes(digest);
    }
    w.u16(hello.interfaces.len() as u16);
    for (name, address, mac) in &hello.interfaces {
        limit("interface name", name.len(), NAME_BYTES_MAX)?;
        w.bytes16(name.as_bytes());
        put_ip(w, *address);
        w.bytes(mac);
    }
    Ok(())
}

fn hello(r: &mut Reader<'_>) -> Decode<Hello> {
    r.take(4, "hello versions")?;
    let hostname = text(r, NAME_BYTES_MAX, "host name")?;
    let role = role(r)?;
    let epoch = epoch(r)?;
    let has_state = flag(r, "hello state")?;
    let n = count(r, CONFIG_ITEMS_MAX, CONFIG_ITEM_BYTES_MIN, "configuration items")?;
    let mut config = Vec::with_capacity(n);
    for _ in 0..n {
        config.push((text(r, NAME_BYTES_MAX, "configuration item")?, r.array("configuration digest")?));
    }
    let n = count(r, INTERFACES_MAX, INTERFACE_BYTES_MIN, "interfaces")?;
    let mut interfaces = Vec::with_capacity(n);
    for _ in 0..n {
        let name = text(r, NAME_BYTES_MAX, "interface name")?;
        let Some(address) = optional_ip(r, "interface address")? else {
            return Err(DecodeError::Value { field: "interface address", got: 0 });
        };
        interfaces.push((name, address, r.array("interface MAC")?));
    }
    Ok(Hello { hostname, role, epoch, has_state, config, interfaces })
}

fn counter(r: &mut Reader<'_>) -> Decode<CounterUpdate> {
    Ok(CounterUpdate {
        spi_in: Spi(r.u32("counter SPI")?),
        seq_in: r.u64("counter seq_in")?,
        seq_out: r.u64("counter seq_out")?,
        lease_hi: r.u64("counter lease_hi")?,
        bytes_in: r.u64("counter bytes_in")?,
        bytes_out: r.u64("counter bytes_out")?,
        packets_in: r.u64("counter packets_in")?,
        packets_out: r.u64("counter packets_out")?,
    })
}

/// A 16-bit count, checked against its limit and against the bytes that many items need at least.
fn count(r: &mut Reader<'_>, max: usize, item_bytes_min: usize, field: &'static str) -> Decode<usize> {
    let n = r.u16(field)? as usize;
    if n > max || n * item_bytes_min > r.remaining() {
        return Err(DecodeError::Length { field, got: n });
    }
    Ok(n)
}

fn text(r: &mut Reader<'_>, max: usize, field: &'static str) -> Decode<String> {
    let bytes = r.bytes16(max, field)?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => Err(DecodeError::Value { field, got: bytes.get(e.valid_up_to()).copied().map_or(0, u64::from) }),
    }
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Decode<bool> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        n => Err(DecodeError::Value { field, got: n.into() }),
    }
}

fn epoch(r: &mut Reader<'_>) -> Decode<Epoch> {
    Ok(Epoch(r.u64("epoch")?))
}

const fn role_number(role: Role) -> u8 {
    match role {
        Role::Init => 1,
        Role::Standby => 2,
        Role::Active => 3,
    }
}

fn role(r: &mut Reader<'_>) -> Decode<Role> {
    match r.u8("role")? {
        1 => Ok(Role::Init),
        2 => Ok(Role::Standby),
        3 => Ok(Role::Active),
        n => Err(DecodeError::Value { field: "role", got: n.into() }),
    }
}

/// The guide's DOI numbers.
const fn client_number(client: Client) -> u8 {
    match client {
        Client::Ipsec => 1,
        Client::Ike => 2,
    }
}

fn client_of(n: u8, field: &'static str) -> Decode<Client> {
    match n {
        1 => Ok(Client::Ipsec),
        2 => Ok(Client::Ike),
        n => Err(DecodeError::Value { field, got: n.into() }),
    }
}

fn put_ip(w: &mut Writer, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => w.u8(4).bytes(&ip.octets()),
        IpAddr::V6(ip) => w.u8(6).bytes(&ip.octets()),
    };
}

fn optional_ip(r: &mut Reader<'_>, field: &'static str) -> Decode<Option<IpAddr>> {
    match r.u8(field)? {
        0 => Ok(None),
        4 => Ok(Some(IpAddr::V4(Ipv4Addr::from(r.array::<4>(field)?)))),
        6 => Ok(Some(IpAddr::V6(Ipv6Addr::from(r.array::<16>(field)?)))),
        n => Err(DecodeError::Value { field, got: n.into() }),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
pub(super) mod tests;
