//! Crypto access lists: which traffic a crypto map entry protects, in the guide's extended access-list syntax.

use super::decode::Word;
use super::report::{Report, one_of};
use super::values::{mask, network};
use crate::ike::Flow;
use crate::sad::Selector;
use std::net::{IpAddr, Ipv4Addr};

/// Protocol names of the guide's command reference; any other goes by its number.
const PROTOCOLS: [(&str, u8); 8] = [("ip", 0), ("icmp", 1), ("igmp", 2), ("tcp", 6), ("udp", 17), ("gre", 47), ("ospf", 89), ("pim", 103)];

/// Port names an operator of such a router would write.
const PORTS: [(&str, u16); 12] = [
    ("bgp", 179),
    ("domain", 53),
    ("ftp", 21),
    ("isakmp", 500),
    ("ntp", 123),
    ("pop3", 110),
    ("smtp", 25),
    ("snmp", 161),
    ("ssh", 22),
    ("syslog", 514),
    ("telnet", 23),
    ("www", 80),
];

/// Lines one access list may have.
pub(super) const LINES_MAX: usize = 4096;

/// Cause and cure of a refused line.
type Refusal = (String, String);

fn refuse<T>(cause: impl Into<String>, cure: impl Into<String>) -> Result<T, Refusal> {
    Err((cause.into(), cure.into()))
}

struct Tokens<'a> {
    words: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Tokens<'a> {
    fn next(&mut self, what: &str) -> Result<&'a str, Refusal> {
        match self.words.next() {
            Some(w) => Ok(w),
            None => refuse(
                format!("the line ends where {what} belongs"),
                "write `permit PROTOCOL SOURCE [WILDCARD] DESTINATION [WILDCARD] [eq PORT] [log]`",
            ),
        }
    }

    /// `any`, `host A`, `A/LEN`, `A WILDCARD`.
    fn network(&mut self, what: &str) -> Result<(Ipv4Addr, u8), Refusal> {
        let word = self.next(what)?;
        if word == "any" {
            return Ok((Ipv4Addr::UNSPECIFIED, 0));
        }
        if word == "host" {
            let host = self.next("a host address")?;
            return match host.parse() {
                Ok(a) => Ok((a, 32)),
                Err(_) => refuse(format!("`{host}` is not an IPv4 address"), "write `host 192.0.2.1`"),
            };
        }
        let (addr, prefix) = if let Some((addr, len)) = word.split_once('/') {
            match (addr.parse::<Ipv4Addr>(), len.parse::<u8>()) {
                (Ok(a), Ok(p)) if p <= 32 => (a, p),
                _ => return refuse(format!("`{word}` is not a network"), "write `192.0.2.0/24`"),
            }
        } else {
            let Ok(addr) = word.parse::<Ipv4Addr>() else {
                return refuse(format!("`{word}` is not {what}"), "write `any`, `host A.B.C.D`, `A.B.C.D WILDCARD` or `A.B.C.D/LENGTH`");
            };
            let wild = self.next("a wildcard")?;
            let Ok(wildcard) = wild.parse::<Ipv4Addr>() else {
                return refuse(format!("`{wild}` is not a wildcard"), format!("write `{addr} 0.0.0.255`, or `host {addr}`"));
            };
            (addr, wildcard_prefix(wildcard)?)
        };
        let net = network(addr, prefix);
        if net != addr {
            return refuse(format!("{addr} has bits outside of /{prefix}"), format!("write {net}/{prefix}"));
        }
        Ok((addr, prefix))
    }

    /// `eq PORT`, if it stands here.
    fn port(&mut self, proto: u8) -> Result<u16, Refusal> {
        match self.words.peek().copied() {
            Some("eq") => {}
            Some(op @ ("gt" | "lt" | "neq" | "range")) => {
                return refuse(format!("`{op}` is not supported: an SA has one port or all"), "use `eq PORT`, or leave the port out");
            }
            Some(_) | None => return Ok(0),
        }
        self.words.next();
        let word = self.next("a port")?;
        if !matches!(proto, 6 | 17) {
            return refuse("only tcp and udp have ports", "write `tcp` or `udp`, or leave `eq` out");
        }
        if let Some((_, port)) = PORTS.iter().find(|(n, _)| *n == word) {
            return Ok(*port);
        }
        match word.parse::<u16>() {
            Ok(p) if p > 0 => Ok(p),
            _ => refuse(format!("`{word}` is not a port"), "use 1 to 65535"),
        }
    }
}

/// Prefix length of a wildcard (inverse mask).
fn wildcard_prefix(wildcard: Ipv4Addr) -> Result<u8, Refusal> {
    let bits = !u32::from(wildcard);
    let prefix = bits.leading_ones() as u8;
    if bits == mask(prefix) {
        return Ok(prefix);
    }
    if u32::from(wildcard) == mask(u32::from(wildcard).leading_ones() as u8) {
        let inverse = Ipv4Addr::from(bits);
        return refuse(format!("{wildcard} is a mask, not a wildcard"), format!("write its inverse: {inverse}"));
    }
    refuse(format!("wildcard {wildcard} has holes"), "split the line into one per network")
}

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Remark,
    Permit { local: Selector, remote: Selector, log: bool },
    DenyRest,
}

fn parse_line(text: &str) -> Result<Line, Refusal> {
    let mut t = Tokens { words: text.split_whitespace().peekable() };
    let action = t.next("`permit`")?;
    match action {
        "remark" => return Ok(Line::Remark),
        "permit" => {}
        "deny" => {
            if text.split_whitespace().eq(["deny", "ip", "any", "any"]) {
                return Ok(Line::DenyRest);
            }
            return refuse("`deny` is not supported yet", "permit just the networks to protect; what no line permits is not protected");
        }
        _ => return refuse(format!("unknown word `{action}`"), one_of(action, &["permit", "deny", "remark"])),
    }
    let word = t.next("a protocol")?;
    let proto = match PROTOCOLS.iter().find(|(n, _)| *n == word) {
        Some((_, p)) => *p,
        None => match word.parse::<u8>() {
            Ok(p) => p,
            Err(_) => {
                let names: Vec<&str> = PROTOCOLS.iter().map(|(n, _)| *n).collect();
                return refuse(format!("unknown protocol `{word}`"), format!("{}, or a number to 255", one_of(word, &names)));
            }
        },
    };
    if matches!(proto, 50 | 51) {
        return refuse("ESP and AH cannot be protected by themselves", "leave this line out");
    }
    let (src, src_prefix) = t.network("a source")?;
    let src_port = t.port(proto)?;
    let (dst, dst_prefix) = t.network("a destination")?;
    let dst_port = t.port(proto)?;
    let log = match t.words.next() {
        None => false,
        Some("log") => true,
        Some(w) => return refuse(format!("unexpected word `{w}`"), "end the line here, or write `log`"),
    };
    if let Some(w) = t.words.next() {
        return refuse(format!("unexpected word `{w}`"), "end the line before it");
    }
    Ok(Line::Permit {
        local: Selector { addr: IpAddr::V4(src), prefix: src_prefix, proto, port: src_port },
        remote: Selector { addr: IpAddr::V4(dst), prefix: dst_prefix, proto, port: dst_port },
        log,
    })
}

/// Reads a list. `ace` of a flow is the index of its line among the `permit` lines.
pub(super) fn flows(lines: &[Word], report: &mut Report) -> Vec<Flow> {
    let mut out: Vec<Flow> = Vec::new();
    if let Some(line) = lines.get(LINES_MAX) {
        report.error(&line.path, format!("more than {LINES_MAX} lines"), "summarise networks, or split the list");
        return out;
    }
    let mut ended = false;
    for line in lines {
        match parse_line(&line.text) {
            Err((cause, cure)) => report.error(&line.path, cause, cure),
            Ok(Line::Remark) => {}
            Ok(Line::DenyRest) => ended = true,
            Ok(Line::Permit { .. }) if ended => {
                report.error(&line.path, "this line stands after `deny ip any any`", "move it up, or take the deny line out");
            }
            Ok(Line::Permit { local, remote, log }) => {
                if log {
                    report.warn(&line.path, "`log` has no effect on a crypto access list", "leave it out");
                }
                if local.prefix == 0 && remote.prefix == 0 {
                    report.warn(
                        &line.path,
                        "`any any` protects everything and drops whatever the peer sends in clear",
                        "name the networks on both sides",
                    );
                }
                if out.iter().any(|f| f.local == local && f.remote == remote) {
                    report.error(&line.path, "this line stands twice", "take one out");
                    continue;
                }
                out.push(Flow { ace: out.len() as u32, local, remote });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(text: &str) -> (Selector, Selector, bool) {
        match parse_line(text).unwrap() {
            Line::Permit { local, remote, log } => (local, remote, log),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn v4(addr: [u8; 4], prefix: u8, proto: u8, port: u16) -> Selector {
        Selector { addr: IpAddr::from(addr), prefix, proto, port }
    }

    #[test]
    fn the_guides_line() {
        let (local, remote, log) = permit("permit ip any 192.168.4.0 0.0.0.255");
        assert_eq!((local, remote, log), (Selector::ANY4, v4([192, 168, 4, 0], 24, 0, 0), false));
    }

    #[test]
    fn hosts_ports_and_prefixes() {
        let (local, remote, log) = permit("permit tcp host 10.0.0.1 eq telnet 10.1.0.0/16 eq 8080 log");
        assert_eq!((local, remote, log), (v4([10, 0, 0, 1], 32, 6, 23), v4([10, 1, 0, 0], 16, 6, 8080), true));
        assert_eq!(permit("permit 47 host 10.0.0.1 host 10.0.0.2").0.proto, 47);
        assert_eq!(permit("permit ip 10.0.0.4 0.0.0.3 any").0, v4([10, 0, 0, 4], 30, 0, 0));
    }

    #[test]
    fn other_lines() {
        assert_eq!(parse_line("remark IPSec Rule"), Ok(Line::Remark));
        assert_eq!(parse_line("deny ip any any"), Ok(Line::DenyRest));
    }

    #[test]
    fn refused_lines_name_the_cure() {
        for (text, cure) in [
            ("", "permit PROTOCOL"),
            ("permt ip any any", "did you mean `permit`"),
            ("permit tpc any any", "did you mean `tcp`"),
            ("permit ip any", "permit PROTOCOL"),
            ("permit ip any 10.0.0.0 255.255.255.0", "0.0.0.255"),
            ("permit ip any 10.0.0.0 0.0.255.0", "one per network"),
            ("permit ip any 10.0.0.1 0.0.0.255", "10.0.0.0/24"),
            ("permit ip any 10.0.0.0/33", "192.0.2.0/24"),
            ("permit ip any any eq 80", "`tcp` or `udp`"),
            ("permit tcp any any range 1 9", "eq PORT"),
            ("permit tcp any any eq 0", "1 to 65535"),
            ("permit ip any any established", "end the line"),
            ("permit ip any any log now", "before it"),
            ("permit 50 any any", "leave this line out"),
            ("deny tcp any any", "permit just the networks"),
            ("permit ip host any", "host 192.0.2.1"),
        ] {
            let (cause, got) = parse_line(text).unwrap_err();
            assert!(got.contains(cure), "{text}: {cause}; {got}");
        }
    }
}
