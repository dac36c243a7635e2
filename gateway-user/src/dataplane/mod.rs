//! The eBPF data path behind [`crate::ports::Dataplane`].
//!
//! - `adapter`: loads, attaches, adopts; implements the port.
//! - `bpffs`: where maps and links are pinned.
//! - `tables`: SA tables as shared memory.
//! - `protect`: protected selectors as a longest-prefix table.
//! - `log`: messages of the programs.
//! - `fake`: for tests.

mod adapter;
mod attach;
mod bpffs;
pub mod fake;
mod log;
mod protect;
mod run;
mod tables;

pub use adapter::DataplaneAdapter;
pub use run::{RunInput, RunOutput};

use crate::ports::PortError;
use std::io;

/// The programs, or nothing when the build had no object.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway-ebpf.o"));

/// What to say when [`OBJECT`] is empty.
const NO_OBJECT: &str = "this build has no eBPF object: run `cargo xtask setup` and build again";

/// A [`PortError`] from any error, keeping the kernel's error number where there is one.
fn failed<E: std::error::Error + 'static>(call: &'static str, object: impl Into<String>, error: E) -> PortError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut number = None;
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            number = io.raw_os_error();
        }
        cause = e.source();
    }
    let source = match number {
        Some(n) => io::Error::from_raw_os_error(n),
        None => io::Error::other(error.to_string()),
    };
    PortError { call, object: object.into(), source }
}

/// A [`PortError`] with a sentence of ours.
fn refused(call: &'static str, object: impl Into<String>, why: impl Into<String>) -> PortError {
    PortError { call, object: object.into(), source: io::Error::new(io::ErrorKind::InvalidInput, why.into()) }
}
