//! Egress of a pod's eth0: what the pod sends.

use aya_ebpf::bindings::__sk_buff;
use sidetrack_splice::{
    abi::{
        DIAL_KEEPS, LEGS as SLOTS, MARK, MARK_DIAL, MARK_PARTED, MARK_REPLAY, MARKS,
        event::{EVENT_CUT, EVENT_DIAL, EVENT_MORE, EVENT_WAIT},
        reason::Reason,
        record::{
            CONN_ADOPT, CONN_DIVERTED, CONN_EXPECT, CONN_FIN, CONN_HELD, CONN_PENDING, Connection, OPT_TIMESTAMP,
            PHASE_HOLD, PHASE_SWITCH, STATE_DEAD, STATE_OWNER, STATE_PARKED,
        },
    },
    conn::{HELD_MAX, Held, Place, Want},
    packet::flag,
    seq,
};

use crate::{
    adopt, atomic,
    count::count,
    decide,
    ends::{ended, give_up, reset_by_client},
    forward::{self, GONE},
    hold, legs,
    long::is_long,
    maps::{self, CONNECTIONS, DIALS, HEADS, OUTWARD, Out},
    open, options, part, plain,
    requests::requests,
    skb::{self, PASS, STOLEN},
    step::{ADOPT, FORWARD, GIVE_UP, PASS_ON, READ, SWITCH, commit, look, mark, pend},
};

/// Decides about one packet that the pod sends.
#[inline(always)]
pub fn egress(skb: *mut __sk_buff) -> i32 {
    let mark = skb::mark(skb);
    let ours = mark & !MARKS == MARK;
    if ours {
        if mark & !DIAL_KEEPS == MARK_DIAL {
            skb::set_mark(skb, 0);
            return open::dial(skb, mark & DIAL_KEEPS);
        }
        if mark == MARK_PARTED {
            let verdict = part::leave(skb);
            return if verdict == STOLEN { skb::steal() } else { verdict };
        }
        if mark != MARK_REPLAY {
            skb::set_mark(skb, 0);
            return PASS;
        }
    }
    let verdict = watch(skb, mark);
    if ours && verdict == PASS {
        skb::set_mark(skb, 0);
    }
    if verdict == STOLEN { skb::steal() } else { verdict }
}

#[inline(always)]
fn watch(skb: *mut __sk_buff, mark: u32) -> i32 {
    // A held frame that the agent sends again belongs to a connection that was steered. Where that has been forgotten
    // meanwhile, it is nobody's: the baseline would take it for the client's.
    let unknown = if mark == MARK_REPLAY { STOLEN } else { PASS };
    let Some(out) = skb::read::<true, _>(skb, maps::out, |_| {}) else { return unknown };
    let flags = out.packet.flags;
    if flags & flag::SYN != 0 {
        return if flags & flag::ACK == 0 { open::syn(skb) } else { PASS };
    }
    skb::outbound(&mut out.key.conn, &out.packet);
    out.key.direction = OUTWARD;
    let Some(c) = CONNECTIONS.get_ptr_mut(&out.key.conn) else {
        if mark == MARK_REPLAY {
            count(Reason::HoldDropped);
        }
        return unknown;
    };
    // SAFETY: a map value. Single fields are read as they are; what depends on more than one is checked at commit.
    let now = unsafe { &mut (*c).now };
    let start = seq::extend(now.next, out.packet.seq);
    let end = start + u64::from(out.packet.len);
    let fin = flags & flag::FIN;
    let place = now.place(start, end + u64::from(fin));
    if matches!(place, Place::Owner)
        && now.flags & (CONN_DIVERTED | CONN_EXPECT | CONN_PENDING | CONN_ADOPT) == 0
        && flags & (flag::FIN | flag::RST) == 0
    {
        // The path of everything that is not keyed, but for the heads. A bare acknowledgement passes nothing: its number
        // may lie behind segments that are held.
        if end > start && end > now.next {
            now.next = end;
        }
        return PASS;
    }
    out.start = start;
    out.end = end;
    if matches!(place, Place::Read)
        && now.flags & CONN_DIVERTED == 0
        && flags & (flag::FIN | flag::RST) == 0
        && plain::plain_request(skb, c) != 0
    {
        return PASS;
    }
    // A reset comes once.
    if !look(c, out) && flags & flag::RST == 0 {
        return STOLEN;
    }
    // Another CPU may have changed it since: what follows belongs to the copy.
    let place = out.state.place(start, end + u64::from(fin));
    // SAFETY: as above.
    out.service = unsafe { (*c).service };
    out.slot = u32::from(out.state.owner);
    let mut next = match place {
        _ if flags & flag::RST != 0 => reset_by_client(skb, c),
        Place::Owner => to_owner(skb, c, mark),
        Place::Previous => {
            count(Reason::LateToPrevious);
            out.slot = u32::from(out.state.previous);
            FORWARD
        }
        Place::Read | Place::Retry => read(skb, c, mark),
        Place::Behind => behind(skb, c),
        Place::Across => across(skb),
        Place::Drop(Reason::Gap) if out.state.joins(mark == MARK_REPLAY) => behind(skb, c),
        Place::Drop(Reason::Gap) => adopt::gap(c),
        Place::Drop(reason) => {
            count(reason);
            STOLEN
        }
        Place::Reset(reason) => reset(out, reason),
    };
    // One after the other, not one inside the other: stacks add up, and 512 bytes are their limit.
    if next == ADOPT {
        next = adopt::request(c);
    }
    if next == READ {
        next = read(skb, c, mark);
    }
    if next == SWITCH {
        next = switch(skb, c);
        if next == PASS_ON {
            part::part(skb, c);
        }
    }
    if next == PASS_ON {
        next = pass_on(skb, c, u32::from(fin));
    }
    if next == FORWARD {
        next = forward::forward(skb, out, c);
        if next == GONE {
            // What is from before a switch has been acknowledged by who has gone.
            let nothing = (out.end == out.start && fin == 0) || matches!(place, Place::Previous);
            next = if nothing { STOLEN } else { reset(out, Reason::ResetLegGone) };
        }
    }
    if next == GIVE_UP { give_up(skb, c) } else { next }
}

/// The client is reset next.
#[inline(always)]
fn reset(out: &mut Out, reason: Reason) -> i32 {
    out.reason = reason as u32;
    GIVE_UP
}

// The functions below are global: the verifier checks each by itself, once, and not every way through all of them (a million
// instructions are its limit). It knows of a pointer that they get only that it may be null.

/// To the owner, nothing to read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn to_owner(skb: *mut __sk_buff, c: *mut Connection, mark: u32) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    if out.state.flags & CONN_ADOPT != 0 {
        return if out.packet.len == 0 { PASS_ON } else { ADOPT };
    }
    if out.state.flags & CONN_PENDING != 0 {
        if out.state.caught_up(out.start, out.end, mark == MARK_REPLAY) {
            out.state.flags &= !CONN_PENDING;
            commit(c, out);
        } else {
            note_acked(skb, c);
            let at = out.state.acknowledges_at(out.start);
            if out.end == out.start && at != out.start {
                if forward::renumber(skb, at as u32) == 0 {
                    count(Reason::ErrStore);
                    return STOLEN;
                }
                (out.start, out.end) = (at, at);
            }
        }
    }
    // SAFETY: a map value; two numbers of it are compared, and a wrong answer is a reset.
    let resp = unsafe { &(*c).resp };
    if out.state.flags & CONN_EXPECT != 0 && out.end > out.start {
        if out.state.expect_failed(resp) {
            return reset(out, Reason::ResetExpect);
        }
        out.state.flags &= !CONN_EXPECT;
        let end = out.end;
        out.state.passed(end);
        if !commit(c, out) {
            return STOLEN;
        }
    }
    let again = out.state.sent_again(out.start, out.end, mark == MARK_REPLAY);
    // SAFETY: a map value, one number that need not be exact.
    if again && out.state.leg_dead(resp, out.end, skb::now(), unsafe { &mut (*c).again }) {
        return reset(out, Reason::ResetLegDead);
    }
    PASS_ON
}

/// Sends the segment to the owner, and takes leave of a connection that ends.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pass_on(skb: *mut __sk_buff, c: *mut Connection, fin: u32) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    // SAFETY: a map value, one number that need not be exact.
    unsafe {
        if out.end > out.start && out.end > (*c).now.next {
            (*c).now.next = out.end;
        }
    }
    if out.state.flags & CONN_DIVERTED == 0 {
        if fin != 0 {
            count(Reason::ClosedPlain);
            open::forget(c, &mut out.key);
        }
        return PASS;
    }
    if fin != 0 && out.state.flags & CONN_FIN == 0 {
        let end = out.end;
        out.state.passed(end);
        out.state.flags |= CONN_FIN;
        if !commit(c, out) {
            return STOLEN;
        }
        count(Reason::ClosedLegs);
        ended(skb, out);
    }
    out.slot = u32::from(out.state.owner);
    FORWARD
}

/// Reads the segment, and does what follows.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read(skb: *mut __sk_buff, c: *mut Connection, mark: u32) -> i32 {
    if c.is_null() {
        return PASS;
    }
    let step = requests(skb, c);
    let Some(out) = maps::out() else { return PASS };
    out.now = skb::now();
    match step {
        decide::STEP_STAY => {
            if out.state.phase == PHASE_HOLD {
                out.state.release();
            } else if out.state.caught_up(out.start, out.end, mark == MARK_REPLAY) {
                out.state.flags &= !CONN_PENDING;
            }
            let (end, now) = (out.end, out.now);
            out.state.passed(end);
            out.state.active = now;
            // What was gathered goes only when the head that it belongs to is committed, or has left the window.
            // SAFETY: a map value, one field.
            let before = unsafe { (*c).now.partial };
            let gathered = before != 0 && !is_long(before) && (out.state.partial == 0 || is_long(out.state.partial));
            if !commit(c, out) {
                return STOLEN;
            }
            if gathered {
                let _ = HEADS.remove(&out.key);
            }
            if out.state.flags & CONN_PENDING != 0 {
                note_acked(skb, c);
            }
            PASS_ON
        }
        decide::STEP_CUT
            if decide::no_agent() && !(out.want == decide::WANT_BASELINE && out.state.cut_may_wait(out.now)) =>
        {
            reset(out, Reason::ResetAgentDead)
        }
        decide::STEP_CUT => {
            count(Reason::HoldCut);
            if out.state.flags & CONN_PENDING != 0 || pend(c, out) {
                hold::hand_over(skb, EVENT_CUT);
            }
            STOLEN
        }
        decide::STEP_WAIT => hold_head(skb, c, mark, SLOTS as u32, EVENT_WAIT),
        decide::STEP_DIAL => {
            let slot = out.slot;
            hold_head(skb, c, mark, slot, EVENT_DIAL)
        }
        decide::STEP_SWITCH | decide::STEP_ADOPT => SWITCH,
        _ => GIVE_UP,
    }
}

/// Holds the head in hand. Room for its frame is reserved first, then the connection is marked.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hold_head(skb: *mut __sk_buff, c: *mut Connection, mark: u32, slot: u32, kind: u32) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    let (now, before) = (out.now, out.state.hold);
    let head = Held { start: out.start, slot, wants: Want::number(out.route, out.version), acked: out.packet.ack };
    let due = out.state.hold(head, now);
    // The agent keeps what it sends again, so only a client's retransmission asks once more.
    let ask = due && (out.state.hold != before || mark != MARK_REPLAY);
    if !ask {
        // What the agent tries again it has yet.
        if mark != MARK_REPLAY {
            count(Reason::HoldDropped);
        }
        return STOLEN;
    }
    out.slot = slot;
    if hold::hand_over(skb, kind) == 0 {
        return STOLEN;
    }
    count(if kind == EVENT_DIAL { Reason::HoldDial } else { Reason::HoldWait });
    commit(c, out);
    STOLEN
}

/// Hands over a segment behind a held head, or behind frames that were held.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn behind(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    let bytes = out.state.held_bytes + out.packet.len;
    if bytes > HELD_MAX || hold::hand_over(skb, EVENT_MORE) == 0 {
        count(Reason::HoldDropped);
        return STOLEN;
    }
    count(Reason::HoldMore);
    note_acked(skb, c);
    // SAFETY: a map value; a bound that need not be exact.
    unsafe { (*c).now.held_bytes = bytes };
    STOLEN
}

/// Has a segment cut that begins before the held head and reaches into it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn across(skb: *mut __sk_buff) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if decide::no_agent() && !out.state.across_may_wait(skb::now()) {
        return reset(out, Reason::ResetAgentDead);
    }
    out.cut = (out.state.held - out.start) as u32;
    count(Reason::HoldCut);
    hold::hand_over(skb, EVENT_CUT);
    STOLEN
}

/// Notes what the client acknowledges, and echoes, while the agent has frames of its: the agent says the first in each frame when it
/// sends that again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_acked(skb: *mut __sk_buff, c: *mut Connection) -> u32 {
    let Some(out) = maps::out() else { return 0 };
    if c.is_null() {
        return 0;
    }
    // SAFETY: map values, one number each. Where a step on another CPU writes an older one over it, that step's segment is the
    // client's own, and as young.
    unsafe {
        (*c).now.acked = seq::later(out.packet.ack, (*c).now.acked);
        let slot = (*c).now.owner as usize & (SLOTS - 1);
        let owner = (*c).legs[slot];
        let leg = legs::find(&out.key.conn, slot as u32, &owner);
        if let (Some(leg), Some(s)) = (leg, options::stamps(skb, &out.packet)) {
            (*leg).ts_echo = seq::echoed(s.ecr, (*leg).ts_echo);
        }
    }
    1
}

/// Makes the leg in `out.slot` the owner, from this segment on.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn switch(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    let slot = out.slot as usize & (SLOTS - 1);
    let old = out.state.owner as usize & (SLOTS - 1);
    let cold = out.step == decide::STEP_ADOPT;
    let held = out.state.flags & CONN_HELD;
    if !mark(c, out, PHASE_SWITCH, CONN_HELD) {
        return STOLEN;
    }
    // From here to the next commit this CPU alone changes the connection and its legs. The old owner is shut out, and what it
    // has said meanwhile is known: ingress marks first and looks at the flag then, this CPU the other way round.
    // SAFETY: a map value.
    if !unsafe { atomic::unchanged(&raw mut (*c).answering, out.answering) } {
        count(Reason::Busy);
        let phase = out.state.phase;
        mark(c, out, phase, held);
        return STOLEN;
    }
    let stamps = options::stamps(skb, &out.packet);
    let seen = stamps.map_or(0, |s| s.ecr);
    if out.state.flags & CONN_DIVERTED == 0 && !open::original(c, &out.key.conn, out.now, seen) {
        return reset(out, Reason::ResetLegsFull);
    }
    if cold {
        // SAFETY: the agent replaces values whole.
        let Some(d) = (unsafe { DIALS.get(&out.key.conn) }) else {
            return reset(out, Reason::ResetLegGone);
        };
        // SAFETY: a map value, which is this CPU's to change.
        unsafe { (*c).legs[slot] = d.leg };
    }
    let (head, acked) = (out.packet.seq, out.packet.ack);
    // SAFETY: a map value, which is this CPU's to change.
    let (old_ref, new_ref) = unsafe {
        (*c).legs[slot].used = out.state.asked as u16;
        ((*c).legs[old], (*c).legs[slot])
    };
    let Some(new) = legs::find(&out.key.conn, slot as u32, &new_ref) else {
        return reset(out, Reason::ResetLegGone);
    };
    let previous = legs::find(&out.key.conn, old as u32, &old_ref);
    // A frame that was held echoes what its client knew then.
    // SAFETY: a map value, one number.
    let echo = stamps.map(|s| seq::echoed(s.ecr, previous.map_or(0, |leg| unsafe { (*leg).ts_echo })));
    // SAFETY: map values; ingress reads each field by itself, and the new leg's backend has nothing to say before it
    // gets this segment.
    unsafe {
        (((*new).cs_off), ((*new).ss_off)) = seq::resume(&*new, head, acked);
        match echo {
            Some(ecr) => {
                (*new).ts_in = seq::resume_stamps(&*new, ecr, out.now.wrapping_sub((*c).opened));
                (*new).ts_echo = ecr;
            }
            // A client without them, or one whose clock is not known here.
            None => (*new).options &= !OPT_TIMESTAMP,
        }
        (*new).active = out.now;
        legs::enter(new, STATE_OWNER);
        if slot != old {
            if let Some(leg) = previous {
                ((*leg).rcv_nxt, (*leg).snd_nxt) = seq::park(&*leg, head, acked);
                if let Some(ecr) = echo {
                    (*leg).ts_nxt = seq::park_stamps(&*leg, ecr);
                }
                (*leg).active = out.now;
                // An owner that has got a part of this head can never be used again.
                legs::enter(leg, if out.state.partial != 0 { STATE_DEAD } else { STATE_PARKED });
            }
        }
    }
    if out.state.partial != 0 {
        let _ = HEADS.remove(&out.key);
        out.state.partial = 0;
        hold::gone(skb, &out.key.conn, out.service);
    }
    count(if cold { Reason::SpliceCold } else { Reason::SpliceHot });
    let (start, end, now) = (out.start, out.end, out.now);
    out.state.switch(slot as u32, start, now);
    out.state.passed(end);
    if commit(c, out) {
        return PASS_ON;
    }
    // The client's reset alone comes between. It went to the old owner, which may have to ask for its number.
    if let Some(leg) = legs::find(&out.key.conn, slot as u32, &new_ref) {
        // SAFETY: map values.
        unsafe { legs::enter(leg, STATE_PARKED) };
    }
    if let Some(leg) = legs::find(&out.key.conn, old as u32, &old_ref) {
        // SAFETY: as above.
        unsafe { legs::enter(leg, STATE_OWNER) };
    }
    STOLEN
}
