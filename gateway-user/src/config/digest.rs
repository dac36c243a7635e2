//! Digests of what both nodes must have alike. Own addresses, devices and host names are left out; so are secrets themselves:
//! a pre-shared key goes in through an HMAC keyed by the pair's SSP secret, so a digest that is shown or logged helps nobody guess it.

use super::model::{Config, OutboundInterval, Profile, Trustpoint};
use crate::crypto::Secret;
use crate::hsrp::GroupConfig;
use crate::id::PolicyDigest;
use crate::ike::{EspTransform, Flow, Ikev2Profile, Ikev2Proposal, IsakmpPolicy, MapEntry, PeerMatch, PeerPolicy, Ppk, PreSharedKey};
use crate::sad::{Mode, Selector};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Crypto map entries up to this number have an item each; above it, `SEQ_BLOCK` of them share one, so that the list fits into an SSP hello.
const SEQ_SINGLE_MAX: u32 = 512;
/// Entries of one block.
const SEQ_BLOCK: u32 = 128;
/// Up to this many keys have an item each.
const KEYS_SINGLE_MAX: usize = 256;
/// Items at most: with names of full length they fit into one SSP frame.
pub(super) const ITEMS_MAX: usize = 1800;

/// Canonical form: a label, then every field with its length, so that no two items can look alike.
struct Canon(Sha256);

impl Canon {
    fn new(label: &str) -> Self {
        let mut c = Self(Sha256::new());
        c.bytes(b"gateway config digest v1");
        c.bytes(label.as_bytes());
        c
    }

    fn bytes(&mut self, b: &[u8]) {
        self.0.update((b.len() as u64).to_be_bytes());
        self.0.update(b);
    }

    fn num(&mut self, n: u64) {
        self.bytes(&n.to_be_bytes());
    }

    fn addr(&mut self, a: IpAddr) {
        match a {
            IpAddr::V4(a) => self.bytes(&a.octets()),
            IpAddr::V6(a) => self.bytes(&a.octets()),
        }
    }

    fn selector(&mut self, s: &Selector) {
        self.addr(s.addr);
        self.num(u64::from(s.prefix));
        self.num(u64::from(s.proto));
        self.num(u64::from(s.port));
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

fn policy(p: &IsakmpPolicy) -> [u8; 32] {
    let IsakmpPolicy { number, encryption, hash, group, lifetime_s, authentication } = p;
    let mut c = Canon::new("crypto isakmp policy");
    c.num(u64::from(*number));
    c.bytes(format!("{encryption:?}").as_bytes());
    c.bytes(format!("{hash:?}").as_bytes());
    c.num(u64::from(group.number()));
    c.num(*lifetime_s);
    c.bytes(format!("{authentication:?}").as_bytes());
    c.finish()
}

fn transform(c: &mut Canon, t: &EspTransform) {
    let EspTransform { name, encr, integ, mode } = t;
    c.bytes(name.as_bytes());
    c.bytes(format!("{encr:?}").as_bytes());
    c.bytes(format!("{integ:?}").as_bytes());
    c.num(match mode {
        Mode::Tunnel => 1,
        Mode::Transport => 2,
    });
}

/// Digest of a crypto map entry; its own `digest` field is not read.
pub fn map_entry(e: &MapEntry) -> PolicyDigest {
    let MapEntry { map, seq, local, peers, transforms, pfs, lifetime, replay_window, flows, esn, ikev1, ikev2, digest: _ } = e;
    let mut c = Canon::new("crypto map");
    c.bytes(map.as_bytes());
    c.num(u64::from(*seq));
    c.addr(*local);
    c.num(peers.len() as u64);
    for p in peers {
        c.addr(*p);
    }
    c.num(transforms.len() as u64);
    for t in transforms {
        transform(&mut c, t);
    }
    c.num(pfs.map_or(0, |g| u64::from(g.number())));
    c.num(lifetime.seconds);
    c.num(lifetime.kilobytes);
    c.num(u64::from(*replay_window));
    c.num(flows.len() as u64);
    for Flow { ace, local, remote } in flows {
        c.num(u64::from(*ace));
        c.selector(local);
        c.selector(remote);
    }
    c.num(u64::from(*esn));
    c.num(u64::from(*ikev1));
    c.bytes(ikev2.as_ref().map_or("", |p| p.name.as_str()).as_bytes());
    PolicyDigest(c.finish())
}

/// What a digest says of a secret: nothing without the pair's own.
fn secret(c: &mut Canon, ssp_secret: &[u8], secret: &Secret) {
    // An HMAC takes a key of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(ssp_secret) {
        mac.update(b"gateway config secret v1");
        mac.update(secret.expose());
        c.bytes(&mac.finalize().into_bytes());
    }
}

fn proposal(c: &mut Canon, p: &Ikev2Proposal) {
    let Ikev2Proposal { name, encryption, integrity, prf, groups, additional } = p;
    c.bytes(name.as_bytes());
    c.bytes(format!("{encryption:?} {integrity:?} {prf:?} {groups:?} {additional:?}").as_bytes());
}

fn profile(p: &Profile, ssp_secret: &[u8]) -> [u8; 32] {
    let Ikev2Profile {
        name,
        proposals,
        local_id,
        remote_id,
        local_auth,
        remote_auth,
        credential: _,
        trust: _,
        ppk,
        lifetime_s,
        fragment_bytes,
        childless,
    } = p.profile.as_ref();
    let mut c = Canon::new("crypto ikev2 profile");
    c.bytes(name.as_bytes());
    c.num(proposals.len() as u64);
    for p in proposals {
        proposal(&mut c, p);
    }
    c.bytes(format!("{local_id:?} {remote_id:?} {local_auth:?} {remote_auth:?}").as_bytes());
    if let Some(Ppk { id, key, required }) = ppk {
        c.bytes(id);
        c.num(u64::from(*required));
        secret(&mut c, ssp_secret, key);
    }
    c.num(*lifetime_s);
    c.num(u64::from(*fragment_bytes));
    c.num(u64::from(*childless));
    c.bytes(p.trustpoint.as_deref().unwrap_or_default().as_bytes());
    c.finish()
}

/// Authorities, and the names in our certificate: each node may have a certificate and key of its own, renewed on its own day, and
/// fetches revocation lists when it can.
fn trustpoint(t: &Trustpoint) -> [u8; 32] {
    let Trustpoint { name, credential, trust, crl_required } = t;
    let mut c = Canon::new("crypto pki trustpoint");
    c.bytes(name.as_bytes());
    c.num(u64::from(*crl_required));
    if let Some(credential) = credential {
        c.bytes(format!("{:?} {:?}", credential.subject(), credential.alt_names()).as_bytes());
    }
    if let Some(trust) = trust {
        for (name, hash) in trust.authority_names().iter().zip(trust.authority_hashes()) {
            c.bytes(name);
            c.bytes(&hash);
        }
    }
    c.finish()
}

fn peer(p: &PeerPolicy) -> [u8; 32] {
    let PeerPolicy { peer, aggressive, policies, remote_id } = p;
    let mut c = Canon::new("crypto isakmp peer");
    c.bytes(peer_name(peer).as_bytes());
    c.num(u64::from(*aggressive));
    for n in policies {
        c.num(u64::from(*n));
    }
    c.bytes(format!("{remote_id:?}").as_bytes());
    c.finish()
}

fn group(g: &GroupConfig, interface: &str) -> [u8; 32] {
    let GroupConfig { group, name, vip, address: _, priority, hello, hold, preempt, authentication, delay_minimum: _, delay_reload: _ } = g;
    let mut c = Canon::new("standby");
    c.bytes(interface.as_bytes());
    c.num(u64::from(*group));
    c.bytes(name.as_bytes());
    c.bytes(&vip.octets());
    c.num(u64::from(*priority));
    c.num(hello.as_millis() as u64);
    c.num(hold.as_millis() as u64);
    c.num(u64::from(*preempt));
    c.bytes(authentication);
    c.finish()
}

/// Every item that both nodes must have alike, in order of names.
pub(super) fn items(config: &Config) -> Vec<(String, [u8; 32])> {
    let mut out: Vec<(String, [u8; 32])> = Vec::new();
    for p in &config.ike.policies {
        out.push((format!("crypto isakmp policy {}", p.number), policy(p)));
    }
    out.extend(config.ike.peers.iter().map(|p| (format!("crypto isakmp peer {}", peer_name(&p.peer)), peer(p))));
    out.extend(config.trustpoints.iter().map(|t| (format!("crypto pki trustpoint {}", t.name), trustpoint(t))));
    let mut c = Canon::new("crypto isakmp nat-traversal");
    c.num(u64::from(config.ike.nat_traversal));
    out.push(("crypto isakmp nat-traversal".to_owned(), c.finish()));
    if let Some(ssp) = &config.ssp {
        keys(config, ssp.secret.expose(), &mut out);
        for p in &config.ikev2_profiles {
            out.push((format!("crypto ikev2 profile {}", p.profile.name), profile(p, ssp.secret.expose())));
        }
        let mut c = Canon::new("ssp group");
        let mut names = ssp.redundancy.clone();
        names.sort();
        c.num(names.len() as u64);
        for n in names {
            c.bytes(n.as_bytes());
        }
        out.push((format!("ssp group {}", ssp.id), c.finish()));
    }
    let mut c = Canon::new("crypto isakmp timers");
    match config.ike.dpd {
        Some(d) => {
            c.num(1);
            c.num(d.interval.as_millis() as u64);
            c.num(d.retry.as_millis() as u64);
            c.num(u64::from(d.retries));
        }
        None => c.num(0),
    }
    c.num(config.ike.retransmit_first.as_millis() as u64);
    c.num(u64::from(config.ike.retransmit_tries));
    out.push(("crypto isakmp timers".to_owned(), c.finish()));
    let mut sets: BTreeMap<&str, &EspTransform> = BTreeMap::new();
    let mut blocks: BTreeMap<String, Canon> = BTreeMap::new();
    for e in &config.ike.entries {
        sets.extend(e.transforms.iter().map(|t| (t.name.as_str(), t)));
        if e.seq <= SEQ_SINGLE_MAX {
            out.push((format!("crypto map {} {}", e.map, e.seq), e.digest.0));
        } else {
            let first = (e.seq - 1) / SEQ_BLOCK * SEQ_BLOCK + 1;
            let name = format!("crypto map {} {first}-{}", e.map, first + SEQ_BLOCK - 1);
            let block = blocks.entry(name).or_insert_with(|| Canon::new("crypto map block"));
            block.num(u64::from(e.seq));
            block.bytes(&e.digest.0);
        }
    }
    out.extend(blocks.into_iter().map(|(name, c)| (name, c.finish())));
    for (name, t) in sets {
        let mut c = Canon::new("crypto ipsec transform-set");
        transform(&mut c, t);
        out.push((format!("crypto ipsec transform-set {name}"), c.finish()));
    }
    for (map, r) in &config.replay {
        let mut c = Canon::new("crypto map ha");
        c.bytes(map.as_bytes());
        c.num(u64::from(r.inbound_packets));
        c.num(r.inbound_time.as_millis() as u64);
        c.num(match r.outbound {
            OutboundInterval::Auto => 0,
            OutboundInterval::Packets(n) => n,
        });
        out.push((format!("crypto map {map} ha"), c.finish()));
    }
    for i in &config.interfaces {
        for g in &i.groups {
            out.push((format!("standby {}", g.group), group(g, &i.name)));
        }
        if let Some(map) = &i.crypto_map {
            let mut c = Canon::new("interface crypto map");
            c.bytes(i.name.as_bytes());
            c.bytes(map.as_bytes());
            out.push((format!("interface {} crypto map", i.name), c.finish()));
        }
    }
    let mut c = Canon::new("dataplane sa_max");
    c.num(u64::from(config.dataplane.sa_max));
    out.push(("dataplane sa_max".to_owned(), c.finish()));
    out.sort();
    out
}

/// A peer as items of the comparison name it.
fn peer_name(peer: &PeerMatch) -> String {
    match peer {
        PeerMatch::Address(a) => a.to_string(),
        PeerMatch::Network(a, n) => format!("{a}/{n}"),
        PeerMatch::Range(a, b) => format!("{a} to {b}"),
        PeerMatch::Identity(id) => super::identity_text(id),
        PeerMatch::Any => "any".into(),
    }
}

/// A digest for each key, or for many keys one for all that share the last octet of their address.
fn keys(config: &Config, ssp_secret: &[u8], out: &mut Vec<(String, [u8; 32])>) {
    let mut list: Vec<&PreSharedKey> = config.ike.keys.iter().collect();
    list.sort_by_key(|k| peer_name(&k.peer));
    let many = list.len() > KEYS_SINGLE_MAX;
    let mut items: BTreeMap<String, Canon> = BTreeMap::new();
    for k in list {
        let name = match &k.peer {
            PeerMatch::Address(IpAddr::V4(a)) if many => format!("crypto isakmp keys *.*.*.{}", a.octets()[3]),
            _ if many => "crypto isakmp keys by network, range or identity".to_owned(),
            other => format!("crypto isakmp key {}", peer_name(other)),
        };
        let c = items.entry(name).or_insert_with(|| Canon::new("crypto isakmp key"));
        c.bytes(peer_name(&k.peer).as_bytes());
        secret(c, ssp_secret, &k.key);
    }
    out.extend(items.into_iter().map(|(name, c)| (name, c.finish())));
}
