//! Bytes of a client that the programs never see: what comes behind them is dropped for a time that has a bound.

use crate::{
    kernel::{ACK, EGRESS, Flow, Kernel, PASS, run, run_marked},
    stage::{KEYED, OK, PLAIN, Stage},
};
use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_splice::{
    abi::{
        MARK_REPLAY,
        reason::Reason,
        record::{CONN_ADOPT, PHASE_HOLD, PHASE_RESET, PHASE_WATCH},
    },
    conn::GAP_NS,
};
use sidetrack_tests::gate::{Need, open};

/// Sends a segment behind a gap, and again when that is older than its bound. Returns the last verdict.
fn outlast(kernel: &mut Kernel, flow: &Flow, data: &[u8]) -> Result<i32> {
    let before = kernel.counter(Reason::Gap)?;
    for _ in 0..2 {
        ensure!(run(&kernel.object, EGRESS, &flow.request(ACK, data))? != PASS, "it waits for what is missing");
    }
    ensure!(kernel.counter(Reason::Gap)? == before + 2);
    let mut c = kernel.connection(flow)?;
    ensure!(c.now.phase == PHASE_WATCH);
    c.now.asked_at -= GAP_NS;
    kernel.connections.put(&flow.conn(), &c)?;
    run(&kernel.object, EGRESS, &flow.request(ACK, data))
}

#[rstest]
fn a_connection_that_was_read_is_reset_behind_a_gap_that_stays(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.route("pr-1", 7)?;
    let mut flow = kernel.open(v6)?;
    kernel.send(&mut flow, PLAIN)?;
    kernel.answer(&mut flow, OK)?;
    flow.sent += 500;
    ensure!(outlast(&mut kernel, &flow, KEYED)? != PASS, "a keyed head, for all that is known");
    ensure!(kernel.connection(&flow)?.now.phase == PHASE_RESET && kernel.counter(Reason::ResetGap)? == 1);

    let mut stage = Stage::of(kernel, v6)?;
    ensure!(stage.kernel.send(&mut stage.flow, PLAIN)? == PASS, "nothing that was held is under way any more");
    stage.flow.sent += 500;
    ensure!(outlast(&mut stage.kernel, &stage.flow, PLAIN)? != PASS, "it was diverted");
    ensure!(stage.kernel.connection(&stage.flow)?.now.phase == PHASE_RESET);
    ensure!(stage.kernel.counter(Reason::ResetGap)? == 2);
    Ok(())
}

/// They are behind what the agent still sends, perhaps: it gets them, too, and they follow in order.
#[rstest]
fn what_comes_behind_frames_that_the_agent_has_joins_them(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let stage = Stage::of(Kernel::load()?, v6)?;
    let counts =
        || Ok::<_, anyhow::Error>((stage.kernel.counter(Reason::HoldMore)?, stage.kernel.counter(Reason::Gap)?));
    let (more, gaps) = counts()?;
    let behind = Flow { sent: stage.flow.sent + 500, ..stage.flow.clone() }.request(ACK, PLAIN);
    ensure!(run(&stage.kernel.object, EGRESS, &behind)? != PASS);
    ensure!(counts()? == (more + 1, gaps), "the agent has it: {:?}", counts()?);
    // When that sends it there is nothing before it: what is missing is the client's to send again.
    ensure!(run_marked(&stage.kernel.object, EGRESS, &behind, MARK_REPLAY)?.0 != PASS);
    ensure!(counts()? == (more + 1, gaps + 1), "{:?}", counts()?);
    Ok(())
}

/// Nothing of it can be meant for anybody but the baseline.
#[rstest]
fn a_connection_to_a_service_that_nobody_has_forked_passes_behind_a_gap_that_stays(
    #[values(false, true)] v6: bool,
) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.routes(0)?;
    let mut flow = kernel.open(v6)?;
    kernel.send(&mut flow, PLAIN)?;
    kernel.answer(&mut flow, OK)?;
    flow.sent += 500;
    ensure!(outlast(&mut kernel, &flow, PLAIN)? == PASS, "it goes where its client has sent it");
    flow.sent += PLAIN.len() as u32;
    ensure!(kernel.counter(Reason::OpaqueGap)? == 1 && kernel.counter(Reason::ResetGap)? == 0);
    // Forked meanwhile: steered from the next request on.
    kernel.routes(1)?;
    kernel.route("pr-1", 7)?;
    kernel.answer(&mut flow, OK)?;
    kernel.send(&mut flow, KEYED)?;
    ensure!(kernel.connection(&flow)?.now.phase == PHASE_HOLD, "a request begins behind a whole exchange");
    Ok(())
}

/// It is as one that is older than its record.
#[rstest]
fn a_connection_whose_beginning_was_not_seen_is_steered_from_a_request_on(
    #[values(false, true)] v6: bool,
) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.route("pr-1", 7)?;
    let mut flow = kernel.open(v6)?;
    flow.sent += 500;
    kernel.answer(&mut flow, OK)?;
    ensure!(outlast(&mut kernel, &flow, PLAIN)? == PASS, "it goes where its client has sent it");
    flow.sent += PLAIN.len() as u32;
    ensure!(kernel.connection(&flow)?.now.flags & CONN_ADOPT != 0 && kernel.counter(Reason::OpaqueGap)? == 1);
    kernel.answer(&mut flow, OK)?;
    kernel.send(&mut flow, KEYED)?;
    ensure!(kernel.connection(&flow)?.now.phase == PHASE_HOLD, "a request begins behind a whole exchange");
    ensure!(kernel.counter(Reason::Adopted)? == 1);
    Ok(())
}

/// A gap that is filled in time leaves nothing behind, however often there is one.
#[rstest]
fn a_gap_that_is_filled_delays_and_no_more(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    let mut flow = kernel.open(v6)?;
    for number in 1..=3 {
        let behind = Flow { sent: flow.sent + PLAIN.len() as u32, ..flow.clone() };
        ensure!(run(&kernel.object, EGRESS, &behind.request(ACK, PLAIN))? != PASS);
        let mut c = kernel.connection(&flow)?;
        c.now.asked_at -= GAP_NS;
        kernel.connections.put(&flow.conn(), &c)?;
        for _ in 0..2 {
            ensure!(kernel.send(&mut flow, PLAIN)? == PASS, "what is missing comes");
            kernel.answer(&mut flow, OK)?;
        }
        ensure!(kernel.counter(Reason::Gap)? == number);
    }
    ensure!(kernel.counter(Reason::ResetGap)? + kernel.counter(Reason::OpaqueGap)? == 0);
    Ok(())
}
