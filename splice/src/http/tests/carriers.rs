//! The carriers' vectors, in the default table: 0 to 2 are `baggage` members (`sidetrack`, `sd-routing-key`,
//! `sd-sandbox`), 3 is `tracestate`, 4 to 7 are headers, 8 and 9 `baggage` members.

use super::*;

const NONE: Vec<(usize, String)> = Vec::new();

#[test]
fn a_member_is_found_among_thirty_others_wherever_it_stands() {
    for place in [0, 15, 30] {
        let mut members: Vec<String> = (0..30).map(|i| format!("member-{i}=value-{i};p={i}")).collect();
        members.insert(place, "sidetrack=k1".into());
        for separator in [",", " , ", ",\t", ",,", ", ,"] {
            assert_eq!(keys_in(&format!("baggage: {}", members.join(separator))), one(0, "k1"));
        }
    }
}

#[test]
fn several_baggage_headers_are_one_list() {
    assert_eq!(keys_in("baggage: a=b\r\nX-Other: 1\r\nbaggage: c=d,sidetrack=k1"), one(0, "k1"));
}

#[test]
fn white_space_and_properties_are_no_part_of_a_value() {
    assert_eq!(keys_in("baggage: a=b ,  sidetrack = k1 ; p=1 , c=d"), one(0, "k1"));
    assert_eq!(keys_in("baggage:sidetrack\t=\t\tk1\t"), one(0, "k1"));
    assert_eq!(keys_in("baggage: sidetrack=k1;sidetrack=k2"), one(0, "k1"));
}

#[test]
fn key_characters_of_baggage_may_be_percent_encoded() {
    assert_eq!(keys_in("baggage: sidetrack=%6b1"), one(0, "k1"));
    assert_eq!(keys_in("baggage: sidetrack=%6B%31 , a=b"), one(0, "k1"));
    let all = "%61".repeat(63);
    assert_eq!(keys_in(&format!("baggage: sidetrack={all}")), one(0, &"a".repeat(63)));
    for bad in ["%", "%6", "%6g", "%zz", "k%2", "%20k", "%00", "%2C", &format!("{all}a"), "%61%"] {
        let (head, found) = fields(&format!("baggage: sidetrack={bad},sd-sandbox=ok"));
        assert_eq!((keys(&head, &found), head.invalid), (one(2, "ok"), 1), "{bad}");
    }
}

#[test]
fn tracestate_and_headers_are_not_decoded() {
    for line in ["tracestate: sd-routing-key=%6b1", "x-sidetrack-key: %6b1"] {
        let (head, found) = fields(line);
        assert_eq!((keys(&head, &found), head.invalid), (NONE, 1), "{line}");
    }
}

#[test]
fn a_name_that_only_begins_or_ends_alike_is_another() {
    for line in [
        "baggage: xsidetrack=k1,sidetrack2=k1,sidetrac=k1,Sidetrack=k1,sd-routing-keys=k",
        "baggage: x=sidetrack=k1;sidetrack=k1",
        "tracestate: xsd-routing-key=k1,sd-routing-key2=k1,sd-routing-key@x=k1,sd-routing-key =k1",
        "xbaggage: sidetrack=k1\r\nbaggage2: sidetrack=k1\r\nbaggag: sidetrack=k1",
        "x-sidetrack-key2: k1\r\nx-sidetrack-ke: k1\r\nxx-sidetrack-key: k1\r\nx-sidetrack: k1",
        "tracestate2: sd-routing-key=k1\r\ntracestat: sd-routing-key=k1",
        "baggage: tracestate=k1,x-sidetrack-key=k1,sidetrack",
    ] {
        let (head, found) = fields(line);
        assert_eq!((keys(&head, &found), head.invalid, head.duplicate), (NONE, 0, 0), "{line}");
    }
}

#[test]
fn keys_that_begin_alike_are_different_keys() {
    assert_eq!(keys_in("baggage: sidetrack=pr-1"), one(0, "pr-1"));
    assert_eq!(keys_in("baggage: sidetrack=pr-12"), one(0, "pr-12"));
}

#[test]
fn the_first_of_duplicate_members_wins_and_is_counted() {
    let (head, found) = fields("baggage: sidetrack=k1,sidetrack=k2\r\nbaggage: sidetrack=k1");
    assert_eq!((keys(&head, &found), head.duplicate, head.invalid), (one(0, "k1"), 2, 0));
    // an invalid one hides no later one
    let (head, found) = fields("x-sidetrack-key: a b\r\nx-sidetrack-key: k2\r\nx-sidetrack-key: k3");
    assert_eq!((keys(&head, &found), head.duplicate, head.invalid), (one(4, "k2"), 1, 1));
}

#[test]
fn header_names_have_no_case() {
    assert_eq!(keys_in("BAGGAGE: sidetrack=k1"), one(0, "k1"));
    assert_eq!(keys_in("TraceState: sd-routing-key=k1"), one(3, "k1"));
    assert_eq!(keys_in("X-SideTrack-KEY:k1  \t"), one(4, "k1"));
    assert_eq!(keys_in("Ot-Baggage-Sd-Routing-Key: \t k1"), one(5, "k1"));
}

#[test]
fn a_folded_carrier_holds_no_key() {
    for line in [
        "baggage: sidetrack=k1\r\n ,a=b",
        "baggage: sidetrack=k1,\r\n\ta=b\r\n c=d",
        "x-sidetrack-key: k1\r\n 2",
        "baggage:\n sidetrack=k1",
    ] {
        let (head, found) = fields(line);
        assert_eq!((keys(&head, &found), head.invalid), (NONE, 1), "{line}");
    }
    // an empty value that goes on counts for both
    assert_eq!(fields("x-sidetrack-key:\r\n k1").0.invalid, 2);
    // another line's key stays, and a folded one hides no later one
    assert_eq!(keys_in("baggage: sidetrack=k1\r\nbaggage: a=b\r\n c=d"), one(0, "k1"));
    assert_eq!(keys_in("baggage: sidetrack=k1\r\n x\r\nbaggage: sidetrack=k2"), one(0, "k2"));
    assert_eq!(keys_in("baggage: sidetrack=k1\r\nX-Other: a\r\n b"), one(0, "k1"));
}

#[test]
fn a_carrier_with_white_space_before_its_colon_holds_no_key() {
    for line in ["baggage : sidetrack=k1", "x-sidetrack-key\t: k1"] {
        let (head, found) = fields(line);
        assert_eq!((keys(&head, &found), head.invalid), (NONE, 1), "{line}");
    }
}

#[test]
fn a_key_is_found_at_the_end_of_a_long_head() {
    for size in [7000, HEAD_MAX] {
        let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
        let tail = "baggage: a=b,sidetrack=k1\r\n\r\n";
        while text.len() < size - tail.len() {
            let left = size - tail.len() - text.len();
            let line = format!("Cookie: {}\r\n", "c".repeat(left.min(900).saturating_sub(10)));
            text += &line[line.len().saturating_sub(left)..];
        }
        text += tail;
        assert_eq!(text.len(), size);
        let (head, found) = request(&text);
        assert_eq!((head.status, head.end as usize, keys(&head, &found)), (STATUS_COMPLETE, size, one(0, "k1")));
    }
}

#[test]
fn the_same_text_elsewhere_is_no_key() {
    let text = "GET /?baggage:%20sidetrack=k1&x-sidetrack-key:k1 HTTP/1.1\r\nCookie: baggage: sidetrack=k1\r\n\
                X-Note: x-sidetrack-key: k1\r\nContent-Length: 24\r\n\r\nbaggage: sidetrack=k1\r\n\r\n";
    let (head, found) = request(text);
    assert_eq!((head.status, keys(&head, &found)), (STATUS_COMPLETE, NONE));
    assert_eq!((head.length, &text[head.end as usize..][..7]), (24, "baggage"));
}

#[test]
fn every_carrier_has_its_own_key() {
    let lines = "baggage: okteto-divert=k9,sd-sandbox=k2,mirrord-session=k8,sd-routing-key=k1,sidetrack=k0\r\n\
                 tracestate: dd=s:1;o:rum, sd-routing-key=k3,rojo=00f067aa0ba902b7\r\n\
                 sd-routing-key: k7\r\nuberctx-sd-routing-key: k6\r\not-baggage-sd-routing-key: k5\r\n\
                 x-sidetrack-key: k4";
    let all: Vec<_> = (0..10).map(|i| (i, format!("k{i}"))).collect();
    assert_eq!(keys_in(lines), all);
}

#[test]
fn what_is_no_key_is_counted() {
    let long = "a".repeat(64);
    for value in ["", " ", "a b", "a/b", "ä", "a=b", "\"k1\"", &long, &"a".repeat(5000)] {
        let (head, found) = fields(&format!("baggage: sidetrack={value}"));
        assert_eq!((keys(&head, &found), head.invalid), (NONE, 1), "baggage {value:?}");
        let (head, found) = fields(&format!("x-sidetrack-key: {value}"));
        assert_eq!((keys(&head, &found), head.invalid), (NONE, 1), "header {value:?}");
    }
    assert_eq!(keys_in(&format!("baggage: sidetrack={}", &long[..63])), one(0, &long[..63]));
    // in tracestate a semicolon is part of the value
    assert_eq!(fields("tracestate: sd-routing-key=k1;p=1").0.invalid, 1);
    assert_eq!(keys_in("tracestate: a=b;c, sd-routing-key=k1 ,d=e"), one(3, "k1"));
}

#[test]
fn names_of_any_length_can_be_configured() {
    let long = "n".repeat(48);
    let texts = ["header:k", "baggage:k", "tracestate:t", "header:x-sidetrack-key", "header:x-sidetrack-other"]
        .map(String::from)
        .into_iter()
        .chain([format!("baggage:{long}"), format!("header:{long}")])
        .collect::<Vec<_>>();
    let config = table(&texts).expect("a valid table");
    let text = format!(
        "GET / HTTP/1.1\r\nK: k0\r\nbaggage: kk=x,k=k1,{long}n=x,{long}=k5\r\ntracestate: t=k2\r\n\
         x-sidetrack-other: k4\r\nx-sidetrack-key: k3\r\n{long}: k6\r\n\r\n"
    );
    let (head, found) = read(text.as_bytes(), REQUEST, &config);
    assert_eq!(keys(&head, &found), (0..7).map(|i| (i, format!("k{i}"))).collect::<Vec<_>>());
}

#[test]
fn without_carriers_there_are_no_keys() {
    let (head, _) = read(b"GET / HTTP/1.1\r\nbaggage: sidetrack=k1\r\n\r\n", REQUEST, &Config::default());
    assert_eq!((head.status, head.found), (STATUS_COMPLETE, 0));
}

#[test]
fn a_response_carries_no_key() {
    let (head, _) = read(b"HTTP/1.1 200 OK\r\nbaggage: sidetrack=k1\r\n\r\n", RESPONSE, &default_carriers());
    assert_eq!((head.status, head.found, head.invalid), (STATUS_COMPLETE, 0, 0));
}

#[test]
fn fields_that_heads_often_have_do_not_pass_the_filter() {
    let config = default_carriers();
    for name in [
        "Host: a",
        "User-Agent:",
        "Accept: ",
        "Accept-Encoding:",
        "Accept-Language:",
        "Authorization:",
        "Cookie: a=b",
        "X-Request-Id:",
        "X-Forwarded-For:",
        "Traceparent:",
        "Cache-Control:",
        "Referer:",
        "Origin: http",
        "If-None-Match:",
        "Server: a",
        "Date: Mon",
        "Last-Modified:",
        "ETag: 12",
        "Set-Cookie:",
        "Vary: a,b",
        "Location:",
        "Access-Control-",
    ] {
        let word = u64::from_le_bytes(
            name.as_bytes()[..7].iter().copied().chain([b' ']).collect::<Vec<_>>().try_into().expect("eight"),
        );
        for kind in [REQUEST, RESPONSE] {
            assert!(!swar::passes(&config.fields[kind as usize], word), "{name} {kind}");
        }
    }
}
