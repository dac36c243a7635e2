//! UDP flows with sequence numbers at a steady rate, and what became of them.

use super::sys::{self, BatchReceiver};
use super::topology::{HOST, HOST_IP, PHOST, PHOST_IP};
use anyhow::{Context, Result};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const MAGIC: u32 = 0x6757_4c42;
/// Bytes every packet has: the mark and its number.
const HEADER: usize = 12;
/// UDP payload, bytes.
const PAYLOAD: usize = 200;
/// Largest one.
const PAYLOAD_MAX: usize = 1200;

/// Which way a flow goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From the host behind the peer to the inside host (decrypted by the gateway).
    In,
    /// From the inside host to the host behind the peer (encrypted by the gateway).
    Out,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::In, Self::Out];

    fn port(self) -> u16 {
        match self {
            Self::In => 41001,
            Self::Out => 41002,
        }
    }
    fn ends(self) -> [(&'static str, Ipv4Addr); 2] {
        match self {
            Self::In => [(PHOST, PHOST_IP.ip()), (HOST, HOST_IP.ip())],
            Self::Out => [(HOST, HOST_IP.ip()), (PHOST, PHOST_IP.ip())],
        }
    }
}

/// Numbers and times of one flow.
#[derive(Default, Debug)]
pub struct Log {
    /// Send time (wall clock, ns) by sequence number.
    pub sent: Vec<u64>,
    /// (sequence number, receive time by the kernel) in order of arrival.
    pub received: Vec<(u64, u64)>,
}

/// What a flow lost in a span of time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Loss {
    /// Packets sent in the span.
    pub sent: u64,
    /// Of these, never received.
    pub lost: u64,
    /// Of these, received more than once.
    pub duplicated: u64,
    /// Longest time between two received packets, less the send interval, in ms.
    pub blackout_ms: f64,
    /// When that began and ended (wall clock, ns).
    pub gap_ns: [u64; 2],
}

impl Log {
    /// Evaluates packets sent from `from_ns` to `to_ns`; `interval_ns` is the send interval.
    pub fn loss(&self, from_ns: u64, to_ns: u64, interval_ns: u64) -> Loss {
        let first = self.sent.partition_point(|t| *t < from_ns);
        let last = self.sent.partition_point(|t| *t < to_ns);
        let mut seen = vec![0_u8; last - first];
        let mut times: Vec<u64> = Vec::with_capacity(last - first);
        for (seq, at) in &self.received {
            let seq = *seq as usize;
            if (first..last).contains(&seq) {
                seen[seq - first] = seen[seq - first].saturating_add(1);
                times.push(*at);
            }
        }
        times.sort_unstable();
        // Without any packet the whole span is black.
        let mut gap = times.windows(2).map(|w| [w[0], w[1]]).max_by_key(|[a, b]| b - a).unwrap_or([from_ns, to_ns.max(from_ns)]);
        // Packets lost at the very end leave no gap between packets: the last one sent ends it.
        if let (Some(received), Some(sent), Some(0)) = (times.last(), self.sent.get(last.wrapping_sub(1)), seen.last())
            && sent.saturating_sub(*received) > gap[1] - gap[0]
        {
            gap = [*received, *sent];
        }
        Loss {
            sent: (last - first) as u64,
            lost: seen.iter().filter(|n| **n == 0).count() as u64,
            duplicated: seen.iter().filter(|n| **n > 1).count() as u64,
            blackout_ms: (gap[1] - gap[0]).saturating_sub(interval_ns) as f64 / 1e6,
            gap_ns: gap,
        }
    }
}

struct Shared {
    stop: AtomicBool,
    stop_receiving: AtomicBool,
    /// Packets per second; 0 = pause.
    rate: [AtomicU32; 2],
    payload: AtomicUsize,
    logs: [Mutex<Log>; 2],
    send_errors: AtomicU32,
}

/// Both flows, running.
pub struct Traffic {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
    rate: u32,
}

impl Traffic {
    /// Starts senders (silent until a rate is set) and receivers.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            stop_receiving: AtomicBool::new(false),
            rate: [AtomicU32::new(0), AtomicU32::new(0)],
            payload: AtomicUsize::new(PAYLOAD),
            logs: [Mutex::default(), Mutex::default()],
            send_errors: AtomicU32::new(0),
        });
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for way in Way::BOTH {
            let [(from_ns, from), (to_ns, to)] = way.ends();
            let receiver = sys::udp_in(to_ns, SocketAddrV4::new(to, way.port()))?;
            let mut receiver = BatchReceiver::new(receiver.into(), 64, 1536)?;
            let state = shared.clone();
            receivers.push(std::thread::spawn(move || {
                while !state.stop_receiving.load(Ordering::Relaxed) {
                    let mut batch = Vec::with_capacity(64);
                    if receiver.receive(|r| batch.extend(parse(r.bytes).map(|seq| (seq, r.at_ns)))).is_err() {
                        return;
                    }
                    if let Ok(mut log) = state.logs[way as usize].lock() {
                        log.received.extend(batch);
                    }
                    sys::sleep_ms(8);
                }
            }));
            let socket = sys::udp_in(from_ns, SocketAddrV4::new(from, way.port()))?;
            socket.connect(SocketAddrV4::new(to, way.port())).context("connect")?;
            let state = shared.clone();
            senders.push(std::thread::spawn(move || send(&state, way, &socket)));
        }
        Ok(Self { shared, senders, receivers, rate: 0 })
    }

    /// Sets the rate of both flows, packets per second each.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.resume();
    }

    /// Sends only from the inside host, or only towards it.
    pub fn one_way(&self, way: Way, rate: u32) {
        self.shared.rate[way as usize].store(rate, Ordering::Relaxed);
    }

    /// Size of the packets from now on: UDP payload in bytes, up to 1200.
    pub fn set_payload(&self, bytes: usize) {
        self.shared.payload.store(bytes.clamp(HEADER, PAYLOAD_MAX), Ordering::Relaxed);
    }

    /// Stops sending until [`Self::resume`].
    pub fn pause(&self) {
        for rate in &self.shared.rate {
            rate.store(0, Ordering::Relaxed);
        }
    }

    /// Sends again at the rate set.
    pub fn resume(&self) {
        for rate in &self.shared.rate {
            rate.store(self.rate, Ordering::Relaxed);
        }
    }

    /// Rate set, packets per second each way.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// What a flow lost in a span.
    pub fn loss(&self, way: Way, from_ns: u64, to_ns: u64) -> Loss {
        let interval = 1_000_000_000 / u64::from(self.rate.max(1));
        self.shared.logs[way as usize].lock().map(|log| log.loss(from_ns, to_ns, interval)).unwrap_or_default()
    }

    /// Packets received by a flow so far.
    pub fn received(&self, way: Way) -> usize {
        self.shared.logs[way as usize].lock().map(|log| log.received.len()).unwrap_or(0)
    }

    /// Time of the last packet received by a flow.
    pub fn last_received_ns(&self, way: Way) -> u64 {
        self.shared.logs[way as usize].lock().ok().and_then(|log| log.received.last().map(|r| r.1)).unwrap_or(0)
    }

    /// Sends that the host's own kernel refused.
    pub fn send_errors(&self) -> u32 {
        self.shared.send_errors.load(Ordering::Relaxed)
    }

    /// Stops senders, waits for what is under way, stops receivers.
    pub fn finish(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for t in self.senders.drain(..) {
            let _ = t.join();
        }
        if !self.receivers.is_empty() {
            sys::sleep_ms(300);
        }
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        for t in self.receivers.drain(..) {
            let _ = t.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

fn send(state: &Shared, way: Way, socket: &std::net::UdpSocket) {
    let mut packet = [0_u8; PAYLOAD_MAX];
    packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
    let mut seq = 0_u64;
    let mut next = 0;
    while !state.stop.load(Ordering::Relaxed) {
        let rate = state.rate[way as usize].load(Ordering::Relaxed);
        if rate == 0 {
            sys::sleep_ms(1);
            next = 0;
            continue;
        }
        let interval = 1_000_000_000 / u64::from(rate);
        let now = sys::mono_ns();
        if next == 0 || now.saturating_sub(next) > 100_000_000 {
            // The two flows send in turns rather than at the same instant; a stall of the lab is not made up for by a burst.
            next = now + if way == Way::In { interval / 2 } else { interval };
        }
        sys::sleep_until_mono(next);
        next += interval;
        packet[4..12].copy_from_slice(&seq.to_be_bytes());
        if let Ok(mut log) = state.logs[way as usize].lock() {
            log.sent.push(sys::now_ns());
        }
        seq += 1;
        if socket.send(&packet[..state.payload.load(Ordering::Relaxed)]).is_err() {
            state.send_errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let magic = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    (magic == MAGIC).then_some(u64::from_be_bytes(bytes.get(4..12)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn log(lost: std::ops::Range<u64>) -> Log {
        let sent: Vec<u64> = (0..1000).map(|i| 1_000 * MS + i * MS).collect();
        let received = (0..1000).filter(|i| !lost.contains(i)).map(|i| (i, sent[i as usize] + MS / 4)).collect();
        Log { sent, received }
    }

    #[test]
    fn a_gap_of_300_lost_packets_is_a_blackout_of_300_ms() {
        let loss = log(400..700).loss(1_000 * MS, 2_000 * MS, MS);
        assert_eq!((loss.sent, loss.lost, loss.duplicated), (1000, 300, 0));
        assert!((loss.blackout_ms - 300.0).abs() < 0.01, "{}", loss.blackout_ms);
    }

    #[test]
    fn a_loss_at_the_end_of_the_span_is_not_overlooked() {
        let loss = log(800..1000).loss(1_000 * MS, 2_000 * MS, MS);
        assert_eq!(loss.lost, 200);
        assert!(loss.blackout_ms > 195.0, "{}", loss.blackout_ms);
    }

    #[test]
    fn a_span_without_any_packet_is_black_altogether() {
        let loss = log(0..1000).loss(1_000 * MS, 2_000 * MS, MS);
        assert_eq!(loss.lost, 1000);
        assert!(loss.blackout_ms > 990.0);
    }

    #[test]
    fn duplicates_are_counted_and_only_the_span_matters() {
        let mut log = log(100..101);
        log.received.push((500, 1_600 * MS));
        let all = log.loss(1_000 * MS, 2_000 * MS, MS);
        assert_eq!((all.lost, all.duplicated), (1, 1));
        let later = log.loss(1_200 * MS, 2_000 * MS, MS);
        assert_eq!((later.sent, later.lost, later.blackout_ms), (800, 0, 0.0));
    }
}
