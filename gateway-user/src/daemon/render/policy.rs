//! What comes from the manifest alone: policies, transform sets, crypto maps.

use crate::cli::command::MapFilter;
use crate::config::Config;
use crate::crypto::{CipherAlg, DhGroup, HashAlg};
use crate::ike::AuthMethod;
use crate::sad::Selector;
use serde::Serialize;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// `show crypto isakmp policy`, one suite.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyView {
    /// Priority number.
    pub number: u32,
    /// Encryption, spelled out.
    pub encryption: &'static str,
    /// Hash, spelled out.
    pub hash: &'static str,
    /// How the ends prove themselves, spelled out.
    pub authentication: &'static str,
    /// Group number.
    pub group: u16,
    /// Its size in bits.
    pub group_bits: u32,
    /// Lifetime in seconds.
    pub lifetime_s: u64,
}

/// `show crypto ipsec transform-set`, one set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TransformSetView {
    /// Name.
    pub name: String,
    /// Transforms.
    pub transforms: Vec<String>,
    /// `Tunnel`.
    pub mode: String,
}

/// `show crypto map`, one entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MapView {
    /// Map name.
    pub map: String,
    /// Sequence number.
    pub seq: u32,
    /// Kernel device.
    pub interface: String,
    /// Our end.
    pub local: IpAddr,
    /// Free text.
    pub description: String,
    /// Peers.
    pub peers: Vec<IpAddr>,
    /// Access list.
    pub match_address: String,
    /// Its flows.
    pub flows: Vec<(Selector, Selector)>,
    /// Kilobytes; 0 = no limit.
    pub kilobytes: u64,
    /// Seconds.
    pub seconds: u64,
    /// PFS group number.
    pub pfs: Option<u16>,
    /// Transform sets.
    pub transform_sets: Vec<String>,
    /// IKEv2 profile.
    pub ikev2_profile: Option<String>,
    /// Version 1 may be spoken.
    pub ikev1: bool,
    /// Extended sequence numbers are offered.
    pub esn: bool,
}

const fn encryption(alg: CipherAlg) -> &'static str {
    match alg {
        CipherAlg::Des => "DES - Data Encryption Standard (56 bit keys).",
        CipherAlg::TripleDes => "Three key triple DES",
        CipherAlg::Aes128 => "AES - Advanced Encryption Standard (128 bit keys).",
        CipherAlg::Aes192 => "AES - Advanced Encryption Standard (192 bit keys).",
        CipherAlg::Aes256 => "AES - Advanced Encryption Standard (256 bit keys).",
        CipherAlg::Null => "none",
        CipherAlg::AesCtr(_) => "AES-CTR",
        CipherAlg::AesGcm(..) => "AES-GCM",
        CipherAlg::AesCcm(..) => "AES-CCM",
        CipherAlg::ChaCha20Poly1305 => "ChaCha20-Poly1305",
    }
}

const fn hash(alg: HashAlg) -> &'static str {
    match alg {
        HashAlg::Md5 => "Message Digest 5",
        HashAlg::Sha1 => "Secure Hash Standard",
        HashAlg::Sha256 => "Secure Hash Standard 2 (256 bit)",
        HashAlg::Sha384 => "Secure Hash Standard 2 (384 bit)",
        HashAlg::Sha512 => "Secure Hash Standard 2 (512 bit)",
    }
}

const fn group_bits(group: DhGroup) -> u32 {
    match group {
        DhGroup::Modp768 => 768,
        DhGroup::Modp1024 => 1024,
        DhGroup::Modp1536 => 1536,
        DhGroup::Modp2048 => 2048,
        DhGroup::Modp3072 => 3072,
        DhGroup::Modp4096 => 4096,
        DhGroup::Modp6144 => 6144,
        DhGroup::Modp8192 => 8192,
        DhGroup::Ecp256 => 256,
        DhGroup::Ecp384 => 384,
        DhGroup::Ecp521 => 521,
        DhGroup::X25519 => 255,
        DhGroup::MlKem768 => 768,
    }
}

pub(super) fn policy_views(config: &Config, number: Option<u32>) -> Vec<PolicyView> {
    config
        .ike
        .policies
        .iter()
        .filter(|p| number.is_none_or(|n| p.number == n))
        .map(|p| PolicyView {
            number: p.number,
            encryption: encryption(p.encryption),
            hash: hash(p.hash),
            authentication: match p.authentication {
                AuthMethod::PreShared => "Pre-Shared Key",
                AuthMethod::Signature => "Rivest-Shamir-Adleman Signature",
            },
            group: p.group.number(),
            group_bits: group_bits(p.group),
            lifetime_s: p.lifetime_s,
        })
        .collect()
}

/// `show crypto isakmp policy`.
pub fn policies(list: &[PolicyView]) -> String {
    let mut out = String::new();
    for p in list {
        let _ = write!(
            out,
            "Protection suite of priority {}\n\
             \x20       encryption algorithm:   {}\n\
             \x20       hash algorithm:         {}\n\
             \x20       authentication method:  {}\n\
             \x20       Diffie-Hellman group:   #{} ({} bit)\n\
             \x20       lifetime:               {} seconds, no volume limit\n",
            p.number, p.encryption, p.hash, p.authentication, p.group, p.group_bits, p.lifetime_s
        );
    }
    out
}

pub(super) fn transform_set_views(config: &Config) -> Vec<TransformSetView> {
    config
        .transform_sets
        .iter()
        .map(|t| TransformSetView { name: t.name.clone(), transforms: t.words.clone(), mode: format!("{:?}", t.mode) })
        .collect()
}

/// `show crypto ipsec transform-set`.
pub fn transform_sets(list: &[TransformSetView]) -> String {
    let mut out = String::new();
    for t in list {
        let _ = write!(out, "Transform set {}: {{ {} }}\n   will negotiate = {{ {}, }},\n\n", t.name, t.transforms.join(" "), t.mode);
    }
    out
}

pub(super) fn map_views(config: &Config, filter: &MapFilter) -> Vec<MapView> {
    let device = |name: &str| config.interfaces.iter().find(|i| i.name == name).map_or("", |i| i.device.as_str());
    config
        .ike
        .entries
        .iter()
        .zip(&config.maps)
        .filter(|(e, info)| match filter {
            MapFilter::All => true,
            MapFilter::Interface(name) => info.interface == *name || device(&info.interface) == name,
            MapFilter::Tag(tag) => e.map == *tag,
        })
        .map(|(e, info)| MapView {
            map: e.map.clone(),
            seq: e.seq,
            interface: device(&info.interface).to_owned(),
            local: e.local,
            description: info.description.clone(),
            peers: e.peers.clone(),
            match_address: info.match_address.clone(),
            flows: e.flows.iter().map(|f| (f.local, f.remote)).collect(),
            kilobytes: e.lifetime.kilobytes,
            seconds: e.lifetime.seconds,
            pfs: e.pfs.map(DhGroup::number),
            transform_sets: e.transforms.iter().map(|t| t.name.clone()).collect(),
            ikev2_profile: e.ikev2.as_ref().map(|p| p.name.clone()),
            ikev1: e.ikev1,
            esn: e.esn,
        })
        .collect()
}

/// `show crypto map`.
pub fn maps(list: &[MapView]) -> String {
    let mut out = String::new();
    let mut last: Option<&str> = None;
    for m in list {
        if last != Some(&m.map) {
            let _ = writeln!(out, "Crypto Map: \"{}\" idb: {} local address: {}", m.map, m.interface, m.local);
            last = Some(&m.map);
        }
        let _ = map(&mut out, m);
    }
    out
}

fn map(out: &mut String, m: &MapView) -> std::fmt::Result {
    writeln!(out, "\nCrypto Map \"{}\" {} ipsec-isakmp", m.map, m.seq)?;
    if !m.description.is_empty() {
        writeln!(out, "        Description: {}", m.description)?;
    }
    for p in &m.peers {
        writeln!(out, "        Peer = {p}")?;
    }
    if let Some(profile) = &m.ikev2_profile {
        writeln!(out, "        IKEv2 Profile: {profile}{}", if m.ikev1 { ", or IKEv1" } else { "" })?;
    }
    writeln!(out, "        Extended IP access list {}", m.match_address)?;
    for (local, remote) in &m.flows {
        writeln!(out, "            access-list {} permit {}", m.match_address, protocol(local.proto))?;
        writeln!(out, "                source: addr = {}", wild(local))?;
        writeln!(out, "                dest:   addr = {}", wild(remote))?;
    }
    if let Some(p) = m.peers.first() {
        writeln!(out, "        Current peer: {p}")?;
    }
    writeln!(out, "        Security-association lifetime: {} kilobytes/{} seconds", m.kilobytes, m.seconds)?;
    writeln!(out, "        PFS (Y/N): {}", if m.pfs.is_some() { "Y" } else { "N" })?;
    if m.esn {
        writeln!(out, "        ESN (Y/N): Y")?;
    }
    if let Some(group) = m.pfs {
        writeln!(out, "        DH group:  group{group}")?;
    }
    writeln!(out, "        Transform sets={{ {}, }}", m.transform_sets.join(", "))
}

pub(super) fn protocol(proto: u8) -> String {
    match proto {
        0 => "ip".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        47 => "gre".to_owned(),
        n => n.to_string(),
    }
}

/// `ADDRESS/WILDCARD`, and the port where there is one.
fn wild(s: &Selector) -> String {
    let port = if s.port == 0 { String::new() } else { format!(", port = {}", s.port) };
    match s.addr {
        IpAddr::V4(a) => {
            let wildcard = Ipv4Addr::from(u32::MAX.checked_shr(u32::from(s.prefix)).unwrap_or(0));
            format!("{a}/{wildcard}{port}")
        }
        IpAddr::V6(a) => format!("{a}/{}{port}", s.prefix),
    }
}
