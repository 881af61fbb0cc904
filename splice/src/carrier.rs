//! Where a sandbox key travels: the table of carriers, and comparing names with it.

#[cfg(any(test, feature = "std"))]
mod text;

#[cfg(any(test, feature = "std"))]
pub use text::{CarrierError, default_carriers, describe, parse, table};

use crate::{
    abi::config::{
        CARRIER_BAGGAGE, CARRIER_HEADER, CARRIER_TRACESTATE, CARRIERS, Carrier, Config, NAME_MAX, NAME_WORDS,
    },
    http::swar,
};

/// Fills in the filters of field names, of members of `baggage` and of members of `tracestate`.
#[inline(always)]
pub(crate) fn filters(config: &Config, filters: &mut [u64; 3]) {
    let [mut fields, mut baggage, mut tracestate] = [0; 3];
    for (i, carrier) in config.carriers.iter().enumerate() {
        if i as u32 >= config.carriers_len {
            break;
        }
        let word = carrier.name.words[0];
        // a name too short to fill its slot stands for every slot
        let bit = |word| if carrier.len < swar::SLOT_BYTES { !0 } else { 1_u64 << swar::slot(word) };
        match carrier.kind {
            CARRIER_BAGGAGE => {
                baggage |= bit(word);
                fields |= const { 1 << swar::slot(swar::coarse(swar::ascii(*b"baggage:"))) };
            }
            CARRIER_TRACESTATE => {
                tracestate |= bit(word);
                fields |= const { 1 << swar::slot(swar::coarse(swar::ascii(*b"tracesta"))) };
            }
            CARRIER_HEADER => fields |= bit(swar::coarse(word)),
            _ => {}
        }
    }
    *filters = [fields, baggage, tracestate];
}

/// The first carrier of `kind`, from number `from` on, whose name begins with the first eight bytes of `word`, as far
/// as it has them. [`CARRIERS`] if there is none.
#[inline(always)]
pub(crate) fn candidate(config: &Config, kind: u32, from: u32, word: u64) -> u32 {
    for (i, carrier) in config.carriers.iter().enumerate() {
        let i = i as u32;
        if i >= config.carriers_len {
            break;
        }
        if i >= from
            && carrier.kind == kind
            && carrier.len != 0
            && (word ^ carrier.name.words[0]) & swar::first(carrier.len) == 0
        {
            return i;
        }
    }
    CARRIERS as u32
}

/// The length of carrier `index`'s name, if the words that `word` returns begin with it.
#[inline(always)]
pub(crate) fn matches(config: &Config, index: u32, word: impl Fn(u32) -> u64) -> Option<u32> {
    let Carrier { len, name, .. } = &config.carriers[index as usize % CARRIERS];
    let len = (*len).min(NAME_MAX as u32);
    let mut differ = 0;
    let mut i = 0;
    while i < NAME_WORDS {
        differ |= (word(i as u32) ^ name.words[i]) & swar::first(len.saturating_sub(i as u32 * 8));
        i += 1;
    }
    (differ == 0).then_some(len)
}
