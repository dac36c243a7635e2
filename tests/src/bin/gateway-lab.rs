//! `gateway-lab`: the lab's scenario and self-test, and process 1 of the guest they run in where the machine has no ESP.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use gateway_tests::lab::{gateways, guest, interop, peer, plan, scenario, selftest};
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
        /// The remote peer.
        #[arg(long, value_enum, default_value = "strongswan")]
        peer: Peer,
        /// Where libreswan was unpacked.
        #[arg(long)]
        libreswan: Option<PathBuf>,
        /// HSRP hello, ms.
        #[arg(long, default_value_t = gateways::HELLO_MS)]
        hello: u64,
        /// HSRP hold, ms.
        #[arg(long, default_value_t = gateways::HOLD_MS)]
        hold: u64,
        /// Other addresses than the guide's, chosen by this seed.
        #[arg(long)]
        addresses: Option<u64>,
        /// How long traffic flows before each of the four events, ms.
        #[arg(long, num_args = 4, default_values_t = [0, 0, 0, 0])]
        kill_at: Vec<u64>,
        /// Hosts on both LANs send malformed packets the whole time, chosen by this seed.
        #[arg(long)]
        hostile: Option<u64>,
        /// Where this runs, for the report.
        #[arg(long)]
        kernel: String,
    },
    /// Scenarios of a table against each peer: a matrix.
    Interop {
        /// Folder for captures, logs and `interop.json`.
        #[arg(long)]
        dir: PathBuf,
        /// The `gateway` binary.
        #[arg(long)]
        gateway: PathBuf,
        /// Folder of the example manifests.
        #[arg(long)]
        examples: PathBuf,
        /// Where libreswan was unpacked.
        #[arg(long)]
        libreswan: Option<PathBuf>,
        /// Rows of the table; all when left out.
        #[arg(long)]
        row: Vec<u8>,
        /// Only the rows of this version of IKE.
        #[arg(long)]
        ike: Option<u8>,
        /// Peers; all when left out.
        #[arg(long, value_enum)]
        peer: Vec<Peer>,
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
enum Peer {
    Strongswan,
    Libreswan,
}

impl Peer {
    const fn kind(self) -> peer::Implementation {
        match self {
            Self::Strongswan => peer::Implementation::StrongSwan,
            Self::Libreswan => peer::Implementation::Libreswan,
        }
    }
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
        Command::Scenario {
            dir,
            gateway,
            examples,
            suite,
            initiator,
            peer,
            libreswan,
            hello,
            hold,
            addresses,
            kill_at,
            hostile,
            kernel,
        } => {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            if let Some(seed) = addresses {
                anyhow::ensure!(plan::choose(plan::Plan::chosen(seed)), "the addresses are chosen already");
            }
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
                peer: peer.kind(),
                libreswan,
                timers_ms: [hello, hold],
                kill_at_ms: <[u64; 4]>::try_from(kill_at).map_err(|_| anyhow::anyhow!("--kill-at takes four times"))?,
                hostile,
                kernel,
            };
            let report = scenario::run(&options);
            print!("{}", report.text());
            std::fs::write(options.dir.join("report.json"), report.json_line() + "\n")?;
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Interop { dir, gateway, examples, libreswan, row, ike, peer } => {
            let kinds = if peer.is_empty() { vec![Peer::Strongswan, Peer::Libreswan] } else { peer };
            let options = interop::Options {
                dir,
                gateway,
                examples,
                libreswan,
                rows: row,
                version: ike,
                peers: kinds.into_iter().map(Peer::kind).collect(),
            };
            let matrix = interop::run(&options);
            print!("{}", matrix.text());
            std::fs::write(options.dir.join("interop.json"), matrix.json_line() + "\n")?;
            Ok(if matrix.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
