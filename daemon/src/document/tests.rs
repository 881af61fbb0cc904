use std::os::unix::net::UnixListener;

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

#[test]
fn what_is_no_regular_file_is_named_and_never_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).expect("made");
    let _socket = UnixListener::bind(at("socket")).expect("bound");
    for (path, named) in [
        (at("fifo"), "this is a FIFO (a pipe), expected a regular file"),
        (at("."), "this is a directory, expected a regular file"),
        (at("socket"), "this is a socket, expected a regular file"),
        ("/dev/zero".into(), "this is a device, expected a regular file"),
    ] {
        let said = read(&path, "RouteTable").expect_err("no file").to_string();
        assert!(said.contains(named) && said.contains("put the RouteTable into a file"), "{said}");
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(FILE_MAX).expect("as long");
    assert_eq!(read(file.path(), "RouteTable").expect("just fits").len() as u64, FILE_MAX);
    file.as_file().set_len(FILE_MAX + 1).expect("longer");
    let said = read(file.path(), "RouteTable").expect_err("too large").to_string();
    assert!(said.contains("16777217 bytes, expected at most 16777216"), "{said}");
}

#[test]
fn bytes_that_are_no_text_are_a_mistake_with_a_place_and_a_way_out() {
    let said = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        let said = read(file.path(), "RouteTable").expect_err("no text").to_string();
        said.strip_prefix(&file.path().display().to_string()).expect("the path comes first").to_owned()
    };
    let latin1 =
        "byte 0xe9 is not UTF-8: save the file in that encoding (if it is Latin-1: iconv -f ISO-8859-1 -t UTF-8)";
    assert_eq!(said(b"kind: x\n# caf\xe9\n"), format!(":2:6: {latin1}"));
    // Columns are characters, as everywhere: the letter before is one of two bytes.
    assert_eq!(said(b"\r\n\xc3\xa9\xe9!"), format!(":2:2: {latin1}"));
    assert_eq!(
        said(b"a: b\nc: \xe2\x82"),
        ":2:4: the file ends in the middle of a character: was it written to its end?"
    );
    for utf16 in [b"\xff\xfea\0".as_slice(), b"\xfe\xff\0a".as_slice()] {
        let way_out = "expected UTF-8: save it in that encoding (iconv -f UTF-16 -t UTF-8)";
        assert_eq!(said(utf16), format!(":1:1: the file is in UTF-16, {way_out}"));
    }
}

#[test]
fn a_byte_order_mark_of_utf_8_is_read_over() {
    let read = parse::<Kind>("\u{feff}apiVersion: sidetrack.dev/v1alpha1\nkind: Some\n", "Some");
    assert!(read.is_ok(), "{read:?}");
}

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(rename = "kind")]
    _kind: String,
}
