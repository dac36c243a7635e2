//! A netlink socket that listens to multicast groups without blocking: shared by the XFRM and the link events.

use super::message::{Message, Messages};
use super::socket::{DATAGRAM_MAX, Family, open_bound, receive};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::MsgFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// Receive buffer, bytes. The kernel counts about 800 for an event, so this holds some ten thousand.
const BUFFER_BYTES: usize = 8 << 20;
/// Datagrams taken in one go, so that a flood of events cannot hold the caller.
const DATAGRAMS_MAX: usize = 256;

/// Listens to multicast groups of one netlink protocol.
pub(super) struct Listener {
    fd: AsyncFd<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Listener {
    /// Joins `groups` (numbers from 1 to 32) in the calling thread's network namespace. Needs a tokio runtime.
    pub(super) fn open(family: Family, groups: &[u32]) -> io::Result<Self> {
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        let fd = open_bound(family, mask, BUFFER_BYTES)?;
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // SAFETY: an `OwnedFd` gives the same open descriptor as long as it lives, and the `AsyncFd` owns it.
        let fd = unsafe { AsyncFd::register(fd)? };
        Ok(Self { fd, buffer: vec![0; DATAGRAM_MAX].into() })
    }

    /// Waits until something gives at least one event. `lost` is what stands for events the kernel had no room for.
    pub(super) async fn recv<T>(&mut self, lost: T, mut parse: impl FnMut(&Message<'_>) -> Option<T>) -> io::Result<Vec<T>>
    where
        T: Clone,
    {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut events = Vec::new();
            let mut dry = false;
            for _ in 0..DATAGRAMS_MAX {
                match receive(self.fd.get_ref().as_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                    Ok(Some(len)) => events.extend(Messages::new(&self.buffer[..len]).filter_map(|m| parse(&m))),
                    Ok(None) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        dry = true;
                        break;
                    }
                    Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => events.push(lost.clone()),
                    Err(e) => return Err(e),
                }
            }
            if dry {
                ready.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
