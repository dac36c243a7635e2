//! Exchange collisions (RFC 7296 2.25), message by message. A network with delay lets both requests be on their way at once.

use super::net::*;
use crate::crypto::DhGroup;
use crate::ike::*;

/// A standing tunnel and requests of both ends that cross.
fn crossing(seed: u64, pfs: Option<DhGroup>, a: impl Fn(&mut Net), b: impl Fn(&mut Net)) -> Net {
    let mut net = standing(seed, configs(1, &profile(vec![fast()]), GCM, pfs), (seed % 2) as usize);
    a(&mut net);
    b(&mut net);
    // Both are out before either is in.
    net.pump();
    net
}

#[test]
fn simultaneous_child_rekeys_leave_one_pair() {
    let mut winners = [0; 2];
    for seed in 0..30 {
        for pfs in [None, Some(DhGroup::Ecp256)] {
            let mut net = crossing(seed, pfs, |n| n.rekey_child(A), |n| n.rekey_child(B));
            for _ in 0..40 {
                net.ms(1);
                for n in &net.nodes {
                    assert!(!n.live().is_empty(), "seed {seed}: the flow is never alone");
                }
            }
            net.secs(5);
            println!("seed {seed}");
            net.assert_settled(1, 1);
            winners[usize::from(net.nodes[A].live()[0].initiator)] += 1;
            assert!(net.nodes.iter().all(|n| n.notices().is_empty()), "{:?}", net.nodes[A].notices());
        }
    }
    assert!(winners[0] > 5 && winners[1] > 5, "the nonces decide: {winners:?}");
}

#[test]
fn simultaneous_ike_rekeys_leave_one_sa() {
    let mut winners = [0; 2];
    for seed in 0..30 {
        let mut net = crossing(seed, None, |n| n.rekey_ike(A), |n| n.rekey_ike(B));
        net.secs(5);
        println!("seed {seed}");
        net.assert_settled(1, 1);
        winners[usize::from(net.nodes[A].engine.view(net.now)[0].initiator)] += 1;
        net.rekey_child(A);
        net.secs(3);
        net.assert_settled(1, 1);
    }
    assert!(winners[0] > 5 && winners[1] > 5, "the nonces decide: {winners:?}");
}

#[test]
fn a_child_rekey_that_meets_an_ike_rekey_waits() {
    for seed in 0..10 {
        for (x, y) in [(A, B), (B, A)] {
            let mut net = crossing(seed, None, |n| n.rekey_child(x), |n| n.rekey_ike(y));
            net.secs(120);
            net.assert_settled(1, 1);
        }
    }
}

#[test]
fn a_new_child_that_meets_an_ike_rekey_waits() {
    for seed in 0..10 {
        let mut net = standing(seed, configs(2, &profile(vec![fast()]), GCM, None), A);
        let spi = net.nodes[A].live()[0].spi_in;
        net.nodes[A].engine.handle_expire(spi, true, net.now);
        net.secs(1);
        net.acquire(A);
        net.rekey_ike(B);
        net.secs(30);
        net.assert_settled(1, 2);
    }
}

#[test]
fn rekey_against_delete_of_the_same_pair() {
    for seed in 0..10 {
        for (x, y) in [(A, B), (B, A)] {
            let mut net = crossing(
                seed,
                None,
                |n| n.rekey_child(x),
                |n| {
                    let spi = n.nodes[y].live()[0].spi_in;
                    n.nodes[y].engine.handle_expire(spi, true, n.now);
                },
            );
            net.secs(30);
            net.acquire(x);
            net.secs(30);
            println!("seed {seed}, {x} rekeys");
            net.assert_settled(1, 1);
        }
    }
}

#[test]
fn delete_against_delete() {
    for seed in 0..5 {
        let delete = |node: usize| {
            move |n: &mut Net| {
                let spi = n.nodes[node].live()[0].spi_in;
                n.nodes[node].engine.handle_expire(spi, true, n.now);
            }
        };
        let mut net = crossing(seed, None, delete(A), delete(B));
        net.secs(5);
        net.assert_settled(1, 0);
    }
}

#[test]
fn ike_delete_against_everything() {
    for seed in 0..5 {
        for (x, y) in [(A, B), (B, A)] {
            let clear = move |n: &mut Net| n.request(x, IkeRequest::Clear(None));
            let others: [&dyn Fn(&mut Net); 4] =
                [&move |n| n.request(y, IkeRequest::Clear(None)), &move |n| n.rekey_ike(y), &move |n| n.rekey_child(y), &move |n| {
                    let spi = n.nodes[y].live()[0].spi_in;
                    n.nodes[y].engine.handle_expire(spi, true, n.now);
                }];
            for other in others {
                let mut net = crossing(seed, None, other, clear);
                net.secs(200);
                net.assert_settled(0, 0);
            }
        }
    }
}

#[test]
fn a_rekey_of_an_unknown_pair_makes_a_new_one() {
    let mut net = standing(1, usual(), A);
    // The peer has lost the pair.
    let spi = net.nodes[B].live()[0].spi_in;
    net.nodes[B].engine.remove_child(spi, "test", false, net.now);
    net.pump();
    net.rekey_child(A);
    net.secs(5);
    net.assert_settled(1, 1);
    assert!(net.nodes[B].notices().iter().any(|n| n.contains("CHILD_SA_NOT_FOUND")));
}
