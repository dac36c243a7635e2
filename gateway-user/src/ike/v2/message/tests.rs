//! Form and protection of messages.

use super::*;
use crate::crypto::{AesKey, CipherAlg, Icv, IntegAlg, Secret};
use crate::id::{Identity, IkeSaId, Spi};
use crate::ike::v2::proposal::{Proposal, Transform};
use crate::ike::v2::selectors::TrafficSelector;
use crate::ike::v2::vectors;
use crate::sad::Selector;
use crate::wire::DecodeError;
use hex_literal::hex;
use proptest::prelude::*;

const ID: IkeSaId = IkeSaId { initiator: [1; 8], responder: [2; 8] };

fn header(exchange: Exchange) -> Header {
    Header::new(ID, exchange, true, false, 7)
}

/// One of each way to protect a message.
pub(in crate::ike::v2) fn all_keys() -> Vec<SealKeys> {
    let keys = |encr: CipherAlg, integ: Option<IntegAlg>| SealKeys {
        encr,
        integ,
        encr_key: Secret::new((0..encr.keymat_len()).map(|i| i as u8 * 7 + 1).collect()),
        integ_key: Secret::new(vec![0x55; integ.map_or(0, IntegAlg::key_len)]),
    };
    vec![
        keys(CipherAlg::TripleDes, Some(IntegAlg::HmacMd5)),
        keys(CipherAlg::Aes128, Some(IntegAlg::HmacSha256)),
        keys(CipherAlg::Aes256, Some(IntegAlg::AesCmac)),
        keys(CipherAlg::AesCtr(AesKey::Bits128), Some(IntegAlg::HmacSha512)),
        keys(CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16), None),
        keys(CipherAlg::AesGcm(AesKey::Bits192, Icv::Bytes8), None),
        keys(CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes12), None),
        keys(CipherAlg::ChaCha20Poly1305, None),
    ]
}

#[test]
fn a_header_survives_the_wire() {
    let mut w = crate::wire::Writer::new();
    let header = Header { next: 46, ..header(Exchange::CreateChildSa) };
    header.encode(HEADER_LEN, &mut w);
    assert_eq!(w.as_slice(), hex!("0101010101010101 0202020202020202 2e 20 24 08 00000007 0000001c"));
    assert_eq!(Header::decode(w.as_slice()), Ok(header));
    let answer = header.answer();
    assert_eq!((answer.initiator, answer.response, answer.message_id, answer.exchange), (false, true, 7, Exchange::CreateChildSa));
}

#[test]
fn each_broken_header_has_its_own_refusal() {
    let mut w = crate::wire::Writer::new();
    Header { next: 46, ..header(Exchange::Informational) }.encode(HEADER_LEN, &mut w);
    let good = w.into_vec();
    let cases: &[(&[(usize, u8)], HeaderFault)] = &[
        (&[(27, 0x1d)], HeaderFault::Length(29)),
        (&[(27, 0)], HeaderFault::Length(0)),
        (&[(24, 0xff)], HeaderFault::Length(0xff00_001c)),
        (&[(17, 0x10)], HeaderFault::Version(0x10)),
        (&[(17, 0x30)], HeaderFault::Version(0x30)),
        (&[(17, 0x00)], HeaderFault::Version(0x00)),
        (&[(18, 33)], HeaderFault::Exchange(33)),
        (&[(18, 38)], HeaderFault::Exchange(38)),
        (&[(18, 0)], HeaderFault::Exchange(0)),
        // IKE_SA_INIT: message ID 7, then an SPI of the responder in a request, then flags that fit no direction
        (&[(18, 34)], HeaderFault::SaInit),
        (&[(18, 34), (23, 0)], HeaderFault::Spi),
        (&[(18, 34), (23, 0), (19, 0x28)], HeaderFault::SaInit),
        (&[(18, 34), (23, 0), (19, 0)], HeaderFault::SaInit),
    ];
    for (changes, fault) in cases {
        let mut bytes = good.clone();
        changes.iter().for_each(|&(at, v)| bytes[at] = v);
        assert_eq!(Header::decode(&bytes), Err(*fault), "{changes:?}");
    }
    for zero in [0..8, 8..16] {
        let mut bytes = good.clone();
        bytes[zero].fill(0);
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Spi));
    }
    for n in 0..good.len() {
        assert_eq!(Header::decode(&good[..n]), Err(HeaderFault::Short));
    }
    // Minor version, version flag and reserved flags do not matter.
    let mut bytes = good;
    (bytes[17], bytes[19]) = (0x2f, 0xdf);
    assert!(Header::decode(&bytes).is_ok());
}

#[test]
fn a_higher_major_version_gets_one_answer_not_larger_than_needed() {
    let mut out = Outgoing::new();
    out.nonce(&[9; 32]);
    let mut bytes = out.plain(&header(Exchange::SaInit));
    assert_eq!(invalid_major_version(&bytes), None);
    (bytes[17], bytes[18]) = (0x31, 77);
    let answer = invalid_major_version(&bytes).unwrap();
    assert_eq!(answer, hex!("0101010101010101 0202020202020202 29 20 4d 20 00000007 00000024  00 00 0008 00 00 0005"));
    bytes[19] |= 0x20;
    assert_eq!(invalid_major_version(&bytes), None, "a response is never answered");
    bytes[19] = 8;
    bytes.push(0);
    assert_eq!(invalid_major_version(&bytes), None, "the length is wrong");
}

#[test]
fn the_example_of_rfc_7634_appendix_b() {
    let key: Vec<u8> = (0x80..=0x9f).chain(0xa0..=0xa3).collect();
    let keys = SealKeys { encr: CipherAlg::ChaCha20Poly1305, integ: None, encr_key: Secret::new(key), integ_key: Secret::default() };
    let id = IkeSaId { initiator: hex!("c0c1c2c3c4c5c6c7"), responder: hex!("d0d1d2d3d4d5d6d7") };
    let mut out = Outgoing::new();
    out.status(NotifyType::SET_WINDOW_SIZE, &10u32.to_be_bytes());
    assert_eq!(out.bytes(), hex!("0000000c 00004001 0000000a"));
    let header = Header::new(id, Exchange::Informational, false, false, 9);
    let bytes = out.seal(&header, &keys, &hex!("1011121314151617")).unwrap();
    let want = hex!(
        "c0c1c2c3c4c5c6c7 d0d1d2d3d4d5d6d7 2e202500 00000009 00000045 29000029
         1011121314151617 61039470 1f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2"
    );
    assert_eq!(bytes, want);
    let got = open(&bytes, &Header::decode(&bytes).unwrap(), &keys).unwrap();
    assert_eq!((got.first, got.plain.as_slice()), (41, out.bytes()));
}

#[test]
fn what_was_sealed_opens_and_no_changed_byte_does() {
    for keys in all_keys() {
        for len in [0, 1, 15, 16, 17, 100] {
            let plain: Vec<u8> = (0..len).collect();
            let bytes = seal(&header(Exchange::Auth), 41, &plain, &keys, &vec![3; keys.iv_len()]).unwrap();
            let head = Header::decode(&bytes).unwrap();
            assert_eq!(open(&bytes, &head, &keys), Ok(Opened { first: 41, plain: plain.clone() }));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x40;
                let fault = open(&bad, &head, &keys).unwrap_err();
                let length = 30..32;
                assert_eq!(fault == Fault::Integrity, !length.contains(&at), "{keys:?} {at}: {fault}");
                bad.truncate(at);
                assert!(open(&bad, &head, &keys).is_err());
            }
        }
        let (head, iv) = (header(Exchange::Auth), vec![0; keys.iv_len() + 1]);
        assert!(seal(&head, 41, &[], &keys, &iv).is_err());
        assert_eq!(open(&[0; 40], &head, &keys), Err(Fault::Unsealed));
    }
}

#[test]
fn a_pad_length_longer_than_the_text_is_like_a_wrong_check_value() {
    for keys in all_keys() {
        let plain = [0u8; 31];
        let iv = vec![3; keys.iv_len()];
        // The last byte of a block-sized text stands where the pad length is: build the text by hand.
        let mut text = plain.to_vec();
        text.push(32);
        let head = header(Exchange::Auth);
        let bytes = seal_raw(&head, &text, &keys, &iv);
        assert_eq!(open(&bytes, &Header { next: 46, ..head }, &keys), Err(Fault::Integrity));
        *text.last_mut().unwrap() = 31;
        let bytes = seal_raw(&head, &text, &keys, &iv);
        assert_eq!(open(&bytes, &Header { next: 46, ..head }, &keys).unwrap().plain, Vec::<u8>::new());
    }
}

/// As [`seal`], of a text that has its padding.
fn seal_raw(head: &Header, text: &[u8], keys: &SealKeys, iv: &[u8]) -> Vec<u8> {
    let icv = keys.integ.map_or(keys.encr.icv_len(), IntegAlg::wire_len);
    let payload = 4 + iv.len() + text.len() + icv;
    let mut w = crate::wire::Writer::new();
    Header { next: 46, ..*head }.encode(HEADER_LEN + payload, &mut w);
    w.u8(41).u8(0).u16(payload as u16);
    let (mut out, mut text) = (w.into_vec(), text.to_vec());
    match (keys.integ, keys.encr) {
        (None, aead) => aead.aead_seal(keys.encr_key.expose(), iv, &out, &mut text).unwrap(),
        (Some(_), CipherAlg::AesCtr(_)) => keys.encr.ctr_apply(keys.encr_key.expose(), iv, &mut text).unwrap(),
        (Some(_), cbc) => cbc.cbc_encrypt(keys.encr_key.expose(), iv, &mut text).unwrap(),
    }
    out.extend_from_slice(iv);
    out.extend_from_slice(&text);
    if let Some(integ) = keys.integ {
        let mac = integ.mac(keys.integ_key.expose(), &[&out]);
        out.extend(mac);
    }
    out
}

/// A chain with every payload that we build.
fn rich() -> Outgoing {
    let mut out = Outgoing::new();
    let transforms = vec![Transform { kind: 1, id: 12, key_bits: Some(256), understood: true }];
    let ts = [TrafficSelector::of(Selector::ANY4)];
    out.id(true, &Identity::Fqdn("west".into()));
    out.id(false, &Identity::KeyId(vec![1, 2]));
    out.cert(4, b"certificate").cert(4, b"authority").cert_req(4, &[7; 20]);
    out.auth(14, b"signature").nonce(&[5; 32]).ke(31, &[6; 32]).vendor(b"vendor");
    out.sa(&[Proposal { number: 1, protocol: Protocol::Esp, spi: vec![1, 2, 3, 4], transforms }]);
    out.ts(&ts, &ts).status(NotifyType::INITIAL_CONTACT, &[]);
    out.notify(Protocol::Esp, &[0, 0, 1, 0], NotifyType::REKEY_SA, &[]);
    out.delete_ike().delete_esp(&[Spi(256), Spi(257)]);
    out
}

#[test]
fn what_is_built_is_read_again() {
    let out = rich();
    let m = Message::decode(out.first(), out.bytes()).unwrap();
    assert_eq!(m.id_i.unwrap().identity(), Some(Identity::Fqdn("west".into())));
    assert_eq!(m.id_r.unwrap().identity(), Some(Identity::KeyId(vec![1, 2])));
    assert_eq!(m.certs, [Cert { encoding: 4, data: b"certificate" }, Cert { encoding: 4, data: b"authority" }]);
    assert_eq!(m.cert_reqs, [Cert { encoding: 4, data: &[7; 20] }]);
    assert_eq!(m.auth, Some(Auth { method: 14, data: b"signature" }));
    assert_eq!((m.nonce, m.ke), (Some(&[5; 32][..]), Some(Ke { group: 31, data: &[6; 32] })));
    assert_eq!((m.vendors, m.deletes), (vec![&b"vendor"[..]], vec![Delete::Ike, Delete::Esp(vec![Spi(256), Spi(257)])]));
    assert_eq!(m.sa.as_ref().unwrap()[0].esp_spi(), Some(Spi(0x0102_0304)));
    assert_eq!((m.ts_i, m.ts_r), (Some(vec![TrafficSelector::of(Selector::ANY4)]), Some(vec![TrafficSelector::of(Selector::ANY4)])));
    assert_eq!(m.notifies[1].esp_spi(), Some(Spi(256)));
    assert_eq!(m.notifies[0].esp_spi(), None);
}

#[test]
fn identities_survive_and_unknown_ones_match_nobody() {
    let all = [
        Identity::Address("192.0.2.1".parse().unwrap()),
        Identity::Address("2001:db8::1".parse().unwrap()),
        Identity::Fqdn("gw.example".into()),
        Identity::UserFqdn("me@example".into()),
        Identity::DerAsn1Dn(vec![0x30, 0]),
        Identity::KeyId(vec![0, 1, 2]),
    ];
    for identity in all {
        assert_eq!(Id { body: &Id::body_of(&identity) }.identity(), Some(identity));
    }
    let bad: [&[u8]; 8] = [
        &[1, 0, 0, 0, 192, 0, 2],
        &[5, 0, 0, 0, 192, 0, 2, 1],
        &[2, 0, 0, 0],
        &[2, 0, 0, 0, 0xff],
        &[2, 0, 0, 0, b'a', 0, b'b'],
        &[13, 0, 0, 0],
        &[4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        &[201, 0, 0, 0, 1],
    ];
    for body in bad {
        assert_eq!(Id { body }.identity(), None, "{body:?}");
    }
}

/// A payload of one kind with this body.
fn one(kind: u8, body: &[u8]) -> Result<Message<'static>, Fault> {
    let bytes = [&[0, 0], &(body.len() as u16 + 4).to_be_bytes()[..], body].concat();
    Message::decode(kind, Box::leak(bytes.into_boxed_slice()))
}

#[test]
fn bad_chains_are_refused_by_name() {
    let length = |field, got| Err(Fault::Form(DecodeError::Length { field, got }));
    // A payload length of zero to three does not loop.
    for n in 0..4u8 {
        assert_eq!(Message::decode(40, &[40, 0, 0, n]), length("payload length", n.into()));
    }
    assert_eq!(Message::decode(40, &[0, 0, 0, 30]), Err(Fault::Form(DecodeError::Truncated { field: "payload body" })));
    assert_eq!(Message::decode(0, &[0]), Err(Fault::Form(DecodeError::Trailing { field: "message", got: 1 })));
    assert_eq!(Message::decode(41, &[]), Err(Fault::Form(DecodeError::Truncated { field: "next payload" })));
    assert_eq!(Message::decode(0, &[]), Ok(Message::default()));
    let chain = |kinds: &[u8]| -> Vec<u8> { kinds.iter().flat_map(|k| [*k, 0, 0, 4]).collect() };
    assert_eq!(Message::decode(43, &chain(&[43; 64])), Err(Fault::TooMany));
    assert_eq!(Message::decode(43, &chain(&[&[43; 63][..], &[0]].concat())).unwrap().vendors.len(), 64);
    for v1 in 1..=32 {
        assert_eq!(Message::decode(v1, &chain(&[0])), Err(Fault::Version1(v1)));
    }
    assert_eq!(one(46, &[0; 64]), Err(Fault::Misplaced(46)));
    assert_eq!(one(53, &[0; 64]), Err(Fault::Misplaced(53)));
    // Unknown: skipped, unless critical; then it comes before what is wrong elsewhere.
    assert_eq!(one(200, b"future"), Ok(Message::default()));
    assert_eq!(Message::decode(200, &[0, 0x80, 0, 4]), Err(Fault::Critical(200)));
    assert_eq!(Message::decode(40, &[49, 0, 0, 5, 1, 0, 0x80, 0, 4]), Err(Fault::Critical(49)));
    // The critical bit of a known payload and reserved bits are ignored.
    assert_eq!(Message::decode(43, &[0, 0xff, 0, 4]).unwrap().vendors.len(), 1);
    let twice: Vec<u8> = [&[40, 0, 0, 20][..], &[1; 16], &[0, 0, 0, 20], &[1; 16]].concat();
    assert_eq!(Message::decode(40, &twice), Err(Fault::Repeated(40)));
}

#[test]
fn bad_payloads_are_refused_by_name() {
    let length = |field, got| Err(Fault::Form(DecodeError::Length { field, got }));
    assert_eq!(one(40, &[1; 15]), length("nonce", 15));
    assert_eq!(one(40, &[1; 257]), length("nonce", 257));
    assert_eq!(one(34, &[0, 31, 0, 0]), length("key exchange data", 0));
    assert_eq!(one(34, &[0, 31, 0]), Err(Fault::Form(DecodeError::Truncated { field: "reserved" })));
    assert_eq!(one(35, &[1, 0, 0]), length("identity", 3));
    assert_eq!(one(37, &[]), Err(Fault::Form(DecodeError::Truncated { field: "certificate encoding" })));
    assert_eq!(one(39, &[1, 0, 0]), Err(Fault::Form(DecodeError::Truncated { field: "reserved" })));
    assert_eq!(one(41, &[0, 200, 0, 1, 1]), Err(Fault::Form(DecodeError::Truncated { field: "notify SPI" })));
    assert_eq!(one(41, &[0, 0, 0]), Err(Fault::Form(DecodeError::Truncated { field: "notify type" })));
    // Delete: counts and sizes that promise more, or less, than there is.
    assert_eq!(one(42, &[3, 4, 0xff, 0xff]), length("delete SPI count", 0xffff));
    assert_eq!(one(42, &[3, 4, 0, 2, 0, 0, 1, 0]), length("delete SPI count", 2));
    assert_eq!(one(42, &[3, 4, 0, 0, 0, 0, 1, 0]), length("delete SPI count", 0));
    assert_eq!(one(42, &[3, 0, 0, 9]), length("delete SPI size", 0));
    assert_eq!(one(42, &[1, 0, 0, 1]), length("delete SPI count", 1));
    assert_eq!(one(42, &[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), length("delete SPI size", 8));
    assert_eq!(one(42, &[2, 4, 0, 1, 0, 0, 1, 0]).unwrap().deletes, [Delete::Other(Protocol::Ah)]);
    assert_eq!(one(42, &[9, 0, 0, 0]).unwrap().deletes, [Delete::Other(Protocol::Other(9))]);
    // Configuration and EAP are passed over whatever they hold.
    assert!(one(47, &[1]).unwrap().cp && one(48, &[]).unwrap().eap);
}

#[test]
fn every_fault_has_a_label_of_its_own() {
    let field = "f";
    let all = [
        Fault::Form(DecodeError::Truncated { field }),
        Fault::Form(DecodeError::Length { field, got: 0 }),
        Fault::Form(DecodeError::Value { field, got: 0 }),
        Fault::Form(DecodeError::Trailing { field, got: 0 }),
        Fault::Critical(1),
        Fault::Version1(1),
        Fault::TooMany,
        Fault::Repeated(1),
        Fault::Misplaced(1),
        Fault::Unsealed,
        Fault::Integrity,
    ];
    let labels: std::collections::BTreeSet<_> = all.iter().map(|f| f.reason()).collect();
    assert_eq!(labels.len(), all.len());
}

#[test]
fn notify_types_have_the_names_of_the_registry() {
    assert_eq!(NotifyType(17).to_string(), "INVALID_KE_PAYLOAD");
    assert_eq!(NotifyType(16444).name(), Some("SA_RESOURCE_INFO"));
    assert_eq!(format!("{:?}", NotifyType(9999)), "notify 9999");
    assert!(NotifyType(16383).is_error() && !NotifyType(16384).is_error());
}

#[test]
fn recorded_messages_fail_cut_at_every_byte() {
    for case in vectors::cases() {
        for bytes in case.messages() {
            let header = Header::decode(&bytes).unwrap();
            for n in 0..bytes.len() {
                assert!(Header::decode(&bytes[..n]).is_err());
                if header.exchange == Exchange::SaInit && n >= HEADER_LEN {
                    assert!(Message::decode(header.next, &bytes[HEADER_LEN..n]).is_err(), "{n}");
                }
            }
        }
    }
}

#[test]
fn a_cut_chain_is_refused_at_every_byte() {
    let out = rich();
    for n in 0..out.bytes().len() {
        assert!(Message::decode(out.first(), &out.bytes()[..n]).is_err(), "{n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutation_of_a_chain_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let out = rich();
        let mut bytes = out.bytes().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(m) = Message::decode(out.first(), &bytes) {
            prop_assert!(m.notifies.len() + m.certs.len() + m.vendors.len() <= PAYLOADS_MAX);
            let _ = (m.id_i.map(|i| i.identity()), m.error().map(|n| n.group()));
        }
    }

    #[test]
    fn no_mutation_of_a_recorded_message_panics(
        case in 0..9usize,
        which in 0..2usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = vectors::cases()[case].messages()[which * 2].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(header) = Header::decode(&bytes) {
            let _ = Message::decode(header.next, &bytes[HEADER_LEN..]);
            for keys in all_keys() {
                prop_assert!(open(&bytes, &header, &keys).is_err());
            }
        }
    }

    #[test]
    fn random_bytes_do_not_panic(first in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(first, &bytes);
        let _ = Header::decode(&bytes);
        let _ = invalid_major_version(&bytes);
    }
}
