//! What holds for any input.

use proptest::prelude::*;

use super::{
    corpus::{self, PIECES},
    reference::{Outcome, reference},
    *,
};

fn pieces(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..len).prop_map(|p| p.concat().into_bytes())
}

/// A head with a proper first line and lines made of pieces.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let line =
        (prop::collection::vec(prop::sample::select(&PIECES[12..]), 0..6), prop::sample::select(&["\r\n", "\n"][..]))
            .prop_map(|(p, end)| p.concat() + end);
    let first = prop::sample::select(&PIECES[..5]);
    (first, prop::collection::vec(line, 0..8), pieces(4)).prop_map(|(first, lines, rest)| {
        let mut text = format!("{first}{}\r\n", lines.concat()).into_bytes();
        text.extend(rest);
        text
    })
}

/// A head with a list of members, carriers among them or not, written as they mostly are or not.
fn list() -> impl Strategy<Value = Vec<u8>> {
    let long = "serverNode=DF28-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789";
    let members = ["userId=alice", long, "sidetrack=k1", "sidetrack=", "sidetrackx=k", "sd-routing-key=k2", "side"];
    let odd = [";p=1", " ", "\t", "", "=", "é=ü", "a=b"];
    let members = prop::sample::select([&members[..], &odd[..]].concat());
    let members = prop::collection::vec(prop::collection::vec(members, 1..3), 0..9);
    let names = ["baggage:", "Baggage: ", "tracestate:", "TRACESTATE: ", "tracestate :", "baggages: ", "baggage:\t"];
    let behind = ["x: y\r\n", " folded\r\n", "\tsidetrack=k3\r\n", "content-length: 3\r\n", ""];
    let end = prop::sample::select(&["\r\n", "\n"][..]);
    (prop::sample::select(names.to_vec()), members, end, prop::sample::select(behind.to_vec())).prop_map(
        |(name, members, end, behind)| {
            let members: Vec<String> = members.iter().map(|m| m.concat()).collect();
            format!("GET / HTTP/1.1\r\n{name}{}{end}{behind}\r\n", members.join(",")).into_bytes()
        },
    )
}

/// Compares both readers, and both kinds of head.
fn compare(text: &[u8]) -> Result<(), TestCaseError> {
    let config = default_carriers();
    for kind in [REQUEST, RESPONSE] {
        let (head, found) = read(text, kind, &config);
        let expected = reference(text, kind, &config);
        prop_assert_eq!(Outcome::of(&head, &found), expected, "{} {}", kind, text.escape_ascii());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn heads_are_read_as_the_reference_reads_them(text in head()) {
        compare(&text)?;
    }

    #[test]
    fn lists_are_read_as_the_reference_reads_them(text in list()) {
        compare(&text)?;
    }

    #[test]
    fn pieces_are_read_as_the_reference_reads_them(text in pieces(40)) {
        compare(&text)?;
    }

    #[test]
    fn any_bytes_are_read_as_the_reference_reads_them(text in prop::collection::vec(any::<u8>(), 0..200)) {
        compare(&text)?;
    }

    #[test]
    fn a_prefix_of_a_complete_head_is_incomplete(text in head()) {
        for kind in [REQUEST, RESPONSE] {
            let (whole, _) = read(&text, kind, &default_carriers());
            if whole.end != 0 {
                for len in 0..whole.end as usize {
                    let (part, _) = read(&text[..len], kind, &default_carriers());
                    prop_assert_eq!(part.status, STATUS_INCOMPLETE, "{} bytes of {}", len, text.escape_ascii());
                }
                // and what stands behind it changes nothing
                let (alone, _) = read(&text[..whole.end as usize], kind, &default_carriers());
                prop_assert_eq!(alone.end, whole.end);
                prop_assert_eq!(alone.found, whole.found);
            }
        }
    }
}

#[test]
fn the_corpus_is_read_as_the_reference_reads_it() {
    let config = default_carriers();
    for (kind, text) in corpus::heads() {
        let (head, found) = read(&text, kind, &config);
        assert_eq!(Outcome::of(&head, &found), reference(&text, kind, &config), "{kind} {}", text.escape_ascii());
    }
}

/// Heads that take as many steps as can be had.
#[test]
fn no_head_takes_more_steps_than_there_are() {
    let names: Vec<String> = (0..CARRIERS).map(|i| format!("baggage:sidetrack{i:02}")).collect();
    let alike = crate::carrier::table(&names).expect("a valid table");
    let short: Vec<String> =
        ["a", "b", "c"].iter().flat_map(|n| [format!("baggage:{n}"), format!("header:{n}")]).collect();
    let short = crate::carrier::table(&short).expect("a valid table");
    for (config, start, piece) in [
        (&alike, "baggage: ", "sidetrac,"),
        (&alike, "baggage: ", "sidetrack15=,"),
        (&alike, "baggage: ", "sidetrack15=%61%61,"),
        (&alike, "baggage: ", "sidetrack15 \t = \t ,"),
        (&short, "baggage: ", "a=,"),
        (&short, "baggage: ", "c = ;,"),
        (&short, "x: ", "\na:"),
        (&short, "x: ", "\nd:"),
        (&short, "baggage: ", ","),
        (&short, "baggage: ", "\t"),
        (&short, "content-length: ", "0"),
        (&short, "content-length: 0", " "),
        (&short, "c: x", " "),
        (&short, "transfer-encoding: ", "x,"),
        (&short, "a: a", "\n"),
    ] {
        let mut text = format!("GET / HTTP/1.1\r\n{start}");
        while text.len() + piece.len() + 4 <= HEAD_MAX {
            text += piece;
        }
        text += "\r\n\r\n";
        let (window, len) = Window::of(text.as_bytes());
        let (mut head, mut found) = (Head::default(), Found::default());
        head.start(0, len, REQUEST);
        let ended = (0..STEPS / 2).any(|_| step(&mut head, &mut found, &window, config) == Flow::Done);
        assert!(ended, "{piece:?}");
    }
}
