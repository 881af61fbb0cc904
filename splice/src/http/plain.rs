//! Lines as they are mostly written.

use super::{
    FLAG_KEEP_ALIVE, Head, REQUEST,
    kind::{CARRIER, FRAMING},
    list,
    swar::{self, ascii, lower},
    value,
};
use crate::{abi::config::Config, window::Window};

/// Reads a line that passed the filter, if it is one of those that heads often have, written as they always are: a
/// `Content-Length` of few digits, a `Connection` that says one thing, a `baggage` without a key. Whether it was, or a
/// field of no interest.
#[inline(always)]
pub fn plain(head: &mut Head, window: &Window, config: &Config, word: u64) -> bool {
    let (mark, limit) = (head.mark, head.limit);
    if word == ascii(*b"content-") {
        if lower(window.eight(mark + 7)) != ascii(*b"-length:") {
            return !swar::may_have(config.own, swar::coarse(word))
                && lower(window.eight(mark + 6)) != ascii(*b"t-length");
        }
        let from = mark + 15 + u32::from(window.byte(mark + 15) == b' ');
        let digits = limit.wrapping_sub(from);
        if digits.wrapping_sub(1) >= 8 {
            return false;
        }
        let Some(number) = swar::number(window.eight(from), digits) else { return false };
        head.last = FRAMING;
        value::length(head, number);
        return true;
    }
    let baggage = word == ascii(*b"baggage:");
    if baggage || (word == ascii(*b"tracesta") && lower(window.eight(mark + 3)) == ascii(*b"cestate:")) {
        let (filter, from) = if baggage { (config.baggage, 8) } else { (config.tracestate, 11) };
        if head.kind != REQUEST || !list::foreign(head, window, filter, mark + from) {
            return false;
        }
        head.fresh = 0;
        head.last = CARRIER;
        return true;
    }
    let kept = word == ascii(*b"connecti")
        && lower(window.eight(mark + 8)) == ascii(*b"on: keep")
        && lower(window.eight(mark + 14)) == ascii(*b"ep-alive")
        && limit == mark + 22;
    if kept {
        head.last = FRAMING;
        head.flags |= FLAG_KEEP_ALIVE;
    }
    kept
}
