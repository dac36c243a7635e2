//! `cargo xtask test`: everything that must hold, and one plain count at the end.

use crate::guest::{self, JobCommand, Kernel};
use crate::host::{cargo, say};
use crate::{GuestChoice, demo, lab_interop, setup, tidy};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Integration tests that need the guest's kernel, or say more on a second one.
const KERNEL_TESTS: [&str; 2] = ["xfrm_kernel", "xdp_run"];
/// One test binary in the guest ends within this many seconds.
const BINARY_LIMIT_S: u64 = 300;

/// Tests so far.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Parts that did not hold, by name.
    broken: Vec<String>,
    /// Test binaries that run inside one another: only the outermost one counts.
    depth: u32,
}

impl Tally {
    /// Counts the result line of a test binary.
    fn line(&mut self, line: &str) {
        let line = line.trim_start();
        if line.starts_with("running ") && (line.ends_with(" test") || line.ends_with(" tests")) {
            self.depth += 1;
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        self.depth = self.depth.saturating_sub(1);
        if self.depth > 0 {
            return;
        }
        let number = |word: &str| -> u64 {
            rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
        };
        self.passed += number(" passed");
        self.failed += number(" failed");
        self.ignored += number(" ignored");
    }

    /// Counts a part that is one test by itself.
    fn part(&mut self, name: &str, ok: bool) {
        if ok {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.broken.push(name.to_owned());
        }
    }

    /// A part whose tests counted themselves.
    fn counted(&mut self, name: &str, ok: bool, failed_before: u64) {
        if !ok {
            self.broken.push(name.to_owned());
            // A part that broke without a failed test (it did not build, it crashed) is a failure nevertheless.
            if self.failed == failed_before {
                self.failed += 1;
            }
        }
    }

    fn ok(&self) -> bool {
        self.failed == 0 && self.broken.is_empty() && self.passed > 0
    }

    fn summary(&self) -> String {
        let word = if self.ok() { "ok" } else { "FAILED" };
        format!("test result: {word}. {} passed; {} failed; {} ignored", self.passed, self.failed, self.ignored)
    }
}

/// Runs everything; true when all of it holds.
pub fn run(root: &Path, choice: GuestChoice) -> Result<bool> {
    let mut tally = Tally::default();
    setup::toolchain(root)?;
    let kernel = setup::lab(root, choice)?;
    if !status(cargo(root).args(["fmt", "--version"]).stdout(Stdio::null())) {
        say("installing rustfmt: the formatting is checked");
        crate::host::run(Command::new("rustup").args(["component", "add", "rustfmt"]))?;
    }
    say("formatting");
    tally.part("formatting (cargo fmt --all)", status(cargo(root).args(["fmt", "--all", "--", "--check", "-l"])));
    say("layers and file lengths");
    tally.part("tidy", tidy::run(root)?);
    say("unit, property, known-answer, simulated-pair and XDP test-run tests");
    let before = tally.failed;
    let crates = ["test", "--workspace", "--exclude", "gateway-ebpf", "--exclude", "gateway-tests", "--no-fail-fast"];
    let ok = counted(cargo(root).args(crates), &mut tally)?;
    tally.counted("cargo test", ok, before);
    // `xfrm_kernel` needs a kernel with ESP: it runs below, and only there.
    let before = tally.failed;
    let pair =
        ["test", "-p", "gateway-tests", "--lib", "--bins", "--test", "manifests", "--test", "sim", "--test", "xdp_run", "--no-fail-fast"];
    let ok = counted(cargo(root).args(pair), &mut tally)?;
    tally.counted("cargo test -p gateway-tests", ok, before);
    demo::build(root)?;
    kernel_tests(root, &kernel, &mut tally)?;
    say("the lab against faults made on purpose");
    let results = demo::selftest_on(root, &kernel, &mut |line| println!("{line}"));
    tally.part("lab self-test", results.is_ok_and(|r| r.iter().all(guest::JobResult::ok)));
    say("the demo as a test");
    let demo = demo::run(root, &demo::Options::all(choice));
    if let Err(error) = &demo {
        println!("demo: {error:#}");
    }
    tally.part("demo", demo.is_ok_and(|ok| ok));
    say("scenarios against strongSwan and libreswan");
    let interop = lab_interop::all_on(root, &kernel);
    if let Err(error) = &interop {
        println!("interop: {error:#}");
    }
    tally.part("interop", interop.is_ok_and(|ok| ok));
    say("the demo's HSRP packets as tshark reads them");
    let read = tshark(root);
    if let Err(error) = &read {
        println!("tshark: {error:#}");
    }
    tally.part("HSRP as tshark reads it", read.is_ok());
    for name in &tally.broken {
        println!("FAILED part: {name}");
    }
    println!("{}", tally.summary());
    Ok(tally.ok())
}

/// The integration tests of the tests crate once more, where the kernel has ESP.
fn kernel_tests(root: &Path, kernel: &Kernel, tally: &mut Tally) -> Result<()> {
    let binaries = test_binaries(root)?;
    anyhow::ensure!(binaries.len() == KERNEL_TESTS.len(), "kernel tests: {KERNEL_TESTS:?} expected, {} found", binaries.len());
    say(&format!("kernel tests {}", kernel.title()));
    let dir = guest::run_dir(root, "kernel-tests")?;
    let commands = binaries
        .iter()
        .map(|(name, path)| JobCommand {
            name: name.clone(),
            argv: vec![path.to_string_lossy().into_owned(), "--test-threads=1".into(), "--color=never".into()],
            env: vec![("GATEWAY_LAB".into(), "1".into()), ("RUST_BACKTRACE".into(), "1".into())],
            cwd: root.join("tests"),
            timeout_s: demo::limit(kernel, BINARY_LIMIT_S),
        })
        .collect();
    let before = tally.failed;
    let results = guest::run(root, kernel.clone(), &dir, commands, &mut |line| {
        println!("{line}");
        tally.line(line);
    });
    match results {
        Ok(results) => {
            for r in results.iter().filter(|r| !r.ok()) {
                tally.counted(&format!("kernel tests {}", r.name), false, before);
            }
        }
        Err(error) => {
            println!("kernel tests: {error:#}");
            tally.counted("kernel tests", false, before);
        }
    }
    Ok(())
}

/// Integration test binaries of the tests crate: name and path.
fn test_binaries(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let out = cargo(root)
        .args(["test", "-p", "gateway-tests", "--no-run", "--message-format=json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo test --no-run")?;
    anyhow::ensure!(out.status.success(), "the tests do not build");
    let mut binaries = binaries_in(&String::from_utf8_lossy(&out.stdout));
    binaries.retain(|(name, _)| KERNEL_TESTS.contains(&name.as_str()));
    Ok(binaries)
}

fn binaries_in(json_lines: &str) -> Vec<(String, PathBuf)> {
    json_lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| m["reason"] == "compiler-artifact" && m["target"]["kind"][0] == "test" && m["profile"]["test"] == true)
        .filter_map(|m| Some((m["target"]["name"].as_str()?.to_owned(), m["executable"].as_str()?.into())))
        .collect()
}

/// The newest capture of the outside LAN, read by a dissector we did not write: hellos of both states, each from the right MAC, TTL 1, none malformed.
fn tshark(root: &Path) -> Result<()> {
    let folders = std::fs::read_dir(crate::host::target(root).join("lab"))?;
    let captures = folders.filter_map(|f| Some(f.ok()?.path().join("outside.pcap"))).filter(|p| p.is_file());
    let capture = captures.max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok()).context("no capture of the outside LAN")?;
    let fields = ["hsrp.opcode", "hsrp.state", "hsrp.virt_ip", "eth.src", "ip.ttl", "_ws.malformed"];
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&capture).args(["-Y", "hsrp", "-T", "fields"]).args(fields.iter().flat_map(|f| ["-e", f]));
    let out = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("tshark")?;
    anyhow::ensure!(out.status.success(), "{}: {}", capture.display(), out.status);
    let (active, standby) = hsrp_rows(&String::from_utf8_lossy(&out.stdout))?;
    println!("{active} hellos of an active, {standby} of a standby router");
    anyhow::ensure!(active > 100 && standby > 100, "too few hellos in {}", capture.display());
    Ok(())
}

/// Hellos by state (active, standby); fails at the first row that is not as RFC 2281 has it.
fn hsrp_rows(text: &str) -> Result<(u64, u64)> {
    let (mut active, mut standby) = (0, 0);
    for row in text.lines() {
        let [opcode, state, vip, mac, ttl, malformed] = row.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not understood: {row}")
        };
        let virtual_mac = mac == "00:00:0c:07:ac:02";
        anyhow::ensure!(ttl == "1" && vip == "40.0.0.1" && malformed.is_empty(), "HSRP packet is wrong: {row}");
        match (opcode, state, virtual_mac) {
            ("0", "16", true) => active += 1,
            ("0", "8", false) => standby += 1,
            // Speak, on the way to one of them; Resign and Coup.
            ("0", "4", false) | ("1" | "2", _, _) => {}
            _ => anyhow::bail!("HSRP packet is wrong: {row}"),
        }
    }
    Ok((active, standby))
}

fn status(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Runs a test command, passes its output on and counts its results.
fn counted(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cargo test")?;
    for line in BufReader::new(child.stdout.take().context("pipe")?).lines() {
        let line = line?;
        tally.line(&line);
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_add_up() {
        let mut tally = Tally::default();
        tally.line("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.50s");
        tally.line("running 5 tests");
        tally.line("running 1 test");
        tally.line("test result: ok. 1 passed; 0 failed; 0 ignored");
        tally.line("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (15, 2, 1));
        assert_eq!(tally.summary(), "test result: FAILED. 15 passed; 2 failed; 1 ignored");
    }

    #[test]
    fn a_part_that_broke_without_a_failed_test_fails_all() {
        let mut tally = Tally { passed: 5, ..Tally::default() };
        tally.counted("cargo test", false, 0);
        assert!(!tally.ok());
        assert_eq!(tally.failed, 1);
        let nothing = Tally::default();
        assert!(!nothing.ok(), "no test at all is no success");
    }

    #[test]
    fn hsrp_rows_are_counted_and_a_wrong_one_is_found() {
        let good =
            "0\t16\t40.0.0.1\t00:00:0c:07:ac:02\t1\t\n0\t8\t40.0.0.1\t92:18:65:83:80:52\t1\t\n0\t4\t40.0.0.1\t92:18:65:83:80:52\t1\t\n";
        assert_eq!(hsrp_rows(good).unwrap(), (1, 1));
        for wrong in [
            "0\t16\t40.0.0.1\t92:18:65:83:80:52\t1\t",
            "0\t16\t40.0.0.1\t00:00:0c:07:ac:02\t255\t",
            "0\t16\t40.0.0.1\t00:00:0c:07:ac:02\t1\tx",
        ] {
            assert!(hsrp_rows(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn integration_binaries_are_found_among_cargos_messages() {
        let text = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"gateway_tests"},"profile":{"test":true},"executable":"/t/lib"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"xfrm_kernel"},"profile":{"test":true},"executable":"/t/xfrm"}
not json"#;
        assert_eq!(binaries_in(text), [("xfrm_kernel".to_owned(), PathBuf::from("/t/xfrm"))]);
    }
}
