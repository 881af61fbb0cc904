//! Counters by reason.

use sidetrack_splice::abi::reason::Reason;

use crate::maps::COUNTERS;

/// Adds one to the counter of `reason`.
#[inline(always)]
pub fn count(reason: Reason) {
    number(reason as u32);
}

/// The same by the reason's number.
#[inline(always)]
pub fn number(reason: u32) {
    if let Some(c) = COUNTERS.get_ptr_mut(reason) {
        // SAFETY: a per-CPU value, and no other program of ours runs on this CPU meanwhile.
        unsafe { *c += 1 };
    }
}
