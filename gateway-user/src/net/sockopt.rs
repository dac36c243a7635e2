//! Socket options that neither nix nor socket2 has.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Plain C data that the kernel may read byte by byte.
///
/// # Safety
/// The type is `repr(C)` or a primitive integer, and has no padding the kernel would take for content.
pub(super) unsafe trait OptionValue: Copy {}

// SAFETY: a primitive integer.
unsafe impl OptionValue for libc::c_int {}
// SAFETY: `repr(C)`: int, two unsigned shorts, eight bytes; no padding.
unsafe impl OptionValue for libc::packet_mreq {}

/// `setsockopt(2)`.
pub(super) fn set<T: OptionValue>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open for the time of the call (AsFd), and the kernel reads `size_of::<T>()` bytes of plain data (OptionValue).
    let rc =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const *value).cast(), size_of::<T>() as libc::socklen_t) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
