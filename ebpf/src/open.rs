//! Beginning and end of connections.

use aya_ebpf::bindings::__sk_buff;
use sidetrack_splice::{
    abi::{
        DIAL_ECN, DIAL_SACK, DIAL_STAMPS,
        addr::Tuple,
        reason::Reason,
        record::{Connection, Handshake, HeadKey, LEG_BASELINE, PHASE_WATCH, STATE_OWNER, Said},
        route::ServiceAddr,
    },
    packet::{Packet, flag},
    seq,
};

use crate::{
    count::count,
    maps::{CONNECTIONS, CONTROL, FRESH, HANDSHAKES, HEADS, IN, INWARD, LEG, LEGS, OUT, OUTWARD, SERVICES},
    mem,
    options::{self, STRIP_MULTIPATH, STRIP_SACK, STRIP_TIMESTAMP},
    skb::{self, PASS, SHOT},
    turn,
};

/// `-E2BIG`: what `bpf_map_update_elem` says of a hash map without room.
const FULL: i32 = -7;

/// A packet of a leg that the agent dials. Its SYN is noted, and loses what the client has not agreed to: it `keeps` the rest, as
/// `DIAL_` flags.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dial(skb: *mut __sk_buff, keeps: u32) -> i32 {
    let Some(out) = OUT.get_ptr_mut(0) else { return PASS };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let out = unsafe { &mut *out };
    if !skb::parse(skb, &mut out.packet) || out.packet.flags & flag::SYN == 0 {
        return PASS;
    }
    let p = &out.packet;
    count(Reason::DialSyn);
    skb::outbound(&mut out.key.conn, p);
    let seen = Handshake { at: skb::now(), isn: p.seq, peer_isn: 0, stamp: 0, answered: 0 };
    if let Err(error) = HANDSHAKES.insert(&out.key.conn, &seen, 0) {
        // One that is not noted would be taken for redirected.
        count(if error == FULL { Reason::HandshakesFull } else { Reason::ErrMap });
        return SHOT;
    }
    let stamps = if keeps & DIAL_STAMPS == 0 { STRIP_TIMESTAMP } else { 0 };
    let sack = if keeps & DIAL_SACK == 0 { STRIP_SACK } else { 0 };
    let (strip, len) = (stamps | sack, p.options_len());
    let fits = strip == 0 || len == 0 || options::edit_options(skb, p.tcp_at, len, strip, 0) >= 0;
    let quiet = keeps & DIAL_ECN != 0 || p.ecn() == 0 || options::without_ecn(skb, p);
    if !fits || !quiet {
        count(Reason::ErrStore);
        return SHOT;
    }
    PASS
}

/// A SYN-ACK that belongs to no connection: a leg's that the agent dials, perhaps.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dial_answered(skb: *mut __sk_buff) -> i32 {
    let Some(w) = IN.get_ptr(0) else { return PASS };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let w = unsafe { &*w };
    let Some(h) = HANDSHAKES.get_ptr_mut(&w.leg) else { return PASS };
    // SAFETY: a map value, which the agent reads when its socket has got this packet.
    let h = unsafe { &mut *h };
    if w.packet.ack == h.isn.wrapping_add(1) {
        h.peer_isn = w.packet.seq;
        h.stamp = options::stamps(skb, &w.packet).map_or(0, |s| s.val);
        h.answered = 1;
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
    skb::outbound(&mut out.key.conn, &out.packet);
    let (p, conn) = (&out.packet, &out.key.conn);
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
        // What was known of the tuple is not the new connection's.
        // SAFETY: a map value, one field that never changes.
        if let Some(c) = CONNECTIONS.get_ptr(conn).filter(|&c| unsafe { (*c).isn } != p.seq) {
            let _ = LEGS.remove(conn);
            forget(c, &mut out.key);
        }
        return PASS;
    }
    let strip = if service.routes == 0 { 0 } else { STRIP_MULTIPATH };
    let len = p.options_len();
    let said = if len == 0 { 536 } else { options::edit_options(skb, p.tcp_at, len, strip, 0) };
    if said < 0 {
        count(Reason::ErrStore);
        return PASS;
    }
    if let Some(c) = CONNECTIONS.get_ptr(conn) {
        // SAFETY: a map value, one field that never changes.
        if unsafe { (*c).isn } == p.seq {
            // retransmitted
            return PASS;
        }
        // The agent's sweep knows the legs of the older one by its sequence number, and resets them; but for the original one,
        // whose tuple is the new one's.
        count(Reason::TupleReused);
        let _ = LEGS.remove(conn);
        forget(c, &mut out.key);
    }
    if out.packet.len != 0 && service.routes == 0 {
        // What a server takes of it shows in its SYN-ACK alone.
        count(Reason::OpaqueFastOpen);
        return PASS;
    }
    if track(skb, &out.packet, &out.key.conn, service.id, said) {
        count(Reason::Tracked);
        return PASS;
    }
    if service.routes == 0 {
        return PASS;
    }
    count(Reason::RefusedFull);
    turn::reset_client(skb)
}

/// Makes the record of a new connection. False: no room.
#[inline(always)]
fn track(skb: *mut __sk_buff, p: &Packet, conn: &Tuple, service: u32, said: i64) -> bool {
    let Some(fresh) = FRESH.get_ptr_mut(0) else { return false };
    let now = skb::now();
    // SAFETY: scratch memory that nothing else uses meanwhile; it consists of integers, and zeros are a valid connection.
    let c = unsafe {
        mem::zero(fresh);
        &mut *fresh
    };
    c.now.phase = PHASE_WATCH;
    c.now.request.pos = seq::first(p.seq);
    c.now.next = seq::first(p.seq);
    // Answers to a connection before this one on the tuple must not be taken for answers to this one.
    c.now.hold = p.seq;
    c.now.active = now;
    c.legs[0].remote = conn.remote;
    c.legs[0].remote_port = conn.remote_port;
    c.legs[0].local_port = conn.local_port;
    c.legs[0].kind = LEG_BASELINE;
    c.opened = now;
    // Even, and not what a connection before this one on the same memory had: see `atomic::generation`.
    c.generation = (now >> 20) << 33 | u64::from(p.seq) << 1;
    c.answering = c.generation;
    c.service = service;
    c.isn = p.seq;
    c.ifindex = skb::ifindex(skb);
    c.client = self::said(said);
    c.client.options |= p.ecn();
    CONNECTIONS.insert(conn, &*c, 0).is_ok()
}

/// What [`options::edit_options`] has read from a SYN.
#[inline(always)]
pub fn said(packed: i64) -> Said {
    Said { mss: packed as u16, wscale: (packed >> 16) as u8, options: (packed >> 24) as u8 }
}

/// Makes the record of the original leg, when another is about to stand beside it, and the client has `seen` this time of its
/// clock. False: no room.
#[inline(always)]
pub fn original(c: *const Connection, conn: &Tuple, now: u64, seen: u32) -> bool {
    let Some(fresh) = LEG.get_ptr_mut(0) else { return false };
    // SAFETY: scratch memory that nothing else uses meanwhile; a map value, fields of it that do not change.
    let leg = unsafe {
        mem::zero(fresh);
        (*fresh).isn = (*c).isn;
        (*fresh).opened = (*c).opened;
        (*fresh).options = (*c).client.options & (*c).server.options;
        &mut *fresh
    };
    leg.conn = *conn;
    leg.kind = LEG_BASELINE;
    leg.state = STATE_OWNER;
    leg.active = now;
    leg.ts_nxt = seen;
    LEGS.insert(conn, &*leg, 0).is_ok()
}

/// Removes what is known of the connection that `key` names, but for its legs: those the agent's sweep finds.
#[inline(always)]
pub fn forget(c: *const Connection, key: &mut HeadKey) {
    // SAFETY: a map value, single fields; what is removed under other eyes stays readable until this program ends.
    let (request, response) = unsafe { ((*c).now.partial, (*c).resp.partial) };
    let _ = CONNECTIONS.remove(&key.conn);
    if request != 0 {
        key.direction = OUTWARD;
        let _ = HEADS.remove(&*key);
    }
    if response != 0 {
        key.direction = INWARD;
        let _ = HEADS.remove(&*key);
    }
}
