//! Valid sessions, then mutations: of what is on the wire, and of what is inside the encryption.

use super::*;
use crate::rng::Random;

fn mutate(rng: &mut Seeded, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.u32() % 4 {
        if bytes.is_empty() {
            return;
        }
        let at = rng.u32() as usize % bytes.len();
        match rng.u32() % 6 {
            0 => bytes[at] = rng.u32() as u8,
            1 => bytes[at] ^= 1 << (rng.u32() % 8),
            2 => bytes[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xff][rng.u32() as usize % 7],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, rng.u32() as u8),
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend_from_slice(&tail[..tail.len().min(40)]);
            }
        }
    }
    // Half of them with a length that fits: otherwise little comes past the header.
    if rng.u32().is_multiple_of(2) && bytes.len() >= HEADER_LEN {
        let length = (bytes.len() as u32).to_be_bytes();
        bytes[24..28].copy_from_slice(&length);
    }
}

/// Bounds that hold whatever was sent.
fn bounded(net: &Net) {
    let e = &net.nodes[B].engine;
    assert!(e.half_open_total <= e.config.limits.half_open_per_source_max);
    assert!(e.sas.len() <= e.half_open_total + 3, "{}", e.sas.len());
    let kernel: Vec<Spi> = net.nodes[B].kernel.keys().copied().collect();
    let spis: Vec<Spi> = net.nodes[B].spis.0.lock().unwrap().iter().copied().collect();
    assert_eq!(kernel, spis);
}

#[test]
fn mutations_of_recorded_messages_do_no_harm() {
    for seed in 0..40 {
        let mut net = standing(seed, usual(), if seed % 2 == 0 { A } else { B });
        let mut rng = Seeded::new(seed + 1000);
        net.rekey_child(A);
        net.secs(3);
        let recorded: Vec<Vec<u8>> = net.nodes.iter().flat_map(|n| n.sent.clone()).collect();
        net.secs(40);
        for _ in 0..60 {
            let mut bytes = recorded[rng.u32() as usize % recorded.len()].clone();
            mutate(&mut rng, &mut bytes);
            let from = peer(&net);
            let sent = net.nodes[B].sent.len();
            deliver(&mut net, from, &bytes);
            assert!(net.nodes[B].sent.len() <= sent + 1);
            bounded(&net);
            net.ms(u64::from(rng.u32() % 200));
        }
        println!("seed {seed}");
        still_works(&mut net);
    }
}

/// The same between two ends that are making their tunnel: whatever is inserted, it rises.
#[test]
fn mutations_while_the_tunnel_rises_do_not_stop_it() {
    for seed in 0..60 {
        let mut net = Net::new(seed, usual());
        let mut rng = Seeded::new(seed + 2000);
        net.weather.delay_ms = 40;
        net.initiate(if seed % 2 == 0 { A } else { B });
        for _ in 0..30 {
            net.ms(7);
            let recorded: Vec<Vec<u8>> = net.nodes.iter().flat_map(|n| n.sent.clone()).collect();
            let mut bytes = recorded[rng.u32() as usize % recorded.len()].clone();
            // Past the first exchange nothing is believed that is not authentic; in it a mutation may take the place of the message.
            if Header::decode(&bytes).is_ok_and(|h| h.exchange == Exchange::SaInit) {
                continue;
            }
            mutate(&mut rng, &mut bytes);
            let node = (rng.u32() % 2) as usize;
            net.inject(node, &bytes);
        }
        println!("seed {seed}");
        net.secs(60);
        net.assert_settled(1, 1);
    }
}

/// A peer with keys sends every kind of rubbish under them.
#[test]
fn mutations_under_good_encryption_do_no_harm() {
    for seed in 0..60u64 {
        let mut net = up();
        let mut rng = Seeded::new(seed + 3000);
        let mallory = Mallory::new(&mut net, 5);
        let mut samples: Vec<Outgoing> = vec![mallory.good(&net)];
        let mut out = Outgoing::new();
        let (i, r) = flow_ts(&net);
        out.sa(&child_offer(&net, 0x9000)).nonce(&[3; 32]).ke(19, &first(7).0.public).ts(&i, &r);
        samples.push(out);
        let mut out = Outgoing::new();
        out.sa(&ike_offer(&[fast()], Some([8; 8]))).nonce(&[3; 32]).ke(19, &first(7).0.public);
        samples.push(out);
        let mut out = Outgoing::new();
        out.notify(Protocol::Esp, &[0, 0, 0x90, 0], NotifyType::REKEY_SA, &[])
            .delete_esp(&[Spi(0x9000)])
            .status(NotifyType::INITIAL_CONTACT, &[]);
        samples.push(out);
        // Half of the runs stay before the proof, half of them mutate behind it.
        let proven = seed % 2 == 0;
        let mut id = 1;
        if proven {
            let mut out = Outgoing::new();
            out.id(true, &mallory.identity()).auth(2, &mallory.proof(&net, None));
            assert!(mallory.ask(&mut net, Exchange::Auth, 1, &out).is_some());
            id = 2;
        }
        let keys = mallory.keys.seal_keys(&mallory.suite, true);
        for _ in 0..40 {
            let sample = &samples[rng.u32() as usize % samples.len()];
            let mut plain = sample.bytes().to_vec();
            let first = if rng.u32().is_multiple_of(8) { rng.u32() as u8 } else { sample.first() };
            mutate(&mut rng, &mut plain);
            let exchange = match rng.u32() % 8 {
                0 => Exchange::ALL[rng.u32() as usize % 6],
                _ if !proven => Exchange::Auth,
                1..=3 => Exchange::Informational,
                _ => Exchange::CreateChildSa,
            };
            let header = Header::new(mallory.id, exchange, true, false, id);
            let bytes = seal(&header, first, &plain, &keys, &vec![id as u8; keys.iv_len()]).unwrap();
            let sent = net.nodes[B].sent.len();
            deliver(&mut net, mallory.from, &bytes);
            let answers = net.nodes[B].sent.len() - sent;
            assert!(answers <= 2, "an answer, and at most one request of our own");
            id += u32::from(answers > 0);
            bounded_with_children(&net);
            net.ms(u64::from(rng.u32() % 300));
        }
        println!("seed {seed}");
        assert!(net.nodes[B].up(net.now) >= 1);
    }
}

fn bounded_with_children(net: &Net) {
    let n = &net.nodes[B];
    assert!(n.engine.sas.len() <= n.engine.half_open_total + 45);
    let kernel = n.kernel.len();
    assert!(n.spis.0.lock().unwrap().len() <= kernel + 2, "SPIs that are not given back");
}
