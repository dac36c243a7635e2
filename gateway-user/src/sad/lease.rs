//! Outbound sequence leases: numbers are reserved through the standby before they are used.
//!
//! ```text
//!   0 ......... used ......... hi ........................ hi + W ...........
//!   |  sent     |  may be sent |  only while out of contact | the standby's, after a takeover
//! ```

use std::time::{Duration, Instant};

/// Highest number of an SA without extended sequence numbers: a pair is rekeyed long before they end.
pub const SEQUENCE_MAX: u64 = u32::MAX as u64;
/// The same with extended sequence numbers: high enough never to be reached, low enough for sums.
pub const SEQUENCE_MAX_ESN: u64 = 1 << 62;
/// How far below the last number known to be used the range in the data path begins, with extended sequence numbers: what leaves may be
/// reordered, and the range must stay shorter than 2^32, as a packet shows the low half of its number only.
pub const ESN_SLACK: u64 = 1 << 20;
/// Smallest lease, packets.
const LEASE_MIN: u64 = 16_384;
/// Largest lease, packets.
const LEASE_MAX: u64 = 1 << 24;
/// A lease lasts about this long at the measured rate.
const LEASE_TIME: Duration = Duration::from_secs(4);
/// The isolated range W when the interval is `auto` (the guide's default of one million).
const ISOLATED_AUTO: u64 = 1_000_000;

/// How leases are sized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeasePolicy {
    /// Fixed size in packets; `None` sizes by the measured rate.
    pub fixed: Option<u64>,
    /// Extended sequence numbers.
    pub esn: bool,
}

impl LeasePolicy {
    /// W: what an active that lost contact may use beyond its lease, and the standby leaves free.
    pub fn isolated_range(self) -> u64 {
        self.fixed.unwrap_or(ISOLATED_AUTO)
    }

    /// Highest number a lease may reach.
    pub fn sequence_max(self) -> u64 {
        if self.esn { SEQUENCE_MAX_ESN } else { SEQUENCE_MAX }
    }

    /// Number after which the pair is rekeyed: seven eighths of all.
    fn high_water(self) -> u64 {
        self.sequence_max() / 8 * 7
    }
}

/// What a lease wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseAction {
    /// Ask the standby for numbers up to this one.
    Extend(u64),
    /// Start a rekey: the numbers run low.
    Rekey,
}

/// Lease of one outbound SA, on the node that sends.
#[derive(Clone, Debug)]
pub struct Lease {
    policy: LeasePolicy,
    /// Numbers up to and including this one are not this node's.
    lo: u64,
    /// Numbers up to and including this one are this node's own.
    hi: u64,
    /// Asked for and not yet acknowledged.
    asked: Option<u64>,
    /// A partner holds state and would start at `hi + W` if it took over.
    competitor: bool,
    /// The partner can be asked.
    contact: bool,
    used: u64,
    measured: Option<(Instant, u64)>,
    rate_pps: f64,
    rekey_asked: bool,
    /// The partner used numbers above this one while nobody could be asked.
    contested: Option<u64>,
    /// Contact was lost since the last grant: numbers up to `hi + W` may be used, and the partner still starts above them.
    isolated: bool,
}

impl Lease {
    /// A lease for a new SA: nothing used. `hi` is the first range to ask for.
    pub fn new(policy: LeasePolicy) -> Self {
        let hi = policy.fixed.unwrap_or(LEASE_MIN * 4);
        Self {
            policy,
            lo: 0,
            hi,
            asked: None,
            competitor: false,
            contact: false,
            used: 0,
            measured: None,
            rate_pps: 0.0,
            rekey_asked: false,
            contested: None,
            isolated: false,
        }
    }

    /// A lease taken over or adopted: `used` is the last number that may have been sent, `hi` the end of the range.
    pub fn resume(policy: LeasePolicy, used: u64, hi: u64) -> Self {
        Self { lo: used, used, hi: hi.max(used), ..Self::new(policy) }
    }

    /// How it is sized.
    pub fn policy(&self) -> LeasePolicy {
        self.policy
    }

    /// Start of this node's range: the first number it may send is the next one.
    pub fn lo(&self) -> u64 {
        self.lo
    }

    /// Start of the range for the guard: [`Self::lo`], and with extended sequence numbers as near to what is used as reordering allows.
    pub fn guard_lo(&self) -> u64 {
        if self.policy.esn { self.lo.max(self.used.saturating_sub(ESN_SLACK)) } else { self.lo }
    }

    /// End of the reserved range.
    pub fn hi(&self) -> u64 {
        self.hi
    }

    /// Last number known to be used.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Measured rate, packets per second.
    pub fn rate_pps(&self) -> f64 {
        self.rate_pps
    }

    /// Where a standby has to start.
    pub fn standby_floor(&self) -> u64 {
        (self.hi + self.policy.isolated_range()).min(self.policy.sequence_max())
    }

    /// Highest number the guard may let out now.
    pub fn limit(&self) -> u64 {
        if let Some(limit) = self.contested {
            return limit;
        }
        match (self.competitor, self.contact) {
            // Nobody else holds this SA.
            (false, _) => self.policy.sequence_max(),
            (true, true) if !self.isolated => self.hi,
            (true, _) => self.standby_floor(),
        }
    }

    /// The partner holds (or no longer holds) this SA, and can (or cannot) be asked for more.
    pub fn set_partner(&mut self, competitor: bool, contact: bool) {
        self.competitor = competitor;
        self.contact = contact;
        self.isolated = competitor && (self.isolated || !contact);
        if !contact {
            self.asked = None;
        }
    }

    /// The kernel counted up to `seq`.
    pub fn on_used(&mut self, seq: u64, now: Instant) {
        if seq <= self.used && self.measured.is_some() {
            return;
        }
        self.used = self.used.max(seq);
        match self.measured {
            Some((at, from)) => {
                let dt = now.saturating_duration_since(at).as_secs_f64();
                if dt >= 0.05 {
                    let rate = (self.used - from) as f64 / dt;
                    // Rises at once, falls slowly: a burst must not stall.
                    self.rate_pps = if rate > self.rate_pps { rate } else { self.rate_pps * 0.8 + rate * 0.2 };
                    self.measured = Some((now, self.used));
                }
            }
            None => self.measured = Some((now, self.used)),
        }
    }

    fn size(&self) -> u64 {
        self.policy.fixed.unwrap_or_else(|| ((self.rate_pps * LEASE_TIME.as_secs_f64()) as u64).clamp(LEASE_MIN, LEASE_MAX))
    }

    /// What is due now; the caller sends the request and calls `on_granted` when it was acknowledged.
    pub fn poll(&mut self) -> Option<LeaseAction> {
        let size = self.size();
        if !self.rekey_asked && (self.used > self.policy.high_water() || self.standby_floor() > self.policy.high_water() + size) {
            self.rekey_asked = true;
            return Some(LeaseAction::Rekey);
        }
        if self.contested.is_some() {
            return (!std::mem::replace(&mut self.rekey_asked, true)).then_some(LeaseAction::Rekey);
        }
        if !self.competitor {
            return None;
        }
        if self.contact {
            if self.asked.is_none() && self.used + size / 2 > self.hi && self.hi < self.policy.sequence_max() - self.policy.isolated_range()
            {
                let hi = (self.used + size).min(self.policy.sequence_max() - self.policy.isolated_range()).max(self.hi);
                if hi > self.hi {
                    self.asked = Some(hi);
                    return Some(LeaseAction::Extend(hi));
                }
            }
            return None;
        }
        // Alone, with a partner that would start at hi + W: new keys before half of W is used.
        if !self.rekey_asked && self.used > self.hi + self.policy.isolated_range() / 2 {
            self.rekey_asked = true;
            return Some(LeaseAction::Rekey);
        }
        None
    }

    /// The standby acknowledged numbers up to `hi`. True when the limit rose.
    pub fn on_granted(&mut self, hi: u64) -> bool {
        if self.asked.is_some_and(|a| a <= hi) {
            self.asked = None;
        }
        let rose = hi > self.hi || self.isolated;
        self.hi = self.hi.max(hi);
        self.isolated = false;
        rose
    }

    /// The end of the range to put into a snapshot. A partner that may still hold an older record starts above that one's range: then the new
    /// end counts, like every extension, only when it is acknowledged (`on_granted`).
    pub fn offer(&mut self) -> u64 {
        if !self.competitor {
            self.rebase();
        }
        if self.contested.is_some() || !self.competitor {
            return self.hi;
        }
        let hi = self.hi.max(self.used + self.size()).min(self.policy.sequence_max());
        // Without something to gain there will be no grant, and a request that waits for none would be the last.
        if hi > self.hi {
            self.asked = Some(hi);
        }
        hi
    }

    /// Both nodes were active apart from each other: the partner took everything above what it had to leave to this node. For the rest of its
    /// life the SA stays below, and is to be replaced. Does nothing to an SA that the partner did not hold.
    pub fn contest(&mut self) {
        if self.competitor && self.contested.is_none() {
            self.contested = Some(self.standby_floor());
            self.rekey_asked = false;
        }
    }

    /// True after [`Self::contest`].
    pub fn is_contested(&self) -> bool {
        self.contested.is_some()
    }

    /// No partner holds this SA any more: before one gets it again, `hi` must be above all that was used.
    pub fn rebase(&mut self) {
        if self.contested.is_some() {
            return;
        }
        self.hi = self.hi.max(self.used + self.size()).min(self.policy.sequence_max());
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: LeasePolicy = LeasePolicy { fixed: None, esn: false };

    #[test]
    fn renewal_comes_well_before_the_end_and_follows_the_rate() {
        let t0 = Instant::now();
        let mut l = Lease::new(AUTO);
        l.set_partner(true, true);
        let mut seq = 0;
        for ms in (0..60_000u64).step_by(100) {
            seq += 2_000; // 20 000 packets per second
            assert!(seq <= l.limit(), "stalled at {seq} of {}", l.limit());
            l.on_used(seq, t0 + Duration::from_millis(ms));
            if let Some(LeaseAction::Extend(hi)) = l.poll() {
                assert!(hi > l.hi());
                l.on_granted(hi);
            }
        }
        assert!((l.rate_pps() - 20_000.0).abs() < 2_000.0, "{}", l.rate_pps());
        assert!(l.hi() - l.used() <= 100_000);
    }

    #[test]
    fn ranges_of_the_two_nodes_never_meet() {
        let mut l = Lease::new(LeasePolicy { fixed: Some(1000), esn: false });
        l.set_partner(true, true);
        assert_eq!((l.limit(), l.standby_floor()), (1000, 2000));
        l.set_partner(true, false);
        assert_eq!(l.limit(), 2000);
        l.on_used(1600, Instant::now());
        assert_eq!(l.poll(), Some(LeaseAction::Rekey));
        assert_eq!(l.poll(), None);
        let standby = Lease::resume(LeasePolicy { fixed: Some(1000), esn: false }, 2000, 2000);
        assert_eq!(standby.limit(), SEQUENCE_MAX);
        assert!(standby.used() >= l.limit());
    }

    #[test]
    fn a_contested_lease_stays_below_what_the_partner_took_whatever_happens_then() {
        let mut l = Lease::new(LeasePolicy { fixed: Some(1000), esn: false });
        l.set_partner(true, true);
        l.set_partner(true, false);
        l.on_used(1200, Instant::now());
        l.contest();
        l.set_partner(false, true);
        l.rebase();
        l.set_partner(true, true);
        assert_eq!((l.limit(), l.is_contested()), (2000, true));
        assert_eq!((l.poll(), l.poll()), (Some(LeaseAction::Rekey), None), "no more numbers are asked for");
        let mut own = Lease::new(LeasePolicy { fixed: Some(1000), esn: false });
        own.contest();
        assert!(!own.is_contested(), "the partner never held it");
    }

    #[test]
    fn a_snapshot_raises_the_limit_only_when_a_stale_partner_has_it() {
        let mut l = Lease::new(LeasePolicy { fixed: Some(1000), esn: false });
        l.set_partner(true, false);
        l.on_used(1700, Instant::now());
        // Contact again; the partner still holds the old record and would start at 2001.
        l.set_partner(true, true);
        assert_eq!(l.limit(), 2000);
        let offered = l.offer();
        assert_eq!((offered, l.limit()), (2700, 2000));
        // Contact lost before the acknowledgement: nothing was gained.
        l.set_partner(true, false);
        assert_eq!(l.limit(), 2000);
        l.set_partner(true, true);
        let offered = l.offer();
        assert!(l.on_granted(offered));
        assert_eq!((l.limit(), l.standby_floor()), (2700, 3700));
        l.set_partner(true, true);
        assert_eq!((l.offer(), l.offer()), (2700, 2700));
        l.on_used(2600, Instant::now());
        assert_eq!(l.poll(), Some(LeaseAction::Extend(3600)), "an offer of nothing new waits for nothing");
        let mut fresh = Lease::new(LeasePolicy { fixed: Some(1000), esn: false });
        fresh.on_used(5000, Instant::now());
        assert_eq!(fresh.offer(), 6000, "a partner without state competes for nothing yet");
        assert_eq!(fresh.hi(), 6000);
    }

    #[test]
    fn an_unanswered_request_is_not_a_grant() {
        let mut l = Lease::new(LeasePolicy { fixed: Some(1000), esn: false });
        l.set_partner(true, true);
        l.on_used(600, Instant::now());
        assert_eq!(l.poll(), Some(LeaseAction::Extend(1600)));
        assert_eq!(l.poll(), None);
        assert_eq!(l.limit(), 1000);
        l.set_partner(true, false);
        l.set_partner(true, true);
        assert_eq!(l.poll(), Some(LeaseAction::Extend(1600)));
        assert!(l.on_granted(1600));
        assert_eq!(l.limit(), 1600);
    }

    #[test]
    fn numbers_that_run_low_ask_for_a_rekey_once() {
        let water = AUTO.high_water();
        assert_eq!(water, 0xdfff_fff9);
        let mut l = Lease::resume(AUTO, water + 1, water + 2);
        assert_eq!(l.poll(), Some(LeaseAction::Rekey));
        assert_eq!(l.poll(), None);
        assert!(l.standby_floor() <= SEQUENCE_MAX);
    }

    #[test]
    fn extended_numbers_go_on_where_the_short_ones_end() {
        let policy = LeasePolicy { fixed: Some(1_000_000), esn: true };
        let end = u64::from(u32::MAX);
        let mut l = Lease::resume(policy, end - 600_000, end - 10);
        l.set_partner(true, true);
        assert_eq!(l.standby_floor(), end + 999_990);
        l.on_used(end - 500_000, Instant::now());
        let Some(LeaseAction::Extend(hi)) = l.poll() else { panic!("numbers run low, and there are more") };
        assert_eq!(hi, end + 500_000);
        assert!(l.on_granted(hi) && l.poll().is_none());
        l.on_used(end + 400_000, Instant::now());
        assert_eq!((l.guard_lo(), l.limit()), (end + 400_000 - ESN_SLACK.min(1_000_000), hi), "never below its own start");
        assert!(l.limit() - l.guard_lo() < 1 << 32);
        l.set_partner(false, false);
        assert_eq!(l.limit(), SEQUENCE_MAX_ESN);
        let short = Lease::resume(LeasePolicy { esn: false, ..policy }, 5_000_000, 6_000_000);
        assert_eq!(short.guard_lo(), 5_000_000);
    }
}
