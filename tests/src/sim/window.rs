//! The replay window of an inbound SA as the kernel's bitmap form keeps it, with numbers of 32 or 64 bits.

/// The window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// Packets.
    pub size: u32,
    /// Highest number verified.
    pub top: u64,
    bits: Vec<bool>,
}

/// Why a window refuses a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Replayed {
    /// Left of the window.
    TooOld,
    /// Its bit is set.
    Seen,
}

impl Window {
    /// A window at `top`, empty or full.
    pub fn new(size: u32, top: u64, full: bool) -> Self {
        Self { size, top, bits: vec![full; size as usize] }
    }

    /// The number that the low half on the wire stands for with extended numbers (RFC 4303 appendix A2.2).
    pub fn extend(&self, low: u32) -> u64 {
        let (top, high) = (self.top as u32, self.top >> 32);
        let bottom = top.wrapping_sub(self.size).wrapping_add(1);
        let high = if top >= self.size.saturating_sub(1) {
            if low < bottom { high + 1 } else { high }
        } else if low >= bottom {
            // Below zero there is no number: one so high that nobody sends it.
            high.wrapping_sub(1)
        } else {
            high
        };
        high << 32 | u64::from(low)
    }

    /// Whether a number may come in.
    pub fn check(&self, seq: u64) -> Result<(), Replayed> {
        if self.size == 0 {
            return Ok(());
        }
        if seq == 0 {
            return Err(Replayed::TooOld);
        }
        if seq > self.top {
            return Ok(());
        }
        if self.top - seq >= self.size.into() {
            return Err(Replayed::TooOld);
        }
        if self.bits[(seq % u64::from(self.size)) as usize] { Err(Replayed::Seen) } else { Ok(()) }
    }

    /// What lies at or below the floor is never taken again; what was received beyond it stays as it is.
    pub fn close(&mut self, floor: u64) {
        if floor >= self.top {
            *self = Self::new(self.size, floor, floor != 0);
            return;
        }
        let oldest = (self.top + 1).saturating_sub(self.size.into()).max(1);
        for seq in oldest..=floor {
            self.bits[(seq % u64::from(self.size)) as usize] = true;
        }
    }

    /// A number was verified.
    pub fn advance(&mut self, seq: u64) {
        if self.size == 0 {
            return;
        }
        if seq > self.top {
            if seq - self.top >= self.size.into() {
                self.bits.fill(false);
            } else {
                for between in self.top + 1..seq {
                    self.bits[(between % u64::from(self.size)) as usize] = false;
                }
            }
            self.top = seq;
        }
        self.bits[(seq % u64::from(self.size)) as usize] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_each_number_once_and_nothing_left_of_itself() {
        let mut w = Window::new(32, 0, false);
        assert_eq!(w.check(0), Err(Replayed::TooOld));
        for seq in [1, 5, 3, 40] {
            assert_eq!(w.check(seq), Ok(()));
            w.advance(seq);
            assert_eq!(w.check(seq), Err(Replayed::Seen));
        }
        assert_eq!(w.check(8), Err(Replayed::TooOld));
        assert_eq!((w.check(9), w.check(39)), (Ok(()), Ok(())));
    }

    #[test]
    fn the_high_half_is_found_through_the_window() {
        let wrap = 1_u64 << 32;
        for (top, number) in [
            (0, 1),
            (100, 200),
            (wrap - 10, wrap - 5),
            (wrap - 10, wrap + 5),
            (wrap + 5, wrap - 20),
            (wrap + 5, wrap + 3),
            (wrap + 5, 2 * wrap - 60),
            (5 * wrap, 5 * wrap - 63),
            (5 * wrap + 63, 5 * wrap),
        ] {
            assert_eq!(Window::new(64, top, false).extend(number as u32), number, "top {top}");
        }
        assert!(Window::new(64, 5, false).extend(u32::MAX) > u64::MAX - wrap);
    }

    #[test]
    fn a_floor_closes_what_lies_below_and_leaves_what_lies_above() {
        let mut w = Window::new(64, 0, false);
        w.advance(100);
        w.close(90);
        assert_eq!((w.check(90), w.check(91), w.check(100)), (Err(Replayed::Seen), Ok(()), Err(Replayed::Seen)));
        w.close(5000);
        assert_eq!((w.check(5000), w.check(4990), w.check(5001)), (Err(Replayed::Seen), Err(Replayed::Seen), Ok(())));
        w.close(10);
        assert_eq!(w.top, 5000, "never back");
    }
}
