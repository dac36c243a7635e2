//! Encoding of a child pair for the standby (SSP client 1, IPSec HA Manager).

use super::child::{ChildSa, Counters, Encap, EspKeys, Lifetime, Mode, Selector};
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, Secret};
use crate::id::{IkeSaId, IkeVersion, PolicyDigest, Spi};
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Version of this encoding.
const VERSION: u8 = 2;
const NAME_MAX: usize = 255;
const KEY_MAX: usize = 64;
const FLAG_INITIATOR: u8 = 1;
const FLAG_ESN: u8 = 2;
const FLAG_ENCAP: u8 = 4;
const FLAG_V2: u8 = 8;

/// Which halves are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildStage {
    /// Responder before the last message: receives only.
    Inbound,
    /// Initiator of a rekey: receives, and sends as soon as the peer shows that it has the pair.
    Pending,
    /// Both halves in use.
    Live,
    /// The old pair of a rekey: receives only.
    Retired,
}

/// A child pair as the standby gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildRecord {
    /// The pair.
    pub child: ChildSa,
    /// Halves in use.
    pub stage: ChildStage,
    /// Age when sent: relative, because the nodes' clocks differ.
    pub age: Duration,
    /// Counters when sent.
    pub counters: Counters,
    /// Outbound numbers up to and including this one are reserved for the sender.
    pub lease_hi: u64,
}

pub(crate) fn put_addr(w: &mut Writer, a: IpAddr) {
    match a {
        IpAddr::V4(a) => w.u8(4).bytes(&a.octets()),
        IpAddr::V6(a) => w.u8(6).bytes(&a.octets()),
    };
}

pub(crate) fn get_addr(r: &mut Reader<'_>) -> Decode<IpAddr> {
    match r.u8("address family")? {
        4 => Ok(IpAddr::V4(Ipv4Addr::from(r.array::<4>("address")?))),
        6 => Ok(IpAddr::V6(Ipv6Addr::from(r.array::<16>("address")?))),
        got => Err(DecodeError::Value { field: "address family", got: got.into() }),
    }
}

/// An address and a port.
pub(crate) fn put_socket(w: &mut Writer, a: SocketAddr) {
    put_addr(w, a.ip());
    w.u16(a.port());
}

pub(crate) fn get_socket(r: &mut Reader<'_>) -> Decode<SocketAddr> {
    Ok(SocketAddr::new(get_addr(r)?, r.u16("port")?))
}

/// A time span in milliseconds.
pub(crate) fn put_ms(w: &mut Writer, d: Duration) {
    w.u64(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
}

fn put_selector(w: &mut Writer, s: Selector) {
    put_addr(w, s.addr);
    w.u8(s.prefix).u8(s.proto).u16(s.port);
}

fn get_selector(r: &mut Reader<'_>) -> Decode<Selector> {
    let addr = get_addr(r)?;
    let prefix = r.u8("prefix")?;
    if prefix > if addr.is_ipv4() { 32 } else { 128 } {
        return Err(DecodeError::Value { field: "prefix", got: prefix.into() });
    }
    Ok(Selector { addr, prefix, proto: r.u8("protocol")?, port: r.u16("port")? })
}

/// Codes are positions, from 1: new ones go to the end.
pub(crate) const CIPHERS: [CipherAlg; 28] = {
    use AesKey::*;
    use CipherAlg::*;
    use Icv::*;
    [
        Des,
        TripleDes,
        Aes128,
        Aes192,
        Aes256,
        Null,
        AesCtr(Bits128),
        AesCtr(Bits192),
        AesCtr(Bits256),
        AesGcm(Bits128, Bytes8),
        AesGcm(Bits192, Bytes8),
        AesGcm(Bits256, Bytes8),
        AesGcm(Bits128, Bytes12),
        AesGcm(Bits192, Bytes12),
        AesGcm(Bits256, Bytes12),
        AesGcm(Bits128, Bytes16),
        AesGcm(Bits192, Bytes16),
        AesGcm(Bits256, Bytes16),
        AesCcm(Bits128, Bytes8),
        AesCcm(Bits192, Bytes8),
        AesCcm(Bits256, Bytes8),
        AesCcm(Bits128, Bytes12),
        AesCcm(Bits192, Bytes12),
        AesCcm(Bits256, Bytes12),
        AesCcm(Bits128, Bytes16),
        AesCcm(Bits192, Bytes16),
        AesCcm(Bits256, Bytes16),
        ChaCha20Poly1305,
    ]
};
pub(crate) const INTEGS: [IntegAlg; 7] = [
    IntegAlg::HmacMd5,
    IntegAlg::HmacSha1,
    IntegAlg::HmacSha256,
    IntegAlg::HmacSha384,
    IntegAlg::HmacSha512,
    IntegAlg::AesXcbc,
    IntegAlg::AesCmac,
];

pub(crate) fn code<T: PartialEq>(table: &[T], v: &T) -> u8 {
    // Codes count from 1; 0 means none.
    table.iter().position(|t| t == v).map_or(0, |p| p as u8 + 1)
}

pub(crate) fn uncode<T: Copy>(table: &[T], c: u8, field: &'static str) -> Decode<T> {
    (c as usize).checked_sub(1).and_then(|i| table.get(i)).copied().ok_or(DecodeError::Value { field, got: c.into() })
}

fn put_keys(w: &mut Writer, k: &EspKeys) {
    w.bytes16(k.encr.expose()).bytes16(k.integ.expose());
}

fn get_keys(r: &mut Reader<'_>, encr: CipherAlg, integ: Option<IntegAlg>) -> Decode<EspKeys> {
    let key = |r: &mut Reader<'_>, want: usize, field| {
        let b = r.bytes16(KEY_MAX, field)?;
        if b.len() != want {
            return Err(DecodeError::Length { field, got: b.len() });
        }
        Ok(Secret::new(b.to_vec()))
    };
    Ok(EspKeys { encr: key(r, encr.keymat_len(), "encryption key")?, integ: key(r, integ.map_or(0, IntegAlg::key_len), "integrity key")? })
}

impl ChildRecord {
    /// Key of the record: the inbound SPI.
    pub fn key(spi_in: Spi) -> Vec<u8> {
        spi_in.0.to_be_bytes().to_vec()
    }

    /// The inbound SPI a key names.
    pub fn parse_key(key: &[u8]) -> Decode<Spi> {
        let mut r = Reader::new(key);
        let spi = Spi(r.u32("record key")?);
        r.finish("record key")?;
        Ok(spi)
    }

    /// Encodes the record. The buffer holds keys: hand it to the encrypted channel only.
    pub fn encode(&self) -> Vec<u8> {
        let c = &self.child;
        let mut w = Writer::new();
        w.u8(VERSION).u8(match self.stage {
            ChildStage::Inbound => 1,
            ChildStage::Live => 2,
            ChildStage::Retired => 3,
            ChildStage::Pending => 4,
        });
        w.u64(self.age.as_millis() as u64).u64(self.lease_hi);
        let n = &self.counters;
        w.u64(n.seq_in).u64(n.seq_out).u64(n.bytes_in).u64(n.bytes_out).u64(n.packets_in).u64(n.packets_out);
        w.u32(c.spi_in.0).u32(c.spi_out.0).bytes(&c.isakmp.initiator).bytes(&c.isakmp.responder);
        w.bytes16(c.map.as_bytes()).u32(c.map_seq).u32(c.ace).bytes(&c.digest.0);
        put_addr(&mut w, c.local);
        put_addr(&mut w, c.peer);
        put_selector(&mut w, c.ts_local);
        put_selector(&mut w, c.ts_remote);
        w.u8(match c.mode {
            Mode::Tunnel => 1,
            Mode::Transport => 2,
        });
        w.u8(code(&CIPHERS, &c.encr)).u8(c.integ.map_or(0, |i| code(&INTEGS, &i)));
        w.u16(c.pfs.map_or(0, DhGroup::number));
        for l in [c.lifetime, c.soft] {
            w.u64(l.seconds).u64(l.kilobytes);
        }
        let flags =
            [(c.initiator, FLAG_INITIATOR), (c.esn, FLAG_ESN), (c.encap.is_some(), FLAG_ENCAP), (c.version == IkeVersion::V2, FLAG_V2)];
        w.u32(c.replay_window).u8(flags.iter().filter(|(set, _)| *set).map(|(_, f)| f).sum());
        if let Some(e) = c.encap {
            w.u16(e.local_port).u16(e.peer_port);
        }
        put_keys(&mut w, &c.keys_in);
        put_keys(&mut w, &c.keys_out);
        w.into_vec()
    }

    /// Decodes a record; every length and value is checked.
    pub fn decode(bytes: &[u8]) -> Decode<Self> {
        let r = &mut Reader::new(bytes);
        let version = r.u8("record version")?;
        if version != VERSION {
            return Err(DecodeError::Value { field: "record version", got: version.into() });
        }
        let stage = match r.u8("stage")? {
            1 => ChildStage::Inbound,
            2 => ChildStage::Live,
            3 => ChildStage::Retired,
            4 => ChildStage::Pending,
            got => return Err(DecodeError::Value { field: "stage", got: got.into() }),
        };
        let age = Duration::from_millis(r.u64("age")?);
        let lease_hi = r.u64("lease")?;
        let counters = Counters {
            seq_in: r.u64("seq_in")?,
            seq_out: r.u64("seq_out")?,
            bytes_in: r.u64("bytes_in")?,
            bytes_out: r.u64("bytes_out")?,
            packets_in: r.u64("packets_in")?,
            packets_out: r.u64("packets_out")?,
        };
        let spi_in = Spi(r.u32("spi_in")?);
        let spi_out = Spi(r.u32("spi_out")?);
        for spi in [spi_in, spi_out] {
            if spi.0 < 256 {
                return Err(DecodeError::Value { field: "spi", got: spi.0.into() });
            }
        }
        let isakmp = IkeSaId { initiator: r.array("cookie")?, responder: r.array("cookie")? };
        let name = r.bytes16(NAME_MAX, "map name")?;
        let map = String::from_utf8(name.to_vec()).map_err(|_| DecodeError::Value { field: "map name", got: 0 })?;
        let map_seq = r.u32("map sequence")?;
        let ace = r.u32("ace")?;
        let digest = PolicyDigest(r.array("digest")?);
        let local = get_addr(r)?;
        let peer = get_addr(r)?;
        let ts_local = get_selector(r)?;
        let ts_remote = get_selector(r)?;
        let mode = match r.u8("mode")? {
            1 => Mode::Tunnel,
            2 => Mode::Transport,
            got => return Err(DecodeError::Value { field: "mode", got: got.into() }),
        };
        let encr = uncode(&CIPHERS, r.u8("cipher")?, "cipher")?;
        let integ = match r.u8("integrity")? {
            0 => None,
            c => Some(uncode(&INTEGS, c, "integrity")?),
        };
        let pfs = match r.u16("pfs group")? {
            0 => None,
            n => Some(DhGroup::from_number(n).ok_or(DecodeError::Value { field: "pfs group", got: n.into() })?),
        };
        let mut life = || -> Decode<Lifetime> { Ok(Lifetime { seconds: r.u64("lifetime")?, kilobytes: r.u64("lifetime")? }) };
        let (lifetime, soft) = (life()?, life()?);
        let replay_window = r.u32("replay window")?;
        if !(32..=4096).contains(&replay_window) {
            return Err(DecodeError::Value { field: "replay window", got: replay_window.into() });
        }
        let flags = r.u8("flags")?;
        let encap = match flags & FLAG_ENCAP {
            0 => None,
            _ => Some(Encap { local_port: r.u16("port")?, peer_port: r.u16("port")? }),
        };
        let keys_in = get_keys(r, encr, integ)?;
        let keys_out = get_keys(r, encr, integ)?;
        if !r.is_empty() {
            return Err(DecodeError::Trailing { field: "child record", got: r.remaining() });
        }
        let child = ChildSa {
            spi_in,
            spi_out,
            isakmp,
            map,
            map_seq,
            ace,
            digest,
            local,
            peer,
            ts_local,
            ts_remote,
            mode,
            encr,
            integ,
            keys_in,
            keys_out,
            pfs,
            lifetime,
            soft,
            replay_window,
            initiator: flags & FLAG_INITIATOR != 0,
            version: if flags & FLAG_V2 == 0 { IkeVersion::V1 } else { IkeVersion::V2 },
            esn: flags & FLAG_ESN != 0,
            encap,
        };
        Ok(Self { child, stage, age, counters, lease_hi })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn sample() -> ChildRecord {
        let keys = |b: u8| EspKeys { encr: Secret::new(vec![b; 32]), integ: Secret::new(vec![b + 1; 32]) };
        ChildRecord {
            child: ChildSa {
                spi_in: Spi(0x8010_0001),
                spi_out: Spi(0xc001_cafe),
                isakmp: IkeSaId { initiator: [1; 8], responder: [2; 8] },
                map: "CMAP_1".into(),
                map_seq: 1,
                ace: 0,
                digest: PolicyDigest([7; 32]),
                local: "40.0.0.1".parse().unwrap(),
                peer: "192.168.3.1".parse().unwrap(),
                ts_local: Selector::ANY4,
                ts_remote: Selector::net4("192.168.4.0".parse().unwrap(), 24),
                mode: Mode::Tunnel,
                encr: CipherAlg::Aes256,
                integ: Some(IntegAlg::HmacSha256),
                keys_in: keys(3),
                keys_out: keys(5),
                pfs: Some(DhGroup::Modp2048),
                lifetime: Lifetime { seconds: 3600, kilobytes: 4_608_000 },
                soft: Lifetime { seconds: 3000, kilobytes: 4_000_000 },
                replay_window: 1024,
                initiator: true,
                version: IkeVersion::V2,
                esn: true,
                encap: Some(Encap { local_port: 4500, peer_port: 1024 }),
            },
            stage: ChildStage::Live,
            age: Duration::from_millis(1234),
            counters: Counters { seq_in: 9, seq_out: 10, bytes_in: 11, bytes_out: 12, packets_in: 13, packets_out: 14 },
            lease_hi: 65_536,
        }
    }

    #[test]
    fn encode_and_decode_agree() {
        let r = sample();
        assert_eq!(ChildRecord::decode(&r.encode()).unwrap(), r);
        assert_eq!(ChildRecord::parse_key(&ChildRecord::key(r.child.spi_in)).unwrap(), r.child.spi_in);
    }

    #[test]
    fn every_truncation_and_a_trailing_byte_are_refused() {
        let b = sample().encode();
        for n in 0..b.len() {
            assert!(ChildRecord::decode(&b[..n]).is_err(), "{n}");
        }
        let mut long = b.clone();
        long.push(0);
        assert!(ChildRecord::decode(&long).is_err());
    }

    proptest! {
        #[test]
        fn damaged_records_never_panic(at in 0usize..400, to: u8) {
            let mut b = sample().encode();
            let at = at % b.len();
            b[at] = to;
            let _ = ChildRecord::decode(&b);
        }
    }
}
