//! The simulated pair: two cores of the daemon over fake ports, real IKE peers, switches, hosts, virtual time; all from one seed.
//!
//! ```text
//! world ── queue of events, LANs, streams ── check: what must never happen, after every event
//!   │
//!   ├─ node ── machine (devices, XFRM, data path, addresses) ── the product's Core, through the product's ports
//!   ├─ peer ── station, XFRM ── the product's IKE engine
//!   └─ host
//! ```
//! Packets are real frames; the data path decides with the product's own `gateway_common::verdict`. A violation names seed and
//! virtual time and shows the last lines of the product's log.

pub mod arp;
pub mod check;
pub mod clock;
pub mod dice;
pub mod fault;
pub mod frame;
pub mod kernel;
pub mod lan;
pub mod machine;
pub mod node;
pub mod path;
pub mod peer;
pub mod plan;
pub mod station;
pub mod stream;
pub mod sweep;
pub mod trace;
pub mod traffic;
pub mod window;
pub mod world;
pub mod xfrm_port;

pub use fault::{Fault, random_faults};
pub use plan::{INSIDE, OUTSIDE, Setup, Side};
pub use traffic::Way;
pub use world::{Violation, World};
