//! Frames that came with the sum of all their bytes (`CHECKSUM_COMPLETE`) have a right one when they are rewritten.

use crate::{
    kernel::{ACK, EGRESS, INGRESS, Kernel, frame, run, run_summed},
    stage::{KEYED, LEG, OK, Stage},
};
use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_tests::gate::{Need, open};

/// The verdict "drop" (`TC_ACT_SHOT`).
const SHOT: i32 = 2;

#[rstest]
fn a_sum_of_all_bytes_is_right_behind_a_rewrite(
    #[values(false, true)] v6: bool,
    #[values("6.16", "before")] kernel: &str,
) -> Result<()> {
    if !open(&[Need::Lab, Need::SummedRuns]) {
        return Ok(());
    }
    let kernel = if kernel == "before" { Kernel::load_without_ipv6_checksums()? } else { Kernel::load()? };
    let mut stage = Stage::of(kernel, v6)?;
    stage.kernel.send(&mut stage.flow, KEYED)?;
    ensure!(stage.kernel.connection(&stage.flow)?.now.owner != 0, "the fork's leg is the owner again");

    let leg = stage.names[1];
    let (said, heard) = (LEG.1.wrapping_add(OK.len() as u32), LEG.0 + 2 * KEYED.len() as u32);
    let answer = frame(leg.remote_addr(), leg.local_addr(), said, heard, ACK, OK);
    let back = run_summed(&stage.kernel.object, INGRESS, &answer)?;
    stage.flow.answered += OK.len() as u32;
    let out = run_summed(&stage.kernel.object, EGRESS, &stage.flow.request(ACK, b""))?;
    ensure!(back != SHOT && out != SHOT, "neither is dropped: {back}, {out}");
    // The sum of a frame that nobody rewrites is right, too.
    ensure!(run(&stage.kernel.object, EGRESS, &answer)? == run_summed(&stage.kernel.object, EGRESS, &answer)?);
    Ok(())
}
