//! Rows of IKEv1.

use super::plays::{PSK, base, beside, life, short_life};
use super::{Case, Spec, World, plays};
use crate::lab::peer::{Child, Connection, Implementation, Version};
use crate::lab::scenario::Initiator;
use crate::lab::topology::{PEER_IKE_2, PROTECTED_2};
use anyhow::Result;

const IKE: &str = "aes256-sha256-modp2048";
const ESP: &str = "aes256-sha256";
/// A second network behind the peer.
const NET_2: &str = PROTECTED_2;

/// The rows.
pub fn cases() -> Vec<Case> {
    use plays as p;
    let case = |row, title, build| Case { row, title, build };
    vec![
        case(1, "IKEv1 main mode, PSK, net to net", |_| Ok(plain(life))),
        case(2, "wrong PSK beside a good tunnel", |_| {
            Ok(refused(second("aes256-sha256-modp2048", ESP, "not the key that the gateway has")))
        }),
        case(4, "policy list: the third of three, the second transform set", |_| Ok(policy_list())),
        case(4, "3DES, MD5, group 5", |_| Ok(old_suite())),
        case(4, "no common ISAKMP policy beside a good tunnel", |_| Ok(refused(second("aes192-sha384-modp4096", ESP, PSK)))),
        case(4, "no common transform set beside a good tunnel", |_| Ok(refused(second(IKE, "aes192-sha512", PSK)))),
        case(5, "PFS with group 14", |_| Ok(pfs("group14", "aes256-sha256-modp2048", life))),
        case(5, "PFS with another group than phase 1", |_| Ok(pfs("group5", "aes256-sha256-modp1536", short_life))),
        case(5, "PFS demanded, the other end has none, beside a good tunnel", |kind| {
            let mut spec = refused(second(IKE, ESP, PSK));
            if kind == Implementation::Libreswan {
                spec.play = p::beside_by_the_peer;
            }
            spec.changes.push(("crypto/map/CMAP_1/2/ipsec-isakmp/pfs".into(), "group14".into()));
            Ok(spec)
        }),
        case(6, "child rekeys by either end and by both at once", |_| Ok(plain(p::child_rekeys))),
        case(7, "phase 1 rekeys by either end and by both at once", |kind| {
            let mut spec = plain(p::ike_rekeys);
            if kind == Implementation::Libreswan {
                spec.connections[0].ike_life_s = Some(15);
                spec.play = p::ike_rekey_by_lifetime;
            }
            Ok(spec)
        }),
        case(8, "DPD: both ask, a dead peer is cleared, it comes back", |_| Ok(dead_peer_detection(p::dead_peer))),
        case(12, "two tunnels under one ISAKMP SA, one deleted", |_| Ok(two_children())),
        case(17, "lifetime in kilobytes, the gateway's", |_| {
            let mut spec = plain(p::by_volume);
            spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/lifetime".into(), "{ kilobytes: 2560 }".into()));
            Ok(spec)
        }),
        case(17, "lifetime in bytes, the peer's", |_| {
            let mut spec = plain(p::by_volume);
            spec.connections[0].swan.1 = "        rekey_bytes = 1500000\n        life_bytes = 6000000\n        rand_bytes = 0\n".into();
            spec.connections[0].libre = "\tipsec-max-bytes=2M\n".into();
            Ok(spec)
        }),
        case(17, "largest lifetimes there are", |_| {
            let mut spec = plain(short_life);
            spec.changes.push(("crypto/isakmp/policy/1/lifetime".into(), "168h".into()));
            spec.changes.push(("crypto/ipsec/security_association/lifetime".into(), "{ seconds: 168h, kilobytes: 536870912 }".into()));
            Ok(spec)
        }),
        case(18, "deletes of child and ISAKMP SA from either end, repeated", |_| Ok(plain(p::deletes))),
        case(19, "peer restarts without a word", |_| Ok(dead_peer_detection(p::restart))),
        case(20, "both ends start at once", |_| Ok(plain(p::crossing))),
        case(24, "loss, repeats and reorder on the wire", |_| Ok(plain(p::rough_wire))),
        case(27, "replay window of 32", |_| Ok(windows(32))),
        case(27, "replay window of 4096", |_| Ok(windows(4096))),
        case(28, "SIGKILL and power loss in a flood, then DPD, rekey, failback, delete", |_| Ok(plain(p::flood))),
        case(31, "PSK of 64 bytes", |_| Ok(with_psk("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"))),
        case(31, "PSK of 65 bytes", |_| Ok(with_psk("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefX"))),
        case(3, "aggressive mode, PSK", |_| {
            let mut spec = plain(short_life);
            spec.changes.push(("crypto/isakmp/peer".into(), "[ { address: 192.168.3.1, aggressive_mode: true } ]".into()));
            spec.connections[0].version = Version::Aggressive;
            Ok(spec)
        }),
        case(32, "reserved bits and flags set, vendor IDs in odd places", |kind| match kind {
            Implementation::StrongSwan => Err("strongSwan cannot be made to send them"),
            Implementation::Libreswan => Ok(plain(p::oddities)),
        }),
    ]
}

fn plain(play: fn(&mut World, Initiator) -> Result<()>) -> Spec {
    Spec { changes: base(PSK), connections: vec![Connection::new(IKE, ESP, PSK)], swan_daemon: "", play }
}

/// A connection between the second tunnel end and the gateway, with one child `bad`.
fn second(ike: &str, esp: &str, psk: &str) -> Connection {
    let mut c = Connection::new(ike, esp, psk);
    c.name = "second".into();
    c.local = PEER_IKE_2.ip();
    c.children = vec![Child { name: "bad".into(), own: NET_2.into(), other: "0.0.0.0/0".into(), esp: esp.into(), transport: false }];
    c
}

/// A good tunnel, and beside it one that must not come up.
fn refused(bad: Connection) -> Spec {
    let mut spec = plain(beside);
    spec.changes[0].1 = format!("[ {{ address: 192.168.3.1, secret: '{PSK}' }}, {{ address: {PEER_IKE_2}, secret: '{PSK}' }} ]");
    spec.changes.push((
        "crypto/map/CMAP_1/2/ipsec-isakmp".into(),
        format!("{{ peer: [{PEER_IKE_2}], transform_set: [TRANSFORMSET_1], match_address: 102 }}"),
    ));
    spec.changes.push(("access_list/102".into(), format!("[ 'permit ip any {NET_2}' ]")));
    spec.changes.push(("crypto/isakmp/limits".into(), "{ half_open_age: 4s }".into()));
    spec.connections.push(bad);
    spec
}

fn policy_list() -> Spec {
    let mut spec = plain(life);
    spec.changes.push((
        "crypto/isakmp/policy".into(),
        "{ 10: { encryption: 3des, hash: md5, group: 5 }, 20: { encryption: aes-256, hash: sha512, group: 16 }, \
         30: { encryption: aes, hash: sha, group: 14 } }"
            .into(),
    ));
    spec.changes.push((
        "crypto/ipsec/transform_set".into(),
        "{ OLD: { transforms: [esp-3des, esp-md5-hmac] }, NEW: { transforms: [esp-aes, esp-sha-hmac] } }".into(),
    ));
    spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/transform_set".into(), "[OLD, NEW]".into()));
    spec.connections = vec![Connection::new("aes192-sha256-modp3072,aes128-sha1-modp2048", "aes192-sha256,aes128-sha1", PSK)];
    spec
}

fn old_suite() -> Spec {
    let mut spec = plain(short_life);
    spec.changes.push(("crypto/isakmp/policy".into(), "{ 1: { encryption: 3des, hash: md5, group: 5 } }".into()));
    spec.changes.push(("crypto/ipsec/transform_set/TRANSFORMSET_1/transforms".into(), "[esp-3des, esp-md5-hmac]".into()));
    spec.connections = vec![Connection::new("3des-md5-modp1536", "3des-md5", PSK)];
    spec
}

fn pfs(group: &str, esp: &str, play: fn(&mut World, Initiator) -> Result<()>) -> Spec {
    let mut spec = plain(play);
    spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/pfs".into(), group.into()));
    spec.connections = vec![Connection::new(IKE, esp, PSK)];
    spec
}

fn dead_peer_detection(play: fn(&mut World, Initiator) -> Result<()>) -> Spec {
    let mut spec = plain(play);
    spec.changes.push(("crypto/isakmp/dpd".into(), "{ interval: 3s, retry: 1s, retries: 2 }".into()));
    spec
}

fn two_children() -> Spec {
    let mut spec = plain(plays::two_children);
    spec.changes.push(("access_list/100".into(), format!("[ 'permit ip any 192.168.4.0/24', 'permit ip any {NET_2}' ]")));
    let second = Child { name: "net2".into(), own: NET_2.into(), other: "0.0.0.0/0".into(), esp: ESP.into(), transport: false };
    spec.connections[0].children.push(second);
    spec
}

fn windows(packets: u32) -> Spec {
    let mut spec = plain(short_life);
    spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/replay_window".into(), packets.to_string()));
    spec.connections[0].replay_window = Some(packets);
    spec
}

fn with_psk(psk: &str) -> Spec {
    Spec { changes: base(psk), connections: vec![Connection::new(IKE, ESP, psk)], swan_daemon: "", play: short_life }
}
