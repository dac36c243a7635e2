//! Module net.
