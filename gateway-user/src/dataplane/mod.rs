//! Module dataplane.
