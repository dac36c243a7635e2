//! Neighbour table of one device, as every station of a simulated LAN has one.

use super::clock::{MS, Ns, SEC};
use super::frame::{Arp, BROADCAST, Mac, arp_frame};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

/// Packets that wait for one neighbour; the oldest goes (`unres_qlen`).
const WAITING_MAX: usize = 64;
/// Pause between two requests.
const RETRY: Ns = 250 * MS;
/// Age at which an entry is asked for again; it is used meanwhile.
const STALE: Ns = 15 * SEC;

#[derive(Default)]
struct Entry {
    mac: Option<Mac>,
    confirmed: Ns,
    asked: Option<Ns>,
    waiting: VecDeque<Vec<u8>>,
}

/// The table.
#[derive(Default)]
pub struct Neighbours(BTreeMap<Ipv4Addr, Entry>);

/// What to do with a packet for a neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Its address, when it is known: send now.
    pub mac: Option<Mac>,
    /// True when a request has to go out.
    pub ask: bool,
}

impl Neighbours {
    /// Looks a neighbour up; a packet for an unknown one waits here.
    pub fn resolve(&mut self, ip: Ipv4Addr, packet: &[u8], now: Ns) -> Resolved {
        let e = self.0.entry(ip).or_default();
        let due = e.asked.is_none_or(|at| now >= at + RETRY);
        match e.mac {
            Some(mac) => {
                let ask = now >= e.confirmed + STALE && due;
                if ask {
                    e.asked = Some(now);
                }
                Resolved { mac: Some(mac), ask }
            }
            None => {
                if e.waiting.len() >= WAITING_MAX {
                    e.waiting.pop_front();
                }
                e.waiting.push_back(packet.to_vec());
                if due {
                    e.asked = Some(now);
                }
                Resolved { mac: None, ask: due }
            }
        }
    }

    /// An ARP message was heard: updates an entry that exists, or makes one when the message was for us. Gives packets that waited.
    pub fn heard(&mut self, arp: &Arp, for_us: bool, now: Ns) -> Vec<Vec<u8>> {
        if !for_us && !self.0.contains_key(&arp.ip) {
            return Vec::new();
        }
        let e = self.0.entry(arp.ip).or_default();
        e.mac = Some(arp.mac);
        e.confirmed = now;
        e.asked = None;
        e.waiting.drain(..).collect()
    }

    /// The neighbour's address, if it is known.
    pub fn mac(&self, ip: Ipv4Addr) -> Option<Mac> {
        self.0.get(&ip).and_then(|e| e.mac)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// "Who has `target`?"
pub fn request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp_frame(mac, BROADCAST, &Arp { reply: false, mac, ip, target }, [0; 6])
}

/// "I have."
pub fn reply(mac: Mac, ip: Ipv4Addr, to: &Arp) -> Vec<u8> {
    arp_frame(mac, to.mac, &Arp { reply: true, mac, ip, target: to.ip }, to.mac)
}
