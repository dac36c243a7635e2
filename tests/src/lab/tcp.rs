//! One TCP transfer that runs through the tunnel all the time; its content is known, so every byte is checked.

use super::sys;
use super::topology::{HOST, HOST_IP, PHOST, PHOST_IP};
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PORT: u16 = 41003;
/// Bytes per write, and ms between writes: about 120 kB/s, so that the transfer outlives the run without filling the lab.
const CHUNK: usize = 1200;
const PAUSE_MS: u64 = 10;

/// How the transfer went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TcpResult {
    /// Bytes the sender wrote.
    pub sent: u64,
    /// Bytes the receiver got.
    pub received: u64,
    /// Checksum (FNV-1a) of both, when equal.
    pub checksum: Option<String>,
    /// The connection lived to its orderly end with all bytes right.
    pub survived: bool,
    /// What broke it.
    pub error: Option<String>,
}

/// The transfer, running.
pub struct Transfer {
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    sender: JoinHandle<Result<(u64, u64)>>,
    receiver: JoinHandle<Result<(u64, u64)>>,
}

impl Transfer {
    /// Connects from the inside host to the host behind the peer and starts sending.
    pub fn start() -> Result<Self> {
        let listener = sys::in_ns(PHOST, || TcpListener::bind(SocketAddrV4::new(PHOST_IP.ip(), PORT)).context("listen"))?;
        let progress = Arc::new(AtomicU64::new(0));
        let (stop, pause) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let counter = progress.clone();
        let receiver = std::thread::spawn(move || receive(&listener, &counter));
        let stream = sys::in_ns(HOST, || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddrV4::new(HOST_IP.ip(), 0).into())?;
            socket
                .connect_timeout(&SocketAddrV4::new(PHOST_IP.ip(), PORT).into(), Duration::from_secs(5))
                .context("TCP connect through the tunnel")?;
            Ok(TcpStream::from(socket))
        })?;
        let (stop_flag, pause_flag) = (stop.clone(), pause.clone());
        let sender = std::thread::spawn(move || send(stream, &stop_flag, &pause_flag));
        Ok(Self { stop, pause, progress, sender, receiver })
    }

    /// Stops writing for a while (what is under way still arrives).
    pub fn pause(&self, yes: bool) {
        self.pause.store(yes, Ordering::Relaxed);
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Ends the transfer and compares.
    pub fn finish(self) -> TcpResult {
        self.pause.store(false, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|_| Err(anyhow::anyhow!("sender panicked")));
        let received = self.receiver.join().unwrap_or_else(|_| Err(anyhow::anyhow!("receiver panicked")));
        match (sent, received) {
            (Ok((sent, a)), Ok((received, b))) => {
                let survived = sent == received && a == b;
                let error = (!survived).then(|| format!("checksums {a:016x} sent, {b:016x} received"));
                TcpResult { sent, received, checksum: survived.then(|| format!("{a:016x}")), survived, error }
            }
            (sent, received) => TcpResult {
                sent: sent.as_ref().map_or(0, |s| s.0),
                received: received.as_ref().map_or(0, |r| r.0),
                checksum: None,
                survived: false,
                error: sent.err().or(received.err()).map(|e| format!("{e:#}")),
            },
        }
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool, pause: &AtomicBool) -> Result<(u64, u64)> {
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let (mut sent, mut hash, mut state) = (0, FNV_START, 0x9e37_79b9_7f4a_7c15_u64);
    let mut chunk = [0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        sys::sleep_ms(PAUSE_MS);
        if pause.load(Ordering::Relaxed) {
            continue;
        }
        for byte in &mut chunk {
            // xorshift: content that a repeated or swapped segment cannot imitate.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        stream.write_all(&chunk).context("TCP write")?;
        sent += CHUNK as u64;
        hash = fnv(hash, &chunk);
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok((sent, hash))
}

fn receive(listener: &TcpListener, progress: &AtomicU64) -> Result<(u64, u64)> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut received, mut hash) = (0, FNV_START);
    let mut buffer = vec![0; 16384];
    loop {
        let n = stream.read(&mut buffer).context("TCP read")?;
        if n == 0 {
            return Ok((received, hash));
        }
        received += n as u64;
        hash = fnv(hash, &buffer[..n]);
        progress.store(received, Ordering::Relaxed);
    }
}

/// Start value of FNV-1a, 64 bit.
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bit: fast, and good enough to tell packets of one run apart.
pub fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_matches_its_published_vectors() {
        // http://www.isthe.com/chongo/tech/comp/fnv/
        assert_eq!(fnv(FNV_START, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(FNV_START, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(FNV_START, b"foobar"), 0x8594_4171_f739_67e8);
    }
}
