//! The packet of version 1, UDP payload to and from port 1985 (RFC 2281 5.1).

use super::{GroupConfig, State};
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Length of a Hello, Coup or Resign in bytes.
pub const LEN: usize = 20;
/// Version field of HSRP version 1.
const VERSION: u8 = 0;

/// What a packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Opcode {
    /// The sender runs and can become or is active or standby.
    Hello,
    /// The sender wishes to become active.
    Coup,
    /// The sender no longer wishes to be active.
    Resign,
    /// Cisco's interface advertisement, not in the RFC: recognised and ignored.
    Advertise,
}

impl Opcode {
    /// Value on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Hello => 0,
            Self::Coup => 1,
            Self::Resign => 2,
            Self::Advertise => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Hello,
            1 => Self::Coup,
            2 => Self::Resign,
            3 => Self::Advertise,
            _ => return None,
        })
    }
}

/// Value of a state on the wire.
pub const fn state_code(state: State) -> u8 {
    match state {
        State::Initial => 0,
        State::Learn => 1,
        State::Listen => 2,
        State::Speak => 4,
        State::Standby => 8,
        State::Active => 16,
    }
}

const fn state_from_code(code: u8) -> Option<State> {
    Some(match code {
        0 => State::Initial,
        1 => State::Learn,
        2 => State::Listen,
        4 => State::Speak,
        8 => State::Standby,
        16 => State::Active,
        _ => return None,
    })
}

/// A Hello, Coup or Resign.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |    Version    |    Op Code    |     State     |   Hellotime   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |    Holdtime   |   Priority    |     Group     |   Reserved    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                      Authentication Data                      |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                      Virtual IP Address                       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// What the packet says; never [`Opcode::Advertise`].
    pub opcode: Opcode,
    /// State of the sender.
    pub state: State,
    /// Time between the sender's hellos in seconds.
    pub hellotime: u8,
    /// How long a hello is valid in seconds.
    pub holdtime: u8,
    /// Priority of the sender.
    pub priority: u8,
    /// Group number.
    pub group: u8,
    /// Clear-text password.
    pub authentication: [u8; 8],
    /// Virtual address of the group.
    pub vip: Ipv4Addr,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password: it travels in clear, but a log travels further.
        f.debug_struct("Packet")
            .field("opcode", &self.opcode)
            .field("state", &self.state)
            .field("hellotime", &self.hellotime)
            .field("holdtime", &self.holdtime)
            .field("priority", &self.priority)
            .field("group", &self.group)
            .field("vip", &self.vip)
            .finish_non_exhaustive()
    }
}

/// A packet as received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// One of the RFC's three.
    Packet(Packet),
    /// An Advertise, whose content is not read.
    Advertise,
}

impl Packet {
    /// The packet that `config` makes its group send.
    pub fn of(config: &GroupConfig, opcode: Opcode, state: State) -> Self {
        Self {
            opcode,
            state,
            hellotime: seconds(config.hello),
            holdtime: seconds(config.hold),
            priority: config.priority,
            group: config.group,
            authentication: config.authentication,
            vip: config.vip,
        }
    }

    /// The UDP payload, [`LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION)
            .u8(self.opcode.code())
            .u8(state_code(self.state))
            .u8(self.hellotime)
            .u8(self.holdtime)
            .u8(self.priority)
            .u8(self.group)
            .u8(0)
            .bytes(&self.authentication)
            .bytes(&self.vip.octets());
        w.into_vec()
    }
}

/// Reads a UDP payload.
///
/// # Errors
/// The field that is wrong: `version`, `opcode` or `state` with an unknown value, anything truncated, bytes after the end.
pub fn decode(payload: &[u8]) -> Decode<Received> {
    let mut r = Reader::new(payload);
    let version = r.u8("version")?;
    if version != VERSION {
        return Err(DecodeError::Value { field: "version", got: version.into() });
    }
    let code = r.u8("opcode")?;
    let opcode = Opcode::from_code(code).ok_or(DecodeError::Value { field: "opcode", got: code.into() })?;
    if opcode == Opcode::Advertise {
        return Ok(Received::Advertise);
    }
    let code = r.u8("state")?;
    let state = state_from_code(code).ok_or(DecodeError::Value { field: "state", got: code.into() })?;
    let (hellotime, holdtime) = (r.u8("hellotime")?, r.u8("holdtime")?);
    let (priority, group) = (r.u8("priority")?, r.u8("group")?);
    // Reserved: sent as zero, not looked at.
    r.u8("reserved")?;
    let authentication = r.array("authentication")?;
    let vip = Ipv4Addr::from(r.array::<4>("virtual address")?);
    r.finish("packet")?;
    Ok(Received::Packet(Packet { opcode, state, hellotime, holdtime, priority, group, authentication, vip }))
}

/// Whole seconds for the wire: rounded up, so that nobody takes us for dead too early; at least 1, since 0 would mean "no time".
fn seconds(time: Duration) -> u8 {
    time.as_millis().div_ceil(1000).clamp(1, u8::MAX.into()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;
    use proptest::prelude::*;

    /// A Hello of an active router with priority 200, group 1, timers 3 and 10, password `cisco`, 192.168.0.1.
    const HELLO: [u8; LEN] = hex!("00 00 10 03 0a c8 01 00 63 69 73 63 6f 00 00 00 c0 a8 00 01");

    fn hello() -> Packet {
        Packet {
            opcode: Opcode::Hello,
            state: State::Active,
            hellotime: 3,
            holdtime: 10,
            priority: 200,
            group: 1,
            authentication: *b"cisco\0\0\0",
            vip: Ipv4Addr::new(192, 168, 0, 1),
        }
    }

    #[test]
    fn bytes_and_structure_are_the_same_thing() {
        assert_eq!(hello().encode(), HELLO);
        assert_eq!(decode(&HELLO), Ok(Received::Packet(hello())));
    }

    #[test]
    fn every_shorter_packet_is_truncated() {
        for len in 0..LEN {
            assert!(matches!(decode(&HELLO[..len]), Err(DecodeError::Truncated { .. })), "{len} bytes");
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let long = [&HELLO[..], &[0]].concat();
        assert_eq!(decode(&long), Err(DecodeError::Trailing { field: "packet", got: 1 }));
    }

    #[test]
    fn unknown_version_opcode_and_state_are_refused_by_name() {
        let with = |at: usize, value: u8| {
            let mut bytes = HELLO;
            bytes[at] = value;
            decode(&bytes)
        };
        for (at, field) in [(0, "version"), (1, "opcode"), (2, "state")] {
            assert_eq!(with(at, 7), Err(DecodeError::Value { field, got: 7 }));
        }
        assert_eq!(with(2, 3), Err(DecodeError::Value { field: "state", got: 3 }));
        assert!(with(7, 9).is_ok(), "the reserved byte is not looked at");
    }

    #[test]
    fn an_advertisement_is_recognised_by_its_first_two_bytes() {
        assert_eq!(decode(&hex!("00 03 00 01 00 0a 01 00 00 00 00 00 00 00 00 00")), Ok(Received::Advertise));
    }

    #[test]
    fn milliseconds_are_rounded_up_to_whole_seconds() {
        let cases = [(0, 1), (1, 1), (100, 1), (1000, 1), (1001, 2), (3000, 3), (255_000, 255), (255_001, 255), (9_999_999, 255)];
        for (ms, want) in cases {
            assert_eq!(seconds(Duration::from_millis(ms)), want, "{ms} ms");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        assert!(!format!("{:?}", hello()).contains("99, 105"));
        assert!(!format!("{:?}", hello()).contains("cisco"));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(mut bytes in any::<[u8; LEN]>(), opcode in 0u8..3, state in 0usize..6) {
            (bytes[0], bytes[1], bytes[2], bytes[7]) = (0, opcode, [0, 1, 2, 4, 8, 16][state], 0);
            let Received::Packet(packet) = decode(&bytes).unwrap() else { panic!("not an advertisement") };
            prop_assert_eq!(packet.encode(), bytes);
        }
    }
}
