//! Targets of the IKEv2 decoders: plain messages, the content of encrypted ones, fragments.

use gateway_user::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg, Secret};
use gateway_user::id::{Identity, IkeSaId, Spi};
use gateway_user::ike::v2::fragment::{self, BYTES_MAX, Place, Reassembly};
use gateway_user::ike::v2::message::{
    Exchange, HEADER_LEN, Header, Id, Message, NotifyType, Outgoing, PAYLOADS_MAX, Protocol, SealKeys, invalid_major_version, open,
};
use gateway_user::ike::v2::proposal::{ChildDh, accept_esp, accept_ike, choose_esp, choose_ike, esp_offer, ike_offer};
use gateway_user::ike::v2::selectors::{self, TrafficSelector, narrow};
use gateway_user::ike::{EspTransform, Flow, Ikev2Proposal};
use gateway_user::sad::{Mode, Selector};
use std::net::Ipv4Addr;

const GCM: CipherAlg = CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16);

fn ours() -> [Ikev2Proposal; 2] {
    let one = |encryption, integrity, additional| Ikev2Proposal {
        name: "P".into(),
        encryption,
        integrity,
        prf: vec![PrfAlg::HmacSha256],
        groups: vec![DhGroup::X25519, DhGroup::Modp2048],
        additional,
    };
    [
        one(vec![GCM], vec![], vec![vec![DhGroup::MlKem768]]),
        one(vec![CipherAlg::Aes256, CipherAlg::Aes128], vec![IntegAlg::HmacSha256], vec![]),
    ]
}

fn sets() -> [EspTransform; 2] {
    let one = |encr, integ| EspTransform { name: "T".into(), encr, integ, mode: Mode::Tunnel };
    [one(GCM, None), one(CipherAlg::Aes128, Some(IntegAlg::HmacSha256))]
}

fn flow() -> Flow {
    let net = |a, b| Selector::net4(Ipv4Addr::new(a, b, 0, 0), 16);
    Flow { ace: 0, local: net(10, 2), remote: net(10, 1) }
}

fn keys(encr: CipherAlg, integ: Option<IntegAlg>) -> SealKeys {
    let key = |n| Secret::new(vec![0x5a; n]);
    SealKeys { encr, integ, encr_key: key(encr.keymat_len()), integ_key: key(integ.map_or(0, IntegAlg::key_len)) }
}

fn all_keys() -> [SealKeys; 3] {
    [
        keys(GCM, None),
        keys(CipherAlg::Aes128, Some(IntegAlg::HmacSha256)),
        keys(CipherAlg::AesCtr(AesKey::Bits128), Some(IntegAlg::AesCmac)),
    ]
}

/// What was read means the same when it is written and read again; and whoever uses it stays inside what was configured.
fn judge(m: &Message<'_>) {
    assert!(m.notifies.len() + m.certs.len() + m.cert_reqs.len() + m.deletes.len() + m.vendors.len() <= PAYLOADS_MAX);
    for id in [m.id_i, m.id_r].into_iter().flatten() {
        if let Some(identity) = id.identity() {
            let body = Id::body_of(&identity);
            assert_eq!(Id { body: &body }.identity(), Some(identity), "an identity that does not survive");
        }
    }
    for n in &m.notifies {
        let _ = (n.esp_spi(), n.group(), n.kind.to_string());
    }
    if let Some(offer) = &m.sa {
        let understood = offer.iter().flat_map(|p| &p.transforms).all(|t| t.understood);
        let mut out = Outgoing::new();
        out.sa(offer);
        if understood {
            let again = Message::decode(out.first(), out.bytes());
            assert_eq!(again.as_ref().map(|m| m.sa.as_ref()), Ok(Some(offer)), "proposals that do not survive");
        }
        let ke = m.ke.map(|ke| ke.group);
        for rekey in [false, true] {
            if let Ok(choice) = choose_ike(&ours(), offer, ke, rekey) {
                assert!(ours().iter().any(|o| o.encryption.contains(&choice.suite.encr) && o.groups.contains(&choice.suite.group)));
                let inside = |p: &&gateway_user::ike::v2::proposal::Proposal| {
                    p.number == choice.answer.number && choice.answer.transforms.iter().all(|t| p.transforms.contains(t))
                };
                assert!(offer.iter().any(|p| inside(&p)), "a choice that was not offered");
            }
            let asked = ike_offer(&ours(), rekey.then_some([7; 8]));
            let _ = accept_ike(&ours(), &asked, offer, rekey);
        }
        for dh in [ChildDh::Absent, ChildDh::Any, ChildDh::Only(DhGroup::X25519)] {
            let _ = choose_esp(&sets(), Mode::Tunnel, dh, true, offer, ke);
        }
        let _ = accept_esp(&sets(), Mode::Tunnel, &esp_offer(&sets(), Mode::Tunnel, None, true, Spi(0x1000)), offer);
    }
    if let (Some(i), Some(r)) = (&m.ts_i, &m.ts_r) {
        let mut out = Outgoing::new();
        out.ts(i, r);
        let again = Message::decode(out.first(), out.bytes());
        assert_eq!(again.map(|m| (m.ts_i, m.ts_r)), Ok((Some(i.clone()), Some(r.clone()))), "selectors that do not survive");
        let flow = flow();
        if let Some(n) = narrow([&flow], r, i) {
            let inside = |outer: Selector, inner: Selector| TrafficSelector::of(outer).covers(&TrafficSelector::of(inner));
            assert!(inside(flow.local, n.local) && inside(flow.remote, n.remote), "more than the flow");
        }
        let _ = selectors::accept(&flow, r, i);
    }
}

/// A datagram from anybody: header and chain, or an encrypted message without its key.
pub fn ikev2_message(bytes: &[u8]) {
    if let Some(answer) = invalid_major_version(bytes) {
        assert!(answer.len() <= 36, "an answer of {} bytes", answer.len());
    }
    let Ok(header) = Header::decode(bytes) else { return };
    for keys in all_keys() {
        assert!(open(bytes, &header, &keys).is_err(), "opened without the key");
    }
    let _ = Place::read(bytes, &header);
    if let Ok(m) = Message::decode(header.next, bytes.get(HEADER_LEN..).unwrap_or_default()) {
        judge(&m);
    }
}

/// The content of an encrypted message: type of the first payload, then the chain.
pub fn ikev2_content(bytes: &[u8]) {
    let Some((first, chain)) = bytes.split_first() else { return };
    if let Ok(m) = Message::decode(*first, chain) {
        judge(&m);
    }
}

/// Fragments of three cuts of one message in the order that the input says, some of them changed.
pub fn ikev2_fragments(bytes: &[u8]) {
    let Some((which, script)) = bytes.split_first() else { return };
    let keys = &all_keys()[usize::from(*which) % 3];
    let header = Header::new(IkeSaId { initiator: [1; 8], responder: [2; 8] }, Exchange::Auth, true, false, 1);
    let content: Vec<u8> = (0..2000u16).map(|n| n as u8).collect();
    let cuts: Vec<Vec<Vec<u8>>> = [400, 548, 1228]
        .into_iter()
        .map(|max| fragment::split(&header, 35, &content, keys, &mut |iv| iv.fill(3), max).unwrap_or_default())
        .collect();
    let mut parts = Reassembly::new();
    for step in script.chunks_exact(4) {
        let cut = &cuts[usize::from(step[0]) % cuts.len()];
        let mut datagram = cut[usize::from(step[1]) % cut.len()].clone();
        let changed = step[2] >= 0x80;
        if changed {
            let at = HEADER_LEN + usize::from(step[2] & 0x7f) % (datagram.len() - HEADER_LEN);
            datagram[at] ^= step[3] | 1;
        }
        let Ok(header) = Header::decode(&datagram) else { continue };
        match parts.add(&datagram, &header, keys) {
            Ok(Some(whole)) => assert_eq!((whole.first, &whole.plain), (35, &content), "another message came out"),
            Ok(None) => {}
            Err(_) => assert!(changed, "a good fragment is refused"),
        }
        assert!(parts.bytes() <= BYTES_MAX);
    }
}

/// Recorded messages of strongSwan.
pub fn datagrams() -> Vec<Vec<u8>> {
    let files = [
        include_str!("../../../gateway-user/src/ike/v2/vectors/default.txt"),
        include_str!("../../../gateway-user/src/ike/v2/vectors/frag-gcm.txt"),
        include_str!("../../../gateway-user/src/ike/v2/vectors/ppk.txt"),
        include_str!("../../../gateway-user/src/ike/v2/vectors/libreswan.txt"),
    ];
    let unhex = |s: &str| -> Vec<u8> {
        let digits: Vec<u8> = s.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks_exact(2).map(|d| d[0] << 4 | d[1]).collect()
    };
    files
        .iter()
        .flat_map(|f| f.lines())
        .filter_map(|l| l.strip_prefix("from_"))
        .filter_map(|l| Some(unhex(l.split_once(" = ")?.1)))
        .collect()
}

/// Chains with every payload.
pub fn contents() -> Vec<Vec<u8>> {
    let ts = [TrafficSelector::of(flow().remote)];
    let ts_r = [TrafficSelector::of(Selector { proto: 6, port: 80, ..flow().local }), TrafficSelector::of(flow().local)];
    let mut auth = Outgoing::new();
    auth.id(true, &Identity::Fqdn("west.example".into())).id(false, &Identity::Address(Ipv4Addr::LOCALHOST.into()));
    auth.cert(4, b"certificate").cert_req(4, &[7; 20]).auth(14, b"\x02\x30\x00signature");
    auth.sa(&esp_offer(&sets(), Mode::Tunnel, None, true, Spi(0x1234))).ts(&ts, &ts_r);
    auth.status(NotifyType::INITIAL_CONTACT, &[]).status(NotifyType::PPK_IDENTITY, b"\x02id");
    let mut rekey = Outgoing::new();
    rekey.notify(Protocol::Esp, &[0, 0, 0x12, 0x34], NotifyType::REKEY_SA, &[]);
    rekey.sa(&esp_offer(&sets(), Mode::Tunnel, Some(DhGroup::X25519), false, Spi(0x5678))).nonce(&[5; 32]).ke(31, &[6; 32]).ts(&ts, &ts_r);
    let mut ike = Outgoing::new();
    ike.sa(&ike_offer(&ours(), Some([9; 8]))).nonce(&[5; 32]).ke(31, &[6; 32]);
    let mut informational = Outgoing::new();
    informational
        .delete_esp(&[Spi(0x1234), Spi(0x5678)])
        .delete_ike()
        .status(NotifyType::IKEV2_MESSAGE_ID_SYNC, &[1; 12])
        .vendor(b"vendor");
    [auth, rekey, ike, informational].iter().map(|o| [&[o.first()], o.bytes()].concat()).collect()
}

/// Scripts that end with the whole message.
pub fn scripts() -> Vec<Vec<u8>> {
    (0..3u8)
        .map(|which| {
            let steps = [(0, 0, 0), (1, 0, 0), (1, 1, 0x85), (1, 2, 0), (0, 1, 0), (1, 1, 0), (1, 3, 0), (1, 4, 0), (2, 0, 0)];
            let steps = steps.iter().flat_map(|&(cut, number, change)| [cut, number, change, 0x10]);
            std::iter::once(which).chain(steps).collect()
        })
        .collect()
}
