//! `cargo xtask tidy`: the layer rule of ARCHITECTURE.md, purity of the protocol cores, length of files.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// Layers of `gateway-user/src`, lowest first. An arrow may point down only; modules of one layer do not know each other.
const LAYERS: &[&[&str]] = &[
    &["id", "rng", "wire"],
    &["crypto"],
    &["pki", "sad"],
    &["ike", "ssp", "hsrp"],
    &["ports"],
    &["ha"],
    &["config"],
    &["net", "netlink", "dataplane"],
    &["cli", "daemon"],
];
/// Layers up to and including this one are pure.
const PURE: &str = "ha";
/// Time, randomness and input come into a pure module as arguments.
const IMPURE: &[&str] = &[
    "tokio",
    "socket2",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "Instant::now",
    "SystemTime::now",
    "thread_rng",
    "OsRng",
    "getrandom",
    "SystemRandom",
    "std::fs",
    "std::process",
    "std::thread",
    "thread::sleep",
    "nix",
    "libc",
];
/// Lines of a source file: from here on a warning, from here on an error.
const LONG: usize = 600;
const TOO_LONG: usize = 900;
const CRATES: &[&str] = &["gateway-common", "gateway-ebpf", "gateway-user", "tests", "xtask"];

/// Checks the repository; true when nothing is wrong.
pub fn run(root: &Path) -> Result<bool> {
    let mut errors = Vec::new();
    let mut files = 0;
    for name in CRATES {
        for file in sources(&root.join(name))? {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            files += 1;
            errors.extend(length(&shown, &text));
            if let Some(inside) = file.strip_prefix(root.join("gateway-user/src")).ok().and_then(Path::to_str) {
                errors.extend(layers(inside, &text).into_iter().map(|e| format!("{shown}:{e}")));
            }
        }
    }
    ensure!(files > 0, "no source files below {}", root.display());
    for error in &errors {
        println!("tidy: {error}");
    }
    println!("tidy: {files} files, {} errors", errors.len());
    Ok(errors.is_empty())
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|n| n != "target") {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn length(file: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    if (LONG..TOO_LONG).contains(&lines) {
        println!("tidy: warning: {file} has {lines} lines: split it by theme before it reaches {TOO_LONG}");
    }
    (lines >= TOO_LONG).then(|| format!("{file} has {lines} lines, {TOO_LONG} or more: split it by theme"))
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Checks one file of `gateway-user/src`, named relative to it; answers `LINE: what is wrong`.
fn layers(file: &str, text: &str) -> Vec<String> {
    let parts: Vec<&str> = file.trim_end_matches(".rs").split('/').filter(|p| *p != "mod").collect();
    let Some(module) = parts.first().filter(|m| !matches!(**m, "lib" | "main")) else { return Vec::new() };
    let Some(own) = layer_of(module) else {
        return vec![format!("1: module `{module}` has no layer: give it one in xtask/src/tidy.rs and in ARCHITECTURE.md")];
    };
    if parts.iter().any(|p| p.ends_with("tests") || *p == "testing") {
        return Vec::new();
    }
    let code = code_only(text);
    let mut errors = Vec::new();
    for (at, target) in arrows(&code, parts.len()) {
        let Some(other) = layer_of(&target) else { continue };
        let top = LAYERS.len() - 1;
        if target != *module && (other > own || (other == own && own != top)) {
            errors.push(format!("{}: `{module}` must not know `{target}`: an arrow may point down only", line_of(&code, at)));
        }
    }
    if layer_of(PURE).is_some_and(|pure| own <= pure) {
        for word in IMPURE {
            for (at, _) in code.match_indices(word).filter(|(at, _)| is_word(&code, *at, word.len())) {
                errors.push(format!("{}: `{module}` is pure and must not name `{word}`", line_of(&code, at)));
            }
        }
    }
    errors
}

/// Blanks comments, strings and test modules, keeping the lines.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut test_depth: Option<i32> = None;
    let mut depth = 0;
    let mut pending_test = false;
    for line in text.lines() {
        let line = blank_strings(line);
        let code = line.split("//").next().unwrap_or_default();
        let trimmed = code.trim();
        if trimmed.starts_with("#[cfg(test)]") || trimmed.starts_with("#[cfg(all(test") {
            pending_test = true;
        } else if pending_test && !trimmed.is_empty() && !trimmed.starts_with("#[") {
            pending_test = false;
            if code.contains('{') {
                test_depth.get_or_insert(depth);
            }
        }
        let hidden = test_depth.is_some();
        depth += code.matches('{').count().cast_signed() as i32 - code.matches('}').count().cast_signed() as i32;
        if test_depth.is_some_and(|d| depth <= d) {
            test_depth = None;
        }
        if !hidden {
            out.push_str(code);
        }
        out.push('\n');
    }
    out
}

fn blank_strings(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => {
                chars.next();
            }
            // A quote as a character literal opens no string.
            '\'' if !inside && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '"' => {
                inside = !inside;
                out.push(c);
            }
            '/' if !inside && chars.peek() == Some(&'/') => return out,
            _ if inside => {}
            _ => out.push(c),
        }
    }
    out
}

/// Top-level modules that the code names: through `crate::`, or through enough `super::` to reach the top.
fn arrows(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| boundary_before(code, *at)) {
        found.extend(heads(&code[at + 7..]).into_iter().map(|name| (at, name)));
    }
    let mut at = 0;
    while let Some(start) = code[at..].find("super::").map(|i| at + i) {
        let mut end = start;
        while code[end..].starts_with("super::") {
            end += 7;
        }
        if boundary_before(code, start) && (end - start) / 7 >= depth {
            found.extend(heads(&code[end..]).into_iter().map(|name| (start, name)));
        }
        at = end;
    }
    found
}

/// First names of a path or of a `{…}` group.
fn heads(text: &str) -> Vec<String> {
    let ident = |t: &str| t.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = text.strip_prefix('{') else { return vec![ident(text)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.push(ident(&group[i..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn boundary_before(code: &str, at: usize) -> bool {
    !code[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn is_word(code: &str, at: usize, len: usize) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !code[..at].chars().next_back().is_some_and(edge) && !code[at + len..].chars().next().is_some_and(edge)
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(file: &str, text: &str) -> Vec<String> {
        layers(file, text)
    }

    #[test]
    fn an_arrow_upwards_or_sideways_is_found_in_every_spelling() {
        for text in [
            "use crate::net::ike::IkeSocket;",
            "use crate::{id::Spi, net::{self, ike}};",
            "fn f() { crate::daemon::run(); }",
            "use super::ha::Node;",
            "use crate::ssp::Message;",
        ] {
            assert_eq!(bad("ike/mod.rs", text).len(), 1, "{text}");
        }
        assert_eq!(bad("ike/message/sa.rs", "use super::super::super::net::X;").len(), 1);
        assert!(bad("ike/message/sa.rs", "use super::super::net::X;").is_empty(), "that is ike::net");
    }

    #[test]
    fn arrows_downwards_and_within_a_module_are_fine() {
        let text = "use crate::crypto::Secret;\nuse crate::{id::Spi, wire::Reader, ike::message};\nuse super::api;\n";
        assert!(bad("ike/engine.rs", text).is_empty());
        assert!(bad("daemon/run.rs", "use crate::cli::command; use crate::net::ike;").is_empty());
    }

    #[test]
    fn a_pure_layer_names_neither_clock_nor_socket() {
        for word in ["std::time::Instant::now()", "tokio::spawn(x)", "std::net::UdpSocket::bind(a)", "std::fs::read(p)"] {
            assert_eq!(bad("hsrp/group.rs", &format!("fn f() {{ {word}; }}")).len(), 1, "{word}");
            assert!(bad("net/hsrp.rs", &format!("fn f() {{ {word}; }}")).is_empty(), "{word}");
        }
        assert!(bad("hsrp/group.rs", "use std::time::Instant;\nfn f(now: Instant) {}").is_empty());
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        let text = "// tokio\n//! crate::daemon\nconst A: &str = \"tokio // crate::net::x\";\n#[cfg(test)]\nmod tests {\n    use crate::daemon::X;\n    fn t() { Instant::now(); }\n}\n";
        assert!(bad("ike/mod.rs", text).is_empty());
        let after = format!("{text}use crate::daemon::Y;\n");
        assert_eq!(bad("ike/mod.rs", &after), ["9: `ike` must not know `daemon`: an arrow may point down only"]);
    }

    #[test]
    fn a_module_without_layer_is_an_error() {
        assert_eq!(bad("newthing.rs", "").len(), 1);
        assert!(bad("lib.rs", "pub mod newthing;").is_empty());
    }

    #[test]
    fn long_files_are_errors_from_the_limit_on() {
        assert!(length("a.rs", &"x\n".repeat(TOO_LONG - 1)).is_none());
        assert!(length("a.rs", &"x\n".repeat(TOO_LONG)).is_some());
    }
}
