//! Drives the reader of heads and the follower of chunked bodies, which are `splice`'s own, over the packet in hand.
//!
//! The functions are global: the verifier checks each one by itself, once, whoever calls it.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, btf_maps::PerCpuArray, helpers::generated as h, macros::btf_map};
use sidetrack_splice::{
    abi::{
        config::Config,
        record::{Framing, HEAD_MAX, HeadKey},
    },
    http::{self, Found, Head, STATUS_INCOMPLETE, STATUS_MORE, STATUS_UNREADABLE, chunk},
    window::Window,
};

use crate::maps::{CONFIG, HEADS};

/// Largest value of a per-CPU array.
const VALUE_MAX: usize = 32 * 1024;
/// What [`Work`] is made of.
const PARTS: usize = size_of::<Window>() + size_of::<Head>() + size_of::<Found>();

/// What a head is read in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Work {
    /// Its bytes.
    pub window: Window,
    /// The result.
    pub head: Head,
    /// The keys.
    pub found: Found,
    /// Room that is never written: the verifier adds the largest offset and the largest length of a copy into the
    /// window, though their sum is checked.
    room: [u8; VALUE_MAX - PARTS],
}

/// How many bytes are copied into the window at first: most heads, and not the body behind them. If the head does not end
/// there, it is read again from all that there is.
pub const AT_FIRST: u32 = 2048;

/// Scratch memory for one head, of either direction: egress and ingress of one CPU do not interrupt each other.
#[btf_map(name = "scratch_head")]
pub static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// [`chunks`] needs bytes behind those that there are.
pub const CHUNKS_MORE: u32 = chunk::Flow::More as u32;
/// This is no chunked body.
pub const CHUNKS_BAD: u32 = chunk::Flow::Bad as u32;

/// Steps that 512 KiB of the smallest chunks take, the largest packet of BIG TCP, twice over.
const CHUNK_STEPS: u32 = 1 << 18;

/// Copies `len` bytes of the packet, from `from` on, into the window at `at`. Whether that went well; not if they
/// would not fit.
///
/// # Safety
/// `work` is valid, and nothing else uses it meanwhile.
#[inline(always)]
pub unsafe fn load_window(work: *mut Work, skb: *mut __sk_buff, from: u32, at: u32, len: u32) -> bool {
    if len == 0 || at >= HEAD_MAX as u32 || len > HEAD_MAX as u32 - at {
        return false;
    }
    let (mut at, mut len) = (u64::from(at), u64::from(len));
    // The verifier wants the ranges proven on the very registers that are added to the pointer and given to the helper,
    // and LLVM would remove masks that it can prove to change nothing.
    // SAFETY: arithmetic on two registers.
    unsafe {
        core::arch::asm!(
            "{at} &= 16383", "{len} += -1", "{len} &= 16383", "{len} += 1",
            at = inout(reg) at, len = inout(reg) len,
        );
    }
    // SAFETY: `at + len` is at most HEAD_MAX, as was checked: the bytes are the window's.
    unsafe {
        let to = (&raw mut (*work).window).cast::<u8>().add(at as usize);
        h::bpf_skb_load_bytes(skb.cast(), from, to.cast(), len as u32) == 0
    }
}

/// Begins with the head in `from..len` of the window, if `kind` says what it is, or goes on with the one that is being
/// read: one step. Returns its status.
///
/// One function, and no more calls than must be: where the kernel guards returns against speculation (retbleed, SRSO),
/// each of them takes as long as reading 100 bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_step(from: u32, len: u32, kind: u32) -> u32 {
    let (Some(work), Some(config)) = (WORK.get_ptr_mut(0), CONFIG.get(0)) else { return STATUS_UNREADABLE };
    // SAFETY: a per-CPU value that nothing else uses while this packet is handled.
    unsafe { one_step(work, config, from, len, kind) }
}

/// One step, in the caller's own code.
///
/// # Safety
/// Nothing else uses `work` meanwhile.
#[inline(always)]
pub unsafe fn one_step(work: *mut Work, config: &Config, from: u32, len: u32, kind: u32) -> u32 {
    if kind != GO_ON {
        // SAFETY: the head is made of integers, its size is a multiple of theirs, and zero is a value of each. Volatile:
        // else the compiler calls a `memset` that goes by bytes.
        unsafe {
            let words = (&raw mut (*work).head).cast::<u64>();
            for i in 0..size_of::<Head>() / 8 {
                words.add(i).write_volatile(0);
            }
            (*work).head.start_zeroed(from, len, kind);
        }
    }
    // SAFETY: the caller's promise.
    let Work { window, head, found, .. } = unsafe { &mut *work };
    let _ = http::step(head, found, window, config);
    head.status
}

/// For [`scan_step`]: another than [`http::REQUEST`] and [`http::RESPONSE`].
const GO_ON: u32 = 2;

unsafe extern "C" fn head_callback(_i: u64, _ctx: *mut c_void) -> i64 {
    // compared, because the verifier wants to see that nothing but 0 and 1 comes
    if scan_step(0, 0, GO_ON) == STATUS_MORE { 0 } else { 1 }
}

/// Reads the head in `from..len` of the window as a request or a response, and returns its status; all else is in
/// [`WORK`]. [`STATUS_MORE`] means that it did not come to an end.
#[inline(always)]
pub fn scan_head(from: u32, len: u32, kind: u32) -> u32 {
    let status = scan_step(from, len, kind);
    if status == STATUS_MORE { scan_rest() } else { status }
}

/// Goes on with the head in [`WORK`]: one that takes more than one step, or in whose window there are more bytes. Returns its
/// status.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_rest() -> u32 {
    // SAFETY: the callback uses no context.
    unsafe { h::bpf_loop(http::STEPS, head_callback as *mut c_void, core::ptr::null_mut(), 0) };
    // SAFETY: the value is there; no reference to it is alive.
    WORK.get_ptr(0).map_or(STATUS_MORE, |work| unsafe { (*work).head.status })
}

/// Reads the head that `fill` puts into the window: its first bytes, and if it does not end there all of the `there` bytes that
/// are. Returns how many bytes the window has, zero if they could not be had, and the status.
#[inline(always)]
pub fn look(kind: u32, there: u64, fill: impl Fn(u32) -> u32) -> (u32, u32) {
    let len = fill(AT_FIRST);
    let status = scan_head(0, len, kind);
    if status != STATUS_INCOMPLETE || u64::from(len) >= there || len as usize >= HEAD_MAX {
        return (len, status);
    }
    let len = fill(HEAD_MAX as u32);
    (len, scan_head(0, len, kind))
}

/// Where the bytes of a head are: what was gathered of it, and the segment in hand.
pub struct Source<'a> {
    /// Key of the gathered ones in map `heads`.
    pub gathered: &'a HeadKey,
    /// How many these are.
    pub prefix: u32,
    /// Position of the head.
    pub pos: u64,
    /// Position of the segment.
    pub start: u64,
    /// Position behind its payload.
    pub end: u64,
    /// Offset of the payload in the frame.
    pub payload_at: u32,
}

/// Puts the bytes of a head into the window: what was gathered, then the segment's, `most` of them. Returns how many, 0 on
/// failure.
#[inline(always)]
pub fn fill(skb: *mut __sk_buff, head: &Source, most: u32) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
    if head.prefix != 0 {
        let Some(gathered) = HEADS.get_ptr(head.gathered) else { return 0 };
        // SAFETY: both are windows of HEAD_MAX bytes and more, and nothing else uses this per-CPU value meanwhile.
        let copied =
            unsafe { h::bpf_probe_read_kernel((&raw mut (*work).window).cast(), HEAD_MAX as u32, gathered.cast()) };
        if copied != 0 {
            return 0;
        }
    }
    let at = head.pos + u64::from(head.prefix);
    if at < head.start || at >= head.end || head.prefix as usize >= HEAD_MAX {
        return 0;
    }
    let (left, room) = (head.end - at, HEAD_MAX as u64 - u64::from(head.prefix));
    let room = if room < u64::from(most) { room } else { u64::from(most) };
    let n = if left < room { left } else { room } as u32;
    let from = head.payload_at + (at - head.start) as u32;
    // SAFETY: a per-CPU value that nothing else uses meanwhile.
    if unsafe { load_window(work, skb, from, head.prefix, n) } { head.prefix + n } else { 0 }
}

/// What [`chunks`] hands to its steps.
struct Chunks {
    skb: *mut __sk_buff,
    framing: *mut Framing,
    base: u64,
    end: u64,
    at: u32,
    flow: u32,
}

unsafe extern "C" fn chunk_callback(_i: u64, ctx: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` hands on the context that it was given.
    let context = unsafe { &mut *ctx.cast::<Chunks>() };
    // SAFETY: `scan_chunks` was lent it.
    let framing = unsafe { &mut *context.framing };
    let ahead = framing.pos.wrapping_sub(context.base);
    if framing.pos >= context.end {
        return 1;
    }
    let mut valid = (context.end - framing.pos).min(chunk::BLOCK as u64);
    // SAFETY: arithmetic on one register: 1..=16, proven where the helper gets it.
    unsafe { core::arch::asm!("{n} += -1", "{n} &= 15", "{n} += 1", n = inout(reg) valid) };
    // Written in words: the helper wants all of it written before, and the compiler would call a `memset` by bytes.
    let mut block = MaybeUninit::<[u64; chunk::BLOCK / 8]>::uninit();
    let words = block.as_mut_ptr().cast::<u64>();
    // SAFETY: both words are the block's.
    unsafe {
        words.write_volatile(0);
        words.add(1).write_volatile(0);
    }
    let at = context.at.wrapping_add(ahead as u32);
    // SAFETY: the block has room for 16 bytes.
    if unsafe { h::bpf_skb_load_bytes(context.skb.cast(), at, words.cast(), valid as u32) } != 0 {
        context.flow = CHUNKS_BAD;
        return 1;
    }
    // SAFETY: the block is written, and its bytes are bytes.
    let bytes = unsafe { &*words.cast::<[u8; chunk::BLOCK]>() };
    context.flow = chunk::step(framing, bytes, valid as u32) as u32;
    i64::from(context.flow != CHUNKS_MORE)
}

/// Follows a chunked body through the bytes of the stream from `base` to `end`, which stand in the packet at `at`, from
/// [`Framing::pos`] on. Returns one of the `CHUNKS_` constants; bytes that cannot be loaded are no chunked body.
#[inline(always)]
pub fn chunks(skb: *mut __sk_buff, at: u32, base: u64, end: u64, framing: &mut Framing) -> u32 {
    // SAFETY: a reference is valid, and exclusive while it is lent.
    unsafe { scan_chunks(skb, at, base, end, framing) }
}

/// [`chunks`], with the pointer that the verifier knows: it may be null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn scan_chunks(skb: *mut __sk_buff, at: u32, base: u64, end: u64, framing: *mut Framing) -> u32 {
    if framing.is_null() {
        return CHUNKS_BAD;
    }
    let mut context = Chunks { skb, framing, base, end, at, flow: CHUNKS_MORE };
    // SAFETY: the context outlives the loop.
    unsafe { h::bpf_loop(CHUNK_STEPS, chunk_callback as *mut c_void, (&raw mut context).cast(), 0) };
    // SAFETY: lent by the caller; the loop has ended.
    if context.flow == CHUNKS_MORE && unsafe { (*framing).pos } < end {
        return CHUNKS_BAD;
    }
    context.flow
}
