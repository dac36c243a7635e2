//! A switch: learns MAC addresses, delays, loses, doubles and reorders frames, and can be cut anywhere.

use super::clock::Ns;
use super::dice::Dice;
use super::frame::{self, Mac};
use super::plan::Setup;
use std::collections::BTreeMap;

/// Slowest frame that was held back: this many times the delay.
const HELD_BACK: u64 = 8;

/// One port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// Frames from the station are lost.
    pub deaf: bool,
    /// Frames to the station are lost.
    pub mute: bool,
    /// Ports of different islands do not hear each other.
    pub island: u8,
}

/// How bad a LAN is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Delay of every frame.
    pub delay: Ns,
    /// Random addition.
    pub jitter: Ns,
    /// Lost, of ten thousand.
    pub loss: u32,
    /// Doubled, of ten thousand.
    pub duplicate: u32,
    /// Held back, of ten thousand.
    pub reorder: u32,
}

impl Weather {
    /// As the setup wants it.
    pub fn of(s: &Setup) -> Self {
        Self { delay: s.delay, jitter: s.jitter, loss: s.loss, duplicate: s.duplicate, reorder: s.reorder }
    }

    /// Nothing is lost, doubled or reordered.
    pub fn calm(self) -> Self {
        Self { jitter: 0, loss: 0, duplicate: 0, reorder: 0, ..self }
    }

    /// Latest arrival of a frame that is not lost.
    pub fn delay_max(&self) -> Ns {
        let late = if self.reorder > 0 { self.delay * HELD_BACK } else { 0 };
        self.delay + self.jitter + late
    }
}

/// The switch.
pub struct Lan {
    /// Ports.
    pub ports: Vec<Port>,
    /// How bad it is.
    pub weather: Weather,
    table: BTreeMap<Mac, usize>,
    dice: Dice,
}

impl Lan {
    /// A switch with empty table.
    pub fn new(ports: usize, weather: Weather, dice: Dice) -> Self {
        Self { ports: vec![Port::default(); ports], weather, table: BTreeMap::new(), dice }
    }

    /// True when frames from one port reach the other.
    pub fn open(&self, from: usize, to: usize) -> bool {
        let (f, t) = (&self.ports[from], &self.ports[to]);
        !f.deaf && !t.mute && f.island == t.island
    }

    /// Port a MAC was seen on last.
    pub fn port_of(&self, mac: Mac) -> Option<usize> {
        self.table.get(&mac).copied()
    }

    /// Cable pulled: the switch forgets what it learned there.
    pub fn forget(&mut self, port: usize) {
        self.table.retain(|_, p| *p != port);
    }

    /// Where a frame arrives, and after which time.
    pub fn carry(&mut self, from: usize, bytes: &[u8]) -> Vec<(usize, Ns)> {
        if self.ports[from].deaf {
            return Vec::new();
        }
        self.table.insert(frame::src_mac(bytes), from);
        let dst = frame::dst_mac(bytes);
        let known = if dst[0] & 1 == 1 { None } else { self.table.get(&dst).copied() };
        let mut out = Vec::new();
        for to in 0..self.ports.len() {
            if to == from || !self.open(from, to) || known.is_some_and(|k| k != to) {
                continue;
            }
            let copies = 1 + u32::from(self.dice.chance(self.weather.duplicate));
            for _ in 0..copies {
                if self.dice.chance(self.weather.loss) {
                    continue;
                }
                let mut delay = self.weather.delay;
                if self.weather.jitter > 0 {
                    delay += self.dice.range(0..=self.weather.jitter);
                }
                if self.dice.chance(self.weather.reorder) {
                    delay += self.dice.range(0..=self.weather.delay * HELD_BACK);
                }
                out.push((to, delay));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lan(weather: Weather) -> Lan {
        Lan::new(4, weather, Dice::new(1, 2))
    }

    const FINE: Weather = Weather { delay: 10, jitter: 0, loss: 0, duplicate: 0, reorder: 0 };

    fn bytes(src: u8, dst: u8) -> Vec<u8> {
        frame::ip_frame([2, 0, 0, 0, 0, src], [2, 0, 0, 0, 0, dst], &[0x45])
    }

    fn ports(got: Vec<(usize, Ns)>) -> Vec<usize> {
        got.into_iter().map(|(p, _)| p).collect()
    }

    #[test]
    fn it_floods_then_learns_then_follows_a_mac_that_moves() {
        let mut l = lan(FINE);
        assert_eq!(ports(l.carry(0, &bytes(1, 2))), [1, 2, 3]);
        assert_eq!(ports(l.carry(1, &bytes(2, 1))), [0]);
        assert_eq!(ports(l.carry(3, &bytes(1, 2))), [1]);
        assert_eq!(ports(l.carry(1, &bytes(2, 1))), [3]);
    }

    #[test]
    fn cuts_work_in_one_direction_and_between_islands() {
        let mut l = lan(FINE);
        l.ports[0].deaf = true;
        assert!(l.carry(0, &bytes(1, 2)).is_empty());
        assert_eq!(ports(l.carry(1, &bytes(2, 9))), [0, 2, 3]);
        l.ports[2].island = 1;
        l.ports[3].mute = true;
        assert_eq!(ports(l.carry(1, &bytes(2, 9))), [0]);
    }

    #[test]
    fn bad_weather_loses_and_doubles_about_as_much_as_it_says() {
        let mut l = lan(Weather { loss: 1000, duplicate: 1000, ..FINE });
        let n: usize = (0..1000).map(|_| l.carry(0, &bytes(1, 2)).len()).sum();
        assert!((2800..3100).contains(&n), "{n}");
    }
}
