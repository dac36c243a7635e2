//! Builds the eBPF object, and sets up what that needs.
//!
//! The toolchain is a rustup nightly with `rust-src` where there is one, else Debian's `rustc-web` with `RUSTC_BOOTSTRAP=1`.
//! The linker is `bpf-linker`, built against a system LLVM. The object is reproducible: paths are remapped, one codegen unit.

use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Rust's name of the little-endian eBPF target.
const TARGET: &str = "bpfel-unknown-none";
/// The linker's version and the LLVM it is built against: rustc's own must not be newer.
const LINKER_VERSION: &str = "0.13.0";
const LLVM_FEATURE: &str = "llvm-22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian's compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// Debian packages: compiler with sources, cargo, and what linking `bpf-linker` asks for.
const PACKAGES: [&str; 6] = ["rustc-web", "rust-web-src", "cargo-web", "llvm-22-dev", "libzstd-dev", "zlib1g-dev"];
/// Variables of the outer cargo that must not reach the inner one.
const OUTER: [&str; 10] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A compiler that can build `core` for eBPF.
#[derive(Debug)]
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// Not a nightly: unstable flags have to be allowed.
    bootstrap: bool,
}

/// Builds `<root>/target/ebpf/gateway-ebpf.o`, or leaves it when nothing it is made from has changed.
///
/// # Errors
/// When a tool is missing ([`missing`] names them, [`setup`] installs them) or the build fails.
pub fn build(root: &Path) -> Result<PathBuf> {
    // The compiler writes canonical paths, which the remapping must meet.
    let root = &root.canonicalize().with_context(|| format!("no repository at {}", root.display()))?;
    let toolchain = toolchain().context("no compiler for eBPF: run cargo xtask setup")?;
    let linker = linker().context("no bpf-linker: run cargo xtask setup")?;
    let out = root.join("target/ebpf");
    let object = out.join("gateway-ebpf.o");
    let stamp = root.join("target/ebpf-build/stamp");
    let inputs = fingerprint(root, &toolchain, &linker)?;
    if object.exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == inputs) {
        return Ok(object);
    }
    let target_dir = root.join("target/ebpf-build");
    let mut command = Command::new(&toolchain.cargo);
    command
        .current_dir(root.join("gateway-ebpf"))
        .args(["build", "--release", "--locked", "--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir);
    for variable in OUTER {
        command.env_remove(variable);
    }
    command
        .env("PATH", path_with(linker.parent()))
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, &toolchain)?.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    if toolchain.bootstrap {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    let status = command.status().with_context(|| format!("cannot start {}", toolchain.cargo.display()))?;
    ensure!(status.success(), "the eBPF build failed ({status})");
    fs::create_dir_all(&out)?;
    let built = target_dir.join(TARGET).join("release/gateway-ebpf");
    // Whoever reads the object meanwhile sees the old or the new one.
    let fresh = target_dir.join("gateway-ebpf.o.new");
    fs::copy(&built, &fresh).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&fresh, &object)?;
    fs::write(&stamp, inputs)?;
    Ok(object)
}

/// What has to be installed, in words; empty when [`build`] can start.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if toolchain().is_none() {
        missing.push("a Rust compiler that can build for eBPF (rustup nightly with rust-src, or Debian's rustc-web)".into());
    }
    if linker().is_none() {
        missing.push(format!("bpf-linker {LINKER_VERSION}"));
    }
    missing
}

/// Installs what is missing. Prints one line per step, asks nothing.
///
/// # Errors
/// When a step fails; its own output has been shown.
pub fn setup() -> Result<()> {
    let need_compiler = toolchain().is_none();
    let need_linker = linker().is_none();
    if !need_compiler && !need_linker {
        println!("eBPF toolchain: nothing to do");
        return Ok(());
    }
    let packages: Vec<&str> = PACKAGES.into_iter().filter(|p| !installed(p)).collect();
    if !packages.is_empty() {
        let why = "compiles the eBPF programs and links them";
        crate::setup::install(&packages.iter().map(|p| (*p, why)).collect::<Vec<_>>())?;
    }
    if need_linker {
        println!("cargo install bpf-linker {LINKER_VERSION} (a few minutes)");
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["install", "--quiet", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"])
            .args(["--features", LLVM_FEATURE])
            .env("LLVM_PREFIX", LLVM_PREFIX);
        for variable in OUTER.into_iter().filter(|v| *v != "CARGO" && *v != "RUSTUP_TOOLCHAIN") {
            command.env_remove(variable);
        }
        run(&mut command)?;
    }
    let left = missing();
    ensure!(left.is_empty(), "still missing: {}", left.join(", "));
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// True when dpkg has the package.
fn installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_some_and(|status| status == "installed")
}

/// Standard output of a command that succeeds, trimmed.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn toolchain() -> Option<Toolchain> {
    nightly().or_else(debian)
}

/// A rustup nightly that has `core`'s sources.
fn nightly() -> Option<Toolchain> {
    let list = output(Command::new("rustup").args(["toolchain", "list"]))?;
    list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with("nightly")).find_map(|name| {
        let which = |tool| output(Command::new("rustup").args(["which", "--toolchain", name, tool])).map(PathBuf::from);
        let (cargo, rustc) = (which("cargo")?, which("rustc")?);
        has_core(&rustc).then_some(Toolchain { cargo, rustc, bootstrap: false })
    })
}

fn debian() -> Option<Toolchain> {
    let (cargo, rustc) = (PathBuf::from(DEBIAN_CARGO), PathBuf::from(DEBIAN_RUSTC));
    (cargo.exists() && rustc.exists() && has_core(&rustc)).then_some(Toolchain { cargo, rustc, bootstrap: true })
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    command.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
    output(&mut command).map(PathBuf::from)
}

fn has_core(rustc: &Path) -> bool {
    sysroot(rustc).is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// `bpf-linker` on the PATH or where cargo installs.
fn linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.exists())
}

fn path_with(first: Option<&Path>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = first.map(Path::to_owned).into_iter().chain(env::split_paths(&path));
    env::join_paths(folders).unwrap_or(path)
}

/// Flags of the eBPF compiler. Debug information becomes BTF; no path of this machine gets into it.
fn flags(root: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let sysroot = sysroot(&toolchain.rustc).context("rustc does not know its sysroot")?;
    let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
    let remap = [(Some(root.to_owned()), "/gateway"), (cargo_home(), "/cargo"), (Some(sysroot), "/rust")];
    for (from, to) in remap {
        if let Some(from) = from {
            flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        }
    }
    Ok(flags)
}

/// What the object depends on, as text: a hash of the sources, the lock file and the tools' versions.
fn fingerprint(root: &Path, toolchain: &Toolchain, linker: &Path) -> Result<String> {
    let mut files = vec![root.join("Cargo.lock"), root.join("Cargo.toml")];
    for folder in ["gateway-ebpf", "gateway-common"] {
        list(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.strip_prefix(root).unwrap_or(&file).hash(&mut hasher);
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
    }
    flags(root, toolchain)?.hash(&mut hasher);
    let mut rustc = Command::new(&toolchain.rustc);
    output(rustc.arg("-Vv").env_remove("RUSTUP_TOOLCHAIN")).hash(&mut hasher);
    output(Command::new(linker).arg("--version")).hash(&mut hasher);
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_goes_first_on_the_path() {
        let path = path_with(Some(Path::new("/opt/linker")));
        assert_eq!(env::split_paths(&path).next(), Some(PathBuf::from("/opt/linker")));
    }

    #[test]
    fn flags_hide_where_the_repository_is() {
        let toolchain = Toolchain { cargo: "cargo".into(), rustc: "rustc".into(), bootstrap: true };
        let flags = flags(Path::new("/some/where"), &toolchain).expect("flags");
        assert!(flags.iter().any(|f| f == "--remap-path-prefix=/some/where=/gateway"));
    }
}
