//! Every file under `config/`: the examples load, the invalid ones are refused with exactly the expected errors.
#![expect(clippy::unwrap_used, reason = "tests")]

use gateway_user::config::{self, Config};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("config")
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn load(file: &str) -> Config {
    config::load(&folder().join(file)).unwrap_or_else(|e| panic!("{file}: {}", e.iter().map(|e| format!("{e}\n")).collect::<String>()))
}

/// Warnings without the folder of this checkout, and without those on the mode that a checkout gives files.
fn warnings(file: &str) -> Vec<String> {
    let prefix = format!("{}/", folder().display());
    load(file).warnings.iter().map(|w| w.replace(&prefix, "")).filter(|w| !w.contains("is open to everybody")).collect()
}

#[test]
fn every_example_loads_and_only_the_guides_own_are_warned_of() {
    let names: BTreeSet<String> = yaml_files(&folder()).iter().map(|p| name(p)).collect();
    for wanted in
        ["example-1.yaml", "example-2.yaml", "example-1-guide.yaml", "example-2-guide.yaml", "gateway.example.yaml", "minimal.yaml"]
    {
        assert!(names.contains(wanted), "{wanted} is missing");
    }
    for n in names {
        let got = warnings(&n);
        assert_eq!(got.is_empty(), !n.ends_with("-guide.yaml"), "{n}: {got:#?}");
    }
}

#[test]
fn the_guides_weak_choices_are_warned_of_one_by_one() {
    for n in ["example-1-guide.yaml", "example-2-guide.yaml"] {
        let got = warnings(n);
        let places: Vec<&str> = got.iter().map(|w| w.split(": ").nth(1).unwrap()).collect();
        assert_eq!(
            places,
            [
                "crypto.isakmp.policy.1.encryption",
                "crypto.isakmp.policy.1.hash",
                "crypto.isakmp.policy.1.group",
                "crypto.isakmp.key[0].secret",
                "crypto.isakmp.key[0].secret",
                "crypto.ipsec.transform_set.TRANSFORMSET_1.transforms[0]",
                "crypto.ipsec.transform_set.TRANSFORMSET_1.transforms[1]",
            ]
        );
        for (warning, stronger) in
            got.iter().zip(["aes-256", "sha256", "14 or higher", "secret_file", "openssl rand", "esp-aes-256", "esp-sha256-hmac"])
        {
            assert!(warning.contains(stronger), "{warning}: does not name {stronger}");
        }
    }
}

#[test]
fn the_examples_make_pairs() {
    for (a, b) in [("example-1.yaml", "example-2.yaml"), ("example-1-guide.yaml", "example-2-guide.yaml")] {
        assert_eq!(config::pair(&load(a), &load(b)), Vec::<String>::new(), "{a} and {b}");
    }
    assert!(!config::pair(&load("example-1.yaml"), &load("example-2-guide.yaml")).is_empty());
}

#[test]
fn the_reference_manifest_has_every_key() {
    // Whatever the loader takes must stand in the reference: it names all keys when it meets an unknown one.
    let text = fs::read_to_string(folder().join("gateway.example.yaml")).unwrap();
    let tree: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let mut checked = 0;
    probe(&tree, &mut Vec::new(), &text, &mut checked);
    assert!(checked > 15, "only {checked} mappings were looked at");
}

/// Adds an unknown key to each mapping in turn; the error lists the valid ones, and each must be in the reference.
fn probe(at: &serde_yaml::Value, path: &mut Vec<serde_yaml::Value>, text: &str, checked: &mut usize) {
    match at {
        serde_yaml::Value::Mapping(map) => {
            let mut tree: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
            let mut here = &mut tree;
            for step in path.iter() {
                here = match step.as_u64() {
                    Some(n) if here.is_sequence() => here.get_mut(n as usize).unwrap(),
                    Some(_) | None => here.get_mut(step).unwrap(),
                };
            }
            here.as_mapping_mut().unwrap().insert("zzzzzz".into(), true.into());
            let errors = config::parse(&serde_yaml::to_string(&tree).unwrap(), "x", &mut |_| Ok(b"0123456789abcdef-unit-test".to_vec()))
                .err()
                .unwrap_or_default();
            for e in errors.iter().filter(|e| e.cause == "unknown key `zzzzzz`") {
                let Some(list) = e.cure.strip_prefix("valid: ") else { continue };
                *checked += 1;
                for key in list.split(", ").filter(|k| !matches!(*k, "keepalive" | "keyring" | "dynamic" | "ipsec-manual" | "secret")) {
                    let found = map.contains_key(key) || text.contains(&format!("{key}:"));
                    assert!(found, "{}: `{key}` is not in the reference", e.path);
                }
            }
            for (k, v) in map {
                path.push(k.clone());
                probe(v, path, text, checked);
                path.pop();
            }
        }
        serde_yaml::Value::Sequence(items) => {
            for (n, v) in items.iter().enumerate() {
                path.push(n.into());
                probe(v, path, text, checked);
                path.pop();
            }
        }
        _ => {}
    }
}

#[test]
fn invalid_manifests_are_refused_with_exactly_the_expected_errors() {
    let folder = folder().join("invalid");
    let files = yaml_files(&folder);
    assert!(files.len() >= 90, "only {} files", files.len());
    let prefix = format!("{}/", folder.display());
    let mut wrong = String::new();
    for file in &files {
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap_or_default();
        let got: String = match config::load(file) {
            Ok(_) => "it was accepted\n".to_owned(),
            Err(errors) => errors.iter().map(|e| format!("{e}\n").replace(&prefix, "")).collect(),
        };
        if got != expected {
            wrong.push_str(&format!("{}\nexpected:\n{expected}got:\n{got}\n", name(file)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_expected_error_has_a_place_a_cause_and_a_cure() {
    for entry in fs::read_dir(folder().join("invalid")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "expected") {
            continue;
        }
        assert!(path.with_extension("yaml").exists(), "{} has no manifest", path.display());
        for line in fs::read_to_string(&path).unwrap().lines() {
            let mut parts = line.splitn(4, ':');
            assert!(parts.next().is_some_and(|f| f.ends_with(".yaml")), "{line}");
            for number in [parts.next(), parts.next()] {
                assert!(number.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n >= 1), "{line}");
            }
            assert!(parts.next().is_some_and(|rest| rest.contains("; ") && !rest.ends_with("; ")), "{line}");
        }
    }
}

#[test]
fn a_missing_manifest_is_named_with_a_cure() {
    let errors = config::load(Path::new("no/such/file.yaml")).unwrap_err();
    assert!(errors[0].to_string().starts_with("no/such/file.yaml:1:1: cannot read the manifest: "), "{}", errors[0]);
}

#[test]
fn an_open_secret_file_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("gateway-manifests-{}", std::process::id()));
    fs::create_dir_all(dir.join("secrets")).unwrap();
    fs::copy(folder().join("minimal.yaml"), dir.join("gw.yaml")).unwrap();
    for (file, mode) in [("example-ssp", 0o600), ("example-psk", 0o644)] {
        let to = dir.join("secrets").join(file);
        fs::copy(folder().join("secrets").join(file), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
    }
    let warnings = config::load(&dir.join("gw.yaml")).unwrap().warnings;
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("example-psk is open to everybody (mode 644); run `chmod 600` on it"), "{warnings:?}");
}
