//! State Synchronization Protocol: mirrors state to the standby over TCP 3249.
//!
//! # Layers
//! ```text
//! stream     length (2) | record            length (2) | record            …
//! record     Noise transport message, at most 65 535 bytes, tag of 16 bytes included
//! frames     the clear bytes of all records one after another; a frame may span records, a record may hold many frames
//! ```
//!
//! # Channel
//! Noise `NNpsk0_25519_ChaChaPoly_BLAKE2s`. The pre-shared key is HKDF-SHA256 over the pair's secret with a fixed label; the prologue names
//! protocol and channel version. Secrets that are short, a pattern, or a default are refused before any byte leaves ([`check_secret`]).
//! ```text
//! initiator                                responder
//!   -> psk, e               48 bytes         wrong secret: closes without a word
//!   <- e, ee                48 bytes
//! Established
//!   -> empty record         16 bytes       Established
//!   <-> records
//! ```
//! Nothing but records of exactly the expected length is read before the partner is authenticated, and no frame is parsed.
//! A record that is altered, repeated, left out or reordered fails its tag and ends the session.
//!
//! # Frame (big endian)
//! ```text
//!  0      4       6               14              22
//! +------+-------+---------------+---------------+--------------
//! |length| type  | sequence      | acknowledge   | body
//! +------+-------+---------------+---------------+--------------
//! ```
//! `length` counts everything after itself: 18 to [`FRAME_BYTES_MAX`]. `sequence` is 1, 2, 3 … for numbered types; pings and bare
//! acknowledgements have 0. `acknowledge` is cumulative: the sender has *applied* everything up to that number of the other
//! direction (its kernel holds the lease, the SA, the record). It never goes back, and never passes what was sent.
//!
//! | type | message | body |
//! |---|---|---|
//! | 1 | hello | version min 2, max 2, host name s, role 1, epoch 8, has state 1, count 2 × (item s, digest 32), count 2 × (interface s, IP, MAC 6) |
//! | 2 | state | role 1, epoch 8, ready 1 |
//! | 3 | resync request | client 1 (0 = both), IP (0 = all) |
//! | 4 | snapshot begin | id 8, epoch 8 |
//! | 5 | snapshot end | id 8, records 8 |
//! | 6 | upsert | client 1, key s, length 4, body |
//! | 7 | delete | client 1, key s |
//! | 8 | counters | count 2 × (SPI 4, seq in 8, seq out 8, lease 8, bytes in 8, out 8, packets in 8, out 8) |
//! | 9 | hand-over prepare | epoch 8 |
//! | 10 | hand-over armed | epoch 8, refusal s (empty = armed) |
//! | 11 | hand-over go | epoch 8 |
//! | 12 | ping | – |
//! | 13 | ack | – |
//!
//! `s` is a 16-bit length and UTF-8 text (a key: bytes). IP is 4 and 4 bytes, or 6 and 16 bytes. Role: 1 init, 2 standby, 3 active.
//! Client: 1 IPsec, 2 IKE (the guide's DOI numbers).
//!
//! # Session
//! The first message in each direction is the hello, and only that. The version is the newest one both ranges hold; without one
//! the session ends and names both ranges. A type this build does not know is skipped and counted, and is acknowledged together with
//! what came before it. A body that does not end where its layout ends is refused.
//!
//! | timer | default | what happens |
//! |---|---|---|
//! | handshake | 2 s | the session ends |
//! | keepalive | 500 ms without a frame of ours | ping |
//! | silent | 2 s without an authentic record | the session ends |
//!
//! # Limits
//! Every one is a constant: frame [`FRAME_BYTES_MAX`], record body [`RECORD_BYTES_MAX`], key [`KEY_BYTES_MAX`], names [`NAME_BYTES_MAX`],
//! configuration items [`CONFIG_ITEMS_MAX`], interfaces [`INTERFACES_MAX`], counters [`COUNTERS_MAX`], unacknowledged messages
//! [`WINDOW_MESSAGES_MAX`] (the receiver enforces it too), bytes waiting to be encrypted [`QUEUE_BYTES_MAX`]. A full queue refuses the message
//! ([`SspError::Backlog`]); nothing is dropped silently. Nothing is sent again: after a lost connection the nodes take a snapshot.

mod channel;
pub mod codec;
mod error;
mod message;
mod secret;
mod session;

pub use channel::ChannelError;
pub use codec::{
    CONFIG_ITEMS_MAX, COUNTERS_MAX, FRAME_BYTES_MAX, INTERFACES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, TEXT_BYTES_MAX,
    TooLarge, Versions,
};
pub use error::SspError;
pub use message::*;
pub use secret::{SECRET_BYTES_MIN, WeakSecret, check_secret};
pub use session::{QUEUE_BYTES_MAX, Session, SessionEvent, SessionStats, Timing, WINDOW_MESSAGES_MAX};
