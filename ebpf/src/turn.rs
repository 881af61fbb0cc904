//! Packets turned round: a reset for the client, an acknowledgement for a parked leg.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::generated as h,
};
use sidetrack_splice::{
    abi::{MARK_TURNED, reason::Reason},
    made,
    packet::{ETH, Packet, flag},
};

use crate::{
    count::count,
    maps::{IN, OUT},
    skb::{self, SHOT, STOLEN},
};

/// Makes the packet in hand a bare segment that answers `p`, headers and nothing else. `p` has its layout, not always its ends.
#[inline(always)]
pub fn bare(skb: *mut __sk_buff, p: &Packet, seq: u32, ack: u32, flags: u8) -> bool {
    // Only a partial checksum (the kernel completes it later, from what stands in the field) ignores a difference that
    // is not the pseudo header's: `inet_proto_csum_replace_by_diff` in net/core/utils.c.
    if p.jumbo() && !skb::unjumbo(skb) {
        count(Reason::ErrTurn);
        return false;
    }
    let tcp_at = if p.v6 == 0 { p.tcp_at } else { ETH + 40 };
    let check = tcp_at + 16;
    let (mut before, mut after) = (0_u16, 0_u16);
    // SAFETY: plain numbers.
    let probed = skb::load(skb, check, &mut before)
        && unsafe { h::bpf_l4_csum_replace(skb.cast(), check, 0, 1, 0) == 0 }
        && skb::load(skb, check, &mut after);
    let partial = before == after;
    // SAFETY: plain numbers; the helper keeps the checksum field's bytes.
    let made = probed
        && unsafe { h::bpf_skb_change_tail(skb.cast(), tcp_at + 20, 0) == 0 }
        && if p.v6 == 0 {
            skb::store(skb, ETH, &made::v4(p, seq, ack, flags, partial), 0)
        } else {
            skb::store(skb, ETH, &made::v6(p, seq, ack, flags, partial), 0)
        };
    if !made {
        count(Reason::ErrTurn);
    }
    made
}

/// Makes the packet in hand a bare segment in the other direction, and sends it to `ifindex` (`BPF_F_INGRESS` in `redirect`: up the
/// stack).
#[inline(always)]
fn turn(skb: *mut __sk_buff, p: &Packet, seq: u32, ack: u32, flags: u8, redirect: u64) -> i32 {
    let mut ends = [0_u8; 12];
    if !skb::load(skb, 0, &mut ends) {
        count(Reason::ErrTurn);
        return SHOT;
    }
    let mut macs = [0_u8; 12];
    let mut i = 0;
    while i < 6 {
        macs[i] = ends[i + 6];
        macs[i + 6] = ends[i];
        i += 1;
    }
    if !bare(skb, p, seq, ack, flags) {
        return SHOT;
    }
    if !skb::store(skb, 0, &macs, 0) {
        count(Reason::ErrTurn);
        return SHOT;
    }
    skb::set_mark(skb, MARK_TURNED);
    // SAFETY: plain numbers.
    unsafe { h::bpf_redirect(skb::ifindex(skb), redirect) as i32 }
}

/// Resets the client whose packet is in hand: the packet becomes the reset. Its sequence number is what the client
/// expects next (RFC 5961 3.2 wants it exact), which is what the packet acknowledges.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reset_client(skb: *mut __sk_buff) -> i32 {
    let Some(out) = OUT.get_ptr(0) else { return STOLEN };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let p = unsafe { &(*out).packet };
    if p.flags & flag::RST != 0 {
        return STOLEN;
    }
    let (seq, ack, flags) = if p.flags & flag::ACK != 0 {
        (p.ack, 0, flag::RST)
    } else {
        // RFC 9293 3.10.7.1: to a SYN, acknowledge it
        (0, p.seq.wrapping_add(p.span()), flag::RST | flag::ACK)
    };
    turn(skb, p, seq, ack, flags, u64::from(BPF_F_INGRESS))
}

/// Resets the backend whose packet is in hand: its leg has ended, and it has not heard of that.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reset_backend(skb: *mut __sk_buff) -> i32 {
    let Some(w) = IN.get_ptr(0) else { return SHOT };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let p = unsafe { &(*w).packet };
    if p.flags & (flag::RST | flag::ACK) != flag::ACK {
        return SHOT;
    }
    turn(skb, p, p.ack, 0, flag::RST, 0)
}

/// Acknowledges a segment of a parked leg that came again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn acknowledge(skb: *mut __sk_buff, rcv_nxt: u32, snd_nxt: u32) -> i32 {
    let Some(w) = IN.get_ptr(0) else { return SHOT };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let p = unsafe { &(*w).packet };
    turn(skb, p, rcv_nxt, snd_nxt, flag::ACK, 0)
}
