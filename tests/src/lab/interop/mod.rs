//! The pair against peers that are not ours: every scenario of a table, each implementation, each started from both ends, and after each
//! a failover and the next rekeys. What it found is a matrix.

mod matrix;
mod plays;
mod v1;
mod v2;
mod world;

pub use matrix::{Cell, Matrix};
pub use world::{Places, Spec, World};

use super::peer::Implementation;
use super::scenario::Initiator;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Instant;

/// What to run.
pub struct Options {
    /// Folder for logs, captures, manifests.
    pub dir: PathBuf,
    /// The `gateway` binary.
    pub gateway: PathBuf,
    /// Folder of the example manifests.
    pub examples: PathBuf,
    /// Where libreswan was unpacked; `None` leaves it out.
    pub libreswan: Option<PathBuf>,
    /// Rows of the table; empty: all.
    pub rows: Vec<u8>,
    /// Only the rows of this version of IKE.
    pub version: Option<u8>,
    /// Peers.
    pub peers: Vec<Implementation>,
}

/// One row, or one variant of it.
pub struct Case {
    /// Number in the table of scenarios.
    pub row: u8,
    /// What it shows.
    pub title: &'static str,
    /// How it is set up with a peer, or why it cannot be.
    pub build: fn(Implementation) -> Result<Spec, &'static str>,
}

/// Why a case says nothing when it is started from this end.
#[derive(Debug)]
pub struct NotApplicable(pub &'static str);

impl std::fmt::Display for NotApplicable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotApplicable {}

/// Runs the cases asked for, one after the other; prints each result as it comes.
pub fn run(options: &Options) -> Matrix {
    let mut matrix = Matrix::default();
    for (n, case) in v1::cases().into_iter().chain(v2::cases()).enumerate() {
        let version = if n < v1::cases().len() { 1 } else { 2 };
        if options.version.is_some_and(|v| v != version) {
            continue;
        }
        if !options.rows.is_empty() && !options.rows.contains(&case.row) {
            continue;
        }
        for kind in &options.peers {
            let begin = Instant::now();
            let cells = match (case.build)(*kind) {
                Err(reason) => [Cell::NotApplicable(reason.to_owned()), Cell::NotApplicable(reason.to_owned())],
                Ok(spec) => both_ends(options, &case, n, *kind, &spec),
            };
            let seconds = begin.elapsed().as_secs_f64();
            for (starter, cell) in [Initiator::Peer, Initiator::Gateway].into_iter().zip(cells) {
                println!("row {:>2} {} | {} | {} starts: {}", case.row, case.title, kind.name(), starter.name(), cell.line());
                matrix.add(case.row, case.title, *kind, starter, cell);
            }
            println!("  {seconds:.1} s");
        }
    }
    matrix
}

/// One case with one peer, started from each end in turn.
fn both_ends(options: &Options, case: &Case, number: usize, kind: Implementation, spec: &Spec) -> [Cell; 2] {
    let mut world = None;
    [Initiator::Peer, Initiator::Gateway].map(|starter| {
        let dir = options.dir.join(format!("{:02}-{number}-{}-{}", case.row, kind.name(), starter.name()));
        let mut steps = Vec::new();
        let outcome = one(options, spec, kind, starter, &dir, &mut world, &mut steps);
        println!("    {}", steps.iter().map(|(name, ms)| format!("{name} {ms} ms")).collect::<Vec<_>>().join(", "));
        match outcome {
            Ok(()) => Cell::Pass,
            Err(error) => match error.downcast_ref::<NotApplicable>() {
                Some(NotApplicable(why)) => Cell::NotApplicable((*why).to_owned()),
                None => Cell::Fail(format!("{error:#}")),
            },
        }
    })
}

fn one(
    options: &Options,
    spec: &Spec,
    kind: Implementation,
    starter: Initiator,
    dir: &std::path::Path,
    slot: &mut Option<World>,
    steps: &mut Vec<(String, u64)>,
) -> Result<()> {
    let places = Places { gateway: &options.gateway, examples: &options.examples, libreswan: options.libreswan.as_deref() };
    let mut world = match slot.take() {
        Some(world) => world,
        None => {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            World::start(spec, kind, &places, dir)?
        }
    };
    let outcome = world.step("settle", World::whole).and_then(|()| (spec.play)(&mut world, starter));
    steps.append(&mut world.steps);
    outcome?;
    if starter == Initiator::Gateway {
        return world.conclude();
    }
    *slot = Some(world);
    Ok(())
}
