use super::*;
use proptest::prelude::*;

fn net(addr: &str, prefix: u8) -> Selector {
    Selector { addr: addr.parse().unwrap(), prefix, proto: 0, port: 0 }
}

fn range(from: &str, to: &str) -> TrafficSelector {
    TrafficSelector { proto: 0, port_from: 0, port_to: u16::MAX, from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn flow(ace: u32, local: Selector, remote: Selector) -> Flow {
    Flow { ace, local, remote }
}

fn ts(s: Selector) -> TrafficSelector {
    TrafficSelector::of(s)
}

fn read(bytes: &[u8]) -> Decode<Vec<TrafficSelector>> {
    TrafficSelector::decode_all(Reader::new(bytes))
}

#[test]
fn bytes_of_selectors() {
    let tcp = Selector { proto: 6, port: 443, ..net("10.1.0.0", 16) };
    let bytes = TrafficSelector::encode_all(&[ts(tcp), ts(net("2001:db8::", 32))]);
    let want = hex_literal::hex!(
        "02000000 07060010 01bb01bb 0a010000 0a01ffff
         08000028 0000ffff 20010db8000000000000000000000000 20010db8ffffffffffffffffffffffff"
    );
    assert_eq!(bytes, want);
    let back = read(&bytes).unwrap();
    assert_eq!(back.iter().map(TrafficSelector::selector).collect::<Vec<_>>(), [Some(tcp), Some(net("2001:db8::", 32))]);
    for n in 0..bytes.len() {
        assert!(read(&bytes[..n]).is_err(), "{n}");
    }
}

/// The shapes of CVE-2023-23009 and their like.
#[test]
fn malformed_selectors_are_refused_by_name() {
    let good = TrafficSelector::encode_all(&[range("10.0.0.1", "10.0.0.9")]);
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        changes.iter().for_each(|&(at, v)| bytes[at] = v);
        read(&bytes).map(|t| t.len())
    };
    assert_eq!(with(&[]), Ok(1));
    assert_eq!(with(&[(0, 2)]), Err(DecodeError::Truncated { field: "traffic selector type" }));
    assert_eq!(with(&[(0, 255)]), Err(DecodeError::Truncated { field: "traffic selector type" }));
    assert_eq!(with(&[(0, 0)]), Err(DecodeError::Trailing { field: "traffic selectors", got: 16 }));
    for n in 0..4 {
        assert_eq!(with(&[(7, n)]), Err(DecodeError::Length { field: "traffic selector length", got: n.into() }));
    }
    assert_eq!(with(&[(7, 4)]), Err(DecodeError::Truncated { field: "first port" }));
    assert_eq!(with(&[(7, 15)]), Err(DecodeError::Truncated { field: "address" }));
    assert_eq!(with(&[(7, 17)]), Err(DecodeError::Truncated { field: "traffic selector" }));
    assert_eq!(with(&[(6, 0xff)]), Err(DecodeError::Truncated { field: "traffic selector" }));
    assert_eq!(with(&[(4, 8)]), Err(DecodeError::Truncated { field: "address" }), "IPv6 in the length of IPv4");
    assert_eq!(with(&[(4, 9)]), Ok(0), "a type that we do not know");
    assert_eq!(with(&[(19, 0)]), Err(DecodeError::Value { field: "last address", got: 0x0a00_0000 }));
    assert_eq!(with(&[(8, 9), (10, 8)]), Err(DecodeError::Value { field: "last port", got: 0x8ff }));
    assert_eq!(with(&[(8, 0xff), (9, 0xff), (10, 0), (11, 0)]), Ok(1), "OPAQUE");
    assert_eq!(read(&[0, 0, 0, 0]), Ok(vec![]));
    assert_eq!(narrow([&flow(0, net("10.0.0.0", 8), net("10.0.0.0", 8))], &[], &[]), None);
}

#[test]
fn what_one_prefix_and_one_port_can_say() {
    let say = |t: TrafficSelector| t.selector();
    assert_eq!(say(range("10.0.0.0", "10.0.0.255")), Some(net("10.0.0.0", 24)));
    assert_eq!(say(range("10.0.0.7", "10.0.0.7")), Some(net("10.0.0.7", 32)));
    assert_eq!(say(range("0.0.0.0", "255.255.255.255")), Some(net("0.0.0.0", 0)));
    assert_eq!(say(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), Some(net("::", 0)));
    assert_eq!(say(range("10.0.0.1", "10.0.0.255")), None);
    assert_eq!(say(range("10.0.0.128", "10.0.1.127")), None);
    let all = range("10.0.0.0", "10.0.0.255");
    assert_eq!(
        say(TrafficSelector { proto: 6, port_from: 80, port_to: 80, ..all }),
        Some(Selector { proto: 6, port: 80, ..net("10.0.0.0", 24) })
    );
    assert_eq!(say(TrafficSelector { proto: 6, port_from: 80, port_to: 81, ..all }), None);
    assert_eq!(say(TrafficSelector { proto: 6, port_from: 0, port_to: 0, ..all }), None);
    assert_eq!(say(TrafficSelector { proto: 0, port_from: 80, port_to: 80, ..all }), None);
    assert_eq!(say(TrafficSelector { port_from: u16::MAX, port_to: 0, ..all }), None);
    assert_eq!(say(TrafficSelector { proto: 1, port_from: 0x0800, port_to: 0x0800, ..all }), None);
    assert_eq!(say(TrafficSelector { proto: 1, ..all }), Some(Selector { proto: 1, ..net("10.0.0.0", 24) }));
    assert_eq!(ts(Selector { addr: "10.1.2.3".parse().unwrap(), prefix: 16, proto: 0, port: 0 }), range("10.1.0.0", "10.1.255.255"));
    assert_eq!(ts(net("10.0.0.0", 99)), range("10.0.0.0", "10.0.0.0"), "a prefix that cannot be does not overflow");
}

#[test]
fn opaque_is_part_of_any_port_only() {
    let any = TrafficSelector { proto: 6, ..range("10.0.0.0", "10.0.0.255") };
    let opaque = TrafficSelector { port_from: u16::MAX, port_to: 0, ..any };
    let web = TrafficSelector { port_from: 80, port_to: 80, ..any };
    assert!(any.covers(&opaque) && !opaque.covers(&any) && opaque.covers(&opaque));
    assert_eq!((opaque.intersect(&web), web.intersect(&opaque)), (None, None));
    assert_eq!(any.intersect(&range("::", "::1")), None);
}

#[test]
fn the_flow_is_taken_whole_when_the_peer_asks_for_it_or_more() {
    let f = flow(3, net("10.1.0.0", 16), net("10.2.0.0", 16));
    let got = narrow([&f], &[ts(f.local)], &[ts(f.remote)]).unwrap();
    assert_eq!(got, Narrowed { ace: 3, local: f.local, remote: f.remote, narrowed: false });
    let got = narrow([&f], &[ts(Selector::ANY4)], &[ts(Selector::ANY4)]).unwrap();
    assert_eq!(got, Narrowed { ace: 3, local: f.local, remote: f.remote, narrowed: true });
    // A packet first, then the flow: nothing is left out.
    let packet = |addr| Selector { proto: 6, port: 80, ..net(addr, 32) };
    let got = narrow([&f], &offer(f.local, Some(packet("10.1.0.9"))), &offer(f.remote, Some(packet("10.2.0.9")))).unwrap();
    assert_eq!((got.local, got.remote, got.narrowed), (f.local, f.remote, false));
}

#[test]
fn a_part_of_the_flow_is_taken_when_the_peer_asks_for_less() {
    let f = flow(0, net("10.1.0.0", 16), net("10.2.0.0", 16));
    let got = narrow([&f], &[ts(net("10.1.4.0", 24))], &[ts(Selector::ANY4)]).unwrap();
    assert_eq!((got.local, got.remote, got.narrowed), (net("10.1.4.0", 24), f.remote, true));
    let got = narrow([&f], &[ts(net("10.1.4.0", 24))], &[ts(net("10.2.7.0", 24))]).unwrap();
    assert_eq!((got.local, got.remote, got.narrowed), (net("10.1.4.0", 24), net("10.2.7.0", 24), false));
    // The larger of two ranges, the later one.
    let got = narrow([&f], &[ts(f.local)], &[ts(net("10.2.7.0", 24)), ts(net("10.2.0.0", 17))]).unwrap();
    assert_eq!((got.remote, got.narrowed), (net("10.2.0.0", 17), false));
    // A range that is no prefix cannot be installed; elsewhere nothing is common.
    assert_eq!(narrow([&f], &[range("10.1.0.5", "10.1.0.9")], &[ts(f.remote)]), None);
    assert_eq!(narrow([&f], &[ts(net("10.3.0.0", 16))], &[ts(f.remote)]), None);
    assert_eq!(narrow([&f], &[ts(f.remote)], &[ts(f.local)]), None, "the sides are not exchanged");
    assert_eq!(narrow([&f], &[ts(net("::", 0))], &[ts(net("::", 0))]), None);
}

#[test]
fn the_flow_that_holds_the_packet_comes_first() {
    let flows = [
        flow(0, net("10.1.0.0", 24), net("10.2.0.0", 16)),
        flow(1, net("10.1.1.0", 24), net("10.2.0.0", 16)),
        flow(2, net("10.1.0.0", 16), net("10.2.0.0", 16)),
    ];
    let asked = |local: &[Selector]| {
        let local: Vec<_> = local.iter().copied().map(ts).collect();
        narrow(&flows, &local, &[ts(net("10.2.0.0", 16))]).map(|n| (n.ace, n.local, n.narrowed))
    };
    assert_eq!(asked(&[net("10.1.1.7", 32), net("10.1.0.0", 16)]), Some((1, net("10.1.1.0", 24), true)));
    assert_eq!(asked(&[net("10.1.9.7", 32), net("10.1.0.0", 16)]), Some((2, net("10.1.0.0", 16), false)));
    // Two ranges: the first flow that one of them fills; the other may follow in an SA of its own.
    assert_eq!(asked(&[net("10.1.0.0", 24), net("10.1.1.0", 24)]), Some((0, net("10.1.0.0", 24), true)));
    assert_eq!(asked(&[net("10.9.0.0", 24), net("10.1.1.0", 24)]), Some((1, net("10.1.1.0", 24), true)));
    assert_eq!(asked(&[net("10.1.0.0", 16)]), Some((2, net("10.1.0.0", 16), false)));
    assert_eq!(asked(&[Selector::ANY4]), Some((0, net("10.1.0.0", 24), true)));
}

#[test]
fn both_sides_have_one_protocol() {
    let any = flow(0, net("10.1.0.0", 16), net("10.2.0.0", 16));
    let with = |s: Selector, proto, port| ts(Selector { proto, port, ..s });
    let got = narrow([&any], &[with(any.local, 6, 80)], &[ts(any.remote)]).unwrap();
    assert_eq!((got.local, got.remote), (Selector { proto: 6, port: 80, ..any.local }, Selector { proto: 6, ..any.remote }));
    assert_eq!(narrow([&any], &[with(any.local, 6, 80)], &[with(any.remote, 17, 0)]), None);
    let gre = flow(0, Selector { proto: 47, ..any.local }, Selector { proto: 47, ..any.remote });
    let got = narrow([&gre], &[ts(any.local)], &[ts(any.remote)]).unwrap();
    assert_eq!((got.local, got.remote, got.narrowed), (gre.local, gre.remote, true));
}

#[test]
fn an_answer_must_be_inside_the_question() {
    let f = flow(0, net("10.1.0.0", 16), net("10.2.0.0", 16));
    let answer = |local: &[TrafficSelector]| accept(&f, local, &[ts(f.remote)]).map(|(l, _)| l);
    assert_eq!(answer(&[ts(f.local)]), Some(f.local));
    assert_eq!(answer(&[ts(net("10.1.7.0", 24))]), Some(net("10.1.7.0", 24)));
    // The packet and the flow, both confirmed.
    assert_eq!(answer(&[ts(net("10.1.7.9", 32)), ts(f.local)]), Some(f.local));
    assert_eq!(answer(&[]), None);
    assert_eq!(answer(&[ts(Selector::ANY4)]), None);
    assert_eq!(answer(&[ts(net("10.1.7.0", 24)), ts(net("10.1.8.0", 24))]), None, "one SA has one pair");
    assert_eq!(answer(&[range("10.1.0.1", "10.1.0.9")]), None);
    assert_eq!(answer(&[ts(net("10.0.0.0", 15))]), None);
    assert_eq!(accept(&f, &[ts(f.remote)], &[ts(f.local)]), None);
}

#[test]
fn the_packet_is_asked_first_where_it_says_more() {
    let net16 = net("10.1.0.0", 16);
    let packet = Selector { proto: 17, port: 53, ..net("10.1.2.3", 32) };
    assert_eq!(offer(net16, Some(packet)), [ts(packet), ts(net16)]);
    assert_eq!(offer(net16, None), [ts(net16)]);
    assert_eq!(offer(net16, Some(net16)), [ts(net16)]);
    assert_eq!(offer(net16, Some(net("10.9.0.1", 32))), [ts(net16)]);
}

fn any_ts() -> impl Strategy<Value = TrafficSelector> {
    let addr = 0x0a00_0000u32..0x0a00_0040;
    (
        addr.clone(),
        addr,
        prop::sample::select(vec![0u8, 6, 17]),
        prop::sample::select(vec![(0u16, u16::MAX), (80, 80), (80, 90), (u16::MAX, 0)]),
    )
        .prop_map(|(a, b, proto, (port_from, port_to))| TrafficSelector {
            proto,
            port_from,
            port_to,
            from: Ipv4Addr::from(a.min(b)).into(),
            to: Ipv4Addr::from(a.max(b)).into(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn selectors_survive_the_wire(all in prop::collection::vec(any_ts(), 0..20)) {
        prop_assert_eq!(read(&TrafficSelector::encode_all(&all)), Ok(all));
    }

    #[test]
    fn a_selector_is_its_range(t in any_ts()) {
        if let Some(s) = t.selector() {
            prop_assert_eq!(ts(s), t);
        }
    }

    #[test]
    fn an_intersection_is_in_both_and_the_same_from_both_sides(a in any_ts(), b in any_ts()) {
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        if let Some(i) = a.intersect(&b) {
            prop_assert!(a.covers(&i) && b.covers(&i));
        }
    }

    /// Whatever the peer asks: never more than the flow, never more than it asked, and it would accept the answer.
    #[test]
    fn narrowing_stays_inside(
        local in prop::collection::vec(any_ts(), 1..4),
        remote in prop::collection::vec(any_ts(), 1..4),
        prefix in 26u8..=32,
    ) {
        let flows = [flow(0, net("10.0.0.16", prefix), net("10.0.0.0", 26)), flow(1, net("10.0.0.0", 26), net("10.0.0.0", prefix))];
        if let Some(got) = narrow(&flows, &local, &remote) {
            let f = &flows[got.ace as usize];
            prop_assert!(ts(f.local).covers(&ts(got.local)) && ts(f.remote).covers(&ts(got.remote)));
            prop_assert!(local.iter().any(|t| t.covers(&ts(got.local))) && remote.iter().any(|t| t.covers(&ts(got.remote))));
            prop_assert_eq!(accept(f, &[ts(got.local)], &[ts(got.remote)]), Some((got.local, got.remote)));
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(all) = read(&bytes) {
            let _ = narrow([&flow(0, Selector::ANY4, net("::", 0))], &all, &all);
        }
    }
}
