//! Known answers: exchanges of real peers, with the secrets that the peers logged.

use super::fragment::{Reassembly, is_fragment};
use super::keymat::{IkeKeys, child_keys, nat_detection, psk_auth, signed_octets, skeyseed, skeyseed_next};
use super::message::{Exchange, HEADER_LEN, Header, Id, Message, NotifyType, Opened, SealKeys, open, seal};
use super::proposal::{ChildDh, EspChoice, IkeChoice, accept_esp, accept_ike, choose_esp, choose_ike};
use super::selectors::{TrafficSelector, narrow};
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg, Secret};
use crate::id::Identity;
use crate::ike::policy::{EspTransform, Flow, Ikev2Proposal};
use crate::sad::{Mode, Selector};
use std::net::Ipv4Addr;

/// Names and values of one file, in order.
pub(super) struct Case(Vec<(&'static str, &'static str)>);

fn unhex(s: &str) -> Vec<u8> {
    s.as_bytes().chunks(2).map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap()).collect()
}

impl Case {
    pub(super) fn parse(text: &'static str) -> Self {
        Self(text.lines().filter_map(|l| l.split_once(" = ")).collect())
    }

    pub(super) fn get(&self, name: &str) -> Vec<u8> {
        let value = self.0.iter().find(|(n, _)| *n == name);
        value.map(|(_, v)| unhex(v)).unwrap_or_else(|| panic!("no {name}"))
    }

    fn all(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.iter().filter(|(n, _)| *n == name).map(|(_, v)| unhex(v)).collect()
    }

    fn secret(&self, name: &str) -> Secret {
        Secret::new(self.get(name))
    }

    /// Every message, in both directions.
    pub(super) fn messages(&self) -> Vec<Vec<u8>> {
        [self.all("from_initiator"), self.all("from_responder")].concat()
    }
}

struct Setup {
    text: &'static str,
    encr: CipherAlg,
    integ: Option<IntegAlg>,
    prf: PrfAlg,
    group: DhGroup,
    esp: (CipherAlg, Option<IntegAlg>),
}

fn setups() -> Vec<Setup> {
    use IntegAlg::{AesXcbc, HmacMd5, HmacSha1, HmacSha256};
    let setup = |text, encr, integ, prf, group, esp| Setup { text, encr, integ, prf, group, esp };
    let sha = |i| Some(i);
    vec![
        setup(
            include_str!("cbc.txt"),
            CipherAlg::Aes128,
            sha(HmacSha256),
            PrfAlg::HmacSha256,
            DhGroup::Modp2048,
            (CipherAlg::Aes128, sha(HmacSha256)),
        ),
        setup(
            include_str!("gcm.txt"),
            CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16),
            None,
            PrfAlg::HmacSha384,
            DhGroup::X25519,
            (CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16), None),
        ),
        setup(
            include_str!("ctr.txt"),
            CipherAlg::AesCtr(AesKey::Bits192),
            sha(AesXcbc),
            PrfAlg::AesXcbc,
            DhGroup::Modp1024,
            (CipherAlg::AesCtr(AesKey::Bits128), sha(HmacSha1)),
        ),
        setup(
            include_str!("chacha.txt"),
            CipherAlg::ChaCha20Poly1305,
            None,
            PrfAlg::AesCmac,
            DhGroup::Ecp256,
            (CipherAlg::ChaCha20Poly1305, None),
        ),
        setup(
            include_str!("frag.txt"),
            CipherAlg::Aes128,
            sha(HmacSha1),
            PrfAlg::HmacSha1,
            DhGroup::Modp1536,
            (CipherAlg::Aes128, sha(HmacSha1)),
        ),
        setup(
            include_str!("default.txt"),
            CipherAlg::Aes128,
            sha(HmacSha256),
            PrfAlg::HmacSha256,
            DhGroup::X25519,
            (CipherAlg::Aes128, sha(HmacSha256)),
        ),
        setup(
            include_str!("ccm.txt"),
            CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes12),
            None,
            PrfAlg::HmacSha512,
            DhGroup::Ecp384,
            (CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes12), None),
        ),
        setup(
            include_str!("tdes.txt"),
            CipherAlg::TripleDes,
            sha(HmacMd5),
            PrfAlg::HmacMd5,
            DhGroup::Modp1024,
            (CipherAlg::TripleDes, sha(HmacMd5)),
        ),
        setup(
            include_str!("frag-gcm.txt"),
            CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16),
            None,
            PrfAlg::HmacSha256,
            DhGroup::X25519,
            (CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16), None),
        ),
    ]
}

/// Every recorded exchange.
pub(super) fn cases() -> Vec<Case> {
    setups().iter().map(|s| Case::parse(s.text)).collect()
}

impl Setup {
    fn ike(&self) -> [Ikev2Proposal; 1] {
        [Ikev2Proposal {
            name: "p".into(),
            encryption: vec![self.encr],
            integrity: self.integ.into_iter().collect(),
            prf: vec![self.prf],
            groups: vec![self.group],
            additional: Vec::new(),
        }]
    }

    fn esp(&self) -> [EspTransform; 1] {
        [EspTransform { name: "t".into(), encr: self.esp.0, integ: self.esp.1, mode: Mode::Tunnel }]
    }
}

/// Opens a message that may have come in fragments.
fn open_all(datagrams: &[Vec<u8>], keys: &SealKeys) -> Opened {
    let mut parts = Reassembly::new();
    for bytes in datagrams {
        let header = Header::decode(bytes).unwrap();
        if !is_fragment(&header) {
            return open(bytes, &header, keys).unwrap();
        }
        if let Some(whole) = parts.add(bytes, &header, keys).unwrap() {
            return whole;
        }
    }
    panic!("fragments are missing");
}

#[test]
fn recorded_exchanges_of_strongswan_give_its_keys_and_proofs() {
    for setup in setups() {
        let case = Case::parse(setup.text);
        let (ours, theirs) = (case.all("from_initiator"), case.all("from_responder"));
        let (init_i, init_r) = (Header::decode(&ours[0]).unwrap(), Header::decode(&theirs[0]).unwrap());
        assert_eq!((init_i.exchange, init_i.response, init_r.response), (Exchange::SaInit, false, true));
        let request = Message::decode(init_i.next, &ours[0][HEADER_LEN..]).unwrap();
        let response = Message::decode(init_r.next, &theirs[0][HEADER_LEN..]).unwrap();

        let offer = request.sa.clone().unwrap();
        let answer = response.sa.unwrap();
        let ke = request.ke.unwrap();
        let IkeChoice { suite, spi, answer: chosen } = choose_ike(&setup.ike(), &offer, Some(ke.group), false).unwrap();
        assert_eq!((suite.encr, suite.integ, suite.prf, suite.group), (setup.encr, setup.integ, setup.prf, setup.group));
        assert_eq!((spi, ke.group, ke.data.len()), (None, setup.group.number(), setup.group.public_len()));
        if chosen.number == 1 {
            // The peer sends its transforms in an order of its own.
            assert_eq!(accept_ike(&setup.ike(), &offer, &answer, false).unwrap().suite, suite);
        }

        let (ni, nr) = (request.nonce.unwrap(), response.nonce.unwrap());
        let seed = skeyseed(suite.prf, ni, nr, &case.secret("shared"));
        assert_eq!(seed, case.secret("skeyseed"));
        let keys = IkeKeys::derive(&suite, &seed, ni, nr, &init_r.id);
        for (name, key) in [("d", &keys.d), ("ei", &keys.ei), ("er", &keys.er), ("pi", &keys.pi), ("pr", &keys.pr)] {
            assert_eq!(key, &case.secret(&format!("sk_{name}")), "{name}");
        }
        if suite.integ.is_some() {
            assert_eq!((&keys.ai, &keys.ar), (&case.secret("sk_ai"), &case.secret("sk_ar")));
        }
        for natd in [NotifyType::NAT_DETECTION_DESTINATION_IP, NotifyType::NAT_DETECTION_SOURCE_IP] {
            assert_eq!(request.notifies.iter().filter(|n| n.kind == natd && n.data.len() == 20).count(), 1);
        }
        let destination = request.notify(NotifyType::NAT_DETECTION_DESTINATION_IP).unwrap();
        assert_eq!(destination.data, nat_detection(&init_i.id, "192.0.2.2:500".parse().unwrap()));
        assert!(request.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some());

        let (send_i, send_r) = (keys.seal_keys(&suite, true), keys.seal_keys(&suite, false));
        let (auth_i, auth_r) = (open_all(&ours[1..], &send_i), open_all(&theirs[1..], &send_r));
        let (request, response) =
            (Message::decode(auth_i.first, &auth_i.plain).unwrap(), Message::decode(auth_r.first, &auth_r.plain).unwrap());
        let identity = |n| Some(Identity::Address(Ipv4Addr::new(192, 0, 2, n).into()));
        let (id_i, id_r) = (request.id_i.unwrap(), response.id_r.unwrap());
        assert_eq!((id_i.identity(), id_r.identity()), (identity(1), identity(2)));
        assert_eq!(Id::body_of(&identity(1).unwrap()), id_i.body);
        let psk = Secret::new(b"an old shared secret".to_vec());
        let proof =
            |message: &[u8], nonce, p, id: Id<'_>| psk_auth(suite.prf, &psk, &signed_octets(message, nonce, suite.prf, p, id.body, &[]));
        assert_eq!(proof(&ours[0], nr, &keys.pi, id_i), case.get("auth_i"));
        assert_eq!(proof(&theirs[0], ni, &keys.pr, id_r), case.get("auth_r"));
        assert_eq!((request.auth.unwrap().method, request.auth.unwrap().data), (2, &case.get("auth_i")[..]));
        assert_eq!((response.auth.unwrap().method, response.auth.unwrap().data), (2, &case.get("auth_r")[..]));

        let (offer, answer) = (request.sa.unwrap(), response.sa.unwrap());
        let EspChoice { suite: esp, spi, .. } = choose_esp(&setup.esp(), Mode::Tunnel, ChildDh::Absent, true, &offer, None).unwrap();
        assert_eq!((esp.encr, esp.integ, esp.group, esp.esn), (setup.esp.0, setup.esp.1, None, false));
        assert!(spi.0 > 255);
        if answer[0].number == 1 {
            assert_eq!(accept_esp(&setup.esp(), Mode::Tunnel, &offer, &answer).unwrap().suite, esp);
        }
        let (from_i, from_r) = child_keys(suite.prf, &keys.d, None, ni, nr, &[], esp.encr, esp.integ);
        assert_eq!((from_i.encr, from_r.encr), (case.secret("child_encr_i"), case.secret("child_encr_r")));
        if esp.integ.is_some() {
            assert_eq!((from_i.integ, from_r.integ), (case.secret("child_integ_i"), case.secret("child_integ_r")));
        }
        let net = |n| Selector::net4(Ipv4Addr::new(10, n, 0, 0), 16);
        let flow = Flow { ace: 0, local: net(2), remote: net(1) };
        let got = narrow([&flow], request.ts_r.as_deref().unwrap(), request.ts_i.as_deref().unwrap()).unwrap();
        assert_eq!((got.local, got.remote, got.narrowed), (net(2), net(1), false));
        assert_eq!(response.ts_i.unwrap(), [TrafficSelector::of(net(1))]);

        // What was opened can be sealed again: the same bytes where there is no padding.
        if suite.encr.block_len() == 1 && !is_fragment(&Header::decode(&ours[1]).unwrap()) {
            let header = Header::decode(&ours[1]).unwrap();
            let iv = &ours[1][HEADER_LEN + 4..][..send_i.iv_len()];
            assert_eq!(seal(&header, auth_i.first, &auth_i.plain, &send_i, iv).unwrap(), ours[1]);
        }
    }
}

#[test]
fn keys_are_those_of_nist() {
    let text = include_str!("cavs.txt");
    let mut seen = 0;
    for part in text.split("hash = ").skip(1) {
        let case = Case::parse(part);
        let prf = match part.lines().next().unwrap() {
            "SHA-1" => PrfAlg::HmacSha1,
            "SHA-256" => PrfAlg::HmacSha256,
            "SHA-384" => PrfAlg::HmacSha384,
            "SHA-512" => PrfAlg::HmacSha512,
            other => panic!("{other}"),
        };
        let (ni, nr) = (case.get("Ni"), case.get("Nr"));
        let seed = skeyseed(prf, &ni, &nr, &case.secret("g^ir"));
        assert_eq!(seed, case.secret("SKEYSEED"));
        let id = crate::id::IkeSaId { initiator: case.get("SPIi").try_into().unwrap(), responder: case.get("SPIr").try_into().unwrap() };
        let suite = super::proposal::IkeSuite {
            encr: CipherAlg::Aes256,
            integ: Some(IntegAlg::HmacSha512),
            prf,
            group: DhGroup::Modp2048,
            additional: Vec::new(),
        };
        let k = IkeKeys::derive(&suite, &seed, &ni, &nr, &id);
        let all = [&k.d, &k.ai, &k.ar, &k.ei, &k.er, &k.pi, &k.pr].map(Secret::expose).concat();
        let dkm = case.get("DKM");
        let n = dkm.len().min(all.len());
        assert!(n >= 132);
        assert_eq!(all[..n], dkm[..n]);
        let new = case.secret("g^ir (new)");
        for (shared, name) in [(None, "DKM(Child SA)"), (Some(&new), "DKM(Child SA D-H)")] {
            let (a, b) = child_keys(prf, &k.d, shared, &ni, &nr, &[], CipherAlg::Aes256, Some(IntegAlg::HmacSha512));
            let all = [&a.encr, &a.integ, &b.encr, &b.integ].map(Secret::expose).concat();
            let dkm = case.get(name);
            let n = dkm.len().min(all.len());
            assert!(n >= 132);
            assert_eq!(all[..n], dkm[..n], "{name}");
        }
        assert_eq!(skeyseed_next(prf, &k.d, &new, &ni, &nr, &[]), case.secret("SKEYSEED(Rekey)"));
        seen += 1;
    }
    assert_eq!(seen, 8);
}

/// RFC 8784, both ends with the key: SK_d, SK_pi and SK_pr change before AUTH.
#[test]
fn a_recorded_exchange_with_a_post_quantum_key() {
    let case = Case::parse(include_str!("ppk.txt"));
    let (ours, theirs) = (case.all("from_initiator"), case.all("from_responder"));
    let read = |bytes: &'static [u8]| Message::decode(Header::decode(bytes).unwrap().next, &bytes[HEADER_LEN..]).unwrap();
    let leak = |bytes: &[u8]| -> &'static [u8] { Box::leak(bytes.to_vec().into_boxed_slice()) };
    let (request, response) = (read(leak(&ours[0])), read(leak(&theirs[0])));
    assert!([&request, &response].into_iter().all(|m| m.notify(NotifyType::USE_PPK).is_some_and(|n| n.data.is_empty())));
    let setup = &setups()[0];
    let suite = choose_ike(&setup.ike(), request.sa.as_deref().unwrap(), None, false).unwrap().suite;
    let (ni, nr) = (request.nonce.unwrap(), response.nonce.unwrap());
    let seed = skeyseed(suite.prf, ni, nr, &case.secret("shared"));
    let mut keys = IkeKeys::derive(&suite, &seed, ni, nr, &Header::decode(&theirs[0]).unwrap().id);
    assert_eq!((&keys.d, &keys.pi, &keys.pr), (&case.secret("sk_d"), &case.secret("sk_pi"), &case.secret("sk_pr")));
    keys.mix_ppk(suite.prf, &Secret::new((0..32).collect()));
    assert_eq!((&keys.d, &keys.pi, &keys.pr), (&case.secret("mixed_d"), &case.secret("mixed_pi"), &case.secret("mixed_pr")));
    assert_eq!((&keys.ei, &keys.ai), (&case.secret("sk_ei"), &case.secret("sk_ai")));

    let opened = open_all(&ours[1..], &keys.seal_keys(&suite, true));
    let auth = Message::decode(opened.first, &opened.plain).unwrap();
    assert_eq!(auth.notify(NotifyType::PPK_IDENTITY).unwrap().data, b"\x02hidden");
    let octets = signed_octets(&ours[0], nr, suite.prf, &keys.pi, auth.id_i.unwrap().body, &[]);
    let proof = psk_auth(suite.prf, &Secret::new(b"an old shared secret".to_vec()), &octets);
    assert_eq!(auth.auth.unwrap().data, proof);
    let opened = open_all(&theirs[1..], &keys.seal_keys(&suite, false));
    let auth = Message::decode(opened.first, &opened.plain).unwrap();
    let octets = signed_octets(&theirs[0], ni, suite.prf, &keys.pr, auth.id_r.unwrap().body, &[]);
    let proof = psk_auth(suite.prf, &Secret::new(b"an old shared secret".to_vec()), &octets);
    assert_eq!(auth.auth.unwrap().data, proof);
    let (i, r) = child_keys(suite.prf, &keys.d, None, ni, nr, &[], setup.esp.0, setup.esp.1);
    assert_eq!((i.encr, r.integ), (case.secret("child_encr_i"), case.secret("child_integ_r")));
}

/// libreswan with its defaults: many transforms, a first group that is refused, both kinds of sequence numbers.
#[test]
fn a_recorded_exchange_of_libreswan() {
    let case = Case::parse(include_str!("libreswan.txt"));
    let (ours, theirs) = (case.all("from_initiator"), case.all("from_responder"));
    let (first, refusal) = (case.get("first_try"), case.get("first_refusal"));
    let read = |bytes: &'static [u8]| Message::decode(Header::decode(bytes).unwrap().next, &bytes[HEADER_LEN..]).unwrap();
    let leak = |bytes: &[u8]| -> &'static [u8] { Box::leak(bytes.to_vec().into_boxed_slice()) };
    let (first, refusal, request, response) = (read(leak(&first)), read(leak(&refusal)), read(leak(&ours[0])), read(leak(&theirs[0])));
    assert_eq!(first.ke.unwrap().group, DhGroup::Modp2048.number());
    assert_eq!(refusal.notify(NotifyType::INVALID_KE_PAYLOAD).unwrap().group(), Some(DhGroup::X25519.number()));
    // The second try offers the same; its nonce is a new one.
    assert_eq!(first.sa, request.sa);
    assert_ne!(first.nonce, request.nonce);
    assert_eq!(request.ke.unwrap().group, DhGroup::X25519.number());

    // Whatever we prefer of what it offers can be agreed on.
    let offer = request.sa.as_deref().unwrap();
    let one = |encr: CipherAlg, integ: Option<IntegAlg>, prf| Ikev2Proposal {
        name: "p".into(),
        encryption: vec![encr],
        integrity: integ.into_iter().collect(),
        prf: vec![prf],
        groups: vec![DhGroup::X25519],
        additional: Vec::new(),
    };
    let gcm = CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16);
    for (encr, integ, prf) in [
        (gcm, None, PrfAlg::HmacSha512),
        (CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16), None, PrfAlg::HmacSha256),
        (CipherAlg::Aes128, Some(IntegAlg::HmacSha512), PrfAlg::HmacSha512),
    ] {
        let choice = choose_ike(&[one(encr, integ, prf)], offer, Some(31), false).unwrap();
        assert_eq!((choice.suite.encr, choice.suite.integ, choice.suite.group), (encr, integ, DhGroup::X25519));
    }
    assert!(choose_ike(&[one(CipherAlg::TripleDes, Some(IntegAlg::HmacMd5), PrfAlg::HmacMd5)], offer, Some(31), false).is_err());

    let agreed = [one(CipherAlg::Aes256, Some(IntegAlg::HmacSha256), PrfAlg::HmacSha256)];
    let suite = choose_ike(&agreed, offer, Some(31), false).unwrap().suite;
    let (ni, nr) = (request.nonce.unwrap(), response.nonce.unwrap());
    let seed = skeyseed(suite.prf, ni, nr, &case.secret("shared"));
    assert_eq!(seed, case.secret("skeyseed"));
    let keys = IkeKeys::derive(&suite, &seed, ni, nr, &Header::decode(&theirs[0]).unwrap().id);
    assert_eq!(
        (&keys.d, &keys.ar, &keys.er, &keys.pr),
        (&case.secret("sk_d"), &case.secret("sk_ar"), &case.secret("sk_er"), &case.secret("sk_pr"))
    );
    let opened = open_all(&ours[1..], &keys.seal_keys(&suite, true));
    let auth = Message::decode(opened.first, &opened.plain).unwrap();
    let octets = signed_octets(&ours[0], nr, suite.prf, &keys.pi, auth.id_i.unwrap().body, &[]);
    assert_eq!(auth.auth.unwrap().data, psk_auth(suite.prf, &Secret::new(b"an old shared secret".to_vec()), &octets));
    assert_eq!(auth.auth.unwrap().data, case.get("auth_i"));
    let set = |encr, integ| [EspTransform { name: "t".into(), encr, integ, mode: Mode::Tunnel }];
    let offer = auth.sa.as_deref().unwrap();
    for (encr, integ) in [(gcm, None), (CipherAlg::Aes128, Some(IntegAlg::HmacSha512)), (CipherAlg::Aes256, Some(IntegAlg::HmacSha256))] {
        for esn in [false, true] {
            let choice = choose_esp(&set(encr, integ), Mode::Tunnel, ChildDh::Absent, esn, offer, None).unwrap();
            assert_eq!((choice.suite.encr, choice.suite.esn), (encr, esn));
        }
    }
    let net = |n| Selector::net4(Ipv4Addr::new(10, n, 0, 0), 16);
    let flow = Flow { ace: 0, local: net(2), remote: net(1) };
    let got = narrow([&flow], auth.ts_r.as_deref().unwrap(), auth.ts_i.as_deref().unwrap()).unwrap();
    assert_eq!((got.local, got.remote, got.narrowed), (net(2), net(1), false));
}
