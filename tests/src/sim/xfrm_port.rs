//! The product's `Xfrm` port onto a [`FakeKernel`]: what the netlink adapter and the kernel make of the calls.

use super::clock::Ns;
use super::kernel::{FakeKernel, Key, Sa, fitting, icv};
use super::window::Window;
use gateway_user::id::Spi;
use gateway_user::ports::{Direction, FlowPolicy, PortError, PortResult, ReplaySet, SaDump, SaInstall, SaUsed, Xfrm};
use gateway_user::sad::{ChildSa, Encap};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

fn failed(call: &'static str, object: String, error: io::Error) -> PortError {
    PortError { call, object, source: error }
}

impl FakeKernel {
    fn fails(&mut self, call: &'static str, object: impl FnOnce() -> String) -> PortResult<()> {
        if self.dice.chance(self.fail_per_10k) {
            return Err(failed(call, object(), io::Error::from_raw_os_error(libc::ENOBUFS)));
        }
        Ok(())
    }

    fn install_one(&mut self, sa: &SaInstall<'_>) -> PortResult<()> {
        let c = sa.child;
        let (spi, src, dst, keys) = match sa.direction {
            Direction::In => (c.spi_in, c.peer, c.local, &c.keys_in),
            Direction::Out => (c.spi_out, c.local, c.peer, &c.keys_out),
        };
        let name = || format!("SA {spi} to {dst}");
        self.fails("XFRM_MSG_NEWSA", name)?;
        // A combined mode brings its own integrity; nothing goes without.
        if spi.0 < 256 || c.integ.is_none() != c.encr.is_aead() || c.esn && c.replay_window == 0 {
            return Err(failed("XFRM_MSG_NEWSA", name(), io::ErrorKind::InvalidInput.into()));
        }
        let icv = icv(keys);
        if let Some(held) = self.sas.get(&(spi, dst)) {
            let same_src = held.src == src || sa.direction == Direction::In;
            let same_kind = held.esn == c.esn && held.encap.is_some() == c.encap.is_some();
            let equal = same_src && same_kind && held.reqid == sa.reqid && held.icv == icv && held.window.size == c.replay_window;
            if !equal {
                return Err(failed("XFRM_MSG_NEWSA", name(), io::ErrorKind::AlreadyExists.into()));
            }
            let behind = match sa.direction {
                Direction::In => sa.replay > 0,
                Direction::Out => held.oseq < fitting(sa.replay, c.esn),
            };
            if let Some(held) = self.sas.get_mut(&(spi, dst)) {
                held.encap = ports(c.encap, sa.direction);
            }
            if behind {
                let (direction, replay, window, esn) = (sa.direction, sa.replay, c.replay_window, c.esn);
                let set = ReplaySet { spi, dst, direction, replay, window, esn, used: None };
                return self.set_one(&set);
            }
            return Ok(());
        }
        let number = fitting(sa.replay, c.esn);
        let past = self.past.get(&(spi, icv)).copied().unwrap_or_default();
        let (seq, oseq, before) = match sa.direction {
            Direction::In => (number, 0, past.0),
            Direction::Out => (0, number, past.1),
        };
        if number < before {
            self.violations.push(format!("SA {spi} to {dst} was removed at {before} and is installed again at {number}"));
        }
        let now = self.time.now();
        let event_time = sa.event_time.as_nanos() as Ns;
        self.next_order += 1;
        let new = Sa {
            src,
            reqid: sa.reqid,
            direction: sa.direction,
            icv,
            window: Window::new(c.replay_window, seq, seq != 0 && !self.knobs.empty_bitmap),
            oseq,
            esn: c.esn,
            encap: ports(c.encap, sa.direction),
            mapping: None,
            told: (seq, oseq),
            event_packets: sa.event_packets,
            event_time,
            event_at: (event_time != 0).then_some(now + event_time),
            event_deferred: false,
            bytes: sa.used.bytes,
            packets: sa.used.packets,
            refused: [0; 3],
            added_s: self.now_s().saturating_sub(sa.used.age_s),
            soft: c.soft,
            hard: c.lifetime,
            dying: false,
            order: self.next_order,
        };
        self.sas.insert((spi, dst), new);
        if sa.direction == Direction::Out {
            self.acquiring.remove(&sa.reqid);
        }
        Ok(())
    }

    fn set_one(&mut self, set: &ReplaySet) -> PortResult<()> {
        let name = || format!("SA {} to {}", set.spi, set.dst);
        self.fails("XFRM_MSG_NEWAE", name)?;
        let now_s = self.now_s();
        let knobs = self.knobs;
        let error = |kind: io::ErrorKind, why: String| failed("XFRM_MSG_NEWAE", name(), io::Error::new(kind, why));
        let Some(sa) = self.sas.get_mut(&(set.spi, set.dst)) else {
            return Err(failed("XFRM_MSG_NEWAE", name(), io::Error::from_raw_os_error(libc::ESRCH)));
        };
        if set.window != sa.window.size {
            return Err(error(io::ErrorKind::InvalidInput, format!("window {} of an SA with {}", set.window, sa.window.size)));
        }
        if set.esn != sa.esn {
            return Err(error(io::ErrorKind::InvalidInput, format!("extended numbers {} of an SA with {}", set.esn, sa.esn)));
        }
        let to = fitting(set.replay, set.esn);
        match set.direction {
            Direction::In if knobs.empty_bitmap => sa.window = Window::new(set.window, to.max(sa.window.top), false),
            Direction::In => sa.window.close(to),
            Direction::Out if to < sa.oseq => {
                let held = sa.oseq;
                self.violations.push(format!("SA {} to {} asked to go back from {held} to {to}", set.spi, set.dst));
                return Err(error(io::ErrorKind::InvalidInput, format!("outbound number would go back from {held} to {to}")));
            }
            Direction::Out if knobs.forget_out_writes => {}
            Direction::Out => sa.oseq = to,
        }
        sa.told = sa.replay();
        if let Some(used) = set.used {
            let SaUsed { age_s, bytes, packets } = used;
            (sa.bytes, sa.packets, sa.added_s) = (sa.bytes.max(bytes), sa.packets.max(packets), now_s.saturating_sub(age_s));
        }
        Ok(())
    }

    fn dump_all(&mut self) -> PortResult<Vec<SaDump>> {
        self.fails("XFRM_MSG_GETSA", || "dump".into())?;
        let now_s = self.now_s();
        let view = |((spi, dst), sa): (&Key, &Sa)| SaDump {
            spi: *spi,
            src: sa.src,
            dst: *dst,
            reqid: sa.reqid,
            seq: sa.window.top,
            oseq: sa.oseq,
            bytes: sa.bytes,
            packets: sa.packets,
            age_s: now_s.saturating_sub(sa.added_s),
            replay_window: sa.refused[0],
            replay: sa.refused[1],
            integrity_failed: sa.refused[2],
        };
        Ok(self.sas.iter().map(view).collect())
    }

    /// As the adapter does it: ports in place, another address as a new SA from the number the old one ended with, encapsulation that begins or
    /// ends with the window closed.
    fn move_one(&mut self, child: &ChildSa, peer: IpAddr, encap: Option<Encap>) -> PortResult<()> {
        self.fails("XFRM_MSG_UPDSA", || format!("SA {} to {}", child.spi_in, child.local))?;
        let framing = child.encap.is_some() != encap.is_some();
        if let Some(sa) = self.sas.get_mut(&(child.spi_in, child.local)) {
            sa.encap = ports(encap, Direction::In);
            if framing {
                sa.src = peer;
                sa.window.close(sa.window.top + u64::from(sa.window.size));
            }
        }
        self.fails("XFRM_MSG_DELSA", || format!("SA {} to {}", child.spi_out, child.peer))?;
        if let Some(mut sa) = self.sas.remove(&(child.spi_out, child.peer)) {
            sa.encap = ports(encap, Direction::Out);
            self.next_order += 1;
            sa.order = self.next_order;
            self.sas.insert((child.spi_out, peer), sa);
        }
        Ok(())
    }

    fn remove_one(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()> {
        self.fails("XFRM_MSG_DELSA", || format!("SA {spi} to {dst}"))?;
        self.drop_sa((spi, dst));
        Ok(())
    }
}

/// Source and destination port of encapsulated packets.
fn ports(encap: Option<Encap>, direction: Direction) -> Option<(u16, u16)> {
    encap.map(|e| match direction {
        Direction::In => (e.peer_port, e.local_port),
        Direction::Out => (e.local_port, e.peer_port),
    })
}

/// Anything that has a [`FakeKernel`] inside.
pub trait HasKernel: Send {
    /// It.
    fn kernel(&mut self) -> &mut FakeKernel;
}

impl HasKernel for FakeKernel {
    fn kernel(&mut self) -> &mut FakeKernel {
        self
    }
}

/// The port: one of several hands on the same kernel.
pub struct XfrmPort<T>(pub Arc<Mutex<T>>);

impl<T: HasKernel> XfrmPort<T> {
    fn with<R>(&self, work: impl FnOnce(&mut FakeKernel) -> R) -> R {
        // A panic in a test ends the world anyway.
        let mut held = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(held.kernel())
    }
}

impl<T: HasKernel> Xfrm for XfrmPort<T> {
    fn install(&mut self, sas: &[SaInstall<'_>]) -> Vec<PortResult<()>> {
        self.with(|k| sas.iter().map(|sa| k.install_one(sa)).collect())
    }

    fn remove(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()> {
        self.with(|k| k.remove_one(spi, dst))
    }

    fn set_replay(&mut self, sets: &[ReplaySet]) -> Vec<PortResult<()>> {
        self.with(|k| sets.iter().map(|s| k.set_one(s)).collect())
    }

    fn move_peer(&mut self, child: &ChildSa, peer: IpAddr, encap: Option<Encap>) -> PortResult<()> {
        self.with(|k| k.move_one(child, peer, encap))
    }

    fn dump(&mut self) -> PortResult<Vec<SaDump>> {
        self.with(FakeKernel::dump_all)
    }

    fn sync_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()> {
        self.with(|k| {
            k.fails("XFRM_MSG_UPDPOLICY", || "policies".into())?;
            k.policies = flows.to_vec();
            Ok(())
        })
    }

    fn update_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()> {
        self.with(|k| {
            k.fails("XFRM_MSG_UPDPOLICY", || "policies".into())?;
            for flow in flows {
                match k.policies.iter_mut().find(|p| (p.local, p.remote) == (flow.local, flow.remote)) {
                    Some(held) => held.clone_from(flow),
                    None => k.policies.push(flow.clone()),
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::{MS, SEC, Time};
    use crate::sim::dice::Dice;
    use crate::sim::frame;
    use crate::sim::kernel::{InDrop, Outbound};
    use crate::sim::window::Replayed;
    use gateway_user::crypto::{AesKey, CipherAlg, Icv, IntegAlg, Secret};
    use gateway_user::id::IkeVersion;
    use gateway_user::ports::XfrmEvent;
    use gateway_user::sad::{EspKeys, Lifetime, Mode, Selector};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 10);
    const REQID: u32 = 0x0100_0007;

    fn child(key: u8) -> ChildSa {
        let keys = |k: u8| EspKeys { encr: Secret::new(vec![k; 16]), integ: Secret::new(vec![k; 32]) };
        ChildSa {
            spi_in: Spi(0x1000 + u32::from(key)),
            spi_out: Spi(0x2000 + u32::from(key)),
            isakmp: Default::default(),
            map: "VPN".into(),
            map_seq: 1,
            ace: 0,
            digest: Default::default(),
            local: VIP.into(),
            peer: PEER.into(),
            ts_local: Selector::net4(Ipv4Addr::new(10, 1, 0, 0), 24),
            ts_remote: Selector::net4(Ipv4Addr::new(10, 2, 1, 0), 24),
            mode: Mode::Tunnel,
            encr: CipherAlg::Aes128,
            integ: Some(IntegAlg::HmacSha256),
            keys_in: keys(key),
            keys_out: keys(key + 100),
            pfs: None,
            lifetime: Lifetime { seconds: 100, kilobytes: 0 },
            soft: Lifetime { seconds: 90, kilobytes: 0 },
            replay_window: 64,
            initiator: true,
            version: IkeVersion::V1,
            esn: false,
            encap: None,
        }
    }

    fn sa(child: &ChildSa, direction: Direction, replay: u64) -> SaInstall<'_> {
        let event_time = Duration::from_millis(100);
        SaInstall { child, direction, reqid: REQID, replay, used: SaUsed::default(), event_packets: 4, event_time }
    }

    fn kernel(time: &Time) -> FakeKernel {
        let mut k = FakeKernel::new(time.clone(), Dice::new(1, 1));
        let c = child(1);
        k.policies = vec![FlowPolicy {
            local: c.ts_local,
            remote: c.ts_remote,
            tunnel_local: c.local,
            tunnel_peer: c.peer,
            reqid: REQID,
            priority: 1000,
            mode: Mode::Tunnel,
        }];
        k
    }

    fn clear(src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        frame::ip_packet(src, dst, frame::UDP, 64, &frame::udp(9, 9, b"x"))
    }

    /// Sends one packet; gives its number.
    fn send(k: &mut FakeKernel, local: bool) -> Result<u32, &'static str> {
        let packet = clear(HOST, FAR);
        let Some(ip) = frame::ip(&packet) else { return Err("malformed") };
        match k.output(&ip, |_| local) {
            Outbound::Protected(outer) => Ok(frame::ip(&outer).and_then(|o| frame::esp_of(&o).map(|e| e.seq)).unwrap_or(0)),
            Outbound::Drop(reason) => Err(reason),
            Outbound::Clear => Err("clear"),
        }
    }

    fn receive(k: &mut FakeKernel, c: &ChildSa, seq: u32) -> Result<(), InDrop> {
        let esp = frame::esp(c.spi_in.0, seq, icv(&c.keys_in), &clear(FAR, HOST));
        let packet = frame::ip_packet(PEER, VIP, frame::ESP, 64, &esp);
        frame::ip(&packet).ok_or(InDrop::Template).and_then(|ip| k.input(&ip)).map(|_| ())
    }

    #[test]
    fn no_sa_asks_once_and_a_dormant_one_does_not_count() {
        let time = Time::new();
        let mut k = kernel(&time);
        assert_eq!((send(&mut k, true), send(&mut k, true)), (Err("out_no_states"), Err("out_no_states")));
        assert!(matches!(k.take_events().as_slice(), [XfrmEvent::Acquire(a)] if a.reqid == REQID));
        let c = child(1);
        assert!(k.install_one(&sa(&c, Direction::Out, 500)).is_ok());
        assert_eq!(send(&mut k, false), Err("out_bundle_gen_error"));
        assert_eq!((send(&mut k, true), send(&mut k, true)), (Ok(501), Ok(502)));
    }

    #[test]
    fn events_come_by_number_and_by_time_and_one_is_deferred() {
        let time = Time::new();
        let mut k = kernel(&time);
        let c = child(1);
        assert!(k.install_one(&sa(&c, Direction::In, 0)).is_ok());
        for seq in 1..=9 {
            assert_eq!(receive(&mut k, &c, seq), Ok(()));
        }
        let seqs = |k: &mut FakeKernel| -> Vec<u64> {
            let seq = |e| if let XfrmEvent::Replay { seq, .. } = e { seq } else { 0 };
            k.take_events().into_iter().map(seq).collect()
        };
        assert_eq!(seqs(&mut k), [4, 8]);
        time.set(100 * MS);
        k.on_timer();
        assert_eq!(seqs(&mut k), [9]);
        time.set(200 * MS);
        k.on_timer();
        assert_eq!(seqs(&mut k), Vec::<u64>::new(), "idle is silent");
        time.set(500 * MS);
        assert_eq!(receive(&mut k, &c, 10), Ok(()));
        assert_eq!(seqs(&mut k), [10], "the first after idleness tells at once");
    }

    #[test]
    fn the_window_is_checked_before_the_integrity_value_and_never_goes_back() {
        let time = Time::new();
        let mut k = kernel(&time);
        let c = child(1);
        assert!(k.install_one(&sa(&c, Direction::In, 0)).is_ok());
        assert_eq!(receive(&mut k, &c, 70), Ok(()));
        let mut forged = c.clone();
        forged.keys_in = forged.keys_out.clone();
        assert_eq!(receive(&mut k, &forged, 70), Err(InDrop::Replay(Replayed::Seen)));
        assert_eq!(receive(&mut k, &forged, 71), Err(InDrop::Integrity));
        assert_eq!(receive(&mut k, &c, 6), Err(InDrop::Replay(Replayed::TooOld)));
        let set = |direction, replay| ReplaySet { spi: c.spi_in, dst: c.local, direction, replay, window: 64, esn: false, used: None };
        assert!(k.set_one(&set(Direction::In, 30)).is_ok());
        assert_eq!((receive(&mut k, &c, 30), receive(&mut k, &c, 31)), (Err(InDrop::Replay(Replayed::Seen)), Ok(())));
        assert!(k.violations.is_empty());
        assert!(k.install_one(&sa(&c, Direction::Out, 100)).is_ok());
        let back = ReplaySet { spi: c.spi_out, dst: c.peer, ..set(Direction::Out, 99) };
        assert!(k.set_one(&back).is_err() && k.violations.len() == 1);
        assert!(k.remove_one(c.spi_out, c.peer).is_ok() && k.install_one(&sa(&c, Direction::Out, 50)).is_ok());
        assert_eq!(k.violations.len(), 2, "also not by way of a removal");
    }

    /// Destination, ports when it is in UDP, and the low half of its number.
    type Outer = (Ipv4Addr, Option<(u16, u16)>, u32);

    /// One packet to the peer.
    fn sent(k: &mut FakeKernel) -> Option<Outer> {
        let packet = clear(HOST, FAR);
        let Outbound::Protected(outer) = k.output(&frame::ip(&packet)?, |_| true) else { return None };
        let ip = frame::ip(&outer)?;
        let Some((from, to, payload)) = frame::udp_of(&ip) else { return Some((ip.dst, None, frame::esp_of(&ip)?.seq)) };
        let esp = frame::esp_of(&frame::Ip { proto: frame::ESP, payload, ..ip })?;
        Some((ip.dst, Some((from, to)), esp.seq))
    }

    #[test]
    fn extended_numbers_cross_the_wrap_and_a_lost_high_half_is_not_heard() {
        let time = Time::new();
        let wrap = 1_u64 << 32;
        let (mut a, mut b) = (kernel(&time), kernel(&time));
        let c = ChildSa { esn: true, encr: CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16), integ: None, ..child(1) };
        // `b` is where `a` sends to: the same SA, received.
        let end = ChildSa { spi_in: c.spi_out, keys_in: c.keys_out.clone(), local: c.peer, peer: c.local, ..c.clone() };
        b.policies = vec![FlowPolicy { local: c.ts_remote, remote: c.ts_local, ..b.policies[0].clone() }];
        assert!(a.install_one(&sa(&c, Direction::Out, wrap - 2)).is_ok());
        assert!(b.install_one(&sa(&end, Direction::In, wrap - 2)).is_ok());
        let cross = |a: &mut FakeKernel, b: &mut FakeKernel| {
            let packet = clear(HOST, FAR);
            let Outbound::Protected(outer) = a.output(&frame::ip(&packet).unwrap(), |_| true) else { panic!("not sent") };
            b.input(&frame::ip(&outer).unwrap()).map(|_| ())
        };
        for _ in 0..5 {
            assert_eq!(cross(&mut a, &mut b), Ok(()));
        }
        assert_eq!((a.sa(c.spi_out, c.peer).unwrap().oseq, b.sa(c.spi_out, c.peer).unwrap().seq()), (wrap + 3, wrap + 3));
        let mut forgetful = kernel(&time);
        assert!(forgetful.install_one(&sa(&c, Direction::Out, 500)).is_ok());
        assert_eq!(cross(&mut forgetful, &mut b), Err(InDrop::Integrity));
        let short = ReplaySet { spi: c.spi_out, dst: c.peer, direction: Direction::Out, replay: 9, window: 64, esn: false, used: None };
        assert!(a.set_one(&short).is_err());
        let none = ChildSa { integ: None, ..child(3) };
        assert!(a.install_one(&sa(&none, Direction::Out, 0)).is_err(), "no integrity");
    }

    #[test]
    fn a_moved_peer_is_sent_the_next_number() {
        let time = Time::new();
        let mut k = kernel(&time);
        let encap = |peer_port| Some(Encap { local_port: 4500, peer_port });
        let c = ChildSa { encap: encap(4500), ..child(1) };
        assert!(k.install_one(&sa(&c, Direction::Out, 0)).is_ok() && k.install_one(&sa(&c, Direction::In, 0)).is_ok());
        assert_eq!(sent(&mut k), Some((PEER, Some((4500, 4500)), 1)));
        assert!(k.move_one(&c, c.peer, encap(31_000)).is_ok());
        assert_eq!(sent(&mut k), Some((PEER, Some((4500, 31_000)), 2)));
        let there = Ipv4Addr::new(192, 0, 2, 99);
        let c = ChildSa { encap: encap(31_000), ..c };
        assert!(k.move_one(&c, there.into(), encap(31_001)).is_ok());
        k.policies[0].tunnel_peer = there.into();
        assert_eq!(sent(&mut k), Some((there, Some((4500, 31_001)), 3)));
        // What comes from there is told once a second, and a plain packet is not taken.
        let from = |src, port: u16, seq| {
            let esp = frame::esp(c.spi_in.0, seq, icv(&c.keys_in), &clear(FAR, HOST));
            frame::ip_packet(src, VIP, frame::UDP, 64, &frame::udp(port, 4500, &esp))
        };
        k.take_events();
        let mappings = |k: &mut FakeKernel| k.take_events().iter().filter(|e| matches!(e, XfrmEvent::Mapping { .. })).count();
        for seq in 1..4 {
            assert!(k.input(&frame::ip(&from(there, 31_002, seq)).unwrap()).is_ok());
        }
        assert_eq!(mappings(&mut k), 1);
        assert_eq!(receive(&mut k, &c, 9), Err(InDrop::Encapsulation));
        assert!(k.violations.is_empty(), "{:?}", k.violations);
    }

    #[test]
    fn lifetimes_end_and_the_younger_sa_is_used() {
        let time = Time::new();
        let mut k = kernel(&time);
        let (old, new) = (child(1), child(2));
        assert!(k.install_one(&sa(&old, Direction::Out, 1000)).is_ok());
        time.set(5 * SEC);
        assert!(k.install_one(&sa(&new, Direction::Out, 0)).is_ok());
        assert_eq!(send(&mut k, true), Ok(1));
        time.set(90 * SEC);
        k.on_timer();
        let soft = |e: &XfrmEvent| matches!(e, XfrmEvent::Expire { spi, hard: false, .. } if *spi == old.spi_out);
        assert!(k.take_events().iter().any(soft));
        time.set(100 * SEC);
        k.on_timer();
        assert!(k.sa(old.spi_out, old.peer).is_none() && k.sa(new.spi_out, new.peer).is_some());
    }

    #[test]
    fn too_many_events_are_an_overrun() {
        let time = Time::new();
        let mut k = kernel(&time);
        let c = child(1);
        assert!(k.install_one(&SaInstall { event_packets: 1, ..sa(&c, Direction::In, 0) }).is_ok());
        for seq in 1..=crate::sim::kernel::EVENTS_MAX as u32 + 5 {
            assert_eq!(receive(&mut k, &c, seq), Ok(()));
        }
        let events = k.take_events();
        assert_eq!((events.first(), events.len()), (Some(&XfrmEvent::Overrun), crate::sim::kernel::EVENTS_MAX + 1));
    }
}
