//! Values that are lists, separated by commas.

use core::hint::black_box;

use super::{
    FLAG_CLOSE, FLAG_EXPECT, FLAG_KEEP_ALIVE, Flow, Head,
    byte::is_space,
    field, kind, state,
    swar::{self, Search, ascii, first, lower},
};
use crate::{
    abi::config::{CARRIER_BAGGAGE, CARRIER_TRACESTATE, Config},
    window::Window,
};

/// Whether the head is at the members of a list.
#[inline(always)]
pub const fn within(head: &Head) -> bool {
    head.state == state::SKIP || head.state == state::ITEM
}

/// Steps over members, `N` at most, up to the first one that may be a carrier.
#[inline(always)]
pub fn members<const N: usize>(head: &mut Head, window: &Window, config: &Config) -> Flow {
    let mut n = 0;
    while n < N {
        n += 1;
        let head = black_box(&mut *head);
        if head.state == state::SKIP {
            skip(head, window);
        }
        let head = black_box(&mut *head);
        if head.state == state::ITEM {
            item(head, window, config);
        }
        if !within(head) {
            break;
        }
    }
    Flow::More
}

/// Finds the start of a member, and looks at it.
#[inline(always)]
fn item(head: &mut Head, window: &Window, config: &Config) -> Flow {
    if head.at < head.limit && between(window.byte(head.at)) {
        head.at += 1;
    }
    if head.at >= head.limit {
        return head.resume();
    }
    let at = head.at;
    let word = window.eight(at);
    if between(word as u8) {
        return Flow::More;
    }
    match head.field {
        kind::BAGGAGE | kind::TRACESTATE => {
            let filter = if head.field == kind::BAGGAGE { config.baggage } else { config.tracestate };
            if swar::may_have(filter, word) {
                head.mark = at;
                head.index = 0;
                return head.go(state::MEMBER);
            }
        }
        kind::CODING => {
            let chunked = lower(word) & first(7) == ascii(*b"chunked\0") && ends(head, window, at + 7);
            head.coding = match (head.coding, chunked) {
                (kind::TE_NONE | kind::TE_OTHER, true) => kind::TE_CHUNKED,
                (kind::TE_NONE | kind::TE_OTHER, false) => kind::TE_OTHER,
                // chunked is not the last one, or is applied twice: RFC 9112, section 7
                _ => kind::TE_BAD,
            };
        }
        kind::CONNECTION => {
            if lower(word) & first(5) == ascii(*b"close\0\0\0") && ends(head, window, at + 5) {
                head.flags |= FLAG_CLOSE;
            }
            if lower(word) == ascii(*b"keep-ali")
                && lower(window.eight(at + 2)) == ascii(*b"ep-alive")
                && ends(head, window, at + 10)
            {
                head.flags |= FLAG_KEEP_ALIVE;
            }
        }
        _ => {
            if lower(word) == ascii(*b"100-cont")
                && lower(window.eight(at + 4)) == ascii(*b"continue")
                && ends(head, window, at + 12)
            {
                head.flags |= FLAG_EXPECT;
            }
        }
    }
    head.go(state::SKIP)
}

/// Whether a byte can stand between members.
#[inline(always)]
const fn between(byte: u8) -> bool {
    byte == b',' || is_space(byte)
}

/// Whether a member that is a token ends at `at`.
#[inline(always)]
const fn ends(head: &Head, window: &Window, at: u32) -> bool {
    at == head.limit || (at < head.limit && matches!(window.byte(at), b' ' | b'\t' | b','))
}

/// How many members [`foreign`] looks at.
const MEMBERS: u32 = 6;

/// Whether the list from `at` to the end of the line has a few members, written as they always are, and none of them may be a
/// carrier: nothing is left to read of it. If not, it is read member by member.
#[inline(always)]
pub fn foreign(head: &mut Head, window: &Window, filter: u64, at: u32) -> bool {
    head.at = at;
    let mut n = 0;
    while n < MEMBERS {
        n += 1;
        let head = black_box(&mut *head);
        let at = head.at + u32::from(window.byte(head.at) == b' ');
        if at >= head.limit {
            return true;
        }
        let word = window.eight(at);
        if between(word as u8) || swar::may_have(filter, word) {
            return false;
        }
        match swar::find(window, at, b',', b',') {
            Search::At(end) if end < head.limit => head.at = end + 1,
            Search::From(next) if next < head.limit => return false,
            _ => return true,
        }
    }
    false
}

/// Compares a member's first bytes with the carriers' names, from number `index` on.
#[inline(always)]
pub fn member(head: &mut Head, window: &Window, config: &Config) -> Flow {
    let carrier = if head.field == kind::BAGGAGE { CARRIER_BAGGAGE } else { CARRIER_TRACESTATE };
    let found = field::candidate(head, config, carrier, window.eight(head.mark));
    head.go(if found { state::MATCH } else { state::SKIP })
}

/// Steps over white space behind a name, to the equals sign.
#[inline(always)]
pub fn equals(head: &mut Head, window: &Window) -> Flow {
    if head.at >= head.limit {
        return head.resume();
    }
    let byte = window.byte(head.at);
    if byte == b'=' {
        head.at += 1;
        return head.go(state::VALUE);
    }
    if is_space(byte) {
        head.at += 1;
        return Flow::More;
    }
    head.go(state::SKIP)
}

/// Finds the end of a member's value: in `baggage`, properties follow behind a semicolon.
#[inline(always)]
pub fn until(head: &mut Head, window: &Window) -> Flow {
    let properties = if head.field == kind::BAGGAGE { b';' } else { b',' };
    let end = match swar::find(window, head.at, b',', properties) {
        Search::At(end) if end < head.limit => end,
        Search::From(at) if at < head.limit => {
            head.at = at;
            return Flow::More;
        }
        _ => head.limit,
    };
    head.at = end;
    head.stop = end;
    head.go(state::TRIM)
}

/// Steps over the rest of a member.
#[inline(always)]
fn skip(head: &mut Head, window: &Window) -> Flow {
    match swar::find(window, head.at, b',', b',') {
        Search::At(end) if end < head.limit => {
            head.at = end + 1;
            head.go(state::ITEM)
        }
        Search::From(at) if at < head.limit => {
            head.at = at;
            Flow::More
        }
        _ => head.resume(),
    }
}
