//! A small synchronous netlink socket: pipelined requests, dumps, the kernel's own words in errors, and a limit on every wait.

use super::message::*;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockType, bind, recvmsg, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Requests in one `sendmsg`; more bring nothing.
pub const BATCH_MESSAGES: usize = 64;
/// Longest wait for the next answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Receive buffer of a request socket, bytes: the answers of one batch are all queued before the first is read.
const REQUEST_BUFFER_BYTES: usize = 1 << 20;
/// Largest datagram the kernel sends (dumps come in parts of 32 kB).
pub(super) const DATAGRAM_MAX: usize = 64 * 1024;
/// Times a dump is taken again when the table changed under it.
const DUMP_TRIES: usize = 8;
/// Entries of a dump above which it is refused.
const DUMP_ENTRIES_MAX: usize = 4_000_000;

const SOL_NETLINK: libc::c_int = 270;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Netlink protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `NETLINK_ROUTE`.
    Route,
    /// `NETLINK_XFRM`.
    Xfrm,
}

/// The kernel said no, with its text where it gave one.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// errno.
    pub errno: i32,
    /// Extended acknowledgement.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for Refusal {}

/// errno of an error made here, whether or not the kernel's text is wrapped around it.
pub fn errno_of(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<Refusal>().map(|r| r.errno))
}

/// A netlink socket of one protocol, in the network namespace of the thread that opened it.
pub struct NetlinkSocket {
    fd: OwnedFd,
    next_seq: u32,
    /// Both buffers may hold keys.
    incoming: Zeroizing<Vec<u8>>,
    outgoing: Zeroizing<Vec<u8>>,
}

impl NetlinkSocket {
    /// Opens a request socket.
    pub fn open(family: Family) -> io::Result<Self> {
        let fd = open_bound(family, 0, REQUEST_BUFFER_BYTES)?;
        let timeout = TimeVal::seconds(ANSWER_TIMEOUT.as_secs() as i64);
        setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
        setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
        Ok(Self {
            fd,
            next_seq: 1,
            incoming: Zeroizing::new(vec![0; DATAGRAM_MAX]),
            outgoing: Zeroizing::new(Vec::with_capacity(BATCH_MESSAGES * 1536)),
        })
    }

    /// One request; `on` gets the messages that come before its acknowledgement.
    pub fn request(&mut self, request: Request, mut on: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut answers = self.pipeline(std::iter::once(request), |_, kind, body| on(kind, body));
        answers.pop().unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof)))
    }

    /// Many requests, [`BATCH_MESSAGES`] a send. Gives one result per request in order; `on` gets (index, type, body) of
    /// what comes besides acknowledgements. When the socket itself fails, that request and all after it fail.
    pub fn pipeline(&mut self, requests: impl Iterator<Item = Request>, mut on: impl FnMut(usize, u16, &[u8])) -> Vec<io::Result<()>> {
        let mut results = Vec::with_capacity(requests.size_hint().0);
        let mut requests = requests.peekable();
        while requests.peek().is_some() {
            let first_seq = self.next_seq;
            let base = results.len();
            self.outgoing.clear();
            let mut count = 0usize;
            while count < BATCH_MESSAGES
                && let Some(request) = requests.next()
            {
                count += 1;
                // Refusals are always answered, success only where asked: the last answer stands for all before it.
                let last = count == BATCH_MESSAGES || requests.peek().is_none();
                let seq = first_seq.wrapping_add(count as u32 - 1);
                request.write_to(&mut self.outgoing, seq, if last { NLM_F_ACK } else { 0 });
            }
            self.next_seq = first_seq.wrapping_add(count as u32);
            let mut answers: Vec<Option<io::Result<()>>> = std::iter::repeat_with(|| None).take(count).collect();
            let failure = self.exchange(first_seq, &mut answers, |i, kind, body| on(base + i, kind, body)).err();
            let again = |e: &io::Error| e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
            let missing = |f: &Option<io::Error>| f.as_ref().map_or_else(|| io::ErrorKind::UnexpectedEof.into(), again);
            results.extend(answers.into_iter().map(|a| a.unwrap_or_else(|| Err(missing(&failure)))));
            if failure.is_some() {
                results.extend(requests.map(|_| Err(missing(&failure))));
                return results;
            }
        }
        results
    }

    fn exchange(
        &mut self,
        first_seq: u32,
        answers: &mut [Option<io::Result<()>>],
        mut on: impl FnMut(usize, u16, &[u8]),
    ) -> io::Result<()> {
        send_all(self.fd.as_fd(), &self.outgoing)?;
        let mut progress = Instant::now();
        // A lost answer cannot pass for success: the kernel then fails the next receive (ENOBUFS).
        while matches!(answers.last(), Some(None)) {
            let Some(len) = receive(self.fd.as_fd(), &mut self.incoming, MsgFlags::empty())? else { continue };
            for message in Messages::new(&self.incoming[..len]) {
                // What does not belong to this batch is a late answer to one that was given up.
                let index = message.seq.wrapping_sub(first_seq) as usize;
                let Some(slot) = answers.get_mut(index) else { continue };
                progress = Instant::now();
                if message.kind == NLMSG_ERROR {
                    *slot = Some(acknowledgement(&message));
                } else {
                    on(index, message.kind, message.body);
                }
            }
            if progress.elapsed() > ANSWER_TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        answers.iter_mut().filter(|a| a.is_none()).for_each(|a| *a = Some(Ok(())));
        Ok(())
    }

    /// A whole table; `parse` gives an entry or `None` to leave it out. Taken again when the table changed meanwhile.
    pub fn dump<T>(&mut self, request: &Request, parse: impl Fn(u16, &[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            if let Some(entries) = self.dump_once(request, &parse)? {
                return Ok(entries);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the table changed under every dump"))
    }

    fn dump_once<T>(&mut self, request: &Request, parse: impl Fn(u16, &[u8]) -> Option<T>) -> io::Result<Option<Vec<T>>> {
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        self.outgoing.clear();
        request.write_to(&mut self.outgoing, seq, NLM_F_DUMP);
        send_all(self.fd.as_fd(), &self.outgoing)?;
        let mut entries = Vec::new();
        let mut interrupted = false;
        let mut progress = Instant::now();
        loop {
            if progress.elapsed() > ANSWER_TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some(len) = receive(self.fd.as_fd(), &mut self.incoming, MsgFlags::empty())? else { continue };
            for message in Messages::new(&self.incoming[..len]).filter(|m| m.seq == seq) {
                progress = Instant::now();
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR => {
                        acknowledgement(&message)?;
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    NLMSG_DONE => {
                        dump_end(&message)?;
                        return Ok((!interrupted).then_some(entries));
                    }
                    kind => entries.extend(parse(kind, message.body)),
                }
                if entries.len() > DUMP_ENTRIES_MAX {
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the dump has more entries than the gateway ever makes"));
                }
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A bound socket; `groups` is the mask of multicast groups (bit 0 = group 1). Without a port id of its own the socket would
/// get no multicast: the kernel takes port 0 for the sender.
pub(super) fn open_bound(family: Family, groups: u32, buffer_bytes: usize) -> io::Result<OwnedFd> {
    let protocol = match family {
        Family::Route => libc::NETLINK_ROUTE,
        Family::Xfrm => libc::NETLINK_XFRM,
    };
    let kind = SockType::Raw as libc::c_int | SockFlag::SOCK_CLOEXEC.bits();
    // SAFETY: plain call without pointers; nix has no name for NETLINK_XFRM.
    let raw = Errno::result(unsafe { libc::socket(AddressFamily::Netlink as libc::c_int, kind, protocol) })?;
    // SAFETY: `raw` was just opened and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // Without the privilege to go above the system's limit the limit has to do.
    if setsockopt(&fd, sockopt::RcvBufForce, &buffer_bytes).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &buffer_bytes)?;
    }
    netlink_option(&fd, NETLINK_EXT_ACK, 1)?;
    // Keys sent in a request must not come back in its error.
    netlink_option(&fd, NETLINK_CAP_ACK, 1)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Sets an option of the netlink level.
pub(super) fn netlink_option(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` outlives the call and `len` is its size; the fd is open.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), SOL_NETLINK, option, (&raw const value).cast(), len) };
    Errno::result(rc)?;
    Ok(())
}

fn send_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    loop {
        match send(fd.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(n) if n == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives one datagram. `None`: it was not from the kernel. Past the receive timeout: `TimedOut` (`WouldBlock` with
/// `MSG_DONTWAIT`).
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Option<usize>> {
    let mut parts = [IoSliceMut::new(buffer)];
    loop {
        match recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut parts, None, flags) {
            Ok(m) if m.address.is_none_or(|a| a.pid() != 0) => return Ok(None),
            Ok(m) if m.flags.contains(MsgFlags::MSG_TRUNC) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink datagram is larger than the buffer"));
            }
            Ok(m) => return Ok(Some(m.bytes)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if !flags.contains(MsgFlags::MSG_DONTWAIT) => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The result in an `NLMSG_ERROR` (`struct nlmsgerr`): errno negated, the request's header, its body unless capped, attributes.
fn acknowledgement(message: &Message<'_>) -> io::Result<()> {
    let Some(fields) = Fields::new(message.body, 4 + HEADER_LEN) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let errno = (fields.u32(0) as i32).wrapping_neg();
    if errno == 0 {
        return Ok(());
    }
    let echoed = if message.flags & NLM_F_CAPPED != 0 { HEADER_LEN } else { fields.u32(4) as usize };
    let text = if message.flags & NLM_F_ACK_TLVS != 0 { kernel_text(Attrs::after(message.body, 4 + echoed)) } else { None };
    Err(refusal(errno, text))
}

/// The result in an `NLMSG_DONE`.
fn dump_end(message: &Message<'_>) -> io::Result<()> {
    let errno = Fields::new(message.body, 4).map_or(0, |f| (f.u32(0) as i32).wrapping_neg());
    if errno <= 0 {
        return Ok(());
    }
    Err(refusal(errno, kernel_text(Attrs::after(message.body, 4))))
}

fn kernel_text(attrs: Attrs<'_>) -> Option<String> {
    let (_, text) = attrs.into_iter().find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(text).into_owned())
}

fn refusal(errno: i32, text: Option<String>) -> io::Error {
    let plain = io::Error::from_raw_os_error(errno);
    match text {
        Some(text) if !text.is_empty() => io::Error::new(plain.kind(), Refusal { errno, text }),
        _ => plain,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use hex_literal::hex;

    fn message(flags: u16, body: &[u8]) -> Message<'_> {
        Message { kind: NLMSG_ERROR, flags, seq: 1, body }
    }

    #[test]
    fn an_acknowledgement_without_error_is_ok() {
        acknowledgement(&message(NLM_F_CAPPED, &hex!("00000000 14000000 1000 0500 01000000 00000000"))).unwrap();
    }

    #[test]
    fn the_kernels_text_is_in_the_error() {
        // EINVAL, capped, NLMSGERR_ATTR_MSG "no".
        let body = hex!("eaffffff 24000000 1000 0500 01000000 00000000 0700 0100 6e6f0000");
        let error = acknowledgement(&message(NLM_F_CAPPED | NLM_F_ACK_TLVS, &body)).unwrap_err();
        assert_eq!(errno_of(&error), Some(libc::EINVAL));
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("no ("), "{error}");
        // The same with the request (20 bytes, 4 of them body) echoed.
        let body = hex!("eaffffff 14000000 1000 0500 01000000 00000000 ffffffff 0700 0100 6e6f0000");
        let error = acknowledgement(&message(NLM_F_ACK_TLVS, &body)).unwrap_err();
        assert!(error.to_string().starts_with("no ("), "{error}");
    }

    #[test]
    fn a_refusal_without_text_is_the_plain_errno() {
        let body = hex!("fdffffff 14000000 1000 0500 01000000 00000000");
        let error = acknowledgement(&message(NLM_F_CAPPED, &body)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn pipelined_requests_are_answered_in_order() {
        // RTM_GETLINK works without privilege: index 1 is the loopback in every namespace, index 0x7fffffff is none.
        let mut socket = NetlinkSocket::open(Family::Route).unwrap();
        let get = |index: u32| {
            let mut r = Request::new(18, 0);
            r.zeros(4).u32(index).zeros(8);
            r
        };
        let wanted: Vec<u32> = (0..150).map(|i| if i % 3 == 0 { 0x7fff_ffff } else { 1 }).collect();
        let mut seen = Vec::new();
        let results = socket.pipeline(wanted.iter().map(|i| get(*i)), |i, kind, _| seen.push((i, kind)));
        assert_eq!(results.len(), 150);
        for (i, result) in results.iter().enumerate() {
            match result {
                Ok(()) => assert_ne!(i % 3, 0),
                Err(e) => assert_eq!((i % 3, errno_of(e)), (0, Some(libc::ENODEV))),
            }
        }
        let links: Vec<usize> = (0..150).filter(|i| i % 3 != 0).collect();
        assert_eq!(seen.iter().map(|(i, _)| *i).collect::<Vec<_>>(), links);
    }

    #[test]
    fn a_dump_ends_and_leaves_the_socket_usable() {
        let mut socket = NetlinkSocket::open(Family::Route).unwrap();
        for _ in 0..3 {
            let mut request = Request::new(18, 0);
            request.zeros(16);
            let links = socket.dump(&request, |kind, body| (kind == 16).then(|| Fields::new(body, 16).unwrap().u32(4))).unwrap();
            assert!(links.contains(&1));
        }
    }
}
