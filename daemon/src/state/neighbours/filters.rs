//! Filters of the clsact qdisc, by rtnetlink: `RTM_GETTFILTER`.

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::Found;

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` of `linux/pkt_sched.h`.
const PARENT_INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`.
const PARENT_EGRESS: u32 = 0xffff_fff3;
/// Attributes of a filter, `linux/rtnetlink.h`.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// Attributes in the options of a BPF filter, `linux/pkt_cls.h`.
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// Sizes of `struct nlmsghdr` and `struct tcmsg`.
const HEADER: usize = 16;
const TCMSG: usize = 20;

/// The filters on one hook of an interface in the current namespace, in the order of their preference.
pub(super) fn list(ifindex: u32, ingress: bool) -> io::Result<Vec<Found>> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // The kernel answers at once, or never.
    setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(2))?;
    sendto(fd.as_raw_fd(), &request(ifindex, ingress), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut filters = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if !read(&buffer[..len], &mut filters)? {
            break;
        }
    }
    filters.sort_by_key(|(preference, _)| *preference);
    Ok(filters.into_iter().map(|(_, found)| found).collect())
}

fn request(ifindex: u32, ingress: bool) -> Vec<u8> {
    let parent = if ingress { PARENT_INGRESS } else { PARENT_EGRESS };
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut message = Vec::with_capacity(HEADER + TCMSG);
    message.extend(((HEADER + TCMSG) as u32).to_ne_bytes());
    message.extend(libc::RTM_GETTFILTER.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port
    message.extend([0; 4]); // AF_UNSPEC and padding
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 4]); // handle
    message.extend(parent.to_ne_bytes());
    message.extend([0; 4]); // info
    message
}

/// Reads the messages of one datagram. `false` is the end of the dump.
fn read(mut datagram: &[u8], filters: &mut Vec<(u32, Found)>) -> io::Result<bool> {
    while datagram.len() >= HEADER {
        let len = word(datagram, 0) as usize;
        if len < HEADER || len > datagram.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (message, kind) = (&datagram[..len], half(datagram, 4));
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => {
                let errno = if len >= HEADER + 4 { -word(message, HEADER).cast_signed() } else { libc::EIO };
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ if kind == libc::RTM_NEWTFILTER && len >= HEADER + TCMSG => filters.extend(filter(message)),
            _ => {}
        }
        datagram = &datagram[datagram.len().min(len.next_multiple_of(4))..];
    }
    Ok(true)
}

/// One filter, with its preference.
fn filter(message: &[u8]) -> Option<(u32, Found)> {
    // Each priority has an entry of its own without a handle, which is no filter.
    let (handle, info) = (word(message, HEADER + 8), word(message, HEADER + 16));
    if handle == 0 {
        return None;
    }
    let (mut id, mut name, mut kind) = (None, None, String::new());
    for (attribute, value) in attributes(&message[HEADER + TCMSG..]) {
        match attribute {
            TCA_KIND => kind = text(value),
            TCA_OPTIONS if kind == "bpf" => {
                for (attribute, value) in attributes(value) {
                    match attribute {
                        TCA_BPF_NAME => name = Some(text(value)),
                        TCA_BPF_ID if value.len() >= 4 => id = Some(word(value, 0)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((info >> 16, Found::Filter { id, name: name.unwrap_or(kind) }))
}

/// Kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(if bytes.len() < 4 { return None } else { half(bytes, 0) });
        if len < 4 || len > bytes.len() {
            return None;
        }
        // The two highest bits are flags (nested, byte order).
        let attribute = (half(bytes, 2) & 0x3fff, &bytes[4..len]);
        bytes = &bytes[bytes.len().min(len.next_multiple_of(4))..];
        Some(attribute)
    })
}

fn text(value: &[u8]) -> String {
    crate::names::unpadded(value)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((value.len() + 4) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, handle: u32, preference: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((HEADER + TCMSG + rest.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0; 8]);
        bytes.extend(handle.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((preference << 16).to_ne_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn bpf_filters_and_others_are_read() {
        let options = [attribute(TCA_BPF_NAME, b"cil.o:[tc]\0"), attribute(TCA_BPF_ID, &7_u32.to_ne_bytes())].concat();
        let bpf = [attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS | 0x8000, &options)].concat();
        let datagram = [
            message(libc::RTM_NEWTFILTER, 0, 3, &bpf),
            message(libc::RTM_NEWTFILTER, 1, 3, &bpf),
            message(libc::RTM_NEWTFILTER, 1, 2, &attribute(TCA_KIND, b"flower\0")),
        ]
        .concat();
        let mut filters = Vec::new();
        assert!(read(&datagram, &mut filters).expect("readable"));
        assert_eq!(
            filters,
            [
                (3, Found::Filter { id: Some(7), name: "cil.o:[tc]".into() }),
                (2, Found::Filter { id: None, name: "flower".into() }),
            ]
        );
        assert!(!read(&message(libc::NLMSG_DONE as u16, 0, 0, &[]), &mut filters).expect("readable"));
    }

    #[test]
    fn cut_messages_are_an_error_and_no_panic() {
        let whole = message(libc::RTM_NEWTFILTER, 1, 3, &attribute(TCA_KIND, b"bpf\0"));
        for len in HEADER..whole.len() {
            assert!(read(&whole[..len], &mut Vec::new()).is_err());
        }
        for len in 0..whole.len() - HEADER - TCMSG {
            _ = attributes(&whole[HEADER + TCMSG..][..len]).count();
        }
    }

    #[test]
    fn an_interface_without_a_qdisc_has_no_filters() {
        assert_eq!(list(1, true).expect("the kernel answers"), []);
    }
}
