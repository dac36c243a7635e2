//! What the operator may know of an IKE SA. No key is among it.

use super::Engine;
use crate::id::IkeSaId;
use crate::ike::api::IkeSaDetail;
use std::time::Instant;

impl Engine {
    /// Algorithms, ends and numbers of an established IKE SA.
    pub fn detail(&self, id: &IkeSaId, now: Instant) -> Option<IkeSaDetail> {
        let sa = self.sas.get(&self.by_id(id)?)?;
        let up = sa.up()?;
        Some(IkeSaDetail {
            local: sa.local,
            peer: sa.peer,
            profile: up.profile.name.clone(),
            encr: up.suite.encr,
            integ: up.suite.integ,
            prf: up.suite.prf,
            group: up.suite.group,
            additional: up.suite.additional.clone(),
            local_auth: up.profile.local_auth,
            remote_auth: up.profile.remote_auth,
            local_id: up.profile.local_id.clone(),
            peer_id: up.peer_id.clone(),
            lifetime_s: up.profile.lifetime_s,
            age_s: now.saturating_duration_since(up.up_at).as_secs(),
            send_id: up.send_id,
            recv_id: up.recv_id,
            fragments: up.caps.fragments,
            nat_here: up.caps.nat_here,
            nat_there: up.caps.nat_there,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::crypto::{CipherAlg, DhGroup, IntegAlg, PrfAlg};
    use crate::ike::v2::tests::net::*;

    #[test]
    fn both_ends_tell_the_same() {
        let proposals = vec![proposal(CipherAlg::Aes256, Some(IntegAlg::HmacSha384), PrfAlg::HmacSha512, &[DhGroup::Ecp384])];
        let mut net = standing(11, configs(1, &profile(proposals), GCM, None), A);
        net.secs(20);
        let id = net.nodes[A].sa(net.now);
        let [a, b] = [A, B].map(|n| net.nodes[n].engine.detail(&id, net.now).unwrap());
        assert_eq!((a.local, a.peer), (b.peer, b.local));
        for d in [&a, &b] {
            assert_eq!((d.encr, d.integ, d.prf), (CipherAlg::Aes256, Some(IntegAlg::HmacSha384), PrfAlg::HmacSha512));
            assert_eq!((d.group, d.additional.len(), d.nat_here, d.nat_there), (DhGroup::Ecp384, 0, false, false));
            assert!(d.age_s >= 19, "{d:?}");
        }
        assert_eq!((a.send_id, b.recv_id), (b.recv_id, a.send_id));
        assert!(a.send_id >= 2, "two requests were answered");
        let nobody = crate::id::IkeSaId { initiator: [1; 8], responder: [2; 8] };
        assert_eq!(net.nodes[A].engine.detail(&nobody, net.now), None);
    }
}
