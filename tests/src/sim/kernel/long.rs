//! Heads that are longer than the window, as `ebpf/src/long.rs`.

use sidetrack_splice::{
    abi::{reason::Reason, record::HEAD_MAX},
    http::{
        STATUS_COMPLETE, STATUS_UNREADABLE,
        long::{self, LONG_MAX},
    },
};

use super::{Kernel, Step, Want};

/// How many there may be at a time.
const LONG_HEADS: usize = 128;

/// Whether a head of which this much has passed is a long one.
pub fn is_long(partial: u32) -> bool {
    partial as usize >= HEAD_MAX
}

impl Kernel {
    /// Takes up the long head that a segment before this one left. Whether it is there.
    pub(super) fn long_resume(&mut self) -> bool {
        let Some(kept) = self.long.get(&self.out.conn) else { return false };
        self.work.clone_from(kept);
        self.work.head.given() == self.out.state.partial
    }

    /// Puts the next bytes of the long head into the window. Whether there was room for any.
    pub(super) fn long_fill(&mut self, frame: &[u8]) -> bool {
        let work = &mut *self.work;
        if work.head.given() >= LONG_MAX {
            return false;
        }
        if work.head.used() as usize >= HEAD_MAX {
            let Some(words) = work.head.slide(&work.window, &self.config) else { return false };
            (0..long::shifts(words)).for_each(|n| long::shift(&mut work.window, words, n));
        }
        let out = &self.out;
        let (at, used) = (out.state.request.pos + u64::from(out.state.partial), work.head.used());
        if at < out.start || at >= out.end || used as usize >= HEAD_MAX {
            return false;
        }
        let n = (out.end - at).min(HEAD_MAX as u64 - u64::from(used)) as u32;
        let from = out.packet.payload_at + (at - out.start) as u32;
        if !self.load_window(frame, from, used, n) {
            return false;
        }
        self.work.head.more(n);
        self.out.state.partial += n;
        true
    }

    /// The long head does not end in what was read.
    pub(super) fn long_go_on(&mut self) -> bool {
        if self.out.state.request.pos + u64::from(self.out.state.partial) < self.out.end {
            return true;
        }
        if self.long.len() >= LONG_HEADS {
            self.long.pop_first();
        }
        self.long.insert(self.out.conn, self.work.clone());
        self.count(Reason::HeadPartial);
        self.out.step = Step::Stay;
        false
    }

    /// Decides about the long head that was read to its end, with this status.
    pub(super) fn long_end(&mut self, status: u32) -> bool {
        if status != STATUS_COMPLETE && status != STATUS_UNREADABLE {
            return self.refuse(Reason::ResetHeadTooLong);
        }
        self.out.want = Want::Baseline;
        self.find_route();
        if self.out.want != Want::Baseline || self.out.state.owner != 0 {
            return self.refuse(Reason::ResetHeadTooLong);
        }
        if status != STATUS_COMPLETE {
            return self.unreadable(status);
        }
        self.decide();
        match self.out.step {
            Step::More | Step::Stay => {
                self.count(Reason::HeadLong);
                self.out.step == Step::More
            }
            _ => self.refuse(Reason::ResetHeadTooLong),
        }
    }
}
