//! What a client acknowledges while its head is held.

use crate::{
    kernel::{ACK, EGRESS, Flow, INGRESS, Kernel, PASS, frame, run, run_out},
    stage::{KEYED, LEG, OK, OTHER, PLAIN, Stage},
};
use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_splice::abi::record::{CONN_PENDING, FRAMING_HEAD, PHASE_HOLD};
use sidetrack_tests::gate::{Need, open};

/// A frame's sequence number, and the sum of its TCP header.
fn tcp(frame: &[u8], v6: bool) -> (u32, u32) {
    let header = &frame[if v6 { 54 } else { 34 }..];
    let sum = header.chunks_exact(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum::<u32>() % 0xffff;
    (u32::from_be_bytes([header[4], header[5], header[6], header[7]]), sum)
}

/// The bare acknowledgement of a client behind `behind` bytes that are held says a number that `owner` expects soon: the one behind
/// the held head's first.
fn acknowledges(kernel: &Kernel, flow: &Flow, owner: &Flow, behind: u32, v6: bool) -> Result<()> {
    ensure!(kernel.connection(flow)?.now.phase == PHASE_HOLD, "the head is held");
    let frame = Flow { sent: flow.sent + behind, ..flow.clone() }.request(ACK, b"");
    let (verdict, out) = run_out(&kernel.object, EGRESS, &frame)?;
    ensure!(verdict == PASS, "it goes on: {verdict}");
    let (expects, _) = tcp(&owner.request(ACK, b""), v6);
    let ((says, sum), (_, was)) = (tcp(&out, v6), tcp(&frame, v6));
    ensure!(says == expects.wrapping_add(1), "it says {says} to who expects {expects}");
    let acks = out[if v6 { 62 } else { 42 }..][..4] == owner.request(ACK, b"")[if v6 { 62 } else { 42 }..][..4];
    ensure!(acks && sum == was, "what it acknowledges, and its checksum, are right");
    Ok(())
}

#[rstest]
fn an_acknowledgement_behind_a_held_head_lies_in_the_window_of_its_owner(
    #[values(false, true)] v6: bool,
) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.route("pr-1", 7)?;
    let mut flow = kernel.open(v6)?;
    kernel.send(&mut flow, PLAIN)?;
    kernel.answer(&mut flow, OK)?;
    run(&kernel.object, EGRESS, &flow.request(ACK, KEYED))?;
    acknowledges(&kernel, &flow, &flow, 60_000, v6)
}

#[rstest]
fn so_it_does_where_the_owners_numbers_are_not_the_clients(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let stage = Stage::of(Kernel::load()?, v6)?.held()?;
    acknowledges(&stage.kernel, &stage.flow, &stage.base, OTHER.len() as u32 + 60_000, v6)
}

/// The last part of a body that was held lies with the agent when its client sends on, with another head: what that segment acknowledges
/// is what the held frame must say when it goes on.
#[rstest]
fn what_a_client_acknowledges_by_a_head_counts_for_frames_that_are_with_the_agent(
    #[values(false, true)] v6: bool,
) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let Stage { kernel, mut flow, mut base, names, .. } = Stage::of(Kernel::load()?, v6)?;
    kernel.send(&mut flow, PLAIN)?;
    base.sent += PLAIN.len() as u32;
    let post: &[u8] = b"POST / HTTP/1.1\r\nhost: orders\r\nbaggage: sidetrack=pr-1\r\ncontent-length: 1000\r\n\r\n";
    run(&kernel.object, EGRESS, &flow.request(ACK, post))?;
    ensure!(kernel.connection(&flow)?.now.phase == PHASE_HOLD, "the baseline has not answered");
    kernel.answer(&mut base, OK)?;
    flow.answered += OK.len() as u32;
    kernel.send(&mut flow, post)?;
    let now = kernel.connection(&flow)?.now;
    ensure!(now.owner != 0 && now.flags & CONN_PENDING != 0, "the fork owns it: {now:?}");

    let (leg, early) = (names[1], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let (said, heard) = (LEG.1.wrapping_add(OK.len() as u32), LEG.0 + (KEYED.len() + post.len()) as u32);
    run(&kernel.object, INGRESS, &frame(leg.remote_addr(), leg.local_addr(), said, heard, ACK, early))?;
    flow.answered += early.len() as u32;
    flow.sent += 500;
    let rest = [&[b'x'; 500], KEYED].concat();
    kernel.send(&mut flow, &rest)?;
    let now = kernel.connection(&flow)?.now;
    ensure!(now.request.state == FRAMING_HEAD && now.flags & CONN_PENDING != 0, "it was read: {now:?}");
    let acked = u32::from_be_bytes(flow.request(ACK, b"")[if v6 { 62 } else { 42 }..][..4].try_into()?);
    ensure!(now.acked == acked, "{} is noted of {acked}", now.acked);
    Ok(())
}
