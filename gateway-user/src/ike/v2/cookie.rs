//! Cookies of IKE_SA_INIT (RFC 7296 2.6): a responder under load keeps nothing before the initiator shows that it hears us.

use crate::crypto::{HashAlg, Secret, ct_eq};
use crate::rng::Random;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A secret is used for this long to make cookies, and as long again to check them.
const AGE: Duration = Duration::from_secs(60);
const SECRET_LEN: usize = 32;

struct Generation {
    number: u8,
    secret: Secret,
    since: Instant,
}

/// Makes and checks cookies. A cookie is the number of its secret and an HMAC over nonce, address and SPI of the initiator.
#[derive(Default)]
pub(super) struct Cookies {
    current: Option<Generation>,
    previous: Option<Generation>,
}

fn mac(generation: &Generation, ni: &[u8], from: IpAddr, spi: &[u8; 8]) -> Vec<u8> {
    let address = match from {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let mut cookie = vec![generation.number];
    cookie.extend(HashAlg::Sha256.hmac(generation.secret.expose(), &[ni, &address, spi]));
    cookie
}

impl Cookies {
    fn rotate(&mut self, rng: &mut dyn Random, now: Instant) {
        let age = |g: &Generation| now.saturating_duration_since(g.since);
        if self.current.as_ref().is_some_and(|g| age(g) < AGE) {
            return;
        }
        let number = self.current.as_ref().map_or(0, |g| g.number.wrapping_add(1));
        let mut secret = vec![0; SECRET_LEN];
        rng.fill(&mut secret);
        let fresh = Generation { number, secret: Secret::new(secret), since: now };
        self.previous = self.current.replace(fresh).filter(|g| age(g) < 2 * AGE);
    }

    /// The cookie for an initiator.
    pub(super) fn make(&mut self, ni: &[u8], from: IpAddr, spi: &[u8; 8], rng: &mut dyn Random, now: Instant) -> Vec<u8> {
        self.rotate(rng, now);
        self.current.as_ref().map(|g| mac(g, ni, from, spi)).unwrap_or_default()
    }

    /// True for a cookie that we made for this initiator not long ago.
    pub(super) fn check(&self, cookie: &[u8], ni: &[u8], from: IpAddr, spi: &[u8; 8], now: Instant) -> bool {
        let fresh = |g: &&Generation| now.saturating_duration_since(g.since) < 2 * AGE;
        let known = [&self.current, &self.previous].into_iter().flatten().filter(fresh);
        known.filter(|g| cookie.first() == Some(&g.number)).any(|g| ct_eq(&mac(g, ni, from, spi), cookie))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seeded;

    #[test]
    fn a_cookie_is_good_for_its_initiator_and_for_two_minutes_at_most() {
        let (mut c, mut rng, t) = (Cookies::default(), Seeded::new(1), Instant::now());
        let from: IpAddr = [192, 0, 2, 1].into();
        let (ni, spi) = ([7; 32], [1; 8]);
        assert!(!c.check(&[0; 33], &ni, from, &spi, t));
        let cookie = c.make(&ni, from, &spi, &mut rng, t);
        assert!(cookie.len() <= 64);
        assert_eq!(c.make(&ni, from, &spi, &mut rng, t + AGE / 2), cookie);
        assert!(c.check(&cookie, &ni, from, &spi, t + AGE / 2));
        assert!(!c.check(&cookie, &[8; 32], from, &spi, t));
        assert!(!c.check(&cookie, &ni, [192, 0, 2, 2].into(), &spi, t));
        assert!(!c.check(&cookie, &ni, from, &[2; 8], t));
        assert!(!c.check(&cookie[..32], &ni, from, &spi, t));
        let next = c.make(&ni, from, &spi, &mut rng, t + AGE);
        assert_ne!(next, cookie);
        assert!(c.check(&cookie, &ni, from, &spi, t + AGE + AGE / 2), "the secret before is still good");
        assert!(!c.check(&cookie, &ni, from, &spi, t + 2 * AGE));
        assert!(c.check(&next, &ni, from, &spi, t + 2 * AGE));
        c.make(&ni, from, &spi, &mut rng, t + 5 * AGE);
        assert!(!c.check(&next, &ni, from, &spi, t + 5 * AGE));
    }
}
