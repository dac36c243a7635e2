//! A LAN of namespaces: gateway, partner and peer on a bridge.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a frame that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// Namespaces `PREFIX-PID-{gw,peer,partner,lan}`; removed when dropped.
pub struct Lab {
    prefix: String,
}

/// Puts the thread back into its namespace.
pub struct Inside(File);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = setns(&self.0, CloneFlags::CLONE_NEWNET);
    }
}

impl Lab {
    /// Builds it. `gw`: out0 on the LAN, in0 on a second one; `peer`: peer0; `partner`: par0.
    pub fn new(prefix: &str) -> Self {
        let lab = Self { prefix: format!("{prefix}-{}", std::process::id()) };
        for ns in ["gw", "peer", "partner", "lan"] {
            tool("ip", &["netns", "add", &lab.name(ns)]);
        }
        let lan = lab.name("lan");
        tool("ip", &["-n", &lan, "link", "add", "br0", "type", "bridge", "stp_state", "0"]);
        tool("ip", &["-n", &lan, "link", "set", "br0", "up"]);
        for (ns, device, mac) in [
            ("gw", "out0", "02:00:00:00:00:aa"),
            ("gw", "in0", "02:00:00:00:01:aa"),
            ("peer", "peer0", "02:00:00:00:00:cc"),
            ("partner", "par0", "02:00:00:00:00:bb"),
        ] {
            let port = format!("p{device}");
            let there = lab.name(ns);
            tool("ip", &["-n", &lan, "link", "add", &port, "type", "veth", "peer", "name", device, "netns", &there]);
            tool("ip", &["-n", &there, "link", "set", device, "address", mac]);
            tool("ip", &["-n", &there, "link", "set", device, "up"]);
            if device != "in0" {
                tool("ip", &["-n", &lan, "link", "set", &port, "master", "br0"]);
            }
            tool("ip", &["-n", &lan, "link", "set", &port, "up"]);
        }
        lab
    }

    /// Name of a namespace.
    pub fn name(&self, ns: &str) -> String {
        format!("{}-{ns}", self.prefix)
    }

    /// Moves this thread into a namespace until the guard is dropped.
    pub fn enter(&self, ns: &str) -> Inside {
        let back = Inside(File::open("/proc/thread-self/ns/net").unwrap());
        let there = File::open(format!("/run/netns/{}", self.name(ns))).unwrap();
        setns(&there, CloneFlags::CLONE_NEWNET).unwrap();
        back
    }

    /// Where this lab's maps are pinned.
    pub fn pin_dir(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(&self.prefix)
    }

    /// MAC of the partner's par0.
    pub fn partner_mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 0xbb]
    }

    /// MAC of the gateway's out0.
    pub fn own_mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 0xaa]
    }

    /// Sends a frame out of a device.
    pub fn send(&self, ns: &str, device: &str, frame: &[u8]) {
        let _inside = self.enter(ns);
        let socket = packet_socket(device);
        // SAFETY: the buffer lives through the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        // A frame that the guard drops is answered ENOBUFS.
        if sent < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{device}: {error}");
        }
    }

    /// Watches a device.
    pub fn sniff(&self, ns: &str, device: &str) -> Sniffer {
        let _inside = self.enter(ns);
        Sniffer::open(device)
    }

    /// Waits until something is true; fails when it does not come.
    #[track_caller]
    pub fn wait(&self, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < end, "did not happen within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Our tc filters on one side of a device in `gw`.
    pub fn filters(&self, device: &str, side: &str) -> usize {
        tool("tc", &["-n", &self.name("gw"), "filter", "show", "dev", device, side]).matches("handle 0x1 ").count()
    }

    /// True when a device in `gw` has any XDP program.
    pub fn has_xdp(&self, device: &str) -> bool {
        tool("ip", &["-n", &self.name("gw"), "-d", "link", "show", device]).contains("prog/xdp")
    }

    /// An XDP program of somebody else on a device of this thread's namespace; gone when dropped.
    pub fn foreign_xdp(&self, device: &str, native: bool) -> aya::Ebpf {
        let mut ebpf = aya::EbpfLoader::new().load(gateway_user::dataplane::OBJECT).unwrap();
        let program: &mut aya::programs::Xdp = ebpf.program_mut("classify").unwrap().try_into().unwrap();
        program.load().unwrap();
        let mode = if native { aya::programs::XdpMode::Driver } else { aya::programs::XdpMode::Skb };
        program.attach(device, mode).unwrap();
        ebpf
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in ["gw", "peer", "partner", "lan"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(ns)]).status();
        }
        if let Ok(pins) = std::fs::read_dir(self.pin_dir()) {
            for pin in pins.flatten() {
                let _ = std::fs::remove_file(pin.path());
            }
            let _ = std::fs::remove_dir(self.pin_dir());
        }
    }
}

/// Every frame on a device, both directions; XDP's drops are not seen, tc's are (taps come between the two).
pub struct Sniffer(OwnedFd);

impl Sniffer {
    /// On a device of this thread's namespace.
    pub fn open(device: &str) -> Self {
        Self(packet_socket(device))
    }

    /// True when the frame comes, or came since opening.
    pub fn saw(&mut self, frame: &[u8]) -> bool {
        let end = Instant::now() + SILENCE;
        let mut buffer = [0_u8; 2048];
        loop {
            // SAFETY: the buffer lives through the call.
            let n = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
            match usize::try_from(n) {
                Ok(n) if buffer[..n] == *frame => return true,
                Ok(_) => {}
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return false,
            }
        }
    }
}

fn packet_socket(device: &str) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain numbers; the descriptor is checked and owned below.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
    assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
    // SAFETY: a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid address structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = nix::net::if_::if_nametoindex(device).unwrap() as i32;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives through the call and has the length given.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
    assert_eq!(bound, 0, "{device}: {}", io::Error::last_os_error());
    socket
}

/// Runs a tool; answers its output, fails when it fails.
pub fn tool(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
