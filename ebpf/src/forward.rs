//! Sending the client's segment to a leg.

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        LEGS as SLOTS, MARK_TURNED,
        reason::Reason,
        record::{CONN_DIVERTED, Connection, Leg, STATE_DEAD},
    },
    checksum::Diff,
    packet::{Edit, flag, ports},
    seq::{self, Numbers},
};

use crate::{
    count::count,
    legs,
    maps::{self, OUT, Out},
    options,
    skb::{self, PASS, STOLEN},
};

/// Not a verdict: the leg is gone.
pub const GONE: i32 = -100;

/// Sends the segment in hand to the leg in `Out::slot`. Options and headers one after the other: stacks add up.
#[inline(always)]
pub fn forward(skb: *mut __sk_buff, out: &mut Out, c: *mut Connection) -> i32 {
    if out.state.flags & CONN_DIVERTED == 0 {
        return PASS;
    }
    // SAFETY: a map value; the ref of a leg in use does not change.
    let slot = out.slot as usize & (SLOTS - 1);
    out.leg = legs::tuple(&out.key.conn, unsafe { &(*c).legs[slot] });
    let Some(leg) = legs::named(&out.leg, &out.key.conn, slot as u32) else { return GONE };
    // SAFETY: a map value, one byte.
    if unsafe { (*leg).state } == STATE_DEAD {
        return GONE;
    }
    if options::fit_options(skb, &raw const out.packet, leg, 0) == 0 {
        count(Reason::ErrStore);
        return STOLEN;
    }
    headers(skb, leg)
}

/// Gives the segment in hand another sequence number. Zero: the packet could not be written.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn renumber(skb: *mut __sk_buff, seq: u32) -> u32 {
    let Some(out) = maps::out() else { return 0 };
    let p = &mut out.packet;
    let mut diff = Diff::new();
    diff.word(p.seq.to_be(), seq.to_be());
    p.seq = seq;
    let done = skb::store(skb, p.tcp_at + 4, &seq.to_be(), 0) && skb::fix_checksum(skb, p.tcp_at + 16, diff.sum());
    u32::from(done)
}

/// Rewrites the segment's headers for a leg, and sends it there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn headers(skb: *mut __sk_buff, leg: *const Leg) -> i32 {
    // SAFETY: a per-CPU value that nothing else uses meanwhile; a map value, of which egress alone changes the offsets.
    let (Some(out), Some(leg)) = (OUT.get_ptr(0).map(|out| unsafe { &*out }), unsafe { leg.as_ref() }) else {
        return GONE;
    };
    let p = &out.packet;
    let mut numbers = seq::to_leg(leg, Numbers { seq: p.seq, ack: p.ack });
    if p.flags & flag::ACK == 0 {
        numbers.ack = p.ack;
    }
    let mut edit = Edit::numbers(p, numbers, seq::window(p.window, leg.window_out));
    edit.dst = out.leg.remote;
    edit.ports = ports(out.leg.local_port, out.leg.remote_port);
    if !skb::rewrite(skb, p, &edit) {
        count(Reason::ErrStore);
        return STOLEN;
    }
    if leg.moved == 0 {
        // The original leg: the same addresses, so the frame's next hop stands.
        return PASS;
    }
    // The redirected packet comes by this hook once more.
    skb::set_mark(skb, MARK_TURNED);
    // SAFETY: no parameters: the kernel looks the next hop up.
    let verdict = unsafe { h::bpf_redirect_neigh(skb::ifindex(skb), core::ptr::null_mut(), 0, 0) };
    if verdict != 7 {
        count(Reason::ErrRedirect);
        return STOLEN;
    }
    verdict as i32
}
