//! `gateway-lab`: the lab's scenario and self-test, and process 1 of the guest they run in where the machine has no ESP.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use gateway_tests::lab::{guest, peer, scenario, selftest};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "The lab of the gateway; `cargo xtask demo` starts it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The scenario: power loss, return, switchover, crash.
    Scenario {
        /// Folder for captures, logs and `report.json`.
        #[arg(long)]
        dir: PathBuf,
        /// The `gateway` binary.
        #[arg(long)]
        gateway: PathBuf,
        /// Folder of the example manifests.
        #[arg(long)]
        examples: PathBuf,
        /// Algorithms.
        #[arg(long, value_enum)]
        suite: Suite,
        /// Who starts the tunnel.
        #[arg(long, value_enum)]
        initiator: Initiator,
        /// Where this runs, for the report.
        #[arg(long)]
        kernel: String,
    },
    /// Proves that the lab finds what is wrong.
    Selftest {
        /// Folder for captures and logs.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    Default,
    Guide,
}

#[derive(Clone, Copy, ValueEnum)]
enum Initiator {
    Peer,
    Gateway,
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::init();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "-q") {
        // The guest kernel asks for a module: `modprobe -q -- NAME`.
        return ExitCode::from(u8::try_from(guest::modprobe(&args)).unwrap_or(1));
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gateway-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Scenario { dir, gateway, examples, suite, initiator, kernel } => {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            let options = scenario::Options {
                dir,
                gateway,
                examples,
                suite: match suite {
                    Suite::Default => peer::Suite::Default,
                    Suite::Guide => peer::Suite::Guide,
                },
                initiator: match initiator {
                    Initiator::Peer => scenario::Initiator::Peer,
                    Initiator::Gateway => scenario::Initiator::Gateway,
                },
                kernel,
            };
            let report = scenario::run(&options);
            print!("{}", report.text());
            std::fs::write(options.dir.join("report.json"), report.json_line() + "\n")?;
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Selftest { dir } => {
            let mut failed = 0;
            for (name, outcome) in selftest::run(&dir) {
                match outcome {
                    Ok(detail) => println!("test {name} ... ok ({detail})"),
                    Err(error) => {
                        failed += 1;
                        println!("test {name} ... FAILED\n  {error:#}");
                    }
                }
            }
            Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
