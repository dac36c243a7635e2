//! Active and dormant.

use super::engine::Engine;
use super::sa::Sa;
use crate::id::Spi;
use crate::ike::api::IkeRecord;
use crate::sad::{ChildSa, ChildStage};
use std::time::{Duration, Instant};

impl Engine {
    pub(super) fn encode(&self, _sa: &Sa, _now: Instant) -> Option<IkeRecord> {
        None
    }

    /// Lets the engine speak, or makes it mute.
    pub fn set_active(&mut self, active: bool, _now: Instant) {
        self.active = active;
    }

    /// Mirrors one record of the active node.
    pub fn import(&mut self, _record: &IkeRecord, _now: Instant) -> Result<(), String> {
        Ok(())
    }

    /// Attaches a mirrored child pair.
    pub fn import_child_stage(&mut self, _child: &ChildSa, _stage: ChildStage, _age: Duration, _now: Instant) -> Result<(), String> {
        Ok(())
    }

    /// Forgets a child pair that the other node removed.
    pub fn forget_child(&mut self, _spi_in: Spi) {}

    /// All established SAs, as records to mirror.
    pub fn export(&self, _now: Instant) -> Vec<IkeRecord> {
        Vec::new()
    }

    /// Forgets all mirrored state before a snapshot.
    pub fn clear_imported(&mut self) {}
}
