//! Many messages: half-open SAs, cookies, fragments. Every table has its bound, and the tunnel that stands goes on.

use super::*;
use crate::ike::DpdConfig;
use crate::ike::v2::fragment;
use std::time::Duration;

fn flood_first(net: &mut Net, from: SocketAddr, n: u64) {
    let mut f = first(1).0;
    f.spi = (n + 1).to_be_bytes();
    deliver(net, from, &f.build());
}

#[test]
fn half_open_sas_are_bounded_per_source_and_in_all_and_age_out() {
    let mut c = usual();
    many_peers(&mut c[B], 200);
    c[B].cookie_threshold = usize::MAX;
    c[B].limits.half_open_max = 100;
    for c in &mut c {
        c.dpd = Some(DpdConfig { interval: Duration::from_secs(5), retry: Duration::from_secs(2), retries: 3 });
    }
    let mut net = standing(21, c, A);
    net.assert_settled(1, 1);
    let per_source = net.nodes[B].engine.config.limits.half_open_per_source_max;
    let from = SocketAddr::new(address(1), 500);
    for n in 0..1000 {
        flood_first(&mut net, from, n);
        assert!(net.nodes[B].engine.half_open_total <= per_source / 2, "the second half is for those who show a cookie");
    }
    for n in 0..1000u64 {
        let mut f = first(1).0;
        f.spi = (n + 2000).to_be_bytes();
        let now = net.now;
        let engine = &mut net.nodes[B].engine;
        let cookie = engine.cookies.make(&f.nonce, from.ip(), &f.spi, &mut *engine.rng, now);
        let mut out = Outgoing::new();
        out.status(NotifyType::COOKIE, &cookie).sa(&f.offer).ke(f.group, &f.public).nonce(&f.nonce);
        deliver(&mut net, from, &out.plain(&f.header()));
        assert!(net.nodes[B].engine.half_open_total <= per_source);
    }
    assert_eq!(net.nodes[B].engine.half_open_total, per_source);
    assert!(net.nodes[B].refusals().contains(&"half_open_source_limit"));
    for n in 0..2000 {
        flood_first(&mut net, SocketAddr::new(address(n as u32 % 200), 500), n + 5000);
        assert!(net.nodes[B].engine.half_open_total <= 100 && net.nodes[B].engine.sas.len() <= 101);
    }
    assert_eq!(net.nodes[B].engine.half_open_total, 100);
    // The tunnel does not notice: probes, a rekey of the child and of the IKE SA, all while the flood goes on.
    for n in 0..20 {
        for k in 0..50 {
            flood_first(&mut net, SocketAddr::new(address(k as u32), 500), 100_000 + n * 50 + k);
        }
        if n == 5 {
            net.rekey_child(B);
        }
        if n == 10 {
            let id = net.nodes[A].sa(net.now);
            net.request(B, crate::ike::IkeRequest::RekeyIsakmp(id));
        }
        net.secs(1);
        assert_eq!(net.nodes[B].up(net.now), 1);
        assert!(net.nodes[B].engine.half_open_total <= 100);
    }
    net.secs(40);
    net.assert_settled(1, 1);
    let e = &net.nodes[B].engine;
    assert!(e.half_open.is_empty() && e.by_first.is_empty() && e.by_spi.len() == 1, "nothing is left of the flood");
    still_works(&mut net);
}

#[test]
fn under_load_a_cookie_is_asked_for_and_nothing_is_kept() {
    let mut c = usual();
    many_peers(&mut c[B], 2);
    c[B].cookie_threshold = 0;
    let mut net = standing(22, c, A);
    // The real peer shows its cookie: it took one round more.
    net.assert_settled(1, 1);
    assert_eq!(net.nodes[A].sent.len(), 3);
    let from = SocketAddr::new(address(0), 500);
    let f = first(4).0;
    let bytes = f.build();
    let ask = |net: &mut Net, from: SocketAddr, cookie: Option<&[u8]>, f: &First| -> Vec<u8> {
        let mut out = Outgoing::new();
        if let Some(cookie) = cookie {
            out.status(NotifyType::COOKIE, cookie);
        }
        out.sa(&f.offer).ke(f.group, &f.public).nonce(&f.nonce);
        let sent = net.nodes[B].sent.len();
        deliver(net, from, &out.plain(&f.header()));
        assert_eq!(net.nodes[B].sent.len(), sent + 1);
        net.nodes[B].sent[sent].clone()
    };
    let cookie_of = |bytes: &[u8]| -> Option<Vec<u8>> {
        let m = Message::decode(bytes[16], &bytes[HEADER_LEN..]).unwrap();
        m.notify(NotifyType::COOKIE).filter(|_| m.sa.is_none()).map(|n| n.data.to_vec())
    };
    for _ in 0..1000 {
        let answer = ask(&mut net, from, None, &f);
        assert!(answer.len() < bytes.len() && cookie_of(&answer).is_some());
        assert_eq!((net.nodes[B].engine.sas.len(), net.nodes[B].engine.half_open_total), (1, 0));
    }
    let cookie = cookie_of(&ask(&mut net, from, None, &f)).unwrap();
    let other = SocketAddr::new(address(1), 500);
    let mut stranger = first(4).0;
    stranger.spi = [8; 8];
    let mut changed = cookie.clone();
    *changed.last_mut().unwrap() ^= 1;
    for wrong in [vec![], vec![0; 64], vec![0; 65], changed, cookie[1..].to_vec(), [&cookie[..], &[0]].concat()] {
        assert!(cookie_of(&ask(&mut net, from, Some(&wrong), &f)).is_some());
    }
    assert!(cookie_of(&ask(&mut net, other, Some(&cookie), &f)).is_some(), "the cookie of another address");
    assert!(cookie_of(&ask(&mut net, from, Some(&cookie), &stranger)).is_some(), "of another SPI");
    assert_eq!(net.nodes[B].engine.half_open_total, 0);
    assert_eq!(cookie_of(&ask(&mut net, from, Some(&cookie), &f)), None);
    assert_eq!(net.nodes[B].engine.half_open_total, 1);
    net.secs(31);
    net.assert_settled(1, 1);
}

/// Somebody uses the peer's own address for his flood: the peer shows by a cookie that it is real, and is served.
#[test]
fn a_flood_in_the_name_of_the_peer_does_not_lock_it_out() {
    let mut net = Net::new(23, usual());
    let from = peer(&net);
    for n in 0..500 {
        flood_first(&mut net, from, n);
    }
    net.initiate(A);
    for n in 0..30 {
        for k in 0..20 {
            flood_first(&mut net, from, 1000 + n * 20 + k);
        }
        net.secs(1);
    }
    assert_eq!((net.nodes[A].up(net.now), net.nodes[A].live().len()), (1, 1), "{:?}", net.nodes[A].events);
    net.secs(40);
    net.assert_settled(1, 1);
}

/// Work for peers that proved themselves goes before that of strangers.
#[test]
fn jobs_of_the_tunnel_go_first() {
    let mut c = usual();
    c[B].entries[0].pfs = Some(DhGroup::Ecp256);
    c[A].entries[0].pfs = Some(DhGroup::Ecp256);
    let mut net = standing(24, c, A);
    let from = peer(&net);
    let to = SocketAddr::new(net.nodes[B].addr, 500);
    let now = net.now;
    let spi = net.nodes[B].live()[0].spi_in;
    let engine = &mut net.nodes[B].engine;
    for n in 0..4 {
        let mut f = first(1).0;
        f.spi = [n + 40; 8];
        engine.handle_datagram(from, to, &f.build(), now);
    }
    engine.handle_request(crate::ike::IkeRequest::RekeyChild(spi), now).unwrap();
    let job = engine.poll_job().unwrap();
    engine.handle_job(job.run(), now);
    assert!(engine.poll_transmit().is_some_and(|t| Header::decode(&t.payload).unwrap().exchange == Exchange::CreateChildSa));
}

/// Both ends cut large messages.
fn with_fragments() -> Net {
    let mut c = usual();
    with_profile(&mut c, |_, p| p.fragment_bytes = 576);
    standing(25, c, A)
}

/// A request of node A that needs fragments, from its real keys: an INFORMATIONAL with something to skip.
fn fragments_of_a(net: &Net, filler: usize, message_id: u32) -> Vec<Vec<u8>> {
    let sa = net.nodes[A].engine.sas.values().next().unwrap();
    let up = sa.up().unwrap();
    let keys = up.keys.seal_keys(&up.suite, sa.initiator);
    let mut out = Outgoing::new();
    out.vendor(&vec![7; filler]);
    let header = Header::new(sa.id, Exchange::Informational, sa.initiator, false, message_id);
    fragment::split(&header, out.first(), out.bytes(), &keys, &mut |iv| iv.fill(9), 548).unwrap()
}

fn next_id(net: &Net) -> u32 {
    net.nodes[B].engine.sas.values().next().unwrap().up().unwrap().recv_id
}

fn held(net: &Net) -> usize {
    net.nodes[B].engine.sas.values().map(|s| s.partial.as_ref().map_or(0, |p| p.reassembly.bytes())).sum()
}

#[test]
fn forged_fragments_neither_stay_nor_drive_out_good_ones() {
    let mut net = with_fragments();
    let good = fragments_of_a(&net, 1500, next_id(&net));
    assert!(good.len() >= 3);
    let from = peer(&net);
    let (last, before) = good.split_last().unwrap();
    for f in before {
        deliver(&mut net, from, f);
    }
    let bytes = held(&net);
    assert!(bytes > 900);
    // The one that is missing, forged; others with higher totals, other numbers, another message ID, a response.
    let forge = |changes: &[(usize, u8)]| {
        let mut bad = last.clone();
        let end = bad.len() - 1;
        bad[end] ^= 1;
        changes.iter().for_each(|&(at, v)| bad[at] = v);
        bad
    };
    let forged = [
        forge(&[]),
        forge(&[(35, 99)]),
        forge(&[(33, 9), (35, 9)]),
        forge(&[(33, 0)]),
        forge(&[(34, 0xff)]),
        forge(&[(23, 77)]),
        forge(&[(19, 0x28)]),
    ];
    for bad in &forged {
        net.nodes[B].events.clear();
        deliver(&mut net, from, bad);
        assert_eq!(net.nodes[B].refusals().len(), 1);
        assert_eq!(held(&net), bytes, "{:?}", net.nodes[B].refusals());
    }
    let sent = net.nodes[B].sent.len();
    deliver(&mut net, from, last);
    assert_eq!(net.nodes[B].sent.len(), sent + 1, "the message is whole and answered");
    assert_eq!(held(&net), 0);
    // The first fragment draws the answer again, a later one does not.
    net.secs(1);
    for (n, f) in good.iter().enumerate() {
        let sent = net.nodes[B].sent.len();
        deliver(&mut net, from, f);
        assert_eq!(net.nodes[B].sent.len() - sent, usize::from(n == 0));
    }
}

/// CVE-2016-1344, CVE-2016-10396, CVE-2026-12413: sets that never become whole, even of a peer with keys.
#[test]
fn sets_of_fragments_that_never_become_whole() {
    let mut net = with_fragments();
    let from = peer(&net);
    let id = next_id(&net);
    for (filler, skip) in [(3000, 0), (9000, 3), (20_000, 1), (40_000, 7)] {
        let all = fragments_of_a(&net, filler, id);
        for (n, f) in all.iter().enumerate() {
            if n != skip {
                deliver(&mut net, from, f);
                deliver(&mut net, from, f);
            }
        }
        assert!(held(&net) <= fragment::BYTES_MAX);
    }
    assert!(held(&net) > 30_000);
    net.secs(31);
    assert_eq!(held(&net), 0, "they are not kept for long");
    net.assert_settled(1, 1);
    // The tunnel goes on: whole messages come through in between.
    let first = fragments_of_a(&net, 3000, id).remove(0);
    deliver(&mut net, from, &first);
    still_works(&mut net);
}

#[test]
fn fragments_where_none_were_agreed_on_and_of_the_first_message() {
    let mut net = up();
    let bytes = fragments_of_a(&net, 1500, next_id(&net))[0].clone();
    assert_eq!(refused(&mut net, &bytes).0, ["fragment"]);
    let mut init = bytes;
    init[..8].fill(3);
    init[8..16].fill(0);
    (init[18], init[19]) = (34, 8);
    init[20..24].fill(0);
    let (reasons, answer) = refused(&mut net, &init);
    assert!(reasons.len() == 1 && reasons[0].starts_with("payload_") && answer.is_none(), "{reasons:?}");
    still_works(&mut net);
}
