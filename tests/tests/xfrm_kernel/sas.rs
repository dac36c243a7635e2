//! Installing, reading back, taking over and removing SAs; replay state.

use crate::lab::*;
use gateway_user::crypto::{CipherAlg, IntegAlg, Secret};
use gateway_user::id::Spi;
use gateway_user::netlink::socket::errno_of;
use gateway_user::netlink::xfrm::XfrmAdapter;
use gateway_user::ports::*;
use gateway_user::sad::{ChildSa, EspKeys, Mode};
use std::io::ErrorKind;
use std::time::Duration;

fn key(len: usize, seed: u8) -> Secret {
    Secret::new((0..len).map(|i| (i as u8).wrapping_mul(37) ^ seed).collect())
}

#[test]
fn every_algorithm_installs_in_both_modes() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nlta");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let ciphers = [CipherAlg::Des, CipherAlg::TripleDes, CipherAlg::Aes128, CipherAlg::Aes192, CipherAlg::Aes256, CipherAlg::Null];
    let integs = [IntegAlg::HmacMd5, IntegAlg::HmacSha1, IntegAlg::HmacSha256, IntegAlg::HmacSha384, IntegAlg::HmacSha512];
    let mut children: Vec<ChildSa> = Vec::new();
    for mode in [Mode::Tunnel, Mode::Transport] {
        for encr in ciphers {
            for integ in integs {
                let n = children.len() as u32;
                let keys = |seed| EspKeys { encr: key(encr.key_len(), seed), integ: key(integ.key_len(), seed) };
                let (spi_in, spi_out) = (Spi(0x8000_1000 + n), Spi(0x9000_1000 + n));
                let window = [0, 32, 64, 1000, 4096][n as usize % 5];
                let (keys_in, keys_out) = (keys(0x11), keys(0x77));
                children.push(ChildSa {
                    mode,
                    encr,
                    integ: Some(integ),
                    spi_in,
                    spi_out,
                    keys_in,
                    keys_out,
                    replay_window: window,
                    ..child()
                });
            }
        }
    }
    let sas: Vec<SaInstall<'_>> = children.iter().flat_map(both).collect();
    all_ok(xfrm.install(&sas));
    let dump = xfrm.dump().unwrap();
    assert_eq!(dump.len(), sas.len());
    assert!(dump.iter().all(|d| d.reqid == REQID && d.age_s <= 60));
    all_ok(xfrm.install(&sas));
    let mut restarted = within(&lab.a, || XfrmAdapter::open().unwrap());
    all_ok(restarted.install(&sas));
    assert_eq!(restarted.dump().unwrap().len(), sas.len(), "a restart takes over, it does not double");
    for c in &children {
        xfrm.remove(c.spi_in, c.local).unwrap();
        xfrm.remove(c.spi_out, c.peer).unwrap();
        xfrm.remove(c.spi_out, c.peer).unwrap();
    }
    assert_eq!(xfrm.dump().unwrap(), []);
}

#[test]
fn what_was_given_at_install_is_held() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltb");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let c = child();
    let used = SaUsed { age_s: 600, bytes: 123_456, packets: 789 };
    let inbound = SaInstall { replay: 5000, used, event_packets: 7, event_time: Duration::from_millis(900), ..half(&c, Direction::In) };
    let outbound = SaInstall { replay: 1_009_000, event_time: Duration::ZERO, event_packets: 0, ..half(&c, Direction::Out) };
    all_ok(xfrm.install(&[inbound, outbound]));
    let dump = xfrm.dump().unwrap();
    let held = |spi| dump.iter().find(|d| d.spi == spi).unwrap();
    let (i, o) = (held(c.spi_in), held(c.spi_out));
    assert_eq!((i.src, i.dst, i.seq, i.oseq, i.bytes, i.packets), (c.peer, c.local, 5000, 0, 123_456, 789));
    assert!((600..605).contains(&i.age_s), "{}", i.age_s);
    assert_eq!((o.src, o.dst, o.seq, o.oseq), (c.local, c.peer, 0, 1_009_000));
    // Whatever the kernel's tick is.
    assert_eq!(xfrm.thresholds(c.spi_in, c.local).unwrap(), (7, Duration::from_millis(900)));
    assert_eq!(xfrm.thresholds(c.spi_out, c.peer).unwrap(), (0, Duration::ZERO));
    let replay = xfrm.replay(c.spi_in, c.local).unwrap();
    assert_eq!((replay.words, replay.window, replay.bits), (Some(32), 1024, 1024), "an all-ones bitmap");
    let text = output(&format!("ip -n {} -s xfrm state", lab.a));
    for want in ["enc cbc(aes)", "auth-trunc hmac(sha256)", " 128", "mode tunnel", "expire add: soft 3000(sec), hard 3600(sec)"] {
        assert!(text.contains(want), "{want} in {text}");
    }
}

#[test]
fn a_stranger_under_the_same_spi_is_an_error() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltc");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let c = child();
    all_ok(xfrm.install(&both(&c)));
    let other_keys = ChildSa { keys_in: c.keys_out.clone(), ..c.clone() };
    let answer = xfrm.install(&[half(&other_keys, Direction::In)]).pop().unwrap().unwrap_err();
    assert_eq!((answer.call, answer.source.kind()), ("XFRM_MSG_NEWSA", ErrorKind::AlreadyExists));
    let other_reqid = SaInstall { reqid: 7, ..half(&c, Direction::In) };
    assert!(xfrm.install(&[other_reqid]).pop().unwrap().is_err());
    let weak = ChildSa { integ: None, ..c.clone() };
    let mixed = xfrm.install(&[half(&c, Direction::In), half(&weak, Direction::Out), half(&c, Direction::Out)]);
    assert_eq!(mixed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "answers per SA, in order");
}

#[test]
fn replay_state_is_written_and_never_goes_back() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nltd");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let c = child();
    all_ok(xfrm.install(&both(&c)));
    let window = c.replay_window;
    let set = |direction, replay| {
        let (spi, dst) = if direction == Direction::In { (c.spi_in, c.local) } else { (c.spi_out, c.peer) };
        ReplaySet { spi, dst, direction, replay, window, esn: false, used: None }
    };
    let used = Some(SaUsed { age_s: 60, bytes: 1000, packets: 10 });
    all_ok(xfrm.set_replay(&[ReplaySet { used, ..set(Direction::In, 5000) }, set(Direction::Out, 9000)]));
    let replay = xfrm.replay(c.spi_in, c.local).unwrap();
    assert_eq!((replay.seq, replay.bits), (5000, 1024));
    assert_eq!(xfrm.replay(c.spi_out, c.peer).unwrap().oseq, 9000);
    let dump = xfrm.dump().unwrap();
    let i = dump.iter().find(|d| d.spi == c.spi_in).unwrap();
    assert_eq!((i.bytes, i.packets), (1000, 10));
    assert!((60..65).contains(&i.age_s));

    // Back: by the same adapter, and by one that has just started and knows nothing.
    let mut restarted = within(&lab.a, || XfrmAdapter::open().unwrap());
    for xfrm in [&mut xfrm, &mut restarted] {
        let answer = xfrm.set_replay(&[set(Direction::Out, 8999)]).pop().unwrap().unwrap_err();
        assert_eq!(answer.source.kind(), ErrorKind::InvalidInput, "{answer}");
        // An inbound number is a floor: a lower one is met already.
        let lower = Some(SaUsed { bytes: 1, packets: 1, age_s: 60 });
        all_ok(xfrm.set_replay(&[ReplaySet { used: lower, ..set(Direction::In, 4999) }]));
        all_ok(xfrm.set_replay(&[set(Direction::Out, 9000)]));
        let replay = xfrm.replay(c.spi_in, c.local).unwrap();
        assert_eq!((replay.seq, replay.bits), (5000, 1024));
        assert_eq!(xfrm.replay(c.spi_out, c.peer).unwrap().oseq, 9000);
        assert!(xfrm.dump().unwrap().iter().any(|d| (d.spi, d.bytes, d.packets) == (c.spi_in, 1000, 10)));
    }
    let twice = xfrm.set_replay(&[set(Direction::Out, 9002), set(Direction::Out, 9001)]);
    assert_eq!(twice.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false], "also inside one call");
    assert_eq!(xfrm.replay(c.spi_out, c.peer).unwrap().oseq, 9002);

    // An install of the SA that is there raises its numbers and does not lower them.
    all_ok(xfrm.install(&[SaInstall { replay: 100, ..half(&c, Direction::Out) }, SaInstall { replay: 6000, ..half(&c, Direction::In) }]));
    assert_eq!(xfrm.replay(c.spi_out, c.peer).unwrap().oseq, 9002);
    let replay = xfrm.replay(c.spi_in, c.local).unwrap();
    assert_eq!((replay.seq, replay.bits), (6000, 1024));

    // What would be answered "ok" and do nothing, or is not there.
    let short = ReplaySet { window: 32, ..set(Direction::In, 7000) };
    assert_eq!(xfrm.set_replay(&[short]).pop().unwrap().unwrap_err().source.kind(), ErrorKind::InvalidInput);
    run(&format!(
        "ip -n {} xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x7777 reqid 5 mode tunnel replay-window 32 \
         auth-trunc hmac(sha1) 0x0102030405060708090a0b0c0d0e0f1011121314 96 enc cbc(aes) 0x0102030405060708090a0b0c0d0e0f10",
        lab.a
    ));
    let legacy = ReplaySet { spi: Spi(0x7777), window: 32, ..set(Direction::In, 7000) };
    assert_eq!(xfrm.set_replay(&[legacy]).pop().unwrap().unwrap_err().source.kind(), ErrorKind::InvalidInput);
    let absent = ReplaySet { spi: Spi(0x7778), ..set(Direction::In, 1) };
    assert_eq!(errno_of(&xfrm.set_replay(&[absent]).pop().unwrap().unwrap_err().source), Some(libc::ESRCH));

    // The SA goes and comes again under its SPI: the old numbers do not bind the new one.
    xfrm.remove(c.spi_out, c.peer).unwrap();
    all_ok(xfrm.install(&[half(&c, Direction::Out)]));
    all_ok(xfrm.set_replay(&[set(Direction::Out, 1)]));
}

#[test]
fn lifetimes_are_counted_from_creation_and_expire() {
    let Some(_turn) = enter() else { return };
    let lab = Lab::new("nlte");
    let mut xfrm = within(&lab.a, || XfrmAdapter::open().unwrap());
    let mut events = Events::open(&lab.a);
    let mut c = child();
    (c.soft.seconds, c.lifetime.seconds) = (101, 103);
    let old = SaInstall { used: SaUsed { age_s: 100, ..SaUsed::default() }, ..half(&c, Direction::In) };
    all_ok(xfrm.install(&[old, half(&c, Direction::Out)]));
    let expire = |hard| XfrmEvent::Expire { spi: c.spi_in, dst: c.local, hard };
    let seen = events.wait(Duration::from_secs(4), |e| matches!(e, XfrmEvent::Expire { .. }));
    assert_eq!(seen, Some(expire(false)), "soft after one second of the hundred and one");
    assert_eq!(xfrm.dump().unwrap().len(), 2);
    let seen = events.wait(Duration::from_secs(5), |e| matches!(e, XfrmEvent::Expire { .. }));
    assert_eq!(seen, Some(expire(true)));
    let left = xfrm.dump().unwrap();
    assert_eq!(left.iter().map(|d| d.spi).collect::<Vec<_>>(), [c.spi_out], "gone; the young one stays");
}
