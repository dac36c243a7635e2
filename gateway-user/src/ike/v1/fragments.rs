//! Messages in pieces (Cisco's fragmentation): put together under bounds, and cut where the peer can take it.
//!
//! Only an SA whose both ends announced it holds pieces, of one message at a time; the pieces of all SAs together are bounded in number
//! and age. A piece proves nothing: only the whole message does.

use super::phase1::{Refuse, Verdict};
use super::sa::{Handle, MainState, Sa, Stage};
use crate::id::IkeSaId;
use crate::ike::v1::engine::Engine;
use crate::ike::v1::message::{Fragment, HEADER_LEN, Header, PayloadKind};
use crate::ike::v1::timer::Timer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Messages above this leave in pieces, bytes of UDP payload: 1280 bytes of IPv4 packet with the marker of port 4500.
const WHOLE_MAX: usize = 1280 - 20 - 8 - 4;
/// Unfinished messages in all.
pub(super) const SETS_MAX: usize = 256;
/// An unfinished message is forgotten after this time.
const SET_AGE_MAX: Duration = Duration::from_secs(10);

/// The pieces of one message.
struct Set {
    from: SocketAddr,
    /// Fragment ID, exchange, message ID.
    key: (u16, u8, u32),
    parts: BTreeMap<u8, Vec<u8>>,
    bytes: usize,
    last: Option<u8>,
    since: Instant,
}

/// Unfinished messages, at most one for each SA.
#[derive(Default)]
pub(super) struct Fragments(BTreeMap<Handle, Set>);

impl Fragments {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn forget(&mut self, handle: Handle) {
        self.0.remove(&handle);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a piece; gives the whole message when it was the last one missing.
    fn add(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        header: &Header,
        f: Fragment<'_>,
        bytes_max: usize,
        now: Instant,
    ) -> Verdict<Option<Vec<u8>>> {
        let key = (f.id, header.exchange.number(), header.message_id);
        if self.0.get(&handle).is_some_and(|s| s.key != key || s.from != from) {
            self.0.remove(&handle);
        }
        if self.0.len() >= SETS_MAX && !self.0.contains_key(&handle) {
            let oldest = self.0.iter().min_by_key(|(_, s)| s.since).map(|(h, _)| *h);
            oldest.map(|h| self.0.remove(&h));
        }
        let new = || Set { from, key, parts: BTreeMap::new(), bytes: 0, last: None, since: now };
        let set = self.0.entry(handle).or_insert_with(new);
        let refuse = |text: &str| Err(Refuse("fragment", text.into()));
        let highest = set.parts.keys().next_back().copied().unwrap_or(0);
        let contradicts = match (set.last, f.last) {
            (Some(last), true) => f.number != last,
            (Some(last), false) => f.number >= last,
            (None, true) => highest > f.number,
            (None, false) => false,
        };
        if contradicts || set.bytes + f.data.len() > bytes_max {
            self.0.remove(&handle);
            return refuse("the pieces do not fit each other");
        }
        if set.parts.contains_key(&f.number) {
            return refuse("a piece that is there already");
        }
        set.bytes += f.data.len();
        set.parts.insert(f.number, f.data.to_vec());
        if f.last {
            set.last = Some(f.number);
        }
        if set.last.is_none_or(|last| set.parts.len() < usize::from(last)) {
            return Ok(None);
        }
        let whole = self.0.remove(&handle).map(|s| s.parts.into_values().flatten().collect());
        Ok(whole)
    }
}

impl Sa {
    /// True while an initiator knows nothing of the responder: its own first message offered everything.
    fn awaits_answer(&self) -> bool {
        matches!(&self.stage, Stage::Main(m) if matches!(m.state, MainState::WaitSa | MainState::AggressiveWait))
    }
}

impl Engine {
    /// A datagram that holds a piece. Gives the whole message when it is complete.
    pub(super) fn fragment(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict<Option<(Header, Vec<u8>)>> {
        let unexpected = |text: &str| Refuse("fragment_unexpected", text.into());
        // The first answer may come in pieces already: it is then that we learn the responder's cookie.
        let first = IkeSaId { responder: [0; 8], ..header.id };
        let found = self.by_id.get(&header.id).or_else(|| self.by_id.get(&first));
        let handle = *found.ok_or_else(|| unexpected("unknown cookies"))?;
        let sa = self.sas.get(&handle).ok_or_else(|| unexpected("unknown cookies"))?;
        if !sa.fragments && !sa.awaits_answer() {
            return Err(unexpected("not announced"));
        }
        if sa.peer.ip() != from.ip() && !sa.nat.peer || sa.local.ip() != to.ip() {
            return Err(Refuse("wrong_address", format!("{:?} belongs to {}", header.id, sa.peer)));
        }
        let f = Fragment::decode(bytes.get(HEADER_LEN..).unwrap_or_default()).map_err(|e| Refuse("fragment", e.to_string()))?;
        let max = self.config.limits.datagram_bytes_max;
        let whole = self.fragments.add(handle, from, header, f, max, now)?;
        let Some(whole) = whole else {
            if !self.timers.is_set(Timer::Fragments(handle)) {
                self.timers.set(Timer::Fragments(handle), now + SET_AGE_MAX);
            }
            return Ok(None);
        };
        self.timers.clear(Timer::Fragments(handle));
        let inner = Header::decode(&whole).map_err(|fault| Refuse("fragment", format!("the whole message: {fault:?}")))?;
        if inner.id != header.id || inner.next == PayloadKind::Fragment.number() {
            return Err(Refuse("fragment", "the whole message is of another SA, or a piece itself".into()));
        }
        Ok(Some((inner, whole)))
    }

    /// The message did not become whole in time.
    pub(super) fn fragments_too_old(&mut self, handle: Handle, now: Instant) {
        let since = self.fragments.0.get(&handle).map(|s| s.since);
        match since {
            Some(since) if since + SET_AGE_MAX > now => self.timers.set(Timer::Fragments(handle), since + SET_AGE_MAX),
            Some(_) | None => self.fragments.forget(handle),
        }
    }

    /// A large message in pieces, when the SA it belongs to allows that.
    pub(super) fn in_pieces(&self, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        if message.len() <= WHOLE_MAX {
            return None;
        }
        let id = Header::decode(message).ok()?.id;
        let sa = self.by_id.get(&id).and_then(|h| self.sas.get(h))?;
        if sa.fragments { Fragment::split(message, WHOLE_MAX) } else { None }
    }
}
