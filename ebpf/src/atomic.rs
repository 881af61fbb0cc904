//! What two processors may do to one record at a time.
//!
//! This compiler has no atomic types for bpf: the instructions are written out. All that return a value are full barriers
//! (Documentation/bpf/standardization/instruction-set.rst, atomic operations with `BPF_FETCH`).

use crate::mem;

/// Puts `new` where `old` is. Returns what was there.
///
/// # Safety
/// `p` is valid, aligned, and shared with other processors by these functions only.
#[inline(always)]
unsafe fn compare_exchange(p: *mut u64, old: u64, new: u64) -> u64 {
    let mut was = old;
    // SAFETY: the instruction touches the eight bytes at `p`, which are the caller's promise.
    unsafe {
        core::arch::asm!("r0 = cmpxchg_64({p} + 0, r0, {new})", p = in(reg) p, new = in(reg) new, inout("r0") was);
    }
    was
}

/// Adds `n` to what is at `p`. Returns what was there. A full barrier, also where nothing is added.
///
/// # Safety
/// `p` is valid and aligned.
#[inline(always)]
unsafe fn fetch_add(p: *mut u64, n: u64) -> u64 {
    let mut was = n;
    // SAFETY: as in `compare_exchange`.
    unsafe { core::arch::asm!("{v} = atomic_fetch_add((u64 *)({p} + 0), {v})", p = in(reg) p, v = inout(reg) was) };
    was
}

/// Takes the line of cache at `p` over from other processors, before it is read: one that is read first and written then is
/// fetched twice, for the time that reading a head takes.
///
/// # Safety
/// `p` is valid and aligned.
#[inline(always)]
pub unsafe fn own(p: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe { fetch_add(p, 0) };
}

/// Raises the number at `p` to `to`, if it is lower: what several processors report is never lost.
///
/// # Safety
/// `p` is valid, aligned, and only ever raised.
#[inline(always)]
pub unsafe fn raise(p: *mut u64, to: u64) {
    // SAFETY: the caller's promise.
    let mut is = unsafe { p.read_volatile() };
    // As often as other processors may be faster: beyond that the segment's successor raises it.
    let mut tries = 0;
    while is < to && tries < 4 {
        // SAFETY: the caller's promise.
        let was = unsafe { compare_exchange(p, is, to) };
        if was == is {
            return;
        }
        is = was;
        tries += 1;
    }
}

/// A generation: even while what it guards is whole.
///
/// Readers note it, copy, decide, and write by [`claim`] and [`publish`]: who was overtaken is told. A map gives the memory of a
/// record that was removed to another at once, so no two records begin at one number (`open::track`): a step that was decided on
/// the first does not pass for one on the second.
///
/// # Safety
/// `p` is valid and aligned.
#[inline(always)]
pub unsafe fn generation<T>(p: *const u64, guarded: *const T) -> (u64, *const T) {
    // SAFETY: the caller's promise.
    let generation = unsafe { p.read_volatile() };
    (generation, after(generation, guarded))
}

/// The address `at`, to read there what was written before the value `seen` was: an address dependency
/// (Documentation/memory-barriers.txt). The writer has a barrier between the two: [`publish`], or [`barrier`].
#[inline(always)]
pub fn after<T>(seen: u64, at: *const T) -> *const T {
    let (mut none, mut at) = (seen, at);
    // SAFETY: arithmetic on registers: what is added is always zero, which no processor knows before it has `seen`.
    unsafe { core::arch::asm!("{n} &= 0", "{a} += {n}", n = inout(reg) none, a = inout(reg) at) };
    let _ = none;
    at
}

/// What was written before is seen before what is written behind it.
#[inline(always)]
pub fn barrier() {
    let mut word = 0_u64;
    // SAFETY: a word of this stack.
    unsafe { fetch_add(&raw mut word, 0) };
}

/// Copies what a generation guards, and returns the generation that it was copied under.
///
/// # Safety
/// All are valid and aligned; as for [`mem::copy`].
#[inline(always)]
pub unsafe fn copy<T>(p: *const u64, guarded: *const T, to: *mut T) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let (generation, from) = generation(p, guarded);
        mem::copy(to, from);
        generation
    }
}

/// Whether what was copied under `generation` is whole: nobody was writing it, and nobody has since.
///
/// # Safety
/// `p` is valid and aligned.
#[inline(always)]
pub unsafe fn unchanged(p: *mut u64, generation: u64) -> bool {
    // SAFETY: the caller's promise. A barrier: what was copied was read before.
    let is = unsafe { fetch_add(p, 0) };
    generation & 1 == 0 && is == generation
}

/// Waits until nobody writes what a generation guards; not for ever. Only for what comes once, and cannot be refused.
///
/// # Safety
/// `p` is valid and aligned.
#[inline(always)]
pub unsafe fn settle(p: *const u64) {
    let mut turns = 0;
    // SAFETY: the caller's promise.
    while turns < 256 && unsafe { p.read_volatile() } & 1 != 0 {
        turns += 1;
    }
}

/// Begins to write what a generation guards. False: somebody else has written since it was read, or is writing.
///
/// # Safety
/// `p` is valid and aligned; [`publish`] follows.
#[inline(always)]
pub unsafe fn claim(p: *mut u64, generation: u64) -> bool {
    // SAFETY: the caller's promise.
    generation & 1 == 0 && unsafe { compare_exchange(p, generation, generation + 1) } == generation
}

/// [`claim`]s whatever generation there is. False: others were faster eight times.
///
/// # Safety
/// As for [`claim`].
#[inline(always)]
pub unsafe fn claim_any(p: *mut u64) -> bool {
    let mut tries = 0;
    while tries < 8 {
        tries += 1;
        // SAFETY: the caller's promise.
        if unsafe { claim(p, p.read_volatile()) } {
            return true;
        }
    }
    false
}

/// Ends what [`claim`] has begun.
///
/// # Safety
/// `p` is what was claimed.
#[inline(always)]
pub unsafe fn publish(p: *mut u64) {
    // SAFETY: the caller's promise. A barrier, which a store is not: what was written before is seen before.
    unsafe { fetch_add(p, 1) };
}
