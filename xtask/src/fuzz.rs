//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, with coverage feedback, on the stable compiler.

use crate::host::{cargo, run, say, target};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Coverage feedback as libFuzzer wants it; code-generation flags, so that stable takes them.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest input, bytes.
const INPUT_BYTES_MAX: u32 = 4096;
/// One input that takes longer hangs.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory of the whole process above which a target leaks.
const MEMORY_MB_MAX: u32 = 2048;

/// Options of the fuzzing.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Targets (a folder of `tests/corpus` each); none = all.
    targets: Vec<String>,
    /// Time for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Put what reaches new code into `tests/corpus`, as few inputs as possible.
    #[arg(long)]
    keep: bool,
}

/// Builds and runs; an input that fails is left in `target/fuzz/TARGET` and named.
pub fn fuzz(root: &Path, options: &Options) -> Result<()> {
    let dir = target(root).join("fuzz");
    std::fs::create_dir_all(&dir)?;
    say("building the fuzz targets with coverage feedback");
    let build = ["build", "--release", "--quiet", "--target-dir"];
    // An explicit target keeps the flags away from build scripts and macros.
    let triple = host_triple()?;
    let manifest = root.join("tests/fuzz/Cargo.toml");
    run(cargo(root).env("RUSTFLAGS", FLAGS).args(build).arg(&dir).arg("--target").arg(&triple).arg("--manifest-path").arg(manifest))?;
    let program = dir.join(&triple).join("release/gateway-fuzz");
    let names = if options.targets.is_empty() { all(root)? } else { options.targets.clone() };
    for name in names {
        let corpus = root.join("tests/corpus").join(&name);
        ensure!(corpus.is_dir(), "there is no target `{name}`: {} is missing", corpus.display());
        one(&program, &name, &corpus, &dir.join(&name), options)?;
    }
    Ok(())
}

fn all(root: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(root.join("tests/corpus"))
        .context("tests/corpus")?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn host_triple() -> Result<String> {
    let out = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find_map(|l| l.strip_prefix("host: ")).map(str::to_owned).context("rustc -vV names no host")
}

fn one(program: &Path, name: &str, corpus: &Path, work: &Path, options: &Options) -> Result<()> {
    say(&format!("fuzzing {name} for {} s", options.seconds));
    let found = work.join("found");
    std::fs::create_dir_all(&found)?;
    let limits = [format!("-max_len={INPUT_BYTES_MAX}"), format!("-timeout={INPUT_SECONDS_MAX}"), format!("-rss_limit_mb={MEMORY_MB_MAX}")];
    let command = |more: &[String], folders: &[&PathBuf]| {
        let mut c = Command::new(program);
        c.env("GATEWAY_FUZZ_TARGET", name).args(&limits).arg("-verbosity=0").args(more).args(folders);
        c
    };
    // The target writes its valid inputs at its first call.
    run(command(&["-runs=1".into()], &[]).env("GATEWAY_FUZZ_SEEDS", &found))?;
    let artifacts = format!("-artifact_prefix={}/", work.display());
    run(&mut command(&[artifacts, format!("-max_total_time={}", options.seconds)], &[&found, &corpus.to_owned()]))
        .with_context(|| format!("{name} failed: put the input in {} into {}", work.display(), corpus.display()))?;
    if options.keep {
        run(&mut command(&["-merge=1".into()], &[&corpus.to_owned(), &found]))?;
    }
    Ok(())
}
