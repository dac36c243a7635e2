//! The YAML manifest: strict loading with positions, the checked model, digests.

mod model;
pub use model::*;
