//! Frames, hosts, peers, the attacker.

use super::{CAPTURED_MAX, Event, PORT_FIRST, World};
use crate::sim::clock::{MS, Ns, US};
use crate::sim::frame;
use crate::sim::machine::lock;
use crate::sim::plan::{self, INSIDE, OUTSIDE, Side, VIPS};
use crate::sim::traffic::Way;
use gateway_user::ike::{Job, JobDone};

impl World {
    /// A station sends a frame.
    pub(super) fn carry(&mut self, lan: usize, from: usize, bytes: &[u8]) {
        let now = self.now();
        for (port, delay) in self.lans[lan].carry(from, bytes) {
            self.at(now + delay, Event::Frame { lan, port, bytes: bytes.to_vec() });
        }
    }

    pub(super) fn frame(&mut self, lan: usize, port: usize, bytes: &[u8]) {
        match port {
            0 | 1 => {
                let side = Side::BOTH[port];
                if self.node(side).powered {
                    lock(&self.node(side).machine).receive(lan, bytes);
                    self.machine_moved(side);
                }
            }
            _ if lan == INSIDE => {
                let now = self.now();
                if let Some(packet) = self.host.receive(bytes, now) {
                    self.traffic.arrived(&packet);
                }
                self.host_moved();
            }
            _ => {
                let peer = port - PORT_FIRST;
                if peer < self.peers.len() {
                    self.trace.who("peer");
                    self.peers[peer].peer.receive(bytes);
                    self.peer_moved(peer);
                }
            }
        }
    }

    pub(super) fn host_moved(&mut self) {
        for f in self.host.take_tx() {
            self.carry(INSIDE, PORT_FIRST, &f);
        }
    }

    /// Starts the packets of every flow.
    pub fn start_traffic(&mut self, ways: &[Way]) {
        self.flowing = true;
        for peer in 0..self.peers.len() {
            for &way in ways {
                let first = self.dice.range(0..=self.setup.gap);
                let now = self.now();
                self.at(now + first, Event::Packet { peer, way });
            }
        }
    }

    /// The NAT in front of a peer gives it other ports from now on (`add` to its own; 0 takes the NAT away).
    pub fn remap(&mut self, peer: usize, add: u16) {
        self.peers[peer].peer.nat = add;
    }

    /// Another pause between two packets of a stream.
    pub fn slow_down(&mut self, gap: Ns) {
        self.setup.gap = gap;
    }

    pub(super) fn packet(&mut self, peer: usize, way: Way) {
        if !self.flowing {
            return;
        }
        let now = self.now();
        let packet = self.traffic.next(peer, way, now);
        match way {
            Way::Out => {
                self.host.send(&packet, VIPS[INSIDE], now);
                self.host_moved();
            }
            Way::In => {
                self.peers[peer].peer.send_inner(&packet);
                self.peer_moved(peer);
            }
        }
        let pause = self.dice.range(self.setup.gap / 2..=self.setup.gap * 3 / 2);
        self.at(now + pause, Event::Packet { peer, way });
    }

    // Peers.

    pub(super) fn peer_moved(&mut self, i: usize) {
        let now = self.now();
        for f in self.peers[i].peer.station.take_tx() {
            self.capture(&f);
            self.carry(OUTSIDE, PORT_FIRST + i, &f);
        }
        for job in self.peers[i].peer.take_jobs() {
            let (done, took) = self.work(job);
            self.at(now + took, Event::PeerJob { peer: i, done });
        }
        let slot = &mut self.peers[i];
        let (verified, refused) = (std::mem::take(&mut slot.peer.verified), std::mem::take(&mut slot.peer.refused));
        let delivered = std::mem::take(&mut slot.peer.delivered);
        let violations = std::mem::take(&mut slot.peer.kernel().violations);
        let (has_events, kernel_at, at) = {
            let k = slot.peer.kernel();
            (k.has_events(), k.next_timer(), slot.peer.next_timeout())
        };
        for packet in delivered {
            self.traffic.arrived(&packet);
        }
        for what in violations {
            self.fail(Err(format!("peer {}: {what}", i + 1)));
        }
        for (spi, seq) in verified {
            let result = self.check.on_peer_verified(i, spi, seq);
            self.fail(result);
        }
        for r in refused {
            let result = self.check.on_peer_refused(i, plan::peer_address(i).into(), &r, now);
            self.fail(result);
        }
        if has_events && !self.peers[i].events_due {
            self.peers[i].events_due = true;
            self.at(now + 100 * US, Event::PeerEvents { peer: i });
        }
        if self.peers[i].timer.0 != at {
            self.peers[i].timer = (at, self.peers[i].timer.1 + 1);
            let number = self.peers[i].timer.1;
            if let Some(at) = at {
                self.at(at, Event::PeerTimer { peer: i, number });
            }
        }
        if self.peers[i].kernel_timer.0 != kernel_at {
            self.peers[i].kernel_timer = (kernel_at, self.peers[i].kernel_timer.1 + 1);
            let number = self.peers[i].kernel_timer.1;
            if let Some(at) = kernel_at {
                self.at(at, Event::PeerKernelTimer { peer: i, number });
            }
        }
    }

    /// An attacker on the outside LAN keeps ESP and sends it again later.
    pub(super) fn capture(&mut self, bytes: &[u8]) {
        if self.setup.replay_attack == 0 || frame::ip_of(bytes).is_none_or(|ip| ip.proto != frame::ESP) {
            return;
        }
        if self.captured.len() < CAPTURED_MAX {
            self.captured.push(bytes.to_vec());
        } else {
            let at = self.dice.range(0..=CAPTURED_MAX as u64 - 1) as usize;
            self.captured[at] = bytes.to_vec();
        }
        if self.dice.chance(self.setup.replay_attack) {
            let at = self.dice.range(0..=self.captured.len() as u64 - 1) as usize;
            let mut copy = self.captured[at].clone();
            let to = frame::dst_mac(&copy);
            frame::readdress(&mut copy, [2, 0, 0, 0, 0xee, 0xee], to);
            let when = self.now() + self.dice.range(0..=200 * MS);
            self.at(when, Event::Attack { bytes: copy });
        }
    }

    pub(super) fn work(&mut self, job: Job) -> (Box<JobDone>, Ns) {
        (Box::new(job.run()), self.dice.range(MS..=8 * MS))
    }
}
