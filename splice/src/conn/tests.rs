use proptest::prelude::*;

use super::*;
use crate::{
    abi::record::{LEG_BASELINE, LEG_FORK, LEG_NONE, Leg},
    seq::{Numbers, park, resume, to_client, to_leg},
};

/// A connection on which everything before `at` is over.
fn watching(at: u64) -> ConnState {
    ConnState { phase: PHASE_WATCH, request: Framing::head(at), next: at, ..ConnState::default() }
}

/// Its response side: `answered` responses, all before `next` passed, the owner has acknowledged `acked`.
fn answered(answered: u32, next: u64, acked: u64) -> RespState {
    RespState { response: Framing::head(next), answered, next, acked, ..RespState::default() }
}

fn fork(route: u32, version: u32) -> LegRef {
    LegRef { kind: LEG_FORK, route, version, ..LegRef::default() }
}

fn baseline() -> LegRef {
    LegRef { kind: LEG_BASELINE, ..LegRef::default() }
}

fn held(start: u64, slot: u32, acked: u32) -> Held {
    Held { start, slot, wants: Want::number(7, 1), acked }
}

#[test]
fn bodies_and_acknowledgements_need_no_reading_and_a_head_does() {
    let mut state = watching(1000);
    assert_eq!(state.place(1000, 1000), Place::Owner);
    assert_eq!(state.place(1000, 1100), Place::Read);
    state.consume(&Facts { length: 500, ..Facts::default() }, 1100, 1200);
    state.passed(1200);
    assert_eq!(state.place(1200, 1600), Place::Owner, "the rest of the body");
    assert_eq!(state.place(1200, 1700), Place::Read);
    assert_eq!(state.place(1601, 1700), Place::Drop(Reason::Gap), "the first byte of a head is missing");
    assert_eq!(state.place(1500, 1700), Place::Read, "the head is there; what is missing is the body's");
    state.partial = 50;
    assert_eq!(state.place(1650, 1700), Place::Read, "these bytes of the head were gathered");
    assert_eq!(state.place(1651, 1700), Place::Drop(Reason::Gap));
}

#[test]
fn what_lies_behind_a_gap_waits_for_a_bounded_time() {
    let mut state = ConnState { flags: CONN_HTTP, ..watching(1 << 32) };
    assert_eq!(state.gap(7), Gap::Wait);
    assert_eq!(state.gap(6 + GAP_NS), Gap::Wait);
    let filled = ConnState { request: Framing::head((1 << 32) + 9), ..state };
    assert_eq!({ filled }.gap(7 + GAP_NS), Gap::Wait, "it has been filled: this is another");
    let was_held = ConnState { held: 1 << 32, asked_at: 7, ..watching(1 << 32) };
    assert_eq!({ was_held }.gap(7 + GAP_NS), Gap::Wait, "a hold at this place began then, and has ended");
    for (of, flags, partial) in [("read", CONN_HTTP, 0), ("diverted", CONN_DIVERTED, 0), ("begun", 0, 20)] {
        let mut state = ConnState { partial, flags, ..watching(1 << 32) };
        assert_eq!(state.gap(7), Gap::Wait, "{of}");
        assert_eq!(state.gap(7 + GAP_NS), Gap::Reset, "{of}: it may be a keyed head's end");
        assert_eq!(state.flags, flags, "{of}");
    }
}

#[test]
fn behind_a_gap_at_its_beginning_a_connection_is_as_one_that_is_older_than_its_record() {
    let at = 1 << 32;
    let (mut state, resp) = (watching(at), RespState { acked: at + 300, ..answered(0, at, at) });
    assert_eq!(state.gap(7), Gap::Wait);
    assert_eq!(state.place(at + 300, at + 400), Place::Drop(Reason::Gap));
    assert_eq!(state.gap(7 + GAP_NS), Gap::Unread);
    assert!(!state.begins(&resp, (at + 300) as u32, at as u32, true), "nobody knows what was before it");
    assert!(!state.unknown(at + 400, &resp, at as u32), "it is not counted twice");
    assert_eq!(state.place(at + 400, at + 500), Place::Owner);
    let resp = RespState { acked: at + 400, next: at + 50, ..resp };
    assert!(state.begins(&resp, (at + 400) as u32, (at + 50) as u32, false), "behind a whole exchange");
}

#[test]
fn behind_a_held_head_everything_waits_and_before_it_nothing_does() {
    let mut state = watching(1000);
    assert!(state.hold(held(1000, 1, 0), 5));
    assert_eq!(state.flags & CONN_HELD, CONN_HELD);
    assert_eq!(state.place(900, 1000), Place::Owner);
    assert_eq!(state.place(900, 1001), Place::Across, "the owner may have lost what lies before");
    assert_eq!(state.place(1000, 1200), Place::Retry);
    assert_eq!(state.place(1200, 1300), Place::Behind);
}

#[test]
fn a_bare_acknowledgement_behind_a_held_head_stays_in_its_owners_window() {
    let mut state = watching(1000);
    assert_eq!(state.acknowledges_at(1400), 1400, "nothing is held");
    state.hold(held(1000, LEGS as u32, 0), 5);
    assert_eq!(state.acknowledges_at(66_535), 1001, "all that is held fills the window");
    for at in [999, 1000, 1001] {
        assert_eq!(state.acknowledges_at(at), at, "a keep-alive probe, or nothing between");
    }
    state.release();
    assert_eq!(state.acknowledges_at(1400), 1400);
}

#[test]
fn a_frame_behind_a_head_acknowledges_what_is_known_also_when_the_next_head_is_held() {
    let mut state = watching(1000);
    state.hold(held(1000, LEGS as u32, 70), 5);
    let first = state.hold;
    assert!(state.has_come_to(first));
    assert!(!state.has_come_to(first.wrapping_add(1)), "its event was read before its record");
    state.acked = 99;
    state.release();
    state.hold(held(1400, LEGS as u32, 70), 6);
    assert!(state.has_come_to(first), "frames of the first hold are with the agent yet");
    assert_eq!(state.acked, 99);
    state.hold = 0;
    assert!(state.has_come_to(u32::MAX));
}

#[test]
fn a_held_head_asks_again_at_a_bounded_rate_and_at_once_when_it_waits_for_another() {
    let mut state = watching(1000);
    assert!(state.hold(held(1000, LEGS as u32, 70), 0), "waiting for the old owner");
    assert_eq!(state.flags & CONN_HELD, 0, "which still speaks");
    assert!(!state.hold(held(1000, LEGS as u32, 70), ASK_EVERY_NS - 1));
    assert!(state.hold(held(1000, LEGS as u32, 70), ASK_EVERY_NS));
    let number = state.hold;
    assert!(state.hold(held(1000, 2, 70), ASK_EVERY_NS + 1), "waiting for a leg");
    assert_eq!((state.hold, state.flags & CONN_HELD), (number.wrapping_add(1), CONN_HELD));
    state.release();
    assert_eq!((state.phase, state.flags & CONN_HELD), (PHASE_WATCH, 0));
}

#[test]
fn a_held_head_whose_route_has_changed_asks_at_once() {
    let mut state = watching(1000);
    assert!(state.hold(held(1000, 1, 70), 0));
    let number = state.hold;
    assert!(!state.hold(held(1000, 1, 70), 1));
    for wants in [Want::number(7, 2), Want::number(8, 1), Want::number(8, 2), Want::number(7, 1)] {
        assert!(state.hold(Held { wants, ..held(1000, 1, 70) }, 1), "{wants}");
        assert!(!state.hold(Held { wants, ..held(1000, 1, 70) }, 1));
    }
    assert_eq!(state.hold, number.wrapping_add(4), "what is answered to the holds before does not count");
}

#[test]
fn while_a_head_is_held_the_clients_acknowledgements_are_remembered() {
    let mut state = ConnState { acked: 3, ..watching(1000) };
    state.hold(held(1000, LEGS as u32, u32::MAX - 9), 0);
    assert_eq!(
        (state.acked, state.flags & CONN_PENDING),
        (u32::MAX - 9, CONN_PENDING),
        "what was noted in another hold is not it"
    );
    state.acked = seq::later(20, state.acked);
    state.hold(held(1000, 2, u32::MAX - 9), 1);
    assert_eq!(state.acked, 20, "the frame is the same, and says what it said");
    state.switch(2, 1000, 2);
    state.passed(1100);
    assert_eq!(state.flags & CONN_PENDING, CONN_PENDING, "what came behind it is with the agent yet");
    state.hold(held(1100, LEGS as u32, 5), 3);
    assert_eq!(state.acked, 20, "and is as old as the head was");
    state.release();
    assert!(!state.caught_up(1100, 1200, true) && !state.caught_up(1000, 1200, false));
    assert!(!state.caught_up(1100, 1100, false), "an acknowledgement alone may come before what is held");
    assert!(state.caught_up(1100, 1200, false));
}

#[test]
fn what_is_from_before_a_switch_goes_to_the_owner_before_it() {
    let mut state = watching(1000);
    state.switch(3, 1000, 7);
    state.passed(1100);
    assert_eq!((state.owner, state.previous, state.flags & CONN_DIVERTED), (3, 0, CONN_DIVERTED));
    assert_eq!(state.place(900, 1000), Place::Previous);
    assert_eq!(state.place(900, 1001), Place::Drop(Reason::LateMixed));
}

#[test]
fn a_plain_head_is_one_in_order_with_nothing_pending() {
    let state = watching(1000);
    assert!(state.plain_head(1000));
    assert!(!state.plain_head(999) && !state.plain_head(1001));
    for flags in [0, CONN_HTTP] {
        assert!(ConnState { flags, ..state }.plain_head(1000), "{flags}");
    }
    for flags in [CONN_DIVERTED, CONN_EXPECT, CONN_UPGRADE, CONN_HELD, CONN_PENDING] {
        assert!(!ConnState { flags, ..state }.plain_head(1000), "{flags}");
    }
    for phase in [PHASE_HOLD, PHASE_OPAQUE, PHASE_CLOSED, PHASE_RESET, PHASE_SWITCH] {
        assert!(!ConnState { phase, ..state }.plain_head(1000), "{phase}");
    }
    assert!(!ConnState { partial: 1, ..state }.plain_head(1000));
    assert!(!ConnState { next: 999, ..state }.plain_head(1000), "bytes before it are missing");
}

#[test]
fn nobody_gets_what_comes_behind_the_clients_reset() {
    let state = ConnState { phase: PHASE_CLOSED, ..watching(1000) };
    for start in [0, 999, 1000, 1001] {
        assert_eq!(state.place(start, start + 10), Place::Drop(Reason::LateClosed), "{start}");
    }
    assert_eq!(state.place(1000, 1000), Place::Owner, "a bare acknowledgement");
}

#[test]
fn an_owner_changes_only_when_all_is_acknowledged_and_answered() {
    let state = ConnState { asked: 4, ..watching(1000) };
    let good = answered(4, 700, 1000);
    assert_eq!(switchable(&state, &good, 1000, 700), Switchable::Yes);
    let not_yet = [
        RespState { answered: 3, ..good },
        RespState { acked: 999, ..good },
        RespState { partial: 5, ..good },
        RespState { response: Framing::head(750), ..good },
        RespState { response: Framing::chunked(700), ..good },
    ];
    for resp in not_yet {
        assert_eq!(switchable(&state, &resp, 1000, 700), Switchable::NotYet, "{resp:?}");
    }
    assert_eq!(switchable(&state, &good, 1000, 699), Switchable::NotYet, "the client has not got all of it");
    for flags in [RESP_FIN, RESP_RESET] {
        let over = RespState { flags, ..good };
        assert_eq!(switchable(&state, &over, 1000, 700), Switchable::Never, "the client gets nothing behind it");
    }
    for framing in [FRAMING_REST, FRAMING_LOST] {
        let resp = RespState { response: Framing { state: framing, ..Framing::head(700) }, ..good };
        assert_eq!(switchable(&state, &resp, 1000, 700), Switchable::Never);
    }
}

#[test]
fn each_head_leads_where_the_rules_say() {
    let mut legs = [LegRef::default(); LEGS];
    legs[0] = baseline();
    legs[2] = fork(9, 1);
    let state = ConnState { asked: 1, ..watching(1000) };
    let resp = answered(1, 700, 1000);
    let at = At { start: 1000, head: 1000, acked: 700 };
    let step = |want| at_head(&state, &legs, Some(&resp), at, want, slot_of(&legs, want));
    assert_eq!(step(Want::Baseline), Step::Stay);
    assert_eq!(step(Want::Fork(9, 1)), Step::Switch(2));
    assert_eq!(step(Want::Fork(9, 2)), Step::Dial(1), "made under an older version of the route");
    assert_eq!(step(Want::Fail), Step::Reset(Reason::ResetRouteFail));
    let later = At { head: 1050, ..at };
    assert_eq!(at_head(&state, &legs, Some(&resp), later, Want::Fork(9, 1), 2), Step::Cut);
    assert_eq!(at_head(&state, &legs, None, at, Want::Fork(9, 1), 2), Step::Reset(Reason::ResetSticky));
    let partial = ConnState { partial: 30, ..state };
    assert_eq!(
        at_head(&partial, &legs, Some(&resp), at, Want::Fork(9, 1), 2),
        Step::Dial(2),
        "it has no part of the head"
    );
}

#[test]
fn a_leg_more_than_there_are_slots_takes_the_one_that_was_owner_the_longest_time_ago_and_never_the_owners() {
    let mut legs = [fork(1, 1); LEGS];
    legs[0] = baseline();
    for (i, leg) in legs.iter_mut().enumerate() {
        leg.used = 100 + i as u16;
    }
    let state = ConnState { owner: 1, asked: 200, ..watching(1) };
    assert_eq!(slot_for(&legs, Want::Fork(7, 1), &state), 2);
    legs[5].kind = LEG_NONE;
    assert_eq!(slot_for(&legs, Want::Fork(7, 1), &state), 5, "a free one first");
    assert_eq!(slot_for(&legs, Want::Baseline, &state), 0);
}

#[test]
fn a_leg_is_dead_only_by_its_second_retransmission_without_a_sign_and_a_third_of_two_seconds() {
    let state = ConnState { active: 10, ..watching(1000) };
    let resp = answered(0, 700, 900);
    let mut first = 0;
    assert!(!state.leg_dead(&resp, 1000, 500, &mut first), "the first");
    assert_eq!(first, 500);
    let late = 500 + DEAD_WITHIN_NS / 3 + 1;
    assert!(!state.leg_dead(&resp, 1000, late - 1, &mut first));
    assert!(state.leg_dead(&resp, 1000, late, &mut first));
    assert!(!state.leg_dead(&resp, 1001, late, &mut first), "it is new");
    assert!(!state.leg_dead(&RespState { acked: 1000, ..resp }, 1000, late, &mut first), "it has been acknowledged");
    assert_eq!(first, 500);
    let heard = RespState { heard: 501, ..resp };
    assert!(!state.leg_dead(&heard, 1000, late, &mut first), "it was heard of: this is the first since");
    assert_eq!(first, late);
    first = 500;
    assert!(!ConnState { active: 501, ..state }.leg_dead(&resp, 1000, late, &mut first), "a new request");
}

#[test]
fn a_held_frame_that_is_behind_what_has_gone_on_is_no_retransmission() {
    let state = ConnState { flags: CONN_DIVERTED, ..watching(1000) };
    assert!(state.sent_again(900, 1000, false));
    assert!(!state.sent_again(900, 1000, true), "the agent has had it");
    assert!(!state.sent_again(900, 1001, false) && !state.sent_again(1000, 1000, false));
    assert!(!ConnState { flags: 0, ..state }.sent_again(900, 1000, false));
}

#[test]
fn a_dead_leg_is_given_up_within_two_seconds_of_the_first_retransmission_whatever_the_timeout() {
    for timeout in (1..=1000).map(|ms| ms * 1_000_000) {
        for probe in [0, timeout] {
            let (state, resp) = (ConnState { active: 1, ..watching(1000) }, answered(0, 700, 900));
            // A tail loss probe may come before the first timeout.
            let (mut at, mut wait, mut first) = (1 + timeout + probe, 2 * timeout, 0);
            if probe != 0 {
                assert!(!state.leg_dead(&resp, 1000, 1 + timeout, &mut first));
            }
            let mut again = 0;
            while !state.leg_dead(&resp, 1000, at, &mut first) {
                (at, wait, again) = (at + wait, 2 * wait, again + 1);
            }
            assert!(
                at - first <= DEAD_WITHIN_NS,
                "{} ms of a timeout of {}",
                (at - first) / 1_000_000,
                timeout / 1_000_000
            );
            assert!(again > 0 || probe != 0, "given up by its first retransmission");
        }
    }
}

#[test]
fn a_final_status_in_place_of_100_ends_the_wait_for_a_body() {
    let mut state = watching(1000);
    state.consume(&Facts { length: 5, expect: true, ..Facts::default() }, 1100, 1100);
    assert_ne!(state.flags & CONN_EXPECT, 0);
    assert!(!state.expect_failed(&answered(0, 700, 1100)));
    assert!(state.expect_failed(&answered(1, 700, 1100)));
    assert!(!state.expect_failed(&RespState { continued: 1, ..answered(1, 700, 1100) }));
    state.consume(&Facts { length: 5, expect: true, ..Facts::default() }, 1100, 1103);
    assert_eq!(state.flags & CONN_EXPECT, 0, "the body has come with the head");
}

proptest! {
    /// Exchanges of any sizes, with any owners: each leg's own stream has no gap and nothing twice, and the client's neither.
    #[test]
    fn every_leg_sees_one_stream_whatever_the_order_of_owners(
        isns in proptest::array::uniform3(any::<(u32, u32)>()),
        client: (u32, u32),
        exchanges in proptest::collection::vec((0..3_usize, 1..5000_u32, 1..5000_u32), 1..40),
    ) {
        // next sequence numbers: of the client's view, and of each backend
        let (mut q, mut p) = client;
        let mut streams = isns;
        streams[0] = client;
        let mut legs = streams.map(|(rcv_nxt, snd_nxt)| Leg { rcv_nxt, snd_nxt, ..Leg::default() });
        let mut owner = 0;
        for (to, request, response) in exchanges {
            if to != owner {
                let (rcv_nxt, snd_nxt) = park(&legs[owner], q, p);
                (legs[owner].rcv_nxt, legs[owner].snd_nxt) = (rcv_nxt, snd_nxt);
                (legs[to].cs_off, legs[to].ss_off) = resume(&legs[to], q, p);
                owner = to;
            }
            let out = to_leg(&legs[owner], Numbers { seq: q, ack: p });
            prop_assert_eq!((out.seq, out.ack), streams[owner]);
            streams[owner].0 = streams[owner].0.wrapping_add(request);
            let back = Numbers { seq: streams[owner].1, ack: streams[owner].0 };
            q = q.wrapping_add(request);
            prop_assert_eq!(to_client(&legs[owner], back), Numbers { seq: p, ack: q });
            streams[owner].1 = streams[owner].1.wrapping_add(response);
            p = p.wrapping_add(response);
        }
    }

    #[test]
    fn no_positions_and_no_state_make_a_decision_panic(
        phase in 0..8_u8, owner: u8, flags: u32, framing in 0..5_u32, numbers in proptest::array::uniform8(any::<u64>()), small: u32,
    ) {
        let state = ConnState {
            phase, owner, flags, request: Framing { state: framing, pos: numbers[0], size: numbers[1], chunk: small },
            next: numbers[2], switched: numbers[3], held: numbers[4], asked: small, ..ConnState::default()
        };
        let _ = state.place(numbers[5], numbers[6]);
        let legs = [fork(small, small); LEGS];
        let _ = slot_for(&legs, Want::Fork(small, 1), &state);
        let resp = RespState { next: numbers[7], acked: numbers[0], answered: small, ..RespState::default() };
        let _ = switchable(&state, &resp, numbers[1], numbers[2]);
        let mut state = state;
        state.consume(&Facts { length: numbers[6], chunked: flags & 1 != 0, ..Facts::default() }, numbers[7], numbers[5]);
        state.hold(held(numbers[3], small, small), numbers[4]);
    }
}

#[test]
fn a_leg_serves_the_connection_that_it_was_made_for_and_no_other() {
    use crate::abi::{addr::Tuple, record::Leg};
    let conn = Tuple::new("10.0.0.1:40000".parse().unwrap(), "10.96.0.10:80".parse().unwrap());
    let leg = Leg { conn, isn: 7, ..Leg::default() };
    assert!(leg.serves(&conn, 7));
    assert!(!leg.serves(&conn, 8), "another connection on the same ports");
    let others = [
        ("10.0.0.1:40001", "10.96.0.10:80"),
        ("10.0.0.1:40000", "10.96.0.10:81"),
        ("10.0.0.1:40000", "10.96.0.11:80"),
        ("[fd00::1]:40000", "[fd00::2]:80"),
    ];
    for (from, to) in others {
        let other = Tuple::new(from.parse().unwrap(), to.parse().unwrap());
        assert!(!leg.serves(&other, 7), "{other}");
    }
}

#[test]
fn the_event_of_a_hold_may_be_read_before_its_record() {
    let before = ConnState { hold: 41, ..watching(1000) };
    assert!(before.awaits(42) && !before.holds(42), "it is not written yet");
    let mut held = before;
    assert!(held.hold(Held { start: 1000, slot: 1, wants: 7, acked: 0 }, 5));
    assert!(held.awaits(42) && held.holds(42));
    held.release();
    assert!(!held.awaits(42) && !held.holds(42), "it has gone on");
    let later = ConnState { hold: 43, ..held };
    assert!(!later.awaits(42));
}
