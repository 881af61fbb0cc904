//! Reading requests: walks through the heads and bodies in one segment of a client; each head is decided about.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{
            CONN_DIVERTED, CONN_UPGRADE, Connection, FRAMING_CHUNKED, FRAMING_HEAD, HEAD_MAX, PHASE_OPAQUE, RESP_TUNNEL,
        },
    },
    http::{self, FLAG_CONNECT, STATUS_COMPLETE, STATUS_INCOMPLETE, STATUS_MORE, STATUS_UNREADABLE},
};

use crate::{
    count::count,
    decide::{
        STEP_ADOPT, STEP_CUT, STEP_MORE, STEP_RESET, STEP_STAY, STEP_SWITCH, WANT_BASELINE, decide, find_route, go_on,
        no_room, read_out, reset, unreadable,
    },
    long,
    maps::{self, HEADS, Out},
    scan::{self, Source, WORK},
};

/// Heads and pieces of bodies that one segment may hold: the smallest request has 18 bytes, a segment 64 KiB.
const PIECES: u32 = 4096;

/// Puts the bytes of the head into the window: what was gathered, then this segment's, `most` of them. Returns how many, 0 on
/// failure.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fill_request(skb: *mut __sk_buff, most: u32) -> u32 {
    let Some(out) = maps::out() else { return 0 };
    let head = Source {
        gathered: &out.key,
        prefix: out.state.partial,
        pos: out.state.request.pos,
        start: out.start,
        end: out.end,
        payload_at: out.packet.payload_at,
    };
    scan::fill(skb, &head, most)
}

/// Keeps the first `len` bytes of the window as the gathered part of this head.
#[inline(always)]
fn gather(c: *mut Connection, out: &mut Out, len: u32) -> i64 {
    let Some(work) = WORK.get_ptr(0) else { return 1 };
    // SAFETY: the value's bytes are the window's, which is valid.
    if HEADS.insert(&out.key, unsafe { &(*work).window }, 0).is_err() {
        no_room(c, Reason::HeadsFull as u32);
        return 1;
    }
    count(Reason::HeadPartial);
    out.state.partial = len;
    out.step = STEP_STAY;
    1
}

/// What `requests` hands to its steps.
#[derive(Clone, Copy)]
struct Context {
    skb: *mut __sk_buff,
    c: *mut Connection,
}

/// One head, or one piece of a chunked body.
unsafe extern "C" fn piece(_i: u64, ctx: *mut c_void) -> i64 {
    let Some(out) = maps::out() else { return 1 };
    let seen = if out.step == STEP_MORE { u64::from(out.state.partial) } else { 0 };
    if out.state.request.pos + seen >= out.end {
        return read_out(out);
    }
    // SAFETY: `bpf_loop` hands on the context that it was given.
    let Context { skb, c } = unsafe { *ctx.cast::<Context>() };
    if out.state.request.state == FRAMING_CHUNKED {
        let (base, end, at) = (out.start, out.end, out.packet.payload_at);
        if scan::chunks(skb, at, base, end, &mut out.state.request) == scan::CHUNKS_BAD {
            return reset(out, Reason::ResetHeadUnreadable);
        }
        if out.state.request.state == FRAMING_CHUNKED {
            return read_out(out);
        }
        return 0;
    }
    if out.step != STEP_MORE {
        // Another head behind the one that changes the owner: it is decided about by itself, in a segment of its own.
        out.cut = (out.state.request.pos - out.start) as u32;
        out.step = STEP_CUT;
        return 1;
    }
    if out.state.request.state != FRAMING_HEAD {
        return reset(out, Reason::ResetHeadUnreadable);
    }
    if out.state.flags & CONN_UPGRADE != 0 {
        // SAFETY: a map value, one field.
        if unsafe { (*c).resp.flags } & RESP_TUNNEL != 0 {
            count(Reason::OpaqueTunnel);
            out.state.phase = PHASE_OPAQUE;
            out.step = STEP_STAY;
            return 1;
        }
        out.state.flags &= !CONN_UPGRADE;
    }
    if long::is_long(out.state.partial) {
        if long::long_fill(skb) == 0 {
            return reset(out, Reason::ResetHeadTooLong);
        }
        return match scan::scan_rest() {
            STATUS_INCOMPLETE => long::go_on(c, out),
            status => long::end(c, out, status),
        };
    }
    let there = out.end - out.state.request.pos;
    let (len, status) = scan::look(http::REQUEST, there, |most| fill_request(skb, most));
    if len == 0 {
        return reset(out, Reason::ErrLoad);
    }
    match status {
        STATUS_INCOMPLETE if len as usize >= HEAD_MAX => {
            out.state.partial = len;
            long::go_on(c, out)
        }
        STATUS_INCOMPLETE => gather(c, out, len),
        STATUS_COMPLETE | STATUS_UNREADABLE => {
            let Some(work) = WORK.get_ptr(0) else { return 1 };
            // SAFETY: a per-CPU value that nothing else uses meanwhile.
            let head = unsafe { &(*work).head };
            out.want = WANT_BASELINE;
            out.route = 0;
            out.version = 0;
            out.flags = 0;
            if head.found | head.invalid | head.duplicate != 0 {
                find_route(out.service);
            }
            if status != STATUS_COMPLETE {
                return unreadable(out, status);
            }
            if out.want == WANT_BASELINE && out.state.flags & CONN_DIVERTED == 0 && head.flags & FLAG_CONNECT == 0 {
                return go_on(out, head);
            }
            decide(c);
            // Not the function's result: LLVM knows that it is 0 or 1, but the verifier does not.
            i64::from(!matches!(out.step, STEP_MORE | STEP_SWITCH | STEP_ADOPT))
        }
        STATUS_MORE => reset(out, Reason::ErrScan),
        _ => unreadable(out, status),
    }
}

/// Reads the segment in hand from where the next head or chunk starts, and leaves in `Out` what follows.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn requests(skb: *mut __sk_buff, c: *mut Connection) -> u32 {
    let Some(out) = maps::out() else { return STEP_RESET };
    if c.is_null() {
        return STEP_RESET;
    }
    out.step = STEP_MORE;
    if long::is_long(out.state.partial) && long::long_resume() == 0 {
        no_room(c, Reason::ResetHeadTooLong as u32);
        return out.step;
    }
    let mut context = Context { skb, c };
    // SAFETY: the callback's context outlives the loop.
    unsafe { h::bpf_loop(PIECES, piece as *mut c_void, (&raw mut context).cast(), 0) };
    if out.step == STEP_MORE {
        reset(out, Reason::ResetPipeline);
    }
    out.step
}
