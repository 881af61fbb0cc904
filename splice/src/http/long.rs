//! Heads that are longer than the window.
//!
//! Such a head is read to its end all the same: what it says about framing decides where the next one starts, and its
//! keys decide whether it may go on. The window slides over it: [`Head::slide`] says what goes, [`shift`] moves what
//! stays, and [`Head::more`] takes in what was put behind it.
//!
//! Of a line only the whole can be read, so one that does not fit the window ends the reading if it may be of interest,
//! and is stepped over if not: a cookie, mostly.

#[cfg(any(test, feature = "std"))]
use super::Found;
use super::{Head, STATUS_INCOMPLETE, STATUS_MORE, field, kind, line, state, swar};
use crate::{
    abi::{
        config::{CARRIER_HEADER, Config},
        record::HEAD_MAX,
    },
    window::{BLOCK, Window},
};

/// Longest head that is read.
pub const LONG_MAX: u32 = 256 * 1024;

/// What stays of a first line: its version, and white space behind it.
const VERSION: u32 = 64;

/// First bytes of the names that decide about framing, or are lists that have carriers, and how many of them count.
const NAMES: [(&[u8; 8], u32); 7] = [
    (b"content-", 8),
    (b"transfer", 8),
    (b"connecti", 8),
    (b"expect\0\0", 6),
    (b"upgrade\0", 7),
    (b"baggage\0", 7),
    (b"tracesta", 8),
];

impl Head {
    /// How many bytes of the head were given so far.
    #[inline(always)]
    #[must_use]
    pub const fn given(&self) -> u32 {
        self.slid.wrapping_add(self.len)
    }

    /// How many bytes of the window are used: more can be put behind them.
    #[inline(always)]
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.len
    }

    /// Goes on with `n` bytes that were put behind the used ones.
    #[inline(always)]
    pub const fn more(&mut self, n: u32) {
        self.len = self.len.wrapping_add(n);
        self.status = STATUS_MORE;
    }

    /// Makes room in a full window: the number of words at its start that go. The host then moves those behind them, by
    /// [`shift`]. Nothing: this head cannot be read on.
    #[inline(always)]
    pub fn slide(&mut self, window: &Window, config: &Config) -> Option<u32> {
        if self.status != STATUS_INCOMPLETE || self.len != HEAD_MAX as u32 {
            return None;
        }
        let words = match self.state {
            state::TARGET => self.at.saturating_sub(VERSION) >> 3,
            state::LINE => self.line >> 3,
            state::REST => HEAD_MAX as u32 >> 3,
            _ => return None,
        };
        let words = if words != 0 {
            words
        } else if self.state == state::LINE && self.pass_over(window, config) {
            HEAD_MAX as u32 >> 3
        } else {
            return None;
        };
        let bytes = words << 3;
        self.slid = self.slid.wrapping_add(bytes);
        self.len = self.len.saturating_sub(bytes);
        self.at = if self.state == state::REST { 0 } else { self.at.saturating_sub(bytes) };
        self.line = self.line.saturating_sub(bytes);
        self.mark = self.mark.saturating_sub(bytes);
        self.start = self.start.saturating_sub(bytes);
        Some(words)
    }

    /// Passes over the line that fills the window, if it can be of no interest.
    #[inline(always)]
    fn pass_over(&mut self, window: &Window, config: &Config) -> bool {
        let word = swar::lower(window.eight(self.line));
        let byte = word as u8;
        if byte == b' ' || byte == b'\t' {
            let _ = line::fold(self);
        } else {
            let mut i = 0;
            while i < NAMES.len() {
                let (name, len) = NAMES[i];
                if (word ^ swar::ascii(*name)) & swar::first(len) == 0 {
                    return false;
                }
                i += 1;
            }
            self.index = 0;
            if field::candidate(self, config, CARRIER_HEADER, word) {
                return false;
            }
            self.last = kind::OTHER;
        }
        self.state = state::REST;
        true
    }
}

/// How many calls of [`shift`] it takes to let `words` go.
#[inline(always)]
#[must_use]
pub const fn shifts(words: u32) -> u32 {
    ((HEAD_MAX as u32 / 8).saturating_sub(words)).div_ceil(BLOCK as u32)
}

/// Moves block number `n` of what stays, when `words` go. They are moved in order.
#[inline(always)]
pub fn shift(window: &mut Window, words: u32, n: u32) {
    let mut i = 0;
    while i < BLOCK as u32 {
        let to = n.wrapping_mul(BLOCK as u32).wrapping_add(i).wrapping_mul(8);
        window.put(to, window.eight(to.wrapping_add(words.wrapping_mul(8))));
        i += 1;
    }
}

/// Reads a request that is given in parts of `part` bytes, as the kernel does. [`STATUS_MORE`]: it cannot be read on.
#[cfg(any(test, feature = "std"))]
#[must_use]
pub fn parts(text: &[u8], part: usize, config: &Config) -> (Head, Found) {
    let (mut window, len) = Window::of(&text[..part.min(text.len())]);
    let (mut head, mut found) = (Head::default(), Found::default());
    head.start(0, len, super::REQUEST);
    while super::run(&mut head, &mut found, &window, config) == STATUS_INCOMPLETE {
        if head.len == HEAD_MAX as u32 {
            let Some(words) = head.slide(&window, config) else {
                head.status = STATUS_MORE;
                break;
            };
            (0..shifts(words)).for_each(|n| shift(&mut window, words, n));
        }
        let given = head.given() as usize;
        let n = part.min(text.len() - given).min(HEAD_MAX - head.len as usize);
        if n == 0 {
            break;
        }
        for (at, byte) in (head.len..).zip(&text[given..given + n]) {
            window.put(at, u64::from(*byte));
        }
        head.more(n as u32);
    }
    (head, found)
}
