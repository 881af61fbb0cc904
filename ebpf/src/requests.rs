//! Reading requests: walks through the heads and bodies in one segment of a client and decides what each head needs.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        LEGS as SLOTS,
        config::CARRIERS,
        reason::Reason,
        record::{
            CONN_DIVERTED, CONN_HTTP, CONN_UPGRADE, Connection, DIAL_FAILED, DIAL_READY, FRAMING_CHUNKED, FRAMING_HEAD,
            FRAMING_LOST, HEAD_MAX, PHASE_HOLD, PHASE_OPAQUE, RESP_TUNNEL,
        },
        route::ROUTE_FORK,
    },
    conn::{self, At, Facts, Step, Want},
    http::{
        self, BODY_CHUNKED, BODY_LENGTH, FLAG_CONNECT, FLAG_EXPECT, FLAG_HEAD, FLAG_UPGRADE, Head, STATUS_COMPLETE,
        STATUS_HTTP2, STATUS_INCOMPLETE, STATUS_MORE, STATUS_NOT_HTTP, STATUS_TLS, STATUS_UNREADABLE,
    },
    seq,
};

use crate::{
    atomic,
    count::count,
    legs, long,
    maps::{self, DIALS, HEADS, Out, ROUTES},
    scan::{self, Source, WORK},
};

/// Not decided yet.
pub const STEP_MORE: u32 = 0;
/// The owner gets the segment.
pub const STEP_STAY: u32 = 1;
/// The agent cuts the segment at `Out::cut`.
pub const STEP_CUT: u32 = 2;
/// The leg in `Out::slot` becomes the owner.
pub const STEP_SWITCH: u32 = 3;
/// The agent makes a leg for `Out::slot`.
pub const STEP_DIAL: u32 = 4;
/// The owner may not change yet.
pub const STEP_WAIT: u32 = 5;
/// The client is reset, because of `Out::reason`.
pub const STEP_RESET: u32 = 6;
/// As [`STEP_SWITCH`], to the leg that stands in `dials`.
pub const STEP_ADOPT: u32 = 7;

/// The baseline serves the request.
pub const WANT_BASELINE: u32 = 0;
/// The fork of `Out::route` does.
pub const WANT_FORK: u32 = 1;
/// The route says fail.
pub const WANT_FAIL: u32 = 2;

/// Heads and pieces of bodies that one segment may hold: the smallest request has 18 bytes, a segment 64 KiB.
const PIECES: u32 = 4096;

/// The client is reset; the segment has been read.
#[inline(always)]
pub fn reset(out: &mut Out, reason: Reason) -> i64 {
    out.step = STEP_RESET;
    out.reason = reason as u32;
    1
}

/// Copies the response side. False: ingress is changing it.
#[inline(always)]
fn copy_response(c: *mut Connection, out: &mut Out) -> bool {
    // SAFETY: a map value; what was copied is only used if it is whole.
    unsafe {
        out.answering = atomic::copy(&raw const (*c).answering, &raw const (*c).resp, &raw mut out.resp);
        atomic::unchanged(&raw mut (*c).answering, out.answering)
    }
}

/// Looks for the route of the key that carrier number `i` has; with `decides` that one is wanted. Returns 1 if there is one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn routed_key(i: u32, service: u32, decides: u32) -> u32 {
    let (Some(out), Some(work)) = (maps::out(), WORK.get_ptr_mut(0)) else { return 0 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let key = unsafe { &mut (*work).found.keys[i as usize & (CARRIERS - 1)] };
    key.service = service;
    // SAFETY: values of this map are replaced whole.
    let Some(r) = (unsafe { ROUTES.get(&*key) }) else { return 0 };
    if decides != 0 {
        out.want = if r.kind == ROUTE_FORK { WANT_FORK } else { WANT_FAIL };
        out.route = r.id;
        out.version = r.version;
    }
    1
}

/// Finds out who must get the request whose head was read and holds something of a carrier: the first one, in the configured
/// order, whose key has a route decides. It is the baseline until then.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_route(service: u32) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let work = unsafe { &mut *work };
    let found = work.head.found;
    if work.head.invalid != 0 {
        count(Reason::KeyInvalid);
    }
    if work.head.duplicate != 0 {
        count(Reason::KeyDuplicate);
    }
    if found == 0 {
        return 0;
    }
    let mut routed = 0;
    let mut i = 0;
    while i < CARRIERS as u32 {
        if found >> i & 1 != 0 {
            routed += routed_key(i, service, u32::from(routed == 0));
        }
        i += 1;
    }
    if routed > 1 {
        count(Reason::KeyAmbiguous);
    }
    count(if routed == 0 { Reason::KeyUnrouted } else { Reason::HeadKeyed });
    0
}

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
fn gather(out: &mut Out, len: u32) -> i64 {
    let Some(work) = WORK.get_ptr(0) else { return 1 };
    // SAFETY: the value's bytes are the window's, which is valid.
    if HEADS.insert(&out.key, unsafe { &(*work).window }, 0).is_err() {
        return reset(out, Reason::HeadsFull);
    }
    count(Reason::HeadPartial);
    out.state.partial = len;
    out.step = STEP_STAY;
    1
}

/// What to do with a segment whose head cannot be read.
#[inline(always)]
pub fn unreadable(out: &mut Out, status: u32) -> i64 {
    if out.state.flags & (CONN_HTTP | CONN_DIVERTED) != 0 {
        return reset(out, Reason::ResetHeadUnreadable);
    }
    let reason = match status {
        STATUS_TLS => Reason::OpaqueTls,
        STATUS_HTTP2 => Reason::OpaqueHttp2,
        STATUS_NOT_HTTP => Reason::OpaqueNotHttp,
        _ => {
            // The first head of a connection, HTTP, but with a framing that is ambiguous. The baseline answers it;
            // what comes behind it is nobody's.
            if out.want != WANT_BASELINE {
                return reset(out, Reason::ResetHeadUnreadable);
            }
            out.state.request.state = FRAMING_LOST;
            out.state.flags |= CONN_HTTP;
            out.step = STEP_STAY;
            return 1;
        }
    };
    count(reason);
    out.state.phase = PHASE_OPAQUE;
    out.step = STEP_STAY;
    1
}

/// Decides about the complete head in the window, where more than the baseline has a part.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decide(c: *mut Connection) -> u32 {
    let Some(out) = maps::out() else { return 1 };
    if c.is_null() {
        return 1;
    }
    decide_head(c, out) as u32
}

/// What the head in the window says about the stream behind it.
#[inline(always)]
pub fn facts(head: &Head) -> Facts {
    Facts {
        length: if head.body == BODY_LENGTH { head.length } else { 0 },
        chunked: head.body == BODY_CHUNKED,
        is_head: head.flags & FLAG_HEAD != 0,
        upgrade: head.flags & FLAG_UPGRADE != 0,
        expect: head.flags & FLAG_EXPECT != 0,
    }
}

#[inline(always)]
fn decide_head(c: *mut Connection, out: &mut Out) -> i64 {
    let Some(work) = WORK.get_ptr(0) else { return 1 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let head = unsafe { &(*work).head };
    if head.flags & FLAG_CONNECT != 0 {
        if out.want != WANT_BASELINE || out.state.owner != 0 {
            return reset(out, Reason::ResetConnect);
        }
        count(Reason::OpaqueTunnel);
        out.state.phase = PHASE_OPAQUE;
        out.step = STEP_STAY;
        return 1;
    }
    let want = match out.want {
        WANT_BASELINE => Want::Baseline,
        WANT_FORK => Want::Fork(out.route, out.version),
        _ => Want::Fail,
    };
    // SAFETY: a map value; refs change in `egress::switch` alone, and what is decided is checked at commit.
    let (legs, known) = unsafe { (&(*c).legs, (*c).server.mss != 0) };
    let mut slot = conn::slot_of(legs, want);
    // The original leg of a connection that was never diverted has no record, and needs none.
    if (slot as usize) < SLOTS
        && out.state.flags & CONN_DIVERTED != 0
        && !legs::usable(&out.key.conn, &legs[slot as usize & (SLOTS - 1)])
    {
        slot = SLOTS as u32;
    }
    if slot != u32::from(out.state.owner) {
        let head_at = out.state.request.pos + u64::from(out.state.partial);
        let whole = copy_response(c, out);
        let acked = seq::extend(out.resp.next, out.packet.ack);
        let at = At { start: out.start, head: head_at, acked };
        let step = if whole || !known {
            conn::at_head(&out.state, legs, if known { Some(&out.resp) } else { None }, at, want, slot)
        } else {
            Step::Wait
        };
        match step {
            Step::Stay => {}
            Step::Cut => {
                out.cut = (head_at - out.start) as u32;
                out.step = STEP_CUT;
                return 1;
            }
            Step::Wait => {
                out.slot = slot;
                out.step = STEP_WAIT;
                return held(out);
            }
            Step::Reset(reason) => return reset(out, reason),
            Step::Switch(s) => {
                out.slot = s;
                out.step = STEP_SWITCH;
            }
            Step::Dial(s) => {
                out.slot = s;
                out.step = STEP_DIAL;
                held(out);
                if out.step != STEP_ADOPT {
                    return 1;
                }
            }
        }
    }
    go_on(out, head)
}

/// The head goes on in this segment: to the owner, or to the leg that becomes it.
#[inline(always)]
fn go_on(out: &mut Out, head: &Head) -> i64 {
    if out.want == WANT_BASELINE {
        count(Reason::HeadBaseline);
    }
    if out.step == STEP_MORE {
        out.state.partial = 0;
    }
    let (behind, end) = (out.state.request.pos + u64::from(head.end), out.end);
    out.state.consume(&facts(head), behind, end);
    if out.step == STEP_MORE && out.state.request.state == FRAMING_HEAD && out.state.request.pos >= end {
        return read_out(out);
    }
    0
}

/// The segment has been read to its end.
#[inline(always)]
fn read_out(out: &mut Out) -> i64 {
    if out.step == STEP_MORE {
        out.step = STEP_STAY;
    }
    1
}

/// Looks for the agent's answer to a hold: a leg to adopt, or that there is none.
#[inline(always)]
fn held(out: &mut Out) -> i64 {
    if out.state.phase == PHASE_HOLD && out.state.held == out.start {
        // SAFETY: the agent replaces values whole.
        if let Some(d) = unsafe { DIALS.get(&out.key.conn) } {
            if d.hold == out.state.hold {
                if d.status == DIAL_FAILED {
                    out.step = STEP_RESET;
                    out.reason = d.reason;
                } else if d.status == DIAL_READY && d.leg.route == out.route && out.step == STEP_DIAL {
                    out.slot = d.slot & (SLOTS as u32 - 1);
                    out.step = STEP_ADOPT;
                }
            }
        }
    }
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
    if long::is_long(out) {
        if long::long_fill(skb) == 0 {
            return reset(out, Reason::ResetHeadTooLong);
        }
        return match scan::scan_rest() {
            STATUS_INCOMPLETE => long::go_on(out),
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
            long::go_on(out)
        }
        STATUS_INCOMPLETE => gather(out, len),
        STATUS_COMPLETE | STATUS_UNREADABLE => {
            let Some(work) = WORK.get_ptr(0) else { return 1 };
            // SAFETY: a per-CPU value that nothing else uses meanwhile.
            let head = unsafe { &(*work).head };
            out.want = WANT_BASELINE;
            out.route = 0;
            out.version = 0;
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
    if long::is_long(out) && long::long_resume() == 0 {
        reset(out, Reason::ResetHeadTooLong);
        return STEP_RESET;
    }
    let mut context = Context { skb, c };
    // SAFETY: the callback's context outlives the loop.
    unsafe { h::bpf_loop(PIECES, piece as *mut c_void, (&raw mut context).cast(), 0) };
    if out.step == STEP_MORE {
        reset(out, Reason::ResetPipeline);
    }
    out.step
}
