//! The named outcome of every packet, per program. The name is stable: metrics and `show` use it.

use crate::abi::{Program, REASONS_PER_PROGRAM};

/// What a program does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Goes on.
    Pass,
    /// Dropped.
    Drop,
    /// Sent to the partner.
    Redirect,
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $text:literal $action:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$doc])+ $variant,)+ }

        impl $name {
            /// All, in order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What happens to the packet.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)+ }
            }
        }

        const _: () = assert!($name::ALL.len() as u32 <= REASONS_PER_PROGRAM);
    };
}

reasons! {
    /// Outcomes of `classify`.
    Classify {
        /// Neither IPv4 nor IPv6 (ARP too).
        NotIp = "not_ip" Pass,
        /// IPv6: not handled by this layer yet.
        Ipv6 = "ipv6" Pass,
        /// Not to a virtual address.
        NotForVip = "not_for_vip" Pass,
        /// The IP header is cut off, so that its destination is not known: the kernel drops it.
        HeaderTruncated = "header_truncated" Pass,
        /// To a virtual address, not IPsec.
        Other = "other" Pass,
        /// ESP or AH of a known SA, above its floor.
        Known = "known" Pass,
        /// ESP in UDP 4500 of a known SA, above its floor.
        KnownNatt = "known_natt" Pass,
        /// IKE on UDP 500.
        Ike = "ike" Pass,
        /// IKE on UDP 4500.
        IkeNatt = "ike_natt" Pass,
        /// NAT keepalive.
        Keepalive = "keepalive" Pass,
        /// A fragment after the first: its SA is not known before reassembly.
        Fragment = "fragment" Pass,
        /// IPsec for a virtual address while this node does not own it: `shunt` decides.
        Stray = "stray" Pass,
        /// ESP or AH with an SPI that is not in the table.
        UnknownSpi = "unknown_spi" Drop,
        /// At or below the SA's replay floor.
        BelowFloor = "below_floor" Drop,
        /// To a virtual address, too short for its headers.
        Truncated = "truncated" Drop,
        /// To a virtual address, with a length field that contradicts the frame.
        BadLength = "bad_length" Drop,
        /// SPI 0 or 1 to 255: reserved, never ours.
        ReservedSpi = "reserved_spi" Drop,
    }
}

reasons! {
    /// Outcomes of `shunt`.
    Shunt {
        /// This node owns the virtual addresses, or nothing is addressed to them.
        Pass = "pass" Pass,
        /// Broadcast or multicast: everybody's.
        Group = "group" Pass,
        /// Sent to the partner.
        Redirected = "redirected" Redirect,
        /// To a virtual MAC, but no partner is known on this LAN.
        NoPartner = "no_partner" Drop,
        /// To a virtual MAC, from the partner itself: sending it back would loop.
        Loop = "loop" Drop,
        /// IPsec for a virtual address, but not to its virtual MAC: the partner sent it here, or the sender has an old entry.
        NotVirtualMac = "not_virtual_mac" Drop,
        /// The frame could not be rewritten.
        Rewrite = "rewrite" Drop,
        /// The classifier dropped it here, as there is no XDP on this device (its own counters tell why).
        Classified = "classified" Drop,
    }
}

reasons! {
    /// Outcomes of `guard`.
    Guard {
        /// Nothing to guard.
        Pass = "pass" Pass,
        /// Redirected by `shunt`.
        Redirected = "redirected" Pass,
        /// ESP inside its lease.
        Esp = "esp" Pass,
        /// A later fragment of an ESP packet whose first one was checked.
        EspFragment = "esp_fragment" Pass,
        /// IKE or NAT keepalive from a virtual address.
        Ike = "ike" Pass,
        /// ARP from a virtual address and its virtual MAC.
        Arp = "arp" Pass,
        /// ARP from a virtual address with another MAC: neighbours learn an entry that does not move (`arp_announce`).
        ArpForeignMac = "arp_foreign_mac" Pass,
        /// HSRP of the active router, or of any other state.
        Hsrp = "hsrp" Pass,
        /// From a virtual MAC without owning it.
        VirtualMac = "virtual_mac" Drop,
        /// ARP from a virtual address without owning it.
        ArpRole = "arp_role" Drop,
        /// ESP or AH from a virtual address without owning it.
        EspRole = "esp_role" Drop,
        /// IKE from a virtual address without owning it.
        IkeRole = "ike_role" Drop,
        /// HSRP that says "active" without the role.
        HsrpRole = "hsrp_role" Drop,
        /// ESP or AH from a virtual address without an entry in the lease table.
        NoLease = "no_lease" Drop,
        /// A sequence number outside the lease.
        OutsideLease = "outside_lease" Drop,
        /// A packet of a protected flow in clear.
        ClearText = "clear_text" Drop,
        /// From a virtual address, with headers that cannot be checked.
        Malformed = "malformed" Drop,
    }
}

/// Name and action of a counter, by program and index.
pub const fn describe(program: Program, index: u32) -> Option<(&'static str, Action)> {
    let i = index as usize;
    match program {
        Program::Classify if i < Classify::ALL.len() => Some((Classify::ALL[i].name(), Classify::ALL[i].action())),
        Program::Shunt if i < Shunt::ALL.len() => Some((Shunt::ALL[i].name(), Shunt::ALL[i].action())),
        Program::Guard if i < Guard::ALL.len() => Some((Guard::ALL[i].name(), Guard::ALL[i].action())),
        Program::Classify | Program::Shunt | Program::Guard => None,
    }
}
