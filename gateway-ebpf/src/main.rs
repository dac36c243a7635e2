//! Entry points of the kernel half: XDP `classify`, tc ingress `shunt`, tc egress `guard`.
//!
//! The decisions are in `gateway_common::verdict`; here are only packet access, map look-ups, counting and the verdict codes.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod count;
mod maps;
mod view;

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway_common::abi::{DEVICE_OUTSIDE, DEVICE_PARTNER, DEVICE_SHUNT_CLASSIFIES, Program, REDIRECT_MARK, SETTING_LOG};
use gateway_common::classify::{Direction, Parsed, parse};
use gateway_common::layout::{Device, Settings, mapped};
use gateway_common::reason::{Action, Classify, Guard, Shunt};
use gateway_common::verdict::{self, GuardFacts, RoleNow, ShuntFacts};
use view::{SkbView, XdpView};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: nothing in the programs can panic (the verifier would refuse the loop this stands for).
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Role at this moment; without the map entry (which cannot be), nothing is ours.
#[inline(always)]
fn role() -> RoleNow {
    match maps::ROLE.get(0) {
        // SAFETY: a helper without arguments.
        Some(word) => verdict::role_now(word, || unsafe { bpf_ktime_get_ns() }),
        None => RoleNow::Quiet,
    }
}

#[inline(always)]
fn settings() -> Settings {
    maps::SETTINGS.get(0).copied().unwrap_or_default()
}

/// The classification that XDP and, where there is no XDP, `shunt` share.
#[inline(always)]
fn classify_packet(p: &Parsed, settings: &Settings) -> Classify {
    let to_vip = maps::vip(settings, p.dst).is_some();
    verdict::classify(p, role(), to_vip, |spi, seq| maps::inbound(spi, seq, p.ip_len, settings.sa_mask))
}

/// XDP on outside devices.
#[xdp(frags)]
pub fn classify(ctx: XdpContext) -> u32 {
    let settings = settings();
    let p = parse(&XdpView::new(&ctx), Direction::In);
    let reason = classify_packet(&p, &settings);
    let seen = count::count(Program::Classify, reason as u32);
    match reason.action() {
        Action::Drop => {
            if settings.flags & SETTING_LOG != 0 && count::sampled(seen) {
                count::log(&ctx, Program::Classify, reason as u32, &p);
            }
            xdp_action::XDP_DROP
        }
        Action::Pass | Action::Redirect => xdp_action::XDP_PASS,
    }
}

/// tc ingress on all devices.
#[classifier]
pub fn shunt(ctx: TcContext) -> i32 {
    let settings = settings();
    let ifindex = view::ifindex(&ctx);
    let device = maps::device(&settings, ifindex);
    let classifies = device.is_some_and(|d| d.flags & DEVICE_SHUNT_CLASSIFIES != 0);
    let role = role();
    if role.takes() && !classifies {
        count::count(Program::Shunt, Shunt::Pass as u32);
        return TC_ACT_OK;
    }
    let p = parse(&SkbView::new(&ctx), Direction::In);
    if classifies {
        let reason = classify_packet(&p, &settings);
        let seen = count::count(Program::Classify, reason as u32);
        if reason.action() == Action::Drop {
            if settings.flags & SETTING_LOG != 0 && count::sampled(seen) {
                count::log(&ctx, Program::Classify, reason as u32, &p);
            }
            count::count(Program::Shunt, Shunt::Classified as u32);
            return TC_ACT_SHOT;
        }
    }
    let mut reason = verdict::shunt(
        &p,
        role,
        ShuntFacts {
            to_virtual_mac: device.is_some_and(|d| verdict::virtual_mac_on(d, p.dst_mac)),
            from_partner: device.is_some_and(|d| d.flags & DEVICE_PARTNER != 0 && d.partner == p.src_mac),
            partner_known: device.is_some_and(|d| d.flags & DEVICE_PARTNER != 0),
            to_vip: maps::vip(&settings, p.dst).is_some(),
        },
    );
    if reason.action() == Action::Redirect && !device.is_some_and(|d| readdress(&ctx, d)) {
        reason = Shunt::Rewrite;
    }
    let seen = count::count(Program::Shunt, reason as u32);
    match reason.action() {
        Action::Pass => TC_ACT_OK,
        Action::Drop => {
            if settings.flags & SETTING_LOG != 0 && count::sampled(seen) {
                count::log(&ctx, Program::Shunt, reason as u32, &p);
            }
            TC_ACT_SHOT
        }
        Action::Redirect => {
            ctx.set_mark(REDIRECT_MARK);
            // SAFETY: a helper with two plain numbers; flags 0 = out of the device.
            unsafe { bpf_redirect(ifindex, 0) as i32 }
        }
    }
}

/// Puts the partner's MAC and the device's own into the frame.
#[inline(always)]
fn readdress(ctx: &TcContext, device: &Device) -> bool {
    // Twelve bytes as three words in network order.
    let macs: [u32; 3] = [
        ((device.partner >> 16) as u32).to_be(),
        ((device.partner as u32) << 16 | (device.mac >> 32) as u32).to_be(),
        (device.mac as u32).to_be(),
    ];
    ctx.store(0, &macs, 0).is_ok()
}

/// tc egress on all devices.
#[classifier]
pub fn guard(ctx: TcContext) -> i32 {
    if view::mark(&ctx) == REDIRECT_MARK {
        count::count(Program::Guard, Guard::Redirected as u32);
        return TC_ACT_OK;
    }
    let ifindex = view::ifindex(&ctx);
    let view = SkbView::new(&ctx);
    let p = parse(&view, Direction::Out);
    let settings = settings();
    let vip = maps::vip(&settings, p.src);
    let device = maps::device(&settings, ifindex);
    let reason = verdict::guard(
        &p,
        role(),
        GuardFacts {
            from_virtual_mac: device.is_some_and(|d| verdict::virtual_mac_on(d, p.src_mac)),
            from_vip: vip.is_some(),
            arp_mac_matches: vip.is_some_and(|v| verdict::is_virtual_mac(p.arp_mac, v.group)),
            outside: device.is_some_and(|d| d.flags & DEVICE_OUTSIDE != 0),
        },
        |spi, seq| maps::lease(mapped(p.dst), spi, seq, p.ip_len),
        || maps::protected(ifindex, &p),
    );
    let seen = count::count(Program::Guard, reason as u32);
    match reason.action() {
        Action::Pass | Action::Redirect => TC_ACT_OK,
        Action::Drop => {
            if settings.flags & SETTING_LOG != 0 && count::sampled(seen) {
                count::log(&ctx, Program::Guard, reason as u32, &p);
            }
            TC_ACT_SHOT
        }
    }
}
