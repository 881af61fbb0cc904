use super::*;
use crate::carrier::default_carriers;

/// Reads `text` as a request with the default carriers.
fn request(text: &[u8]) -> (Head, Found) {
    read(text, REQUEST, &default_carriers())
}

fn read(text: &[u8], kind: u32, config: &Config) -> (Head, Found) {
    let (window, len) = Window::of(text);
    let (mut head, mut found) = (Head::default(), Found::default());
    head.start(0, len, kind);
    let status = run(&mut head, &mut found, &window, config);
    assert_ne!(status, STATUS_MORE, "{}", text.escape_ascii());
    (head, found)
}

fn key(found: &Found, carrier: usize) -> String {
    let key = &found.keys[carrier].key;
    let len = key.iter().position(|b| *b == 0).expect("a key ends in a zero");
    assert!(key[len..].iter().all(|b| *b == 0), "zeros behind the key");
    String::from_utf8(key[..len].to_vec()).expect("keys are ASCII")
}

#[test]
fn smoke() {
    let (head, found) = request(b"GET / HTTP/1.1\r\nHost: a\r\nbaggage: a=b ,  sidetrack = k1 ; p=1 , c=d\r\n\r\n");
    assert_eq!((head.status, head.found, head.end), (STATUS_COMPLETE, 1, 71));
    assert_eq!(key(&found, 0), "k1");
}
