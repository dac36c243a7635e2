//! Names, version and bounds that both halves must agree on.

/// Version of the map layouts. A predecessor's pinned maps are adopted only when it is equal; raise it with every change in
/// [`crate::layout`], in the map list below, or in the numbering of [`crate::reason`].
pub const ABI_VERSION: u32 = 2;

/// First word of [`crate::layout::Meta`], so that a foreign map in the pin directory is not taken for ours.
pub const ABI_MAGIC: u32 = 0x6770_6970;

/// Map with one [`crate::layout::Meta`]: ABI version and table sizes of whoever made the maps.
pub const MAP_META: &str = "META";
/// Map with one [`crate::layout::RoleWord`].
pub const MAP_ROLE: &str = "ROLE";
/// Map with one [`crate::layout::Settings`].
pub const MAP_SETTINGS: &str = "SETTINGS";
/// Two banks of [`crate::layout::Vip`], see [`crate::layout::Settings`].
pub const MAP_VIPS: &str = "VIPS";
/// Two banks of [`crate::layout::Device`], see [`crate::layout::Settings`].
pub const MAP_DEVICES: &str = "DEVICES";
/// Array of [`crate::layout::InboundSa`], indexed by the low bits of the SPI.
pub const MAP_INBOUND: &str = "INBOUND";
/// Hash from [`crate::layout::OutboundKey`] to the slot in [`MAP_OUTBOUND`].
pub const MAP_OUTBOUND_INDEX: &str = "OUTBOUND_INDEX";
/// Array of [`crate::layout::OutboundSa`].
pub const MAP_OUTBOUND: &str = "OUTBOUND";
/// Longest-prefix table from [`crate::layout::ProtectedKey`] to [`crate::layout::Protected`].
pub const MAP_PROTECTED: &str = "PROTECTED";
/// Per-CPU packet counters, indexed by [`counter_index`].
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Ring buffer of aya-log.
pub const MAP_LOGS: &str = "AYA_LOGS";

/// Every map that is pinned and adopted.
pub const PINNED_MAPS: [&str; 11] = [
    MAP_META,
    MAP_ROLE,
    MAP_SETTINGS,
    MAP_VIPS,
    MAP_DEVICES,
    MAP_INBOUND,
    MAP_OUTBOUND_INDEX,
    MAP_OUTBOUND,
    MAP_PROTECTED,
    MAP_COUNTERS,
    MAP_LOGS,
];

/// XDP program on outside devices.
pub const PROGRAM_CLASSIFY: &str = "classify";
/// tc ingress program on all devices.
pub const PROGRAM_SHUNT: &str = "shunt";
/// tc egress program on all devices.
pub const PROGRAM_GUARD: &str = "guard";

/// Most virtual addresses, over all devices.
pub const MAX_VIPS: usize = 32;
/// Slots of one bank of [`MAP_VIPS`].
pub const VIP_SLOTS: u32 = 256;
/// Most devices.
pub const MAX_DEVICES: usize = 16;
/// Slots of one bank of [`MAP_DEVICES`].
pub const DEVICE_SLOTS: u32 = 64;
/// Most local selectors under one remote prefix; user space widens them into fewer when there are more.
pub const MAX_LOCALS: usize = 8;
/// Most remote prefixes of protected selectors; user space widens them into fewer when there are more.
pub const MAX_PROTECTED: u32 = 65_536;
/// Default entries of the SA tables, and the size the object is built with.
pub const DEFAULT_SA_MAX: u32 = 65_536;
/// Largest SA table: 20 bits of the SPI.
pub const LARGEST_SA_MAX: u32 = 1 << 20;
/// Counters of one program.
pub const REASONS_PER_PROGRAM: u32 = 32;
/// Entries of [`MAP_COUNTERS`].
pub const COUNTERS: u32 = 3 * REASONS_PER_PROGRAM;

/// Mark of frames that `shunt` redirects, so that `guard` lets them out: "str" and a tag.
pub const REDIRECT_MARK: u32 = 0x7374_7201;

/// Flag of [`crate::layout::Settings`]: sampled aya-log messages.
pub const SETTING_LOG: u32 = 1;
/// Flag of [`crate::layout::Device`]: an outside device (clear-text check, inbound classification).
pub const DEVICE_OUTSIDE: u32 = 1;
/// Flag of [`crate::layout::Device`]: no XDP here, `shunt` classifies.
pub const DEVICE_SHUNT_CLASSIFIES: u32 = 2;
/// Flag of [`crate::layout::Device`]: the partner's MAC is known.
pub const DEVICE_PARTNER: u32 = 4;

/// The three programs, in the order of their counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum Program {
    /// XDP.
    Classify = 0,
    /// tc ingress.
    Shunt = 1,
    /// tc egress.
    Guard = 2,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Classify, Self::Shunt, Self::Guard];

    /// Name in the object and in counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => PROGRAM_CLASSIFY,
            Self::Shunt => PROGRAM_SHUNT,
            Self::Guard => PROGRAM_GUARD,
        }
    }
}

/// Index of a reason's counter in [`MAP_COUNTERS`].
#[inline(always)]
pub const fn counter_index(program: Program, reason: u32) -> u32 {
    program as u32 * REASONS_PER_PROGRAM + reason
}
