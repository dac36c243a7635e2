//! Rows of IKEv2.

use super::plays::{self, PSK, base, beside, life, short_life};
use super::{Case, Spec, World};
use crate::lab::peer::{Child, Connection, Implementation, Version};
use crate::lab::scenario::Initiator;
use crate::lab::topology::{PEER_IKE_2, PROTECTED_2};
use anyhow::Result;

const IKE: &str = "aes256-sha256-modp2048";
const ESP: &str = "aes256-sha256";

/// The rows.
pub fn cases() -> Vec<Case> {
    use plays as p;
    let case = |row, title, build| Case { row, title, build };
    vec![
        case(1, "IKEv2, PSK, net to net", |_| Ok(plain(whole_life))),
        case(2, "IKEv2: wrong PSK beside a good tunnel", |_| Ok(refused(second(IKE, ESP, "not the key that the gateway has")))),
        case(4, "IKEv2: no common proposal beside a good tunnel", |_| Ok(refused(second("aes192-sha384-modp4096", ESP, PSK)))),
        case(5, "IKEv2: PFS with another group", |_| {
            let mut spec = plain(short_life);
            spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/pfs".into(), "group19".into()));
            spec.connections[0].children[0].esp = "aes256-sha256-ecp256".into();
            Ok(spec)
        }),
        case(6, "IKEv2: child rekeys by either end and by both at once", |_| Ok(plain(p::child_rekeys))),
        case(7, "IKEv2: IKE SA rekeys by either end and by both at once", |_| Ok(plain(p::ike_rekeys))),
        case(8, "IKEv2: liveness, a dead peer is cleared, it comes back", |_| Ok(dead_peer_detection(p::dead_peer))),
        case(12, "IKEv2: two children under one IKE SA, one deleted", |_| Ok(two_children())),
        case(16, "AES-GCM-256 for IKE and ESP, ECP-384", |_| {
            Ok(suite("aes-gcm-256", "", "sha384", "20", "esp-gcm-256", "aes256gcm16-prfsha384-ecp384", "aes256gcm16"))
        }),
        case(16, "ChaCha20-Poly1305 for IKE and ESP, X25519", |kind| match kind {
            Implementation::StrongSwan => Ok(suite(
                "chacha20-poly1305",
                "",
                "sha256",
                "31",
                "esp-chacha20-poly1305",
                "chacha20poly1305-prfsha256-curve25519",
                "chacha20poly1305",
            )),
            Implementation::Libreswan => {
                // Debian's NSS build offers it for ESP only.
                Ok(suite(
                    "aes-gcm-128",
                    "",
                    "sha256",
                    "31",
                    "esp-chacha20-poly1305",
                    "aes128gcm16-prfsha256-curve25519",
                    "chacha20poly1305",
                ))
            }
        }),
        case(16, "AES-CCM for ESP, AES-CTR for IKE", |_| {
            Ok(suite("aes-ctr-256", "sha256", "sha256", "19", "esp-ccm-256", "aes256ctr-sha256-ecp256", "aes256ccm16"))
        }),
        case(18, "IKEv2: deletes of child and IKE SA from either end, repeated", |_| Ok(plain(p::deletes))),
        case(19, "IKEv2: peer restarts without a word", |_| Ok(dead_peer_detection(p::restart))),
        case(20, "IKEv2: both ends start at once", |_| Ok(plain(p::crossing))),
        case(22, "invalid KE: the first group is not the other end's", |_| Ok(invalid_ke())),
        case(23, "cookies on every first message", |kind| {
            let mut spec = plain(short_life);
            spec.changes.push(("crypto/ikev2/cookie_threshold".into(), "0".into()));
            spec.swan_daemon = "\x20 cookie_threshold = 0\n";
            if kind == Implementation::Libreswan {
                spec.play = p::busy_life;
            }
            Ok(spec)
        }),
        case(24, "IKEv2: loss, repeats and reorder on the wire", |_| Ok(plain(p::rough_wire))),
        case(25, "version fallback: the peer speaks version 1 only", |_| {
            let mut spec = plain(short_life);
            spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/ikev1".into(), "true".into()));
            spec.connections[0].version = Version::Main;
            Ok(spec)
        }),
        case(27, "extended sequence numbers", |_| {
            let mut spec = plain(life);
            spec.changes.push(("crypto/map/CMAP_1/1/ipsec-isakmp/esn".into(), "true".into()));
            spec.connections[0].children[0].esp = "aes256-sha256-esn".into();
            Ok(spec)
        }),
        case(28, "IKEv2: power loss in a flood, then liveness, rekey, failback, delete", |_| Ok(plain(p::flood))),
    ]
}

/// Life with IKE rekeys by both ends.
fn whole_life(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.carries()?;
    w.failover()?;
    w.carries()?;
    w.rekey_child(by)?;
    w.step("partner back", World::whole)?;
    w.rekey_child(plays::other(by))?;
    w.rekey_ike(by)?;
    w.rekey_ike(plays::other(by))?;
    w.gone(by)
}

/// Manifest changes of one proposal and one profile.
fn profile(encryption: &str, integrity: &str, prf: &str, group: &str) -> Vec<(String, String)> {
    let integrity = if integrity.is_empty() { String::new() } else { format!(", integrity: [{integrity}]") };
    vec![
        ("crypto/ikev2/proposal/S".into(), format!("{{ encryption: [{encryption}]{integrity}, prf: [{prf}], group: [{group}] }}")),
        ("crypto/ikev2/profile/P".into(), "{ proposal: [S] }".into()),
        ("crypto/map/CMAP_1/1/ipsec-isakmp/ikev2_profile".into(), "P".into()),
    ]
}

fn v2(mut connection: Connection) -> Connection {
    connection.version = Version::V2;
    connection
}

fn plain(play: fn(&mut World, Initiator) -> Result<()>) -> Spec {
    let mut changes = base(PSK);
    changes.extend(profile("aes-cbc-256", "sha256", "sha256", "14"));
    Spec { changes, connections: vec![v2(Connection::new(IKE, ESP, PSK))], swan_daemon: "", play }
}

fn suite(encryption: &str, integrity: &str, prf: &str, group: &str, transform: &str, ike: &str, esp: &str) -> Spec {
    let mut changes = base(PSK);
    changes.extend(profile(encryption, integrity, prf, group));
    changes.push(("crypto/ipsec/transform_set/TRANSFORMSET_1/transforms".into(), format!("[{transform}]")));
    Spec { changes, connections: vec![v2(Connection::new(ike, esp, PSK))], swan_daemon: "", play: short_life }
}

fn second(ike: &str, esp: &str, psk: &str) -> Connection {
    let mut c = v2(Connection::new(ike, esp, psk));
    c.name = "second".into();
    c.local = PEER_IKE_2.ip();
    c.children = vec![Child { name: "bad".into(), own: PROTECTED_2.into(), other: "0.0.0.0/0".into(), esp: esp.into(), transport: false }];
    c
}

fn refused(bad: Connection) -> Spec {
    let mut spec = plain(beside);
    spec.changes[0].1 = format!("[ {{ address: 192.168.3.1, secret: '{PSK}' }}, {{ address: {PEER_IKE_2}, secret: '{PSK}' }} ]");
    spec.changes.push((
        "crypto/map/CMAP_1/2/ipsec-isakmp".into(),
        format!("{{ peer: [{PEER_IKE_2}], ikev2_profile: P, transform_set: [TRANSFORMSET_1], match_address: 102 }}"),
    ));
    spec.changes.push(("access_list/102".into(), format!("[ 'permit ip any {PROTECTED_2}' ]")));
    spec.changes.push(("crypto/isakmp/limits".into(), "{ half_open_age: 4s }".into()));
    spec.connections.push(bad);
    spec
}

fn dead_peer_detection(play: fn(&mut World, Initiator) -> Result<()>) -> Spec {
    let mut spec = plain(play);
    spec.changes.push(("crypto/isakmp/dpd".into(), "{ interval: 3s, retry: 1s, retries: 2 }".into()));
    spec
}

fn two_children() -> Spec {
    let mut spec = plain(plays::two_children);
    spec.changes.push(("access_list/100".into(), format!("[ 'permit ip any 192.168.4.0/24', 'permit ip any {PROTECTED_2}' ]")));
    let second = Child { name: "net2".into(), own: PROTECTED_2.into(), other: "0.0.0.0/0".into(), esp: ESP.into(), transport: false };
    spec.connections[0].children.push(second);
    spec
}

/// Each end's first group is one that the other does not have, or not first.
fn invalid_ke() -> Spec {
    let mut spec = plain(short_life);
    spec.changes.extend(profile("aes-cbc-256", "sha256", "sha256", "15, 14"));
    spec.connections = vec![v2(Connection::new("aes256-sha256-modp4096-modp2048", ESP, PSK))];
    spec
}
