//! Which field a line is.

use core::hint::black_box;

use super::{
    FLAG_UPGRADE, Flow, Head, REQUEST,
    byte::{is_space, is_token},
    kind::{
        BAGGAGE, CARRIER, CODING, CONNECTION, EXPECT, FRAMING, LENGTH, OTHER, OWN, TE_NONE, TE_OTHER, TRACESTATE,
        UPGRADE,
    },
    state,
    swar::{self, ascii, first, lower},
};
#[cfg(any(test, feature = "std"))]
use crate::abi::config::FILTER_WORDS;
use crate::{
    abi::config::{CARRIER_HEADER, CARRIERS, Config},
    carrier,
    window::Window,
};

/// The filter of the names that every head may have.
#[cfg(any(test, feature = "std"))]
pub const FIXED: [u64; FILTER_WORDS] = {
    let names = [b"content-", b"transfer", b"connecti", b"expect: ", b"upgrade:"];
    let mut filter = [0; FILTER_WORDS];
    let mut i = 0;
    while i < names.len() {
        swar::note(&mut filter, ascii(*names[i]));
        i += 1;
    }
    filter
};

/// Compares the name of a line with those that every head may have.
#[inline(always)]
pub fn name(head: &mut Head, window: &Window) -> Flow {
    let mark = head.mark;
    let word = lower(window.eight(mark));
    let (field, len) = if word == ascii(*b"content-") && lower(window.eight(mark + 6)) == ascii(*b"t-length") {
        (LENGTH, 14)
    } else if word == ascii(*b"transfer")
        && lower(window.eight(mark + 8)) == ascii(*b"-encodin")
        && lower(window.eight(mark + 9)) == ascii(*b"encoding")
    {
        (CODING, 17)
    } else if word == ascii(*b"connecti") && lower(window.eight(mark + 2)) == ascii(*b"nnection") {
        (CONNECTION, 10)
    } else if word & first(6) == ascii(*b"expect\0\0") {
        (EXPECT, 6)
    } else if word & first(7) == ascii(*b"upgrade\0") {
        (UPGRADE, 7)
    } else if word & first(7) == ascii(*b"baggage\0") {
        (BAGGAGE, 7)
    } else if word == ascii(*b"tracesta") && lower(window.eight(mark + 2)) == ascii(*b"acestate") {
        (TRACESTATE, 10)
    } else {
        (OTHER, 0)
    };
    let carries = field == BAGGAGE || field == TRACESTATE;
    let behind = window.byte(mark + len);
    if field == OTHER || (carries && head.kind != REQUEST) || (behind != b':' && is_token(behind)) {
        head.index = 0;
        return head.go(state::OWN);
    }
    if carries {
        head.fresh = 0;
        head.last = CARRIER;
        if behind != b':' {
            return malformed(head);
        }
    } else {
        head.last = FRAMING;
        if behind != b':' {
            head.fault();
            return head.resume();
        }
    }
    head.field = field;
    head.at = mark + len + 1;
    match field {
        LENGTH => head.go(state::VALUE),
        UPGRADE => {
            head.flags |= FLAG_UPGRADE;
            head.resume()
        }
        _ => {
            if field == CODING && head.coding == TE_NONE {
                head.coding = TE_OTHER;
            }
            head.go(state::ITEM)
        }
    }
}

/// Compares the first bytes of a line with the carriers' own headers, from number `index` on.
#[inline(always)]
pub fn own(head: &mut Head, window: &Window, config: &Config) -> Flow {
    if head.kind != REQUEST {
        return head.resume();
    }
    head.field = OWN;
    let word = window.eight(head.mark);
    if !swar::may_have(config.own, swar::coarse(word)) {
        return head.resume();
    }
    if candidate(head, config, CARRIER_HEADER, lower(word)) { head.go(state::MATCH) } else { head.resume() }
}

/// Goes on from number `index` to the first carrier of `kind` whose name begins with `word`. Whether there is one.
#[inline(always)]
pub fn candidate(head: &mut Head, config: &Config, kind: u32, word: u64) -> bool {
    let mut n = 0;
    while n < CARRIERS {
        n += 1;
        let head = black_box(&mut *head);
        if head.index as usize >= CARRIERS {
            break;
        }
        if carrier::begins(config, kind, head.index, word) {
            return true;
        }
        head.index += 1;
    }
    false
}

/// Compares a whole name, of a header or of a list's member, with carrier number `index`.
#[inline(always)]
pub fn matches(head: &mut Head, window: &Window, config: &Config) -> Flow {
    let mark = head.mark;
    let own = head.field == OWN;
    let again = if own { state::OWN } else { state::MEMBER };
    let word = |i| {
        let word = window.eight(mark + i * 8);
        if own { lower(word) } else { word }
    };
    let Some(len) = carrier::matches(config, head.index, word) else {
        head.index += 1;
        return head.go(again);
    };
    let behind = window.byte(mark + len);
    head.at = mark + len;
    if own {
        if behind == b':' {
            head.fresh = 0;
            head.last = CARRIER;
            head.at += 1;
            return head.go(state::VALUE);
        }
        if !is_token(behind) {
            return malformed(head);
        }
    } else {
        if head.at >= head.limit {
            return head.resume();
        }
        if behind == b'=' || (is_space(behind) && head.field == BAGGAGE) {
            return head.go(state::EQUALS);
        }
    }
    // a longer name that begins alike
    head.index += 1;
    head.go(again)
}

/// A carrier's name with something else than a colon behind it.
#[inline(always)]
const fn malformed(head: &mut Head) -> Flow {
    head.invalid += 1;
    // counted: folding adds nothing
    head.last = OTHER;
    head.resume()
}
