//! What IKEv2, NAT traversal and the newer algorithms add to the guide's output, in the form of later releases of IOS.

use super::super::views::*;
use super::tests::Sample;
use super::*;
use crate::config::parse;
use crate::crypto::{AesKey, CipherAlg, Icv};
use crate::sad::{Encap, Mode};

const SECRET: &[u8] = b"0123456789abcdef-unit-test";

fn answer_of(text: &str, command: &str) -> Result<(Value, String), String> {
    let mut sample = Sample::new(HaStatus::Active);
    sample.config = parse(text, "x", &mut |_| Ok(SECRET.to_vec())).unwrap();
    let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    dispatch(&argv, &sample)
}

const EXAMPLE: &str = include_str!("../../../../config/example-1-ikev2.yaml");

fn text(command: &str) -> String {
    answer_of(EXAMPLE, command).unwrap().1
}

#[test]
fn ikev2_sas() {
    let brief = "Tunnel-id  Local          Remote         Status  HA Status\n\
         3          40.0.0.1:4500  20.0.0.9:1024  READY   ACTIVE\n\
         \x20     Encr: AES-GCM-256, PRF: SHA384, Hash: None, DH Grp: 31+36, Auth sign: PSK, Auth verify: SIG\n\
         \x20     Life/Active Time: 86400/82739 sec\n";
    assert_eq!(text("show crypto ikev2 sa"), brief);
    assert_eq!(
        text("sh cry ikev2 sa det"),
        format!(
            "{brief}\
             \x20     Local spi: 01020304 05060708, Remote spi: 11121314 15161718\n\
             \x20     Local id: 40.0.0.1\n\
             \x20     Remote id: fqdn:branch.example.org\n\
             \x20     Local next msg id: 2, Remote next msg id: 7\n\
             \x20     Profile: BRANCH\n\
             \x20     Fragmentation: on\n\
             \x20     NAT detected: remote\n\
             \x20     Initiator of SA: Yes\n"
        )
    );
    // Each version has its own list; what failover knows of both stands in one.
    assert!(!text("show crypto isakmp sa").contains("20.0.0.9"));
    assert!(text("show crypto isakmp ha active").contains("20.0.0.9"));
    let json = answer_of(EXAMPLE, "show crypto ikev2 sa").unwrap().0;
    assert_eq!((&json[0]["version"], &json[0]["remote"], &json[0]["state"]), (&"V2".into(), &"20.0.0.9:1024".into(), &"READY".into()));
}

#[test]
fn ikev2_proposals() {
    assert_eq!(
        text("show crypto ikev2 proposal"),
        "IKEv2 proposal: AEAD\n\
         \x20    Encryption : AES-GCM-256 AES-GCM-128\n\
         \x20    Integrity  : none\n\
         \x20    PRF        : SHA384 SHA256\n\
         \x20    DH Group   : CURVE25519/Group 31 DH_GROUP_256_ECP/Group 19 DH_GROUP_2048_MODP/Group 14\n"
    );
    let hybrid = EXAMPLE.replace("group: [31, 19, 14]", "group: [31], additional_key_exchange: [[mlkem768]]");
    let got = answer_of(&hybrid, "show crypto ikev2 proposal AEAD").unwrap();
    assert!(got.1.ends_with("     Additional : 1 ML_KEM_768/Group 36\n"), "{}", got.1);
    assert_eq!(got.0[0]["additional"][0][0], "ML_KEM_768/Group 36");
    // Those that are taken when a profile names none.
    let default = answer_of(&EXAMPLE.replace("{ proposal: [AEAD] }", "{}"), "show crypto ikev2 proposal default-cbc").unwrap().1;
    assert!(default.contains("     Encryption : AES-CBC-256 AES-CBC-128\n     Integrity  : SHA256 SHA384 SHA512\n"), "{default}");
    assert_eq!(answer_of(EXAMPLE, "show crypto ikev2 proposal X").unwrap_err(), "there is no IKEv2 proposal X");
}

#[test]
fn ikev2_profiles() {
    assert_eq!(
        text("show crypto ikev2 profile"),
        "IKEv2 profile: PROFILE_1\n\
         \x20Proposals: AEAD\n\
         \x20Local identity: none\n\
         \x20Remote identity: none\n\
         \x20Local authentication method: pre-share\n\
         \x20Remote authentication method(s): pre-share\n\
         \x20Trustpoint(s): none\n\
         \x20PPK: none\n\
         \x20Lifetime: 86400 seconds\n\
         \x20Fragmentation: MTU 1280\n\
         \x20Childless: off\n\
         \x20Crypto map entries: CMAP_1 1\n"
    );
    let profile = "{ identity_local: 'dn:C=DE, CN=gw', identity_remote: email:a@b, fragmentation: false, childless: true, \
                   ppk: { id: p1, secret_file: x, required: true } }";
    let (json, got) = answer_of(&EXAMPLE.replace("{ proposal: [AEAD] }", profile), "show crypto ikev2 profile PROFILE_1").unwrap();
    for line in [
        " Proposals: default, default-cbc\n",
        " Local identity: dn:C=DE, CN=gw\n Remote identity: email:a@b\n",
        " PPK: p1, required\n",
        " Fragmentation: off\n Childless: on\n",
    ] {
        assert!(got.contains(line), "{line}{got}");
    }
    assert!(!json.to_string().contains("unit-test"), "{json}");
    assert_eq!(answer_of(EXAMPLE, "show crypto ikev2 profile X").unwrap_err(), "there is no IKEv2 profile X");
}

#[test]
fn sessions_of_both_versions() {
    assert_eq!(
        text("show crypto session"),
        "Crypto session current status\n\
         \n\
         Interface: eth1\n\
         Session status: UP-ACTIVE\n\
         Peer: 192.168.3.1 port 500\n\
         \x20 IKEv1 SA: local 40.0.0.1/500 remote 192.168.3.1/500 Standby\n\
         \x20 IPSEC FLOW: permit ip 0.0.0.0/0.0.0.0 192.168.4.0/255.255.255.0\n\
         \x20       Active SAs: 2, origin: crypto map\n\
         \n\
         Session status: UP-IDLE\n\
         Peer: 20.3.113.1 port 500\n\
         \x20 IKEv1 SA: local 40.0.0.1/500 remote 20.3.113.1/500 Active\n\
         \n\
         Session status: UP-IDLE\n\
         Peer: 20.0.0.9 port 1024\n\
         \x20 IKEv2 SA: local 40.0.0.1/4500 remote 20.0.0.9/1024 Active\n"
    );
    let detail = text("show crypto session detail");
    for line in [
        "          conn-id: 3, lifetime: 01:01:01\n",
        "        Inbound:  #pkts dec'ed 12\n        Outbound: #pkts enc'ed 10, life (Sec) 3510\n",
    ] {
        assert!(detail.contains(line), "{line}{detail}");
    }
    let json = answer_of(EXAMPLE, "show crypto session").unwrap().0;
    assert_eq!((&json[0]["state"], &json[1]["state"]), (&"UP-ACTIVE".into(), &"UP-IDLE".into()));
}

#[test]
fn session_states() {
    let sample = Sample::new(HaStatus::Active);
    let state = |up: bool, ike: bool, sas: bool| {
        let mut list = sample.isakmp_sas();
        list.retain(|s| ike && s.conn_id == 2);
        for s in &mut list {
            s.state = if up { crate::ike::IsakmpState::QM_IDLE } else { crate::ike::IsakmpState::MM_KEY_EXCH };
        }
        let mut flows = sample.ipsec_flows();
        if !sas {
            flows[0].inbound.clear();
            flows[0].outbound.clear();
        }
        SessionView::compose(&list, &flows)[0].state.word()
    };
    assert_eq!(state(true, true, true), "UP-ACTIVE");
    assert_eq!(state(true, true, false), "UP-IDLE");
    assert_eq!(state(false, true, true), "UP-NO-IKE");
    assert_eq!(state(false, false, true), "UP-NO-IKE");
    assert_eq!(state(false, true, false), "DOWN-NEGOTIATING");
    assert_eq!(state(false, false, false), "DOWN");
}

#[test]
fn settings_of_an_sa() {
    let mut flows = Sample::new(HaStatus::Active).ipsec_flows();
    let sa = &mut flows[0].inbound[0];
    sa.transform = crate::config::encr_word(CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16)).to_owned();
    (sa.encap, sa.esn, sa.iv_bytes) = (Some(Encap { local_port: 4500, peer_port: 1024 }), true, 8);
    flows[0].outbound[0].mode = Mode::Transport;
    let filter = crate::cli::command::SaFilter::Detail;
    let got = ipsec::answer(&filter, flows).unwrap().1;
    for lines in [
        "        transform: esp-gcm-256 ,\n        in use settings ={Tunnel UDP-Encaps, }\n",
        "        IV size: 8 bytes\n        replay detection support: Y\n        extended sequence number support: Y\n        \
         UDP ports: local 4500, remote 1024\n",
        "        in use settings ={Transport, }\n",
    ] {
        assert!(got.contains(lines), "{lines}{got}");
    }
    assert_eq!(got.matches("extended sequence number").count(), 1);
}

#[test]
fn the_configuration_of_ikev2() {
    let map = text("show crypto map");
    assert!(map.contains("        Peer = 192.168.3.1\n        IKEv2 Profile: PROFILE_1\n        Extended IP access list 100\n"), "{map}");
    let more = EXAMPLE
        .replace("ikev2_profile: PROFILE_1,", "ikev2_profile: PROFILE_1, ikev1: true, esn: true, pfs: group19,")
        .replace("    key:", "    policy: { 1: {} }\n    key:");
    let map = answer_of(&more, "show crypto map").unwrap().1;
    assert!(map.contains("        IKEv2 Profile: PROFILE_1, or IKEv1\n"), "{map}");
    assert!(map.contains("        PFS (Y/N): Y\n        ESN (Y/N): Y\n        DH group:  group19\n"), "{map}");
    assert_eq!(
        text("show crypto ipsec transform-set"),
        "Transform set TRANSFORMSET_1: { esp-gcm-256 }\n   will negotiate = { Tunnel, },\n\n"
    );
}
