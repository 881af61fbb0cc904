//! The clsact qdisc of an interface and its filters, by rtnetlink.

use std::io;

use nix::sys::socket::SockProtocol;

use crate::netlink::{Ask, Asker, u16_at, u32_at};

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
/// Size of `struct tcmsg`.
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
    let mut asker = Asker::open(SockProtocol::NetlinkRoute)?;
    let about = message(ifindex, 0, parent, &[]);
    let mut filters = asker.ask(Ask::List, libc::RTM_GETTFILTER, &about, libc::RTM_NEWTFILTER, filter)?.found;
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
    let about = message(ifindex, HANDLE_CLSACT, PARENT_CLSACT, &kind);
    let mut asker = Asker::open(SockProtocol::NetlinkRoute)?;
    asker.ask(Ask::One, libc::RTM_DELQDISC, &about, libc::RTM_NEWQDISC, |_| Some(())).map(|_| ())
}

/// A `struct tcmsg` and attributes.
fn message(ifindex: u32, handle: u32, parent: u32, attributes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(TCMSG + attributes.len());
    message.extend([0; 4]); // AF_UNSPEC and padding
    message.extend(ifindex.to_ne_bytes());
    message.extend(handle.to_ne_bytes());
    message.extend(parent.to_ne_bytes());
    message.extend([0; 4]); // info
    message.extend(attributes);
    message
}

/// One filter.
fn filter(body: &[u8]) -> Option<Filter> {
    // Each priority has an entry of its own without a handle, which is no filter.
    let (handle, info) = (u32_at(body, 8)?, u32_at(body, 16)?);
    if handle == 0 {
        return None;
    }
    let (mut id, mut name, mut kind) = (None, None, String::new());
    for (attribute, value) in attributes(body.get(TCMSG..)?) {
        match attribute {
            TCA_KIND => kind = text(value),
            TCA_OPTIONS if kind == "bpf" => {
                for (attribute, value) in attributes(value) {
                    match attribute {
                        TCA_BPF_NAME => name = Some(text(value)),
                        TCA_BPF_ID => id = u32_at(value, 0),
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
        let len = usize::from(u16_at(bytes, 0)?);
        // The two highest bits are flags (nested, byte order).
        let attribute = (u16_at(bytes, 2)? & 0x3fff, bytes.get(ATTRIBUTE..len)?);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(attribute)
    })
}

fn text(value: &[u8]) -> String {
    crate::names::unpadded(value)
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

    fn answer(handle: u32, preference: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; TCMSG];
        bytes[8..12].copy_from_slice(&handle.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(preference << 16).to_ne_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn bpf_filters_and_others_are_read() {
        let options = [attribute(TCA_BPF_NAME, b"cil.o:[tc]\0"), attribute(TCA_BPF_ID, &7_u32.to_ne_bytes())].concat();
        let bpf = [attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS | 0x8000, &options)].concat();
        assert_eq!(filter(&answer(0, 3, &bpf)), None);
        let ours = Filter { preference: 3, handle: 1, id: Some(7), name: "cil.o:[tc]".into() };
        assert_eq!(filter(&answer(1, 3, &bpf)), Some(ours));
        let other = Filter { preference: 2, handle: 1, id: None, name: "flower".into() };
        assert_eq!(filter(&answer(1, 2, &attribute(TCA_KIND, b"flower\0"))), Some(other));
    }

    #[test]
    fn what_is_cut_short_is_no_panic() {
        let whole = answer(1, 3, &attribute(TCA_KIND, b"bpf\0"));
        for len in 0..whole.len() {
            let is = filter(&whole[..len]);
            assert_eq!(is.is_some(), len >= TCMSG, "{len} bytes: {is:?}");
            assert!(is.is_none_or(|filter| filter.name.is_empty()));
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
