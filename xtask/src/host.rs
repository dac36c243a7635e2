//! Running programs on this machine, and saying so.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's top level.
pub fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).context("xtask lies at the top of its file system")
}

/// Cargo's target folder.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// One line about what happens now.
pub fn say(text: &str) {
    println!("xtask: {text}");
}

/// Runs a command to its end; its output goes where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| describe(command))?;
    ensure!(status.success(), "{}: {status}", describe(command));
    Ok(())
}

/// Runs a command and shows its output only when it fails.
pub fn run_quiet(command: &mut Command) -> Result<()> {
    let out = command.stdin(Stdio::null()).output().with_context(|| describe(command))?;
    if !out.status.success() {
        bail!("{}: {}\n{}{}", describe(command), out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}

/// Cargo with the caller's toolchain, at the repository's top.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// True when a program is on the path.
pub fn has_program(name: &str) -> bool {
    let fixed = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(fixed).any(|dir| dir.join(name).is_file())
}

/// True when this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program()).chain(command.get_args()).map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
