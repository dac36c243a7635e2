//! Packets of the hosts: who sent what, and what arrived.

use super::clock::{MS, Ns};
use super::frame;
use super::plan;
use std::collections::BTreeMap;
use std::ops::Range;

/// UDP ports of the hosts.
const PORT: u16 = 7777;
/// Packets that are sent and arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// From the inside host to the host behind a peer.
    Out,
    /// Back.
    In,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Out, Self::In];
}

#[derive(Default)]
struct Stream {
    /// When each packet was sent, and how often it arrived.
    packets: Vec<(Ns, u8)>,
}

/// All streams.
#[derive(Default)]
pub struct Traffic(BTreeMap<(usize, Way), Stream>);

impl Traffic {
    /// The next packet of a stream.
    pub fn next(&mut self, peer: usize, way: Way, now: Ns) -> Vec<u8> {
        let stream = self.0.entry((peer, way)).or_default();
        let n = stream.packets.len() as u64;
        stream.packets.push((now, 0));
        let mut payload = vec![peer as u8, way as u8];
        payload.extend_from_slice(&n.to_be_bytes());
        let (src, dst) = match way {
            Way::Out => (plan::HOST, plan::peer_host(peer)),
            Way::In => (plan::peer_host(peer), plan::HOST),
        };
        frame::ip_packet(src, dst, frame::UDP, 64, &frame::udp(PORT, PORT, &payload))
    }

    /// A packet reached its host.
    pub fn arrived(&mut self, packet: &[u8]) {
        let Some(ip) = frame::ip(packet) else { return };
        let Some((_, PORT, payload)) = frame::udp_of(&ip) else { return };
        let (Some(peer), Some(way), Some(n)) = (payload.first(), payload.get(1), payload.get(2..10)) else { return };
        let mut number = [0; 8];
        number.copy_from_slice(n);
        let way = if *way == 0 { Way::Out } else { Way::In };
        let slot = self.0.get_mut(&(usize::from(*peer), way)).and_then(|s| s.packets.get_mut(u64::from_be_bytes(number) as usize));
        if let Some((_, copies)) = slot {
            *copies = copies.saturating_add(1);
        }
    }

    /// Packets of a stream sent in this time: how many, and when each lost one was sent.
    pub fn lost(&self, peer: usize, way: Way, sent: Range<Ns>) -> (usize, Vec<Ns>) {
        let Some(stream) = self.0.get(&(peer, way)) else { return (0, Vec::new()) };
        let range: Vec<_> = stream.packets.iter().filter(|(at, _)| sent.contains(at)).collect();
        (range.len(), range.iter().filter(|(_, copies)| *copies == 0).map(|(at, _)| *at).collect())
    }

    /// Packets of all streams that arrived more than once.
    pub fn doubled(&self) -> usize {
        self.0.values().flat_map(|s| &s.packets).filter(|(_, copies)| *copies > 1).count()
    }

    /// Longest time without an arrival in a stream, between packets sent in this time.
    pub fn gap(&self, peer: usize, way: Way, sent: Range<Ns>) -> Ns {
        let Some(stream) = self.0.get(&(peer, way)) else { return sent.end - sent.start };
        let (mut last, mut longest) = (sent.start, 0);
        for (at, _) in stream.packets.iter().filter(|(at, copies)| *copies > 0 && sent.contains(at)) {
            longest = longest.max(at - last);
            last = *at;
        }
        longest.max(sent.end - last)
    }

    /// Streams that lost packets sent in this time, in words.
    pub fn report(&self, sent: Range<Ns>) -> Vec<String> {
        let mut out = Vec::new();
        for (peer, way) in self.0.keys() {
            let (n, lost) = self.lost(*peer, *way, sent.clone());
            if n == 0 || !lost.is_empty() {
                let first = lost.first().map_or(0, |at| at / MS);
                out.push(format!("peer {} {way:?}: {} of {n} lost, the first sent at {first} ms", peer + 1, lost.len()));
            }
        }
        out
    }
}
