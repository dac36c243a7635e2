//! Engines against each other in virtual time, over a network that loses, repeats and reorders.

mod basic;
mod dpd;
mod net;
mod rekey;
