//! Addresses of the lab: those of the guide, or others chosen by a seed. Pure but for the one choice a process makes.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

/// Every address of the lab. Networks are /24.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The peer's tunnel end.
    pub peer_ike: Ipv4Addr,
    /// A second one, for a connection that must not come up.
    pub peer_ike_2: Ipv4Addr,
    /// The peer on the outside LAN.
    pub peer_outside: Ipv4Addr,
    /// The peer on its own network.
    pub peer_inside: Ipv4Addr,
    /// Host behind the peer.
    pub phost: Ipv4Addr,
    /// Host on the inside LAN.
    pub host: Ipv4Addr,
    /// Outside and inside virtual address.
    pub vips: [Ipv4Addr; 2],
    /// The gateways on the outside LAN.
    pub outside: [Ipv4Addr; 2],
    /// The gateways on the inside LAN.
    pub inside: [Ipv4Addr; 2],
}

impl Plan {
    /// The guide's.
    pub fn guide() -> Self {
        let ip = Ipv4Addr::new;
        Self {
            peer_ike: ip(192, 168, 3, 1),
            peer_ike_2: ip(192, 168, 3, 2),
            peer_outside: ip(40, 0, 0, 254),
            peer_inside: ip(192, 168, 4, 1),
            phost: ip(192, 168, 4, 10),
            host: ip(172, 16, 31, 50),
            vips: [ip(40, 0, 0, 1), ip(172, 16, 31, 1)],
            outside: [ip(40, 0, 0, 100), ip(40, 0, 0, 6)],
            inside: [ip(172, 16, 31, 100), ip(172, 16, 31, 6)],
        }
    }

    /// Others, the same for the same seed. One gateway has the higher address on both LANs, as a pair must have it; which one is chance.
    pub fn chosen(seed: u64) -> Self {
        let mut state = seed;
        // splitmix64: enough for a choice of addresses.
        let mut below = |n: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u8::try_from((z ^ (z >> 31)) % n).unwrap_or(0)
        };
        let outside = [20 + below(80), below(250), below(250)];
        let inside = [172, 16 + below(16), below(250)];
        let own = [10, below(250), below(250)];
        let tunnel = [100 + below(20), below(250), below(250)];
        let at = |net: [u8; 3], host: u8| Ipv4Addr::new(net[0], net[1], net[2], host);
        // Four hosts of a LAN that differ: VIP, far end, and the two gateways in order.
        let mut lan = || {
            let low = 2 + below(60);
            let high = 100 + below(60);
            (low, high, 70 + below(20), 200 + below(50))
        };
        let (out, ins) = (lan(), lan());
        let a_is_high = below(2) == 0;
        let pair = |net, low, high| if a_is_high { [at(net, high), at(net, low)] } else { [at(net, low), at(net, high)] };
        Self {
            peer_ike: at(tunnel, 1 + below(100)),
            peer_ike_2: at(tunnel, 150 + below(50)),
            peer_outside: at(outside, out.3),
            peer_inside: at(own, 1 + below(90)),
            phost: at(own, 100 + below(100)),
            host: at(inside, ins.3),
            vips: [at(outside, out.2), at(inside, ins.2)],
            outside: pair(outside, out.0, out.1),
            inside: pair(inside, ins.0, ins.1),
        }
    }

    /// Network behind the peer: what the tunnel protects.
    pub fn protected(&self) -> String {
        format!("{}/24", network_of(self.peer_inside))
    }

    /// Network of the peer's tunnel ends.
    pub fn tunnel_ends(&self) -> String {
        format!("{}/24", network_of(self.peer_ike))
    }

    /// A text that speaks of the guide's addresses, with these instead.
    pub fn translate(&self, text: &str) -> String {
        let guide = Self::guide();
        let mut pairs: Vec<(String, String)> = [
            (guide.peer_ike, self.peer_ike),
            (network_of(guide.peer_inside), network_of(self.peer_inside)),
            (guide.vips[0], self.vips[0]),
            (guide.vips[1], self.vips[1]),
            (guide.outside[0], self.outside[0]),
            (guide.outside[1], self.outside[1]),
            (guide.inside[0], self.inside[0]),
            (guide.inside[1], self.inside[1]),
        ]
        .map(|(old, new)| (old.to_string(), new.to_string()))
        .into();
        pairs.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
        let mut out = String::new();
        let mut rest = text;
        'next: while let Some(first) = rest.chars().next() {
            let after_a_number = out.ends_with(|c: char| c.is_ascii_digit() || c == '.');
            for (old, new) in &pairs {
                if let Some(tail) = rest.strip_prefix(old.as_str())
                    && !after_a_number
                    && !tail.starts_with(|c: char| c.is_ascii_digit())
                {
                    out += new;
                    rest = tail;
                    continue 'next;
                }
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
        out
    }
}

fn network_of(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 0)
}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// The plan of this process; the guide's unless another was chosen before.
pub fn plan() -> &'static Plan {
    PLAN.get_or_init(Plan::guide)
}

/// Chooses the plan; false when one is in use already.
pub fn choose(plan: Plan) -> bool {
    PLAN.set(plan).is_ok()
}

/// One address of the plan, by name.
#[derive(Clone, Copy)]
pub struct Place(pub(super) fn(&Plan) -> Ipv4Addr);

impl Place {
    /// The address.
    pub fn ip(self) -> Ipv4Addr {
        (self.0)(plan())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

/// The network that the tunnel protects.
#[derive(Clone, Copy)]
pub struct Protected;

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plan().protected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_a_plan_whose_pair_has_one_order_on_both_lans() {
        let mut orders = [false; 2];
        for seed in 0..64 {
            let p = Plan::chosen(seed);
            assert_eq!(p, Plan::chosen(seed));
            assert_eq!(p.outside[0] > p.outside[1], p.inside[0] > p.inside[1], "{p:?}");
            orders[usize::from(p.outside[0] > p.outside[1])] = true;
            let mut all = vec![p.peer_ike, p.peer_ike_2, p.peer_outside, p.peer_inside, p.phost, p.host];
            all.extend(p.vips.iter().chain(&p.outside).chain(&p.inside));
            all.sort_unstable();
            let count = all.len();
            all.dedup();
            assert_eq!(all.len(), count, "{p:?}");
        }
        assert_eq!(orders, [true; 2]);
    }

    #[test]
    fn a_text_is_translated_by_whole_addresses() {
        let mut p = Plan::guide();
        p.vips[0] = Ipv4Addr::new(9, 9, 9, 9);
        p.outside[0] = Ipv4Addr::new(8, 8, 8, 8);
        assert_eq!(p.translate("ip: 40.0.0.1, a 40.0.0.100/24, 140.0.0.1, 40.0.0.12"), "ip: 9.9.9.9, a 8.8.8.8/24, 140.0.0.1, 40.0.0.12");
    }
}
