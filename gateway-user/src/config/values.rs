//! Meaning of single values: durations, sizes, addresses, names. Names of algorithms stand in `words`.

use super::decode::Word;
use super::report::{Report, one_of};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Units a duration may have.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A duration in the largest unit that gives a whole number (`500ms`, `3s`, `24h`).
pub(super) fn show_duration(d: Duration) -> String {
    let ms = d.as_millis();
    for (unit, factor) in UNITS.iter().rev() {
        if ms > 0 && ms.is_multiple_of(u128::from(*factor)) {
            return format!("{}{unit}", ms / u128::from(*factor));
        }
    }
    "0s".to_owned()
}

/// Reads `500ms`, `3s`, `30m`, `24h` (zero may stand without unit); `Err` holds cause and cure.
fn parse_duration(text: &str) -> Result<Duration, (String, String)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        return Err((format!("`{text}` is not a duration"), "write a whole number and a unit: `500ms`, `3s`, `30m`, `24h`".to_owned()));
    };
    let unit = unit.trim();
    if unit.is_empty() {
        if number == 0 {
            return Ok(Duration::ZERO);
        }
        return Err((format!("`{text}` has no unit"), format!("write `{number}s` for seconds or `{number}ms` for milliseconds")));
    }
    let Some((_, factor)) = UNITS.iter().find(|(u, _)| *u == unit) else {
        return Err((format!("`{unit}` is no unit of time"), "use ms, s, m or h".to_owned()));
    };
    match number.checked_mul(*factor) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err((format!("`{text}` is too long"), "write a shorter time".to_owned())),
    }
}

/// A duration within `range`.
pub(super) fn duration(word: &Word, range: RangeInclusive<Duration>, report: &mut Report) -> Option<Duration> {
    match parse_duration(&word.text) {
        Ok(d) if range.contains(&d) => Some(d),
        Ok(_) => {
            let (min, max) = (show_duration(*range.start()), show_duration(*range.end()));
            report.error(&word.path, format!("`{}` is out of range", word.text), format!("use {min} to {max}"));
            None
        }
        Err((cause, cure)) => {
            report.error(&word.path, cause, cure);
            None
        }
    }
}

/// A whole number within `range`; a trailing `k` or `M` multiplies by 1024 or 1 048 576.
pub(super) fn size(word: &Word, range: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
    let (digits, factor) = match word.text.strip_suffix(['k', 'K']) {
        Some(d) => (d, 1024),
        None => word.text.strip_suffix('M').map_or((word.text.as_str(), 1), |d| (d, 1024 * 1024)),
    };
    let value = digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bounded(word, value, range, "a whole number, `k` and `M` allowed", report)
}

/// A whole number within `range`.
pub(super) fn number<T>(word: &Word, range: RangeInclusive<T>, report: &mut Report) -> Option<T>
where
    T: FromStr + PartialOrd + Display,
{
    // Out of the type's own range is out of the wanted range too.
    if word.text.parse::<T>().is_err() && !word.text.is_empty() && word.text.bytes().all(|b| b.is_ascii_digit()) {
        report.error(&word.path, format!("{} is out of range", word.text), format!("use {} to {}", range.start(), range.end()));
        return None;
    }
    bounded(word, word.text.parse().ok(), range, "a whole number", report)
}

fn bounded<T: PartialOrd + Display>(word: &Word, value: Option<T>, range: RangeInclusive<T>, what: &str, report: &mut Report) -> Option<T> {
    match value {
        Some(v) if range.contains(&v) => Some(v),
        Some(v) => {
            report.error(&word.path, format!("{v} is out of range"), format!("use {} to {}", range.start(), range.end()));
            None
        }
        None => {
            report.error(&word.path, format!("`{}` is not {what}", word.text), format!("use {} to {}", range.start(), range.end()));
            None
        }
    }
}

/// An IPv4 address that a host can have.
pub(super) fn address(word: &Word, report: &mut Report) -> Option<Ipv4Addr> {
    match word.text.parse::<Ipv4Addr>() {
        Ok(a) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() => {
            report.error(&word.path, format!("{a} is no address of one host"), "write the address of one host");
            None
        }
        Ok(a) => Some(a),
        Err(_) => {
            report.error(&word.path, format!("`{}` is not an IPv4 address", word.text), "write four numbers: `192.0.2.1`");
            None
        }
    }
}

/// `ADDRESS/LENGTH` of an interface.
pub(super) fn address_prefix(word: &Word, report: &mut Report) -> Option<(Ipv4Addr, u8)> {
    let parsed = word.text.split_once('/').and_then(|(a, p)| Some((a.parse::<Ipv4Addr>().ok()?, p.parse::<u8>().ok()?)));
    let Some((addr, prefix)) = parsed else {
        report.error(&word.path, format!("`{}` is not ADDRESS/LENGTH", word.text), "write `192.0.2.1/24`");
        return None;
    };
    if !(1..=30).contains(&prefix) {
        report.error(
            &word.path,
            format!("a /{prefix} has no room for two nodes and a virtual address"),
            "use a prefix length from 1 to 29",
        );
        return None;
    }
    let net = network(addr, prefix);
    if addr == net || addr == broadcast(addr, prefix) || addr.is_multicast() {
        report.error(&word.path, format!("{addr} is no host's address in {net}/{prefix}"), "use an address inside the subnet");
        return None;
    }
    Some((addr, prefix))
}

/// Mask of a prefix length.
pub(super) const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix as u32) }
}

/// Network of an address.
pub(super) fn network(addr: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(addr) & mask(prefix))
}

/// Broadcast address of an address's network.
pub(super) fn broadcast(addr: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(addr) | !mask(prefix))
}

/// True when `addr` is in the network of `of`/`prefix`.
pub(super) fn in_subnet(addr: Ipv4Addr, of: Ipv4Addr, prefix: u8) -> bool {
    network(addr, prefix) == network(of, prefix)
}

/// A name: a letter or digit, then letters, digits, `_`, `-`, `.`; at most 63 characters.
pub(super) fn name(word: &Word, report: &mut Report) -> Option<String> {
    let ok = word.text.len() <= 63
        && word.text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !ok {
        report.error(&word.path, format!("`{}` is not a name", word.text), "use up to 63 letters, digits, `_`, `-`, `.`");
    }
    ok.then(|| word.text.clone())
}

/// Picks `word` out of a table of names.
pub(super) fn choose<T: Copy>(word: &Word, what: &str, table: &[(&str, T)], report: &mut Report) -> Option<T> {
    let found = table.iter().find(|(n, _)| n.eq_ignore_ascii_case(&word.text)).map(|(_, v)| *v);
    if found.is_none() {
        let names: Vec<&str> = table.iter().map(|(n, _)| *n).collect();
        report.error(&word.path, format!("unknown {what} `{}`", word.text), one_of(&word.text, &names));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("2 m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "-1s", "3", "3 days", "1.5s", "99999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("30").is_err_and(|(_, cure)| cure.contains("`30s`")));
    }

    #[test]
    fn durations_print_as_they_are_written() {
        for text in ["500ms", "3s", "30m", "24h", "90s", "0s"] {
            assert_eq!(parse_duration(text).map(show_duration), Ok(text.to_owned()));
        }
    }

    #[test]
    fn masks() {
        assert_eq!(mask(0), 0);
        assert_eq!(mask(24), 0xffff_ff00);
        assert_eq!(mask(32), u32::MAX);
        assert_eq!(broadcast(Ipv4Addr::new(10, 1, 2, 3), 24), Ipv4Addr::new(10, 1, 2, 255));
        assert!(in_subnet(Ipv4Addr::new(10, 1, 2, 9), Ipv4Addr::new(10, 1, 2, 3), 24));
    }
}
