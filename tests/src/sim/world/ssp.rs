//! The way of SSP's bytes.

use super::{Event, World};
use crate::sim::clock::Ns;
use crate::sim::node::Input;
use crate::sim::plan::{INSIDE, Side};
use crate::sim::stream::{CONNECT_MAX, CONNECT_RETRY, RETRANSMIT, USER_TIMEOUT};

impl World {
    pub(super) fn way(&self, from: Side, to: Side) -> bool {
        let up = |s: Side| self.node(s).powered && self.node(s).cables[INSIDE];
        up(from) && up(to) && self.lans[INSIDE].open(from.index(), to.index())
    }

    pub(super) fn both_ways(&self) -> bool {
        self.way(Side::A, Side::B) && self.way(Side::B, Side::A)
    }

    pub(super) fn latency(&mut self) -> Ns {
        let w = self.lans[INSIDE].weather;
        let jitter = if w.jitter > 0 { self.dice.range(0..=w.jitter) } else { 0 };
        // A lost segment comes again after a while.
        let again = if self.dice.chance(w.loss) { RETRANSMIT } else { 0 };
        w.delay + jitter + again
    }

    pub(super) fn connect(&mut self) {
        let now = self.now();
        self.at(now + CONNECT_RETRY, Event::Connect);
        let opener = Side::B;
        if now < self.streams.connect_after || !self.node(opener).runs() || !self.streams.of(opener).is_empty() {
            return;
        }
        if !self.both_ways() {
            self.streams.connect_after = now + CONNECT_MAX;
            return;
        }
        // A stopped process still listens; a dead one refuses.
        if self.node(Side::A).core.is_none() {
            return;
        }
        let conn = self.streams.open(now);
        self.input(Side::B, Input::Connected { conn, initiator: true });
        self.input(Side::A, Input::Connected { conn, initiator: false });
    }

    pub(super) fn push(&mut self, conn: u64, side: Side) {
        let now = self.now();
        let other = side.other();
        let open = self.both_ways();
        let there = self.streams.has(conn, other);
        let delay = self.latency();
        let Some(end) = self.streams.end(conn, side).filter(|e| e.open && !e.queue.is_empty()) else { return };
        if !open {
            let stuck = *end.stuck.get_or_insert(now);
            let retry = !std::mem::replace(&mut end.retry_due, true);
            if now >= stuck + USER_TIMEOUT {
                self.close(conn, side, "timed out");
            } else if retry {
                self.at(now + RETRANSMIT, Event::Push { conn, side });
            }
            return;
        }
        end.stuck = None;
        if !there {
            self.at(now + 2 * delay, Event::Fin { conn, to: side, cause: "reset by the partner" });
            return;
        }
        let records: Vec<Vec<u8>> = end.queue.drain(..).collect();
        let arrival = (now + delay).max(end.last_arrival);
        end.last_arrival = arrival;
        for bytes in records {
            self.at(arrival, Event::Arrive { conn, to: other, bytes });
        }
    }

    pub(super) fn close(&mut self, conn: u64, side: Side, cause: &'static str) {
        let (now, delay, open) = (self.now(), self.latency(), self.both_ways());
        let last = self.streams.end(conn, side).map_or(0, |e| e.last_arrival);
        if !self.streams.shut(conn, side) {
            return;
        }
        self.input(side, Input::Closed { conn, cause });
        if open && self.streams.has(conn, side.other()) {
            self.at((now + delay).max(last), Event::Fin { conn, to: side.other(), cause: "closed by the partner" });
        }
    }
}
