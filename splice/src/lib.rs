//! The decisions of Sidetrack, without the kernel and without the operating system.
//!
//! Packet and connection state go in; a verdict, a reason and edits come out. The eBPF programs run this code as it
//! is, and so do the tests and the simulator: there is one parser, one arithmetic, one set of rules.
//!
//! Everything here is `no_std`, free of `unsafe` (but for one load in [`window`], as bpf), free of panics on any input, and
//! written so that the kernel's verifier can follow it: loops are bounded or turned into steps that the host drives.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(not(any(test, feature = "std")), no_std)]

pub mod abi;
pub mod adopt;
pub mod carrier;
pub mod checksum;
pub mod conn;
pub mod filter;
pub mod http;
pub mod made;
pub mod packet;
pub mod quote;
pub mod reply;
pub mod seq;
#[cfg(feature = "std")]
pub mod table;
pub mod window;
