//! What the partner says: hellos, states, snapshots, silence.

use super::node::*;
use crate::id::Epoch;
use crate::ports::PathRole;
use crate::ssp::{Hello, Role};
use std::time::Instant;

impl Node {
    /// The SSP channel is authenticated and the partner said hello. `difference`: first configuration item that differs.
    pub fn handle_hello(&mut self, hello: &Hello, difference: Option<String>, now: Instant) {
        self.difference = difference;
        self.synced = false;
        self.partner =
            Some(Partner { role: hello.role, epoch: hello.epoch, has_state: hello.has_state, ready: false, given: false, asked: false });
        if !hello.has_state {
            self.competitor = false;
        }
        match self.state {
            NodeState::Init => {}
            NodeState::Adopting => {
                if hello.epoch > self.epoch || (hello.role == Role::Active && (hello.epoch == self.epoch && !self.config.wins_ties)) {
                    self.epoch = self.epoch.max(hello.epoch);
                    self.has_state = false;
                    self.become_standby("the partner is active under a newer epoch", false, now);
                } else {
                    self.adopt("the partner agrees", now);
                }
            }
            NodeState::Active => {
                let partner_wins =
                    hello.role == Role::Active && (hello.epoch > self.epoch || (hello.epoch == self.epoch && !self.config.wins_ties));
                if partner_wins {
                    self.epoch = self.epoch.max(hello.epoch);
                    self.has_state = false;
                    self.become_standby("the partner owns a newer epoch", false, now);
                } else {
                    if hello.epoch > self.epoch {
                        // It owned a newer epoch and yielded before it could tell: ours must be the highest again.
                        self.commands.push_back(Command::Contested);
                        self.epoch = Epoch(hello.epoch.0 + 1);
                        self.commands.push_back(Command::SetRole { role: PathRole::Active, epoch: self.epoch });
                    }
                    self.partner_state();
                    if hello.role != Role::Active {
                        self.restore_or_snapshot(hello.has_state);
                    }
                }
            }
            NodeState::Standby | NodeState::Armed | NodeState::Draining => {
                self.epoch = self.epoch.max(hello.epoch);
            }
        }
        self.announce_state();
        self.update_eligible(now);
    }

    /// The session is gone.
    pub fn handle_down(&mut self, now: Instant) {
        if self.partner.take().is_none() {
            return;
        }
        self.synced = false;
        self.difference = None;
        if self.rival.take().is_some_and(|at| now < at + RIVAL_MEMORY) && self.state == NodeState::Active {
            self.commands.push_back(Command::Contested);
        }
        self.partner_state();
        if matches!(self.deadline, Some((_, Deadline::Prepare))) {
            self.deadline = None;
            self.commands.push_back(Command::Contested);
            self.finish_switchover(Err("the partner went away".into()));
        }
        self.update_eligible(now);
    }

    /// A partner that may have received our snapshot may take over from it: it competes for numbers from now on, acknowledged or not.
    pub(super) fn snapshot(&mut self) {
        if let Some(p) = &mut self.partner {
            p.given = true;
            p.has_state = true;
        }
        self.commands.push_back(Command::SendSnapshot);
        self.competitor = true;
    }

    /// A complete snapshot was received and applied.
    pub fn handle_snapshot_complete(&mut self, epoch: Epoch, now: Instant) {
        self.epoch = self.epoch.max(epoch);
        self.synced = true;
        self.has_state = true;
        if let Some(p) = &mut self.partner {
            p.asked = false;
        }
        if matches!(self.deadline, Some((_, Deadline::State))) {
            self.deadline = None;
        }
        if self.state == NodeState::Active {
            // A restarted active got its own state back; the partner gets a fresh snapshot under this session.
            self.snapshot();
        }
        self.announce_state();
        self.update_eligible(now);
    }

    /// The partner's role or epoch changed.
    pub fn handle_state(&mut self, role: Role, epoch: Epoch, ready: bool, now: Instant) {
        let Some(p) = self.partner.as_mut() else { return };
        let became_active = role == Role::Active && p.role != Role::Active;
        let given = p.given && !(role == Role::Standby && p.role == Role::Active);
        // An empty snapshot must not meet the mirror that was asked for.
        let waits = p.asked && !self.has_state;
        p.role = role;
        p.epoch = epoch;
        p.ready = ready;
        if role == Role::Standby {
            self.rival = None;
        }
        match self.state {
            NodeState::Active | NodeState::Adopting => {
                if role == Role::Active && (epoch > self.epoch || (epoch == self.epoch && !self.config.wins_ties)) {
                    self.epoch = epoch;
                    self.has_state = false;
                    self.synced = false;
                    self.relieved_until = Some(now + RELIEVED);
                    self.become_standby("the partner took over under a newer epoch", false, now);
                } else if role == Role::Standby && self.state == NodeState::Active && !given && !waits {
                    self.renew_orphans();
                    self.snapshot();
                }
            }
            NodeState::Draining | NodeState::Init => {}
            NodeState::Standby | NodeState::Armed => {
                if became_active {
                    self.synced = false;
                    if epoch > self.epoch {
                        self.epoch = epoch;
                        self.commands.push_back(Command::SetRole { role: PathRole::Standby, epoch });
                    }
                }
            }
        }
        self.update_eligible(now);
    }
}
