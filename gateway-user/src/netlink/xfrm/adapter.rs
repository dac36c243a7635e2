//! [`XfrmAdapter`]: the kernel behind [`Xfrm`].

use super::super::message::Request;
use super::super::socket::{Family, NetlinkSocket, errno_of};
use super::codec::{self, XFRM_MSG_NEWAE, XFRM_MSG_NEWSA, check, half};
use super::policy;
use crate::crypto::{CipherAlg, IntegAlg, Secret};
use crate::id::Spi;
use crate::ports::*;
use crate::sad::{ChildSa, EspKeys, Lifetime, Mode, Selector};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SAs whose replay numbers are remembered; for others the kernel is asked each time.
const REMEMBERED_MAX: usize = 1 << 20;
/// Ends and SPI of the SA that exists for a moment, once per process, to learn the kernel's tick.
const PROBE_SRC: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 253));
const PROBE_DST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));
const PROBE_SPI: Spi = Spi(0xffff_fffe);
/// Event time of the probe, in milliseconds at 1000 ticks a second, that is, in ticks.
const PROBE_TICKS: u32 = 1_000_000;

/// Ticks per second of the running kernel: the same for all namespaces and for good.
static HZ: OnceLock<u32> = OnceLock::new();

type SaKey = (Spi, IpAddr);

/// What was last written to or seen in an SA.
#[derive(Clone, Copy)]
struct Remembered {
    seq: u64,
    oseq: u64,
    words: Option<u32>,
}

impl Remembered {
    fn number(&self, direction: Direction) -> u64 {
        match direction {
            Direction::In => self.seq,
            Direction::Out => self.oseq,
        }
    }

    fn raise(&mut self, direction: Direction, to: u64) {
        match direction {
            Direction::In => self.seq = self.seq.max(to),
            Direction::Out => self.oseq = self.oseq.max(to),
        }
    }
}

/// XFRM of the network namespace it was opened in. One request socket; events come over [`super::XfrmEvents`].
pub struct XfrmAdapter {
    socket: NetlinkSocket,
    remembered: HashMap<SaKey, Remembered>,
}

fn fail(call: &'static str, object: impl ToString, source: io::Error) -> PortError {
    PortError { call, object: object.to_string(), source }
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn sa_name(spi: Spi, dst: IpAddr) -> String {
    format!("SA {spi} to {dst}")
}

/// Seconds since 1970: the clock the kernel counts lifetimes with.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl XfrmAdapter {
    /// Opens the socket in the calling thread's network namespace. Errors: no CAP_NET_ADMIN, no XFRM in the kernel.
    pub fn open() -> PortResult<Self> {
        let socket = NetlinkSocket::open(Family::Xfrm).map_err(|e| fail("socket", "NETLINK_XFRM", e))?;
        Ok(Self { socket, remembered: HashMap::new() })
    }

    /// Ticks per second, found once with an SA of its own that nobody addresses.
    fn hz(&mut self) -> io::Result<u32> {
        if let Some(hz) = HZ.get() {
            return Ok(*hz);
        }
        let keys = EspKeys { encr: Secret::default(), integ: Secret::new(vec![0x5a; 20]) };
        let child = ChildSa {
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
            encr: CipherAlg::Null,
            integ: Some(IntegAlg::HmacSha1),
            keys_in: keys.clone(),
            keys_out: keys,
            pfs: None,
            // Should the process end now, the kernel removes it.
            lifetime: Lifetime { seconds: 5, kilobytes: 0 },
            soft: Lifetime::default(),
            replay_window: 32,
            initiator: false,
        };
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

    fn thresholds_of(&mut self, spi: Spi, dst: IpAddr) -> io::Result<(u32, u32)> {
        let mut found = None;
        self.socket.request(codec::get_thresholds(spi, dst), |kind, body| {
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
    pub fn replay(&mut self, spi: Spi, dst: IpAddr) -> PortResult<codec::Replay> {
        let mut found = None;
        let asked = self.socket.request(codec::get_sa(spi, dst), |kind, body| {
            if kind == XFRM_MSG_NEWSA {
                found = codec::sa_view(body).map(|v| v.replay);
            }
        });
        let name = || sa_name(spi, dst);
        asked.map_err(|e| fail("XFRM_MSG_GETSA", name(), e))?;
        found.ok_or_else(|| fail("XFRM_MSG_GETSA", name(), io::ErrorKind::UnexpectedEof.into()))
    }

    fn remember(&mut self, key: SaKey, seen: Remembered) {
        if let Some(held) = self.remembered.get_mut(&key) {
            *held = Remembered { seq: held.seq.max(seen.seq), oseq: held.oseq.max(seen.oseq), words: seen.words };
        } else if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(key, seen);
        }
    }

    /// SAs that were there already: equal ones are taken over and their replay numbers raised to what was asked.
    fn adopt(&mut self, sas: &[SaInstall<'_>], there: &[usize], results: &mut [PortResult<()>]) {
        let mut seen: Vec<Option<(bool, codec::Replay)>> = vec![None; there.len()];
        let asks = there.iter().map(|i| {
            let half = half(&sas[*i]);
            codec::get_sa(half.spi, half.dst)
        });
        let answers = self.socket.pipeline(asks, |n, kind, body| {
            if kind == XFRM_MSG_NEWSA
                && let Some(view) = codec::sa_view(body)
            {
                seen[n] = Some((view.is(&sas[there[n]]), view.replay));
            }
        });
        let mut behind = Vec::new();
        for ((i, answer), seen) in there.iter().zip(answers).zip(seen) {
            let sa = &sas[*i];
            let half = half(sa);
            let name = || sa_name(half.spi, half.dst);
            results[*i] = match (answer, seen) {
                (Err(e), _) => Err(fail("XFRM_MSG_GETSA", name(), e)),
                (Ok(()), None) => Err(fail("XFRM_MSG_GETSA", name(), io::ErrorKind::UnexpectedEof.into())),
                (Ok(()), Some((false, _))) => {
                    let other = "another SA with this SPI is installed; remove it first (ip xfrm state)";
                    Err(fail("XFRM_MSG_NEWSA", name(), io::Error::new(io::ErrorKind::AlreadyExists, other)))
                }
                (Ok(()), Some((true, replay))) => {
                    let held = Remembered { seq: replay.seq, oseq: replay.oseq, words: replay.words };
                    self.remember((half.spi, half.dst), held);
                    if held.number(sa.direction) < sa.replay {
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
                ReplaySet { spi: half.spi, dst: half.dst, direction: sa.direction, replay: sa.replay, window, used: None }
            })
            .collect();
        for (i, result) in behind.iter().zip(self.set_replay(&sets)) {
            results[*i] = result;
        }
    }

    /// Learns the replay numbers of SAs this adapter has not met.
    fn look_up(&mut self, sets: &[ReplaySet]) {
        let unknown: Vec<SaKey> = sets.iter().map(|s| (s.spi, s.dst)).filter(|k| !self.remembered.contains_key(k)).collect();
        let mut found = Vec::new();
        let asks = unknown.iter().map(|(spi, dst)| codec::get_sa(*spi, *dst));
        self.socket.pipeline(asks, |n, kind, body| {
            if kind == XFRM_MSG_NEWSA
                && let Some(v) = codec::sa_view(body)
            {
                found.push((unknown[n], Remembered { seq: v.replay.seq, oseq: v.replay.oseq, words: v.replay.words }));
            }
        });
        for (key, seen) in found {
            self.remember(key, seen);
        }
    }

    /// Checks one replay write against what is known, and notes it.
    fn admit(&mut self, set: &ReplaySet) -> io::Result<()> {
        let Some(held) = self.remembered.get_mut(&(set.spi, set.dst)) else {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        };
        // A write of the other kind, or of another length, would be answered "ok" or EINVAL and change nothing.
        let words = codec::bitmap_words(set.window);
        match held.words {
            None => return Err(invalid("the SA has the legacy replay state: it was not installed by the gateway")),
            Some(have) if have != words => {
                return Err(invalid(format!("window {} needs a bitmap of {words} words, the SA has {have}", set.window)));
            }
            Some(_) => {}
        }
        let last = held.number(set.direction);
        let to = u64::from(codec::replay32(set.replay));
        if to < last {
            return Err(invalid(format!("replay number would go back from {last} to {to}")));
        }
        held.raise(set.direction, to);
        Ok(())
    }
}

impl Xfrm for XfrmAdapter {
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
                Ok(()) => {
                    let half = half(sa);
                    let mut new = Remembered { seq: 0, oseq: 0, words: Some(codec::bitmap_words(sa.child.replay_window)) };
                    new.raise(sa.direction, codec::replay32(sa.replay).into());
                    // A new SA: numbers of an earlier one under the same SPI do not bind it.
                    self.remembered.remove(&(half.spi, half.dst));
                    self.remember((half.spi, half.dst), new);
                }
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
        self.remembered.remove(&(spi, dst));
        match self.socket.request(codec::delete_sa(spi, dst), |_, _| ()) {
            Err(e) if errno_of(&e) != Some(libc::ESRCH) => Err(fail("XFRM_MSG_DELSA", sa_name(spi, dst), e)),
            _ => Ok(()),
        }
    }

    fn set_replay(&mut self, sets: &[ReplaySet]) -> Vec<PortResult<()>> {
        self.look_up(sets);
        let mut results: Vec<io::Result<()>> = sets.iter().map(|set| self.admit(set)).collect();
        let fit: Vec<usize> = (0..sets.len()).filter(|i| results[*i].is_ok()).collect();
        let now_s = unix_s();
        let answers = self.socket.pipeline(fit.iter().map(|i| codec::new_ae(&sets[*i], now_s)), |_, _, _| ());
        for (i, answer) in fit.iter().zip(answers) {
            if answer.is_err() {
                // Whatever the kernel holds now has to be read again.
                self.remembered.remove(&(sets[*i].spi, sets[*i].dst));
            }
            results[*i] = answer;
        }
        let named = |(set, r): (&ReplaySet, io::Result<()>)| r.map_err(|e| fail("XFRM_MSG_NEWAE", sa_name(set.spi, set.dst), e));
        sets.iter().zip(results).map(named).collect()
    }

    fn dump(&mut self) -> PortResult<Vec<SaDump>> {
        let now_s = unix_s();
        let entries = self.socket.dump(&codec::dump_sas(), |kind, body| {
            let view = (kind == XFRM_MSG_NEWSA).then(|| codec::sa_view(body)).flatten()?;
            // SPI 0: the placeholder of a packet that waits for an SA.
            let real = i32::from(view.proto) == libc::IPPROTO_ESP && view.spi.0 != 0 && (view.spi, view.dst) != (PROBE_SPI, PROBE_DST);
            real.then_some((
                SaDump {
                    spi: view.spi,
                    src: view.src,
                    dst: view.dst,
                    reqid: view.reqid,
                    seq: view.replay.seq,
                    oseq: view.replay.oseq,
                    bytes: view.bytes,
                    packets: view.packets,
                    age_s: now_s.saturating_sub(view.created_s),
                },
                view.replay.words,
            ))
        });
        let entries = entries.map_err(|e| fail("XFRM_MSG_GETSA", "all SAs", e))?;
        let before = std::mem::take(&mut self.remembered);
        for (sa, words) in &entries {
            let key = (sa.spi, sa.dst);
            if let Some(held) = before.get(&key) {
                self.remember(key, *held);
            }
            self.remember(key, Remembered { seq: sa.seq, oseq: sa.oseq, words: *words });
        }
        Ok(entries.into_iter().map(|(sa, _)| sa).collect())
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
        let name = |k: &policy::PolicyKey| format!("policy {:?} {:?} to {:?}", k.dir, k.src, k.dst);
        let puts = plan.put.iter().map(|(key, body)| policy::put(key, body));
        let first = self.first_failure(puts).map(|(i, e)| fail("XFRM_MSG_UPDPOLICY", name(&plan.put[i].0), e));
        if let Some(error) = first {
            // Nothing is taken away while something that should stand does not.
            return Err(error);
        }
        let deletes = plan.delete.iter().map(policy::delete);
        let results = self.socket.pipeline(deletes, |_, _, _| ());
        for (key, result) in plan.delete.iter().zip(results) {
            match result {
                Err(e) if errno_of(&e) != Some(libc::ENOENT) => return Err(fail("XFRM_MSG_DELPOLICY", name(key), e)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl XfrmAdapter {
    fn first_failure(&mut self, requests: impl Iterator<Item = Request>) -> Option<(usize, io::Error)> {
        let results = self.socket.pipeline(requests, |_, _, _| ());
        results.into_iter().enumerate().find_map(|(i, r)| r.err().map(|e| (i, e)))
    }
}
