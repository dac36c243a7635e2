//! The BPF file system under the pin directory.
//!
//! `ip netns exec` gives a process a mount namespace of its own, and a mount made there ends with it; so pins are made in the
//! mount namespace of PID 1, or where that may not be entered (containers) of the outermost parent, reached through `/proc/PID/root`.

use super::{failed, refused};
use crate::ports::PortResult;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `BPF_FS_MAGIC`.
const BPF_FS: FsType = FsType(0xcafe_4a11_u32 as _);
/// The usual mount point.
const USUAL: &str = "/sys/fs/bpf";

/// Most parents looked at.
const MAX_PARENTS: usize = 64;

/// A pin directory.
#[derive(Debug)]
pub(super) struct PinDir {
    /// The path to use for it in this process.
    path: PathBuf,
    /// Keeps `path` good when the process it was reached through has ended.
    _open: Option<File>,
}

impl std::ops::Deref for PinDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Makes `pin_dir` a folder on a BPF file system.
pub(super) fn prepare(pin_dir: &Path) -> PortResult<PinDir> {
    if !pin_dir.is_absolute() || pin_dir.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(refused("pin directory", pin_dir.display().to_string(), "must be an absolute path without .."));
    }
    if let Some(pid) = host_process() {
        let prepared = prepare_in(&path_in(pid, pin_dir), pin_dir, |target| mount_in(pid, target));
        match prepared.and_then(|path| hold(&path)) {
            Ok(dir) => return Ok(dir),
            Err(error) => tracing::warn!(
                %error,
                "no BPF file system outside of this mount namespace: pinned inside, so a restart of this process cannot adopt it"
            ),
        }
    }
    Ok(PinDir { path: prepare_in(pin_dir, pin_dir, mount_here)?, _open: None })
}

/// A pin directory that is there already; nothing is mounted.
pub(super) fn existing(pin_dir: &Path) -> Option<PinDir> {
    if let Some(pid) = host_process() {
        let path = path_in(pid, pin_dir);
        if is_bpffs(&path)
            && let Ok(dir) = hold(&path)
        {
            return Some(dir);
        }
    }
    is_bpffs(pin_dir).then(|| PinDir { path: pin_dir.to_owned(), _open: None })
}

/// The same folder by a path that needs no other process.
fn hold(path: &Path) -> PortResult<PinDir> {
    let open = File::open(path).map_err(|e| failed("open", path.display().to_string(), e))?;
    Ok(PinDir { path: PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())), _open: Some(open) })
}

fn prepare_in(path: &Path, name: &Path, mount_at: impl Fn(&Path) -> std::io::Result<()>) -> PortResult<PathBuf> {
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

/// The process in whose mount namespace pins last; `None` when that is our own (or cannot be told).
fn host_process() -> Option<i32> {
    let ours = fs::read_link("/proc/self/ns/mnt").ok()?;
    let mut chain = vec![1];
    let mut parents = parents();
    parents.reverse();
    chain.append(&mut parents);
    let (pid, namespace) = chain.into_iter().find_map(|pid| Some((pid, fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?)))?;
    (namespace != ours).then_some(pid)
}

/// Our parents, nearest first.
fn parents() -> Vec<i32> {
    let mut found = Vec::new();
    let mut pid = nix::unistd::getppid().as_raw();
    while pid > 1 && found.len() < MAX_PARENTS {
        found.push(pid);
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { break };
        // The name, in brackets, may hold anything; state and parent follow it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
    }
    found
}

fn path_in(pid: i32, path: &Path) -> PathBuf {
    let mut there = PathBuf::from(format!("/proc/{pid}/root"));
    there.extend(path.strip_prefix("/"));
    there
}

fn mount_here(target: &Path) -> std::io::Result<()> {
    mount(Some("bpf"), target, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(Into::into)
}

/// A mount namespace can only be entered by a process with one thread, hence the child.
fn mount_in(pid: i32, target: &Path) -> std::io::Result<()> {
    let output = Command::new("nsenter")
        .arg(format!("--mount=/proc/{pid}/ns/mnt"))
        .args(["mount", "-t", "bpf", "bpf"])
        .arg(target)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() { Ok(()) } else { Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())) }
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
    fn paths_of_another_namespace_go_through_its_root() {
        assert_eq!(path_in(1, Path::new("/run/gateway/bpf")), Path::new("/proc/1/root/run/gateway/bpf"));
    }

    #[test]
    fn the_nearest_parent_comes_first() {
        assert_eq!(parents().first().copied(), Some(nix::unistd::getppid().as_raw()));
    }
}
