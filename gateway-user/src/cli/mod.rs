//! Command line of the `gateway` binary.

pub mod command;
pub mod logging;

use crate::config::{self, Config, ConfigError};
use crate::net::control::{self, ControlRequest, ControlResponse};
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names the control socket when `--socket` does not.
pub const SOCKET_ENV: &str = "GATEWAY_SOCKET";

/// Exit status of a wrong command line, as clap's own.
const USAGE: u8 = 2;

#[derive(Parser, Debug)]
#[command(
    name = "gateway",
    version,
    about = "An IPsec gateway pair with stateful failover",
    infer_subcommands = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    /// Control socket of the daemon [env: GATEWAY_SOCKET] [default: /run/gateway/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Top,
}

#[derive(Subcommand, Debug)]
enum Top {
    /// Run the gateway in the foreground
    Run {
        /// Manifest
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Log filter: error, warn, info, debug, trace, or `target=level,…`
        #[arg(long, value_name = "LEVEL", default_value = "info")]
        log: String,
    },
    /// Check a manifest; with a second one, check that both fit together as a pair
    Check {
        /// Manifest
        file: PathBuf,
        /// The partner's manifest
        partner: Option<PathBuf>,
    },
    /// Show state: `gateway show '?'` lists what
    Show {
        /// Words of the command, in full or abbreviated
        words: Vec<String>,
    },
    /// Clear SAs: `gateway clear '?'` lists what
    Clear {
        /// Words of the command
        words: Vec<String>,
    },
    /// Switch debug output on: `gateway debug '?'` lists what
    Debug {
        /// Words of the command
        words: Vec<String>,
    },
    /// Switch debug output off
    Undebug {
        /// Words of the command
        words: Vec<String>,
    },
    /// `no debug …` is `undebug …`
    No {
        /// Words of the command
        words: Vec<String>,
    },
    /// Hand over to the standby, without loss
    Switchover,
    /// Renew SAs: `isakmp ADDRESS`, `ipsec SPI`, `ipsec peer ADDRESS`
    Rekey {
        /// Words of the command
        words: Vec<String>,
    },
    /// Bring up a crypto map entry: MAP SEQ
    Initiate {
        /// Words of the command
        words: Vec<String>,
    },
    /// Ask a peer whether it is alive: ADDRESS
    Probe {
        /// Words of the command
        words: Vec<String>,
    },
}

/// Parses the command line, runs the command, returns its exit status: 0 done, 1 refused or failed, 2 wrong command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to stdout with status 0, errors to stderr with 2.
            let code = e.exit_code();
            let _ = e.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(USAGE));
        }
    };
    let (verb, words) = match cli.command {
        Top::Run { config, log } => return run(&config, &log),
        Top::Check { file, partner } => return check(&file, partner.as_deref(), cli.json),
        Top::Show { words } => ("show", words),
        Top::Clear { words } => ("clear", words),
        Top::Debug { words } => ("debug", words),
        Top::Undebug { words } => ("undebug", words),
        Top::No { words } => ("no", words),
        Top::Switchover => ("switchover", Vec::new()),
        Top::Rekey { words } => ("rekey", words),
        Top::Initiate { words } => ("initiate", words),
        Top::Probe { words } => ("probe", words),
    };
    let argv: Vec<String> = std::iter::once(verb.to_owned()).chain(words).collect();
    ask(cli.socket, &argv, cli.json)
}

fn run(path: &Path, level: &str) -> ExitCode {
    if let Err(e) = logging::init(level) {
        return fail(&e);
    }
    let config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match crate::daemon::run(config, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&format!("{e:#}")),
    }
}

/// Loads a manifest, or prints its errors.
fn load(path: &Path) -> Result<Config, ExitCode> {
    config::load(path).map_err(|errors| {
        for e in &errors {
            say_error(&e.to_string());
        }
        say_error(&format!("{}: {} refused", path.display(), count(errors.len(), "item")));
        ExitCode::FAILURE
    })
}

fn check(file: &Path, partner: Option<&Path>, json: bool) -> ExitCode {
    let files: Vec<&Path> = std::iter::once(file).chain(partner).collect();
    let loaded: Vec<Result<Config, Vec<ConfigError>>> = files.iter().map(|p| config::load(p)).collect();
    let mut errors: Vec<String> = Vec::new();
    let mut warnings: Vec<String> = Vec::new();
    for one in &loaded {
        match one {
            Ok(c) => warnings.extend(c.warnings.iter().cloned()),
            Err(list) => errors.extend(list.iter().map(ToString::to_string)),
        }
    }
    if let [Ok(a), Ok(b)] = loaded.as_slice() {
        errors.extend(config::pair(a, b));
    }
    if json {
        let answer = serde_json::json!({ "ok": errors.is_empty(), "errors": errors, "warnings": warnings });
        say(&format!("{answer:#}\n"));
    } else {
        for w in &warnings {
            say(&format!("warning: {w}\n"));
        }
        for e in &errors {
            say_error(e);
        }
        let names: Vec<String> = files.iter().map(|p| p.display().to_string()).collect();
        if errors.is_empty() {
            say(&format!("{}: ok, {}\n", names.join(" and "), count(warnings.len(), "warning")));
        } else {
            say_error(&format!("{}: {}", names.join(" and "), count(errors.len(), "error")));
        }
    }
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sends a command to the daemon and prints its answer.
fn ask(socket: Option<PathBuf>, argv: &[String], json: bool) -> ExitCode {
    if argv.last().is_some_and(|w| w == "?") {
        say(&help(argv.first().map_or("", String::as_str)));
        return ExitCode::SUCCESS;
    }
    // A wrong word is answered here, without a daemon.
    let full = match command::parse_words(argv) {
        Ok((_, full)) => full,
        Err(e) => {
            say_error(&e);
            return ExitCode::from(USAGE);
        }
    };
    let path = socket
        .or_else(|| std::env::var_os(SOCKET_ENV).filter(|s| !s.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(config::CONTROL_SOCKET));
    let answer = match control::call(&path, &ControlRequest { argv: full, json }) {
        Ok(answer) => answer,
        Err(e) => {
            return fail(&format!(
                "cannot reach the daemon at {}: {e}; start it with `gateway run --config FILE`, or name its socket with --socket",
                path.display()
            ));
        }
    };
    print_answer(&answer, json)
}

fn print_answer(answer: &ControlResponse, json: bool) -> ExitCode {
    if !answer.ok {
        return fail(&answer.error);
    }
    if json {
        say(&format!("{:#}\n", answer.json));
    } else {
        say(&answer.text);
        if !answer.text.is_empty() && !answer.text.ends_with('\n') {
            say("\n");
        }
    }
    ExitCode::SUCCESS
}

/// The commands that begin with `verb`.
fn help(verb: &str) -> String {
    let verb = if verb == "no" { "debug" } else { verb };
    let rows: Vec<(String, &str)> = command::commands().into_iter().filter(|(c, _)| c.split(' ').next() == Some(verb)).collect();
    let width = rows.iter().map(|(c, _)| c.len()).max().unwrap_or(0);
    rows.iter().map(|(c, h)| format!("{c:<width$}  {h}\n")).collect()
}

fn count(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

fn fail(text: &str) -> ExitCode {
    say_error(text);
    ExitCode::FAILURE
}

/// Writes to stdout. A reader that went away (`| head`) is not an error.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn say_error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_or_after_the_words() {
        for line in ["gateway --json show ssp peers", "gateway show ssp peers --json", "gateway sh ssp --json peers"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(cli.json);
            assert!(matches!(cli.command, Top::Show { words } if words == ["ssp", "peers"]), "{line}");
        }
    }

    #[test]
    fn every_first_word_of_the_grammar_is_a_subcommand() {
        let known: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for (c, _) in command::commands() {
            let first = c.split(' ').next().unwrap_or_default().to_owned();
            assert!(known.contains(&first), "{first}");
        }
    }

    #[test]
    fn help_lists_what_there_is() {
        let text = help("rekey");
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("rekey ipsec peer ADDRESS"));
        assert!(help("no").contains("debug ssp [fsm | socket"));
    }
}
