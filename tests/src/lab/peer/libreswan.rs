//! Debian's libreswan as the remote peer: pluto in a namespace, spoken to with whack.
//!
//! The package refuses to stand beside strongSwan, so it is unpacked (`xtask` does that) and its folder takes the place of `/usr/libexec` in the
//! daemon's own mount namespace: pluto knows one path for its helper.

use super::connection::{Auth, Settings, Version};
use super::{KernelSas, Remote, log_lines, parse_states};
use crate::lab::sys;
use crate::lab::topology::ip_output;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// pluto answers whack within this time after its start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A synchronous whack gives up after this many seconds.
const WHACK_LIMIT_S: u64 = 20;

/// One libreswan, running.
pub struct Libreswan {
    settings: Settings,
    /// Where the package was unpacked.
    root: PathBuf,
    dir: PathBuf,
    run: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Libreswan {
    /// Starts pluto, unpacked below `root`, in its namespace; files go to `dir`, the control socket to `/run`.
    pub fn start(settings: Settings, root: &Path, dir: &Path) -> Result<Self> {
        let name = settings.ns;
        ensure!(
            root.join("usr/libexec/ipsec/pluto").exists(),
            "libreswan is not unpacked in {}: `cargo xtask setup` fetches it",
            root.display()
        );
        let log = dir.join(format!("{name}.pluto.log"));
        let _ = std::fs::remove_file(&log);
        let mut libre = Self {
            root: root.to_owned(),
            dir: dir.to_owned(),
            run: PathBuf::from(format!("/run/{name}.pluto")),
            log,
            child: None,
            settings,
        };
        libre.launch()?;
        Ok(libre)
    }

    fn launch(&mut self) -> Result<()> {
        let name = self.settings.ns;
        let _ = std::fs::remove_dir_all(&self.run);
        std::fs::create_dir_all(self.run.join("ipsec.d"))?;
        let (conf, secrets, nss) = (self.dir.join(format!("{name}.ipsec.conf")), self.run.join("secrets"), self.run.join("nss"));
        std::fs::write(&conf, ipsec_conf(&self.settings))?;
        std::fs::write(&secrets, ipsec_secrets(&self.settings))?;
        self.nss(&nss)?;
        let output = std::fs::File::create(self.dir.join(format!("{name}.pluto.out")))?;
        let libexec = self.root.join("usr/libexec");
        let mut command = sys::command_in(name, "/usr/libexec/ipsec/pluto")?;
        sys::own_folder(&mut command, &libexec, "/usr/libexec")?;
        command.args(["--nofork", "--log-no-audit"]);
        for (option, path) in [
            ("--config", &conf),
            ("--secretsfile", &secrets),
            ("--nssdir", &nss),
            ("--ipsecdir", &self.run.join("ipsec.d")),
            ("--rundir", &self.run),
            ("--logfile", &self.log),
        ] {
            command.arg(option).arg(path);
        }
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn().context("pluto")?;
        let child = self.child.insert(child);
        let end = Instant::now() + START_LIMIT;
        let names: Vec<String> = self.settings.connections.iter().flat_map(|c| c.children.iter().map(|k| k.name.clone())).collect();
        let mut status = String::new();
        loop {
            ensure!(child.try_wait()?.is_none(), "pluto in {name} ended by itself: see {}", self.log.display());
            if Instant::now() > end {
                bail!("pluto in {name} is not ready: see {}\n{status}", self.log.display());
            }
            sys::sleep_ms(50);
            if !self.run.join("pluto.ctl").exists() {
                continue;
            }
            let Ok(text) = whack_in(name, &self.root, &self.run, &["--status"]) else { continue };
            // `addconn` loads the connections after the socket is there.
            if names.iter().all(|n| text.contains(&format!("\"{n}\":     oriented"))) {
                return Ok(());
            }
            status = text;
        }
    }

    /// The NSS data base with the certificates of the settings.
    fn nss(&self, nss: &Path) -> Result<()> {
        std::fs::create_dir_all(nss)?;
        let base = format!("sql:{}", nss.display());
        tool(Command::new("certutil").args(["-N", "--empty-password", "-d", &base]))?;
        for (n, c) in self.settings.connections.iter().enumerate() {
            let Auth::Certificate { ca, pkcs12, .. } = &c.auth else { continue };
            let (ca, pkcs12) = (ca.display().to_string(), pkcs12.display().to_string());
            tool(Command::new("certutil").args(["-A", "-d", &base, "-n", &format!("ca{n}"), "-t", "CT,,", "-a", "-i", &ca]))?;
            tool(Command::new("pk12util").args(["-i", &pkcs12, "-d", &base, "-W", "", "-K", ""]))?;
        }
        Ok(())
    }

    /// Runs whack against this daemon; output on success.
    pub fn whack(&self, args: &[&str]) -> Result<String> {
        whack_in(self.settings.ns, &self.root, &self.run, args)
    }

    fn version_of(&self, child: &str) -> Option<Version> {
        self.settings.connections.iter().find(|c| c.children.iter().any(|k| k.name == child)).map(|c| c.version)
    }

    fn children(&self) -> impl Iterator<Item = &str> {
        self.settings.connections.iter().flat_map(|c| c.children.iter().map(|k| k.name.as_str()))
    }
}

fn whack_in(ns: &str, root: &Path, run: &Path, args: &[&str]) -> Result<String> {
    let mut command = sys::command_in(ns, "/usr/bin/timeout")?;
    let out = sys::give_way(&mut command)
        .arg(WHACK_LIMIT_S.to_string())
        .arg(root.join("usr/libexec/ipsec/whack"))
        .arg("--ctlsocket")
        .arg(run.join("pluto.ctl"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("whack")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success(), "whack {}: {} {}", args.join(" "), text.trim(), String::from_utf8_lossy(&out.stderr).trim());
    Ok(text)
}

fn tool(command: &mut Command) -> Result<()> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("{} (package libnss3-tools)", command.get_program().display()))?;
    ensure!(out.status.success(), "{}: {}", command.get_program().display(), String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

impl Remote for Libreswan {
    fn name(&self) -> &'static str {
        "libreswan"
    }

    fn initiate(&self, child: &str) -> Result<()> {
        self.whack(&["--name", child, "--initiate"]).map(drop)
    }

    fn begin(&self, child: &str) -> Result<()> {
        self.whack(&["--name", child, "--initiate", "--asynchronous"]).map(drop)
    }

    fn rekey_child(&self, child: &str) -> Result<()> {
        // It refuses to force a rekey in IKEv1; a second quick mode under the same ISAKMP SA is the same on the wire.
        let order = if self.version_of(child) == Some(Version::V2) { "--rekey-ipsec" } else { "--initiate" };
        self.whack(&["--name", child, order, "--asynchronous"]).map(drop)
    }

    fn rekey_ike(&self, child: &str) -> Result<()> {
        ensure!(self.forces_ike_rekeys(child), "libreswan renews an ISAKMP SA of IKEv1 by its lifetime only");
        self.whack(&["--name", child, "--rekey-ike", "--asynchronous"]).map(drop)
    }

    fn forces_ike_rekeys(&self, child: &str) -> bool {
        self.version_of(child) == Some(Version::V2)
    }

    fn close_child(&self, child: &str) -> Result<()> {
        self.whack(&["--name", child, "--terminate"]).map(drop)
    }

    fn close(&self) -> Result<()> {
        for child in self.children() {
            let _ = self.whack(&["--name", child, "--terminate"]);
        }
        Ok(())
    }

    fn tool(&self, words: &[&str]) -> Result<String> {
        self.whack(words)
    }

    fn crash(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            sys::kill_group(child.id());
            child.wait()?;
        }
        super::forget_kernel(self.settings.ns)
    }

    fn revive(&mut self) -> Result<()> {
        self.launch()
    }

    fn mark(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |m| m.len())
    }

    fn log_since(&self, mark: u64) -> Vec<String> {
        log_lines(&self.log, mark)
    }

    fn established_since(&self, mark: u64) -> usize {
        let words = ["ISAKMP SA established", "established IKE SA", "IKE SA established", "rekeyed IKE SA"];
        self.log_since(mark).iter().filter(|l| words.iter().any(|w| l.contains(w))).count()
    }

    fn initial_contacts_since(&self, mark: u64) -> usize {
        self.log_since(mark).iter().filter(|l| l.to_lowercase().contains("initial contact") || l.contains("INITIAL_CONTACT")).count()
    }

    fn ike_sas(&self) -> Result<usize> {
        let states = self.whack(&["--showstates"])?;
        Ok(states
            .lines()
            .filter(|l| {
                ["STATE_MAIN_R3", "STATE_MAIN_I4", "STATE_AGGR_R2", "STATE_AGGR_I2", "ESTABLISHED_IKE_SA"].iter().any(|w| l.contains(w))
            })
            .count())
    }

    fn sas(&self) -> Result<KernelSas> {
        Ok(parse_states(&ip_output(self.settings.ns, &["-s", "xfrm", "state"])?))
    }
}

impl Drop for Libreswan {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            sys::kill_group(child.id());
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.run);
    }
}

/// `aes256-sha256-modp2048` in libreswan's words: `aes256-sha2_256;modp2048`. Of combined modes an IKE proposal names the PRF, an ESP one nothing.
fn algorithms(text: &str) -> String {
    let one = |proposal: &str| {
        let mut out = String::new();
        for (n, word) in proposal.split('-').filter(|w| !matches!(*w, "esn" | "noesn")).enumerate() {
            let group = word.starts_with("modp") || word.starts_with("ecp") || word.starts_with("curve") || word.starts_with("x25519");
            let word = match word {
                "sha256" | "prfsha256" => "sha2_256",
                "sha384" | "prfsha384" => "sha2_384",
                "sha512" | "prfsha512" => "sha2_512",
                "prfsha1" => "sha1",
                "aes128gcm16" => "aes_gcm128",
                "aes256gcm16" => "aes_gcm256",
                "aes128ccm16" => "aes_ccm128",
                "aes256ccm16" => "aes_ccm256",
                "aes128ctr" => "aes_ctr128",
                "aes256ctr" => "aes_ctr256",
                "chacha20poly1305" => "chacha20_poly1305",
                "aesxcbc" => "aes_xcbc",
                "aescmac" => "aes_cmac",
                "ecp256" => "dh19",
                "ecp384" => "dh20",
                "ecp521" => "dh21",
                "curve25519" | "x25519" => "dh31",
                other => other,
            };
            out += match (n, group) {
                (0, _) => "",
                (_, true) => ";",
                (_, false) => "-",
            };
            out += word;
        }
        out
    };
    text.split(',').map(|p| one(p.trim())).collect::<Vec<_>>().join(",")
}

/// `192.168.4.0/24[tcp/80]`: network, and protocol and port.
fn selector(text: &str) -> (&str, Option<&str>) {
    text.strip_suffix(']').and_then(|t| t.split_once('[')).map_or((text, None), |(net, rest)| (net, Some(rest)))
}

fn ipsec_conf(settings: &Settings) -> String {
    let mut text = String::from("config setup\n\tikev1-policy=accept\n\tuniqueids=yes\n\tlogtime=yes\n\tplutodebug=none\n\tnhelpers=1\n\n");
    for c in &settings.connections {
        for child in &c.children {
            let (own_id, other_id) = c.identities();
            let version = match c.version {
                Version::Main => "ikev2=no",
                Version::Aggressive => "ikev2=no\n\taggressive=yes",
                Version::V2 => "ikev2=yes",
            };
            let mode = if child.transport { "transport" } else { "tunnel" };
            let pfs = if child.esp.split(['-', ',']).any(|w| w.starts_with("modp") || w.starts_with("ecp") || w.starts_with("curve")) {
                "yes"
            } else {
                "no"
            };
            let _ = write!(
                text,
                "conn {}\n\tauto=add\n\t{version}\n\ttype={mode}\n\tleft={}\n\tleftid={own_id}\n\tright={}\n\trightid={other_id}\n\
                 \tike={}\n\tesp={}\n\tpfs={pfs}\n\tleftupdown=%disabled\n\tnarrowing=no\n",
                child.name,
                c.local,
                c.remote,
                algorithms(&c.ike),
                algorithms(&child.esp)
            );
            for (side, network) in [("left", &child.own), ("right", &child.other)] {
                let (net, port) = selector(network);
                if !child.transport {
                    let _ = writeln!(text, "\t{side}subnet={net}");
                }
                if let Some(port) = port {
                    let _ = writeln!(text, "\t{side}protoport={port}");
                }
            }
            match &c.auth {
                Auth::Psk(_) => text += "\tauthby=secret\n",
                Auth::Certificate { .. } => text += "\tleftcert=peer\n\trightca=%same\n\tleftsendcert=always\n",
            }
            if child.esp.contains("-esn") {
                text += "\tesn=yes\n";
            } else {
                text += "\tesn=no\n";
            }
            if c.dpd_s > 0 {
                let _ = writeln!(text, "\tdpddelay={}\n\tdpdtimeout={}\n\tdpdaction=clear", c.dpd_s, c.dpd_s * 5);
            }
            if let Some(window) = c.replay_window {
                let _ = writeln!(text, "\treplay-window={window}");
            }
            if let Some(life) = c.ike_life_s {
                let _ = writeln!(text, "\tikelifetime={}s\n\trekeymargin={life}s\n\trekeyfuzz=0%", 2 * life);
            }
            if settings.hurry {
                text += "\tretransmit-interval=500\n\tretransmit-timeout=8s\n";
            }
            text += &c.libre;
            text.push('\n');
        }
    }
    text
}

fn ipsec_secrets(settings: &Settings) -> String {
    let mut text = String::new();
    for c in &settings.connections {
        let (own_id, other_id) = c.identities();
        if let Auth::Psk(psk) = &c.auth {
            let _ = writeln!(text, "{own_id} {other_id} : PSK \"{psk}\"");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_said_in_libreswans_words() {
        assert_eq!(algorithms("aes256-sha256-modp2048"), "aes256-sha2_256;modp2048");
        assert_eq!(algorithms("3des-sha1-modp1536, aes128-sha1-modp2048"), "3des-sha1;modp1536,aes128-sha1;modp2048");
        assert_eq!(algorithms("aes256gcm16-prfsha256-ecp256"), "aes_gcm256-sha2_256;dh19");
        assert_eq!(algorithms("aes256gcm16-esn"), "aes_gcm256");
    }

    #[test]
    fn a_selector_may_name_protocol_and_port() {
        assert_eq!(selector("192.168.4.0/24[tcp/80]"), ("192.168.4.0/24", Some("tcp/80")));
        assert_eq!(selector("0.0.0.0/0"), ("0.0.0.0/0", None));
    }
}
