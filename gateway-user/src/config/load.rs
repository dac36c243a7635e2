//! The only part of the configuration that touches files.

use super::model::Config;
use super::report::ConfigError;
use super::secrets::SecretFile;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Largest manifest, bytes.
const MANIFEST_MAX: u64 = 32 * 1024 * 1024;

/// Reads and checks a manifest with its secret files. Every error names file, line, column, key, cause and cure.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let file = path.display().to_string();
    let text = read_all(path, MANIFEST_MAX)
        .and_then(|b| String::from_utf8(b).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text")));
    match text {
        Ok(text) => super::parse_with(&text, &file, &mut read_secret),
        Err(e) => Err(vec![ConfigError {
            file,
            line: 1,
            column: 1,
            path: String::new(),
            cause: format!("cannot read the manifest: {e}"),
            cure: "name an existing file; config/minimal.yaml is one to begin with".to_owned(),
        }]),
    }
}

fn read_all(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

fn read_secret(path: &Path, max: u64) -> io::Result<SecretFile> {
    let bytes = read_all(path, max)?;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    Ok(SecretFile { bytes, open_mode: (mode & 0o007 != 0).then_some(mode) })
}
