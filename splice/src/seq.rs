//! All arithmetic on sequence numbers.
//!
//! Let C be the client's own view of both sequence spaces. A leg keeps two wrapping offsets: `cs_off` (client to
//! server: leg = C + `cs_off`) and `ss_off` (server to client: C = leg + `ss_off`). Positions are C's numbers extended
//! to 64 bits.

use crate::abi::record::Leg;

/// Position of the byte behind a SYN with sequence number `isn`: the first of its stream.
///
/// It starts above 2^32, so that what lies a little before it is a position too.
#[inline(always)]
#[must_use]
pub const fn first(isn: u32) -> u64 {
    (1 << 32) | isn.wrapping_add(1) as u64
}

/// Extends `seq` to the position nearest to `near` (RFC 9293 3.4: comparison is modulo 2^32).
#[inline(always)]
#[must_use]
pub const fn extend(near: u64, seq: u32) -> u64 {
    let ahead = seq.wrapping_sub(near as u32) as i32;
    near.wrapping_add(ahead as i64 as u64)
}

/// Sequence and acknowledgement number of a segment, as they stand on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
}

/// What the client sent, as the leg's backend must see it.
#[inline(always)]
#[must_use]
pub const fn to_leg(leg: &Leg, n: Numbers) -> Numbers {
    Numbers { seq: n.seq.wrapping_add(leg.cs_off), ack: n.ack.wrapping_sub(leg.ss_off) }
}

/// What the leg's backend sent, as the client must see it.
#[inline(always)]
#[must_use]
pub const fn to_client(leg: &Leg, n: Numbers) -> Numbers {
    Numbers { seq: n.seq.wrapping_add(leg.ss_off), ack: n.ack.wrapping_sub(leg.cs_off) }
}

/// Parks a leg at a switch: the next head starts at `head`, in a segment that acknowledges `acked` (both C's).
///
/// Returns the leg's (`rcv_nxt`, `snd_nxt`).
#[inline(always)]
#[must_use]
pub const fn park(leg: &Leg, head: u32, acked: u32) -> (u32, u32) {
    (head.wrapping_add(leg.cs_off), acked.wrapping_sub(leg.ss_off))
}

/// Takes a parked leg up again, as owner from `head` on, in a segment that acknowledges `acked` (both C's).
///
/// Returns the leg's new (`cs_off`, `ss_off`).
#[inline(always)]
#[must_use]
pub const fn resume(leg: &Leg, head: u32, acked: u32) -> (u32, u32) {
    (leg.rcv_nxt.wrapping_sub(head), acked.wrapping_sub(leg.snd_nxt))
}

/// A window field as the other side must see it: shifted by the difference of the two scales, never beyond 16 bits.
#[inline(always)]
#[must_use]
pub const fn window(field: u16, shift: i8) -> u16 {
    let (field, shift) = (field as u32, shift as i32);
    let shifted = if shift >= 0 { field << (shift & 15) } else { field >> ((-shift) & 15) };
    if shifted > 0xffff { 0xffff } else { shifted as u16 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leg(cs_off: u32, ss_off: u32) -> Leg {
        Leg { cs_off, ss_off, ..Leg::default() }
    }

    #[test]
    fn the_first_position_follows_the_syn_also_where_the_number_wraps() {
        assert_eq!(first(9), (1 << 32) + 10);
        assert_eq!(first(u32::MAX), 1 << 32);
        assert_eq!(extend(first(u32::MAX), u32::MAX), (1 << 32) - 1);
    }

    #[test]
    fn five_gibibytes_do_not_come_round() {
        let mut at = first(7);
        let start = at;
        for _ in 0..(5u64 << 30) / (1 << 20) {
            at = extend(at, (at as u32).wrapping_add(1 << 20));
        }
        assert_eq!(at - start, 5 << 30);
    }

    #[test]
    fn a_window_never_exceeds_its_field() {
        assert_eq!(window(0xffff, 3), 0xffff);
        assert_eq!(window(0x100, -4), 0x10);
        assert_eq!(window(501, 0), 501);
    }

    proptest! {
        #[test]
        fn extending_gives_the_number_back_and_stays_near(near in (1u64 << 33)..(1 << 60), seq: u32) {
            let at = extend(near, seq);
            prop_assert_eq!(at as u32, seq);
            prop_assert!(at.abs_diff(near) <= 1 << 31);
        }

        #[test]
        fn to_the_leg_and_back_is_nothing(cs: u32, ss: u32, seq: u32, ack: u32) {
            let l = leg(cs, ss);
            let out = to_leg(&l, Numbers { seq, ack });
            // what the backend would answer to it: its sequence number is our ack, its ack our sequence number
            let back = to_client(&l, Numbers { seq: out.ack, ack: out.seq });
            prop_assert_eq!(back, Numbers { seq: ack, ack: seq });
        }

        #[test]
        fn a_parked_leg_goes_on_where_it_stopped(cs: u32, ss: u32, q: u32, p: u32, q2: u32, p2: u32) {
            let mut l = leg(cs, ss);
            let at_park = to_leg(&l, Numbers { seq: q, ack: p });
            (l.rcv_nxt, l.snd_nxt) = park(&l, q, p);
            (l.cs_off, l.ss_off) = resume(&l, q2, p2);
            prop_assert_eq!(to_leg(&l, Numbers { seq: q2, ack: p2 }), at_park);
            prop_assert_eq!(to_client(&l, Numbers { seq: l.snd_nxt, ack: l.rcv_nxt }), Numbers { seq: p2, ack: q2 });
        }
    }
}
