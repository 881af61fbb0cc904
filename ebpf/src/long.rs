//! Requests' heads that are longer than the window: read on in it as it slides over them, and decided about at their end.
//!
//! What has left the window is with the owner, and nowhere else. Such a head can stay where it is, and go to nobody else.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, btf_maps::LruHashMap, helpers::generated as h, macros::btf_map};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{Connection, HEAD_MAX},
    },
    http::{
        Found, Head, STATUS_COMPLETE, STATUS_UNREADABLE,
        long::{self, LONG_MAX},
    },
    window::Window,
};

use crate::{
    count::count,
    decide::{STEP_MORE, STEP_STAY, WANT_BASELINE, decide, find_route, no_room, reset, unreadable},
    maps::{self, CONFIG, Out},
    scan::{self, WORK},
};

/// What a long head goes on with in the next segment: what [`scan::Work`] begins with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Kept {
    window: Window,
    head: Head,
    found: Found,
}

/// Egress's own; the program's, not pinned. A miss: other long heads took its place, or another program began with it.
/// The client is reset, or passes unread where nobody has forked the service.
#[btf_map(name = "long_heads")]
pub static LONG: LruHashMap<Tuple, Kept, 128> = LruHashMap::new();

/// Whether a head of which this much has passed is a long one.
#[inline(always)]
pub fn is_long(partial: u32) -> bool {
    partial as usize >= HEAD_MAX
}

/// Takes up the long head that a segment before this one left. Whether it is there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn long_resume() -> u32 {
    let (Some(out), Some(work)) = (maps::out(), WORK.get_ptr_mut(0)) else { return 0 };
    let Some(kept) = LONG.get_ptr(&out.key.conn) else { return 0 };
    // SAFETY: a `Work` begins as a `Kept`, and is larger.
    if unsafe { h::bpf_probe_read_kernel(work.cast(), size_of::<Kept>() as u32, kept.cast()) } != 0 {
        return 0;
    }
    // A segment that could not be committed comes again, but what it left here stays.
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    u32::from(unsafe { (*work).head.given() } == out.state.partial)
}

unsafe extern "C" fn shift_callback(i: u64, ctx: *mut c_void) -> i64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: `bpf_loop` hands on the context that it was given: a number of words. The window is nobody else's.
    unsafe { long::shift(&mut (*work).window, *ctx.cast::<u32>(), i as u32) };
    0
}

/// Puts the next bytes of the long head into the window. Whether there was room for any.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn long_fill(skb: *mut __sk_buff) -> u32 {
    let (Some(out), Some(work), Some(config)) = (maps::out(), WORK.get_ptr_mut(0), CONFIG.get(0)) else { return 0 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let work = unsafe { &mut *work };
    if work.head.given() >= LONG_MAX {
        return 0;
    }
    if work.head.used() as usize >= HEAD_MAX {
        let Some(mut words) = work.head.slide(&work.window, config) else { return 0 };
        // SAFETY: the context outlives the loop.
        unsafe { h::bpf_loop(long::shifts(words), shift_callback as *mut c_void, (&raw mut words).cast(), 0) };
    }
    let (at, used) = (out.state.request.pos + u64::from(out.state.partial), work.head.used());
    if at < out.start || at >= out.end || used as usize >= HEAD_MAX {
        return 0;
    }
    let (left, room) = (out.end - at, HEAD_MAX as u64 - u64::from(used));
    let n = if left < room { left } else { room } as u32;
    // SAFETY: as above.
    if !unsafe { scan::load_window(work, skb, out.packet.payload_at + (at - out.start) as u32, used, n) } {
        return 0;
    }
    work.head.more(n);
    out.state.partial += n;
    1
}

/// The long head does not end in what was read: on with this segment, or with the next.
#[inline(always)]
pub fn go_on(c: *mut Connection, out: &mut Out) -> i64 {
    if out.state.request.pos + u64::from(out.state.partial) < out.end {
        return 0;
    }
    let Some(work) = WORK.get_ptr(0) else { return 1 };
    // SAFETY: a `Work` begins as a `Kept`.
    if LONG.insert(&out.key.conn, unsafe { &*work.cast::<Kept>() }, 0).is_err() {
        no_room(c, Reason::HeadsFull as u32);
        return 1;
    }
    count(Reason::HeadPartial);
    out.step = STEP_STAY;
    1
}

/// Decides about the long head that was read to its end, with this status.
#[inline(always)]
pub fn end(c: *mut Connection, out: &mut Out, status: u32) -> i64 {
    if status != STATUS_COMPLETE && status != STATUS_UNREADABLE {
        return reset(out, Reason::ResetHeadTooLong);
    }
    out.want = WANT_BASELINE;
    find_route(out.service);
    if out.want != WANT_BASELINE || out.state.owner != 0 {
        return reset(out, Reason::ResetHeadTooLong);
    }
    if status != STATUS_COMPLETE {
        return unreadable(out, status);
    }
    decide(c);
    match out.step {
        STEP_MORE | STEP_STAY => {
            count(Reason::HeadLong);
            i64::from(out.step == STEP_STAY)
        }
        // the baseline's leg is gone
        _ => reset(out, Reason::ResetHeadTooLong),
    }
}
