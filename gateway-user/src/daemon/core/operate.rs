//! Carries out the decisions of `ha`.

use super::{Core, Deferred, Output, TAKEOVERS_MAX};
use crate::daemon::views::TakeoverView;
use crate::ha::Command;
use crate::id::Epoch;
use crate::net::control::ControlResponse;
use crate::ports::{PathRole, RoleWord};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tracing::{debug, info};

/// How much longer than one hold time the lease of an active lasts. The partner takes over when the hold time ends and needs a moment until the
/// switches send everything to it; a kernel whose daemon died goes on forwarding until then. The two nodes' sequence ranges cannot meet.
const LEASE_MARGIN: Duration = Duration::from_millis(50);

fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

impl Core {
    pub(super) fn execute(&mut self, command: Command, now: Instant) {
        match command {
            Command::Log { from, to, cause, epoch } => {
                info!(?from, ?to, cause, %epoch, "node state");
                debug!(target: "debug::crypto_isakmp_ha::fsm", ?from, ?to, cause, %epoch);
                debug!(target: "debug::crypto_ipsec_ha::fsm", ?from, ?to, cause, %epoch);
                debug!(target: "debug::ssp::redundancy", ?from, ?to, cause, %epoch);
                self.role_since = (now, self.clock.wall());
            }
            Command::SetRole { role, epoch } => {
                if role == PathRole::Active && self.role.0 != PathRole::Active {
                    self.stages_begin(epoch, now);
                }
                self.timed(|t| &mut t.role_ms, |core| core.write_role(role, epoch, now));
            }
            Command::VipsUp => self.timed(|t| &mut t.vips_ms, Self::vips_up),
            Command::VipsDown => self.vips_down(),
            Command::Announce => self.timed(|t| &mut t.garp_ms, Self::announce),
            Command::HsrpGrant => {
                for slot in &mut self.groups {
                    slot.last_hello = None;
                    slot.group.grant_active(now);
                }
            }
            Command::HsrpAdopt => {
                for slot in &mut self.groups {
                    slot.group.adopt_active(now);
                }
            }
            Command::HsrpYield { resign } => {
                for slot in &mut self.groups {
                    slot.last_hello = None;
                    slot.group.yield_active(resign, now);
                }
            }
            Command::HsrpEligible(ok) => {
                for slot in &mut self.groups {
                    slot.group.set_eligible(ok, now);
                }
            }
            Command::IkeActive(true) => self.timed(
                |t| &mut t.ike_ms,
                |core| {
                    // The partner has nothing of this reign yet: nothing waits for its acknowledgement until a snapshot was sent.
                    core.snapshot_sent = false;
                    core.last_record = 0;
                    core.engine.set_active(true, now);
                    core.resume_leases(now);
                    core.promote_pending(now);
                },
            ),
            Command::IkeActive(false) => {
                self.engine.set_active(false, now);
                self.snapshot_sent = false;
                self.outbox.clear();
                self.deferred.clear();
                self.switches.clear();
                self.grants.clear();
            }
            Command::Send(message) => {
                self.send(message, now);
            }
            Command::SendSnapshot => self.send_snapshot(now),
            Command::SendFinalCounters => self.send_final_counters(now),
            Command::Contested => self.contest(now),
            Command::RenewOrphans => self.renew_orphans(now),
            Command::RaiseFloors => self.raise_floors(),
            Command::DropState => self.drop_state(),
            Command::PartnerState { competitor, contact } => self.partner_state(competitor, contact, now),
            Command::TookOver { cause } => self.took_over(cause),
            Command::SwitchoverDone(result) => {
                if let Some(id) = self.switchover_waiter.take() {
                    let response = match result {
                        Ok(()) => ControlResponse {
                            ok: true,
                            json: serde_json::json!({"switchover": "done", "epoch": self.node.epoch().0}),
                            text: format!("switchover done: the partner is active under epoch {}\n", self.node.epoch()),
                            error: String::new(),
                        },
                        Err(error) => ControlResponse { ok: false, json: serde_json::Value::Null, text: String::new(), error },
                    };
                    self.outputs.push_back(Output::Control { id, response });
                }
            }
        }
    }

    /// Runs one stage of the takeover that is under way and notes when, after detection, it was done.
    fn timed(&mut self, stage: impl Fn(&mut TakeoverView) -> &mut Option<f64>, work: impl FnOnce(&mut Self)) {
        work(self);
        let at = self.clock.now();
        if let Some((began, t)) = &mut self.stages {
            *stage(t) = Some(ms(at.saturating_duration_since(*began)));
        }
    }

    fn stages_begin(&mut self, epoch: Epoch, now: Instant) {
        let at = self.clock.wall().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let view = TakeoverView {
            epoch,
            cause: String::new(),
            at,
            pairs: self.pairs.len() as u64,
            detected_ms: self.active_heard.map(|h| ms(now.saturating_duration_since(h))),
            role_ms: None,
            vips_ms: None,
            garp_ms: None,
            ike_ms: None,
            total_ms: None,
        };
        self.stages = Some((now, view));
    }

    fn took_over(&mut self, cause: &'static str) {
        *self.stats.takeovers.entry(cause).or_default() += 1;
        let Some((began, mut t)) = self.stages.take() else { return };
        t.cause = cause.to_owned();
        t.total_ms = Some(ms(self.clock.now().saturating_duration_since(began)));
        info!(cause, epoch = %t.epoch, detected_ms = ?t.detected_ms, role_ms = ?t.role_ms, vips_ms = ?t.vips_ms, garp_ms = ?t.garp_ms,
              ike_ms = ?t.ike_ms, total_ms = ?t.total_ms, pairs = t.pairs, "takeover");
        self.takeovers.push_back(t);
        while self.takeovers.len() > TAKEOVERS_MAX {
            self.takeovers.pop_front();
        }
    }

    fn vips(&self) -> Vec<(String, u8, std::net::Ipv4Addr)> {
        self.config.interfaces.iter().flat_map(|i| i.groups.iter().map(|g| (i.device.clone(), g.group, g.vip))).collect()
    }

    fn vips_up(&mut self) {
        let mut all = true;
        for (device, group, vip) in self.vips() {
            let r = self.ports.links.add_vip(&device, group, vip);
            all &= self.check(r);
        }
        self.vips_retry = (!all).then_some(true);
    }

    fn vips_down(&mut self) {
        let mut all = true;
        for (device, group, vip) in self.vips() {
            let r = self.ports.links.remove_vip(&device, group, vip);
            all &= self.check(r);
        }
        self.vips_retry = (!all).then_some(false);
    }

    /// Half of the addresses would be a black hole: what failed is tried again with the next timer (a hello time at most).
    pub(super) fn retry_vips(&mut self) {
        match self.vips_retry {
            Some(true) => {
                self.vips_up();
                if self.vips_retry.is_none() {
                    self.announce();
                }
            }
            Some(false) => self.vips_down(),
            None => {}
        }
    }

    fn announce(&mut self) {
        for (device, group, vip) in self.vips() {
            let r = self.ports.links.gratuitous_arp(&device, group, vip);
            self.check(r);
        }
    }

    /// Writes the role word. The lease of an active ends one hold time and a margin after the *oldest* of the groups' last hellos.
    fn write_role(&mut self, role: PathRole, epoch: Epoch, now: Instant) {
        self.role = (role, epoch);
        self.lease_until = None;
        let lease_until_ns = if role == PathRole::Active && self.partner_recent(now) {
            let until = self.groups.iter().map(|s| s.last_hello.unwrap_or(now) + s.group.config().hold + LEASE_MARGIN).min().unwrap_or(now);
            self.lease_until = Some(until);
            self.clock.monotonic_ns(until)
        } else {
            u64::MAX
        };
        let r = self.ports.path.set_role(RoleWord { role, epoch, lease_until_ns });
        self.check(r);
    }

    pub(super) fn renew_lease(&mut self, now: Instant) {
        if let (PathRole::Active, epoch) = self.role {
            self.write_role(PathRole::Active, epoch, now);
        }
    }

    /// A partner that could take over was heard of late.
    fn partner_recent(&self, now: Instant) -> bool {
        let hold = self.groups.iter().map(|s| s.group.config().hold).max().unwrap_or_default();
        self.live.is_some() || self.partner_heard.is_some_and(|h| now < h + hold * 3)
    }

    pub(super) fn run_deferred(&mut self, acked: u64, now: Instant) {
        while self.deferred.front().is_some_and(|(seq, _)| *seq <= acked) {
            if let Some((_, work)) = self.deferred.pop_front() {
                self.do_deferred(work, now);
            }
        }
    }

    pub(super) fn do_deferred(&mut self, work: Deferred, now: Instant) {
        match work {
            Deferred::InstallOutbound(spi) => self.install_outbound(spi, now),
            Deferred::RetireOutbound(spi) => self.retire_outbound(spi),
            Deferred::Remove(spi) => self.remove_pair(spi),
        }
    }
}
