//! Legs as egress sees them.

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{Leg, LegRef, STATE_DEAD},
};

use crate::{atomic, maps::LEGS, mem};

/// The leg's own tuple.
#[inline(always)]
pub fn tuple(conn: &Tuple, r: &LegRef) -> Tuple {
    Tuple { local: conn.local, remote: r.remote, local_port: r.local_port, remote_port: r.remote_port }
}

/// The leg of a connection that `r` names, the ref in this slot. It may have ended long ago, and its port be that of another
/// connection's leg to the same backend, or of one in another slot.
#[inline(always)]
pub fn find(conn: &Tuple, slot: u32, r: &LegRef) -> Option<*mut Leg> {
    named(&tuple(conn, r), conn, slot)
}

/// The leg of this name, if it is the connection's, in this slot.
#[inline(always)]
pub fn named(name: &Tuple, conn: &Tuple, slot: u32) -> Option<*mut Leg> {
    LEGS.get_ptr_mut(name).filter(|&l| serves(l, conn, slot) != 0)
}

/// Whether a leg is that of this connection, in this slot. Compared in the caller, the words would take its stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn serves(leg: *const Leg, conn: *const Tuple, slot: u32) -> u32 {
    if leg.is_null() || conn.is_null() {
        return 0;
    }
    // SAFETY: map values, fields of them that do not change.
    u32::from(unsafe { u32::from((*leg).slot) == slot && mem::same(&raw const (*leg).conn, conn) })
}

/// Gives the leg a state. Who sees it sees the numbers that belong to it: they were written before.
///
/// # Safety
/// `leg` is a map value, which is this CPU's to change.
#[inline(always)]
pub unsafe fn enter(leg: *mut Leg, state: u8) {
    atomic::barrier();
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*leg).state).write_volatile(state) };
}

/// Whether the leg exists, is this connection's, and may serve a further exchange: not given up by egress, not closed by its backend.
#[inline(always)]
pub fn usable(conn: &Tuple, slot: u32, r: &LegRef) -> bool {
    // SAFETY: a map value; bytes that are written by one side each.
    find(conn, slot, r).is_some_and(|l| unsafe { (*l).state != STATE_DEAD && (*l).closed == 0 })
}
