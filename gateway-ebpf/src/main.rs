//! Entry points of the kernel half.
#![no_std]
#![no_main]
