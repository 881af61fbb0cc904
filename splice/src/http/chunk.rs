//! Following a chunked body (RFC 9112, section 7.1) by position.
//!
//! The bytes of a chunk are never read: [`Framing::pos`] goes ahead of them, and the host fetches the next block where
//! it stands. A line may end in a bare `\n`, and the trailer ends where the most lenient server would end it. Trailer
//! fields carry no key.

use super::value::hex;
use crate::abi::record::{FRAMING_CHUNKED, FRAMING_HEAD, FRAMING_LOST, Framing};

/// How many bytes one step is given.
pub const BLOCK: usize = 16;

/// Nothing of a chunk's size was read.
const SIZE: u32 = 0;
/// At least one digit of it was.
const DIGITS: u32 = 1;
/// The line of the size ends: a line feed must follow.
const SIZE_END: u32 = 2;
/// In a chunk extension.
const EXTENSION: u32 = 3;
/// Behind a chunk's bytes: a line end must follow.
const DATA_END: u32 = 4;
/// A carriage return stood there.
const DATA_LF: u32 = 5;
/// A line of the trailer begins.
const TRAILER: u32 = 6;
/// It began with a carriage return.
const TRAILER_CR: u32 = 7;
/// Inside a line of the trailer.
const TRAILER_LINE: u32 = 8;

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
pub const fn start(pos: u64) -> Framing {
    Framing { pos, size: 0, state: FRAMING_CHUNKED, chunk: SIZE }
}

/// Reads on with the first `valid` of the bytes that stand at [`Framing::pos`].
///
/// It takes all of them, or comes to an end, or sends the position behind them: sixteen bytes a step at least.
#[inline(always)]
pub fn step(framing: &mut Framing, bytes: &[u8; BLOCK], valid: u32) -> Flow {
    let mut chunk = framing.chunk;
    let mut size = framing.size;
    // bytes of chunks within this block that are passed over
    let mut skip = 0_u64;
    let mut i = 0;
    while i < BLOCK {
        if i as u32 >= valid {
            break;
        }
        let byte = bytes[i];
        i += 1;
        if skip > 0 {
            skip -= 1;
            continue;
        }
        match next(chunk, byte, &mut size) {
            Next::State(state) => chunk = state,
            Next::Data => {
                chunk = DATA_END;
                skip = size;
                size = 0;
            }
            Next::End => {
                *framing = Framing { pos: framing.pos.wrapping_add(i as u64), size: 0, state: FRAMING_HEAD, chunk: 0 };
                return Flow::Done;
            }
            Next::Bad => {
                framing.state = FRAMING_LOST;
                return Flow::Bad;
            }
        }
    }
    framing.pos = framing.pos.wrapping_add(i as u64).wrapping_add(skip);
    framing.size = size;
    framing.chunk = chunk;
    Flow::More
}

/// What one byte leads to.
enum Next {
    State(u32),
    /// The bytes of a chunk follow.
    Data,
    /// It was the last of the body.
    End,
    Bad,
}

#[inline(always)]
fn next(chunk: u32, byte: u8, size: &mut u64) -> Next {
    match (chunk, byte) {
        (SIZE_END | EXTENSION | DIGITS, b'\n') if *size == 0 => Next::State(TRAILER),
        (SIZE_END | EXTENSION | DIGITS, b'\n') => Next::Data,
        (DIGITS, b'\r') => Next::State(SIZE_END),
        (DIGITS, b';' | b' ' | b'\t') | (EXTENSION, _) => Next::State(EXTENSION),
        (SIZE | DIGITS, _) => {
            let digit = hex(byte);
            // one more digit must not reach 2^63: positions are sums of sizes
            if digit > 15 || *size >= 1 << 59 {
                return Next::Bad;
            }
            *size = (*size << 4) | u64::from(digit);
            Next::State(DIGITS)
        }
        (DATA_END, b'\r') => Next::State(DATA_LF),
        (DATA_END | DATA_LF, b'\n') => Next::State(SIZE),
        (TRAILER | TRAILER_CR, b'\n') => Next::End,
        (TRAILER, b'\r') => Next::State(TRAILER_CR),
        (TRAILER_LINE, b'\n') => Next::State(TRAILER),
        (TRAILER | TRAILER_CR | TRAILER_LINE, _) => Next::State(TRAILER_LINE),
        _ => Next::Bad,
    }
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
