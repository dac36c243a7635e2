//! Who owns the SAs: joins HSRP's proposals, SSP's readiness, epochs and leases.
