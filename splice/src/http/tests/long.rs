//! Heads beyond the window.

use proptest::prelude::*;

use super::{
    reference::{Outcome, reference},
    *,
};
use crate::http::long::{LONG_MAX, parts};

/// Reads the text in parts of several sizes; it comes out the same each time.
fn long(text: &str) -> (Head, Found) {
    let config = default_carriers();
    let (head, found) = parts(text.as_bytes(), usize::MAX, &config);
    for part in [1000, 1448, 4096, 7240, HEAD_MAX - 1] {
        let (other, with) = parts(text.as_bytes(), part, &config);
        let said = |h: &Head| (h.status, h.end, h.body, h.length, h.flags, h.found, h.invalid, h.duplicate);
        assert_eq!(said(&other), said(&head), "in parts of {part}");
        assert_eq!(keys(&other, &with), keys(&head, &found), "in parts of {part}");
    }
    (head, found)
}

/// Lines of no interest, `len` bytes of them.
fn filler(len: usize) -> String {
    "x-filler: 0123456789 0123456789 0123456789\r\n".repeat(len / 44 + 1)
}

#[test]
fn framing_and_keys_of_a_long_head_are_read_wherever_they_stand() {
    for len in [17_000, 20_000, 40_000, 60_000, 200_000] {
        for field in ["Content-Length: 17", "Connection: close", "baggage: a=b,sidetrack=k1", "x-sidetrack-key: k4"] {
            let (first, last) = ("GET / HTTP/1.1\r\n", "\r\n");
            let early = format!("{first}{field}\r\n{}{last}", filler(len));
            let late = format!("{first}{}{field}\r\n{last}", filler(len));
            let short = fields(field);
            for text in [early, late] {
                let (head, found) = long(&text);
                assert_eq!((head.status, head.end as usize), (STATUS_COMPLETE, text.len()), "{field} {len}");
                assert_eq!((head.body, head.length, head.flags), (short.0.body, short.0.length, short.0.flags));
                assert_eq!(keys(&head, &found), keys(&short.0, &short.1), "{field} {len}");
            }
        }
    }
}

#[test]
fn a_long_cookie_is_stepped_over() {
    for len in [16_300, 16_384, 16_400, 32_768, 40_000, 100_000] {
        let cookie = "c".repeat(len);
        let text = format!("POST / HTTP/1.1\r\nCookie: {cookie}\r\nContent-Length: 5\r\nbaggage: sidetrack=k1\r\n\r\n");
        let (head, found) = long(&text);
        assert_eq!((head.status, head.end as usize, head.length), (STATUS_COMPLETE, text.len(), 5), "{len}");
        assert_eq!(keys(&head, &found), one(0, "k1"));
        // and what it holds is no field
        let text = format!("GET / HTTP/1.1\r\nCookie: {cookie} baggage: sidetrack=k1\n\n");
        let (head, found) = long(&text);
        assert_eq!((head.status, head.end as usize), (STATUS_COMPLETE, text.len()), "{len}");
        assert_eq!(keys(&head, &found), []);
    }
}

#[test]
fn a_long_target_is_stepped_over() {
    for len in [16_370, 16_384, 30_000, 100_000] {
        let text = format!("HEAD /{} HTTP/1.0\r\nbaggage: sidetrack=k1\r\n\r\n", "t".repeat(len));
        let (head, found) = long(&text);
        assert_eq!((head.status, head.end as usize), (STATUS_COMPLETE, text.len()), "{len}");
        assert_eq!((head.flags, keys(&head, &found)), (FLAG_HEAD | FLAG_HTTP10, one(0, "k1")));
        let text = format!("GET /{} HTTP/2.0\r\n\r\n", "t".repeat(len));
        assert_eq!(long(&text).0.status, STATUS_NOT_HTTP);
    }
}

#[test]
fn a_line_that_matters_and_does_not_fit_ends_the_reading() {
    let value = "v".repeat(HEAD_MAX);
    for name in
        ["baggage", "TraceState", "x-sidetrack-key", "Content-Length", "Transfer-Encoding", "Connection", "Expect"]
    {
        let text = format!("GET / HTTP/1.1\r\n{name}: {value}\r\n\r\n");
        assert_eq!(long(&text).0.status, STATUS_MORE, "{name}");
    }
    // blank lines are not read on
    assert_eq!(long(&"\r\n".repeat(HEAD_MAX)).0.status, STATUS_MORE);
}

#[test]
fn folding_takes_a_key_back_in_a_long_head_too() {
    let spaces = " ".repeat(20_000);
    let (head, found) = long(&format!("GET / HTTP/1.1\r\nbaggage: sidetrack=k1\r\n{spaces}x\r\nHost: a\r\n\r\n"));
    assert_eq!((head.status, keys(&head, &found), head.invalid), (STATUS_COMPLETE, vec![], 1));
    let (head, _) = long(&format!("GET / HTTP/1.1\r\n{}Content-Length: 5\r\n{spaces}x\r\n\r\n", filler(20_000)));
    assert_eq!(head.status, STATUS_UNREADABLE);
}

#[test]
fn a_head_of_any_length_that_is_read_is_within_positions() {
    let text = format!("GET / HTTP/1.1\r\n{}\r\n", filler(LONG_MAX as usize));
    let (head, _) = long(&text);
    assert_eq!((head.status, head.end as usize), (STATUS_COMPLETE, text.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn heads_across_the_end_of_the_window_are_read_as_the_reference_reads_them(
        lines in prop::collection::vec(prop::collection::vec(prop::sample::select(&corpus::PIECES[12..]), 0..6), 0..8),
        before in 16_100..16_400_usize,
        part in prop::sample::select(&[usize::MAX, 1448, 50][..]),
    ) {
        let lines: String = lines.into_iter().map(|pieces| pieces.concat() + "\r\n").collect();
        let filler = filler(before).split_off(44 - before % 44);
        let text = format!("POST / HTTP/1.1\r\nx{filler}{lines}\r\n{lines}");
        let config = default_carriers();
        let (head, found) = parts(text.as_bytes(), part, &config);
        prop_assert_eq!(Outcome::of(&head, &found), reference(text.as_bytes(), REQUEST, &config), "{}", lines.escape_debug());
    }
}
