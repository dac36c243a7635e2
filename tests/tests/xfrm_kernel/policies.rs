//! Policies: what is put, kept, replaced and removed, seen through the kernel's own notifications.

use crate::lab::*;
use gateway_user::netlink::message::Messages;
use gateway_user::netlink::xfrm::XfrmAdapter;
use gateway_user::ports::*;
use gateway_user::sad::Selector;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockType, bind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const NEW: u16 = 0x13;
const DELETE: u16 = 0x14;
const UPDATE: u16 = 0x19;
/// Bit of XFRMNLGRP_POLICY.
const POLICY_GROUP: u32 = 1 << 3;

/// Hears of every change of policies.
struct Watch(OwnedFd);

impl Watch {
    fn open(ns: &str) -> Self {
        within(ns, || {
            let kind = SockType::Raw as i32 | SockFlag::SOCK_NONBLOCK.bits();
            // SAFETY: plain call without pointers.
            let raw = unsafe { libc::socket(AddressFamily::Netlink as i32, kind, libc::NETLINK_XFRM) };
            assert!(raw >= 0);
            // SAFETY: just opened, not owned elsewhere.
            let fd = unsafe { OwnedFd::from_raw_fd(raw) };
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, POLICY_GROUP)).unwrap();
            Self(fd)
        })
    }

    /// (added, replaced, deleted) since the last call.
    fn changes(&self) -> (usize, usize, usize) {
        let mut buffer = [0; 65536];
        let mut kinds = Vec::new();
        while let Ok(n) = nix::unistd::read(&self.0, &mut buffer) {
            kinds.extend(Messages::new(&buffer[..n]).map(|m| m.kind));
        }
        let count = |kind| kinds.iter().filter(|k| **k == kind).count();
        (count(NEW), count(UPDATE), count(DELETE))
    }
}

fn policies(ns: &str) -> String {
    output(&format!("ip -n {ns} xfrm policy"))
}

#[test]
fn flows_are_synced_by_difference() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltf");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let watch = Watch::open(&lab.a);
    let stranger = "src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 4000000000";
    run(&format!("ip -n {} xfrm policy add {stranger} action allow", lab.a));
    assert_eq!(watch.changes(), (1, 0, 0));

    let first = flow(&child());
    let second = FlowPolicy {
        local: Selector { proto: 17, port: 500, ..first.local },
        remote: Selector { proto: 17, ..Selector::ANY4 },
        reqid: 77_777,
        priority: 200,
        ..first.clone()
    };
    xfrm.sync_policies(&[first.clone(), second.clone()]).unwrap();
    assert_eq!(watch.changes(), (0, 12, 0), "six each, every one by an atomic put");
    let text = policies(&lab.a);
    assert_eq!(text.matches("action block").count(), 6, "{text}");
    assert_eq!(text.matches("priority 100 ").count(), 3, "{text}");
    assert_eq!(text.matches("priority 1000100 ").count(), 3, "{text}");
    assert_eq!(text.matches(&format!("reqid {REQID}")).count(), 3, "{text}");
    assert!(text.contains("priority 4000000000"), "the stranger's stays beside ours on the same selector: {text}");

    xfrm.sync_policies(&[second.clone(), first.clone()]).unwrap();
    assert_eq!(watch.changes(), (0, 0, 0), "nothing to do, nothing done");
    let mut restarted = within(&lab.a, || XfrmAdapter::open().unwrap());
    restarted.sync_policies(&[first.clone(), second.clone()]).unwrap();
    assert_eq!(watch.changes(), (0, 0, 0), "a restart takes over what stands");

    let moved = FlowPolicy { tunnel_peer: ip("192.0.2.77"), ..first.clone() };
    xfrm.sync_policies(&[moved, second.clone()]).unwrap();
    assert_eq!(watch.changes(), (0, 1, 0), "the outbound template is replaced in place, the others name no peer");
    assert_eq!(policies(&lab.a).matches("192.0.2.77").count(), 1);

    let back = FlowPolicy { tunnel_peer: ip("192.0.2.78"), ..first.clone() };
    xfrm.update_policies(&[back]).unwrap();
    assert_eq!(watch.changes(), (0, 6, 0), "one flow's policies are replaced in place, unread");
    let text = policies(&lab.a);
    assert_eq!((text.matches("192.0.2.78").count(), text.matches("192.0.2.77").count()), (1, 0), "{text}");
    assert_eq!(text.matches("reqid 77777").count(), 3, "the other flow's stand: {text}");
    xfrm.sync_policies(&[first.clone(), second.clone()]).unwrap();
    assert_eq!(watch.changes(), (0, 1, 0));

    let higher = FlowPolicy { priority: 50, ..first };
    xfrm.sync_policies(&[higher, second.clone()]).unwrap();
    assert_eq!(watch.changes(), (0, 6, 0), "another priority is the same policy");
    assert_eq!(policies(&lab.a).matches("priority 50 ").count(), 3);

    xfrm.sync_policies(&[second]).unwrap();
    assert_eq!(watch.changes(), (0, 0, 6));
    xfrm.sync_policies(&[]).unwrap();
    assert_eq!(watch.changes(), (0, 0, 6));
    let text = policies(&lab.a);
    assert_eq!(text.matches("dir ").count(), 1, "{text}");
    assert!(text.contains("priority 4000000000"), "{text}");
}

#[test]
fn a_bad_flow_changes_nothing() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltg");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let good = flow(&child());
    xfrm.sync_policies(std::slice::from_ref(&good)).unwrap();
    let before = policies(&lab.a);
    xfrm.sync_policies(&[FlowPolicy { priority: u32::MAX, ..good }]).unwrap_err();
    assert_eq!(policies(&lab.a), before);
}
