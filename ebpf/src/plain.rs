//! The two most common segments that are read: one head of a request that stays with the baseline, and one of its response, on
//! a connection that no other leg has served. The same reader and the same rules as for all others, with fewer calls and
//! copies.

use aya_ebpf::bindings::__sk_buff;
use sidetrack_splice::{
    abi::{reason::Reason, record::Connection},
    http::{self, BODY_CHUNKED, BODY_LENGTH, BODY_REST, FLAG_CONNECT, Head, STATUS_COMPLETE},
    reply,
};

use crate::{
    atomic,
    count::count,
    decide,
    maps::{CONFIG, IN, OUT},
    replies,
    scan::{self, WORK},
    skb,
};

/// Reads the bytes of a segment, `len` of them at `at` in the frame, as one head. Nothing: it does not end in the first of them,
/// or takes more than one step.
///
/// In the caller's own code: where the kernel guards returns against speculation (retbleed, SRSO), each call takes as long as
/// reading 100 bytes.
#[inline(always)]
fn read(skb: *mut __sk_buff, at: u32, len: u64, kind: u32) -> Option<&'static Head> {
    let n = if len < u64::from(scan::AT_FIRST) { len as u32 } else { scan::AT_FIRST };
    let (work, config) = (WORK.get_ptr_mut(0)?, CONFIG.get(0)?);
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    unsafe {
        let read =
            scan::load_window(work, skb, at, 0, n) && scan::one_step(work, config, 0, n, kind) == STATUS_COMPLETE;
        read.then(|| &(*work).head)
    }
}

/// Takes in a segment that is a head without any key, and its body. Zero: it is something else, and nothing was done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn plain_request(skb: *mut __sk_buff, c: *mut Connection) -> u32 {
    let Some(out) = OUT.get_ptr(0) else { return 0 };
    if c.is_null() {
        return 0;
    }
    // SAFETY: a per-CPU value that nothing else uses meanwhile; a map value: what is read is checked by the claim.
    let (out, (generation, now)) =
        unsafe { (&*out, atomic::generation(&raw const (*c).generation, &raw const (*c).now)) };
    // SAFETY: as above.
    if !unsafe { (*now).plain_head(out.start) } {
        return 0;
    }
    let Some(head) = read(skb, out.packet.payload_at, out.end - out.start, http::REQUEST) else { return 0 };
    let facts = decide::facts(head);
    let behind = out.start + u64::from(head.end);
    if head.found | head.invalid | head.duplicate | (head.flags & FLAG_CONNECT) != 0
        || facts.chunked
        || behind.saturating_add(facts.length) < out.end
    {
        return 0;
    }
    // SAFETY: a map value. Read before the claim, which fails if the memory is another connection's by then.
    let (active, isn) = (skb::sent(skb), unsafe { (&raw const (*c).isn).read_volatile() });
    // SAFETY: a map value, whose state is written between claim and publication.
    unsafe {
        if !atomic::claim(&raw mut (*c).generation, generation) {
            return 0;
        }
        let now = &mut (*c).now;
        now.consume(&facts, behind, out.end);
        now.passed(out.end);
        now.active = active;
        let told = reply::tell(isn, now);
        atomic::publish(&raw mut (*c).generation);
        // Behind the barrier, which would wait until the other processor has given the line away.
        (&raw mut (*c).told).write_volatile(told);
    }
    count(Reason::HeadBaseline);
    1
}

/// Takes in a segment that is the head of a final response, and its body. Zero: it is something else, and nothing was done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn plain_response(skb: *mut __sk_buff, c: *mut Connection) -> u32 {
    let Some(w) = IN.get_ptr(0) else { return 0 };
    if c.is_null() {
        return 0;
    }
    // SAFETY: a per-CPU value that nothing else uses meanwhile; a map value: what is read is checked by the claim, and a request
    // is noted before its owner can answer it.
    let (w, (generation, resp), asked) = unsafe {
        let copy = atomic::generation(&raw const (*c).answering, &raw const (*c).resp);
        (&*w, copy, reply::told((*c).isn, (&raw const (*c).told).read_volatile()))
    };
    // SAFETY: as above.
    let (plain, answered) = unsafe { ((*resp).plain_head(w.start), (*resp).answered) };
    if !plain {
        return 0;
    }
    // SAFETY: a map value, which says what is not told.
    let (asked, heads) = asked.map_or_else(|| unsafe { ((*c).now.asked, (*c).now.head_bits) }, |asked| (asked, 0));
    let Some(was_head) = reply::was_head(asked, answered, heads) else { return 0 };
    let Some(head) = read(skb, w.packet.payload_at, w.end - w.start, http::RESPONSE) else { return 0 };
    let body = http::response_body(head, was_head);
    let length = if body == BODY_LENGTH { head.length } else { 0 };
    let behind = w.start + u64::from(head.end);
    if head.code < 200 || body == BODY_CHUNKED || body == BODY_REST || behind.saturating_add(length) < w.end {
        return 0;
    }
    // SAFETY: a map value, whose state is written between claim and publication.
    unsafe {
        if !atomic::claim(&raw mut (*c).answering, generation) || !replies::speaks(c, core::ptr::null()) {
            return 0;
        }
        let facts = reply::Facts { code: head.code, length, chunked: false, rest: false };
        (*c).resp.consume(&facts, behind);
        atomic::publish(&raw mut (*c).answering);
    }
    count(Reason::ResponseComplete);
    replies::passed(w, c);
    1
}
