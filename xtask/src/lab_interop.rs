//! `cargo xtask interop`: the pair against peers that are not ours.

use crate::guest::{self, JobCommand, Kernel};
use crate::host::{say, target};
use crate::{GuestChoice, demo, lab_binary, setup};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// The whole suite ends within this many seconds.
const LIMIT_S: u64 = 2400;

/// Options of the suite.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kernel to run the lab on.
    #[arg(long, value_enum, default_value = "auto")]
    guest: GuestChoice,
    /// Rows of the table; all when left out.
    #[arg(long)]
    row: Vec<u8>,
    /// Only the rows of this version of IKE.
    #[arg(long)]
    ike: Option<u8>,
    /// Peers; both when left out.
    #[arg(long, value_enum)]
    peer: Vec<Peer>,
    /// Write the JSON line here, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A remote peer's implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Peer {
    /// Debian's strongSwan.
    Strongswan,
    /// Debian's libreswan.
    Libreswan,
}

impl Peer {
    /// Name on the lab's command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strongswan => "strongswan",
            Self::Libreswan => "libreswan",
        }
    }
}

/// Sets everything up and runs the suite; true when nothing failed.
pub fn run(root: &Path, options: &Options) -> Result<bool> {
    setup::toolchain(root)?;
    let kernel = setup::lab(root, options.guest)?;
    demo::build(root)?;
    let (ok, line) = run_on(root, &kernel, options, &mut demo::print_line)?;
    println!("{line}");
    if let Some(file) = &options.json {
        std::fs::write(file, line + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(ok)
}

/// Rows that `cargo xtask test` runs: the others are run by `cargo xtask interop`.
const TEST_ROWS: [u8; 1] = [1];

/// Part of the suite on a kernel that is ready, as `cargo xtask test` runs it.
pub fn all_on(root: &Path, kernel: &Kernel) -> Result<bool> {
    let options = Options { guest: GuestChoice::Auto, row: TEST_ROWS.to_vec(), ike: None, peer: vec![], json: None };
    let (ok, line) = run_on(root, kernel, &options, &mut demo::print_line)?;
    println!("{line}");
    Ok(ok)
}

fn run_on(root: &Path, kernel: &Kernel, options: &Options, line: &mut dyn FnMut(&str)) -> Result<(bool, String)> {
    let dir = guest::run_dir(root, "interop")?;
    say(&format!("scenarios against other implementations, {}; files in {}", kernel.title(), dir.display()));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut argv = vec![
        text(&lab_binary(root)),
        "interop".into(),
        "--dir".into(),
        text(&dir),
        "--gateway".into(),
        text(&target(root).join("release/gateway")),
        "--examples".into(),
        text(&root.join("config")),
        "--libreswan".into(),
        text(&setup::libreswan(root)),
    ];
    for row in &options.row {
        argv.extend(["--row".into(), row.to_string()]);
    }
    if let Some(version) = options.ike {
        argv.extend(["--ike".into(), version.to_string()]);
    }
    for peer in &options.peer {
        argv.extend(["--peer".into(), peer.name().into()]);
    }
    let command = JobCommand { name: "interop".into(), argv, env: vec![], cwd: dir.clone(), timeout_s: demo::limit(kernel, LIMIT_S) };
    let results = guest::run(root, kernel.clone(), &dir, vec![command], line)?;
    let file = dir.join("interop.json");
    let json = std::fs::read_to_string(&file).with_context(|| format!("no result: {}", file.display()))?;
    Ok((results.iter().all(guest::JobResult::ok), json.trim_end().to_owned()))
}
