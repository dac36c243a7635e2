//! ISAKMP messages on the wire (RFC 2408 3, RFC 2407 4.6): header, payload chain, one file per payload.
//!
//! Decoders borrow, never read past the end, and bound every count. They judge form only; whether a payload may appear in an exchange
//! is the exchange's business ([`Payloads::only`] and friends).

mod fragment;
mod header;
mod id;
mod notify;
mod payload;
mod sa;
mod vendor;

pub use fragment::{FRAGMENTS_MAX, Fragment};
pub use header::{Exchange, HEADER_LEN, Header, HeaderFault, flag};
pub use id::{Id, id_type};
pub use notify::{Delete, Notify, notify_type};
pub use payload::{Chain, PAYLOADS_MAX, Payload, PayloadKind, Payloads};
pub use sa::{Attribute, AttributeValue, Proposal, SaPayload, Transform, protocol};
pub use vendor::{NatDialect, Vendors};
