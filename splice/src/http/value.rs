//! Values: lengths and keys.

use super::{
    Flow, Found, Head, SEEN_LENGTH,
    byte::is_space,
    kind, state,
    swar::{self, first},
};
use crate::{
    abi::{KEY_MAX, config::CARRIERS},
    window::Window,
};

/// Steps over white space before a value. `tracestate` has none there: it would be part of the value.
#[inline(always)]
pub fn begin(head: &mut Head, window: &Window) -> Flow {
    if head.field != kind::TRACESTATE && head.at < head.limit && is_space(window.byte(head.at)) {
        head.at += 1;
        return Flow::More;
    }
    head.mark = head.at;
    if head.field == kind::OWN || head.field == kind::LENGTH {
        head.stop = head.limit;
        return head.go(state::TRIM);
    }
    head.go(state::UNTIL)
}

/// Takes white space off a value's end, then reads the value.
#[inline(always)]
pub fn trim(head: &mut Head, window: &Window) -> Flow {
    if head.stop > head.mark && is_space(window.byte(head.stop - 1)) {
        head.stop -= 1;
        return Flow::More;
    }
    if head.field == kind::LENGTH {
        if head.stop == head.mark {
            head.fault();
            return head.resume();
        }
        head.number = 0;
        return head.go(state::DIGITS);
    }
    head.go(state::KEY)
}

/// Reads digits of a `Content-Length`, up to eight.
#[inline(always)]
pub fn digits(head: &mut Head, window: &Window) -> Flow {
    let mut word = window.eight(head.mark);
    let mut i = 0;
    while i < 8 {
        if head.mark >= head.stop {
            length(head, head.number);
            return head.resume();
        }
        let digit = (word as u8).wrapping_sub(b'0');
        // one more digit must not reach 2^63: positions are sums of lengths
        if digit > 9 || head.number >= 1 << 59 {
            head.fault();
            return head.resume();
        }
        head.number = head.number * 10 + u64::from(digit);
        head.mark += 1;
        word >>= 8;
        i += 1;
    }
    Flow::More
}

/// Takes the number of a `Content-Length` in.
#[inline(always)]
pub const fn length(head: &mut Head, number: u64) {
    if head.seen & SEEN_LENGTH != 0 && head.length != number {
        head.fault();
    }
    head.seen |= SEEN_LENGTH;
    head.length = number;
}

/// Takes a key as it stands, if it is valid.
#[inline(always)]
pub fn key(head: &mut Head, found: &mut Found, window: &Window) -> Flow {
    let index = head.index as usize % CARRIERS;
    if head.found >> index & 1 != 0 {
        head.duplicate += 1;
        return after(head);
    }
    let len = head.stop.wrapping_sub(head.mark);
    // three bytes for each of a key's at most
    if len == 0 || len > 3 * KEY_MAX as u32 {
        head.invalid += 1;
        return after(head);
    }
    let mut bad = 0;
    let mut escaped = 0;
    for (i, part) in found.keys[index].key.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let before = i as u32 * 8;
        if before >= len {
            *part = [0; 8];
            continue;
        }
        let word = window.eight(head.mark + before);
        let mask = first(len - before);
        bad |= swar::not_key(word) & mask;
        escaped |= swar::equal(word, b'%') & mask;
        *part = (word & mask).to_le_bytes();
    }
    if escaped != 0 && head.field == kind::BAGGAGE {
        found.keys[index].key = [0; KEY_MAX + 1];
        head.out = 0;
        return head.go(state::DECODE);
    }
    if bad != 0 || len > KEY_MAX as u32 {
        head.invalid += 1;
    } else {
        accept(head);
    }
    after(head)
}

/// Decodes one byte of a key that is percent-encoded.
#[inline(always)]
pub fn decode(head: &mut Head, found: &mut Found, window: &Window) -> Flow {
    let index = head.index as usize % CARRIERS;
    if head.mark >= head.stop {
        // what is decoded has at least one byte: it was escaped
        accept(head);
        return after(head);
    }
    let word = window.eight(head.mark);
    let mut byte = word as u8;
    let mut used = 1;
    if byte == b'%' {
        let (high, low) = (hex((word >> 8) as u8), hex((word >> 16) as u8));
        byte = (high << 4) | (low & 15);
        used = 3;
        if high > 15 || low > 15 {
            byte = 0;
        }
    }
    let bad = swar::not_key(u64::from(byte)) & 0x80 != 0;
    if bad || head.out >= KEY_MAX as u32 || head.stop - head.mark < used {
        head.invalid += 1;
        return after(head);
    }
    found.keys[index].key[head.out as usize % (KEY_MAX + 1)] = byte;
    head.out += 1;
    head.mark += used;
    Flow::More
}

/// The value of a hexadecimal digit; 16 and more for what is none.
#[inline(always)]
pub const fn hex(byte: u8) -> u8 {
    let digit = byte.wrapping_sub(b'0');
    if digit <= 9 {
        return digit;
    }
    let letter = (byte | 0x20).wrapping_sub(b'a');
    if letter <= 5 { letter + 10 } else { 16 }
}

/// The carrier's key is found.
#[inline(always)]
const fn accept(head: &mut Head) {
    let bit = 1 << (head.index as usize % CARRIERS);
    head.found |= bit;
    head.fresh |= bit;
}

/// Goes on behind a key.
#[inline(always)]
const fn after(head: &mut Head) -> Flow {
    if head.field == kind::OWN { head.resume() } else { head.go(state::SKIP) }
}
