//! Fuzz targets: one for each decoder, one for each engine as a state machine. A target must return for every input, in bounded time
//! and memory, without a panic; where bytes are accepted, what they mean must survive another encoding.
//!
//! `cargo xtask test` replays `tests/corpus` and seeded mutations of it; `cargo xtask fuzz` runs the same functions under libFuzzer.

mod certificate;
mod decode;
mod ike;
mod message_v2;
mod mutate;

pub use mutate::mutate;

/// A target.
pub struct Target {
    /// Name: also the folder of its corpus.
    pub name: &'static str,
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The target itself; panics on a bug.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "ikev1_message", seeds: ike::datagrams_v1, run: decode::ikev1_message },
    Target { name: "ikev2_message", seeds: message_v2::datagrams, run: message_v2::ikev2_message },
    Target { name: "ikev2_content", seeds: message_v2::contents, run: message_v2::ikev2_content },
    Target { name: "ikev2_fragments", seeds: message_v2::scripts, run: message_v2::ikev2_fragments },
    Target { name: "ikev1_engine", seeds: ike::scripts, run: ike::engine_v1 },
    Target { name: "ikev2_engine", seeds: ike::scripts, run: ike::engine_v2 },
    Target { name: "ike_record", seeds: ike::records, run: ike::record },
    Target { name: "child_record", seeds: decode::child_records, run: decode::child_record },
    Target { name: "certificate", seeds: certificate::certificates, run: certificate::certificate },
    Target { name: "ssp_stream", seeds: decode::ssp_streams, run: decode::ssp_stream },
    Target { name: "hsrp_packet", seeds: decode::hsrp_packets, run: decode::hsrp_packet },
    Target { name: "manifest", seeds: decode::manifests, run: decode::manifest },
    Target { name: "classify", seeds: decode::frames, run: decode::classify },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
