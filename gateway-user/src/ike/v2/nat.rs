//! NAT traversal (RFC 7296 2.23, RFC 3948): encapsulation, keepalives, a peer whose mapping changes.

use super::engine::Engine;
use super::sa::{Handle, Sa};
use super::timer::Timer;
use crate::id::Spi;
use crate::ike::api::{IkeCommand, Transmit};
use crate::ike::engine::NAT_T_PORT;
use crate::sad::Encap;
use std::net::SocketAddr;
use std::time::Instant;

impl Engine {
    /// Encapsulation of ESP along the path of an SA.
    pub(super) fn encap(&self, handle: Handle) -> Option<Encap> {
        let sa = self.sas.get(&handle)?;
        let nat = sa.keys().is_some_and(|(_, _, caps)| caps.nat()) && sa.local.port() == NAT_T_PORT;
        nat.then(|| Encap { local_port: sa.local.port(), peer_port: sa.peer.port() })
    }

    /// An authentic message came from elsewhere: the SA follows, when a NAT before the peer may have moved it.
    pub(super) fn follow(&mut self, handle: Handle, from: SocketAddr, to: SocketAddr, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        if (sa.peer, sa.local) == (from, to) {
            return;
        }
        let Some(up) = sa.up() else { return };
        // Without a NAT there is no reason to move, but for the change of ports in IKE_AUTH.
        let only_ports = from.ip() == sa.peer.ip() && up.caps.nat();
        if !(up.caps.nat_there || only_ports) {
            return;
        }
        let children: Vec<_> = up.children.iter().copied().collect();
        sa.peer = from;
        sa.local = to;
        let (peer, encap) = (from.ip(), self.encap(handle));
        for spi_in in children {
            self.command(IkeCommand::MoveChild { spi_in, peer, encap });
        }
        self.dirty.insert(handle);
        self.arm_keepalive(handle, now);
    }

    /// The kernel authenticated a packet of this pair, no replay, that came from elsewhere: the same proof as a message of its IKE SA. False
    /// when the pair is not of this version.
    pub fn handle_mapping(&mut self, spi_in: Spi, from: SocketAddr, now: Instant) -> bool {
        let Some(handle) = self.children.get(&spi_in).map(|c| c.handle).filter(|_| self.active) else { return false };
        let Some(to) = self.sas.get(&handle).map(|sa| sa.local) else { return false };
        self.follow(handle, from, to, now);
        self.flush(now);
        true
    }

    /// Arms the keepalive: only the end behind a NAT sends any.
    pub(super) fn arm_keepalive(&mut self, handle: Handle, now: Instant) {
        let behind = self.sas.get(&handle).and_then(Sa::up).is_some_and(|u| u.caps.nat_here);
        if self.active && behind && !self.config.nat_keepalive.is_zero() {
            self.timers.set(Timer::Keepalive(handle), now + self.config.nat_keepalive);
        }
    }

    /// One byte that nobody answers.
    pub(super) fn keepalive(&mut self, handle: Handle, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        if self.active {
            self.transmits.push_back(Transmit { from: sa.local, to: sa.peer, payload: vec![0xff] });
        }
        self.arm_keepalive(handle, now);
    }
}
