//! The core's thread runs before ordinary work: a hello that waits for a busy machine is a takeover nobody asked for.

use tracing::{info, warn};

/// Lowest real-time priority: above all ordinary work, below what an administrator ranks higher.
const PRIORITY: i32 = 1;

/// Puts the calling thread into `SCHED_RR`. Threads it starts later (Diffie-Hellman, logging) stay ordinary. The kernel keeps 5 % of
/// every CPU for ordinary work (`sched_rt_runtime_us`), so not even a runaway loop locks the operator out.
///
/// Without the right (CAP_SYS_NICE) the daemon runs on as it is, and says what that means.
pub fn raise() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; `parameters` is valid for the call.
    let rc = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if rc == 0 {
        info!(priority = PRIORITY, "core runs in real time (SCHED_RR)");
    } else {
        let error = std::io::Error::last_os_error();
        warn!(%error, "no real-time priority: on a busy machine hellos may come late; grant CAP_SYS_NICE or use a longer hold time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_raised_and_its_children_are_not() {
        std::thread::spawn(|| {
            raise();
            // SAFETY: 0 is the calling thread; no memory is involved.
            let own = unsafe { libc::sched_getscheduler(0) };
            if own == libc::SCHED_OTHER {
                return; // not root: `raise` has said so
            }
            assert_eq!(own & !libc::SCHED_RESET_ON_FORK, libc::SCHED_RR);
            // SAFETY: as above.
            let child = std::thread::spawn(|| unsafe { libc::sched_getscheduler(0) }).join().unwrap();
            assert_eq!(child, libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
    }
}
