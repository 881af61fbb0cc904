//! ICMP "too big" that quotes a segment of a leg: translated, so that the client's kernel sends smaller ones.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated as h};
use sidetrack_splice::{
    abi::{reason::Reason, record::Leg},
    packet::ETH,
    quote::{CHECK_V4, CHECK_V6, ICMP, ICMPV6, QUOTED_CHECK_V4, QUOTED_V4, QUOTED_V6, Quote},
};

use crate::{count::count, maps::LEGS, skb};

/// Translates a packet that is not TCP, if it concerns a leg.
#[inline(always)]
pub fn translate(skb: *mut __sk_buff, protocol: u8) {
    match protocol {
        ICMP => quote_v4(skb),
        ICMPV6 => quote_v6(skb),
        _ => 0,
    };
}

/// The leg that a quoted segment belongs to, if the client knows that by other names or numbers.
#[inline(always)]
fn leg(quote: &Quote) -> Option<&'static Leg> {
    // SAFETY: values of this map are only removed as a whole; single numbers are read.
    let leg = LEGS.get_ptr(&quote.tuple).map(|leg| unsafe { &*leg })?;
    (leg.moved != 0 || leg.cs_off != 0).then_some(leg)
}

/// Ends a translation.
#[inline(always)]
fn done(all: bool) -> u32 {
    count(if all { Reason::TooBig } else { Reason::ErrStore });
    0
}

/// Translates an ICMPv4 message, if it is one that concerns a leg. It passes in any case.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn quote_v4(skb: *mut __sk_buff) -> u32 {
    let Some(words) = skb::words(skb, ETH) else { return 0 };
    let mut quote = MaybeUninit::<Quote>::zeroed();
    // SAFETY: made of integers, of which zero is a value.
    let quote = unsafe { quote.assume_init_mut() };
    if !quote.read_v4(&words) {
        return 0;
    }
    let Some(leg) = leg(quote) else { return 0 };
    let ([ports, seq], rest) = quote.client(leg);
    let address = quote.address(leg).sum();
    // What the address changes in the message, the quoted header's checksum takes back.
    // SAFETY: plain numbers.
    let header = address == 0
        || unsafe { h::bpf_l3_csum_replace(skb.cast(), ETH + QUOTED_CHECK_V4, 0, u64::from(address), 0) == 0 };
    done(
        header
            && skb::fix_checksum(skb, ETH + CHECK_V4, rest.sum())
            && skb::store(skb, ETH + QUOTED_V4, &[leg.conn.remote.v4_word(), ports, seq], 0),
    )
}

/// The same for ICMPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn quote_v6(skb: *mut __sk_buff) -> u32 {
    let Some(words) = skb::words(skb, ETH) else { return 0 };
    let mut quote = MaybeUninit::<Quote>::zeroed();
    // SAFETY: as above.
    let quote = unsafe { quote.assume_init_mut() };
    if !quote.read_v6(&words) {
        return 0;
    }
    let Some(leg) = leg(quote) else { return 0 };
    let ([ports, seq], rest) = quote.client(leg);
    let [a, b, c, d] = leg.conn.remote.0;
    done(
        skb::fix_checksum(skb, ETH + CHECK_V6, quote.address(leg).sum())
            && skb::fix_checksum(skb, ETH + CHECK_V6, rest.sum())
            && skb::store(skb, ETH + QUOTED_V6, &[a, b, c, d, ports, seq], 0),
    )
}
