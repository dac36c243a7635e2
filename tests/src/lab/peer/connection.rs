//! What a remote peer is told, in words that both implementations' configurations are made from.

use super::Suite;
use crate::lab::topology::{PEER, PEER_IKE, PROTECTED, VIP_OUT};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Seconds of silence after which the peer asks whether we live. Any message resets the clock, so the other end has to be slower.
pub const DPD_DELAY_S: u64 = 2;

/// Protocol of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// IKEv1, main mode.
    Main,
    /// IKEv1, aggressive mode.
    Aggressive,
    /// IKEv2.
    V2,
}

/// How both ends prove who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Pre-shared key.
    Psk(String),
    /// Certificates: PEM files of the authority, of the peer, and of its key; and the same as PKCS#12 for an NSS data base.
    Certificate {
        /// Authority.
        ca: PathBuf,
        /// The peer's certificate.
        cert: PathBuf,
        /// The peer's key.
        key: PathBuf,
        /// All of it, without a password (`openssl pkcs12`).
        pkcs12: PathBuf,
    },
}

/// One pair of networks of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Name; unique in the peer's whole configuration.
    pub name: String,
    /// Networks behind the peer (`192.168.4.0/24`, `192.168.4.0/24[tcp/80]`).
    pub own: String,
    /// Networks behind the gateway.
    pub other: String,
    /// Transforms in strongSwan's words (`aes256-sha256-modp2048`), several with commas.
    pub esp: String,
    /// Transport mode.
    pub transport: bool,
}

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Name.
    pub name: String,
    /// Protocol.
    pub version: Version,
    /// The peer's end.
    pub local: Ipv4Addr,
    /// The gateway's end.
    pub remote: Ipv4Addr,
    /// Identities where they are not the addresses: the peer's, the gateway's.
    pub ids: Option<(String, String)>,
    /// Proposals in strongSwan's words (`aes256-sha256-modp2048`), several with commas.
    pub ike: String,
    /// Proof of identity.
    pub auth: Auth,
    /// Silence before it asks whether the other end lives, seconds; 0 = never.
    pub dpd_s: u64,
    /// Its pairs of networks.
    pub children: Vec<Child>,
    /// Replay window, packets; `None` = the implementation's own.
    pub replay_window: Option<u32>,
    /// Lifetime of its ISAKMP or IKE SA, seconds; `None` = the implementation's own.
    pub ike_life_s: Option<u64>,
    /// Lines added to strongSwan's connection, and to its children.
    pub swan: (String, String),
    /// Lines added to libreswan's connections.
    pub libre: String,
}

/// Everything a peer is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Namespace.
    pub ns: &'static str,
    /// Connections.
    pub connections: Vec<Connection>,
    /// True when messages are repeated after a fraction of a second instead of seconds.
    pub hurry: bool,
    /// Lines added to strongSwan's daemon's own settings.
    pub swan_daemon: String,
}

impl Connection {
    /// IKEv1, main mode, between the lab's tunnel ends, with the key `psk`; one child `net`.
    pub fn new(ike: &str, esp: &str, psk: &str) -> Self {
        Self {
            name: "gw".into(),
            version: Version::Main,
            local: PEER_IKE.ip(),
            remote: VIP_OUT.ip(),
            ids: None,
            ike: ike.into(),
            auth: Auth::Psk(psk.into()),
            dpd_s: DPD_DELAY_S,
            children: vec![Child {
                name: "net".into(),
                own: PROTECTED.to_string(),
                other: "0.0.0.0/0".into(),
                esp: esp.into(),
                transport: false,
            }],
            replay_window: None,
            ike_life_s: None,
            swan: (String::new(), String::new()),
            libre: String::new(),
        }
    }

    /// Identities: the peer's, the gateway's.
    pub(super) fn identities(&self) -> (String, String) {
        self.ids.clone().unwrap_or_else(|| (self.local.to_string(), self.remote.to_string()))
    }
}

impl Settings {
    /// The lab's remote peer.
    pub fn peer(suite: Suite, psk: &str) -> Self {
        Self::of(Connection::new(suite.ike(), suite.esp(), psk))
    }

    /// A peer in its place with one connection.
    pub fn of(connection: Connection) -> Self {
        Self { ns: PEER, connections: vec![connection], hurry: false, swan_daemon: String::new() }
    }
}
