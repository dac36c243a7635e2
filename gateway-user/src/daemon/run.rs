//! The loop: sockets, kernel events, timers and operators feed one core; its outputs go back to them.
//!
//! One thread decides. Tasks only move bytes: each reads one socket and sends `Input`s into one bounded channel. IKE datagrams are dropped when
//! it is full (the peer repeats them), everything else waits. Costly arithmetic runs on blocking threads.

use super::clock::SystemClock;
use super::core::{Core, Output, Ports};
use super::metrics::Metrics;
use crate::config::Config;
use crate::dataplane::DataplaneAdapter;
use crate::ike::JobDone;
use crate::net::control::{self, ControlRequest, ControlResponse};
use crate::net::hsrp::HsrpSocket;
use crate::net::http;
use crate::net::ike::IkeSocket;
use crate::net::rng::OsRandom;
use crate::net::ssp::{Transport, TransportEvent, TransportHandle};
use crate::netlink::links::{LinkAdapter, LinkEvent, LinkEvents};
use crate::netlink::xfrm::{XfrmAdapter, XfrmEvents};
use crate::ports::{Dataplane, Links, XfrmEvent};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// Inputs waiting for the core.
const INPUTS_MAX: usize = 4096;
/// Largest IKE datagram read from a socket, bytes.
const DATAGRAM_MAX: usize = 65_535;
/// How often the metrics page is brought up to date.
const METRICS_PERIOD: Duration = Duration::from_secs(1);
/// How long an orderly stop waits for the partner to take over.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// Time for the last bytes on the sockets.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Inputs handled before outputs are flushed and timers looked at.
const BATCH_MAX: usize = 64;

/// Turns given to the reading tasks before due timers run.
const STALL_ROUNDS: usize = 4;

enum Input {
    Hsrp { device: usize, source: Ipv4Addr, ttl: u8, dst: Ipv4Addr, payload: Vec<u8> },
    Ike { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Ssp(TransportEvent),
    Xfrm(Vec<XfrmEvent>),
    Link { device: String, up: bool },
    LinksUnknown,
    Job(JobDone),
}

/// Runs the gateway in the foreground until a signal ends it. `path` is the manifest that `config` came from.
///
/// # Errors
/// What kept it from starting, with place and cause.
pub fn run(config: Config, path: &Path) -> Result<()> {
    for (algorithm, ok) in crate::crypto::kat::self_test() {
        anyhow::ensure!(ok, "the known-answer test of {algorithm} fails: this build must not be used");
    }
    // One thread for the core and its sockets; blocking threads for Diffie-Hellman.
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(1).enable_all().build().context("tokio runtime")?;
    runtime.block_on(serve(config, path))
}

struct Sockets {
    hsrp: Vec<Arc<HsrpSocket>>,
    ike500: Arc<IkeSocket>,
    ike4500: Arc<IkeSocket>,
    ssp: Option<TransportHandle>,
    /// Encrypted bytes the transport had no room for yet; bounded by the session's own queue.
    ssp_waiting: HashMap<u64, VecDeque<Bytes>>,
}

impl Sockets {
    fn ssp_send(&mut self, conn: u64, bytes: Option<Bytes>) {
        let Some(handle) = &self.ssp else { return };
        let queue = self.ssp_waiting.entry(conn).or_default();
        queue.extend(bytes);
        while !queue.is_empty() && handle.room(conn) > 0 {
            if let Some(b) = queue.pop_front() {
                handle.send(conn, b);
            }
        }
        if queue.is_empty() {
            self.ssp_waiting.remove(&conn);
        }
    }
}

async fn serve(config: Config, path_of_manifest: &Path) -> Result<()> {
    let begin = Instant::now();
    let config = Arc::new(config);
    let devices: Vec<(String, bool)> = config.interfaces.iter().map(|i| (i.device.clone(), i.crypto_map.is_some())).collect();
    // First of all: a second daemon with this manifest must not touch anything.
    let control = control::Server::bind(&config.control_socket, 0o600).with_context(|| config.control_socket.display().to_string())?;
    let path = DataplaneAdapter::open(&config.dataplane, &devices).context("data path")?;
    let path_ms = begin.elapsed().as_millis() as u64;
    let (adopted, attached) = (path.adopted(), path.attached());
    let (tx, mut rx) = mpsc::channel::<Input>(INPUTS_MAX);
    let mut links = LinkAdapter::open().context("rtnetlink")?;
    let xfrm_events = XfrmEvents::open().context("XFRM events")?;
    let link_events = LinkEvents::open().context("link events")?;
    let mut hsrp = Vec::new();
    for interface in &config.interfaces {
        let mac = links.link(&interface.device).with_context(|| format!("interface {}", interface.name))?.mac;
        let socket =
            HsrpSocket::open(&interface.device, mac, interface.address).with_context(|| format!("HSRP on {}", interface.device))?;
        hsrp.push(Arc::new(socket));
    }
    let mut sockets = Sockets {
        hsrp,
        ike500: Arc::new(IkeSocket::bind(500).context("UDP port 500")?),
        ike4500: Arc::new(IkeSocket::bind(4500).context("UDP port 4500")?),
        ssp: match &config.ssp {
            Some(group) => {
                let (events, mut from_transport) = mpsc::channel(INPUTS_MAX);
                let handle = Transport::spawn(group.local, group.remote, group.port, events);
                let tx = tx.clone();
                tokio::spawn(async move {
                    while let Some(e) = from_transport.recv().await {
                        if tx.send(Input::Ssp(e)).await.is_err() {
                            return;
                        }
                    }
                });
                Some(handle)
            }
            None => None,
        },
        ssp_waiting: HashMap::new(),
    };
    for socket in [&sockets.ike500, &sockets.ike4500] {
        for (what, error) in [("IPsec policies may catch IKE itself", socket.bypass_error()), ("no ESP in UDP", socket.encap_error())] {
            if let Some(error) = error {
                warn!(port = socket.port(), %error, what, "this kernel lacks a part of IPsec");
            }
        }
    }
    let sockets_ms = begin.elapsed().as_millis() as u64 - path_ms;
    let ports = Ports { xfrm: Box::new(XfrmAdapter::open().context("XFRM")?), links: Box::new(links), path: Box::new(path) };
    let clock = SystemClock::new().context("clock")?;
    let mut core = Core::new(config.clone(), ports, Box::new(clock), Box::new(OsRandom::new()), Box::new(OsRandom::new()))?;
    core.set_manifest(&path_of_manifest.display().to_string());
    spawn_readers(&sockets, xfrm_events, link_events, &config, &tx);
    let metrics = Arc::new(Metrics::new()?);
    if let Some(addr) = config.metrics {
        let metrics = metrics.clone();
        tokio::spawn(async move {
            if let Err(e) = http::serve(addr, Arc::new(move || metrics.render())).await {
                error!(%addr, error = %e, "metrics listener");
            }
        });
    }
    let (control_tx, mut control_rx) = mpsc::channel::<(ControlRequest, oneshot::Sender<ControlResponse>)>(64);
    tokio::spawn(control.run(control_tx));
    let mut sigterm = signal(SignalKind::terminate())?;
    let mut sigint = signal(SignalKind::interrupt())?;
    let mut waiting: HashMap<u64, oneshot::Sender<ControlResponse>> = HashMap::new();
    let mut next_request = 1u64;
    let mut metrics_at = tokio::time::interval(METRICS_PERIOD);
    let mut stop_at: Option<Instant> = None;
    super::priority::raise();
    info!(ready_ms = begin.elapsed().as_millis() as u64, path_ms, sockets_ms, adopted, ?attached, "running");
    loop {
        flush(&mut core, &mut sockets, &mut waiting, &tx);
        // Draining ends after what the partner must still hear has left.
        if stop_at.is_some_and(|at| Instant::now() >= at || (core.is_standby() && sockets.ssp_waiting.is_empty())) {
            tokio::time::sleep(LAST_WORDS).await;
            info!("stopped; kernel SAs and data path stay");
            return Ok(());
        }
        let deadline = core.poll_timeout().map(|(at, _)| at).into_iter().chain(stop_at).min();
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        if deadline.is_some_and(|at| at <= Instant::now()) {
            // After a stall the hellos that kept the hold timer alive may still be unread: what is in the sockets goes first, but not without
            // bound, else a flood would starve the timers.
            for _ in 0..STALL_ROUNDS {
                tokio::task::yield_now().await;
            }
            for _ in 0..BATCH_MAX {
                let Ok(input) = rx.try_recv() else { break };
                handle(&mut core, &mut sockets, input, &config);
                flush(&mut core, &mut sockets, &mut waiting, &tx);
            }
            core.handle_timeout(Instant::now());
            flush(&mut core, &mut sockets, &mut waiting, &tx);
        }
        tokio::select! {
            biased;
            () = sleep => core.handle_timeout(Instant::now()),
            Some(first) = rx.recv() => {
                let mut next = Some(first);
                for _ in 0..BATCH_MAX {
                    let Some(input) = next else { break };
                    handle(&mut core, &mut sockets, input, &config);
                    flush(&mut core, &mut sockets, &mut waiting, &tx);
                    next = rx.try_recv().ok();
                }
                if let Some(input) = next {
                    handle(&mut core, &mut sockets, input, &config);
                }
            }
            Some((request, answer)) = control_rx.recv() => {
                let id = next_request;
                next_request += 1;
                waiting.insert(id, answer);
                core.handle_control(id, &request, Instant::now());
            }
            _ = metrics_at.tick() => core.export_metrics(&metrics),
            _ = sigterm.recv() => stop_at = stop_at.or_else(|| stop(&mut core)),
            _ = sigint.recv() => stop_at = stop_at.or_else(|| stop(&mut core)),
        }
    }
}

/// An orderly stop of the active hands over when the partner can take over; otherwise traffic goes on without the daemon.
fn stop(core: &mut Core) -> Option<Instant> {
    let now = Instant::now();
    match core.switchover(now) {
        Ok(()) => {
            info!("stopping: handing over");
            Some(now + STOP_WAIT)
        }
        Err(why) => {
            info!(why, "stopping without a hand-over");
            Some(now)
        }
    }
}

fn handle(core: &mut Core, sockets: &mut Sockets, input: Input, config: &Config) {
    let now = Instant::now();
    match input {
        Input::Hsrp { device, source, ttl, dst, payload } => {
            if let Some(i) = config.interfaces.get(device) {
                core.handle_hsrp(&i.device, source, ttl, dst, &payload, now);
            }
        }
        Input::Ike { from, to, bytes } => core.handle_ike(from, to, &bytes, now),
        Input::Ssp(TransportEvent::Connected { conn, initiator }) => core.handle_ssp_connected(conn, initiator, now),
        Input::Ssp(TransportEvent::Bytes { conn, bytes }) => core.handle_ssp_bytes(conn, &bytes, now),
        Input::Ssp(TransportEvent::Writable { conn }) => sockets.ssp_send(conn, None),
        Input::Ssp(TransportEvent::Closed { conn, cause }) => {
            sockets.ssp_waiting.remove(&conn);
            core.handle_ssp_closed(conn, &cause, now);
        }
        Input::Xfrm(events) => core.handle_xfrm(events, now),
        Input::Link { device, up } => core.handle_link(&device, up, now),
        Input::LinksUnknown => core.read_links(now),
        Input::Job(done) => core.handle_job(done, now),
    }
}

fn flush(core: &mut Core, sockets: &mut Sockets, waiting: &mut HashMap<u64, oneshot::Sender<ControlResponse>>, tx: &mpsc::Sender<Input>) {
    while let Some(output) = core.poll_output() {
        match output {
            Output::Hsrp { interface, payload, source_mac } => {
                if let Some(s) = sockets.hsrp.get(interface)
                    && let Err(e) = s.send(&payload, source_mac)
                {
                    warn!(error = %e, "HSRP packet was not sent");
                }
            }
            Output::Ike(t) => {
                let socket = if t.from.port() == 4500 { &sockets.ike4500 } else { &sockets.ike500 };
                if let Err(e) = socket.send(&t) {
                    warn!(to = %t.to, error = %e, "IKE datagram was not sent");
                }
            }
            Output::Ssp { conn, bytes } => {
                sockets.ssp_send(conn, Some(bytes));
            }
            Output::SspAuthenticated { conn } => {
                if let Some(h) = &sockets.ssp {
                    h.authenticated(conn);
                }
            }
            Output::SspClose { conn, cause } => {
                sockets.ssp_waiting.remove(&conn);
                if let Some(h) = &sockets.ssp {
                    h.close(conn, cause);
                }
            }
            Output::Job(job) => {
                let tx = tx.clone();
                tokio::task::spawn_blocking(move || {
                    // A closed channel means the daemon ends.
                    let _ = tx.blocking_send(Input::Job(job.run()));
                });
            }
            Output::Control { id, response } => {
                if let Some(answer) = waiting.remove(&id) {
                    // The operator may have gone away.
                    let _ = answer.send(response);
                }
            }
        }
    }
}

fn spawn_readers(sockets: &Sockets, mut xfrm: XfrmEvents, mut link: LinkEvents, config: &Arc<Config>, tx: &mpsc::Sender<Input>) {
    for (device, socket) in sockets.hsrp.iter().enumerate() {
        let (socket, tx) = (socket.clone(), tx.clone());
        tokio::spawn(async move {
            loop {
                match socket.recv().await {
                    Ok(p) => {
                        let input = Input::Hsrp { device, source: p.source, ttl: p.ttl, dst: p.destination, payload: p.payload };
                        if tx.send(input).await.is_err() {
                            return;
                        }
                    }
                    Err(e) => {
                        warn!(error = %e, "HSRP socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }
    for socket in [&sockets.ike500, &sockets.ike4500] {
        let (socket, tx) = (socket.clone(), tx.clone());
        tokio::spawn(async move {
            let mut buf = vec![0; DATAGRAM_MAX];
            loop {
                match socket.recv(&mut buf).await {
                    Ok((n, from, to)) => {
                        // Full: dropped, the peer repeats.
                        let _ = tx.try_send(Input::Ike { from, to, bytes: buf[..n].to_vec() });
                    }
                    Err(e) => {
                        warn!(error = %e, "IKE socket");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }
    let events = tx.clone();
    tokio::spawn(async move {
        loop {
            match xfrm.recv().await {
                Ok(list) => {
                    if events.send(Input::Xfrm(list)).await.is_err() {
                        return;
                    }
                }
                Err(e) => {
                    warn!(error = %e, "XFRM events");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    let (events, config) = (tx.clone(), config.clone());
    tokio::spawn(async move {
        loop {
            match link.recv().await {
                Ok(changes) => {
                    for change in changes {
                        let input = match change {
                            LinkEvent::Changed { device, up } if config.interfaces.iter().any(|i| i.device == device) => {
                                Input::Link { device, up }
                            }
                            LinkEvent::Changed { .. } => continue,
                            LinkEvent::Overrun => Input::LinksUnknown,
                        };
                        if events.send(input).await.is_err() {
                            return;
                        }
                    }
                }
                Err(e) => {
                    warn!(error = %e, "link events");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
}
