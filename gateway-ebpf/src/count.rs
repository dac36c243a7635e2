//! Counters by reason, and sampled log messages.

use crate::maps::COUNTERS;
use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use gateway_common::abi::{Program, counter_index};
use gateway_common::classify::Parsed;

/// Counts a packet; answers how many of its reason this CPU has seen.
#[inline(always)]
pub fn count(program: Program, reason: u32) -> u64 {
    match COUNTERS.get_ptr_mut(counter_index(program, reason)) {
        // SAFETY: a per-CPU value; only this CPU writes it, and a nested run can at worst lose one count.
        Some(counter) => unsafe {
            *counter += 1;
            *counter
        },
        None => 0,
    }
}

/// The first 16 of a reason, then every power of two and every 4096th.
#[inline(always)]
pub fn sampled(seen: u64) -> bool {
    seen <= 16 || seen & (seen - 1) == 0 || seen & 0xfff == 0
}

/// One debug message about a dropped packet. Not inlined: its buffers would not fit on the callers' stacks.
#[inline(never)]
pub fn log<C: EbpfContext>(ctx: &C, program: Program, reason: u32, p: &Parsed) {
    debug!(
        ctx,
        "drop program={} reason={} kind={} src={:i} dst={:i} spi={:x} seq={}",
        program as u32,
        reason,
        p.kind as u32,
        p.src,
        p.dst,
        p.spi,
        p.seq
    );
}
