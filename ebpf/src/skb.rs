//! Reading and writing packets: the thin layer over the kernel's helpers.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::generated as h,
};
use sidetrack_splice::{
    abi::{
        addr::{Addr, Tuple},
        reason::Reason,
    },
    filter,
    packet::{ETH, Edit, JUMBO, Packet, WORDS_JUMBO, WORDS_V4, WORDS_V6},
};

use crate::{
    count::count,
    maps::{self, FILTER},
    mem,
};

const TCP: u8 = 6;
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// `BPF_F_IPV6`, since Linux 6.16: an IPv6 address change leaves `CHECKSUM_COMPLETE` as it is. A variable, so that a test sees what
/// is done on older kernels, which refuse it.
#[unsafe(no_mangle)]
static IPV6_CHECKSUM: u64 = 1 << 7;
/// `bpf_skb_adjust_room`: between the IP header and what follows it.
const BPF_ADJ_ROOM_NET: u32 = 0;
/// The segments stay as large as they are.
const BPF_F_ADJ_ROOM_FIXED_GSO: u64 = 1;
/// Recompute `CHECKSUM_COMPLETE` for the stored bytes.
const BPF_F_RECOMPUTE_CSUM: u64 = 1;

/// The verdict "pass": other programs on the hook still see the packet. `TC_ACT_OK` would end the chain.
pub const PASS: i32 = -1;
/// Held, or dropped in a way that the client's TCP believes it sent: it retransmits by itself. Not a verdict of the
/// kernel's: see [`steal`].
pub const STOLEN: i32 = -104;
/// Dropped.
pub const SHOT: i32 = 2;

/// Takes the packet away, and lets the sender believe that it was sent.
///
/// `TC_ACT_STOLEN` would say just that, but only clsact knows it: tcx takes every code but pass, drop and redirect for
/// "next", so the packet would go on (`tcx_action_code` in include/net/tcx.h). A redirect to an interface that does not
/// exist frees the packet, and the sender is told success (`sch_handle_egress` in net/core/dev.c), with both.
#[inline(always)]
pub fn steal() -> i32 {
    // SAFETY: plain numbers; no interface has index 0.
    unsafe { h::bpf_redirect(0, 0) as i32 }
}

/// Loads `size_of::<T>()` bytes at `at`.
#[inline(always)]
pub fn load<T>(skb: *mut __sk_buff, at: u32, to: &mut T) -> bool {
    // SAFETY: `to` is valid for its size, and any bytes are a value of the plain words that it is called with.
    unsafe { h::bpf_skb_load_bytes(skb.cast(), at, core::ptr::from_mut(to).cast(), size_of::<T>() as u32) == 0 }
}

/// Loads `N` words at `at`.
#[inline(always)]
pub fn words<const N: usize>(skb: *mut __sk_buff, at: u32) -> Option<[u32; N]> {
    // Not made of zeros first: that is a call of a `memset` that goes by bytes.
    let mut words = MaybeUninit::<[u32; N]>::uninit();
    // SAFETY: there is room for as many bytes; when they are loaded, all of it is written.
    unsafe {
        let loaded = h::bpf_skb_load_bytes(skb.cast(), at, words.as_mut_ptr().cast(), (N * 4) as u32) == 0;
        loaded.then(|| words.assume_init())
    }
}

/// Stores a value's bytes at `at`.
#[inline(always)]
pub fn store<T>(skb: *mut __sk_buff, at: u32, from: &T, flags: u64) -> bool {
    // SAFETY: `from` is valid for its size and has no padding: it is an array of words.
    unsafe {
        h::bpf_skb_store_bytes(skb.cast(), at, core::ptr::from_ref(from).cast(), size_of::<T>() as u32, flags) == 0
    }
}

/// The word at `OFFSET` of the packet whose bytes begin at `p`.
///
/// # Safety
/// The bytes were proven to be there, on this very pointer.
#[inline(always)]
unsafe fn word<const OFFSET: usize>(p: usize) -> u32 {
    let value: u64;
    // SAFETY: a load of four bytes, which are there. Written out: headers are not aligned to their words, and the compiler
    // would load each byte by itself.
    unsafe { core::arch::asm!("{v} = *(u32 *)({p} + {o})", v = out(reg) value, p = in(reg) p, o = const OFFSET) };
    value as u32
}

/// Where the packet's bytes begin, if `need` of them can be read directly.
#[inline(always)]
fn bytes(skb: *mut __sk_buff, need: usize) -> Option<usize> {
    // SAFETY: the context is valid; these are fields that a program of this type may read.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + need <= end {
        return Some(data);
    }
    // Headers that do not lie in one piece, or a short packet.
    // SAFETY: plain numbers.
    if unsafe { ((*skb).len as usize) < need || h::bpf_skb_pull_data(skb.cast(), need as u32) != 0 } {
        return None;
    }
    // SAFETY: as above; the helper has moved the bytes.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    (data + need <= end).then_some(data)
}

/// Whether the other side's address and port may be a service's or a leg's. Most packets end here.
#[inline(always)]
fn known(addr: &Addr, port: u16) -> bool {
    let (word, mask) = filter::bit(addr, port);
    // SAFETY: a word that the agent writes whole.
    FILTER.get(word).is_some_and(|w| unsafe { core::ptr::read_volatile(w) } & mask != 0)
}

/// Reads the headers into scratch memory; nothing for what is nobody's business: not TCP, an address that nothing is known of, IP
/// options, extension headers, fragments. `OUT`: the pod sends it, the other side is the destination.
///
/// The scratch memory is looked up last: most packets need none. `other` is told of another protocol than TCP.
#[inline(always)]
pub fn read<const OUT: bool, S: AsMut<Packet>>(
    skb: *mut __sk_buff,
    scratch: impl Fn() -> Option<&'static mut S>,
    other: impl Fn(u8),
) -> Option<&'static mut S> {
    const V4: usize = ETH as usize;
    const V6: usize = ETH as usize;
    // SAFETY: as in `bytes`.
    let (protocol, len) = unsafe { ((*skb).protocol, (*skb).len) };
    if protocol == ETH_P_IP {
        let at = bytes(skb, V4 + 40)?;
        // SAFETY: 40 bytes behind the Ethernet header are there.
        let w = unsafe {
            [
                word::<{ V4 }>(at),
                word::<{ V4 + 4 }>(at),
                word::<{ V4 + 8 }>(at),
                word::<{ V4 + 12 }>(at),
                word::<{ V4 + 16 }>(at),
                word::<{ V4 + 20 }>(at),
            ]
        };
        let tcp = u32::from_be(w[2]) >> 16 & 0xff == u32::from(TCP);
        let (addr, port) = if OUT { (w[4], high(w[5])) } else { (w[3], low(w[5])) };
        // Where there are options, the word at the ports' place is not theirs.
        let plain = u32::from_be(w[0]) >> 24 == 0x45;
        if !tcp {
            other((u32::from_be(w[2]) >> 16) as u8);
            return None;
        }
        if plain && !known(&Addr::v4(addr), port) {
            return None;
        }
        let s = scratch()?;
        // SAFETY: as above.
        let rest = unsafe { [word::<{ V4 + 24 }>(at), word::<{ V4 + 28 }>(at), word::<{ V4 + 32 }>(at)] };
        let w = [w[0], w[1], w[2], w[3], w[4], w[5], rest[0], rest[1], rest[2], 0];
        return (s.as_mut().read_v4(&w, len) || odd(true)).then_some(s);
    }
    if protocol == ETH_P_IPV6 {
        let at = bytes(skb, V6 + 60)?;
        // SAFETY: 60 bytes behind the Ethernet header are there.
        let (second, ports) = unsafe { (word::<{ V6 + 4 }>(at), word::<{ V6 + 40 }>(at)) };
        let (source, dest) = unsafe {
            (
                [word::<{ V6 + 8 }>(at), word::<{ V6 + 12 }>(at), word::<{ V6 + 16 }>(at), word::<{ V6 + 20 }>(at)],
                [word::<{ V6 + 24 }>(at), word::<{ V6 + 28 }>(at), word::<{ V6 + 32 }>(at), word::<{ V6 + 36 }>(at)],
            )
        };
        let next = (u32::from_be(second) >> 8) as u8;
        let (addr, port) = if OUT { (dest, high(ports)) } else { (source, low(ports)) };
        if next == 0 && jumbo(skb, u32::from(OUT)) != 0 {
            return scratch();
        }
        if next != TCP {
            // Hop-by-hop, routing, fragment, destination options (RFC 8200, section 4.1).
            odd(matches!(next, 0 | 43 | 44 | 60));
            other(next);
            return None;
        }
        if !known(&Addr(addr), port) {
            return None;
        }
        let scratch = scratch()?;
        // SAFETY: as above.
        let w =
            unsafe { [word::<{ V6 }>(at), word::<{ V6 + 44 }>(at), word::<{ V6 + 48 }>(at), word::<{ V6 + 52 }>(at)] };
        let [s, d] = [source, dest];
        let w = [w[0], second, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], ports, w[1], w[2], w[3], 0];
        return (scratch.as_mut().read_v6(&w, len) || odd(true)).then_some(scratch);
    }
    None
}

/// Reads a frame of BIG TCP over IPv6 into the scratch memory of its direction. Zero: it is something else, or nobody's business.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn jumbo(skb: *mut __sk_buff, out: u32) -> u32 {
    let p = if out != 0 { maps::out().map(AsMut::as_mut) } else { maps::incoming().map(AsMut::as_mut) };
    let (Some(p), Some(w)) = (p, words::<WORDS_JUMBO>(skb, ETH)) else { return 0 };
    let p: &mut Packet = p;
    // SAFETY: as in `bytes`.
    if !p.read_jumbo(&w, unsafe { (*skb).len }) {
        return 0;
    }
    u32::from(if out != 0 { known(&p.dst, p.dst_port()) } else { known(&p.src, p.src_port()) })
}

/// Takes the header out that tells the length of a frame of BIG TCP: what is left has the layout of any other.
#[inline(always)]
pub fn unjumbo(skb: *mut __sk_buff) -> bool {
    // SAFETY: plain numbers.
    unsafe { h::bpf_skb_adjust_room(skb.cast(), -(JUMBO as i32), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) == 0 }
}

/// The first and the second port of a word in memory order.
#[inline(always)]
const fn low(ports: u32) -> u16 {
    if cfg!(target_endian = "little") { ports as u16 } else { (ports >> 16) as u16 }
}

#[inline(always)]
const fn high(ports: u32) -> u16 {
    if cfg!(target_endian = "little") { (ports >> 16) as u16 } else { ports as u16 }
}

/// Reads the headers into `p`, whatever the address; false for what is not plain TCP.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, p: &mut Packet) -> bool {
    // SAFETY: as in `bytes`.
    let (protocol, len) = unsafe { ((*skb).protocol, (*skb).len) };
    if protocol == ETH_P_IP {
        let mut w = [0; WORDS_V4];
        return load(skb, ETH, &mut w) && p.read_v4(&w, len);
    }
    if protocol == ETH_P_IPV6 {
        let mut w = [0; WORDS_V6];
        return load(skb, ETH, &mut w) && p.read_v6(&w, len);
    }
    false
}

/// Writes the tuple of a packet that leaves the pod.
#[inline(always)]
pub fn outbound(to: &mut Tuple, p: &Packet) {
    tuple(to, &p.src, &p.dst, p.ports);
}

/// Writes the tuple of a packet that comes to the pod.
#[inline(always)]
pub fn inbound(to: &mut Tuple, p: &Packet) {
    tuple(to, &p.dst, &p.src, p.ports.rotate_left(16));
}

/// Writes a tuple where it is needed. By words: the compiler would make it on the stack, and copy it from there.
#[inline(always)]
fn tuple(to: &mut Tuple, local: &Addr, remote: &Addr, ports: u32) {
    // SAFETY: records of words, none of which is a part of another.
    unsafe {
        mem::copy(&raw mut to.local, local);
        mem::copy(&raw mut to.remote, remote);
        (&raw mut to.local_port).cast::<u32>().write_volatile(ports);
    }
}

/// Counts headers that are not read, and is false.
#[inline(always)]
fn odd(is: bool) -> bool {
    if is {
        count(Reason::OddHeader);
    }
    false
}

/// The packet's mark.
#[inline(always)]
pub fn mark(skb: *mut __sk_buff) -> u32 {
    // SAFETY: as in `parse`.
    unsafe { (*skb).mark }
}

/// Sets the packet's mark.
#[inline(always)]
pub fn set_mark(skb: *mut __sk_buff, mark: u32) {
    // SAFETY: `mark` may be written. Volatile: merged with a neighbouring store it would be refused ("invalid
    // bpf_context access size=8").
    unsafe { core::ptr::write_volatile(&raw mut (*skb).mark, mark) };
}

/// The interface's index.
#[inline(always)]
pub fn ifindex(skb: *mut __sk_buff) -> u32 {
    // SAFETY: as in `parse`.
    unsafe { (*skb).ifindex }
}

/// Monotonic nanoseconds when TCP has sent the packet in hand, which it notes (`skb_set_delivery_time`).
#[inline(always)]
pub fn sent(skb: *mut __sk_buff) -> u64 {
    // SAFETY: as in `bytes`.
    let at = unsafe { (*skb).tstamp };
    // A held frame that the agent sends again has none.
    if at == 0 { now() } else { at }
}

/// Monotonic nanoseconds, of the last timer tick: some milliseconds late, and much cheaper than the clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { h::bpf_ktime_get_coarse_ns() }
}

/// Applies a difference to the TCP checksum at `at`; `flags` says what it covers.
#[inline(always)]
fn l4(skb: *mut __sk_buff, at: u32, diff: u32, flags: u64) -> bool {
    // SAFETY: plain numbers; size 0 in the flags means that `to` is a difference.
    diff == 0 || unsafe { h::bpf_l4_csum_replace(skb.cast(), at, 0, u64::from(diff), flags) == 0 }
}

/// Rewrites the headers from the source address to the window, and the checksums.
#[inline(always)]
pub fn rewrite(skb: *mut __sk_buff, p: &Packet, edit: &Edit) -> bool {
    let check = p.tcp_at + 16;
    if p.v6 == 0 {
        let (words, addresses, rest) = edit.words_v4(p);
        let a = addresses.sum();
        // SAFETY: plain numbers.
        let ip = a == 0 || unsafe { h::bpf_l3_csum_replace(skb.cast(), ETH + 10, 0, u64::from(a), 0) == 0 };
        ip && l4(skb, check, a, u64::from(BPF_F_PSEUDO_HDR))
            && l4(skb, check, rest.sum(), 0)
            && store(skb, ETH + 12, &words, 0)
    } else {
        let (words, addresses, rest) = edit.words_v6(p);
        let a = addresses.sum();
        // SAFETY: a variable that nobody writes once the programs are loaded.
        let flag = unsafe { (&raw const IPV6_CHECKSUM).read_volatile() };
        // Kernels before 6.16 do not know the flag, and take the change of the checksum field into CHECKSUM_COMPLETE: there the
        // addresses, and they alone, are stored with their own correction.
        let mut correct = 0;
        if l4(skb, check, a, u64::from(BPF_F_PSEUDO_HDR) | flag) {
            if !p.jumbo() {
                return l4(skb, check, rest.sum(), 0) && store(skb, ETH + 8, &words, 0);
            }
        } else {
            correct = BPF_F_RECOMPUTE_CSUM;
            if !l4(skb, check, a, u64::from(BPF_F_PSEUDO_HDR)) {
                return false;
            }
        }
        let (Some(addresses), Some(behind)) = (words.first_chunk::<8>(), words.last_chunk::<4>()) else { return false };
        l4(skb, check, rest.sum(), 0) && store(skb, ETH + 8, addresses, correct) && store(skb, p.tcp_at, behind, 0)
    }
}

/// Applies a difference of what stands behind the IP header to the checksum at `at`.
#[inline(always)]
pub fn fix_checksum(skb: *mut __sk_buff, at: u32, diff: u32) -> bool {
    l4(skb, at, diff, 0)
}
