//! The bytes of one head, as words.
//!
//! In the kernel a window is a per-CPU map value that the bytes of a frame were copied into; in tests it is made from a
//! slice. Whatever index is asked for is masked, so no access can fail, and there is no bounds check left to compile.

use crate::abi::record::HEAD_MAX;

/// Words that are looked at together.
pub const BLOCK: usize = 8;
/// Bytes behind those of a head, so that the last ones can be read by words too.
const SPARE: usize = BLOCK * 8;

const _: () = assert!(HEAD_MAX.is_power_of_two());

/// Where a byte is.
#[inline(always)]
const fn place(at: u32) -> usize {
    at as usize & (HEAD_MAX - 1)
}

/// Loads of words that are not aligned.
#[cfg(not(target_arch = "bpf"))]
mod load {
    use super::{HEAD_MAX, SPARE, place};

    /// The bytes from `at` on.
    #[inline(always)]
    pub fn start(bytes: &[u8; HEAD_MAX + SPARE], at: u32) -> &[u8] {
        &bytes[place(at)..]
    }

    /// Word number `k`.
    #[inline(always)]
    pub fn word(start: &[u8], k: usize) -> u64 {
        u64::from_le_bytes(*start[k * 8..].first_chunk().expect("there are bytes behind those of a head"))
    }
}

/// Loads of words that are not aligned. Written out: the compiler would load eight times a byte, and it would take away the mask
/// that the verifier wants to see on the very register that is added to the pointer.
#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "the only two instructions that cannot be said otherwise")]
mod load {
    use core::arch::asm;

    use super::{HEAD_MAX, SPARE};

    /// A place within a window: there are [`SPARE`] bytes behind it.
    #[derive(Clone, Copy)]
    pub struct Start(*const u8);

    /// The bytes from `at` on.
    #[inline(always)]
    pub fn start(bytes: &[u8; HEAD_MAX + SPARE], at: u32) -> Start {
        let (base, at) = (bytes.as_ptr(), u64::from(at));
        let start;
        // SAFETY: arithmetic on registers; the sum is within the window.
        unsafe {
            asm!(
                "{at} &= {most}", "{at} += {base}",
                at = inout(reg) at => start, base = in(reg) base, most = const HEAD_MAX - 1,
                options(pure, nomem, nostack),
            );
        }
        Start(start)
    }

    /// Word number `k`.
    #[inline(always)]
    pub fn word(Start(start): Start, k: usize) -> u64 {
        macro_rules! load {
            ($offset:literal) => {{
                let word;
                // SAFETY: a load of eight of the bytes that are there.
                unsafe {
                    asm!(
                        "{word} = *(u64 *)({start} + {offset})",
                        word = out(reg) word, start = in(reg) start, offset = const $offset,
                        options(pure, readonly, nostack),
                    );
                }
                word
            }};
        }
        match k {
            0 => load!(0),
            1 => load!(8),
            2 => load!(16),
            3 => load!(24),
            4 => load!(32),
            5 => load!(40),
            6 => load!(48),
            _ => load!(56),
        }
    }
}

/// Up to [`HEAD_MAX`] bytes. What lies behind the bytes that were written is left over from an earlier head: readers
/// are told a length.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Window {
    /// The bytes.
    pub bytes: [u8; HEAD_MAX + SPARE],
}

impl Window {
    /// The byte at `at`.
    #[inline(always)]
    #[must_use]
    pub const fn byte(&self, at: u32) -> u8 {
        self.bytes[place(at)]
    }

    /// The eight bytes from `at` on, the first in the lowest byte.
    #[inline(always)]
    #[must_use]
    pub fn eight(&self, at: u32) -> u64 {
        let [word] = self.block(at);
        word
    }

    /// `N` words from the byte at `at` on, [`BLOCK`] at most.
    #[inline(always)]
    #[must_use]
    pub fn block<const N: usize>(&self, at: u32) -> [u64; N] {
        const { assert!(N <= BLOCK) };
        let start = load::start(&self.bytes, at);
        core::array::from_fn(|k| load::word(start, k))
    }

    /// Writes eight bytes at `at`.
    #[inline(always)]
    pub const fn put(&mut self, at: u32, word: u64) {
        let (at, bytes) = (place(at), word.to_le_bytes());
        let mut i = 0;
        while i < 8 {
            self.bytes[at + i] = bytes[i];
            i += 1;
        }
    }

    /// A window that holds the first [`HEAD_MAX`] of `bytes`, and their number.
    #[cfg(any(test, feature = "std"))]
    #[must_use]
    #[expect(clippy::large_stack_arrays, reason = "16 KiB on a stack of user space")]
    pub fn of(bytes: &[u8]) -> (Box<Self>, u32) {
        let bytes = &bytes[..bytes.len().min(HEAD_MAX)];
        // what is left over must never be read: fill with what would mislead most
        let mut window = Box::new(Self { bytes: [b'\n'; HEAD_MAX + SPARE] });
        window.bytes[..bytes.len()].copy_from_slice(bytes);
        (window, bytes.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_words_are_read_where_they_were_written() {
        let bytes: Vec<u8> = (0..=255).collect();
        let (window, len) = Window::of(&bytes);
        assert_eq!(len, 256);
        for at in 0..=248_u32 {
            assert_eq!(window.byte(at), at as u8);
            let eight: [u8; 8] = bytes[at as usize..at as usize + 8].try_into().expect("eight");
            assert_eq!(window.eight(at), u64::from_le_bytes(eight), "at {at}");
        }
    }

    #[test]
    fn any_index_can_be_read() {
        let (window, _) = Window::of(&[]);
        for at in [HEAD_MAX as u32 - 1, HEAD_MAX as u32, u32::MAX - 7, u32::MAX] {
            let _ = (window.byte(at), window.block::<BLOCK>(at), window.eight(at));
        }
    }

    #[test]
    fn a_window_takes_no_more_than_a_head() {
        assert_eq!(Window::of(&vec![b'x'; HEAD_MAX + 5]).1, HEAD_MAX as u32);
    }
}
