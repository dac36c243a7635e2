//! Proves that the lab can fail: its topology, timers and analysers against faults made on purpose, and the peer's
//! configuration against a second strongSwan. The gateway's own code takes no part.

use super::bench::Bench;
use super::frames::Port;
use super::peer::{Connection, Remote, Settings, StrongSwan, Suite, refused, xfrm_stat};
use super::report::{Check, PEER_IKE_REKEY, Report};
use super::sys::{self, LinkSwitch};
use super::topology::{HOST_IP, Node, PEER, PEER_IKE, PHOST_IP, PROTECTED, VIP_IN, VIP_OUT, ip_batch};
use super::traffic::Way;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

/// Length of the cut made on purpose, ms. More than a second: the kernel reports a link that comes back no sooner.
const CUT_MS: u64 = 1500;
/// A cut of that length is measured within this much of it, ms.
const TOLERANCE_MS: f64 = 150.0;

/// One result of the self-test.
pub type Outcome = (String, Result<String>);

/// Runs everything; files go to `dir`.
pub fn run(dir: &Path) -> Vec<Outcome> {
    let mut outcomes =
        vec![("analysers find what is wrong on a static tunnel".to_owned(), sub(dir, "static").and_then(|d| static_keys(&d)))];
    for suite in [Suite::Default, Suite::Guide] {
        let name = format!("the peer's configuration works, {}", suite.title());
        outcomes.push((name, sub(dir, suite.name()).and_then(|d| two_strongswans(&d, suite))));
    }
    outcomes
}

fn sub(dir: &Path, name: &str) -> Result<std::path::PathBuf> {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The first gateway alone holds both virtual addresses.
fn stand_in() -> Result<()> {
    ip_batch(Some(Node::A.ns()), &format!("addr add {VIP_OUT}/32 dev eth1\naddr add {VIP_IN}/32 dev eth0\n"))
}

fn static_keys(dir: &Path) -> Result<String> {
    let mut bench = Bench::start(dir)?;
    stand_in()?;
    for ns in [PEER, Node::A.ns()] {
        ip_batch(Some(ns), &static_xfrm(ns == PEER))?;
    }
    bench.traffic.set_rate(100);
    bench.wait_received(Way::Out, Duration::from_secs(5))?;
    bench.wait_received(Way::In, Duration::from_secs(5))?;
    bench.start_tcp()?;
    let rate = bench.calibrate()?;
    let baseline = bench.measure(|_| {
        sys::sleep_ms(2000);
        Ok(())
    })?;
    let cut = bench.measure(|bench| {
        sys::sleep_ms(300);
        bench.topology.cut(Node::A)?;
        sys::sleep_ms(CUT_MS);
        bench.topology.restore(Node::A)?;
        sys::sleep_ms(1000);
        bench.wait_flowing(Duration::from_secs(10))
    })?;
    let stat = xfrm_stat(PEER)?;
    inject_faults(&bench)?;
    sys::sleep_ms(200);
    let refusals = refused(&stat, &xfrm_stat(PEER)?);
    let mut report = Report::default();
    bench.conclude(&mut report);
    let wire = &report.wire;
    for way in [&cut.inbound, &cut.outbound] {
        let error = (way.blackout_ms - CUT_MS as f64).abs();
        ensure!(error < TOLERANCE_MS && way.lost > 0, "a cut of {CUT_MS} ms was measured as {way:?}");
    }
    ensure!(wire.pairs_twice == 1, "one ESP packet was repeated, found {}: {:?}", wire.pairs_twice, wire.samples);
    ensure!(wire.clear_text == 1, "one clear-text packet was sent, found {}: {:?}", wire.clear_text, wire.samples);
    ensure!(wire.shunted == 1, "one inbound packet was passed on, found {}", wire.shunted);
    ensure!(refusals.get("XfrmInStateSeqError") == Some(&1), "the peer's kernel refused {refusals:?}");
    ensure!(report.tcp.survived, "TCP: {:?}", report.tcp);
    ensure!(baseline.lost() == 0, "baseline lost {baseline:?}");
    let missed: u64 = report.captures.iter().map(|c| c.dropped).sum();
    ensure!(missed == 0, "the captures missed {missed} frames");
    ensure!(wire.esp_in >= baseline.inbound.sent && wire.esp_out >= baseline.outbound.sent, "ESP {} in, {} out", wire.esp_in, wire.esp_out);
    Ok(format!(
        "{rate} packets/s, {} + {} ESP packets, a cut of {CUT_MS} ms measured as in {:.1} / out {:.1} ms",
        wire.esp_in, wire.esp_out, cut.inbound.blackout_ms, cut.outbound.blackout_ms
    ))
}

/// One packet of each kind that must never be there, and one that only looks so.
fn inject_faults(bench: &Bench) -> Result<()> {
    let last = |port| bench.outside.with(|log| log.last_esp.get(&port).cloned()).with_context(|| format!("no ESP from {port:?}"));
    let links = LinkSwitch::open(Node::A.ns())?;
    let peer_mac = LinkSwitch::open(PEER)?.mac_of("eth1")?;
    // Nobody has it: the real partner would forward the packet once more.
    let partner_mac = [2, 0, 0, 0, 0, 0x99];
    sys::inject(Node::A.ns(), "eth1", &last(Port::A)?)?;
    let mut clear = [&peer_mac[..], &links.mac_of("eth1")?, &[8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]].concat();
    clear.extend(HOST_IP.ip().octets());
    clear.extend(PHOST_IP.ip().octets());
    clear.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    sys::inject(Node::A.ns(), "eth1", &clear)?;
    let mut passed_on = last(Port::Far)?;
    passed_on[..6].copy_from_slice(&partner_mac);
    sys::inject(Node::A.ns(), "eth1", &passed_on)
}

/// Static SAs and policies as `ip` takes them; the same keys on both ends.
fn static_xfrm(peer: bool) -> String {
    let mut lines = String::new();
    for (src, dst, spi) in [(PEER_IKE, VIP_OUT, "0xc1000001"), (VIP_OUT, PEER_IKE, "0xc2000001")] {
        lines += &format!(
            "xfrm state add src {src} dst {dst} proto esp spi {spi} reqid 77001 mode tunnel replay-window 32 \
             auth-trunc hmac(sha256) 0x{} 128 enc cbc(aes) 0x{}\n",
            "5a".repeat(32),
            "a5".repeat(32)
        );
    }
    let net = PROTECTED.to_string();
    let (own, other, src, dst) = if peer { (&*net, "0.0.0.0/0", PEER_IKE, VIP_OUT) } else { ("0.0.0.0/0", &*net, VIP_OUT, PEER_IKE) };
    lines += &format!("xfrm policy add src {own} dst {other} dir out tmpl src {src} dst {dst} proto esp reqid 77001 mode tunnel\n");
    for dir in ["in", "fwd"] {
        lines += &format!("xfrm policy add src {other} dst {own} dir {dir} tmpl src {dst} dst {src} proto esp reqid 77001 mode tunnel\n");
    }
    lines
}

/// A connection as the other end sees it.
fn swap_ends(c: &mut Connection) {
    std::mem::swap(&mut c.local, &mut c.remote);
    c.dpd_s = 60;
    for child in &mut c.children {
        std::mem::swap(&mut child.own, &mut child.other);
    }
}

fn two_strongswans(dir: &Path, suite: Suite) -> Result<String> {
    let mut bench = Bench::start(dir)?;
    stand_in()?;
    let psk = "a-key-of-the-self-test-only";
    let peer = StrongSwan::start(Settings::peer(suite, psk), dir)?;
    let mut other_end = Settings::peer(suite, psk);
    other_end.ns = Node::A.ns();
    for c in &mut other_end.connections {
        swap_ends(c);
    }
    let gateway = StrongSwan::start(other_end, dir)?;
    peer.initiate("net")?;
    bench.traffic.set_rate(100);
    bench.wait_received(Way::Out, Duration::from_secs(5))?;
    bench.start_tcp()?;
    let rate = bench.calibrate()?;
    let checks: [(&str, Check); 4] = [
        ("rekey by the peer", bench.check_rekey(&peer, || peer.rekey_child("net"))?),
        ("rekey by the other end", bench.check_rekey(&peer, || gateway.rekey_child("net"))?),
        bench.check_ike_rekey(PEER_IKE_REKEY, &peer, || peer.rekey_ike("net"))?,
        ("DPD", bench.check_dpd()?),
    ];
    let mut report = Report::default();
    bench.conclude(&mut report);
    for (name, check) in &checks {
        // A strongSwan as responder installs its half only with the last message: a few packets are lost, and that is its business.
        ensure!(check.works, "{name}: {} {check:?}", check.detail);
    }
    let wire = &report.wire;
    ensure!(wire.pairs_twice == 0 && wire.clear_text == 0, "{wire:?}");
    ensure!(wire.esp_in > 100 && wire.esp_out > 100, "{wire:?}");
    ensure!(report.tcp.survived, "TCP: {:?}", report.tcp);
    // First phase 1 and the peer's new one; quick modes: the first, one from each end.
    ensure!(report.ike.new_isakmp == 2 && report.ike.quick_modes == 3, "IKE on the wire: {:?}", report.ike);
    Ok(format!("{rate} packets/s, {} + {} ESP packets, {} IKE messages", wire.esp_in, wire.esp_out, report.ike.messages))
}
