//! Bytes of frames, hostile frames, and a real pair of devices in a network namespace (as root).

use super::*;
use crate::hsrp::virtual_mac;
use crate::net::testing::{in_namespace, ip};
use hex_literal::hex;
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::timeout;

/// Hello of the active of group 1: hello 3 s, hold 10 s, priority 100, `cisco`, 10.0.0.1 (RFC 2281 5.1).
const HELLO: [u8; 20] = hex!("00 00 10 03 0a 64 01 00 636973636f000000 0a000001");
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// Read by tshark 4.0's dissectors: both checksums correct, "Hello, state Active, priority 100, group 1".
const FRAME: [u8; 62] = hex!(
    "01005e000002 00000c07ac01 0800"
    "45c0 0030 0000 4000 0111 8e97 0a000064 e0000002"
    "07c1 07c1 001c 9a98"
    "00 00 10 03 0a 64 01 00 636973636f000000 0a000001"
);

fn source() -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 100)
}

#[test]
fn a_hello_is_these_bytes() {
    assert_eq!(frame(virtual_mac(1), source(), &HELLO), FRAME);
}

#[test]
fn a_frame_comes_back_with_or_without_a_tag_and_padding() {
    let want = HsrpDatagram { source: source(), destination: GROUP, ttl: 1, source_mac: virtual_mac(1), payload: HELLO.to_vec() };
    assert_eq!(parse(&FRAME), Ok(want.clone()));
    let mut tagged = FRAME[..12].to_vec();
    tagged.extend_from_slice(&hex!("8100 0000"));
    tagged.extend_from_slice(&FRAME[12..]);
    tagged.extend_from_slice(&[0; 9]);
    assert_eq!(parse(&tagged), Ok(want));
}

#[test]
fn ip_options_are_passed_over() {
    let mut f = FRAME.to_vec();
    f[14] = 0x46;
    f[17] = 0x34;
    f.splice(34..34, [1, 1, 1, 0]);
    f[24..26].copy_from_slice(&[0, 0]);
    let sum = checksum(0, &f[14..38]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse(&f).unwrap().payload, HELLO);
}

#[test]
fn every_cut_and_every_altered_header_byte_is_refused() {
    for n in 0..FRAME.len() {
        assert!(parse(&FRAME[..n]).is_err(), "{n} bytes");
    }
    for at in 12..34 {
        let mut f = FRAME;
        f[at] ^= 0x10;
        assert!(parse(&f).is_err(), "byte {at}");
    }
    let cases: [(&str, &[(usize, u8)]); 3] =
        [("udp destination", &[(37, 0)]), ("udp length", &[(39, 7)]), ("udp length", &[(38, 0xff), (39, 0xff)])];
    for (field, changes) in cases {
        let mut f = FRAME;
        for (at, value) in changes {
            f[*at] = *value;
        }
        let e = parse(&f).unwrap_err();
        assert!(e.to_string().starts_with(field), "{e}");
    }
}

#[test]
fn fragments_are_refused() {
    for bits in [0x2000u16, 1] {
        let mut f = FRAME;
        f[20..22].copy_from_slice(&bits.to_be_bytes());
        f[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(0, &f[14..34]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse(&f), Err(DecodeError::Value { field: "ipv4 fragment", got: bits.into() }));
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(start in 0usize..FRAME.len(), tail in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut f = FRAME[..start].to_vec();
        f.extend_from_slice(&tail);
        if let Ok(d) = parse(&f) {
            prop_assert!(d.payload.len() <= tail.len() + start);
        }
    }

    #[test]
    fn what_is_built_is_read(mac in any::<[u8; 6]>(), a in any::<[u8; 4]>(), payload in proptest::collection::vec(any::<u8>(), 0..PAYLOAD_BYTES_MAX)) {
        let d = parse(&frame(mac, a.into(), &payload)).unwrap();
        prop_assert_eq!((d.source, d.source_mac, d.payload), (Ipv4Addr::from(a), mac, payload));
    }
}

/// `hs0` is a router elsewhere, `hs1` our device, with the macvlan that carries the same virtual MAC.
#[test]
fn hellos_from_the_virtual_mac_reach_a_standby_that_has_the_same_macvlan() {
    in_namespace(|| async {
        ip("link add hs0 type veth peer name hs1");
        ip("link set hs0 up");
        ip("link set hs1 up");
        ip("link add link hs1 name hv1 address 00:00:0c:07:ac:01 type macvlan mode private");
        ip("link set hv1 up");
        let other = HsrpSocket::open("hs0", OWN, source()).unwrap();
        let us = HsrpSocket::open("hs1", [2, 0, 0, 0, 0, 8], Ipv4Addr::new(10, 0, 0, 101)).unwrap();
        // None of these may arrive: another VLAN, our own MAC, our own address, not HSRP's port.
        let raw = |f: &[u8]| assert_eq!(other.fd.get_ref().send(f).unwrap(), f.len());
        let mut tagged = FRAME[..12].to_vec();
        tagged.extend_from_slice(&hex!("8100 0005"));
        tagged.extend_from_slice(&FRAME[12..]);
        raw(&tagged);
        raw(&frame([2, 0, 0, 0, 0, 8], source(), &HELLO));
        raw(&frame(OWN, Ipv4Addr::new(10, 0, 0, 101), &HELLO));
        let mut elsewhere = FRAME;
        elsewhere[37] = 0xc2;
        raw(&elsewhere);
        other.send(&HELLO, virtual_mac(1)).unwrap();
        let got = timeout(Duration::from_secs(5), us.recv()).await.unwrap().unwrap();
        assert_eq!(got, parse(&FRAME).unwrap());
        assert_eq!(us.refused(), 2, "the filter dropped the other two before they reached us");
        us.send(&HELLO, OWN).unwrap();
        assert!(timeout(Duration::from_millis(200), us.recv()).await.is_err(), "not our own frames");
        let groups = std::fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
        assert_eq!(groups.matches("020000E0").count(), 2, "{groups}");
    });
}

#[test]
fn a_device_that_goes_down_is_an_error_and_comes_back() {
    in_namespace(|| async {
        ip("link add hs0 type veth peer name hs1");
        ip("link set hs0 up");
        ip("link set hs1 up");
        let other = HsrpSocket::open("hs0", OWN, source()).unwrap();
        let us = HsrpSocket::open("hs1", [2, 0, 0, 0, 0, 8], Ipv4Addr::new(10, 0, 0, 101)).unwrap();
        ip("link set hs1 down");
        let e = timeout(Duration::from_secs(5), us.recv()).await.unwrap().unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENETDOWN));
        assert_eq!(us.send(&HELLO, OWN).unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
        // An error nobody has taken yet must not cost a hello.
        ip("link set hs1 up");
        ip("link set hs1 down");
        ip("link set hs1 up");
        us.send(&HELLO, OWN).unwrap();
        // The other end of the pair notices the carrier a moment later, and drops until then.
        let hellos = async {
            loop {
                let _may_be_down_still = other.send(&HELLO, OWN);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            got = timeout(Duration::from_secs(10), us.recv()) => assert_eq!(got.unwrap().unwrap().source_mac, OWN),
            () = hellos => {}
        }
    });
}

#[test]
fn receiving_may_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let _checked_by_the_compiler = |hsrp: &HsrpSocket, ike: &crate::net::ike::IkeSocket| {
        is_send(&hsrp.recv());
        is_send(&ike.recv(&mut []));
    };
}

#[tokio::test]
async fn a_device_that_does_not_exist_is_an_error() {
    let e = HsrpSocket::open("hs-none", OWN, source()).map(|_| ()).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENODEV));
}
