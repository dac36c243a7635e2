//! Embeds the eBPF object that `cargo xtask setup` builds.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=GATEWAY_EBPF_OBJECT");
    println!("cargo:rerun-if-changed=build.rs");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("gateway-ebpf.o");
    let object = match env::var_os("GATEWAY_EBPF_OBJECT") {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo:rerun-if-changed={}", path.display());
            path
        }
        None => {
            // The folder is watched, not the file: cargo would rebuild for ever while a watched file does not exist.
            let folder = manifest.parent().unwrap_or(Path::new("/")).join("target/ebpf");
            // Without the folder the warning below says what to do.
            let _ = fs::create_dir_all(&folder);
            println!("cargo:rerun-if-changed={}", folder.display());
            folder.join("gateway-ebpf.o")
        }
    };
    let bytes = fs::read(&object).unwrap_or_else(|_| {
        println!("cargo:warning=no eBPF object at {}: run cargo xtask setup", object.display());
        Vec::new()
    });
    fs::write(&out, bytes).expect("OUT_DIR is writable");
}
