//! Messages of the programs (aya-log) as tracing events.

use super::failed;
use crate::ports::PortResult;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long the reader sleeps before it looks whether it must end, in ms.
const WAKE_MS: u16 = 500;

/// Hands records to tracing.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!(target: "gateway::bpf", "{}", record.args());
    }

    fn flush(&self) {}
}

/// Reads the programs' messages on a thread of its own until it is dropped.
pub(super) struct LogReader(Arc<AtomicBool>);

impl LogReader {
    pub(super) fn start(ebpf: &mut Ebpf) -> PortResult<Self> {
        let mut logger = EbpfLogger::init_with_logger(ebpf, ToTracing).map_err(|e| failed("open", "AYA_LOGS", e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("bpf-log".into())
            .spawn(move || {
                while !flag.load(Ordering::Relaxed) {
                    let ready = {
                        let mut fds = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
                        poll(&mut fds, PollTimeout::from(WAKE_MS))
                    };
                    match ready {
                        Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                        Ok(_) => logger.flush(),
                        Err(error) => {
                            tracing::warn!(%error, "messages of the eBPF programs end here");
                            return;
                        }
                    }
                }
            })
            .map_err(|e| failed("thread", "bpf-log", e))?;
        Ok(Self(stop))
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
