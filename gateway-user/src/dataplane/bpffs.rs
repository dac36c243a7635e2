//! The BPF file system under the pin directory.
//!
//! `ip netns exec` gives a process a mount namespace of its own, and a mount made there ends with it; so pins are made in the
//! mount namespace of PID 1, reached through `/proc/1/root`.

use super::{failed, refused};
use crate::ports::PortResult;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `BPF_FS_MAGIC`.
const BPF_FS: FsType = FsType(0xcafe_4a11_u32 as _);
/// The usual mount point.
const USUAL: &str = "/sys/fs/bpf";

/// Makes `pin_dir` a folder on a BPF file system; answers the path to use for it.
pub(super) fn prepare(pin_dir: &Path) -> PortResult<PathBuf> {
    if !pin_dir.is_absolute() || pin_dir.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(refused("pin directory", pin_dir.display().to_string(), "must be an absolute path without .."));
    }
    if own_mount_namespace() {
        match prepare_in(&host_path(pin_dir), pin_dir, mount_in_host) {
            Ok(path) => return Ok(path),
            Err(error) => tracing::warn!(
                %error,
                "no BPF file system in the mount namespace of PID 1: pinned in this one, so a restart of this process cannot adopt it"
            ),
        }
    }
    prepare_in(pin_dir, pin_dir, mount_here)
}

/// The path to use for a pin directory that is there already, without mounting anything.
pub(super) fn existing(pin_dir: &Path) -> Option<PathBuf> {
    let host = host_path(pin_dir);
    let candidates = if own_mount_namespace() { vec![host, pin_dir.to_owned()] } else { vec![pin_dir.to_owned()] };
    candidates.into_iter().find(|p| is_bpffs(p))
}

fn prepare_in(path: &Path, name: &Path, mount_at: fn(&Path) -> std::io::Result<()>) -> PortResult<PathBuf> {
    let io = |e| crate::ports::PortError { call: "bpffs", object: name.display().to_string(), source: e };
    if is_bpffs(path) {
        return Ok(path.to_owned());
    }
    // Folders cannot be made in sysfs, so the usual mount point comes first.
    if name.starts_with(USUAL) {
        let usual = path.ancestors().nth(name.strip_prefix(USUAL).map_or(0, |rest| rest.components().count()));
        if usual.is_some_and(|u| !is_bpffs(u)) {
            mount_at(Path::new(USUAL)).map_err(io)?;
        }
        fs::create_dir_all(path).map_err(io)?;
    } else {
        fs::create_dir_all(path).map_err(io)?;
        if !is_bpffs(path) {
            mount_at(name).map_err(io)?;
        }
    }
    if is_bpffs(path) {
        Ok(path.to_owned())
    } else {
        Err(refused("bpffs", name.display().to_string(), "mounted, but not a BPF file system"))
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == BPF_FS)
}

fn own_mount_namespace() -> bool {
    match (fs::read_link("/proc/self/ns/mnt"), fs::read_link("/proc/1/ns/mnt")) {
        (Ok(ours), Ok(host)) => ours != host,
        // Without /proc there is no other way than this one.
        _ => false,
    }
}

fn host_path(path: &Path) -> PathBuf {
    match path.strip_prefix("/") {
        Ok(relative) => Path::new("/proc/1/root").join(relative),
        Err(_) => path.to_owned(),
    }
}

fn mount_here(target: &Path) -> std::io::Result<()> {
    mount(Some("bpf"), target, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(Into::into)
}

/// A mount namespace can only be entered by a process with one thread, hence the child.
fn mount_in_host(target: &Path) -> std::io::Result<()> {
    let output = Command::new("nsenter")
        .args(["--mount=/proc/1/ns/mnt", "mount", "-t", "bpf", "bpf"])
        .arg(target)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Removes a pin; absent is fine.
pub(super) fn unpin(path: &Path) -> PortResult<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("unpin", path.display().to_string(), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_directory_must_be_absolute_and_plain() {
        assert!(prepare(Path::new("run/bpf")).is_err());
        assert!(prepare(Path::new("/run/../bpf")).is_err());
    }

    #[test]
    fn the_host_path_goes_through_pid_1() {
        assert_eq!(host_path(Path::new("/run/gateway/bpf")), Path::new("/proc/1/root/run/gateway/bpf"));
    }
}
