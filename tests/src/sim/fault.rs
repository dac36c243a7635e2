//! What goes wrong, or is asked for.

use super::clock::{MS, Ns, SEC};
use super::dice::Dice;
use super::plan::{Setup, Side};
use super::world::World;

/// A fault, or an operator's wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Power off: process, kernel and data path are gone.
    PowerOff(Side),
    /// Power on, and the daemon starts.
    PowerOn(Side),
    /// The daemon dies; kernel and data path stay.
    Crash(Side),
    /// The daemon starts.
    Start(Side),
    /// The daemon is stopped; kernel and data path go on.
    Pause(Side),
    /// The daemon goes on.
    Resume(Side),
    /// A cable (node, device): in or out.
    Cable(Side, usize, bool),
    /// Frames of a node are lost on a LAN (node, LAN, lost).
    Deaf(Side, usize, bool),
    /// Frames to a node are lost on a LAN.
    Mute(Side, usize, bool),
    /// A LAN falls in two halves, node `a` alone on one side.
    Split(usize, bool),
    /// A peer's cable.
    PeerCable(usize, bool),
    /// The operator asks the active node to hand over.
    Switchover,
    /// The operator rekeys child SAs on the active node.
    RekeyGateway,
    /// The operator rekeys ISAKMP SAs on the active node.
    RekeyIsakmp,
    /// A peer rekeys.
    RekeyPeer(usize),
    /// Everything is whole again and the weather is fine.
    Heal,
}

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.trace.line(format_args!("*** {fault:?}"));
        let planned = matches!(fault, Fault::Switchover | Fault::RekeyGateway | Fault::RekeyIsakmp | Fault::RekeyPeer(_));
        if !planned {
            self.check.disturbed = Some(self.now());
        }
        match fault {
            Fault::PowerOff(side) => {
                self.stop(side, false);
                self.nodes[side.index()].powered = false;
                for lan in &mut self.lans {
                    lan.forget(side.index());
                }
            }
            Fault::PowerOn(side) => {
                if !self.nodes[side.index()].powered {
                    let setup = self.setup.clone();
                    self.nodes[side.index()].power_on(&setup);
                    self.start(side);
                }
            }
            Fault::Crash(side) => self.stop(side, true),
            Fault::Start(side) => {
                if self.nodes[side.index()].core.is_none() {
                    self.start(side);
                }
            }
            Fault::Pause(side) => {
                if self.nodes[side.index()].core.is_some() {
                    self.nodes[side.index()].paused = true;
                }
            }
            Fault::Resume(side) => self.resume(side),
            Fault::Cable(side, device, on) => self.cable(side, device, on),
            Fault::Deaf(side, lan, lost) => self.lans[lan].ports[side.index()].deaf = lost,
            Fault::Mute(side, lan, lost) => self.lans[lan].ports[side.index()].mute = lost,
            Fault::Split(lan, cut) => self.lans[lan].ports[0].island = u8::from(cut),
            Fault::PeerCable(peer, on) => {
                let port = &mut self.lans[1].ports[super::world::PORT_FIRST + peer];
                (port.deaf, port.mute) = (!on, !on);
            }
            Fault::Switchover => self.on_active(&["switchover"]),
            Fault::RekeyGateway => self.on_active_for_each_peer(&["rekey", "ipsec", "peer"]),
            Fault::RekeyIsakmp => self.on_active_for_each_peer(&["rekey", "isakmp"]),
            Fault::RekeyPeer(peer) => {
                self.rekey_peer(peer);
            }
            Fault::Heal => self.heal(),
        }
    }

    fn on_active(&mut self, words: &[&str]) {
        if let Some(side) = self.active() {
            self.ask(side, words);
        }
    }

    fn on_active_for_each_peer(&mut self, words: &[&str]) {
        for peer in 0..self.setup.peers {
            let address = super::plan::peer_address(peer).to_string();
            let words: Vec<&str> = words.iter().copied().chain([address.as_str()]).collect();
            self.on_active(&words);
        }
    }

    fn heal(&mut self) {
        self.apply_injection(false);
        for lan in &mut self.lans {
            lan.weather = lan.weather.calm();
            for port in &mut lan.ports {
                *port = super::lan::Port::default();
            }
        }
        for side in Side::BOTH {
            for device in 0..2 {
                self.cable(side, device, true);
            }
            if !self.nodes[side.index()].powered {
                self.fault(Fault::PowerOn(side));
            } else if self.nodes[side.index()].core.is_none() {
                self.start(side);
            } else if self.nodes[side.index()].paused {
                self.resume(side);
            }
        }
    }
}

/// A few faults between `from` and `to`, each mended (or not) before `to`. What is not mended is mended by [`Fault::Heal`].
pub fn random_faults(setup: &Setup, from: Ns, to: Ns) -> Vec<(Ns, Fault)> {
    let mut dice = Dice::new(setup.seed, 50);
    let mut out = Vec::new();
    let count = dice.range(1..=4);
    for _ in 0..count {
        let at = dice.range(from..=to);
        let lasts = dice.pick(&[50 * MS, 300 * MS, setup.hold, setup.hold * 2, 2 * SEC, 4 * SEC]) + dice.range(0..=100 * MS);
        let side = dice.pick(&Side::BOTH);
        let lan = dice.range(0..=1) as usize;
        let peer = dice.range(0..=setup.peers as u64 - 1) as usize;
        let (begin, end) = match dice.range(0..=13) {
            0 => (Fault::PowerOff(side), Some(Fault::PowerOn(side))),
            1 | 2 => (Fault::Crash(side), Some(Fault::Start(side))),
            3 | 4 => (Fault::Pause(side), Some(Fault::Resume(side))),
            5 => (Fault::Cable(side, lan, false), Some(Fault::Cable(side, lan, true))),
            6 => (Fault::Deaf(side, lan, true), Some(Fault::Deaf(side, lan, false))),
            7 => (Fault::Mute(side, lan, true), Some(Fault::Mute(side, lan, false))),
            8 | 9 => (Fault::Split(lan, true), Some(Fault::Split(lan, false))),
            10 => (Fault::PeerCable(peer, false), Some(Fault::PeerCable(peer, true))),
            11 | 12 => (Fault::Switchover, None),
            _ => (dice.pick(&[Fault::RekeyGateway, Fault::RekeyIsakmp, Fault::RekeyPeer(peer)]), None),
        };
        out.push((at, begin));
        if let Some(end) = end {
            out.push(((at + lasts).min(to), end));
        }
    }
    out.sort_by_key(|(at, _)| *at);
    out
}
