//! `show crypto isakmp …`.

use super::{since, table};
use crate::daemon::views::{IsakmpHaView, IsakmpSaView, IsakmpSspView, cookie};

/// `show crypto isakmp ha`.
pub fn isakmp_ha(rows: &[IsakmpHaView]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|r| vec![r.vip.to_string(), r.sas.to_string(), format!("{:08X}", r.stamp), since(r.state, r.since)]).collect();
    table(&["VIP", "SAs", "Stamp", "HA State"], &rows)
}

/// `show crypto isakmp ha active|standby`.
pub fn isakmp_ha_sas(rows: &[IsakmpSaView]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|r| vec![r.dst.to_string(), r.src.to_string(), format!("{:?}", r.state), cookie(r.id.initiator), cookie(r.id.responder)])
        .collect();
    table(&["dst", "src", "state", "I-Cookie", "R-Cookie"], &rows)
}

/// `show crypto isakmp sa`.
pub fn isakmp_sas(rows: &[IsakmpSaView]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.dst.to_string(),
                r.src.to_string(),
                format!("{:?}", r.state),
                r.conn_id.to_string(),
                "0".to_owned(),
                r.status.capitals().to_owned(),
            ]
        })
        .collect();
    table(&["dst", "src", "state", "conn-id", "slot", "status"], &rows)
}

/// `show crypto isakmp ssp`.
pub fn isakmp_ssp(rows: &[IsakmpSspView]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|r| vec![r.vip.to_string(), r.adds.to_string(), r.deletes.to_string(), r.requests.to_string(), r.replies.to_string()])
        .collect();
    table(&["VIP", "ADDS", "DELETES", "REQUESTS", "REPLIES"], &rows)
}
