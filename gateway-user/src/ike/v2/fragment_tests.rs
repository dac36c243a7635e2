use super::*;
use crate::id::IkeSaId;
use crate::ike::v2::message::Exchange;
use crate::ike::v2::message::tests::all_keys;
use proptest::prelude::*;

fn header() -> Header {
    Header::new(IkeSaId { initiator: [1; 8], responder: [2; 8] }, Exchange::Auth, true, false, 1)
}

fn cut(plain: &[u8], keys: &SealKeys, max: usize) -> Vec<Vec<u8>> {
    let mut n = 0u8;
    let mut iv = |out: &mut [u8]| {
        n += 1;
        out.fill(n);
    };
    split(&header(), 35, plain, keys, &mut iv, max).unwrap()
}

fn feed(parts: &mut Reassembly, bytes: &[u8], keys: &SealKeys) -> Result<Option<Opened>, Fault> {
    parts.add(bytes, &Header::decode(bytes).unwrap(), keys)
}

/// The fragment as it came, with other numbers on it: whoever has the keys can send that.
fn renumber(keys: &SealKeys, plain: &[u8], number: u16, total: u16) -> Vec<u8> {
    let payload = HEAD_LEN + keys.sealed_len(plain.len());
    let mut w = Writer::new();
    Header { next: 53, ..header() }.encode(HEADER_LEN + payload, &mut w);
    w.u8(if number == 1 { 35 } else { 0 }).u8(0).u16(payload as u16).u16(number).u16(total);
    seal_body(w, plain, keys, &vec![0; keys.iv_len()]).unwrap()
}

#[test]
fn sizes_of_messages() {
    assert_eq!(message_max(1280, false, false), 1252);
    assert_eq!(message_max(1280, true, true), 1228);
    assert_eq!(message_max(0, false, true), 544);
}

#[test]
fn fragments_are_small_enough_and_join_in_any_order() {
    let plain: Vec<u8> = (0..3000u16).map(|i| i as u8).collect();
    for keys in all_keys() {
        for max in [548, 700, 1252] {
            let all = cut(&plain, &keys, max);
            assert!(all.len() > 1 && all.iter().all(|f| f.len() <= max), "{keys:?}");
            // No room is wasted: one fragment less would be too large.
            assert!(all.iter().map(Vec::len).sum::<usize>() > max * (all.len() - 1));
            for backwards in [false, true] {
                let mut order: Vec<_> = all.iter().collect();
                if backwards {
                    order.reverse();
                }
                let mut parts = Reassembly::new();
                let (last, before) = order.split_last().unwrap();
                for f in before {
                    assert_eq!(feed(&mut parts, f, &keys), Ok(None));
                    assert_eq!(feed(&mut parts, f, &keys), Ok(None), "a repeat changes nothing");
                }
                assert_eq!(feed(&mut parts, last, &keys), Ok(Some(Opened { first: 35, plain: plain.clone() })));
                assert_eq!(parts.bytes(), 0);
            }
        }
    }
}

#[test]
fn a_changed_fragment_is_not_kept() {
    let keys = &all_keys()[4];
    let all = cut(&[7; 900], keys, 548);
    let mut parts = Reassembly::new();
    for at in HEADER_LEN..all[0].len() {
        let mut bad = all[0].clone();
        bad[at] ^= 1;
        assert!(feed(&mut parts, &bad, keys).is_err() && parts.bytes() == 0, "{at}");
    }
    assert_eq!(feed(&mut parts, &all[0], keys), Ok(None));
    assert!(feed(&mut parts, &all[1], keys).unwrap().is_some());
}

#[test]
fn numbers_that_cannot_be_are_refused_before_any_key_is_used() {
    let keys = &all_keys()[1];
    let other = &all_keys()[4];
    for (number, total) in [(0, 0), (0, 2), (3, 2), (1, 0), (1, FRAGMENTS_MAX + 1), (u16::MAX, u16::MAX)] {
        let bytes = renumber(keys, &[1; 20], number, total);
        let fault = feed(&mut Reassembly::new(), &bytes, other).unwrap_err();
        assert_eq!(fault.reason(), "payload_value", "{number} of {total}");
    }
    let whole = renumber(keys, &[1; 20], 1, 1);
    assert_eq!(feed(&mut Reassembly::new(), &whole, keys), Ok(Some(Opened { first: 35, plain: vec![1; 20] })));
    // An Encrypted payload is no fragment.
    let header = Header::decode(&whole).unwrap();
    assert_eq!(Place::read(&whole, &Header { next: 46, ..header }), Err(Fault::Unsealed));
}

#[test]
fn a_larger_total_starts_anew_and_a_smaller_one_is_dropped() {
    let keys = &all_keys()[5];
    let mut parts = Reassembly::new();
    assert_eq!(feed(&mut parts, &renumber(keys, b"old-", 1, 2), keys), Ok(None));
    assert_eq!(feed(&mut parts, &renumber(keys, b"a", 1, 3), keys), Ok(None));
    assert_eq!(parts.bytes(), 1);
    assert_eq!(feed(&mut parts, &renumber(keys, b"old", 2, 2), keys), Ok(None));
    assert_eq!(feed(&mut parts, &renumber(keys, b"c", 3, 3), keys), Ok(None));
    let whole = feed(&mut parts, &renumber(keys, b"b", 2, 3), keys).unwrap().unwrap();
    assert_eq!(whole.plain, b"abc");
}

#[test]
fn what_is_held_is_bounded() {
    let keys = &all_keys()[4];
    let mut parts = Reassembly::new();
    let mut refused = 0;
    for number in 1..=FRAGMENTS_MAX {
        let bytes = renumber(keys, &[0; 8000], number, FRAGMENTS_MAX);
        refused += u32::from(feed(&mut parts, &bytes, keys).is_err());
        assert!(parts.bytes() <= BYTES_MAX);
    }
    assert!(refused > 0);
    assert!(split(&header(), 35, &[0; 70_000], keys, &mut |_| {}, 548).is_err());
}

proptest! {
    #[test]
    fn any_content_survives(len in 0..5000usize, max in 548..2000usize, which in 0..8usize) {
        let keys = &all_keys()[which];
        let plain: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
        let all = cut(&plain, keys, max);
        prop_assert!(all.iter().all(|f| f.len() <= max));
        let mut parts = Reassembly::new();
        let mut whole = None;
        for f in &all {
            prop_assert!(whole.is_none());
            whole = feed(&mut parts, f, keys).unwrap();
        }
        prop_assert_eq!(whole.unwrap().plain, plain);
    }
}
