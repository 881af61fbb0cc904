//! The ring to the agent is full: what finds no room there has not happened.

use crate::kernel::{ACK, EGRESS, Kernel, SEGMENT, run};
use anyhow::{Result, ensure};
use aya::maps::RingBuf;
use rstest::rstest;
use sidetrack_splice::abi::{
    reason::Reason,
    record::{PHASE_HOLD, PHASE_WATCH},
};
use sidetrack_tests::gate::{Need, open};
use zerocopy::IntoBytes as _;

/// More heads than there is room for.
const MANY: u32 = 40_000;

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
        let mut ring = RingBuf::try_from(kernel.object.take_map("events").expect("the object has it"))?;
        let mut told = 0;
        while ring.next().is_some() {
            told += 1;
        }
        ensure!(told == number, "{told} events of {number} heads");
        run(&kernel.object, EGRESS, &flow.request(ACK, &head))?;
        ensure!(kernel.connection(&flow)?.now.phase == PHASE_HOLD, "there is room again");
        ensure!(ring.next().is_some(), "and the agent is told");
        return Ok(());
    }
    anyhow::bail!("there is room for {MANY} and more");
}
