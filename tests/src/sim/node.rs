//! A gateway node: a machine and, while it runs, the daemon's core on it.

use super::clock::{Ns, Time};
use super::dice::Dice;
use super::machine::{Machine, Shared, lock};
use super::plan::{self, Setup, Side};
use gateway_user::config::Config;
use gateway_user::daemon::core::Core;
use gateway_user::ike::JobDone;
use gateway_user::net::control::{ControlRequest, ControlResponse};
use gateway_user::ports::PortResult;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Datagrams that wait in a socket; more are lost.
const SOCKET_MAX: usize = 200;

/// What waits for the core.
pub enum Input {
    /// HSRP packet.
    Hsrp {
        /// Device.
        device: usize,
        /// Sender.
        source: Ipv4Addr,
        /// Hops left.
        ttl: u8,
        /// Destination.
        dst: Ipv4Addr,
        /// Payload.
        payload: Vec<u8>,
    },
    /// IKE datagram.
    Ike {
        /// Sender.
        from: SocketAddr,
        /// Our end.
        to: SocketAddr,
        /// Payload.
        bytes: Vec<u8>,
    },
    /// SSP connection stands.
    Connected {
        /// Its number.
        conn: u64,
        /// We opened it.
        initiator: bool,
    },
    /// SSP bytes.
    Bytes {
        /// Where.
        conn: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// SSP connection is gone.
    Closed {
        /// Which.
        conn: u64,
        /// Why.
        cause: &'static str,
    },
    /// Kernel events wait.
    Events,
    /// A cable went in or out.
    Link {
        /// Device.
        device: usize,
        /// In.
        up: bool,
    },
    /// A job has run.
    Job(Box<JobDone>),
    /// An operator asks.
    Control(u64, ControlRequest),
}

/// A node.
pub struct Node {
    /// Which.
    pub side: Side,
    /// Its machine; a new one after every loss of power.
    pub machine: Shared,
    /// The daemon's core, while it runs.
    pub core: Option<Core>,
    /// Has power.
    pub powered: bool,
    /// The process is stopped (SIGSTOP, a long page fault).
    pub paused: bool,
    /// Cables in.
    pub cables: [bool; 2],
    /// Counts starts of the daemon; what belongs to an earlier one is dropped.
    pub boot: u32,
    /// What waits.
    pub inbox: VecDeque<Input>,
    /// A run of the core is scheduled.
    pub run_due: bool,
    /// Kernel events are about to be read.
    pub events_due: bool,
    /// Deadline the core asked for, and the number of its event.
    pub timer: (Option<Ns>, u64),
    /// The kernel's.
    pub kernel_timer: (Option<Ns>, u64),
    /// Answers to operators.
    pub answers: BTreeMap<u64, ControlResponse>,
    config: Arc<Config>,
    time: Time,
    dice: Dice,
    monotonic_offset: Ns,
}

impl Node {
    /// A node whose machine has power and whose daemon does not run yet.
    pub fn new(side: Side, setup: &Setup, time: Time) -> Self {
        let mut dice = Dice::new(setup.seed, 10 + side.index() as u64);
        let config = Arc::new(plan::gateway(setup, side));
        let monotonic_offset = dice.range(1..=1 << 50);
        let machine = Machine::new(
            side,
            setup,
            time.clone(),
            monotonic_offset,
            Dice::new(setup.seed, 20 + side.index() as u64),
            config.dataplane.sa_max,
        );
        Self {
            side,
            machine: Arc::new(Mutex::new(machine)),
            core: None,
            powered: true,
            paused: false,
            cables: [true; 2],
            boot: 0,
            inbox: VecDeque::new(),
            run_due: false,
            events_due: false,
            timer: (None, 0),
            kernel_timer: (None, 0),
            answers: BTreeMap::new(),
            config,
            time,
            dice,
            monotonic_offset,
        }
    }

    /// Switches the machine on: everything that was in it is gone.
    pub fn power_on(&mut self, setup: &Setup) {
        self.powered = true;
        self.paused = false;
        let dice = Dice::new(self.dice.range(0..=u64::MAX - 1), 3);
        let mut machine = Machine::new(self.side, setup, self.time.clone(), self.monotonic_offset, dice, self.config.dataplane.sa_max);
        for (device, on) in self.cables.into_iter().enumerate() {
            machine.set_carrier(device, on);
        }
        machine.fail_per_10k = setup.port_failures;
        self.machine = Arc::new(Mutex::new(machine));
    }

    /// Starts the daemon.
    pub fn start(&mut self) -> PortResult<()> {
        self.stop();
        lock(&self.machine).kernel.listen(true);
        let clock = super::clock::NodeClock::new(self.time.clone(), self.monotonic_offset);
        let ports = Machine::ports(&self.machine);
        let core = Core::new(self.config.clone(), ports, Box::new(clock), self.dice.child(), self.dice.child())?;
        self.core = Some(core);
        Ok(())
    }

    /// Ends the daemon; kernel and data path stay.
    pub fn stop(&mut self) {
        self.boot += 1;
        self.core = None;
        self.paused = false;
        self.inbox.clear();
        self.timer.0 = None;
        lock(&self.machine).kernel.listen(false);
    }

    /// True when the daemon runs and is not stopped.
    pub fn runs(&self) -> bool {
        self.powered && !self.paused && self.core.is_some()
    }

    /// Queues an input; datagrams are lost when too many wait.
    pub fn queue(&mut self, input: Input) {
        if self.core.is_none() {
            return;
        }
        let datagram = matches!(input, Input::Hsrp { .. } | Input::Ike { .. });
        if datagram && self.inbox.len() >= SOCKET_MAX {
            return;
        }
        self.inbox.push_back(input);
    }

    /// Gives one input to the core.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let events = if matches!(input, Input::Events) { lock(&self.machine).kernel.take_events() } else { Vec::new() };
        let Some(core) = &mut self.core else { return };
        match input {
            Input::Hsrp { device, source, ttl, dst, payload } => core.handle_hsrp(plan::DEVICES[device], source, ttl, dst, &payload, now),
            Input::Ike { from, to, bytes } => core.handle_ike(from, to, &bytes, now),
            Input::Connected { conn, initiator } => core.handle_ssp_connected(conn, initiator, now),
            Input::Bytes { conn, bytes } => core.handle_ssp_bytes(conn, &bytes, now),
            Input::Closed { conn, cause } => core.handle_ssp_closed(conn, cause, now),
            Input::Events => core.handle_xfrm(events, now),
            Input::Link { device, up } => core.handle_link(plan::DEVICES[device], up, now),
            Input::Job(done) => core.handle_job(*done, now),
            Input::Control(id, request) => core.handle_control(id, &request, now),
        }
    }
}
