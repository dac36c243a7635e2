//! A data path that records what it is asked, for tests of the layers above.

use crate::id::{Epoch, Spi};
use crate::ports::{Dataplane, Partner, PathRole, PortError, PortResult, ReasonCount, RoleWord};
use crate::sad::{Counters, Selector};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One call that changes something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// `set_role`.
    Role(RoleWord),
    /// `set_vips`.
    Vips(String, Vec<(Ipv4Addr, u8)>),
    /// `set_protected`.
    Protected(String, Vec<(Selector, Selector)>),
    /// `set_partner`.
    Partner(String, Option<Partner>),
    /// `set_inbound`.
    Inbound(Spi, IpAddr, u64, bool),
    /// `remove_inbound`.
    RemoveInbound(Spi),
    /// `set_outbound`.
    Outbound(Spi, IpAddr, u64, u64, bool),
    /// `remove_outbound`.
    RemoveOutbound(Spi, IpAddr),
}

/// Records calls in order and keeps the state they make.
#[derive(Clone, Debug, Default)]
pub struct FakeDataplane {
    /// Everything asked for, in order.
    pub calls: Vec<Call>,
    /// Role word as written.
    pub role: Option<RoleWord>,
    /// Floors by SPI.
    pub inbound: BTreeMap<Spi, (IpAddr, u64)>,
    /// Ranges by SPI and destination.
    pub outbound: BTreeMap<(Spi, IpAddr), (u64, u64)>,
    /// What `reasons` answers.
    pub reasons: Vec<ReasonCount>,
    /// What `hints` answers, by inbound SPI.
    pub hints: BTreeMap<Spi, Counters>,
    /// Devices, as `attached` answers.
    pub attached: Vec<(String, &'static str)>,
    /// When set, the next changing call fails with this error number and clears it.
    pub fail_next: Option<i32>,
}

impl FakeDataplane {
    /// The role in force, `Standby` before anything was written.
    pub fn path_role(&self) -> PathRole {
        self.role.map_or(PathRole::Standby, |w| w.role)
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Epoch {
        self.role.map_or(Epoch(0), |w| w.epoch)
    }

    fn record(&mut self, call: Call) -> PortResult<()> {
        if let Some(number) = self.fail_next.take() {
            return Err(PortError { call: "fake", object: format!("{call:?}"), source: std::io::Error::from_raw_os_error(number) });
        }
        self.calls.push(call);
        Ok(())
    }
}

impl Dataplane for FakeDataplane {
    fn set_role(&mut self, word: RoleWord) -> PortResult<()> {
        self.record(Call::Role(word))?;
        self.role = Some(word);
        Ok(())
    }

    fn role(&mut self) -> PortResult<Option<RoleWord>> {
        Ok(self.role)
    }

    fn set_vips(&mut self, device: &str, vips: &[(Ipv4Addr, u8)]) -> PortResult<()> {
        self.record(Call::Vips(device.into(), vips.to_vec()))
    }

    fn set_protected(&mut self, device: &str, flows: &[(Selector, Selector)]) -> PortResult<()> {
        self.record(Call::Protected(device.into(), flows.to_vec()))
    }

    fn set_partner(&mut self, device: &str, partner: Option<Partner>) -> PortResult<()> {
        self.record(Call::Partner(device.into(), partner))
    }

    fn set_inbound(&mut self, spi: Spi, dst: IpAddr, floor: u64, esn: bool) -> PortResult<()> {
        self.record(Call::Inbound(spi, dst, floor, esn))?;
        let before = self.inbound.get(&spi).map_or(0, |(_, floor)| *floor);
        self.inbound.insert(spi, (dst, floor.max(before)));
        Ok(())
    }

    fn remove_inbound(&mut self, spi: Spi) -> PortResult<()> {
        self.record(Call::RemoveInbound(spi))?;
        self.inbound.remove(&spi);
        Ok(())
    }

    fn set_outbound(&mut self, spi: Spi, dst: IpAddr, lo: u64, hi: u64, esn: bool) -> PortResult<()> {
        self.record(Call::Outbound(spi, dst, lo, hi, esn))?;
        self.outbound.insert((spi, dst), (lo, hi));
        Ok(())
    }

    fn remove_outbound(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()> {
        self.record(Call::RemoveOutbound(spi, dst))?;
        self.outbound.remove(&(spi, dst));
        Ok(())
    }

    fn reasons(&mut self) -> PortResult<Vec<ReasonCount>> {
        Ok(self.reasons.clone())
    }

    fn hints(&mut self, spi_in: Spi, _spi_out: Spi, _peer: IpAddr) -> PortResult<Counters> {
        Ok(self.hints.get(&spi_in).copied().unwrap_or_default())
    }

    fn attached(&self) -> Vec<(String, &'static str)> {
        self.attached.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_recorded_in_order_and_failures_leave_no_trace() {
        let mut fake = FakeDataplane { fail_next: Some(libc::ENOSPC), ..FakeDataplane::default() };
        let dst = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(fake.set_inbound(Spi(256), dst, 7, false).is_err());
        assert!(fake.calls.is_empty() && fake.inbound.is_empty());
        fake.set_inbound(Spi(256), dst, 7, false).unwrap();
        fake.remove_inbound(Spi(256)).unwrap();
        assert_eq!(fake.calls, [Call::Inbound(Spi(256), dst, 7, false), Call::RemoveInbound(Spi(256))]);
    }
}
