//! The TCP connections of SSP: bytes in order, late when the way is cut, gone when an end is gone.

use super::clock::Ns;
use super::plan::Side;
use std::collections::{BTreeMap, VecDeque};

/// Unacknowledged bytes end the connection after this time (as the product's transport asks of the kernel).
pub const USER_TIMEOUT: Ns = 3 * super::clock::SEC;
/// Pause between two attempts to push bytes through a cut way.
pub const RETRANSMIT: Ns = 200 * super::clock::MS;
/// Pause between two attempts to connect.
pub const CONNECT_RETRY: Ns = 50 * super::clock::MS;
/// An attempt to connect through a cut way ends after this time.
pub const CONNECT_MAX: Ns = super::clock::SEC;
/// Records that wait on one connection; the product's transport closes it beyond that.
pub const QUEUE_MAX: usize = 1024;

/// One end.
#[derive(Default)]
pub struct End {
    /// Not closed.
    pub open: bool,
    /// Bytes on their way out.
    pub queue: VecDeque<Vec<u8>>,
    /// When the last bytes of this end arrive at the other.
    pub last_arrival: Ns,
    /// Since when nothing goes through.
    pub stuck: Option<Ns>,
    /// An attempt is scheduled.
    pub retry_due: bool,
}

/// One connection.
pub struct Conn {
    /// Ends by side.
    pub ends: [End; 2],
    /// Since when it stands.
    pub since: Ns,
}

/// All connections.
#[derive(Default)]
pub struct Streams {
    /// By number.
    pub conns: BTreeMap<u64, Conn>,
    next: u64,
    /// No attempt to connect before.
    pub connect_after: Ns,
}

impl Streams {
    /// A connection stands.
    pub fn open(&mut self, now: Ns) -> u64 {
        self.next += 1;
        let end = || End { open: true, ..End::default() };
        self.conns.insert(self.next, Conn { ends: [end(), end()], since: now });
        self.next
    }

    /// True when the side has an open end of that number.
    pub fn has(&self, conn: u64, side: Side) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.ends[side.index()].open)
    }

    /// One end.
    pub fn end(&mut self, conn: u64, side: Side) -> Option<&mut End> {
        self.conns.get_mut(&conn).map(|c| &mut c.ends[side.index()])
    }

    /// Numbers of connections of which the side has an open end.
    pub fn of(&self, side: Side) -> Vec<u64> {
        self.conns.iter().filter(|(_, c)| c.ends[side.index()].open).map(|(n, _)| *n).collect()
    }

    /// Closes an end; the connection is forgotten when both are closed. True when it was open.
    pub fn shut(&mut self, conn: u64, side: Side) -> bool {
        let Some(end) = self.end(conn, side) else { return false };
        let was = std::mem::take(&mut end.open);
        end.queue.clear();
        if self.conns.get(&conn).is_some_and(|c| c.ends.iter().all(|e| !e.open)) {
            self.conns.remove(&conn);
        }
        was
    }

    /// Since when a connection with two open ends stands.
    pub fn whole_since(&self) -> Option<Ns> {
        self.conns.values().filter(|c| c.ends.iter().all(|e| e.open)).map(|c| c.since).max()
    }
}
