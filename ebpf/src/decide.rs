//! Deciding what a request's head needs: who must get it, whether its owner may change, what is done about one that cannot be read.

use sidetrack_splice::{
    abi::{
        LEGS as SLOTS,
        config::CARRIERS,
        control::Control,
        reason::Reason,
        record::{
            CONN_DIVERTED, CONN_HTTP, Connection, DIAL_BASELINE, DIAL_FAILED, DIAL_READY, FRAMING_HEAD, LEG_NONE,
            LegRef, PHASE_HOLD, PHASE_OPAQUE,
        },
        route::{ROUTE_FORK, ROUTE_OR_BASELINE, ServiceAddr},
    },
    conn::{self, At, Facts, Step, WAIT_ALONE_NS, Want},
    http::{
        BODY_CHUNKED, BODY_LENGTH, FLAG_CONNECT, FLAG_EXPECT, FLAG_HEAD, FLAG_UPGRADE, Head, STATUS_HTTP2,
        STATUS_NOT_HTTP, STATUS_TLS,
    },
    seq,
};

use crate::{
    atomic,
    count::count,
    legs,
    maps::{self, CONTROL, DIALS, Out, ROUTES, SERVICES},
    scan::WORK,
    skb,
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
/// There will be no leg for it: the baseline serves it.
const STEP_INSTEAD: u32 = 8;

/// The baseline serves the request.
pub const WANT_BASELINE: u32 = 0;
/// The fork of `Out::route` does.
pub const WANT_FORK: u32 = 1;
/// The route says fail.
pub const WANT_FAIL: u32 = 2;

/// The client is reset; the segment has been read.
#[inline(always)]
pub fn reset(out: &mut Out, reason: Reason) -> i64 {
    out.step = STEP_RESET;
    out.reason = reason as u32;
    1
}

/// Copies the response side. False: ingress is changing it.
#[inline(always)]
pub fn copy_response(c: *mut Connection, out: &mut Out) -> bool {
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
        out.flags = r.flags;
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
    let Some(out) = maps::out() else { return 0 };
    let conn = &out.key.conn;
    let at = ServiceAddr { addr: conn.remote, port: conn.remote_port, pad: 0 };
    // The connection may be older than the service that has its address.
    // SAFETY: values of this map are replaced whole.
    let service = unsafe { SERVICES.get(&at) }.map_or(service, |s| s.id);
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
    if routed == 0 {
        count(Reason::KeyUnrouted);
    }
    0
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
            // The first head of a connection, HTTP, but with a framing that is ambiguous.
            if out.want != WANT_BASELINE {
                return reset(out, Reason::ResetHeadUnreadable);
            }
            Reason::OpaqueFraming
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
    let slot = live_slot(out, legs, want);
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
                held(out);
                let waits = out.step == STEP_WAIT && out.state.phase == PHASE_HOLD && out.state.held == out.start;
                if waits && no_agent() && skb::now().wrapping_sub(out.state.active) > WAIT_ALONE_NS {
                    return reset(out, Reason::ResetNotSwitchable);
                }
                return 1;
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
                if out.step == STEP_DIAL && no_agent() {
                    if out.want == WANT_BASELINE && out.state.head_may_wait(out.start, skb::now()) {
                        return 1;
                    }
                    if out.flags & ROUTE_OR_BASELINE == 0 {
                        return reset(out, Reason::ResetAgentDead);
                    }
                    out.step = STEP_INSTEAD;
                }
                if out.step == STEP_INSTEAD && !baseline_instead(out, legs) {
                    return reset(out, Reason::ResetUnreachable);
                }
                if !matches!(out.step, STEP_ADOPT | STEP_SWITCH | STEP_MORE) {
                    return 1;
                }
            }
        }
    }
    go_on(out, head)
}

/// The slot whose leg lives and serves `want`, or [`SLOTS`].
#[inline(always)]
fn live_slot(out: &Out, legs: &[LegRef; SLOTS], want: Want) -> u32 {
    let slot = conn::slot_of(legs, want);
    // The original leg of a connection that was never diverted has no record, and needs none.
    let live = out.state.flags & CONN_DIVERTED == 0
        || (slot as usize) < SLOTS && legs::usable(&out.key.conn, slot, &legs[slot as usize & (SLOTS - 1)]);
    if live { slot } else { SLOTS as u32 }
}

/// The owner may change, but the fork's leg cannot be had: the baseline is to serve the request, by the leg that it has. False:
/// that has ended, too, or a part of the head is elsewhere.
#[inline(always)]
fn baseline_instead(out: &mut Out, legs: &[LegRef; SLOTS]) -> bool {
    let owns = out.state.owner == 0;
    if live_slot(out, legs, Want::Baseline) != 0 || !owns && out.state.partial != 0 {
        return false;
    }
    count(Reason::BaselineInstead);
    out.want = WANT_BASELINE;
    out.slot = 0;
    out.step = if owns { STEP_MORE } else { STEP_SWITCH };
    true
}

/// What cannot be read passes: nobody has forked the service, so that it is meant for the baseline. The connection is as one that is older
/// than its record from then on. False: the service is forked, or more than the baseline has a part in the connection.
#[inline(always)]
pub fn unread(c: *mut Connection, out: &mut Out) -> bool {
    let conn = &out.key.conn;
    let at = ServiceAddr { addr: conn.remote, port: conn.remote_port, pad: 0 };
    // SAFETY: values of this map are replaced whole.
    let unforked = unsafe { SERVICES.get(&at) }.is_none_or(|s| s.routes == 0);
    // SAFETY: a map value, one number.
    let (end, answered) = (out.end, unsafe { (*c).resp.next });
    unforked && out.state.unread(end, answered)
}

/// There is no room to read a head on that comes in parts. Where nobody has forked the service it cannot be meant for anybody but the
/// baseline, and passes unread; else the client is reset, because of `reason`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn no_room(c: *mut Connection, reason: u32) -> u32 {
    let Some(out) = maps::out() else { return 1 };
    if c.is_null() {
        return 1;
    }
    if unread(c, out) {
        count(Reason::OpaqueHeadsFull);
        out.step = STEP_STAY;
    } else {
        out.step = STEP_RESET;
        out.reason = reason;
    }
    1
}

/// Whether nobody is there to do what only an agent can.
#[inline(always)]
pub fn no_agent() -> bool {
    // SAFETY: one number, which the agent writes.
    CONTROL
        .get_ptr(0)
        .is_some_and(|c| Control::dead(unsafe { (&raw const (*c).heartbeat).read_volatile() }, skb::now()))
}

/// The head goes on in this segment: to the owner, or to the leg that becomes it.
#[inline(always)]
pub fn go_on(out: &mut Out, head: &Head) -> i64 {
    // Here, not where its key is found: a head that is held is read again.
    count(if out.want == WANT_BASELINE { Reason::HeadBaseline } else { Reason::HeadKeyed });
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
pub fn read_out(out: &mut Out) -> i64 {
    if out.step == STEP_MORE {
        out.step = STEP_STAY;
    }
    1
}

/// Looks for the agent's answer to a hold: a leg to adopt, or that there is none.
#[inline(always)]
fn held(out: &mut Out) -> i64 {
    // Of a route that has changed since it was asked, the answer is no answer: an endpoint may have left.
    let asked = out.state.held_for == Want::number(out.route, out.version);
    if out.state.phase == PHASE_HOLD && out.state.held == out.start && asked {
        // SAFETY: the agent replaces values whole.
        if let Some(d) = unsafe { DIALS.get(&out.key.conn) } {
            if d.hold == out.state.hold {
                if d.status == DIAL_FAILED {
                    out.step = STEP_RESET;
                    out.reason = d.reason;
                } else if d.status == DIAL_BASELINE && d.reason == out.route && out.step == STEP_DIAL {
                    out.step = STEP_INSTEAD;
                    if d.leg.kind != LEG_NONE {
                        count(Reason::BaselineInstead);
                        out.want = WANT_BASELINE;
                        out.slot = 0;
                        out.step = STEP_ADOPT;
                    }
                } else if d.status == DIAL_READY && d.leg.route == out.route && out.step == STEP_DIAL {
                    out.slot = d.slot & (SLOTS as u32 - 1);
                    out.step = STEP_ADOPT;
                }
            }
        }
    }
    1
}
