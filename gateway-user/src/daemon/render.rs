//! Text of the views, in the guide's titles, columns and order.

mod crypto;
#[cfg(test)]
mod ike_tests;
mod ikev2;
mod ipsec;
mod node;
mod policy;
mod session;
#[cfg(test)]
mod tests;

use super::views::{DigestView, IsakmpSaView, SessionView, StateSource};
use crate::cli::command::{self, Command, HaFilter, Show};
use crate::id::IkeVersion;
use serde::Serialize;
use serde_json::Value;

pub use crypto::{isakmp_ha, isakmp_ha_sas, isakmp_sas, isakmp_ssp};
pub use ipsec::{flows, ipsec_ha};
pub use node::{datapath, debugging, digests, ssp, ssp_clients, ssp_packet, ssp_peers, ssp_redundancy, standby_brief, takeovers, version};
pub use policy::{maps, policies, transform_sets};

/// Answers a `show` command: as JSON and as text. The error is for the operator: a wrong word with the nearest right one, or a
/// command that shows nothing (the daemon carries those out itself, see `cli::command::parse`).
pub fn dispatch(argv: &[String], state: &dyn StateSource) -> Result<(Value, String), String> {
    match command::parse(argv)? {
        Command::Show(show) => render(&show, state),
        Command::Act(action) => Err(format!("`{}` does something and shows nothing: {action:?}", argv.join(" "))),
    }
}

/// Answers one `show`.
pub fn render(show: &Show, state: &dyn StateSource) -> Result<(Value, String), String> {
    match show {
        Show::Ssp => both(&state.ssp(), ssp),
        Show::SspClients => both(&state.ssp().clients, |v| ssp_clients(v)),
        Show::SspPacket => both(&state.ssp().packet, ssp_packet),
        Show::SspPeers => both(&state.ssp().peers, |v| ssp_peers(v)),
        Show::SspRedundancy => both(&state.ssp().redundancy, ssp_redundancy),
        Show::IsakmpHa => both(&state.isakmp_ha(), |v| isakmp_ha(v)),
        Show::IsakmpHaSas(filter) => {
            let mut sas = state.isakmp_sas();
            sas.retain(|s| wanted(*filter, s.status));
            both(&sas, |v| isakmp_ha_sas(v))
        }
        Show::IsakmpSa => both(&sas_of(state, IkeVersion::V1), |v| isakmp_sas(v)),
        Show::Ikev2Sa { detailed } => both(&sas_of(state, IkeVersion::V2), |v| ikev2::sas(v, *detailed)),
        Show::Ikev2Proposal(name) => ikev2::proposals(state.config(), name.as_deref()),
        Show::Ikev2Profile(name) => ikev2::profiles(state.config(), name.as_deref()),
        Show::Session { detail } => {
            both(&SessionView::compose(&state.isakmp_sas(), &state.ipsec_flows()), |v| session::sessions(v, *detail))
        }
        Show::IsakmpSsp => both(&state.isakmp_ssp(), |v| isakmp_ssp(v)),
        Show::IsakmpPolicy(number) => {
            let list = policy::policy_views(state.config(), *number);
            if let (Some(n), true) = (number, list.is_empty()) {
                return Err(format!("there is no ISAKMP policy {n}"));
            }
            both(&list, |v| policies(v))
        }
        Show::IpsecHa => both(&state.ipsec_ha(), |v| ipsec_ha(v)),
        Show::IpsecSa(filter) => ipsec::answer(filter, state.ipsec_flows()),
        Show::TransformSet => both(&policy::transform_set_views(state.config()), |v| transform_sets(v)),
        Show::Map(filter) => {
            let list = policy::map_views(state.config(), filter);
            if list.is_empty() && *filter != command::MapFilter::All {
                return Err("there is no such crypto map, or no such interface".to_owned());
            }
            both(&list, |v| maps(v))
        }
        Show::StandbyBrief => both(&state.standby(), |v| standby_brief(v)),
        Show::Takeover => both(&state.takeovers(), |v| takeovers(v)),
        Show::Datapath => both(&state.datapath(), datapath),
        Show::Version => both(&state.version(), version),
        Show::ConfigDigest => both(&DigestView::compare(&state.config().digests, state.partner_digests().as_deref()), digests),
        Show::Debugging => both(&state.debugging(), |v| debugging(v)),
    }
}

fn sas_of(state: &dyn StateSource, version: IkeVersion) -> Vec<IsakmpSaView> {
    let mut sas = state.isakmp_sas();
    sas.retain(|s| s.version == version);
    sas
}

fn wanted(filter: HaFilter, status: super::views::HaStatus) -> bool {
    use super::views::HaStatus;
    match filter {
        HaFilter::Active => status == HaStatus::Active,
        HaFilter::Standby => status == HaStatus::Standby,
    }
}

fn both<T: Serialize>(view: &T, text: impl FnOnce(&T) -> String) -> Result<(Value, String), String> {
    let json = serde_json::to_value(view).map_err(|e| format!("cannot write the answer as JSON: {e}"))?;
    Ok((json, text(view)))
}

/// A table: every column as wide as its widest cell, two spaces between, nothing after the last.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(String::len).chain([head[c].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// `hh:mm:ss`, hours as many as there are.
fn hms(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A Unix time as the guide prints times: `13:00:16 UTC Tue Oct 1 2002`.
fn clock(unix: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (day, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    // Civil date from a day number, with years that begin in March, so that a leap day is the last of its year.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let month_name = usize::try_from(month).ok().and_then(|m| MONTHS.get(m)).copied().unwrap_or("?");
    let day_name = usize::try_from(day.rem_euclid(7)).ok().and_then(|d| DAYS.get(d)).copied().unwrap_or("?");
    let time = hms(second.unsigned_abs());
    format!("{time} UTC {day_name} {month_name} {date} {year}")
}

/// `Active since …`.
fn since(state: super::views::HaStatus, unix: i64) -> String {
    format!("{} since {}", state.word(), clock(unix))
}
