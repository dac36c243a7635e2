//! The second guest: QEMU without KVM on an unpacked Debian kernel package. Two CPUs, BTF and JIT, but ten to thirty times slower.

use crate::host::{run_quiet, say, target};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's meta package of the kernel.
const KERNEL_PACKAGE: &str = "linux-image-amd64";
/// Modules the boot needs before the root is there.
const BOOT_MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];

/// QEMU as installed, or unpacked beside the build.
const QEMU: &str = "usr/bin/qemu-system-x86_64";
/// Debian's package of it.
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// Folders of an unpacked QEMU with its firmware.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Packages that are not here, with the reason.
pub fn missing_packages() -> Vec<(&'static str, &'static str)> {
    let here = ["/usr/bin/busybox", "/bin/busybox"].into_iter().any(|file| Path::new(file).exists());
    if here { Vec::new() } else { vec![("busybox-static", "first programs of the guest")] }
}

/// Root of the QEMU to use: `/`, or the folder it was unpacked to.
fn qemu_root(root: &Path) -> Option<PathBuf> {
    [PathBuf::from("/"), target(root).join("guest-qemu")].into_iter().find(|base| base.join(QEMU).exists())
}

/// Fetches QEMU and the libraries it lacks, and unpacks them: an installation may want to remove packages of this machine.
fn prepare_qemu(root: &Path) -> Result<()> {
    if qemu_root(root).is_some() {
        return Ok(());
    }
    let plan =
        || Command::new("apt-get").args(["install", "-s", "-q", "--no-install-recommends", QEMU_PACKAGE]).output().context("apt-get");
    let mut out = plan()?;
    if !out.status.success() {
        run_quiet(Command::new("apt-get").args(["-q", "update"]))?;
        out = plan()?;
    }
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let packages: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("Inst ")?.split(' ').next()).collect();
    ensure!(packages.contains(&QEMU_PACKAGE), "apt-get finds no {QEMU_PACKAGE}: {}", String::from_utf8_lossy(&out.stderr).trim());
    let dir = target(root).join("guest-qemu.part");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    say(&format!("fetching {QEMU_PACKAGE} and {} packages it needs: unpacked beside the build and not installed", packages.len() - 1));
    run_quiet(Command::new("apt-get").current_dir(&dir).args(["-q", "download"]).args(&packages))?;
    let files: Vec<PathBuf> =
        std::fs::read_dir(&dir)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "deb")).collect();
    for file in files {
        run_quiet(Command::new("dpkg").arg("-x").arg(&file).arg(&dir))?;
        std::fs::remove_file(&file)?;
    }
    ensure!(dir.join(QEMU).exists(), "{QEMU_PACKAGE} holds no {QEMU}");
    std::fs::rename(&dir, target(root).join("guest-qemu")).context("guest-qemu")
}

fn kernel_dir(root: &Path) -> PathBuf {
    target(root).join("guest-kernel")
}

/// Folder with the modules by version, and the version.
fn modules(root: &Path) -> Result<(PathBuf, String)> {
    let dir = kernel_dir(root);
    for base in [dir.join("usr"), dir.clone()] {
        if let Ok(mut entries) = std::fs::read_dir(base.join("lib/modules"))
            && let Some(Ok(entry)) = entries.next()
        {
            return Ok((base, entry.file_name().to_string_lossy().into_owned()));
        }
    }
    anyhow::bail!("no kernel in {}", dir.display())
}

/// Folder of the guest kernel's modules by version.
pub fn modules_dir(root: &Path) -> Result<PathBuf> {
    Ok(modules(root)?.0.join("lib/modules"))
}

/// Fetches and unpacks QEMU and a kernel package beside the build, without installing them.
pub fn prepare(root: &Path) -> Result<()> {
    prepare_qemu(root)?;
    if modules(root).is_ok() {
        return Ok(());
    }
    let dir = kernel_dir(root);
    std::fs::create_dir_all(&dir)?;
    let out = Command::new("apt-cache").args(["depends", "--important", KERNEL_PACKAGE]).output().context("apt-cache")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let package = text.lines().filter_map(|l| l.trim().strip_prefix("Depends: ")).find(|p| p.starts_with("linux-image-"));
    let package = package.with_context(|| format!("apt knows no kernel behind {KERNEL_PACKAGE}: run apt-get update"))?;
    say(&format!("fetching {package}: a guest kernel with ESP, unpacked to {} and not installed", dir.display()));
    run_quiet(Command::new("apt-get").current_dir(&dir).args(["-q", "download", package]))?;
    let file = std::fs::read_dir(&dir)?.filter_map(|e| Some(e.ok()?.path())).find(|p| p.extension().is_some_and(|e| e == "deb"));
    let file = file.context("apt-get download left no package")?;
    run_quiet(Command::new("dpkg").arg("-x").arg(&file).arg(&dir))?;
    std::fs::remove_file(&file)?;
    let (base, version) = modules(root)?;
    run_quiet(Command::new("depmod").arg("-b").arg(&base).arg(&version))
}

/// The command that boots the guest with `init` as its process 1.
pub fn command(root: &Path, dir: &Path, init: &Path, job_file: &Path) -> Result<Command> {
    let (base, version) = modules(root)?;
    let initrd = dir.join("initrd");
    std::fs::write(&initrd, initrd_archive(&base, &version, dir, init, job_file)?)?;
    let kernel = kernel_dir(root).join(format!("boot/vmlinuz-{version}"));
    ensure!(kernel.exists(), "{} is missing", kernel.display());
    let qemu = qemu_root(root).context("QEMU is not here")?;
    let mut command = Command::new(qemu.join(QEMU));
    if qemu != Path::new("/") {
        let libraries = qemu.join("usr/lib/x86_64-linux-gnu");
        command.env("LD_LIBRARY_PATH", &libraries);
        for firmware in FIRMWARE {
            command.arg("-L").arg(qemu.join(firmware));
        }
    }
    command.args(["-accel", "tcg,thread=multi", "-M", "q35", "-m", "2048", "-smp", "2"]);
    // cmpxchg16b as QEMU emulates it crashes the kernel now and then.
    command.args(["-cpu", "max,-cx16", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-monitor", "none"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(&initrd);
    command.args(["-append", "console=ttyS0 panic=-1 quiet loglevel=3 mitigations=off"]);
    for (id, path, mode) in [("root", Path::new("/"), "readonly=on"), ("run", dir, "readonly=off")] {
        let path = path.to_str().context("path is not UTF-8")?;
        command.arg("-fsdev").arg(format!("local,id={id},path={path},security_model=none,multidevs=remap,{mode}"));
        command.arg("-device").arg(format!("virtio-9p-pci,fsdev={id},mount_tag={id}"));
    }
    Ok(command)
}

/// A cpio archive with busybox, the boot modules and the script that mounts the root and hands over.
fn initrd_archive(base: &Path, version: &str, dir: &Path, init: &Path, job_file: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for folder in ["bin", "mod", "proc", "newroot", "dev"] {
        archive.add(folder, 0o040_755, &[])?;
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find_map(|p| std::fs::read(p).ok()).context("busybox is missing")?;
    archive.add("bin/busybox", 0o100_755, &busybox)?;
    let mut script = String::from("#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\n");
    let mut known = Vec::new();
    for module in BOOT_MODULES {
        let out =
            Command::new("modprobe").arg("-d").arg(base).args(["-S", version, "--show-depends", module]).output().context("modprobe")?;
        for path in String::from_utf8_lossy(&out.stdout).lines().filter_map(|l| l.strip_prefix("insmod ")).map(str::trim) {
            let path = Path::new(path.split(' ').next().unwrap_or(path));
            let name = path.file_name().context("module")?.to_string_lossy().into_owned();
            if !known.contains(&name) {
                archive.add(&format!("mod/{name}"), 0o100_644, &std::fs::read(path).with_context(|| path.display().to_string())?)?;
                script += &match name.strip_suffix(".xz") {
                    Some(_) => format!("/bin/busybox xzcat /mod/{name} > /mod/x.ko; /bin/busybox insmod /mod/x.ko\n"),
                    None => format!("/bin/busybox insmod /mod/{name}\n"),
                };
                known.push(name);
            }
        }
    }
    let nine = "trans=virtio,version=9p2000.L,msize=1048576,cache=mmap";
    script += &format!(
        "/bin/busybox mount -t 9p -o {nine},ro root /newroot\n\
         /bin/busybox mount -t 9p -o {nine} run /newroot{}\n\
         /bin/busybox mount -t devtmpfs dev /newroot/dev\n\
         export GWLAB_JOB={}\n\
         exec /bin/busybox switch_root /newroot {}\n",
        dir.display(),
        job_file.display(),
        init.display()
    );
    archive.add("init", 0o100_755, script.as_bytes())?;
    Ok(archive.finish()?)
}

/// A "newc" cpio archive (Linux: Documentation/driver-api/early-userspace/buffer-format).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
        self.entries += 1;
        write!(self.bytes, "070701")?;
        let size = u32::try_from(content.len()).map_err(std::io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(std::io::Error::other)?;
        // inode, mode, uid, gid, links, mtime, size, device major and minor (twice), name length, checksum
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            write!(self.bytes, "{field:08x}")?;
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> std::io::Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_aligned_entries_and_a_trailer() {
        let mut archive = Cpio::default();
        archive.add("init", 0o100_755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        // Header 110 bytes, name with NUL 5, padded to 116.
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }
}
