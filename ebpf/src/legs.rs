//! Legs as egress sees them.

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{Leg, LegRef, STATE_DEAD},
};

use crate::{atomic, maps::LEGS};

/// The leg's own tuple.
#[inline(always)]
pub fn tuple(conn: &Tuple, r: &LegRef) -> Tuple {
    Tuple { local: conn.local, remote: r.remote, local_port: r.local_port, remote_port: r.remote_port }
}

/// The leg that `r` names.
#[inline(always)]
pub fn find(conn: &Tuple, r: &LegRef) -> Option<*mut Leg> {
    LEGS.get_ptr_mut(&tuple(conn, r))
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
pub fn usable(conn: &Tuple, isn: u32, r: &LegRef) -> bool {
    // SAFETY: a map value; fields that do not change, and bytes that are written by one side each.
    find(conn, r).is_some_and(|l| unsafe { (*l).serves(conn, isn) && (*l).state != STATE_DEAD && (*l).closed == 0 })
}
