//! A leg has the name of one that has ended: its port was used again.

use crate::{
    kernel::{ACK, EGRESS, Kernel, run},
    stage::{KEYED, Stage},
};
use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_splice::abi::{
    addr::Tuple,
    record::{Leg, PHASE_HOLD},
};
use sidetrack_tests::gate::{Need, open};

/// Pools keep connections for hours: a leg idles, ends, and its port goes to another connection's leg to the same fork, or to one in
/// another slot of the same connection.
#[rstest]
fn a_leg_that_has_the_name_of_one_that_has_ended_is_not_taken_for_it(
    #[values(false, true)] v6: bool,
    #[values(false, true)] own: bool,
) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut stage = Stage::of(Kernel::load()?, v6)?;
    let [conn, name] = stage.names;
    let theirs = Leg {
        conn: if own { conn } else { Tuple { local_port: conn.local_port ^ 1, ..conn } },
        slot: stage.before.1[1].slot + u8::from(own),
        ..stage.before.1[1]
    };
    stage.legs.put(&name, &theirs)?;
    run(&stage.kernel.object, EGRESS, &stage.flow.request(ACK, KEYED))?;
    let after = stage.after()?;
    ensure!(after.c.now.phase == PHASE_HOLD && after.c.now.owner == 0, "it asks for a leg: {:?}", after.c.now);
    ensure!(after.fork == theirs, "the other's leg is as it was: {:?}", after.fork);
    Ok(())
}
