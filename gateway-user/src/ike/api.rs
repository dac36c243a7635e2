//! Values that enter and leave the engine.

use super::policy::AuthMethod;
use crate::crypto::{CipherAlg, DhGroup, IntegAlg, PrfAlg};
use crate::id::{Identity, IkeSaId, IkeVersion, Spi};
use crate::rng::Random;
use crate::sad::{ChildSa, Encap, Selector};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// Gives inbound SPIs that no pair of the two nodes uses.
pub trait SpiSource: Send {
    /// A free SPI above 255; `None` when the table is full. Given back by [`IkeCommand::ReleaseSpi`] or [`IkeCommand::RemoveChild`].
    fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi>;
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Source: a VIP and UDP 500 or 4500.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// UDP payload (with the non-ESP marker where port 4500 wants it).
    pub payload: Vec<u8>,
}

/// Work for the kernel, carried out by the daemon through `sad`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IkeCommand {
    /// Install the inbound half (the responder, before it answers; nothing may be sent yet).
    InstallInbound(Box<ChildSa>),
    /// Install whatever of the pair is not installed yet; outbound traffic uses it from now on.
    InstallChild(Box<ChildSa>),
    /// Remove both halves.
    RemoveChild(Spi),
    /// Stop sending on this pair but go on receiving (the old pair of a rekey).
    RetireOutbound(Spi),
    /// The peer's address or its NAT's mapping changed, proven by an authenticated packet.
    MoveChild {
        /// Inbound SPI of the pair.
        spi_in: Spi,
        /// The peer's new address.
        peer: IpAddr,
        /// Encapsulation with the new port.
        encap: Option<Encap>,
    },
    /// An inbound SPI that was allocated and not used.
    ReleaseSpi(Spi),
}

/// What the standby must know. Bodies are the engine's own versioned encoding; SSP carries them unread.
#[derive(Clone, PartialEq, Eq)]
pub enum IkeRecord {
    /// The whole state of one established ISAKMP SA, replacing what was known under its cookies.
    Upsert {
        /// Cookies.
        id: IkeSaId,
        /// Encoded state.
        body: Vec<u8>,
    },
    /// The ISAKMP SA is gone.
    Delete {
        /// Cookies.
        id: IkeSaId,
    },
}

/// Bodies hold keys: never printed.
impl std::fmt::Debug for IkeRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upsert { id, body } => write!(f, "Upsert({id}, {} bytes)", body.len()),
            Self::Delete { id } => write!(f, "Delete({id})"),
        }
    }
}

/// What happened, for logs, counters and the operator. Never prints a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IkeEvent {
    /// State to mirror; must be acknowledged by the standby before datagrams polled after it leave.
    Sync(IkeRecord),
    /// An ISAKMP SA came up (`rekey` names the one it replaces).
    IsakmpUp {
        /// Cookies.
        id: IkeSaId,
        /// Peer.
        peer: IpAddr,
        /// True when we started it.
        initiator: bool,
        /// The SA it replaces.
        rekey: Option<IkeSaId>,
    },
    /// An ISAKMP SA is gone.
    IsakmpDown {
        /// Cookies.
        id: IkeSaId,
        /// Peer.
        peer: IpAddr,
        /// Why.
        cause: String,
    },
    /// A child pair came up.
    ChildUp {
        /// Inbound SPI.
        spi_in: Spi,
        /// Peer.
        peer: IpAddr,
        /// The pair it replaces.
        rekey: Option<Spi>,
    },
    /// A child pair is gone.
    ChildDown {
        /// Inbound SPI.
        spi_in: Spi,
        /// Why.
        cause: String,
    },
    /// An input was refused; `reason` is a stable counter label.
    Refused {
        /// Source of the datagram.
        from: SocketAddr,
        /// Counter label.
        reason: &'static str,
        /// Detail for the log.
        detail: String,
    },
    /// An exchange failed or an operator-visible thing happened.
    Notice {
        /// Peer.
        peer: IpAddr,
        /// Text for the log.
        text: String,
    },
}

/// Why the kernel asks for SAs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acquire {
    /// The peer of the template.
    pub peer: IpAddr,
    /// reqid of the template: names the crypto map entry and flow.
    pub reqid: u32,
    /// Source of the packet that asked.
    pub src: Selector,
    /// Destination of the packet that asked.
    pub dst: Selector,
}

/// What an operator may ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IkeRequest {
    /// Bring up every flow of this crypto map entry.
    Initiate {
        /// Crypto map name.
        map: String,
        /// Sequence number.
        seq: u32,
    },
    /// Rekey the child pair with this inbound SPI now.
    RekeyChild(Spi),
    /// Rekey the ISAKMP SA now.
    RekeyIsakmp(IkeSaId),
    /// Probe the peer now.
    ProbePeer(IpAddr),
    /// Delete everything of this peer, or of all.
    Clear(Option<IpAddr>),
}

/// State of an ISAKMP SA in the guide's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[expect(non_camel_case_types, reason = "the words of the guide")]
pub enum IsakmpState {
    /// Nothing exchanged yet.
    MM_NO_STATE,
    /// Policy agreed.
    MM_SA_SETUP,
    /// Keys exchanged.
    MM_KEY_EXCH,
    /// Authenticated.
    MM_KEY_AUTH,
    /// Ready for quick modes.
    QM_IDLE,
    /// Aggressive mode: nothing exchanged yet.
    AG_NO_STATE,
    /// Aggressive mode: keys exchanged.
    AG_INIT_EXCH,
    /// IKEv2: before the peer is authenticated.
    IN_NEG,
    /// IKEv2: established.
    READY,
}

/// One row of `show crypto isakmp sa`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IsakmpView {
    /// Cookies.
    pub id: IkeSaId,
    /// Version of IKE.
    pub version: IkeVersion,
    /// Our address.
    pub local: IpAddr,
    /// Peer.
    pub peer: IpAddr,
    /// State.
    pub state: IsakmpState,
    /// True when we started it.
    pub initiator: bool,
    /// True when it is mirrored state on a standby.
    pub dormant: bool,
    /// Seconds until its lifetime ends.
    pub remaining_s: u64,
    /// Child pairs by inbound SPI.
    pub children: Vec<Spi>,
}

/// What `show crypto ikev2 sa detailed` tells of an established IKE SA of version 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeSaDetail {
    /// Our address and port, as the path is now.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Name of the profile.
    pub profile: String,
    /// Encryption.
    pub encr: CipherAlg,
    /// Integrity; `None` with a combined-mode cipher.
    pub integ: Option<IntegAlg>,
    /// Pseudorandom function.
    pub prf: PrfAlg,
    /// Group of the first key exchange.
    pub group: DhGroup,
    /// Further key exchanges.
    pub additional: Vec<DhGroup>,
    /// How we proved ourselves.
    pub local_auth: AuthMethod,
    /// How the peer did.
    pub remote_auth: AuthMethod,
    /// Identity of ours, if the profile names one.
    pub local_id: Option<Identity>,
    /// Identity that the peer proved.
    pub peer_id: String,
    /// Lifetime in seconds.
    pub lifetime_s: u64,
    /// Age in seconds.
    pub age_s: u64,
    /// Message ID of our next request.
    pub send_id: u32,
    /// Message ID of the peer's next request.
    pub recv_id: u32,
    /// Messages may leave in fragments.
    pub fragments: bool,
    /// There is a NAT before us.
    pub nat_here: bool,
    /// There is a NAT before the peer.
    pub nat_there: bool,
}
