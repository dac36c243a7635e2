//! Set-up, eBPF build, demo, tests and lab of the gateway.

mod demo;
mod ebpf;
mod fuzz;
mod guest;
mod host;
mod lab_interop;
mod qemu;
mod setup;
mod test;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo and tests of the gateway")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs or builds what is missing; afterwards a plain `cargo build` works.
    Setup,
    /// The main job, end to end, with its report.
    Demo(demo::Options),
    /// Scenarios of a table against strongSwan and libreswan, as a matrix.
    Interop(lab_interop::Options),
    /// Everything that must hold: style, layers, unit, kernel and lab tests.
    Test {
        /// Kernel for the tests that need ESP.
        #[arg(long, value_enum, default_value = "auto")]
        guest: GuestChoice,
    },
    /// Fuzz targets under libFuzzer; `test` replays their corpus.
    Fuzz(fuzz::Options),
    /// The layer rule and the length of files.
    Tidy,
    /// Proves that the lab finds what is wrong, without the gateway's own code.
    LabSelftest {
        /// Kernel to run in.
        #[arg(long, value_enum, default_value = "auto")]
        guest: GuestChoice,
    },
    /// Runs a command in the guest (or on this machine where its kernel has ESP).
    LabShell {
        /// Kernel to run in.
        #[arg(long, value_enum, default_value = "auto")]
        guest: GuestChoice,
        /// Limit in seconds.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
        /// Program and arguments.
        #[arg(trailing_var_arg = true, required = true)]
        argv: Vec<String>,
    },
}

/// Where the lab's kernel comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum GuestChoice {
    /// This machine where its kernel has ESP, else user-mode Linux, else QEMU.
    Auto,
    /// This machine.
    None,
    /// User-mode Linux (Debian package `user-mode-linux`).
    Uml,
    /// QEMU without KVM on a Debian kernel package: slow, but with two CPUs and BTF.
    Qemu,
}

fn main() -> ExitCode {
    // `su` without `-` leaves out the folders that administration tools are in.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    if let Ok(path) = std::env::join_paths(folders) {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var("PATH", path) };
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let root = host::root()?;
    Ok(match Arguments::parse().command {
        Command::Setup => {
            setup::everything(&root)?;
            ExitCode::SUCCESS
        }
        Command::Demo(options) => verdict(demo::run(&root, &options)?),
        Command::Interop(options) => verdict(lab_interop::run(&root, &options)?),
        Command::Test { guest } => verdict(test::run(&root, guest)?),
        Command::Tidy => verdict(tidy::run(&root)?),
        Command::Fuzz(options) => {
            fuzz::fuzz(&root, &options)?;
            ExitCode::SUCCESS
        }
        Command::LabSelftest { guest } => verdict(demo::selftest(&root, guest)?),
        Command::LabShell { guest, timeout, argv } => {
            let kernel = setup::lab(&root, guest)?;
            let dir = guest::run_dir(&root, "shell")?;
            let command = guest::JobCommand { name: "shell".into(), argv, env: vec![], cwd: std::env::current_dir()?, timeout_s: timeout };
            let results = guest::run(&root, kernel, &dir, vec![command], &mut |line| println!("{line}"))?;
            verdict(results.iter().all(guest::JobResult::ok))
        }
    })
}

fn verdict(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Path of the lab binary.
pub fn lab_binary(root: &std::path::Path) -> PathBuf {
    host::target(root).join("release/gateway-lab")
}
