//! What a line is.

/// Of no interest.
pub const OTHER: u32 = 0;
/// The first line of the head; only in `last`.
pub const START: u32 = 1;
/// One that decides about framing; only in `last`.
pub const FRAMING: u32 = 2;
/// One that may carry a key; only in `last`.
pub const CARRIER: u32 = 3;
/// `baggage`.
pub const BAGGAGE: u32 = 4;
/// `tracestate`.
pub const TRACESTATE: u32 = 5;
/// A carrier's own header.
pub const OWN: u32 = 6;
/// `Content-Length`.
pub const LENGTH: u32 = 7;
/// `Transfer-Encoding`.
pub const CODING: u32 = 8;
/// `Connection`.
pub const CONNECTION: u32 = 9;
/// `Expect`.
pub const EXPECT: u32 = 10;
/// `Upgrade`.
pub const UPGRADE: u32 = 11;

/// No transfer coding. Zero, as all that a head begins with is, but for [`START`].
pub const TE_NONE: u32 = 0;
/// The last one is `chunked`, and no other is.
pub const TE_CHUNKED: u32 = 1;
/// The last one is another.
pub const TE_OTHER: u32 = 2;
/// `chunked` was followed by another: whatever comes, this cannot be read.
pub const TE_BAD: u32 = 3;
