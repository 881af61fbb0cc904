//! The clsact qdisc of an interface and its filters, by rtnetlink.

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `TC_H_CLSACT` of `linux/pkt_sched.h`: where the qdisc sits.
const PARENT_CLSACT: u32 = 0xffff_fff1;
/// `TC_H_MAKE(TC_H_CLSACT, 0)`: what every clsact is called.
const HANDLE_CLSACT: u32 = 0xffff_0000;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`.
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
/// Size of `struct nlattr`.
const ATTRIBUTE: usize = 4;

/// A filter on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Its place: lower ones come first.
    pub(crate) preference: u32,
    /// Its number among those of its preference.
    pub(crate) handle: u32,
    /// The number of its program in the kernel; `None` if it is no BPF filter.
    pub(crate) id: Option<u32>,
    /// The name that its maker gave it, or its kind.
    pub(crate) name: String,
}

/// The filters on one hook of an interface in the current namespace, in the order of their preference.
pub(crate) fn filters(ifindex: u32, ingress: bool) -> io::Result<Vec<Filter>> {
    let parent = if ingress { PARENT_INGRESS } else { PARENT_EGRESS };
    let dump = message(libc::RTM_GETTFILTER, libc::NLM_F_DUMP as u16, ifindex, 0, parent, &[]);
    let mut filters = Vec::new();
    ask(&dump, |datagram| read(datagram, &mut filters))?;
    filters.sort_by_key(|filter| filter.preference);
    Ok(filters)
}

/// Removes the clsact qdisc of an interface in the current namespace, and with it whatever hangs on it. The kernel refuses
/// if what sits there is none.
pub(crate) fn remove_clsact(ifindex: u32) -> io::Result<()> {
    let name = b"clsact\0";
    let mut kind = Vec::from(((ATTRIBUTE + name.len()) as u16).to_ne_bytes());
    kind.extend(TCA_KIND.to_ne_bytes());
    kind.extend(name);
    kind.resize(kind.len().next_multiple_of(4), 0);
    let request = message(libc::RTM_DELQDISC, libc::NLM_F_ACK as u16, ifindex, HANDLE_CLSACT, PARENT_CLSACT, &kind);
    ask(&request, |datagram| read(datagram, &mut Vec::new()))
}

/// Sends a request and reads what comes until `read` says that it was all.
fn ask(request: &[u8], mut read: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // The kernel answers at once, or never.
    setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(2))?;
    sendto(fd.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if !read(&buffer[..len])? {
            return Ok(());
        }
    }
}

/// A request with a `struct tcmsg`.
fn message(kind: u16, flags: u16, ifindex: u32, handle: u32, parent: u32, attributes: &[u8]) -> Vec<u8> {
    let len = HEADER + TCMSG + attributes.len();
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port
    message.extend([0; 4]); // AF_UNSPEC and padding
    message.extend(ifindex.to_ne_bytes());
    message.extend(handle.to_ne_bytes());
    message.extend(parent.to_ne_bytes());
    message.extend([0; 4]); // info
    message.extend(attributes);
    message
}

/// Reads the messages of one datagram. `false` is the end of the answer.
fn read(mut datagram: &[u8], filters: &mut Vec<Filter>) -> io::Result<bool> {
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
                return if errno == 0 { Ok(false) } else { Err(io::Error::from_raw_os_error(errno)) };
            }
            _ if kind == libc::RTM_NEWTFILTER && len >= HEADER + TCMSG => filters.extend(filter(message)),
            _ => {}
        }
        datagram = &datagram[datagram.len().min(len.next_multiple_of(4))..];
    }
    Ok(true)
}

/// One filter.
fn filter(message: &[u8]) -> Option<Filter> {
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
    Some(Filter { preference: info >> 16, handle, id, name: name.unwrap_or(kind) })
}

/// Kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(if bytes.len() < ATTRIBUTE { return None } else { half(bytes, 0) });
        if len < ATTRIBUTE || len > bytes.len() {
            return None;
        }
        // The two highest bits are flags (nested, byte order).
        let attribute = (half(bytes, 2) & 0x3fff, &bytes[ATTRIBUTE..len]);
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
    use crate::pods::testing::Lab;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((value.len() + 4) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(kind: u16, handle: u32, preference: u32, rest: &[u8]) -> Vec<u8> {
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
            answer(libc::RTM_NEWTFILTER, 0, 3, &bpf),
            answer(libc::RTM_NEWTFILTER, 1, 3, &bpf),
            answer(libc::RTM_NEWTFILTER, 1, 2, &attribute(TCA_KIND, b"flower\0")),
        ]
        .concat();
        let mut filters = Vec::new();
        assert!(read(&datagram, &mut filters).expect("readable"));
        assert_eq!(
            filters,
            [
                Filter { preference: 3, handle: 1, id: Some(7), name: "cil.o:[tc]".into() },
                Filter { preference: 2, handle: 1, id: None, name: "flower".into() },
            ]
        );
        assert!(!read(&answer(libc::NLMSG_DONE as u16, 0, 0, &[]), &mut filters).expect("readable"));
    }

    #[test]
    fn cut_messages_are_an_error_and_no_panic() {
        let whole = answer(libc::RTM_NEWTFILTER, 1, 3, &attribute(TCA_KIND, b"bpf\0"));
        for len in HEADER..whole.len() {
            assert!(read(&whole[..len], &mut Vec::new()).is_err());
        }
        for len in 0..whole.len() - HEADER - TCMSG {
            _ = attributes(&whole[HEADER + TCMSG..][..len]).count();
        }
    }

    #[test]
    fn an_interface_without_a_qdisc_has_no_filters() {
        assert_eq!(filters(1, true).expect("the kernel answers"), []);
    }

    #[test]
    fn a_qdisc_that_is_not_there_cannot_be_removed_and_one_of_another_kind_is_not() {
        let lab = Lab::new();
        lab.pair();
        let pod = lab.pod("a");
        let tc = |words: &str| lab.command("a", "tc", &format!("qdisc {words}"));
        let remove = || pod.netns.run(|| remove_clsact(pod.link.index)).expect("entered");
        assert!(remove().is_err());
        tc("add dev eth0 ingress");
        assert!(remove().is_err());
        assert!(tc("show dev eth0").contains("qdisc ingress"));
        tc("del dev eth0 ingress");
        tc("add dev eth0 clsact");
        remove().expect("there is one");
        assert!(!tc("show dev eth0").contains("clsact"));
    }
}
