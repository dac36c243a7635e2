//! The decision core of one node.
//!
//! ```text
//!            adopt (pinned role word says active)
//!   Init ------------------------------------------> Adopting --partner agrees, or nobody there--> Active
//!    | started                                           | partner is ahead      <--lease ran out----+
//!    v                                                   v
//!  Standby <---------------------------------------------+
//!    | grant (HSRP proposal, ready)                      ^
//!    +----------------------------------------------> Active
//!    | HandoverPrepare           HandoverGo              | operator: switchover
//!    +--> Armed --------------------------------------> Active
//!            | timeout                                   +--> Draining --Go sent, drained--> Standby
//!            v
//!         Standby
//! ```
//! HSRP proposes, this module grants. Nothing here touches a socket, a clock or the kernel: inputs are method calls, work leaves by `poll_command`.

use crate::id::Epoch;
use crate::ports::PathRole;
use crate::ssp::{Message, Role};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a restarted active waits for its partner's word before it goes on alone.
pub(super) const ADOPT_WAIT: Duration = Duration::from_millis(150);
/// How long a node that is not ready waits before it takes over without state, when nobody else is there.
pub(super) const COLD_WAIT: Duration = Duration::from_secs(2);
/// How long a restarted active waits for a partner that still holds its state, before it makes new SAs in place of those it cannot account for.
pub(super) const STATE_WAIT: Duration = Duration::from_secs(2);
/// How long a node that its partner relieved unasked does not take over from it while the partner's session says that it is active.
pub(super) const RELIEVED: Duration = Duration::from_secs(30);
/// A rival that was heard so long before the partner's session broke may have broken it: it took over, and does not know any more that it did.
pub(super) const RIVAL_MEMORY: Duration = Duration::from_secs(10);
/// How long an armed node waits for `HandoverGo`, and a draining or preparing one for its answer.
pub(super) const HANDOVER_WAIT: Duration = Duration::from_secs(1);
/// How long a node that handed over lets packets out that were inside already.
pub(super) const DRAIN: Duration = Duration::from_millis(20);

/// State of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum NodeState {
    /// Not started.
    Init,
    /// Restarted over a data path that was active: waits for the partner's word.
    Adopting,
    /// Mute; mirrors when the partner is active.
    Standby,
    /// Planned hand-over: forwards what reaches it.
    Armed,
    /// Owns the VIPs.
    Active,
    /// Planned hand-over: redirects, lets out what is inside.
    Draining,
}

/// What the daemon carries out, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Write the role word. `limited`: the lease ends one hold time after the last hello; else without limit.
    SetRole {
        /// Role of the data path.
        role: PathRole,
        /// Epoch.
        epoch: Epoch,
    },
    /// Add the VIPs.
    VipsUp,
    /// Remove the VIPs.
    VipsDown,
    /// Send gratuitous ARP for every VIP.
    Announce,
    /// All HSRP groups become active now.
    HsrpGrant,
    /// All HSRP groups continue as active (restart).
    HsrpAdopt,
    /// All HSRP groups leave the active state.
    HsrpYield {
        /// Send Resign.
        resign: bool,
    },
    /// Whether the groups may propose.
    HsrpEligible(bool),
    /// Unmute (`true`) or mute the IKE engine.
    IkeActive(bool),
    /// Send a message to the partner.
    Send(Message),
    /// Send everything: final counters only (`counters`), or a whole snapshot.
    SendSnapshot,
    /// Send exact counters of every SA, read from the kernel.
    SendFinalCounters,
    /// Remove every SA: what is here may be older than what the other node used.
    DropState,
    /// The partner was active under a newer epoch meanwhile: its numbers lie above what this node may use. New keys for every pair it held.
    Contested,
    /// Nobody gives back what a predecessor knew: SAs it left in the kernel carry on until new ones replace them, which starts now.
    RenewOrphans,
    /// Write the final counters as replay floors (the partner forwards nothing any more).
    RaiseFloors,
    /// The partner cannot be reached or holds nothing: leases change.
    PartnerState {
        /// The partner holds mirrored state.
        competitor: bool,
        /// The partner can be asked.
        contact: bool,
    },
    /// A takeover is finished: count it, keep its stage times.
    TookOver {
        /// Why.
        cause: &'static str,
    },
    /// One line for the log.
    Log {
        /// State before.
        from: NodeState,
        /// State now.
        to: NodeState,
        /// Why.
        cause: &'static str,
        /// Epoch now.
        epoch: Epoch,
    },
    /// The operator's switchover ended.
    SwitchoverDone(Result<(), String>),
}

#[derive(Clone, Debug)]
pub(super) struct Partner {
    pub(super) role: Role,
    pub(super) epoch: Epoch,
    pub(super) has_state: bool,
    pub(super) ready: bool,
    /// It was sent a snapshot under this session.
    pub(super) given: bool,
    /// It was asked for our own state.
    pub(super) asked: bool,
}

/// Inputs that are fixed for the life of the node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// True when this node wins ties (higher interface address).
    pub wins_ties: bool,
    /// Longest hold time of the groups.
    pub hold: Duration,
    /// A partner is configured.
    pub paired: bool,
}

/// The decision core.
#[derive(Debug)]
pub struct Node {
    pub(super) config: NodeConfig,
    pub(super) state: NodeState,
    pub(super) epoch: Epoch,
    /// Epoch of the complete state this node holds (own or mirrored).
    pub(super) has_state: bool,
    /// Complete snapshot received in this session.
    pub(super) synced: bool,
    pub(super) partner: Option<Partner>,
    /// Configuration difference found with the partner.
    pub(super) difference: Option<String>,
    pub(super) links_up: bool,
    /// The partner acknowledged state of ours.
    pub(super) competitor: bool,
    pub(super) proposal: Option<(&'static str, Instant)>,
    pub(super) not_ready_since: Option<Instant>,
    pub(super) deadline: Option<(Instant, Deadline)>,
    pub(super) heard_active: bool,
    /// While active: when the partner was last heard to call itself active too, in contact that has not said anything about it.
    pub(super) rival: Option<Instant>,
    pub(super) eligible: Option<bool>,
    pub(super) commands: VecDeque<Command>,
    pub(super) switching: bool,
    /// Until when a partner that took over unasked is left alone.
    pub(super) relieved_until: Option<Instant>,
    /// Epoch that was handed to the partner.
    pub(super) handed: Epoch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deadline {
    Adopt,
    State,
    Cold,
    Prepare,
    Armed,
    Drain,
}

impl Deadline {
    fn reason(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::State => "state of a predecessor",
            Self::Cold => "cold takeover",
            Self::Prepare => "hand-over answer",
            Self::Armed => "hand-over go",
            Self::Drain => "drain",
        }
    }
}

impl Node {
    /// A node that has not started.
    pub fn new(config: NodeConfig) -> Self {
        Self {
            config,
            state: NodeState::Init,
            epoch: Epoch(0),
            has_state: false,
            synced: false,
            partner: None,
            difference: None,
            links_up: true,
            competitor: false,
            proposal: None,
            not_ready_since: None,
            deadline: None,
            heard_active: false,
            rival: None,
            eligible: None,
            commands: VecDeque::new(),
            switching: false,
            relieved_until: None,
            handed: Epoch(0),
        }
    }

    /// Starts. `pinned`: role and epoch that a predecessor left in the data path.
    pub fn start(&mut self, pinned: Option<(PathRole, Epoch)>, now: Instant) {
        let was = pinned.map_or(Epoch(0), |(_, e)| e);
        self.epoch = self.epoch.max(was);
        match pinned {
            Some((PathRole::Active, _)) => {
                self.enter(NodeState::Adopting, "restart over an active data path");
                self.deadline = Some((now + ADOPT_WAIT, Deadline::Adopt));
                self.update_eligible(now);
            }
            _ => {
                self.become_standby("start", false, now);
            }
        }
    }

    /// State now.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// Highest epoch known.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Role as the partner hears it.
    pub fn role(&self) -> Role {
        match self.state {
            NodeState::Init => Role::Init,
            NodeState::Active | NodeState::Adopting => Role::Active,
            // A draining node owns nothing any more: saying "active" under the new epoch would make the new owner yield.
            NodeState::Standby | NodeState::Armed | NodeState::Draining => Role::Standby,
        }
    }

    /// True when this node holds complete state of the current epoch.
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    /// True when a takeover would continue every SA.
    pub fn ready(&self) -> bool {
        self.why_not_ready().is_none()
    }

    /// A planned hand-over to the partner is under way.
    pub fn handing_over(&self) -> bool {
        self.switching
    }

    /// The partner's role, while in contact.
    pub fn partner_role(&self) -> Option<Role> {
        self.partner.as_ref().map(|p| p.role)
    }

    /// True when the partner said it could take over at once.
    pub fn partner_ready(&self) -> bool {
        self.partner.as_ref().is_some_and(|p| p.ready)
    }

    /// The configuration item that differs from the partner's.
    pub fn difference(&self) -> Option<&str> {
        self.difference.as_deref()
    }

    /// Why a takeover now would lose state; `None` when ready.
    pub fn why_not_ready(&self) -> Option<&'static str> {
        if !self.links_up {
            return Some("a tracked interface is down");
        }
        // Two nodes that both hold off would leave nobody: the difference only counts against an active partner.
        if self.difference.is_some() && self.partner_role() == Some(Role::Active) {
            return Some("the configurations differ");
        }
        match &self.partner {
            Some(p) if p.role == Role::Active && !self.synced => Some("the snapshot is not complete"),
            Some(p) if p.has_state && !self.has_state => Some("the partner's state is not here yet"),
            _ if self.config.paired && !self.has_state && self.heard_active => Some("an active router was heard and its state is not here"),
            _ => None,
        }
    }

    pub(super) fn enter(&mut self, to: NodeState, cause: &'static str) {
        let from = self.state;
        self.state = to;
        self.commands.push_back(Command::Log { from, to, cause, epoch: self.epoch });
    }

    pub(super) fn announce_state(&mut self) {
        if self.partner.is_some() {
            let message = Message::State { role: self.role(), epoch: self.epoch, ready: self.ready() };
            self.commands.push_back(Command::Send(message));
        }
    }

    pub(super) fn update_eligible(&mut self, now: Instant) {
        // Neither node is active, and the partner holds what this one lacks.
        if self.state == NodeState::Standby
            && !self.has_state
            && self.links_up
            && let Some(p) = self.partner.as_mut().filter(|p| p.role != Role::Active && p.has_state && !p.asked)
        {
            p.asked = true;
            self.commands.push_back(Command::Send(Message::ResyncRequest { client: None, peer: None }));
        }
        // A node that is not ready keeps listening; it proposes again as soon as it is, or when it is alone for COLD_WAIT.
        let ok = self.links_up && self.state == NodeState::Standby && (self.ready() || self.cold_allowed(now));
        if self.eligible != Some(ok) {
            self.eligible = Some(ok);
            self.commands.push_back(Command::HsrpEligible(ok));
        }
        if self.ready() {
            self.not_ready_since = None;
            if matches!(self.deadline, Some((_, Deadline::Cold))) {
                self.deadline = None;
            }
        } else if self.state == NodeState::Standby && self.partner_role() != Some(Role::Active) {
            let since = *self.not_ready_since.get_or_insert(now);
            if self.deadline.is_none() && now < since + COLD_WAIT {
                self.deadline = Some((since + COLD_WAIT, Deadline::Cold));
            }
        } else {
            self.not_ready_since = None;
        }
    }

    pub(super) fn cold_allowed(&self, now: Instant) -> bool {
        self.partner_role() != Some(Role::Active) && self.not_ready_since.is_some_and(|s| now >= s + COLD_WAIT)
    }

    pub(super) fn partner_state(&mut self) {
        self.commands.push_back(Command::PartnerState { competitor: self.competitor, contact: self.partner.is_some() });
    }

    pub(super) fn become_standby(&mut self, cause: &'static str, resign: bool, now: Instant) {
        self.deadline = None;
        self.proposal = None;
        self.rival = None;
        let was = self.state;
        self.enter(NodeState::Standby, cause);
        // Mute first, then everything else.
        self.commands.push_back(Command::SetRole { role: PathRole::Standby, epoch: self.epoch });
        self.commands.push_back(Command::IkeActive(false));
        if !matches!(was, NodeState::Standby) {
            self.commands.push_back(Command::HsrpYield { resign });
            self.commands.push_back(Command::VipsDown);
        }
        if matches!(was, NodeState::Active | NodeState::Draining | NodeState::Adopting) {
            self.competitor = false;
        }
        self.update_eligible(now);
        self.announce_state();
    }

    pub(super) fn take_over(&mut self, cause: &'static str, now: Instant) {
        self.deadline = None;
        self.proposal = None;
        self.heard_active = false;
        self.epoch = Epoch(self.epoch.0 + 1);
        self.competitor = false;
        self.enter(NodeState::Active, cause);
        if !self.has_state {
            // Whatever is left here is of unknown age: its numbers may have been used by the other node.
            self.commands.push_back(Command::DropState);
        }
        self.has_state = true;
        self.commands.push_back(Command::SetRole { role: PathRole::Active, epoch: self.epoch });
        self.commands.push_back(Command::VipsUp);
        self.commands.push_back(Command::HsrpGrant);
        self.commands.push_back(Command::Announce);
        self.commands.push_back(Command::IkeActive(true));
        self.partner_state();
        self.commands.push_back(Command::TookOver { cause });
        self.announce_state();
        // A partner that still calls itself active is dead or has not heard yet: it gets the snapshot when it says it yielded. Until then nothing
        // waits for its acknowledgements.
        if self.partner.as_ref().is_some_and(|p| p.role != Role::Active) {
            self.snapshot();
        }
        self.update_eligible(now);
    }

    pub(super) fn adopt(&mut self, cause: &'static str, now: Instant) {
        self.deadline = None;
        self.enter(NodeState::Active, cause);
        self.commands.push_back(Command::SetRole { role: PathRole::Active, epoch: self.epoch });
        self.commands.push_back(Command::VipsUp);
        self.commands.push_back(Command::HsrpAdopt);
        // Somebody else may have had the addresses in between.
        self.commands.push_back(Command::Announce);
        self.commands.push_back(Command::IkeActive(true));
        self.partner_state();
        self.announce_state();
        let holder = self.partner.as_ref().is_some_and(|p| p.has_state);
        if !self.has_state && (holder || self.partner.is_none()) {
            self.deadline = Some((now + STATE_WAIT, Deadline::State));
        }
        if self.partner.is_some() {
            self.restore_or_snapshot(holder);
        }
        self.update_eligible(now);
    }

    /// An active without its own state takes the partner's mirror of it, which is all that is left; otherwise the partner gets a snapshot.
    pub(super) fn restore_or_snapshot(&mut self, holder: bool) {
        if let Some(p) = self.partner.as_mut().filter(|_| !self.has_state && holder) {
            p.asked = true;
            self.commands.push_back(Command::Send(Message::ResyncRequest { client: None, peer: None }));
            return;
        }
        self.renew_orphans();
        self.snapshot();
    }

    pub(super) fn renew_orphans(&mut self) {
        if !std::mem::replace(&mut self.has_state, true) {
            self.commands.push_back(Command::RenewOrphans);
        }
        if matches!(self.deadline, Some((_, Deadline::State))) {
            self.deadline = None;
        }
    }

    /// A group wants to be active.
    pub fn handle_proposal(&mut self, cause: &'static str, now: Instant) {
        if self.state != NodeState::Standby {
            return;
        }
        self.proposal = Some((cause, now));
        if !self.links_up {
            return;
        }
        // A LAN that does not carry hellos lets each node take over from the other in turn. The one that was just relieved leaves it at that
        // while its partner says that it lives.
        if self.relieved_until.is_some_and(|until| now < until) && self.partner_role() == Some(Role::Active) {
            return;
        }
        if self.ready() || self.cold_allowed(now) {
            self.take_over(cause, now);
        } else {
            self.update_eligible(now);
        }
    }

    /// The lease in the data path ran out before this node renewed it: it has been mute since, and the partner may own the addresses by now.
    /// It listens for one hold time before it goes on.
    pub fn handle_lease_over(&mut self, now: Instant) {
        match self.state {
            NodeState::Active => {
                self.proposal = None;
                self.finish_switchover(Err("this node did not run for longer than its lease".into()));
                self.enter(NodeState::Adopting, "the lease ran out while this node did not run");
                self.commands.push_back(Command::HsrpYield { resign: false });
                self.deadline = Some((now + self.config.hold, Deadline::Adopt));
                self.update_eligible(now);
            }
            NodeState::Adopting => self.deadline = Some((now + self.config.hold, Deadline::Adopt)),
            NodeState::Init | NodeState::Standby | NodeState::Armed | NodeState::Draining => {}
        }
    }

    /// Another router is active (heard by HSRP while this node is not).
    pub fn handle_other_active(&mut self, now: Instant) {
        self.heard_active = true;
        // Somebody is there: waiting to take over without state begins anew.
        if self.not_ready_since.is_some() {
            self.not_ready_since = Some(now);
            if matches!(self.deadline, Some((_, Deadline::Cold))) {
                self.deadline = None;
            }
        }
        if self.state == NodeState::Adopting {
            self.has_state &= !self.config.paired;
            self.become_standby("another router is active", false, now);
        } else {
            self.update_eligible(now);
        }
    }

    /// Another router is active and wins against us by priority or address.
    pub fn handle_winner(&mut self, now: Instant) {
        // With the partner's session the epoch decides; without it HSRP's rule does.
        if self.state == NodeState::Active && self.partner.is_none() {
            self.heard_active = true;
            self.has_state &= !self.config.paired;
            self.become_standby("a winning active router was heard", false, now);
        } else if self.state == NodeState::Active {
            self.rival = Some(now);
        }
    }

    /// Another router is active and loses against us: it took over from what we mirrored, with numbers above those left to us. What it knows of
    /// that may be lost before it can be asked (a loss of power).
    pub fn handle_loser(&mut self, now: Instant) {
        if self.state != NodeState::Active {
            return;
        }
        if self.partner.is_some() {
            self.rival = Some(now);
        } else {
            self.commands.push_back(Command::Contested);
        }
    }

    /// Interfaces with groups: all up, or not.
    pub fn handle_links(&mut self, all_up: bool, now: Instant) {
        if self.links_up == all_up {
            return;
        }
        self.links_up = all_up;
        if !all_up {
            match self.state {
                NodeState::Active | NodeState::Adopting | NodeState::Armed | NodeState::Draining => {
                    // What the partner does from here on is not known: our state is worth nothing until a snapshot says so (without
                    // a partner nobody else can use it).
                    self.has_state &= !self.config.paired;
                    self.become_standby("a tracked interface is down", true, now);
                }
                NodeState::Init | NodeState::Standby => {}
            }
        }
        self.update_eligible(now);
        self.announce_state();
    }

    /// Next deadline.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadline.map(|(at, d)| (at, d.reason()))
    }

    /// A deadline passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some((at, what)) = self.deadline else { return };
        if now < at {
            return;
        }
        self.deadline = None;
        match what {
            Deadline::Adopt => {
                if self.state == NodeState::Adopting {
                    self.adopt("nobody else is there", now);
                }
            }
            Deadline::State => {
                if self.state == NodeState::Active && !self.has_state {
                    self.renew_orphans();
                    if self.partner.is_some() {
                        self.snapshot();
                    }
                }
            }
            Deadline::Cold => {
                self.update_eligible(now);
            }
            Deadline::Prepare => {
                // It may have armed without our hearing of it, and used numbers of its own.
                self.commands.push_back(Command::Contested);
                self.finish_switchover(Err("the partner did not answer in time".into()));
            }
            Deadline::Armed => {
                if self.state == NodeState::Armed {
                    self.become_standby("hand-over was not completed", false, now);
                }
            }
            Deadline::Drain => {
                if self.state == NodeState::Draining {
                    self.epoch = self.epoch.max(self.handed);
                    self.become_standby("handed over", false, now);
                    self.finish_switchover(Ok(()));
                }
            }
        }
    }

    /// Next command.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}
