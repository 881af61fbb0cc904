//! The pinned records as aya's maps take them.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A record that goes in and out of maps as its bytes.
///
/// `aya::Pod` is an unsafe promise that must stand beside the type; the records' crate has no unsafe code. This wrapper
/// makes the promise once, for all types that zerocopy has checked.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wire<T>(pub T);

// SAFETY: `Wire<T>` is laid out as `T` is. `IntoBytes` means that `T` has no padding, so each of its bytes may be read by
// the kernel; `FromBytes` that any bytes are a valid `T`, so whatever the kernel writes is; `Immutable` that nothing
// changes behind a shared reference; `Copy` and `'static` that it owns nothing.
unsafe impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> aya::Pod for Wire<T> {}

impl<T> From<T> for Wire<T> {
    fn from(record: T) -> Self {
        Self(record)
    }
}
