//! Netlink: one message out, all of its answers in.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
        sockopt::RcvBuf,
    },
};

/// Opens a netlink socket, which hears of these groups. It belongs to the namespace that it is opened in, and keeps it alive.
pub(crate) fn open(protocol: SockProtocol, flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// All that there is.
    List,
    /// One thing. That there is none is an error, mostly `ENOENT`.
    One,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    pub found: Vec<T>,
    /// A change came in between (`NLM_F_DUMP_INTR`): entries may be missing, or there twice.
    pub torn: bool,
}

/// A netlink socket and its place in the conversation.
#[derive(Debug)]
pub(crate) struct Asker {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Asker {
    /// Must be called inside the namespace; it can be asked from any other.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = open(protocol, SockFlag::empty(), 0)?;
        setsockopt(&fd, RcvBuf, &(1 << 20))?;
        Ok(Self { fd, seq: 0, buffer: vec![0; 1 << 16] })
    }

    /// Sends a message of type `kind` and reads its answers, as far as they are of type `answer`.
    pub fn ask<T>(
        &mut self,
        what: Ask,
        kind: u16,
        body: &[u8],
        answer: u16,
        read: fn(&[u8]) -> Option<T>,
    ) -> io::Result<Answers<T>> {
        self.seq += 1;
        send(self.fd.as_raw_fd(), &request(what, kind, self.seq, body), MsgFlags::empty())?;
        let mut all = Answers { found: Vec::new(), torn: false };
        loop {
            let mut ready = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(2000_u16))? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "netlink did not answer within 2 s"));
            }
            let len = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC)?;
            let bytes = self.buffer.get(..len).ok_or_else(|| io::Error::other("a netlink message over 64 KiB"))?;
            if batch(bytes, self.seq, answer, read, &mut all)? {
                return Ok(all);
            }
        }
    }
}

const HEADER: usize = 16;

/// `nlmsghdr` and a body.
fn request(what: Ask, kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    // A list has an end of its own; one thing's end is its acknowledgement.
    let flags = libc::NLM_F_REQUEST
        | match what {
            Ask::List => libc::NLM_F_DUMP,
            Ask::One => libc::NLM_F_ACK,
        };
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags.cast_unsigned() as u16).to_ne_bytes());
    message.extend(seq.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// Reads what came at once. Returns whether it was the end.
fn batch<T>(
    mut bytes: &[u8],
    seq: u32,
    answer: u16,
    read: fn(&[u8]) -> Option<T>,
    all: &mut Answers<T>,
) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let len = u32_at(bytes, 0).unwrap_or(0) as usize;
        let body = bytes.get(HEADER..len).ok_or_else(|| io::Error::other("a netlink message with a wrong length"))?;
        if u32_at(bytes, 8) == Some(seq) {
            let kind = u16_at(bytes, 4).unwrap_or(0);
            all.torn |= i32::from(u16_at(bytes, 6).unwrap_or(0)) & libc::NLM_F_DUMP_INTR != 0;
            // The end of a list, an error and an acknowledgement carry a negative errno, or zero.
            if [libc::NLMSG_ERROR, libc::NLMSG_DONE].contains(&i32::from(kind)) {
                let errno = u32_at(body, 0).unwrap_or(0).cast_signed();
                return if errno < 0 { Err(io::Error::from_raw_os_error(-errno)) } else { Ok(true) };
            }
            if kind == answer {
                all.found.extend(read(body));
            }
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

/// A number in the machine's byte order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A number in the machine's byte order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<(bool, usize)> {
        let mut all = Answers { found: Vec::new(), torn: false };
        batch(bytes, 5, 9, |body| Some(body.len()), &mut all).map(|end| (end, all.found.len()))
    }

    #[test]
    fn a_message_with_a_wrong_length_is_refused() {
        let mut message = request(Ask::List, 9, 5, &[0; 16]);
        assert_eq!(read(&message).expect("whole"), (false, 1));
        message[0..4].copy_from_slice(&99_u32.to_ne_bytes());
        assert!(read(&message).is_err());
        message[0..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(read(&message).is_err());
    }

    #[test]
    fn an_answer_ends_with_its_acknowledgement_or_an_error_of_its_own() {
        let answer = request(Ask::One, 9, 5, &[0; 4]);
        let end = |seq, errno: i32| request(Ask::One, libc::NLMSG_ERROR as u16, seq, &errno.to_ne_bytes());
        assert_eq!(read(&[answer.clone(), end(5, 0)].concat()).expect("whole"), (true, 1));
        assert_eq!(read(&[end(4, -libc::EPERM), answer].concat()).expect("another question's"), (false, 1));
        assert_eq!(read(&end(5, -libc::EPERM)).expect_err("its own").raw_os_error(), Some(libc::EPERM));
    }
}
