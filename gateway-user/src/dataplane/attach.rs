//! Attaching the programs so that they outlive the process, and taking over what a predecessor attached without a gap.
//!
//! XDP: a link pinned in the BPF file system; its program is replaced in place. tc: classic filters with a fixed priority and
//! handle (works from kernel 6.1 on, where there are no tcx links); the kernel keeps them, a new one replaces the old in place.

use super::{bpffs, failed, refused};
use crate::config::XdpMode as Wanted;
use crate::ports::{PortError, PortResult};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// Priority of our filters.
const TC_PRIORITY: u16 = 18_000;
/// Handle of our filters.
const TC_HANDLE: TcHandle = TcHandle::new(0, 1);

/// XDP in the driver.
pub(super) const NATIVE: &str = "native";
/// No XDP: `shunt` classifies in tc.
///
/// XDP's own generic mode is never used. It runs on the same socket buffers as tc, and up to kernel 6.18 at least a buffer it had
/// to copy reaches tc without its Ethernet header (the copy forgets `mac_len`), so that `shunt` could not recognise a stray.
pub(super) const GENERIC: &str = "generic";
/// An inside device: nothing to classify.
pub(super) const INSIDE: &str = "tc";

/// Pin of a device's link. BPF file systems refuse dots, device names cannot have colons.
fn pin_path(dir: &Path, device: &str) -> PathBuf {
    dir.join(format!("xdp_{}", device.replace('.', ":")))
}

/// Attaches `program` to an outside device; answers the mode.
pub(super) fn xdp(program: &mut Xdp, dir: &Path, device: &str, ifindex: u32, wanted: Wanted) -> PortResult<&'static str> {
    let path = pin_path(dir, device);
    if wanted == Wanted::Generic {
        bpffs::unpin(&path)?;
        return Ok(GENERIC);
    }
    if path.exists() {
        match replace_xdp(program, &path) {
            Ok(()) => return Ok(NATIVE),
            // The link of a device that has been removed and made again.
            Err(error) => tracing::info!(device, %error, "the predecessor's XDP link cannot be taken over: attaching anew"),
        }
        bpffs::unpin(&path)?;
    }
    let error = match attach_xdp(program, &path, device, ifindex) {
        Ok(()) => return Ok(NATIVE),
        Err(error) => error,
    };
    if wanted == Wanted::Native {
        return Err(PortError { call: "native XDP (dataplane.xdp: native)", ..error });
    }
    // The kernel's answer when a generic program is there already.
    if error.source.raw_os_error() == Some(libc::EEXIST) {
        let why = "another program is attached to the device in generic XDP mode, which hides packets from tc: detach it";
        return Err(refused("attach XDP", device, why));
    }
    tracing::warn!(device, %error, "no native XDP on this device: tc classifies, which is slower");
    Ok(GENERIC)
}

fn replace_xdp(program: &mut Xdp, path: &Path) -> PortResult<()> {
    let object = || path.display().to_string();
    let pinned = PinnedLink::from_pin(path).map_err(|e| failed("open link", object(), e))?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|e| failed("open link", object(), e))?;
    let id = program.attach_to_link(link).map_err(|e| failed("BPF_LINK_UPDATE", object(), e))?;
    // Dropping it closes our descriptor; the pin keeps the link.
    program.take_link(id).map_err(|e| failed("take link", object(), e))?;
    Ok(())
}

fn attach_xdp(program: &mut Xdp, path: &Path, device: &str, ifindex: u32) -> PortResult<()> {
    let id = program.attach_to_if_index(ifindex, XdpMode::Driver).map_err(|e| failed("attach XDP", device, e))?;
    let link = program.take_link(id).map_err(|e| failed("take link", device, e))?;
    // An attachment by netlink has no descriptor and cannot be pinned; the failed conversion detaches it.
    let link = FdLink::try_from(link).map_err(|e| failed("XDP link", device, e))?;
    link.pin(path).map_err(|e| failed("pin", path.display().to_string(), e))?;
    Ok(())
}

/// True when the predecessor's attachments are still there: the qdisc our filters hang on, and outside the XDP link (or its absence, where
/// tc classifies). A qdisc made by asking shows that they are not.
pub(super) fn intact(dir: &Path, device: &str, native: bool) -> bool {
    if native && !pin_path(dir, device).exists() {
        return false;
    }
    qdisc_add_clsact(device).is_err()
}

/// Attaches a tc program to one side of a device, in place of the predecessor's.
pub(super) fn tc(program: &mut SchedClassifier, device: &str, side: TcAttachType) -> PortResult<()> {
    match qdisc_add_clsact(device).map_err(|e| failed("clsact", device, e)) {
        Ok(()) => {}
        Err(e) if e.source.raw_os_error() == Some(libc::EEXIST) => {}
        // Some kernels' answer carries no number: what counts is whether the filter can be attached.
        Err(error) => tracing::debug!(device, %error, "clsact"),
    }
    let old = SchedClassifierLink::attached(device, side, TC_PRIORITY, TC_HANDLE, None).map_err(|e| failed("tc", device, e))?;
    let id = match program.attach_to_link(old) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions { priority: TC_PRIORITY, handle: TC_HANDLE, classid: None };
            program.attach_with_options(device, side, TcAttachOptions::Netlink(options)).map_err(|e| failed("attach tc", device, e))?
        }
    };
    let link = program.take_link(id).map_err(|e| failed("take filter", device, e))?;
    // The filter stays when the process ends; dropping the link would remove it.
    std::mem::forget(link);
    Ok(())
}

/// Detaches everything of ours from a device. What is not there, or a device that is gone, is fine.
pub(super) fn detach(dir: &Path, device: &str) -> PortResult<()> {
    detach_xdp(dir, device)?;
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        if let Ok(link) = SchedClassifierLink::attached(device, side, TC_PRIORITY, TC_HANDLE, None) {
            // Dropping it sends the removal; a filter that is not there is an answer we do not need.
            drop(link);
        }
    }
    Ok(())
}

/// Removes the link of a device.
pub(super) fn detach_xdp(dir: &Path, device: &str) -> PortResult<()> {
    bpffs::unpin(&pin_path(dir, device))
}

/// Index of a device in this network namespace.
pub(super) fn ifindex(device: &str) -> PortResult<u32> {
    nix::net::if_::if_nametoindex(device).map_err(|e| failed("if_nametoindex", device, std::io::Error::from(e)))
}

/// Name of a device in this network namespace.
pub(super) fn name(ifindex: u32) -> Option<String> {
    let mut buffer = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size the call asks for.
    let found = unsafe { libc::if_indextoname(ifindex, buffer.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the call wrote a terminated string into the buffer.
    Some(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}

/// Hardware address of a device in this network namespace.
pub(super) fn hardware_address(device: &str) -> PortResult<[u8; 6]> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").map_err(|e| failed("socket", device, e))?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(refused("SIOCGIFHWADDR", device, "device name too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request lives through the call; the kernel writes inside it.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request) } != 0 {
        return Err(failed("SIOCGIFHWADDR", device, std::io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded, so this member of the union is set.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(data) {
        *to = from as u8;
    }
    Ok(mac)
}
