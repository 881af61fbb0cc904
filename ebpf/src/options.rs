//! TCP options of one packet: read and edited.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::record::{Leg, OPT_TIMESTAMP},
    checksum::Diff,
    packet::{OPTION_STEPS, OptionEdit, OptionWalk, Options, Packet, SynOptions},
    seq::{self, Stamps},
};

use crate::{maps::OPTIONS, skb};

/// Replace timestamps by NOPs.
pub const STRIP_TIMESTAMP: u32 = 1;
/// Replace MPTCP and TCP Fast Open by NOPs.
pub const STRIP_MULTIPATH: u32 = 2;
/// Replace a SYN's offer of SACK by NOPs.
pub const STRIP_SACK: u32 = 4;

/// Two NOPs and a timestamp, as Linux writes it in every segment but a SYN (`tcp_options_write`).
const TIMESTAMP_ALONE: u32 = u32::from_ne_bytes([1, 1, 8, 10]);
const NOPS: u32 = u32::from_ne_bytes([1, 1, 1, 1]);

unsafe extern "C" fn step(_i: u64, _ctx: *mut c_void) -> i64 {
    let Some(buffer) = OPTIONS.get_ptr_mut(0) else { return 1 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let buffer = unsafe { &mut *buffer };
    i64::from(!buffer.walk.step(&mut buffer.bytes))
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
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    if !load(skb, at, unsafe { &raw mut (*buffer).bytes }, len) {
        return -1;
    }
    // In scratch memory, of which the verifier knows nothing: on the stack it would follow every value that it can have.
    // SAFETY: as above.
    let walk = unsafe { &mut (*buffer).walk };
    *walk = OptionWalk {
        len,
        edit: OptionEdit {
            strip_timestamp: flags & STRIP_TIMESTAMP != 0,
            strip_multipath: flags & STRIP_MULTIPATH != 0,
            strip_sack: flags & STRIP_SACK != 0,
            sack,
        },
        syn: SynOptions { mss: 536, ..SynOptions::default() },
        ..OptionWalk::default()
    };
    // SAFETY: the callback uses no context.
    unsafe { h::bpf_loop(OPTION_STEPS, step as *mut c_void, core::ptr::null_mut(), 0) };
    // SAFETY: as above.
    let syn = unsafe { (*buffer).walk.syn };
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
                let b = unsafe { &(*buffer).bytes };
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
        if !skb::fix_checksum(skb, tcp_at + 16, diff.sum()) {
            return -1;
        }
    }
    i64::from(syn.mss) | i64::from(syn.wscale) << 16 | i64::from(syn.options) << 24
}

/// Lets a SYN not ask for ECN. False: it could not be written.
#[inline(always)]
pub fn without_ecn(skb: *mut __sk_buff, p: &Packet) -> bool {
    let mut diff = Diff::new();
    diff.word(p.control, p.without_ecn());
    skb::store(skb, p.tcp_at + 12, &p.without_ecn(), 0) && skb::fix_checksum(skb, p.tcp_at + 16, diff.sum())
}

/// A segment's timestamps.
#[inline(always)]
pub fn stamps(skb: *mut __sk_buff, p: &Packet) -> Option<Stamps> {
    let len = p.options_len();
    if len < 12 {
        return None;
    }
    let mut w = skb::words::<3>(skb, p.tcp_at + 20)?;
    if w[0] != TIMESTAMP_ALONE {
        let at = walk(skb, p.tcp_at, len);
        if at == 0 {
            return None;
        }
        w = skb::words::<3>(skb, at - 4)?;
    }
    Some(Stamps { val: u32::from_be(w[1]), ecr: u32::from_be(w[2]) })
}

/// The offset in the frame of the timestamps themselves, or zero.
#[inline(always)]
fn walk(skb: *mut __sk_buff, tcp_at: u32, len: u32) -> u32 {
    if edit_options(skb, tcp_at, len, 0, 0) < 0 {
        return 0;
    }
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let stamp = OPTIONS.get_ptr(0).map_or(0, |buffer| unsafe { (*buffer).walk.stamp });
    if stamp == 0 { 0 } else { tcp_at + 20 + stamp - 1 + 2 }
}

/// Makes the options of a segment fit for the other side of a leg: its timestamps, or none, and its SACK edges. `inward`: from
/// the backend to the client. Zero: the packet could not be written.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fit_options(skb: *mut __sk_buff, p: *const Packet, leg: *const Leg, inward: u32) -> u32 {
    if p.is_null() || leg.is_null() {
        return 0;
    }
    // SAFETY: scratch memory, and a map value whose fields egress changes one by one.
    let (p, leg) = unsafe { (&*p, &*leg) };
    u32::from(fit(skb, p, leg, inward != 0).is_some())
}

#[inline(always)]
fn fit(skb: *mut __sk_buff, p: &Packet, leg: &Leg, inward: bool) -> Option<()> {
    let len = p.options_len();
    if len == 0 {
        return Some(());
    }
    let sack = if inward { leg.cs_off.wrapping_neg() } else { leg.ss_off.wrapping_neg() };
    let edit = |flags, sack| (edit_options(skb, p.tcp_at, len, flags, sack) >= 0).then_some(());
    if len >= 12 {
        let w = skb::words::<3>(skb, p.tcp_at + 20)?;
        if w[0] == TIMESTAMP_ALONE {
            restamp(skb, p, leg, inward, p.tcp_at + 24, w)?;
            return if len == 12 || sack == 0 { Some(()) } else { edit(0, sack) };
        }
    }
    if leg.options & OPT_TIMESTAMP == 0 {
        return edit(STRIP_TIMESTAMP, sack);
    }
    let at = walk(skb, p.tcp_at, len);
    // Odd ones are taken out: the checksum goes by two bytes.
    if at != 0 && (at - p.tcp_at) & 1 != 0 {
        return edit(STRIP_TIMESTAMP, sack);
    }
    if at != 0 {
        let w = skb::words::<3>(skb, at - 4)?;
        restamp(skb, p, leg, inward, at, w)?;
    }
    if sack == 0 { Some(()) } else { edit(0, sack) }
}

/// Rewrites the timestamps at `at`; `w` is the word before them, and they. Where the leg has none they stand alone, and become
/// NOPs.
#[inline(always)]
fn restamp(skb: *mut __sk_buff, p: &Packet, leg: &Leg, inward: bool, at: u32, w: [u32; 3]) -> Option<()> {
    let new = if leg.options & OPT_TIMESTAMP == 0 {
        [NOPS; 3]
    } else {
        let s = Stamps { val: u32::from_be(w[1]), ecr: u32::from_be(w[2]) };
        let s = if inward { seq::stamps_to_client(leg, s) } else { seq::stamps_to_leg(leg, s) };
        [w[0], s.val.to_be(), s.ecr.to_be()]
    };
    let mut diff = Diff::new();
    diff.word(w[0], new[0]);
    diff.word(w[1], new[1]);
    diff.word(w[2], new[2]);
    let diff = diff.sum();
    // The original leg's own clock is the client's view, mostly.
    (diff == 0 || (skb::store(skb, at - 4, &new, 0) && skb::fix_checksum(skb, p.tcp_at + 16, diff))).then_some(())
}
