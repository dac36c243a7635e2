//! One group: timers, neighbours and packet checks around the table in [`super::fsm`].

use super::fsm::{Action, Input, step};
use super::packet::{Opcode, Packet, Received, decode};
use super::{Event, GroupConfig, MULTICAST, Refused, State, TTL, Transmit};
use crate::crypto::ct_eq;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Packets waiting for `poll_transmit`. One input makes two at most; past the bound the oldest goes.
const MAX_TRANSMITS: usize = 8;
/// Events waiting for `poll_event`. One input makes three at most; past the bound the oldest goes.
const MAX_EVENTS: usize = 16;
/// Shortest hello and hold time that is obeyed: a zero would make a busy loop.
const MIN_TIME: Duration = Duration::from_millis(1);
/// A losing active router makes us repeat our hello, but not more often than this part of the hello time.
const ASSERTS_PER_HELLO: u32 = 4;

/// Why the group wants to be active; the index of its rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    NoActive,
    ActiveExpired,
    ResignHeard,
    Preempt,
}

impl Cause {
    const COUNT: usize = 4;

    const fn text(self) -> &'static str {
        match self {
            Self::NoActive => "no active router",
            Self::ActiveExpired => "active timer expired",
            Self::ResignHeard => "resign heard",
            Self::Preempt => "preempt",
        }
    }
}

/// A router heard in a role.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    router: Ipv4Addr,
    priority: u8,
    /// Its last hello in this role counts until then.
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Down,
    /// Up, but waiting for other things (spanning tree, routing) to settle.
    Delayed(Instant),
    Up,
}

/// One HSRP group on one interface.
#[derive(Debug)]
pub struct Group {
    config: GroupConfig,
    state: State,
    since: Instant,
    link: Link,
    eligible: bool,
    active: Option<Neighbour>,
    standby: Option<Neighbour>,
    /// A winning active router heard while we are active ourselves.
    rival: Option<Neighbour>,
    /// Runs while an active router is known or hoped for; `None` means: there is none.
    active_timer: Option<Instant>,
    standby_timer: Option<Instant>,
    /// Runs in Speak, Standby and Active.
    hello_timer: Option<Instant>,
    /// When a standing proposal is repeated.
    proposal_timer: Option<Instant>,
    /// Why there is no active router, when there is none.
    vacancy: Cause,
    /// Per cause: not proposed again before.
    not_before: [Option<Instant>; Cause::COUNT],
    /// Our hello is not repeated against a losing active router before.
    assert_not_before: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Group {
    /// A group in Initial: interface down, and not eligible until [`Group::set_eligible`] says so.
    pub fn new(config: GroupConfig, now: Instant) -> Self {
        Self {
            config,
            state: State::Initial,
            since: now,
            link: Link::Down,
            eligible: false,
            active: None,
            standby: None,
            rival: None,
            active_timer: None,
            standby_timer: None,
            hello_timer: None,
            proposal_timer: None,
            vacancy: Cause::NoActive,
            not_before: [None; Cause::COUNT],
            assert_not_before: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The interface went up or down. After going up the group waits `restart_delay` (of [`GroupConfig::delay_minimum`] or
    /// [`GroupConfig::delay_reload`]) before it listens. Down while active emits a Resign, for an orderly end. A repeated
    /// call with the same `up` changes nothing.
    pub fn handle_interface(&mut self, up: bool, restart_delay: Duration, now: Instant) {
        match (self.link, up) {
            (Link::Down, true) => {
                self.link = Link::Delayed(now + restart_delay);
                self.end_delay(now);
            }
            (Link::Delayed(_) | Link::Up, false) => {
                self.link = Link::Down;
                self.apply(Input::Disabled, now);
            }
            (Link::Down, false) | (Link::Delayed(_) | Link::Up, true) => {}
        }
    }

    /// A packet from UDP port 1985. `ttl` and `dst` are those of its IP header.
    ///
    /// # Errors
    /// [`Refused`]: the packet changed nothing; count it by its reason. A packet of another group or an Advertise is no fault.
    pub fn handle_packet(&mut self, source: Ipv4Addr, ttl: u8, dst: Ipv4Addr, payload: &[u8], now: Instant) -> Result<(), Refused> {
        if dst != MULTICAST {
            return Err(Refused::BadDestination);
        }
        if ttl != TTL {
            return Err(Refused::BadTtl(ttl));
        }
        if source == self.config.address {
            return Err(Refused::OwnAddress);
        }
        if source.is_unspecified() || source.is_multicast() || source.is_broadcast() || source == self.config.vip {
            return Err(Refused::BadSource(source));
        }
        let packet = match decode(payload)? {
            Received::Packet(packet) => packet,
            Received::Advertise => return Ok(()),
        };
        if packet.group != self.config.group {
            return Err(Refused::OtherGroup(packet.group));
        }
        if !ct_eq(&packet.authentication, &self.config.authentication) {
            return Err(Refused::BadAuth);
        }
        if packet.vip != self.config.vip {
            return Err(Refused::WrongVip(packet.vip));
        }
        if self.link == Link::Down {
            return Err(Refused::NotRunning);
        }
        self.heard(source, &packet, now);
        Ok(())
    }

    /// Carries out every timer that is due. A late call sends one hello, not the missed ones.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_delay(now);
        if take_due(&mut self.active_timer, now) {
            if self.active.take().is_some() {
                self.vacancy = Cause::ActiveExpired;
            }
            self.apply(Input::ActiveExpired, now);
        }
        if take_due(&mut self.standby_timer, now) {
            self.standby = None;
            self.apply(Input::StandbyExpired, now);
        }
        if take_due(&mut self.hello_timer, now) {
            self.apply(Input::HelloDue, now);
        }
        if take_due(&mut self.proposal_timer, now) {
            self.propose(now);
        }
    }

    /// The node decided: active now, from any state with the interface up (the start delay included, so that the groups of a
    /// node never part). The hello is ready for `poll_transmit`.
    pub fn grant_active(&mut self, now: Instant) {
        if self.link != Link::Down {
            self.link = Link::Up;
            self.apply(Input::Grant, now);
        }
    }

    /// The node decided: leave Active, to Speak if eligible, else to Listen. With `resign`, others need not wait for the hold
    /// time. Nothing happens in any other state.
    pub fn yield_active(&mut self, resign: bool, now: Instant) {
        self.apply(Input::Yield { resign }, now);
    }

    /// The daemon restarted and its node is active: straight to Active, without delay and whatever the interface was.
    pub fn adopt_active(&mut self, now: Instant) {
        self.link = Link::Up;
        self.apply(Input::Adopt, now);
    }

    /// Whether the node could become active. If not, the group never proposes and does not pass Listen; an active group stays
    /// until [`Group::yield_active`].
    pub fn set_eligible(&mut self, eligible: bool, now: Instant) {
        if self.eligible == eligible {
            return;
        }
        self.eligible = eligible;
        if !eligible {
            self.apply(Input::Ineligible, now);
            return;
        }
        if self.state == State::Listen {
            // What ended while we could not take part counts now.
            if self.active_timer.is_none() {
                self.apply(Input::ActiveExpired, now);
            } else if self.standby_timer.is_none() {
                self.apply(Input::StandbyExpired, now);
            }
        }
        self.propose(now);
    }

    /// State of the group on this node.
    pub fn state(&self) -> State {
        self.state
    }

    /// Configuration of the group.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// The active router as far as known: our own address while we are active.
    pub fn active_router(&self) -> Option<Ipv4Addr> {
        if self.state == State::Active { Some(self.config.address) } else { self.active.map(|n| n.router) }
    }

    /// The standby router as far as known: our own address while we are standby.
    pub fn standby_router(&self) -> Option<Ipv4Addr> {
        if self.state == State::Standby { Some(self.config.address) } else { self.standby.map(|n| n.router) }
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The next packet to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Group::handle_timeout`] is to be called, and for which timer.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let delay = match self.link {
            Link::Delayed(until) => Some(until),
            Link::Down | Link::Up => None,
        };
        [
            (delay, "start delay"),
            (self.active_timer, "active"),
            (self.standby_timer, "standby"),
            (self.hello_timer, "hello"),
            (self.proposal_timer, "proposal"),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
        .min_by_key(|(at, _)| *at)
    }

    fn end_delay(&mut self, now: Instant) {
        match self.link {
            Link::Delayed(until) if until <= now => {
                self.link = Link::Up;
                self.apply(Input::Enabled, now);
            }
            Link::Delayed(_) | Link::Down | Link::Up => {}
        }
    }

    /// An authentic packet of our group: the events f to l of RFC 2281 5.6.
    fn heard(&mut self, router: Ipv4Addr, packet: &Packet, now: Instant) {
        // RFC 2281 5.1: higher priority wins, then the higher address.
        let wins = (packet.priority, router) > (self.config.priority, self.config.address);
        let neighbour = Neighbour { router, priority: packet.priority, until: now + self.hold() };
        match (packet.opcode, packet.state) {
            (Opcode::Hello, State::Active) => self.heard_active(neighbour, wins, now),
            (Opcode::Hello, State::Standby) => {
                self.no_longer_active(router, now);
                if self.state != State::Initial {
                    self.standby = Some(neighbour);
                }
                self.apply(if wins { Input::StandbyWins } else { Input::StandbyLoses }, now);
            }
            (Opcode::Hello, State::Speak) => {
                self.no_longer_active(router, now);
                if wins {
                    self.apply(Input::SpeakerWins, now);
                }
            }
            // A router that does not take part (yet).
            (Opcode::Hello, State::Initial | State::Learn | State::Listen) => self.no_longer_active(router, now),
            (Opcode::Coup, _) => {
                if wins {
                    if self.state == State::Active {
                        self.rival = Some(neighbour);
                    }
                    self.apply(Input::CoupWins, now);
                }
            }
            (Opcode::Resign, _) => {
                if self.rival.is_some_and(|n| n.router == router) {
                    self.rival = None;
                }
                // Only the active router can resign: a resign in no one's name would start elections at will.
                if self.active.is_some_and(|n| n.router == router) {
                    self.active = None;
                    self.vacancy = Cause::ResignHeard;
                    self.apply(Input::Resigned, now);
                }
            }
            // The decoder keeps it away.
            (Opcode::Advertise, _) => {}
        }
    }

    fn heard_active(&mut self, neighbour: Neighbour, wins: bool, now: Instant) {
        if self.state == State::Active {
            if wins {
                self.rival = Some(neighbour);
                self.apply(Input::ActiveWins, now);
            } else {
                self.push_event(Event::LoserHeard { router: neighbour.router });
                self.apply(Input::ActiveLoses, now);
            }
            return;
        }
        // Two active routers at once: keep the better one, unless it fell silent.
        let replace = self.active.is_none_or(|known| {
            known.router == neighbour.router
                || known.until <= now
                || (neighbour.priority, neighbour.router) > (known.priority, known.router)
        });
        if replace {
            self.active = Some(neighbour);
        }
        if self.standby.is_some_and(|n| n.router == neighbour.router) {
            self.standby = None;
        }
        // At equal priority the address does not preempt.
        let outranked = neighbour.priority < self.config.priority;
        self.apply(if outranked { Input::ActiveLoses } else { Input::ActiveWins }, now);
    }

    /// `router` said that it is something else than active: the next active router replaces it at once. The active timer goes on.
    fn no_longer_active(&mut self, router: Ipv4Addr, now: Instant) {
        if let Some(known) = &mut self.active
            && known.router == router
        {
            known.until = now;
        }
    }

    fn apply(&mut self, input: Input, now: Instant) {
        let from = self.state;
        let step = step(from, input, self.eligible);
        if step.next != from {
            self.state = step.next;
            self.since = now;
            if from == State::Active {
                // A hello of the time before would bring the virtual MAC back to this port.
                self.transmits.clear();
            }
            if !matches!(step.next, State::Speak | State::Standby | State::Active) {
                self.hello_timer = None;
            }
            self.push_event(Event::StateChanged { from, to: step.next, cause: cause_of(input) });
        }
        for action in step.actions {
            self.act(*action, from, now);
        }
        if step.next != State::Active
            && from == State::Active
            && let Some(rival) = self.rival.take()
            && rival.until > now
            && step.next != State::Initial
        {
            self.active = Some(rival);
        }
        if step.next == State::Active && from != State::Active {
            (self.active, self.rival) = (None, None);
        }
    }

    fn act(&mut self, action: Action, from: State, now: Instant) {
        match action {
            Action::StartActive => self.active_timer = Some(now + self.hold()),
            Action::StartStandby => self.standby_timer = Some(now + self.hold()),
            Action::StopActive => {
                self.active_timer = None;
                // A grant still has to know whom it preempts.
                if self.state != State::Active {
                    self.active = None;
                }
            }
            Action::StopStandby => (self.standby_timer, self.standby) = (None, None),
            Action::SendHello => {
                self.hello_timer = Some(now + self.hello());
                self.push_transmit(Opcode::Hello, self.state);
            }
            Action::SendCoup => {
                let living = self.active.filter(|n| n.until > now);
                if self.config.preempt && living.is_some_and(|n| n.priority < self.config.priority) {
                    self.push_transmit(Opcode::Coup, from);
                }
            }
            Action::SendResign => self.push_transmit(Opcode::Resign, self.state),
            Action::Propose => self.propose(now),
            Action::ReportWinner => {
                if let Some(Neighbour { router, priority, .. }) = self.rival {
                    self.push_event(Event::ActiveHeard { router, priority });
                }
            }
            Action::ReportLoser => {
                if self.assert_not_before.is_none_or(|at| at <= now) {
                    self.assert_not_before = Some(now + self.hello() / ASSERTS_PER_HELLO);
                    self.act(Action::SendHello, from, now);
                }
            }
        }
    }

    /// Why the group should become active, if it should.
    fn reason(&self) -> Option<Cause> {
        if !self.eligible || !matches!(self.state, State::Listen | State::Speak | State::Standby) {
            return None;
        }
        if self.state == State::Standby && self.active_timer.is_none() {
            return Some(self.vacancy);
        }
        let lesser = self.active.is_some_and(|n| n.priority < self.config.priority);
        (self.config.preempt && lesser).then_some(Cause::Preempt)
    }

    fn propose(&mut self, now: Instant) {
        let Some(cause) = self.reason() else {
            self.proposal_timer = None;
            return;
        };
        let repeat = now + self.hello();
        let not_before = &mut self.not_before[cause as usize];
        let again = match *not_before {
            Some(at) if at > now => at,
            Some(_) | None => {
                *not_before = Some(repeat);
                self.push_event(Event::Proposal { cause: cause.text() });
                repeat
            }
        };
        self.proposal_timer = Some(again);
    }

    fn push_transmit(&mut self, opcode: Opcode, sent_state: State) {
        if self.transmits.len() == MAX_TRANSMITS {
            self.transmits.pop_front();
        }
        self.transmits.push_back(Transmit {
            payload: Packet::of(&self.config, opcode, sent_state).encode(),
            virtual_source: sent_state == State::Active,
            opcode,
            sent_state,
        });
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn hello(&self) -> Duration {
        self.config.hello.max(MIN_TIME)
    }

    fn hold(&self) -> Duration {
        self.config.hold.max(MIN_TIME)
    }
}

/// Stops `timer` if it is due.
fn take_due(timer: &mut Option<Instant>, now: Instant) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}

/// What the log says about a change of state.
const fn cause_of(input: Input) -> &'static str {
    match input {
        Input::Enabled => "interface up",
        Input::Disabled => "interface down",
        Input::ActiveExpired => "active timer expired",
        Input::StandbyExpired => "standby timer expired",
        Input::HelloDue => "hello timer",
        Input::SpeakerWins => "a better speaker was heard",
        Input::ActiveWins | Input::ActiveLoses => "an active router was heard",
        Input::Resigned => "the active router resigned",
        Input::CoupWins => "a coup was heard",
        Input::StandbyWins => "a better standby router was heard",
        Input::StandbyLoses => "a lesser standby router was heard",
        Input::Grant => "granted",
        Input::Yield { .. } => "yielded",
        Input::Adopt => "adopted at restart",
        Input::Ineligible => "not eligible",
    }
}
