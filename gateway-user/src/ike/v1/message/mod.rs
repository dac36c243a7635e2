//! ISAKMP messages on the wire (RFC 2408 3, RFC 2407 4.6): header, payload chain, one file per payload.
//!
//! Decoders borrow, never read past the end, and bound every count. They judge form only; whether a payload may appear in an exchange
//! is the exchange's business ([`Payloads::only`] and friends).

mod header;
mod id;
mod notify;
mod payload;
mod sa;

pub use header::{Exchange, HEADER_LEN, Header, HeaderFault, NON_ESP_MARKER, flag};
pub use id::{Id, id_type};
pub use notify::{Delete, Notify, notify_type};
pub use payload::{Chain, PAYLOADS_MAX, Payload, PayloadKind, Payloads};
pub use sa::{Attribute, AttributeValue, Proposal, SaPayload, Transform, protocol};

/// Dead peer detection vendor ID (RFC 3706 5.1), version 1.0.
pub const VENDOR_DPD: [u8; 16] = [0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00];

/// True for the DPD vendor ID of any minor version (the last two bytes are the version).
pub fn is_dpd_vendor(body: &[u8]) -> bool {
    body.len() == VENDOR_DPD.len() && body[..15] == VENDOR_DPD[..15]
}
