//! Drives the reader of heads and the follower of chunked bodies over a packet, as `ebpf/src/scan.rs`.

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        record::{Framing, HEAD_MAX},
    },
    http::{self, Found, Head, STATUS_INCOMPLETE, chunk},
    window::Window,
};

use super::Kernel;

/// What a head is read in.
#[derive(Clone)]
pub struct Work {
    /// Its bytes.
    pub window: Window,
    /// The result.
    pub head: Head,
    /// The keys.
    pub found: Found,
}

impl Default for Work {
    fn default() -> Self {
        Self { window: *Window::of(&[]).0, head: Head::default(), found: Found::default() }
    }
}

/// How many bytes are copied into the window at first.
pub const AT_FIRST: u32 = 2048;

/// Where the bytes of a head are.
pub struct Source {
    /// What was gathered of it.
    pub gathered: (Tuple, u32),
    /// How many these are.
    pub prefix: u32,
    /// Position of the head.
    pub pos: u64,
    /// Of the segment.
    pub start: u64,
    /// Behind its payload.
    pub end: u64,
    /// Offset of the payload in the frame.
    pub payload_at: u32,
}

impl Kernel {
    /// Copies bytes of the packet into the window.
    pub(super) fn load_window(&mut self, frame: &[u8], from: u32, at: u32, len: u32) -> bool {
        if len == 0 || at >= HEAD_MAX as u32 || len > HEAD_MAX as u32 - at {
            return false;
        }
        let (from, at, len) = (from as usize, at as usize, len as usize);
        let Some(bytes) = frame.get(from..from + len) else { return false };
        self.work.window.bytes[at..at + len].copy_from_slice(bytes);
        true
    }

    /// Reads the head in the window's first `len` bytes, and returns its status.
    pub(super) fn scan_head(&mut self, len: u32, kind: u32) -> u32 {
        self.work.head.start(0, len, kind);
        self.scan_rest()
    }

    /// Goes on with the head in the window.
    pub(super) fn scan_rest(&mut self) -> u32 {
        let Work { window, head, found } = &mut *self.work;
        http::run(head, found, window, &self.config)
    }

    /// Reads the head that `source` names: how many bytes the window has, zero if none could be had, and the status.
    pub(super) fn look_at_head(&mut self, frame: &[u8], kind: u32, source: &Source) -> (u32, u32) {
        let there = source.end.saturating_sub(source.pos);
        let len = self.fill(frame, source, AT_FIRST);
        let status = self.scan_head(len, kind);
        if status != STATUS_INCOMPLETE || u64::from(len) >= there || len as usize >= HEAD_MAX {
            return (len, status);
        }
        let len = self.fill(frame, source, HEAD_MAX as u32);
        (len, self.scan_head(len, kind))
    }

    fn fill(&mut self, frame: &[u8], head: &Source, most: u32) -> u32 {
        if head.prefix != 0 {
            let Some(gathered) = self.maps.heads.get(&head.gathered) else { return 0 };
            self.work.window.bytes[..HEAD_MAX].copy_from_slice(&gathered.bytes[..HEAD_MAX]);
        }
        let at = head.pos + u64::from(head.prefix);
        if at < head.start || at >= head.end || head.prefix as usize >= HEAD_MAX {
            return 0;
        }
        let room = (HEAD_MAX as u64 - u64::from(head.prefix)).min(u64::from(most));
        let n = (head.end - at).min(room) as u32;
        let from = head.payload_at + (at - head.start) as u32;
        if self.load_window(frame, from, head.prefix, n) { head.prefix + n } else { 0 }
    }
}

/// Follows a chunked body through the bytes from `base` to `end`, which stand in the packet at `at`. False: it is none.
pub fn chunks(frame: &[u8], at: u32, base: u64, end: u64, framing: &mut Framing) -> bool {
    while framing.pos < end {
        let from = at as usize + (framing.pos - base) as usize;
        let valid = (end - framing.pos).min(chunk::BLOCK as u64) as usize;
        let mut block = [0; chunk::BLOCK];
        block[..valid].copy_from_slice(&frame[from..from + valid]);
        match chunk::step(framing, &block, valid as u32) {
            chunk::Flow::More => {}
            chunk::Flow::Done => return true,
            chunk::Flow::Bad => return false,
        }
    }
    true
}
