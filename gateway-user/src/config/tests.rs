use super::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg};
use crate::sad::{Lifetime, Selector};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const EXAMPLE_1: &str = include_str!("../../../config/example-1.yaml");
const EXAMPLE_2: &str = include_str!("../../../config/example-2.yaml");
const SECRET: &[u8] = b"0123456789abcdef-unit-test\n";

pub(super) fn with(text: &str) -> Result<Config, Vec<ConfigError>> {
    parse(text, "etc/gw.yaml", &mut |_| Ok(SECRET.to_vec()))
}

pub(super) fn errors(text: &str) -> Vec<String> {
    with(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// `EXAMPLE_1` with one piece replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(EXAMPLE_1.contains(from), "{from}");
    EXAMPLE_1.replacen(from, to, 1)
}

#[test]
fn the_guides_example() {
    let mut asked = Vec::new();
    let config = parse(EXAMPLE_1, "etc/gw.yaml", &mut |p| {
        asked.push(p.to_owned());
        Ok(SECRET.to_vec())
    })
    .unwrap();
    assert_eq!(asked, [Path::new("etc/secrets/example-ssp"), Path::new("etc/secrets/example-psk")]);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.hostname, "7200-1");
    let outside = &config.interfaces[1];
    assert_eq!((outside.name.as_str(), outside.device.as_str(), outside.prefix), ("outside", "eth1", 24));
    let g = &outside.groups[0];
    assert_eq!((g.group, g.name.as_str(), g.vip), (2, "ISP", Ipv4Addr::new(40, 0, 0, 1)));
    assert_eq!((g.hello, g.hold, g.priority, g.preempt), (Duration::from_millis(500), Duration::from_secs(3), 100, true));
    assert_eq!((g.delay_minimum, g.delay_reload), (Duration::from_secs(30), Duration::from_secs(60)));
    assert_eq!(&g.authentication, b"cisco\0\0\0");
    let ssp = config.ssp.as_ref().unwrap();
    assert_eq!((ssp.id, ssp.port), (1, 3249));
    assert_eq!((ssp.remote, ssp.local), (IpAddr::from([172, 16, 31, 6]), IpAddr::from([172, 16, 31, 100])));
    assert_eq!(ssp.secret.expose(), b"0123456789abcdef-unit-test");
    let p = &config.ike.policies[0];
    assert_eq!((p.encryption, p.hash, p.group, p.lifetime_s), (CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Modp2048, 86_400));
    let e = &config.ike.entries[0];
    assert_eq!((e.map.as_str(), e.seq, e.local), ("CMAP_1", 1, IpAddr::from([40, 0, 0, 1])));
    assert_eq!(e.lifetime, Lifetime { seconds: 3600, kilobytes: 4_608_000 });
    assert_eq!((e.replay_window, e.pfs), (1024, None));
    assert_eq!((e.transforms[0].encr, e.transforms[0].integ), (CipherAlg::Aes256, Some(IntegAlg::HmacSha256)));
    assert_eq!((e.flows[0].local, e.flows[0].remote), (Selector::ANY4, Selector::net4(Ipv4Addr::new(192, 168, 4, 0), 24)));
    assert_eq!(config.replay["CMAP_1"].outbound, OutboundInterval::Packets(1_000_000));
    assert_eq!(config.maps[0].description, "Tunnel to 192.168.3.1");
    assert_eq!(config.transform_sets[0].words, ["esp-aes-256", "esp-sha256-hmac"]);
}

#[test]
fn both_nodes_of_a_pair_have_equal_digests() {
    let (a, b) = (with(EXAMPLE_1).unwrap(), with(EXAMPLE_2).unwrap());
    assert_eq!(a.digests, b.digests);
    assert_eq!(a.ike.entries[0].digest, b.ike.entries[0].digest);
    let names: Vec<&str> = a.digests.iter().map(|d| d.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "crypto ipsec transform-set TRANSFORMSET_1",
            "crypto isakmp key 192.168.3.1",
            "crypto isakmp nat-traversal",
            "crypto isakmp policy 1",
            "crypto isakmp timers",
            "crypto map CMAP_1 1",
            "crypto map CMAP_1 ha",
            "dataplane sa_max",
            "interface inside crypto map",
            "interface outside crypto map",
            "ssp group 1",
            "standby 1",
            "standby 2",
        ]
        .into_iter()
        .filter(|n| *n != "interface inside crypto map")
        .collect::<Vec<_>>()
    );
}

#[test]
fn a_difference_is_named_by_its_item() {
    let a = with(EXAMPLE_1).unwrap();
    for (from, to, items) in [
        ("group: 14", "group: 19", &["crypto isakmp policy 1"][..]),
        ("lifetime: 24h", "lifetime: 23h", &["crypto isakmp policy 1"]),
        ("esp-sha256-hmac", "esp-sha512-hmac", &["crypto ipsec transform-set TRANSFORMSET_1", "crypto map CMAP_1 1"]),
        ("192.168.4.0 0.0.0.255", "192.168.4.0 0.0.0.127", &["crypto map CMAP_1 1"]),
        ("inbound: 1000", "inbound: 500", &["crypto map CMAP_1 ha"]),
        ("ip: 172.16.31.1,", "ip: 172.16.31.2,", &["standby 1"]),
        ("hold: 3s", "hold: 4s", &["standby 1"]),
    ] {
        let b = with(&changed(from, to)).unwrap();
        let differing: Vec<&str> = b.digests.iter().filter(|d| !a.digests.contains(d)).map(|d| d.0.as_str()).collect();
        assert_eq!(differing, items, "{from} -> {to}");
    }
    // Not a policy: own names, devices, texts, delays.
    for (from, to) in [("7200-1", "other"), ("eth0", "ens3"), ("Tunnel to 192.168.3.1", "text"), ("minimum: 30s", "minimum: 5s")] {
        assert_eq!(with(&changed(from, to)).unwrap().digests, a.digests, "{from}");
    }
}

#[test]
fn a_key_changes_its_digest_only_through_the_pairs_secret() {
    let digest = |psk: &'static [u8], ssp: &'static [u8]| {
        let config = parse(EXAMPLE_1, "x", &mut |p| Ok(if p.ends_with("example-psk") { psk } else { ssp }.to_vec())).unwrap();
        config.digests.into_iter().find(|d| d.0.starts_with("crypto isakmp key")).unwrap().1
    };
    let base = digest(b"a long enough key 1", b"a long enough secret 1");
    assert_ne!(base, digest(b"a long enough key 2", b"a long enough secret 1"));
    assert_ne!(base, digest(b"a long enough key 1", b"a long enough secret 2"));
    assert_eq!(base, digest(b"a long enough key 1\n", b"a long enough secret 1\n"));
}

#[test]
fn secrets_are_not_printed() {
    let config = with(EXAMPLE_1).unwrap();
    assert!(!format!("{config:?}").contains("unit-test"));
}

#[test]
fn several_errors_at_once_each_with_its_place() {
    let text = changed("device: eth0", "devise: eth0")
        .replace("hello: 500ms, hold: 3s }, preempt: true, track: [inside]", "hello: 500, hold: 3s }, preempt: maybe, track: [inside]");
    let got = errors(&text);
    assert_eq!(got.len(), 4, "{got:#?}");
    assert!(
        got[0].starts_with("etc/gw.yaml:6:5: interfaces.inside: `device` is missing;")
            || got[0].starts_with("etc/gw.yaml:5:3: interfaces.inside: `device` is missing;"),
        "{got:#?}"
    );
    assert!(got[1].starts_with("etc/gw.yaml:6:5: interfaces.inside.devise: unknown key `devise`; did you mean `device`?"), "{got:#?}");
    assert!(got[2].contains("interfaces.outside.standby.groups.2.timers.hello: `500` has no unit; write `500s`"), "{got:#?}");
    assert!(got[3].contains("interfaces.outside.standby.groups.2.preempt: a word stands where true or false belongs"), "{got:#?}");
}

#[test]
fn text_that_is_no_manifest() {
    for (text, what) in [
        ("a: [1", "not YAML"),
        ("a: 1\na: 2\n", "key stands twice, first in line 1"),
        ("- a\n", "a list stands where a mapping belongs"),
        ("", "a mapping belongs"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("---\na: 1\n---\nb: 1\n", "a second document"),
        ("? [a]\n: 1\n", "where a key belongs"),
        ("a: !tag b\n", "unknown key `a`"),
        ("hostname: [a]\n", "a list stands where a single value belongs"),
    ] {
        let got = errors(text);
        assert!(got.iter().any(|e| e.contains(what)), "{text:?}: {got:#?}");
    }
    let deep = "[".repeat(4000);
    assert!(errors(&deep)[0].contains("nested deeper") || errors(&deep)[0].contains("not YAML"));
}

#[test]
fn odd_texts_never_panic() {
    // Every prefix, and every line left out: refused or accepted, but always with a result.
    for n in (0..EXAMPLE_1.len()).step_by(7) {
        let _ = with(&EXAMPLE_1[..n]);
    }
    let lines: Vec<&str> = EXAMPLE_1.lines().collect();
    for skip in 0..lines.len() {
        let text: Vec<&str> = lines.iter().enumerate().filter(|(n, _)| *n != skip).map(|(_, l)| *l).collect();
        if let Err(errors) = with(&text.join("\n")) {
            assert!(!errors.is_empty());
            assert!(errors.iter().all(|e| e.line >= 1 && e.column >= 1 && !e.cause.is_empty() && !e.cure.is_empty()));
            assert!(errors.iter().all(|e| !e.cause.contains("without a reason")), "line {skip}: {errors:?}");
        }
    }
}

#[test]
fn without_ssp_a_single_node_uses_its_own_address() {
    let text = EXAMPLE_1
        .lines()
        .filter(|l| !l.contains("ssp: 1") || l.contains("crypto_map"))
        .filter(|l| !l.starts_with("ssp:") && !l.contains("redundancy"))
        .collect::<Vec<_>>()
        .join("\n")
        .replace(", ssp: 1 }", " }");
    let config = with(&text).unwrap();
    assert!(config.ssp.is_none());
    assert!(config.digests.iter().all(|d| !d.0.starts_with("crypto isakmp key")));
}

/// A manifest with a peer, a key and an access list for each of `n` entries.
fn large(n: u32) -> String {
    let peer = |i: u32| format!("10.{}.{}.{}", 100 + (i >> 16), i >> 8 & 255, i & 255);
    let (mut keys, mut entries, mut lists) = (String::new(), String::new(), String::new());
    for i in 1..=n {
        keys += &format!("      - {{ address: {}, secret_file: psk }}\n", peer(i));
        entries +=
            &format!("      {i}:\n        ipsec-isakmp: {{ peer: [{}], transform_set: [TRANSFORMSET_1], match_address: L{i} }}\n", peer(i));
        lists += &format!("  L{i}:\n    - permit ip any host {}\n", Ipv4Addr::from(0x1400_0000 + i));
    }
    let (head, rest) = EXAMPLE_1.split_once("      - { address: 192.168.3.1").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let (middle, _) = rest.split_once("      1:\n        ipsec-isakmp").unwrap();
    format!("{head}{keys}{middle}{entries}access_list:\n{lists}")
}

#[test]
fn many_entries_load_in_time_and_have_few_items() {
    let n = 5000;
    let begin = std::time::Instant::now();
    let config = with(&large(n)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(config.ike.entries.len(), 5000);
    assert!(config.digests.len() < 1000, "{}", config.digests.len());
    // A difference is still found, in a block of entries and in a group of keys.
    let text = large(n);
    let other = with(&text.replace("L4000:\n    - permit ip any", "L4000:\n    - permit udp any")).unwrap();
    let differing: Vec<&str> = other.digests.iter().filter(|d| !config.digests.contains(d)).map(|d| d.0.as_str()).collect();
    assert_eq!(differing, ["crypto map CMAP_1 3969-4096"]);
    let fewer = with(&large(n - 1)).unwrap();
    let names: Vec<&str> = fewer.digests.iter().filter(|d| !config.digests.contains(d)).map(|d| d.0.as_str()).collect();
    assert_eq!(names, ["crypto isakmp keys *.*.*.136", "crypto map CMAP_1 4993-5120"]);
}
