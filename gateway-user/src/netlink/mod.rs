//! Module netlink.
