//! SA tables as memory shared with the programs: single words are written, so their counts are never overwritten.

use super::{failed, refused};
use crate::ports::PortResult;
use aya::maps::{HashMap, Map, MapData};
use gateway_common::layout::{InboundSa, OutboundKey, OutboundSa, SA_ESN, SA_VACANT, SA_VALID, mapped};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A whole array map in our address space.
struct Shared<T> {
    base: NonNull<T>,
    len: u32,
    /// Keeps the map alive.
    _map: MapData,
}

// SAFETY: the memory belongs to the process, not to a thread; all access is by atomics or by reads of plain integers.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn new(name: &str, map: Map, len: u32) -> PortResult<Self> {
        let Map::Array(map) = map else { return Err(refused("mmap", name, "not an array map")) };
        let bytes = size_of::<T>() * len as usize;
        // SAFETY: a fresh shared mapping of `bytes` bytes; the kernel checks the length against the map.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, map.fd().as_fd().as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(failed("mmap", name, std::io::Error::last_os_error()));
        }
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Self { base, len, _map: map }),
            None => Err(refused("mmap", name, "mapped at zero")),
        }
    }

    /// Pointer to an entry; `None` beyond the table.
    fn entry(&self, index: u32) -> Option<*mut T> {
        // SAFETY: inside the mapping.
        (index < self.len).then(|| unsafe { self.base.as_ptr().add(index as usize) })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, not used any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), size_of::<T>() * self.len as usize) };
    }
}

/// # Safety
/// `p` points into a live mapping.
unsafe fn store64(p: *mut u64, v: u64) {
    // SAFETY: aligned and live, see above; programs on other CPUs use atomics or plain word access.
    unsafe { AtomicU64::from_ptr(p) }.store(v, Ordering::Release);
}

/// # Safety
/// `p` points into a live mapping.
unsafe fn load64(p: *mut u64) -> u64 {
    // SAFETY: as in `store64`.
    unsafe { AtomicU64::from_ptr(p) }.load(Ordering::Acquire)
}

/// # Safety
/// `p` points into a live mapping.
unsafe fn store32(p: *mut u32, v: u32) {
    // SAFETY: as in `store64`.
    unsafe { AtomicU32::from_ptr(p) }.store(v, Ordering::Release);
}

/// # Safety
/// `p` points into a live mapping.
unsafe fn load32(p: *mut u32) -> u32 {
    // SAFETY: as in `store64`.
    unsafe { AtomicU32::from_ptr(p) }.load(Ordering::Acquire)
}

/// Address as the maps hold it.
pub(super) fn addr16(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => mapped(v4.to_bits()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn state_of(esn: bool) -> u32 {
    SA_VALID | if esn { SA_ESN } else { 0 }
}

/// Packets, bytes and a sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    /// Highest number.
    pub(super) seq: u64,
    /// Packets.
    pub(super) packets: u64,
    /// Bytes.
    pub(super) bytes: u64,
}

/// Inbound SAs by the index in their SPI.
pub(super) struct InboundTable(Shared<InboundSa>);

impl InboundTable {
    pub(super) fn new(map: Map, sa_max: u32) -> PortResult<Self> {
        Ok(Self(Shared::new("INBOUND", map, sa_max)?))
    }

    fn entry(&self, spi: u32) -> *mut InboundSa {
        // The length is a power of two, so the masked index is always inside.
        self.0.entry(spi & (self.0.len - 1)).unwrap_or(self.0.base.as_ptr())
    }

    /// Adds or replaces. The counts of an SA that is there already go on, and its floor never falls.
    pub(super) fn set(&mut self, spi: u32, dst: IpAddr, floor: u64, esn: bool) -> PortResult<()> {
        let e = self.entry(spi);
        // SAFETY: `entry` points into the mapping, which lives as long as `self`. A program that reads the entry meanwhile sees
        // it vacant (`state` is cleared first and set last).
        unsafe {
            let state = load32(&raw mut (*e).state);
            let holder = load32(&raw mut (*e).spi);
            if state == state_of(esn) && holder == spi {
                // The floor closes what the kernel's window may still have open (planned hand-over): a restarted daemon must not lower it.
                if floor > load64(&raw mut (*e).floor) {
                    store64(&raw mut (*e).floor, floor);
                }
                return Ok(());
            }
            if state & SA_VALID != 0 && holder != spi {
                let object = format!("{spi:#010x}");
                return Err(refused("set_inbound", object, format!("its table index is held by {holder:#010x}")));
            }
            store32(&raw mut (*e).state, SA_VACANT);
            for word in [&raw mut (*e).seen, &raw mut (*e).packets, &raw mut (*e).bytes, &raw mut (*e).below] {
                store64(word, 0);
            }
            store64(&raw mut (*e).floor, floor);
            (&raw mut (*e).dst).write(addr16(dst));
            store32(&raw mut (*e).spi, spi);
            store32(&raw mut (*e).state, state_of(esn));
        }
        Ok(())
    }

    /// Removes; an index held by another SPI stays.
    pub(super) fn remove(&mut self, spi: u32) {
        let e = self.entry(spi);
        // SAFETY: as in `set`.
        unsafe {
            if load32(&raw mut (*e).spi) == spi {
                store32(&raw mut (*e).state, SA_VACANT);
            }
        }
    }

    pub(super) fn counted(&self, spi: u32) -> Option<Counted> {
        let e = self.entry(spi);
        // SAFETY: as in `set`.
        unsafe {
            (load32(&raw mut (*e).state) & SA_VALID != 0 && load32(&raw mut (*e).spi) == spi).then(|| Counted {
                seq: load64(&raw mut (*e).seen),
                packets: load64(&raw mut (*e).packets),
                bytes: load64(&raw mut (*e).bytes),
            })
        }
    }
}

/// Outbound SAs: a hash gives the slot, the slot holds lease and counts.
pub(super) struct OutboundTable {
    index: HashMap<MapData, OutboundKey, u32>,
    slots: Shared<OutboundSa>,
    /// Vacant slots.
    free: Vec<u32>,
}

impl OutboundTable {
    /// Reads what a predecessor left.
    pub(super) fn new(index: Map, slots: Map, sa_max: u32) -> PortResult<Self> {
        let index = HashMap::try_from(index).map_err(|e| failed("open", "OUTBOUND_INDEX", e))?;
        let slots = Shared::new("OUTBOUND", slots, sa_max)?;
        let mut used = vec![false; sa_max as usize];
        for item in index.iter() {
            let (_, slot): (OutboundKey, u32) = item.map_err(|e| failed("read", "OUTBOUND_INDEX", e))?;
            if let Some(u) = used.get_mut(slot as usize) {
                *u = true;
            }
        }
        let free = (0..sa_max).rev().filter(|&i| !used[i as usize]).collect();
        Ok(Self { index, slots, free })
    }

    fn find(&self, spi: u32, dst: IpAddr) -> Option<*mut OutboundSa> {
        let slot = self.index.get(&OutboundKey { dst: addr16(dst), spi }, 0).ok()?;
        self.slots.entry(slot)
    }

    /// Adds or replaces the range. The counts of an SA that is there already go on.
    pub(super) fn set(&mut self, spi: u32, dst: IpAddr, lo: u64, hi: u64, esn: bool) -> PortResult<()> {
        let object = || format!("{spi:#010x} to {dst}");
        if let Some(e) = self.find(spi, dst) {
            // SAFETY: `find` points into the mapping. The order never lets a program see a range wider than both: the end that
            // narrows the range goes first.
            unsafe {
                store32(&raw mut (*e).state, state_of(esn));
                if lo < load64(&raw mut (*e).lo) {
                    store64(&raw mut (*e).hi, hi);
                    store64(&raw mut (*e).lo, lo);
                } else {
                    store64(&raw mut (*e).lo, lo);
                    store64(&raw mut (*e).hi, hi);
                }
            }
            return Ok(());
        }
        let Some(slot) = self.free.pop() else {
            return Err(refused("set_outbound", object(), format!("all {} entries are in use (dataplane.sa_max)", self.slots.len)));
        };
        let key = OutboundKey { dst: addr16(dst), spi };
        if let Some(e) = self.slots.entry(slot) {
            // SAFETY: inside the mapping; no key points to the slot yet.
            unsafe {
                for word in [&raw mut (*e).last, &raw mut (*e).packets, &raw mut (*e).bytes] {
                    store64(word, 0);
                }
                store64(&raw mut (*e).lo, lo);
                store64(&raw mut (*e).hi, hi);
                (&raw mut (*e).dst).write(key.dst);
                store32(&raw mut (*e).spi, spi);
                store32(&raw mut (*e).state, state_of(esn));
            }
        }
        self.index.insert(key, slot, 0).map_err(|e| {
            self.free.push(slot);
            failed("bpf map update", object(), e)
        })
    }

    /// Removes; absent is fine.
    pub(super) fn remove(&mut self, spi: u32, dst: IpAddr) -> PortResult<()> {
        let key = OutboundKey { dst: addr16(dst), spi };
        let Ok(slot) = self.index.get(&key, 0) else { return Ok(()) };
        self.index.remove(&key).map_err(|e| failed("bpf map delete", format!("{spi:#010x} to {dst}"), e))?;
        if let Some(e) = self.slots.entry(slot) {
            // SAFETY: inside the mapping.
            unsafe { store32(&raw mut (*e).state, SA_VACANT) };
            self.free.push(slot);
        }
        Ok(())
    }

    pub(super) fn counted(&self, spi: u32, dst: IpAddr) -> Option<Counted> {
        let e = self.find(spi, dst)?;
        // SAFETY: `find` points into the mapping.
        unsafe {
            Some(Counted { seq: load64(&raw mut (*e).last), packets: load64(&raw mut (*e).packets), bytes: load64(&raw mut (*e).bytes) })
        }
    }
}
