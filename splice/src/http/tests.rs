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
#[test]
fn zz_steps() {
    let h = b"GET /api/v1/orders/42?expand=items HTTP/1.1\r\nHost: orders.shop.svc\r\nUser-Agent: go/1.26\r\nAccept: application/json\r\nx-request-id: 6f1d2c1e-6a7e-4a37-9f4e-7a0b6a2f5b11\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx-fill-9: 1\r\n\r\n";
    let (w, len) = Window::of(h);
    let (mut a, mut b) = (Head::default(), Found::default());
    let c = default_carriers();
    a.start(0, len, 0);
    loop {
        println!("state {} at {} {}", a.state, a.at, h[a.line as usize..].iter().take(12).map(|b| *b as char).collect::<String>().escape_debug());
        if step(&mut a, &mut b, &w, &c) == Flow::Done { break }
    }
}
