//! The remote peer: Debian's strongSwan in a namespace, and what its daemon and its kernel say about the tunnel.

use super::sys;
use super::topology::{PEER, PEER_IKE, PROTECTED, VIP_OUT, ip_output};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Debian's place of charon-systemd.
const CHARON: &str = "/usr/sbin/charon-systemd";
const SWANCTL: &str = "/usr/sbin/swanctl";
/// Seconds of silence after which the peer asks whether we live. Any message resets the clock, so the other end has to be slower.
pub const DPD_DELAY_S: u64 = 2;

/// Algorithms of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// AES-256, SHA-256, group 14.
    Default,
    /// The guide's 3DES, SHA-1, group 2.
    Guide,
}

impl Suite {
    /// Name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Guide => "guide",
        }
    }
    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Default => "AES-256/SHA-256/group 14",
            Self::Guide => "3DES/SHA-1/group 2",
        }
    }
    const fn ike(self) -> &'static str {
        match self {
            Self::Default => "aes256-sha256-modp2048",
            Self::Guide => "3des-sha1-modp1024",
        }
    }
    const fn esp(self) -> &'static str {
        match self {
            Self::Default => "aes256-sha256",
            Self::Guide => "3des-sha1",
        }
    }
}

/// One strongSwan, running.
pub struct StrongSwan {
    ns: &'static str,
    child: Child,
    /// Our copy of swanctl.
    tool: PathBuf,
    log: PathBuf,
    uri: String,
}

/// One SA of a kernel, as `ip -s xfrm state` prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelSa {
    /// Source.
    pub src: String,
    /// Destination.
    pub dst: String,
    /// Time of its making; the same text as long as it is the same SA.
    pub added: String,
    /// Packets so far.
    pub packets: u64,
}

/// SAs by SPI.
pub type KernelSas = BTreeMap<u32, KernelSa>;

/// What a strongSwan needs to know.
pub struct Settings<'a> {
    /// Namespace.
    pub ns: &'static str,
    /// Its tunnel end.
    pub local: Ipv4Addr,
    /// The other tunnel end.
    pub remote: Ipv4Addr,
    /// Networks: its own, the other's.
    pub selectors: (&'a str, &'a str),
    /// Algorithms.
    pub suite: Suite,
    /// Pre-shared key.
    pub psk: &'a str,
    /// Silence before it asks whether the other end lives, seconds.
    pub dpd_delay_s: u64,
}

impl Settings<'_> {
    /// The lab's remote peer.
    pub fn peer(suite: Suite, psk: &str) -> Settings<'_> {
        Settings { ns: PEER, local: PEER_IKE, remote: VIP_OUT, selectors: (PROTECTED, "0.0.0.0/0"), suite, psk, dpd_delay_s: DPD_DELAY_S }
    }
}

impl StrongSwan {
    /// Starts charon in its namespace and loads the connection; files go to `dir`, the control socket to `/run`.
    pub fn start(settings: &Settings<'_>, dir: &Path) -> Result<Self> {
        let name = settings.ns;
        ensure!(Path::new(CHARON).exists(), "{CHARON} is missing: apt-get install charon-systemd strongswan-swanctl");
        let socket = format!("/run/{name}.vici");
        let _ = std::fs::remove_file(&socket);
        let (conf, swan, log) =
            (dir.join(format!("{name}.conf")), dir.join(format!("{name}.swanctl.conf")), dir.join(format!("{name}.charon.log")));
        // Debian's AppArmor profile, which goes by path, lets swanctl read its own folder only: a copy may read ours.
        let tool = dir.join("swanctl");
        std::fs::copy(SWANCTL, &tool).context(SWANCTL)?;
        std::fs::write(&conf, strongswan_conf(&socket, &log))?;
        std::fs::write(&swan, swanctl_conf(settings))?;
        let output = std::fs::File::create(dir.join(format!("{name}.charon.out")))?;
        let child = sys::command_in(settings.ns, CHARON)?
            .env("STRONGSWAN_CONF", &conf)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context(CHARON)?;
        let mut swan_daemon = Self { ns: settings.ns, child, tool, log, uri: format!("unix://{socket}") };
        let end = Instant::now() + Duration::from_secs(15);
        while !Path::new(&socket).exists() {
            ensure!(
                swan_daemon.child.try_wait()?.is_none() && Instant::now() < end,
                "charon in {name} did not start: see {}",
                dir.display()
            );
            sys::sleep_ms(50);
        }
        let swan = swan.to_str().context("path is not UTF-8")?.to_owned();
        let mut last = None;
        while Instant::now() < end {
            match swan_daemon.swanctl(&["--load-all", "--file", &swan]) {
                Ok(_) => return Ok(swan_daemon),
                Err(error) => last = Some(error),
            }
            sys::sleep_ms(200);
        }
        bail!("swanctl --load-all in {name}: {:#}", last.unwrap_or_else(|| anyhow::anyhow!("no time left")))
    }

    /// Runs swanctl against this daemon; output on success.
    pub fn swanctl(&self, args: &[&str]) -> Result<String> {
        let out = sys::give_way(&mut sys::command_in(self.ns, &self.tool)?)
            .args(args)
            .args(["--uri", &self.uri])
            .stdin(Stdio::null())
            .output()
            .context("swanctl")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "swanctl {}: {} {}", args.join(" "), text.trim(), String::from_utf8_lossy(&out.stderr).trim());
        Ok(text)
    }

    /// Starts the tunnel from here.
    pub fn initiate(&self) -> Result<()> {
        self.swanctl(&["--initiate", "--child", "net", "--timeout", "20"]).map(drop)
    }

    /// Rekeys the child SA from here.
    pub fn rekey_child(&self) -> Result<()> {
        self.swanctl(&["--rekey", "--child", "net"]).map(drop)
    }

    /// Rekeys the ISAKMP SA from here (in IKEv1 a new main mode that takes the children over).
    pub fn rekey_ike(&self) -> Result<()> {
        self.swanctl(&["--rekey", "--ike", "gw"]).map(drop)
    }

    /// Length of the log: a mark for [`Self::log_since`].
    pub fn mark(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |m| m.len())
    }

    /// Log lines after a mark.
    pub fn log_since(&self, mark: u64) -> Vec<String> {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(mark).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).lines().map(str::to_owned).collect()
    }

    /// SAs of its kernel.
    pub fn sas(&self) -> Result<KernelSas> {
        Ok(parse_states(&ip_output(self.ns, &["-s", "xfrm", "state"])?))
    }
}

impl Drop for StrongSwan {
    fn drop(&mut self) {
        sys::kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

fn strongswan_conf(socket: &str, log: &Path) -> String {
    format!(
        "charon-systemd {{\n\
         \x20 load = random nonce openssl hmac kdf kernel-netlink socket-default vici\n\
         \x20 install_routes = no\n\
         \x20 plugins {{ vici {{ socket = unix://{socket} }} }}\n\
         \x20 start-scripts {{ }}\n\
         \x20 journal {{ default = -1 }}\n\
         \x20 syslog {{ daemon {{ default = -1 }} auth {{ default = -1 }} }}\n\
         \x20 filelog {{ lab {{\n\
         \x20   path = {}\n\
         \x20   append = no\n\
         \x20   flush_line = yes\n\
         \x20   time_format = %s\n\
         \x20   time_add_ms = yes\n\
         \x20   default = 1\n\
         \x20   ike = 2\n\
         \x20   enc = 1\n\
         \x20 }} }}\n\
         }}\n",
        log.display()
    )
}

fn swanctl_conf(s: &Settings<'_>) -> String {
    let mut text = String::new();
    let (own, other) = s.selectors;
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "connections {{\n  gw {{\n    version = 1\n    local_addrs = {local}\n    remote_addrs = {remote}\n    proposals = {ike}\n\
         \x20   dpd_delay = {dpd}s\n\
         \x20   local {{\n      auth = psk\n      id = {local}\n    }}\n    remote {{\n      auth = psk\n      id = {remote}\n    }}\n\
         \x20   children {{\n      net {{\n        local_ts = {own}\n        remote_ts = {other}\n        esp_proposals = {esp}\n        mode = tunnel\n      }}\n    }}\n  }}\n",
        local = s.local,
        remote = s.remote,
        ike = s.suite.ike(),
        dpd = s.dpd_delay_s,
        esp = s.suite.esp(),
    );
    if own == PROTECTED {
        // The tunnel takes everything of this network: what stays on its own LAN must not.
        let _ = write!(
            text,
            "  lan {{\n    children {{\n      lan {{\n        local_ts = {own}\n        remote_ts = {own}\n        mode = pass\n        start_action = trap\n      }}\n    }}\n  }}\n"
        );
    }
    let _ = write!(
        text,
        "}}\nsecrets {{\n  ike-gw {{\n    id-1 = {}\n    id-2 = {}\n    secret = \"{}\"\n  }}\n}}\n",
        s.local, s.remote, s.psk
    );
    text
}

/// Reads the output of `ip -s xfrm state`; entries without SPI of their own (larval) are left out.
pub fn parse_states(text: &str) -> KernelSas {
    let mut sas = KernelSas::new();
    let (mut src, mut dst) = (String::new(), String::new());
    let mut spi = None;
    let mut packets = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["src", s, "dst", d, ..] if !line.starts_with(char::is_whitespace) => {
                (src, dst) = ((*s).to_owned(), (*d).to_owned());
                (spi, packets) = (None, None);
            }
            ["proto", "esp", "spi", number, ..] => {
                spi = number.split('(').next().and_then(|n| u32::from_str_radix(n.trim_start_matches("0x"), 16).ok()).filter(|n| *n != 0);
            }
            [_, count] if count.ends_with("(packets)") => packets = count.trim_end_matches("(packets)").parse().ok(),
            ["add", date, time, ..] => {
                if let (Some(spi), Some(packets)) = (spi, packets) {
                    let sa = KernelSa { src: src.clone(), dst: dst.clone(), added: format!("{date} {time}"), packets };
                    sas.entry(spi).or_insert(sa);
                }
            }
            _ => {}
        }
    }
    sas
}

/// Counters of `/proc/net/xfrm_stat` in a namespace.
pub fn xfrm_stat(ns: &str) -> Result<BTreeMap<String, u64>> {
    let text = sys::in_ns(ns, || {
        std::fs::read_to_string("/proc/thread-self/net/xfrm_stat").context("xfrm_stat: has this kernel XFRM statistics?")
    })?;
    Ok(parse_stat(&text))
}

fn parse_stat(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|l| l.split_once(char::is_whitespace))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

/// Inbound packets the peer refused between two readings, by counter (only those that rose).
pub fn refused(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after
        .iter()
        .filter(|(name, _)| name.starts_with("XfrmIn"))
        .map(|(name, value)| (name.clone(), value.saturating_sub(*before.get(name).unwrap_or(&0))))
        .filter(|(_, rise)| *rise > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: &str = "\
src 192.168.3.1 dst 40.0.0.1
\tproto esp spi 0xc0a1b2c3(3232871107) reqid 1(0x00000001) mode tunnel
\treplay-window 0 seq 0x00000000 flag af-unspec (0x00100000)
\tauth-trunc hmac(sha256) 0x00 (256 bits) 128
\tenc cbc(aes) 0x00 (256 bits)
\tanti-replay context: seq 0x0, oseq 0x2a, bitmap 0x00000000
\tlifetime config:
\t  limit: soft (INF)(bytes), hard (INF)(bytes)
\t  limit: soft (INF)(packets), hard (INF)(packets)
\t  expire add: soft 3322(sec), hard 3960(sec)
\t  expire use: soft 0(sec), hard 0(sec)
\tlifetime current:
\t  9840(bytes), 42(packets)
\t  add 2026-01-02 03:04:05 use 2026-01-02 03:04:06
\tstats:
\t  replay-window 0 replay 0 failed 0
src 40.0.0.1 dst 192.168.3.1
\tproto esp spi 0x00000000(0) reqid 1(0x00000001) mode tunnel
\tlifetime current:
\t  0(bytes), 0(packets)
\t  add 2026-01-02 03:04:05 use -
";

    #[test]
    fn states_give_spi_age_and_packets_and_skip_larval_ones() {
        let sas = parse_states(STATES);
        assert_eq!(sas.len(), 1);
        let sa = &sas[&0xc0a1_b2c3];
        assert_eq!((sa.dst.as_str(), sa.added.as_str(), sa.packets), ("40.0.0.1", "2026-01-02 03:04:05", 42));
    }

    #[test]
    fn only_inbound_counters_that_rose_are_refusals() {
        let before = parse_stat("XfrmInError             \t3\nXfrmInStateSeqError     \t0\nXfrmOutNoStates \t1\n");
        let after = parse_stat("XfrmInError             \t3\nXfrmInStateSeqError     \t5\nXfrmOutNoStates \t9\n");
        let refused = refused(&before, &after);
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), [("XfrmInStateSeqError".to_owned(), 5)]);
    }
}
