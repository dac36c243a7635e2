//! The remote peer: an implementation that is not ours, in a namespace, and what its daemon and its kernel say about the tunnel.

mod connection;
mod libreswan;
mod strongswan;

pub use connection::{Auth, Child, Connection, DPD_DELAY_S, Settings, Version};
pub use libreswan::Libreswan;
pub use strongswan::StrongSwan;

use super::sys;
use super::topology::ip_batch;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Which implementation the remote peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Implementation {
    /// Debian's strongSwan.
    StrongSwan,
    /// Debian's libreswan.
    Libreswan,
}

impl Implementation {
    /// Name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StrongSwan => "strongswan",
            Self::Libreswan => "libreswan",
        }
    }
}

/// A remote peer's daemon, whichever it is.
pub trait Remote {
    /// Name of the implementation.
    fn name(&self) -> &'static str;
    /// Starts a child's tunnel from here; answers when it is up.
    fn initiate(&self, child: &str) -> Result<()>;
    /// Starts a child's tunnel from here and does not wait.
    fn begin(&self, child: &str) -> Result<()>;
    /// Rekeys a child SA from here.
    fn rekey_child(&self, child: &str) -> Result<()>;
    /// Rekeys the ISAKMP or IKE SA a child stands under (in IKEv1 a new main mode that takes the children over).
    fn rekey_ike(&self, child: &str) -> Result<()>;
    /// True when [`Self::rekey_ike`] can be asked for this child's SA.
    fn forces_ike_rekeys(&self, child: &str) -> bool;
    /// Deletes a child SA.
    fn close_child(&self, child: &str) -> Result<()>;
    /// Deletes everything there is.
    fn close(&self) -> Result<()>;
    /// Its own tool, with these words.
    fn tool(&self, words: &[&str]) -> Result<String>;
    /// SIGKILL, and its kernel loses what it held, as when the machine loses its power.
    fn crash(&mut self) -> Result<()>;
    /// Starts the daemon again after [`Self::crash`].
    fn revive(&mut self) -> Result<()>;
    /// Length of the log: a mark for [`Self::log_since`].
    fn mark(&self) -> u64;
    /// Log lines after a mark.
    fn log_since(&self, mark: u64) -> Vec<String>;
    /// ISAKMP or IKE SAs established after a mark.
    fn established_since(&self, mark: u64) -> usize;
    /// INITIAL-CONTACT notifications received after a mark.
    fn initial_contacts_since(&self, mark: u64) -> usize;
    /// ISAKMP or IKE SAs it holds now.
    fn ike_sas(&self) -> Result<usize>;
    /// SAs of its kernel.
    fn sas(&self) -> Result<KernelSas>;
}

/// Starts a peer of an implementation; `libreswan` is where that package was unpacked.
pub fn start(kind: Implementation, settings: Settings, libreswan: Option<&Path>, dir: &Path) -> Result<Box<dyn Remote>> {
    Ok(match kind {
        Implementation::StrongSwan => Box::new(StrongSwan::start(settings, dir)?),
        Implementation::Libreswan => {
            let root = libreswan.context("the folder of the unpacked libreswan is not given (--libreswan)")?;
            Box::new(Libreswan::start(settings, root, dir)?)
        }
    })
}

fn log_lines(log: &Path, mark: u64) -> Vec<String> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(mark).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(&bytes[from..]).lines().map(str::to_owned).collect()
}

/// SAs and policies of a namespace are gone.
pub fn forget_kernel(ns: &str) -> Result<()> {
    ip_batch(Some(ns), "xfrm state flush\nxfrm policy flush\n")
}

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
    pub(super) const fn ike(self) -> &'static str {
        match self {
            Self::Default => "aes256-sha256-modp2048",
            Self::Guide => "3des-sha1-modp1024",
        }
    }
    pub(super) const fn esp(self) -> &'static str {
        match self {
            Self::Default => "aes256-sha256",
            Self::Guide => "3des-sha1",
        }
    }
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
