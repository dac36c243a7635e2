//! Frames and network namespaces for the data path tests.

pub mod lab;
pub mod packet;
