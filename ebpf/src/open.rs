//! Beginning and end of connections.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{Connection, LEG_BASELINE, Leg, LegRef, PHASE_WATCH, STATE_OWNER},
        route::ServiceAddr,
    },
    packet::{Packet, flag},
    seq,
};

use crate::{
    count::count,
    maps::{CONNECTIONS, CONTROL, FRESH, LEGS, OUT, RESPONSES, SERVICES},
    options::{self, STRIP_MULTIPATH, STRIP_TIMESTAMP},
    skb::{self, PASS, SHOT},
    turn,
};

/// A packet of a leg that the agent dials: its SYN loses its timestamps, because the client's clock is another.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dial(skb: *mut __sk_buff) -> i32 {
    let Some(out) = OUT.get_ptr_mut(0) else { return PASS };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let p = unsafe { &mut (*out).packet };
    if !skb::parse(skb, p) {
        return PASS;
    }
    if p.flags & flag::SYN != 0 && p.options_len() != 0 {
        count(Reason::DialSyn);
        if options::edit_options(skb, p.tcp_at, p.options_len(), STRIP_TIMESTAMP, 0) < 0 {
            count(Reason::ErrStore);
            return SHOT;
        }
    }
    PASS
}

/// The client's SYN: a connection to a service address is followed from here on.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syn(skb: *mut __sk_buff) -> i32 {
    let Some(out) = OUT.get_ptr_mut(0) else { return PASS };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let out = unsafe { &mut *out };
    out.conn = out.packet.outbound();
    let (p, conn) = (&out.packet, &out.conn);
    let key = ServiceAddr { addr: conn.remote, port: conn.remote_port, pad: 0 };
    // SAFETY: the agent replaces values whole.
    let Some(service) = (unsafe { SERVICES.get(&key) }).copied() else {
        // The client itself dials on a tuple that a leg has used: it is the client's.
        if LEGS.get_ptr(conn).is_some() {
            count(Reason::TupleReused);
            let _ = LEGS.remove(conn);
        }
        return PASS;
    };
    // SAFETY: one number, which the agent writes.
    if CONTROL.get_ptr(0).is_some_and(|c| unsafe { (*c).draining != 0 }) {
        count(Reason::Draining);
        return PASS;
    }
    let strip = if service.routes == 0 { 0 } else { STRIP_MULTIPATH };
    let len = p.options_len();
    let said = if len == 0 { 536 } else { options::edit_options(skb, p.tcp_at, len, strip, 0) };
    if said < 0 {
        count(Reason::ErrStore);
        return PASS;
    }
    // SAFETY: a map value, one field that never changes.
    match CONNECTIONS.get_ptr(conn).map(|c| unsafe { (*c).isn }) {
        // retransmitted
        Some(isn) if isn == p.seq => return PASS,
        Some(_) => {
            // The agent's sweep knows the legs of the older one by its sequence number, and resets them.
            count(Reason::TupleReused);
            forget(conn);
        }
        None => {}
    }
    if track(skb, p, conn, service.id, said) {
        count(Reason::Tracked);
        return PASS;
    }
    forget(conn);
    if service.routes == 0 {
        return PASS;
    }
    count(Reason::RefusedFull);
    turn::reset_client(skb)
}

/// Makes the records of a new connection. False: no room.
#[inline(always)]
fn track(skb: *mut __sk_buff, p: &Packet, conn: &Tuple, service: u32, said: i64) -> bool {
    let Some(fresh) = FRESH.get_ptr_mut(0) else { return false };
    let c = fresh.cast::<Connection>();
    let now = skb::now();
    // SAFETY: scratch memory of this size and alignment, which nothing else uses meanwhile; zeros are a valid
    // connection. The kernel never copies the lock.
    unsafe {
        *fresh = [0; CONNECTION_WORDS];
        (*c).now.phase = PHASE_WATCH;
        (*c).now.request.pos = seq::first(p.seq);
        (*c).now.next = seq::first(p.seq);
        // Answers to a connection before this one on the tuple must not be taken for answers to this one.
        (*c).now.hold = p.seq;
        (*c).now.active = now;
        (*c).legs[0] = LegRef {
            remote: conn.remote,
            remote_port: conn.remote_port,
            local_port: conn.local_port,
            kind: LEG_BASELINE,
            ..NO_LEG
        };
        (*c).opened = now;
        (*c).service = service;
        (*c).isn = p.seq;
        (*c).ifindex = skb::ifindex(skb);
        (*c).mss = said as u16;
        (*c).wscale = (said >> 16) as u8;
        (*c).options = (said >> 24) as u8;
    }
    let leg = Leg {
        conn: *conn,
        kind: LEG_BASELINE,
        state: STATE_OWNER,
        isn: p.seq,
        opened: now,
        active: now,
        ..Leg::default()
    };
    // SAFETY: key and value are valid for the sizes that the map has.
    let inserted = unsafe {
        h::bpf_map_update_elem(
            (&raw const CONNECTIONS).cast_mut().cast(),
            core::ptr::from_ref(conn).cast::<c_void>(),
            fresh.cast::<c_void>(),
            0,
        )
    };
    inserted == 0 && LEGS.insert(conn, &leg, 0).is_ok()
}

const NO_LEG: LegRef = LegRef {
    remote: sidetrack_splice::abi::addr::Addr([0; 4]),
    remote_port: 0,
    local_port: 0,
    route: 0,
    version: 0,
    kind: 0,
    pad: 0,
    used: 0,
};

/// A connection in words.
pub const CONNECTION_WORDS: usize = size_of::<Connection>() / 8;

/// Removes what is known of a connection, but for legs that the agent made and parts of heads: those its sweep finds.
#[inline(always)]
pub fn forget(conn: &Tuple) {
    let _ = CONNECTIONS.remove(conn);
    let _ = RESPONSES.remove(conn);
    let _ = LEGS.remove(conn);
}
