//! The state table of RFC 2281 5.8 as a pure function from (state, input) to (next state, actions).
//!
//! ```text
//!                 a Enabled                c ActiveExpired, d StandbyExpired,
//!  +---------+ (delay over)  +--------+    i Resigned, l StandbyLoses         +-------+
//!  | Initial |-------------->| Listen |-------------------------------------->| Speak |
//!  +---------+               |        |<--------------------------------------|       |
//!    ^                       +--------+    f SpeakerWins, k StandbyWins,      +-------+
//!    | b Disabled             ^   |  ^     Ineligible                          |     ^
//!    | (from every state)     |   |  | f, k, Ineligible     d StandbyExpired,  |     |
//!                             |   |  |                      l StandbyLoses     v     |
//!                             |   |  +-----------------------------------+---------+ |
//!              Yield          |   | Grant                                | Standby | |
//!              (not eligible) |   |                                      +---------+ |
//!                             |   v                                           |      |
//!                            +--------+                 Grant                 |      |
//!                            | Active |<--------------------------------------+      |
//!                            +--------+------------------------------------------>---+
//!                                 ^         Yield (eligible); back: Grant
//!                                 +---- Adopt (from every state, at daemon restart)
//! ```
//!
//! Learn is kept for completeness; it is never entered, since the virtual address is always configured. Where the RFC goes to
//! Active (c and i in Standby, h with preemption) the action is [`Action::Propose`]; where it leaves Active (g, j) it is
//! [`Action::ReportWinner`].

use super::State;
use Action::{Propose, ReportLoser, ReportWinner, SendCoup, SendHello, SendResign, StartActive, StartStandby, StopActive, StopStandby};
use State::{Active, Initial, Learn, Listen, Speak, Standby};

/// What happened. Letters are the events of RFC 2281 5.6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// a: the interface is up and the delay is over.
    Enabled,
    /// b: the interface went down or the group ends.
    Disabled,
    /// c: nothing was heard of an active router for the hold time.
    ActiveExpired,
    /// d: nothing was heard of a standby router for the hold time.
    StandbyExpired,
    /// e: time for the next hello.
    HelloDue,
    /// f: a speaker with higher priority, or equal and higher address.
    SpeakerWins,
    /// g: an active router that we do not outrank. While we are active: that wins by priority, then address.
    ActiveWins,
    /// h: an active router of strictly lower priority. While we are active: that loses by priority, then address.
    ActiveLoses,
    /// i: the active router resigned.
    Resigned,
    /// j: a Coup of a router that wins by priority, then address.
    CoupWins,
    /// k: a standby router that wins by priority, then address.
    StandbyWins,
    /// l: a standby router that loses.
    StandbyLoses,
    /// The node decided that its groups become active.
    Grant,
    /// The node decided that its groups leave Active.
    Yield {
        /// Tell the others.
        resign: bool,
    },
    /// The node was active before it restarted, and still is.
    Adopt,
    /// The node may no longer become active.
    Ineligible,
}

/// What to do. Letters are the actions of RFC 2281 5.7; E (learn parameters) is not done, I (gratuitous ARP) is the node's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A: start the active timer.
    StartActive,
    /// B: start the standby timer.
    StartStandby,
    /// C: stop the active timer.
    StopActive,
    /// D: stop the standby timer.
    StopStandby,
    /// F: send a Hello, and the next one a hello time later.
    SendHello,
    /// G: send a Coup, if the grant preempts a living active router.
    SendCoup,
    /// H: send a Resign.
    SendResign,
    /// Propose to become active, if there is a reason (eligible, and no active router or one that we preempt).
    Propose,
    /// Report an active router that wins against us.
    ReportWinner,
    /// Report an active router that loses against us, and repeat our hello at once.
    ReportLoser,
}

/// Next state and what to do on the way there, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The state after the step.
    pub next: State,
    /// Actions in order, carried out in the new state.
    pub actions: &'static [Action],
}

const fn go(next: State, actions: &'static [Action]) -> Step {
    Step { next, actions }
}

/// The table. `eligible`: the node may become active; if not, the group does not pass Listen.
pub const fn step(state: State, input: Input, eligible: bool) -> Step {
    match (state, input) {
        (Initial, Input::Enabled) => go(Listen, &[StartActive, StartStandby]),
        (Learn | Listen | Speak | Standby | Active, Input::Enabled) => go(state, &[]),

        (Initial, Input::Disabled) => go(Initial, &[StopActive, StopStandby]),
        (Learn | Listen | Speak | Standby, Input::Disabled) => go(Initial, &[StopActive, StopStandby]),
        (Active, Input::Disabled) => go(Initial, &[StopActive, StopStandby, SendResign]),

        (Initial | Learn | Speak | Active, Input::ActiveExpired) => go(state, &[]),
        (Listen, Input::ActiveExpired) if eligible => go(Speak, &[StartActive, StartStandby, SendHello]),
        (Listen, Input::ActiveExpired) => go(Listen, &[]),
        // RFC: CDFI/6
        (Standby, Input::ActiveExpired) => go(Standby, &[Propose]),

        (Initial | Learn | Standby | Active, Input::StandbyExpired) => go(state, &[]),
        (Listen, Input::StandbyExpired) if eligible => go(Speak, &[StartStandby, SendHello]),
        (Listen, Input::StandbyExpired) => go(Listen, &[]),
        // Propose: the active timer may have ended while we were speaking.
        (Speak, Input::StandbyExpired) => go(Standby, &[StopStandby, SendHello, Propose]),

        (Initial | Learn | Listen, Input::HelloDue) => go(state, &[]),
        (Speak | Standby | Active, Input::HelloDue) => go(state, &[SendHello]),

        (Initial | Learn | Listen | Active, Input::SpeakerWins) => go(state, &[]),
        (Speak | Standby, Input::SpeakerWins) => go(Listen, &[StartStandby]),

        (Learn, Input::ActiveWins | Input::ActiveLoses) => go(Listen, &[StartActive, StartStandby]),
        (Initial | Listen | Speak | Standby, Input::ActiveWins) => go(state, &[StartActive]),
        // RFC: AB/4, which is what Yield does
        (Active, Input::ActiveWins | Input::CoupWins) => go(Active, &[ReportWinner]),

        (Initial, Input::ActiveLoses) => go(Initial, &[StartActive]),
        // RFC: with preemption BGFI/6
        (Listen | Speak | Standby, Input::ActiveLoses) => go(state, &[StartActive, Propose]),
        (Active, Input::ActiveLoses) => go(Active, &[ReportLoser]),

        (Initial, Input::Resigned) => go(Initial, &[StopActive]),
        (Listen, Input::Resigned) if eligible => go(Speak, &[StartActive, StartStandby, SendHello]),
        (Listen, Input::Resigned) => go(Listen, &[StopActive]),
        (Speak, Input::Resigned) => go(Speak, &[StartActive]),
        // RFC: CFI/6
        (Standby, Input::Resigned) => go(Standby, &[StopActive, Propose]),
        (Learn | Active, Input::Resigned) => go(state, &[]),

        (Initial | Learn | Listen | Speak | Standby, Input::CoupWins) => go(state, &[]),

        (Initial | Learn, Input::StandbyWins | Input::StandbyLoses) => go(state, &[]),
        (Listen | Active, Input::StandbyWins) => go(state, &[StartStandby]),
        (Speak | Standby, Input::StandbyWins) => go(Listen, &[StartStandby]),

        (Listen, Input::StandbyLoses) if eligible => go(Speak, &[StartStandby, SendHello]),
        (Listen | Active, Input::StandbyLoses) => go(state, &[StartStandby]),
        (Speak, Input::StandbyLoses) => go(Standby, &[StopStandby, SendHello, Propose]),
        (Standby, Input::StandbyLoses) => go(Standby, &[]),

        (Initial | Learn | Listen | Speak | Standby, Input::Grant) => go(Active, &[StopActive, StopStandby, SendCoup, SendHello]),
        (Active, Input::Grant | Input::Adopt) => go(Active, &[]),
        (Initial | Learn | Listen | Speak | Standby, Input::Adopt) => go(Active, &[StopActive, StopStandby, SendHello]),

        (Active, Input::Yield { resign: true }) if eligible => go(Speak, &[StartActive, StartStandby, SendResign, SendHello]),
        (Active, Input::Yield { resign: true }) => go(Listen, &[StartActive, StartStandby, SendResign]),
        (Active, Input::Yield { resign: false }) if eligible => go(Speak, &[StartActive, StartStandby, SendHello]),
        (Active, Input::Yield { resign: false }) => go(Listen, &[StartActive, StartStandby]),
        (Initial | Learn | Listen | Speak | Standby, Input::Yield { resign: true | false }) => go(state, &[]),

        (Initial | Learn | Listen | Active, Input::Ineligible) => go(state, &[]),
        (Speak | Standby, Input::Ineligible) => go(Listen, &[StartStandby]),
    }
}
