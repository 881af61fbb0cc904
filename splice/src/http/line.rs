//! Finding lines, and the end of the head.

use super::{
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_REST, FLAG_HTTP10, Flow, Head, REQUEST, SEEN_FAULT, SEEN_LENGTH,
    STATUS_COMPLETE, STATUS_INCOMPLETE, STATUS_UNREADABLE, field, state,
    swar::{self, Search},
};
use crate::window::Window;

/// Searches that one step makes: each finds a line, or that a block has no line end.
const SEARCHES: usize = 4;

/// Finds the ends of lines, up to the first line that is worth a closer look. What a line is gets decided when all of
/// it is there.
#[inline(always)]
pub fn end(head: &mut Head, window: &Window) -> Flow {
    let mut n = 0;
    while n < SEARCHES {
        n += 1;
        let end = match swar::find(window, head.at, b'\n', b'\n') {
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
        // an empty line, a carriage return alone, or white space
        if byte <= b' ' {
            if start == end || (start + 1 == end && byte == b'\r') {
                head.end = end + 1;
                return finish(head);
            }
            if byte == b' ' || byte == b'\t' {
                return fold(head);
            }
        }
        head.last = field::OTHER;
        if head.filters[0] >> swar::slot(swar::coarse(word)) & 1 != 0 {
            head.mark = start;
            head.limit = end;
            return head.go(state::NAME);
        }
    }
    Flow::More
}

/// A line that begins with white space goes on with the one before it (`obs-fold`, RFC 9112, section 5.2). Behind the
/// first line of a head it is the classic way to hide a field (section 2.2).
#[inline(always)]
const fn fold(head: &mut Head) -> Flow {
    match head.last {
        field::START | field::FRAMING => head.fault(),
        field::CARRIER => {
            head.found &= !head.fresh;
            head.invalid += 1;
        }
        _ => {}
    }
    head.last = field::OTHER;
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
        (REQUEST, field::TE_CHUNKED) if !old => BODY_CHUNKED,
        (REQUEST, field::TE_NONE) if sized => BODY_LENGTH,
        (REQUEST, field::TE_NONE) => BODY_NONE,
        (REQUEST, _) => return head.done(STATUS_UNREADABLE),
        (_, field::TE_CHUNKED) if !old => BODY_CHUNKED,
        (_, field::TE_NONE) if sized => BODY_LENGTH,
        _ => BODY_REST,
    };
    head.done(STATUS_COMPLETE)
}
