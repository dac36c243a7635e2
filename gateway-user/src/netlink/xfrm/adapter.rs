//! [`XfrmAdapter`]: the kernel behind [`Xfrm`].

use super::super::message::{Attrs, Request};
use super::super::socket::{BATCH_MESSAGES, Family, NetlinkSocket, errno_of};
use super::codec::{self, XFRM_MSG_NEWAE, XFRM_MSG_NEWSA, check, half};
use super::moves::Witness;
use super::policy;
use super::view;
use crate::crypto::{CipherAlg, IntegAlg, Secret};
use crate::id::{IkeVersion, Spi};
use crate::ports::*;
use crate::sad::{ChildSa, Encap, EspKeys, Lifetime, Mode, Selector};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ends and SPI of the SA that exists for a moment, once per process, to learn the kernel's tick.
const PROBE_SRC: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 253));
const PROBE_DST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));
const PROBE_SPI: Spi = Spi(0xffff_fffe);
/// Event time of the probe, in milliseconds at 1000 ticks a second, that is, in ticks.
const PROBE_TICKS: u32 = 1_000_000;

/// Ticks per second of the running kernel: the same for all namespaces and for good.
static HZ: OnceLock<u32> = OnceLock::new();

/// An SA just before its replay state is written.
struct Held {
    replay: view::Replay,
    bitmap: Vec<u32>,
    bytes: u64,
    packets: u64,
}

/// XFRM of the network namespace it was opened in. One request socket; events come over [`super::XfrmEvents`].
///
/// It keeps no state: what it has to compare with, it reads from the kernel, so a restarted daemon is as careful as an old one.
pub struct XfrmAdapter {
    pub(super) socket: NetlinkSocket,
    pub(super) witness: Witness,
}

pub(super) fn fail(call: &'static str, object: impl ToString, source: io::Error) -> PortError {
    PortError { call, object: object.to_string(), source }
}

pub(super) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

pub(super) fn sa_name(spi: Spi, dst: IpAddr) -> String {
    format!("SA {spi} to {dst}")
}

/// Seconds since 1970: the clock the kernel counts lifetimes with.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A child pair that nobody addresses and that the kernel removes by itself should the process end.
fn probe_child(encr: CipherAlg, integ: Option<IntegAlg>) -> ChildSa {
    // No two bytes alike, so that no cipher calls the key weak.
    let key = |len: usize| Secret::new((0..len as u8).map(|i| i.wrapping_mul(37).wrapping_add(11)).collect());
    let keys = EspKeys { encr: key(encr.keymat_len()), integ: key(integ.map_or(0, IntegAlg::key_len)) };
    ChildSa {
        spi_in: PROBE_SPI,
        spi_out: PROBE_SPI,
        isakmp: Default::default(),
        map: String::new(),
        map_seq: 0,
        ace: 0,
        digest: Default::default(),
        local: PROBE_DST,
        peer: PROBE_SRC,
        ts_local: Selector::ANY4,
        ts_remote: Selector::ANY4,
        mode: Mode::Tunnel,
        encr,
        integ,
        keys_in: keys.clone(),
        keys_out: keys,
        pfs: None,
        lifetime: Lifetime { seconds: 5, kilobytes: 0 },
        soft: Lifetime::default(),
        replay_window: 32,
        initiator: false,
        version: IkeVersion::V1,
        esn: false,
        encap: None,
    }
}

impl XfrmAdapter {
    /// Opens the socket in the calling thread's network namespace. Errors: no CAP_NET_ADMIN, no XFRM in the kernel.
    pub fn open() -> PortResult<Self> {
        let open = || Ok((NetlinkSocket::open(Family::Xfrm)?, Witness::open()?));
        let (socket, witness) = open().map_err(|e| fail("socket", "NETLINK_XFRM", e))?;
        Ok(Self { socket, witness })
    }

    /// Ticks per second, found once with an SA of its own that nobody addresses.
    pub(super) fn hz(&mut self) -> io::Result<u32> {
        if let Some(hz) = HZ.get() {
            return Ok(*hz);
        }
        let child = probe_child(CipherAlg::Null, Some(IntegAlg::HmacSha1));
        let probe = SaInstall {
            child: &child,
            direction: Direction::In,
            reqid: policy::MARK_PROTECT,
            replay: 0,
            used: SaUsed::default(),
            event_packets: 0,
            event_time: Duration::from_millis(PROBE_TICKS.into()),
        };
        match self.socket.request(codec::new_sa(&probe, 1000, unix_s()), |_, _| ()) {
            Err(e) if errno_of(&e) != Some(libc::EEXIST) => return Err(e),
            _ => {}
        }
        let read = self.thresholds_of(PROBE_SPI, PROBE_DST);
        self.socket.request(codec::delete_sa(PROBE_SPI, PROBE_DST), |_, _| ())?;
        let (_, tenths) = read?;
        // `tenths = ticks * 10 / HZ`, rounded down by less than one in a thousand.
        let hz = (PROBE_TICKS * 10 + tenths / 2).checked_div(tenths).filter(|hz| (10..=10_000).contains(hz));
        let hz = hz.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel's tick cannot be found"))?;
        Ok(*HZ.get_or_init(|| hz))
    }

    /// Makes and removes an SA, so that the kernel loads what it needs.
    fn probe(&mut self, child: &ChildSa) -> io::Result<()> {
        let probe = SaInstall {
            child,
            direction: Direction::In,
            reqid: policy::MARK_PROTECT,
            replay: 0,
            used: SaUsed::default(),
            event_packets: 0,
            event_time: Duration::from_millis(1000),
        };
        check(&probe).map_err(invalid)?;
        let hz = self.hz()?;
        match self.socket.request(codec::new_sa(&probe, hz, unix_s()), |_, _| ()) {
            Err(e) if errno_of(&e) != Some(libc::EEXIST) => return Err(e),
            _ => {}
        }
        self.socket.request(codec::delete_sa(PROBE_SPI, PROBE_DST), |_, _| ())
    }

    pub(super) fn thresholds_of(&mut self, spi: Spi, dst: IpAddr) -> io::Result<(u32, u32)> {
        let mut found = None;
        self.socket.request(codec::get_ae(spi, dst), |kind, body| {
            if kind == XFRM_MSG_NEWAE {
                found = codec::thresholds(body);
            }
        })?;
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Event thresholds of an SA as the kernel holds them: packets, and time (in steps of 100 ms, rounded down).
    pub fn thresholds(&mut self, spi: Spi, dst: IpAddr) -> PortResult<(u32, Duration)> {
        let (packets, tenths) = self.thresholds_of(spi, dst).map_err(|e| fail("XFRM_MSG_GETAE", sa_name(spi, dst), e))?;
        Ok((packets, Duration::from_millis(u64::from(tenths) * 100)))
    }

    /// Replay state of an SA as the kernel holds it.
    pub fn replay(&mut self, spi: Spi, dst: IpAddr) -> PortResult<view::Replay> {
        let mut found = None;
        let asked = self.socket.request(codec::get_sa(spi, dst), |kind, body| {
            if kind == XFRM_MSG_NEWSA {
                found = view::sa_view(body).map(|v| v.replay);
            }
        });
        let name = || sa_name(spi, dst);
        asked.map_err(|e| fail("XFRM_MSG_GETSA", name(), e))?;
        found.ok_or_else(|| fail("XFRM_MSG_GETSA", name(), io::ErrorKind::UnexpectedEof.into()))
    }

    /// SAs that were there already: equal ones are taken over and their replay numbers raised to what was asked.
    fn adopt(&mut self, sas: &[SaInstall<'_>], there: &[usize], results: &mut [PortResult<()>]) {
        let mut seen: Vec<Option<(bool, bool, view::Replay)>> = vec![None; there.len()];
        let asks = there.iter().map(|i| {
            let half = half(&sas[*i]);
            codec::get_sa(half.spi, half.dst)
        });
        let answers = self.socket.pipeline(asks, |n, kind, body| {
            if kind == XFRM_MSG_NEWSA
                && let Some(view) = view::sa_view(body)
            {
                let sa = &sas[there[n]];
                seen[n] = Some((view.is(sa), view.encap == codec::encap_ports(sa), view.replay));
            }
        });
        let mut behind = Vec::new();
        let mut moved = Vec::new();
        for ((i, answer), seen) in there.iter().zip(answers).zip(seen) {
            let sa = &sas[*i];
            let half = half(sa);
            let name = || sa_name(half.spi, half.dst);
            results[*i] = match (answer, seen) {
                (Err(e), _) => Err(fail("XFRM_MSG_GETSA", name(), e)),
                (Ok(()), None) => Err(fail("XFRM_MSG_GETSA", name(), io::ErrorKind::UnexpectedEof.into())),
                (Ok(()), Some((false, ..))) => {
                    let other = "another SA with this SPI is installed; remove it first (ip xfrm state)";
                    Err(fail("XFRM_MSG_NEWSA", name(), io::Error::new(io::ErrorKind::AlreadyExists, other)))
                }
                (Ok(()), Some((true, same_ports, replay))) => {
                    if !same_ports {
                        moved.push(*i);
                    }
                    let behind_it = match sa.direction {
                        Direction::In => sa.replay > 0,
                        Direction::Out => sa.replay > replay.oseq,
                    };
                    if behind_it {
                        behind.push(*i);
                    }
                    Ok(())
                }
            };
        }
        let sets: Vec<ReplaySet> = behind
            .iter()
            .map(|i| {
                let (sa, half) = (&sas[*i], half(&sas[*i]));
                let window = sa.child.replay_window;
                let esn = sa.child.esn;
                ReplaySet { spi: half.spi, dst: half.dst, direction: sa.direction, replay: sa.replay, window, esn, used: None }
            })
            .collect();
        for (i, result) in behind.iter().zip(self.set_replay(&sets)) {
            results[*i] = result;
        }
        for i in moved {
            if results[i].is_ok() {
                results[i] = self.update(&sas[i]);
            }
        }
    }

    /// Writes the replay state of one batch, against what the kernel holds at this moment.
    fn write_replay(&mut self, sets: &[ReplaySet]) -> Vec<io::Result<()>> {
        let mut held: HashMap<(Spi, IpAddr), Held> = HashMap::new();
        let asks = sets.iter().map(|s| codec::get_ae(s.spi, s.dst));
        let mut results = self.socket.pipeline(asks, |n, kind, body| {
            if kind == XFRM_MSG_NEWAE {
                let attrs = || Attrs::after(body, codec::AEVENT_LEN);
                let (bytes, packets) = view::used_of(attrs());
                let now = Held { replay: view::replay_of(attrs()), bitmap: view::bitmap_of(attrs()), bytes, packets };
                held.insert((sets[n].spi, sets[n].dst), now);
            }
        });
        let now_s = unix_s();
        let mut writes = Vec::new();
        for (i, set) in sets.iter().enumerate() {
            if results[i].is_err() {
                continue;
            }
            let request = match held.get_mut(&(set.spi, set.dst)) {
                None => Err(io::ErrorKind::UnexpectedEof.into()),
                Some(held) => replay_request(set, held, now_s),
            };
            match request {
                Ok(request) => writes.push((i, request)),
                Err(e) => results[i] = Err(e),
            }
        }
        let (targets, requests): (Vec<usize>, Vec<Request>) = writes.into_iter().unzip();
        for (i, answer) in targets.into_iter().zip(self.socket.pipeline(requests.into_iter(), |_, _, _| ())) {
            results[i] = answer;
        }
        results
    }
}

/// The write that brings an SA from `held` to what `set` asks; `held` becomes what it will be then. An outbound number never goes
/// back. An inbound one is a floor: where the SA has already received beyond it, only what lies at or below is closed.
fn replay_request(set: &ReplaySet, held: &mut Held, now_s: u64) -> io::Result<Request> {
    // A write of the other kind, or of another length, would be answered "ok" or EINVAL and change nothing.
    let window = codec::window_of(set.window, set.esn);
    let words = codec::bitmap_words(window);
    match held.replay.words {
        None => return Err(invalid("the SA has the legacy replay state: it was not installed by the gateway")),
        Some(have) if have != words => {
            return Err(invalid(format!("window {window} needs a bitmap of {words} words, the SA has {have}")));
        }
        Some(_) => {}
    }
    let mut set = *set;
    match set.direction {
        Direction::Out => {
            let to = codec::replay_number(set.replay, set.esn);
            if to < held.replay.oseq {
                return Err(invalid(format!("outbound number would go back from {} to {to}", held.replay.oseq)));
            }
            held.replay.oseq = to;
        }
        Direction::In => {
            let (seq, bitmap) = codec::merged(held.replay.seq, &held.bitmap, window, codec::replay_number(set.replay, set.esn));
            (held.replay.seq, held.bitmap) = (seq, bitmap);
            set.replay = seq;
        }
    }
    if let Some(used) = &mut set.used {
        used.bytes = used.bytes.max(held.bytes);
        used.packets = used.packets.max(held.packets);
        (held.bytes, held.packets) = (used.bytes, used.packets);
    }
    Ok(codec::new_ae(&set, &held.bitmap, now_s))
}

impl Xfrm for XfrmAdapter {
    fn prepare(&mut self, encr: CipherAlg, integ: Option<IntegAlg>) -> PortResult<()> {
        let child = probe_child(encr, integ);
        self.probe(&child).map_err(|e| fail("XFRM_MSG_NEWSA", format!("{encr:?} with {integ:?}"), e))?;
        if !encr.is_aead() {
            // Extended numbers want another template of the kernel (authencesn). Whether they are wanted is not known here: a kernel without it
            // refuses the SA.
            let _ = self.probe(&ChildSa { esn: true, ..child });
        }
        Ok(())
    }

    fn install(&mut self, sas: &[SaInstall<'_>]) -> Vec<PortResult<()>> {
        let name = |sa: &SaInstall<'_>| sa_name(half(sa).spi, half(sa).dst);
        let hz = if sas.is_empty() { Ok(1000) } else { self.hz() };
        let hz = match hz {
            Ok(hz) => hz,
            Err(e) => {
                let why = format!("{e}: is ESP in this kernel (modules esp4, authenc)?");
                let again = || io::Error::new(e.kind(), why.clone());
                return sas.iter().map(|sa| Err(fail("XFRM_MSG_NEWSA", name(sa), again()))).collect();
            }
        };
        let mut results: Vec<PortResult<()>> =
            sas.iter().map(|sa| check(sa).map_err(|e| fail("XFRM_MSG_NEWSA", name(sa), invalid(e)))).collect();
        let fit: Vec<usize> = (0..sas.len()).filter(|i| results[*i].is_ok()).collect();
        let now_s = unix_s();
        let answers = self.socket.pipeline(fit.iter().map(|i| codec::new_sa(&sas[*i], hz, now_s)), |_, _, _| ());
        let mut there = Vec::new();
        for (i, answer) in fit.iter().zip(answers) {
            let sa = &sas[*i];
            match answer {
                Ok(()) => {}
                Err(e) if errno_of(&e) == Some(libc::EEXIST) => there.push(*i),
                Err(e) => results[*i] = Err(fail("XFRM_MSG_NEWSA", name(sa), e)),
            }
        }
        if !there.is_empty() {
            self.adopt(sas, &there, &mut results);
        }
        results
    }

    fn remove(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()> {
        match self.socket.request(codec::delete_sa(spi, dst), |_, _| ()) {
            Err(e) if errno_of(&e) != Some(libc::ESRCH) => Err(fail("XFRM_MSG_DELSA", sa_name(spi, dst), e)),
            _ => Ok(()),
        }
    }

    fn set_replay(&mut self, sets: &[ReplaySet]) -> Vec<PortResult<()>> {
        // Read and write lie close together: the SA may be receiving.
        let results = sets.chunks(BATCH_MESSAGES).flat_map(|batch| self.write_replay(batch)).collect::<Vec<_>>();
        let named = |(set, r): (&ReplaySet, io::Result<()>)| r.map_err(|e| fail("XFRM_MSG_NEWAE", sa_name(set.spi, set.dst), e));
        sets.iter().zip(results).map(named).collect()
    }

    fn move_peer(&mut self, child: &ChildSa, peer: IpAddr, encap: Option<Encap>) -> PortResult<()> {
        self.move_pair(child, peer, encap)
    }

    fn dump(&mut self) -> PortResult<Vec<SaDump>> {
        let now_s = unix_s();
        let entries = self.socket.dump(&codec::dump_sas(), |kind, body| {
            let view = (kind == XFRM_MSG_NEWSA).then(|| view::sa_view(body)).flatten()?;
            // SPI 0: the placeholder of a packet that waits for an SA.
            let real = i32::from(view.proto) == libc::IPPROTO_ESP && view.spi.0 != 0 && (view.spi, view.dst) != (PROBE_SPI, PROBE_DST);
            let [replay_window, replay, integrity_failed] = view.refused;
            real.then_some(SaDump {
                spi: view.spi,
                src: view.src,
                dst: view.dst,
                reqid: view.reqid,
                seq: view.replay.seq,
                oseq: view.replay.oseq,
                bytes: view.bytes,
                packets: view.packets,
                age_s: now_s.saturating_sub(view.created_s),
                integrity_failed,
                replay,
                replay_window,
            })
        });
        entries.map_err(|e| fail("XFRM_MSG_GETSA", "all SAs", e))
    }

    fn sync_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()> {
        let wanted = policy::wanted(flows).map_err(|e| fail("XFRM_MSG_UPDPOLICY", "flows", invalid(e)))?;
        let found = self.socket.dump(&policy::dump(), policy::held).map_err(|e| fail("XFRM_MSG_GETPOLICY", "all policies", e))?;
        let mut held = policy::PolicySet::new();
        let mut odd = BTreeSet::new();
        for policy::Held { key, body } in found {
            match body {
                Some(body) => drop(held.insert(key, body)),
                None => drop(odd.insert(key)),
            }
        }
        let plan = policy::plan(&held, &odd, &wanted);
        // Nothing is taken away while something that should stand does not.
        self.put_policies(&plan.put)?;
        let deletes = plan.delete.iter().map(policy::delete);
        let results = self.socket.pipeline(deletes, |_, _, _| ());
        for (key, result) in plan.delete.iter().zip(results) {
            match result {
                Err(e) if errno_of(&e) != Some(libc::ENOENT) => return Err(fail("XFRM_MSG_DELPOLICY", policy_name(key), e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn update_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()> {
        let wanted = policy::wanted(flows).map_err(|e| fail("XFRM_MSG_UPDPOLICY", "flows", invalid(e)))?;
        self.put_policies(&wanted.into_iter().collect::<Vec<_>>())
    }
}

fn policy_name(k: &policy::PolicyKey) -> String {
    format!("policy {:?} {:?} to {:?}", k.dir, k.src, k.dst)
}

impl XfrmAdapter {
    /// Adds policies, or replaces those with the same selector.
    fn put_policies(&mut self, list: &[(policy::PolicyKey, policy::PolicyBody)]) -> PortResult<()> {
        let failed = self.first_failure(list.iter().map(|(key, body)| policy::put(key, body)));
        failed.map_or(Ok(()), |(i, e)| Err(fail("XFRM_MSG_UPDPOLICY", policy_name(&list[i].0), e)))
    }

    fn first_failure(&mut self, requests: impl Iterator<Item = Request>) -> Option<(usize, io::Error)> {
        let results = self.socket.pipeline(requests, |_, _, _| ());
        results.into_iter().enumerate().find_map(|(i, r)| r.err().map(|e| (i, e)))
    }
}
