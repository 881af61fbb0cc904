//! Connections of another ABI's records whose agent is dead: its programs refuse what needs one. Those that were never diverted are taken
//! over while they are idle, as any connection is that is older than its record.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{CONN_ADOPT, Connection},
};
use tracing::{info, warn};

use super::{
    Shared,
    older::{self, record},
};
use crate::{
    bpf::other::Other,
    pods::{Exchange, Pod, clients},
    state,
};

/// How long a program may take to read a frame: with interrupts, and where a processor is given to another guest meanwhile.
const READ_BY: Duration = Duration::from_millis(20);

/// Takes over what can be of `theirs`, the connections that `other`'s programs follow and no leg serves. Returns what was.
pub(super) fn take_over(shared: &Arc<Shared>, other: &Other, theirs: &HashSet<Tuple>) -> HashSet<Tuple> {
    let services = older::services(shared);
    let mut all = HashSet::new();
    for pod in shared.attached.pods() {
        if !theirs.iter().any(|conn| pod.has(conn.local_addr().ip())) {
            continue;
        }
        match take(shared, other, &pod, &services, theirs) {
            Ok(taken) if taken.is_empty() => {}
            Ok(taken) => {
                let pod = pod.netns.path();
                let connections = taken.len();
                info!(abi = other.abi, pod = %pod.display(), connections, "idle connections of a dead agent are taken over");
                all.extend(taken);
            }
            Err(error) => {
                let pod = pod.netns.path();
                warn!(abi = other.abi, pod = %pod.display(), "connections of a dead agent are not taken over: {error:#}");
            }
        }
    }
    all
}

/// The own record comes first, and theirs goes last: at no moment does nobody read what a client sends. Between the two both do, for a
/// moment: what the first of them holds, the other never sees. Where the client has spoken meanwhile, and it is not known what, theirs stays.
fn take(
    shared: &Shared,
    other: &Other,
    pod: &Pod,
    services: &older::Services,
    theirs: &HashSet<Tuple>,
) -> anyhow::Result<Vec<Tuple>> {
    let mut made: HashMap<Tuple, u32> = HashMap::new();
    let mut room = older::room(shared);
    for client in clients(&pod.netns)? {
        let conn = client.conn();
        let free = client.exchange == Exchange::None && !client.layered && theirs.contains(&conn);
        let Some(service) = older::service(services, &client).filter(|_| free && room > 0) else { continue };
        room -= 1;
        let record = record::of(&conn, older::ends(&client, pod), *service, state::now());
        match shared.maps.connections.add(&conn, &record) {
            Ok(true) => _ = made.insert(conn, record.isn),
            // What an agent before this one has begun.
            Ok(false) => made.extend(shared.maps.connections.find(&conn).map(|c| (conn, c.isn))),
            Err(error) => {
                warn!(%conn, "map connections takes no more ({error}): raise limits.connections");
                break;
            }
        }
    }
    if made.is_empty() {
        return Ok(Vec::new());
    }
    // What a socket says now holds for as long as its record, which stands, sees no payload.
    let idle: HashSet<Tuple> = clients(&pod.netns)?
        .into_iter()
        .filter(|client| client.exchange == Exchange::None)
        .map(|client| client.conn())
        .collect();
    let mut taken = Vec::new();
    let idle: HashSet<Tuple> = made
        .iter()
        .filter(|&(conn, isn)| idle.contains(conn) && older::say_idle(shared, conn, *isn))
        .map(|(conn, _)| *conn)
        .collect();
    // What a program had begun to read before it was noted has been written down by then.
    std::thread::sleep(READ_BY);
    for (conn, isn) in made {
        let idle = idle.contains(&conn);
        let Some(c) = shared.maps.connections.find(&conn).filter(|c| c.isn == isn) else { continue };
        if reads(&c, idle) {
            taken.push(conn);
        } else {
            _ = shared.maps.connections.remove(&conn);
        }
    }
    other.forget(&taken)?;
    Ok(taken)
}

/// Whether the programs read what this connection's client sends next from where a request begins.
fn reads(c: &Connection, idle: bool) -> bool {
    c.now.flags & CONN_ADOPT == 0 || idle && record::shows_nothing(c)
}
