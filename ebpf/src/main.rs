//! The kernel programs of Sidetrack: egress and ingress of a pod's own interface, in the pod's network namespace.
//!
//! They are thin: a program loads what a decision needs, asks `sidetrack_splice`, and applies the verdict. A packet's
//! way is in `docs/architecture.md`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "keys lie in scratch memory already: by value they would be copied to a stack of 512 bytes"
)]
#![allow(clippy::collapsible_if, reason = "a SAFETY comment stands before the block that it is about")]

mod adopt;
mod atomic;
mod count;
mod decide;
mod egress;
mod ends;
mod forward;
mod hold;
mod ingress;
mod legs;
mod long;
mod maps;
mod mem;
mod open;
mod options;
mod part;
mod plain;
mod quote;
mod replies;
mod requests;
mod scan;
mod skb;
mod step;
mod turn;

use aya_ebpf::{macros::classifier, programs::TcContext};

/// What the pod sends.
#[classifier]
pub fn st_egress(ctx: TcContext) -> i32 {
    egress::egress(ctx.skb.skb)
}

/// What comes to the pod.
#[classifier]
pub fn st_ingress(ctx: TcContext) -> i32 {
    ingress::ingress(ctx.skb.skb)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The helpers that are used are for programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
