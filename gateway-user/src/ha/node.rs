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
use crate::ssp::{Hello, Message, Role};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a restarted active waits for its partner's word before it goes on alone.
pub(super) const ADOPT_WAIT: Duration = Duration::from_millis(150);
/// How long a node that is not ready waits before it takes over without state, when nobody else is there.
const COLD_WAIT: Duration = Duration::from_secs(2);
/// How long a restarted active waits for a partner that still holds its state, before it makes new SAs in place of those it cannot account for.
pub(super) const STATE_WAIT: Duration = Duration::from_secs(2);
/// How long a node that its partner relieved unasked does not take over from it while the partner's session says that it is active.
const RELIEVED: Duration = Duration::from_secs(30);
/// A rival that was heard so long before the partner's session broke may have broken it: it took over, and does not know any more that it did.
const RIVAL_MEMORY: Duration = Duration::from_secs(10);
/// How long an armed node waits for `HandoverGo`, and a draining or preparing one for its answer.
const HANDOVER_WAIT: Duration = Duration::from_secs(1);
/// How long a node that handed over lets packets out that were inside already.
const DRAIN: Duration = Duration::from_millis(20);

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
struct Partner {
    role: Role,
    epoch: Epoch,
    has_state: bool,
    ready: bool,
    /// It was sent a snapshot under this session.
    given: bool,
    /// It was asked for our own state.
    asked: bool,
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
    config: NodeConfig,
    state: NodeState,
    epoch: Epoch,
    /// Epoch of the complete state this node holds (own or mirrored).
    has_state: bool,
    /// Complete snapshot received in this session.
    synced: bool,
    partner: Option<Partner>,
    /// Configuration difference found with the partner.
    difference: Option<String>,
    links_up: bool,
    /// The partner acknowledged state of ours.
    competitor: bool,
    proposal: Option<(&'static str, Instant)>,
    not_ready_since: Option<Instant>,
    deadline: Option<(Instant, Deadline)>,
    heard_active: bool,
    /// While active: when the partner was last heard to call itself active too, in contact that has not said anything about it.
    rival: Option<Instant>,
    eligible: Option<bool>,
    commands: VecDeque<Command>,
    switching: bool,
    /// Until when a partner that took over unasked is left alone.
    relieved_until: Option<Instant>,
    /// Epoch that was handed to the partner.
    handed: Epoch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deadline {
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

    fn enter(&mut self, to: NodeState, cause: &'static str) {
        let from = self.state;
        self.state = to;
        self.commands.push_back(Command::Log { from, to, cause, epoch: self.epoch });
    }

    fn announce_state(&mut self) {
        if self.partner.is_some() {
            let message = Message::State { role: self.role(), epoch: self.epoch, ready: self.ready() };
            self.commands.push_back(Command::Send(message));
        }
    }

    fn update_eligible(&mut self, now: Instant) {
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

    fn cold_allowed(&self, now: Instant) -> bool {
        self.partner_role() != Some(Role::Active) && self.not_ready_since.is_some_and(|s| now >= s + COLD_WAIT)
    }

    fn partner_state(&mut self) {
        self.commands.push_back(Command::PartnerState { competitor: self.competitor, contact: self.partner.is_some() });
    }

    fn become_standby(&mut self, cause: &'static str, resign: bool, now: Instant) {
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

    fn take_over(&mut self, cause: &'static str, now: Instant) {
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

    fn adopt(&mut self, cause: &'static str, now: Instant) {
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
    fn restore_or_snapshot(&mut self, holder: bool) {
        if let Some(p) = self.partner.as_mut().filter(|_| !self.has_state && holder) {
            p.asked = true;
            self.commands.push_back(Command::Send(Message::ResyncRequest { client: None, peer: None }));
            return;
        }
        self.renew_orphans();
        self.snapshot();
    }

    fn renew_orphans(&mut self) {
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
    fn snapshot(&mut self) {
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

    fn finish_switchover(&mut self, result: Result<(), String>) {
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
