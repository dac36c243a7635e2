//! All maps and the look-ups in them. Names and layouts are in `gateway_common`.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray};
use gateway_common::abi::{COUNTERS as COUNTER_COUNT, DEFAULT_SA_MAX, DEVICE_SLOTS, MAX_PROTECTED, VIP_SLOTS};
use gateway_common::classify::Parsed;
use gateway_common::layout::{
    Addr, Device, InboundSa, Meta, OutboundKey, OutboundSa, Protected, ProtectedKey, RoleWord, Settings, Vip, mapped, unmapped,
};
use gateway_common::verdict::{self, Inbound, Lease};

/// Pages of the map can be mapped by user space, which then writes single words; entries lie on cache lines.
const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);
#[map]
pub static ROLE: Array<RoleWord> = Array::with_max_entries(1, 0);
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub static VIPS: Array<Vip> = Array::with_max_entries(2 * VIP_SLOTS, 0);
#[map]
pub static DEVICES: Array<Device> = Array::with_max_entries(2 * DEVICE_SLOTS, 0);
#[map]
pub static INBOUND: Array<InboundSa> = Array::with_max_entries(DEFAULT_SA_MAX, BPF_F_MMAPABLE);
#[map]
pub static OUTBOUND_INDEX: HashMap<OutboundKey, u32> = HashMap::with_max_entries(DEFAULT_SA_MAX, 0);
#[map]
pub static OUTBOUND: Array<OutboundSa> = Array::with_max_entries(DEFAULT_SA_MAX, BPF_F_MMAPABLE);
#[map]
pub static PROTECTED: LpmTrie<ProtectedKey, Protected> = LpmTrie::with_max_entries(MAX_PROTECTED, 0);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// The entry of a virtual address, on any device.
#[inline(always)]
pub fn vip(settings: &Settings, addr: u32) -> Option<&'static Vip> {
    VIPS.get(settings.vips.index(addr, VIP_SLOTS)).filter(|v| v.ifindex != 0 && unmapped(&v.addr) == addr)
}

/// The entry of a device.
#[inline(always)]
pub fn device(settings: &Settings, ifindex: u32) -> Option<&'static Device> {
    DEVICES.get(settings.devices.index(ifindex, DEVICE_SLOTS)).filter(|d| d.ifindex == ifindex)
}

/// Adds to a word that other CPUs add to as well.
///
/// # Safety
/// `word` must point into a live map value, aligned to 8.
#[inline(always)]
unsafe fn add(word: *mut u64, n: u64) {
    // The target declares no compare-and-swap, so core hides `fetch_add`; the instruction itself is in every kernel.
    // SAFETY: as promised by the caller; the instruction only touches that word.
    unsafe { core::arch::asm!("lock *(u64 *)({word} + 0) += {n}", word = in(reg) word, n = in(reg) n, options(nostack)) };
}

/// Looks an inbound SA up by the index in its SPI, and counts the packet.
#[inline(always)]
pub fn inbound(spi: u32, seq: u32, ip_len: u32, sa_mask: u32) -> Inbound {
    let Some(entry) = INBOUND.get_ptr_mut(spi & sa_mask) else { return Inbound::Unknown };
    // SAFETY: array values live as long as the map. Fields are plain words that user space and other CPUs may change at any
    // time; each is read once.
    let verdict = verdict::inbound(unsafe { &*entry }, spi, seq);
    // SAFETY: as above; `seen` is a hint, a lost race leaves it a little low.
    unsafe {
        match verdict {
            Inbound::Known => {
                let number = verdict::inbound_number(&*entry, seq);
                if (*entry).seen < number {
                    (*entry).seen = number;
                }
                add(&raw mut (*entry).packets, 1);
                add(&raw mut (*entry).bytes, ip_len as u64);
            }
            Inbound::Below => add(&raw mut (*entry).below, 1),
            Inbound::Unknown => {}
        }
    }
    verdict
}

/// Compares an outbound packet with its lease, and counts it.
#[inline(always)]
pub fn lease(dst: Addr, spi: u32, seq: u32, ip_len: u32) -> Lease {
    let key = OutboundKey { dst, spi };
    // SAFETY: the value is one word; a slot that is given away between look-up and use is caught by comparing the SPI.
    let Some(slot) = (unsafe { OUTBOUND_INDEX.get(&key) }) else { return Lease::None };
    let Some(entry) = OUTBOUND.get_ptr_mut(*slot) else { return Lease::None };
    // SAFETY: as in `inbound`.
    let verdict = verdict::lease(unsafe { &*entry }, spi, seq);
    if verdict == Lease::Inside {
        // SAFETY: as in `inbound`.
        unsafe {
            let number = verdict::outbound_number(&*entry, seq);
            if (*entry).last < number {
                (*entry).last = number;
            }
            add(&raw mut (*entry).packets, 1);
            add(&raw mut (*entry).bytes, ip_len as u64);
        }
    }
    verdict
}

/// True when a clear packet belongs to a protected flow of the device. Not inlined: it has its own 512 bytes of stack that way.
#[inline(never)]
pub fn protected(ifindex: u32, p: &Parsed) -> bool {
    let data = ProtectedKey { ifindex: ifindex.to_ne_bytes(), remote: mapped(p.dst) };
    let key = Key::new(32 + 128, data);
    match PROTECTED.get(&key) {
        Some(entry) => verdict::is_protected(entry, p),
        None => false,
    }
}
