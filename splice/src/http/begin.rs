//! The first line of a head, and what is none.

use super::{
    FLAG_CONNECT, FLAG_HEAD, FLAG_HTTP10, Flow, Head, REQUEST, STATUS_HTTP2, STATUS_INCOMPLETE, STATUS_NOT_HTTP,
    STATUS_TLS, STATUS_UNREADABLE,
    byte::is_token,
    state,
    swar::{self, Search, ascii, first as low_bytes, lowest},
};
use crate::window::Window;

/// Longest method that is taken for one. The longest registered has 17 bytes.
const METHOD_MAX: u32 = 32;

/// Skips blank lines before a request, then decides by the first bytes.
#[inline(always)]
pub fn first(head: &mut Head, window: &Window) -> Flow {
    if head.at >= head.len {
        return head.done(STATUS_INCOMPLETE);
    }
    let word = window.eight(head.at);
    let byte = word as u8;
    if head.kind == REQUEST && (byte == b'\r' || byte == b'\n') {
        head.at += 1;
        head.start = head.at;
        head.line = head.at;
        return Flow::More;
    }
    if head.kind != REQUEST {
        return status_line(head, window);
    }
    if byte == 0x16 && (head.at + 1 == head.len || word as u16 == 0x0316) {
        return head.done(STATUS_TLS);
    }
    if word & low_bytes(5) == ascii(*b"HEAD \0\0\0") {
        head.flags |= FLAG_HEAD;
    }
    if word == ascii(*b"CONNECT ") {
        head.flags |= FLAG_CONNECT;
    }
    // a method of capital letters, and the space behind it, at once
    let capitals = lowest(swar::not_capital(word) | (1 << 63));
    if byte.is_ascii_uppercase() && (word >> (capitals * 8)) as u8 == b' ' && head.at + capitals < head.len {
        head.at += capitals + 1;
        head.mark = head.at;
        return head.go(state::TARGET);
    }
    head.go(state::METHOD)
}

/// Reads a method: a token, then a space.
#[inline(always)]
pub fn method(head: &mut Head, window: &Window) -> Flow {
    let mut word = window.eight(head.at);
    let mut i = 0;
    while i < 8 {
        if head.at >= head.len {
            return head.done(STATUS_INCOMPLETE);
        }
        let byte = word as u8;
        if byte == b' ' && head.at > head.start {
            head.at += 1;
            head.mark = head.at;
            return head.go(state::TARGET);
        }
        if !is_token(byte) || head.at - head.start >= METHOD_MAX {
            return head.done(STATUS_NOT_HTTP);
        }
        head.at += 1;
        word >>= 8;
        i += 1;
    }
    Flow::More
}

/// Finds the end of the first line. Of a response's, nothing is left to read.
#[inline(always)]
pub fn target(head: &mut Head, window: &Window) -> Flow {
    match swar::line_end(window, head.at) {
        Search::At(end) if end < head.len => {
            head.stop = end;
            head.line = end + 1;
            head.at = end + 1;
            head.go(if head.kind == REQUEST { state::VERSION } else { state::LINE })
        }
        Search::From(at) if at < head.len => {
            head.at = at;
            Flow::More
        }
        _ => head.done(STATUS_INCOMPLETE),
    }
}

/// Reads the version that ends a request's first line, and steps over white space behind it, as lenient servers do
/// (RFC 9112, section 3).
#[inline(always)]
pub fn version(head: &mut Head, window: &Window) -> Flow {
    // a target of one byte, a space, `HTTP/1.1`
    if head.stop < head.mark + 10 {
        return head.done(STATUS_NOT_HTTP);
    }
    let blank = |at: u32| matches!(window.byte(at), b'\r' | b' ' | b'\t');
    if blank(head.stop - 1) {
        head.stop -= 1;
        // mostly the carriage return of the line end
        if head.stop < head.mark + 10 || blank(head.stop - 1) {
            return Flow::More;
        }
    }
    if window.byte(head.stop - 9) != b' ' {
        return head.done(STATUS_NOT_HTTP);
    }
    let version = window.eight(head.stop - 8);
    if version == ascii(*b"HTTP/2.0") && window.eight(head.start) & low_bytes(6) == ascii(*b"PRI * \0\0") {
        return head.done(STATUS_HTTP2);
    }
    if !version_one(head, version) {
        return head.done(STATUS_NOT_HTTP);
    }
    head.go(state::LINE)
}

/// Whether a word is `HTTP/1.` and a digit.
#[inline(always)]
const fn version_one(head: &mut Head, word: u64) -> bool {
    let minor = (word >> 56) as u8;
    if minor == b'0' {
        head.flags |= FLAG_HTTP10;
    }
    word & low_bytes(7) == ascii(*b"HTTP/1.\0") && minor.is_ascii_digit()
}

/// Reads version and code of a response.
#[inline(always)]
fn status_line(head: &mut Head, window: &Window) -> Flow {
    let at = head.at;
    let have = head.len - at;
    let word = window.eight(at);
    // `HTTP/1.` as far as it is there
    if (word ^ ascii(*b"HTTP/1.\0")) & low_bytes(if have < 7 { have } else { 7 }) != 0 {
        return head.done(STATUS_NOT_HTTP);
    }
    // and the code with the byte behind it
    if have < 13 {
        return head.done(STATUS_INCOMPLETE);
    }
    let code = window.eight(at + 8);
    let digit = |i: u32| u32::from(((code >> (i * 8)) as u8).wrapping_sub(b'0'));
    let (a, b, c) = (digit(1), digit(2), digit(3));
    let behind = (code >> 32) as u8;
    if !version_one(head, word)
        || code as u8 != b' '
        || a == 0
        || a > 9
        || b > 9
        || c > 9
        || !matches!(behind, b' ' | b'\t' | b'\r' | b'\n')
    {
        return head.done(STATUS_UNREADABLE);
    }
    head.code = a * 100 + b * 10 + c;
    head.at = at + 12;
    head.go(state::TARGET)
}
