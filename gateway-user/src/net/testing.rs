//! Helpers of the adapters' tests: a network namespace of one's own.

use std::process::Command;

/// Runs `ip` with `args`, which must succeed.
pub(super) fn ip(args: &str) {
    let status = Command::new("ip").args(args.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// Runs `body` on a runtime in a network namespace that ends with it; without the right to make one, says so and does nothing.
pub(super) fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace without root ({e})");
            return;
        }
        ip("link set lo up");
        // One thread: every socket must be made in this one's namespace.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
