//! Taking leave of an owner: what it has said last is acknowledged for the client when another takes over. The client's own
//! acknowledgement rides on the head that goes to the other; without one, the old owner sends its last segment again after some
//! 200 ms, and takes that for a loss.

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        LEGS as SLOTS, MARK_PARTED, MARK_TURNED,
        reason::Reason,
        record::{Connection, STATE_PARKED},
    },
    packet::{flag, ports},
};

use crate::{
    count::count,
    legs,
    maps::{self, PARTING},
    mem,
    skb::{self, PASS, STOLEN},
    turn,
};

/// Acknowledges what the owner before the switch has said: a copy of the frame in hand, marked, comes by this hook while it is in
/// hand, and becomes that ([`leave`]). Where it is lost, the old owner's retransmission is answered (`ingress::parked`).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn part(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return 0 };
    if c.is_null() || out.state.previous == out.state.owner {
        return 0;
    }
    // SAFETY: a map value; the ref of a leg in use does not change.
    let slot = out.state.previous as usize & (SLOTS - 1);
    let r = unsafe { &(*c).legs[slot] };
    let (Some(leg), Some(to)) = (legs::find(&out.key.conn, slot as u32, r), PARTING.get_ptr_mut(0)) else { return 0 };
    // SAFETY: map values, of which egress alone changes what is read here; a per-CPU value that nothing else uses meanwhile.
    unsafe {
        // One that holds a part of a head is reset, by the number that it expects.
        if (*leg).state != STATE_PARKED {
            return 0;
        }
        let to = &mut *to;
        mem::copy(&raw mut to.answers, &raw const out.packet);
        mem::copy(&raw mut to.answers.src, &raw const r.remote);
        mem::copy(&raw mut to.answers.dst, &raw const out.key.conn.local);
        to.answers.ports = ports(r.remote_port, r.local_port);
        (to.seq, to.ack, to.moved) = ((*leg).rcv_nxt, (*leg).snd_nxt, u32::from((*leg).moved));
    }
    let mark = skb::mark(skb);
    skb::set_mark(skb, MARK_PARTED);
    // SAFETY: a per-CPU value, and plain numbers.
    let sent = unsafe {
        (&raw mut (*to).sent).write_volatile(1);
        let sent = h::bpf_clone_redirect(skb.cast(), skb::ifindex(skb), 0) == 0;
        (&raw mut (*to).sent).write_volatile(0);
        sent
    };
    skb::set_mark(skb, mark);
    if !sent {
        count(Reason::ErrRedirect);
    }
    0
}

/// Makes the copy that [`part`] has sent what it is for. It runs inside that: scratch memory of egress is in use.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave(skb: *mut __sk_buff) -> i32 {
    let Some(to) = PARTING.get_ptr(0) else { return STOLEN };
    // SAFETY: a per-CPU value, which `part` has written on this CPU and does not use meanwhile.
    let to = unsafe { &*to };
    // A successor's program may have taken this one's place between the two, and has memory of its own.
    if to.sent == 0 {
        return STOLEN;
    }
    if !turn::bare(skb, &to.answers, to.seq, to.ack, flag::ACK) {
        return STOLEN;
    }
    if to.moved == 0 {
        skb::set_mark(skb, 0);
        return PASS;
    }
    skb::set_mark(skb, MARK_TURNED);
    // SAFETY: no parameters: the kernel looks the next hop up.
    unsafe { h::bpf_redirect_neigh(skb::ifindex(skb), core::ptr::null_mut(), 0, 0) as i32 }
}
