//! What the capture of the outside LAN proves. Pure.

use super::capture::Record;
use super::frames::{Frame, Port, exchange};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

/// Violations described one by one; the rest is only counted.
const SAMPLES: usize = 10;

/// The outside LAN over a whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wire {
    /// ESP packets from the peer.
    pub esp_in: u64,
    /// ESP packets from the gateways.
    pub esp_out: u64,
    /// Of these, sent by each node.
    pub esp_out_by_node: [u64; 2],
    /// How often the sender of outbound ESP changed.
    pub owner_changes: u64,
    /// Inbound packets that a gateway passed on to its partner: the same packet again with another MAC address.
    pub shunted: u64,
    /// (SPI, sequence) pairs seen twice.
    pub pairs_twice: u64,
    /// Of these, from the peer: a wire that repeats packets does that.
    pub pairs_twice_of_peer: u64,
    /// Clear-text packets of a protected flow.
    pub clear_text: u64,
    /// Of these, from the peer: some peers have no block policy and send what is on its way when their SA ends.
    pub clear_text_of_peer: u64,
    /// The first few violations, for people.
    pub samples: Vec<String>,
}

/// Evaluates the capture; `vip` is the gateways' tunnel end.
pub fn wire(records: &[Record], vip: Ipv4Addr) -> Wire {
    let mut wire = Wire::default();
    let mut seen: HashMap<(Ipv4Addr, u32, u32), u64> = HashMap::with_capacity(records.len());
    let mut owner = None;
    for record in records {
        match &record.frame {
            Frame::Esp { src, dst, spi, seq, fingerprint } => {
                let again = seen.insert((*dst, *spi, *seq), *fingerprint);
                let by_gateway = matches!(record.port, Port::A | Port::B);
                let shunted = by_gateway && *dst == vip && again == Some(*fingerprint);
                if shunted {
                    wire.shunted += 1;
                } else if again.is_some() {
                    wire.pairs_twice += 1;
                    wire.pairs_twice_of_peer += u64::from(!by_gateway);
                    wire.sample(|| format!("ESP {src} > {dst} SPI {spi:#010x} sequence {seq} again, from {:?}", record.port), record.at_ns);
                } else if by_gateway {
                    wire.esp_out += 1;
                    wire.esp_out_by_node[usize::from(record.port == Port::B)] += 1;
                    wire.owner_changes += u64::from(owner.replace(record.port).is_some_and(|o| o != record.port));
                } else {
                    wire.esp_in += 1;
                }
            }
            Frame::Clear { src, dst, protocol } => {
                wire.clear_text += 1;
                wire.clear_text_of_peer += u64::from(record.port == Port::Far);
                wire.sample(|| format!("clear text {src} > {dst} protocol {protocol}, from {:?}", record.port), record.at_ns);
            }
            Frame::Ike { .. } | Frame::Other => {}
        }
    }
    wire
}

impl Wire {
    fn sample(&mut self, text: impl FnOnce() -> String, at_ns: u64) {
        if self.samples.len() < SAMPLES {
            self.samples.push(format!("{}.{:06} {}", at_ns / 1_000_000_000, at_ns / 1000 % 1_000_000, text()));
        }
    }
}

/// IKE messages between the gateway and the peer in a span of time.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Ike {
    /// All messages, repeats included, packets passed on excluded.
    pub messages: u64,
    /// ISAKMP SAs begun in the span: initiator cookies never seen before it.
    pub new_isakmp: u64,
    /// Quick modes begun in the span.
    pub quick_modes: u64,
    /// Informational exchanges from the peer (DPD, delete, notify: all encrypted).
    pub informational_peer: u64,
    /// Informational exchanges from the gateway.
    pub informational_gateway: u64,
    /// Messages sent more than once.
    pub repeated: u64,
}

/// Counts IKE messages from `from_ns` to `to_ns`.
pub fn ike(records: &[Record], vip: Ipv4Addr, from_ns: u64, to_ns: u64) -> Ike {
    let mut ike = Ike::default();
    let (mut cookies, mut exchanges, mut messages) = (HashSet::new(), HashSet::new(), HashSet::new());
    for record in records {
        let Frame::Ike { dst, initiator, exchange: kind, message_id, fingerprint, .. } = &record.frame else { continue };
        if record.at_ns > to_ns {
            break;
        }
        let by_gateway = matches!(record.port, Port::A | Port::B);
        let known_message = !messages.insert(*fingerprint);
        if by_gateway && *dst == vip {
            // Passed on to the partner: the same message once more.
            continue;
        }
        let new_cookie = cookies.insert(*initiator);
        let new_exchange = exchanges.insert((*initiator, *kind, *message_id));
        if record.at_ns < from_ns {
            continue;
        }
        ike.messages += 1;
        ike.repeated += u64::from(known_message);
        ike.new_isakmp += u64::from(new_cookie);
        if new_exchange {
            match *kind {
                exchange::QUICK => ike.quick_modes += 1,
                exchange::INFORMATIONAL if by_gateway => ike.informational_gateway += 1,
                exchange::INFORMATIONAL => ike.informational_peer += 1,
                _ => {}
            }
        }
    }
    ike
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(40, 0, 0, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 1);

    fn esp(at_ns: u64, port: Port, spi: u32, seq: u32, fingerprint: u64) -> Record {
        let (src, dst) = if spi < 100 { (PEER, VIP) } else { (VIP, PEER) };
        Record { at_ns, port, frame: Frame::Esp { src, dst, spi, seq, fingerprint } }
    }
    fn isakmp(at_ns: u64, port: Port, initiator: u64, exchange: u8, message_id: u32, fingerprint: u64) -> Record {
        let (src, dst) = if port == Port::Far { (PEER, VIP) } else { (VIP, PEER) };
        Record { at_ns, port, frame: Frame::Ike { src, dst, initiator, responder: 1, exchange, message_id, fingerprint } }
    }

    #[test]
    fn a_clean_wire_has_no_violation() {
        let wire =
            wire(&[esp(1, Port::Far, 7, 1, 1), esp(2, Port::A, 700, 1, 2), esp(3, Port::B, 700, 2, 3), esp(4, Port::A, 701, 2, 4)], VIP);
        assert_eq!((wire.esp_in, wire.esp_out, wire.pairs_twice, wire.owner_changes), (1, 3, 0, 2));
        assert_eq!(wire.esp_out_by_node, [2, 1]);
    }

    #[test]
    fn the_same_inbound_packet_passed_on_by_a_gateway_is_a_shunt() {
        let wire = wire(&[esp(1, Port::Far, 7, 1, 5), esp(2, Port::A, 7, 1, 5)], VIP);
        assert_eq!((wire.esp_in, wire.shunted, wire.pairs_twice), (1, 1, 0));
    }

    #[test]
    fn a_pair_twice_is_a_violation_in_either_direction() {
        // Repeated by the peer; outbound repeated with equal bytes; outbound repeated with other bytes by the other node; an altered shunt.
        for second in [esp(2, Port::Far, 7, 1, 5), esp(2, Port::A, 7, 1, 6)] {
            assert_eq!(wire(&[esp(1, Port::Far, 7, 1, 5), second], VIP).pairs_twice, 1);
        }
        for second in [esp(2, Port::A, 700, 1, 5), esp(2, Port::B, 700, 1, 6)] {
            let wire = wire(&[esp(1, Port::A, 700, 1, 5), second], VIP);
            assert_eq!(wire.pairs_twice, 1);
            assert!(wire.samples[0].contains("sequence 1 again"), "{:?}", wire.samples);
        }
    }

    #[test]
    fn ike_counts_only_what_began_in_the_span() {
        let records = [
            isakmp(1, Port::Far, 1, exchange::MAIN, 0, 1),
            isakmp(2, Port::A, 1, exchange::MAIN, 0, 2),
            isakmp(3, Port::Far, 1, exchange::QUICK, 9, 3),
            isakmp(11, Port::A, 1, exchange::QUICK, 9, 4),
            isakmp(12, Port::Far, 1, exchange::INFORMATIONAL, 20, 5),
            isakmp(13, Port::B, 1, exchange::INFORMATIONAL, 21, 6),
            isakmp(14, Port::B, 1, exchange::INFORMATIONAL, 21, 6),
        ];
        let count = ike(&records, VIP, 10, 20);
        assert_eq!(count, Ike { messages: 4, new_isakmp: 0, quick_modes: 0, informational_peer: 1, informational_gateway: 1, repeated: 1 });
    }

    #[test]
    fn a_new_negotiation_is_seen() {
        let records = [
            isakmp(1, Port::Far, 1, exchange::MAIN, 0, 1),
            isakmp(11, Port::B, 2, exchange::MAIN, 0, 2),
            isakmp(12, Port::B, 2, exchange::QUICK, 3, 3),
        ];
        let count = ike(&records, VIP, 10, 20);
        assert_eq!((count.new_isakmp, count.quick_modes), (1, 1));
    }
}
