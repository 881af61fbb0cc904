//! Connections that end at egress: given up, or reset by their client.

use aya_ebpf::bindings::__sk_buff;
use sidetrack_splice::abi::{
    reason::Reason,
    record::{CONN_DIVERTED, CONN_HELD, Connection, PHASE_CLOSED, PHASE_RESET, PHASE_SWITCH},
};

use crate::{
    count::{self, count},
    hold,
    maps::{self, HEADS, Out},
    open,
    skb::{self, PASS, STOLEN},
    step::{FORWARD, commit, look},
    turn,
};

/// The client will end no head any more: what was gathered of one goes at once, what else there is the agent ends.
#[inline(always)]
pub fn ended(skb: *mut __sk_buff, out: &Out) {
    if out.state.partial != 0 {
        let _ = HEADS.remove(&out.key);
    }
    hold::gone(skb, &out.key.conn, out.service);
}

/// Gives the connection up: the client is reset, and the agent resets the legs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn give_up(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    out.now = skb::now();
    if out.state.phase != PHASE_RESET {
        out.state.phase = PHASE_RESET;
        out.state.flags &= !CONN_HELD;
        out.state.active = out.now;
        // What was decided on a state that another CPU has changed meanwhile is void.
        if !commit(c, out) {
            return STOLEN;
        }
        // The agent resets what has a record: without one the baseline would wait for the rest of its request.
        // SAFETY: a map value, one field.
        let answered = unsafe { (*c).server.mss != 0 };
        if out.state.flags & CONN_DIVERTED == 0 && answered && !open::original(c, &out.key.conn, out.now, 0) {
            count(Reason::LegsFull);
        }
        ended(skb, out);
    }
    count::number(out.reason);
    turn::reset_client(skb)
}

/// The client resets the connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reset_by_client(skb: *mut __sk_buff, c: *mut Connection) -> i32 {
    let Some(out) = maps::out() else { return PASS };
    if c.is_null() {
        return PASS;
    }
    out.now = skb::now();
    // It comes once: another CPU's step must not make it void, nor may that step go on with what is forgotten here.
    let mut tries = 0;
    let mut alone = false;
    let mut known = matches!(out.state.phase, PHASE_CLOSED | PHASE_RESET);
    while !known && tries < 4 {
        tries += 1;
        // A CPU that changes the owner goes on with the record, and with the original leg's.
        alone = tries == 1 && out.state.phase != PHASE_SWITCH;
        out.state.phase = PHASE_CLOSED;
        out.state.active = out.now;
        if commit(c, out) {
            known = true;
            if !alone || out.state.flags & CONN_DIVERTED != 0 {
                ended(skb, out);
            }
        } else {
            known = look(c, out) && matches!(out.state.phase, PHASE_CLOSED | PHASE_RESET);
        }
    }
    if !known {
        // Who owns the connection is not certain. Whoever it is: what it says next, the client's kernel answers with another reset.
        return STOLEN;
    }
    if out.state.flags & CONN_DIVERTED == 0 {
        // Where its number lies behind what was held, the baseline asks for it by an acknowledgement, and the client's kernel answers
        // with another (RFC 5961, section 3.2): both pass. A record that stays is the agent's to remove.
        if alone {
            count(Reason::ClosedPlain);
            open::forget(c, &mut out.key);
        }
        return PASS;
    }
    count(Reason::ClosedLegs);
    out.slot = u32::from(out.state.owner);
    FORWARD
}
