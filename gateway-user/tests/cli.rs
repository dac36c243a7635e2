//! The binary as an operator uses it: exit status, where text goes, and the way to the daemon and back.
#![expect(clippy::unwrap_used, reason = "tests")]

use gateway_user::net::control::{self, Call, ControlRequest, ControlResponse};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tokio::sync::mpsc;

fn gateway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gateway")).args(args).env_remove("GATEWAY_SOCKET").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn config(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("config").join(file).display().to_string()
}

/// A daemon that answers each call with `answer`, for as long as the value lives.
struct Fake {
    socket: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    fn new(name: &str, answer: fn(&ControlRequest) -> ControlResponse) -> Self {
        let socket = std::env::temp_dir().join(format!("gateway-cli-{}-{name}.sock", std::process::id()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tx, mut rx) = mpsc::channel::<Call>(4);
        let server = runtime.block_on(async { control::Server::bind(&socket, 0o600) }).unwrap();
        runtime.spawn(server.run(tx));
        runtime.spawn(async move {
            while let Some((request, reply)) = rx.recv().await {
                let _ = reply.send(answer(&request));
            }
        });
        Self { socket, _runtime: runtime }
    }

    fn ask(&self, args: &[&str]) -> Output {
        gateway(&[&["--socket", self.socket.to_str().unwrap()], args].concat())
    }
}

#[test]
fn check_says_ok_or_names_the_errors() {
    let good = gateway(&["check", &config("example-1.yaml")]);
    assert_eq!(good.status.code(), Some(0));
    assert!(text(&good.stdout).contains("example-1.yaml: ok, "), "{good:?}");
    let pair = gateway(&["check", &config("example-1.yaml"), &config("example-2.yaml")]);
    assert_eq!(pair.status.code(), Some(0), "{pair:?}");
    let unlike = gateway(&["check", &config("example-1.yaml"), &config("example-2-guide.yaml")]);
    assert_eq!(unlike.status.code(), Some(1));
    assert!(text(&unlike.stderr).contains("`crypto isakmp policy 1` differs"), "{unlike:?}");
    let bad = gateway(&["check", &config("invalid/several.yaml")]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains(":5:5: interfaces.inside.devcie: unknown key `devcie`"), "{bad:?}");
    assert!(text(&bad.stderr).contains("5 errors"), "{bad:?}");
    let json = gateway(&["check", &config("invalid/several.yaml"), "--json"]);
    assert_eq!(json.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((value["ok"].as_bool(), value["errors"].as_array().map(Vec::len)), (Some(false), Some(5)));
}

#[test]
fn run_refuses_a_bad_manifest_before_it_touches_anything() {
    let out = gateway(&["run", "--config", &config("invalid/key-missing.yaml")]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("there is no key for peer 198.51.100.2"), "{out:?}");
}

#[test]
fn words_go_to_the_daemon_in_full_and_its_answer_comes_back() {
    let fake = Fake::new("echo", |r| ControlResponse {
        ok: true,
        json: serde_json::json!({ "argv": r.argv, "json": r.json }),
        text: format!("asked: {}", r.argv.join(" ")),
        error: String::new(),
    });
    let out = fake.ask(&["sh", "cry", "isa", "ha", "st"]);
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(0), "asked: show crypto isakmp ha standby\n"));
    let out = fake.ask(&["no", "debug", "ssp", "fsm"]);
    assert_eq!(text(&out.stdout), "asked: undebug ssp fsm\n");
    let out = fake.ask(&["switchover"]);
    assert_eq!(text(&out.stdout), "asked: switchover\n");
    let out = fake.ask(&["show", "ssp", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value, serde_json::json!({ "argv": ["show", "ssp"], "json": true }));
}

#[test]
fn a_refusal_of_the_daemon_is_an_error() {
    let fake = Fake::new("refuse", |_| ControlResponse::error("the standby is not ready: no snapshot yet"));
    let out = fake.ask(&["switchover"]);
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(1), ""));
    assert_eq!(text(&out.stderr), "the standby is not ready: no snapshot yet\n");
}

#[test]
fn wrong_words_and_a_missing_daemon_are_told_apart() {
    let out = gateway(&["show", "ssp", "pers"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("did you mean `peers`?"), "{out:?}");
    let out = gateway(&["--socket", "/nonexistent/control.sock", "show", "ssp"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).starts_with("cannot reach the daemon at /nonexistent/control.sock: "), "{out:?}");
    assert!(text(&out.stderr).contains("gateway run --config FILE"), "{out:?}");
    let out = gateway(&["show", "?"]);
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("show takeover"), "{out:?}");
    assert_eq!(gateway(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(gateway(&["--version"]).status.code(), Some(0));
}
