//! Who owns the SAs: joins HSRP's proposals, SSP's readiness and epochs into one decision per node.

mod handover;
mod node;
mod partner;
#[cfg(test)]
mod tests;
pub use node::*;
