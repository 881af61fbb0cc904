//! Eight bytes at a time.
//!
//! Every mask has the high bit of each byte that it names, and is exact: a byte never borrows from its neighbour, so a
//! mask may be cut anywhere.

use crate::{
    abi::config::FILTER_WORDS,
    window::{BLOCK, Window},
};

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

/// The bytes of `word` that are no capital letter.
#[inline(always)]
pub const fn not_capital(word: u64) -> u64 {
    !within(word, b'A', b'Z') & HIGH
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

/// The number of the first byte that is set in a mask, 8 if there is none. BPF has no instruction that counts zeros; this
/// has no branch, after each of which the verifier would follow another number.
#[inline(always)]
pub const fn lowest(mask: u64) -> u32 {
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

/// Not zero if `byte` is in `word`, and in some words with bytes beyond ASCII: the cheapest question there is, four
/// instructions for each word of a head.
#[inline(always)]
const fn maybe(word: u64, byte: u8) -> u64 {
    (word ^ (ONES * byte as u64)).wrapping_sub(ONES) & HIGH
}

/// The first byte of `word` that is `byte`; what is set behind it says nothing.
#[inline(always)]
const fn upto(word: u64, byte: u8) -> u64 {
    let x = word ^ (ONES * byte as u64);
    x.wrapping_sub(ONES) & !x & HIGH
}

/// Spaces.
const BLANKS: u64 = ONES * b' ' as u64;
/// How many words [`line_end`] asks at once.
const ROW: usize = 4;
/// How many rows it looks at.
const ROWS: u32 = 4;

/// Looks for the first line feed at or behind `at`, at most four rows of words far.
///
/// A row is asked at once whether it has a byte below the space: text has none but line ends and tabs. Only then its words are
/// looked at one by one.
#[inline(always)]
pub fn line_end(window: &Window, mut at: u32) -> Search {
    let mut row: [u64; ROW] = window.block(at);
    let mut n = 1;
    // Bytes beyond ASCII are hits, too, and so is one more behind a hit: only what is none is certain.
    while row.iter().fold(0, |all, word| all | word.wrapping_sub(BLANKS)) & HIGH == 0 && n < ROWS {
        n += 1;
        at += ROW as u32 * 8;
        row = window.block(at);
    }
    let mut k = 0;
    while k < ROW {
        let hit = upto(row[k], b'\n');
        if hit != 0 {
            return Search::At(at + k as u32 * 8 + lowest(hit));
        }
        k += 1;
    }
    Search::From(at + ROW as u32 * 8)
}

/// Looks for the first byte at or behind `at` that is one of the two, eight words far. Neither is zero.
#[inline(always)]
pub fn find(window: &Window, at: u32, one: u8, other: u8) -> Search {
    let maybe = |word| if one == other { maybe(word, one) } else { maybe(word, one) | maybe(word, other) };
    let block: [u64; BLOCK] = window.block(at);
    let mut word = block[0];
    let mut i = 0;
    while maybe(word) == 0 {
        i += 1;
        if i == block.len() {
            return Search::From(at + i as u32 * 8);
        }
        word = block[i];
    }
    let start = at + i as u32 * 8;
    let hit = if one == other { upto(word, one) } else { upto(word, one) | upto(word, other) };
    if hit == 0 { Search::From(start + 8) } else { Search::At(start + lowest(hit)) }
}

/// The number that `n` digits at the start of `word` are, 1 to 8 of them; nothing if one of them is none.
#[inline(always)]
pub const fn number(word: u64, n: u32) -> Option<u64> {
    // with zeros in front of them, the last digit in the highest byte
    let digits = (word << ((64 - n * 8) & 63)) | ((ONES * 0x30) & first(8 - n));
    if within(digits, b'0', b'9') != HIGH {
        return None;
    }
    let pairs = (digits & (ONES * 0x0f)) * 10 + ((digits & (ONES * 0x0f)) >> 8);
    let high = (pairs & 0xff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & 0xff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    Some(high.wrapping_add(low) >> 32)
}

/// A number from 0 to 511 out of the first six bytes of `word`: where they stand in a filter.
#[inline(always)]
pub const fn slot(word: u64) -> u32 {
    const _: () = assert!(FILTER_WORDS == 8);
    ((word << 16).wrapping_mul(0x71c8_0689_a135_3c15) >> 55) as u32
}

/// Whether what begins with `word` may be in a filter of one word.
#[inline(always)]
pub const fn may_have(filter: u64, word: u64) -> bool {
    filter >> (slot(word) & 63) & 1 != 0
}

/// How many bytes [`slot`] looks at.
#[cfg(any(test, feature = "std"))]
pub const SLOT_BYTES: u32 = 6;

/// Whether a name that begins with `word` may be in the filter.
#[inline(always)]
pub const fn passes(filter: &[u64; FILTER_WORDS], word: u64) -> bool {
    let slot = slot(coarse(word));
    filter[slot as usize >> 6 & (FILTER_WORDS - 1)] >> (slot & 63) & 1 != 0
}

/// Notes a name that begins with `word` in the filter.
#[cfg(any(test, feature = "std"))]
pub const fn note(filter: &mut [u64; FILTER_WORDS], word: u64) {
    let slot = slot(coarse(word));
    filter[slot as usize >> 6 & (FILTER_WORDS - 1)] |= 1 << (slot & 63);
}

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
        each(not_capital, |b| !b.is_ascii_uppercase());
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
    fn digits_are_a_number() {
        for n in 1..=8_u32 {
            for number_ in [0, 1, 7, 45, 90, 128, 999, 1000, 65_536, 409_600, 1_234_567, 12_345_678, 99_999_999_u64] {
                let text = format!("{:0>1$}", number_ % 10_u64.pow(n), n as usize);
                let mut bytes = *b"\r\nxxxxxx";
                bytes[..n as usize].copy_from_slice(text.as_bytes());
                assert_eq!(number(u64::from_le_bytes(bytes), n), Some(number_ % 10_u64.pow(n)), "{text}");
                for (i, byte) in (0..n as usize).flat_map(|i| b"/:\0 \xb0".iter().map(move |b| (i, *b))) {
                    let mut bytes = bytes;
                    bytes[i] = byte;
                    assert_eq!(number(u64::from_le_bytes(bytes), n), None, "{bytes:?}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_end_of_a_line_is_found_wherever_it_is(
            mut text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), ascii: bool, at in 0_u32..400
        ) {
            if ascii {
                for b in &mut text {
                    *b = if *b < 4 { b'\n' } else { *b % 0x5f + b' ' };
                }
            }
            text.push(b'\n');
            let (window, len) = Window::of(&text);
            let mut from = at % len;
            let expected = (from..).zip(&text[from as usize..]).find(|(_, b)| **b == b'\n').map(|(i, _)| i);
            let found = loop {
                match line_end(&window, from) {
                    Search::At(at) => break at,
                    Search::From(next) => {
                        proptest::prop_assert!(next > from);
                        from = next;
                    }
                }
            };
            proptest::prop_assert_eq!(Some(found), expected);
        }
    }

    #[test]
    fn the_lowest_byte_is_found() {
        assert_eq!(lowest(0), 8, "there is none");
        for i in 0..8 {
            assert_eq!(lowest(0x80 << (i * 8)), i);
            assert_eq!(lowest(0x8080_8080_8080_8080 << (i * 8)), i);
        }
    }
}
