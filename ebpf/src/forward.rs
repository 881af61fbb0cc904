//! Sending the client's segment to a leg.

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        LEGS as SLOTS, MARK_TURNED,
        reason::Reason,
        record::{CONN_DIVERTED, Connection, STATE_DEAD},
    },
    packet::{Edit, flag, ports},
    seq::{self, Numbers},
};

use crate::{
    count::count,
    legs,
    maps::OUT,
    options,
    skb::{self, PASS, STOLEN},
};

/// Not a verdict: the leg is gone.
pub const GONE: i32 = -100;

/// Sends the segment in hand to the leg in `slot`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forward(skb: *mut __sk_buff, c: *mut Connection, slot: u32) -> i32 {
    if c.is_null() {
        return GONE;
    }
    let Some(out) = OUT.get_ptr(0) else { return GONE };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let out = unsafe { &*out };
    if out.state.flags & CONN_DIVERTED == 0 {
        return PASS;
    }
    // SAFETY: a map value; the ref of a leg in use does not change.
    let r = unsafe { (*c).legs[slot as usize & (SLOTS - 1)] };
    let Some(leg) = legs::find(&out.key.conn, &r) else { return GONE };
    // SAFETY: a map value; egress alone changes offsets and state.
    let leg = unsafe { &*leg };
    if leg.state == STATE_DEAD {
        return GONE;
    }
    let p = &out.packet;
    let mut numbers = seq::to_leg(leg, Numbers { seq: p.seq, ack: p.ack });
    if p.flags & flag::ACK == 0 {
        numbers.ack = p.ack;
    }
    let mut edit = Edit::numbers(p, numbers, seq::window(p.window, leg.window_out));
    if leg.moved == 0 {
        // The original leg: the same addresses, so the frame's next hop stands.
        if !options::fit(skb, p, false, leg.ss_off.wrapping_neg()) || !skb::rewrite(skb, p, &edit) {
            count(Reason::ErrStore);
            return STOLEN;
        }
        return PASS;
    }
    edit.dst = r.remote;
    edit.ports = ports(r.local_port, r.remote_port);
    if !options::fit(skb, p, true, leg.ss_off.wrapping_neg()) || !skb::rewrite(skb, p, &edit) {
        count(Reason::ErrStore);
        return STOLEN;
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
