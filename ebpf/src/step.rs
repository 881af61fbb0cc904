//! One step on a connection at egress: its state is copied, the decision is taken on the copy, and committed if nobody else has
//! changed the connection meanwhile.

use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{CONN_HELD, CONN_PENDING, ConnState, Connection},
    },
    reply,
};

use crate::{atomic, count::count, maps::Out, mem};

/// Not verdicts but what comes next: the leg in `Out::slot` becomes the owner.
pub const SWITCH: i32 = -101;
/// The owner gets the segment.
pub const PASS_ON: i32 = -102;
/// The leg in `Out::slot` gets the segment.
pub const FORWARD: i32 = -105;
/// The connection is older than its record: whether a request begins here.
pub const ADOPT: i32 = -106;
/// The segment is read.
pub const READ: i32 = -107;
/// The client is reset, because of `Out::reason`.
pub const GIVE_UP: i32 = -103;

/// Copies the connection's state. False, and counted: others were writing to it all the time.
///
/// What decides by the copy alone commits nothing that would be checked: with a new owner and an old boundary, what is from before a
/// switch would be the new owner's.
#[inline(always)]
pub fn look(c: *mut Connection, out: &mut Out) -> bool {
    let mut tries = 0;
    while tries < 4 {
        // SAFETY: a map value; what was copied is only used if it is whole.
        unsafe {
            out.generation = atomic::copy(&raw const (*c).generation, &raw const (*c).now, &raw mut out.state);
            if atomic::unchanged(&raw mut (*c).generation, out.generation) {
                return true;
            }
            atomic::settle(&raw const (*c).generation);
        }
        tries += 1;
    }
    count(Reason::Busy);
    false
}

/// Writes to the connection's state, if nobody else has changed it since it was copied. False, and counted: somebody has.
#[inline(always)]
fn claimed(c: *mut Connection, out: &mut Out, write: impl FnOnce(*mut ConnState, &Out)) -> bool {
    // SAFETY: a map value; its state is written between claim and publication.
    unsafe {
        if !atomic::claim(&raw mut (*c).generation, out.generation) {
            count(Reason::Busy);
            return false;
        }
        write(&raw mut (*c).now, out);
        atomic::publish(&raw mut (*c).generation);
    }
    out.generation += 2;
    true
}

/// Commits the state that was decided on.
#[inline(always)]
pub fn commit(c: *mut Connection, out: &mut Out) -> bool {
    // SAFETY: a map value. Read before the claim, which fails if the memory is another connection's by then.
    let isn = unsafe { (&raw const (*c).isn).read_volatile() };
    // SAFETY: two states, and nobody else writes either.
    let done = claimed(c, out, |now, out| unsafe { mem::copy(now, &raw const out.state) });
    if done {
        // SAFETY: a map value, a word that is whole at any time.
        unsafe { (&raw mut (*c).told).write_volatile(reply::tell(isn, &out.state)) };
    }
    done
}

/// Notes alone that the agent gets a frame of the client's, which may say less than the client will have said by then.
#[inline(always)]
pub fn pend(c: *mut Connection, out: &mut Out) -> bool {
    // SAFETY: a state that nobody else writes.
    claimed(c, out, |now, out| unsafe {
        (*now).acked = out.packet.ack;
        (*now).asked_at = out.now;
        (*now).flags |= CONN_PENDING;
    })
}

/// Writes the phase and [`CONN_HELD`] alone: until its owner has changed, the head in hand has not gone on, and may be read again.
#[inline(always)]
pub fn mark(c: *mut Connection, out: &mut Out, phase: u8, held: u32) -> bool {
    // SAFETY: a state that nobody else writes.
    claimed(c, out, |now, _| unsafe {
        (*now).phase = phase;
        (*now).flags = (*now).flags & !CONN_HELD | held;
    })
}
