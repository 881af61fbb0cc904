use proptest::prelude::*;

use super::*;

/// Where a body ends, by a decoder that looks at every byte.
fn reference(body: &[u8]) -> (Flow, usize) {
    let mut at = 0;
    let line = |at: &mut usize| -> Option<Vec<u8>> {
        let len = body[*at..].iter().position(|b| *b == b'\n')?;
        let line = body[*at..*at + len].to_vec();
        *at += len + 1;
        Some(line)
    };
    loop {
        let Some(text) = line(&mut at) else { return (Flow::More, 0) };
        let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let rest = &text[digits..];
        let good = rest.is_empty() || rest == b"\r" || b"; \t".contains(&rest[0]);
        if digits == 0 || !good {
            return (Flow::Bad, 0);
        }
        let Ok(size) = usize::from_str_radix(std::str::from_utf8(&text[..digits]).expect("ASCII"), 16) else {
            return (Flow::Bad, 0);
        };
        if size == 0 {
            break;
        }
        if size > body.len() - at {
            return (Flow::More, 0);
        }
        at += size;
        match &body[at..] {
            [b'\n', ..] => at += 1,
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return (Flow::More, 0),
            _ => return (Flow::Bad, 0),
        }
    }
    loop {
        match line(&mut at).as_deref() {
            None => return (Flow::More, 0),
            Some(b"" | b"\r") => return (Flow::Done, at),
            Some(_) => {}
        }
    }
}

/// Follows `body`, given in blocks that end at `cuts`.
fn follow(body: &[u8], cuts: &[usize]) -> (Flow, Framing) {
    const BASE: u64 = (1 << 32) - 5;
    let mut framing = start(BASE);
    let mut from = 0;
    for to in cuts.iter().copied().chain([body.len()]) {
        let to = to.clamp(from, body.len());
        let flow = if framing.pos < BASE + to as u64 {
            let skip = (framing.pos - BASE) as usize;
            run(&mut framing, BASE + skip.max(from) as u64, &body[skip.max(from)..to])
        } else {
            Flow::More
        };
        if flow != Flow::More {
            framing.pos -= BASE;
            return (flow, framing);
        }
        from = to;
    }
    framing.pos -= BASE;
    (Flow::More, framing)
}

#[test]
fn a_body_ends_behind_its_trailer() {
    for body in [
        "0\r\n\r\n",
        "0\n\n",
        "000;x=y\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5 \r\nhello\r\n0\t;a=\"b\"\r\nTrailer: x\r\nbaggage: sidetrack=k1\r\n\r\n",
        "A;name=value;other\r\n0\r\n\r\n0\r\n\r\n\r\n00000000000000000000\r\n\r\n",
        "1\nx\n1\ny\n0\n\r\rX: y\n\n",
    ] {
        let text = format!("{body}GET / HTTP/1.1\r\n\r\n");
        let (flow, framing) = follow(text.as_bytes(), &[]);
        assert_eq!((flow, framing.pos as usize), (Flow::Done, body.len()), "{body:?}");
        assert_eq!((framing.state, framing.size, framing.chunk), (FRAMING_HEAD, 0, 0));
        for len in 0..body.len() {
            assert_eq!(follow(&body.as_bytes()[..len], &[]).0, Flow::More, "{len} bytes of {body:?}");
        }
    }
}

#[test]
fn the_bytes_of_a_chunk_are_not_read() {
    let mut framing = start(7);
    let block = *b"12a05f200\r\nxxxxx";
    assert_eq!(step(&mut framing, &block, 16), Flow::More);
    assert_eq!(framing.pos, 7 + 11 + 5_000_000_000);
    assert_eq!(framing.state, crate::abi::record::FRAMING_CHUNKED);
}

#[test]
fn what_is_no_chunked_body_is_lost() {
    for body in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "0x5\r\n",
        ";\r\n",
        " 5\r\n",
        "5\rx",
        "5x\r\n",
        "5\r\nhello!\r\n",
        "5\r\nhello\rx",
        "8000000000000000\r\n",
        "fffffffffffffffffff\r\n",
    ] {
        let (flow, framing) = follow(body.as_bytes(), &[]);
        assert_eq!((flow, framing.state), (Flow::Bad, FRAMING_LOST), "{body:?}");
    }
}

#[test]
fn a_frame_of_the_smallest_chunks_takes_one_step_for_each() {
    let body = b"1\nx\n".repeat(16 * 1024);
    let mut framing = start(0);
    let mut steps = 0;
    while (framing.pos as usize) < body.len() {
        let at = framing.pos as usize;
        let part = &body[at..body.len().min(at + BLOCK)];
        let mut block = [0; BLOCK];
        block[..part.len()].copy_from_slice(part);
        assert_eq!(step(&mut framing, &block, part.len() as u32), Flow::More);
        steps += 1;
    }
    assert_eq!(steps, 16 * 1024 + 1);
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let end = prop::sample::select(&["\r\n", "\n"][..]);
    let extension = prop::sample::select(&["", ";a=b", " ", ";x=\"y\"", "\t;\r", "x", "\r"][..]);
    let chunk = (prop::collection::vec(any::<u8>(), 1..50), end.clone(), end.clone(), extension, 0..30_u32).prop_map(
        |(data, e1, e2, extension, odd)| {
            let extension = if odd == 0 { extension } else { extension.trim_matches(['x', '\r']) };
            let mut chunk = format!("{:x}{extension}{e1}", data.len()).into_bytes();
            chunk.extend(data);
            chunk.extend(if odd == 1 { b"!" } else { e2.as_bytes() });
            chunk
        },
    );
    let trailer = (prop::sample::select(&["A: b", "\rx", "x\r", "baggage: sidetrack=k1"][..]), end.clone())
        .prop_map(|(t, e)| format!("{t}{e}"));
    (prop::collection::vec(chunk, 0..12), prop::collection::vec(trailer, 0..3), end.clone(), end).prop_map(
        |(chunks, trailers, e1, e2)| {
            let mut body = chunks.concat();
            body.extend(format!("0{e1}{}{e2}", trailers.concat()).into_bytes());
            body.extend(b"GET / HTTP/1.1\r\n\r\n5\r\n");
            body
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_body_cut_anywhere_ends_where_the_reference_ends_it(
        body in body(), mut cuts in prop::collection::vec(0..600_usize, 0..20)
    ) {
        cuts.sort_unstable();
        let (flow, end) = reference(&body);
        let (got, framing) = follow(&body, &cuts);
        prop_assert_eq!(got, flow, "{}", body.escape_ascii());
        if flow == Flow::Done {
            prop_assert_eq!(framing.pos as usize, end);
        }
    }

    #[test]
    fn any_bytes_end_where_the_reference_ends_them(
        body in prop::collection::vec(prop::sample::select(&b"0015af\r\n\n\n;x "[..]), 0..80)
    ) {
        let (flow, end) = reference(&body);
        let (got, framing) = follow(&body, &[]);
        // the reference waits for a line's end before it refuses it
        if flow != Flow::More || got != Flow::Bad {
            prop_assert_eq!(got, flow, "{}", body.escape_ascii());
        }
        if flow == Flow::Done {
            prop_assert_eq!(framing.pos as usize, end);
        }
    }
}
