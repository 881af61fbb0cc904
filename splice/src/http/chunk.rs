//! Following a chunked body (RFC 9112, section 7.1) by position.
//!
//! The bytes of a chunk are never read: [`Framing::pos`] goes ahead of them, and the host fetches the next block where
//! it stands. A line may end in a bare `\n`, and the trailer ends where the most lenient server would end it. Trailer
//! fields carry no key.

use super::value::hex;
use crate::abi::record::{FRAMING_HEAD, FRAMING_LOST, Framing};

/// How many bytes one step is given. The smallest chunk has four (`1\nx\n`) and takes one step.
pub const BLOCK: usize = 16;

/// What the automaton can be at; the first nine are kept in [`Framing::chunk`].
mod state {
    /// Nothing of a chunk's size was read.
    pub const SIZE: u32 = 0;
    /// At least one digit of it was.
    pub const DIGITS: u32 = 1;
    /// The line of the size ends: a line feed must follow.
    pub const SIZE_END: u32 = 2;
    /// In a chunk extension.
    pub const EXTENSION: u32 = 3;
    /// Behind a chunk's bytes: a line end must follow.
    pub const DATA_END: u32 = 4;
    /// A carriage return stood there.
    pub const DATA_LF: u32 = 5;
    /// A line of the trailer begins.
    pub const TRAILER: u32 = 6;
    /// It began with a carriage return.
    pub const TRAILER_CR: u32 = 7;
    /// Inside a line of the trailer.
    pub const TRAILER_LINE: u32 = 8;
    /// The line of a size is complete.
    pub const SIZED: u32 = 9;
    /// The body has ended.
    pub const END: u32 = 10;
    /// This byte cannot stand here.
    pub const BAD: u32 = 15;
}
use state::{BAD, DATA_END, DATA_LF, DIGITS, END, EXTENSION, SIZE, SIZE_END, SIZED, TRAILER, TRAILER_CR, TRAILER_LINE};

/// What a kind of byte leads to: four bits for each state, the first in the lowest. One number for each kind, because
/// the verifier then has one state to follow for each byte, where a branch for each transition gave it nine.
const fn row(next: [u32; 9]) -> u64 {
    let mut row = 0;
    let mut i = 0;
    while i < next.len() {
        row |= (next[i] as u64) << (i * 4);
        i += 1;
    }
    // no other state is kept; if one were read, it would be refused
    row | !0 << (next.len() * 4)
}
const LINE_FEED: u64 = row([BAD, SIZED, SIZED, SIZED, SIZE, SIZE, END, END, TRAILER]);
const RETURN: u64 = row([BAD, SIZE_END, BAD, EXTENSION, DATA_LF, BAD, TRAILER_CR, TRAILER_LINE, TRAILER_LINE]);
const DIGIT: u64 = row([DIGITS, DIGITS, BAD, EXTENSION, BAD, BAD, TRAILER_LINE, TRAILER_LINE, TRAILER_LINE]);
/// A semicolon, or white space.
const BEHIND_SIZE: u64 = row([BAD, EXTENSION, BAD, EXTENSION, BAD, BAD, TRAILER_LINE, TRAILER_LINE, TRAILER_LINE]);
const OTHER: u64 = row([BAD, BAD, BAD, EXTENSION, BAD, BAD, TRAILER_LINE, TRAILER_LINE, TRAILER_LINE]);

/// What a step came to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Bytes at [`Framing::pos`] are needed, which may lie behind what was given.
    More = 0,
    /// The body has ended: [`Framing::pos`] is behind it, and the framing is [`FRAMING_HEAD`] again.
    Done = 1,
    /// This is no chunked body: the framing is [`FRAMING_LOST`].
    Bad = 2,
}

/// The framing of a chunked body whose first byte is at `pos`.
#[inline(always)]
#[must_use]
pub fn start(pos: u64) -> Framing {
    const { assert!(SIZE == 0) };
    Framing::chunked(pos)
}

/// Reads on with the first `valid` of the bytes that stand at [`Framing::pos`].
///
/// It takes all of them, or ends with the body, or with the line that says a chunk's size: the position is then behind
/// the chunk's bytes.
#[inline(always)]
pub fn step(framing: &mut Framing, bytes: &[u8; BLOCK], valid: u32) -> Flow {
    let mut chunk = framing.chunk;
    let mut size = framing.size;
    let mut over = 0;
    let mut i = 0;
    while i < BLOCK {
        if i as u32 >= valid {
            break;
        }
        let byte = bytes[i];
        i += 1;
        let digit = hex(byte);
        let row = match byte {
            b'\n' => LINE_FEED,
            b'\r' => RETURN,
            b';' | b' ' | b'\t' => BEHIND_SIZE,
            _ if digit <= 15 => DIGIT,
            _ => OTHER,
        };
        chunk = (row >> ((chunk & 15) * 4)) as u32 & 15;
        // Four ones if the byte is a digit of the size. One more digit must not reach 2^63: positions are sums of sizes.
        let take = ((15_u64 << (DIGITS * 4)) >> (chunk * 4)) & 15;
        over |= size >> 59 & take;
        size = (size << (take & 4)) | (u64::from(digit) & take);
        if chunk < SIZED {
            continue;
        }
        framing.pos = framing.pos.wrapping_add(i as u64);
        if over != 0 {
            chunk = BAD;
        }
        framing.size = 0;
        if chunk == SIZED {
            framing.pos = framing.pos.wrapping_add(size);
            framing.chunk = if size == 0 { TRAILER } else { DATA_END };
            return Flow::More;
        }
        framing.chunk = SIZE;
        if chunk == END {
            framing.state = FRAMING_HEAD;
            return Flow::Done;
        }
        framing.state = FRAMING_LOST;
        return Flow::Bad;
    }
    framing.pos = framing.pos.wrapping_add(i as u64);
    framing.size = size;
    framing.chunk = chunk;
    if over != 0 {
        framing.state = FRAMING_LOST;
        return Flow::Bad;
    }
    Flow::More
}

/// Reads on with `data`, whose first byte is at position `base`, until it ends or the framing says so.
#[cfg(any(test, feature = "std"))]
pub fn run(framing: &mut Framing, base: u64, data: &[u8]) -> Flow {
    let end = base + data.len() as u64;
    while framing.pos < end {
        let at = (framing.pos - base) as usize;
        let part = &data[at..data.len().min(at + BLOCK)];
        let mut block = [0; BLOCK];
        block[..part.len()].copy_from_slice(part);
        let flow = step(framing, &block, part.len() as u32);
        if flow != Flow::More {
            return flow;
        }
    }
    Flow::More
}

#[cfg(test)]
mod tests;
