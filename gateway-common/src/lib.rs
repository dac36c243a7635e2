//! Packet classifier, map layouts and names shared by the kernel half and the user half.
#![no_std]
