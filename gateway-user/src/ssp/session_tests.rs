//! Pairs of sessions in memory and in virtual time.

use super::super::codec::tests as codec_tests;
use super::super::message::{Client, Hello, Role};
use super::*;
use crate::id::Epoch;
use crate::ssp::channel::ChannelError;
use crate::ssp::secret::WeakSecret;
use crate::wire::DecodeError;
use proptest::collection::vec;
use proptest::prelude::*;

fn secret() -> Secret {
    Secret::new(b"9b1d0c7aa3e54f6288d5e1c0437fb962".to_vec())
}

fn hello() -> Message {
    Message::Hello(Hello {
        hostname: "gw-a".into(),
        role: Role::Standby,
        epoch: Epoch(3),
        has_state: false,
        config: Vec::new(),
        interfaces: Vec::new(),
    })
}

fn state(epoch: u64) -> Message {
    Message::State { role: Role::Active, epoch: Epoch(epoch), ready: true }
}

/// Two sessions and the events each was given. `ends[0]` is the initiator.
struct Pair {
    ends: [Session; 2],
    events: [Vec<SessionEvent>; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let end = |initiator, seed| Session::new(initiator, &secret(), [seed; 32], now).unwrap();
        Self { ends: [end(true, 1), end(false, 2)], events: [Vec::new(), Vec::new()], now }
    }

    /// Both established, hellos exchanged and acknowledged, events forgotten.
    fn ready() -> Self {
        let mut pair = Self::new();
        for end in 0..2 {
            assert_eq!(pair.send(end, hello()), Ok(1));
        }
        pair.run();
        for end in 0..2 {
            pair.ends[end].acknowledge(1, pair.now);
        }
        pair.run();
        assert_eq!(pair.events[0], [SessionEvent::Established, SessionEvent::Message { seq: 1, message: hello() }, SessionEvent::Acked(1)]);
        assert_eq!(pair.events[1], pair.events[0]);
        pair.events = [Vec::new(), Vec::new()];
        pair
    }

    fn send(&mut self, end: usize, message: Message) -> Result<u64, SspError> {
        self.ends[end].send(message, self.now)
    }

    fn drain(&mut self, end: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(bytes) = self.ends[end].poll_transmit() {
            out.extend_from_slice(&bytes);
        }
        out
    }

    /// Moves bytes until both are quiet.
    fn run(&mut self) {
        loop {
            let moved: Vec<_> = (0..2).map(|end| self.drain(end)).collect();
            for end in 0..2 {
                self.ends[end].handle_bytes(&moved[1 - end], self.now).unwrap();
                while let Some(event) = self.ends[end].poll_event() {
                    self.events[end].push(event);
                }
            }
            if moved.iter().all(Vec::is_empty) {
                return;
            }
        }
    }

    /// Seals clear bytes as `end` would, behind its session's back: what a broken or hostile partner that knows the secret could send.
    fn forge(&mut self, end: usize, clear: &[u8]) -> Result<(), SspError> {
        let mut record = Vec::new();
        self.ends[end].channel.seal(clear, &mut record).unwrap();
        self.ends[1 - end].handle_bytes(&record, self.now)
    }

    fn forge_frame(&mut self, end: usize, kind: Kind, seq: u64, ack: u64, body: &[u8]) -> Result<(), SspError> {
        let mut clear = Vec::new();
        codec::put_frame(&mut clear, FrameHeader { kind, seq, ack }, body);
        self.forge(end, &clear)
    }
}

#[test]
fn messages_arrive_in_order_and_are_acknowledged_only_by_their_owner() {
    let mut pair = Pair::ready();
    assert_eq!(pair.send(0, state(4)), Ok(2));
    assert_eq!(pair.send(0, state(5)), Ok(3));
    pair.run();
    assert_eq!(pair.events[1], [SessionEvent::Message { seq: 2, message: state(4) }, SessionEvent::Message { seq: 3, message: state(5) }]);
    assert_eq!((pair.ends[0].acked(), pair.ends[0].unacked()), (1, 2), "nothing is promised before it is applied");
    pair.ends[1].acknowledge(2, pair.now);
    pair.run();
    assert_eq!((pair.ends[0].acked(), pair.ends[0].unacked()), (2, 1));
    pair.ends[1].acknowledge(3, pair.now);
    pair.ends[1].acknowledge(2, pair.now);
    pair.run();
    assert_eq!(pair.events[0], [SessionEvent::Acked(2), SessionEvent::Acked(3)]);
    assert_eq!(pair.ends[0].unacked(), 0);
}

#[test]
fn an_acknowledgement_leaves_at_once_and_rides_on_other_frames() {
    let mut pair = Pair::ready();
    pair.send(0, state(4)).unwrap();
    pair.run();
    let frames = pair.ends[1].stats().frames_sent;
    pair.ends[1].acknowledge(2, pair.now);
    assert!(pair.ends[1].poll_transmit().is_some());
    assert!(pair.ends[1].poll_transmit().is_none());
    assert_eq!(pair.ends[1].stats().frames_sent, frames + 1);

    let mut pair = Pair::ready();
    pair.send(0, state(4)).unwrap();
    pair.run();
    pair.ends[1].acknowledge(2, pair.now);
    pair.send(1, state(9)).unwrap();
    let frames = pair.ends[1].stats().frames_sent;
    pair.run();
    assert_eq!(pair.ends[1].stats().frames_sent, frames + 1, "no frame of its own");
    assert_eq!(pair.ends[0].acked(), 2);
}

#[test]
fn acknowledging_what_never_came_promises_nothing() {
    let mut pair = Pair::ready();
    pair.ends[1].acknowledge(1000, pair.now);
    pair.run();
    assert_eq!(pair.ends[0].acked(), 1);
    pair.send(0, state(4)).unwrap();
    pair.run();
    assert_eq!(pair.ends[0].unacked(), 1);
}

#[test]
fn the_hello_comes_first_and_once() {
    let mut pair = Pair::new();
    assert_eq!(pair.send(0, state(1)), Err(SspError::Hello));
    assert_eq!(pair.send(0, hello()), Ok(1), "a refused message leaves the session as it was");
    assert_eq!(pair.send(0, hello()), Err(SspError::Hello));
    pair.run();
    let body = codec::encode(&state(1), Versions::OURS).unwrap();
    assert_eq!(pair.forge_frame(1, Kind::STATE, 1, 0, &body), Err(SspError::Hello));
    assert_eq!(pair.ends[0].handle_bytes(&[], pair.now), Err(SspError::Closed));
    let mut pair = Pair::ready();
    let body = codec::encode(&hello(), Versions::OURS).unwrap();
    assert_eq!(pair.forge_frame(1, Kind::HELLO, 2, 1, &body), Err(SspError::Hello));
}

#[test]
fn versions_without_overlap_end_the_session_and_newer_ones_are_negotiated_down() {
    let theirs = Versions { min: 7, max: 9 };
    let mut pair = Pair::new();
    pair.run();
    // The layout after the versions may be one we cannot read.
    assert_eq!(pair.forge_frame(1, Kind::HELLO, 1, 0, &[0, 7, 0, 9, 1, 2, 3]), Err(SspError::Version { ours: Versions::OURS, theirs }));
    let mut pair = Pair::new();
    pair.ends[1].versions = Versions { min: 1, max: 9 };
    for end in 0..2 {
        pair.send(end, hello()).unwrap();
    }
    pair.run();
    assert_eq!((pair.ends[0].stats().version, pair.ends[1].stats().version), (1, 1));
}

#[test]
fn a_kind_of_a_newer_version_is_skipped_counted_and_acknowledged_with_its_predecessors() {
    let mut pair = Pair::ready();
    pair.send(0, state(4)).unwrap();
    pair.run();
    pair.ends[0].sent = 5;
    for seq in 3..=4 {
        pair.forge_frame(0, Kind(900), seq, 1, b"news").unwrap();
    }
    let body = codec::encode(&state(5), Versions::OURS).unwrap();
    pair.forge_frame(0, Kind::STATE, 5, 1, &body).unwrap();
    pair.run();
    assert_eq!(pair.ends[1].stats().unknown_skipped, 2);
    assert_eq!(pair.ends[0].acked(), 1, "message 2 is not applied yet");
    pair.ends[1].acknowledge(2, pair.now);
    pair.run();
    assert_eq!(pair.ends[0].acked(), 4);
    pair.ends[1].acknowledge(5, pair.now);
    pair.run();
    assert_eq!(pair.ends[0].acked(), 5);
    pair.ends[0].sent = 6;
    pair.forge_frame(0, Kind(900), 6, 1, b"").unwrap();
    pair.run();
    assert_eq!(pair.ends[0].acked(), 6, "with nothing before it, at once");
}

#[test]
fn broken_frames_of_an_authenticated_partner_end_the_session() {
    let body = codec::encode(&state(1), Versions::OURS).unwrap();
    type Case<'a> = (&'a str, u16, u64, u64, &'a [u8]);
    let cases: [Case<'_>; 6] = [
        ("sequence", 2, 3, 1, &body),
        ("sequence", 2, 1, 1, &body),
        ("sequence", 12, 5, 1, b""),
        ("acknowledgement", 2, 2, 2, &body),
        ("acknowledgement", 2, 2, 0, &body),
        ("decode", 2, 2, 1, &body[1..]),
    ];
    for (label, kind, seq, ack, body) in cases {
        let mut pair = Pair::ready();
        assert_eq!(pair.forge_frame(0, Kind(kind), seq, ack, body).unwrap_err().label(), label);
        assert!(pair.ends[1].poll_transmit().is_none() && pair.ends[1].poll_timeout().is_none());
        assert_eq!(pair.send(1, state(1)), Err(SspError::Closed));
    }
    let mut pair = Pair::ready();
    let e = pair.forge(0, &(1u32 << 30).to_be_bytes()).unwrap_err();
    assert_eq!(e, SspError::Decode(DecodeError::Length { field: "frame", got: 1 << 30 }));
}

#[test]
fn another_secret_fails_at_the_first_message_and_learns_nothing() {
    let now = Instant::now();
    let mut stranger = Session::new(true, &Secret::new(b"another one 0123987".to_vec()), [1; 32], now).unwrap();
    let mut end = Session::new(false, &secret(), [2; 32], now).unwrap();
    end.send(hello(), now).unwrap();
    let first = stranger.poll_transmit().unwrap();
    assert_eq!(end.handle_bytes(&first, now), Err(SspError::Channel(ChannelError::Handshake)));
    assert!(end.poll_transmit().is_none() && end.poll_event().is_none());
}

#[test]
fn nothing_leaves_a_listener_before_its_partner_is_authenticated() {
    let mut pair = Pair::new();
    pair.send(1, hello()).unwrap();
    assert!(pair.ends[1].poll_transmit().is_none());
    let first = pair.drain(0);
    pair.ends[1].handle_bytes(&first, pair.now).unwrap();
    let answer = pair.drain(1);
    assert_eq!(answer.len(), 50, "the handshake's answer and nothing else: the first message may be a replay");
    assert!(pair.ends[1].poll_event().is_none());
    pair.ends[0].handle_bytes(&answer, pair.now).unwrap();
    let confirmation = pair.drain(0);
    pair.ends[1].handle_bytes(&confirmation, pair.now).unwrap();
    assert_eq!(pair.ends[1].poll_event(), Some(SessionEvent::Established));
    assert!(pair.ends[1].poll_transmit().is_some());
}

#[test]
fn a_recorded_session_cannot_be_replayed() {
    let mut pair = Pair::new();
    pair.send(0, hello()).unwrap();
    let mut recorded = pair.drain(0);
    pair.ends[1].handle_bytes(&recorded, pair.now).unwrap();
    let answer = pair.drain(1);
    pair.ends[0].handle_bytes(&answer, pair.now).unwrap();
    let more = pair.drain(0);
    recorded.extend_from_slice(&more);
    pair.ends[1].handle_bytes(&more, pair.now).unwrap();
    assert_eq!(pair.ends[1].poll_event(), Some(SessionEvent::Established));
    let mut fresh = Session::new(false, &secret(), [9; 32], pair.now).unwrap();
    assert_eq!(fresh.handle_bytes(&recorded, pair.now), Err(SspError::Channel(ChannelError::Record)));
    assert!(fresh.poll_event().is_none());
}

#[test]
fn weak_secrets_are_refused_before_a_byte_leaves() {
    let e = Session::new(true, &Secret::new(b"cisco".to_vec()), [1; 32], Instant::now()).unwrap_err();
    assert_eq!(e, SspError::WeakSecret(WeakSecret::Short(5)));
}

#[test]
fn the_queue_and_the_window_are_bounded() {
    let mut pair = Pair::ready();
    let record = Message::Upsert { client: Client::Ike, key: vec![1], body: vec![7; codec::RECORD_BYTES_MAX] };
    let mut taken = 0;
    let refusal = loop {
        match pair.send(0, record.clone()) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(refusal, SspError::Backlog);
    assert_eq!(taken, QUEUE_BYTES_MAX / (22 + 1 + 3 + 4 + codec::RECORD_BYTES_MAX));
    assert!(pair.ends[0].backlog_bytes() <= QUEUE_BYTES_MAX);
    pair.run();
    assert_eq!(pair.events[1].len(), taken, "all of them arrived");
    assert!(pair.send(0, record).is_ok(), "and there is room again");

    let mut pair = Pair::ready();
    for _ in 0..WINDOW_MESSAGES_MAX {
        pair.send(0, state(1)).unwrap();
    }
    assert_eq!(pair.send(0, state(1)), Err(SspError::Backlog));
    pair.run();
    assert_eq!(pair.send(0, state(1)), Err(SspError::Backlog), "sent, but not acknowledged");
    pair.ends[0].sent += 1;
    let body = codec::encode(&state(1), Versions::OURS).unwrap();
    let e = pair.forge_frame(0, Kind::STATE, WINDOW_MESSAGES_MAX + 2, 1, &body);
    assert_eq!(e, Err(SspError::Window), "the receiver enforces it too");
}

#[test]
fn too_large_a_message_is_refused_and_the_session_goes_on() {
    let mut pair = Pair::ready();
    let record = Message::Upsert { client: Client::Ike, key: vec![1], body: vec![7; codec::RECORD_BYTES_MAX + 1] };
    assert!(matches!(pair.send(0, record), Err(SspError::TooLarge(_))));
    assert_eq!(pair.send(0, state(2)), Ok(2));
    pair.run();
    assert_eq!(pair.events[1].len(), 1);
}

#[test]
fn a_quiet_session_lives_on_pings_and_a_silent_partner_is_dead() {
    let mut pair = Pair::ready();
    let timing = Timing::default();
    let start = pair.now;
    for _ in 0..100 {
        let (at, why) = pair.ends.iter().filter_map(Session::poll_timeout).min().unwrap();
        assert_eq!(why, "ssp keepalive");
        pair.now = at;
        for end in 0..2 {
            pair.ends[end].handle_timeout(at).unwrap();
        }
        pair.run();
    }
    assert_eq!(pair.now - start, timing.keepalive * 100);
    assert!(pair.events.iter().all(Vec::is_empty), "pings are nobody's business");
    // From here the partner is not heard any more.
    let heard = pair.now;
    let cause = loop {
        let (at, _) = pair.ends[0].poll_timeout().unwrap();
        if let Err(cause) = pair.ends[0].handle_timeout(at) {
            assert_eq!(at - heard, timing.dead_after);
            break cause;
        }
        pair.drain(0);
    };
    assert_eq!(cause, SspError::Dead(timing.dead_after));
    assert_eq!(pair.ends[0].poll_timeout(), None);
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    for initiator in [true, false] {
        let now = Instant::now();
        let mut end = Session::new(initiator, &secret(), [1; 32], now).unwrap();
        let (at, why) = end.poll_timeout().unwrap();
        assert_eq!((at - now, why), (Timing::default().handshake_max, "ssp handshake"));
        end.handle_timeout(at - Duration::from_millis(1)).unwrap();
        assert_eq!(end.handle_timeout(at), Err(SspError::HandshakeTimeout));
    }
}

#[test]
fn counters_count_the_stream() {
    let mut pair = Pair::ready();
    pair.send(0, state(1)).unwrap();
    pair.run();
    let [a, b] = [pair.ends[0].stats(), pair.ends[1].stats()];
    assert_eq!((a.bytes_sent, a.bytes_received), (b.bytes_received, b.bytes_sent));
    assert_eq!((a.frames_sent, a.frames_received), (b.frames_received, b.frames_sent));
    assert_eq!((a.version, a.unknown_skipped), (1, 0));
    assert!(a.frames_sent >= 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the portions the stream arrives in, both ends get every message, in order, once; the last acknowledgement covers all.
    #[test]
    fn random_portions_of_the_stream_lose_nothing(
        messages in vec((0usize..2, codec_tests::message()), 0..40),
        portions in vec(1usize..3000, 1..40),
    ) {
        let mut pair = Pair::new();
        let mut wire = [Vec::new(), Vec::new()];
        let mut expected = [vec![hello()], vec![hello()]];
        let mut got = [Vec::new(), Vec::new()];
        for end in 0..2 {
            pair.send(end, hello()).unwrap();
        }
        let mut messages = messages.into_iter();
        let mut portion = portions.iter().cycle();
        loop {
            if let Some((end, message)) = messages.next()
                && !matches!(message, Message::Hello(_))
            {
                if codec::kind(&message).is_numbered() {
                    expected[end].push(message.clone());
                }
                pair.send(end, message).unwrap();
            }
            let mut moved = false;
            for (end, wire) in wire.iter_mut().enumerate() {
                wire.extend_from_slice(&pair.drain(end));
            }
            for end in 0..2 {
                let n = wire[1 - end].len().min(*portion.next().unwrap());
                let bytes: Vec<u8> = wire[1 - end].drain(..n).collect();
                moved |= n > 0;
                pair.ends[end].handle_bytes(&bytes, pair.now).unwrap();
                while let Some(event) = pair.ends[end].poll_event() {
                    if let SessionEvent::Message { seq, message } = event {
                        got[end].push(message);
                        prop_assert_eq!(seq, got[end].len() as u64);
                        pair.ends[end].acknowledge(seq, pair.now);
                    }
                }
            }
            if !moved && messages.len() == 0 {
                break;
            }
        }
        for end in 0..2 {
            prop_assert_eq!(&got[end], &expected[1 - end]);
            prop_assert_eq!(pair.ends[end].unacked(), 0);
        }
    }

    /// One altered bit anywhere in the stream: an error, and nothing after it is delivered.
    #[test]
    fn an_altered_bit_ends_the_session(bit in any::<prop::sample::Index>(), when in 0usize..3) {
        let mut pair = Pair::new();
        pair.send(0, hello()).unwrap();
        pair.send(1, hello()).unwrap();
        let mut failed = false;
        for round in 0..3 {
            let mut moved: Vec<_> = (0..2).map(|end| pair.drain(end)).collect();
            let victim = if moved[0].is_empty() { 1 } else { 0 };
            if round == when && !moved[victim].is_empty() {
                let at = bit.index(moved[victim].len() * 8);
                moved[victim][at / 8] ^= 1 << (at % 8);
                let result = pair.ends[1 - victim].handle_bytes(&moved[victim], pair.now);
                // A longer length is a record that never completes: the dead timer ends it.
                if result.is_ok() {
                    let at = pair.now + Timing::default().dead_after;
                    prop_assert!(pair.ends[1 - victim].handle_timeout(at).is_err());
                }
                failed = true;
                break;
            }
            for end in 0..2 {
                pair.ends[end].handle_bytes(&moved[1 - end], pair.now).unwrap();
            }
        }
        prop_assert!(failed);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..300), initiator in any::<bool>()) {
        let now = Instant::now();
        let mut end = Session::new(initiator, &secret(), [1; 32], now).unwrap();
        let _refused_or_waiting = end.handle_bytes(&bytes, now);
        prop_assert!(end.poll_event().is_none());
    }

    /// Garbage from a partner that holds the secret.
    #[test]
    fn authenticated_garbage_never_panics(kind in 0u16..20, body in vec(any::<u8>(), 0..200)) {
        let mut pair = Pair::ready();
        let seq = if Kind(kind).is_numbered() { 2 } else { 0 };
        let _refused_or_taken = pair.forge_frame(0, Kind(kind), seq, 1, &body);
    }
}
