//! Informational exchange (RFC 2409 5.7): always encrypted, HASH(1) first. Deletes and notifications.

use super::crypt;
use super::phase1::{Refuse, Verdict};
use super::quick_body::{ended, unreadable};
use super::sa::{Handle, Pair, PairKey, Sa, Tell, digest};
use crate::ike::v1::engine::Engine;
use crate::ike::v1::keymat;
use crate::ike::v1::message::{Chain, Delete, Exchange, Header, Notify, PayloadKind, notify_type, protocol};
use crate::ike::v1::proposal;
use crate::ike::v1::timer::Timer;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// INITIAL-CONTACT makes sense only right after main mode; later it is a replay or a mistake.
const INITIAL_CONTACT_AGE_MAX: Duration = Duration::from_secs(60);
/// Refusals of a configured peer that mean that the two ends are configured differently.
const TOLD: [&str; 4] = ["auth_failed", "peer_id", "no_proposal_chosen", "invalid_id"];
/// Deletes that wait for their second sending; more than these are sent once.
const FAREWELLS_MAX: usize = 1024;
/// The operator hears the same of one peer again after this time at the earliest.
const TELL_GAP: Duration = Duration::from_secs(60);

impl Engine {
    /// Counts a refusal. When a different configuration of the two ends explains it, the operator hears of it too: seldom, as the
    /// sender's address may be forged.
    pub(super) fn refuse_peer(&mut self, pair: PairKey, from: SocketAddr, Refuse(reason, detail): Refuse, now: Instant) {
        if TOLD.contains(&reason) {
            let told = &mut self.pairs.entry(pair).or_insert_with(|| Pair::new(now)).told;
            if told.get(reason).is_none_or(|at| now.saturating_duration_since(*at) >= TELL_GAP) {
                told.insert(reason, now);
                self.notice(pair.peer, format!("refused ({reason}): {detail}"));
            }
        }
        self.refuse(from, reason, detail);
    }

    /// Sends one payload under an established SA. Gives the datagram, for a repetition.
    pub(in crate::ike) fn send_informational(&mut self, handle: Handle, kind: PayloadKind, body: &[u8]) -> Option<Vec<u8>> {
        let suite = self.suite(handle)?;
        let message_id = self.new_message_id(handle);
        let mut chain = Chain::new();
        chain.push(kind, body);
        let hash = keymat::hash_1(suite.hash, &suite.keys.a, message_id, chain.bytes());
        let chain = chain.prepend(PayloadKind::Hash, &hash);
        let mut iv = suite.first_iv(message_id);
        let header = suite.header(Exchange::Informational, message_id);
        let out = crypt::seal(suite.cipher, &suite.key, &mut iv, header, &chain)?;
        self.transmit(suite.local, suite.peer, out.clone());
        Some(out)
    }

    /// Tells the peer that something is gone.
    pub(in crate::ike) fn send_delete(&mut self, handle: Handle, delete: &Delete, tell: Tell, now: Instant) {
        if tell == Tell::No {
            return;
        }
        let path = self.sas.get(&handle).map(|s| (s.local, s.peer));
        let sent = self.send_informational(handle, PayloadKind::Delete, &delete.encode());
        if let (Tell::Twice, Some((local, peer)), Some(bytes)) = (tell, path, sent)
            && self.farewells.len() < FAREWELLS_MAX
        {
            self.farewells.push_back((local, peer, bytes));
            if !self.timers.is_set(Timer::Farewells) {
                self.timers.set(Timer::Farewells, now + self.config.retransmit_first);
            }
        }
    }

    /// Sends the Deletes that are due a second time; their SAs are gone.
    pub(in crate::ike) fn say_farewells(&mut self) {
        for (local, peer, bytes) in std::mem::take(&mut self.farewells) {
            self.transmit(local, peer, bytes);
        }
    }

    /// An Informational datagram under an established SA.
    pub(in crate::ike) fn informational_datagram(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) {
        if let Err(Refuse(reason, detail)) = self.informational(handle, from, header, bytes, now) {
            self.refuse(from, reason, detail);
        }
    }

    fn informational(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let message_id = header.message_id;
        let seen = digest(bytes);
        let suite = self.suite(handle).ok_or_else(ended)?;
        if let Some(answer) = self.repeated(handle, message_id, &seen, now)? {
            self.transmit(suite.local, from, answer);
            return Ok(());
        }
        if self.quicks.contains_key(&(handle, message_id)) {
            return Err(Refuse("message_id", "of a quick mode".into()));
        }
        let iv = suite.first_iv(message_id);
        let (plain, _) = crypt::open(suite.cipher, &suite.key, &iv, bytes).ok_or_else(unreadable)?;
        let payloads = suite.verify(header, &plain, |p| keymat::hash_1(suite.hash, &suite.keys.a, message_id, p.after_first()))?;
        // Not yet a proof of life: it could be a replay of a message ID that is forgotten by now. DPD's numbers cannot.
        let mut answer = None;
        let mut refused = None;
        let kinds = [PayloadKind::Hash, PayloadKind::Notify, PayloadKind::Delete, PayloadKind::Vendor];
        match payloads.only(&kinds) {
            Err(e) => refused = Some(Refuse::from(e)),
            Ok(()) => {
                for p in payloads.items() {
                    let done = match p.kind {
                        PayloadKind::Notify => {
                            Notify::decode(p.body).map_err(Refuse::from).and_then(|n| self.notified(handle, from, &n, now))
                        }
                        PayloadKind::Delete => Delete::decode(p.body).map_err(Refuse::from).map(|d| {
                            self.deleted(handle, &d, from, now);
                            None
                        }),
                        _ => Ok(None),
                    };
                    match done {
                        Ok(a) => answer = a.or(answer),
                        Err(why) => refused = Some(why),
                    }
                }
            }
        }
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.remember(message_id, seen, answer, now);
            self.dirty.insert(handle);
        }
        refused.map_or(Ok(()), Err)
    }

    fn deleted(&mut self, handle: Handle, delete: &Delete, from: SocketAddr, now: Instant) {
        let Some((id, pair)) = self.sas.get(&handle).map(|s| (s.id, s.pair())) else { return };
        match delete {
            Delete::Esp(spis) => {
                for spi in spis {
                    // Some peers name our SPI when their own half was never installed.
                    let ours = || Some(*spi).filter(|s| self.children.get(s).is_some_and(|c| c.flow.pair == pair));
                    match self.by_outbound(pair, *spi).or_else(ours) {
                        Some(spi_in) => self.remove_child(spi_in, "deleted by the peer", Tell::No, now),
                        None => self.refuse(from, "delete_unknown", format!("no child pair has outbound SPI {spi}")),
                    }
                }
            }
            Delete::Isakmp(ids) => {
                for named in ids {
                    if *named == id {
                        self.remove_isakmp(handle, "deleted by the peer", Tell::No, now);
                    } else {
                        self.refuse(from, "delete_other_sa", format!("{named} is not the SA of this message"));
                    }
                }
            }
            Delete::Other(protocol) => self.refuse(from, "delete_unknown", format!("protocol {protocol}")),
        }
    }

    /// A protected notification; the answer, if one was sent.
    fn notified(&mut self, handle: Handle, from: SocketAddr, n: &Notify, now: Instant) -> Verdict<Option<Vec<u8>>> {
        let sa = self.sas.get(&handle).ok_or_else(ended)?;
        let (pair, born) = (sa.pair(), sa.born);
        let up = sa.up().ok_or_else(ended)?;
        match n.kind {
            notify_type::R_U_THERE => self.r_u_there(handle, from, n, now),
            notify_type::R_U_THERE_ACK => self.r_u_there_ack(handle, from, n, now).map(|()| None),
            notify_type::INITIAL_CONTACT => {
                if !up.contacted && now.saturating_duration_since(up.up_at) < INITIAL_CONTACT_AGE_MAX {
                    self.obey_initial_contact(handle, born, now);
                    Ok(None)
                } else {
                    Err(Refuse("initial_contact_late", String::new()))
                }
            }
            notify_type::RESPONDER_LIFETIME => {
                let life = proposal::read_lifetime_data(&n.data, n.protocol == protocol::ISAKMP);
                let life = life.ok_or_else(|| Refuse("payloads", "RESPONDER-LIFETIME".into()))?;
                if n.protocol == protocol::ISAKMP && life.seconds != 0 {
                    self.shorten(handle, life.seconds, now);
                }
                Ok(None)
            }
            kind if kind < notify_type::STATUS_MIN => {
                self.notice(pair.peer, format!("the peer reports error {kind} for {}", hex(&n.spi)));
                self.peer_reports(handle, n, now);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The peer's shorter lifetime for this ISAKMP SA.
    fn shorten(&mut self, handle: Handle, seconds: u64, now: Instant) {
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        let hard = up.up_at + Duration::from_secs(seconds.min(up.lifetime_s));
        if hard < up.hard {
            up.lifetime_s = seconds;
            up.hard = hard.max(now);
            up.soft = up.soft.min(up.up_at + Duration::from_secs(seconds - seconds / 10));
            self.timers.clear(Timer::Soft(handle));
            self.arm_lifetime(handle, now);
        }
    }

    /// An error that concerns a quick mode ends it: named by either SPI, or the only one that we started.
    fn peer_reports(&mut self, handle: Handle, n: &Notify, now: Instant) {
        let running: Vec<_> = self.quicks.range((handle, 0)..=(handle, u32::MAX)).map(|((_, m), q)| (*m, q)).collect();
        let spi: Option<[u8; 4]> = n.spi[..].try_into().ok();
        let named = running.iter().find(|(_, q)| spi.is_some_and(|s| q.is_named(crate::id::Spi(u32::from_be_bytes(s)))));
        let mut ours = running.iter().filter(|(_, q)| q.initiator());
        let only = match (ours.next(), ours.next()) {
            (Some(one), None) if n.protocol != protocol::ISAKMP => Some(one),
            _ => None,
        };
        if let Some(message_id) = named.or(only).map(|(m, _)| *m) {
            self.quick_failed(handle, message_id, &format!("the peer reports error {}", n.kind), now);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "no SPI".into() } else { bytes.iter().map(|b| format!("{b:02x}")).collect() }
}
