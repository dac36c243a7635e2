//! NAT traversal (RFC 3947, RFC 3948): finding a NAT, moving to port 4500, following a mapping that changes, keeping one alive.
//!
//! Several peers may share one address behind a NAT. They are told apart by the port at which the NAT shows them ([`PairKey`]), and
//! when that changes by the identity they prove; so two peers behind one NAT need different identities.

use super::phase1::{Refuse, Verdict, peer_policy};
use super::sa::{Handle, Nat, Pair, PairKey, Tell};
use super::signature;
use crate::crypto::HashAlg;
use crate::id::{Identity, IkeSaId, Spi};
use crate::ike::IkeCommand;
use crate::ike::engine::NAT_T_PORT;
use crate::ike::v1::engine::Engine;
use crate::ike::v1::message::{Chain, Id, NatDialect, Payloads, id_type};
use crate::ike::v1::timer::Timer;
use crate::sad::Encap;
use crate::wire::Writer;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// The whole of a NAT keepalive (RFC 3948 2.3).
pub(super) const KEEPALIVE: [u8; 1] = [0xff];

/// HASH(CKY-I | CKY-R | IP | port) of one end of a path.
fn address_hash(hash: HashAlg, id: IkeSaId, at: SocketAddr) -> Vec<u8> {
    let port = at.port().to_be_bytes();
    match at.ip() {
        IpAddr::V4(ip) => hash.digest(&[&id.initiator, &id.responder, &ip.octets(), &port]),
        IpAddr::V6(ip) => hash.digest(&[&id.initiator, &id.responder, &ip.octets(), &port]),
    }
}

/// Adds the hashes of a path: first the far end's, then ours.
pub(super) fn push_path(chain: &mut Chain, dialect: NatDialect, hash: HashAlg, id: IkeSaId, local: SocketAddr, peer: SocketAddr) {
    chain.push(dialect.discovery(), &address_hash(hash, id, peer)).push(dialect.discovery(), &address_hash(hash, id, local));
}

/// Compares the peer's hashes with the path on which they came. Without hashes the peer speaks no NAT traversal after all.
pub(super) fn read_path(
    payloads: &Payloads<'_>,
    dialect: NatDialect,
    hash: HashAlg,
    id: IkeSaId,
    local: SocketAddr,
    peer: SocketAddr,
) -> Verdict<Nat> {
    let mut hashes = payloads.all(dialect.discovery());
    let Some(ours) = hashes.next() else { return Ok(Nat::default()) };
    let theirs: Vec<&[u8]> = hashes.collect();
    if theirs.is_empty() || theirs.iter().chain([&ours]).any(|h| h.len() != hash.len()) {
        return Err(Refuse("payloads", "NAT-D payloads of the wrong number or length".into()));
    }
    let expected = address_hash(hash, id, peer);
    Ok(Nat { dialect: Some(dialect), us: ours != address_hash(hash, id, local), peer: !theirs.contains(&&expected[..]) })
}

/// Adds the original addresses for transport mode, the initiator's first (RFC 3947 5.2).
pub(super) fn push_originals(chain: &mut Chain, dialect: NatDialect, initiator: IpAddr, responder: IpAddr) {
    for address in [initiator, responder] {
        let mut w = Writer::new();
        match address {
            IpAddr::V4(ip) => w.u8(id_type::IPV4_ADDR).u8(0).u16(0).bytes(&ip.octets()),
            IpAddr::V6(ip) => w.u8(id_type::IPV6_ADDR).u8(0).u16(0).bytes(&ip.octets()),
        };
        chain.push(dialect.original(), w.as_slice());
    }
}

/// Reads one original address.
pub(super) fn read_original(body: &[u8]) -> Verdict<IpAddr> {
    let id = Id::decode(body)?;
    match (id.identity(), id.proto, id.port) {
        (Some(Identity::Address(address)), 0, 0) => Ok(address),
        _ => Err(Refuse("payloads", "NAT-OA is no address".into())),
    }
}

impl Engine {
    /// The peers that share the address of this one, itself included.
    pub(super) fn siblings(&self, pair: PairKey) -> impl Iterator<Item = (&PairKey, &Pair)> {
        self.pairs.range(PairKey { port: 0, ..pair }..=PairKey { port: u16::MAX, ..pair })
    }

    /// The initiator found a NAT: everything from its next message on goes from port 4500 to port 4500.
    pub(super) fn float(&mut self, handle: Handle) {
        if let Some(sa) = self.sas.get_mut(&handle).filter(|s| s.nat.found().is_some() && s.local.port() != NAT_T_PORT) {
            sa.local.set_port(NAT_T_PORT);
            sa.peer.set_port(NAT_T_PORT);
        }
    }

    /// The responder has the initiator's proof: this is the path from now on.
    pub(super) fn settle_path(&mut self, handle: Handle, mut nat: Nat, from: SocketAddr, to: SocketAddr) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        // A peer that moved saw a NAT. The hashes that told us otherwise had no protection, its proof has.
        if sa.local.port() != to.port() && nat.dialect.is_some() && nat.found().is_none() {
            nat.peer = true;
        }
        (sa.local, sa.peer, sa.nat) = (to, from, nat);
    }

    /// A new ISAKMP SA came up: what stands under the same identity at another port of the same NAT is the same peer.
    pub(super) fn join_mapping(&mut self, handle: Handle, peer_id: &str, now: Instant) {
        let Some((pair, peer)) = self.sas.get(&handle).filter(|s| s.nat.peer).map(|s| (s.pair(), s.peer)) else { return };
        let same = |h: &Handle| self.sas.get(h).is_some_and(|s| s.nat.peer && s.up().is_some_and(|u| u.peer_id == peer_id));
        let old = self.siblings(pair).find(|(key, p)| **key != pair && p.sas.iter().any(same)).map(|(key, _)| *key);
        if let Some(old) = old {
            self.notice(pair.peer, format!("{peer_id} moved from port {} to {} of its NAT", shown(old.port), peer.port()));
            self.move_pair(old, peer, now);
        }
    }

    /// A packet that cannot be a replay came from elsewhere than the last one: the NAT in front of the peer changed its mapping.
    pub(super) fn follow(&mut self, handle: Handle, from: SocketAddr, now: Instant) {
        let Some(sa) = self.sas.get(&handle).filter(|s| s.nat.peer && s.up().is_some() && s.peer != from) else { return };
        let (old, local) = (sa.pair(), sa.local);
        let new = PairKey::of(local, from);
        if Self::entries_of(&self.config, new).next().is_none() || (self.psk(new.peer).is_none() && !signature::possible(&self.config)) {
            return self.refuse(from, "moved_away", format!("{} was at {}, and is not configured here", sa.id, sa.peer));
        }
        if !self.equal_standing(old, new) {
            return self.refuse(from, "moved_away", format!("{} was at {}, and another peer is configured here", sa.id, sa.peer));
        }
        self.notice(from.ip(), format!("the peer moved from {} to {from}", sa.peer));
        if new == old {
            // Between the well-known ports: the key stays.
            self.redirect(old, old, from, now);
        } else {
            self.move_pair(old, from, now);
        }
    }

    /// What a peer proved at one address is what it must prove at the other: the same entries, key and name. Otherwise a peer could become another
    /// one by its source address alone.
    fn equal_standing(&self, old: PairKey, new: PairKey) -> bool {
        let entries = |pair| Self::entries_of(&self.config, pair).map(|(index, _)| index);
        let policy = |pair: PairKey| peer_policy(&self.config, pair.peer, None);
        old.peer == new.peer || (entries(old).eq(entries(new)) && self.psk(old.peer) == self.psk(new.peer) && policy(old) == policy(new))
    }

    /// The kernel authenticated a packet of this pair, no replay, that came from elsewhere: the same proof as a message of its ISAKMP SA. False
    /// when there is no SA to decide it.
    pub fn handle_mapping(&mut self, spi_in: Spi, from: SocketAddr, now: Instant) -> bool {
        let pair = self.children.get(&spi_in).filter(|c| c.encap).map(|c| c.flow.pair);
        let handle = pair.and_then(|pair| self.pairs.get(&pair)).and_then(|p| p.sas.last().copied());
        let Some(handle) = handle.filter(|_| self.active) else { return false };
        self.follow(handle, from, now);
        self.flush(now);
        true
    }

    /// Moves what goes through a NAT from one peer key to the one at `to`.
    fn move_pair(&mut self, old: PairKey, to: SocketAddr, now: Instant) {
        let new = PairKey::of(SocketAddr::new(old.local, NAT_T_PORT), to);
        let Some(name) = self.peer_name(old) else { return };
        if self.peer_name(new).is_some_and(|other| other != name) {
            self.drop_pair(new, "its port at the NAT belongs to another peer now", Tell::No, now);
        }
        self.redirect(old, new, to, now);
        let Some(p) = self.pairs.get_mut(&old) else { return };
        let (heard, met, keepalive) = (p.heard, p.met, p.keepalive.take());
        let wants = if p.sas.is_empty() { std::mem::take(&mut p.wants) } else { Default::default() };
        let starting = p.starting.take_if(|h| self.sas.get(h).is_some_and(|s| s.peer == to));
        let n = self.pairs.entry(new).or_insert_with(|| Pair::new(now));
        n.heard = n.heard.max(heard);
        n.met |= met;
        n.starting = n.starting.or(starting);
        n.keepalive = n.keepalive.or(keepalive.map(|(local, _)| (local, to)));
        n.wants.extend(wants);
        for pair in [old, new] {
            self.timers.clear(Timer::Dpd(pair));
            self.arm_dpd(pair, now);
            self.arm_keepalive(pair, now);
        }
        self.tidy_pair(old);
    }

    /// Gives SAs, exchanges and child pairs behind a NAT their new far end.
    fn redirect(&mut self, old: PairKey, new: PairKey, to: SocketAddr, now: Instant) {
        let behind = |h: &Handle| self.sas.get(h).is_some_and(|s| s.local.port() == NAT_T_PORT);
        let handles: Vec<Handle> =
            self.pairs.get(&old).map(|p| p.sas.iter().copied().chain(p.starting).filter(behind).collect()).unwrap_or_default();
        for handle in handles {
            let Some(sa) = self.sas.get_mut(&handle) else { continue };
            sa.peer = to;
            let up = sa.up().is_some();
            if up {
                self.dirty.insert(handle);
            }
            for quick in self.quicks.range_mut((handle, 0)..=(handle, u32::MAX)).map(|(_, q)| q) {
                quick.flow.pair = new;
                quick.peer = to;
            }
            if old != new
                && let Some(p) = self.pairs.get_mut(&old)
                && p.sas.contains(&handle)
            {
                p.sas.retain(|h| *h != handle);
                let n = self.pairs.entry(new).or_insert_with(|| Pair::new(now));
                n.sas.push(handle);
                n.sas.sort_unstable();
            }
        }
        let children: Vec<Spi> = self.pairs.get(&old).map(|p| p.children.iter().copied().collect()).unwrap_or_default();
        for spi_in in children {
            if !self.children.get(&spi_in).is_some_and(|c| c.encap) {
                continue;
            }
            if old != new {
                self.rekey_tables(spi_in, new, now);
            }
            let encap = Some(Encap { local_port: NAT_T_PORT, peer_port: to.port() });
            self.command(IkeCommand::MoveChild { spi_in, peer: to.ip(), encap });
        }
    }

    /// The identity that the newest SA of a peer proved.
    fn peer_name(&self, pair: PairKey) -> Option<String> {
        let p = self.pairs.get(&pair)?;
        p.sas.iter().rev().find_map(|h| self.sas.get(h)?.up().map(|u| u.peer_id.clone()))
    }

    /// Forgets a peer behind a NAT of which nothing is left: ports come and go without end.
    pub(super) fn tidy_pair(&mut self, pair: PairKey) {
        let idle = |p: &Pair| p.sas.is_empty() && p.children.is_empty() && p.wants.is_empty() && p.starting.is_none();
        if pair.port != 0 && self.pairs.get(&pair).is_some_and(idle) {
            self.pairs.remove(&pair);
            self.timers.clear(Timer::Dpd(pair));
            self.timers.clear(Timer::Keepalive(pair));
        }
    }

    /// Notes that our own NAT must be reminded of the way to this peer.
    pub(super) fn learn_keepalive(&mut self, handle: Handle, now: Instant) {
        let Some((pair, path, us)) = self.sas.get(&handle).map(|s| (s.pair(), (s.local, s.peer), s.nat.us && s.nat.found().is_some()))
        else {
            return;
        };
        if let Some(p) = self.pairs.get_mut(&pair) {
            p.keepalive = us.then_some(path);
        }
        self.arm_keepalive(pair, now);
    }

    /// Arms the next keepalive, while there is something to keep.
    pub(in crate::ike) fn arm_keepalive(&mut self, pair: PairKey, now: Instant) {
        let needed = |p: &Pair| p.keepalive.is_some() && !(p.sas.is_empty() && p.children.is_empty());
        if self.active && self.pairs.get(&pair).is_some_and(needed) {
            if !self.timers.is_set(Timer::Keepalive(pair)) {
                self.timers.set(Timer::Keepalive(pair), now + self.config.nat_keepalive);
            }
        } else {
            self.timers.clear(Timer::Keepalive(pair));
        }
    }

    /// A keepalive is due. It proves nothing and draws nothing.
    pub(in crate::ike) fn keepalive(&mut self, pair: PairKey, now: Instant) {
        if let Some((local, peer)) = self.pairs.get(&pair).and_then(|p| p.keepalive) {
            self.transmit_raw(local, peer, KEEPALIVE.to_vec());
            self.arm_keepalive(pair, now);
        }
    }
}

fn shown(port: u16) -> u16 {
    if port == 0 { NAT_T_PORT } else { port }
}
