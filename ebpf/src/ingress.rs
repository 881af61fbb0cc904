//! Ingress of a pod's eth0: what comes to the pod.

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        MARK_TURNED,
        addr::Tuple,
        reason::Reason,
        record::{
            CONN_DIVERTED, FRAMING_HEAD, FRAMING_LOST, LEG_BASELINE, Leg, RESP_FIN, RESP_RESET, RespState, Response,
            STATE_DEAD, STATE_HELD, STATE_OWNER,
        },
    },
    packet::{Edit, flag, ports},
    reply::Place,
    seq::{self, Numbers},
};

use crate::{
    count::count,
    maps::{CONNECTIONS, IN, In, LEGS, RESPONSES},
    open, options, replies,
    skb::{self, PASS, SHOT},
    turn,
};

/// Decides about one packet that comes to the pod.
#[inline(always)]
pub fn ingress(skb: *mut __sk_buff) -> i32 {
    if skb::mark(skb) == MARK_TURNED {
        skb::set_mark(skb, 0);
        return PASS;
    }
    let Some(w) = scratch() else { return PASS };
    if !skb::parse(skb, &mut w.packet) {
        return PASS;
    }
    w.leg = w.packet.inbound();
    let Some(leg) = LEGS.get_ptr(&w.leg) else { return PASS };
    // SAFETY: a map value, one byte.
    match unsafe { (*leg).state } {
        STATE_OWNER | STATE_HELD => owner(skb),
        STATE_DEAD => {
            count(Reason::DeadKept);
            SHOT
        }
        _ => parked(skb),
    }
}

/// The scratch memory of the packet in hand.
#[inline(always)]
fn scratch() -> Option<&'static mut In> {
    // SAFETY: a per-CPU value that nothing else uses while ingress handles one packet.
    IN.get_ptr_mut(0).map(|p| unsafe { &mut *p })
}

/// The leg of the packet in hand.
#[inline(always)]
fn leg(w: &In) -> Option<&'static mut Leg> {
    // SAFETY: a map value; egress changes its fields one by one, see `egress::switch`.
    LEGS.get_ptr_mut(&w.leg).map(|l| unsafe { &mut *l })
}

/// A packet of a leg that is not the owner.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn parked(skb: *mut __sk_buff) -> i32 {
    let Some(w) = scratch() else { return SHOT };
    let Some(l) = leg(w) else { return SHOT };
    let p = &w.packet;
    if p.flags & (flag::FIN | flag::RST) != 0 {
        if l.closed == 0 {
            count(Reason::ParkedClosed);
            l.closed = 1;
        }
        return SHOT;
    }
    if p.span() == 0 {
        count(Reason::ParkedKept);
        return SHOT;
    }
    // Only what the client has acknowledged already may be acknowledged for it; and only what takes sequence numbers,
    // or two sides that each answer the other's acks would never end.
    let end = p.seq.wrapping_add(p.span());
    if l.snd_nxt.wrapping_sub(end) as i32 >= 0 {
        count(Reason::ParkedAcked);
        return turn::acknowledge(skb, l.rcv_nxt, l.snd_nxt);
    }
    // It speaks unasked (a 408, say): no exchange can follow on it.
    count(Reason::ParkedClosed);
    l.closed = 1;
    SHOT
}

/// A packet of the owner.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn owner(skb: *mut __sk_buff) -> i32 {
    let Some(w) = scratch() else { return PASS };
    let Some(l) = leg(w) else { return PASS };
    let p = &w.packet;
    if p.flags & flag::SYN != 0 {
        return if l.moved == 0 { syn_ack(skb) } else { SHOT };
    }
    let kept = l.state == STATE_HELD && p.span() != 0;
    if kept {
        count(Reason::HeldKept);
        return SHOT;
    }
    let Some(r) = RESPONSES.get_ptr_mut(&l.conn) else {
        // A refused SYN, or a connection whose SYN-ACK was not seen: nothing was ever steered on it.
        return if l.moved == 0 { PASS } else { SHOT };
    };
    // SAFETY: a map value.
    if unsafe { (*r).isn } != l.isn {
        count(Reason::DeadKept);
        return if l.moved == 0 { PASS } else { SHOT };
    }
    let numbers = seq::to_client(l, Numbers { seq: p.seq, ack: p.ack });
    let flags = p.flags;
    let len = u64::from(p.len);
    w.conn = l.conn;
    copy(r, w);
    w.start = seq::extend(w.state.next, numbers.seq);
    w.end = w.start + len;
    w.read = 0;
    if flags & flag::RST != 0 {
        return reset_by_owner(skb);
    }
    match w.state.place(w.start, w.end) {
        Place::Pass => {}
        Place::Read => {
            w.read = 1;
            let before = w.state.response.pos;
            replies::replies(skb);
            if w.state.response.state == FRAMING_HEAD && w.state.response.pos != before {
                count(Reason::ResponseComplete);
            }
        }
        // The bytes between are on their way, on another CPU or once more. A leg can be made to send these again; what
        // was never diverted is not touched.
        Place::Lost if diverted(l) => {
            count(Reason::ResponseGap);
            return SHOT;
        }
        Place::Lost => {
            count(Reason::ResponseLost);
            w.state.lose();
        }
    }
    if flags & flag::FIN != 0 {
        w.state.flags |= RESP_FIN;
    }
    let acked = if flags & flag::ACK != 0 { seq::extend(w.state.acked, numbers.ack) } else { 0 };
    let end = w.end;
    w.state.passed(end, acked);
    if l.moved != 0 {
        w.state.heard = skb::now();
    }
    if !commit(r, w, diverted(l)) {
        count(Reason::ResponseGap);
        return SHOT;
    }
    deliver(skb)
}

/// Copies the state under its lock.
#[inline(always)]
fn copy(r: *mut Response, w: &mut In) {
    // SAFETY: a map value, read under its lock.
    unsafe {
        h::bpf_spin_lock((&raw mut (*r).lock).cast());
        w.generation = (*r).generation;
        w.state = (*r).now;
        h::bpf_spin_unlock((&raw mut (*r).lock).cast());
    }
}

/// Whether the connection's bytes have gone to more than one leg.
#[inline(always)]
const fn diverted(l: &Leg) -> bool {
    l.moved != 0 || l.cs_off != 0 || l.ss_off != 0
}

/// Commits the state. When another CPU was faster, nobody knows in what order the bytes came: what only grows is
/// merged. A segment that had to be read is refused on a leg that can be made to send it again (false), else the framing
/// is lost.
#[inline(always)]
fn commit(r: *mut Response, w: &mut In, again: bool) -> bool {
    let state: &RespState = &w.state;
    let (mut lost, mut refused) = (false, false);
    // SAFETY: a map value, written under its lock.
    unsafe {
        h::bpf_spin_lock((&raw mut (*r).lock).cast());
        let now = &mut (*r).now;
        if (*r).generation == w.generation {
            *now = *state;
        } else if state.response.pos != now.response.pos && w.read != 0 && again {
            refused = true;
        } else {
            if state.next > now.next {
                now.next = state.next;
            }
            if state.acked > now.acked {
                now.acked = state.acked;
            }
            now.flags |= state.flags;
            now.heard = state.heard;
            if w.read != 0 && state.response.pos != now.response.pos {
                now.response.state = FRAMING_LOST;
                lost = true;
            }
        }
        if !refused {
            (*r).generation = (*r).generation.wrapping_add(1);
        }
        h::bpf_spin_unlock((&raw mut (*r).lock).cast());
    }
    if lost {
        count(Reason::ResponseLost);
    }
    !refused
}

/// Sends a packet of the owner on to the client, as the client must see it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn deliver(skb: *mut __sk_buff) -> i32 {
    let Some(w) = scratch() else { return PASS };
    let Some(l) = leg(w) else { return PASS };
    let p = &w.packet;
    if l.moved == 0 && l.cs_off == 0 && l.ss_off == 0 {
        return PASS;
    }
    let mut numbers = seq::to_client(l, Numbers { seq: p.seq, ack: p.ack });
    if p.flags & flag::ACK == 0 {
        numbers.ack = p.ack;
    }
    let mut edit = Edit::numbers(p, numbers, seq::window(p.window, l.window_in));
    if l.moved != 0 {
        edit.src = l.conn.remote;
        edit.ports = ports(l.conn.remote_port, l.conn.local_port);
    }
    if !options::fit(skb, p, false, l.cs_off.wrapping_neg()) || !skb::rewrite(skb, p, &edit) {
        count(Reason::ErrStore);
        return SHOT;
    }
    PASS
}

/// The baseline's SYN-ACK: the response side begins.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syn_ack(skb: *mut __sk_buff) -> i32 {
    let Some(w) = scratch() else { return PASS };
    let Some(l) = leg(w) else { return PASS };
    let p = &w.packet;
    if p.flags & flag::ACK == 0 || RESPONSES.get_ptr(&l.conn).is_some() {
        return PASS;
    }
    let len = p.options_len();
    let said = if len == 0 { 536 } else { options::edit_options(skb, p.tcp_at, len, 0, 0) };
    if said < 0 {
        count(Reason::ErrLoad);
        return PASS;
    }
    let mut r = Response {
        isn: l.isn,
        mss: said as u16,
        options: (said >> 24) as u8,
        wscale: (said >> 16) as u8,
        ..Response::default()
    };
    r.now.response.pos = seq::first(p.seq);
    r.now.next = seq::first(p.seq);
    r.now.acked = seq::first(l.isn);
    if RESPONSES.insert(&l.conn, &r, 0).is_err() {
        count(Reason::ErrMap);
    }
    PASS
}

/// The owner resets the connection. Only a reset that the client must believe (RFC 5961 3.2: its exact next sequence
/// number) ends what is known: a forged one must not turn steering off.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reset_by_owner(skb: *mut __sk_buff) -> i32 {
    let Some(w) = scratch() else { return PASS };
    let Some(l) = leg(w) else { return PASS };
    let Some(r) = RESPONSES.get_ptr_mut(&w.conn) else { return PASS };
    if w.start == w.state.next {
        if plain(&l.conn) && l.kind == LEG_BASELINE {
            count(Reason::ClosedPlain);
            open::forget(&w.conn);
            return PASS;
        }
        w.state.flags |= RESP_RESET;
        commit(r, w, false);
    }
    deliver(skb)
}

/// Whether the connection never had another leg.
#[inline(always)]
fn plain(conn: &Tuple) -> bool {
    // SAFETY: a map value, one field.
    CONNECTIONS.get_ptr(conn).is_some_and(|c| unsafe { (*c).now.flags & CONN_DIVERTED == 0 })
}
