//! The client's own end of a connection.

use sidetrack_splice::abi::addr::Tuple;

use super::Shared;
use crate::pods::{Ends, EndsError};

/// Aborts the client's socket: its program gets an error, and its kernel sends a reset, which the programs take to the owner as any other.
/// False: there is none here.
pub(super) fn abort(shared: &Shared, conn: &Tuple) -> Result<bool, EndsError> {
    let Some(member) = shared.attached.find(conn.local_addr().ip()) else { return Ok(false) };
    Ends::of(&member.pod.netns)?.destroy(conn.local_addr(), conn.remote_addr())
}
