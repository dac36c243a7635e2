//! Whether two manifests make a pair.

use super::model::Config;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What stands against running `a` and `b` as the two nodes of a pair; empty when they fit.
pub fn pair(a: &Config, b: &Config) -> Vec<String> {
    let mut out = Vec::new();
    let index = |c: &Config| -> BTreeMap<String, [u8; 32]> { c.digests.iter().cloned().collect() };
    let (ours, theirs) = (index(a), index(b));
    for (name, digest) in &ours {
        match theirs.get(name) {
            Some(other) if other == digest => {}
            Some(_) => out.push(format!("`{name}` differs: make it the same on both nodes")),
            None => out.push(format!("`{name}` is on {} only: add it to {}", a.hostname, b.hostname)),
        }
    }
    for name in theirs.keys().filter(|n| !ours.contains_key(*n)) {
        out.push(format!("`{name}` is on {} only: add it to {}", b.hostname, a.hostname));
    }
    match (&a.ssp, &b.ssp) {
        (Some(x), Some(y)) => {
            for (here, there, other) in [(x, y, b), (y, x, a)] {
                if here.remote != there.local {
                    out.push(format!(
                        "`ssp {}` names {} as partner, but {} has {}: correct `remote`",
                        here.id, here.remote, other.hostname, there.local
                    ));
                }
            }
            if x.secret != y.secret {
                out.push("the SSP secrets differ: copy one node's file to the other".to_owned());
            }
            if x.port != y.port {
                out.push(format!("the SSP ports differ ({} and {}): use one", x.port, y.port));
            }
        }
        (None, None) => out.push("neither node has an SSP group bound: this is no pair".to_owned()),
        (Some(_), None) | (None, Some(_)) => out.push("one node only has an SSP group bound: bind it on both".to_owned()),
    }
    if a.hostname == b.hostname {
        out.push(format!("both nodes are named {}: give each its own `hostname`", a.hostname));
    }
    addresses(a, b, &mut out);
    out
}

/// Each interface must reach its counterpart, and the same node must have the higher address on all of them.
fn addresses(a: &Config, b: &Config, out: &mut Vec<String>) {
    let mut first: Option<(&str, Ordering)> = None;
    for x in &a.interfaces {
        let Some(y) = b.interfaces.iter().find(|y| y.name == x.name) else {
            out.push(format!("interface `{}` is on {} only: name it alike on both nodes", x.name, a.hostname));
            continue;
        };
        if x.prefix != y.prefix || !super::values::in_subnet(x.address, y.address, x.prefix) {
            out.push(format!("`{}`: {}/{} and {}/{} are not one subnet", x.name, x.address, x.prefix, y.address, y.prefix));
        }
        let order = x.address.cmp(&y.address);
        match (order, first) {
            (Ordering::Equal, _) => out.push(format!("`{}`: both nodes have the address {}", x.name, x.address)),
            (_, Some((name, other))) if other != order && !x.groups.is_empty() => out.push(format!(
                "{} has the higher address on `{}`, {} on `{}`: each would be active on one side; renumber one interface",
                if order == Ordering::Greater { &a.hostname } else { &b.hostname },
                x.name,
                if order == Ordering::Greater { &b.hostname } else { &a.hostname },
                name
            )),
            (_, None) if !x.groups.is_empty() => first = Some((&x.name, order)),
            (_, _) => {}
        }
    }
    for y in &b.interfaces {
        if a.interfaces.iter().all(|x| x.name != y.name) {
            out.push(format!("interface `{}` is on {} only: name it alike on both nodes", y.name, b.hostname));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Config {
        super::super::parse(text, "x", &mut |_| Ok(b"0123456789abcdef-unit-test".to_vec())).unwrap()
    }

    #[test]
    fn the_guides_two_examples_fit() {
        let (a, b) = (load(include_str!("../../../config/example-1.yaml")), load(include_str!("../../../config/example-2.yaml")));
        assert_eq!(pair(&a, &b), Vec::<String>::new());
        let alone = pair(&a, &a);
        assert!(alone.iter().any(|e| e.contains("both nodes have the address 40.0.0.100")), "{alone:?}");
        assert!(alone.iter().any(|e| e.contains("correct `remote`")), "{alone:?}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let a = load(include_str!("../../../config/example-1.yaml"));
        let two = include_str!("../../../config/example-2.yaml");
        for (from, to, want) in [
            ("group: 14", "group: 19", "`crypto isakmp policy 1` differs"),
            ("hostname: 7200-2", "hostname: 7200-1", "both nodes are named 7200-1"),
            ("40.0.0.6/24", "40.0.0.6/25", "are not one subnet"),
            ("40.0.0.6/24", "40.0.0.101/24", "each would be active on one side"),
            ("remote: 172.16.31.100", "remote: 172.16.31.99", "correct `remote`"),
        ] {
            let text = two.replace(", remote_outside: 40.0.0.100", "");
            assert!(text.contains(from), "{from}");
            let got = pair(&a, &load(&text.replace(from, to)));
            assert!(got.iter().any(|e| e.contains(want)), "{want}: {got:?}");
        }
    }
}
