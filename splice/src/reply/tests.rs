use super::*;
use crate::abi::record::RESP_FIN;

fn due(at: u64) -> RespState {
    RespState { response: Framing::head(at), next: at, ..RespState::default() }
}

#[test]
fn only_what_lies_at_or_behind_the_next_head_is_read() {
    let resp = due(500);
    assert_eq!(resp.place(500, 500), Place::Pass);
    assert_eq!(resp.place(400, 500), Place::Pass);
    assert_eq!(resp.place(500, 600), Place::Read);
    assert_eq!(resp.place(501, 600), Place::Lost, "the head's first byte is missing");
    for state in [FRAMING_REST, FRAMING_LOST] {
        let resp = RespState { response: Framing { state, ..Framing::head(500) }, ..resp };
        assert_eq!(resp.place(500, 600), Place::Pass);
    }
}

#[test]
fn what_was_gathered_of_a_head_is_not_read_twice() {
    let resp = RespState { partial: 50, next: 550, ..due(500) };
    assert_eq!(resp.place(500, 550), Place::Pass, "it comes again");
    assert_eq!(resp.place(510, 520), Place::Pass);
    assert_eq!(resp.place(500, 551), Place::Read);
}

#[test]
fn what_has_no_payload_passes_nothing() {
    let resp = due(500);
    assert_eq!(resp.passed(600, 600), 500, "it has overtaken what lies before it");
    assert_eq!(resp.passed(500, 600), 600);
    assert_eq!(resp.passed(400, 450), 500);
}

#[test]
fn a_fin_takes_a_number_too() {
    let resp = due(500);
    assert_eq!(resp.end(), 500);
    assert_eq!(RespState { flags: RESP_FIN, ..resp }.end(), 501, "a reset behind it has this number");
}

#[test]
fn a_body_with_a_length_ends_where_it_says() {
    let mut resp = due(500);
    resp.consume(&Facts { code: 200, length: 1000, ..Facts::default() }, 600);
    assert_eq!((resp.answered, resp.response.pos, resp.response.state), (1, 1600, FRAMING_HEAD));
    assert_eq!(RespState { next: 600, ..resp }.place(600, 1600), Place::Pass);
}

#[test]
fn an_informational_response_answers_nothing() {
    let mut resp = RespState { answered: 4, ..due(500) };
    resp.consume(&Facts { code: 100, ..Facts::default() }, 525);
    assert_eq!((resp.answered, resp.continued, resp.response.pos), (4, 5, 525));
    resp.consume(&Facts { code: 103, ..Facts::default() }, 600);
    assert_eq!((resp.answered, resp.continued, resp.response.pos), (4, 5, 600));
}

#[test]
fn a_body_without_a_length_and_a_tunnel_have_no_end() {
    let mut resp = due(500);
    resp.consume(&Facts { code: 200, rest: true, ..Facts::default() }, 600);
    assert_eq!((resp.answered, resp.response.state), (1, FRAMING_REST));
    let mut resp = RespState { flags: RESP_FIN, ..due(500) };
    resp.consume(&Facts { code: 101, ..Facts::default() }, 600);
    assert_eq!((resp.flags, resp.response.state), (RESP_FIN | RESP_TUNNEL, FRAMING_REST));
}

#[test]
fn a_chunked_body_begins_behind_its_head() {
    let mut resp = RespState { partial: 40, ..due(500) };
    resp.consume(&Facts { code: 200, chunked: true, ..Facts::default() }, 600);
    assert_eq!((resp.partial, resp.response), (0, Framing::chunked(600)));
}

#[test]
fn a_lost_framing_stays_lost() {
    let mut resp = RespState { partial: 40, ..due(500) };
    resp.lose();
    assert_eq!((resp.partial, resp.response.state), (0, FRAMING_LOST));
    assert_eq!(resp.place(900, 1000), Place::Pass);
}

#[test]
fn a_plain_head_is_one_in_order_with_nothing_gathered() {
    assert!(due(500).plain_head(500));
    assert!(!due(500).plain_head(501));
    assert!(!RespState { partial: 1, ..due(500) }.plain_head(500));
    assert!(!RespState { next: 499, ..due(500) }.plain_head(500));
    assert!(!RespState { response: Framing::chunked(500), ..due(500) }.plain_head(500));
}

#[test]
fn no_more_requests_are_told_apart_than_there_are_bits() {
    for answered in [0, 7, 64, u32::MAX - 3] {
        assert_eq!(was_head(answered, answered, u64::MAX), None, "nobody has asked");
        assert_eq!(was_head(answered.wrapping_sub(1), answered, u64::MAX), None);
        for ahead in 1..=64_u32 {
            let asked = answered.wrapping_add(ahead);
            assert_eq!(was_head(asked, answered, 1 << (answered & 63)), Some(true), "{ahead}");
            assert_eq!(was_head(asked, answered, !(1 << (answered & 63))), Some(false), "{ahead}");
        }
        assert_eq!(was_head(answered.wrapping_add(65), answered, u64::MAX), None, "the bit is another request's");
    }
}

#[test]
fn what_is_told_of_requests_is_never_more_than_there_were() {
    let after = |asked, head_bits| ConnState { head_bits, asked, ..ConnState::default() };
    for isn in [0, 1, 77, u32::MAX] {
        for asked in [0, 1, 64, u32::MAX] {
            assert_eq!(told(isn, tell(isn, &after(asked, 0))), Some(asked));
            assert_eq!(told(isn ^ 1, tell(isn, &after(asked, 0))), None, "it is another connection's");
            // A HEAD is not told: what is there counts no requests, so that nothing is an answer.
            let silent = told(isn, tell(isn, &after(asked, 1 << 63)));
            assert!(silent.is_none_or(|asked| isn == 0 && asked == 0));
        }
        // A new record tells of no request, and an old word is an answer to none that came later.
        assert!(told(isn, 0).is_none_or(|asked| was_head(asked, 0, 0).is_none()));
        let old = told(isn, tell(isn, &after(5, 0))).expect("told");
        assert_eq!(was_head(old, 4, 0), Some(false));
        assert_eq!(was_head(old, 5, 0), None, "read again where all is known");
    }
}

#[test]
fn a_reset_is_believed_at_the_next_number_and_at_that_of_the_fin() {
    let open = RespState { next: 100, ..RespState::default() };
    let closed = RespState { flags: RESP_FIN, ..open };
    for (resp, start, believed) in [
        (open, 100, true),
        (open, 99, false),
        (open, 101, false),
        (closed, 101, true),
        (closed, 100, true),
        (closed, 99, false),
        (closed, 102, false),
    ] {
        assert_eq!(resp.resets(start), believed, "{start}");
    }
}
