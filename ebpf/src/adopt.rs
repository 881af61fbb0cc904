//! Connections that are older than their record: what passes is noted, until a request must begin, see `sidetrack_splice::adopt`.

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{Connection, DIAL_IDLE, RESP_INTERIM, RespState},
    },
    adopt::{self, STATUS_BYTES},
    conn::Gap,
    packet::flag,
};

use crate::{
    atomic,
    count::count,
    decide::{copy_response, unread},
    maps::{self, DIALS, Out},
    open,
    skb::{self, PASS, STOLEN},
    step::{ADOPT, GIVE_UP, PASS_ON, READ, commit},
};

/// A payload of the client's. It is read if a request must begin here, else it passes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn request(c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    let (seq, acked, len) = (out.packet.seq, out.packet.ack, u64::from(out.packet.len));
    let whole = copy_response(c, out);
    let idle = out.state.next == 0 && idle(out);
    let begins = whole && out.state.begins(&out.resp, seq, acked, idle);
    // As ingress counts: it may be noting a bare acknowledgement at this moment.
    let known = if out.state.next == 0 { out.resp.acked } else { out.state.next };
    out.start = adopt::position(known, seq);
    out.end = out.start + len;
    if begins && begin(c, out, adopt::position(out.resp.next, acked)) {
        count(Reason::Adopted);
        let start = out.start;
        out.state.adopt(start);
        return READ;
    }
    let (end, resp) = (out.end, &out.resp);
    if out.state.unknown(end, resp, acked) {
        count(Reason::OpaqueOlder);
    }
    // Where another CPU was faster, the next payload finds that something was not seen.
    commit(c, out);
    PASS_ON
}

/// A segment behind bytes that were not seen: it waits for them, the client is reset, or its connection is as one that is older than its
/// record.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gap(c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    out.now = skb::now();
    let (before, now) = (out.state.held, out.now);
    match out.state.gap(now) {
        Gap::Wait => {
            if out.state.held != before {
                commit(c, out);
            }
            count(Reason::Gap);
            STOLEN
        }
        Gap::Unread => {
            count(Reason::OpaqueGap);
            if out.packet.len == 0 { PASS_ON } else { ADOPT }
        }
        Gap::Reset if unread(c, out) => {
            count(Reason::OpaqueGap);
            commit(c, out);
            PASS_ON
        }
        Gap::Reset => {
            out.reason = Reason::ResetGap as u32;
            GIVE_UP
        }
    }
}

/// Whether the agent has found the client's socket idle since the record stands. It is asked once.
#[inline(always)]
fn idle(out: &Out) -> bool {
    // SAFETY: the agent replaces values whole.
    let idle = unsafe { DIALS.get(&out.key.conn) }.is_some_and(|d| d.status == DIAL_IDLE && d.hold == out.state.hold);
    if idle {
        let _ = DIALS.remove(&out.key.conn);
    }
    idle
}

/// The response side begins at `peer`. False: ingress has written to it meanwhile.
#[inline(always)]
fn begin(c: *mut Connection, out: &Out, peer: u64) -> bool {
    // SAFETY: a map value; its response side is written between claim and publication.
    unsafe {
        if !atomic::claim(&raw mut (*c).answering, out.answering) {
            return false;
        }
        (*c).resp = RespState::adopted(peer, out.start);
        atomic::publish(&raw mut (*c).answering);
    }
    true
}

/// A packet of the server's: it passes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn response(skb: *mut __sk_buff, c: *mut Connection) -> u32 {
    let pass = PASS as u32;
    let Some(w) = maps::incoming() else { return pass };
    if c.is_null() {
        return pass;
    }
    let p = &w.packet;
    // SAFETY: map values, one number each.
    let (known, acked, flags) = unsafe { ((*c).resp.next, (*c).resp.acked, (*c).resp.flags) };
    if p.flags & flag::RST != 0 {
        if known != 0 && known as u32 == p.seq {
            count(Reason::ClosedPlain);
            w.key.conn = w.leg;
            open::forget(c, &mut w.key);
        }
        return pass;
    }
    let next = adopt::position(known, p.seq.wrapping_add(p.len));
    if p.len != 0 && next > known {
        let mut begins = [0; STATUS_BYTES];
        let there = if p.len < STATUS_BYTES as u32 { 1 } else { STATUS_BYTES as u32 };
        // SAFETY: there is room for as many bytes.
        let loaded = unsafe { h::bpf_skb_load_bytes(skb.cast(), p.payload_at, begins.as_mut_ptr().cast(), there) } == 0;
        let interim = !loaded || adopt::interim(&begins, flags & RESP_INTERIM != 0);
        let now = if interim { flags | RESP_INTERIM } else { flags & !RESP_INTERIM };
        // SAFETY: a map value; egress begins to read only where it has not changed meanwhile.
        unsafe {
            let generation = &raw mut (*c).answering;
            // Where it cannot be written, the segment is as if it had not been seen: its bytes are missing from then on.
            if !atomic::claim_any(generation) {
                return pass;
            }
            (*c).resp.flags = now;
            atomic::raise(&raw mut (*c).resp.next, next);
            atomic::publish(generation);
        }
    }
    // SAFETY: a number of a map value that only grows.
    unsafe { atomic::raise(&raw mut (*c).resp.acked, adopt::position(acked, p.ack)) };
    pass
}
