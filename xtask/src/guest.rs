//! The kernel the lab runs on: this machine's, or a guest's that has ESP. The guest's process 1 is the lab binary.

use crate::host::{say, target};
use crate::{GuestChoice, lab_binary, qemu};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const UML: &str = "/usr/bin/linux.uml";
const UML_MODULES: &str = "/usr/lib/uml/modules";
const UML_MEMORY: &str = "2G";
const UML_MEMORY_BYTES: u64 = 2 << 30;
/// Lines the guest's process 1 prints around the job's output (`gateway_tests::lab::guest`).
const BEGIN: &str = "gwlab: begin";
const END: &str = "gwlab: end";
/// Time for boot and shutdown on top of the commands' own limits.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Runs kept under `target/lab`.
const RUNS_KEPT: usize = 6;

/// A kernel for the lab.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// This machine's own.
    Machine,
    /// User-mode Linux.
    Uml,
    /// QEMU with a Debian kernel package.
    Qemu,
}

impl Kernel {
    /// For people and the report.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Machine => "on this machine's kernel",
            Self::Uml => "in a user-mode Linux guest",
            Self::Qemu => "in a QEMU guest (TCG)",
        }
    }
}

/// The job file of the guest.
#[derive(Serialize)]
struct Job<'a> {
    dir: &'a Path,
    modules: Option<PathBuf>,
    hostfs: bool,
    commands: &'a [JobCommand],
}

/// A command to run on the lab's kernel.
#[derive(Clone, Serialize, Debug)]
pub struct JobCommand {
    /// Name in the results.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment added.
    pub env: Vec<(String, String)>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Limit in seconds.
    pub timeout_s: u64,
}

/// How it ended.
#[derive(Deserialize, Debug)]
pub struct JobResult {
    /// Name of the command.
    pub name: String,
    /// Exit status; `None` when a signal or the time limit ended it.
    pub code: Option<i32>,
}

impl JobResult {
    /// It succeeded.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Decides which kernel the lab runs on.
pub fn choose(_root: &Path, choice: GuestChoice) -> Result<Kernel> {
    Ok(match choice {
        GuestChoice::None => {
            ensure!(has_esp()?, "this machine's kernel cannot do ESP (CONFIG_INET_ESP, CONFIG_XFRM_USER): use --guest auto");
            Kernel::Machine
        }
        GuestChoice::Uml => Kernel::Uml,
        GuestChoice::Qemu => Kernel::Qemu,
        GuestChoice::Auto if has_esp()? => Kernel::Machine,
        GuestChoice::Auto if cfg!(target_arch = "x86_64") => {
            say("this machine's kernel has no ESP: the lab runs in a user-mode Linux guest");
            Kernel::Uml
        }
        GuestChoice::Auto => Kernel::Qemu,
    })
}

/// True when this kernel takes an ESP SA (tried in a namespace of its own).
fn has_esp() -> Result<bool> {
    let ns = format!("gwlab-try{}", std::process::id());
    let ip =
        |args: &[&str]| Command::new("ip").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().context("ip (package iproute2)");
    ensure!(ip(&["netns", "add", &ns])?.success(), "cannot make a network namespace: the lab needs root");
    let state =
        ["-n", &ns, "xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x1000", "mode", "tunnel"];
    let keys =
        ["auth-trunc", "hmac(sha256)", &format!("0x{}", "11".repeat(32)), "128", "enc", "cbc(aes)", &format!("0x{}", "22".repeat(32))];
    let works = ip(&[&state[..], &keys[..]].concat())?.success();
    ip(&["netns", "del", &ns])?;
    Ok(works)
}

/// Debian packages a kernel needs that are not here, with the reason.
pub fn missing_packages(kernel: &Kernel) -> Vec<(&'static str, &'static str)> {
    match kernel {
        Kernel::Machine => Vec::new(),
        Kernel::Uml if Path::new(UML).exists() && Path::new(UML_MODULES).exists() => Vec::new(),
        Kernel::Uml => vec![("user-mode-linux", "a guest kernel with ESP")],
        Kernel::Qemu => qemu::missing_packages(),
    }
}

/// Makes the guest kernel ready to boot.
pub fn prepare(root: &Path, kernel: &Kernel) -> Result<()> {
    match kernel {
        Kernel::Machine | Kernel::Uml => Ok(()),
        Kernel::Qemu => qemu::prepare(root),
    }
}

/// A fresh folder for a run; old runs are removed.
pub fn run_dir(root: &Path, name: &str) -> Result<PathBuf> {
    let lab = target(root).join("lab");
    std::fs::create_dir_all(&lab)?;
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let dir = lab.join(format!("{stamp}-{name}"));
    std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut runs: Vec<PathBuf> = std::fs::read_dir(&lab)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_run(p)).collect();
    runs.sort();
    for old in runs.iter().take(runs.len().saturating_sub(RUNS_KEPT)) {
        std::fs::remove_dir_all(old).with_context(|| old.display().to_string())?;
    }
    Ok(dir)
}

fn is_run(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    path.is_dir() && name.split('-').next().is_some_and(|stamp| stamp.len() > 10 && stamp.bytes().all(|b| b.is_ascii_digit()))
}

/// Runs commands on the kernel; each line they print goes to `line`.
pub fn run(root: &Path, kernel: Kernel, dir: &Path, commands: Vec<JobCommand>, line: &mut dyn FnMut(&str)) -> Result<Vec<JobResult>> {
    let limit = commands.iter().map(|c| Duration::from_secs(c.timeout_s)).sum::<Duration>() + BOOT_LIMIT;
    if kernel == Kernel::Machine {
        return run_here(&commands, line);
    }
    let job = Job {
        dir,
        modules: Some(match kernel {
            Kernel::Uml => PathBuf::from(UML_MODULES),
            Kernel::Qemu | Kernel::Machine => qemu::modules_dir(root)?,
        }),
        hostfs: kernel == Kernel::Uml,
        commands: &commands,
    };
    let job_file = dir.join("job.json");
    std::fs::write(&job_file, serde_json::to_vec_pretty(&job)?)?;
    let init = lab_binary(root);
    ensure!(init.exists(), "{} is not built", init.display());
    let command = match kernel {
        Kernel::Uml => uml(&init, &job_file),
        Kernel::Qemu | Kernel::Machine => qemu::command(root, dir, &init, &job_file)?,
    };
    let log = dir.join("guest.log");
    boot(command, &log, limit, line)?;
    let results =
        std::fs::read(dir.join("rc.json")).with_context(|| format!("the guest left no result; its console is in {}", log.display()))?;
    let results: Vec<JobResult> = serde_json::from_slice(&results)?;
    for result in results.iter().filter(|r| !r.ok()) {
        say(&format!("{} ended with {:?}; the guest's console is in {}", result.name, result.code, log.display()));
    }
    ensure!(
        results.len() == commands.len(),
        "the guest ran {} of {} commands; its console is in {}",
        results.len(),
        commands.len(),
        log.display()
    );
    Ok(results)
}

fn uml(init: &Path, job_file: &Path) -> Command {
    let mut command = Command::new(UML);
    command.arg(format!("mem={UML_MEMORY}")).args([
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "con=null",
        "con0=fd:0,fd:1",
        "quiet",
        "loglevel=3",
    ]);
    // Its memory is a file, by default in /dev/shm; a container's may be too small, or without execution.
    if !shared_memory_suits() {
        command.env("TMPDIR", init.parent().unwrap_or(Path::new("/tmp")));
    }
    command.arg(format!("init={}", init.display())).arg(format!("GWLAB_JOB={}", job_file.display()));
    command
}

fn shared_memory_suits() -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs("/dev/shm")
        .is_ok_and(|fs| !fs.flags().contains(FsFlags::ST_NOEXEC) && fs.blocks_available() * fs.fragment_size() > UML_MEMORY_BYTES)
}

/// Boots a guest, passes on what its job prints, and ends it (and only it) when it takes too long.
fn boot(mut command: Command, log: &Path, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<()> {
    // Hold times of 300 ms do not forgive a guest that waits for other work of this machine.
    // SAFETY: between fork and exec the closure only makes one system call.
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
            Ok(())
        });
    }
    let mut console = std::fs::File::create(log)?;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(console.try_clone()?))
        .spawn()
        .context("guest")?;
    let lines = read_lines(&mut child)?;
    let end = Instant::now() + limit;
    let mut inside = false;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(text) => {
                use std::io::Write;
                let text = text.trim_end_matches('\r');
                writeln!(console, "{text}")?;
                if text.ends_with(BEGIN) {
                    inside = true;
                } else if text.ends_with(END) {
                    inside = false;
                } else if inside || text.starts_with("gwlab:") {
                    line(text);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                kill_group(&mut child);
                bail!("the guest took longer than {} s and was ended; its console is in {}", limit.as_secs(), log.display());
            }
        }
    }
    child.wait()?;
    // User-mode Linux leaves helper processes behind when it dies early; they are all in its group.
    kill_group(&mut child);
    Ok(())
}

fn read_lines(child: &mut Child) -> Result<mpsc::Receiver<String>> {
    let out = child.stdout.take().context("pipe")?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(out);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
            if send.send(text).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    Ok(receive)
}

fn kill_group(child: &mut Child) {
    let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGKILL);
}

fn run_here(commands: &[JobCommand], line: &mut dyn FnMut(&str)) -> Result<Vec<JobResult>> {
    let mut results = Vec::new();
    for c in commands {
        let (program, args) = c.argv.split_first().context("empty command")?;
        let mut child = Command::new(program)
            .args(args)
            .envs(c.env.iter().map(|(k, v)| (k, v)))
            .current_dir(&c.cwd)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.clone())?;
        let lines = read_lines(&mut child)?;
        let end = Instant::now() + Duration::from_secs(c.timeout_s);
        let code = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(text) => line(&text),
                Err(mpsc::RecvTimeoutError::Disconnected) => break child.wait()?.code(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    say(&format!("{} took longer than {} s", c.name, c.timeout_s));
                    kill_group(&mut child);
                    child.wait()?;
                    break None;
                }
            }
        };
        results.push(JobResult { name: c.name.clone(), code });
    }
    Ok(results)
}
