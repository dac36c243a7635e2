//! Proposals (RFC 7296 3.3): codec, what we offer, what we choose from an offer, what we accept as an answer.

mod algorithm;
mod choose;
mod codec;
mod offer;
#[cfg(test)]
mod tests;

pub use choose::{ChildDh, EspChoice, IkeChoice, NoProposal, accept_esp, accept_ike, choose_esp, choose_ike};
pub use codec::{Proposal, Transform, transform_type};
pub use offer::{esp_offer, ike_offer};

use crate::crypto::{CipherAlg, DhGroup, IntegAlg, PrfAlg};

/// Algorithms of one IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeSuite {
    /// Encryption.
    pub encr: CipherAlg,
    /// Integrity; `None` with a combined-mode cipher.
    pub integ: Option<IntegAlg>,
    /// Pseudorandom function.
    pub prf: PrfAlg,
    /// Group of the KE payload.
    pub group: DhGroup,
    /// Additional key exchanges in the order in which they take place (RFC 9370).
    pub additional: Vec<DhGroup>,
}

/// Algorithms of one pair of ESP SAs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspSuite {
    /// Name of the transform set.
    pub name: String,
    /// Encryption.
    pub encr: CipherAlg,
    /// Integrity.
    pub integ: Option<IntegAlg>,
    /// Group of the KE payload, for forward secrecy.
    pub group: Option<DhGroup>,
    /// Extended sequence numbers.
    pub esn: bool,
}
