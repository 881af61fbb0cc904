//! Two processors work on one connection at one moment: the compiled programs run on both, thousands of times, at every distance in
//! time, and what they leave is looked at.

use std::{
    hint::spin_loop,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use crate::{
    kernel::{ACK, EGRESS, Flow, INGRESS, Kernel, PASS, on_cpu, run, run_marked},
    stage::{After, KEYED, OTHER, PLAIN, Stage, after},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use aya::Ebpf;
use rstest::rstest;
use sidetrack_splice::abi::{
    MARK_REPLAY,
    record::{
        CONN_HELD, Connection, FRAMING_HEAD, PHASE_CLOSED, PHASE_SWITCH, PHASE_WATCH, RESP_RESET, STATE_OWNER,
        STATE_PARKED,
    },
};
use sidetrack_tests::gate::{Need, open};

const FIN: u8 = 1;
const RST: u8 = 4;

/// Races of each kind in each family: a hundred thousand of each kind.
const ROUNDS: u32 = 50_000;
/// The longest head start of one processor, in turns of a spinning loop: longer than a program runs.
const AHEAD: u32 = 400;

/// A stage for a race: where there are two processors.
fn stage(v6: bool) -> Result<Option<Stage>> {
    if !open(&[Need::Lab, Need::TwoProcessors]) {
        return Ok(None);
    }
    Stage::of(Kernel::load()?, v6).map(Some)
}

/// What one processor runs.
#[derive(Clone, Copy)]
struct Run<'a> {
    program: &'a str,
    frame: &'a [u8],
    mark: u32,
}

/// What came of it.
#[derive(Debug, Default)]
struct Ran {
    verdict: i32,
    frame: Vec<u8>,
}

impl Run<'_> {
    fn run(self, object: &Ebpf) -> Result<Ran> {
        let (verdict, frame) = run_marked(object, self.program, self.frame, self.mark)?;
        Ok(Ran { verdict, frame })
    }
}

/// A frame that the client sends.
fn sends(frame: &[u8]) -> Run<'_> {
    Run { program: EGRESS, frame, mark: 0 }
}

/// A frame that comes to it.
fn comes(frame: &[u8]) -> Run<'_> {
    Run { program: INGRESS, frame, mark: 0 }
}

impl Stage {
    /// Runs two programs, each on its frame and its processor, at one moment; again and again, from the same beginning. `judge`
    /// gets their verdicts, and what they have left.
    fn race(
        &mut self,
        one: Run<'_>,
        other: Run<'_>,
        mut judge: impl FnMut([&Ran; 2], &After) -> Result<()>,
    ) -> Result<()> {
        let Self { kernel: Kernel { object, connections, .. }, legs, names, before, .. } = self;
        let (object, (c, both)) = (&*object, &*before);
        let (turn, taken, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let theirs = Mutex::new(Ran::default());
        let theirs = || theirs.lock().unwrap_or_else(PoisonError::into_inner);
        thread::scope(|scope| {
            let helper = scope.spawn(|| -> Result<()> {
                on_cpu(1)?;
                for round in 1..=ROUNDS {
                    spin_until(|| turn.load(Ordering::SeqCst) == round || over.load(Ordering::SeqCst));
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    (0..round.wrapping_mul(7) % AHEAD).for_each(|_| spin_loop());
                    let ran = other.run(object)?;
                    *theirs() = ran;
                    taken.store(round, Ordering::SeqCst);
                }
                Ok(())
            });
            let judged = (1..=ROUNDS).try_for_each(|round| {
                for (name, leg) in names.iter().zip(both) {
                    legs.put(name, leg)?;
                }
                connections.put(&names[0], c)?;
                turn.store(round, Ordering::SeqCst);
                (0..AHEAD / 2).for_each(|_| spin_loop());
                let mine = one.run(object)?;
                spin_until(|| taken.load(Ordering::SeqCst) == round || helper.is_finished());
                ensure!(taken.load(Ordering::SeqCst) == round, "the other processor has stopped");
                let theirs = theirs();
                let after = after(connections, legs, names)?;
                judge([&mine, &theirs], &after).with_context(|| {
                    format!(
                        "round {round}: {mine:?} {theirs:?}\n{:?}\n{:?}\n{:?}\n{:?}",
                        after.c.now, after.c.resp, after.base, after.fork
                    )
                })
            });
            over.store(true, Ordering::SeqCst);
            helper.join().map_err(|_| anyhow!("the other processor has panicked"))?.and(judged)
        })
    }
}

fn spin_until(done: impl Fn() -> bool) {
    for n in 0_u32.. {
        if done() {
            break;
        }
        if n % 4096 == 4095 {
            thread::yield_now();
        }
        spin_loop();
    }
}

impl After {
    /// The keyed head has gone to the fork, whole.
    fn switched(&self, before: &Connection) -> Result<bool> {
        self.given(before, KEYED)
    }

    /// The same of any head.
    fn given(&self, before: &Connection, text: &[u8]) -> Result<bool> {
        let (c, head) = (&self.c, before.now.request.pos);
        ensure!(c.now.flags & CONN_HELD == 0, "the flag of a switch was left");
        ensure!(c.now.phase != PHASE_SWITCH, "a switch that was neither made nor given up");
        if c.now.owner == 0 {
            ensure!((self.base.state, self.fork.state) == (STATE_OWNER, STATE_PARKED), "legs of no switch");
            ensure!((c.now.next, c.now.request.pos, c.now.asked) == (head, head, before.now.asked), "it has passed");
            return Ok(false);
        }
        let behind = head + text.len() as u64;
        ensure!((self.base.state, self.fork.state) == (STATE_PARKED, STATE_OWNER), "legs of a switch");
        ensure!((c.now.next, c.now.request.pos, c.now.asked) == (behind, behind, before.now.asked + 1), "not once");
        ensure!((c.now.switched, c.now.phase) == (head, PHASE_WATCH), "a switch that was not ended");
        Ok(true)
    }
}

/// What an owner may say unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Answer,
    Fin,
    Reset,
}

impl Late {
    /// Flags and payload.
    fn segment(self) -> (u8, &'static [u8]) {
        match self {
            Self::Answer => (ACK, b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 4\r\n\r\nlate"),
            Self::Fin => (ACK | FIN, b""),
            Self::Reset => (ACK | RST, b""),
        }
    }
}

/// What the old owner says is either from before the switch, and then there is none, or it stays away from the client. Where each
/// gives way to the other, both come again.
#[rstest]
fn an_old_owner_never_speaks_into_a_switch(
    #[values(false, true)] v6: bool,
    #[values(Late::Answer, Late::Fin, Late::Reset)] late: Late,
) -> Result<()> {
    let Some(mut stage) = stage(v6)? else { return Ok(()) };
    let (flags, payload) = late.segment();
    let (head, segment) = (stage.flow.request(ACK, KEYED), stage.base.response(flags, payload));
    let before = stage.before.0;
    let (mut switches, mut words) = (0, 0);
    stage.race(sends(&head), comes(&segment), |[_, said], after| {
        let (switched, said) = (after.switched(&before)?, said.verdict == PASS);
        ensure!(!(switched && said), "the client heard the old owner, and the fork got its request");
        if late == Late::Reset {
            ensure!(said == (after.c.resp.flags & RESP_RESET != 0), "a reset is noted where the client hears it");
        }
        switches += u32::from(switched);
        words += u32::from(said);
        Ok(())
    })?;
    ensure!(switches > 0 && words > 0, "no race: {switches} switches, {words} times the old owner");
    Ok(())
}

/// A head and its retransmission: one of them is the switch.
#[rstest]
fn a_head_goes_to_its_fork_once(#[values(false, true)] v6: bool) -> Result<()> {
    let Some(mut stage) = stage(v6)? else { return Ok(()) };
    let (head, before) = (stage.flow.request(ACK, KEYED), stage.before.0);
    stage.race(sends(&head), sends(&head), |_, after| {
        ensure!(after.switched(&before)?, "nobody has got it");
        Ok(())
    })
}

/// The agent sends a held head again when its leg is there, and the client does so by itself: one of them is the switch.
#[rstest]
fn a_held_head_that_both_send_again_goes_to_its_fork_once(#[values(false, true)] v6: bool) -> Result<()> {
    let Some(stage) = stage(v6)? else { return Ok(()) };
    let mut stage = stage.held()?;
    let (head, before) = (stage.flow.request(ACK, OTHER), stage.before.0);
    let replay = Run { mark: MARK_REPLAY, ..sends(&head) };
    stage.race(replay, sends(&head), |_, after| {
        ensure!(after.given(&before, OTHER)?, "nobody has got it");
        Ok(())
    })
}

/// What the client sends again from before the switch is the old owner's, or dropped while the owner changes: never the new one's.
#[rstest]
fn what_is_from_before_a_switch_never_goes_to_the_new_owner(#[values(false, true)] v6: bool) -> Result<()> {
    let Some(mut stage) = stage(v6)? else { return Ok(()) };
    let (head, before) = (stage.flow.request(ACK, KEYED), stage.before.0);
    let again = Flow { sent: stage.flow.sent - PLAIN.len() as u32, ..stage.flow.clone() }.request(ACK, PLAIN);
    let (mut old, mut dropped) = (0, 0);
    stage.race(sends(&head), sends(&again), |[_, late], after| {
        ensure!(after.switched(&before)?, "nobody has got the head");
        match late.verdict {
            PASS => old += 1,
            // Whatever is redirected to a fork has its address.
            _ => dropped += u32::from(late.frame == again),
        }
        ensure!(late.verdict == PASS || late.frame == again, "it was rewritten");
        Ok(())
    })?;
    ensure!(old > 0, "never to its owner; dropped {dropped} times");
    Ok(())
}

/// One frame with a request of the baseline's and the fork's head behind it, and the first of the two alone: whichever is read first,
/// the frame with both passes never, and the request counts once.
#[rstest]
fn a_frame_of_two_owners_never_passes_whole(#[values(false, true)] v6: bool) -> Result<()> {
    let Some(mut stage) = stage(v6)? else { return Ok(()) };
    let both = stage.flow.request(ACK, &[PLAIN, KEYED].concat());
    let (first, before) = (stage.flow.request(ACK, PLAIN), stage.before.0);
    stage.race(sends(&both), sends(&first), |[two, one], after| {
        ensure!(two.verdict != PASS && two.frame == both, "the baseline was given the fork's head");
        let now = &after.c.now;
        let passed = one.verdict == PASS;
        let (asked, end) = (now.asked - before.now.asked, now.request.pos - before.now.request.pos);
        let once = (1, PLAIN.len() as u64);
        ensure!((asked, end) == if passed { once } else { (0, 0) }, "{asked} requests, {end} bytes, passed: {passed}");
        ensure!((now.owner, now.phase) == (0, PHASE_WATCH), "an owner that has not answered changes");
        Ok(())
    })
}

/// The client's reset goes to who owns the connection when it is over.
#[rstest]
fn a_clients_reset_ends_a_switch_or_what_comes_of_it(#[values(false, true)] v6: bool) -> Result<()> {
    let Some(mut stage) = stage(v6)? else { return Ok(()) };
    let (head, reset) = (stage.flow.request(ACK, KEYED), stage.flow.request(RST | ACK, b""));
    let (mut base, mut fork, mut unnoted) = (0, 0, 0);
    stage.race(sends(&head), sends(&reset), |_, after| {
        let states = (after.base.state, after.fork.state);
        // It waits for the other processor, not for ever: that may have been stopped in its step.
        unnoted += u32::from(after.c.now.phase != PHASE_CLOSED);
        ensure!(unnoted < ROUNDS / 1000, "not closed, {unnoted} times");
        match after.c.now.owner {
            0 => ensure!(states == (STATE_OWNER, STATE_PARKED), "legs of no switch"),
            _ => ensure!(states == (STATE_PARKED, STATE_OWNER), "legs of a switch"),
        }
        *(if after.c.now.owner == 0 { &mut base } else { &mut fork }) += 1;
        Ok(())
    })?;
    ensure!(base > 0 && fork > 0, "no race: {base} and {fork}");
    Ok(())
}

/// The head of a response and its body: in whatever order they are read, the response has come to its end when both have passed.
#[rstest]
fn two_segments_of_a_response_are_never_mixed_up(#[values(false, true)] v6: bool) -> Result<()> {
    let Some(mut stage) = stage(v6)? else { return Ok(()) };
    let (ask, head) = (stage.flow.request(ACK, PLAIN), &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nHTTP"[..]);
    run(&stage.kernel.object, EGRESS, &ask)?;
    stage.before.0 = stage.kernel.connection(&stage.flow)?;
    stage.base.sent += PLAIN.len() as u32;
    let first = stage.base.response(ACK, head);
    stage.base.answered += head.len() as u32;
    let second = stage.base.response(ACK, b"/1.1 ");
    let (before, mut orders) = (stage.before.0, [0; 2]);
    stage.race(comes(&first), comes(&second), |ran, after| {
        let (resp, start) = (&after.c.resp, before.resp.next);
        let passed = ran.map(|ran| ran.verdict == PASS);
        let framing = (resp.response.state, resp.response.pos, resp.answered - before.resp.answered);
        let ends = (FRAMING_HEAD, start + head.len() as u64 + 5, 1);
        let seen = match passed {
            [true, true] => (ends, ends.1),
            [true, false] => (ends, start + head.len() as u64),
            // What is not in order waits for what was before it.
            [false, _] => ((FRAMING_HEAD, start, 0), start),
        };
        ensure!((framing, resp.next) == seen, "{framing:?}, not {seen:?}");
        orders[usize::from(passed[1])] += 1;
        Ok(())
    })?;
    ensure!(orders.iter().all(|&n| n > 0), "no race: {orders:?}");
    Ok(())
}
