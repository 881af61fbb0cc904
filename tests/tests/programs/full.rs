//! What finds no room on its way to the agent has not happened: the ring is full, or one connection has as much held as it may.

use crate::kernel::{ACK, EGRESS, Kernel, SEGMENT, run};
use anyhow::{Result, ensure};
use aya::maps::RingBuf;
use rstest::rstest;
use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{PHASE_HOLD, PHASE_RESET, PHASE_WATCH},
    },
    conn::HELD_MAX,
};
use sidetrack_tests::gate::{Need, open};
use zerocopy::IntoBytes as _;

/// More heads than there is room for.
const MANY: u32 = 40_000;

/// Gives up connections until the agent cannot be told of one more: it is given up all the same. Returns of how many it was told.
fn give_up_until_unsaid(kernel: &mut Kernel, v6: bool) -> Result<u32> {
    /// More than there is room for where no head has any.
    const ENDS: u32 = 200;
    for told in 0..ENDS {
        let mut flow = kernel.open(v6)?;
        kernel.send(&mut flow, b"GET / HTTP/1.1\r\n\r\n")?;
        kernel.answer(&mut flow, b"HTTP/1.1 204 No Content\r\n\r\n")?;
        kernel.send(&mut flow, b"\0 no head\r\n\r\n")?;
        let phase = kernel.connection(&flow)?.now.phase;
        ensure!(phase == PHASE_RESET, "what cannot be read is given up: phase {phase}");
        if kernel.counter(Reason::GoneUnsaid)? > 0 {
            return Ok(told);
        }
    }
    anyhow::bail!("there is room for {ENDS} and more")
}

/// Room in the ring first, then the mark on the connection: a head that is marked as held and that nobody was told of would wait for
/// ever.
#[rstest]
fn a_head_that_the_agent_cannot_be_told_of_is_not_marked_as_held(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.route("pr-1", 7)?;
    let mut head = b"POST / HTTP/1.1\r\nbaggage: sidetrack=pr-1\r\ncontent-length: 100000\r\n\r\n".to_vec();
    head.resize(SEGMENT, b'x');
    for number in 0..MANY {
        let flow = kernel.open(v6)?;
        let before = kernel.connection(&flow)?.now;
        run(&kernel.object, EGRESS, &flow.request(ACK, &head))?;
        let now = kernel.connection(&flow)?.now;
        if now.phase == PHASE_HOLD {
            continue;
        }
        ensure!(number > 1000, "there is room for no more than {number}");
        ensure!(now.phase == PHASE_WATCH && now.as_bytes() == before.as_bytes(), "{before:?}\n{now:?}");
        ensure!(kernel.counter(Reason::RingFull)? == 1, "and is counted");
        let ended = give_up_until_unsaid(&mut kernel, v6)?;
        let mut ring = RingBuf::try_from(kernel.object.take_map("events").expect("the object has it"))?;
        let mut told = 0;
        while ring.next().is_some() {
            told += 1;
        }
        ensure!(told == number + ended, "{told} events of {number} heads and {ended} ends");
        run(&kernel.object, EGRESS, &flow.request(ACK, &head))?;
        ensure!(kernel.connection(&flow)?.now.phase == PHASE_HOLD, "there is room again");
        ensure!(ring.next().is_some(), "and the agent is told");
        return Ok(());
    }
    anyhow::bail!("there is room for {MANY} and more");
}

/// What one connection may have held behind its head is bounded: what is beyond is dropped and counted, and its client sends it again.
#[rstest]
fn what_one_connection_may_have_held_is_bounded(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.route("pr-1", 7)?;
    let mut flow = kernel.open(v6)?;
    kernel.send(&mut flow, b"POST / HTTP/1.1\r\nbaggage: sidetrack=pr-1\r\ncontent-length: 100000000\r\n\r\n")?;
    let most = HELD_MAX as usize / SEGMENT;
    for number in 1..=most + 10 {
        kernel.send(&mut flow, &[b'x'; SEGMENT])?;
        let now = kernel.connection(&flow)?.now;
        ensure!(now.phase == PHASE_HOLD && now.held_bytes as usize <= HELD_MAX as usize, "{now:?}");
        let dropped = kernel.counter(Reason::HoldDropped)? as usize;
        ensure!(dropped == number.saturating_sub(most), "{dropped} of {number} segments were dropped");
    }
    // The head and all that was held, and nothing else, is on its way to the agent.
    let mut ring = RingBuf::try_from(kernel.object.take_map("events").expect("the object has it"))?;
    let mut told = 0;
    while ring.next().is_some() {
        told += 1;
    }
    ensure!(told == most + 1, "{told} events");
    Ok(())
}
