//! The product's log lines and the world's own events, kept for the report of a violation.

use super::clock::Time;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines kept.
const LINES_MAX: usize = 160;

#[derive(Default)]
struct Lines {
    who: &'static str,
    lines: VecDeque<String>,
    errors: Vec<String>,
    digest: u64,
}

/// The recorder. Clones share it.
#[derive(Clone)]
pub struct Trace {
    time: Time,
    lines: Arc<Mutex<Lines>>,
    echo: bool,
}

impl Trace {
    /// An empty one. `SIM_ECHO=1` in the environment prints every line at once.
    pub fn new(time: Time) -> Self {
        Self { time, lines: Arc::default(), echo: std::env::var_os("SIM_ECHO").is_some() }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is.
    pub fn who(&self, who: &'static str) {
        self.lock().who = who;
    }

    /// A line of the world.
    pub fn line(&self, text: impl fmt::Display) {
        let at = self.time.now();
        let mut l = self.lock();
        let line = format!("{:>3}.{:06} {:<6} {text}", at / 1_000_000_000, at / 1000 % 1_000_000, l.who);
        if self.echo {
            eprintln!("{line}");
        }
        for b in line.bytes() {
            l.digest = (l.digest ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        }
        if l.lines.len() >= LINES_MAX {
            l.lines.pop_front();
        }
        l.lines.push_back(line);
    }

    /// What was kept.
    pub fn text(&self) -> String {
        self.lock().lines.iter().fold(String::new(), |mut s, l| {
            let _ = writeln!(s, "  {l}");
            s
        })
    }

    /// Errors logged by the product since the last call.
    pub fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().errors)
    }

    /// Fingerprint of every line so far: equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.lock().digest
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" { write!(self.0, "{value:?} ") } else { write!(self.0, "{}={value:?} ", field.name()) };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, "{}={value} ", field.name());
    }
}

impl Subscriber for Trace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.line(format_args!("{} {}", level.as_str().to_lowercase(), text.0));
        if level == Level::ERROR {
            self.lock().errors.push(text.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
