//! Targets of the decoders.

use gateway_common::classify::{Direction, parse};
use gateway_user::config;
use gateway_user::crypto::{CipherAlg, IntegAlg, Secret};
use gateway_user::hsrp::{self, Opcode, State, packet::Packet};
use gateway_user::id::{Epoch, IkeSaId, IkeVersion, PolicyDigest, Spi};
use gateway_user::ike::v1::message;
use gateway_user::sad::{ChildRecord, ChildSa, ChildStage, Counters, Encap, EspKeys, Lifetime, Mode, Selector};
use gateway_user::ssp::{self, Client, CounterUpdate, Hello, Message, Role, Versions, codec};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Header, payload chain, and every payload's own decoder.
pub fn ikev1_message(bytes: &[u8]) {
    let Ok(header) = message::Header::decode(bytes) else { return };
    let body = bytes.get(message::HEADER_LEN..).unwrap_or_default();
    for padded in [true, false] {
        let first = header.next;
        let decoded = if padded { message::Payloads::decode(first, body) } else { message::Payloads::decode_clear(first, body) };
        let Ok(payloads) = decoded else { continue };
        for payload in payloads.items() {
            if let Ok(sa) = message::SaPayload::decode(payload.body) {
                assert_eq!(message::SaPayload::decode(&sa.encode()).as_ref(), Ok(&sa), "an SA payload that does not survive");
            }
            if let Ok(id) = message::Id::decode(payload.body) {
                assert_eq!(message::Id::decode(&id.encode()).as_ref(), Ok(&id), "an identity that does not survive");
                let _ = (id.selector(), id.text());
            }
            if let Ok(notify) = message::Notify::decode(payload.body) {
                assert_eq!(message::Notify::decode(&notify.encode()).as_ref(), Ok(&notify), "a notification that does not survive");
            }
            if let Ok(delete) = message::Delete::decode(payload.body) {
                assert_eq!(message::Delete::decode(&delete.encode()).as_ref(), Ok(&delete), "a Delete that does not survive");
            }
        }
    }
}

/// A pair as the standby gets it.
pub fn child_record(bytes: &[u8]) {
    if let Ok(record) = ChildRecord::decode(bytes) {
        assert_eq!(ChildRecord::decode(&record.encode()).as_ref(), Ok(&record), "a record that does not survive");
    }
    let _ = ChildRecord::parse_key(bytes);
}

/// Valid records of pairs.
pub fn child_records() -> Vec<Vec<u8>> {
    let keys = |encr: usize, integ: usize| EspKeys { encr: Secret::new(vec![7; encr]), integ: Secret::new(vec![9; integ]) };
    let child = ChildSa {
        spi_in: Spi(0x8010_0001),
        spi_out: Spi(0xc001_cafe),
        isakmp: IkeSaId { initiator: [1; 8], responder: [2; 8] },
        map: "CMAP_1".into(),
        map_seq: 1,
        ace: 0,
        digest: PolicyDigest([7; 32]),
        local: Ipv4Addr::new(40, 0, 0, 1).into(),
        peer: Ipv4Addr::new(192, 168, 3, 1).into(),
        ts_local: Selector::ANY4,
        ts_remote: Selector::net4(Ipv4Addr::new(192, 168, 4, 0), 24),
        mode: Mode::Tunnel,
        encr: CipherAlg::Aes256,
        integ: Some(IntegAlg::HmacSha256),
        keys_in: keys(32, 32),
        keys_out: keys(32, 32),
        pfs: None,
        lifetime: Lifetime { seconds: 3600, kilobytes: 4_608_000 },
        soft: Lifetime { seconds: 3000, kilobytes: 4_000_000 },
        replay_window: 1024,
        initiator: true,
        version: IkeVersion::V1,
        esn: false,
        encap: None,
    };
    let combined = ChildSa {
        encr: CipherAlg::ChaCha20Poly1305,
        integ: None,
        keys_in: keys(36, 0),
        keys_out: keys(36, 0),
        version: IkeVersion::V2,
        esn: true,
        encap: Some(Encap { local_port: 4500, peer_port: 61000 }),
        mode: Mode::Transport,
        ..child.clone()
    };
    [(child, ChildStage::Live), (combined, ChildStage::Pending)]
        .into_iter()
        .map(|(child, stage)| {
            ChildRecord { child, stage, age: Duration::from_secs(7), counters: Counters::default(), lease_hi: 1 << 33 }.encode()
        })
        .collect()
}

/// What a partner that holds the secret may send: frames of the plain stream, and every body under every kind.
pub fn ssp_stream(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((header, body, used))) = codec::take_frame(rest) {
        assert!(used > 0 && used <= rest.len(), "a frame of {used} bytes out of {}", rest.len());
        let _ = codec::hello_versions(body);
        if let Ok(Some(message)) = codec::decode(header.kind, body) {
            // The limits of the encoder are those of the decoder.
            let again = codec::encode(&message, Versions::OURS);
            assert!(again.is_ok(), "accepted, and too large to send: {message:?}");
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    // And what a stranger may send: the same bytes before the handshake.
    let secret = Secret::new(b"a secret of the pair, long enough".to_vec());
    let now = Instant::now();
    for initiator in [true, false] {
        let Ok(mut session) = ssp::Session::new(initiator, &secret, [3; 32], now) else { continue };
        let _ = session.handle_bytes(bytes, now);
        while session.poll_transmit().is_some() {}
        while session.poll_event().is_some() {}
        assert!(!session.is_established(), "established without the secret");
    }
}

/// A stream with every message.
pub fn ssp_streams() -> Vec<Vec<u8>> {
    let hello = Hello {
        hostname: "gw-a".into(),
        role: Role::Standby,
        epoch: Epoch(7),
        has_state: true,
        config: vec![("crypto map CMAP_1 1".into(), [5; 32])],
        interfaces: vec![("outside".into(), Ipv4Addr::new(40, 0, 0, 100).into(), [2, 0, 0, 0, 0, 1])],
    };
    let counters = CounterUpdate {
        spi_in: Spi(0x8010_0001),
        seq_in: 1,
        seq_out: 2,
        lease_hi: 3,
        bytes_in: 4,
        bytes_out: 5,
        packets_in: 6,
        packets_out: 7,
    };
    let messages = [
        Message::Hello(hello),
        Message::State { role: Role::Active, epoch: Epoch(8), ready: true },
        Message::ResyncRequest { client: Some(Client::Ike), peer: Some(Ipv4Addr::new(192, 168, 3, 1).into()) },
        Message::SnapshotBegin { id: 1, epoch: Epoch(8) },
        Message::Upsert { client: Client::Ipsec, key: vec![1, 2, 3, 4], body: child_records().remove(0) },
        Message::SnapshotEnd { id: 1, records: 1 },
        Message::Delete { client: Client::Ipsec, key: vec![1, 2, 3, 4] },
        Message::Counters(vec![counters]),
        Message::HandoverPrepare { epoch: Epoch(9) },
        Message::HandoverArmed { epoch: Epoch(9), refused: "not ready".into() },
        Message::HandoverGo { epoch: Epoch(9) },
        Message::Ping,
        Message::Ack,
    ];
    let mut whole = Vec::new();
    let mut each = Vec::new();
    for (seq, message) in messages.iter().enumerate() {
        let Ok(body) = codec::encode(message, Versions::OURS) else { continue };
        let header = codec::FrameHeader { kind: codec::kind(message), seq: seq as u64 + 1, ack: 0 };
        codec::put_frame(&mut whole, header, &body);
        let mut one = Vec::new();
        codec::put_frame(&mut one, header, &body);
        each.push(one);
    }
    each.push(whole);
    each
}

fn group() -> hsrp::GroupConfig {
    hsrp::GroupConfig {
        group: 2,
        name: "ISP".into(),
        vip: Ipv4Addr::new(40, 0, 0, 1),
        address: Ipv4Addr::new(40, 0, 0, 100),
        priority: 100,
        hello: Duration::from_millis(500),
        hold: Duration::from_secs(3),
        preempt: true,
        authentication: *b"cisco\0\0\0",
        delay_minimum: Duration::ZERO,
        delay_reload: Duration::ZERO,
    }
}

/// The decoder, and a group that is given the packet as from its LAN.
pub fn hsrp_packet(bytes: &[u8]) {
    let _ = hsrp::packet::decode(bytes);
    let now = Instant::now();
    let mut g = hsrp::Group::new(group(), now);
    g.handle_interface(true, Duration::ZERO, now);
    g.set_eligible(true, now);
    let source = Ipv4Addr::new(40, 0, 0, 6);
    for ttl in [hsrp::TTL, 64] {
        let _ = g.handle_packet(source, ttl, hsrp::MULTICAST, bytes, now);
        while g.poll_event().is_some() {}
        while g.poll_transmit().is_some() {}
    }
    assert!(g.state() != State::Active, "active without a decision of this node");
    assert!(g.poll_timeout().is_some(), "no timer while the interface is up");
}

/// Valid packets.
pub fn hsrp_packets() -> Vec<Vec<u8>> {
    let all =
        [(Opcode::Hello, State::Active), (Opcode::Hello, State::Standby), (Opcode::Coup, State::Speak), (Opcode::Resign, State::Initial)];
    all.into_iter().map(|(opcode, state)| Packet::of(&group(), opcode, state).encode()).collect()
}

/// Text of a manifest: an error names a line that is there.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut secrets = |_: &std::path::Path| -> io::Result<Vec<u8>> { Ok(b"uGhGkqWvPz41xTj7N2ab".to_vec()) };
    if let Err(errors) = config::parse(text, "fuzz.yaml", &mut secrets) {
        assert!(!errors.is_empty(), "refused without a word");
        // A carriage return alone ends a line in YAML, too; the end of the text is on the line after the last.
        let lines = text.matches(['\n', '\r']).count() + 2;
        for e in errors {
            assert!(e.line <= lines, "line {} of {lines}: {e}", e.line);
        }
    }
}

/// The examples.
pub fn manifests() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../../config/gateway.example.yaml").to_vec(),
        b"hostname: gw-1\ninterfaces:\n  inside: { device: eth0, address: 172.16.31.100/24 }\n".to_vec(),
    ]
}

/// The classifier that the eBPF programs run, on a frame of any length, in both directions.
pub fn classify(bytes: &[u8]) {
    for direction in [Direction::In, Direction::Out] {
        let _ = parse(&bytes, direction);
    }
}

/// Frames of the kinds it tells apart.
pub fn frames() -> Vec<Vec<u8>> {
    let ethernet = |kind: u16| {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        f.extend(kind.to_be_bytes());
        f
    };
    let ip = |proto: u8, body: &[u8]| {
        let mut p = vec![0x45, 0];
        p.extend((20 + body.len() as u16).to_be_bytes());
        p.extend([0, 1, 0, 0, 64, proto, 0, 0, 192, 168, 3, 1, 40, 0, 0, 1]);
        p.extend(body);
        p
    };
    let udp = |port: u16, body: &[u8]| {
        let mut u = Vec::new();
        u.extend(port.to_be_bytes());
        u.extend(port.to_be_bytes());
        u.extend((8 + body.len() as u16).to_be_bytes());
        u.extend([0, 0]);
        u.extend(body);
        u
    };
    let esp = [0x80, 0x10, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
    let packets = [
        ip(50, &esp),
        ip(51, &esp),
        ip(17, &udp(500, &[7; 28])),
        ip(17, &udp(4500, &[0; 32])),
        ip(17, &udp(4500, &esp)),
        ip(17, &udp(4500, &[0xff])),
        ip(17, &udp(1985, &[0; 20])),
        ip(6, &[0; 20]),
    ];
    let mut out: Vec<Vec<u8>> = packets.iter().map(|p| [ethernet(0x0800), p.clone()].concat()).collect();
    for p in &packets[..2] {
        out.push([ethernet(0x8100), vec![0, 5, 8, 0], p.clone()].concat());
        out.push([ethernet(0x88a8), vec![0, 5, 0x81, 0, 0, 6, 8, 0], p.clone()].concat());
    }
    out.push([ethernet(0x86dd), vec![0x60, 0, 0, 0, 0, 16, 50, 64], vec![0xfd; 32], esp.to_vec()].concat());
    out.push([ethernet(0x0806), vec![0; 28]].concat());
    out
}
