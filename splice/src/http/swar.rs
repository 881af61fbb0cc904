//! Eight bytes at a time.
//!
//! Every mask has the high bit of each byte that it names, and is exact: a byte never borrows from its neighbour, so a
//! mask may be cut anywhere.

use crate::window::Window;

const HIGH: u64 = 0x8080_8080_8080_8080;
const LOW: u64 = !HIGH;
const ONES: u64 = 0x0101_0101_0101_0101;

/// The bytes of `word` that are `byte`.
#[inline(always)]
pub const fn equal(word: u64, byte: u8) -> u64 {
    let x = word ^ (ONES * byte as u64);
    !(((x & LOW) + LOW) | x | LOW)
}

/// The bytes of `word` within `low..=high`, both ASCII.
#[inline(always)]
const fn within(word: u64, low: u8, high: u8) -> u64 {
    let x = word & LOW;
    (x + ONES * (0x80 - low) as u64) & !(x + ONES * (0x7f - high) as u64) & !word & HIGH
}

/// `word` with its capital letters made small, all else as it is.
#[inline(always)]
pub const fn lower(word: u64) -> u64 {
    word | (within(word, b'A', b'Z') >> 2)
}

/// The bytes of `word` that a sandbox key cannot have: all but `[A-Za-z0-9._-]`.
#[inline(always)]
pub const fn not_key(word: u64) -> u64 {
    let letters = within(word | (ONES * 0x20), b'a', b'z');
    let good = letters | within(word, b'0', b'9') | within(word, b'-', b'.') | equal(word, b'_');
    !good & HIGH
}

/// A mask of the first `n` bytes of a word; of all eight if there are more.
#[inline(always)]
pub const fn first(n: u32) -> u64 {
    if n >= 8 { !0 } else { (1 << (n * 8)) - 1 }
}

/// Eight bytes of ASCII as a word.
pub const fn ascii(text: [u8; 8]) -> u64 {
    u64::from_le_bytes(text)
}

/// The number of the first byte that is set in a mask other than zero. BPF has no instruction that counts zeros; this
/// has no branch, after each of which the verifier would follow another number.
#[inline(always)]
const fn lowest(mask: u64) -> u32 {
    let bit = mask >> 7;
    ((bit.wrapping_sub(1) & !bit & ONES).wrapping_mul(ONES) >> 56) as u32
}

/// Where a search of one block came to.
pub enum Search {
    /// The first byte that was looked for.
    At(u32),
    /// None in this block; the next one starts here.
    From(u32),
}

/// Not zero if `byte` is in `word`: cheaper than [`equal`], and says no more.
#[inline(always)]
const fn any(word: u64, byte: u8) -> u64 {
    let x = word ^ (ONES * byte as u64);
    x.wrapping_sub(ONES) & !x & HIGH
}

/// Looks for the first byte at or behind `at` that is one of the two, eight words far.
#[inline(always)]
pub fn find(window: &Window, at: u32, one: u8, other: u8) -> Search {
    let exact = |word| if one == other { equal(word, one) } else { equal(word, one) | equal(word, other) };
    let quick = |word| if one == other { any(word, one) } else { any(word, one) | any(word, other) };
    let start = at & !7;
    let block = window.block(at >> 3);
    let hit = exact(block[0]) & (!0 << ((at & 7) * 8));
    if hit != 0 {
        return Search::At(start + lowest(hit));
    }
    let mut i = 1;
    while i < block.len() {
        if quick(block[i]) != 0 {
            return Search::At(start + i as u32 * 8 + lowest(exact(block[i])));
        }
        i += 1;
    }
    Search::From(start + block.len() as u32 * 8)
}

/// A number from 0 to 63 out of the first six bytes of `word`: where they stand in a filter of 64 bits.
#[inline(always)]
pub const fn slot(word: u64) -> u32 {
    ((word << 16).wrapping_mul(0x71c8_0689_a135_3c15) >> 58) as u32
}

/// How many bytes [`slot`] looks at.
pub const SLOT_BYTES: u32 = 6;

/// `word` as a filter of names without case takes it: coarse, the same for both cases.
#[inline(always)]
pub const fn coarse(word: u64) -> u64 {
    word | (ONES * 0x20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(mask: impl Fn(u64) -> u64, expected: impl Fn(u8) -> bool) {
        for byte in 0..=255_u8 {
            for (left, right) in [(0, 0), (0xff, 0xff), (byte, byte), (b'\n', b'\n' + 1), (b'a', b'Z'), (0x80, 0x7f)] {
                let bytes = [left, byte, right, byte, left, right, byte, byte];
                for (i, b) in bytes.iter().enumerate() {
                    let got = mask(u64::from_le_bytes(bytes)) >> (i * 8) & 0xff;
                    assert_eq!(got, if expected(*b) { 0x80 } else { 0 }, "byte {b:#x} at {i} of {bytes:x?}");
                }
            }
        }
    }

    #[test]
    fn masks_are_exact_whatever_stands_beside() {
        each(|w| equal(w, b'\n'), |b| b == b'\n');
        each(|w| equal(w, 0), |b| b == 0);
        each(|w| within(w, b'0', b'9'), |b| b.is_ascii_digit());
        each(not_key, |b| !(b.is_ascii_alphanumeric() || b"._-".contains(&b)));
    }

    #[test]
    fn only_capital_letters_change() {
        for byte in 0..=255_u8 {
            let word = lower(u64::from_le_bytes([byte, b'Z', 0xff, b'@', b'[', 0xc1, byte, byte]));
            let small = byte.to_ascii_lowercase();
            assert_eq!(word.to_le_bytes(), [small, b'z', 0xff, b'@', b'[', 0xc1, small, small]);
        }
    }

    #[test]
    fn the_lowest_byte_is_found() {
        for i in 0..8 {
            assert_eq!(lowest(0x80 << (i * 8)), i);
            assert_eq!(lowest(0x8080_8080_8080_8080 << (i * 8)), i);
        }
    }
}
