//! Where a sandbox key travels: the table of carriers, and comparing names with it.

#[cfg(any(test, feature = "std"))]
mod text;

#[cfg(any(test, feature = "std"))]
pub use text::{CarrierError, default_carriers, describe, parse, table};

use crate::{
    abi::config::{CARRIERS, Carrier, Config, NAME_MAX, NAME_WORDS},
    http::swar,
};

/// Whether `index` is one of the numbers of carriers, and that carrier is of `kind` and its name begins with the first
/// eight bytes of `word`, as far as it has them.
#[inline(always)]
pub(crate) const fn begins(config: &Config, kind: u32, index: u32, word: u64) -> bool {
    let carrier = &config.carriers[index as usize % CARRIERS];
    carrier.kind == kind && (word ^ carrier.name.words[0]) & swar::first(carrier.len) == 0
}

/// The length of carrier `index`'s name, if the words that `word` returns begin with it.
#[inline(always)]
pub(crate) fn matches(config: &Config, index: u32, word: impl Fn(u32) -> u64) -> Option<u32> {
    let Carrier { len, name, .. } = &config.carriers[index as usize % CARRIERS];
    let len = (*len).min(NAME_MAX as u32);
    let mut differ = 0;
    let mut i = 0;
    while i < NAME_WORDS && (i as u32) * 8 < len {
        differ |= (word(i as u32) ^ name.words[i]) & swar::first(len - i as u32 * 8);
        i += 1;
    }
    (differ == 0).then_some(len)
}
