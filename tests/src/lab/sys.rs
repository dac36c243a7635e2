//! The lab's edges to the kernel: namespaces per thread, link switches, batch receive with kernel timestamps.
//!
//! Everything `unsafe` of the lab is here.

use anyhow::{Context, Result};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// `PACKET_IGNORE_OUTGOING` (linux/if_packet.h), Linux 4.20 and later.
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// `PACKET_STATISTICS` (linux/if_packet.h).
const PACKET_STATISTICS: i32 = 6;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;
const SIOCETHTOOL: u64 = 0x8946;

/// Wall clock in ns since 1970: the clock of the kernel's packet timestamps, of the peer's log and of the captures.
pub fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid timespec for the whole call.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    u64::try_from(ts.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(ts.tv_nsec).unwrap_or(0)
}

/// Monotonic clock in ns; only for pacing.
pub fn mono_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Sleeps until the monotonic clock shows `at` ns.
pub fn sleep_until_mono(at: u64) {
    let ts = libc::timespec { tv_sec: (at / 1_000_000_000).cast_signed(), tv_nsec: (at % 1_000_000_000).cast_signed() };
    // SAFETY: `ts` is valid for the call; the remainder pointer may be null with TIMER_ABSTIME.
    while unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const ts, std::ptr::null_mut()) } == libc::EINTR {
    }
}

/// Sleeps for `ms` milliseconds.
pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn netns_file(ns: &str) -> Result<File> {
    File::open(format!("/run/netns/{ns}")).with_context(|| format!("network namespace {ns}"))
}

/// Moves the calling thread into a named network namespace (mounts stay as they are, unlike `ip netns exec`).
pub fn enter(ns: &str) -> Result<()> {
    let file = netns_file(ns)?;
    nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).with_context(|| format!("setns {ns}"))
}

/// Runs `f` on a thread of its own inside `ns`.
pub fn in_ns<T: Send>(ns: &str, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                enter(ns)?;
                f()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("a thread in {ns} panicked"))?
    })
}

/// A command that will run inside `ns`, in a process group of its own.
pub fn command_in(ns: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let file = netns_file(ns)?;
    let mut command = Command::new(program);
    command.process_group(0);
    // SAFETY: between fork and exec the closure only calls setns, which is async-signal-safe; `file` lives in the closure.
    unsafe {
        command.pre_exec(move || nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
    }
    Ok(command)
}

/// Lets a command see `folder` at the place `at`, in a mount namespace of its own.
pub fn own_folder(command: &mut Command, folder: &Path, at: &str) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let (folder, at) = (CString::new(folder.as_os_str().as_bytes())?, CString::new(at)?);
    // SAFETY: between fork and exec the closure only makes system calls on strings that were made before.
    unsafe {
        command.pre_exec(move || {
            let nothing: Option<&std::ffi::CStr> = None;
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            mount(nothing, c"/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            mount(Some(folder.as_c_str()), at.as_c_str(), nothing, MsFlags::MS_BIND, nothing)?;
            Ok(())
        });
    }
    Ok(())
}

/// Lets a tool of the lab wait for everything else: on the guest's one CPU, a command line that starts up (a third of a second for
/// `swanctl`) must not keep a gateway from its hellos.
pub fn give_way(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure only makes one system call.
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, 10);
            Ok(())
        })
    }
}

/// A socket inside a namespace through which its devices can be switched from any thread, without delay.
pub struct LinkSwitch {
    socket: OwnedFd,
}

impl LinkSwitch {
    /// Opens the handle for `ns`.
    pub fn open(ns: &str) -> Result<Self> {
        in_ns(ns, || {
            // SAFETY: plain socket call; the returned descriptor is checked and owned at once.
            let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
            anyhow::ensure!(fd >= 0, "socket: {}", io::Error::last_os_error());
            // SAFETY: `fd` is a fresh descriptor that nobody else owns.
            Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(fd) } })
        })
    }

    /// Sets a device up or down (one ioctl).
    pub fn set_up(&self, device: &str, up: bool) -> Result<()> {
        let mut request = ifreq(device)?;
        let fd = self.socket.as_raw_fd();
        // SAFETY: `request` is a valid ifreq with a NUL-terminated name for both calls; flags is the member the ioctls use.
        unsafe {
            if libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) < 0 {
                return Err(io::Error::last_os_error()).with_context(|| format!("flags of {device}"));
            }
            let bit = libc::IFF_UP as i16;
            let flags = request.ifr_ifru.ifru_flags;
            request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
            if libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw mut request) < 0 {
                return Err(io::Error::last_os_error()).with_context(|| format!("set flags of {device}"));
            }
        }
        Ok(())
    }

    /// Name of a device by index, in this namespace.
    pub fn name_of(&self, ifindex: i32) -> Option<String> {
        let mut request = ifreq("").ok()?;
        request.ifr_ifru.ifru_ifindex = ifindex;
        // SAFETY: `request` is a valid ifreq; the kernel writes a NUL-terminated name into it.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) } < 0 {
            return None;
        }
        let bytes: Vec<u8> = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).collect();
        String::from_utf8(bytes).ok()
    }

    /// Hardware address of a device.
    pub fn mac_of(&self, device: &str) -> Result<[u8; 6]> {
        let mut request = ifreq(device)?;
        // SAFETY: `request` is a valid ifreq; the kernel fills the hwaddr member.
        let data = unsafe {
            if libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) < 0 {
                return Err(io::Error::last_os_error()).with_context(|| format!("hardware address of {device}"));
            }
            request.ifr_ifru.ifru_hwaddr.sa_data
        };
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(data) {
            *to = from.cast_unsigned();
        }
        Ok(mac)
    }

    /// Turns checksum and segmentation offloads off, so that the captures hold what a real wire would.
    pub fn no_offloads(&self, device: &str) -> Result<()> {
        #[repr(C)]
        struct EthtoolValue {
            cmd: u32,
            data: u32,
        }
        for cmd in [ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO] {
            let mut value = EthtoolValue { cmd, data: 0 };
            let mut request = ifreq(device)?;
            request.ifr_ifru.ifru_data = (&raw mut value).cast();
            // SAFETY: `request` points at `value`, which outlives the call and has the layout of struct ethtool_value.
            if unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } < 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
                    return Err(error).with_context(|| format!("offload {cmd:#x} of {device}"));
                }
            }
        }
        Ok(())
    }
}

fn ifreq(device: &str) -> Result<libc::ifreq> {
    anyhow::ensure!(device.len() < libc::IFNAMSIZ, "device name {device} is too long");
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// One received datagram or frame.
pub struct Received<'a> {
    /// Bytes (cut at the batch's buffer size).
    pub bytes: &'a [u8],
    /// Kernel's receive timestamp, ns since 1970.
    pub at_ns: u64,
    /// Device it came in on (packet sockets only).
    pub ifindex: i32,
}

/// Receives in batches with kernel timestamps.
pub struct BatchReceiver {
    fd: OwnedFd,
    buffers: Vec<Box<[u8]>>,
    names: Vec<libc::sockaddr_ll>,
    controls: Vec<[u64; 8]>,
}

impl BatchReceiver {
    /// Takes over a bound socket: asks for ns timestamps and a large buffer, and limits each wait to 100 ms.
    pub fn new(fd: OwnedFd, batch: usize, size: usize) -> Result<Self> {
        set_option(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        // The privileged form ignores rmem_max; a user namespace may refuse it, then the plain form has to do.
        if set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 128 << 20).is_err() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 8 << 20)?;
        }
        let timeout = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        // SAFETY: pointer and length describe `timeout`, which lives through the call.
        let rc = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
        anyhow::ensure!(rc == 0, "SO_RCVTIMEO: {}", io::Error::last_os_error());
        // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
        let zero: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        Ok(Self {
            fd,
            buffers: (0..batch).map(|_| vec![0; size].into_boxed_slice()).collect(),
            names: vec![zero; batch],
            controls: vec![[0; 8]; batch],
        })
    }

    /// A packet socket in the calling thread's namespace that sees every frame *entering* any device.
    pub fn packet(batch: usize, size: usize) -> Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain socket call; the descriptor is checked and owned at once.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
        anyhow::ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: `fd` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        Self::new(fd, batch, size)
    }

    /// Waits up to 100 ms and hands every datagram that is there to `each`; answers how many there were.
    pub fn receive(&mut self, mut each: impl FnMut(Received<'_>)) -> io::Result<usize> {
        let batch = self.buffers.len();
        let mut vectors: Vec<libc::iovec> =
            self.buffers.iter_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() }).collect();
        let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(batch);
        for ((vector, name), control) in vectors.iter_mut().zip(self.names.iter_mut()).zip(self.controls.iter_mut()) {
            // SAFETY: mmsghdr is plain data for which all zeroes is a valid value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<[u64; 8]>() as _;
            headers.push(header);
        }
        // SAFETY: every header points at buffers of `self` that outlive the call, with their true lengths.
        let count = unsafe {
            libc::recvmmsg(self.fd.as_raw_fd(), headers.as_mut_ptr(), batch as u32, libc::MSG_WAITFORONE as _, std::ptr::null_mut())
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::TimedOut => Ok(0),
                // A receiver on a device that goes down hears of it once; the next frames still come.
                _ if error.raw_os_error() == Some(libc::ENETDOWN) || error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(0),
                _ => Err(error),
            };
        }
        let count = count.unsigned_abs() as usize;
        for (i, header) in headers.iter().take(count).enumerate() {
            let at_ns = timestamp(&header.msg_hdr).unwrap_or_else(now_ns);
            let len = (header.msg_len as usize).min(self.buffers[i].len());
            each(Received { bytes: &self.buffers[i][..len], at_ns, ifindex: self.names[i].sll_ifindex });
        }
        Ok(count)
    }

    /// Frames the kernel dropped for want of buffer since the last call (packet sockets only).
    pub fn dropped(&self) -> Result<u32> {
        let mut stats = [0_u32; 2];
        let mut len = size_of::<[u32; 2]>() as u32;
        // SAFETY: `stats` has the layout of struct tpacket_stats and `len` its size.
        let rc =
            unsafe { libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, PACKET_STATISTICS, stats.as_mut_ptr().cast(), &raw mut len) };
        anyhow::ensure!(rc == 0, "PACKET_STATISTICS: {}", io::Error::last_os_error());
        Ok(stats[1])
    }
}

fn timestamp(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel filled the control buffer `header` points at; the CMSG macros stay inside it, and the timespec is read unaligned.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            if (*cmsg).cmsg_level == libc::SOL_SOCKET && (*cmsg).cmsg_type == libc::SCM_TIMESTAMPNS {
                let ts: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(cmsg).cast());
                return Some(ts.tv_sec.cast_unsigned() * 1_000_000_000 + ts.tv_nsec.cast_unsigned());
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    None
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: pointer and length describe `value`, which lives through the call.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
    anyhow::ensure!(rc == 0, "socket option {level}/{name}: {}", io::Error::last_os_error());
    Ok(())
}

/// Sends one raw Ethernet frame out of `device` of the namespace `ns`.
pub fn inject(ns: &str, device: &str, frame: &[u8]) -> Result<()> {
    in_ns(ns, || {
        let index = nix::net::if_::if_nametoindex(device).with_context(|| device.to_owned())?;
        // SAFETY: plain socket call; the descriptor is checked and owned at once.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        anyhow::ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: `fd` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index.cast_signed();
        // SAFETY: frame and address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        anyhow::ensure!(sent == frame.len() as isize, "inject: {}", io::Error::last_os_error());
        Ok(())
    })
}

/// A UDP socket bound to `local` inside `ns`.
pub fn udp_in(ns: &str, local: SocketAddrV4) -> Result<std::net::UdpSocket> {
    in_ns(ns, || std::net::UdpSocket::bind(local).with_context(|| format!("bind {local} in {ns}")))
}

/// Kills a process group with SIGKILL; an absent one is fine.
pub fn kill_group(pid: u32) {
    let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
}

/// First address of an IPv4 network given as `a.b.c.d/len`, and its mask.
pub fn network(text: &str) -> Option<(u32, u32)> {
    let (address, len) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let len: u32 = len.parse().ok().filter(|l| *l <= 32)?;
    let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
    Some((u32::from(address) & mask, mask))
}
