//! Module daemon.

pub mod metrics;
pub mod render;
pub mod views;

/// Runs the gateway in the foreground until it is told to stop. `path` is the manifest that `config` came from.
pub fn run(config: crate::config::Config, path: &std::path::Path) -> anyhow::Result<()> {
    anyhow::bail!("{}: {}: this build has no daemon", path.display(), config.hostname)
}
