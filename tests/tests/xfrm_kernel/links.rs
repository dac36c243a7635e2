//! Virtual MACs and addresses, gratuitous ARP, carrier.

use crate::lab::*;
use gateway_user::hsrp::virtual_mac;
use gateway_user::netlink::links::{LinkAdapter, LinkEvent, LinkEvents, macvlan_name};
use gateway_user::ports::Links;
use std::time::Duration;

const GROUP: u8 = 7;

fn neighbour(lab: &Lab, addr: &str) -> String {
    output(&format!("ip -n {} neigh show {addr}", lab.b))
}

fn sysctl(ns: &str, key: &str) -> String {
    output(&format!("ip netns exec {ns} cat /proc/sys/net/{key}")).trim().to_string()
}

#[test]
fn a_virtual_address_lives_on_its_virtual_mac() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltn");
    let vip = v4("192.0.2.100");
    // Strict everywhere: prepare_vip has to make it work nevertheless.
    for key in ["all/rp_filter", "default/rp_filter"] {
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.conf.{}=1", lab.a, key.replace('/', ".")));
    }
    let device = lab.a.clone();
    within(&lab.a, || {
        let mut links = LinkAdapter::open().unwrap();
        let parent = links.link(&device).unwrap();
        assert!(parent.up);
        let name = macvlan_name(parent.ifindex, GROUP).unwrap();
        links.add_vip(&device, GROUP, vip).unwrap_err();
        links.remove_vip(&device, GROUP, vip).unwrap();
        assert!(!links.has_vip(&device, GROUP, vip).unwrap());
        // A leftover of another kind of macvlan, with another MAC, gives way; a right one is taken over.
        run(&format!("ip link add {name} link {device} type macvlan mode bridge"));
        links.prepare_vip(&device, GROUP).unwrap();
        let made = links.link(&name).unwrap();
        assert_eq!((made.mac, made.up), (virtual_mac(GROUP), true));
        links.prepare_vip(&device, GROUP).unwrap();
        LinkAdapter::open().unwrap().prepare_vip(&device, GROUP).unwrap();
        assert_eq!(links.link(&name).unwrap().ifindex, made.ifindex);
        let text = output(&format!("ip -d addr show dev {name}"));
        assert!(text.contains("mode private") && !text.contains("inet"), "up, private, no address, not even IPv6: {text}");
        for (key, want) in [
            ("ipv4/ip_forward".to_string(), "1"),
            ("ipv4/conf/all/rp_filter".to_string(), "2"),
            (format!("ipv4/conf/{name}/rp_filter"), "0"),
            (format!("ipv4/conf/{name}/arp_ignore"), "1"),
            (format!("ipv4/conf/{device}/arp_ignore"), "1"),
            (format!("ipv4/conf/{device}/arp_announce"), "2"),
            (format!("ipv4/conf/{device}/send_redirects"), "0"),
            ("ipv4/conf/all/send_redirects".to_string(), "0"),
        ] {
            assert_eq!(sysctl(&device, &key), want, "{key}");
        }
        for _ in 0..2 {
            links.add_vip(&device, GROUP, vip).unwrap();
            assert!(links.has_vip(&device, GROUP, vip).unwrap());
        }
        assert!(!links.has_vip(&device, GROUP, v4("192.0.2.101")).unwrap());
        assert!(!links.has_vip(&device, GROUP + 1, vip).unwrap());
    });

    // The neighbour resolves the VIP to the virtual MAC, and reaches it and what lies behind it through that MAC.
    let client = udp(&lab.b, "192.0.2.2:6000");
    let server = udp(&lab.a, "192.0.2.100:6001");
    assert_eq!(exchange(&client, &server, 3), 3);
    assert!(neighbour(&lab, "192.0.2.100").contains("00:00:0c:07:ac:07"));
    run(&format!("ip -n {} route replace 10.1.0.0/16 via 192.0.2.100 src 10.2.0.1", lab.b));
    let behind = udp(&lab.a, "10.1.0.1:6002");
    let far = udp(&lab.b, "10.2.0.1:6003");
    assert_eq!(exchange(&far, &behind, 3), 3, "reverse path filter");
    // Answers with the VIP as source do not teach the neighbour the parent's MAC.
    run(&format!("ip -n {} neigh flush all", lab.a));
    assert_eq!(exchange(&server, &client, 3), 3);
    assert!(neighbour(&lab, "192.0.2.100").contains("00:00:0c:07:ac:07"));

    let tap = Tap::open(&lab.b, &lab.b);
    within(&lab.a, || LinkAdapter::open().unwrap().gratuitous_arp(&device, GROUP, vip).unwrap());
    let arps: Vec<_> = tap.frames().into_iter().filter(|f| f.ethertype == 0x0806 && f.src == virtual_mac(GROUP)).collect();
    let operations: Vec<u8> = arps.iter().map(|f| f.bytes[21]).collect();
    assert_eq!(operations, [1, 2, 1, 2], "request and reply, twice");
    for f in &arps {
        assert_eq!((f.dst, &f.bytes[28..32], &f.bytes[38..42]), ([0xff; 6], &vip.octets()[..], &vip.octets()[..]));
    }

    within(&lab.a, || {
        let mut links = LinkAdapter::open().unwrap();
        for _ in 0..2 {
            links.remove_vip(&device, GROUP, vip).unwrap();
            assert!(!links.has_vip(&device, GROUP, vip).unwrap());
        }
    });
    run(&format!("ip -n {} neigh flush all", lab.b));
    let _ = client.send_to(b"x", "192.0.2.100:6001");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!neighbour(&lab, "192.0.2.100").contains("lladdr"), "nobody answers for it now");
}

#[test]
fn foreign_devices_and_wrong_names_are_refused() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nlto");
    let device = lab.a.clone();
    within(&lab.a, || {
        let mut links = LinkAdapter::open().unwrap();
        run(&format!("ip link set {device} mtu 1400"));
        assert_eq!(links.link(&device).unwrap().mtu, 1400);
        let index = links.link(&device).unwrap().ifindex;
        run(&format!("ip link add {} type bridge", macvlan_name(index, GROUP).unwrap()));
        let error = links.prepare_vip(&device, GROUP).unwrap_err();
        assert_eq!(error.source.kind(), std::io::ErrorKind::AlreadyExists);
        assert!(links.link("nosuch0").is_err());
        assert!(links.link("../x").is_err());
        // A cable that is out does not keep the group from being prepared.
        run(&format!("ip link set {device} down"));
        links.prepare_vip(&device, GROUP + 1).unwrap();
        links.add_vip(&device, GROUP + 1, v4("192.0.2.100")).unwrap();
        assert!(links.has_vip(&device, GROUP + 1, v4("192.0.2.100")).unwrap());
    });
}

#[test]
fn carrier_changes_are_told() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltp");
    let runtime = runtime();
    let mut events = within(&lab.a, || runtime.block_on(async { LinkEvents::open() }).unwrap());
    let mut wait = |up: bool| {
        let want = LinkEvent::Changed { device: lab.a.clone(), up };
        runtime.block_on(async {
            let found = async { while !events.recv().await.unwrap().contains(&want) {} };
            tokio::time::timeout(Duration::from_secs(3), found).await.is_ok()
        })
    };
    let state = |up: bool| within(&lab.a, || assert_eq!(LinkAdapter::open().unwrap().link(&lab.a).unwrap().up, up));
    // The far end goes: no carrier, though this end stays administratively up.
    run(&format!("ip -n {0} link set {0} down", lab.b));
    assert!(wait(false));
    state(false);
    run(&format!("ip -n {0} link set {0} up", lab.b));
    assert!(wait(true));
    state(true);
    run(&format!("ip -n {0} link del {0}", lab.b));
    assert!(wait(false), "a device that is gone is down");
}
