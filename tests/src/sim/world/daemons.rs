//! The nodes: what touches a machine or a core, and what follows.

use super::{Event, OUTPUTS_MAX, PORT_A, RESUME_INPUTS, SPIN_MAX, World};
use crate::sim::clock::{SEC, US};
use crate::sim::machine::{Delivery, lock};
use crate::sim::node::Input;
use crate::sim::plan::{OUTSIDE, Side};
use crate::sim::stream::QUEUE_MAX;
use gateway_user::daemon::core::Output;
use gateway_user::net::control::ControlRequest;

impl World {
    /// Something touched the machine: frames, deliveries, events, timers.
    pub(super) fn machine_moved(&mut self, side: Side) {
        let now = self.now();
        let (tx, deliveries, verified, violations) = {
            let mut m = lock(&self.node(side).machine);
            let mut violations = std::mem::take(&mut m.violations);
            violations.append(&mut m.kernel.violations);
            violations.append(&mut m.path.violations);
            (m.take_tx(), m.take_deliveries(), std::mem::take(&mut m.verified), violations)
        };
        for what in violations {
            self.fail(Err(format!("{}: {what}", side.name())));
        }
        if self.node(side).powered {
            for sent in tx {
                let result = self.check.on_tx(side, &sent, now);
                self.fail(result);
                if sent.device == OUTSIDE {
                    self.capture(&sent.frame);
                }
                self.carry(sent.device, PORT_A + side.index(), &sent.frame);
            }
        }
        for (spi, seq) in verified {
            let result = self.check.on_verified(side, spi, seq, now);
            self.fail(result);
        }
        for d in deliveries {
            let input = match d {
                Delivery::Hsrp { device, source, ttl, dst, payload } => Input::Hsrp { device, source, ttl, dst, payload },
                Delivery::Ike { from, to, bytes } => Input::Ike { from, to, bytes },
            };
            self.input(side, input);
        }
        let (has_events, kernel_at) = {
            let m = lock(&self.node(side).machine);
            (m.kernel.has_events(), m.kernel.next_timer())
        };
        if has_events && !self.node(side).events_due {
            self.node_mut(side).events_due = true;
            let boot = self.node(side).boot;
            let wait = self.dice.range(20 * US..=500 * US);
            self.at(now + wait, Event::ReadEvents { side, boot });
        }
        if self.node(side).kernel_timer.0 != kernel_at {
            let number = self.node(side).kernel_timer.1 + 1;
            self.node_mut(side).kernel_timer = (kernel_at, number);
            if let Some(at) = kernel_at {
                self.at(at, Event::KernelTimer { side, number });
            }
        }
    }

    pub(super) fn input(&mut self, side: Side, input: Input) {
        self.node_mut(side).queue(input);
        self.wake(side);
    }

    pub(super) fn wake(&mut self, side: Side) {
        if self.node(side).runs() && !self.node(side).inbox.is_empty() && !self.node(side).run_due {
            self.node_mut(side).run_due = true;
            let now = self.now();
            self.at(now, Event::Run { side });
        }
    }

    pub(super) fn run_node(&mut self, side: Side) {
        self.node_mut(side).run_due = false;
        // What comes while it runs waits for the next run.
        let waiting = self.node(side).inbox.len();
        self.run_inbox(side, waiting);
        self.wake(side);
    }

    pub(super) fn run_inbox(&mut self, side: Side, most: usize) {
        for _ in 0..most {
            if !self.node(side).runs() {
                return;
            }
            let Some(input) = self.node_mut(side).inbox.pop_front() else { return };
            self.trace.who(side.name());
            let now = self.time.instant(self.now());
            self.node_mut(side).handle(input, now);
            self.core_moved(side);
        }
    }

    pub(super) fn node_timer(&mut self, side: Side, number: u64) {
        if self.node(side).timer.1 != number || !self.node(side).runs() {
            return;
        }
        self.node_mut(side).timer.0 = None;
        self.trace.who(side.name());
        let now = self.time.instant(self.now());
        if let Some(core) = &mut self.node_mut(side).core {
            core.handle_timeout(now);
        }
        self.core_moved(side);
    }

    /// The core did something: outputs, then the machine, then its next deadline.
    pub(super) fn core_moved(&mut self, side: Side) {
        let mut outputs = 0;
        while let Some(output) = self.node_mut(side).core.as_mut().and_then(|c| c.poll_output()) {
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                return self.fail(Err(format!("{} does not stop to give outputs", side.name())));
            }
            self.output(side, output);
        }
        self.machine_moved(side);
        for e in self.trace.take_errors() {
            if !self.errors_expected || e.contains("come to rest") {
                self.fail(Err(format!("{} logs an error: {e}", side.name())));
            }
        }
        let now = self.now();
        let deadline = self.node(side).core.as_ref().and_then(|c| c.poll_timeout());
        let at = deadline.map(|(at, _)| self.time.ns(at).max(now));
        if let (Some(at), Some((_, reason))) = (at, deadline)
            && at == now
        {
            self.spins = if self.spins.0 == now { (now, self.spins.1 + 1) } else { (now, 1) };
            if self.spins.1 > SPIN_MAX {
                return self.fail(Err(format!("{} asks for the deadline `{reason}` again and again", side.name())));
            }
        }
        if self.node(side).timer.0 != at {
            let number = self.node(side).timer.1 + 1;
            self.node_mut(side).timer = (at, number);
            if let Some(at) = at {
                self.at(at, Event::Timer { side, number });
            }
        }
    }

    pub(super) fn output(&mut self, side: Side, output: Output) {
        match output {
            Output::Hsrp { interface, payload, source_mac } => lock(&self.node(side).machine).send_hsrp(interface, &payload, source_mac),
            Output::Ike(t) => lock(&self.node(side).machine).send_ike(&t),
            Output::Ssp { conn, bytes } => {
                if let Some(end) = self.streams.end(conn, side).filter(|e| e.open) {
                    end.queue.push_back(bytes.to_vec());
                    if end.queue.len() > QUEUE_MAX {
                        self.close(conn, side, "send queue is full");
                    }
                    self.push(conn, side);
                }
            }
            Output::SspClose { conn, cause } => {
                self.trace.line(format_args!("closes connection {conn}: {cause}"));
                self.close(conn, side, "closed by us");
            }
            Output::Job(job) => {
                let (done, took) = self.work(job);
                let (now, boot) = (self.now(), self.node(side).boot);
                self.at(now + took, Event::Job { side, boot, done });
            }
            Output::Control { id, response } => {
                self.trace.line(format_args!("answers {id}: ok={} {}{}", response.ok, response.text.trim(), response.error));
                if response.error.contains("unknown word") {
                    self.fail(Err(format!("the world asks with the wrong words: {}", response.error)));
                }
                self.node_mut(side).answers.insert(id, response);
            }
            Output::SspAuthenticated { .. } => {}
        }
    }

    /// Starts a daemon; when it cannot start it tries again, as a service manager would.
    pub fn start(&mut self, side: Side) {
        if !self.node(side).powered {
            return;
        }
        self.trace.who(side.name());
        let result = self.node_mut(side).start();
        let now = self.now();
        if let Err(e) = result {
            self.trace.line(format_args!("the daemon does not start: {e}"));
            let boot = self.node(side).boot;
            self.at(now + SEC, Event::Start { side, boot });
        }
        let flows = lock(&self.node(side).machine).kernel.policies().to_vec();
        self.check.protect(&flows);
        self.node_mut(side).run_due = false;
        self.node_mut(side).events_due = false;
        self.core_moved(side);
    }

    /// Ends a daemon. `crash`: the process is gone and its connections with it; otherwise the whole machine is.
    pub(in crate::sim) fn stop(&mut self, side: Side, crash: bool) {
        for conn in self.streams.of(side) {
            if crash {
                self.close(conn, side, "process ended");
            } else {
                self.streams.shut(conn, side);
            }
        }
        self.node_mut(side).stop();
        self.node_mut(side).run_due = false;
        self.node_mut(side).events_due = false;
    }

    /// A stopped process goes on.
    pub(in crate::sim) fn resume(&mut self, side: Side) {
        self.node_mut(side).paused = false;
        if self.node(side).core.is_none() {
            return;
        }
        // What is in the sockets first, within bounds, or the timers first: both orders happen.
        if self.dice.chance(7500) {
            self.run_inbox(side, RESUME_INPUTS);
        }
        self.trace.who(side.name());
        let now = self.time.instant(self.now());
        if let Some(core) = &mut self.node_mut(side).core
            && core.poll_timeout().is_some_and(|(at, _)| at <= now)
        {
            core.handle_timeout(now);
        }
        self.core_moved(side);
        self.wake(side);
    }

    pub(in crate::sim) fn cable(&mut self, side: Side, device: usize, on: bool) {
        self.node_mut(side).cables[device] = on;
        if !on {
            self.lans[device].forget(side.index());
        }
        let changed = lock(&self.node(side).machine).set_carrier(device, on);
        if changed {
            self.input(side, Input::Link { device, up: on });
        }
    }

    /// The operator asks a node; the answer will be in its `answers` under the number.
    pub fn ask(&mut self, side: Side, words: &[&str]) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let request = ControlRequest { argv: words.iter().map(|w| (*w).to_owned()).collect(), json: false };
        self.input(side, Input::Control(id, request));
        id
    }

    pub(in crate::sim) fn rekey_peer(&mut self, peer: usize) -> usize {
        self.trace.who("peer");
        let n = self.peers[peer].peer.rekey();
        self.peer_moved(peer);
        n
    }
}
