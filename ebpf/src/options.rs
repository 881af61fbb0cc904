//! TCP options of one packet: read and edited.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    checksum::Diff,
    packet::{OPTION_STEPS, OptionEdit, OptionWalk, Options, Packet, SynOptions},
};

use crate::{maps::OPTIONS, skb};

/// Replace timestamps by NOPs.
pub const STRIP_TIMESTAMP: u32 = 1;
/// Replace MPTCP and TCP Fast Open by NOPs.
pub const STRIP_MULTIPATH: u32 = 2;

/// Two NOPs and a timestamp, as Linux writes it in every segment but a SYN (`tcp_options_write`).
const TIMESTAMP_ALONE: u32 = u32::from_ne_bytes([1, 1, 8, 10]);
const NOPS: u32 = u32::from_ne_bytes([1, 1, 1, 1]);

unsafe extern "C" fn step(_i: u64, ctx: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` hands on the context that it was given: the walk of `edit_options`.
    let walk = unsafe { &mut *ctx.cast::<OptionWalk>() };
    let Some(buffer) = OPTIONS.get_ptr_mut(0) else { return 1 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    i64::from(!walk.step(unsafe { &mut *buffer }))
}

/// Loads `len` (4..=40, a multiple of 4) bytes of options.
#[inline(always)]
fn load(skb: *mut __sk_buff, at: u32, to: *mut Options, len: u32) -> bool {
    let mut n = u64::from(len);
    // SAFETY: arithmetic on one register, so that the verifier sees 1..=64 on the register that the helper gets.
    unsafe { core::arch::asm!("{n} += -1", "{n} &= 63", "{n} += 1", n = inout(reg) n) };
    // SAFETY: `to` has 64 bytes.
    unsafe { h::bpf_skb_load_bytes(skb.cast(), at, to.cast(), n as u32) == 0 }
}

/// Edits the options of a packet whose TCP header is at `tcp_at` and has `len` bytes of them. `sack` is added to every
/// edge of SACK blocks. Returns what a SYN's options say, packed: MSS in bits 0..16, window scale in 16..24, `OPT_`
/// flags in 24..32; or -1 when the packet could not be written.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn edit_options(skb: *mut __sk_buff, tcp_at: u32, len: u32, flags: u32, sack: u32) -> i64 {
    let Some(buffer) = OPTIONS.get_ptr_mut(0) else { return -1 };
    let at = tcp_at + 20;
    if !load(skb, at, buffer, len) {
        return -1;
    }
    let mut walk = OptionWalk {
        len,
        edit: OptionEdit {
            strip_timestamp: flags & STRIP_TIMESTAMP != 0,
            strip_multipath: flags & STRIP_MULTIPATH != 0,
            sack,
        },
        syn: SynOptions { mss: 536, ..SynOptions::default() },
        ..OptionWalk::default()
    };
    // SAFETY: the callback's context is the walk, which outlives the loop.
    unsafe { h::bpf_loop(OPTION_STEPS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    if flags != 0 || sack != 0 {
        let mut diff = Diff::new();
        let mut i = 0;
        while i < 10 {
            if i * 4 < len {
                let mut old = 0_u32;
                if !skb::load(skb, at + i * 4, &mut old) {
                    return -1;
                }
                // SAFETY: a per-CPU value; `i` stays below ten.
                let b = unsafe { &*buffer };
                let k = (i * 4) as usize;
                let new = u32::from_ne_bytes([b[k & 63], b[(k + 1) & 63], b[(k + 2) & 63], b[(k + 3) & 63]]);
                if new != old {
                    diff.word(old, new);
                    if !skb::store(skb, at + i * 4, &new, 0) {
                        return -1;
                    }
                }
            }
            i += 1;
        }
        if !skb::fix_options(skb, tcp_at, diff.sum()) {
            return -1;
        }
    }
    i64::from(walk.syn.mss) | i64::from(walk.syn.wscale) << 16 | i64::from(walk.syn.options) << 24
}

/// Makes the options of a segment fit for a leg: without timestamps when `strip`, SACK edges moved by `sack`.
#[inline(always)]
pub fn fit(skb: *mut __sk_buff, p: &Packet, strip: bool, sack: u32) -> bool {
    let len = p.options_len();
    if len == 0 || (!strip && sack == 0) {
        return true;
    }
    if len == 12 {
        let mut w = [0_u32; 3];
        if !skb::load(skb, p.tcp_at + 20, &mut w) {
            return false;
        }
        if w[0] == TIMESTAMP_ALONE {
            if !strip {
                return true;
            }
            let mut diff = Diff::new();
            diff.word(w[0], NOPS);
            diff.word(w[1], NOPS);
            diff.word(w[2], NOPS);
            return skb::store(skb, p.tcp_at + 20, &[NOPS; 3], 0) && skb::fix_options(skb, p.tcp_at, diff.sum());
        }
    }
    edit_options(skb, p.tcp_at, len, if strip { STRIP_TIMESTAMP } else { 0 }, sack) >= 0
}
