//! Set-up, eBPF build, demo, tests and lab of the gateway.
fn main() {}
