//! The manifest as written: every key that exists, nothing checked but the shape.

use super::decode::{Decode, Table, Word, mapping, raw};
use super::report::{KeyPath, Report};
use serde_yaml::Value;

raw! {
    /// The document.
    Manifest {
        "hostname" => hostname: Word,
        "interfaces" => interfaces: Table<RawInterface>,
        "ssp" => ssp: Table<RawSsp>,
        "crypto" => crypto: Crypto,
        "access_list" => access_list: Table<Vec<Word>>,
        "metrics" => metrics: Metrics,
        "control" => control: Control,
        "dataplane" => dataplane: RawDataplane,
    }
}
raw! {
    /// `interfaces.NAME`.
    RawInterface {
        "device" => device: Word,
        "description" => description: Word,
        "address" => address: Word,
        "standby" => standby: Standby,
        "crypto_map" => crypto_map: CryptoMapUse,
    }
}
raw! {
    /// `interfaces.NAME.standby`.
    Standby {
        "version" => version: Word,
        "delay" => delay: Delay,
        "groups" => groups: Table<Group>,
    }
}
raw! {
    /// `standby.delay`.
    Delay {
        "minimum" => minimum: Word,
        "reload" => reload: Word,
    }
}
raw! {
    /// `standby.groups.N`.
    Group {
        "name" => name: Word,
        "ip" => ip: Word,
        "timers" => timers: Timers,
        "priority" => priority: Word,
        "preempt" => preempt: bool,
        "track" => track: Vec<Word>,
        "authentication" => authentication: Word,
    }
}
raw! {
    /// `timers`.
    Timers {
        "hello" => hello: Word,
        "hold" => hold: Word,
    }
}
raw! {
    /// `interfaces.NAME.crypto_map`.
    CryptoMapUse {
        "name" => name: Word,
        "ssp" => ssp: Word,
    }
}
raw! {
    /// `ssp.ID`.
    RawSsp {
        "remote" => remote: Word,
        "remote_outside" => remote_outside: Word,
        "port" => port: Word,
        "redundancy" => redundancy: Vec<Word>,
        "secret_file" => secret_file: Word,
        "secret" => secret: Word,
    }
}
raw! {
    /// `crypto`.
    Crypto {
        "isakmp" => isakmp: Isakmp,
        "ikev2" => ikev2: Ikev2,
        "ipsec" => ipsec: Ipsec,
        "pki" => pki: Pki,
        "map" => map: Table<CryptoMap>,
    }
}
raw! {
    /// `crypto.isakmp`.
    Isakmp {
        "ssp" => ssp: Word,
        "policy" => policy: Table<RawPolicy>,
        "trustpoint" => trustpoint: Word,
        "key" => key: Vec<RawKey>,
        "peer" => peer: Vec<RawPeer>,
        "nat_traversal" => nat_traversal: RawNatTraversal,
        "dpd" => dpd: RawDpd,
        "keepalive" => keepalive: Word,
        "retransmit" => retransmit: Retransmit,
        "limits" => limits: Limits,
    }
}
raw! {
    /// `crypto.pki`.
    Pki {
        "trustpoint" => trustpoint: Table<RawTrustpoint>,
    }
}
raw! {
    /// `crypto.pki.trustpoint.NAME`.
    RawTrustpoint {
        "ca_file" => ca_file: Word,
        "certificate_file" => certificate_file: Word,
        "key_file" => key_file: Word,
        "crl_file" => crl_file: Word,
        "crl_required" => crl_required: bool,
    }
}
raw! {
    /// An item of `crypto.isakmp.peer`.
    RawPeer {
        "address" => address: Word,
        "identity" => identity: Word,
        "aggressive_mode" => aggressive_mode: bool,
        "policy" => policy: Vec<Word>,
        "identity_remote" => identity_remote: Word,
    }
}
raw! {
    /// `crypto.isakmp.nat_traversal`.
    RawNatTraversal {
        "enabled" => enabled: bool,
        "keepalive" => keepalive: Word,
    }
}
raw! {
    /// `crypto.ikev2`.
    Ikev2 {
        "proposal" => proposal: Table<RawProposal>,
        "profile" => profile: Table<RawProfile>,
        "cookie_threshold" => cookie_threshold: Word,
        "keyring" => keyring: Value,
    }
}
raw! {
    /// `crypto.ikev2.proposal.NAME`.
    RawProposal {
        "encryption" => encryption: Vec<Word>,
        "integrity" => integrity: Vec<Word>,
        "prf" => prf: Vec<Word>,
        "group" => group: Vec<Word>,
        "additional_key_exchange" => additional_key_exchange: Vec<Vec<Word>>,
    }
}
raw! {
    /// `crypto.ikev2.profile.NAME`.
    RawProfile {
        "proposal" => proposal: Vec<Word>,
        "identity_local" => identity_local: Word,
        "identity_remote" => identity_remote: Word,
        "authentication_local" => authentication_local: Word,
        "authentication_remote" => authentication_remote: Word,
        "trustpoint" => trustpoint: Word,
        "ppk" => ppk: RawPpk,
        "lifetime" => lifetime: Word,
        "fragmentation" => fragmentation: Word,
        "childless" => childless: bool,
    }
}
raw! {
    /// `crypto.ikev2.profile.NAME.ppk`.
    RawPpk {
        "id" => id: Word,
        "secret_file" => secret_file: Word,
        "secret" => secret: Word,
        "required" => required: bool,
    }
}
raw! {
    /// `crypto.isakmp.policy.N`.
    RawPolicy {
        "encryption" => encryption: Word,
        "hash" => hash: Word,
        "authentication" => authentication: Word,
        "group" => group: Word,
        "lifetime" => lifetime: Word,
    }
}
raw! {
    /// An item of `crypto.isakmp.key`.
    RawKey {
        "address" => address: Word,
        "identity" => identity: Word,
        "secret_file" => secret_file: Word,
        "secret" => secret: Word,
        "allow_weak" => allow_weak: bool,
        "allow_any" => allow_any: bool,
    }
}
raw! {
    /// `crypto.isakmp.dpd`.
    RawDpd {
        "interval" => interval: Word,
        "retry" => retry: Word,
        "retries" => retries: Word,
    }
}
raw! {
    /// `crypto.isakmp.retransmit`.
    Retransmit {
        "first" => first: Word,
        "tries" => tries: Word,
    }
}
raw! {
    /// `crypto.isakmp.limits`.
    Limits {
        "half_open" => half_open: Word,
        "half_open_per_source" => half_open_per_source: Word,
        "half_open_age" => half_open_age: Word,
        "established" => established: Word,
        "quick_modes" => quick_modes: Word,
    }
}
raw! {
    /// `crypto.ipsec`.
    Ipsec {
        "transform_set" => transform_set: Table<RawTransformSet>,
        "security_association" => security_association: SecurityAssociation,
    }
}
raw! {
    /// `crypto.ipsec.transform_set.NAME`.
    RawTransformSet {
        "transforms" => transforms: Vec<Word>,
        "mode" => mode: Word,
    }
}
raw! {
    /// `crypto.ipsec.security_association`.
    SecurityAssociation {
        "lifetime" => lifetime: RawLifetime,
    }
}
raw! {
    /// `lifetime`.
    RawLifetime {
        "seconds" => seconds: Word,
        "kilobytes" => kilobytes: Word,
    }
}
raw! {
    /// `crypto.map.NAME.ha`.
    MapHa {
        "replay_interval" => replay_interval: RawReplayInterval,
    }
}
raw! {
    /// `replay_interval`.
    RawReplayInterval {
        "inbound" => inbound: Word,
        "outbound" => outbound: Word,
        "inbound_time" => inbound_time: Word,
    }
}
raw! {
    /// `crypto.map.NAME.SEQ`.
    MapSeq {
        "ipsec-isakmp" => ipsec_isakmp: RawEntry,
        "ipsec-manual" => ipsec_manual: Value,
    }
}
raw! {
    /// `crypto.map.NAME.SEQ.ipsec-isakmp`.
    RawEntry {
        "description" => description: Word,
        "peer" => peer: Vec<Word>,
        "transform_set" => transform_set: Vec<Word>,
        "match_address" => match_address: Word,
        "pfs" => pfs: Word,
        "lifetime" => lifetime: RawLifetime,
        "replay_window" => replay_window: Word,
        "ikev2_profile" => ikev2_profile: Word,
        "ikev1" => ikev1: bool,
        "esn" => esn: bool,
        "dynamic" => dynamic: Word,
    }
}
raw! {
    /// `metrics`.
    Metrics {
        "listen" => listen: Word,
    }
}
raw! {
    /// `control`.
    Control {
        "socket" => socket: Word,
    }
}
raw! {
    /// `dataplane`.
    RawDataplane {
        "sa_max" => sa_max: Word,
        "xdp" => xdp: Word,
        "pin_dir" => pin_dir: Word,
        "log" => log: bool,
    }
}

impl Decode for Value {
    fn decode(value: &Value, _: &KeyPath, _: &mut Report) -> Option<Self> {
        Some(value.clone())
    }
}

/// `crypto.map.NAME`: `ha` and numbered entries side by side.
#[derive(Clone, Debug, Default)]
pub(super) struct CryptoMap {
    /// Settings of the whole map.
    pub(super) ha: Option<MapHa>,
    /// Entries by sequence number, in order of the manifest.
    pub(super) entries: Vec<(u32, Word, MapSeq)>,
}

/// Highest sequence number of a crypto map entry (guide: 1 to 65535).
const SEQ_MAX: u32 = 65_535;

impl Decode for CryptoMap {
    fn decode(value: &Value, path: &KeyPath, report: &mut Report) -> Option<Self> {
        let mut out = Self::default();
        for (name, v) in mapping(value, path, report)? {
            let at = path.key(&name);
            if name == "ha" {
                out.ha = MapHa::decode(v, &at, report);
            } else if let Ok(seq) = name.parse::<u32>() {
                if seq == 0 || seq > SEQ_MAX {
                    report.error_key(&at, format!("sequence number {seq} is out of range"), format!("use 1 to {SEQ_MAX}"));
                } else if let Some(entry) = MapSeq::decode(v, &at, report) {
                    out.entries.push((seq, Word { text: name, path: at }, entry));
                }
            } else {
                report.error_key(&at, format!("unknown key `{name}`"), format!("write `ha` or a sequence number from 1 to {SEQ_MAX}"));
            }
        }
        Some(out)
    }
}
