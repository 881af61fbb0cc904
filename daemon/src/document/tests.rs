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
