//! Adapters over netlink: the kernel's XFRM and its links and addresses.
//!
//! - [`xfrm::XfrmAdapter`] behind [`crate::ports::Xfrm`], [`xfrm::XfrmEvents`] for what the kernel says unasked.
//! - [`links::LinkAdapter`] behind [`crate::ports::Links`], [`links::LinkEvents`] for carrier changes.
//!
//! Every socket belongs to the network namespace of the thread that opened it, and `/proc/sys/net` shows the namespace of the
//! thread that opens a file in it; `/sys` may show another one (`nsenter --net`, `ip netns exec`) and is never read.

pub mod links;
pub mod message;
pub mod socket;
pub mod xfrm;

mod arp;
mod events;
mod route;
mod sysctl;
