//! Copies, zeros and comparisons, by words.
//!
//! For more than a few words the compiler calls a `memcpy` or a `memset` of its own, which for bpf go byte by byte. It makes
//! none of volatile accesses.

/// Copies a record of words.
///
/// # Safety
/// Both are valid for a `T`, which consists of integers without padding, and do not overlap.
#[inline(always)]
pub unsafe fn copy<T>(to: *mut T, from: *const T) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let words = if align_of::<T>().is_multiple_of(8) { size_of::<T>() / 8 } else { 0 };
    let mut i = 0;
    while i < words {
        // SAFETY: within both, aligned.
        unsafe { to.cast::<u64>().add(i).write_volatile(from.cast::<u64>().add(i).read_volatile()) };
        i += 1;
    }
    let mut i = words * 2;
    while i < size_of::<T>() / 4 {
        // SAFETY: as above.
        unsafe { to.cast::<u32>().add(i).write_volatile(from.cast::<u32>().add(i).read_volatile()) };
        i += 1;
    }
}

/// Fills a record of words with zeros.
///
/// # Safety
/// As for [`copy`]; zero is a value of `T`.
#[inline(always)]
pub unsafe fn zero<T>(to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let words = if align_of::<T>().is_multiple_of(8) { size_of::<T>() / 8 } else { 0 };
    let mut i = 0;
    while i < words {
        // SAFETY: within it, aligned.
        unsafe { to.cast::<u64>().add(i).write_volatile(0) };
        i += 1;
    }
    let mut i = words * 2;
    while i < size_of::<T>() / 4 {
        // SAFETY: as above.
        unsafe { to.cast::<u32>().add(i).write_volatile(0) };
        i += 1;
    }
}

/// Whether two records of words are the same.
///
/// # Safety
/// Both are valid for a `T`, which consists of integers without padding.
#[inline(always)]
pub unsafe fn same<T>(a: *const T, b: *const T) -> bool {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let mut differs = 0;
    let mut i = 0;
    while i < size_of::<T>() / 4 {
        // SAFETY: within both, aligned.
        differs |= unsafe { a.cast::<u32>().add(i).read_volatile() ^ b.cast::<u32>().add(i).read_volatile() };
        i += 1;
    }
    differs == 0
}
