//! Reading the heads of HTTP/1.1 requests and responses, and following chunked bodies.
//!
//! [`step`] is one bounded piece of work on a [`Head`]; the host owns the loop: [`run`] natively, `bpf_loop` in the
//! kernel. A head is complete where the most lenient server would end it: an empty line after `\r\n` or a bare `\n`.
//!
//! Lines are found by words. Only a line whose first bytes pass a filter is looked at closer, and only the fields that
//! decide about framing, and the carriers, are read. A head that is longer than the window is read on as [`long`] says.

mod begin;
mod byte;
pub mod chunk;
#[cfg(any(test, feature = "std"))]
pub mod corpus;
mod field;
mod kind;
mod line;
mod list;
pub mod long;
mod plain;
pub(crate) mod swar;
mod value;

#[cfg(any(test, feature = "std"))]
pub(crate) use field::FIXED;

use core::hint::black_box;

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
    /// Offset just behind the head; of a long one counted from where it began.
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
    /// One of the `kind::` constants: what the line is.
    field: u32,
    /// What the line before the current one was: decides what a folded line means.
    last: u32,
    /// Bits of `found` that the last carrier line set: folding takes them back.
    fresh: u32,
    /// One of the `kind::TE_` constants.
    coding: u32,
    /// Bytes of the key that were decoded.
    out: u32,
    /// `SEEN_` bits.
    seen: u32,
    /// Bytes of a long head that have gone out of the window, see [`long`].
    slid: u32,
    /// Zero.
    zero: u32,
    /// The number that is being read.
    number: u64,
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

/// What [`step`] can be at.
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
    pub const NAME: u32 = 5;
    /// Which carrier's header a line may have.
    pub const OWN: u32 = 6;
    /// The rest of a list's member.
    pub const SKIP: u32 = 7;
    /// The start of a list's member.
    pub const ITEM: u32 = 8;
    /// Which carrier a list's member may be.
    pub const MEMBER: u32 = 9;
    /// Whether it is that carrier's header or member.
    pub const MATCH: u32 = 10;
    /// The equals sign of a member.
    pub const EQUALS: u32 = 11;
    /// The start of a value.
    pub const VALUE: u32 = 12;
    /// The end of a member's value.
    pub const UNTIL: u32 = 13;
    /// White space at the end of a value.
    pub const TRIM: u32 = 14;
    /// A key.
    pub const KEY: u32 = 15;
    /// Percent-encoded bytes of a key.
    pub const DECODE: u32 = 16;
    /// Digits of a length.
    pub const DIGITS: u32 = 17;
    /// The rest of a line that does not fit the window and is of no interest.
    pub const REST: u32 = 18;
}

/// Does what a state stands for, if the head is at it; ends the step with the head.
///
/// The kernel's verifier follows every path through a function, and the paths through one state times those through
/// the next are too many. What comes out of memory it knows nothing about, so that all paths meet in front of each
/// stage: [`black_box`] has the compiler read it there anew.
macro_rules! stage {
    ($head:ident, $when:expr, $does:expr) => {
        let $head = black_box(&mut *$head);
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
        self.last = kind::START;
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

    /// The line has been read: on with the next.
    #[inline(always)]
    const fn resume(&mut self) -> Flow {
        self.at = self.line;
        self.go(state::LINE)
    }

    /// Goes on in another state.
    #[inline(always)]
    const fn go(&mut self, state: u32) -> Flow {
        self.state = state;
        Flow::More
    }
}

/// One bounded piece of work: each state in the order in which most heads come to them, so that a head with one line of
/// interest is read in one step. They are in groups, so that one that is at the last does not ask for each of them.
#[inline(always)]
pub fn step(head: &mut Head, found: &mut Found, window: &Window, config: &Config) -> Flow {
    if head.state < state::LINE {
        stage!(head, head.state == state::BEGIN, begin::first(head, window));
        stage!(head, head.state == state::METHOD, begin::method(head, window));
        stage!(head, head.state == state::TARGET, begin::target(head, window));
        stage!(head, head.state == state::VERSION, begin::version(head, window));
    }
    stage!(head, head.state == state::LINE, line::end::<14>(head, window, config));
    stage!(head, head.state == state::NAME, field::name(head, window));
    stage!(head, head.state == state::OWN, field::own(head, window, config));
    stage!(head, list::within(head), list::members::<4>(head, window, config));
    if head.state > state::ITEM {
        stage!(head, head.state == state::MEMBER, list::member(head, window, config));
        stage!(head, head.state == state::MATCH, field::matches(head, window, config));
        stage!(head, head.state == state::EQUALS, list::equals(head, window));
        stage!(head, head.state == state::VALUE, value::begin(head, window));
        stage!(head, head.state == state::UNTIL, list::until(head, window));
        stage!(head, head.state == state::TRIM, value::trim(head, window));
        stage!(head, head.state == state::KEY, value::key(head, found, window));
        stage!(head, head.state == state::DECODE, value::decode(head, found, window));
        stage!(head, head.state == state::DIGITS, value::digits(head, window));
        stage!(head, head.state == state::REST, line::rest(head, window));
    }
    stage!(head, list::within(head), list::members::<2>(head, window, config));
    stage!(head, head.state == state::LINE, line::end::<4>(head, window, config));
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
