//! Command line of the `gateway` binary.

pub mod command;

/// Parses the command line, runs the command, returns its exit status.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
