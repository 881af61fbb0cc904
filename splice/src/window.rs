//! The bytes of one head, as words.
//!
//! In the kernel a window is a per-CPU map value that the bytes of a frame were copied into; in tests it is made from a
//! slice. Whatever index is asked for is masked, so no access can fail, and there is no bounds check left to compile.

use crate::abi::record::HEAD_MAX;

/// Words that a head can fill.
const WORDS: usize = HEAD_MAX / 8;
/// Words that are looked at together.
pub const BLOCK: usize = 8;
/// Words behind those of a head, so that the last bytes can be read by words too.
const SPARE: usize = BLOCK;

const _: () = assert!(WORDS.is_power_of_two());

/// Up to [`HEAD_MAX`] bytes. What lies behind the bytes that were written is left over from an earlier head: readers
/// are told a length.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Window {
    /// The bytes, eight a word, the first in the lowest byte.
    pub words: [u64; WORDS + SPARE],
}

impl Window {
    /// Word number `i`.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self, i: u32) -> u64 {
        u64::from_le(self.words[i as usize & (WORDS - 1)])
    }

    /// Writes word number `i`.
    #[inline(always)]
    pub const fn put(&mut self, i: u32, word: u64) {
        self.words[i as usize & (WORDS - 1)] = word.to_le();
    }

    /// The byte at `at`.
    #[inline(always)]
    #[must_use]
    pub const fn byte(&self, at: u32) -> u8 {
        (self.word(at >> 3) >> ((at & 7) * 8)) as u8
    }

    /// The eight bytes from `at` on, the first in the lowest byte.
    ///
    /// Two aligned loads, because the compiler turns an unaligned one into eight loads of a byte in BPF.
    #[inline(always)]
    #[must_use]
    pub const fn eight(&self, at: u32) -> u64 {
        let i = at as usize >> 3 & (WORDS - 1);
        let shift = (at & 7) * 8;
        (u64::from_le(self.words[i]) >> shift) | ((u64::from_le(self.words[i + 1]) << 1) << (63 - shift))
    }

    /// `N` words from number `i` on, [`BLOCK`] at most.
    #[inline(always)]
    #[must_use]
    pub const fn block<const N: usize>(&self, i: u32) -> [u64; N] {
        const { assert!(N <= SPARE) };
        let i = i as usize & (WORDS - 1);
        let mut block = [0; N];
        let mut k = 0;
        while k < N {
            block[k] = u64::from_le(self.words[i + k]);
            k += 1;
        }
        block
    }

    /// A window that holds the first [`HEAD_MAX`] of `bytes`, and their number.
    #[cfg(any(test, feature = "std"))]
    #[must_use]
    #[expect(clippy::large_stack_arrays, reason = "16 KiB on a stack of user space")]
    pub fn of(bytes: &[u8]) -> (Box<Self>, u32) {
        let bytes = &bytes[..bytes.len().min(HEAD_MAX)];
        // what is left over must never be read: fill with what would mislead most
        let mut window = Box::new(Self { words: [u64::from_le_bytes(*b"\r\n\r\n\r\n\r\n"); WORDS + SPARE] });
        for (i, part) in bytes.chunks(8).enumerate() {
            let mut word = *b"\n\n\n\n\n\n\n\n";
            word[..part.len()].copy_from_slice(part);
            window.words[i] = u64::from_le_bytes(word).to_le();
        }
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
            let _ = (window.byte(at), window.word(at), window.eight(at));
        }
    }

    #[test]
    fn a_window_takes_no_more_than_a_head() {
        assert_eq!(Window::of(&vec![b'x'; HEAD_MAX + 5]).1, HEAD_MAX as u32);
    }
}
