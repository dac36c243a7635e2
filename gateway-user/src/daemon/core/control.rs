//! What an operator asks of the core.

use super::{Core, Output};
use crate::cli::command::{self, Action, ClearSa, Command, Show};
use crate::cli::logging;
use crate::daemon::render;
use crate::ike::IkeRequest;
use crate::net::control::{ControlRequest, ControlResponse};
use crate::sad::ChildStage;
use crate::ssp::{Client, Message};
use std::net::IpAddr;
use std::time::Instant;
use tracing::info;

fn done(text: String, json: serde_json::Value) -> ControlResponse {
    ControlResponse { ok: true, json, text, error: String::new() }
}

impl Core {
    /// Starts a planned hand-over to the partner.
    ///
    /// # Errors
    /// Why it cannot start now.
    pub fn switchover(&mut self, now: Instant) -> Result<(), String> {
        let r = self.node.handle_switchover(now);
        self.pump(now);
        r
    }

    pub(super) fn on_control(&mut self, id: u64, request: &ControlRequest, now: Instant) {
        let response = match command::parse(&request.argv) {
            Ok(Command::Show(show)) => {
                let view = if matches!(show, Show::IpsecSa(_)) { self.view_sas(now) } else { self.view(now) };
                match render::render(&show, &view) {
                    Ok((json, text)) => done(text, json),
                    Err(e) => ControlResponse::error(e),
                }
            }
            Ok(Command::Act(Action::Switchover)) => match self.node.handle_switchover(now) {
                Ok(()) => {
                    info!("operator asks for a switchover");
                    self.switchover_waiter = Some(id);
                    return;
                }
                Err(e) => ControlResponse::error(e),
            },
            Ok(Command::Act(action)) => self.act(action, now).unwrap_or_else(ControlResponse::error),
            Err(e) => ControlResponse::error(e),
        };
        self.outputs.push_back(Output::Control { id, response });
    }

    fn act(&mut self, action: Action, now: Instant) -> Result<ControlResponse, String> {
        match action {
            Action::ClearIsakmpHaStandby { resync } => self.clear_standby(Client::Ike, None, resync, now),
            Action::ClearSaHaStandby { peer, resync } => self.clear_standby(Client::Ipsec, peer, resync, now),
            Action::ClearSa(what) => self.clear_sa(&what, now),
            Action::Debug { on, topic } => {
                let topics = logging::debug(on, topic.as_ref())?;
                Ok(done(
                    format!("debugging: {}\n", if topics.is_empty() { "off".to_owned() } else { topics.join(", ") }),
                    serde_json::json!(topics),
                ))
            }
            Action::Switchover => Err("a switchover is answered elsewhere".into()),
            Action::RekeyIsakmp(peer) => {
                let ids = self.engine.view(now).into_iter().filter(|v| v.peer == peer).map(|v| IkeRequest::RekeyIsakmp(v.id)).collect();
                self.requests(ids, now, "rekey started")
            }
            Action::RekeyIpsec(spi) => self.requests(vec![IkeRequest::RekeyChild(spi)], now, "rekey started"),
            Action::RekeyPeer(peer) => {
                let live = self.pairs.values().filter(|p| p.child.peer == peer && p.stage == ChildStage::Live);
                let list = live.map(|p| IkeRequest::RekeyChild(p.child.spi_in)).collect();
                self.requests(list, now, "rekey started")
            }
            Action::Initiate { map, seq } => self.requests(vec![IkeRequest::Initiate { map, seq }], now, "started"),
            Action::Probe(peer) => self.requests(vec![IkeRequest::ProbePeer(peer)], now, "probe sent"),
        }
    }

    fn requests(&mut self, requests: Vec<IkeRequest>, now: Instant, what: &str) -> Result<ControlResponse, String> {
        if !self.is_active() {
            return Err("this node is not active: ask the active one".into());
        }
        if requests.is_empty() {
            return Err("there is no such SA".into());
        }
        let n = requests.len();
        for r in requests {
            self.engine.handle_request(r, now)?;
        }
        Ok(done(format!("{what} ({n})\n"), serde_json::json!({ "result": what, "count": n })))
    }

    /// Local only on a standby; on the active the peer gets its Deletes.
    fn clear_sa(&mut self, what: &ClearSa, now: Instant) -> Result<ControlResponse, String> {
        match what {
            ClearSa::All => self.requests(vec![IkeRequest::Clear(None)], now, "cleared"),
            ClearSa::Peer(peer) => self.requests(vec![IkeRequest::Clear(Some(*peer))], now, "cleared"),
            ClearSa::Map(map) => {
                let mut peers: Vec<IpAddr> = self.pairs.values().filter(|p| p.child.map == *map).map(|p| p.child.peer).collect();
                peers.sort_unstable();
                peers.dedup();
                self.requests(peers.into_iter().map(|p| IkeRequest::Clear(Some(p))).collect(), now, "cleared")
            }
            ClearSa::Spi { destination, spi } => {
                let pair = self.pairs.values().find(|p| {
                    (p.child.spi_in == *spi && p.child.local == *destination) || (p.child.spi_out == *spi && p.child.peer == *destination)
                });
                let Some(spi_in) = pair.map(|p| p.child.spi_in) else { return Err("there is no such SA".into()) };
                if !self.is_active() {
                    return Err("this node is not active: ask the active one".into());
                }
                // The end of its life, now: the peer gets the Delete.
                self.engine.handle_expire(spi_in, true, now);
                Ok(done("cleared\n".into(), serde_json::json!({ "result": "cleared" })))
            }
        }
    }

    /// `clear crypto {isakmp|sa} ha standby [peer A | resync]`: dormant entries only.
    fn clear_standby(&mut self, client: Client, peer: Option<IpAddr>, resync: bool, now: Instant) -> Result<ControlResponse, String> {
        if self.is_active() {
            return Err("this node is active: its entries are not dormant".into());
        }
        if resync {
            if self.live.is_none() {
                return Err("the partner is not connected: nobody can be asked".into());
            }
            self.stats.isakmp_adds = 0;
            self.stats.isakmp_deletes = 0;
            self.stats.isakmp_replies = 0;
            self.stats.isakmp_requests = self.engine.view(now).len() as u64;
            // A full snapshot answers: the old state stays until the new one is whole.
            self.send(Message::ResyncRequest { client: Some(client), peer }, now);
            return Ok(done("resync asked for\n".into(), serde_json::json!({ "result": "resync" })));
        }
        let gone: Vec<_> = self.pairs.values().filter(|p| peer.is_none_or(|a| a == p.child.peer)).map(|p| p.child.spi_in).collect();
        match client {
            Client::Ike => self.engine.clear_imported(),
            Client::Ipsec => {
                for spi in &gone {
                    self.remove_pair(*spi);
                    self.engine.forget_child(*spi);
                }
            }
        }
        Ok(done("dormant entries cleared; `resync` brings them back\n".into(), serde_json::json!({ "result": "cleared" })))
    }
}
