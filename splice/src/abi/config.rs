//! What the kernel programs can be told. The agent writes it, map `config`, one entry.

/// How many carriers can be configured.
pub const CARRIERS: usize = 16;
/// Longest name of a carrier's header or member, in bytes.
pub const NAME_MAX: usize = 48;
/// [`NAME_MAX`] in words.
pub const NAME_WORDS: usize = NAME_MAX / 8;

/// A name of at most [`NAME_MAX`] bytes: lower-case, little-endian words, zero behind its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Name {
    /// The bytes, eight a word, the first in the lowest byte.
    pub words: [u64; NAME_WORDS],
}

/// The slot is empty.
pub const CARRIER_NONE: u32 = 0;
/// A member of `baggage` (W3C grammar, values percent-decoded, members case-sensitive).
pub const CARRIER_BAGGAGE: u32 = 1;
/// A member of `tracestate`.
pub const CARRIER_TRACESTATE: u32 = 2;
/// A header of its own, its whole value is the key.
pub const CARRIER_HEADER: u32 = 3;

/// Where a request may hold its key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Carrier {
    /// One of the `CARRIER_` constants.
    pub kind: u32,
    /// Length of `name` in bytes.
    pub len: u32,
    /// The member's name, or the header's.
    pub name: Name,
}

/// Words of a filter of field names, a power of two: names of common fields that are of no interest pass it rarely.
pub const FILTER_WORDS: usize = 8;

/// Map `config`, one entry. Carriers stand in the order in which they decide.
///
/// The filters belong to the carriers: `carrier::table` makes both. A head cannot be read without them, not even its
/// framing, so the entry is written before a program is attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Config {
    /// How many of `carriers` are used, counted from the first.
    pub carriers_len: u32,
    /// Zero.
    pub reserved: [u32; 7],
    /// First bytes of the field names that matter, by `http::REQUEST` and `http::RESPONSE`.
    pub fields: [[u64; FILTER_WORDS]; 2],
    /// Those of the carriers' own headers alone, one word.
    pub own: u64,
    /// Those of members of `baggage` that are carriers.
    pub baggage: u64,
    /// Those of members of `tracestate` that are carriers.
    pub tracestate: u64,
    /// The carriers, in the order in which they decide.
    pub carriers: [Carrier; CARRIERS],
}
