//! The authenticated, encrypted record layer: Noise `NNpsk0_25519_ChaChaPoly_BLAKE2s` over a byte stream.
//!
//! `NN` has no long-term keys besides the pair's secret, and `psk0` mixes that secret in before the first byte: a node without it cannot
//! make a first message the other end accepts, nor read one. Forward secrecy comes from the two ephemeral keys.
//!
//! A recorded first message can be replayed to a listener, which then answers, but whoever replays cannot go on: the records that
//! follow depend on the listener's own ephemeral key. So the listener holds its partner for authenticated only after the first record
//! (the initiator sends an empty one at once).

use super::secret;
use crate::crypto::Secret;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Names protocol and version of the channel itself; both ends mix it into every key.
const PROLOGUE: &[u8] = b"gateway SSP channel 1";
/// Bytes of the length before each record.
pub(super) const LENGTH_BYTES: usize = 2;
/// Authentication tag of a record, bytes.
const TAG_BYTES: usize = 16;
/// Bytes of a handshake record: ephemeral public key, and the tag over an empty payload.
const HANDSHAKE_BYTES: usize = 32 + TAG_BYTES;
/// Longest record (Noise revision 34, section 3).
pub(super) const RECORD_BYTES_MAX: usize = 65_535;
/// Most clear bytes in one record.
pub(super) const CLEAR_BYTES_MAX: usize = RECORD_BYTES_MAX - TAG_BYTES;

/// Why the channel refuses to go on.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ChannelError {
    /// A record whose length cannot be right at this point.
    #[error("record of {0} bytes is impossible here")]
    Length(usize),
    /// The handshake failed: another secret, another version, or not SSP at all.
    #[error("handshake refused: the SSP secrets of the two nodes differ, or the partner does not speak this version")]
    Handshake,
    /// A record was altered, repeated, left out or reordered.
    #[error("record is not authentic")]
    Record,
    /// The Noise library refused its parameters.
    #[error("noise: {0}")]
    Setup(String),
}

enum State {
    Handshake(Box<HandshakeState>),
    Transport(Box<TransportState>),
    /// Only while the state is taken out, or after an error.
    Closed,
}

/// One end of the channel.
pub(super) struct Channel {
    state: State,
    initiator: bool,
    confirmed: bool,
}

/// What an incoming record was.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Opened {
    /// Handshake; these bytes go back (the responder's answer, or the initiator's confirmation).
    Handshake(Vec<u8>),
    /// Clear bytes were appended to the caller's buffer.
    Data,
}

impl Channel {
    /// A channel and the bytes to send at once (the initiator's first message; empty for the responder). `ephemeral`: 32 fresh random
    /// bytes, used for this channel only; zeroised here.
    pub(super) fn new(initiator: bool, secret: &Secret, mut ephemeral: [u8; 32]) -> Result<(Self, Vec<u8>), ChannelError> {
        let setup = |e: &dyn std::fmt::Display| ChannelError::Setup(e.to_string());
        let psk = secret::channel_key(secret).ok_or_else(|| setup(&"key derivation"))?;
        let params: NoiseParams = PATTERN.parse().map_err(|e: snow::Error| setup(&e))?;
        let resolver = Resolver { inner: DefaultResolver, ephemeral: Mutex::new(Some(Zeroizing::new(ephemeral))) };
        ephemeral.zeroize();
        let builder =
            Builder::with_resolver(params, Box::new(resolver)).prologue(PROLOGUE).and_then(|b| b.psk(0, &psk)).map_err(|e| setup(&e))?;
        let mut handshake = if initiator { builder.build_initiator() } else { builder.build_responder() }.map_err(|e| setup(&e))?;
        let first = if initiator { handshake_record(&mut handshake)? } else { Vec::new() };
        Ok((Self { state: State::Handshake(Box::new(handshake)), initiator, confirmed: false }, first))
    }

    /// True once the partner has proved that it holds the secret, now.
    pub(super) fn is_authenticated(&self) -> bool {
        self.confirmed
    }

    /// Refuses a record by its length alone, before its bytes are waited for.
    pub(super) fn check_length(&self, length: usize) -> Result<(), ChannelError> {
        let fits = match self.state {
            State::Handshake(_) => length == HANDSHAKE_BYTES,
            State::Transport(_) => length >= TAG_BYTES,
            State::Closed => false,
        };
        if fits { Ok(()) } else { Err(ChannelError::Length(length)) }
    }

    /// Opens one record (without its length). Clear bytes are appended to `clear`. Any error closes the channel for good.
    pub(super) fn open(&mut self, record: &[u8], clear: &mut Zeroizing<Vec<u8>>) -> Result<Opened, ChannelError> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Handshake(mut handshake) => {
                handshake.read_message(record, &mut []).map_err(|_| ChannelError::Handshake)?;
                let mut reply = if self.initiator { Vec::new() } else { handshake_record(&mut handshake)? };
                let transport = handshake.into_transport_mode().map_err(|_| ChannelError::Handshake)?;
                self.state = State::Transport(Box::new(transport));
                if self.initiator {
                    // The second message proves the partner to us; the empty record proves us to the partner.
                    self.confirmed = true;
                    self.seal(&[], &mut reply)?;
                }
                Ok(Opened::Handshake(reply))
            }
            State::Transport(mut transport) => {
                let start = clear.len();
                clear.resize(start + record.len().saturating_sub(TAG_BYTES), 0);
                let n = transport.read_message(record, &mut clear[start..]).map_err(|_| ChannelError::Record)?;
                clear.truncate(start + n);
                self.confirmed = true;
                self.state = State::Transport(transport);
                Ok(Opened::Data)
            }
            State::Closed => Err(ChannelError::Record),
        }
    }

    /// Appends a record with its length to `out`. `clear` has at most [`CLEAR_BYTES_MAX`] bytes.
    pub(super) fn seal(&mut self, clear: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        let State::Transport(transport) = &mut self.state else { return Err(ChannelError::Record) };
        let length = clear.len() + TAG_BYTES;
        let Ok(prefix) = u16::try_from(length) else { return Err(ChannelError::Length(length)) };
        let start = out.len() + LENGTH_BYTES;
        out.extend_from_slice(&prefix.to_be_bytes());
        out.resize(start + length, 0);
        transport.write_message(clear, &mut out[start..]).map_err(|_| ChannelError::Record)?;
        Ok(())
    }
}

fn handshake_record(handshake: &mut HandshakeState) -> Result<Vec<u8>, ChannelError> {
    let mut out = vec![0; LENGTH_BYTES + HANDSHAKE_BYTES];
    out[..LENGTH_BYTES].copy_from_slice(&(HANDSHAKE_BYTES as u16).to_be_bytes());
    handshake.write_message(&[], &mut out[LENGTH_BYTES..]).map_err(|_| ChannelError::Handshake)?;
    Ok(out)
}

/// The library's own primitives with two changes. Randomness is the caller's ephemeral key, given out once: the core stays pure and a
/// seed reproduces a run, and a second use of the same key is an error instead of a silent repeat. Keys are overwritten when dropped,
/// which the library does not do. (What it copies to its own stack and hash state while it works stays out of our reach.)
struct Resolver {
    inner: DefaultResolver,
    ephemeral: Mutex<Option<Zeroizing<[u8; 32]>>>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let ephemeral = self.ephemeral.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(Box::new(Once(ephemeral)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(WipedDh(self.inner.resolve_dh(choice)?)))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.inner.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(WipedCipher(self.inner.resolve_cipher(choice)?)))
    }
}

struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != key.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*key);
        Ok(())
    }
}

struct WipedDh(Box<dyn Dh>);

impl Dh for WipedDh {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }
    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }
    fn set(&mut self, privkey: &[u8]) {
        self.0.set(privkey);
    }
    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.0.generate(rng)
    }
    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }
    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.dh(pubkey, out)
    }
    fn dh_len(&self) -> usize {
        self.0.dh_len()
    }
}

impl Drop for WipedDh {
    fn drop(&mut self) {
        self.0.set(&[0; 32]);
    }
}

struct WipedCipher(Box<dyn Cipher>);

impl Cipher for WipedCipher {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn set(&mut self, key: &[u8; 32]) {
        self.0.set(key);
    }
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        self.0.encrypt(nonce, authtext, plaintext, out)
    }
    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        self.0.decrypt(nonce, authtext, ciphertext, out)
    }
    fn rekey(&mut self) {
        self.0.rekey();
    }
}

impl Drop for WipedCipher {
    fn drop(&mut self) {
        self.0.set(&[0; 32]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"9b1d0c7aa3e54f6288d5e1c0437fb962".to_vec())
    }

    fn body(record: &[u8]) -> &[u8] {
        &record[LENGTH_BYTES..]
    }

    /// Both ends, and the initiator's three handshake byte strings (first message, answer, confirmation).
    fn pair(a: u8, b: u8) -> (Channel, Channel, [Vec<u8>; 3]) {
        let mut clear = Zeroizing::new(Vec::new());
        let (mut i, first) = Channel::new(true, &secret(), [a; 32]).unwrap();
        let (mut r, none) = Channel::new(false, &secret(), [b; 32]).unwrap();
        assert!(none.is_empty());
        let Opened::Handshake(answer) = r.open(body(&first), &mut clear).unwrap() else { panic!() };
        assert!(!r.is_authenticated(), "a replayed first message gets this far");
        let Opened::Handshake(confirmation) = i.open(body(&answer), &mut clear).unwrap() else { panic!() };
        assert!(i.is_authenticated());
        (i, r, [first, answer, confirmation])
    }

    #[test]
    fn both_ends_are_authenticated_after_three_records() {
        let (mut i, mut r, [_, _, confirmation]) = pair(1, 2);
        let mut clear = Zeroizing::new(Vec::new());
        assert_eq!(r.open(body(&confirmation), &mut clear), Ok(Opened::Data));
        assert!(r.is_authenticated() && clear.is_empty());
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut i, &mut r];
            let mut record = Vec::new();
            ends[from].seal(b"state", &mut record).unwrap();
            assert!(!record.windows(5).any(|w| w == b"state"));
            clear.clear();
            ends[to].open(body(&record), &mut clear).unwrap();
            assert_eq!(**clear, b"state"[..]);
        }
    }

    #[test]
    fn another_secret_fails_at_the_first_message() {
        let mut clear = Zeroizing::new(Vec::new());
        let (_, first) = Channel::new(true, &Secret::new(b"another one 0123987".to_vec()), [1; 32]).unwrap();
        let (mut r, _) = Channel::new(false, &secret(), [2; 32]).unwrap();
        assert_eq!(r.open(body(&first), &mut clear), Err(ChannelError::Handshake));
        assert!(clear.is_empty() && !r.is_authenticated());
        assert_eq!(r.open(body(&first), &mut clear), Err(ChannelError::Record), "closed for good");
    }

    #[test]
    fn an_altered_answer_is_refused() {
        let (_, _, [_, answer, _]) = pair(1, 2);
        for bit in 0..answer.len() * 8 {
            let mut clear = Zeroizing::new(Vec::new());
            let (mut i, _) = Channel::new(true, &secret(), [1; 32]).unwrap();
            let mut bad = answer.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if bit < LENGTH_BYTES * 8 {
                assert!(i.check_length(u16::from_be_bytes([bad[0], bad[1]]).into()).is_err());
            } else if bit == (LENGTH_BYTES + 32) * 8 - 1 {
                // The top bit of an X25519 key carries nothing for the exchange, but it is hashed.
                assert_eq!(i.open(body(&bad), &mut clear), Err(ChannelError::Handshake));
            } else {
                assert!(i.open(body(&bad), &mut clear).is_err());
            }
        }
    }

    #[test]
    fn a_recorded_session_cannot_be_replayed_to_a_new_one() {
        let (_, _, [first, _, confirmation]) = pair(1, 2);
        let mut clear = Zeroizing::new(Vec::new());
        let (mut r, _) = Channel::new(false, &secret(), [3; 32]).unwrap();
        assert!(r.open(body(&first), &mut clear).is_ok());
        assert_eq!(r.open(body(&confirmation), &mut clear), Err(ChannelError::Record));
        assert!(!r.is_authenticated());
    }

    #[test]
    fn altered_repeated_and_reordered_records_close() {
        type Case = fn(&mut Channel, &[Vec<u8>; 2]) -> Result<Opened, ChannelError>;
        let cases: [Case; 3] = [
            |r, [a, _]| {
                let mut bad = body(a).to_vec();
                bad[0] ^= 1;
                r.open(&bad, &mut Zeroizing::new(Vec::new()))
            },
            |r, [a, _]| {
                r.open(body(a), &mut Zeroizing::new(Vec::new()))?;
                r.open(body(a), &mut Zeroizing::new(Vec::new()))
            },
            |r, [_, b]| r.open(body(b), &mut Zeroizing::new(Vec::new())),
        ];
        for case in cases {
            let (mut i, mut r, [_, _, confirmation]) = pair(1, 2);
            r.open(body(&confirmation), &mut Zeroizing::new(Vec::new())).unwrap();
            let mut records = [Vec::new(), Vec::new()];
            i.seal(b"one", &mut records[0]).unwrap();
            i.seal(b"two", &mut records[1]).unwrap();
            assert_eq!(case(&mut r, &records), Err(ChannelError::Record));
            assert!(r.check_length(100).is_err(), "closed for good");
        }
    }

    #[test]
    fn an_ephemeral_key_is_given_out_once() {
        let resolver = Resolver { inner: DefaultResolver, ephemeral: Mutex::new(Some(Zeroizing::new([7; 32]))) };
        let mut rng = resolver.resolve_rng().unwrap();
        let mut out = [0; 32];
        rng.try_fill_bytes(&mut out).unwrap();
        assert_eq!(out, [7; 32]);
        assert_eq!(rng.try_fill_bytes(&mut out), Err(snow::Error::Rng));
        assert_eq!(resolver.resolve_rng().unwrap().try_fill_bytes(&mut out), Err(snow::Error::Rng));
    }

    #[test]
    fn lengths_are_checked_before_the_bytes_arrive() {
        let (r, _) = Channel::new(false, &secret(), [2; 32]).unwrap();
        assert!(r.check_length(HANDSHAKE_BYTES).is_ok());
        // "GE", the start of an HTTP request.
        assert_eq!(r.check_length(0x4745), Err(ChannelError::Length(0x4745)));
        let (i, _, _) = pair(1, 2);
        assert_eq!(i.check_length(TAG_BYTES - 1), Err(ChannelError::Length(15)));
        assert!(i.check_length(RECORD_BYTES_MAX).is_ok());
    }
}
