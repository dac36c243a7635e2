//! What lies in the maps: `repr(C)`, no implicit padding, sizes fixed at compile time.
//!
//! Addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`, so that IPv6 needs no new layout. Everything else is in
//! host order. The kernel copies array values in 8-byte words; where a torn update would matter, fields that belong
//! together share a word.

use crate::abi::MAX_LOCALS;

/// 16 bytes, IPv4 mapped.
pub type Addr = [u8; 16];

/// Maps an IPv4 address, given in host order.
#[inline(always)]
pub const fn mapped(v4: u32) -> Addr {
    let b = v4.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]]
}

/// The IPv4 address in a mapped one, host order. Callers only store mapped IPv4.
#[inline(always)]
pub const fn unmapped(addr: &Addr) -> u32 {
    u32::from_be_bytes([addr[12], addr[13], addr[14], addr[15]])
}

/// Who made the maps.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// [`crate::abi::ABI_MAGIC`].
    pub magic: u32,
    /// [`crate::abi::ABI_VERSION`].
    pub version: u32,
    /// Entries of the SA tables.
    pub sa_max: u32,
    /// First bytes of the digest of the object whose programs are attached; 0 while they are being attached.
    pub object: u32,
}

/// [`RoleWord::role`] before anything was written: treated as standby.
pub const ROLE_UNSET: u32 = 0;
/// Sends nothing protected, redirects strays.
pub const ROLE_STANDBY: u32 = 1;
/// Forwards what reaches it, announces nothing yet.
pub const ROLE_ARMED: u32 = 2;
/// Forwards.
pub const ROLE_ACTIVE: u32 = 3;
/// Redirects what arrives, lets out what is inside.
pub const ROLE_DRAINING: u32 = 4;

/// Role word. A torn update could show a new role with the old lease, so user space writes the lease first and then the role
/// when it becomes active.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RoleWord {
    /// `ROLE_*`.
    pub role: u32,
    /// Zero.
    pub reserved: u32,
    /// Epoch.
    pub epoch: u64,
    /// CLOCK_MONOTONIC in ns after which `ROLE_ACTIVE` counts as standby; `u64::MAX` = no limit.
    pub lease_until_ns: u64,
}

/// What all programs read.
///
/// The tables of virtual addresses and devices are small and read for every packet: a slot is `key * multiplier` shifted down
/// ([`slot`]), and user space looks for a multiplier under which no two keys meet. It fills the bank that is not in use and then
/// writes multiplier and bank, which share a word: a packet sees the old table or the new one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// `SETTING_*`.
    pub flags: u32,
    /// Size of the SA tables less one.
    pub sa_mask: u32,
    /// Table of virtual addresses.
    pub vips: Table,
    /// Table of devices.
    pub devices: Table,
}

/// Which bank of a table is in use, and how to find a slot in it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Odd multiplier.
    pub multiplier: u32,
    /// 0 or 1.
    pub bank: u32,
}

impl Table {
    /// Index of `key`; `slots` is a power of two, at most 2^31.
    #[inline(always)]
    pub const fn index(self, key: u32, slots: u32) -> u32 {
        (self.bank & 1) * slots + slot(key, self.multiplier, slots)
    }
}

/// Slot of `key` inside a bank.
#[inline(always)]
pub const fn slot(key: u32, multiplier: u32, slots: u32) -> u32 {
    key.wrapping_mul(multiplier) >> (32 - slots.trailing_zeros())
}

/// A multiplier under which no two of `keys` share a slot, or `None` when none was found among the first 65 536 tried.
pub fn multiplier(keys: &[u32], slots: u32) -> Option<u32> {
    (0..65_536_u32)
        .map(|i| i.wrapping_mul(0x9e37_79b8).wrapping_add(0x9e37_79b9))
        .find(|&m| keys.iter().enumerate().all(|(i, &a)| keys[..i].iter().all(|&b| a == b || slot(a, m, slots) != slot(b, m, slots))))
}

/// One virtual address. `ifindex` 0 = vacant.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vip {
    /// Parent device.
    pub ifindex: u32,
    /// HSRP group: last byte of the virtual MAC.
    pub group: u32,
    /// The address.
    pub addr: Addr,
}

/// One device. `ifindex` 0 = vacant.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Device {
    /// Kernel index.
    pub ifindex: u32,
    /// `DEVICE_*`.
    pub flags: u32,
    /// Its own MAC, see [`crate::classify::mac`].
    pub mac: u64,
    /// The partner's MAC on this LAN, when `DEVICE_PARTNER` is set.
    pub partner: u64,
    /// HSRP groups on it: bit `g % 64` of word `g / 64`.
    pub groups: [u64; 4],
}

/// [`InboundSa::state`] and [`OutboundSa::state`]: vacant.
pub const SA_VACANT: u32 = 0;
/// Bit: in use.
pub const SA_VALID: u32 = 1;
/// Bit: extended sequence numbers. A packet shows the low half of its number only (RFC 4303 2.2.1).
pub const SA_ESN: u32 = 2;

/// One inbound SA, one cache line. User space writes single words through a shared mapping, so the programs' counts are
/// never overwritten.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InboundSa {
    /// SPI, host order.
    pub spi: u32,
    /// `SA_*` bits.
    pub state: u32,
    /// Numbers up to and including it are dropped.
    pub floor: u64,
    /// Highest number seen (a hint: not authenticated).
    pub seen: u64,
    /// Packets let through (not authenticated).
    pub packets: u64,
    /// Their IP lengths.
    pub bytes: u64,
    /// Packets dropped below the floor.
    pub below: u64,
    /// Our tunnel end.
    pub dst: Addr,
}

/// Key of an outbound SA.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct OutboundKey {
    /// The peer's tunnel end.
    pub dst: Addr,
    /// SPI, host order.
    pub spi: u32,
}

/// One outbound SA, one cache line; see [`InboundSa`] for who writes what.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OutboundSa {
    /// SPI, host order.
    pub spi: u32,
    /// `SA_*` bits.
    pub state: u32,
    /// Numbers up to and including it are not ours.
    pub lo: u64,
    /// Highest number that may be sent.
    pub hi: u64,
    /// Highest number sent.
    pub last: u64,
    /// Packets sent.
    pub packets: u64,
    /// Their IP lengths.
    pub bytes: u64,
    /// The peer's tunnel end.
    pub dst: Addr,
}

/// Key data of the protected table: device, then remote network; the prefix length counts the 32 bits of the device and the
/// 96 bits of the mapping.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct ProtectedKey {
    /// Device index, bytes in host order (only compared for equality).
    pub ifindex: [u8; 4],
    /// Remote network.
    pub remote: Addr,
}

/// Bits of [`ProtectedKey`] in front of an IPv4 prefix.
pub const PROTECTED_V4_BITS: u32 = 32 + 96;

/// Local side of one protected selector pair, and the protocol and ports of both.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct Local {
    /// Network, host order.
    pub addr: u32,
    /// Mask, host order.
    pub mask: u32,
    /// Local port, 0 = any.
    pub local_port: u16,
    /// Remote port, 0 = any.
    pub remote_port: u16,
    /// Protocol, 0 = any.
    pub proto: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of the protected table: the selectors of this prefix and of every shorter one that covers it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protected {
    /// Entries used.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// Selectors.
    pub locals: [Local; MAX_LOCALS],
}

const _: () = {
    assert!(size_of::<Meta>() == 16);
    assert!(size_of::<RoleWord>() == 24);
    assert!(size_of::<Settings>() == 24);
    assert!(size_of::<Vip>() == 24);
    assert!(size_of::<Device>() == 56);
    assert!(size_of::<InboundSa>() == 64 && size_of::<OutboundSa>() == 64);
    assert!(size_of::<OutboundKey>() == 20 && align_of::<OutboundKey>() == 4);
    assert!(size_of::<ProtectedKey>() == 20 && align_of::<ProtectedKey>() == 1);
    assert!(size_of::<Local>() == 16 && size_of::<Protected>() == 8 + 16 * MAX_LOCALS);
};

#[cfg(feature = "user")]
mod pod {
    use super::*;
    macro_rules! pod {
        ($($t:ty),+) => { $(
            // SAFETY: `repr(C)`, integers and byte arrays only, no padding (sizes asserted above).
            unsafe impl aya::Pod for $t {}
        )+ };
    }
    pod!(Meta, RoleWord, Settings, Vip, Device, InboundSa, OutboundKey, OutboundSa, ProtectedKey, Protected);
}
