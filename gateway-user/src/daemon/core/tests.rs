//! What the core does with pairs, seen through fake ports.

use super::*;
use crate::config;
use crate::crypto::{AesKey, CipherAlg, Icv, Secret};
use crate::dataplane::fake::FakeDataplane;
use crate::id::IkeVersion;
use crate::ports::{LinkState, ReplaySet, SaDump, SaInstall};
use crate::rng::Seeded;
use crate::sad::{ChildSa, ChildStage, Counters, Encap, EspKeys, Lease, Lifetime, Selector};
use std::time::{SystemTime, UNIX_EPOCH};

struct StillClock(Instant);

impl Clock for StillClock {
    fn now(&self) -> Instant {
        self.0
    }
    fn monotonic_ns(&self, _: Instant) -> u64 {
        1
    }
    fn wall(&self) -> SystemTime {
        UNIX_EPOCH
    }
}

#[derive(Default)]
struct Kernel {
    policies: Vec<FlowPolicy>,
    syncs: usize,
    sas: Vec<SaDump>,
}

struct FakeXfrm(Arc<Mutex<Kernel>>);

impl Xfrm for FakeXfrm {
    fn install(&mut self, sas: &[SaInstall<'_>]) -> Vec<PortResult<()>> {
        sas.iter().map(|_| Ok(())).collect()
    }
    fn remove(&mut self, _: Spi, _: IpAddr) -> PortResult<()> {
        Ok(())
    }
    fn set_replay(&mut self, sets: &[ReplaySet]) -> Vec<PortResult<()>> {
        sets.iter().map(|_| Ok(())).collect()
    }
    fn move_peer(&mut self, _: &ChildSa, _: IpAddr, _: Option<Encap>) -> PortResult<()> {
        Ok(())
    }
    fn dump(&mut self) -> PortResult<Vec<SaDump>> {
        Ok(self.0.lock().unwrap().sas.clone())
    }
    fn sync_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()> {
        let mut kernel = self.0.lock().unwrap();
        kernel.policies = flows.to_vec();
        kernel.syncs += 1;
        Ok(())
    }
    fn update_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()> {
        let mut kernel = self.0.lock().unwrap();
        for flow in flows {
            let held = kernel.policies.iter_mut().find(|p| p.reqid == flow.reqid).unwrap();
            assert_eq!((held.local, held.remote, held.priority), (flow.local, flow.remote, flow.priority));
            held.clone_from(flow);
        }
        Ok(())
    }
}

struct FakeLinks;

impl Links for FakeLinks {
    fn prepare_vip(&mut self, _: &str, _: u8) -> PortResult<()> {
        Ok(())
    }
    fn add_vip(&mut self, _: &str, _: u8, _: Ipv4Addr) -> PortResult<()> {
        Ok(())
    }
    fn remove_vip(&mut self, _: &str, _: u8, _: Ipv4Addr) -> PortResult<()> {
        Ok(())
    }
    fn has_vip(&mut self, _: &str, _: u8, _: Ipv4Addr) -> PortResult<bool> {
        Ok(false)
    }
    fn gratuitous_arp(&mut self, _: &str, _: u8, _: Ipv4Addr) -> PortResult<()> {
        Ok(())
    }
    fn link(&mut self, _: &str) -> PortResult<LinkState> {
        Ok(LinkState { ifindex: 2, mac: [2; 6], up: true, mtu: 1400 })
    }
}

const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 3, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 3, 2));
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(40, 0, 0, 1));

/// A core whose only entry has two peers.
fn core() -> (Core, Arc<Mutex<Kernel>>, Instant) {
    let text = include_str!("../../../../config/example-1-ikev2.yaml")
        .replace("peer: [192.168.3.1]", "peer: [192.168.3.1, 192.168.3.2]")
        .replace("address: 192.168.3.1,", "address: 192.168.3.0/24,");
    let config = config::parse(&text, "x", &mut |_| Ok(b"0123456789abcdef-unit-test".to_vec())).unwrap();
    let kernel = Arc::new(Mutex::new(Kernel::default()));
    let ports = Ports { xfrm: Box::new(FakeXfrm(kernel.clone())), links: Box::new(FakeLinks), path: Box::new(FakeDataplane::default()) };
    let now = Instant::now();
    let random = || Box::new(Seeded::new(1));
    let core = Core::new(Arc::new(config), ports, Box::new(StillClock(now)), random(), random()).unwrap();
    (core, kernel, now)
}

fn add(core: &mut Core, n: u32, peer: IpAddr, created: Instant) -> Spi {
    let keys = || EspKeys { encr: Secret::new(vec![7; 36]), integ: Secret::default() };
    let child = ChildSa {
        spi_in: Spi(0x8010_0000 + n),
        spi_out: Spi(0xc000_0000 + n),
        isakmp: crate::id::IkeSaId::default(),
        map: "CMAP_1".to_owned(),
        map_seq: 1,
        ace: 0,
        digest: core.config.ike.entries[0].digest,
        local: VIP,
        peer,
        ts_local: Selector::ANY4,
        ts_remote: Selector::net4(Ipv4Addr::new(192, 168, 4, 0), 24),
        mode: Mode::Tunnel,
        encr: CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16),
        integ: None,
        keys_in: keys(),
        keys_out: keys(),
        pfs: None,
        lifetime: Lifetime { seconds: 3600, kilobytes: 0 },
        soft: Lifetime { seconds: 3000, kilobytes: 0 },
        replay_window: 1024,
        initiator: true,
        version: IkeVersion::V2,
        esn: false,
        encap: None,
    };
    let spi = child.spi_in;
    let lease = Lease::new(core.lease_policy(&child.map, child.esn));
    let pair = Pair {
        child,
        stage: ChildStage::Live,
        created,
        counters: Counters::default(),
        lease,
        out_installed: false,
        dormant: false,
        dirty: false,
        mirrored_at: None,
        mirrored: Counters::default(),
        moved_at: None,
    };
    core.pairs.insert(spi, pair);
    core.install_outbound(spi, created);
    spi
}

#[test]
fn the_policy_names_the_peer_that_is_up() {
    let (mut core, kernel, now) = core();
    let end = || kernel.lock().unwrap().policies[0].tunnel_peer;
    let second_later = now + Duration::from_secs(1);
    assert_eq!(end(), FIRST);
    let a = add(&mut core, 1, SECOND, now);
    assert_eq!(end(), SECOND, "the first one does not answer");
    let b = add(&mut core, 2, FIRST, second_later);
    assert_eq!(end(), FIRST, "it is back");
    core.remove_pair(b);
    assert_eq!(end(), SECOND, "the pair that is left carries the traffic");
    core.remove_pair(a);
    assert_eq!(end(), FIRST, "an acquire asks the preferred peer");
    assert_eq!(core.redirected, 0);
    assert_eq!(kernel.lock().unwrap().syncs, 1, "all policies are gone through at the start only");
}

fn show(core: &mut Core, command: &str, now: Instant) -> ControlResponse {
    let argv = command.split(' ').map(str::to_owned).collect();
    core.handle_control(7, &ControlRequest { argv, json: false }, now);
    std::iter::from_fn(|| core.poll_output())
        .find_map(|o| if let Output::Control { response, .. } = o { Some(response) } else { None })
        .unwrap()
}

#[test]
fn the_kernel_says_what_an_sa_refused_and_what_a_link_takes() {
    let (mut core, kernel, now) = core();
    let spi = add(&mut core, 1, FIRST, now);
    let sa = |spi, src, dst, errors: [u32; 3]| SaDump {
        spi,
        src,
        dst,
        reqid: reqid("CMAP_1", 1, 0),
        seq: 0,
        oseq: 0,
        bytes: 0,
        packets: 0,
        age_s: 0,
        integrity_failed: errors[0],
        replay: errors[1],
        replay_window: errors[2],
    };
    kernel.lock().unwrap().sas = vec![sa(spi, FIRST, VIP, [1, 20, 300]), sa(Spi(0xc000_0001), VIP, FIRST, [0, 4, 0])];
    let got = show(&mut core, "show crypto ipsec sa detail", now);
    for line in [
        "    #send errors 4, #recv errors 321\n",
        "     path mtu 1400, media mtu 1400\n     plaintext mtu 1346\n",
        "        transform: esp-gcm-256 ,\n        in use settings ={Tunnel, }\n",
    ] {
        assert!(got.text.contains(line), "{line}{}", got.text);
    }
    assert_eq!((&got.json[0]["recv_errors"], &got.json[0]["plaintext_mtu"]), (&321.into(), &1346.into()));
    // Pairs without their IKE SA, as after a restart.
    assert!(show(&mut core, "show crypto session", now).text.contains("Session status: UP-NO-IKE\nPeer: 192.168.3.1 port 500\n"));
    assert_eq!(show(&mut core, "show crypto ikev2 sa", now).text, "Tunnel-id  Local  Remote  Status  HA Status\n");
}

#[test]
fn the_wall_clock_is_told_again_every_hour() {
    let (mut core, _, now) = core();
    assert_eq!(core.wall_due, now + WALL_INTERVAL);
    let due = core.wall_due;
    assert!(core.poll_timeout().is_some_and(|(at, _)| at <= due));
    core.handle_timeout(due);
    assert_eq!(core.wall_due, due + WALL_INTERVAL);
}
