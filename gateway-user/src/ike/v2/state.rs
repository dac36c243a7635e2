//! Encoding of an established IKE SA for the standby (SSP client 2, IKE HA Manager). Times are relative: the nodes' clocks differ.
//!
//! A message ID is in the record before the request leaves, an answer before it leaves; the request under way is there with what finishes
//! it, private value included.

use super::engine::Engine;
use super::exchange::DELETE_TRIES;
use super::init::NONCE_LEN;
use super::keymat::IkeKeys;
use super::proposal::IkeSuite;
use super::sa::{Answer, Caps, Fate, Handle, Sa, Stage, Up, entries_of, profiles_of};
use super::task::{ChildTask, Current, Phase, RekeyTask, Sent, Task, Want, What};
use crate::crypto::{CipherAlg, DhGroup, IntegAlg, PrfAlg, Secret};
use crate::id::{IkeSaId, Spi};
use crate::ike::api::IkeRecord;
use crate::ike::policy::IkeConfig;
use crate::sad::{CIPHERS, INTEGS, Mode, code, get_addr, get_socket, put_addr, put_ms, put_socket, uncode};
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Version of this encoding. Those of version 1 are below 0x80.
const VERSION: u8 = 0x81;
const KEY_MAX: usize = 64;
const NAME_MAX: usize = 255;
const ID_MAX: usize = 1024;
const NONCE_MAX: usize = 256;
const PRIVATE_MAX: usize = 1024;
/// Packets of one message, and bytes of each.
const PACKETS_MAX: usize = 128;
const PACKET_MAX: usize = 16 * 1024;
/// Child pairs under one IKE SA.
const CHILDREN_MAX: usize = 8192;
/// SPIs in deletes that wait.
const DELETES_MAX: usize = 8192;
/// No lifetime is longer.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Codes are positions, from 1: new ones go to the end.
const PRFS: [PrfAlg; 7] = PrfAlg::ALL;

const FLAG_INITIATOR: u16 = 1;
const FLAG_CONTACTED: u16 = 1 << 1;
const FLAG_REPLACED: u16 = 1 << 2;
const FLAG_CLOSING: u16 = 1 << 3;
const FLAG_FRAGMENTS: u16 = 1 << 4;
const FLAG_NAT_HERE: u16 = 1 << 5;
const FLAG_NAT_THERE: u16 = 1 << 6;
const FLAG_CHILDLESS: u16 = 1 << 7;
const FLAG_MESSAGE_SYNC: u16 = 1 << 8;
const FLAG_REPLAY_SYNC: u16 = 1 << 9;
const FLAG_ANSWER: u16 = 1 << 10;
const FLAG_REQUEST: u16 = 1 << 11;
const FLAG_RIVAL: u16 = 1 << 12;
const FLAG_DELETE_IKE: u16 = 1 << 13;

const CHILD_RETIRED: u8 = 1;
const CHILD_DELETING: u8 = 2;
const CHILD_INBOUND: u8 = 4;

/// A child pair as the record of its IKE SA mentions it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) spi_in: Spi,
    pub(super) replaces: Option<Spi>,
    pub(super) retired: bool,
    pub(super) deleting: bool,
    pub(super) inbound_only: bool,
}

/// A decoded record.
pub(super) struct Imported {
    pub(super) sa: Sa,
    pub(super) children: Vec<Listed>,
}

fn value<T>(field: &'static str, got: u64) -> Decode<T> {
    Err(DecodeError::Value { field, got })
}

fn bounded(got: usize, max: usize, field: &'static str) -> Decode<usize> {
    if got > max { Err(DecodeError::Length { field, got }) } else { Ok(got) }
}

fn get_ms(r: &mut Reader<'_>, field: &'static str) -> Decode<Duration> {
    Ok(Duration::from_millis(r.u64(field)?).min(TIME_MAX))
}

fn get_group(r: &mut Reader<'_>) -> Decode<DhGroup> {
    let n = r.u16("group")?;
    DhGroup::from_number(n).map_or_else(|| value("group", n.into()), Ok)
}

fn get_optional_group(r: &mut Reader<'_>) -> Decode<Option<DhGroup>> {
    let mut ahead = *r;
    match ahead.u16("group")? {
        0 => {
            *r = ahead;
            Ok(None)
        }
        _ => get_group(r).map(Some),
    }
}

fn put_spi(w: &mut Writer, spi: Option<Spi>) {
    w.u32(spi.map_or(0, |s| s.0));
}

fn get_spi(r: &mut Reader<'_>) -> Decode<Option<Spi>> {
    Ok(Some(Spi(r.u32("SPI")?)).filter(|s| s.0 != 0))
}

fn put_packets(w: &mut Writer, packets: &[Vec<u8>]) {
    w.u16(packets.len() as u16);
    for p in packets {
        w.bytes16(p);
    }
}

fn get_packets(r: &mut Reader<'_>) -> Decode<Vec<Vec<u8>>> {
    let n = bounded(r.u16("packets")?.into(), PACKETS_MAX, "packets")?;
    (0..n).map(|_| Ok(r.bytes16(PACKET_MAX, "packet")?.to_vec())).collect()
}

fn put_suite(w: &mut Writer, s: &IkeSuite) {
    w.u8(code(&CIPHERS, &s.encr)).u8(s.integ.map_or(0, |i| code(&INTEGS, &i))).u8(code(&PRFS, &s.prf)).u16(s.group.number());
    w.u8(s.additional.len() as u8);
    for g in &s.additional {
        w.u16(g.number());
    }
}

fn get_suite(r: &mut Reader<'_>) -> Decode<IkeSuite> {
    let encr: CipherAlg = uncode(&CIPHERS, r.u8("cipher")?, "cipher")?;
    let integ = match r.u8("integrity")? {
        0 => None,
        c => Some(uncode(&INTEGS, c, "integrity")?),
    };
    if encr.is_aead() == integ.is_some() {
        return value("integrity", 0);
    }
    let prf = uncode(&PRFS, r.u8("prf")?, "prf")?;
    let group = get_group(r)?;
    let n = bounded(r.u8("additional key exchanges")?.into(), 7, "additional key exchanges")?;
    let additional = (0..n).map(|_| get_group(r)).collect::<Decode<_>>()?;
    Ok(IkeSuite { encr, integ, prf, group, additional })
}

fn put_want(w: &mut Writer, want: &Want) {
    w.bytes16(want.map.as_bytes()).u32(want.seq).u32(want.ace);
    put_spi(w, want.replaces);
}

fn get_want(r: &mut Reader<'_>) -> Decode<Want> {
    let map = r.bytes16(NAME_MAX, "map name")?;
    let map = String::from_utf8(map.to_vec()).or_else(|_| value("map name", 0))?;
    Ok(Want { map, seq: r.u32("map sequence")?, ace: r.u32("ace")?, replaces: get_spi(r)?, acquire: None })
}

fn put_what(w: &mut Writer, what: &What) {
    match what {
        What::Child(t) => {
            w.u8(1);
            put_want(w, &t.want);
            w.u8(u8::from(t.orphaned)).u8(if t.mode == Mode::Transport { 2 } else { 1 });
            w.u32(t.spi_in.0).bytes16(&t.ni).u16(t.group.map_or(0, DhGroup::number)).bytes16(t.secret.expose());
            put_spi(w, t.rival.as_ref().map(|r| r.0));
            w.bytes16(t.rival.as_ref().map_or(&[][..], |r| &r.1));
        }
        What::RekeyIke(t) => {
            w.u8(2).bytes(&t.spi).bytes16(&t.ni).u16(t.group.number()).bytes16(t.secret.expose()).u8(u8::from(t.regrouped));
        }
        What::DeleteChildren(spis) => put_spis(w.u8(3), spis),
        What::DeleteIke => {
            w.u8(4);
        }
        What::Liveness => {
            w.u8(5);
        }
        What::Abandoned(spi) => {
            w.u8(6).u32(spi.0);
        }
    }
}

fn put_spis(w: &mut Writer, spis: &[Spi]) {
    w.u16(spis.len() as u16);
    for s in spis {
        w.u32(s.0);
    }
}

fn get_spis(r: &mut Reader<'_>) -> Decode<Vec<Spi>> {
    let n = bounded(r.u16("SPIs")?.into(), DELETES_MAX, "SPIs")?;
    (0..n).map(|_| Ok(Spi(r.u32("SPI")?))).collect()
}

fn get_flag(r: &mut Reader<'_>, field: &'static str) -> Decode<bool> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        got => value(field, got.into()),
    }
}

fn get_what(r: &mut Reader<'_>, config: &Arc<IkeConfig>, pair: super::sa::PairKey) -> Decode<What> {
    Ok(match r.u8("request")? {
        1 => {
            let want = get_want(r)?;
            let orphaned = get_flag(r, "orphaned")?;
            let mode = match r.u8("mode")? {
                1 => Mode::Tunnel,
                2 => Mode::Transport,
                got => return value("mode", got.into()),
            };
            let spi_in = Spi(r.u32("SPI")?);
            let ni = r.bytes16(NONCE_MAX, "nonce")?.to_vec();
            let group = get_optional_group(r)?;
            let secret = Secret::new(r.bytes16(PRIVATE_MAX, "private value")?.to_vec());
            let rival = get_spi(r)?;
            let nonce = r.bytes16(NONCE_MAX, "nonce")?.to_vec();
            let found = entries_of(config, pair).find(|(_, e, _)| e.map == want.map && e.seq == want.seq);
            let flow = found.and_then(|(_, e, _)| e.flows.iter().find(|f| f.ace == want.ace).cloned());
            let (Some((entry, ..)), Some(flow)) = (found, flow) else { return Ok(What::Abandoned(spi_in)) };
            What::Child(Box::new(ChildTask {
                want,
                config: config.clone(),
                entry,
                flow,
                mode,
                spi_in,
                ni,
                group,
                secret,
                public: Vec::new(),
                agreed: None,
                rival: rival.map(|spi| (spi, nonce)),
                orphaned,
                doomed: Vec::new(),
            }))
        }
        2 => What::RekeyIke(Box::new(RekeyTask {
            spi: r.array("SPI")?,
            ni: r.bytes16(NONCE_MAX, "nonce")?.to_vec(),
            group: get_group(r)?,
            secret: Secret::new(r.bytes16(PRIVATE_MAX, "private value")?.to_vec()),
            public: Vec::new(),
            regrouped: get_flag(r, "regrouped")?,
            agreed: None,
        })),
        3 => What::DeleteChildren(get_spis(r)?),
        4 => What::DeleteIke,
        5 => What::Liveness,
        6 => What::Abandoned(Spi(r.u32("SPI")?)),
        got => return value("request", got.into()),
    })
}

impl Engine {
    /// The record of an established SA; `None` before it is one.
    pub(super) fn encode(&self, handle: Handle, sa: &Sa, now: Instant) -> Option<IkeRecord> {
        let up = sa.up()?;
        let request = up.current.as_ref().and_then(|c| Some((&c.what, c.sent()?)));
        let flags = [
            (sa.initiator, FLAG_INITIATOR),
            (up.contacted, FLAG_CONTACTED),
            (up.fate == Fate::Replaced, FLAG_REPLACED),
            (up.fate == Fate::Closing, FLAG_CLOSING),
            (up.caps.fragments, FLAG_FRAGMENTS),
            (up.caps.nat_here, FLAG_NAT_HERE),
            (up.caps.nat_there, FLAG_NAT_THERE),
            (up.caps.childless, FLAG_CHILDLESS),
            (up.caps.message_sync, FLAG_MESSAGE_SYNC),
            (up.caps.replay_sync, FLAG_REPLAY_SYNC),
            (up.answer.is_some(), FLAG_ANSWER),
            (request.is_some(), FLAG_REQUEST),
            (up.rival.is_some(), FLAG_RIVAL),
            (up.tasks.contains(&Task::DeleteIke), FLAG_DELETE_IKE),
        ];
        let mut w = Writer::new();
        w.u8(VERSION).u16(flags.iter().filter(|(set, _)| *set).map(|(_, f)| f).sum());
        w.bytes(&sa.id.initiator).bytes(&sa.id.responder);
        put_addr(&mut w, sa.pair.0);
        put_addr(&mut w, sa.pair.1);
        for a in [sa.local, sa.peer, sa.first] {
            put_socket(&mut w, a);
        }
        w.bytes16(up.profile.name.as_bytes()).bytes16(up.peer_id.as_bytes());
        put_suite(&mut w, &up.suite);
        for key in [&up.keys.d, &up.keys.ai, &up.keys.ar, &up.keys.ei, &up.keys.er] {
            w.bytes16(key.expose());
        }
        put_ms(&mut w, now.saturating_duration_since(up.up_at));
        put_ms(&mut w, up.soft.saturating_duration_since(now));
        put_ms(&mut w, up.hard.saturating_duration_since(now));
        w.u32(up.send_id).u32(up.recv_id);
        if let Some(a) = &up.answer {
            w.u32(a.message_id).bytes(&a.digest);
            put_packets(&mut w, &a.packets);
        }
        if let Some((what, sent)) = request {
            w.u32(sent.message_id);
            put_what(&mut w, what);
            put_packets(&mut w, &sent.packets);
        }
        if let Some((id, nonce)) = &up.rival {
            w.bytes(&id.initiator).bytes(&id.responder).bytes16(nonce);
        }
        let deletes: Vec<Spi> =
            up.tasks.iter().filter_map(|t| if let Task::DeleteChildren(s) = t { Some(s) } else { None }).flatten().copied().collect();
        put_spis(&mut w, &deletes[..deletes.len().min(DELETES_MAX)]);
        let children: Vec<_> =
            up.children.iter().filter_map(|spi| self.children.get(spi)).filter(|c| c.handle == handle).take(CHILDREN_MAX).collect();
        w.u16(children.len() as u16);
        for c in children {
            let flags = [(c.retired, CHILD_RETIRED), (c.deleting, CHILD_DELETING), (c.inbound_only.is_some(), CHILD_INBOUND)];
            w.u32(c.spi_in.0).u8(flags.iter().filter(|(set, _)| *set).map(|(_, f)| f).sum());
            put_spi(&mut w, c.replaces);
        }
        Some(IkeRecord::Upsert { id: sa.id, body: w.into_vec() })
    }
}

/// Decodes a record.
pub(super) fn decode(body: &[u8], config: &Arc<IkeConfig>, now: Instant) -> Decode<Imported> {
    let r = &mut Reader::new(body);
    let version = r.u8("version")?;
    if version != VERSION {
        return value("version", version.into());
    }
    let flags = r.u16("flags")?;
    let has = |flag| flags & flag != 0;
    let id = IkeSaId { initiator: r.array("initiator SPI")?, responder: r.array("responder SPI")? };
    let pair = (get_addr(r)?, get_addr(r)?);
    let (local, peer, first) = (get_socket(r)?, get_socket(r)?, get_socket(r)?);
    let name = r.bytes16(NAME_MAX, "profile")?;
    let profile = profiles_of(config, pair).into_iter().find(|p| p.name.as_bytes() == name);
    let profile = profile.map_or_else(|| value("profile", 0), Ok)?;
    let peer_id = String::from_utf8_lossy(r.bytes16(ID_MAX, "peer ID")?).into_owned();
    let suite = get_suite(r)?;
    let key = |r: &mut Reader<'_>, n: usize, field| -> Decode<Secret> {
        let bytes = r.bytes16(KEY_MAX, field)?;
        if bytes.len() == n { Ok(Secret::new(bytes.to_vec())) } else { Err(DecodeError::Length { field, got: bytes.len() }) }
    };
    let (p, a, e) = (suite.prf.len(), suite.integ.map_or(0, IntegAlg::key_len), suite.encr.keymat_len());
    let keys = IkeKeys {
        d: key(r, p, "SK_d")?,
        ai: key(r, a, "SK_ai")?,
        ar: key(r, a, "SK_ar")?,
        ei: key(r, e, "SK_ei")?,
        er: key(r, e, "SK_er")?,
        pi: Secret::default(),
        pr: Secret::default(),
    };
    let up_at = now.checked_sub(get_ms(r, "age")?).unwrap_or(now);
    let (soft, hard) = (now + get_ms(r, "soft")?, now + get_ms(r, "hard")?);
    let (send_id, recv_id) = (r.u32("send ID")?, r.u32("receive ID")?);
    let answer = if has(FLAG_ANSWER) {
        // The first repetition may be answered at once.
        let (message_id, digest) = (r.u32("message ID")?, r.array("digest")?);
        Some(Answer { message_id, digest, packets: get_packets(r)?, at: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) })
    } else {
        None
    };
    let current = if has(FLAG_REQUEST) {
        let message_id = r.u32("message ID")?;
        let what = get_what(r, config, pair)?;
        let tries = if matches!(what, What::DeleteIke) { config.retransmit_tries.min(DELETE_TRIES) } else { config.retransmit_tries };
        let packets = get_packets(r)?;
        let sent = Sent { message_id, packets, sends: 1, first: config.retransmit_first, doubles: true, tries, sent_at: now };
        Some(Current { what, phase: Phase::Sent(sent) })
    } else {
        None
    };
    let rival = if has(FLAG_RIVAL) {
        let id = IkeSaId { initiator: r.array("initiator SPI")?, responder: r.array("responder SPI")? };
        Some((id, r.bytes16(NONCE_MAX, "nonce")?.to_vec()))
    } else {
        None
    };
    let deletes = get_spis(r)?;
    let mut tasks = VecDeque::new();
    if !deletes.is_empty() {
        tasks.push_back(Task::DeleteChildren(deletes));
    }
    if has(FLAG_DELETE_IKE) {
        tasks.push_back(Task::DeleteIke);
    }
    let n = bounded(r.u16("children")?.into(), CHILDREN_MAX, "children")?;
    let mut children = Vec::new();
    for _ in 0..n {
        let spi_in = Spi(r.u32("SPI")?);
        let flags = r.u8("child flags")?;
        children.push(Listed {
            spi_in,
            replaces: get_spi(r)?,
            retired: flags & CHILD_RETIRED != 0,
            deleting: flags & CHILD_DELETING != 0,
            inbound_only: flags & CHILD_INBOUND != 0,
        });
    }
    (*r).finish("IKE SA record")?;
    let caps = Caps {
        fragments: has(FLAG_FRAGMENTS),
        nat_here: has(FLAG_NAT_HERE),
        nat_there: has(FLAG_NAT_THERE),
        childless: has(FLAG_CHILDLESS),
        message_sync: has(FLAG_MESSAGE_SYNC),
        replay_sync: has(FLAG_REPLAY_SYNC),
    };
    let fate = match (has(FLAG_REPLACED), has(FLAG_CLOSING)) {
        (false, false) => Fate::Live,
        (true, false) => Fate::Replaced,
        (false, true) => Fate::Closing,
        (true, true) => return value("flags", flags.into()),
    };
    let up = Up {
        profile,
        suite,
        keys,
        caps,
        fate,
        up_at,
        soft,
        hard,
        send_id,
        recv_id,
        current,
        tasks,
        asked: None,
        answering: None,
        answer,
        children: BTreeSet::new(),
        heard: now,
        peer_id,
        contacted: has(FLAG_CONTACTED),
        rival,
    };
    let initiator = has(FLAG_INITIATOR);
    let sa = Sa { id, pair, local, peer, first, initiator, born: up_at, partial: None, stage: Stage::Up(Box::new(up)) };
    Ok(Imported { sa, children })
}

/// Nonces that we make fit into records.
const _: () = assert!(NONCE_LEN <= NONCE_MAX);
