//! The IP layer of an ordinary station (host, peer) on one LAN.

use super::arp::{self, Neighbours};
use super::clock::Ns;
use super::frame::{self, Mac};
use std::net::Ipv4Addr;

/// A station.
pub struct Station {
    mac: Mac,
    ip: Ipv4Addr,
    neighbours: Neighbours,
    tx: Vec<Vec<u8>>,
}

impl Station {
    /// A station that knows nobody.
    pub fn new(mac: Mac, ip: Ipv4Addr) -> Self {
        Self { mac, ip, neighbours: Neighbours::default(), tx: Vec::new() }
    }

    /// Sends a packet to the next hop, after asking for it if need be.
    pub fn send(&mut self, packet: &[u8], hop: Ipv4Addr, now: Ns) {
        let found = self.neighbours.resolve(hop, packet, now);
        if found.ask {
            self.tx.push(arp::request(self.mac, self.ip, hop));
        }
        if let Some(to) = found.mac {
            self.tx.push(frame::ip_frame(self.mac, to, packet));
        }
    }

    /// A frame arrived; gives its IPv4 packet when it is for this station.
    pub fn receive(&mut self, bytes: &[u8], now: Ns) -> Option<Vec<u8>> {
        let dst = frame::dst_mac(bytes);
        if dst != self.mac && dst[0] & 1 == 0 {
            return None;
        }
        if let Some(arp) = frame::arp_of(bytes) {
            let ours = arp.target == self.ip;
            for packet in self.neighbours.heard(&arp, ours, now) {
                self.tx.push(frame::ip_frame(self.mac, arp.mac, &packet));
            }
            if ours && !arp.reply {
                self.tx.push(arp::reply(self.mac, self.ip, &arp));
            }
            return None;
        }
        let ip = frame::ip_of(bytes)?;
        (!ip.dst.is_multicast() && dst[0] & 1 == 0).then(|| ip.packet.to_vec())
    }

    /// MAC known for an address.
    pub fn neighbour(&self, ip: Ipv4Addr) -> Option<Mac> {
        self.neighbours.mac(ip)
    }

    /// Frames to send.
    pub fn take_tx(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.tx)
    }
}
