//! Replays the corpus and seeded mutations of it through every fuzz target. An input that ever failed stays in `corpus`.

use gateway_tests::fuzz::{TARGETS, Target, mutate};
use gateway_tests::sim::dice::Dice;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutated inputs for each target, or as many as fit the time: the simulation of a slow machine covers less, and says so.
const MUTATIONS: u64 = 20_000;
const TIME_MAX: Duration = Duration::from_secs(10);

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|e| e.expect("entry").path())
        .map(|p| (p.clone(), std::fs::read(p).expect("readable")))
        .collect();
    files.sort();
    files
}

fn run(name: &str) {
    let target = gateway_tests::fuzz::target(name).expect("a target");
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "a target without valid inputs tests refusals only");
    let files = corpus(target);
    assert!(!files.is_empty(), "{name} has no corpus");
    inputs.extend(files.into_iter().map(|(_, bytes)| bytes));
    for input in &inputs {
        (target.run)(input);
    }
    let begin = Instant::now();
    let mut done = 0;
    for seed in 0..MUTATIONS {
        if begin.elapsed() > TIME_MAX {
            break;
        }
        let mut dice = Dice::new(seed, 0xf022);
        let pick = |dice: &mut Dice| dice.range(0..=inputs.len() as u64 - 1) as usize;
        let (a, b) = (pick(&mut dice), pick(&mut dice));
        let input = mutate(&inputs[a], &inputs[b], &mut dice);
        let hex = || input.iter().map(|b| format!("{b:02x}")).collect::<String>();
        if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
            panic!("{name}, seed {seed}: put these bytes into corpus/{name}: {}", hex());
        }
        done += 1;
    }
    println!("{name}: {} inputs, {done} mutations", inputs.len());
    assert!(done >= 50, "{name}: {done} mutations in {TIME_MAX:?}");
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { run(stringify!($name)); })*
        #[test]
        fn every_target_is_replayed() {
            let here = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), here);
        }
    };
}

targets!(
    ikev1_message,
    ikev2_message,
    ikev2_content,
    ikev2_fragments,
    ikev1_engine,
    ikev2_engine,
    ike_record,
    child_record,
    certificate,
    ssp_stream,
    hsrp_packet,
    manifest,
    classify
);
