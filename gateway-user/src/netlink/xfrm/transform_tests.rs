//! Byte tests of what combined modes, extended numbers, encapsulation and transport mode add to an SA.
#![cfg(target_endian = "little")]

use super::super::message::*;
use super::codec::*;
use super::events::event;
use super::tests::{child, install, keys, v4};
use super::view::*;
use crate::crypto::{AesKey, CipherAlg, Icv, IntegAlg, Secret};
use crate::id::Spi;
use crate::ports::*;
use crate::sad::{ChildSa, Encap, Mode, Selector};
use hex_literal::hex;

fn attr(r: &Request, kind: u16) -> Option<Vec<u8>> {
    Attrs::after(r.body(), SA_INFO_LEN).find(|(k, _)| *k == kind).map(|(_, v)| v.to_vec())
}

fn name64(name: &str) -> Vec<u8> {
    let mut v = name.as_bytes().to_vec();
    v.resize(64, 0);
    v
}

fn with(encr: CipherAlg, integ: Option<IntegAlg>) -> ChildSa {
    let k = keys(encr.keymat_len(), integ.map_or(0, IntegAlg::key_len));
    ChildSa { encr, integ, keys_in: k.clone(), keys_out: k, ..child() }
}

#[test]
fn combined_modes_carry_key_salt_and_check_length_in_one_attribute() {
    use AesKey::*;
    use Icv::*;
    for (encr, name, key_bits, icv_bits) in [
        (CipherAlg::AesGcm(Bits128, Bytes16), "rfc4106(gcm(aes))", 160u32, 128u32),
        (CipherAlg::AesGcm(Bits256, Bytes8), "rfc4106(gcm(aes))", 288, 64),
        (CipherAlg::AesCcm(Bits128, Bytes12), "rfc4309(ccm(aes))", 152, 96),
        (CipherAlg::ChaCha20Poly1305, "rfc7539esp(chacha20,poly1305)", 288, 128),
    ] {
        let c = with(encr, None);
        let sa = install(&c, Direction::Out, 0);
        assert_eq!(check(&sa), Ok(()));
        let r = new_sa(&sa, 100, 1);
        let want = [&name64(name)[..], &key_bits.to_le_bytes(), &icv_bits.to_le_bytes(), c.keys_out.encr.expose()].concat();
        assert_eq!(attr(&r, 18), Some(want), "{encr:?}");
        assert_eq!((attr(&r, 2), attr(&r, 20)), (None, None), "{encr:?}");
        assert!(sa_view(r.body()).unwrap().is(&sa));
        let shorter = with(CipherAlg::AesGcm(Bits128, Bytes12), None);
        assert!(!sa_view(r.body()).unwrap().is(&install(&shorter, Direction::Out, 0)), "another check length is another SA");
    }
}

#[test]
fn counter_mode_and_cipher_based_integrity_are_packed_apart() {
    let c = with(CipherAlg::AesCtr(AesKey::Bits192), Some(IntegAlg::AesXcbc));
    let r = new_sa(&install(&c, Direction::In, 0), 100, 1);
    let crypt = [&name64("rfc3686(ctr(aes))")[..], &hex!("e0000000"), c.keys_in.encr.expose()].concat();
    let auth = [&name64("xcbc(aes)")[..], &hex!("80000000 60000000"), c.keys_in.integ.expose()].concat();
    assert_eq!((attr(&r, 2), attr(&r, 20)), (Some(crypt), Some(auth)));
    let c = with(CipherAlg::Aes128, Some(IntegAlg::AesCmac));
    let r = new_sa(&install(&c, Direction::In, 0), 100, 1);
    assert_eq!(attr(&r, 20).unwrap()[..76], [&name64("cmac(aes)")[..], &hex!("80000000 60000000 aaaaaaaa")].concat());
}

#[test]
fn only_combined_modes_go_without_integrity() {
    let gcm = CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16);
    let refused = |encr, integ| check(&install(&with(encr, integ), Direction::In, 0)).err();
    assert_eq!(refused(gcm, None), None);
    assert_eq!(refused(gcm, Some(IntegAlg::HmacSha1)), Some(Unfit::SecondIntegrity));
    for encr in [CipherAlg::Null, CipherAlg::Aes128, CipherAlg::AesCtr(AesKey::Bits128)] {
        assert_eq!(refused(encr, None), Some(Unfit::NoIntegrity));
    }
    let mut short = with(gcm, None);
    short.keys_in.encr = Secret::new(vec![1; 16]);
    let wrong = Unfit::KeyLength { what: "encryption", got: 16, want: 20 };
    assert_eq!(check(&install(&short, Direction::In, 0)), Err(wrong), "the salt is missing");
    let open = ChildSa { esn: true, replay_window: 0, ..with(gcm, None) };
    assert_eq!(check(&install(&open, Direction::In, 0)), Err(Unfit::NoWindow));
}

#[test]
fn extended_numbers_are_written_and_read_in_two_halves() {
    let c = ChildSa { esn: true, replay_window: 96, ..child() };
    let number = 7 << 32 | 5;
    let inbound = install(&c, Direction::In, number);
    let r = new_sa(&inbound, 100, 1);
    assert_eq!(r.body()[216], 128, "XFRM_STATE_ESN");
    // 96 becomes 128: four words.
    let want = hex!("04000000 00000000 05000000 00000000 07000000 80000000 ffffffff ffffffff ffffffff ffffffff");
    assert_eq!(attr(&r, 23), Some(want.to_vec()));
    let view = sa_view(r.body()).unwrap();
    assert_eq!((view.esn, view.replay.seq, view.replay.window), (true, number, 128));
    assert!(view.is(&inbound));
    let plain = ChildSa { esn: false, replay_window: 128, ..c.clone() };
    assert!(!view.is(&install(&plain, Direction::In, 0)), "the same keys with short numbers are another SA");
    let out = new_sa(&install(&c, Direction::Out, number), 100, 1);
    assert_eq!(sa_view(out.body()).unwrap().replay, Replay { seq: 0, oseq: number, words: Some(4), window: 128, bits: 0 });
    let set = ReplaySet { spi: c.spi_out, dst: c.peer, direction: Direction::Out, replay: number, window: 96, esn: true, used: None };
    let ae = new_ae(&set, &[0; 4], 1);
    assert_eq!(replay_of(Attrs::after(ae.body(), AEVENT_LEN)).oseq, number);
    let short = new_ae(&ReplaySet { esn: false, ..set }, &[0; 3], 1);
    assert_eq!(replay_of(Attrs::after(short.body(), AEVENT_LEN)).oseq, u64::from(u32::MAX));
}

/// What the kernel's check of extended numbers (`xfrm_replay_check_esn`) says, in its own arithmetic of low halves.
fn takes_esn(top: u64, bitmap: &[u32], window: u32, number: u64) -> bool {
    if number > top {
        return true;
    }
    let (pos, diff) = ((top as u32).wrapping_sub(1) % window, (top - number) as u32);
    let bit = if pos >= diff { (pos - diff) % window } else { window - (diff - pos) };
    diff < window && bitmap[bit as usize / 32] >> (bit % 32) & 1 == 0
}

#[test]
fn a_floor_closes_extended_numbers_across_the_wrap_of_their_low_half() {
    let window = 64;
    for top in [(1u64 << 32) - 3, 1 << 32, (1 << 32) + 1, (1 << 32) + 20, (5 << 32) + 70] {
        for below in [0, 1, 5, 30, 63] {
            let floor = top - below;
            let (seq, after) = merged(top, &[0, 0], window, floor);
            assert_eq!(seq, top);
            for number in top - 63..top + 3 {
                let want = number > floor;
                assert_eq!(takes_esn(seq, &after, window, number), want, "number {number}, top {top}, floor {floor}");
            }
        }
    }
}

#[test]
fn encapsulation_names_both_ports_in_the_direction_of_the_packets() {
    let c = ChildSa { encap: Some(Encap { local_port: 4500, peer_port: 31_000 }), ..child() };
    let zeros = [0; 18];
    let inbound = new_sa(&install(&c, Direction::In, 0), 100, 1);
    assert_eq!(attr(&inbound, 4), Some([&hex!("0200 7918 1194")[..], &zeros].concat()));
    assert_eq!(attr(&inbound, 32), Some(hex!("01000000").to_vec()), "events about the mapping are limited");
    let outbound = new_sa(&install(&c, Direction::Out, 0), 100, 1);
    assert_eq!(attr(&outbound, 4), Some([&hex!("0200 1194 7918")[..], &zeros].concat()));
    assert_eq!(attr(&outbound, 32), None);
    let view = sa_view(inbound.body()).unwrap();
    assert_eq!(view.encap, Some((31_000, 4500)));
    let other_port = ChildSa { encap: Some(Encap { local_port: 4500, peer_port: 31_001 }), ..c.clone() };
    assert!(view.is(&install(&other_port, Direction::In, 0)), "ports may change");
    assert!(!view.is(&install(&ChildSa { encap: None, ..c.clone() }, Direction::In, 0)));
    let moved = ChildSa { peer: v4(198, 51, 100, 77), ..c.clone() };
    assert!(view.is(&install(&moved, Direction::In, 0)), "an inbound SA keeps the source it was made with");
    assert!(!sa_view(outbound.body()).unwrap().is(&install(&moved, Direction::Out, 0)));
    let update = update_sa(&install(&other_port, Direction::Out, 0), 100, 1);
    assert_eq!((update.kind(), attr(&update, 4).unwrap()[4..6].to_vec()), (0x1a, hex!("7919").to_vec()));
}

#[test]
fn a_transport_sa_selects_by_protocol_and_ports() {
    let end = |addr, port| Selector { addr, prefix: 32, proto: 17, port };
    let c = ChildSa { mode: Mode::Transport, ts_local: end(v4(192, 0, 2, 1), 1701), ts_remote: end(v4(198, 51, 100, 9), 0), ..child() };
    let selector = |direction| new_sa(&install(&c, direction, 0), 100, 1).body()[..56].to_vec();
    let zeros = [0; 32];
    assert_eq!(selector(Direction::In), [&zeros[..], &hex!("06a5 ffff 0000 0000 0200 00 00 11 000000 00000000 00000000")].concat());
    assert_eq!(selector(Direction::Out), [&zeros[..], &hex!("0000 0000 06a5 ffff 0200 00 00 11 000000 00000000 00000000")].concat());
}

#[test]
fn a_changed_mapping_names_the_new_address_and_port() {
    let mut m = hex!("c0000201 000000000000000000000000 80010203 0200 32 00 34120000").to_vec();
    m.extend(hex!("c6336409 000000000000000000000000 cb007105 000000000000000000000000 1194 7919"));
    let want = XfrmEvent::Mapping { spi: Spi(0x8001_0203), dst: v4(192, 0, 2, 1), peer: v4(203, 0, 113, 5), port: 31_001 };
    assert_eq!(event(0x26, &m), Some(want));
    for cut in 0..m.len() {
        assert_eq!(event(0x26, &m[..cut]), None);
    }
    m[22] = 51;
    assert_eq!(event(0x26, &m), None, "AH");
}
