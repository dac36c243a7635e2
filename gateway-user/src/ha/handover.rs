//! Planned hand-over, both sides.

use super::node::*;
use crate::id::Epoch;
use crate::ports::PathRole;
use crate::ssp::Message;
use std::time::Instant;

impl Node {
    /// The operator asks for a planned hand-over to the partner.
    pub fn handle_switchover(&mut self, now: Instant) -> Result<(), String> {
        if self.state != NodeState::Active {
            return Err(format!("this node is {:?}, not active: ask the active one", self.state));
        }
        if self.switching {
            return Err("a switchover is under way".into());
        }
        if !self.has_state {
            return Err("this node restarted and does not have its state back yet: try again in a few seconds".into());
        }
        let Some(p) = &self.partner else {
            return Err("the partner is not connected (see `gateway show ssp peers`)".into());
        };
        if !p.ready || !self.competitor {
            return Err("the partner is not ready (see `gateway show crypto ipsec ha` there)".into());
        }
        self.switching = true;
        self.commands.push_back(Command::SendFinalCounters);
        self.commands.push_back(Command::Send(Message::HandoverPrepare { epoch: Epoch(self.epoch.0 + 1) }));
        self.deadline = Some((now + HANDOVER_WAIT, Deadline::Prepare));
        Ok(())
    }

    pub(super) fn finish_switchover(&mut self, result: Result<(), String>) {
        if std::mem::take(&mut self.switching) {
            self.commands.push_back(Command::SwitchoverDone(result));
        }
    }

    /// Active → standby: be ready.
    pub fn handle_prepare(&mut self, epoch: Epoch, now: Instant) {
        let refused = if self.state != NodeState::Standby {
            format!("this node is {:?}", self.state)
        } else if epoch <= self.epoch {
            format!("epoch {epoch} is not newer than {}", self.epoch)
        } else if let Some(why) = self.why_not_ready() {
            why.to_owned()
        } else {
            String::new()
        };
        if refused.is_empty() {
            self.enter(NodeState::Armed, "hand-over asked for");
            self.commands.push_back(Command::VipsUp);
            // Under the old epoch still: the hand-over may not come to pass, and epochs never fall.
            self.commands.push_back(Command::SetRole { role: PathRole::Armed, epoch: self.epoch });
            self.deadline = Some((now + HANDOVER_WAIT, Deadline::Armed));
        }
        self.commands.push_back(Command::Send(Message::HandoverArmed { epoch, refused }));
    }

    /// Standby → active: armed, or refused.
    pub fn handle_armed(&mut self, epoch: Epoch, refused: &str, now: Instant) {
        if self.state != NodeState::Active || !self.switching || epoch != Epoch(self.epoch.0 + 1) {
            return;
        }
        if !refused.is_empty() {
            self.deadline = None;
            self.finish_switchover(Err(format!("the partner refused: {refused}")));
            return;
        }
        self.enter(NodeState::Draining, "hand-over");
        // The partner's numbers move on from here; its snapshot makes ours good again.
        self.has_state = false;
        self.synced = false;
        self.handed = epoch;
        // From here every packet that still arrives is redirected; nothing new is verified here.
        self.commands.push_back(Command::SetRole { role: PathRole::Draining, epoch: self.epoch });
        self.commands.push_back(Command::IkeActive(false));
        self.commands.push_back(Command::SendFinalCounters);
        self.commands.push_back(Command::Send(Message::HandoverGo { epoch }));
        self.deadline = Some((now + DRAIN, Deadline::Drain));
    }

    /// Active → standby: yours now.
    pub fn handle_go(&mut self, epoch: Epoch, now: Instant) {
        if self.state != NodeState::Armed || epoch != Epoch(self.epoch.0 + 1) {
            return;
        }
        self.commands.push_back(Command::RaiseFloors);
        self.take_over("switchover", now);
    }
}
