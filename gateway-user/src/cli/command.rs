//! The operator's words: `show`, `clear`, `debug` and our own, in the guide's order, abbreviated as IOS takes them.
//!
//! One table holds every command. The client parses with it to answer a wrong word at once; the daemon parses the same words
//! again, because what arrives on the socket is input like any other.

use crate::config::nearest;
use crate::id::Spi;
use serde::Serialize;
use std::net::IpAddr;

/// Most words a command may have; longer input is refused unread.
pub const WORDS_MAX: usize = 16;
/// Longest word, bytes.
pub const WORD_BYTES_MAX: usize = 128;

/// State of SAs asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum HaFilter {
    /// Those this node uses.
    Active,
    /// Dormant ones.
    Standby,
}

/// Which IPsec SAs `show crypto ipsec sa` gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum SaFilter {
    /// All.
    All,
    /// By HA state.
    Ha(HaFilter),
    /// Grouped by destination address and protocol.
    ByAddress,
    /// Flows and counters, without SAs.
    Identity,
    /// All, with sequence numbers and leases.
    Detail,
    /// Of one crypto map.
    Map(String),
    /// Of one peer.
    Peer(IpAddr),
    /// Of one interface.
    Interface(String),
}

/// Which crypto maps `show crypto map` gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum MapFilter {
    /// All.
    All,
    /// Those on an interface.
    Interface(String),
    /// The one of this name.
    Tag(String),
}

/// What to show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Show {
    /// `show ssp`: all four parts.
    Ssp,
    /// `show ssp clients`.
    SspClients,
    /// `show ssp packet`.
    SspPacket,
    /// `show ssp peers`.
    SspPeers,
    /// `show ssp redundancy`.
    SspRedundancy,
    /// `show crypto isakmp ha`.
    IsakmpHa,
    /// `show crypto isakmp ha active|standby`.
    IsakmpHaSas(HaFilter),
    /// `show crypto isakmp sa`.
    IsakmpSa,
    /// `show crypto isakmp ssp`.
    IsakmpSsp,
    /// `show crypto isakmp policy [N]`.
    IsakmpPolicy(Option<u32>),
    /// `show crypto ikev2 sa [detailed]`.
    Ikev2Sa {
        /// With SPIs, identities and the rest.
        detailed: bool,
    },
    /// `show crypto ikev2 proposal [NAME]`.
    Ikev2Proposal(Option<String>),
    /// `show crypto ikev2 profile [NAME]`.
    Ikev2Profile(Option<String>),
    /// `show crypto session [detail]`.
    Session {
        /// With counters and lifetimes.
        detail: bool,
    },
    /// `show crypto ipsec ha`.
    IpsecHa,
    /// `show crypto ipsec sa …`.
    IpsecSa(SaFilter),
    /// `show crypto ipsec transform-set`.
    TransformSet,
    /// `show crypto map …`.
    Map(MapFilter),
    /// `show standby [brief]`.
    StandbyBrief,
    /// `show takeover`.
    Takeover,
    /// `show datapath`.
    Datapath,
    /// `show version`.
    Version,
    /// `show config digest`.
    ConfigDigest,
    /// `show debugging`.
    Debugging,
}

/// What `clear crypto sa` removes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum ClearSa {
    /// The whole database.
    All,
    /// One peer's.
    Peer(IpAddr),
    /// One crypto map's.
    Map(String),
    /// One SA, and the pair it belongs to.
    Spi {
        /// Destination of the SA.
        destination: IpAddr,
        /// Its SPI.
        spi: Spi,
    },
}

/// A switch of `debug`, in the guide's words (`crypto isakmp ha fsm`, `ssp packet`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Hash, PartialOrd, Ord)]
pub struct DebugTopic {
    /// `crypto isakmp ha`, `crypto ipsec ha`, `ssp`.
    pub area: &'static str,
    /// `fsm`, `update`, `detail`, `socket`, …; `None` = all of the area.
    pub part: Option<&'static str>,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Action {
    /// `clear crypto isakmp ha standby [resync]`: forget dormant ISAKMP SAs, and ask for them again.
    ClearIsakmpHaStandby {
        /// Ask the active for them again.
        resync: bool,
    },
    /// `clear crypto sa ha standby [peer ADDRESS | resync]`.
    ClearSaHaStandby {
        /// Only this peer's.
        peer: Option<IpAddr>,
        /// Ask the active for them again.
        resync: bool,
    },
    /// `clear crypto sa …`.
    ClearSa(ClearSa),
    /// `debug …` (`on`), `undebug …` or `no debug …`.
    Debug {
        /// Switch it on.
        on: bool,
        /// Which; `None` = all.
        topic: Option<DebugTopic>,
    },
    /// `switchover`: hand over to the standby.
    Switchover,
    /// `rekey isakmp ADDRESS`.
    RekeyIsakmp(IpAddr),
    /// `rekey ipsec SPI`: the pair with this inbound SPI.
    RekeyIpsec(Spi),
    /// `rekey ipsec peer ADDRESS`: every pair of this peer.
    RekeyPeer(IpAddr),
    /// `initiate MAP SEQ`: bring up every flow of an entry.
    Initiate {
        /// Crypto map.
        map: String,
        /// Entry.
        seq: u32,
    },
    /// `probe ADDRESS`: dead peer detection now.
    Probe(IpAddr),
}

/// A command, understood.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Command {
    /// Shows state, changes nothing.
    Show(Show),
    /// Changes state.
    Act(Action),
}

/// A word the operator fills in.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Address(IpAddr),
    Number(u32),
    Name(String),
    Spi(Spi),
}

/// Values of a command in the order of its pattern.
struct Values(std::vec::IntoIter<Value>);

impl Values {
    fn address(&mut self) -> Option<IpAddr> {
        match self.0.next()? {
            Value::Address(a) => Some(a),
            Value::Number(_) | Value::Name(_) | Value::Spi(_) => None,
        }
    }

    fn number(&mut self) -> Option<u32> {
        match self.0.next()? {
            Value::Number(n) => Some(n),
            Value::Address(_) | Value::Name(_) | Value::Spi(_) => None,
        }
    }

    fn name(&mut self) -> Option<String> {
        match self.0.next()? {
            Value::Name(n) => Some(n),
            Value::Address(_) | Value::Number(_) | Value::Spi(_) => None,
        }
    }

    fn spi(&mut self) -> Option<Spi> {
        match self.0.next()? {
            Value::Spi(s) => Some(s),
            Value::Address(_) | Value::Number(_) | Value::Name(_) => None,
        }
    }
}

type Build = fn(&mut Values) -> Option<Command>;

/// Pattern, meaning, help. Words in capitals are filled in by the operator.
const TABLE: &[(&str, Build, &str)] = &[
    ("show ssp", |_| Some(show(Show::Ssp)), "SSP: clients, packets, peers, redundancy"),
    ("show ssp clients", |_| Some(show(Show::SspClients)), "who uses SSP"),
    ("show ssp packet", |_| Some(show(Show::SspPacket)), "socket and traffic of SSP"),
    ("show ssp peers", |_| Some(show(Show::SspPeers)), "the partner"),
    ("show ssp redundancy", |_| Some(show(Show::SspRedundancy)), "state of this node and its groups"),
    ("show crypto isakmp ha", |_| Some(show(Show::IsakmpHa)), "ISAKMP HA state by virtual address"),
    ("show crypto isakmp ha active", |_| Some(show(Show::IsakmpHaSas(HaFilter::Active))), "ISAKMP SAs in use"),
    ("show crypto isakmp ha standby", |_| Some(show(Show::IsakmpHaSas(HaFilter::Standby))), "dormant ISAKMP SAs"),
    ("show crypto isakmp sa", |_| Some(show(Show::IsakmpSa)), "all ISAKMP SAs"),
    ("show crypto isakmp ssp", |_| Some(show(Show::IsakmpSsp)), "ISAKMP records exchanged"),
    ("show crypto isakmp policy", |_| Some(show(Show::IsakmpPolicy(None))), "ISAKMP policies"),
    ("show crypto isakmp policy NUMBER", |v| Some(show(Show::IsakmpPolicy(Some(v.number()?)))), "one ISAKMP policy"),
    ("show crypto ikev2 sa", |_| Some(show(Show::Ikev2Sa { detailed: false })), "all IKEv2 SAs"),
    ("show crypto ikev2 sa detailed", |_| Some(show(Show::Ikev2Sa { detailed: true })), "all IKEv2 SAs, with SPIs"),
    ("show crypto ikev2 proposal", |_| Some(show(Show::Ikev2Proposal(None))), "IKEv2 proposals"),
    ("show crypto ikev2 proposal NAME", |v| Some(show(Show::Ikev2Proposal(Some(v.name()?)))), "one IKEv2 proposal"),
    ("show crypto ikev2 profile", |_| Some(show(Show::Ikev2Profile(None))), "IKEv2 profiles"),
    ("show crypto ikev2 profile NAME", |v| Some(show(Show::Ikev2Profile(Some(v.name()?)))), "one IKEv2 profile"),
    ("show crypto session", |_| Some(show(Show::Session { detail: false })), "peers with their IKE SAs and flows"),
    ("show crypto session detail", |_| Some(show(Show::Session { detail: true })), "the same with counters and lifetimes"),
    ("show crypto ipsec ha", |_| Some(show(Show::IpsecHa)), "IPSec HA state by interface"),
    ("show crypto ipsec sa", |_| Some(sa(SaFilter::All)), "IPSec SAs by flow"),
    ("show crypto ipsec sa active", |_| Some(sa(SaFilter::Ha(HaFilter::Active))), "IPSec SAs in use"),
    ("show crypto ipsec sa standby", |_| Some(sa(SaFilter::Ha(HaFilter::Standby))), "dormant IPSec SAs"),
    ("show crypto ipsec sa address", |_| Some(sa(SaFilter::ByAddress)), "IPSec SAs by destination and protocol"),
    ("show crypto ipsec sa identity", |_| Some(sa(SaFilter::Identity)), "flows and counters only"),
    ("show crypto ipsec sa detail", |_| Some(sa(SaFilter::Detail)), "IPSec SAs with sequence numbers and leases"),
    ("show crypto ipsec sa map NAME", |v| Some(sa(SaFilter::Map(v.name()?))), "IPSec SAs of a crypto map"),
    ("show crypto ipsec sa peer ADDRESS", |v| Some(sa(SaFilter::Peer(v.address()?))), "IPSec SAs of a peer"),
    ("show crypto ipsec sa interface NAME", |v| Some(sa(SaFilter::Interface(v.name()?))), "IPSec SAs of an interface"),
    ("show crypto ipsec transform-set", |_| Some(show(Show::TransformSet)), "transform sets"),
    ("show crypto map", |_| Some(show(Show::Map(MapFilter::All))), "crypto maps"),
    ("show crypto map interface NAME", |v| Some(show(Show::Map(MapFilter::Interface(v.name()?)))), "the crypto map of an interface"),
    ("show crypto map tag NAME", |v| Some(show(Show::Map(MapFilter::Tag(v.name()?)))), "one crypto map"),
    ("show standby", |_| Some(show(Show::StandbyBrief)), "HSRP groups"),
    ("show standby brief", |_| Some(show(Show::StandbyBrief)), "HSRP groups"),
    ("show takeover", |_| Some(show(Show::Takeover)), "takeovers and what each stage of them took"),
    ("show datapath", |_| Some(show(Show::Datapath)), "role, programs, packets by reason"),
    ("show version", |_| Some(show(Show::Version)), "versions and uptime"),
    ("show config digest", |_| Some(show(Show::ConfigDigest)), "configuration items of both nodes compared"),
    ("show debugging", |_| Some(show(Show::Debugging)), "debug switches that are on"),
    ("clear crypto isakmp ha standby", |_| Some(isakmp_ha(false)), "forget dormant ISAKMP SAs"),
    ("clear crypto isakmp ha standby resync", |_| Some(isakmp_ha(true)), "fetch them again from the active"),
    ("clear crypto sa ha standby", |_| Some(sa_ha(None, false)), "forget dormant IPSec SAs"),
    ("clear crypto sa ha standby peer ADDRESS", |v| Some(sa_ha(Some(v.address()?), false)), "forget those of one peer"),
    ("clear crypto sa ha standby resync", |_| Some(sa_ha(None, true)), "fetch them again from the active"),
    ("clear crypto sa", |_| Some(act(Action::ClearSa(ClearSa::All))), "delete all IPSec SAs"),
    ("clear crypto sa peer ADDRESS", |v| Some(act(Action::ClearSa(ClearSa::Peer(v.address()?)))), "delete those of a peer"),
    ("clear crypto sa map NAME", |v| Some(act(Action::ClearSa(ClearSa::Map(v.name()?)))), "delete those of a crypto map"),
    (
        "clear crypto sa spi ADDRESS esp SPI",
        |v| Some(act(Action::ClearSa(ClearSa::Spi { destination: v.address()?, spi: v.spi()? }))),
        "delete one",
    ),
    ("switchover", |_| Some(act(Action::Switchover)), "hand over to the standby, without loss"),
    ("rekey isakmp ADDRESS", |v| Some(act(Action::RekeyIsakmp(v.address()?))), "renew a peer's ISAKMP SA"),
    ("rekey ipsec SPI", |v| Some(act(Action::RekeyIpsec(v.spi()?))), "renew the pair with this inbound SPI"),
    ("rekey ipsec peer ADDRESS", |v| Some(act(Action::RekeyPeer(v.address()?))), "renew all pairs of a peer"),
    ("initiate NAME NUMBER", |v| Some(act(Action::Initiate { map: v.name()?, seq: v.number()? })), "bring up a crypto map entry"),
    ("probe ADDRESS", |v| Some(act(Action::Probe(v.address()?))), "ask a peer whether it is alive"),
    ("undebug all", |_| Some(act(Action::Debug { on: false, topic: None })), "switch all debug output off"),
    ("debug all", |_| Some(act(Action::Debug { on: true, topic: None })), "switch all debug output on"),
];

/// Debug areas and their parts, the guide's.
pub const DEBUG: [(&str, &[&str]); 3] = [
    ("crypto isakmp ha", &["detail", "fsm", "update"]),
    ("crypto ipsec ha", &["detail", "fsm", "update"]),
    ("ssp", &["fsm", "socket", "packet", "peers", "redundancy", "config"]),
];

const fn show(s: Show) -> Command {
    Command::Show(s)
}
const fn sa(f: SaFilter) -> Command {
    Command::Show(Show::IpsecSa(f))
}
const fn act(a: Action) -> Command {
    Command::Act(a)
}
const fn isakmp_ha(resync: bool) -> Command {
    Command::Act(Action::ClearIsakmpHaStandby { resync })
}
const fn sa_ha(peer: Option<IpAddr>, resync: bool) -> Command {
    Command::Act(Action::ClearSaHaStandby { peer, resync })
}

/// One row of the grammar.
struct Row {
    words: Vec<&'static str>,
    make: Make,
}

#[derive(Clone, Copy)]
enum Make {
    Build(Build),
    Debug { on: bool, topic: (&'static str, Option<&'static str>) },
}

fn rows() -> Vec<Row> {
    let mut out: Vec<Row> = TABLE.iter().map(|(p, b, _)| Row { words: p.split(' ').collect(), make: Make::Build(*b) }).collect();
    for (area, parts) in DEBUG {
        for (on, verb) in [(true, "debug"), (false, "undebug")] {
            for part in std::iter::once(None).chain(parts.iter().copied().map(Some)) {
                let words = verb.split(' ').chain(area.split(' ')).chain(part).collect();
                out.push(Row { words, make: Make::Debug { on, topic: (area, part) } });
            }
        }
    }
    out
}

/// Every command with its help, for `gateway help` and the manual.
pub fn commands() -> Vec<(String, &'static str)> {
    let mut out: Vec<(String, &'static str)> = TABLE.iter().map(|(p, _, h)| ((*p).to_owned(), *h)).collect();
    for (area, parts) in DEBUG {
        out.push((format!("debug {area} [{}]", parts.join(" | ")), "switch debug output on (`undebug …` or `no debug …`: off)"));
    }
    out
}

fn is_value(pattern: &str) -> bool {
    pattern.starts_with(|c: char| c.is_ascii_uppercase())
}

fn read_value(pattern: &str, word: &str) -> Option<Value> {
    match pattern {
        "ADDRESS" => word.parse().ok().map(Value::Address),
        "NUMBER" => word.parse().ok().map(Value::Number),
        "SPI" => parse_spi(word).map(Value::Spi),
        _ => Some(Value::Name(word.to_owned())),
    }
}

/// Hexadecimal with `0x` as `show` prints it, or decimal.
fn parse_spi(word: &str) -> Option<Spi> {
    let n = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => word.parse().ok()?,
    };
    (n > 255).then_some(Spi(n))
}

/// Understands a command. The error names the wrong word and the nearest right one.
pub fn parse(argv: &[String]) -> Result<Command, String> {
    parse_words(argv).map(|(command, _)| command)
}

/// Understands a command and gives its words in full.
pub fn parse_words(argv: &[String]) -> Result<(Command, Vec<String>), String> {
    if argv.len() > WORDS_MAX || argv.iter().any(|w| w.len() > WORD_BYTES_MAX) {
        return Err("the command is too long".to_owned());
    }
    // `no debug …` is the guide's way to say `undebug …`.
    let words: Vec<&str> = match argv {
        [no, debug, rest @ ..] if no == "no" && debug.len() >= 2 && "debug".starts_with(debug.as_str()) => {
            std::iter::once("undebug").chain(rest.iter().map(String::as_str)).collect()
        }
        [no, ..] if no == "no" => return Err("`no` goes with `debug` only: write `no debug …`".to_owned()),
        _ => argv.iter().map(String::as_str).collect(),
    };
    let rows = rows();
    let mut left: Vec<&Row> = rows.iter().collect();
    let mut full: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (n, word) in words.iter().enumerate() {
        let place = if full.is_empty() { String::new() } else { format!(" after `{}`", full.join(" ")) };
        let next = next_words(&left, n);
        if next.is_empty() {
            return Err(format!("`{}` ends here: unexpected word `{word}`", full.join(" ")));
        }
        match keyword(word, &next) {
            Keyword::One(k) => {
                left.retain(|r| r.words.get(n) == Some(&k));
                full.push(k.to_owned());
            }
            Keyword::Several(k) => return Err(format!("`{word}`{place} is ambiguous: {}", k.join(", "))),
            Keyword::None => {
                let read = next.iter().filter(|w| is_value(w)).find_map(|w| Some((*w, read_value(w, word)?)));
                let Some((pattern, value)) = read else {
                    return Err(wrong_word(word, &place, &next));
                };
                left.retain(|r| r.words.get(n) == Some(&pattern));
                full.push((*word).to_owned());
                values.push(value);
            }
        }
    }
    let Some(row) = left.iter().find(|r| r.words.len() == words.len()) else {
        let next = next_words(&left, words.len()).join(", ");
        if full.is_empty() {
            return Err(format!("a command is missing: {next}"));
        }
        return Err(format!("`{}` is incomplete; next: {next}", full.join(" ")));
    };
    let command = match row.make {
        Make::Build(build) => build(&mut Values(values.into_iter())).ok_or_else(|| "a value of the command is missing".to_owned())?,
        Make::Debug { on, topic: (area, part) } => act(Action::Debug { on, topic: Some(DebugTopic { area, part }) }),
    };
    Ok((command, full))
}

fn next_words(left: &[&Row], n: usize) -> Vec<&'static str> {
    let mut next: Vec<&'static str> = Vec::new();
    for w in left.iter().filter_map(|r| r.words.get(n)) {
        if !next.contains(w) {
            next.push(w);
        }
    }
    next
}

enum Keyword {
    None,
    One(&'static str),
    Several(Vec<&'static str>),
}

fn keyword(word: &str, next: &[&'static str]) -> Keyword {
    let lower = word.to_ascii_lowercase();
    if lower.is_empty() {
        return Keyword::None;
    }
    let found: Vec<&'static str> = next.iter().copied().filter(|k| !is_value(k) && k.starts_with(&lower)).collect();
    match found.as_slice() {
        [] => Keyword::None,
        [one] => Keyword::One(one),
        several => several.iter().find(|k| **k == lower).map_or_else(|| Keyword::Several(found.clone()), |k| Keyword::One(k)),
    }
}

fn wrong_word(word: &str, place: &str, next: &[&str]) -> String {
    let keywords: Vec<&str> = next.iter().copied().filter(|w| !is_value(w)).collect();
    match nearest(word, keywords.iter().copied()) {
        Some(k) => format!("unknown word `{word}`{place}: did you mean `{k}`? valid: {}", next.join(", ")),
        None => format!("unknown word `{word}`{place}: valid: {}", next.join(", ")),
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
