//! A server's reset that crosses its FIN: it has closed at the moment of the next request, and answers with the number that it was asked for.

use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_splice::{
    abi::record::{Connection, RESP_FIN, RESP_RESET},
    packet::flag::{FIN, RST},
};
use sidetrack_tests::gate::{Need, open};

use crate::{
    kernel::{ACK, EGRESS, INGRESS, Kernel, PASS, run},
    stage::{OK, PLAIN},
};

/// Linux believes it in CLOSE-WAIT: the client's socket is gone then, and says nothing of its own.
#[rstest]
fn a_reset_that_crosses_its_fin_ends_the_connection(#[values(false, true)] v6: bool) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.route("pr-1", 7)?;
    let mut flow = kernel.open(v6)?;
    kernel.send(&mut flow, PLAIN)?;
    kernel.answer(&mut flow, OK)?;
    ensure!(run(&kernel.object, INGRESS, &flow.response(FIN | ACK, b""))? == PASS);
    ensure!(kernel.connection(&flow)?.resp.flags & RESP_FIN != 0);
    ensure!(run(&kernel.object, EGRESS, &flow.request(ACK, PLAIN))? == PASS, "it has not heard of that yet");
    ensure!(run(&kernel.object, INGRESS, &flow.response(RST, b""))? == PASS);
    let left: Option<Connection> = kernel.connections.find(&flow.conn())?;
    ensure!(left.is_none_or(|c| c.resp.flags & RESP_RESET != 0), "a connection without a client stays");
    Ok(())
}
