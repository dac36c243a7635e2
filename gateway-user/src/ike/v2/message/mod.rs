//! IKEv2 messages on the wire (RFC 7296 3): header, payload chain, encryption.
//!
//! Decoders borrow, never read past the end, and bound every count. They judge form only; which payloads an exchange may hold is the
//! exchange's business.

mod fault;
mod header;
mod notify;
mod outgoing;
mod payload;
mod sealed;

#[cfg(test)]
pub(super) mod tests;

pub use fault::Fault;
pub use header::{Exchange, HEADER_LEN, Header, HeaderFault, invalid_major_version};
pub use notify::{Delete, Notify, NotifyType, Protocol};
pub use outgoing::Outgoing;
pub use payload::{Auth, Cert, Id, Ke, Message, PAYLOADS_MAX, Payload, PayloadKind, decode_payloads};
pub use sealed::{Opened, SealKeys, open, seal};
pub(super) use sealed::{open_body, outer, seal_body};
