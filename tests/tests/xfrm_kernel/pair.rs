//! Two namespaces with policies and an adapter each: what the traffic tests share.

use crate::lab::*;
use gateway_user::netlink::xfrm::XfrmAdapter;
use gateway_user::ports::*;
use gateway_user::sad::ChildSa;
use std::net::UdpSocket;

pub struct Pair {
    pub lab: Lab,
    pub a: XfrmAdapter,
    pub b: XfrmAdapter,
    pub child_a: ChildSa,
    pub child_b: ChildSa,
    pub from: UdpSocket,
    pub to: UdpSocket,
    pub tap: Tap,
}

impl Pair {
    /// Policies on both sides, no SA yet.
    pub fn new(prefix: &str, child_a: ChildSa) -> Self {
        Self::between(prefix, child_a, "10.1.0.1:5000", "10.2.0.1:5001")
    }

    /// The same with other ends of the traffic.
    pub fn between(prefix: &str, child_a: ChildSa, from: &str, to: &str) -> Self {
        let lab = Lab::new(prefix);
        let mut a = within(&lab.a, || XfrmAdapter::open().unwrap());
        let mut b = within(&lab.b, || XfrmAdapter::open().unwrap());
        let child_b = mirror(&child_a);
        a.sync_policies(&[flow(&child_a)]).unwrap();
        b.sync_policies(&[flow(&child_b)]).unwrap();
        let (from, to) = (udp(&lab.a, from), udp(&lab.b, to));
        // At the sender: the receiver's device shows each packet a second time, decrypted.
        let tap = Tap::open(&lab.a, &lab.a);
        Self { lab, a, b, child_a, child_b, from, to, tap }
    }

    pub fn install(&mut self) {
        all_ok(self.b.install(&both(&self.child_b)));
        all_ok(self.a.install(&both(&self.child_a)));
    }

    pub fn send(&self, count: usize) -> usize {
        exchange(&self.from, &self.to, count)
    }

    pub fn answer(&self, count: usize) -> usize {
        exchange(&self.to, &self.from, count)
    }

    /// Out counter of `a`, in counter of `b`.
    pub fn numbers(&mut self) -> (u64, u64) {
        let out = self.a.replay(self.child_a.spi_out, self.child_a.peer).unwrap().oseq;
        (out, self.b.replay(self.child_b.spi_in, self.child_b.local).unwrap().seq)
    }
}
