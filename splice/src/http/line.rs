//! Finding lines, and the end of the head.

use core::hint::black_box;

use super::{
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_REST, FLAG_HTTP10, Flow, Head, REQUEST, SEEN_FAULT, SEEN_LENGTH,
    STATUS_COMPLETE, STATUS_INCOMPLETE, STATUS_UNREADABLE, kind, plain, state,
    swar::{self, Search, lower},
};
use crate::{abi::config::Config, window::Window};

/// Finds the ends of lines, up to the first one that needs more than a short look. What a line is gets decided when all
/// of it is there. Makes `N` searches at most: each finds a line, or that a block has no line end.
#[inline(always)]
pub fn end<const N: usize>(head: &mut Head, window: &Window, config: &Config) -> Flow {
    let filter = &config.fields[head.kind as usize & 1];
    let mut n = 0;
    while n < N {
        n += 1;
        let head = black_box(&mut *head);
        let end = match swar::line_end(window, head.at) {
            Search::At(end) if end < head.len => end,
            Search::From(at) if at < head.len => {
                head.at = at;
                continue;
            }
            _ => return head.done(STATUS_INCOMPLETE),
        };
        let start = head.line;
        head.line = end + 1;
        head.at = end + 1;
        let word = window.eight(start);
        let byte = word as u8;
        if byte > b' ' && !swar::passes(filter, word) {
            head.last = kind::OTHER;
            continue;
        }
        // an empty line, a carriage return alone, or white space
        if byte <= b' ' {
            if start == end || (start + 1 == end && byte == b'\r') {
                head.end = head.slid + end + 1;
                return finish(head);
            }
            if byte == b' ' || byte == b'\t' {
                return fold(head);
            }
        }
        head.last = kind::OTHER;
        head.mark = start;
        // without the carriage return before the line end
        head.limit = end;
        let head = black_box(&mut *head);
        let end = head.limit;
        head.limit = if window.byte(end.wrapping_sub(1)) == b'\r' { end - 1 } else { end };
        if !plain::plain(head, window, config, lower(word)) {
            return head.go(state::NAME);
        }
        head.at = head.line;
    }
    Flow::More
}

/// Steps over the rest of a line.
#[inline(always)]
pub fn rest(head: &mut Head, window: &Window) -> Flow {
    match swar::line_end(window, head.at) {
        Search::At(end) if end < head.len => {
            head.line = end + 1;
            head.at = end + 1;
            head.go(state::LINE)
        }
        Search::From(at) if at < head.len => {
            head.at = at;
            Flow::More
        }
        _ => head.done(STATUS_INCOMPLETE),
    }
}

/// A line that begins with white space goes on with the one before it (`obs-fold`, RFC 9112, section 5.2). Behind the
/// first line of a head it is the classic way to hide a field (section 2.2).
#[inline(always)]
pub const fn fold(head: &mut Head) -> Flow {
    match head.last {
        kind::START | kind::FRAMING => head.fault(),
        kind::CARRIER => {
            head.found &= !head.fresh;
            head.invalid += 1;
        }
        _ => {}
    }
    head.last = kind::OTHER;
    Flow::More
}

/// The body that follows (RFC 9112, section 6.3).
#[inline(always)]
const fn finish(head: &mut Head) -> Flow {
    let old = head.flags & FLAG_HTTP10 != 0;
    let sized = head.seen & SEEN_LENGTH != 0;
    if head.seen & SEEN_FAULT != 0 {
        return head.done(STATUS_UNREADABLE);
    }
    head.body = match (head.kind, head.coding) {
        // section 6.1: a transfer coding in HTTP/1.0 is faulty framing
        (REQUEST, kind::TE_CHUNKED) if !old => BODY_CHUNKED,
        (REQUEST, kind::TE_NONE) if sized => BODY_LENGTH,
        (REQUEST, kind::TE_NONE) => BODY_NONE,
        (REQUEST, _) => return head.done(STATUS_UNREADABLE),
        (_, kind::TE_CHUNKED) if !old => BODY_CHUNKED,
        (_, kind::TE_NONE) if sized => BODY_LENGTH,
        _ => BODY_REST,
    };
    head.done(STATUS_COMPLETE)
}
