//! Dead peer detection (RFC 3706): probes only while nothing is heard, numbers that never fall back.

use super::phase1::{Refuse, Verdict};
use super::quick_body::ended;
use super::sa::{Handle, PairKey, Probe, Sa, Tell};
use crate::ike::v1::engine::Engine;
use crate::ike::v1::message::{Notify, PayloadKind, notify_type};
use crate::ike::v1::timer::Timer;
use std::net::SocketAddr;
use std::time::Instant;

/// The peer's numbers may jump ahead by this much (lost probes, a failover at its side).
const WINDOW: u32 = 4096;
/// Answers to probes of earlier rounds that are not worth a refusal.
const LATE_ACKS: u32 = 16;

impl Engine {
    /// Proof that the peer lives: an authenticated message or verified traffic.
    pub(in crate::ike) fn heard(&mut self, pair: PairKey, now: Instant) {
        if let Some(p) = self.pairs.get_mut(&pair) {
            p.heard = now;
            p.probe = None;
        }
    }

    /// The SA to probe on: the newest of a peer that announced DPD.
    fn probe_sa(&self, pair: PairKey) -> Option<Handle> {
        let able = |h: &Handle| self.sas.get(h).and_then(Sa::up).is_some_and(|u| u.peer_dpd);
        self.primary(pair).filter(able).or_else(|| self.pairs.get(&pair)?.sas.iter().rev().copied().find(able))
    }

    /// Arms the timer of a peer, when there is someone to probe and it is wanted.
    pub(in crate::ike) fn arm_dpd(&mut self, pair: PairKey, from: Instant) {
        match self.config.dpd {
            Some(dpd) if self.active && self.probe_sa(pair).is_some() => {
                if !self.timers.is_set(Timer::Dpd(pair)) {
                    self.timers.set(Timer::Dpd(pair), from + dpd.interval);
                }
            }
            _ => self.timers.clear(Timer::Dpd(pair)),
        }
    }

    /// Sends a probe now. False when there is no SA for it.
    pub(in crate::ike) fn probe(&mut self, pair: PairKey, now: Instant) -> bool {
        let Some(handle) = self.probe_sa(pair) else { return false };
        let Some(sa) = self.sas.get_mut(&handle) else { return false };
        let id = sa.id;
        let Some(up) = sa.up_mut() else { return false };
        let number = up.dpd_next;
        up.dpd_next = number.wrapping_add(1);
        self.dirty.insert(handle);
        if let Some(p) = self.pairs.get_mut(&pair) {
            let probe = p.probe.unwrap_or(Probe { first: number, last: number, sent: 0 });
            p.probe = Some(Probe { last: number, sent: probe.sent + 1, ..probe });
        }
        let n = Notify::isakmp(notify_type::R_U_THERE, id, number.to_be_bytes().to_vec());
        self.send_informational(handle, PayloadKind::Notify, &n.encode());
        if let Some(dpd) = self.config.dpd {
            self.timers.set(Timer::Dpd(pair), now + dpd.retry);
        }
        true
    }

    /// The timer of a peer: idle for long enough to probe, probed often enough to be dead, or neither.
    pub(in crate::ike) fn dpd_timeout(&mut self, pair: PairKey, now: Instant) {
        let Some(dpd) = self.config.dpd else { return };
        let Some(p) = self.pairs.get(&pair) else { return };
        let due = p.heard + dpd.interval;
        match p.probe {
            None if due > now => {
                if self.probe_sa(pair).is_some() {
                    self.timers.set(Timer::Dpd(pair), due);
                }
            }
            Some(probe) if probe.sent >= dpd.retries.max(1) => {
                self.drop_pair(pair, &format!("dead peer: {} probes unanswered", probe.sent), Tell::No, now);
                if let Some(p) = self.pairs.get_mut(&pair) {
                    p.failed = Some(now);
                }
            }
            None | Some(_) => {
                self.probe(pair, now);
            }
        }
    }

    /// The peer's R-U-THERE.
    pub(super) fn r_u_there(&mut self, handle: Handle, from: SocketAddr, n: &Notify, now: Instant) -> Verdict<Option<Vec<u8>>> {
        let sa = self.sas.get_mut(&handle).ok_or_else(ended)?;
        let (id, pair) = (sa.id, sa.pair());
        let number = read_number(n, id)?;
        let up = sa.up_mut().ok_or_else(ended)?;
        match up.dpd_seen {
            // A peer that repeats its number instead of counting on gets its answer all the same.
            Some(last) if number.wrapping_sub(last) > WINDOW => {
                return Err(Refuse("dpd_number", format!("R-U-THERE {number} after {last}")));
            }
            Some(last) if number == last => {}
            Some(_) | None => {
                up.dpd_seen = Some(number);
                self.heard(pair, now);
                self.follow(handle, from, now);
            }
        }
        let ack = Notify::isakmp(notify_type::R_U_THERE_ACK, id, number.to_be_bytes().to_vec());
        Ok(self.send_informational(handle, PayloadKind::Notify, &ack.encode()))
    }

    /// The answer to one of our probes. Only a number of the running round proves life; a late one is let pass without effect.
    pub(super) fn r_u_there_ack(&mut self, handle: Handle, from: SocketAddr, n: &Notify, now: Instant) -> Verdict {
        let sa = self.sas.get(&handle).ok_or_else(ended)?;
        let pair = sa.pair();
        let number = read_number(n, sa.id)?;
        let next = sa.up().ok_or_else(ended)?.dpd_next;
        let probe = self.pairs.get(&pair).and_then(|p| p.probe);
        if probe.is_some_and(|p| number.wrapping_sub(p.first) <= p.last.wrapping_sub(p.first)) {
            self.heard(pair, now);
            self.follow(handle, from, now);
            return Ok(());
        }
        if (1..=LATE_ACKS).contains(&next.wrapping_sub(number)) {
            Ok(())
        } else {
            Err(Refuse("dpd_number", format!("R-U-THERE-ACK {number}, next is {next}")))
        }
    }
}

fn read_number(n: &Notify, id: crate::id::IkeSaId) -> Verdict<u32> {
    if !n.names(id) {
        return Err(Refuse("dpd_cookies", "the notification names another SA".into()));
    }
    let data: Result<[u8; 4], _> = n.data[..].try_into();
    data.map(u32::from_be_bytes).map_err(|_| Refuse("payloads", format!("{} bytes of DPD data", n.data.len())))
}
