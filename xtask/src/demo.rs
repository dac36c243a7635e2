//! `cargo xtask demo`: the main job, once with today's algorithms and once with the guide's.

use crate::guest::{self, JobCommand, Kernel};
use crate::host::{cargo, run as run_command, say, target};
use crate::lab_interop::Peer;
use crate::{GuestChoice, lab_binary, setup};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One scenario, calibration, four events and their checks, ends within this many seconds.
const SCENARIO_LIMIT_S: u64 = 420;
const SELFTEST_LIMIT_S: u64 = 240;
/// Options of the demo.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kernel to run the lab on.
    #[arg(long, value_enum, default_value = "auto")]
    guest: GuestChoice,
    /// Algorithms: today's, the guide's, or a run with each.
    #[arg(long, value_enum, default_value = "both")]
    suite: Suite,
    /// Who starts the tunnel. `both`: the peer in the first run, the gateway in the second.
    #[arg(long, value_enum, default_value = "both")]
    initiator: Initiator,
    /// The remote peer.
    #[arg(long, value_enum, default_value = "strongswan")]
    peer: Peer,
    /// HSRP hello, ms.
    #[arg(long, default_value_t = 100)]
    hello: u64,
    /// HSRP hold, ms.
    #[arg(long, default_value_t = 300)]
    hold: u64,
    /// Other addresses than the guide's, chosen by this seed.
    #[arg(long, value_name = "SEED")]
    addresses: Option<u64>,
    /// Traffic flows for this long before each event, ms: one time for all, or four.
    #[arg(long, value_name = "MS", num_args = 1..=4)]
    kill_at: Vec<u64>,
    /// Times before the events chosen by this seed (up to 3 s each).
    #[arg(long, value_name = "SEED", conflicts_with = "kill_at")]
    kill_seed: Option<u64>,
    /// Hosts on both LANs send malformed IKE, ESP, HSRP and SSP the whole time, chosen by this seed.
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = "1")]
    hostile: Option<u64>,
    /// Write the JSON lines here, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Suite {
    Default,
    Guide,
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Initiator {
    Peer,
    Gateway,
    Both,
}

/// One run: suite and initiator by their names.
type Run = (&'static str, &'static str);

impl Options {
    /// What `cargo xtask test` runs.
    pub fn all(guest: GuestChoice) -> Self {
        Self {
            guest,
            suite: Suite::Both,
            initiator: Initiator::Both,
            peer: Peer::Strongswan,
            hello: 100,
            hold: 300,
            addresses: None,
            kill_at: Vec::new(),
            kill_seed: None,
            hostile: None,
            json: None,
        }
    }

    /// The same scenario with everything else: another peer, addresses, timers, kill times, and hosts that mean no good.
    #[cfg(test)]
    pub fn other(guest: GuestChoice) -> Self {
        Self {
            suite: Suite::Default,
            initiator: Initiator::Gateway,
            peer: Peer::Libreswan,
            hello: 150,
            hold: 500,
            addresses: Some(20_260_101),
            kill_seed: Some(7),
            hostile: Some(11),
            ..Self::all(guest)
        }
    }

    /// What the lab is told beyond suite and initiator.
    fn lab_arguments(&self, root: &Path) -> Result<Vec<String>> {
        ensure!(self.hold > self.hello, "--hold {} must be more than --hello {}", self.hold, self.hello);
        let mut out = vec!["--hello".into(), self.hello.to_string(), "--hold".into(), self.hold.to_string()];
        if self.peer == Peer::Libreswan {
            out.extend(["--peer".into(), "libreswan".into()]);
            out.extend(["--libreswan".into(), setup::libreswan(root).to_string_lossy().into_owned()]);
        }
        for (name, seed) in [("--addresses", self.addresses), ("--hostile", self.hostile)] {
            out.extend(seed.into_iter().flat_map(|s| [name.to_owned(), s.to_string()]));
        }
        out.push("--kill-at".into());
        out.extend(self.waits_ms().map(|ms| ms.to_string()));
        Ok(out)
    }

    /// Milliseconds before each of the four events.
    fn waits_ms(&self) -> [u64; 4] {
        if let Some(seed) = self.kill_seed {
            // Knuth's linear congruential generator: enough for four times.
            let mut state = seed;
            return [(); 4].map(|()| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % 3000
            });
        }
        let last = self.kill_at.last().copied().unwrap_or(0);
        [0, 1, 2, 3].map(|n| self.kill_at.get(n).copied().unwrap_or(last))
    }

    fn runs(&self) -> Vec<Run> {
        let suites: &[&'static str] = match self.suite {
            // Debian's libreswan knows no group 2.
            Suite::Both if self.peer == Peer::Libreswan => &["default"],
            Suite::Default => &["default"],
            Suite::Guide => &["guide"],
            Suite::Both => &["default", "guide"],
        };
        match (self.initiator, suites) {
            (Initiator::Peer, _) => suites.iter().map(|s| (*s, "peer")).collect(),
            (Initiator::Gateway, _) => suites.iter().map(|s| (*s, "gateway")).collect(),
            (Initiator::Both, [one]) => vec![(*one, "peer"), (*one, "gateway")],
            (Initiator::Both, _) => suites.iter().copied().zip(["peer", "gateway"]).collect(),
        }
    }
}

/// Sets everything up and runs; true when every promise of every run holds.
pub fn run(root: &Path, options: &Options) -> Result<bool> {
    ensure!(
        options.peer != Peer::Libreswan || options.suite != Suite::Guide,
        "Debian's libreswan has no group 2, which the guide's suite needs: leave --suite out, or take --peer strongswan"
    );
    let arguments = options.lab_arguments(root)?;
    setup::toolchain(root)?;
    let kernel = setup::lab(root, options.guest)?;
    build(root)?;
    let mut json = String::new();
    let mut ok = true;
    for (suite, initiator) in options.runs() {
        let (mut passed, mut line) = scenario(root, &kernel, suite, initiator, &arguments)?;
        // A guest that stood still for the hold time less one hello took its own nodes for dead: such a run says nothing.
        let stood_still_ms = stall_ms(&line);
        if !passed && !matches!(kernel, Kernel::Machine) && stood_still_ms >= options.hold.saturating_sub(options.hello) as f64 {
            println!("{line}");
            say(&format!("the guest stood still for {stood_still_ms:.0} ms (its bare timer says so): the run is repeated once"));
            (passed, line) = scenario(root, &kernel, suite, initiator, &arguments)?;
        }
        ok &= passed;
        println!("{line}");
        json += &line;
        json.push('\n');
    }
    if let Some(file) = &options.json {
        std::fs::write(file, json).with_context(|| file.display().to_string())?;
    }
    Ok(ok)
}

/// Longest lateness of the bare timer that a report tells, ms; 0 when it tells none.
fn stall_ms(report: &str) -> f64 {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    report["jitter"]["max_ms"].as_f64().unwrap_or(0.0)
}

/// Builds what an operator would run, and the lab around it.
pub fn build(root: &Path) -> Result<()> {
    say("building the release binaries");
    run_command(cargo(root).args(["build", "--release", "--quiet", "-p", "gateway-user", "-p", "gateway-tests", "--bins"]))
}

fn scenario(root: &Path, kernel: &Kernel, suite: &str, initiator: &str, arguments: &[String]) -> Result<(bool, String)> {
    let dir = guest::run_dir(root, &format!("{suite}-{initiator}"))?;
    say(&format!("scenario {suite}, started by the {initiator}, {}; files in {}", kernel.title(), dir.display()));
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut argv = vec![
        text(lab_binary(root)),
        "scenario".into(),
        "--dir".into(),
        text(dir.clone()),
        "--gateway".into(),
        text(target(root).join("release/gateway")),
        "--examples".into(),
        text(root.join("config")),
        "--suite".into(),
        suite.into(),
        "--initiator".into(),
        initiator.into(),
        "--kernel".into(),
        kernel.title().into(),
    ];
    argv.extend_from_slice(arguments);
    let command = JobCommand {
        name: format!("{suite}-{initiator}"),
        argv,
        env: vec![],
        cwd: dir.clone(),
        timeout_s: limit(kernel, SCENARIO_LIMIT_S),
    };
    let results = guest::run(root, kernel.clone(), &dir, vec![command], &mut print_line)?;
    let file = dir.join("report.json");
    let line = std::fs::read_to_string(&file).with_context(|| format!("no report: {}", file.display()))?;
    Ok((results.iter().all(guest::JobResult::ok), line.trim_end().to_owned()))
}

/// The lab against faults made on purpose; true when it found every one.
pub fn selftest(root: &Path, choice: GuestChoice) -> Result<bool> {
    let kernel = setup::lab(root, choice)?;
    say("building the lab");
    run_command(cargo(root).args(["build", "--release", "--quiet", "-p", "gateway-tests", "--bins"]))?;
    Ok(selftest_on(root, &kernel, &mut print_line)?.iter().all(guest::JobResult::ok))
}

/// The self-test on a kernel that is ready.
pub fn selftest_on(root: &Path, kernel: &Kernel, line: &mut dyn FnMut(&str)) -> Result<Vec<guest::JobResult>> {
    let dir = guest::run_dir(root, "selftest")?;
    let argv = vec![lab_binary(root).to_string_lossy().into_owned(), "selftest".into(), "--dir".into(), dir.to_string_lossy().into_owned()];
    let command =
        JobCommand { name: "lab self-test".into(), argv, env: vec![], cwd: dir.clone(), timeout_s: limit(kernel, SELFTEST_LIMIT_S) };
    guest::run(root, kernel.clone(), &dir, vec![command], line)
}

/// QEMU without KVM is about ten times slower.
pub fn limit(kernel: &Kernel, seconds: u64) -> u64 {
    match kernel {
        Kernel::Machine | Kernel::Uml => seconds,
        Kernel::Qemu => 4 * seconds,
    }
}

/// A line of the lab, at once even into a pipe.
pub fn print_line(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_how_long_the_guest_stood_still() {
        let worst = stall_ms(r#"{"ok":false,"jitter":{"p50_ms":0.2,"max_ms":231.5}}"#);
        assert!((worst - 231.5).abs() < 1e-9, "{worst}");
        assert!(stall_ms("no report") < 1e-9);
    }

    #[test]
    fn both_means_each_suite_once_and_each_initiator_once() {
        assert_eq!(Options::all(GuestChoice::Auto).runs(), [("default", "peer"), ("guide", "gateway")]);
        let one = Options { suite: Suite::Guide, ..Options::all(GuestChoice::Auto) };
        assert_eq!(one.runs(), [("guide", "peer"), ("guide", "gateway")]);
        assert_eq!(Options::other(GuestChoice::Auto).runs(), [("default", "gateway")]);
    }

    #[test]
    fn kill_times_are_one_for_all_or_four_or_chosen() {
        let with = |kill_at: &[u64]| Options { kill_at: kill_at.to_vec(), ..Options::all(GuestChoice::Auto) }.waits_ms();
        assert_eq!(with(&[]), [0; 4]);
        assert_eq!(with(&[700]), [700; 4]);
        assert_eq!(with(&[1, 2, 3, 4]), [1, 2, 3, 4]);
        let chosen = Options::other(GuestChoice::Auto).waits_ms();
        assert!(chosen.iter().all(|ms| *ms < 3000) && chosen[0] != chosen[1], "{chosen:?}");
    }
}
