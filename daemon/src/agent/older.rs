//! Connections that are older than their record: those that stood before the agent came, or before their service was routed. Their
//! records are made of what the clients' sockets say; egress takes them up where a request must begin (`sidetrack_splice::adopt`).

pub mod record;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        record::{Connection, DIAL_IDLE, Dial},
        route::{Service, ServiceAddr},
    },
    table::service_addr,
};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Shared;
use crate::{
    bpf::other::followed,
    pods::{Client, Ends, Exchange, Pod, clients},
    state,
};

/// When sockets that were too young to tell are looked at again.
const AGAIN: [Duration; 3] = [Duration::from_millis(150), Duration::from_millis(300), Duration::from_secs(1)];

/// How many idle clients are noted at once: half of map `dials`, whose other half is for answers to holds. Any other is steered from its
/// second request on.
const IDLE_MAX: usize = 8192;

/// Which service an address belongs to, by its id.
pub(super) type Services = HashMap<ServiceAddr, Service>;

/// The services that are in force.
pub(super) fn services(shared: &Shared) -> Services {
    shared.maps.services.entries().into_iter().collect()
}

/// [`adopt`], in each pod.
pub(super) fn adopt_everywhere(shared: &Arc<Shared>, services: &Services) {
    for pod in shared.attached.pods() {
        adopt(shared, &pod, services.clone());
    }
}

/// Connections whose SYN was under way when their record was made, with the number of that.
type Opening = HashMap<Tuple, u32>;

/// Looks at a pod's connections to these services, and in the background again at those that were too young to tell, and at those whose
/// SYN is under way, for as long as it is.
pub(super) fn adopt(shared: &Arc<Shared>, pod: &Pod, services: Services) {
    let mut opening = Opening::new();
    let mut young = look(shared, pod, &services, &mut opening);
    if !opening.is_empty() {
        // An answer that came between the list and the record was seen by nobody.
        young = look(shared, pod, &services, &mut opening);
    }
    let (shared, pod) = (Arc::clone(shared), pod.clone());
    tokio::spawn(async move {
        let mut pauses = AGAIN.into_iter();
        let mut last = Duration::ZERO;
        while young || !opening.is_empty() {
            let pause = pauses.next();
            // Those that are too young for so long are busy.
            if pause.is_none() && opening.is_empty() {
                return;
            }
            last = pause.unwrap_or(last);
            sleep(last).await;
            let (shared, pod, services, mut before) = (Arc::clone(&shared), pod.clone(), services.clone(), opening);
            let looked = move || (look(&shared, &pod, &services, &mut before), before);
            let Ok(looked) = tokio::task::spawn_blocking(looked).await else { return };
            (young, opening) = looked;
        }
    });
}

/// Makes the records that are missing, and says of those that show nothing whether their client is idle. Returns whether another look
/// may say more; `opening` are those whose SYN is under way, before and after.
fn look(shared: &Shared, pod: &Pod, services: &Services, opening: &mut Opening) -> bool {
    let mut made = std::mem::take(opening);
    if services.is_empty() || shared.superseded() || shared.taking_over.load(Ordering::Relaxed) {
        return false;
    }
    let known =
        followed(&shared.pin_dir).map_err(anyhow::Error::from).and_then(|theirs| Ok((theirs, clients(&pod.netns)?)));
    let (theirs, listed) = match known {
        Ok(known) => known,
        Err(error) => {
            let pod = pod.netns.path();
            warn!(pod = %pod.display(), "connections that are older than this agent are not steered: {error:#}");
            return false;
        }
    };
    for client in listed {
        let Some(service) = service(services, &client) else { continue };
        if client.layered || !pod.has(client.local.ip()) {
            continue;
        }
        let conn = client.conn();
        // A leg that is dialled at this moment has a socket, too.
        if theirs.contains(&conn)
            || shared.maps.legs.find(&conn).is_some()
            || shared.maps.handshakes.find(&conn).is_some()
        {
            continue;
        }
        let record = record::of(&conn, ends(&client, pod), *service, state::now());
        match shared.maps.connections.add(&conn, &record) {
            Ok(true) => _ = made.insert(conn, record.isn),
            Ok(false) => {
                if let Some(c) = shared.maps.connections.find(&conn).filter(record::shows_nothing) {
                    made.insert(conn, c.isn);
                }
            }
            Err(error) => {
                warn!(%conn, "map connections takes no more ({error}): raise limits.connections");
                break;
            }
        }
    }
    if made.is_empty() {
        return false;
    }
    // What a socket says now holds for as long as its record, which stands, sees no payload.
    let (listed, ends) = (clients(&pod.netns), Ends::of(&pod.netns));
    let (Ok(listed), Ok(mut ends)) = (listed, ends) else { return true };
    let mut now: HashMap<Tuple, Client> = listed.into_iter().map(|client| (client.conn(), client)).collect();
    let mut young = 0;
    let mut room = room(shared);
    for (conn, isn) in &made {
        let found = now.remove(conn);
        match found.as_ref().map(|client| client.exchange) {
            Some(idle @ (Exchange::None | Exchange::Opening)) => {
                if idle == Exchange::Opening {
                    opening.insert(*conn, *isn);
                } else if let Some(client) = &found {
                    answered(shared, conn, *isn, &self::ends(client, pod));
                }
                if room > 0 {
                    room -= 1;
                    say_idle(shared, conn, *isn);
                }
            }
            Some(Exchange::Some) => {}
            None if matches!(ends.has(conn.local_addr(), conn.remote_addr()), Ok(false)) => gone(shared, conn, *isn),
            // A list that was torn may lack one.
            Some(Exchange::Young) | None => young += 1,
        }
    }
    let (pod, opening) = (pod.netns.path(), opening.len());
    debug!(pod = %pod.display(), connections = made.len(), young, opening, "older connections are followed");
    young != 0
}

/// The answer to a SYN that was under way came before its record, and nobody saw it: its client's socket has. Before the client is noted
/// as idle: nothing that it sends is read by a record that goes.
fn answered(shared: &Shared, conn: &Tuple, isn: u32, ends: &record::Ends) {
    let unseen = |c: &Connection| c.isn == isn && c.server.mss == 0 && record::shows_nothing(c);
    if let Some(c) = shared.maps.connections.find(conn).filter(unseen) {
        _ = shared.maps.connections.put(conn, &Connection { client: ends.client, server: ends.server, ..c });
    }
}

/// The service that a client has dialled.
pub(super) fn service<'a>(services: &'a Services, client: &Client) -> Option<&'a Service> {
    services.get(&service_addr(client.remote))
}

/// What a client's socket shows of both ends.
pub(super) fn ends(client: &Client, pod: &Pod) -> record::Ends {
    record::Ends { client: client.said, server: client.heard, ifindex: pod.link.index }
}

/// How many idle clients may be noted.
pub(super) fn room(shared: &Shared) -> usize {
    IDLE_MAX.saturating_sub(shared.maps.dials.walk().count())
}

/// Notes that a client is idle: the next that it sends begins a request. False: there is no room, or another note.
pub(super) fn say_idle(shared: &Shared, conn: &Tuple, isn: u32) -> bool {
    let added = shared.maps.dials.add(conn, &Dial { hold: isn, status: DIAL_IDLE, ..Dial::default() });
    if let Err(error) = &added {
        debug!(%conn, "map dials takes no more: {error}");
    }
    added.unwrap_or(false)
}

/// The client has closed it meanwhile, and nobody has seen that.
fn gone(shared: &Shared, conn: &Tuple, isn: u32) {
    if shared.maps.connections.find(conn).is_some_and(|c| c.isn == isn && record::shows_nothing(&c)) {
        _ = shared.maps.connections.remove(conn);
    }
}

/// Removes what was said of clients whose connections have ended since.
pub(super) fn sweep(shared: &Shared) {
    for (conn, dial) in shared.maps.dials.entries() {
        if record::is_stale(&dial, shared.maps.connections.find(&conn).as_ref()) {
            _ = shared.maps.dials.remove(&conn);
        }
    }
}
