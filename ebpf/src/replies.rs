//! Reading responses: follows the framing of what the owner sends, so that its end is known.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{CONN_DIVERTED, CONN_HELD, Connection, FRAMING_CHUNKED, FRAMING_HEAD, HEAD_MAX, Leg, STATE_OWNER},
    },
    http::{self, BODY_CHUNKED, BODY_LENGTH, BODY_REST, STATUS_COMPLETE, STATUS_INCOMPLETE},
    packet::flag,
    reply::{self, Facts},
    seq,
};

use crate::{
    atomic,
    count::count,
    maps::{self, HEADS, In},
    scan::{self, Source, WORK},
};

/// Heads and pieces of bodies that one segment may hold.
const PIECES: u32 = 4096;

/// Nobody knows any more where the response in hand ends.
#[inline(always)]
pub fn lose(w: &mut In) -> i64 {
    count(Reason::ResponseLost);
    if w.state.partial != 0 {
        let _ = HEADS.remove(&w.key);
    }
    w.state.lose();
    1
}

/// Puts the bytes of the head into the window: what was gathered, then this segment's, `most` of them. Returns how many, 0 on
/// failure.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fill_response(skb: *mut __sk_buff, most: u32) -> u32 {
    let Some(w) = maps::incoming() else { return 0 };
    let head = Source {
        gathered: &w.key,
        prefix: w.state.partial,
        pos: w.state.response.pos,
        start: w.start,
        end: w.end,
        payload_at: w.packet.payload_at,
    };
    scan::fill(skb, &head, most)
}

/// Takes the complete head in the window in.
#[inline(always)]
fn consume(c: *const Connection, w: &mut In) -> i64 {
    let Some(work) = WORK.get_ptr(0) else { return 1 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let head = unsafe { &(*work).head };
    // SAFETY: a map value; a request is noted there before its owner can answer it.
    let (asked, bits) = unsafe { ((*c).now.asked, (*c).now.head_bits) };
    let Some(was_head) = reply::was_head(asked, w.state.answered, bits) else {
        if asked == w.state.answered {
            count(Reason::ResponseUnasked);
        }
        return lose(w);
    };
    let body = http::response_body(head, was_head);
    let facts = Facts {
        code: head.code,
        length: if body == BODY_LENGTH { head.length } else { 0 },
        chunked: body == BODY_CHUNKED,
        rest: body == BODY_REST,
    };
    if w.state.partial != 0 {
        let _ = HEADS.remove(&w.key);
    }
    if body == BODY_REST {
        count(Reason::ResponseRest);
    }
    let behind = w.state.response.pos + u64::from(head.end);
    w.state.consume(&facts, behind);
    // Only what has more to read takes another step.
    i64::from(w.state.response.state != FRAMING_CHUNKED && w.state.response.pos >= w.end)
}

/// What `replies` hands to its steps.
#[derive(Clone, Copy)]
struct Context {
    skb: *mut __sk_buff,
    c: *const Connection,
}

/// One head, or one piece of a chunked body.
unsafe extern "C" fn piece(_i: u64, ctx: *mut c_void) -> i64 {
    let Some(w) = maps::incoming() else { return 1 };
    if w.state.response.pos >= w.end && w.state.partial == 0 {
        return 1;
    }
    // SAFETY: `bpf_loop` hands on the context that it was given.
    let Context { skb, c } = unsafe { *ctx.cast::<Context>() };
    if w.state.response.state == FRAMING_CHUNKED {
        let (base, end, at) = (w.start, w.end, w.packet.payload_at);
        if scan::chunks(skb, at, base, end, &mut w.state.response) == scan::CHUNKS_BAD {
            return lose(w);
        }
        if w.state.response.state == FRAMING_CHUNKED {
            return 1;
        }
        count(Reason::ResponseComplete);
        return 0;
    }
    if w.state.response.state != FRAMING_HEAD {
        return 1;
    }
    let there = w.end - w.state.response.pos;
    let (len, status) = scan::look(http::RESPONSE, there, |most| fill_response(skb, most));
    if len == 0 {
        return lose(w);
    }
    match status {
        STATUS_COMPLETE => consume(c, w),
        STATUS_INCOMPLETE if (len as usize) < HEAD_MAX => {
            // SAFETY: the value's bytes are the window's, which is valid.
            let kept = WORK.get_ptr(0).is_some_and(|work| HEADS.insert(&w.key, unsafe { &(*work).window }, 0).is_ok());
            if !kept {
                return lose(w);
            }
            w.state.partial = len;
            1
        }
        _ => lose(w),
    }
}

/// Reads the segment in hand from where the next head or chunk starts; the result is in `In::state`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn replies(skb: *mut __sk_buff, c: *mut Connection) -> u32 {
    if c.is_null() {
        return 0;
    }
    let mut context = Context { skb, c };
    // SAFETY: the callback's context outlives the loop.
    unsafe { h::bpf_loop(PIECES, piece as *mut c_void, (&raw mut context).cast(), 0) };
    0
}

/// Notes what a segment passes to the client, and what it acknowledges.
#[inline(always)]
pub fn passed(w: &In, c: *mut Connection) {
    // SAFETY: numbers of a map value that only grow.
    unsafe {
        let end = (*c).resp.passed(w.start, w.end);
        atomic::raise(&raw mut (*c).resp.next, end);
        if w.packet.flags & flag::ACK != 0 {
            let acked = seq::extend((*c).resp.acked, w.ack);
            atomic::raise(&raw mut (*c).resp.acked, acked);
        }
    }
}

/// Whether the leg `l` (null: the original one, nothing was diverted) still speaks to the client, after the response side was
/// claimed; if not, the claim is given back. Egress goes the other way round: it sets [`CONN_HELD`] and looks at the response side
/// then (`egress::switch`), so one of the two sees the other.
#[inline(always)]
pub fn speaks(c: *mut Connection, l: *const Leg) -> bool {
    // SAFETY: map values, a field of each; the caller has claimed the response side.
    unsafe {
        let flags = (&raw const (*c).now.flags).read_volatile();
        let speaks = if l.is_null() {
            flags & (CONN_HELD | CONN_DIVERTED) == 0
        } else {
            flags & CONN_HELD == 0 && (&raw const (*l).state).read_volatile() == STATE_OWNER
        };
        if !speaks {
            atomic::publish(&raw mut (*c).answering);
        }
        speaks
    }
}
