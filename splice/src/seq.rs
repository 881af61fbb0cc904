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

/// Two timestamps, as they stand on one side (RFC 7323 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// The sender's clock.
    pub val: u32,
    /// What the sender has last seen of the receiver's.
    pub ecr: u32,
}

/// Timestamps of the client, as the leg's backend must see them. What the client has seen before this leg is no time of this
/// backend's: it stands for the latest one that is known of it.
#[inline(always)]
#[must_use]
pub const fn stamps_to_leg(leg: &Leg, s: Stamps) -> Stamps {
    Stamps { val: s.val.wrapping_add(leg.ts_out), ecr: later(s.ecr.wrapping_sub(leg.ts_in), leg.ts_nxt) }
}

/// Timestamps of the leg's backend, as the client must see them.
#[inline(always)]
#[must_use]
pub const fn stamps_to_client(leg: &Leg, s: Stamps) -> Stamps {
    Stamps { val: s.val.wrapping_add(leg.ts_in), ecr: s.ecr.wrapping_sub(leg.ts_out) }
}

/// Parks a leg's timestamps at a switch, in a segment that echoes `ecr` (C's). Returns the leg's `ts_nxt`.
#[inline(always)]
#[must_use]
pub const fn park_stamps(leg: &Leg, ecr: u32) -> u32 {
    later(ecr.wrapping_sub(leg.ts_in), leg.ts_nxt)
}

/// How much older than it seems a connection may be: the clock that ages are taken by is that of the last timer tick, and the least
/// often a kernel ticks is 100 times a second (`CONFIG_HZ`).
const TICK_NS: u64 = 10_000_000;

/// Takes them up again, in a segment that echoes `ecr` (C's). Returns the leg's new `ts_in`.
///
/// The client takes nothing older than what it has seen (PAWS, RFC 7323 5). That may be more than `ecr`: an acknowledgement of
/// the old owner's may be on its way. It is younger by no more than the connection's whole `age` in nanoseconds, if that clock
/// ticks once a microsecond or less often (RFC 7323 5.4 has it between 1 ms and 1 s; Linux has both 1 ms and 1 us).
#[inline(always)]
#[must_use]
pub const fn resume_stamps(leg: &Leg, ecr: u32, age: u64) -> u32 {
    let ticks = age.saturating_add(TICK_NS) / 1000 + 2;
    // A step must stay below 2^31, or it is one backwards.
    let ticks = if ticks > 1 << 30 { 1 << 30 } else { ticks as u32 };
    ecr.wrapping_add(ticks).wrapping_sub(leg.ts_nxt)
}

/// What a client has last echoed: its segment's `ecr`, or what is `known` of it by later ones (zero: nothing).
#[inline(always)]
#[must_use]
pub const fn echoed(ecr: u32, known: u32) -> u32 {
    if known == 0 { ecr } else { later(ecr, known) }
}

/// The later of two times of one clock, or of two numbers of one stream, which lie within 2^31 of each other.
#[inline(always)]
#[must_use]
pub const fn later(a: u32, b: u32) -> u32 {
    if (a.wrapping_sub(b) as i32) < 0 { b } else { a }
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
    fn a_connection_that_seems_to_be_of_no_age_may_be_a_tick_old() {
        let leg = Leg { ts_nxt: 7, ..Leg::default() };
        let leg = Leg { ts_in: resume_stamps(&leg, 1000, 0), ..leg };
        // The client has seen what its baseline has sent 9 ms behind the time that it has echoed, by a clock of microseconds.
        let first = stamps_to_client(&leg, Stamps { val: 7, ecr: 0 }).val;
        assert!(first > 1000 + 9000, "{first}");
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
        fn a_switch_never_takes_the_clients_view_of_time_back(
            a_in: u32, a_nxt: u32, b_nxt: u32, ecr: u32, age in 0..1_u64 << 50, newer in 0..1_u32 << 29
        ) {
            let a = Leg { ts_in: a_in, ts_nxt: a_nxt, ..Leg::default() };
            let mut b = Leg { ts_nxt: b_nxt, ..Leg::default() };
            // the latest that the old owner can have sent meanwhile
            let seen = ecr.wrapping_add(newer.min((age / 1000).min(1 << 29) as u32));
            b.ts_in = resume_stamps(&b, ecr, age);
            let first = stamps_to_client(&b, Stamps { val: b.ts_nxt, ecr: 0 }).val;
            prop_assert!(first.wrapping_sub(seen).cast_signed() >= 0);
            // what the client echoes of the old owner's is the latest known time of the new one
            prop_assert_eq!(stamps_to_leg(&b, Stamps { val: 0, ecr }).ecr, b.ts_nxt);
            // and of the new one's, it is what it was
            prop_assert_eq!(stamps_to_leg(&b, Stamps { val: 0, ecr: first.wrapping_add(7) }).ecr, b.ts_nxt.wrapping_add(7));
            prop_assert!(park_stamps(&a, ecr).wrapping_sub(a.ts_nxt).cast_signed() >= 0);
        }

        /// Pipelined: the second frame was sent before the first one's answer had come.
        #[test]
        fn a_frame_that_was_held_does_not_take_the_clients_view_of_time_back(
            nxt: (u32, u32), ecr in 1_u32.., age in 0..1_u64 << 40, between in 0..1_u64 << 20, ticks in 0..1_u32 << 28
        ) {
            let first = Leg { ts_nxt: nxt.0, ..Leg::default() };
            let first = Leg { ts_in: resume_stamps(&first, ecr, age), ts_echo: ecr, ..first };
            let seen = stamps_to_client(&first, Stamps { val: nxt.0.wrapping_add(ticks), ecr: 0 }).val;
            prop_assume!(seen != 0);
            // what the client has echoed of it while the second frame was held
            let known = echoed(seen, first.ts_echo);
            let second = Leg { ts_nxt: nxt.1, ..Leg::default() };
            let second = Leg { ts_in: resume_stamps(&second, echoed(ecr, known), age + between), ..second };
            let next = stamps_to_client(&second, Stamps { val: nxt.1, ecr: 0 }).val;
            prop_assert!(next.wrapping_sub(seen).cast_signed() > 0);
        }

        #[test]
        fn the_clients_own_time_comes_back_as_it_was(ts_out: u32, val: u32) {
            let l = Leg { ts_out, ..Leg::default() };
            let out = stamps_to_leg(&l, Stamps { val, ecr: 0 });
            prop_assert_eq!(stamps_to_client(&l, Stamps { val: 0, ecr: out.val }).ecr, val);
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
