//! libFuzzer over one of the targets, named by `GATEWAY_FUZZ_TARGET`. `GATEWAY_FUZZ_SEEDS`: a folder for its valid inputs.
#![no_main]

use gateway_tests::fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("GATEWAY_FUZZ_TARGET").unwrap_or_default();
    let target = target(&name).unwrap_or_else(|| panic!("GATEWAY_FUZZ_TARGET: there is no target `{name}`"));
    if let Ok(dir) = std::env::var("GATEWAY_FUZZ_SEEDS") {
        for (n, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(format!("{dir}/seed-{n:03}"), seed).expect("seed");
        }
    }
    target
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
