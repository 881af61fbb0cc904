//! Who must get a request, and which slot's leg that is.

use crate::abi::{
    LEGS,
    record::{ConnState, LEG_BASELINE, LEG_FORK, LEG_NONE, LegRef},
};

/// Who must get a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The baseline.
    Baseline,
    /// The fork behind a route, by its id and version.
    Fork(u32, u32),
    /// Nobody: the route says fail.
    Fail,
}

impl Want {
    /// [`Self::number`] of the baseline.
    pub const BASELINE: u32 = 0;

    /// A number that differs between two wants that follow one another: of other routes, or of one that has changed meanwhile.
    #[inline(always)]
    #[must_use]
    pub const fn number(route: u32, version: u32) -> u32 {
        route << 16 ^ version
    }
}

/// The slot whose leg serves `want`, or [`LEGS`]. Whether that leg still lives is the host's to find out.
#[inline(always)]
#[must_use]
pub fn slot_of(legs: &[LegRef; LEGS], want: Want) -> u32 {
    match want {
        Want::Baseline => {
            if legs[0].kind == LEG_BASELINE {
                0
            } else {
                LEGS as u32
            }
        }
        Want::Fork(route, version) => {
            let mut found = LEGS as u32;
            let mut i = 1;
            while i < LEGS {
                if legs[i].kind == LEG_FORK && legs[i].route == route && legs[i].version == version {
                    found = i as u32;
                }
                i += 1;
            }
            found
        }
        Want::Fail => LEGS as u32,
    }
}

/// The slot that a new leg for `want` takes: the baseline's own, else a free one, else the one that was owner the
/// longest time ago; never the owner's.
#[inline(always)]
#[must_use]
pub fn slot_for(legs: &[LegRef; LEGS], want: Want, state: &ConnState) -> u32 {
    if matches!(want, Want::Baseline) {
        return 0;
    }
    let mut best = 0;
    let mut best_age = 0;
    let mut i = 1;
    while i < LEGS {
        if i as u32 != state.owner as u32 {
            // A free slot is older than any.
            let age = if legs[i].kind == LEG_NONE {
                0x2_0000
            } else {
                1 + (state.asked as u16).wrapping_sub(legs[i].used) as u32
            };
            if age > best_age {
                best = i as u32;
                best_age = age;
            }
        }
        i += 1;
    }
    best
}
