//! One connection: channel, version, sequence numbers, acknowledgements, keepalive, flow control.

use super::channel::{CLEAR_BYTES_MAX, Channel, LENGTH_BYTES, Opened, RECORD_BYTES_MAX};
use super::codec::{self, FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, FrameHeader, Kind, Versions};
use super::error::SspError;
use super::message::Message;
use super::secret;
use crate::crypto::Secret;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// Messages sent and not yet acknowledged; the receiver closes the connection when its partner passes this.
pub const WINDOW_MESSAGES_MAX: u64 = 262_144;
/// Bytes of bodies waiting to be encrypted.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Room for decrypted bytes: the part of a frame that is still incomplete, and one record more.
const CLEAR_BYTES_ROOM: usize = FRAME_LENGTH_BYTES + FRAME_BYTES_MAX + RECORD_BYTES_MAX;

/// Timers of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// A ping is sent after this time without another frame.
    pub keepalive: Duration,
    /// The partner is dead after this time without an authentic record.
    pub dead_after: Duration,
    /// The partner must have proved itself after this time.
    pub handshake_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { keepalive: Duration::from_millis(500), dead_after: Duration::from_secs(2), handshake_max: Duration::from_secs(2) }
    }
}

/// What the owner of a session is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionEvent {
    /// The partner proved that it holds the pair's secret. Messages sent earlier leave now.
    Established,
    /// A message. The owner calls [`Session::acknowledge`] once it has applied it.
    Message {
        /// Its sequence number.
        seq: u64,
        /// The message.
        message: Message,
    },
    /// The partner has applied everything up to and including this number.
    Acked(u64),
}

/// What a session has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionStats {
    /// Frames given to the stream.
    pub frames_sent: u64,
    /// Bytes given to the stream, encrypted.
    pub bytes_sent: u64,
    /// Frames received whole.
    pub frames_received: u64,
    /// Bytes received, encrypted.
    pub bytes_received: u64,
    /// Frames of a kind this build does not know, skipped.
    pub unknown_skipped: u64,
    /// When the session began.
    pub created: Instant,
    /// Version agreed on; 0 before the partner's hello.
    pub version: u16,
}

struct Queued {
    kind: Kind,
    seq: u64,
    body: Zeroizing<Vec<u8>>,
}

/// One connection. Feed it with `handle_*`, then drain `poll_event` and `poll_transmit`.
pub struct Session {
    channel: Channel,
    timing: Timing,
    /// Latest time any call brought.
    now: Instant,
    last_sent: Instant,
    last_received: Instant,
    closed: bool,
    established: bool,
    /// Encrypted handshake bytes to send before anything else.
    handshake_out: Vec<u8>,
    /// Encrypted bytes of a record that is not complete yet.
    inbox: Vec<u8>,
    /// Clear bytes of a frame that is not complete yet.
    clear: Zeroizing<Vec<u8>>,
    /// Clear bytes framed and not yet encrypted.
    stage: Zeroizing<Vec<u8>>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    events: VecDeque<SessionEvent>,
    /// Last number given to a message of ours, and last one the partner acknowledged.
    sent: u64,
    acked: u64,
    /// Last number received, last one that we promise, and skipped ones above it.
    received: u64,
    promised: u64,
    skipped: VecDeque<u64>,
    ack_due: bool,
    versions: Versions,
    stats: SessionStats,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Session(established {}, sent {}, acked {}, received {}, promised {})",
            self.established, self.sent, self.acked, self.received, self.promised
        )
    }
}

impl Session {
    /// A session over a new stream with the default [`Timing`]. `initiator`: this node opened the stream. `ephemeral`: 32 fresh bytes from
    /// the operating system, never used before (a test gives seeded ones); a repeated one would let a recorded session be replayed.
    pub fn new(initiator: bool, secret: &Secret, ephemeral: [u8; 32], now: Instant) -> Result<Self, SspError> {
        Self::with_timing(initiator, secret, ephemeral, Timing::default(), now)
    }

    /// As [`Session::new`], with other timers.
    pub fn with_timing(initiator: bool, secret: &Secret, ephemeral: [u8; 32], timing: Timing, now: Instant) -> Result<Self, SspError> {
        secret::check_secret(secret)?;
        let (channel, handshake_out) = Channel::new(initiator, secret, ephemeral)?;
        Ok(Self {
            channel,
            timing,
            now,
            last_sent: now,
            last_received: now,
            closed: false,
            established: false,
            handshake_out,
            inbox: Vec::new(),
            clear: Zeroizing::new(Vec::new()),
            stage: Zeroizing::new(Vec::new()),
            queue: VecDeque::new(),
            queue_bytes: 0,
            events: VecDeque::new(),
            sent: 0,
            acked: 0,
            received: 0,
            promised: 0,
            skipped: VecDeque::new(),
            ack_due: false,
            versions: Versions::OURS,
            stats: SessionStats {
                frames_sent: 0,
                bytes_sent: 0,
                frames_received: 0,
                bytes_received: 0,
                unknown_skipped: 0,
                created: now,
                version: 0,
            },
        })
    }

    /// Takes bytes of the stream, in any portions. An error means: close the connection; it names the cause, and the session is closed.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) -> Result<(), SspError> {
        self.clock(now)?;
        self.stats.bytes_received += bytes.len() as u64;
        let result = self.records(bytes);
        self.close_on_error(result)
    }

    /// Carries out what is due: a ping after a quiet time, an error when the partner is silent or the handshake does not end.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SspError> {
        self.clock(now)?;
        let result = if !self.established && self.now >= self.stats.created + self.timing.handshake_max {
            Err(SspError::HandshakeTimeout)
        } else if self.established && self.now >= self.last_received + self.timing.dead_after {
            Err(SspError::Dead(self.timing.dead_after))
        } else {
            if self.established && self.queue.is_empty() && self.now >= self.last_sent + self.timing.keepalive {
                self.push(Kind::PING, 0, Vec::new());
            }
            Ok(())
        };
        self.close_on_error(result)
    }

    /// Queues a message and gives its sequence number (for `Ping` and `Ack`, which have none, the last one given). The first message must be
    /// the hello, once. Messages may be queued before `Established`; they leave after it. `Backlog`, `TooLarge` and `Hello` leave the session as it was.
    pub fn send(&mut self, mut message: Message, now: Instant) -> Result<u64, SspError> {
        self.clock(now)?;
        let kind = codec::kind(&message);
        let numbered = kind.is_numbered();
        if numbered && (self.sent == 0) != (kind == Kind::HELLO) {
            return Err(SspError::Hello);
        }
        if self.sent - self.acked >= WINDOW_MESSAGES_MAX {
            return Err(SspError::Backlog);
        }
        let body = codec::encode(&message, self.versions)?;
        if let Message::Upsert { body, .. } = &mut message {
            body.zeroize();
        }
        if self.queue_bytes + FRAME_LENGTH_BYTES + codec::FRAME_FIXED_BYTES + body.len() > QUEUE_BYTES_MAX {
            return Err(SspError::Backlog);
        }
        self.sent += u64::from(numbered);
        self.push(kind, if numbered { self.sent } else { 0 }, body);
        Ok(self.sent)
    }

    /// The next encrypted bytes for the stream: at most one record. Acknowledgements that are due travel in it.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if self.closed {
            return None;
        }
        if !self.handshake_out.is_empty() {
            let bytes = std::mem::take(&mut self.handshake_out);
            return Some(self.count(bytes));
        }
        if !self.established {
            return None;
        }
        if self.ack_due && self.queue.is_empty() {
            self.push(Kind::ACK, 0, Vec::new());
        }
        while self.stage.len() < CLEAR_BYTES_MAX {
            let Some(frame) = self.queue.pop_front() else { break };
            self.queue_bytes -= frame_bytes(&frame.body);
            // The frame is in clear here: the buffer must not leave copies behind by growing.
            reserve_wiped(&mut self.stage, frame_bytes(&frame.body));
            codec::put_frame(&mut self.stage, FrameHeader { kind: frame.kind, seq: frame.seq, ack: self.promised }, &frame.body);
            self.ack_due = false;
            self.stats.frames_sent += 1;
        }
        if self.stage.is_empty() {
            return None;
        }
        let n = self.stage.len().min(CLEAR_BYTES_MAX);
        let mut record = Vec::with_capacity(RECORD_BYTES_MAX.min(n + 32));
        if self.channel.seal(&self.stage[..n], &mut record).is_err() {
            self.closed = true;
            return None;
        }
        remove_front(&mut self.stage, n);
        Some(self.count(record))
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// The owner has applied everything up to and including message `seq`: a promise the partner builds on. Numbers not yet received are cut
    /// down to the last received one.
    pub fn acknowledge(&mut self, seq: u64, now: Instant) {
        self.now = self.now.max(now);
        let seq = seq.min(self.received);
        if seq > self.promised {
            self.promise(seq);
        }
    }

    /// Last number the partner acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Messages sent and not yet acknowledged.
    pub fn unacked(&self) -> usize {
        (self.sent - self.acked) as usize
    }

    /// Bytes queued and not yet given out by `poll_transmit`: a sender of a long snapshot keeps this low.
    pub fn backlog_bytes(&self) -> usize {
        self.queue_bytes + self.stage.len()
    }

    /// True once the partner has proved itself and the session is not closed.
    pub fn is_established(&self) -> bool {
        self.established && !self.closed
    }

    /// Counters.
    pub fn stats(&self) -> SessionStats {
        self.stats
    }

    /// When `handle_timeout` is next due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.closed {
            return None;
        }
        if !self.established {
            return Some((self.stats.created + self.timing.handshake_max, "ssp handshake"));
        }
        let dead = (self.last_received + self.timing.dead_after, "ssp partner silent");
        if !self.queue.is_empty() || !self.stage.is_empty() {
            return Some(dead);
        }
        Some(dead.min((self.last_sent + self.timing.keepalive, "ssp keepalive")))
    }

    fn clock(&mut self, now: Instant) -> Result<(), SspError> {
        self.now = self.now.max(now);
        if self.closed { Err(SspError::Closed) } else { Ok(()) }
    }

    fn close_on_error(&mut self, result: Result<(), SspError>) -> Result<(), SspError> {
        if result.is_err() {
            self.closed = true;
            self.queue.clear();
            self.queue_bytes = 0;
            self.stage.zeroize();
            self.clear.zeroize();
            self.inbox.clear();
        }
        result
    }

    fn push(&mut self, kind: Kind, seq: u64, body: Vec<u8>) {
        self.queue_bytes += frame_bytes(&body);
        self.queue.push_back(Queued { kind, seq, body: Zeroizing::new(body) });
    }

    fn count(&mut self, bytes: Vec<u8>) -> Bytes {
        self.last_sent = self.now;
        self.stats.bytes_sent += bytes.len() as u64;
        Bytes::from(bytes)
    }

    /// Cuts the stream into records and opens them.
    fn records(&mut self, bytes: &[u8]) -> Result<(), SspError> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(bytes);
        let mut rest = &inbox[..];
        while let Some((length, tail)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let length = usize::from(u16::from_be_bytes(*length));
            self.channel.check_length(length)?;
            let Some((record, tail)) = tail.split_at_checked(length) else { break };
            rest = tail;
            self.record(record)?;
        }
        let used = inbox.len() - rest.len();
        inbox.drain(..used);
        self.inbox = inbox;
        Ok(())
    }

    fn record(&mut self, record: &[u8]) -> Result<(), SspError> {
        let opened = self.channel.open(record, &mut self.clear)?;
        self.last_received = self.now;
        if let Opened::Handshake(reply) = opened {
            self.handshake_out.extend_from_slice(&reply);
            // Once and for all, so that no growth leaves clear bytes behind.
            reserve_wiped(&mut self.clear, CLEAR_BYTES_ROOM);
        }
        if self.channel.is_authenticated() && !self.established {
            self.established = true;
            self.events.push_back(SessionEvent::Established);
        }
        self.frames()
    }

    fn frames(&mut self) -> Result<(), SspError> {
        let clear = std::mem::take(&mut self.clear);
        let mut used = 0;
        while let Some((header, body, n)) = codec::take_frame(clear.get(used..).unwrap_or_default())? {
            used += n;
            self.stats.frames_received += 1;
            self.frame(header, body)?;
        }
        self.clear = clear;
        remove_front(&mut self.clear, used);
        Ok(())
    }

    fn frame(&mut self, header: FrameHeader, body: &[u8]) -> Result<(), SspError> {
        let want = if header.kind.is_numbered() { self.received + 1 } else { 0 };
        if header.seq != want {
            return Err(SspError::Sequence { want, got: header.seq });
        }
        if header.ack < self.acked || header.ack > self.sent {
            return Err(SspError::Acknowledgement { acked: self.acked, sent: self.sent, got: header.ack });
        }
        if header.ack > self.acked {
            self.acked = header.ack;
            self.events.push_back(SessionEvent::Acked(header.ack));
        }
        if !header.kind.is_numbered() {
            codec::decode(header.kind, body)?;
            return Ok(());
        }
        if (self.received == 0) != (header.kind == Kind::HELLO) {
            return Err(SspError::Hello);
        }
        if header.kind == Kind::HELLO {
            let (ours, theirs) = (self.versions, codec::hello_versions(body)?);
            self.stats.version = ours.common(theirs).ok_or(SspError::Version { ours, theirs })?;
        }
        self.received = header.seq;
        if self.received - self.promised > WINDOW_MESSAGES_MAX {
            return Err(SspError::Window);
        }
        match codec::decode(header.kind, body)? {
            Some(message) => self.events.push_back(SessionEvent::Message { seq: header.seq, message }),
            None => {
                // Nobody will apply it, so it is covered as soon as everything before it is.
                self.stats.unknown_skipped += 1;
                self.skipped.push_back(header.seq);
                self.promise(self.promised);
            }
        }
        Ok(())
    }

    /// Raises the promise to `seq`, and over skipped messages that follow it directly.
    fn promise(&mut self, seq: u64) {
        let before = self.promised;
        self.promised = seq;
        while let Some(&next) = self.skipped.front() {
            if next > self.promised + 1 {
                break;
            }
            self.promised = self.promised.max(next);
            self.skipped.pop_front();
        }
        self.ack_due |= self.promised > before;
    }
}

const fn frame_bytes(body: &[u8]) -> usize {
    FRAME_LENGTH_BYTES + codec::FRAME_FIXED_BYTES + body.len()
}

/// Makes room for `more` bytes; the old allocation is wiped when it is left.
fn reserve_wiped(buffer: &mut Zeroizing<Vec<u8>>, more: usize) {
    if buffer.capacity() - buffer.len() < more {
        let mut larger = Zeroizing::new(Vec::with_capacity((buffer.len() + more).max(2 * buffer.capacity())));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
}

/// Removes the first `n` bytes and wipes what the move leaves behind the end.
fn remove_front(buffer: &mut Zeroizing<Vec<u8>>, n: usize) {
    if n == 0 {
        return;
    }
    let left = buffer.len() - n;
    buffer.copy_within(n.., 0);
    if let Some(tail) = buffer.get_mut(left..) {
        tail.zeroize();
    }
    buffer.truncate(left);
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
