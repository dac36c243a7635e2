//! Packets as the classifier reads them: the only place with packet pointer arithmetic.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway_common::classify::{PARSE_LEN, Packet, Window};

/// Bytes of a packet that were compared with its end.
#[derive(Clone, Copy)]
pub struct PacketWindow(*const u8);

impl PacketWindow {
    /// `len` bytes at `offset` of the linear part.
    #[inline(always)]
    fn new(data: usize, data_end: usize, offset: usize, len: usize) -> Option<Self> {
        // A fixed bound on a variable offset is what the verifier needs.
        if offset > PARSE_LEN {
            return None;
        }
        let start = data + offset;
        if start + len > data_end { None } else { Some(Self(start as *const u8)) }
    }
}

impl Window for PacketWindow {
    #[inline(always)]
    fn byte(&self, i: usize) -> u8 {
        // SAFETY: the caller stays inside the window (the verifier checks it too).
        unsafe { *self.0.add(i) }
    }

    #[inline(always)]
    fn half(&self, i: usize) -> u16 {
        // SAFETY: as in `byte`; a BPF load has no alignment of its own, and the verifier refuses one the kernel cannot do.
        u16::from_be(unsafe { *self.0.add(i).cast::<u16>() })
    }

    #[inline(always)]
    fn word(&self, i: usize) -> u32 {
        // SAFETY: as in `half`.
        u32::from_be(unsafe { *self.0.add(i).cast::<u32>() })
    }
}

/// Frame in XDP.
pub struct XdpView<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpView<'a> {
    /// View of the frame.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }
}

impl Packet for XdpView<'_> {
    type Window = PacketWindow;

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        let ctx: *mut xdp_md = self.ctx.ctx;
        // SAFETY: a helper that takes the program's context; it counts the fragments of a multi-buffer frame.
        unsafe { bpf_xdp_get_buff_len(ctx) as u32 }
    }

    #[inline(always)]
    fn window(&self, offset: usize, len: usize) -> Option<PacketWindow> {
        PacketWindow::new(self.ctx.data(), self.ctx.data_end(), offset, len)
    }
}

/// Frame in tc. Headers that are not in the linear part are pulled in first.
pub struct SkbView<'a> {
    ctx: &'a TcContext,
}

impl<'a> SkbView<'a> {
    /// View of the frame.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        let len = ctx.len();
        let want = if len < PARSE_LEN as u32 { len } else { PARSE_LEN as u32 };
        if ctx.data() + want as usize > ctx.data_end() {
            // A failure leaves a short linear part, which the parser calls truncated.
            let _ = ctx.pull_data(want);
        }
        Self { ctx }
    }
}

impl Packet for SkbView<'_> {
    type Window = PacketWindow;

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.ctx.len()
    }

    #[inline(always)]
    fn window(&self, offset: usize, len: usize) -> Option<PacketWindow> {
        PacketWindow::new(self.ctx.data(), self.ctx.data_end(), offset, len)
    }

    #[inline(always)]
    fn aggregated(&self) -> bool {
        // SAFETY: the kernel gives a valid context; the verifier checks the field.
        unsafe { (*self.ctx.skb.skb).gso_size != 0 }
    }
}

/// Device of the frame.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: as in `SkbView::aggregated`.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Mark of the frame.
#[inline(always)]
pub fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: as in `SkbView::aggregated`.
    unsafe { (*ctx.skb.skb).mark }
}
