//! TCP between the two nodes. Carries bytes; the daemon owns the sessions and decides which connection counts.
//!
//! Tasks, all ended by dropping the handle:
//! ```text
//! listener   accepts from `remote` only        ┐
//! connector  on the node with the higher       ├─> one task per connection ──> events (bounded; a full channel stops reading,
//!            address: opens one when it has    ┘        ^                              TCP stops the partner)
//!            none                                       └── queue of bytes (bounded; overflow closes the connection)
//! ```
//! A new connection never displaces another: the daemon gets both and closes what it does not want, after one is authenticated. Connections
//! that the daemon has not called authenticated end after [`UNAUTHENTICATED_MAX`], and at most [`PENDING_MAX`] of them exist.

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Connections that are not authenticated yet; more are closed at once.
pub const PENDING_MAX: usize = 4;
/// Time in which a connection must be authenticated.
pub const UNAUTHENTICATED_MAX: Duration = Duration::from_secs(2);
/// Byte strings (records) waiting to be written on one connection: 64 MiB of full records.
pub const QUEUE_RECORDS_MAX: usize = 1024;
/// Pause between attempts to connect or to listen.
const RETRY: Duration = Duration::from_millis(50);
/// An attempt to connect is given up after this time.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Sent bytes that stay unacknowledged for this time end the connection (the session's own timer is usually earlier).
const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 8;

/// What happened to a connection. `conn` is never used again after `Closed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportEvent {
    /// A connection stands.
    Connected {
        /// Its number.
        conn: u64,
        /// True when we opened it.
        initiator: bool,
    },
    /// Bytes arrived.
    Bytes {
        /// Where.
        conn: u64,
        /// What.
        bytes: Bytes,
    },
    /// The queue of a connection that was half full or more is empty again: go on with a long snapshot.
    Writable {
        /// Where.
        conn: u64,
    },
    /// The connection is gone. Comes once, and last.
    Closed {
        /// Which.
        conn: u64,
        /// Why.
        cause: String,
    },
}

/// Counters of the transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransportStats {
    /// Connections from another address than `remote`, closed at once.
    pub strangers: u64,
    /// Connections beyond [`PENDING_MAX`], closed at once.
    pub pending_refused: u64,
    /// Connections closed because they were not authenticated in time.
    pub unauthenticated: u64,
    /// Connections closed because their queue was full.
    pub overflows: u64,
    /// Attempts to connect that failed.
    pub connect_failed: u64,
    /// Attempts to listen or accept that failed.
    pub listen_failed: u64,
}

#[derive(Default)]
struct Counters {
    strangers: AtomicU64,
    pending_refused: AtomicU64,
    unauthenticated: AtomicU64,
    overflows: AtomicU64,
    connect_failed: AtomicU64,
    listen_failed: AtomicU64,
}

struct Conn {
    queue: mpsc::Sender<Bytes>,
    close: Option<oneshot::Sender<String>>,
    authenticated: Arc<Notify>,
    /// Accepted and not authenticated: counts against [`PENDING_MAX`]. Our own attempt does not, or strangers could keep us from connecting.
    pending: bool,
}

struct Shared {
    local: IpAddr,
    remote: IpAddr,
    port: u16,
    events: mpsc::Sender<TransportEvent>,
    conns: Mutex<HashMap<u64, Conn>>,
    next: AtomicU64,
    counters: Counters,
}

impl Shared {
    fn conns(&self) -> MutexGuard<'_, HashMap<u64, Conn>> {
        // A panic while the map was held cannot leave it half changed: every change is one call.
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Starts the tasks.
pub struct Transport;

impl Transport {
    /// Listens on `local`, and connects from there to `remote` when `local` is the higher address. A missing `local` address or an unreachable
    /// `remote` is retried, not an error. Must be called inside a tokio runtime. Everything ends when the last handle is dropped.
    pub fn spawn(local: IpAddr, remote: IpAddr, port: u16, events: mpsc::Sender<TransportEvent>) -> TransportHandle {
        let shared = Arc::new(Shared {
            local,
            remote,
            port,
            events,
            conns: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
            counters: Counters::default(),
        });
        let mut tasks = vec![tokio::spawn(listen(Arc::downgrade(&shared))).abort_handle()];
        if local > remote {
            tasks.push(tokio::spawn(connect(Arc::downgrade(&shared))).abort_handle());
        }
        TransportHandle { shared, tasks: Arc::new(Tasks(tasks)) }
    }
}

struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// The daemon's end of the transport. Calls never wait.
#[derive(Clone)]
pub struct TransportHandle {
    shared: Arc<Shared>,
    #[expect(dead_code, reason = "ends the tasks when the last handle goes")]
    tasks: Arc<Tasks>,
}

impl TransportHandle {
    /// Queues bytes. False when the connection is gone, or is being closed because its queue is full.
    pub fn send(&self, conn: u64, bytes: Bytes) -> bool {
        let mut conns = self.shared.conns();
        let Some(c) = conns.get_mut(&conn) else { return false };
        match c.queue.try_send(bytes) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                if let Some(close) = c.close.take() {
                    count(&self.shared.counters.overflows);
                    // The task may have ended by itself in this moment.
                    let _ = close.send("send queue is full".to_owned());
                }
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Byte strings that `send` takes before the queue is full; 0 when the connection is gone.
    pub fn room(&self, conn: u64) -> usize {
        self.shared.conns().get(&conn).map_or(0, |c| c.queue.capacity())
    }

    /// The session on this connection is established: it may live as long as it likes.
    pub fn authenticated(&self, conn: u64) {
        if let Some(c) = self.shared.conns().get_mut(&conn) {
            c.pending = false;
            c.authenticated.notify_one();
        }
    }

    /// Closes a connection; `Closed` with this cause follows. What is queued and not written is lost.
    pub fn close(&self, conn: u64, cause: impl Into<String>) {
        if let Some(close) = self.shared.conns().get_mut(&conn).and_then(|c| c.close.take()) {
            // The task may have ended by itself in this moment.
            let _ = close.send(cause.into());
        }
    }

    /// Counters.
    pub fn stats(&self) -> TransportStats {
        let c = &self.shared.counters;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        TransportStats {
            strangers: get(&c.strangers),
            pending_refused: get(&c.pending_refused),
            unauthenticated: get(&c.unauthenticated),
            overflows: get(&c.overflows),
            connect_failed: get(&c.connect_failed),
            listen_failed: get(&c.listen_failed),
        }
    }
}

/// Accepts for ever; a socket that cannot be made or breaks is made again.
async fn listen(shared: Weak<Shared>) {
    let mut told = false;
    loop {
        let Some(s) = shared.upgrade() else { return };
        let listener = match listener(SocketAddr::new(s.local, s.port)) {
            Ok(listener) => listener,
            Err(e) => {
                count(&s.counters.listen_failed);
                if !told {
                    tracing::warn!(local = %s.local, port = s.port, error = %e, "ssp: cannot listen; trying again");
                    told = true;
                }
                drop(s);
                sleep(RETRY).await;
                continue;
            }
        };
        told = false;
        drop(s);
        loop {
            let accepted = listener.accept().await;
            let Some(s) = shared.upgrade() else { return };
            match accepted {
                Ok((_, from)) if from.ip() != s.remote => count(&s.counters.strangers),
                Ok((stream, _)) => {
                    start(&s, stream, false);
                }
                Err(e) => {
                    count(&s.counters.listen_failed);
                    tracing::debug!(error = %e, "ssp: accept");
                    drop(s);
                    sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}

fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp(addr)?;
    socket.listen(BACKLOG)
}

/// A socket bound to `addr`; the address may come later.
fn tcp(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    match addr {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&addr.into())?;
    Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(std::os::fd::OwnedFd::from(socket))))
}

/// Keeps one connection of ours up.
async fn connect(shared: Weak<Shared>) {
    loop {
        let Some(s) = shared.upgrade() else { return };
        let (from, to) = (SocketAddr::new(s.local, 0), SocketAddr::new(s.remote, s.port));
        drop(s);
        let attempt = async { tcp(from)?.connect(to).await };
        let result = timeout(CONNECT_MAX, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let Some(s) = shared.upgrade() else { return };
        let running = match result {
            Ok(stream) => start(&s, stream, true),
            Err(e) => {
                count(&s.counters.connect_failed);
                tracing::trace!(remote = %to, error = %e, "ssp: connect");
                None
            }
        };
        drop(s);
        if let Some(ended) = running {
            // An error says the same as a value: the task is gone.
            let _ = ended.await;
        }
        sleep(RETRY).await;
    }
}

/// Registers a connection and starts its task; the receiver ends with it. `None` when there are too many already.
fn start(shared: &Arc<Shared>, stream: TcpStream, initiator: bool) -> Option<oneshot::Receiver<()>> {
    let (queue, queued) = mpsc::channel(QUEUE_RECORDS_MAX);
    let (close, closing) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    let authenticated = Arc::new(Notify::new());
    let conn = {
        let mut conns = shared.conns();
        if !initiator && conns.values().filter(|c| c.pending).count() >= PENDING_MAX {
            count(&shared.counters.pending_refused);
            return None;
        }
        let conn = shared.next.fetch_add(1, Ordering::Relaxed);
        conns.insert(conn, Conn { queue, close: Some(close), authenticated: authenticated.clone(), pending: !initiator });
        conn
    };
    let (events, weak) = (shared.events.clone(), Arc::downgrade(shared));
    tokio::spawn(async move {
        let cause = async {
            if events.send(TransportEvent::Connected { conn, initiator }).await.is_err() {
                return "the daemon is gone".to_owned();
            }
            tokio::select! {
                biased;
                cause = closing => cause.unwrap_or_else(|_| "the daemon is gone".to_owned()),
                () = deadline(&authenticated) => {
                    if let Some(s) = weak.upgrade() {
                        count(&s.counters.unauthenticated);
                    }
                    format!("not authenticated within {} s", UNAUTHENTICATED_MAX.as_secs())
                }
                cause = carry(conn, stream, queued, &events) => cause,
            }
        }
        .await;
        if let Some(s) = weak.upgrade() {
            s.conns().remove(&conn);
        }
        // The daemon may be gone: then nobody wants to know.
        let _ = events.send(TransportEvent::Closed { conn, cause }).await;
        drop(alive);
    });
    Some(ended)
}

async fn deadline(authenticated: &Notify) {
    if timeout(UNAUTHENTICATED_MAX, authenticated.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Moves bytes both ways until one way ends; gives the cause.
async fn carry(conn: u64, mut stream: TcpStream, mut queued: mpsc::Receiver<Bytes>, events: &mpsc::Sender<TransportEvent>) -> String {
    if let Err(e) = options(&stream) {
        return format!("socket option: {e}");
    }
    let (mut read, mut write) = stream.split();
    let reading = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            match read.read_buf(&mut buffer).await {
                Ok(0) => return "the partner closed".to_owned(),
                Ok(_) => {
                    if events.send(TransportEvent::Bytes { conn, bytes: buffer.split().freeze() }).await.is_err() {
                        return "the daemon is gone".to_owned();
                    }
                }
                Err(e) => return format!("read: {e}"),
            }
        }
    };
    let writing = async {
        let mut half_full = false;
        while let Some(bytes) = queued.recv().await {
            half_full |= queued.len() >= QUEUE_RECORDS_MAX / 2;
            if let Err(e) = write.write_all(&bytes).await {
                return format!("write: {e}");
            }
            if half_full && queued.is_empty() {
                half_full = false;
                if events.send(TransportEvent::Writable { conn }).await.is_err() {
                    break;
                }
            }
        }
        "the daemon is gone".to_owned()
    };
    tokio::select! {
        cause = reading => cause,
        cause = writing => cause,
    }
}

fn options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3))
}

#[cfg(test)]
#[path = "ssp_tests.rs"]
mod tests;
