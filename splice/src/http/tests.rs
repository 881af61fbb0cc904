//! Vectors. What holds for any input is in [`properties`].

mod carriers;
mod framing;
mod long;
mod properties;
mod reference;

use super::*;
use crate::carrier::{default_carriers, table};

/// Reads `text` as a head, in a window where misleading bytes stand behind it.
fn read(text: &[u8], kind: u32, config: &Config) -> (Head, Found) {
    let (window, len) = Window::of(text);
    let (mut head, mut found) = (Head::default(), Found::default());
    // whatever an earlier head left
    head.found = u32::MAX;
    found.keys[0].key = [b'x'; 64];
    head.start(0, len, kind);
    let status = run(&mut head, &mut found, &window, config);
    assert_ne!(status, STATUS_MORE, "{}", text.escape_ascii());
    (head, found)
}

/// Reads a request with the default carriers.
fn request(text: impl AsRef<[u8]>) -> (Head, Found) {
    read(text.as_ref(), REQUEST, &default_carriers())
}

/// Reads a request that has these lines of fields.
fn fields(lines: &str) -> (Head, Found) {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let (head, found) = request(&text);
    if head.status == STATUS_COMPLETE {
        assert_eq!(head.end as usize, text.len(), "{text:?}");
    }
    (head, found)
}

fn response(text: impl AsRef<[u8]>) -> Head {
    read(text.as_ref(), RESPONSE, &default_carriers()).0
}

/// The valid keys, by number of their carrier.
fn keys(head: &Head, found: &Found) -> Vec<(usize, String)> {
    (0..CARRIERS)
        .filter(|i| head.found >> i & 1 != 0)
        .map(|i| {
            let key = &found.keys[i].key;
            let len = key.iter().position(|b| *b == 0).expect("a key ends in a zero");
            assert!(key[len..].iter().all(|b| *b == 0), "zeros behind the key");
            (i, String::from_utf8(key[..len].to_vec()).expect("keys are ASCII"))
        })
        .collect()
}

/// The valid keys in these lines of fields.
fn keys_in(lines: &str) -> Vec<(usize, String)> {
    let (head, found) = fields(lines);
    assert_eq!(head.status, STATUS_COMPLETE, "{lines:?}");
    keys(&head, &found)
}

/// One key, of carrier `i`.
fn one(i: usize, key: &str) -> Vec<(usize, String)> {
    vec![(i, key.to_owned())]
}
