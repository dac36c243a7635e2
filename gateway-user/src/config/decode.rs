//! From the YAML tree to typed raw structures, noting every unknown key and wrong type with its place.

use super::report::{KeyPath, Report, one_of};
use serde_yaml::Value;

/// A raw value that can be read from YAML. `None` when it was refused; the report then holds the error.
pub(super) trait Decode: Sized {
    /// Reads `value`, which stands at `path`.
    fn decode(value: &Value, path: &KeyPath, report: &mut Report) -> Option<Self>;
}

/// A scalar as it was written; its meaning is decided by the checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// Text without quotes.
    pub(super) text: String,
    /// Where it stands.
    pub(super) path: KeyPath,
}

/// A mapping with free keys, in order of the manifest.
#[derive(Clone, Debug)]
pub(super) struct Table<T>(pub(super) Vec<(Word, T)>);

/// What a value is, for messages.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a word",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

/// Text of a scalar by its value, used where the index has none.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(s.clone()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

impl Decode for Word {
    fn decode(value: &Value, path: &KeyPath, report: &mut Report) -> Option<Self> {
        let Some(by_value) = scalar(value) else {
            report.error(path, format!("{} stands where a single value belongs", kind(value)), "write one value here");
            return None;
        };
        let text = report.index.text(path).map_or(by_value, str::to_owned);
        Some(Self { text, path: path.clone() })
    }
}

impl Decode for bool {
    fn decode(value: &Value, path: &KeyPath, report: &mut Report) -> Option<Self> {
        if let Value::Bool(b) = value {
            return Some(*b);
        }
        report.error(path, format!("{} stands where true or false belongs", kind(value)), "write `true` or `false`");
        None
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: &Value, path: &KeyPath, report: &mut Report) -> Option<Self> {
        let Value::Sequence(items) = value else {
            report.error(path, format!("{} stands where a list belongs", kind(value)), "write `[a, b]`, or one `- item` a line");
            return None;
        };
        Some(items.iter().enumerate().filter_map(|(n, v)| T::decode(v, &path.item(n), report)).collect())
    }
}

/// Keys and values of a mapping, each key with its text; anything else is reported.
pub(super) fn mapping<'v>(value: &'v Value, path: &KeyPath, report: &mut Report) -> Option<Vec<(String, &'v Value)>> {
    let Value::Mapping(map) = value else {
        report.error(path, format!("{} stands where a mapping belongs", kind(value)), "write `key: value` lines, indented below");
        return None;
    };
    let mut out = Vec::with_capacity(map.len());
    for (k, v) in map {
        match scalar(k) {
            Some(name) => out.push((name, v)),
            None => report.error_key(path, format!("{} stands where a key belongs", kind(k)), "write the key as a plain word"),
        }
    }
    Some(out)
}

impl<T: Decode> Decode for Table<T> {
    fn decode(value: &Value, path: &KeyPath, report: &mut Report) -> Option<Self> {
        let mut out = Vec::new();
        for (name, v) in mapping(value, path, report)? {
            let at = path.key(&name);
            if let Some(item) = T::decode(v, &at, report) {
                out.push((Word { text: name, path: at }, item));
            }
        }
        Some(Self(out))
    }
}

/// Reports a key nobody knows.
pub(super) fn unknown_key(name: &str, path: &KeyPath, valid: &[&str], report: &mut Report) {
    report.error_key(&path.key(name), format!("unknown key `{name}`"), one_of(name, valid));
}

/// Declares a raw structure whose keys are its fields, all optional, and how it is read. `path` is where it stands.
macro_rules! raw {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $key:literal => $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            /// Where it stands.
            pub(super) path: $crate::config::report::KeyPath,
            $($(#[$fmeta])* pub(super) $field: Option<$ty>,)*
        }

        impl $name {
            /// Keys it takes.
            pub(super) const KEYS: &[&str] = &[$($key),*];
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                value: &serde_yaml::Value,
                path: &$crate::config::report::KeyPath,
                report: &mut $crate::config::report::Report,
            ) -> Option<Self> {
                let mut out = Self { path: path.clone(), ..Self::default() };
                for (name, v) in $crate::config::decode::mapping(value, path, report)? {
                    let at = out.path.key(&name);
                    match name.as_str() {
                        // A key without a value counts as absent.
                        $($key => if !v.is_null() {
                            out.$field = $crate::config::decode::Decode::decode(v, &at, report);
                        })*
                        _ => $crate::config::decode::unknown_key(&name, path, Self::KEYS, report),
                    }
                }
                Some(out)
            }
        }
    };
}
pub(super) use raw;
