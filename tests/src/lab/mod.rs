//! The lab: a strongSwan peer, two gateways and two LANs in network namespaces, traffic through them, captures of both
//! LANs and what they prove. The scenario does not know whether it runs on the machine itself or in a guest.

pub mod analysis;
pub mod bench;
pub mod capture;
pub mod frames;
pub mod gateways;
pub mod guest;
pub mod hostile;
pub mod interop;
pub mod jitter;
pub mod peer;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod selftest;
pub mod sys;
pub mod tcp;
pub mod topology;
pub mod traffic;
