use super::super::views::*;
use super::*;
use crate::config::{Config, parse};
use crate::hsrp;
use crate::id::{Epoch, IkeSaId, IkeVersion, Spi};
use crate::ike::IsakmpState;
use crate::ports::{PathRole, ReasonCount};
use crate::sad::{Mode, Selector};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// 13:00:16 on the guide's Tuesday, 1 October 2002, in UTC.
const THEN: i64 = 1_033_477_216;
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(40, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 3, 1));

pub(super) struct Sample {
    pub(super) config: Config,
    status: HaStatus,
}

impl Sample {
    pub(super) fn new(status: HaStatus) -> Self {
        let config =
            parse(include_str!("../../../../config/example-1.yaml"), "x", &mut |_| Ok(b"0123456789abcdef-unit-test".to_vec())).unwrap();
        Self { config, status }
    }

    fn sa(&self, spi: u32, conn_id: u32, flow_id: u32) -> SaView {
        SaView {
            spi: Spi(spi),
            transform: "esp-aes-256 esp-sha256-hmac".to_owned(),
            conn_id,
            flow_id,
            map: "CMAP_1".to_owned(),
            remaining_kb: Some(4_607_999),
            remaining_s: Some(3510),
            mode: Mode::Tunnel,
            encap: None,
            esn: false,
            iv_bytes: 16,
            replay_window: 1024,
            status: self.status,
            seq: 77,
            lease_hi: (flow_id == 4).then_some(2_000_000),
        }
    }
}

impl StateSource for Sample {
    fn config(&self) -> &Config {
        &self.config
    }
    fn ssp(&self) -> SspView {
        SspView {
            clients: SspClientView::both((1, 0), (1, 0)),
            packet: SspPacketView {
                socket_age_s: Some(3666),
                local_port: 3249,
                server_port: 3249,
                packets_sent: 38559,
                bytes_sent: 2_285_020,
                packets_received: 910,
                bytes_received: 61472,
            },
            peers: vec![SspPeerView {
                address: IpAddr::from([172, 16, 31, 6]),
                state: "Connected".to_owned(),
                interface: "eth0".to_owned(),
            }],
            redundancy: SspRedundancyView {
                state: self.status,
                for_s: 10534,
                epoch: Epoch(3),
                not_ready: None,
                groups: vec![
                    SspGroupRow { vip: Ipv4Addr::new(40, 0, 0, 1), name: "ISP".to_owned(), interface: "eth1".to_owned() },
                    SspGroupRow { vip: Ipv4Addr::new(172, 16, 31, 1), name: "LAN".to_owned(), interface: "eth0".to_owned() },
                ],
            },
        }
    }
    fn isakmp_ha(&self) -> Vec<IsakmpHaView> {
        vec![IsakmpHaView { vip: VIP, sas: 902, stamp: 0x72C2_8872, state: self.status, since: THEN }]
    }
    fn isakmp_sas(&self) -> Vec<IsakmpSaView> {
        let id = |i: u64, r: u64| IkeSaId { initiator: i.to_be_bytes(), responder: r.to_be_bytes() };
        vec![
            IsakmpSaView {
                version: IkeVersion::V1,
                dst: VIP,
                src: IpAddr::from([20, 3, 113, 1]),
                local: SocketAddr::new(VIP, 500),
                remote: SocketAddr::from(([20, 3, 113, 1], 500)),
                initiator: false,
                state: IsakmpState::QM_IDLE,
                id: id(0x7968_85F3_62C3_295E, 0xFFAF_BACD_EED4_1AFF),
                conn_id: 1,
                status: self.status,
                remaining_s: 80_000,
                ikev2: None,
            },
            IsakmpSaView {
                version: IkeVersion::V1,
                dst: VIP,
                src: PEER,
                local: SocketAddr::new(VIP, 500),
                remote: SocketAddr::new(PEER, 500),
                initiator: false,
                state: IsakmpState::QM_IDLE,
                id: id(0x5B78_D70F_3D80_ED01, 0x0000_0001_0000_00FF),
                conn_id: 2,
                status: HaStatus::Standby,
                remaining_s: 80_000,
                ikev2: None,
            },
            IsakmpSaView {
                version: IkeVersion::V2,
                dst: IpAddr::from([20, 0, 0, 9]),
                src: VIP,
                local: SocketAddr::new(VIP, 4500),
                remote: SocketAddr::from(([20, 0, 0, 9], 1024)),
                initiator: true,
                state: IsakmpState::READY,
                id: id(0x0102_0304_0506_0708, 0x1112_1314_1516_1718),
                conn_id: 3,
                status: HaStatus::Active,
                remaining_s: 3661,
                ikev2: Some(Ikev2SaView {
                    profile: "BRANCH".to_owned(),
                    encryption: "aes-gcm-256",
                    integrity: None,
                    prf: "sha384",
                    group: 31,
                    additional: vec![36],
                    sign: "PSK",
                    verify: "SIG",
                    local_id: None,
                    remote_id: "fqdn:branch.example.org".to_owned(),
                    lifetime_s: 86_400,
                    active_s: 82_739,
                    next_request: 2,
                    next_remote_request: 7,
                    fragmentation: true,
                    nat: "remote",
                }),
            },
        ]
    }
    fn isakmp_ssp(&self) -> Vec<IsakmpSspView> {
        vec![IsakmpSspView { vip: VIP, adds: 538, deletes: 33, requests: 0, replies: 0 }]
    }
    fn ipsec_ha(&self) -> Vec<IpsecHaView> {
        vec![IpsecHaView { interface: "eth1".to_owned(), vip: VIP, sas: 1800, state: self.status, since: THEN }]
    }
    fn ipsec_flows(&self) -> Vec<FlowView> {
        vec![FlowView {
            interface: "eth1".to_owned(),
            interface_name: "outside".to_owned(),
            map: "CMAP_1".to_owned(),
            local_addr: VIP,
            local: Selector::ANY4,
            remote: Selector::net4(Ipv4Addr::new(192, 168, 4, 0), 24),
            peer: PEER,
            packets_out: 10,
            packets_in: 12,
            send_errors: 1,
            recv_errors: 2,
            path_mtu: 1500,
            media_mtu: 1500,
            plaintext_mtu: Some(1438),
            current_spi_out: Some(Spi(0x132E_D6AB)),
            inbound: vec![self.sa(0xD8C8_635F, 2006, 3)],
            outbound: vec![self.sa(0x132E_D6AB, 2007, 4)],
        }]
    }
    fn standby(&self) -> Vec<StandbyView> {
        let row = |interface: &str, group, standby, vip| StandbyView {
            interface: interface.to_owned(),
            group,
            priority: 100,
            preempt: true,
            state: hsrp::State::Active,
            active: Some(Router::Local),
            standby: Some(Router::Address(standby)),
            vip,
        };
        vec![
            row("eth0", 1, Ipv4Addr::new(172, 16, 31, 6), Ipv4Addr::new(172, 16, 31, 1)),
            row("eth1", 2, Ipv4Addr::new(40, 0, 0, 6), Ipv4Addr::new(40, 0, 0, 1)),
        ]
    }
    fn takeovers(&self) -> Vec<TakeoverView> {
        vec![TakeoverView {
            epoch: Epoch(3),
            cause: "hold timer".to_owned(),
            at: THEN,
            pairs: 900,
            detected_ms: Some(3000.04),
            role_ms: Some(0.2),
            vips_ms: Some(1.5),
            garp_ms: Some(1.9),
            ike_ms: Some(2.25),
            total_ms: None,
        }]
    }
    fn datapath(&self) -> DatapathView {
        DatapathView {
            role: PathRole::Active,
            epoch: Epoch(3),
            lease_left_ms: Some(2500),
            attached: vec![("eth0".to_owned(), "native"), ("eth1".to_owned(), "generic")],
            reasons: vec![
                ReasonCount { program: "guard", reason: "above_lease", drop: true, packets: 4 },
                ReasonCount { program: "classify", reason: "esp", drop: false, packets: 12345 },
            ],
        }
    }
    fn version(&self) -> VersionView {
        VersionView {
            version: "0.1.0".to_owned(),
            hostname: "7200-1".to_owned(),
            kernel: "6.12.0".to_owned(),
            abi: 1,
            ssp: 1,
            uptime_s: 90_061,
            manifest: "/etc/gateway/gw.yaml".to_owned(),
        }
    }
    fn partner_digests(&self) -> Option<Vec<(String, [u8; 32])>> {
        let mut d = self.config.digests.clone();
        d.retain(|d| d.0 != "dataplane sa_max");
        for d in d.iter_mut().filter(|d| d.0 == "standby 2") {
            d.1 = [0xab; 32];
        }
        Some(d)
    }
    fn debugging(&self) -> Vec<String> {
        vec!["ssp fsm".to_owned()]
    }
}

fn text(command: &str) -> String {
    answer(command, HaStatus::Active).1
}

fn answer(command: &str, status: HaStatus) -> (Value, String) {
    let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    dispatch(&argv, &Sample::new(status)).unwrap()
}

#[test]
fn ssp_as_the_guide_prints_it() {
    assert_eq!(
        text("show ssp client"),
        "SSP Client Information\n\n\
         DOI  Client Name       Version  Running Ver\n\
         1    IPSec HA Manager  1.0      1.0\n\
         2    IKE HA Manager    1.0      1.0\n"
    );
    assert_eq!(
        text("show ssp packet"),
        "SSP packet Information\n\n\
         Socket creation time: 01:01:06\n\
         Local port: 3249 Server port: 3249\n\
         Packets Sent = 38559, Bytes Sent = 2285020\n\
         Packets Received = 910, Bytes Received = 61472\n"
    );
    assert_eq!(
        text("show ssp peers"),
        "SSP Peer Information\n\n\
         IP Address   Connection State  Local Interface\n\
         172.16.31.6  Connected         eth0\n"
    );
    assert_eq!(
        text("show ssp redundancy"),
        "SSP Redundancy Information\n\n\
         Device has been ACTIVE for 02:55:34\n\n\
         Virtual IP   Redundancy Name  Interface\n\
         40.0.0.1     ISP              eth1\n\
         172.16.31.1  LAN              eth0\n"
    );
    let all = text("show ssp");
    let titles: Vec<&str> = all.lines().filter(|l| l.ends_with("Information")).collect();
    assert_eq!(titles, ["SSP Client Information", "SSP packet Information", "SSP Peer Information", "SSP Redundancy Information"]);
}

#[test]
fn isakmp_as_the_guide_prints_it() {
    assert_eq!(
        text("show crypto isakmp ha"),
        "VIP       SAs  Stamp     HA State\n\
         40.0.0.1  902  72C28872  Active since 13:00:16 UTC Tue Oct 1 2002\n"
    );
    assert_eq!(
        text("sh cry isa ha st"),
        "dst       src          state    I-Cookie           R-Cookie\n\
         40.0.0.1  192.168.3.1  QM_IDLE  5B78D70F 3D80ED01  00000001 000000FF\n"
    );
    assert_eq!(
        text("show crypto isakmp ha active").lines().nth(1),
        Some("40.0.0.1  20.3.113.1  QM_IDLE  796885F3 62C3295E  FFAFBACD EED41AFF")
    );
    assert_eq!(answer("show crypto isakmp ha standby", HaStatus::Standby).1.lines().count(), 3);
    assert_eq!(text("show crypto isakmp sa").lines().next(), Some("dst       src          state    conn-id  slot  status"));
    assert_eq!(
        text("show crypto isakmp ssp"),
        "VIP       ADDS  DELETES  REQUESTS  REPLIES\n\
         40.0.0.1  538   33       0         0\n"
    );
    assert_eq!(
        text("show crypto isakmp policy 1"),
        "Protection suite of priority 1\n\
         \x20       encryption algorithm:   AES - Advanced Encryption Standard (256 bit keys).\n\
         \x20       hash algorithm:         Secure Hash Standard 2 (256 bit)\n\
         \x20       authentication method:  Pre-Shared Key\n\
         \x20       Diffie-Hellman group:   #14 (2048 bit)\n\
         \x20       lifetime:               86400 seconds, no volume limit\n"
    );
}

const SA_BLOCK: &str = "
interface: eth1
    Crypto map tag: CMAP_1, local addr. 40.0.0.1

   local  ident (addr/mask/prot/port): (0.0.0.0/0.0.0.0/0/0)
   remote ident (addr/mask/prot/port): (192.168.4.0/255.255.255.0/0/0)
   current_peer: 192.168.3.1
     PERMIT, flags={origin_is_acl,}
    #pkts encaps: 10, #pkts encrypt: 10, #pkts digest 10
    #pkts decaps: 12, #pkts decrypt: 12, #pkts verify 12
    #pkts compressed: 0, #pkts decompressed: 0
    #pkts not compressed: 0, #pkts compr. failed: 0, #pkts decompress failed: 0
    #send errors 1, #recv errors 2

     local crypto endpt.: 40.0.0.1, remote crypto endpt.: 192.168.3.1
     path mtu 1500, media mtu 1500
     current outbound spi: 132ED6AB

     inbound esp sas:
      spi: 0xD8C8635F(3637011295)
        transform: esp-aes-256 esp-sha256-hmac ,
        in use settings ={Tunnel, }
        slot: 0, conn id: 2006, flow_id: 3, crypto map: CMAP_1
        sa timing: remaining key lifetime (k/sec): (4607999/3510)
        IV size: 16 bytes
        replay detection support: Y
        HA Status: STANDBY

     inbound ah sas:

     inbound pcp sas:

     outbound esp sas:
      spi: 0x132ED6AB(321836715)
        transform: esp-aes-256 esp-sha256-hmac ,
        in use settings ={Tunnel, }
        slot: 0, conn id: 2007, flow_id: 4, crypto map: CMAP_1
        sa timing: remaining key lifetime (k/sec): (4607999/3510)
        IV size: 16 bytes
        replay detection support: Y
        HA Status: STANDBY

     outbound ah sas:

     outbound pcp sas:
";

#[test]
fn ipsec_as_the_guide_prints_it() {
    assert_eq!(
        text("show crypto ipsec ha"),
        "Interface  VIP       SAs   IPSec HA State\n\
         eth1       40.0.0.1  1800  Active since 13:00:16 UTC Tue Oct 1 2002\n"
    );
    assert_eq!(answer("show crypto ipsec sa", HaStatus::Standby).1, SA_BLOCK);
    assert_eq!(answer("show crypto ipsec sa standby", HaStatus::Standby).1, SA_BLOCK);
    assert_eq!(answer("show crypto ipsec sa active", HaStatus::Standby).1, "");
    for same in ["peer 192.168.3.1", "map CMAP_1", "interface outside", "interface eth1"] {
        assert_eq!(answer(&format!("show crypto ipsec sa {same}"), HaStatus::Standby).1, SA_BLOCK, "{same}");
    }
    for none in ["peer 192.168.3.2", "map CMAP_2", "interface inside"] {
        assert_eq!(text(&format!("show crypto ipsec sa {none}")), "", "{none}");
    }
    let detail = text("show crypto ipsec sa detail");
    assert!(detail.contains("     path mtu 1500, media mtu 1500\n     plaintext mtu 1438\n"), "{detail}");
    assert!(detail.contains("sequence lease: up to 2000000, 1999923 left"), "{detail}");
    assert!(!text("show crypto ipsec sa identity").contains("esp sas"));
}

#[test]
fn ipsec_by_address() {
    let got = answer("show crypto ipsec sa addr", HaStatus::Standby).1;
    let heads: Vec<&str> = got.lines().filter(|l| !l.starts_with("        ") && !l.is_empty()).collect();
    assert_eq!(
        heads,
        [
            "dest address: 40.0.0.1",
            "   protocol: ESP",
            "      spi: 0xD8C8635F(3637011295)",
            "dest address: 192.168.3.1",
            "   protocol: ESP",
            "      spi: 0x132ED6AB(321836715)",
        ]
    );
}

#[test]
fn configuration_as_the_guide_prints_it() {
    assert_eq!(
        text("show crypto ipsec transform-set"),
        "Transform set TRANSFORMSET_1: { esp-aes-256 esp-sha256-hmac }\n   will negotiate = { Tunnel, },\n\n"
    );
    let map = "Crypto Map: \"CMAP_1\" idb: eth1 local address: 40.0.0.1\n\n\
         Crypto Map \"CMAP_1\" 1 ipsec-isakmp\n\
         \x20       Description: Tunnel to 192.168.3.1\n\
         \x20       Peer = 192.168.3.1\n\
         \x20       Extended IP access list 100\n\
         \x20           access-list 100 permit ip\n\
         \x20               source: addr = 0.0.0.0/255.255.255.255\n\
         \x20               dest:   addr = 192.168.4.0/0.0.0.255\n\
         \x20       Current peer: 192.168.3.1\n\
         \x20       Security-association lifetime: 4608000 kilobytes/3600 seconds\n\
         \x20       PFS (Y/N): N\n\
         \x20       Transform sets={ TRANSFORMSET_1, }\n";
    for command in ["show crypto map", "show crypto map tag CMAP_1", "show crypto map interface outside", "show crypto map int eth1"] {
        assert_eq!(text(command), map, "{command}");
    }
}

#[test]
fn standby_brief_as_the_guide_prints_it() {
    assert_eq!(
        text("show standby brief"),
        "Interface  group  priority  p  state   active address  standby address  group address\n\
         eth0       1      100       P  Active  local           172.16.31.6      172.16.31.1\n\
         eth1       2      100       P  Active  local           40.0.0.6         40.0.0.1\n"
    );
}

#[test]
fn our_own_views() {
    assert_eq!(
        text("show takeover").lines().skip(2).collect::<Vec<_>>(),
        [
            "Epoch  Cause       Pairs  detected  role  vips  garp  ike  total  At",
            "3      hold timer  900    3000.0    0.2   1.5   1.9   2.2  -      13:00:16 UTC Tue Oct 1 2002",
        ]
    );
    let datapath = text("show datapath");
    assert!(datapath.contains("Role: Active, epoch 3, lease: 2500 ms"), "{datapath}");
    assert!(datapath.contains("guard     above_lease  drop    4\n"), "{datapath}");
    assert!(text("show version").contains("Uptime is 25:01:01\n"));
    let digest = text("show config digest");
    assert!(digest.ends_with("The nodes differ in: dataplane sa_max, standby 2\n"), "{digest}");
    assert!(digest.contains("standby 1 "), "{digest}");
    assert_eq!(text("show debugging"), "ssp fsm debugging is on\n");
}

#[test]
fn json_carries_the_same_values() {
    let json = answer("show crypto isakmp ha active", HaStatus::Active).0;
    assert_eq!(json[0]["id"][0], "796885F3 62C3295E");
    assert_eq!(json[0]["status"], "ACTIVE");
    assert_eq!(answer("show standby", HaStatus::Active).0[0]["active"], "local");
    assert_eq!(answer("show crypto ipsec sa", HaStatus::Active).0[0]["inbound"][0]["spi"], 0xD8C8_635F_u32);
}

#[test]
fn errors_are_for_the_operator() {
    let sample = Sample::new(HaStatus::Active);
    let error = |text: &str| {
        let argv: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        dispatch(&argv, &sample).unwrap_err()
    };
    assert!(error("show crypto isakmp policy 9").contains("no ISAKMP policy 9"));
    assert!(error("show crypto map tag NONE").contains("no such crypto map"));
    assert!(error("shwo ssp").contains("did you mean `show`"));
    assert!(error("switchover").contains("shows nothing"));
}

#[test]
fn times() {
    assert_eq!(clock(THEN), "13:00:16 UTC Tue Oct 1 2002");
    assert_eq!(clock(0), "00:00:00 UTC Thu Jan 1 1970");
    assert_eq!(clock(951_782_399), "23:59:59 UTC Mon Feb 28 2000");
    assert_eq!(clock(951_782_400), "00:00:00 UTC Tue Feb 29 2000");
    assert_eq!(clock(-1), "23:59:59 UTC Wed Dec 31 1969");
    assert_eq!(hms(10_534), "02:55:34");
}
