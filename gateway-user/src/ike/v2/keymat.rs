//! Keys of IKE and child SAs, and what AUTH covers (RFC 7296 2.13 to 2.18, RFC 8784, RFC 9242, RFC 9370).

use crate::crypto::{CipherAlg, HashAlg, IntegAlg, PrfAlg, Secret};
use crate::id::IkeSaId;
use crate::ike::v2::message::{Header, PayloadKind, SealKeys};
use crate::ike::v2::proposal::IkeSuite;
use crate::sad::EspKeys;
use crate::wire::Writer;
use std::net::{IpAddr, SocketAddr};

/// Pad of the shared-key AUTH (RFC 7296 2.15).
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Keys of one IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeKeys {
    /// SK_d: root of child keys and of the next IKE SA.
    pub d: Secret,
    /// SK_ai.
    pub ai: Secret,
    /// SK_ar.
    pub ar: Secret,
    /// SK_ei, salt included.
    pub ei: Secret,
    /// SK_er, salt included.
    pub er: Secret,
    /// SK_pi.
    pub pi: Secret,
    /// SK_pr.
    pub pr: Secret,
}

/// SKEYSEED of a first IKE SA: prf(Ni | Nr, g^ir).
pub fn skeyseed(prf: PrfAlg, ni: &[u8], nr: &[u8], shared: &Secret) -> Secret {
    let key = match prf {
        // RFC 7296 2.14: for these two only 64 bits of each nonce are the key.
        PrfAlg::AesXcbc | PrfAlg::AesCmac => [&ni[..ni.len().min(8)], &nr[..nr.len().min(8)]].concat(),
        PrfAlg::HmacMd5 | PrfAlg::HmacSha1 | PrfAlg::HmacSha256 | PrfAlg::HmacSha384 | PrfAlg::HmacSha512 => [ni, nr].concat(),
    };
    Secret::new(prf.prf(&key, &[shared.expose()]))
}

/// SKEYSEED from an older SK_d: of a rekeyed IKE SA (RFC 7296 2.18, RFC 9370 2.2.4), with the old PRF: prf(SK_d, SK(0) | Ni | Nr | SK(1) …);
/// and after each IKE_INTERMEDIATE with a key exchange (RFC 9370 2.2.2) with that one secret and the nonces of IKE_SA_INIT.
pub fn skeyseed_next(prf: PrfAlg, sk_d: &Secret, shared: &Secret, ni: &[u8], nr: &[u8], additional: &[Secret]) -> Secret {
    let mut parts = vec![shared.expose(), ni, nr];
    parts.extend(additional.iter().map(Secret::expose));
    Secret::new(prf.prf(sk_d.expose(), &parts))
}

impl IkeKeys {
    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr).
    pub fn derive(suite: &IkeSuite, skeyseed: &Secret, ni: &[u8], nr: &[u8], id: &IkeSaId) -> Self {
        let (p, a, e) = (suite.prf.len(), suite.integ.map_or(0, IntegAlg::key_len), suite.encr.keymat_len());
        let bytes = suite.prf.prf_plus(skeyseed.expose(), &[ni, nr, &id.initiator, &id.responder], 3 * p + 2 * a + 2 * e);
        let mut cut = Cut(bytes.expose());
        Self { d: cut.take(p), ai: cut.take(a), ar: cut.take(a), ei: cut.take(e), er: cut.take(e), pi: cut.take(p), pr: cut.take(p) }
    }

    /// Mixes a post-quantum pre-shared key in (RFC 8784 3): SK_d, SK_pi and SK_pr change.
    pub fn mix_ppk(&mut self, prf: PrfAlg, ppk: &Secret) {
        for key in [&mut self.d, &mut self.pi, &mut self.pr] {
            *key = prf.prf_plus(ppk.expose(), &[key.expose()], prf.len());
        }
    }

    /// Keys for messages that the original initiator (or responder) sends.
    pub fn seal_keys(&self, suite: &IkeSuite, from_initiator: bool) -> SealKeys {
        let (encr_key, integ_key) = if from_initiator { (&self.ei, &self.ai) } else { (&self.er, &self.ar) };
        SealKeys { encr: suite.encr, integ: suite.integ, encr_key: encr_key.clone(), integ_key: integ_key.clone() }
    }

    /// SK_pi or SK_pr.
    pub fn p(&self, initiator: bool) -> &Secret {
        if initiator { &self.pi } else { &self.pr }
    }
}

/// Keys of a pair of ESP SAs (RFC 7296 2.17): prf+ (SK_d, [SK(0) |] Ni | Nr [| SK(1) …]). First those of the direction from the initiator
/// of this exchange, of each encryption before integrity.
#[expect(clippy::too_many_arguments, reason = "the inputs of RFC 7296 2.17, each of them used once")]
pub fn child_keys(
    prf: PrfAlg,
    sk_d: &Secret,
    shared: Option<&Secret>,
    ni: &[u8],
    nr: &[u8],
    additional: &[Secret],
    encr: CipherAlg,
    integ: Option<IntegAlg>,
) -> (EspKeys, EspKeys) {
    let (e, a) = (encr.keymat_len(), integ.map_or(0, IntegAlg::key_len));
    let mut parts = vec![shared.map_or(&[][..], Secret::expose), ni, nr];
    parts.extend(additional.iter().map(Secret::expose));
    let bytes = prf.prf_plus(sk_d.expose(), &parts, 2 * (e + a));
    let mut cut = Cut(bytes.expose());
    let from_initiator = EspKeys { encr: cut.take(e), integ: cut.take(a) };
    (from_initiator, EspKeys { encr: cut.take(e), integ: cut.take(a) })
}

/// Cuts keying material from its front.
struct Cut<'a>(&'a [u8]);

impl Cut<'_> {
    fn take(&mut self, n: usize) -> Secret {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        Secret::new(head.to_vec())
    }
}

/// The octets that an end signs (RFC 7296 2.15, RFC 9242 3.3.2): its first IKE_SA_INIT message as it was sent, the other's nonce,
/// prf(SK_p, body of its ID payload), and what [`int_auth_end`] gives when there were IKE_INTERMEDIATE exchanges.
pub fn signed_octets(message: &[u8], peer_nonce: &[u8], prf: PrfAlg, sk_p: &Secret, id_body: &[u8], int_auth: &[u8]) -> Vec<u8> {
    let maced = prf.prf(sk_p.expose(), &[id_body]);
    [message, peer_nonce, &maced, int_auth].concat()
}

/// AUTH data with a shared key (method 2): prf(prf(key, "Key Pad for IKEv2"), octets).
pub fn psk_auth(prf: PrfAlg, psk: &Secret, octets: &[u8]) -> Vec<u8> {
    let key = Secret::new(prf.prf(psk.expose(), &[KEY_PAD]));
    prf.prf(key.expose(), &[octets])
}

/// One step of IntAuth (RFC 9242 3.3.2) for one direction: prf(SK_p, previous | A | P), where A is the header and the generic header of
/// the Encrypted payload with lengths that count no IV, padding or check value, and P the payloads inside. Fragments are joined before.
/// `header` is that of the message, whatever its first payload.
pub fn int_auth(prf: PrfAlg, sk_p: &Secret, previous: &[u8], header: &Header, first: u8, plain: &[u8]) -> Vec<u8> {
    let mut a = Writer::new();
    Header { next: PayloadKind::Sk.number(), ..*header }.encode(super::message::HEADER_LEN + 4 + plain.len(), &mut a);
    a.u8(first).u8(0).u16((4 + plain.len()) as u16);
    prf.prf(sk_p.expose(), &[previous, a.as_slice(), plain])
}

/// IntAuth = IntAuth_iN | IntAuth_rN | message ID of the first IKE_AUTH.
pub fn int_auth_end(initiator: &[u8], responder: &[u8], auth_message_id: u32) -> Vec<u8> {
    [initiator, responder, &auth_message_id.to_be_bytes()].concat()
}

/// Data of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP (RFC 7296 2.23): SHA-1(SPIi | SPIr | address | port), the SPIs of the
/// message it goes into.
pub fn nat_detection(id: &IkeSaId, end: SocketAddr) -> Vec<u8> {
    let v4;
    let v6;
    let address: &[u8] = match end.ip() {
        IpAddr::V4(a) => {
            v4 = a.octets();
            &v4
        }
        IpAddr::V6(a) => {
            v6 = a.octets();
            &v6
        }
    };
    HashAlg::Sha1.digest(&[&id.initiator, &id.responder, address, &end.port().to_be_bytes()])
}

/// Authentication data of method 14 (RFC 7427 3): the DER of an AlgorithmIdentifier behind its length, then the signature. `None` when the
/// identifier is longer than the length can say.
pub fn encode_signature(algorithm: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let len = u8::try_from(algorithm.len()).ok()?;
    Some([&[len], algorithm, signature].concat())
}

/// AlgorithmIdentifier and signature of method 14; `None` when it is cut or one of both is empty.
pub fn decode_signature(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first()?;
    let (algorithm, signature) = rest.split_at_checked((*len).into())?;
    (!algorithm.is_empty() && !signature.is_empty()).then_some((algorithm, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::DhGroup;
    use crate::ike::v2::message::{Exchange, Outgoing};

    #[test]
    fn a_first_skeyseed_of_the_aes_prfs_takes_half_of_the_key_from_each_nonce() {
        let (ni, nr) = ([1; 32], [2; 32]);
        let shared = Secret::new(vec![3; 32]);
        for prf in [PrfAlg::AesXcbc, PrfAlg::AesCmac] {
            let key = [[1u8; 8], [2; 8]].concat();
            assert_eq!(skeyseed(prf, &ni, &nr, &shared), Secret::new(prf.prf(&key, &[&[3; 32]])));
            assert_eq!(skeyseed(prf, &ni[..8], &nr[..4], &shared).len(), 16);
        }
        let hmac = PrfAlg::HmacSha256;
        assert_eq!(skeyseed(hmac, &ni, &nr, &shared), Secret::new(hmac.prf(&[ni, nr].concat(), &[&[3; 32]])));
    }

    #[test]
    fn additional_secrets_stand_behind_the_nonces() {
        let prf = PrfAlg::HmacSha256;
        let (d, first) = (Secret::new(vec![9; 32]), Secret::new(b"first".to_vec()));
        let more = [Secret::new(b"second".to_vec()), Secret::new(b"third".to_vec())];
        let want = prf.prf(d.expose(), &[b"firstninrsecondthird"]);
        assert_eq!(skeyseed_next(prf, &d, &first, b"ni", b"nr", &more), Secret::new(want));
        let (a, b) = child_keys(prf, &d, Some(&first), b"ni", b"nr", &more, CipherAlg::Aes128, Some(IntegAlg::HmacSha1));
        let all = [a.encr.expose(), a.integ.expose(), b.encr.expose(), b.integ.expose()].concat();
        assert_eq!(Secret::new(all), prf.prf_plus(d.expose(), &[b"firstninrsecondthird"], 72));
        assert_eq!((a.encr.len(), a.integ.len()), (16, 20));
    }

    #[test]
    fn int_auth_covers_header_and_content_without_iv_padding_and_check_value() {
        let prf = PrfAlg::HmacSha256;
        let key = Secret::new(vec![7; 32]);
        let id = IkeSaId { initiator: [1; 8], responder: [2; 8] };
        let mut out = Outgoing::new();
        out.ke(DhGroup::MlKem768.number(), b"pq");
        let header = Header { next: 53, ..Header::new(id, Exchange::Intermediate, true, false, 1) };
        // RFC 9242 3.3.2: both lengths count the content alone.
        let a = hex_literal::hex!("0101010101010101 0202020202020202 2e202b08 00000001 0000002a  2200000e");
        let first = int_auth(prf, &key, &[], &header, out.first(), out.bytes());
        assert_eq!(first, prf.prf(key.expose(), &[&a, out.bytes()]));
        let second = int_auth(prf, &key, &first, &header, out.first(), out.bytes());
        assert_eq!(second, prf.prf(key.expose(), &[&first, &a, out.bytes()]));
        assert_eq!(int_auth_end(b"ii", b"rr", 3), b"iirr\0\0\0\x03");
        let octets = signed_octets(b"message", b"nonce", prf, &key, b"id", b"tail");
        assert_eq!(octets, [b"message", &b"nonce"[..], &prf.prf(key.expose(), &[b"id"]), b"tail"].concat());
    }

    #[test]
    fn nat_detection_of_ipv6_and_other_ports_differs() {
        let id = IkeSaId { initiator: [1; 8], responder: [0; 8] };
        let of = |s: &str| nat_detection(&id, s.parse().unwrap());
        let all = [of("192.0.2.1:500"), of("192.0.2.1:4500"), of("192.0.2.2:500"), of("[2001:db8::1]:500")];
        assert!(all.iter().all(|h| h.len() == 20));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn signatures_with_their_algorithm() {
        let data = encode_signature(b"algorithm", b"signature").unwrap();
        assert_eq!(data[0], 9);
        assert_eq!(decode_signature(&data), Some((&b"algorithm"[..], &b"signature"[..])));
        assert_eq!(encode_signature(&[0; 256], b"s"), None);
        for bad in [&[][..], &[0], &[0, 1, 2], &[2, 1], &[2, 1, 1], &[255; 255]] {
            assert_eq!(decode_signature(bad), None, "{bad:?}");
        }
        for n in 0..=10 {
            assert_eq!(decode_signature(&data[..n]), None);
        }
    }
}
