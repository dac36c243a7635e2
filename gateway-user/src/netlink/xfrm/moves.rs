//! A pair whose peer has another address or port than before (NAT), without a number sent twice or a window that moves back.
//!
//! - Another *port*: `XFRM_MSG_UPDSA`. The kernel writes the new ports into the SA it has, in one step under the SA's lock; replay state
//!   and keys are not touched.
//! - Another *address*, outbound: the address is part of the SA's key in the kernel, so there must be a new SA. The old one is deleted first,
//!   and the new one starts at the number the old one ended with. The order matters: a number read from an SA that still sends is old when it
//!   arrives. The kernel gives out numbers under the SA's lock and only while it is valid, so the notice of its deletion carries the last one
//!   there will ever be. Between the two messages packets of the flow find no SA and are dropped, as policies want it. Should the notice
//!   be missing, nothing is installed and the error says so: the caller rekeys. (`XFRM_MSG_MIGRATE` copies an SA while it sends.
//!   `XFRM_MSG_MIGRATE_STATE` would be one step; kernels up to 6.12 do not have it.)
//! - Another *address*, inbound: the kernel finds an inbound SA by SPI and our own address; the peer's address in it decides nothing, as the
//!   templates of inbound policies leave it open. The SA stays with its window as it is, only the port is updated.
//! - Encapsulation that begins or ends: the kernel refuses to change that, so the inbound SA too is deleted and made again. A packet that
//!   another CPU had checked already may still move the old window after the notice; therefore the new one starts a whole window further, all
//!   of it closed. The peer loses up to a window of packets, once.

use super::super::message::*;
use super::super::socket::{DATAGRAM_MAX, Family, errno_of, netlink_option, open_bound, receive};
use super::adapter::{XfrmAdapter, fail, sa_name, unix_s};
use super::codec::{self, SA_INFO_LEN, XFRM_MSG_DELSA, XFRM_MSG_NEWSA, half};
use super::view::{Replay, SaView, replay_of, sa_view};
use crate::id::Spi;
use crate::ports::{Direction, PortResult, SaInstall, SaUsed};
use crate::sad::{ChildSa, Encap};
use nix::sys::socket::MsgFlags;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use zeroize::Zeroizing;

/// `struct xfrm_usersa_id`.
const SA_ID_LEN: usize = 24;
const XFRMA_SA: u16 = 6;
const XFRMNLGRP_SA: libc::c_int = 3;
const NETLINK_ADD_MEMBERSHIP: libc::c_int = 1;
const NETLINK_DROP_MEMBERSHIP: libc::c_int = 2;
/// Receive buffer of the witness, bytes: it listens only during one deletion.
const BUFFER_BYTES: usize = 1 << 20;

/// What an SA had reached when it was deleted.
struct Last {
    reqid: u32,
    replay: Replay,
    used: SaUsed,
}

/// Reads the kernel's notice of a deletion, from a socket of its own that is in the group only then.
pub(super) struct Witness {
    fd: OwnedFd,
    /// Notices carry keys.
    buffer: Zeroizing<Vec<u8>>,
}

impl Witness {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { fd: open_bound(Family::Xfrm, 0, BUFFER_BYTES)?, buffer: Zeroizing::new(Vec::new()) })
    }

    fn join(&mut self) -> io::Result<()> {
        self.buffer.resize(DATAGRAM_MAX, 0);
        netlink_option(&self.fd, NETLINK_ADD_MEMBERSHIP, XFRMNLGRP_SA)
    }

    /// The notice about one SA among those that came since [`Self::join`]; all of them are taken. The kernel queues it before it answers the
    /// deletion, so there is nothing to wait for.
    fn leave(&mut self, spi: Spi, dst: IpAddr, now_s: u64) -> io::Result<Option<Last>> {
        netlink_option(&self.fd, NETLINK_DROP_MEMBERSHIP, XFRMNLGRP_SA)?;
        let mut found = None;
        loop {
            match receive(self.fd.as_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(Some(len)) => {
                    let notices = Messages::new(&self.buffer[..len]).filter(|m| m.kind == XFRM_MSG_DELSA);
                    found = notices.filter_map(|m| last(m.body, spi, dst, now_s)).next().or(found);
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // Overrun: what is still queued may hold it.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) => return Err(e),
            }
        }
        self.buffer = Zeroizing::new(Vec::new());
        Ok(found)
    }
}

/// XFRM_MSG_DELSA as a notice: the SA's id, then the SA as it was in `XFRMA_SA` and the attributes of a dump.
fn last(body: &[u8], spi: Spi, dst: IpAddr, now_s: u64) -> Option<Last> {
    let id = Fields::new(body, SA_ID_LEN)?;
    if (Spi(id.be32(16)), id.addr16(0, id.u16(20))) != (spi, dst) || i32::from(id.u8(22)) != libc::IPPROTO_ESP {
        return None;
    }
    let (_, info) = Attrs::after(body, SA_ID_LEN).find(|(kind, _)| *kind == XFRMA_SA)?;
    let view: SaView<'_> = sa_view(info.get(..SA_INFO_LEN)?)?;
    let used = SaUsed { age_s: now_s.saturating_sub(view.created_s), bytes: view.bytes, packets: view.packets };
    let replay = replay_of(Attrs::after(body, SA_ID_LEN));
    replay.words.map(|_| Last { reqid: view.reqid, replay, used })
}

impl XfrmAdapter {
    pub(super) fn move_pair(&mut self, child: &ChildSa, peer: IpAddr, encap: Option<Encap>) -> PortResult<()> {
        let moved = ChildSa { peer, encap, ..child.clone() };
        let framing = child.encap.is_some() != encap.is_some();
        for (direction, anew) in [(Direction::In, framing), (Direction::Out, framing || peer != child.peer)] {
            let Some(sa) = self.as_installed(child, &moved, direction)? else { continue };
            if anew {
                self.replace(child, &sa)?;
            } else if encap.is_some() {
                self.update(&sa)?;
            }
        }
        Ok(())
    }

    /// How the moved half is to be installed; `None` when the kernel does not have it.
    fn as_installed<'a>(&mut self, child: &ChildSa, moved: &'a ChildSa, direction: Direction) -> PortResult<Option<SaInstall<'a>>> {
        let (spi, dst) = id_of(child, direction);
        let mut reqid = None;
        let asked = self.socket.request(codec::get_sa(spi, dst), |kind, body| {
            if kind == XFRM_MSG_NEWSA {
                reqid = sa_view(body).map(|v| v.reqid);
            }
        });
        let (reqid, thresholds) = match asked {
            Err(e) if errno_of(&e) == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(fail("XFRM_MSG_GETSA", sa_name(spi, dst), e)),
            Ok(()) => (reqid.unwrap_or_default(), self.thresholds_of(spi, dst)),
        };
        let (event_packets, tenths) = thresholds.map_err(|e| fail("XFRM_MSG_GETAE", sa_name(spi, dst), e))?;
        // Read in steps of 100 ms, rounded down: none is too short rather than for ever.
        let event_time = Duration::from_millis(u64::from(tenths.max(1)) * 100);
        Ok(Some(SaInstall { child: moved, direction, reqid, replay: 0, used: SaUsed::default(), event_packets, event_time }))
    }

    /// Writes the ports of an installed SA.
    pub(super) fn update(&mut self, sa: &SaInstall<'_>) -> PortResult<()> {
        let half = half(sa);
        let failed = |e| fail("XFRM_MSG_UPDSA", sa_name(half.spi, half.dst), e);
        let hz = self.hz().map_err(failed)?;
        self.socket.request(codec::update_sa(sa, hz, unix_s()), |_, _| ()).map_err(failed)
    }

    /// Deletes the half as `child` has it and installs it as `sa` says, from the number it ended with.
    fn replace(&mut self, child: &ChildSa, sa: &SaInstall<'_>) -> PortResult<()> {
        codec::check(sa).map_err(|e| fail("XFRM_MSG_NEWSA", sa_name(half(sa).spi, half(sa).dst), io::Error::other(e)))?;
        let (spi, dst) = id_of(child, sa.direction);
        let failed = |call| move |e| fail(call, sa_name(spi, dst), e);
        let hz = self.hz().map_err(failed("XFRM_MSG_NEWSA"))?;
        self.witness.join().map_err(failed("NETLINK_ADD_MEMBERSHIP"))?;
        let deleted = self.socket.request(codec::delete_sa(spi, dst), |_, _| ());
        let last = self.witness.leave(spi, dst, unix_s()).map_err(failed("XFRM_MSG_DELSA"))?;
        deleted.map_err(failed("XFRM_MSG_DELSA"))?;
        let unseen = || io::Error::other("its last number was not told: it is gone, and nothing takes its place");
        let last = last.ok_or_else(|| fail("XFRM_MSG_DELSA", sa_name(spi, dst), unseen()))?;
        let replay = match sa.direction {
            Direction::In => last.replay.seq.saturating_add(codec::window_of(child.replay_window, child.esn).into()),
            Direction::Out => last.replay.oseq,
        };
        let sa = SaInstall { reqid: last.reqid, replay, used: last.used, ..sa.clone() };
        self.socket.request(codec::new_sa(&sa, hz, unix_s()), |_, _| ()).map_err(failed("XFRM_MSG_NEWSA"))
    }
}

fn id_of(child: &ChildSa, direction: Direction) -> (Spi, IpAddr) {
    match direction {
        Direction::In => (child.spi_in, child.local),
        Direction::Out => (child.spi_out, child.peer),
    }
}
