//! Round trips, limits and hostile input of the codec.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn client() -> impl Strategy<Value = Client> {
    prop_oneof![Just(Client::Ipsec), Just(Client::Ike)]
}

fn hello_strategy() -> impl Strategy<Value = Hello> {
    let role = prop_oneof![Just(Role::Init), Just(Role::Standby), Just(Role::Active)];
    let config = vec(("[ -~é]{0,40}", any::<[u8; 32]>()), 0..20);
    let interfaces = vec(("[a-z0-9]{0,15}", ip(), any::<[u8; 6]>()), 0..8);
    (".{0,40}", role, any::<u64>(), any::<bool>(), config, interfaces).prop_map(|(hostname, role, epoch, has_state, config, interfaces)| {
        Hello { hostname, role, epoch: Epoch(epoch), has_state, config, interfaces }
    })
}

fn counter_strategy() -> impl Strategy<Value = CounterUpdate> {
    (any::<u32>(), any::<[u64; 7]>()).prop_map(|(spi, n)| CounterUpdate {
        spi_in: Spi(spi),
        seq_in: n[0],
        seq_out: n[1],
        lease_hi: n[2],
        bytes_in: n[3],
        bytes_out: n[4],
        packets_in: n[5],
        packets_out: n[6],
    })
}

/// Any message that keeps its limits.
pub(in crate::ssp) fn message() -> impl Strategy<Value = Message> {
    let e = || any::<u64>().prop_map(Epoch);
    prop_oneof![
        hello_strategy().prop_map(Message::Hello),
        (e(), any::<bool>()).prop_map(|(epoch, ready)| Message::State { role: Role::Standby, epoch, ready }),
        (proptest::option::of(client()), proptest::option::of(ip())).prop_map(|(client, peer)| Message::ResyncRequest { client, peer }),
        (any::<u64>(), e()).prop_map(|(id, epoch)| Message::SnapshotBegin { id, epoch }),
        (any::<u64>(), any::<u64>()).prop_map(|(id, records)| Message::SnapshotEnd { id, records }),
        (client(), vec(any::<u8>(), 0..=KEY_BYTES_MAX), vec(any::<u8>(), 0..2000)).prop_map(|(client, key, body)| Message::Upsert {
            client,
            key,
            body
        }),
        (client(), vec(any::<u8>(), 0..=KEY_BYTES_MAX)).prop_map(|(client, key)| Message::Delete { client, key }),
        vec(counter_strategy(), 0..50).prop_map(Message::Counters),
        e().prop_map(|epoch| Message::HandoverPrepare { epoch }),
        (e(), ".{0,60}").prop_map(|(epoch, refused)| Message::HandoverArmed { epoch, refused }),
        e().prop_map(|epoch| Message::HandoverGo { epoch }),
        Just(Message::Ping),
        Just(Message::Ack),
    ]
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was(m in message()) {
        let body = encode(&m, Versions { min: 3, max: 9 }).unwrap();
        if matches!(m, Message::Hello(_)) {
            prop_assert_eq!(hello_versions(&body), Ok(Versions { min: 3, max: 9 }));
        }
        prop_assert_eq!(decode(kind(&m), &body), Ok(Some(m)));
    }

    #[test]
    fn a_cut_or_lengthened_body_is_refused(m in message(), cut in any::<prop::sample::Index>()) {
        let mut body = encode(&m, Versions::OURS).unwrap();
        if !body.is_empty() {
            prop_assert!(decode(kind(&m), &body[..cut.index(body.len())]).is_err());
        }
        body.push(0);
        prop_assert!(decode(kind(&m), &body).is_err());
    }

    #[test]
    fn garbage_never_panics(kind in 0u16..20, body in vec(any::<u8>(), 0..400)) {
        if let Ok(Some(m)) = decode(Kind(kind), &body) {
            let versions = hello_versions(&body).unwrap_or(Versions::OURS);
            prop_assert_eq!(encode(&m, versions).unwrap(), body, "one encoding per message");
        }
    }

    #[test]
    fn a_frame_comes_back_and_waits_for_its_last_byte(kind in any::<u16>(), seq in any::<u64>(), ack in any::<u64>(), body in vec(any::<u8>(), 0..300)) {
        let header = FrameHeader { kind: Kind(kind), seq, ack };
        let mut bytes = Vec::new();
        put_frame(&mut bytes, header, &body);
        for n in 0..bytes.len() {
            prop_assert_eq!(take_frame(&bytes[..n]), Ok(None));
        }
        let used = bytes.len();
        bytes.push(7);
        prop_assert_eq!(take_frame(&bytes), Ok(Some((header, &body[..], used))));
    }
}

#[test]
fn the_bytes_of_a_frame_are_as_documented() {
    let message = Message::State { role: Role::Active, epoch: Epoch(5), ready: true };
    let mut bytes = Vec::new();
    put_frame(&mut bytes, FrameHeader { kind: kind(&message), seq: 2, ack: 1 }, &encode(&message, Versions::OURS).unwrap());
    assert_eq!(bytes, hex_literal::hex!("0000001c 0002 0000000000000002 0000000000000001 03 0000000000000005 01"));
}

#[test]
fn a_length_beyond_the_limit_is_refused_at_once() {
    assert_eq!(take_frame(&(1u32 << 30).to_be_bytes()), Err(DecodeError::Length { field: "frame", got: 1 << 30 }));
    assert_eq!(
        take_frame(&((FRAME_BYTES_MAX + 1) as u32).to_be_bytes()),
        Err(DecodeError::Length { field: "frame", got: FRAME_BYTES_MAX + 1 })
    );
    assert_eq!(take_frame(&(FRAME_BYTES_MAX as u32).to_be_bytes()), Ok(None));
    assert_eq!(take_frame(&17u32.to_be_bytes()), Err(DecodeError::Length { field: "frame", got: 17 }));
}

#[test]
fn a_count_is_checked_against_the_bytes_there_are() {
    assert_eq!(decode(Kind::COUNTERS, &[0x0f, 0xff, 0, 0]), Err(DecodeError::Length { field: "counters", got: 0x0fff }));
    assert_eq!(decode(Kind::COUNTERS, &[0xff, 0xff]), Err(DecodeError::Length { field: "counters", got: 0xffff }));
}

#[test]
fn a_record_length_beyond_the_limit_is_refused() {
    let mut w = Writer::new();
    w.u8(1).bytes16(b"k").u32(u32::MAX);
    assert_eq!(decode(Kind::UPSERT, w.as_slice()), Err(DecodeError::Length { field: "record body", got: u32::MAX as usize }));
}

#[test]
fn the_largest_messages_fit_a_frame_and_larger_ones_are_refused() {
    let one =
        CounterUpdate { spi_in: Spi(1), seq_in: 1, seq_out: 2, lease_hi: 3, bytes_in: 4, bytes_out: 5, packets_in: 6, packets_out: 7 };
    assert!(encode(&Message::Counters(vec![one; COUNTERS_MAX]), Versions::OURS).is_ok());
    let e = encode(&Message::Counters(vec![one; COUNTERS_MAX + 1]), Versions::OURS).unwrap_err();
    assert_eq!(e, TooLarge { field: "counters", got: COUNTERS_MAX + 1, max: COUNTERS_MAX });
    let record = |n| Message::Upsert { client: Client::Ike, key: vec![0; KEY_BYTES_MAX], body: vec![0; n] };
    assert!(encode(&record(RECORD_BYTES_MAX), Versions::OURS).is_ok());
    assert!(encode(&record(RECORD_BYTES_MAX + 1), Versions::OURS).is_err());
    let long = Hello {
        hostname: String::new(),
        role: Role::Init,
        epoch: Epoch(0),
        has_state: false,
        config: vec![("x".repeat(NAME_BYTES_MAX), [0; 32]); CONFIG_ITEMS_MAX],
        interfaces: Vec::new(),
    };
    assert_eq!(encode(&Message::Hello(long), Versions::OURS).unwrap_err().field, "message");
}

#[test]
fn an_unknown_kind_is_not_an_error() {
    assert_eq!(decode(Kind(999), b"whatever"), Ok(None));
}

#[test]
fn values_without_a_meaning_are_refused() {
    assert_eq!(decode(Kind::STATE, &[9, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Err(DecodeError::Value { field: "role", got: 9 }));
    assert_eq!(decode(Kind::STATE, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 2]), Err(DecodeError::Value { field: "state ready", got: 2 }));
    assert_eq!(decode(Kind::DELETE, &[3, 0, 0]), Err(DecodeError::Value { field: "record client", got: 3 }));
    assert_eq!(decode(Kind::RESYNC_REQUEST, &[0, 5]), Err(DecodeError::Value { field: "resync peer", got: 5 }));
    let mut refused = vec![0; 8];
    refused.extend_from_slice(&[0, 1, 0xff]);
    assert_eq!(decode(Kind::HANDOVER_ARMED, &refused), Err(DecodeError::Value { field: "refusal", got: 0xff }));
}

#[test]
fn the_newest_common_version_is_taken() {
    let v = |min, max| Versions { min, max };
    assert_eq!(v(1, 3).common(v(2, 5)), Some(3));
    assert_eq!(v(2, 5).common(v(1, 3)), Some(3));
    assert_eq!(v(1, 1).common(v(1, 1)), Some(1));
    assert_eq!(v(1, 2).common(v(3, 4)), None);
    assert_eq!(v(4, 3).common(v(1, 9)), None, "an empty range has nothing in common with any");
}
