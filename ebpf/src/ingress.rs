//! Ingress of a pod's eth0: what comes to the pod.

use aya_ebpf::bindings::__sk_buff;
use sidetrack_splice::{
    abi::{
        MARK_TURNED,
        reason::Reason,
        record::{
            CONN_ADOPT, CONN_DIVERTED, CONN_HELD, Connection, FRAMING_HEAD, FRAMING_LOST, Leg, OPT_MULTIPATH,
            PHASE_OPAQUE, RESP_FIN, RESP_RESET, RespState, STATE_DEAD, STATE_OWNER,
        },
    },
    packet::{Edit, flag, ports},
    reply::Place,
    seq::{self, Numbers},
};

use crate::{
    adopt, atomic,
    count::count,
    hold,
    maps::{self, CONNECTIONS, INWARD, In, LEGS},
    mem, open, options, plain, quote, replies,
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
    let Some(w) = skb::read::<false, _>(skb, maps::incoming, |protocol| quote::translate(skb, protocol)) else {
        return PASS;
    };
    skb::inbound(&mut w.leg, &w.packet);
    let connection = CONNECTIONS.get_ptr_mut(&w.leg);
    if let Some(c) = connection {
        // SAFETY: a map value, one field.
        if unsafe { (*c).now.flags } & CONN_DIVERTED == 0 {
            return match original(skb, w, c) {
                FOLLOW => follow(skb, c, core::ptr::null()),
                OLDER => adopt::response(skb, c) as i32,
                next => next,
            };
        }
    }
    let Some(l) = LEGS.get_ptr_mut(&w.leg) else {
        if connection.is_some() {
            // The original leg has ended, and others serve the connection: nothing of it is the client's any more. Its reset was lost, or was
            // not the exact one.
            count(Reason::DeadKept);
            return turn::reset_backend(skb);
        }
        let answer = w.packet.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK;
        return if answer { open::dial_answered(skb) } else { PASS };
    };
    // SAFETY: a map value, one byte.
    let state = unsafe { (&raw const (*l).state).read_volatile() };
    // Its offsets are those of the state, or younger.
    let l = atomic::after(u64::from(state), l).cast_mut();
    match state {
        STATE_OWNER => {}
        STATE_DEAD => {
            count(Reason::DeadKept);
            return SHOT;
        }
        _ => return parked(skb, l),
    }
    // SAFETY: a map value as key of another.
    let Some(c) = CONNECTIONS.get_ptr_mut(unsafe { &(*l).conn }) else {
        count(Reason::DeadKept);
        return SHOT;
    };
    // One after the other, not one inside the other: stacks add up, 512 bytes and eight frames are their limit.
    let mut next = owner(c, l);
    if next == FOLLOW {
        next = follow(skb, c, l);
    }
    if next == OVER {
        next = over(skb, c);
    }
    if next != PASS {
        return next;
    }
    // SAFETY: a map value, fields of it.
    if unsafe { (*l).moved == 0 && (*l).cs_off == 0 && (*l).ss_off == 0 } {
        return PASS;
    }
    if options::fit_options(skb, &raw const w.packet, l, 1) == 0 {
        count(Reason::ErrStore);
        return SHOT;
    }
    deliver(skb, l)
}

/// Not a verdict but what comes next: the framing of the responses has to be followed through the segment.
const FOLLOW: i32 = -101;
/// Another: the owner has reset the connection.
const OVER: i32 = -102;
/// Another: the connection is older than its record.
const OLDER: i32 = -103;

/// A packet of the baseline, on a connection that no other leg has served yet: it is followed, and passes as it is.
#[inline(always)]
fn original(skb: *mut __sk_buff, w: &mut In, c: *mut Connection) -> i32 {
    let p = &w.packet;
    if p.flags & flag::SYN != 0 {
        return syn_ack(skb, c);
    }
    // SAFETY: a map value. Single fields are read as they are; what depends on more than one is checked at commit.
    let (known, odd, resp) = unsafe { ((*c).server.mss != 0, (*c).now.flags & (CONN_HELD | CONN_ADOPT), &(*c).resp) };
    if !known {
        // A connection whose SYN-ACK was not seen: nothing is ever steered on it.
        // SAFETY: a map value, one field that never changes.
        if p.flags & flag::RST != 0 && p.ack == unsafe { (*c).isn }.wrapping_add(1) {
            // Refused (RFC 9293 3.10.7.3).
            count(Reason::ClosedPlain);
            w.key.conn = w.leg;
            open::forget(c, &mut w.key);
        }
        return PASS;
    }
    if p.len != 0 {
        // SAFETY: a map value, the generation of what is read and written below.
        unsafe { atomic::own(&raw mut (*c).answering) };
    }
    let start = seq::extend(resp.next, p.seq);
    let end = start + u64::from(p.len);
    w.start = start;
    w.end = end;
    w.ack = p.ack;
    if p.flags & (flag::FIN | flag::RST) == 0 && (odd == 0 || odd == CONN_HELD && start == end) {
        let place = resp.place(start, end);
        if place == Place::Pass {
            replies::passed(w, c);
            return PASS;
        }
        if place == Place::Read && plain::plain_response(skb, c) != 0 {
            return PASS;
        }
    }
    if odd & CONN_ADOPT != 0 {
        return OLDER;
    }
    if odd != 0 && p.span() != 0 {
        count(Reason::HeldKept);
        return SHOT;
    }
    w.key.conn = w.leg;
    if p.flags & flag::RST != 0 {
        return reset_by_baseline(c);
    }
    w.again = 0;
    FOLLOW
}

/// The baseline resets a connection that no other leg has served. While a head is held for another, or changes the owner, that
/// stays away from the client; what the baseline gets next, at the switch at the latest, it answers by the next reset.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reset_by_baseline(c: *mut Connection) -> i32 {
    let Some(w) = maps::incoming() else { return SHOT };
    if c.is_null() {
        return SHOT;
    }
    if !believed(w, c) {
        return PASS;
    }
    if !note_reset(w, c, core::ptr::null()) {
        return SHOT;
    }
    count(Reason::ClosedPlain);
    open::forget(c, &mut w.key);
    PASS
}

/// A packet of a leg that is not the owner.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn parked(skb: *mut __sk_buff, l: *mut Leg) -> i32 {
    let Some(w) = maps::incoming() else { return SHOT };
    // SAFETY: a map value; egress changes its fields one by one, see `egress::switch`.
    let Some(l) = (unsafe { l.as_mut() }) else { return SHOT };
    let p = &w.packet;
    if p.flags & (flag::FIN | flag::RST) != 0 {
        if l.closed == 0 {
            count(Reason::ParkedClosed);
            l.closed = 1;
        }
        return SHOT;
    }
    // A keep-alive probe (RFC 9293 3.8.4): it repeats the last number, without a byte.
    let probe = p.seq == l.snd_nxt.wrapping_sub(1);
    if p.span() == 0 && !probe {
        count(Reason::ParkedKept);
        return SHOT;
    }
    // Only what the client has acknowledged already may be acknowledged for it; and only what takes sequence numbers, or probes,
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

/// A packet of the owner, on a connection that was diverted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn owner(c: *mut Connection, l: *mut Leg) -> i32 {
    let Some(w) = maps::incoming() else { return SHOT };
    if c.is_null() || l.is_null() {
        return SHOT;
    }
    let p = &w.packet;
    let leg = l;
    // SAFETY: map values, fields of them; egress changes those of a leg one by one, see `egress::switch`.
    let (l, isn, held, resp) = unsafe { (&*leg, (*c).isn, (*c).now.flags & CONN_HELD, &(*c).resp) };
    if isn != l.isn || p.flags & flag::SYN != 0 {
        count(Reason::DeadKept);
        return SHOT;
    }
    if held != 0 && p.span() != 0 {
        count(Reason::HeldKept);
        return SHOT;
    }
    let numbers = seq::to_client(l, Numbers { seq: p.seq, ack: p.ack });
    // SAFETY: a map value, which does not change.
    unsafe { mem::copy(&raw mut w.key.conn, &raw const l.conn) };
    w.start = seq::extend(resp.next, numbers.seq);
    w.end = w.start + u64::from(p.len);
    w.ack = numbers.ack;
    w.again = 1;
    // SAFETY: a map value, one number.
    unsafe { (&raw mut (*c).resp.heard).write_volatile(skb::now()) };
    if p.flags & flag::RST != 0 {
        return reset_by_owner(w, c, leg);
    }
    if p.flags & flag::FIN != 0 || resp.place(w.start, w.end) != Place::Pass {
        return FOLLOW;
    }
    replies::passed(w, c);
    PASS
}

/// Follows the framing of the responses through the segment in hand, whose positions are in `In`. Either it passes, or it is
/// dropped, and its sender sends it again. `l` is the leg that it came by, null for the original one of a connection that was
/// not diverted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow(skb: *mut __sk_buff, c: *mut Connection, l: *const Leg) -> i32 {
    let Some(w) = maps::incoming() else { return SHOT };
    if c.is_null() {
        return SHOT;
    }
    let again = w.again != 0;
    // SAFETY: a map value; what was copied is checked at commit.
    unsafe {
        w.generation = atomic::copy(&raw const (*c).answering, &raw const (*c).resp, &raw mut w.state);
    }
    w.key.direction = INWARD;
    w.read = 0;
    match w.state.place(w.start, w.end) {
        Place::Pass => {}
        Place::Read => {
            w.read = 1;
            let before = w.state.response.pos;
            replies::replies(skb, c);
            if w.state.response.state == FRAMING_HEAD && w.state.response.pos != before {
                count(Reason::ResponseComplete);
            }
        }
        // The bytes between are on their way, on another CPU or once more. A leg can be made to send these again; what
        // was never diverted is not touched.
        Place::Lost if again => {
            count(Reason::ResponseGap);
            return SHOT;
        }
        Place::Lost => {
            w.read = 1;
            replies::lose(w);
        }
    }
    if w.packet.flags & flag::FIN != 0 {
        w.state.flags |= RESP_FIN;
    }
    if !commit(c, l, w, again) {
        return SHOT;
    }
    replies::passed(w, c);
    PASS
}

/// Bytes of [`RespState`] that are written at once.
const AT_ONCE: usize = core::mem::offset_of!(RespState, next);
const _: () = assert!(AT_ONCE == size_of::<[u64; 5]>());

/// Writes the state of the copy. When another CPU was faster, nobody knows in what order the bytes came: a segment that had
/// to be read is refused on a leg that can be made to send it `again` (false), else the framing is lost. False too, where the
/// leg may not speak any more.
#[inline(always)]
fn commit(c: *mut Connection, l: *const Leg, w: &mut In, again: bool) -> bool {
    // SAFETY: a map value; its state is written between claim and publication.
    unsafe {
        let (to, generation) = (&raw mut (*c).resp, &raw mut (*c).answering);
        let first = atomic::claim(generation, w.generation);
        if !first && (w.read != 0 && again || !atomic::claim_any(generation)) {
            // Where it could not even be marked as lost, the segment must not get past unseen.
            count(Reason::ResponseGap);
            return false;
        }
        if !replies::speaks(c, l) {
            count(Reason::HeldKept);
            return false;
        }
        let lost = !first && w.read != 0 && (*to).response.pos != w.state.response.pos;
        if first {
            mem::copy(to.cast::<[u64; 5]>(), (&raw const w.state).cast());
        } else {
            if lost {
                (*to).response.state = FRAMING_LOST;
                (*to).partial = 0;
            }
            (*to).flags |= w.state.flags;
        }
        atomic::publish(generation);
        if lost {
            count(Reason::ResponseLost);
        }
    }
    true
}

/// Sends a packet of the owner on to the client, as the client must see it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn deliver(skb: *mut __sk_buff, l: *mut Leg) -> i32 {
    let Some(w) = maps::incoming() else { return SHOT };
    // SAFETY: a map value; egress changes its fields one by one, see `egress::switch`.
    let Some(l) = (unsafe { l.as_ref() }) else { return SHOT };
    let p = &w.packet;
    let mut numbers = seq::to_client(l, Numbers { seq: p.seq, ack: p.ack });
    if p.flags & flag::ACK == 0 {
        numbers.ack = p.ack;
    }
    let mut edit = Edit::numbers(p, numbers, seq::window(p.window, l.window_in));
    if l.moved != 0 {
        edit.src = l.conn.remote;
        edit.ports = ports(l.conn.remote_port, l.conn.local_port);
    }
    if !skb::rewrite(skb, p, &edit) {
        count(Reason::ErrStore);
        return SHOT;
    }
    PASS
}

/// The baseline's SYN-ACK: the response side begins.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syn_ack(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(w) = maps::incoming() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    let p = &w.packet;
    // SAFETY: a map value; its response side is ingress's, and begins here.
    let c = unsafe { &mut *c };
    // The number of a SYN that was under way when the record was made is not known.
    let older = c.now.flags & CONN_ADOPT != 0;
    if p.flags & flag::ACK == 0 || c.server.mss != 0 || !older && p.ack != c.isn.wrapping_add(1) {
        return PASS;
    }
    let len = p.options_len();
    let said = if len == 0 { 536 } else { options::edit_options(skb, p.tcp_at, len, 0, 0) };
    if said < 0 {
        count(Reason::ErrLoad);
        return PASS;
    }
    let mut server = open::said(said);
    server.options |= p.ecn();
    if older {
        // What it agrees to, its client has offered.
        c.client.options = server.options;
    } else {
        let first = seq::first(p.seq);
        c.resp.response.pos = first;
        c.resp.next = first;
        c.resp.acked = seq::first(c.isn);
    }
    // Zero stands for a SYN-ACK that was not seen.
    if server.mss == 0 {
        server.mss = 536;
    }
    c.server = server;
    if c.client.options & server.options & OPT_MULTIPATH != 0 {
        count(Reason::OpaqueMultipath);
        // The client has nothing to send before it has this.
        c.now.phase = PHASE_OPAQUE;
    }
    PASS
}

/// Copies the response side, and says whether the client must believe the reset in hand (RFC 5961 3.2: its exact next sequence
/// number; [`RespState::resets`]). Only such a one ends what is known: a forged one must not turn steering off.
#[inline(always)]
fn believed(w: &mut In, c: *const Connection) -> bool {
    // SAFETY: a map value; what was copied is checked at commit.
    unsafe {
        w.generation = atomic::copy(&raw const (*c).answering, &raw const (*c).resp, &raw mut w.state);
    }
    w.state.resets(w.start)
}

/// Notes the reset. False: it stays away from the client.
#[inline(always)]
fn note_reset(w: &mut In, c: *mut Connection, l: *const Leg) -> bool {
    w.read = 0;
    w.state.flags |= RESP_RESET;
    commit(c, l, w, false)
}

/// The owner resets a connection that was diverted.
#[inline(always)]
fn reset_by_owner(w: &mut In, c: *mut Connection, l: *mut Leg) -> i32 {
    if !believed(w, c) {
        return PASS;
    }
    let first = w.state.flags & RESP_RESET == 0;
    match (note_reset(w, c, l), first) {
        (true, true) => OVER,
        (true, false) => PASS,
        (false, _) => {
            // A head is held for another (or others were faster, all the time): the client does not see it, and no exchange can
            // follow on this leg.
            // SAFETY: a map value, one byte.
            unsafe { (*l).closed = 1 };
            SHOT
        }
    }
}

/// The agent ends the other legs at once: nobody else tells them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn over(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(w) = maps::incoming() else { return SHOT };
    if c.is_null() {
        return SHOT;
    }
    // SAFETY: a map value, one field that never changes.
    hold::gone(skb, &w.key.conn, unsafe { (*c).service });
    PASS
}
