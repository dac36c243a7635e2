//! Debian's strongSwan as the remote peer: charon in a namespace, spoken to with swanctl.

use super::connection::{Auth, Connection, Settings, Version};
use super::{KernelSas, Remote, log_lines, parse_states};
use crate::lab::sys;
use crate::lab::topology::{PROTECTED, ip_output};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Debian's place of charon-systemd.
const CHARON: &str = "/usr/sbin/charon-systemd";
const SWANCTL: &str = "/usr/sbin/swanctl";

/// One strongSwan, running.
pub struct StrongSwan {
    settings: Settings,
    dir: PathBuf,
    child: Option<Child>,
    /// Our copy of swanctl.
    tool: PathBuf,
    log: PathBuf,
    socket: String,
}

impl StrongSwan {
    /// Starts charon in its namespace and loads the connections; files go to `dir`, the control socket to `/run`.
    pub fn start(settings: Settings, dir: &Path) -> Result<Self> {
        let name = settings.ns;
        ensure!(Path::new(CHARON).exists(), "{CHARON} is missing: apt-get install charon-systemd strongswan-swanctl");
        // Debian's AppArmor profile, which goes by path, lets swanctl read its own folder only: a copy may read ours.
        let tool = dir.join("swanctl");
        if !tool.exists() {
            std::fs::copy(SWANCTL, &tool).context(SWANCTL)?;
        }
        let log = dir.join(format!("{name}.charon.log"));
        let _ = std::fs::remove_file(&log);
        let mut swan = Self { dir: dir.to_owned(), child: None, tool, log, socket: format!("/run/{name}.vici"), settings };
        swan.launch()?;
        Ok(swan)
    }

    fn launch(&mut self) -> Result<()> {
        let name = self.settings.ns;
        let _ = std::fs::remove_file(&self.socket);
        let (conf, swan) = (self.dir.join(format!("{name}.conf")), self.dir.join(format!("{name}.swanctl.conf")));
        std::fs::write(&conf, strongswan_conf(&self.socket, &self.log, &self.settings))?;
        std::fs::write(&swan, swanctl_conf(&self.settings))?;
        let output = std::fs::File::create(self.dir.join(format!("{name}.charon.out")))?;
        let child = sys::command_in(name, CHARON)?
            .env("STRONGSWAN_CONF", &conf)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context(CHARON)?;
        let end = Instant::now() + Duration::from_secs(15);
        let child = self.child.insert(child);
        while !Path::new(&self.socket).exists() {
            ensure!(child.try_wait()?.is_none() && Instant::now() < end, "charon in {name} did not start: see {}", self.dir.display());
            sys::sleep_ms(30);
        }
        let swan = swan.to_str().context("path is not UTF-8")?.to_owned();
        let mut last = None;
        while Instant::now() < end {
            match self.swanctl(&["--load-all", "--file", &swan]) {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
            sys::sleep_ms(200);
        }
        bail!("swanctl --load-all in {name}: {:#}", last.unwrap_or_else(|| anyhow::anyhow!("no time left")))
    }

    /// Runs swanctl against this daemon; output on success.
    pub fn swanctl(&self, args: &[&str]) -> Result<String> {
        let out = sys::give_way(&mut sys::command_in(self.settings.ns, &self.tool)?)
            .args(args)
            .args(["--uri", &format!("unix://{}", self.socket)])
            .stdin(Stdio::null())
            .output()
            .context("swanctl")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "swanctl {}: {} {}", args.join(" "), text.trim(), String::from_utf8_lossy(&out.stderr).trim());
        Ok(text)
    }

    fn connection_of(&self, child: &str) -> Result<&Connection> {
        self.settings.connections.iter().find(|c| c.children.iter().any(|k| k.name == child)).with_context(|| format!("no child {child}"))
    }
}

impl Remote for StrongSwan {
    fn name(&self) -> &'static str {
        "strongSwan"
    }

    fn initiate(&self, child: &str) -> Result<()> {
        self.swanctl(&["--initiate", "--child", child, "--timeout", "20"]).map(drop)
    }

    fn begin(&self, child: &str) -> Result<()> {
        self.swanctl(&["--initiate", "--child", child, "--timeout", "-1"]).map(drop)
    }

    fn rekey_child(&self, child: &str) -> Result<()> {
        self.swanctl(&["--rekey", "--child", child]).map(drop)
    }

    fn rekey_ike(&self, child: &str) -> Result<()> {
        let connection = self.connection_of(child)?.name.clone();
        self.swanctl(&["--rekey", "--ike", &connection]).map(drop)
    }

    fn forces_ike_rekeys(&self, _: &str) -> bool {
        true
    }

    fn close_child(&self, child: &str) -> Result<()> {
        self.swanctl(&["--terminate", "--child", child, "--timeout", "10"]).map(drop)
    }

    fn close(&self) -> Result<()> {
        for connection in &self.settings.connections {
            // One that is not up is no error here: nothing of it may be left, and nothing is.
            let _ = self.swanctl(&["--terminate", "--ike", &connection.name, "--timeout", "5"]);
        }
        Ok(())
    }

    fn tool(&self, words: &[&str]) -> Result<String> {
        self.swanctl(words)
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
        self.log_since(mark)
            .iter()
            .filter(|l| l.contains("IKE_SA ") && (l.contains(" established between") || l.contains(" rekeyed between")))
            .count()
    }

    fn initial_contacts_since(&self, mark: u64) -> usize {
        self.log_since(mark).iter().filter(|l| l.contains("parsed") && l.contains("INITIAL_CONTACT")).count()
    }

    fn ike_sas(&self) -> Result<usize> {
        Ok(self.swanctl(&["--list-sas"])?.lines().filter(|l| !l.starts_with(' ') && l.contains("ESTABLISHED")).count())
    }

    fn sas(&self) -> Result<KernelSas> {
        Ok(parse_states(&ip_output(self.settings.ns, &["-s", "xfrm", "state"])?))
    }
}

impl Drop for StrongSwan {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            sys::kill_group(child.id());
            let _ = child.wait();
        }
    }
}

fn strongswan_conf(socket: &str, log: &Path, settings: &Settings) -> String {
    let own = &settings.swan_daemon;
    let repeat = if settings.hurry {
        "\x20 retransmit_timeout = 0.5\n\x20 retransmit_base = 1.6\n\x20 retransmit_tries = 6\n\x20 half_open_timeout = 8\n"
    } else {
        ""
    };
    format!(
        "charon-systemd {{\n\
         \x20 load = random nonce openssl hmac kdf gcm curve25519 x509 pem pkcs1 pkcs8 pubkey revocation constraints kernel-netlink socket-default vici\n\
         \x20 install_routes = no\n\
         {repeat}{own}\
         \x20 plugins {{ vici {{ socket = unix://{socket} }} }}\n\
         \x20 start-scripts {{ }}\n\
         \x20 i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n\
         \x20 journal {{ default = -1 }}\n\
         \x20 syslog {{ daemon {{ default = -1 }} auth {{ default = -1 }} }}\n\
         \x20 filelog {{ lab {{\n\
         \x20   path = {}\n\
         \x20   append = yes\n\
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

fn swanctl_conf(settings: &Settings) -> String {
    let mut text = String::from("connections {\n");
    let mut secrets = String::new();
    let mut own_lans: Vec<&str> = Vec::new();
    for c in &settings.connections {
        let (own_id, other_id) = c.identities();
        let version = match c.version {
            Version::Main => "version = 1",
            Version::Aggressive => "version = 1\n    aggressive = yes",
            Version::V2 => "version = 2",
        };
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "  {} {{\n    {version}\n    local_addrs = {}\n    remote_addrs = {}\n    proposals = {}\n    dpd_delay = {}s\n    dpd_timeout = {}s\n",
            c.name,
            c.local,
            c.remote,
            c.ike,
            c.dpd_s,
            c.dpd_s * 5
        );
        if let Some(life) = c.ike_life_s {
            let _ = writeln!(text, "    rekey_time = {life}s\n    over_time = {life}s\n    rand_time = 0s");
        }
        text += &c.swan.0;
        let local = match &c.auth {
            Auth::Psk(psk) => {
                let _ = write!(
                    secrets,
                    "  ike-{} {{\n    id-1 = {own_id}\n    id-2 = {other_id}\n    secret = 0x{}\n  }}\n",
                    c.name,
                    hex(psk.as_bytes())
                );
                "auth = psk".to_owned()
            }
            Auth::Certificate { cert, .. } => format!("auth = pubkey\n      certs = {}", cert.display()),
        };
        let remote = match &c.auth {
            Auth::Psk(_) => "auth = psk".to_owned(),
            Auth::Certificate { ca, .. } => format!("auth = pubkey\n      cacerts = {}", ca.display()),
        };
        if let Auth::Certificate { key, .. } = &c.auth {
            let _ = write!(secrets, "  private-{} {{\n    file = {}\n  }}\n", c.name, key.display());
        }
        let _ = write!(
            text,
            "    local {{\n      {local}\n      id = {own_id}\n    }}\n    remote {{\n      {remote}\n      id = {other_id}\n    }}\n    children {{\n"
        );
        for child in &c.children {
            let mode = if child.transport { "transport" } else { "tunnel" };
            let _ = write!(
                text,
                "      {} {{\n        local_ts = {}\n        remote_ts = {}\n        esp_proposals = {}\n        mode = {mode}\n",
                child.name, child.own, child.other, child.esp
            );
            if let Some(window) = c.replay_window {
                let _ = writeln!(text, "        replay_window = {window}");
            }
            text += &c.swan.1;
            text += "      }\n";
            if child.own == PROTECTED.to_string() && child.other == "0.0.0.0/0" {
                own_lans.push(&child.own);
            }
        }
        text += "    }\n  }\n";
    }
    if let Some(lan) = own_lans.first() {
        // The tunnel takes everything of this network: what stays on its own LAN must not.
        let _ = write!(
            text,
            "  lan {{\n    children {{\n      lan {{\n        local_ts = {lan}\n        remote_ts = {lan}\n        mode = pass\n        start_action = trap\n      }}\n    }}\n  }}\n"
        );
    }
    let _ = write!(text, "}}\nsecrets {{\n{secrets}}}\n");
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
