//! Handing frames to the agent.

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        event::{EVENT_GONE, Event},
        reason::Reason,
    },
    packet::ETH,
};

use crate::{
    count::count,
    maps::{EVENTS, OUT},
    skb,
};

/// Frame sizes that room is reserved for: `bpf_ringbuf_reserve` wants a constant. The largest is a full GSO frame with
/// its headers.
const SMALL: u32 = 2048;
const MEDIUM: u32 = 16 * 1024;
const LARGE: u32 = 64 * 1024 + 256;

/// A longer frame does not tell its length as others do (BIG TCP): nobody could send it again.
const MOST: u32 = ETH + 0xffff;

const HEADER: u32 = size_of::<Event>() as u32;

/// Hands an event to the agent, with room for `ROOM` bytes behind it that `load` fills. False, and counted: there is no room, by
/// the reason `full`, or the frame's bytes cannot be had.
#[inline(always)]
fn submit<const ROOM: u32>(event: &Event, full: Reason, load: impl FnOnce(*mut u8) -> bool) -> bool {
    // SAFETY: the size is a constant, the map is a ring buffer.
    let record = unsafe { h::bpf_ringbuf_reserve((&raw const EVENTS).cast_mut().cast(), u64::from(HEADER + ROOM), 0) };
    if record.is_null() {
        count(full);
        return false;
    }
    // SAFETY: the record has room for the header, and for ROOM bytes behind it.
    let frame = unsafe {
        core::ptr::write(record.cast::<Event>(), *event);
        record.cast::<u8>().add(HEADER as usize)
    };
    if !load(frame) {
        count(Reason::ErrLoad);
        // SAFETY: the record was reserved above and is given back once.
        unsafe { h::bpf_ringbuf_discard(record, 0) };
        return false;
    }
    // SAFETY: as above.
    unsafe { h::bpf_ringbuf_submit(record, 0) };
    true
}

/// Sends a frame of at most `ROOM` bytes, a power of two; `MASK` is one less.
#[inline(always)]
fn send<const ROOM: u32, const MASK: u64>(skb: *mut __sk_buff, event: &Event) -> bool {
    let mut n = u64::from(event.frame_len);
    submit::<ROOM>(event, Reason::RingFull, |frame| {
        // SAFETY: arithmetic on one register: the verifier must see 1..=ROOM on the register that the helper gets. There are
        // ROOM bytes.
        unsafe {
            core::arch::asm!("{n} += -1", "{n} &= {mask}", "{n} += 1", n = inout(reg) n, mask = const MASK);
            h::bpf_skb_load_bytes(skb.cast(), 0, frame.cast(), n as u32) == 0
        }
    })
}

/// As [`send`], for frames whose largest size is no power of two: two loads.
#[inline(always)]
fn send_large(skb: *mut __sk_buff, event: &Event) -> bool {
    let mut n = u64::from(event.frame_len - MEDIUM);
    submit::<LARGE>(event, Reason::RingFull, |frame| {
        // SAFETY: arithmetic on one register; a frame of this size has 1..=49,408 bytes behind the first 16 KiB.
        unsafe { core::arch::asm!("{n} += -1", "{n} &= 65535", "{n} += 1", n = inout(reg) n) };
        if n > u64::from(LARGE - MEDIUM) {
            n = 1;
        }
        // SAFETY: there are LARGE bytes.
        unsafe {
            h::bpf_skb_load_bytes(skb.cast(), 0, frame.cast(), MEDIUM) == 0
                && h::bpf_skb_load_bytes(skb.cast(), MEDIUM, frame.add(MEDIUM as usize).cast(), n as u32) == 0
        }
    })
}

/// Hands the frame in hand, with its headers, to the agent. Returns whether it could be: room is reserved first, so a
/// connection is only marked when its frame is safe.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hand_over(skb: *mut __sk_buff, kind: u32) -> u32 {
    let Some(out) = OUT.get_ptr(0) else { return 0 };
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    let out = unsafe { &*out };
    // SAFETY: fields that a program of this type may read.
    let (len, gso_size) = unsafe { ((*skb).len, (*skb).gso_size) };
    let event = Event {
        conn: out.key.conn,
        kind,
        hold: out.state.hold,
        slot: out.slot,
        service: out.service,
        route: out.route,
        version: out.version,
        seq: out.packet.seq,
        prefix: out.state.partial,
        cut: out.cut,
        gso_size,
        frame_len: len,
        tcp_at: out.packet.tcp_at,
        ifindex: skb::ifindex(skb),
        at: out.now,
    };
    let sent = if len <= SMALL {
        send::<SMALL, { SMALL as u64 - 1 }>(skb, &event)
    } else if len <= MEDIUM {
        send::<MEDIUM, { MEDIUM as u64 - 1 }>(skb, &event)
    } else if len <= MOST {
        send_large(skb, &event)
    } else {
        count(Reason::FrameTooBig);
        false
    };
    u32::from(sent)
}

/// Tells the agent that a connection was closed, reset or given up, so that it resets the legs. The agent's sweep finds it
/// too: this makes it quick.
#[inline(always)]
pub fn gone(skb: *mut __sk_buff, conn: &Tuple, service: u32) {
    let event = Event {
        conn: *conn,
        kind: EVENT_GONE,
        hold: 0,
        slot: 0,
        service,
        route: 0,
        version: 0,
        seq: 0,
        prefix: 0,
        cut: 0,
        gso_size: 0,
        frame_len: 0,
        tcp_at: 0,
        ifindex: skb::ifindex(skb),
        at: skb::now(),
    };
    submit::<0>(&event, Reason::GoneUnsaid, |_| true);
}
