//! Network namespaces, packets and a wire tap for the tests of the netlink adapters.

use gateway_user::crypto::{CipherAlg, IntegAlg, Secret};
use gateway_user::id::{IkeVersion, Spi};
use gateway_user::netlink::xfrm::XfrmEvents;
use gateway_user::ports::{Direction, FlowPolicy, SaInstall, SaUsed, XfrmEvent};
use gateway_user::sad::{ChildSa, Encap, EspKeys, Lifetime, Mode, Selector};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The tests share the kernel: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// `None`, after one line that the test harness does not swallow, where the lab was not asked for. With `GATEWAY_LAB=1` the test
/// runs, and a kernel without ESP makes it fail.
pub fn enter() -> Option<MutexGuard<'static, ()>> {
    if std::env::var_os("GATEWAY_LAB").is_some_and(|v| v == "1") {
        return Some(TURN.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let name = std::thread::current().name().unwrap_or("test").to_string();
    let _ = writeln!(std::io::stderr(), "NOT RUN {name}: needs root and a kernel with ESP; set GATEWAY_LAB=1 in the guest");
    None
}

pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().expect("a command")).args(words).status().expect("start");
    assert!(status.success(), "{line}: {status}");
}

pub fn output(line: &str) -> String {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().expect("a command")).args(words).output().expect("start");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Two namespaces with a veth between: `{prefix}a` with 192.0.2.1 and 10.1.0.1, `{prefix}b` with 192.0.2.2 and 10.2.0.1; the
/// devices are named like their namespaces.
pub struct Lab {
    pub a: String,
    pub b: String,
}

impl Lab {
    pub fn new(prefix: &str) -> Self {
        let lab = Self { a: format!("{prefix}a"), b: format!("{prefix}b") };
        for ns in [&lab.a, &lab.b] {
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
            run(&format!("ip netns add {ns}"));
        }
        run(&format!("ip link add {0} netns {0} type veth peer name {1} netns {1}", lab.a, lab.b));
        for (ns, outer, inner, other, via) in
            [(&lab.a, "192.0.2.1", "10.1.0.1", "10.2.0.0/16", "192.0.2.2"), (&lab.b, "192.0.2.2", "10.2.0.1", "10.1.0.0/16", "192.0.2.1")]
        {
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} link set {ns} up"));
            run(&format!("ip -n {ns} addr add {outer}/24 dev {ns}"));
            run(&format!("ip -n {ns} addr add {inner}/32 dev lo"));
            run(&format!("ip -n {ns} route add {other} via {via} src {inner}"));
        }
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
        }
    }
}

/// Runs `f` on a thread inside a namespace; what it opens stays there.
pub fn within<T: Send>(ns: &str, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let handle = File::open(format!("/run/netns/{ns}")).expect("the namespace");
            setns(handle, CloneFlags::CLONE_NEWNET).expect("setns");
            f()
        });
        match inside.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

/// Sets a pair's transform, with keys that fit it.
pub fn with_transform(c: ChildSa, encr: CipherAlg, integ: Option<IntegAlg>) -> ChildSa {
    let key = |len: usize, seed: u8| Secret::new((0..len).map(|i| (i as u8).wrapping_mul(37) ^ seed).collect());
    let keys = |seed| EspKeys { encr: key(encr.keymat_len(), seed), integ: key(integ.map_or(0, IntegAlg::key_len), seed) };
    ChildSa { encr, integ, keys_in: keys(0x11), keys_out: keys(0x77), ..c }
}

/// The pair of `a`; [`mirror`] gives that of `b`.
pub fn child() -> ChildSa {
    let keys = |n: u8| EspKeys { encr: Secret::new((n..n + 16).collect()), integ: Secret::new((n..n + 32).collect()) };
    ChildSa {
        spi_in: Spi(0x8001_0001),
        spi_out: Spi(0x9002_0002),
        isakmp: Default::default(),
        map: "VPN".into(),
        map_seq: 10,
        ace: 0,
        digest: Default::default(),
        local: v4("192.0.2.1").into(),
        peer: v4("192.0.2.2").into(),
        ts_local: Selector::net4(v4("10.1.0.0"), 16),
        ts_remote: Selector::net4(v4("10.2.0.0"), 16),
        mode: Mode::Tunnel,
        encr: CipherAlg::Aes128,
        integ: Some(IntegAlg::HmacSha256),
        keys_in: keys(1),
        keys_out: keys(101),
        pfs: None,
        lifetime: Lifetime { seconds: 3600, kilobytes: 0 },
        soft: Lifetime { seconds: 3000, kilobytes: 0 },
        replay_window: 1024,
        initiator: true,
        version: IkeVersion::V1,
        esn: false,
        encap: None,
    }
}

pub fn mirror(c: &ChildSa) -> ChildSa {
    let c = c.clone();
    ChildSa {
        spi_in: c.spi_out,
        spi_out: c.spi_in,
        local: c.peer,
        peer: c.local,
        ts_local: c.ts_remote,
        ts_remote: c.ts_local,
        keys_in: c.keys_out,
        keys_out: c.keys_in,
        encap: c.encap.map(|e| Encap { local_port: e.peer_port, peer_port: e.local_port }),
        ..c
    }
}

pub const REQID: u32 = 0x5bd1_e995;

pub fn flow(c: &ChildSa) -> FlowPolicy {
    FlowPolicy {
        local: c.ts_local,
        remote: c.ts_remote,
        tunnel_local: c.local,
        tunnel_peer: c.peer,
        reqid: REQID,
        priority: 100,
        mode: c.mode,
    }
}

pub fn half(c: &ChildSa, direction: Direction) -> SaInstall<'_> {
    SaInstall {
        child: c,
        direction,
        reqid: REQID,
        replay: 0,
        used: SaUsed::default(),
        event_packets: 32,
        event_time: Duration::from_millis(500),
    }
}

pub fn both(c: &ChildSa) -> [SaInstall<'_>; 2] {
    [half(c, Direction::In), half(c, Direction::Out)]
}

/// Fails with the first error.
pub fn all_ok<E: std::fmt::Debug>(results: Vec<Result<(), E>>) {
    let failed: Vec<_> = results.into_iter().enumerate().filter_map(|(i, r)| r.err().map(|e| (i, e))).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A UDP socket bound inside a namespace.
pub fn udp(ns: &str, addr: &str) -> UdpSocket {
    let socket = within(ns, || UdpSocket::bind(addr).expect("bind"));
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    socket
}

/// Sends `count` datagrams and counts those that arrive.
pub fn exchange(from: &UdpSocket, to: &UdpSocket, count: usize) -> usize {
    let target = to.local_addr().expect("address");
    let mut arrived = 0;
    let mut buffer = [0; 2048];
    for i in 0..count {
        // Refused by policy is an error of the call; a dropped packet is none.
        let _ = from.send_to(&[i as u8; 100], target);
    }
    while arrived < count {
        match to.recv(&mut buffer) {
            Ok(_) => arrived += 1,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("recv: {e}"),
        }
    }
    arrived
}

/// Sees every frame of a device.
pub struct Tap(OwnedFd);

/// A frame: source and destination MAC, EtherType, IP protocol (0 without IP), whole.
pub struct Frame {
    pub src: [u8; 6],
    pub dst: [u8; 6],
    pub ethertype: u16,
    pub proto: u8,
    pub bytes: Vec<u8>,
}

impl Tap {
    pub fn open(ns: &str, device: &str) -> Self {
        within(ns, || {
            let protocol = (libc::ETH_P_ALL as u16).to_be();
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: plain call without pointers.
            let raw = unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) };
            assert!(raw >= 0, "AF_PACKET: {}", std::io::Error::last_os_error());
            // SAFETY: just opened, not owned elsewhere.
            let fd = unsafe { OwnedFd::from_raw_fd(raw) };
            let index = nix::net::if_::if_nametoindex(device).expect("device");
            // SAFETY: all zero is a valid `sockaddr_ll`.
            let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_protocol = protocol;
            to.sll_ifindex = index as i32;
            // SAFETY: `to` outlives the call and the length is its own.
            let rc = unsafe { libc::bind(fd.as_raw_fd(), (&raw const to).cast(), size_of_val(&to) as u32) };
            assert_eq!(rc, 0, "bind: {}", std::io::Error::last_os_error());
            Self(fd)
        })
    }

    /// What came since the last call.
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(n) = nix::unistd::read(&self.0, &mut buffer) {
            let bytes = buffer[..n].to_vec();
            let mac = |at: usize| bytes[at..at + 6].try_into().expect("six bytes");
            let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
            let proto = if ethertype == 0x0800 { bytes[23] } else { 0 };
            frames.push(Frame { src: mac(6), dst: mac(0), ethertype, proto, bytes });
        }
        frames
    }

    /// (ESP, UDP) frames since the last call.
    pub fn esp_and_clear(&self) -> (usize, usize) {
        let frames = self.frames();
        let count = |proto| frames.iter().filter(|f| f.proto == proto).count();
        (count(50), count(17))
    }
}

/// Event reader with a runtime of its own.
pub struct Events {
    runtime: tokio::runtime::Runtime,
    events: XfrmEvents,
}

impl Events {
    pub fn open(ns: &str) -> Self {
        within(ns, || {
            let runtime = runtime();
            let events = runtime.block_on(async { XfrmEvents::open() }).expect("events");
            Self { runtime, events }
        })
    }

    /// Everything until nothing came for `quiet`.
    pub fn drain(&mut self, quiet: Duration) -> Vec<XfrmEvent> {
        let mut all = Vec::new();
        while let Ok(got) = self.runtime.block_on(async { tokio::time::timeout(quiet, self.events.recv()).await }) {
            all.extend(got.expect("recv"));
        }
        all
    }

    /// Reads until one fits or the time is over.
    pub fn wait(&mut self, limit: Duration, fits: impl Fn(&XfrmEvent) -> bool) -> Option<XfrmEvent> {
        let end = Instant::now() + limit;
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let got = self.runtime.block_on(async { tokio::time::timeout(left, self.events.recv()).await }).ok()?;
            if let Some(event) = got.expect("recv").into_iter().find(|e| fits(e)) {
                return Some(event);
            }
        }
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

pub fn ip(text: &str) -> IpAddr {
    v4(text).into()
}
