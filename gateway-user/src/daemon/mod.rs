//! Module daemon.
