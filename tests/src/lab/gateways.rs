//! The two gateways, run and asked as an operator would: the release binary, a manifest, the command line.

use super::peer::Suite;
use super::plan::plan;
use super::sys;
use super::topology::Node;
use anyhow::{Context, Result, bail, ensure};
use gateway_user::net::control::{self, ControlRequest};
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// HSRP hello of the lab, ms.
pub const HELLO_MS: u64 = 100;
/// HSRP hold of the lab, ms.
pub const HOLD_MS: u64 = 300;
/// A gateway command answers within this time.
const CLI_LIMIT: Duration = Duration::from_secs(20);

/// Role of a node as its own command line tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// All its groups are Active.
    Active,
    /// All its groups are Standby.
    Standby,
    /// Anything else, groups in different states included.
    Other,
}

/// How the manifests of a run differ from the examples.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// Folder of the example manifests.
    pub examples: &'a Path,
    /// Which of them.
    pub suite: Suite,
    /// HSRP hello, ms.
    pub hello_ms: u64,
    /// HSRP hold, ms.
    pub hold_ms: u64,
    /// Keys to replace, after everything else: path with slashes, and YAML.
    pub changes: &'a [(String, String)],
}

impl<'a> Recipe<'a> {
    /// The examples with the lab's timers.
    pub fn new(examples: &'a Path, suite: Suite) -> Self {
        Self { examples, suite, hello_ms: HELLO_MS, hold_ms: HOLD_MS, changes: &[] }
    }
}

/// Both gateways.
pub struct Gateways {
    binary: PathBuf,
    dir: PathBuf,
    manifests: [PathBuf; 2],
    processes: [Option<Child>; 2],
    starts: [u32; 2],
    /// Pre-shared key of the tunnel, for the peer's side.
    pub psk: String,
}

impl Gateways {
    /// Prepares manifests in `dir`; nothing is started.
    pub fn prepare(binary: &Path, recipe: &Recipe<'_>, dir: &Path) -> Result<Self> {
        let Recipe { examples, suite, .. } = *recipe;
        let mut psk = None;
        let mut manifests = Vec::new();
        let (ssp_secret, psk_secret) = (random_secret()?, random_secret()?);
        for node in Node::BOTH {
            let number = match node {
                Node::A => 1,
                Node::B => 2,
            };
            let suffix = match suite {
                Suite::Default => "",
                Suite::Guide => "-guide",
            };
            let source = examples.join(format!("example-{number}{suffix}.yaml"));
            let text = std::fs::read_to_string(&source).with_context(|| source.display().to_string())?;
            let mut manifest: Yaml = serde_yaml::from_str(&plan().translate(&text)).with_context(|| source.display().to_string())?;
            let files = Files { node, dir, ssp: &ssp_secret, psk: &psk_secret };
            let key = adapt(&mut manifest, &files, recipe).with_context(|| source.display().to_string())?;
            ensure!(psk.replace(key.clone()).is_none_or(|other| other == key), "the two manifests name different pre-shared keys");
            let file = dir.join(format!("{}.yaml", node.name()));
            std::fs::write(&file, serde_yaml::to_string(&manifest)?)?;
            manifests.push(file);
        }
        let manifests = <[PathBuf; 2]>::try_from(manifests).map_err(|_| anyhow::anyhow!("two manifests expected"))?;
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            manifests,
            processes: [None, None],
            starts: [0; 2],
            psk: psk.context("no pre-shared key in the manifests")?,
        })
    }

    /// `gateway run --config …` in the node's namespace; its output is appended to `NODE.log`.
    pub fn start(&mut self, node: Node) -> Result<()> {
        self.starts[node as usize] += 1;
        let log = self.log_file(node)?;
        let child = sys::command_in(node.ns(), &self.binary)?
            .arg("run")
            .arg("--config")
            .arg(&self.manifests[node as usize])
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| self.binary.display().to_string())?;
        self.processes[node as usize] = Some(child);
        Ok(())
    }

    fn log_file(&self, node: Node) -> Result<File> {
        Ok(std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(format!("{}.log", node.name())))?)
    }

    /// SIGKILL to everything the node runs.
    pub fn kill(&mut self, node: Node) -> Result<()> {
        let mut child = self.processes[node as usize].take().with_context(|| format!("{} does not run", node.name()))?;
        sys::kill_group(child.id());
        child.wait()?;
        Ok(())
    }

    /// Fails when a gateway that should run has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        for node in Node::BOTH {
            if let Some(child) = &mut self.processes[node as usize]
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended by itself ({status}); the end of its log:\n{}", node.name(), self.log_tail(node));
            }
        }
        Ok(())
    }

    /// A node's log so far.
    pub fn log(&self, node: Node) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", node.name()))).unwrap_or_default()
    }

    /// Last lines of a node's log.
    pub fn log_tail(&self, node: Node) -> String {
        let text = self.log(node);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// A command of the operator, in the node's namespace; standard output.
    pub fn command(&self, node: Node, args: &[&str]) -> Result<String> {
        let mut command = sys::command_in(node.ns(), &self.binary)?;
        sys::give_way(&mut command).args(["--socket", &control_socket(node)]).args(args);
        output_within(command, CLI_LIMIT).with_context(|| format!("{}: gateway {}", node.name(), args.join(" ")))
    }

    /// What `gateway … --json` answers, asked as the command line asks, but without starting a program: in the guest, with its one
    /// CPU, that costs more than the daemon's own work.
    pub fn json(&self, node: Node, args: &[&str]) -> Result<Json> {
        let request = ControlRequest { argv: args.iter().map(|a| (*a).to_owned()).collect(), json: true };
        let path = control_socket(node);
        let answer = control::call(Path::new(&path), &request).with_context(|| format!("{}: {path}", node.name()))?;
        ensure!(answer.ok, "{}: {}: {}", node.name(), args.join(" "), answer.error);
        Ok(answer.json)
    }

    /// What the node says of its role.
    pub fn role(&self, node: Node) -> Result<Role> {
        Ok(views::role(&self.json(node, &["show", "standby", "brief"])?))
    }

    /// Waits until one node is active and, when both run, the other is standby with everything mirrored; answers the active one.
    pub fn wait_settled(&mut self, limit: Duration) -> Result<Node> {
        let end = Instant::now() + limit;
        let mut last = String::new();
        while Instant::now() < end {
            self.check_alive()?;
            let running: Vec<Node> = Node::BOTH.into_iter().filter(|n| self.processes[*n as usize].is_some()).collect();
            let roles: Vec<(Node, Result<Role>)> = running.iter().map(|n| (*n, self.role(*n))).collect();
            let with = |role| roles.iter().filter(|(_, r)| matches!(r, Ok(r) if *r == role)).map(|(n, _)| *n).collect::<Vec<_>>();
            if let [active] = with(Role::Active)[..]
                && with(Role::Standby).len() + 1 == running.len()
                && (running.len() == 1 || self.synchronised(active))
            {
                return Ok(active);
            }
            last = roles.iter().map(|(n, r)| format!("{} {r:?}", n.name())).collect::<Vec<_>>().join(", ");
            sys::sleep_ms(150);
        }
        bail!(
            "no active node with a ready standby within {} s: {last}\n{}\n{}",
            limit.as_secs(),
            self.log_tail(Node::A),
            self.log_tail(Node::B)
        )
    }

    /// True when both nodes call the other connected and the standby holds as many SAs as the active.
    fn synchronised(&self, active: Node) -> bool {
        let connected = |node| self.json(node, &["show", "ssp", "peers"]).is_ok_and(|v| views::connected(&v));
        let sas = |node| self.json(node, &["show", "crypto", "ipsec", "ha"]).ok().and_then(|v| views::sa_count(&v));
        connected(active) && connected(active.other()) && sas(active) == sas(active.other())
    }

    /// Stage times of the latest takeover of a node.
    pub fn takeover_stages(&self, node: Node) -> Option<Json> {
        views::latest_takeover(&self.json(node, &["show", "takeover"]).ok()?)
    }

    /// Where a node pins its programs and maps.
    pub fn pin_dir(node: Node) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/{}", node.ns()))
    }
}

impl Drop for Gateways {
    fn drop(&mut self) {
        for node in Node::BOTH {
            if let Some(mut child) = self.processes[node as usize].take() {
                sys::kill_group(child.id());
                let _ = child.wait();
            }
            let _ = std::fs::remove_dir_all(Self::pin_dir(node));
            let _ = std::fs::remove_file(control_socket(node));
        }
    }
}

fn control_socket(node: Node) -> String {
    format!("/run/{}.sock", node.ns())
}

fn output_within(mut command: Command, limit: Duration) -> Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if is_done.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            sys::kill_group(pid);
        }
    });
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let pipes = (child.stdout.take().context("pipe")?, child.stderr.take().context("pipe")?);
    std::thread::scope(|scope| {
        use std::io::Read;
        let (mut out, mut err) = pipes;
        let errors = scope.spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        let _ = out.read_to_string(&mut stdout);
        stderr = errors.join().unwrap_or_default();
    });
    let status = child.wait()?;
    let _ = done.send(());
    let _ = watchdog.join();
    ensure!(status.success(), "{status}: {} {}", stdout.trim(), stderr.trim());
    Ok(stdout)
}

struct Files<'a> {
    node: Node,
    dir: &'a Path,
    ssp: &'a str,
    psk: &'a str,
}

impl Files<'_> {
    fn secret(&self, name: &str, secret: &str) -> Result<String> {
        use std::io::Write;
        let path = self.dir.join(format!("{}.{name}", self.node.name()));
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        writeln!(file, "{secret}")?;
        Ok(path.to_str().context("path is not UTF-8")?.to_owned())
    }
}

/// Makes a manifest of the examples fit the lab: short timers, secrets of this run, own socket and pin folder.
/// Answers the pre-shared key.
fn adapt(manifest: &mut Yaml, files: &Files<'_>, recipe: &Recipe<'_>) -> Result<String> {
    let text = |value: &str| Yaml::String(value.to_owned());
    for (_, interface) in entries(manifest, "interfaces")? {
        let standby = interface.get_mut("standby").context("interface without standby")?;
        standby["delay"] = serde_yaml::from_str("{ minimum: 200ms, reload: 500ms }")?;
        for (_, group) in entries(standby, "groups")? {
            group["timers"] = serde_yaml::from_str(&format!("{{ hello: {}ms, hold: {}ms }}", recipe.hello_ms, recipe.hold_ms))?;
        }
    }
    let file = files.secret("ssp.secret", files.ssp)?;
    for (_, group) in entries(manifest, "ssp")? {
        group["secret_file"] = text(&file);
    }
    let mut psk = None;
    let keys = manifest.get_mut("crypto").and_then(|c| c.get_mut("isakmp")).and_then(|c| c.get_mut("key")).and_then(Yaml::as_sequence_mut);
    for key in keys.context("crypto.isakmp.key is missing")? {
        if let Some(inline) = key.get("secret").and_then(Yaml::as_str) {
            // The guide's own key stays: that it works, with a warning, is part of the run.
            psk = Some(inline.to_owned());
        } else {
            key["secret_file"] = text(&files.secret("psk", files.psk)?);
            psk = Some(files.psk.to_owned());
        }
    }
    manifest["control"] = serde_yaml::from_str(&format!("{{ socket: {} }}", control_socket(files.node)))?;
    if !manifest.get("dataplane").is_some_and(Yaml::is_mapping) {
        manifest["dataplane"] = Yaml::Mapping(serde_yaml::Mapping::new());
    }
    // Real XDP in native mode, or the lab fails: no silent way around.
    manifest["dataplane"]["xdp"] = text("native");
    manifest["dataplane"]["pin_dir"] = text(Gateways::pin_dir(files.node).to_str().context("pin folder")?);
    for (path, yaml) in recipe.changes {
        change(manifest, path, yaml).with_context(|| path.clone())?;
    }
    psk.context("crypto.isakmp.key is empty")
}

/// Puts a value at a path (`crypto/isakmp/policy`); what is not there yet is made.
fn change(manifest: &mut Yaml, path: &str, yaml: &str) -> Result<()> {
    let mut at = manifest;
    for key in path.split('/') {
        if !at.is_mapping() {
            *at = Yaml::Mapping(serde_yaml::Mapping::new());
        }
        let key = key.parse::<u64>().map_or_else(|_| Yaml::String(key.to_owned()), Yaml::from);
        let map = at.as_mapping_mut().context("not a mapping")?;
        at = map.entry(key).or_insert(Yaml::Null);
    }
    *at = serde_yaml::from_str(yaml)?;
    Ok(())
}

fn entries<'a>(value: &'a mut Yaml, key: &str) -> Result<impl Iterator<Item = (&'a Yaml, &'a mut Yaml)>> {
    Ok(value.get_mut(key).and_then(Yaml::as_mapping_mut).with_context(|| format!("{key} is missing"))?.iter_mut())
}

fn random_secret() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Reads the command line's JSON. The only place that knows its fields, and lenient about where they sit.
pub mod views {
    use super::Role;
    use serde_json::Value;

    /// Every value below `value` that has this key.
    fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(map) => {
                for (k, v) in map {
                    if k == key {
                        found.push(v);
                    }
                    all(v, key, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|v| all(v, key, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn strings(value: &Value, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        all(value, key, &mut found);
        found.into_iter().filter_map(Value::as_str).map(str::to_lowercase).collect()
    }

    /// From `show standby brief`.
    pub fn role(view: &Value) -> Role {
        let states = strings(view, "state");
        let every = |word: &str| !states.is_empty() && states.iter().all(|s| s == word);
        if every("active") {
            Role::Active
        } else if every("standby") {
            Role::Standby
        } else {
            Role::Other
        }
    }

    /// From `show ssp peers`.
    pub fn connected(view: &Value) -> bool {
        ["connection_state", "state"].iter().any(|key| strings(view, key).iter().any(|s| s == "connected"))
    }

    /// From `show crypto ipsec ha`.
    pub fn sa_count(view: &Value) -> Option<u64> {
        let mut found = Vec::new();
        all(view, "sas", &mut found);
        let numbers: Vec<u64> = found.into_iter().filter_map(Value::as_u64).collect();
        (!numbers.is_empty()).then(|| numbers.iter().sum())
    }

    /// From `show takeover`: the last entry.
    pub fn latest_takeover(view: &Value) -> Option<Value> {
        match view {
            Value::Array(items) => items.last().cloned(),
            Value::Object(map) => map.get("takeovers").and_then(latest_takeover),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use serde_json::json;

        #[test]
        fn groups_in_different_states_are_neither_active_nor_standby() {
            assert_eq!(role(&json!([{"group": 1, "state": "Active"}, {"group": 2, "state": "Active"}])), Role::Active);
            assert_eq!(role(&json!({"groups": [{"state": "Standby"}, {"state": "Standby"}]})), Role::Standby);
            assert_eq!(role(&json!([{"state": "Active"}, {"state": "Standby"}])), Role::Other);
            assert_eq!(role(&json!([])), Role::Other);
        }

        #[test]
        fn the_latest_takeover_is_the_last() {
            assert_eq!(latest_takeover(&json!([{"epoch": 1}, {"epoch": 2}])), Some(json!({"epoch": 2})));
            assert_eq!(latest_takeover(&json!({"takeovers": [{"epoch": 3}]})), Some(json!({"epoch": 3})));
            assert_eq!(latest_takeover(&json!([])), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_adapted_and_its_integer_keys_survive() {
        let dir = std::env::temp_dir().join(format!("gwlab-adapt-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut manifest: Yaml = serde_yaml::from_str(
            "interfaces: { inside: { standby: { delay: { minimum: 30s }, groups: { 1: { ip: 1.2.3.4, timers: { hello: 500ms } } } } } }\n\
             ssp: { 1: { secret_file: x } }\ncrypto: { isakmp: { key: [ { address: 1.1.1.1, secret_file: y } ] } }\n",
        )
        .unwrap();
        let changes = [("crypto/isakmp/dpd".to_owned(), "{ interval: 2s }".to_owned())];
        let recipe = Recipe { hold_ms: 900, changes: &changes, ..Recipe::new(Path::new("."), Suite::Default) };
        let psk = adapt(&mut manifest, &Files { node: Node::B, dir: &dir, ssp: "s", psk: "p" }, &recipe).unwrap();
        assert_eq!(manifest["crypto"]["isakmp"]["dpd"]["interval"], Yaml::String("2s".into()));
        assert_eq!(psk, "p");
        assert_eq!(manifest["interfaces"]["inside"]["standby"]["groups"][1]["timers"]["hold"], Yaml::String("900ms".into()));
        assert_eq!(manifest["control"]["socket"], Yaml::String("/run/gwlab-b.sock".into()));
        let file = manifest["ssp"][1]["secret_file"].as_str().unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "s\n");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
