//! Encoding of an established ISAKMP SA for the standby (SSP client 2, IKE HA Manager). Times are relative: the nodes' clocks differ.

use super::phase1::RESEND_GAP;
use super::sa::{ANSWERS_MAX, FlowKey, Handle, LastMain, Nat, PairKey, Quick, QuickState, RECENT_MAX, Recent, Sa, Stage, Up};
use crate::crypto::{CipherAlg, DhGroup, HashAlg, Secret};
use crate::id::IkeSaId;
use crate::ike::IkeRecord;
use crate::ike::policy::IkeConfig;
use crate::ike::v1::engine::Engine;
use crate::ike::v1::keymat::Skeyids;
use crate::ike::v1::message::NatDialect;
use crate::ike::v1::proposal::LIFETIME_MAX_S;
use crate::sad::{ChildRecord, ChildStage, Counters, get_socket, put_ms, put_socket};
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Version of this encoding.
const VERSION: u8 = 2;
const KEY_MAX: usize = 64;
const ID_MAX: usize = 512;
const ANSWER_MAX: usize = 8192;
const NONCE_MAX: usize = 256;
const CHILD_MAX: usize = 2048;
const QUICKS_MAX: usize = 256;

const FLAG_INITIATOR: u8 = 1;
const FLAG_PEER_DPD: u8 = 2;
const FLAG_DPD_SEEN: u8 = 4;
const FLAG_REPLACED: u8 = 8;
const FLAG_LAST_MAIN: u8 = 16;
const FLAG_CONTACTED: u8 = 32;
const FLAG_FRAGMENTS: u8 = 64;
const NAT_US: u8 = 1;
const NAT_PEER: u8 = 2;

/// A decoded record.
pub(in crate::ike) struct Imported {
    pub(in crate::ike) sa: Sa,
    /// Responder's quick modes that wait for message 3, by message ID.
    pub(in crate::ike) quicks: Vec<(u32, Quick)>,
}

/// A time span; longer ones than any lifetime are cut.
fn get_ms(r: &mut Reader<'_>, field: &'static str) -> Decode<Duration> {
    Ok(Duration::from_millis(r.u64(field)?.min(LIFETIME_MAX_S * 1000)))
}

const fn hash_code(h: HashAlg) -> u8 {
    match h {
        HashAlg::Md5 => 1,
        HashAlg::Sha1 => 2,
        HashAlg::Sha256 => 4,
        HashAlg::Sha384 => 5,
        HashAlg::Sha512 => 6,
    }
}

fn get_hash(r: &mut Reader<'_>) -> Decode<HashAlg> {
    Ok(match r.u8("hash")? {
        1 => HashAlg::Md5,
        2 => HashAlg::Sha1,
        4 => HashAlg::Sha256,
        5 => HashAlg::Sha384,
        6 => HashAlg::Sha512,
        got => return Err(DecodeError::Value { field: "hash", got: got.into() }),
    })
}

const fn cipher_code(c: CipherAlg) -> u8 {
    match c {
        // The others are no ciphers of ISAKMP.
        CipherAlg::Null | CipherAlg::AesCtr(_) | CipherAlg::AesGcm(..) | CipherAlg::AesCcm(..) | CipherAlg::ChaCha20Poly1305 => 0,
        CipherAlg::Des => 1,
        CipherAlg::TripleDes => 2,
        CipherAlg::Aes128 => 3,
        CipherAlg::Aes192 => 4,
        CipherAlg::Aes256 => 5,
    }
}

fn get_cipher(r: &mut Reader<'_>) -> Decode<CipherAlg> {
    Ok(match r.u8("cipher")? {
        1 => CipherAlg::Des,
        2 => CipherAlg::TripleDes,
        3 => CipherAlg::Aes128,
        4 => CipherAlg::Aes192,
        5 => CipherAlg::Aes256,
        got => return Err(DecodeError::Value { field: "cipher", got: got.into() }),
    })
}

const fn dialect_code(d: Option<NatDialect>) -> u8 {
    match d {
        None => 0,
        Some(NatDialect::Draft02) => 1,
        Some(NatDialect::Draft02Line) => 2,
        Some(NatDialect::Draft03) => 3,
        Some(NatDialect::Rfc) => 4,
    }
}

fn get_dialect(r: &mut Reader<'_>) -> Decode<Option<NatDialect>> {
    Ok(match r.u8("NAT dialect")? {
        0 => None,
        1 => Some(NatDialect::Draft02),
        2 => Some(NatDialect::Draft02Line),
        3 => Some(NatDialect::Draft03),
        4 => Some(NatDialect::Rfc),
        got => return Err(DecodeError::Value { field: "NAT dialect", got: got.into() }),
    })
}

impl Engine {
    /// The record of an established SA; `None` while main mode runs.
    pub(in crate::ike) fn encode(&self, handle: Handle, sa: &Sa, now: Instant) -> Option<IkeRecord> {
        let up = sa.up()?;
        let mut w = Writer::new();
        let flags = [
            (sa.initiator, FLAG_INITIATOR),
            (up.peer_dpd, FLAG_PEER_DPD),
            (up.dpd_seen.is_some(), FLAG_DPD_SEEN),
            (up.replaced, FLAG_REPLACED),
            (up.last_main.is_some(), FLAG_LAST_MAIN),
            (up.contacted, FLAG_CONTACTED),
            (sa.fragments, FLAG_FRAGMENTS),
        ];
        w.u8(VERSION).u8(flags.iter().filter(|(set, _)| *set).map(|(_, f)| f).sum());
        w.bytes(&sa.id.initiator).bytes(&sa.id.responder);
        put_socket(&mut w, sa.local);
        put_socket(&mut w, sa.peer);
        w.u32(up.policy_number).u8(cipher_code(up.encryption)).u8(hash_code(up.hash)).u16(up.group.number());
        for key in [&up.keys.d, &up.keys.a, &up.keys.e, &up.key] {
            w.bytes16(key.expose());
        }
        w.bytes16(&up.iv);
        put_ms(&mut w, now.saturating_duration_since(up.up_at));
        put_ms(&mut w, Duration::from_secs(up.lifetime_s));
        put_ms(&mut w, up.soft.saturating_duration_since(now));
        put_ms(&mut w, up.hard.saturating_duration_since(now));
        w.u32(up.dpd_next).u32(up.dpd_seen.unwrap_or(0));
        w.bytes16(up.peer_id.as_bytes());
        let nat = [(sa.nat.us, NAT_US), (sa.nat.peer, NAT_PEER)];
        w.u8(dialect_code(sa.nat.dialect)).u8(nat.iter().filter(|(set, _)| *set).map(|(_, f)| f).sum());
        if let Some(last) = &up.last_main {
            w.bytes(&last.digest).bytes16(&last.answer);
        }
        w.u16(up.recent.len() as u16);
        for r in &up.recent {
            w.u32(r.message_id);
            put_ms(&mut w, now.saturating_duration_since(r.at));
            w.bytes16(r.answer.as_deref().unwrap_or_default());
            if r.answer.is_some() {
                w.bytes(&r.digest);
            }
        }
        let pending: Vec<_> = self
            .quicks
            .range((handle, 0)..=(handle, u32::MAX))
            .filter_map(|((_, message_id), q)| match (q.state, &q.child, &q.out, q.seen) {
                (QuickState::WaitProof, Some(child), Some(out), Some(seen)) => Some((message_id, q, child, out, seen)),
                _ => None,
            })
            .take(QUICKS_MAX)
            .collect();
        w.u16(pending.len() as u16);
        for (message_id, q, child, out, seen) in pending {
            let child = ChildRecord {
                child: (**child).clone(),
                stage: ChildStage::Inbound,
                age: Duration::ZERO,
                counters: Counters::default(),
                lease_hi: 0,
            };
            w.u32(*message_id).bytes16(&q.ni).bytes16(&q.nr).bytes16(&q.iv).bytes(&seen).bytes16(out);
            w.bytes16(&child.encode());
        }
        Some(IkeRecord::Upsert { id: sa.id, body: w.into_vec() })
    }
}

/// Decodes a record.
pub(in crate::ike) fn decode(body: &[u8], config: &Arc<IkeConfig>, now: Instant) -> Decode<Imported> {
    let mut r = Reader::new(body);
    let version = r.u8("version")?;
    if version != VERSION {
        return Err(DecodeError::Value { field: "version", got: version.into() });
    }
    let flags = r.u8("flags")?;
    let id = IkeSaId { initiator: r.array("initiator cookie")?, responder: r.array("responder cookie")? };
    let (local, peer) = (get_socket(&mut r)?, get_socket(&mut r)?);
    let policy_number = r.u32("policy")?;
    let encryption = get_cipher(&mut r)?;
    let hash = get_hash(&mut r)?;
    let group = r.u16("group")?;
    let group = DhGroup::from_number(group).ok_or(DecodeError::Value { field: "group", got: group.into() })?;
    let key = |r: &mut Reader<'_>, n: usize, field| -> Decode<Secret> {
        let bytes = r.bytes16(KEY_MAX, field)?;
        if bytes.len() == n { Ok(Secret::new(bytes.to_vec())) } else { Err(DecodeError::Length { field, got: bytes.len() }) }
    };
    let keys = Skeyids {
        d: key(&mut r, hash.len(), "SKEYID_d")?,
        a: key(&mut r, hash.len(), "SKEYID_a")?,
        e: key(&mut r, hash.len(), "SKEYID_e")?,
    };
    let cipher_key = key(&mut r, encryption.key_len(), "encryption key")?;
    let iv = key(&mut r, encryption.block_len(), "IV")?.expose().to_vec();
    let age = get_ms(&mut r, "age")?;
    let lifetime_s = get_ms(&mut r, "lifetime")?.as_secs();
    let soft = now + get_ms(&mut r, "soft")?;
    let hard = now + get_ms(&mut r, "hard")?;
    let dpd_next = r.u32("DPD next")?;
    let dpd_seen = Some(r.u32("DPD seen")?).filter(|_| flags & FLAG_DPD_SEEN != 0);
    let peer_id = String::from_utf8_lossy(r.bytes16(ID_MAX, "peer ID")?).into_owned();
    let dialect = get_dialect(&mut r)?;
    let bits = r.u8("NAT")?;
    let nat = Nat { dialect, us: bits & NAT_US != 0, peer: bits & NAT_PEER != 0 };
    let last_main = if flags & FLAG_LAST_MAIN != 0 {
        let (digest, answer) = (r.array("digest")?, r.bytes16(ANSWER_MAX, "last message of phase 1")?.to_vec());
        Some(LastMain { digest, answer, at: now.checked_sub(RESEND_GAP).unwrap_or(now) })
    } else {
        None
    };
    let recent = get_recent(&mut r, now)?;
    let up_at = now.checked_sub(age).unwrap_or(now);
    let up = Up {
        policy_number,
        encryption,
        hash,
        group,
        keys,
        key: cipher_key,
        iv,
        up_at,
        lifetime_s,
        soft,
        hard,
        peer_dpd: flags & FLAG_PEER_DPD != 0,
        dpd_next,
        dpd_seen,
        recent,
        last_main,
        peer_id,
        replaced: flags & FLAG_REPLACED != 0,
        rekeying: false,
        contacted: flags & FLAG_CONTACTED != 0,
    };
    let initiator = flags & FLAG_INITIATOR != 0;
    let fragments = flags & FLAG_FRAGMENTS != 0;
    let sa = Sa { id, local, peer, initiator, nat, fragments, first_from: None, born: up_at, stage: Stage::Up(Box::new(up)) };
    let count = usize::from(r.u16("quick mode count")?);
    if count > QUICKS_MAX {
        return Err(DecodeError::Length { field: "quick mode count", got: count });
    }
    let mut quicks = Vec::new();
    for _ in 0..count {
        quicks.push(get_quick(&mut r, config, peer, now)?);
    }
    r.finish("ISAKMP record")?;
    Ok(Imported { sa, quicks })
}

fn get_recent(r: &mut Reader<'_>, now: Instant) -> Decode<VecDeque<Recent>> {
    let count = usize::from(r.u16("message ID count")?);
    if count > RECENT_MAX {
        return Err(DecodeError::Length { field: "message ID count", got: count });
    }
    let mut recent = VecDeque::with_capacity(count);
    let mut answers = 0;
    for _ in 0..count {
        let message_id = r.u32("message ID")?;
        let age = get_ms(r, "age")?;
        let answer = r.bytes16(ANSWER_MAX, "answer")?;
        // Without an answer the message ID alone is remembered: whatever comes under it is refused.
        let digest = if answer.is_empty() { [0; 32] } else { r.array("digest")? };
        answers += usize::from(!answer.is_empty());
        if answers > ANSWERS_MAX {
            return Err(DecodeError::Length { field: "answers", got: answers });
        }
        let answer = Some(answer.to_vec()).filter(|a| !a.is_empty());
        recent.push_back(Recent { message_id, digest, at: now.checked_sub(age).unwrap_or(now), answer });
    }
    Ok(recent)
}

fn get_quick(r: &mut Reader<'_>, config: &Arc<IkeConfig>, peer: SocketAddr, now: Instant) -> Decode<(u32, Quick)> {
    let message_id = r.u32("message ID")?;
    let ni = r.bytes16(NONCE_MAX, "Ni")?.to_vec();
    let nr = r.bytes16(NONCE_MAX, "Nr")?.to_vec();
    let iv = r.bytes16(KEY_MAX, "IV")?.to_vec();
    let seen = r.array("digest")?;
    let out = r.bytes16(ANSWER_MAX, "message 2")?.to_vec();
    let child = ChildRecord::decode(r.bytes16(CHILD_MAX, "child pair")?)?.child;
    let flow = FlowKey { pair: PairKey::of_child(&child), local: child.ts_local, remote: child.ts_remote };
    let quick = Quick {
        state: QuickState::WaitProof,
        // Later than any mirrored pair, earlier than anything that begins here.
        order: 1,
        config: config.clone(),
        entry: usize::MAX,
        ace: child.ace,
        flow,
        spi_in: child.spi_in,
        installed: true,
        ni,
        nr,
        secret: None,
        public: Vec::new(),
        offer: None,
        choice: None,
        ids: None,
        iv,
        peer,
        child: Some(Box::new(child)),
        replaces: None,
        seen: Some(seen),
        out: Some(out),
        sends: 1,
        sent_at: now,
    };
    Ok((message_id, quick))
}
