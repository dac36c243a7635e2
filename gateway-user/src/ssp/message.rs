//! What the two nodes say to each other. The codec is in `codec`, the session (versions, acknowledgement, flow control) in `session`.

use crate::id::{Epoch, Spi};
use serde::Serialize;
use std::fmt;
use std::net::IpAddr;

/// TCP port, the guide's default.
pub const DEFAULT_PORT: u16 = 3249;

/// SSP client, the guide's DOI column.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize)]
pub enum Client {
    /// DOI 1: IPSec HA Manager.
    Ipsec,
    /// DOI 2: IKE HA Manager.
    Ike,
}

/// Role of a node as its partner hears it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize)]
pub enum Role {
    /// Starting, or not allowed to take part.
    Init,
    /// Mute, mirrors.
    Standby,
    /// Owns the VIPs.
    Active,
}

/// First message in each direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Host name.
    pub hostname: String,
    /// Role now.
    pub role: Role,
    /// Highest epoch this node knows.
    pub epoch: Epoch,
    /// True when this node holds the mirrored state of `epoch` (a complete snapshot, or its own).
    pub has_state: bool,
    /// Configuration items and their digests, in order of their names.
    pub config: Vec<(String, [u8; 32])>,
    /// IPv4 address and MAC address of each interface, by interface name: where strays are redirected to.
    pub interfaces: Vec<(String, IpAddr, [u8; 6])>,
}

/// Counters of one SA pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterUpdate {
    /// Inbound SPI: names the pair.
    pub spi_in: Spi,
    /// Highest verified inbound sequence number.
    pub seq_in: u64,
    /// Outbound sequence number last used.
    pub seq_out: u64,
    /// Outbound numbers up to and including this one are reserved for the active.
    pub lease_hi: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
}

/// A message. Every one travels inside a frame with a sequence number and a cumulative acknowledgement of the other direction.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// First message.
    Hello(Hello),
    /// Role or epoch changed.
    State {
        /// Role now.
        role: Role,
        /// Epoch now.
        epoch: Epoch,
        /// True when this node could take over at once.
        ready: bool,
    },
    /// Please send a snapshot (of one peer only, if named).
    ResyncRequest {
        /// Which client's state, or both.
        client: Option<Client>,
        /// Only this peer's.
        peer: Option<IpAddr>,
    },
    /// Records up to the matching end replace everything held.
    SnapshotBegin {
        /// Number of the snapshot.
        id: u64,
        /// Epoch of the state.
        epoch: Epoch,
    },
    /// The snapshot is complete.
    SnapshotEnd {
        /// Number of the snapshot.
        id: u64,
        /// How many `Upsert`s it held.
        records: u64,
    },
    /// Add or replace a record.
    Upsert {
        /// Whose record.
        client: Client,
        /// Its key.
        key: Vec<u8>,
        /// Its body, in the client's own versioned encoding.
        body: Vec<u8>,
    },
    /// Remove a record.
    Delete {
        /// Whose record.
        client: Client,
        /// Its key.
        key: Vec<u8>,
    },
    /// Replay counters and sequence leases. The acknowledgement of this message is the grant of its leases.
    Counters(Vec<CounterUpdate>),
    /// Planned hand-over, active to standby: be ready to forward under this epoch.
    HandoverPrepare {
        /// The epoch the standby will own.
        epoch: Epoch,
    },
    /// Standby to active: armed (`true`), or refused with a reason.
    HandoverArmed {
        /// The epoch.
        epoch: Epoch,
        /// Empty when armed; else the reason.
        refused: String,
    },
    /// Active to standby: I forward nothing any more; final counters came before this.
    HandoverGo {
        /// The epoch.
        epoch: Epoch,
    },
    /// Keepalive when there is nothing else to say.
    Ping,
    /// Acknowledges without other content.
    Ack,
}

/// Record bodies carry keys: only their length is ever printed.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => hello.fmt(f),
            Self::State { role, epoch, ready } => write!(f, "State({role:?}, epoch {epoch}, ready {ready})"),
            Self::ResyncRequest { client, peer } => write!(f, "ResyncRequest({client:?}, {peer:?})"),
            Self::SnapshotBegin { id, epoch } => write!(f, "SnapshotBegin({id}, epoch {epoch})"),
            Self::SnapshotEnd { id, records } => write!(f, "SnapshotEnd({id}, {records} records)"),
            Self::Upsert { client, key, body } => write!(f, "Upsert({client:?}, {key:02x?}, {} bytes)", body.len()),
            Self::Delete { client, key } => write!(f, "Delete({client:?}, {key:02x?})"),
            Self::Counters(updates) => f.debug_tuple("Counters").field(updates).finish(),
            Self::HandoverPrepare { epoch } => write!(f, "HandoverPrepare(epoch {epoch})"),
            Self::HandoverArmed { epoch, refused } => write!(f, "HandoverArmed(epoch {epoch}, refused {refused:?})"),
            Self::HandoverGo { epoch } => write!(f, "HandoverGo(epoch {epoch})"),
            Self::Ping => f.write_str("Ping"),
            Self::Ack => f.write_str("Ack"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_body_is_never_printed() {
        let message = Message::Upsert { client: Client::Ike, key: vec![1], body: b"key material".to_vec() };
        assert_eq!(format!("{message:?}"), "Upsert(Ike, [01], 12 bytes)");
    }
}
