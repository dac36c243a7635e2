//! The operator's socket: one JSON request a line, one JSON response a line.

use nix::sys::stat::{Mode, fchmod};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Longest request, bytes, line end included.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest response the client reads, bytes: all SAs of a large gateway.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16;
/// A client says its next request within this time, or is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The daemon answers within this time.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The client takes its response within this time.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// The words of the command, without the program's name.
    pub argv: Vec<String>,
    /// True for JSON instead of the guide's columns.
    #[serde(default)]
    pub json: bool,
}

/// The daemon's answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ControlResponse {
    /// False when `error` says why not.
    pub ok: bool,
    /// For machines.
    #[serde(default)]
    pub json: serde_json::Value,
    /// For people.
    #[serde(default)]
    pub text: String,
    /// What went wrong and what cures it; empty when `ok`.
    #[serde(default)]
    pub error: String,
}

impl ControlResponse {
    /// A refusal.
    pub fn error(error: impl Into<String>) -> Self {
        Self { error: error.into(), ..Self::default() }
    }
}

/// A request and where its answer goes.
pub type Call = (ControlRequest, oneshot::Sender<ControlResponse>);

/// The listening end. Removes its socket file when dropped.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Server {
    /// Makes the socket at `path` with `mode` (0o600, or 0o660 for a group of operators). A socket file that nobody answers is replaced in one step;
    /// `AddrInUse` when another daemon answers, `AlreadyExists` when the path is something else than a socket.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(m) if !m.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} is not a socket; remove it or name another path", path.display()),
                ));
            }
            Ok(_) if BlockingStream::connect(path).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another daemon answers at {}", path.display())));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                    std::fs::create_dir_all(parent)?;
                }
            }
            Err(e) => return Err(e),
        }
        // Made beside and renamed over: the path never names a socket with the wrong mode, and never nothing.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        match std::fs::remove_file(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let listener = listen(&beside, mode)?;
        let placed = std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).and_then(|()| std::fs::rename(&beside, path));
        if let Err(e) = placed {
            // The error that matters is the first one.
            let _ = std::fs::remove_file(&beside);
            return Err(e);
        }
        let inode = identity(path)?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Serves until the receiver of `calls` is gone; cancel by dropping the future.
    pub async fn run(self, calls: mpsc::Sender<Call>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while !calls.is_closed() {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = calls.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    tokio::spawn(async move {
                        if let Err(e) = connection(stream, &calls).await {
                            tracing::debug!(error = %e, "control: connection");
                        }
                        drop(permit);
                    });
                }
                Err(e) => {
                    tracing::debug!(error = %e, "control: accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only our own: a newer daemon may have put its socket there.
        if identity(&self.path).is_ok_and(|inode| inode == self.inode) {
            // Nothing to do about a failure: the next start replaces the file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket and serves.
pub async fn serve(path: &Path, mode: u32, calls: mpsc::Sender<Call>) -> io::Result<()> {
    Server::bind(path, mode)?.run(calls).await;
    Ok(())
}

/// Binds with at most `mode` from the first moment: the kernel takes the mode of the socket itself, less the umask.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(CONNECTIONS_MAX as i32)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let m = std::fs::symlink_metadata(path)?;
    Ok((m.dev(), m.ino()))
}

async fn connection(stream: UnixStream, calls: &mpsc::Sender<Call>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = tokio::io::BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut read).take(REQUEST_BYTES_MAX as u64);
        if tokio::time::timeout(IDLE_MAX, bounded.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let response = if whole || line.len() < REQUEST_BYTES_MAX {
            match serde_json::from_slice(&line) {
                Ok(request) => ask(request, calls).await,
                Err(e) => ControlResponse::error(format!("request is not understood: {e}")),
            }
        } else {
            ControlResponse::error(format!("request is longer than {REQUEST_BYTES_MAX} bytes"))
        };
        let mut bytes = serde_json::to_vec(&response)?;
        bytes.push(b'\n');
        tokio::time::timeout(WRITE_MAX, write.write_all(&bytes)).await??;
        if !whole {
            // Too long, or the client has closed its side: there is no next line to find.
            return Ok(());
        }
    }
}

async fn ask(request: ControlRequest, calls: &mpsc::Sender<Call>) -> ControlResponse {
    let (tx, rx) = oneshot::channel();
    let asked = async {
        calls.send((request, tx)).await.ok()?;
        rx.await.ok()
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Some(response)) => response,
        Ok(None) => ControlResponse::error("the daemon is shutting down"),
        Err(_) => ControlResponse::error(format!("the daemon did not answer within {} s", ANSWER_MAX.as_secs())),
    }
}

/// Asks the daemon at `path` and waits for its answer, for the command line.
pub fn call(path: &Path, request: &ControlRequest) -> io::Result<ControlResponse> {
    let mut stream = BlockingStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_MAX + Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is too long"));
    }
    stream.write_all(&bytes)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(RESPONSE_BYTES_MAX as u64)).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon closed the connection before its answer was complete"));
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
