//! Why a session ends, and its counter's name.

use super::channel::ChannelError;
use super::codec::{TooLarge, Versions};
use super::secret::WeakSecret;
use super::session::WINDOW_MESSAGES_MAX;
use crate::wire::DecodeError;
use std::time::Duration;
use thiserror::Error;

/// Why a session ends, or a message is not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SspError {
    /// The secret of the pair is refused.
    #[error(transparent)]
    WeakSecret(#[from] WeakSecret),
    /// Channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A frame or message that breaks the layout.
    #[error("frame refused: {0}")]
    Decode(#[from] DecodeError),
    /// A sequence number that is not the next one.
    #[error("sequence number {got} instead of {want}")]
    Sequence {
        /// Next number.
        want: u64,
        /// Number received.
        got: u64,
    },
    /// An acknowledgement that went back, or of something never sent.
    #[error("acknowledgement {got} is not between {acked} and {sent}")]
    Acknowledgement {
        /// Acknowledged so far.
        acked: u64,
        /// Sent so far.
        sent: u64,
        /// Number received.
        got: u64,
    },
    /// The first message was not a hello, or a hello came again.
    #[error("a hello must be the first message and no other")]
    Hello,
    /// No common version.
    #[error("no common version: we speak {} to {}, the partner {} to {}; upgrade the older node", ours.min, ours.max, theirs.min, theirs.max)]
    Version {
        /// Ours.
        ours: Versions,
        /// The partner's.
        theirs: Versions,
    },
    /// The partner sent more than the window before anything was acknowledged.
    #[error("the partner sent more than {WINDOW_MESSAGES_MAX} unacknowledged messages")]
    Window,
    /// The handshake did not end in time.
    #[error("handshake not finished in time")]
    HandshakeTimeout,
    /// Nothing was heard for too long.
    #[error("partner silent for {0:?}")]
    Dead(Duration),
    /// The queue or the window is full: send again after an `Acked` event, or after `poll_transmit` was drained. The message was not taken.
    #[error("backlog is full")]
    Backlog,
    /// The message passes a limit of the codec. It was not taken; the session goes on.
    #[error("message refused: {0}")]
    TooLarge(#[from] TooLarge),
    /// The session ended earlier.
    #[error("session is closed")]
    Closed,
}

impl SspError {
    /// Stable name for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::WeakSecret(_) => "weak_secret",
            Self::Channel(ChannelError::Length(_)) => "record_length",
            Self::Channel(ChannelError::Handshake) => "handshake",
            Self::Channel(ChannelError::Record) => "record",
            Self::Channel(ChannelError::Setup(_)) => "setup",
            Self::Decode(_) => "decode",
            Self::Sequence { .. } => "sequence",
            Self::Acknowledgement { .. } => "acknowledgement",
            Self::Hello => "hello",
            Self::Version { .. } => "version",
            Self::Window => "window",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Dead(_) => "dead",
            Self::Backlog => "backlog",
            Self::TooLarge(_) => "too_large",
            Self::Closed => "closed",
        }
    }
}
