//! Running a program on one frame without attaching it (`BPF_PROG_TEST_RUN`): for tests and for explaining a packet.

use super::{DataplaneAdapter, failed, refused};
use crate::ports::PortResult;
use aya::programs::{Program as AyaProgram, TestRun};
use aya::{TestRunOptions, TestRunResult};
use gateway_common::abi::Program;

/// Offset of `mark` in the kernel's `struct __sk_buff`.
const SKB_MARK: usize = 8;
/// Offset of `ifindex` in it.
const SKB_IFINDEX: usize = 40;
/// Its size.
const SKB_SIZE: usize = 192;
/// Room for frames that grow.
const SPARE: usize = 256;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct RunInput<'a> {
    /// Which program.
    pub program: Program,
    /// The frame, from the Ethernet header on (14 bytes at least: the kernel's rule).
    pub frame: &'a [u8],
    /// Device it is on; 0 or 1 = loopback. XDP does not look at it.
    pub ifindex: u32,
    /// Its mark (tc programs).
    pub mark: u32,
    /// How often, for timing.
    pub repeat: u32,
}

/// Its outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunOutput {
    /// `XDP_*` or `TC_ACT_*`.
    pub verdict: u32,
    /// The frame after the program.
    pub frame: Vec<u8>,
    /// Mean time of one run, as the kernel measured it.
    pub ns: u64,
}

impl DataplaneAdapter {
    /// Runs a program on a frame. Counters count it.
    pub fn run(&mut self, input: RunInput<'_>) -> PortResult<RunOutput> {
        let name = input.program.name();
        let mut out = vec![0; input.frame.len() + SPARE];
        let mut skb = [0_u8; SKB_SIZE];
        skb[SKB_MARK..SKB_MARK + 4].copy_from_slice(&input.mark.to_ne_bytes());
        skb[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&input.ifindex.to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(input.frame);
        options.data_out = Some(&mut out);
        options.repeat = input.repeat.max(1);
        let result: TestRunResult = match self.ebpf.program_mut(name) {
            Some(AyaProgram::Xdp(p)) => p.test_run(options),
            Some(AyaProgram::SchedClassifier(p)) => {
                options.ctx_in = Some(&skb);
                p.test_run(options)
            }
            _ => return Err(refused("BPF_PROG_TEST_RUN", name, "no such program")),
        }
        .map_err(|e| failed("BPF_PROG_TEST_RUN", name, e))?;
        out.truncate(result.data_size_out as usize);
        Ok(RunOutput { verdict: result.return_value, frame: out, ns: result.duration.as_nanos() as u64 })
    }
}
