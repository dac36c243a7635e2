//! Requests and responses under an IKE SA (RFC 7296 2.1 to 2.3): one request at a time in each direction, repeated until it is answered;
//! one answer, repeated byte for byte.

use super::engine::Engine;
use super::fragment::{self, Place, Reassembly};
use super::message::{Exchange, Fault, Header, Message, NotifyType, Opened, Outgoing};
use super::sa::{Answer, Asked, Digest, Fail, Fate, Handle, Partial, Sa, Stage, TASKS_MAX, Verdict, digest, ended, refuse};
use super::task::{Current, JobTarget, Phase, Sent, Task, What};
use super::timer::Timer;
use crate::ike::engine::NAT_T_PORT;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A repeated request is answered again after this time at the soonest.
const RESEND_GAP: Duration = Duration::from_millis(100);
/// Transmissions of the Delete of an IKE SA.
pub(super) const DELETE_TRIES: u32 = 4;
/// Fragments of one message come within this time.
const REASSEMBLY: Duration = Duration::from_secs(30);

/// Time to the next repetition after this many transmissions.
pub(super) fn backoff(first: Duration, sends: u32) -> Duration {
    first * 2u32.pow(sends.saturating_sub(1).min(6))
}

impl Engine {
    /// A message that is not of IKE_SA_INIT.
    pub(super) fn protected(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let handle = self.find(header).ok_or_else(|| refuse("unknown_spi", format!("{:?}", header.id)))?;
        let sa = self.sas.get(&handle).ok_or_else(ended)?;
        match (&sa.stage, header.response) {
            (Stage::Init(_), false) if header.exchange == Exchange::Intermediate => {
                self.intermediate_request(handle, from, to, header, bytes, now)
            }
            (Stage::Init(_), true) if header.exchange == Exchange::Intermediate => self.intermediate_response(handle, header, bytes, now),
            (Stage::Init(_), false) => self.auth_request(handle, from, to, header, bytes, now),
            (Stage::Init(_), true) => self.auth_response(handle, from, to, header, bytes, now),
            (Stage::Up(_), false) => self.request(handle, from, to, header, bytes, now),
            (Stage::Up(_), true) => self.response(handle, from, to, header, bytes, now),
        }
    }

    /// Verifies and decrypts a message of the peer; `None` while fragments are missing.
    pub(super) fn open(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict<Option<(Opened, Digest)>> {
        let sa = self.sas.get_mut(&handle).ok_or_else(ended)?;
        let from_initiator = !sa.initiator;
        let (suite, keys, caps) = sa.keys().ok_or_else(|| refuse("no_keys", "keys are not there yet"))?;
        let seal = keys.seal_keys(suite, from_initiator);
        if !fragment::is_fragment(header) {
            let opened = super::message::open(bytes, header, &seal)?;
            sa.partial = None;
            return Ok(Some((opened, digest(bytes))));
        }
        if !caps.fragments {
            return Err(refuse("fragment", "fragments were not agreed on"));
        }
        let place = Place::read(bytes, header)?;
        let (mut partial, other) = match sa.partial.take() {
            Some(p) if (p.message_id, p.response) == (header.message_id, header.response) => (p, None),
            // What is there stays until a fragment of another message shows that it is authentic.
            other => {
                let (message_id, response) = (header.message_id, header.response);
                (Box::new(Partial { message_id, response, reassembly: Reassembly::new(), first: [0; 32] }), other)
            }
        };
        let held = partial.reassembly.bytes();
        let added = partial.reassembly.add(bytes, header, &seal);
        if place.number == 1 && (partial.reassembly.bytes() > held || matches!(added, Ok(Some(_)))) {
            partial.first = digest(bytes);
        }
        let first = partial.first;
        if matches!(added, Ok(Some(_))) {
            self.timers.clear(Timer::Fragments(handle));
        } else {
            sa.partial = if partial.reassembly.bytes() > 0 { Some(partial) } else { other };
            if sa.partial.is_some() && !self.timers.is_set(Timer::Fragments(handle)) {
                self.timers.set(Timer::Fragments(handle), now + REASSEMBLY);
            }
        }
        Ok(added?.map(|opened| (opened, first)))
    }

    /// Fragments that did not come together in time.
    pub(super) fn drop_fragments(&mut self, handle: Handle) {
        if let Some(sa) = self.sas.get_mut(&handle) {
            sa.partial = None;
        }
    }

    /// Protects a message; in fragments when it is large and the peer can.
    pub(super) fn seal(&mut self, handle: Handle, exchange: Exchange, response: bool, message_id: u32, out: &Outgoing) -> Vec<Vec<u8>> {
        let Some(sa) = self.sas.get(&handle) else { return Vec::new() };
        let Some((suite, keys, caps)) = sa.keys() else { return Vec::new() };
        let seal = keys.seal_keys(suite, sa.initiator);
        let header = Header::new(sa.id, exchange, sa.initiator, response, message_id);
        let packet = match &sa.stage {
            Stage::Init(init) => init.profile.fragment_bytes,
            Stage::Up(up) => up.profile.fragment_bytes,
        };
        let max = fragment::message_max(packet, sa.peer.is_ipv6(), sa.local.port() == NAT_T_PORT);
        let rng = &mut self.rng;
        let mut iv = vec![0; seal.iv_len()];
        rng.fill(&mut iv);
        let Ok(whole) = out.seal(&header, &seal, &iv) else { return Vec::new() };
        if packet == 0 || !caps.fragments || whole.len() <= max {
            return vec![whole];
        }
        fragment::split(&header, out.first(), out.bytes(), &seal, &mut |iv| rng.fill(iv), max).unwrap_or_else(|_| vec![whole])
    }

    /// A request under an established SA.
    fn request(&mut self, handle: Handle, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let up = self.sas.get_mut(&handle).and_then(Sa::up_mut).ok_or_else(ended)?;
        if header.message_id.wrapping_add(1) == up.recv_id {
            return self.repeated(handle, header, bytes, now);
        }
        if header.message_id != up.recv_id {
            return Err(refuse("message_id", format!("{} where {} is expected", header.message_id, up.recv_id)));
        }
        if up.asked.is_some() {
            return Err(refuse("repeated", "it is being answered"));
        }
        let Some((opened, digest)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        self.authentic(handle, from, to, now);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.asked = Some(Asked { message_id: header.message_id, exchange: header.exchange, digest, from, to });
        }
        let message = match Message::decode(opened.first, &opened.plain) {
            Ok(message) => message,
            Err(fault) => {
                self.answer_fail(handle, &fault_notify(fault), now);
                return Err(fault.into());
            }
        };
        match header.exchange {
            Exchange::CreateChildSa => self.create_child_request(handle, &message, now),
            Exchange::Informational => self.informational_request(handle, &message, now),
            Exchange::SaInit | Exchange::Auth | Exchange::Intermediate | Exchange::FollowupKe => {
                self.answer_fail(handle, &Fail::new(NotifyType::INVALID_SYNTAX, "not now"), now);
                return Err(refuse("exchange", format!("{:?} under an established SA", header.exchange)));
            }
        }
        Ok(())
    }

    /// A request that was answered: the same answer again.
    fn repeated(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        // Of a request in fragments the first one draws the answer (RFC 7383 2.6.1).
        if fragment::is_fragment(header) && Place::read(bytes, header)?.number != 1 {
            return Err(refuse("repeated", "a later fragment"));
        }
        let up = self.sas.get_mut(&handle).and_then(Sa::up_mut).ok_or_else(ended)?;
        let answer = up.answer.as_mut().filter(|a| a.message_id == header.message_id && a.digest == digest(bytes));
        let answer = answer.filter(|a| now.saturating_duration_since(a.at) >= RESEND_GAP);
        let answer = answer.ok_or_else(|| refuse("repeated", format!("request {} was answered", header.message_id)))?;
        answer.at = now;
        let packets = answer.packets.clone();
        self.transmit_all(handle, &packets);
        Ok(())
    }

    /// Answers the request that is being served.
    pub(super) fn answer(&mut self, handle: Handle, out: &Outgoing, now: Instant) {
        let Some(asked) = self.sas.get_mut(&handle).and_then(Sa::up_mut).and_then(|up| up.asked.take()) else { return };
        let packets = self.seal(handle, asked.exchange, true, asked.message_id, out);
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        up.recv_id = asked.message_id.wrapping_add(1);
        up.answering = None;
        up.answer = Some(Answer { message_id: asked.message_id, digest: asked.digest, packets: packets.clone(), at: now });
        self.dirty.insert(handle);
        for packet in packets {
            self.transmit(asked.to, asked.from, packet);
        }
    }

    /// Answers with an error.
    pub(super) fn answer_fail(&mut self, handle: Handle, fail: &Fail, now: Instant) {
        let mut out = Outgoing::new();
        fail.put(&mut out);
        self.answer(handle, &out, now);
    }

    /// A response under an established SA.
    fn response(&mut self, handle: Handle, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let up = self.sas.get(&handle).and_then(Sa::up).ok_or_else(ended)?;
        let expected = up.current.as_ref().is_some_and(|c| {
            let id = matches!(&c.phase, Phase::Sent(sent) if sent.message_id == header.message_id);
            id && c.what.exchange() == header.exchange
        });
        if !expected {
            return Err(refuse("unexpected_response", format!("message {}", header.message_id)));
        }
        let Some((opened, _)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        self.authentic(handle, from, to, now);
        self.timers.clear(Timer::Request(handle));
        let current = self.sas.get_mut(&handle).and_then(Sa::up_mut).and_then(|up| up.current.take()).ok_or_else(ended)?;
        let Phase::Sent(sent) = current.phase else { return Err(ended()) };
        let decoded = Message::decode(opened.first, &opened.plain);
        let fault = decoded.as_ref().err().copied();
        match (current.what, decoded) {
            (What::Child(task), Ok(m)) => self.child_response(handle, task, &m, None, Some(sent), now),
            (What::Child(task), Err(fault)) => self.child_failed(handle, *task, &format!("the answer is malformed: {fault}"), now),
            (What::RekeyIke(task), Ok(m)) => self.rekey_response(handle, task, &m, sent, now),
            (What::RekeyIke(_), Err(fault)) => self.rekey_failed(handle, &format!("the answer is malformed: {fault}"), now),
            (What::DeleteChildren(spis), _) => self.deleted(handle, &spis, now),
            (What::DeleteIke, _) => self.remove_ike(handle, "deleted", now),
            (What::Abandoned(spi), _) => {
                self.release(&What::Abandoned(spi));
                self.add_task(handle, Task::DeleteChildren(vec![spi]), now);
            }
            (What::Liveness, _) => {}
        }
        // While a shared secret is being computed the standby keeps to the request: it would draw the same answer again.
        let finishing = |c: &Current| matches!(c.phase, Phase::Finish(_));
        if self.sas.get(&handle).and_then(Sa::up).is_some_and(|u| !u.current.as_ref().is_some_and(finishing)) {
            self.dirty.insert(handle);
        }
        self.run_tasks(handle, now);
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    /// An authentic message came along this path: the peer lives, and may have moved.
    fn authentic(&mut self, handle: Handle, from: SocketAddr, to: SocketAddr, now: Instant) {
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.heard = now;
        }
        self.follow(handle, from, to, now);
    }

    /// Queues a task and starts it when nothing else is under way.
    pub(super) fn add_task(&mut self, handle: Handle, task: Task, now: Instant) {
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        let waits = |t: &Task| match (t, &task) {
            (Task::Child(a), Task::Child(b)) => a.same(b),
            (Task::RekeyIke, Task::RekeyIke) | (Task::DeleteIke, Task::DeleteIke) | (Task::Liveness, Task::Liveness) => true,
            (Task::Child(_) | Task::RekeyIke | Task::DeleteChildren(_) | Task::DeleteIke | Task::Liveness, _) => false,
        };
        let runs = |c: &Current| match (&c.what, &task) {
            (What::Child(c), Task::Child(want)) => c.want.same(want),
            (What::RekeyIke(_), Task::RekeyIke) | (What::DeleteIke, Task::DeleteIke) => true,
            // Whatever is asked shows whether the peer lives.
            (_, Task::Liveness) => true,
            (What::Child(_) | What::RekeyIke(_) | What::DeleteChildren(_) | What::DeleteIke | What::Liveness | What::Abandoned(_), _) => {
                false
            }
        };
        if up.tasks.iter().any(waits) || up.current.as_ref().is_some_and(runs) || up.tasks.len() >= TASKS_MAX {
            return;
        }
        match task {
            // Nothing that waits matters any more.
            Task::DeleteIke => {
                up.tasks.clear();
                up.tasks.push_back(task);
            }
            Task::Child(_) | Task::RekeyIke | Task::DeleteChildren(_) | Task::Liveness => up.tasks.push_back(task),
        }
        self.run_tasks(handle, now);
    }

    /// Starts the next task that may start.
    pub(super) fn run_tasks(&mut self, handle: Handle, now: Instant) {
        loop {
            let later = self.timers.is_set(Timer::Again(handle));
            let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut).filter(|_| self.active) else { return };
            if up.current.is_some() {
                return;
            }
            let may = |t: &Task| match t {
                Task::Child(_) | Task::RekeyIke => !later && up.fate == Fate::Live,
                Task::DeleteChildren(_) | Task::Liveness => up.fate != Fate::Closing,
                Task::DeleteIke => true,
            };
            let Some(at) = up.tasks.iter().position(may) else { return };
            let Some(task) = up.tasks.remove(at) else { return };
            match task {
                Task::Child(want) => self.start_child(handle, want, now),
                Task::RekeyIke => self.start_rekey(handle, now),
                Task::DeleteChildren(spis) => {
                    let mut out = Outgoing::new();
                    out.delete_esp(&spis);
                    self.send_request(handle, What::DeleteChildren(spis), &out, now);
                }
                Task::DeleteIke => {
                    up.fate = Fate::Closing;
                    let mut out = Outgoing::new();
                    out.delete_ike();
                    self.send_request(handle, What::DeleteIke, &out, now);
                }
                Task::Liveness => self.send_request(handle, What::Liveness, &Outgoing::new(), now),
            }
        }
    }

    /// Sends a request under the next message ID. The record of the SA with that ID leaves before it.
    pub(super) fn send_request(&mut self, handle: Handle, what: What, out: &Outgoing, now: Instant) {
        let config = self.config.clone();
        let (mut first, mut tries, mut doubles) = (config.retransmit_first, config.retransmit_tries, true);
        if let (What::Liveness, Some(dpd)) = (&what, config.dpd) {
            (first, tries, doubles) = (dpd.retry, dpd.retries.max(1), false);
        }
        if matches!(what, What::DeleteIke) {
            // Nothing depends on the answer: a peer that has not got the SA any more says nothing.
            tries = tries.min(DELETE_TRIES);
        }
        let Some(message_id) = self.sas.get(&handle).and_then(Sa::up).map(|up| up.send_id) else { return };
        let packets = self.seal(handle, what.exchange(), false, message_id, out);
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        up.send_id = message_id.wrapping_add(1);
        let sent = Sent { message_id, packets: packets.clone(), sends: 1, first, doubles, tries, sent_at: now };
        up.current = Some(Current { what, phase: Phase::Sent(sent) });
        self.timers.set(Timer::Request(handle), now + first);
        self.dirty.insert(handle);
        self.transmit_all(handle, &packets);
    }

    /// No answer yet: the same request again, or the peer is dead.
    pub(super) fn request_timeout(&mut self, handle: Handle, now: Instant) {
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        let Some(Current { phase: Phase::Sent(sent), .. }) = &mut up.current else { return };
        if sent.sends >= sent.tries {
            let cause = format!("dead peer: no answer to {} transmissions", sent.sends);
            return self.remove_ike(handle, &cause, now);
        }
        sent.sends += 1;
        sent.sent_at = now;
        let wait = if sent.doubles { backoff(sent.first, sent.sends) } else { sent.first };
        let packets = sent.packets.clone();
        self.timers.set(Timer::Request(handle), now + wait);
        self.transmit_all(handle, &packets);
    }

    /// A job of our own request has run.
    pub(super) fn task_job(&mut self, handle: Handle, outcome: crate::ike::job::Outcome, now: Instant) {
        let Some(current) = self.sas.get_mut(&handle).and_then(Sa::up_mut).and_then(|up| up.current.take()) else { return };
        let prepare = matches!(current.phase, Phase::Prepare);
        match current.what {
            What::Child(task) if prepare => self.child_prepared(handle, task, outcome, now),
            What::Child(task) => self.child_computed(handle, task, outcome, now),
            What::RekeyIke(task) if prepare => self.rekey_prepared(handle, task, outcome, now),
            What::RekeyIke(task) => self.rekey_computed(handle, task, outcome, now),
            What::DeleteChildren(_) | What::DeleteIke | What::Liveness | What::Abandoned(_) => {}
        }
        self.dirty.insert(handle);
        self.run_tasks(handle, now);
    }

    /// Ends what we ask of the peer without a word, where nothing was sent yet.
    pub(super) fn drop_prepared(&mut self, handle: Handle) -> Option<What> {
        let up = self.sas.get_mut(&handle).and_then(Sa::up_mut)?;
        let prepared = up.current.as_ref().is_some_and(|c| matches!(c.phase, Phase::Prepare));
        let what = up.current.take_if(|_| prepared)?.what;
        self.drop_jobs(JobTarget::Task(handle));
        Some(what)
    }
}

/// What a request that cannot be read is answered with.
fn fault_notify(fault: Fault) -> Fail {
    match fault {
        Fault::Critical(kind) => {
            Fail { data: vec![kind], ..Fail::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, "a payload is critical and not known") }
        }
        Fault::Form(_)
        | Fault::Version1(_)
        | Fault::TooMany
        | Fault::Repeated(_)
        | Fault::Misplaced(_)
        | Fault::Unsealed
        | Fault::Integrity => Fail::new(NotifyType::INVALID_SYNTAX, "malformed"),
    }
}
