//! `cargo xtask setup`: installs and builds what is missing, and says so.

use crate::guest::{self, Kernel};
use crate::host::{has_program, is_root, run, run_quiet, say, target};
use crate::{GuestChoice, ebpf};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian packages by a file each of them brings, and why.
const LAB_PACKAGES: &[(&str, &str, &str)] = &[
    ("/usr/sbin/charon-systemd", "charon-systemd", "the remote peer's IKE daemon"),
    ("/usr/sbin/swanctl", "strongswan-swanctl", "the remote peer's command line"),
    ("/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins", "the remote peer's ciphers"),
    ("/sbin/ip", "iproute2", "network namespaces"),
    ("/sbin/modprobe", "kmod", "kernel modules"),
    ("/usr/bin/tshark", "tshark", "a second reader of the lab's captures"),
    ("/usr/bin/certutil", "libnss3-tools", "the other remote peer's certificates"),
    ("/usr/lib/x86_64-linux-gnu/libldns.so.3", "libldns3", "a library of the other remote peer"),
    ("/usr/lib/x86_64-linux-gnu/libunbound.so.8", "libunbound8", "a library of the other remote peer"),
    ("/usr/lib/x86_64-linux-gnu/libevent_pthreads-2.1.so.7", "libevent-pthreads-2.1-7", "a library of the other remote peer"),
    ("/usr/lib/x86_64-linux-gnu/libcurl-nss.so.4", "libcurl3-nss", "a library of the other remote peer"),
];

/// The other remote peer. Debian does not let it stand beside strongSwan, so it is fetched and unpacked, never installed.
const LIBRESWAN: &str = "libreswan";

/// Everything a build, the demo and the tests need.
pub fn everything(root: &Path) -> Result<()> {
    toolchain(root)?;
    lab(root, GuestChoice::Auto).map(drop)
}

/// What a plain `cargo build` needs: bpf-linker, core's sources for the eBPF target, the eBPF objects.
pub fn toolchain(root: &Path) -> Result<()> {
    ebpf::setup().context("eBPF toolchain")?;
    ebpf::build(root).context("eBPF build").map(drop)
}

/// What the lab needs, the kernel included; answers which kernel it is.
pub fn lab(root: &Path, choice: GuestChoice) -> Result<Kernel> {
    ensure!(is_root(), "the lab makes network namespaces and needs root: run it with sudo");
    let missing: Vec<_> =
        LAB_PACKAGES.iter().filter(|(file, _, _)| !Path::new(file).exists()).map(|(_, package, why)| (*package, *why)).collect();
    install(&missing)?;
    unpack_libreswan(root)?;
    let kernel = guest::choose(root, choice)?;
    install(&guest::missing_packages(&kernel))?;
    guest::prepare(root, &kernel)?;
    Ok(kernel)
}

/// Folder into which libreswan is unpacked.
pub fn libreswan(root: &Path) -> PathBuf {
    target(root).join(LIBRESWAN)
}

fn unpack_libreswan(root: &Path) -> Result<()> {
    let folder = libreswan(root);
    if folder.join("usr/libexec/ipsec/pluto").exists() {
        return Ok(());
    }
    say("fetching libreswan: the other remote peer (unpacked below target, not installed)");
    let fetched = target(root).join("libreswan.download");
    let _ = std::fs::remove_dir_all(&fetched);
    std::fs::create_dir_all(&fetched)?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.current_dir(&fetched).args(["-q", "download", LIBRESWAN]);
        command
    };
    if run_quiet(&mut download()).is_err() {
        say("updating the package lists: the download failed with those that are here");
        run_quiet(Command::new("apt-get").args(["-q", "update"]))?;
        run(&mut download())?;
    }
    let package = std::fs::read_dir(&fetched)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get download {LIBRESWAN} left no package in {}", fetched.display()))?;
    let _ = std::fs::remove_dir_all(&folder);
    run_quiet(Command::new("dpkg").arg("-x").args([&package, &folder]))?;
    let _ = std::fs::remove_dir_all(&fetched);
    Ok(())
}

/// Installs Debian packages, each with its reason.
pub fn install(packages: &[(&str, &str)]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    ensure!(has_program("apt-get"), "missing: {}; this machine has no apt-get, install them by hand", names(packages));
    for (package, why) in packages {
        say(&format!("installing {package}: {why}"));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y", "--no-remove", "-o", "DPkg::Lock::Timeout=300"]);
        command
    };
    let wanted: Vec<&str> = packages.iter().map(|(p, _)| *p).collect();
    let result = run_quiet(apt().args(["install", "--no-install-recommends"]).args(&wanted));
    if result.is_err() {
        say("updating the package lists: the installation failed with those that are here");
        run_quiet(apt().arg("update"))?;
        run(apt().args(["install", "--no-install-recommends"]).args(&wanted))?;
    }
    // Debian starts some daemons on installation; the lab runs its own, each in a namespace.
    if wanted.contains(&"charon-systemd") && Path::new("/run/systemd/system").exists() {
        let _ = run_quiet(Command::new("systemctl").args(["disable", "--now", "strongswan.service"]));
    }
    Ok(())
}

fn names(packages: &[(&str, &str)]) -> String {
    packages.iter().map(|(p, _)| *p).collect::<Vec<_>>().join(", ")
}
