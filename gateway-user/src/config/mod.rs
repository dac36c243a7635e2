//! The YAML manifest: strict loading with positions, the checked model, digests.
//!
//! `serde_yaml` reads the tree, `index` knows where every key stands, `decode` and `raw` give it types, `check` gives it meaning.
//! Only `load` touches files.

mod acl;
mod check;
mod decode;
mod digest;
mod identity;
mod index;
mod load;
mod model;
mod pair;
mod raw;
mod report;
mod secrets;
mod values;
mod words;

pub use check::CONTROL_SOCKET;
pub use digest::map_entry as map_entry_digest;
pub use identity::identity_text;
pub use load::load;
pub use model::*;
pub use pair::pair;
pub use report::{ConfigError, nearest};
pub use words::{encr_word, ikev2_encr_word, ikev2_integ_word, ikev2_prf_word, integ_word};

#[cfg(test)]
mod ikev2_tests;
#[cfg(test)]
mod isakmp_tests;
#[cfg(test)]
mod tests;

use decode::Decode;
use index::Index;
use report::{KeyPath, Report};
use secrets::{Reader, SecretFile, Secrets};
use std::io;
use std::path::{Path, PathBuf};

/// Checks a manifest. `file` names it in errors, and its folder is where relative names of secret files start; `secrets` reads
/// such a file. Pure but for what `secrets` does.
pub fn parse(text: &str, file: &str, secrets: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>) -> Result<Config, Vec<ConfigError>> {
    parse_with(text, file, &mut |path, _| Ok(SecretFile { bytes: secrets(path)?, open_mode: None }))
}

fn parse_with(text: &str, file: &str, read: &mut Reader<'_>) -> Result<Config, Vec<ConfigError>> {
    let mut index = match Index::build(text) {
        Ok(index) => index,
        Err(e) => {
            return Err(vec![ConfigError {
                file: file.to_owned(),
                line: e.mark.line,
                column: e.mark.column,
                path: String::new(),
                cause: e.cause,
                cure: e.cure,
            }]);
        }
    };
    let duplicates = std::mem::take(&mut index.duplicates);
    let mut report = Report::new(file, index);
    for d in duplicates {
        let cause = format!("key stands twice, first in line {}", d.first.line);
        report.error_at(d.second, &d.path, cause, "keep one of them");
    }
    if !report.is_clean() {
        return Err(report.finish().err().unwrap_or_default());
    }
    let root = KeyPath::default();
    let tree: serde_yaml::Value = match serde_yaml::from_str(text) {
        Ok(tree) => tree,
        Err(e) => {
            let mark = e.location().map(|l| index::Mark { line: l.line(), column: l.column() });
            let mark = mark.unwrap_or(index::Mark { line: 1, column: 1 });
            report.error_at(mark, &root, format!("not YAML: {e}"), "correct the line named here");
            return Err(report.finish().err().unwrap_or_default());
        }
    };
    let base = Path::new(file).parent().map(PathBuf::from).unwrap_or_default();
    let mut secrets = Secrets { base, read };
    let config = raw::Manifest::decode(&tree, &root, &mut report).and_then(|m| check::check(&m, &mut secrets, &mut report));
    let warnings = report.finish()?;
    match config {
        Some(config) => Ok(Config { warnings, ..config }),
        // Unreachable while every refusal is reported; said plainly rather than assumed.
        None => Err(vec![ConfigError {
            file: file.to_owned(),
            line: 1,
            column: 1,
            path: String::new(),
            cause: "the manifest was refused without a reason".to_owned(),
            cure: "report this as a bug, with the manifest".to_owned(),
        }]),
    }
}
