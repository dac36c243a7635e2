//! What comes while arithmetic is under way: repetitions, other messages, the end of the SA. A result that comes too late changes nothing.

use super::*;
use crate::ike::IkeRequest;
use crate::ike::job::Job;
use crate::ike::v2::proposal::Transform;

/// Gives node B bytes and leaves its jobs for later.
fn deliver_only(net: &mut Net, from: SocketAddr, bytes: &[u8]) {
    let to = SocketAddr::new(net.nodes[B].addr, from.port());
    net.nodes[B].engine.handle_datagram(from, to, bytes, net.now);
    net.nodes[B].drain();
}

fn take_jobs(net: &mut Net) -> Vec<Job> {
    std::iter::from_fn(|| net.nodes[B].engine.poll_job()).collect()
}

fn finish(net: &mut Net, jobs: Vec<Job>) {
    for job in jobs {
        net.nodes[B].engine.handle_job(job.run(), net.now);
    }
    net.pump();
}

#[test]
fn a_first_message_repeated_while_its_key_is_made() {
    let mut net = up();
    let from = SocketAddr::new(address(0), 500);
    let bytes = first(5).0.build();
    for _ in 0..20 {
        deliver_only(&mut net, from, &bytes);
    }
    let jobs = take_jobs(&mut net);
    assert_eq!(jobs.len(), 1, "one key exchange for one peer");
    let sent = net.nodes[B].sent.len();
    finish(&mut net, jobs);
    assert_eq!(net.nodes[B].sent.len(), sent + 1);
    net.secs(31);
    still_works(&mut net);
}

#[test]
fn half_open_sas_that_end_before_their_key_is_made() {
    let mut net = up();
    let from = SocketAddr::new(address(0), 500);
    deliver_only(&mut net, from, &first(5).0.build());
    let jobs = take_jobs(&mut net);
    net.secs(31);
    let sent = net.nodes[B].sent.len();
    finish(&mut net, jobs);
    assert_eq!(net.nodes[B].sent.len(), sent, "nobody waits for the answer");
    net.assert_settled(1, 1);
    // The same while it stands in the queue: it is not done at all.
    deliver_only(&mut net, from, &first(6).0.build());
    net.nodes[B].engine.handle_timeout(net.now + std::time::Duration::from_secs(31));
    assert!(take_jobs(&mut net).is_empty());
    still_works(&mut net);
}

/// A request of node A with a key exchange, sealed with its real keys.
fn child_with_group(net: &Net) -> (SocketAddr, Vec<u8>, u32) {
    let sa = net.nodes[A].engine.sas.values().next().unwrap();
    let up = sa.up().unwrap();
    let keys = up.keys.seal_keys(&up.suite, sa.initiator);
    let message_id = up.send_id;
    let mut offer = child_offer(net, 0x7000);
    offer[0].transforms.push(Transform { kind: 4, id: 19, key_bits: None, understood: true });
    let (i, r) = flow_ts(net);
    let mut out = Outgoing::new();
    out.sa(&offer).nonce(&[6; 32]).ke(19, &first(8).0.public).ts(&i, &r);
    let header = Header::new(sa.id, Exchange::CreateChildSa, sa.initiator, false, message_id);
    (peer(net), out.seal(&header, &keys, &vec![9; keys.iv_len()]).unwrap(), message_id)
}

/// Another request of node A under the next message ID.
fn after(net: &Net, message_id: u32, fill: &dyn Fn(&mut Outgoing)) -> Vec<u8> {
    let sa = net.nodes[A].engine.sas.values().next().unwrap();
    let up = sa.up().unwrap();
    let keys = up.keys.seal_keys(&up.suite, sa.initiator);
    let mut out = Outgoing::new();
    fill(&mut out);
    let header = Header::new(sa.id, Exchange::Informational, sa.initiator, false, message_id);
    out.seal(&header, &keys, &vec![8; keys.iv_len()]).unwrap()
}

#[test]
fn a_request_is_served_once_and_the_next_one_waits() {
    let mut net = up();
    let (from, bytes, message_id) = child_with_group(&net);
    for _ in 0..20 {
        deliver_only(&mut net, from, &bytes);
    }
    // Out of the window as long as the one before is not answered: not even a Delete of everything overtakes it.
    let delete = after(&net, message_id + 1, &|o| {
        o.delete_ike();
    });
    deliver_only(&mut net, from, &delete);
    assert_eq!(net.nodes[B].refusals().last(), Some(&"message_id"));
    // The same number with something else in it.
    let other = after(&net, message_id, &|o| {
        o.delete_ike();
    });
    deliver_only(&mut net, from, &other);
    assert_eq!(net.nodes[B].refusals().last(), Some(&"repeated"));
    let jobs = take_jobs(&mut net);
    assert_eq!(jobs.len(), 1);
    let sent = net.nodes[B].sent.len();
    finish(&mut net, jobs);
    assert_eq!(net.nodes[B].sent.len(), sent + 1, "one answer");
    assert_eq!(net.nodes[B].kernel.len(), 2);
    deliver_only(&mut net, from, &other);
    assert_eq!(net.nodes[B].refusals().last(), Some(&"repeated"), "the number is used up");
    assert_eq!(net.nodes[B].up(net.now), 1);
}

#[test]
fn the_sa_ends_while_the_key_of_a_child_is_made() {
    type End<'a> = &'a dyn Fn(&mut Net);
    let ends: [End<'_>; 3] = [
        &|net| net.request(B, IkeRequest::Clear(None)),
        &|net| {
            // The hard lifetime of everything.
            let spi = net.nodes[B].live()[0].spi_in;
            net.nodes[B].engine.handle_expire(spi, true, net.now);
        },
        &|net| {
            net.nodes[B].engine.set_active(false, net.now);
            net.nodes[B].engine.set_active(true, net.now);
        },
    ];
    for (n, end) in ends.iter().enumerate() {
        let mut net = up();
        let (from, bytes, _) = child_with_group(&net);
        deliver_only(&mut net, from, &bytes);
        let jobs = take_jobs(&mut net);
        assert_eq!(jobs.len(), 1);
        end(&mut net);
        net.nodes[B].drain();
        finish(&mut net, jobs);
        net.secs(60);
        let (kernel, spis) = (&net.nodes[B].kernel, net.nodes[B].spis.0.lock().unwrap());
        assert!(kernel.len() <= 1, "case {n}: {:?}", kernel.keys());
        assert_eq!(kernel.keys().copied().collect::<Vec<_>>(), spis.iter().copied().collect::<Vec<_>>(), "case {n}: SPIs leaked");
    }
}

/// Results for tokens that were never given, and twice for one that was.
#[test]
fn results_that_nobody_asked_for() {
    let mut net = up();
    let secret = || DhGroup::Ecp256.generate(&mut Seeded::new(5));
    for token in [0, 1, 2, 999, u64::MAX] {
        let mut job = Job::dh(secret(), true, None);
        job.token = token;
        net.nodes[B].engine.handle_job(job.run(), net.now);
    }
    net.pump();
    net.assert_settled(1, 1);
    // A result of another kind for a job that waits.
    deliver_only(&mut net, SocketAddr::new(address(0), 500), &first(5).0.build());
    let real = take_jobs(&mut net).remove(0);
    let mut wrong = Job::dh(secret(), true, None);
    wrong.token = real.token;
    net.nodes[B].engine.handle_job(wrong.run(), net.now);
    finish(&mut net, vec![real]);
    net.secs(31);
    still_works(&mut net);
}
