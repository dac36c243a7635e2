//! Init of the guest: this binary is process 1 of a kernel that has ESP, with the host's file system as its own.
//!
//! The root stays read-only; only the run's folder is mounted writable. The job comes as a file named by `GWLAB_JOB`, its
//! results go to `rc.json` in the run's folder: the guest kernel's own exit status says nothing.

use super::sys;
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Names the job file; set on the kernel's command line.
pub const JOB_ENV: &str = "GWLAB_JOB";
/// The console line before the first line of the job.
pub const BEGIN: &str = "gwlab: begin";
/// The console line after the last line of the job.
pub const END: &str = "gwlab: end";

/// Modules the lab needs; built-in ones are no error.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "macvlan",
    "tun",
    "dummy",
    "af_packet",
    "esp4",
    "ah4",
    "xfrm_user",
    "xfrm_algo",
    "xfrm4_tunnel",
    "authenc",
    "cbc",
    "ctr",
    "gcm",
    "seqiv",
    "echainiv",
    "aes_generic",
    "des_generic",
    "md5",
    "sha1_generic",
    "sha256_generic",
    "sha512_generic",
    "hmac",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_netem",
];

/// Namespace that keeps one SA of each suite.
const WARM_UP: &str = "gwlab-warm";

/// What the guest shall do.
#[derive(Serialize, Deserialize, Debug)]
pub struct Job {
    /// The run's folder, the only writable one.
    pub dir: PathBuf,
    /// Folder with the guest kernel's modules by version; `None` when they are at the usual place.
    pub modules: Option<PathBuf>,
    /// True when the run's folder has to be mounted by `hostfs` (user-mode Linux).
    pub hostfs: bool,
    /// Commands, in order.
    pub commands: Vec<JobCommand>,
}

/// One command of a job.
#[derive(Serialize, Deserialize, Debug)]
pub struct JobCommand {
    /// Name in the results.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment added to the guest's.
    pub env: Vec<(String, String)>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Limit in seconds.
    pub timeout_s: u64,
}

/// How a command ended.
#[derive(Serialize, Deserialize, Debug)]
pub struct JobResult {
    /// Name of the command.
    pub name: String,
    /// Exit status; `None` when a signal or the time limit ended it.
    pub code: Option<i32>,
}

/// Process 1: never returns.
pub fn init() -> ! {
    if let Err(error) = run() {
        println!("gwlab: init failed: {error:#}");
    }
    nix::unistd::sync();
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF);
    loop {
        sys::sleep_ms(1000);
    }
}

fn run() -> Result<()> {
    let job_file = std::env::var(JOB_ENV).context("the kernel's command line names no job")?;
    let job: Job = serde_json::from_str(&std::fs::read_to_string(&job_file).context(job_file)?)?;
    prepare(&job)?;
    println!("{BEGIN}");
    let mut results = Vec::new();
    for command in &job.commands {
        let code = run_one(command).unwrap_or_else(|error| {
            println!("gwlab: {}: {error:#}", command.name);
            None
        });
        results.push(JobResult { name: command.name.clone(), code });
        std::fs::write(job.dir.join("rc.json"), serde_json::to_vec(&results)?)?;
    }
    println!("{END}");
    Ok(())
}

fn prepare(job: &Job) -> Result<()> {
    // SAFETY: process 1 has one thread at this point, so nothing reads the environment meanwhile.
    unsafe {
        std::env::set_var("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        std::env::set_var("HOME", "/run");
        std::env::set_var("TMPDIR", "/run/tmp");
        std::env::set_var(super::capture::SCRATCH_ENV, "/run/tmp");
    }
    let nothing: Option<&str> = None;
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), nothing).with_context(|| format!("mount {kind} on {at}"))?;
    }
    if !Path::new("/dev/null").exists() || job.hostfs {
        // Most kernels mount it themselves; a second time is refused and harmless.
        let _ = mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), MsFlags::empty(), nothing);
    }
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), nothing).context("mount bpffs")?;
    for dir in ["/run/netns", "/run/tmp", "/run/lock"] {
        std::fs::create_dir_all(dir)?;
    }
    if job.hostfs {
        let dir = job.dir.to_str().context("the run's folder is not UTF-8")?;
        mount(Some("none"), dir, Some("hostfs"), MsFlags::empty(), Some(dir)).with_context(|| format!("mount {dir} writable"))?;
    }
    if let Some(modules) = &job.modules {
        // `modprobe -d` wants DIR/lib/modules; the kernel's own requests come back to this binary (`modprobe` below).
        std::fs::create_dir_all("/run/modroot/lib")?;
        std::os::unix::fs::symlink(modules, "/run/modroot/lib/modules")?;
        std::fs::write("/proc/sys/kernel/modprobe", std::env::current_exe()?.as_os_str().as_encoded_bytes())?;
    }
    let mut modprobe = Command::new("modprobe");
    if job.modules.is_some() {
        modprobe.args(["-d", "/run/modroot"]);
    }
    // Some of them are built in or absent in one kernel or the other; what the lab really lacks fails by name where it is used.
    let _ = modprobe.arg("-aq").args(MODULES).status();
    warm_up();
    // One CPU receives for seven machines here.
    let _ = std::fs::write("/proc/sys/net/core/netdev_max_backlog", "20000");
    let _ = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    Ok(())
}

/// The kernel loads, tests and combines algorithms when the first SA wants them, and whoever installs that SA waits, here for a second.
/// A router has done that long before its first failover.
fn warm_up() {
    let _ = Command::new("ip").args(["netns", "add", WARM_UP]).status();
    for (auth, cut, auth_key, enc, enc_key) in [("hmac(sha256)", 128, 32, "cbc(aes)", 32), ("hmac(sha1)", 96, 20, "cbc(des3_ede)", 24)] {
        // Three different parts: 3DES refuses keys whose parts are equal.
        let key = |len: usize| (0..len).map(|i| format!("{:02x}", 17 + 5 * i)).collect::<String>();
        let state = format!(
            "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi {cut} mode tunnel auth-trunc {auth} 0x{} {cut} enc {enc} 0x{}",
            key(auth_key),
            key(enc_key)
        );
        let _ = Command::new("ip").args(["-n", WARM_UP]).args(state.split(' ')).status();
    }
    // The namespace stays: while an SA uses an algorithm, the kernel keeps it.
}

/// The kernel's request for a module (`kernel.modprobe` points at this binary): answers the exit status.
pub fn modprobe(args: &[String]) -> i32 {
    Command::new("/sbin/modprobe").args(["-d", "/run/modroot"]).args(args).status().ok().and_then(|s| s.code()).unwrap_or(1)
}

fn run_one(command: &JobCommand) -> Result<Option<i32>> {
    use std::os::unix::process::CommandExt;
    let (program, args) = command.argv.split_first().context("empty command")?;
    let mut child = Command::new(program)
        .args(args)
        .envs(command.env.iter().map(|(k, v)| (k, v)))
        .current_dir(&command.cwd)
        .process_group(0)
        .spawn()
        .with_context(|| program.clone())?;
    let end = Instant::now() + Duration::from_secs(command.timeout_s);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() > end {
            println!("gwlab: {} took longer than {} s", command.name, command.timeout_s);
            sys::kill_group(child.id());
            child.wait()?;
            return Ok(None);
        }
        sys::sleep_ms(50);
    }
}
