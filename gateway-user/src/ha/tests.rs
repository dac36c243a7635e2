#![allow(clippy::unwrap_used, reason = "tests")]
use super::node::{ADOPT_WAIT, STATE_WAIT};
use super::*;
use crate::id::Epoch;
use crate::ports::PathRole;
use crate::ssp::{Hello, Message, Role};
use std::time::{Duration, Instant};

fn node(wins_ties: bool) -> Node {
    Node::new(NodeConfig { wins_ties, hold: Duration::from_millis(300), paired: true })
}

fn drain(n: &mut Node) -> Vec<Command> {
    std::iter::from_fn(|| n.poll_command()).collect()
}

fn hello(role: Role, epoch: u64, has_state: bool) -> Hello {
    Hello { hostname: "x".into(), role, epoch: Epoch(epoch), has_state, config: vec![], interfaces: vec![] }
}

fn standby_synced(epoch: u64, now: Instant) -> Node {
    let mut n = node(true);
    n.start(None, now);
    n.handle_hello(&hello(Role::Active, epoch, true), None, now);
    n.handle_snapshot_complete(Epoch(epoch), now);
    drain(&mut n);
    n
}

#[test]
fn two_fresh_nodes_one_proposal_makes_one_active() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_hello(&hello(Role::Standby, 0, false), None, now);
    drain(&mut n);
    n.handle_proposal("no active", now);
    assert_eq!((n.state(), n.epoch()), (NodeState::Active, Epoch(1)));
    let c = drain(&mut n);
    let at = |f: &dyn Fn(&Command) -> bool| c.iter().position(f).unwrap();
    let role = at(&|c| matches!(c, Command::SetRole { role: PathRole::Active, .. }));
    assert!(role < at(&|c| matches!(c, Command::VipsUp)));
    assert!(at(&|c| matches!(c, Command::VipsUp)) < at(&|c| matches!(c, Command::Announce)));
    assert!(at(&|c| matches!(c, Command::Announce)) < at(&|c| matches!(c, Command::IkeActive(true))));
}

#[test]
fn a_standby_without_the_snapshot_does_not_take_over_while_the_partner_is_there() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_hello(&hello(Role::Active, 4, true), None, now);
    n.handle_proposal("hold time passed", now);
    assert_eq!(n.state(), NodeState::Standby);
    n.handle_snapshot_complete(Epoch(4), now);
    n.handle_proposal("hold time passed", now);
    assert_eq!((n.state(), n.epoch()), (NodeState::Active, Epoch(5)));
}

#[test]
fn a_configuration_difference_holds_off_the_takeover_and_names_the_item() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_hello(&hello(Role::Active, 4, true), Some("crypto isakmp policy 1".into()), now);
    n.handle_snapshot_complete(Epoch(4), now);
    n.handle_proposal("hold time passed", now);
    assert_eq!(n.state(), NodeState::Standby);
    assert_eq!(n.difference(), Some("crypto isakmp policy 1"));
}

#[test]
fn two_nodes_with_different_configurations_are_not_both_standby_for_ever() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_hello(&hello(Role::Standby, 0, false), Some("standby 1".into()), now);
    n.handle_proposal("no active router", now);
    assert_eq!(n.state(), NodeState::Active);
}

#[test]
fn a_cold_takeover_waits_and_drops_what_it_holds() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_other_active(now);
    n.handle_proposal("hold time passed", now);
    assert_eq!(n.state(), NodeState::Standby);
    let (at, _) = n.poll_timeout().unwrap();
    n.handle_timeout(at);
    drain(&mut n);
    n.handle_proposal("hold time passed", at);
    assert_eq!(n.state(), NodeState::Active);
    assert!(drain(&mut n).contains(&Command::DropState));
}

#[test]
fn a_synced_standby_takes_over_at_once_when_the_session_is_gone() {
    let now = Instant::now();
    let mut n = standby_synced(7, now);
    n.handle_down(now);
    n.handle_proposal("hold time passed", now);
    assert_eq!((n.state(), n.epoch()), (NodeState::Active, Epoch(8)));
    assert!(!drain(&mut n).contains(&Command::DropState));
}

#[test]
fn an_old_active_that_meets_a_newer_epoch_goes_mute_first() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_proposal("no active", now);
    drain(&mut n);
    n.handle_hello(&hello(Role::Active, 9, true), None, now);
    assert_eq!((n.state(), n.epoch()), (NodeState::Standby, Epoch(9)));
    let c = drain(&mut n);
    assert!(matches!(c[1], Command::SetRole { role: PathRole::Standby, epoch: Epoch(9) }), "{c:?}");
    assert!(!n.ready());
}

#[test]
fn a_restarted_active_goes_on_when_the_partner_agrees_and_fetches_its_state() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(Some((PathRole::Active, Epoch(3))), now);
    assert_eq!(n.state(), NodeState::Adopting);
    n.handle_hello(&hello(Role::Standby, 3, true), None, now);
    assert_eq!((n.state(), n.epoch()), (NodeState::Active, Epoch(3)));
    let c = drain(&mut n);
    assert!(c.contains(&Command::HsrpAdopt));
    assert!(c.iter().any(|c| matches!(c, Command::Send(Message::ResyncRequest { .. }))));
    n.handle_snapshot_complete(Epoch(3), now);
    assert!(drain(&mut n).contains(&Command::SendSnapshot));
}

#[test]
fn a_restarted_active_yields_to_a_partner_that_took_over() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(Some((PathRole::Active, Epoch(3))), now);
    n.handle_hello(&hello(Role::Active, 4, true), None, now);
    assert_eq!((n.state(), n.epoch()), (NodeState::Standby, Epoch(4)));
    assert!(drain(&mut n).contains(&Command::VipsDown));
}

#[test]
fn a_restarted_active_alone_goes_on_after_a_short_wait() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(Some((PathRole::Active, Epoch(3))), now);
    let (at, _) = n.poll_timeout().unwrap();
    n.handle_timeout(at);
    assert_eq!(n.state(), NodeState::Active);
}

/// Moves every `Send` of `from` into `to`, as SSP would.
fn deliver(from: &mut Node, to: &mut Node, now: Instant) -> Vec<Command> {
    let commands = drain(from);
    for c in &commands {
        match c {
            Command::Send(Message::HandoverPrepare { epoch }) => to.handle_prepare(*epoch, now),
            Command::Send(Message::HandoverArmed { epoch, refused }) => to.handle_armed(*epoch, refused, now),
            Command::Send(Message::HandoverGo { epoch }) => to.handle_go(*epoch, now),
            Command::Send(Message::State { role, epoch, ready }) => to.handle_state(*role, *epoch, *ready, now),
            Command::SendSnapshot => {
                to.handle_snapshot_complete(from.epoch(), now);
            }
            _ => {}
        }
    }
    commands
}

#[test]
fn a_switchover_moves_the_role_without_a_moment_without_forwarder_and_back() {
    let now = Instant::now();
    let (mut a, mut b) = (node(true), node(false));
    a.start(None, now);
    b.start(None, now);
    a.handle_proposal("no active", now);
    drain(&mut a);
    drain(&mut b);
    a.handle_hello(&hello(Role::Standby, 0, false), None, now);
    b.handle_hello(&hello(Role::Active, 1, true), None, now);
    deliver(&mut a, &mut b, now);
    deliver(&mut b, &mut a, now);
    let mut nodes = [a, b];
    for turn in 0..2 {
        let [x, y] = &mut nodes;
        let (from, to) = if turn == 0 { (x, y) } else { (y, x) };
        assert_eq!((from.state(), to.state()), (NodeState::Active, NodeState::Standby));
        from.handle_switchover(now).unwrap();
        deliver(from, to, now);
        assert_eq!(to.state(), NodeState::Armed);
        deliver(to, from, now);
        assert_eq!(from.state(), NodeState::Draining);
        let c = drain(from);
        let role = c.iter().position(|c| matches!(c, Command::SetRole { role: PathRole::Draining, .. })).unwrap();
        let counters = c.iter().position(|c| matches!(c, Command::SendFinalCounters)).unwrap();
        assert!(role < counters, "counters are final only after the redirect");
        let go = c.iter().find_map(|c| if let Command::Send(Message::HandoverGo { epoch }) = c { Some(*epoch) } else { None });
        to.handle_go(go.unwrap(), now);
        assert_eq!(to.state(), NodeState::Active);
        deliver(to, from, now);
        let (at, _) = from.poll_timeout().unwrap();
        from.handle_timeout(at);
        assert_eq!((from.state(), from.epoch()), (NodeState::Standby, to.epoch()));
        let c = deliver(from, to, now);
        assert!(c.contains(&Command::SwitchoverDone(Ok(()))));
        deliver(to, from, now);
        deliver(from, to, now);
        assert!(from.ready());
    }
}

#[test]
fn an_armed_node_that_hears_nothing_goes_back() {
    let now = Instant::now();
    let mut n = standby_synced(2, now);
    n.handle_prepare(Epoch(3), now);
    assert_eq!(n.state(), NodeState::Armed);
    let (at, _) = n.poll_timeout().unwrap();
    n.handle_timeout(at);
    assert_eq!((n.state(), n.epoch()), (NodeState::Standby, Epoch(2)));
    assert!(drain(&mut n).contains(&Command::VipsDown));
}

#[test]
fn an_armed_node_takes_over_when_the_active_dies_in_the_middle() {
    let now = Instant::now();
    let mut n = standby_synced(2, now);
    n.handle_prepare(Epoch(3), now);
    n.handle_down(now);
    let (at, _) = n.poll_timeout().unwrap();
    n.handle_timeout(at);
    n.handle_proposal("hold time passed", at);
    assert_eq!((n.state(), n.epoch()), (NodeState::Active, Epoch(3)));
}

#[test]
fn stale_or_unasked_handover_messages_change_nothing() {
    let now = Instant::now();
    let mut n = standby_synced(5, now);
    n.handle_go(Epoch(6), now);
    n.handle_armed(Epoch(6), "", now);
    assert_eq!(n.state(), NodeState::Standby);
    n.handle_prepare(Epoch(5), now);
    assert_eq!(n.state(), NodeState::Standby);
    let c = drain(&mut n);
    assert!(matches!(&c[..], [Command::Send(Message::HandoverArmed { refused, .. })] if !refused.is_empty()));
}

#[test]
fn a_link_down_on_the_active_mutes_it_and_resigns() {
    let now = Instant::now();
    let mut n = node(true);
    n.start(None, now);
    n.handle_proposal("no active", now);
    drain(&mut n);
    n.handle_links(false, now);
    assert_eq!(n.state(), NodeState::Standby);
    let c = drain(&mut n);
    let mute = c.iter().position(|c| matches!(c, Command::SetRole { role: PathRole::Standby, .. })).unwrap();
    let resign = c.iter().position(|c| *c == Command::HsrpYield { resign: true }).unwrap();
    assert!(mute < resign);
    n.handle_proposal("x", now);
    assert_eq!(n.state(), NodeState::Standby);
}

#[test]
fn an_active_gives_its_snapshot_to_a_partner_only_when_it_stopped_being_active() {
    let now = Instant::now();
    let mut n = standby_synced(5, now);
    n.handle_proposal("hold time passed", now);
    assert!(!drain(&mut n).contains(&Command::SendSnapshot), "the old active may be dead: nothing waits for it");
    n.handle_state(Role::Standby, Epoch(6), false, now);
    assert!(drain(&mut n).contains(&Command::SendSnapshot));
    n.handle_state(Role::Standby, Epoch(6), true, now);
    assert!(!drain(&mut n).contains(&Command::SendSnapshot), "once per session");
}

#[test]
fn an_active_whose_lease_ran_out_listens_for_one_hold_time_before_it_goes_on() {
    let t0 = Instant::now();
    let mut n = node(true);
    n.start(None, t0);
    n.handle_proposal("no active", t0);
    drain(&mut n);
    n.handle_lease_over(t0);
    assert_eq!(n.state(), NodeState::Adopting);
    let commands = drain(&mut n);
    assert!(commands.contains(&Command::HsrpYield { resign: false }), "it says no more that it is active");
    assert!(!commands.iter().any(|c| matches!(c, Command::SetRole { .. })), "nothing renews the lease");
    n.handle_timeout(t0 + Duration::from_millis(299));
    assert_eq!(n.state(), NodeState::Adopting);
    n.handle_timeout(t0 + Duration::from_millis(300));
    assert_eq!((n.state(), n.epoch()), (NodeState::Active, Epoch(1)));
    drain(&mut n);
    n.handle_lease_over(t0);
    n.handle_other_active(t0);
    assert_eq!(n.state(), NodeState::Standby);
}

#[test]
fn a_restarted_active_takes_its_state_back_from_the_partner_or_renews_what_it_finds() {
    let t0 = Instant::now();
    let restarted = || {
        let mut n = node(true);
        n.start(Some((PathRole::Active, Epoch(3))), t0);
        n.handle_timeout(t0 + ADOPT_WAIT);
        assert_eq!(n.state(), NodeState::Active);
        assert!(!drain(&mut n).contains(&Command::RenewOrphans), "the partner may come in a moment");
        n
    };
    let mut n = restarted();
    n.handle_hello(&hello(Role::Standby, 3, true), None, t0 + Duration::from_secs(1));
    let asks = |c: &Command| matches!(c, Command::Send(Message::ResyncRequest { .. }));
    let commands = drain(&mut n);
    assert!(commands.iter().any(asks) && !commands.contains(&Command::SendSnapshot), "nothing overwrites the mirror");
    assert!(n.handle_switchover(t0).is_err());
    n.handle_snapshot_complete(Epoch(3), t0 + Duration::from_secs(1));
    assert!(drain(&mut n).contains(&Command::SendSnapshot));
    n.handle_timeout(t0 + Duration::from_secs(9));
    assert!(!drain(&mut n).contains(&Command::RenewOrphans));

    let mut n = restarted();
    n.handle_hello(&hello(Role::Standby, 3, false), None, t0 + Duration::from_secs(1));
    let commands = drain(&mut n);
    let renew = commands.iter().position(|c| *c == Command::RenewOrphans).unwrap();
    assert!(renew < commands.iter().position(|c| *c == Command::SendSnapshot).unwrap());

    let mut n = restarted();
    n.handle_timeout(t0 + ADOPT_WAIT + STATE_WAIT);
    assert!(drain(&mut n).contains(&Command::RenewOrphans));
}

#[test]
fn a_rival_that_was_heard_and_forgot_is_remembered() {
    let t0 = Instant::now();
    let active = || {
        let mut n = node(true);
        n.start(None, t0);
        n.handle_hello(&hello(Role::Standby, 0, false), None, t0);
        n.handle_proposal("no active", t0);
        drain(&mut n);
        n
    };
    let contested = |n: &mut Node| drain(n).contains(&Command::Contested);
    let mut n = active();
    n.handle_loser(t0);
    assert!(!contested(&mut n), "the session may tell what it was");
    n.handle_down(t0 + Duration::from_secs(2));
    assert!(contested(&mut n));
    n.handle_loser(t0 + Duration::from_secs(3));
    assert!(contested(&mut n));

    let mut n = active();
    n.handle_loser(t0);
    n.handle_state(Role::Standby, Epoch(1), false, t0);
    n.handle_down(t0 + Duration::from_secs(2));
    assert!(!contested(&mut n), "it said itself that it yielded");
}
