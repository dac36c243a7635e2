//! Logs: to stderr, filtered by `--log`, widened at run time by the guide's `debug` commands.

use super::command::{DEBUG, DebugTopic};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

struct State {
    level: String,
    on: Mutex<BTreeSet<DebugTopic>>,
    handle: reload::Handle<EnvFilter, Registry>,
}

static STATE: OnceLock<State> = OnceLock::new();

/// Log target of a debug topic: `debug::crypto_isakmp_ha::fsm`. Code logs there with `tracing::debug!(target: …)`.
pub fn target(topic: &DebugTopic) -> String {
    let area = topic.area.replace(' ', "_");
    match topic.part {
        Some(part) => format!("debug::{area}::{part}"),
        None => format!("debug::{area}"),
    }
}

/// Starts logging. The error names the word of `level` that is wrong.
pub fn init(level: &str) -> Result<(), String> {
    let (layer, handle) = reload::Layer::new(filter(level, &BTreeSet::new())?);
    let text = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(layer).with(text).try_init().map_err(|e| format!("cannot start logging: {e}"))?;
    let _ = STATE.set(State { level: level.to_owned(), on: Mutex::new(BTreeSet::new()), handle });
    Ok(())
}

/// Carries out `debug …` and `undebug …`; `None` = all topics. Gives the topics that are on afterwards.
pub fn debug(on: bool, topic: Option<&DebugTopic>) -> Result<Vec<String>, String> {
    let Some(state) = STATE.get() else {
        return Err("logging was not started".to_owned());
    };
    let mut set = state.on.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut set, on, topic);
    let new = filter(&state.level, &set)?;
    state.handle.reload(new).map_err(|e| format!("cannot change the log filter: {e}"))?;
    Ok(set.iter().map(words).collect())
}

/// Topics that are on, in the guide's words.
pub fn debugging() -> Vec<String> {
    STATE.get().map_or_else(Vec::new, |s| s.on.lock().unwrap_or_else(PoisonError::into_inner).iter().map(words).collect())
}

fn words(topic: &DebugTopic) -> String {
    match topic.part {
        Some(part) => format!("{} {part}", topic.area),
        None => topic.area.to_owned(),
    }
}

fn change(set: &mut BTreeSet<DebugTopic>, on: bool, topic: Option<&DebugTopic>) {
    match (on, topic) {
        (true, Some(t)) => {
            set.insert(t.clone());
        }
        (true, None) => set.extend(DEBUG.iter().map(|(area, _)| DebugTopic { area, part: None })),
        (false, None) => set.clear(),
        // Off for an area takes its parts along.
        (false, Some(t)) => set.retain(|o| o.area != t.area || (t.part.is_some() && o.part != t.part)),
    }
}

fn filter(level: &str, on: &BTreeSet<DebugTopic>) -> Result<EnvFilter, String> {
    let mut filter = EnvFilter::try_new(format!("{level},debug=off"))
        .map_err(|e| format!("`{level}` is no log filter: {e}; use error, warn, info, debug, trace, or `target=level,…`"))?;
    for topic in on {
        let directive = format!("{}=trace", target(topic)).parse().map_err(|e| format!("cannot change the log filter: {e}"))?;
        filter = filter.add_directive(directive);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(area: &'static str, part: Option<&'static str>) -> DebugTopic {
        DebugTopic { area, part }
    }

    #[test]
    fn topics_come_and_go() {
        let mut set = BTreeSet::new();
        change(&mut set, true, Some(&topic("ssp", Some("fsm"))));
        change(&mut set, true, Some(&topic("ssp", Some("packet"))));
        change(&mut set, true, Some(&topic("crypto ipsec ha", None)));
        change(&mut set, false, Some(&topic("ssp", Some("fsm"))));
        assert_eq!(set.iter().map(words).collect::<Vec<_>>(), ["crypto ipsec ha", "ssp packet"]);
        change(&mut set, false, Some(&topic("ssp", None)));
        assert_eq!(set.iter().map(words).collect::<Vec<_>>(), ["crypto ipsec ha"]);
        change(&mut set, true, None);
        assert_eq!(set.len(), 3);
        change(&mut set, false, None);
        assert!(set.is_empty());
    }

    #[test]
    fn filters() {
        let on = BTreeSet::from([topic("crypto isakmp ha", Some("fsm"))]);
        let text = filter("info", &on).unwrap().to_string();
        assert!(text.contains("debug::crypto_isakmp_ha::fsm=trace"), "{text}");
        assert!(filter("loud=noise", &on).is_err());
    }
}
