//! First lines, ends of heads, and what follows them.

use super::*;

fn status(text: &str) -> u32 {
    request(text).0.status
}

fn body(lines: &str) -> (u32, u32, u64) {
    let head = fields(lines).0;
    (head.status, head.body, head.length)
}

#[test]
fn the_first_bytes_decide() {
    assert_eq!(status(""), STATUS_INCOMPLETE);
    assert_eq!(status("\r\n\r\n"), STATUS_INCOMPLETE);
    assert_eq!(status("\x16"), STATUS_TLS);
    assert_eq!(status("\x16\x03\x01\x02\x00"), STATUS_TLS);
    assert_eq!(status("\x16\x04"), STATUS_NOT_HTTP);
    for text in ["\0", " ", "{\"a\":1}", "SSH-2.0-OpenSSH\r\n", "GET\r\n", "*1\r\n$4\r\nPING\r\n", "\u{fc}", "GET: / "]
    {
        assert_eq!(status(text), STATUS_NOT_HTTP, "{text:?}");
    }
    assert_eq!(status(&"A".repeat(32)), STATUS_INCOMPLETE);
    assert_eq!(status(&"A".repeat(33)), STATUS_NOT_HTTP);
}

#[test]
fn the_preface_of_http2_is_known_when_its_line_is_complete() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for len in 0..preface.len() {
        let expected = if len < 16 { STATUS_INCOMPLETE } else { STATUS_HTTP2 };
        assert_eq!(status(&preface[..len]), expected, "{len}");
    }
    assert_eq!(status("GET * HTTP/2.0\r\n\r\n"), STATUS_NOT_HTTP);
}

#[test]
fn a_request_line_ends_in_a_version() {
    for line in ["GET / HTTP/1.1", "G / HTTP/1.0", "M-SEARCH * HTTP/1.9", "GET  / HTTP/1.1", "GET / HTTP/1.1 \t"] {
        assert_eq!(status(&format!("{line}\r\n\r\n")), STATUS_COMPLETE, "{line}");
        assert_eq!(status(&format!("{line}\n\n")), STATUS_COMPLETE, "{line}");
    }
    for line in ["GET /", "GET / HTTP/2.0", "GET / http/1.1", "GET HTTP/1.1", "GET /HTTP/1.1", "GET / HTTP/1.x", "GET "]
    {
        assert_eq!(status(&format!("{line}\r\n\r\n")), STATUS_NOT_HTTP, "{line}");
    }
}

#[test]
fn blank_lines_before_a_request_are_skipped() {
    let head = request("\r\n\n\r\nGET / HTTP/1.1\r\n\r\n").0;
    assert_eq!((head.status, head.start, head.end), (STATUS_COMPLETE, 5, 23));
    assert_eq!(response("\r\nHTTP/1.1 200 OK\r\n\r\n").status, STATUS_NOT_HTTP);
}

#[test]
fn a_head_ends_where_the_most_lenient_server_ends_it() {
    for end in ["\r\n\r\n", "\n\n", "\n\r\n", "\r\n\n"] {
        let text = format!("GET / HTTP/1.1\r\nHost: a{end}");
        let head = request(format!("{text}\r\nX: y\r\n\r\n")).0;
        assert_eq!((head.status, head.end as usize), (STATUS_COMPLETE, text.len()), "{end:?}");
    }
    // a carriage return alone is no line end
    assert_eq!(status("GET / HTTP/1.1\r\nA: b\r\r\r"), STATUS_INCOMPLETE);
    assert_eq!(status("GET / HTTP/1.1\r\n\rA: b\r\n"), STATUS_INCOMPLETE);
}

#[test]
fn a_head_may_begin_anywhere_in_the_window() {
    let text = b"....GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    let (window, _) = Window::of(text);
    let (mut head, mut found) = (Head::default(), Found::default());
    head.start(4, 31, REQUEST);
    run(&mut head, &mut found, &window, &default_carriers());
    assert_eq!((head.status, head.start, head.end), (STATUS_COMPLETE, 4, 31));
    head.start(4, 30, REQUEST);
    run(&mut head, &mut found, &window, &default_carriers());
    assert_eq!(head.status, STATUS_INCOMPLETE);
    head.start(9, 4, REQUEST);
    assert_eq!(run(&mut head, &mut found, &window, &default_carriers()), STATUS_INCOMPLETE);
}

#[test]
fn content_length_is_digits() {
    assert_eq!(body("X: y"), (STATUS_COMPLETE, BODY_NONE, 0));
    assert_eq!(body("Content-Length: 0"), (STATUS_COMPLETE, BODY_LENGTH, 0));
    assert_eq!(body("content-length:5368709120 \t"), (STATUS_COMPLETE, BODY_LENGTH, 5_368_709_120));
    assert_eq!(body("Content-Length: 000000000000000000000000000017"), (STATUS_COMPLETE, BODY_LENGTH, 17));
    assert_eq!(body("Content-Length: 7\r\nCONTENT-LENGTH: 7"), (STATUS_COMPLETE, BODY_LENGTH, 7));
    let max = (1_u64 << 59) - 1;
    assert_eq!(body(&format!("Content-Length: {max}9")), (STATUS_COMPLETE, BODY_LENGTH, max * 10 + 9));
    for value in ["", " ", "+5", "-5", "5,5", "5 5", "0x5", "5.0", "5a", "\u{663}", "18446744073709551617"] {
        assert_eq!(body(&format!("Content-Length: {value}")).0, STATUS_UNREADABLE, "{value:?}");
    }
    assert_eq!(body("Content-Length: 7\r\nContent-Length: 8").0, STATUS_UNREADABLE);
    assert_eq!(body("Content-Length: 7\r\nContent-Length: 07").0, STATUS_COMPLETE);
}

#[test]
fn chunked_is_the_last_transfer_coding_and_wins() {
    for value in ["chunked", "gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", " CHUNKED ", "gzip,,chunked,"] {
        assert_eq!(body(&format!("Transfer-Encoding: {value}")).1, BODY_CHUNKED, "{value:?}");
    }
    assert_eq!(body("Content-Length: 5\r\nTransfer-Encoding: chunked").1, BODY_CHUNKED);
    for value in [
        "",
        "gzip",
        "identity",
        "chunked, gzip",
        "chunked, chunked",
        "chunked, gzip, chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\x0bchunked",
        "\"chunked\"",
        "chunked\r\nTransfer-Encoding: gzip",
    ] {
        assert_eq!(body(&format!("Transfer-Encoding: {value}")).0, STATUS_UNREADABLE, "{value:?}");
        let head = response(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {value}\r\nContent-Length: 3\r\n\r\n"));
        assert_eq!((head.status, head.body), (STATUS_COMPLETE, BODY_REST), "{value:?}");
    }
    assert_eq!(status("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), STATUS_UNREADABLE);
}

#[test]
fn what_hides_a_framing_field_cannot_be_read() {
    for name in ["Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade"] {
        let value = if name == "Content-Length" { "5" } else { "chunked" };
        for line in [
            format!("{name} : {value}"),
            format!("{name}\t: {value}"),
            format!("{name}\x0b: {value}"),
            name.to_owned(),
            format!("{name}: {value}\r\n x"),
            format!("{name}: {value}\n\tx"),
        ] {
            assert_eq!(body(&line).0, STATUS_UNREADABLE, "{line:?}");
        }
        assert_eq!(body(&format!("X-{name}: x\r\n{name}x: x\r\n{name}-x : x\r\n y")).0, STATUS_COMPLETE, "{name}");
    }
    assert_eq!(status("GET / HTTP/1.1\r\n Content-Length: 5\r\n\r\n"), STATUS_UNREADABLE);
}

#[test]
fn the_keys_of_a_head_that_cannot_be_read_are_read() {
    let text = "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n";
    for len in 0..text.len() {
        assert_eq!(status(&text[..len]), STATUS_INCOMPLETE, "{len}");
    }
    let (head, found) = fields("Content-Length : 5\r\n x\r\nContent-Length: 5, 5\r\nbaggage: sidetrack=k1");
    assert_eq!((head.status, keys(&head, &found)), (STATUS_UNREADABLE, vec![(0, "k1".into())]));
}

#[test]
fn flags_are_read() {
    let flags = |text: &str| request(format!("{text}\r\n\r\n")).0.flags;
    assert_eq!(flags("GET / HTTP/1.1"), 0);
    assert_eq!(flags("HEAD / HTTP/1.0"), FLAG_HEAD | FLAG_HTTP10);
    assert_eq!(flags("HEADS / HTTP/1.1"), 0);
    assert_eq!(flags("head / HTTP/1.1"), 0);
    assert_eq!(flags("CONNECT a:1 HTTP/1.1"), FLAG_CONNECT);
    let field = |line: &str| fields(line).0.flags;
    assert_eq!(field("Connection: upgrade,Close , x\r\nUpgrade: websocket"), FLAG_CLOSE | FLAG_UPGRADE);
    assert_eq!(field("Connection: closed, keep-alive\r\nUpgrade-Insecure-Requests: 1"), FLAG_KEEP_ALIVE);
    assert_eq!(field("Connection: keep-alive2, xclose"), 0);
    assert_eq!(field("expect: 100-Continue"), FLAG_EXPECT);
    assert_eq!(field("Expect: 100-continued\r\nExpected: 100-continue"), 0);
}

#[test]
fn responses_are_read() {
    let head = response("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n");
    assert_eq!((head.status, head.code, head.body, head.length), (STATUS_COMPLETE, 200, BODY_LENGTH, 12));
    let head = response("HTTP/1.0 404\n\n");
    assert_eq!((head.status, head.code, head.body, head.flags), (STATUS_COMPLETE, 404, BODY_REST, FLAG_HTTP10));
    assert_eq!(response("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n").body, BODY_CHUNKED);
    assert_eq!(response("HTTP/1.0 200 \r\nTransfer-Encoding: chunked\r\n\r\n").body, BODY_REST);
    for text in
        ["HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1  200\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "HTTP/1.1 020\r\n\r\n\r\n"]
    {
        assert_eq!(response(text).status, STATUS_UNREADABLE, "{text:?}");
    }
    for text in ["HTTP/2 200\r\n\r\n", "ICY 200 OK\r\n\r\n", "\x15\x03", "GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(response(text).status, STATUS_NOT_HTTP, "{text:?}");
    }
    let text = "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n";
    for len in 0..text.len() {
        assert_eq!(response(&text[..len]).status, STATUS_INCOMPLETE, "{len}");
    }
    assert_eq!(response("HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\n").status, STATUS_UNREADABLE);
}

#[test]
fn some_responses_have_no_body_whatever_they_say() {
    let with = |code: u32, was_head| {
        let head = response(format!("HTTP/1.1 {code} x\r\nContent-Length: 5\r\n\r\n"));
        response_body(&head, was_head)
    };
    for code in [100, 101, 103, 204, 304] {
        assert_eq!(with(code, false), BODY_NONE);
    }
    assert_eq!(with(200, true), BODY_NONE);
    assert_eq!(with(200, false), BODY_LENGTH);
    assert_eq!(response_body(&response("HTTP/1.1 200 OK\r\n\r\n"), false), BODY_REST);
    assert_eq!(response_body(&response("HTTP/1.1 200 OK\r\n\r\n"), true), BODY_NONE);
}
