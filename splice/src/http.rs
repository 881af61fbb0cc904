//! Reading the heads of HTTP/1.1 requests and responses, and following chunked bodies.
//!
//! [`step`] is one bounded piece of work on a [`Head`]; the host owns the loop: [`run`] natively, `bpf_loop` in the
//! kernel. A head is complete where the most lenient server would end it: an empty line after `\r\n` or a bare `\n`.
//!
//! Lines are found by words. Only a line whose first bytes pass a filter of 64 bits is looked at closer, and only the
//! fields that decide about framing, and the carriers, are read.

mod begin;
pub mod chunk;
#[cfg(any(test, feature = "std"))]
pub mod corpus;
mod field;
mod line;
mod list;
pub(crate) mod swar;
mod value;

use crate::{
    abi::{
        config::{CARRIERS, Config},
        record::HEAD_MAX,
        route::RouteKey,
    },
    window::Window,
};

/// Read a request's head.
pub const REQUEST: u32 = 0;
/// Read a response's head.
pub const RESPONSE: u32 = 1;

/// Not read to the end: [`step`] goes on.
pub const STATUS_MORE: u32 = 0;
/// The head does not end within the bytes given.
pub const STATUS_INCOMPLETE: u32 = 1;
/// A head was read, [`Head::end`] is just behind it.
pub const STATUS_COMPLETE: u32 = 2;
/// HTTP/1, but its framing is ambiguous or wrong. The keys of a request were read all the same, to the end of its head.
pub const STATUS_UNREADABLE: u32 = 3;
/// The first bytes cannot become a head.
pub const STATUS_NOT_HTTP: u32 = 4;
/// The first bytes are a TLS record.
pub const STATUS_TLS: u32 = 5;
/// The preface of HTTP/2 with prior knowledge.
pub const STATUS_HTTP2: u32 = 6;

/// No body follows.
pub const BODY_NONE: u32 = 0;
/// [`Head::length`] bytes follow.
pub const BODY_LENGTH: u32 = 1;
/// A chunked body follows, see [`chunk`].
pub const BODY_CHUNKED: u32 = 2;
/// The body ends with the connection.
pub const BODY_REST: u32 = 3;

/// The method is HEAD.
pub const FLAG_HEAD: u32 = 1;
/// The method is CONNECT.
pub const FLAG_CONNECT: u32 = 2;
/// There is an `Upgrade` field.
pub const FLAG_UPGRADE: u32 = 4;
/// The request waits for `100 Continue`.
pub const FLAG_EXPECT: u32 = 8;
/// HTTP/1.0.
pub const FLAG_HTTP10: u32 = 16;
/// `Connection: close`.
pub const FLAG_CLOSE: u32 = 32;
/// `Connection: keep-alive`.
pub const FLAG_KEEP_ALIVE: u32 = 64;

/// No head takes more steps: the most costly one found, carriers that share their first eight bytes and members that
/// begin like them, takes fewer than three a byte.
pub const STEPS: u32 = 4 * HEAD_MAX as u32;

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Call [`step`] again.
    More,
    /// [`Head::status`] says how it ended.
    Done,
}

/// What a head says about framing and carriers, and how far it was read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Head {
    /// `Content-Length`, with [`BODY_LENGTH`]. At most 2^63.
    pub length: u64,
    /// One of the `STATUS_` constants.
    pub status: u32,
    /// [`REQUEST`] or [`RESPONSE`].
    pub kind: u32,
    /// Offset of the first byte behind blank lines.
    pub start: u32,
    /// Offset just behind the head.
    pub end: u32,
    /// One of the `BODY_` constants. For a response, see [`response_body`].
    pub body: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Status code of a response.
    pub code: u32,
    /// Bit n: carrier n holds a valid key, [`Found::keys`] has it.
    pub found: u32,
    /// Carriers whose key is empty, too long, has a character outside `[A-Za-z0-9._-]`, or stands in a field that is
    /// folded or has white space before its colon.
    pub invalid: u32,
    /// Carriers that stood there again after their key was found.
    pub duplicate: u32,

    /// What [`step`] does next.
    state: u32,
    /// How many bytes of the window are valid.
    len: u32,
    /// The next byte to look at.
    at: u32,
    /// Start of the current line in [`state::LINE`], of the next one while a line is looked at closer.
    line: u32,
    /// End of the content of the line that is looked at, without its line end.
    limit: u32,
    /// Start of the field name, of the list member, or of the value.
    mark: u32,
    /// End of the value.
    stop: u32,
    /// Number of the carrier that is compared or read.
    index: u32,
    /// One of the `field::` constants: what the line is.
    field: u32,
    /// What the line before the current one was: decides what a folded line means.
    last: u32,
    /// Bits of `found` that the last carrier line set: folding takes them back.
    fresh: u32,
    /// One of the `field::TE_` constants.
    coding: u32,
    /// Bytes of the key that were decoded.
    out: u32,
    /// `SEEN_` bits.
    seen: u32,
    /// The number that is being read.
    number: u64,
    /// Filters of names that matter, by [`swar::slot`]: field names, members of `baggage`, members of `tracestate`.
    filters: [u64; 3],
}

/// One key for each carrier, valid where [`Head::found`] has its bit: zero-padded, with nothing in
/// [`RouteKey::service`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Found {
    /// By number of the carrier in [`Config::carriers`].
    pub keys: [RouteKey; CARRIERS],
}

impl Default for Found {
    fn default() -> Self {
        Self { keys: [RouteKey { service: 0, key: [0; 64] }; CARRIERS] }
    }
}

/// There was a `Content-Length`.
const SEEN_LENGTH: u32 = 1;
/// There was something that makes the framing ambiguous or wrong.
const SEEN_FAULT: u32 = 2;

/// What [`step`] can be at: four times the number of the part, and more.
mod state {
    /// Blank lines before the head, and its first bytes.
    pub const BEGIN: u32 = 0;
    /// The rest of a request's method.
    pub const METHOD: u32 = 1;
    /// The end of the first line.
    pub const TARGET: u32 = 2;
    /// The version at the end of a request's first line.
    pub const VERSION: u32 = 3;
    /// The ends of lines.
    pub const LINE: u32 = 4;
    /// Which of the fixed names a line has.
    pub const NAME: u32 = 8;
    /// Which carrier's header a line may have.
    pub const OWN: u32 = 9;
    /// The rest of a list's member.
    pub const SKIP: u32 = 12;
    /// The start of a list's member.
    pub const ITEM: u32 = 13;
    /// Which carrier a list's member may be.
    pub const MEMBER: u32 = 16;
    /// Whether it is that carrier's header or member.
    pub const MATCH: u32 = 20;
    /// The equals sign of a member.
    pub const EQUALS: u32 = 21;
    /// The start of a value.
    pub const VALUE: u32 = 24;
    /// The end of a member's value.
    pub const UNTIL: u32 = 25;
    /// White space at the end of a value.
    pub const TRIM: u32 = 26;
    /// A key.
    pub const KEY: u32 = 28;
    /// Percent-encoded bytes of a key.
    pub const DECODE: u32 = 29;
    /// Digits of a length.
    pub const DIGITS: u32 = 32;
}

/// Does what a state stands for; ends the step with the head.
macro_rules! stage {
    ($when:expr, $does:expr) => {
        if $when && $does == Flow::Done {
            return Flow::Done;
        }
    };
}

impl Head {
    /// Begins with a head in `from..len` of the window. The result of an earlier one is gone.
    #[inline(always)]
    pub fn start(&mut self, from: u32, len: u32, kind: u32) {
        *self = Self::default();
        self.start_zeroed(from, len, kind);
    }

    /// As [`Self::start`], where all of it is zero already: in the kernel, to which the compiler would add a call of a
    /// `memset` that goes by bytes.
    #[inline(always)]
    pub const fn start_zeroed(&mut self, from: u32, len: u32, kind: u32) {
        self.kind = kind;
        self.start = from;
        self.len = if len > HEAD_MAX as u32 { HEAD_MAX as u32 } else { len };
        self.at = from;
        self.line = from;
        self.last = field::START;
    }

    /// The number of the [`part`] that goes on.
    #[inline(always)]
    #[must_use]
    pub const fn part(&self) -> u32 {
        self.state >> 2
    }

    /// Ends the reading.
    #[inline(always)]
    const fn done(&mut self, status: u32) -> Flow {
        self.status = status;
        Flow::Done
    }

    /// The head's framing cannot be relied on. Reading goes on: whether it holds a key decides what becomes of it.
    #[inline(always)]
    const fn fault(&mut self) {
        self.seen |= SEEN_FAULT;
    }

    /// Goes on in another state.
    #[inline(always)]
    const fn go(&mut self, state: u32) -> Flow {
        self.state = state;
        Flow::More
    }
}

/// How many parts a step has.
pub const PARTS: u32 = 9;

/// Part `N` of a step, if the head is at it.
///
/// The kernel's verifier follows every path through a function, and the paths through one state times those through
/// the next are too many. There, each part is a global function, verified by itself; [`step`] has them in a row.
#[inline(always)]
pub fn part<const N: u32>(head: &mut Head, found: &mut Found, window: &Window, config: &Config) -> Flow {
    match N {
        0 => {
            stage!(head.state == state::BEGIN, begin::first(head, window, config));
            stage!(head.state == state::METHOD, begin::method(head, window));
            stage!(head.state == state::TARGET, begin::target(head, window));
            stage!(head.state == state::VERSION, begin::version(head, window));
        }
        1 => stage!(head.state == state::LINE, line::end(head, window)),
        2 => {
            stage!(head.state == state::NAME, field::name(head, window));
            stage!(head.state == state::OWN, field::own(head, window, config));
        }
        3 => {
            let mut n = 0;
            while n < list::MEMBERS {
                n += 1;
                stage!(head.state == state::SKIP, list::skip(head, window));
                stage!(head.state == state::ITEM, list::item(head, window));
            }
        }
        4 => stage!(head.state == state::MEMBER, list::member(head, window, config)),
        5 => {
            stage!(head.state == state::MATCH, field::matches(head, window, config));
            stage!(head.state == state::EQUALS, list::equals(head, window));
        }
        6 => {
            stage!(head.state == state::VALUE, value::begin(head, window));
            stage!(head.state == state::UNTIL, list::until(head, window));
            stage!(head.state == state::TRIM, value::trim(head, window));
        }
        7 => {
            stage!(head.state == state::KEY, value::key(head, found, window));
            stage!(head.state == state::DECODE, value::decode(head, found, window));
        }
        _ => stage!(head.state == state::DIGITS, value::digits(head, window)),
    }
    Flow::More
}

/// One bounded piece of work: each of the [`PARTS`] at most once.
#[inline(always)]
pub fn step(head: &mut Head, found: &mut Found, window: &Window, config: &Config) -> Flow {
    stage!(head.part() == 0, part::<0>(head, found, window, config));
    stage!(head.part() == 1, part::<1>(head, found, window, config));
    stage!(head.part() == 2, part::<2>(head, found, window, config));
    stage!(head.part() == 3, part::<3>(head, found, window, config));
    stage!(head.part() == 4, part::<4>(head, found, window, config));
    stage!(head.part() == 5, part::<5>(head, found, window, config));
    stage!(head.part() == 6, part::<6>(head, found, window, config));
    stage!(head.part() == 7, part::<7>(head, found, window, config));
    stage!(head.part() == 8, part::<8>(head, found, window, config));
    Flow::More
}

/// Reads a head to its end, and returns [`Head::status`].
pub fn run(head: &mut Head, found: &mut Found, window: &Window, config: &Config) -> u32 {
    for _ in 0..STEPS {
        if step(head, found, window, config) == Flow::Done {
            break;
        }
    }
    head.status
}

/// The body that follows a response's head: 1xx, 204 and 304 have none, nor has an answer to HEAD, whatever the head
/// says (RFC 9112, section 6.3). After a 101 the connection speaks another protocol.
#[inline(always)]
#[must_use]
pub const fn response_body(head: &Head, was_head: bool) -> u32 {
    if was_head || head.code < 200 || head.code == 204 || head.code == 304 { BODY_NONE } else { head.body }
}

#[cfg(test)]
mod tests;
