//! Makes legs, and ends them.

use std::{net::SocketAddr, time::Duration};

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        event::Event,
        reason::Reason,
        record::{
            CONN_DIVERTED, Connection, HEAD_MAX, HeadKey, LEG_BASELINE, LEG_FORK, LEG_NONE, Leg, LegRef, OPT_TIMESTAMP,
            OPT_WSCALE, STATE_DEAD, STATE_OWNER, STATE_PARKED, Said,
        },
    },
    table::{Lookup, OnUnreachable, To},
};
use tokio::time::Instant;
use tracing::debug;
use zerocopy::IntoBytes;

use super::{Shared, attached::Member, untaken};
use crate::{
    cold::{ClientOptions, DialError, DialRequest, Dialled, dial, reset_packet},
    config::BASELINE_DIAL_TIMEOUT,
    pods::clients,
    state,
};

/// Why there is no leg.
#[derive(Debug, thiserror::Error)]
pub(super) enum LegError {
    /// What the kernel saw is no longer so: the head must be read again, if it is still there.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// No leg can be had.
    #[error("{0}")]
    Refused(String),
    /// Map `legs` is full.
    #[error("map legs takes no more ({0}); raise limits.connections")]
    Full(String),
    /// The pod has no local port for one. Every request finds the same for some time.
    #[error("{cause}")]
    NoPort {
        /// The backend.
        target: SocketAddr,
        /// What the dial said.
        cause: String,
    },
    /// The connection that was made did not go over the pod's own interface.
    #[error(
        "the dial to {0} was redirected inside the pod (an OUTPUT rule, a mesh's sidecar): exclude the fork's port from the redirect, or the pod from the mesh"
    )]
    Redirected(SocketAddr),
}

/// Why a leg that was asked for is none to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Outdated {
    /// There is another version of the route.
    #[error("the route has changed since the key was read")]
    Changed,
    /// There is no such route.
    #[error("the route was removed since the key was read")]
    Removed,
    /// The connection is not known.
    #[error("the connection is over: the client has closed it, or its pod is gone")]
    Forgotten,
    /// The connection has ended.
    #[error(transparent)]
    Over(#[from] untaken::Untaken),
    /// A part of the head went to its owner before, and is kept no longer.
    #[error("the beginning of the head is kept no longer: the connection has ended, or another head is due")]
    NoPrefix,
    /// The head waits no more: its event lay in the ring buffer for some time.
    #[error("the head has gone on by another way")]
    GoneOn,
}

impl LegError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }

    /// What the kernel counts.
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::Redirected(_) => Reason::ResetRedirected,
            Self::Full(_) => Reason::ResetLegsFull,
            Self::Outdated(_) | Self::Refused(_) | Self::NoPort { .. } => Reason::ResetUnreachable,
        }
    }
}

/// A leg that was made, for the log.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) leg: LegRef,
    /// Of the connection that it was made for.
    pub(super) isn: u32,
    pub(super) service: String,
    pub(super) key: String,
    pub(super) target: SocketAddr,
    /// Until it is released.
    dialled: Option<Dialled>,
}

impl Made {
    /// Lets go of what the dial has left, and makes ready for the next, when the held request has gone on: it does not wait for that.
    pub(super) fn release(&mut self, shared: &Shared, member: &Member) {
        if let Some(dialled) = self.dialled.take() {
            _ = shared.maps.handshakes.remove(&dialled.tuple());
            dialled.close();
            member.spare.refill(&member.pod, self.target);
        }
    }
}

/// Where a leg must lead, and under which names.
fn target(shared: &Shared, member: &Member, event: &Event) -> Result<(SocketAddr, String, String), LegError> {
    if event.route == 0 {
        return Ok((event.conn.remote_addr(), String::new(), String::new()));
    }
    let targets = shared.targets();
    let found = match targets.find(event.route, event.version) {
        Lookup::Current(found) => found,
        Lookup::Changed => return Err(Outdated::Changed.into()),
        Lookup::Gone => return Err(Outdated::Removed.into()),
    };
    let To::Fork { endpoints, .. } = &found.to else { return Err(Outdated::Changed.into()) };
    let v4 = event.conn.local_addr().is_ipv4();
    let fit: Vec<&SocketAddr> = endpoints.iter().filter(|e| e.is_ipv4() == v4).collect();
    if fit.is_empty() {
        let family = if v4 { "IPv4" } else { "IPv6" };
        return Err(LegError::Refused(format!(
            "route {} of {} has no {family} endpoint, and the client speaks {family}; add one",
            found.key, found.service
        )));
    }
    // A pod that is its own fork would dial itself over `lo`, where no program is.
    let fit: Vec<&SocketAddr> = fit.into_iter().filter(|e| !member.pod.has(e.ip())).collect();
    if fit.is_empty() {
        return Err(LegError::Refused(format!(
            "route {} of {} leads to the client's own pod and nowhere else, which cannot be spliced; add another endpoint",
            found.key, found.service
        )));
    }
    // One connection keeps to one endpoint, whoever dials it again.
    let hash = event
        .conn
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let at = (hash >> 16) as usize % fit.len();
    Ok((*fit[at], found.service.clone(), found.key.clone()))
}

/// What client and server have said in their SYNs. Of a SYN that was under way when its record was made, its socket tells.
fn said(member: &Member, conn: &Tuple, c: &Connection) -> Result<(Said, Said), LegError> {
    if c.client.mss != 0 {
        return Ok((c.client, c.server));
    }
    let found = clients(&member.pod.netns).map_err(LegError::of)?.into_iter().find(|client| client.conn() == *conn);
    found.map(|client| (client.said, client.heard)).ok_or_else(|| Outdated::Forgotten.into())
}

/// What client and baseline agreed on. A scale counts only if both sides sent one (RFC 7323 2.2).
fn agreed(client: Said, server: Said) -> (ClientOptions, u8) {
    let options = client.options & server.options;
    let scaled = options & OPT_WSCALE != 0;
    let wscale = |w: u8| if scaled { w } else { 0 };
    (ClientOptions { mss: client.mss, options, wscale: wscale(client.wscale) }, wscale(server.wscale))
}

/// Makes the leg that a hold asks for and stores it. It is parked: egress makes it the owner.
///
/// `stamp` is the `TSval` of the held frame, the first that the leg gets of the client.
pub(super) async fn make(
    shared: &Shared,
    member: &Member,
    event: &Event,
    stamp: Option<u32>,
) -> Result<Made, LegError> {
    let maps = &shared.maps;
    // Read before the record: while that holds this head, what was read is its beginning. Later it may be another head's, which is
    // nothing to this fork.
    let prefix = prefix(shared, event);
    let conn = maps.connections.find(&event.conn).ok_or(Outdated::Forgotten)?;
    if let Some(over) = untaken::over(&conn) {
        return Err(Outdated::from(over).into());
    }
    let (backend, service, key) = target(shared, member, event)?;
    let (client, server) = said(member, &event.conn, &conn)?;
    let (client, server_wscale) = agreed(client, server);
    let prefix = prefix?;
    let prefix_len = prefix.len() as u32;
    if !conn.now.awaits(event.hold) {
        return Err(Outdated::GoneOn.into());
    }
    maps.filter.add(backend).map_err(|error| LegError::Refused(format!("map filter takes no address: {error}")))?;
    let request = DialRequest {
        local: event.conn.local_addr().ip(),
        target: backend,
        ports: &member.ports,
        spare: &member.spare,
        prefix,
        deadline: Instant::now() + patience(shared, event),
        client,
    };
    let dialled = dial(&member.pod, request).await.map_err(|error| match error {
        DialError::NoPort { target, .. } => LegError::NoPort { target, cause: error.to_string() },
        error => LegError::of(error),
    })?;
    let tuple = dialled.tuple();
    let abandon = |dialled: Dialled| {
        let port = dialled.local.port();
        dialled.abandon();
        // Behind its end: the successor of an agent that dies here knows of it (`unfinished`).
        _ = maps.handshakes.remove(&tuple);
        member.ports.give_back(backend, port);
    };
    let seen = maps.handshakes.find(&tuple).filter(|seen| {
        let sent = seen.isn.wrapping_add(1).wrapping_add(prefix_len);
        seen.answered != 0 && sent == dialled.snd_nxt && seen.peer_isn.wrapping_add(1) == dialled.rcv_nxt
    });
    let Some(seen) = seen else {
        abandon(dialled);
        return Err(LegError::Redirected(backend));
    };
    if let Err(mismatch) = dialled.fits(client, server.mss) {
        abandon(dialled);
        return Err(LegError::of(mismatch));
    }
    let leg_client_scale = if dialled.options & OPT_WSCALE == 0 { 0 } else { dialled.rcv_wscale };
    let leg_server_scale = if dialled.options & OPT_WSCALE == 0 { 0 } else { dialled.snd_wscale };
    let now = state::now();
    // A client that has agreed to timestamps and sends none: the leg does without.
    let options = if stamp.is_some() { dialled.options } else { dialled.options & !OPT_TIMESTAMP };
    let kind = if event.route == 0 { LEG_BASELINE } else { LEG_FORK };
    let leg = Leg {
        conn: event.conn,
        slot: event.slot as u8,
        kind,
        state: STATE_PARKED,
        moved: 1,
        rcv_nxt: dialled.snd_nxt,
        snd_nxt: dialled.rcv_nxt,
        window_out: shift(client.wscale, leg_client_scale),
        window_in: shift(leg_server_scale, server_wscale),
        options,
        ts_out: dialled.stamp.wrapping_sub(stamp.unwrap_or_default()),
        ts_nxt: seen.stamp,
        isn: conn.isn,
        version: event.version,
        route: event.route,
        opened: now,
        active: now,
        ..Leg::default()
    };
    match maps.legs.add(&tuple, &leg) {
        Ok(true) => {}
        Ok(false) => {
            abandon(dialled);
            return Err(LegError::Refused(format!("a leg {tuple} is there already; the client may try again")));
        }
        Err(error) => {
            abandon(dialled);
            return Err(LegError::Full(error.to_string()));
        }
    }
    if let Err(error) = dialled.confirm() {
        _ = maps.legs.remove(&tuple);
        abandon(dialled);
        return Err(LegError::of(error));
    }
    let leg = LegRef {
        remote: tuple.remote,
        remote_port: tuple.remote_port,
        local_port: tuple.local_port,
        route: event.route,
        version: event.version,
        kind,
        ..LegRef::default()
    };
    Ok(Made { leg, isn: conn.isn, service, key, target: backend, dialled: Some(dialled) })
}

/// How long a backend may take to answer. Nobody has asked for another than the baseline: it gets as long as SYNs need that are lost now
/// and then, as if the client dialled it.
fn patience(shared: &Shared, event: &Event) -> Duration {
    let wanted = shared.config.dial_timeout;
    if event.route == 0 { wanted.max(BASELINE_DIAL_TIMEOUT) } else { wanted }
}

/// By how many bits a window field is shifted left between two scales. Scales are 0..=14 (RFC 7323 2.3).
fn shift(from: u8, to: u8) -> i8 {
    from.min(14).cast_signed() - to.min(14).cast_signed()
}

/// The part of the head that the old owner has got already.
fn prefix(shared: &Shared, event: &Event) -> Result<Vec<u8>, LegError> {
    let len = event.prefix as usize;
    if len == 0 {
        return Ok(Vec::new());
    }
    let key = HeadKey { conn: event.conn, direction: 0 };
    let window = shared.maps.heads.find(&key).filter(|_| len <= HEAD_MAX).ok_or(Outdated::NoPrefix)?;
    Ok(window.as_bytes()[..len].to_vec())
}

/// Whether the leg to the baseline that a connection has may serve a further exchange.
pub(super) fn original_lives(shared: &Shared, conn: &Tuple, c: &Connection) -> bool {
    let Some(original) = c.legs.first().filter(|r| r.kind != LEG_NONE) else { return false };
    let leg = shared.maps.legs.find(&tuple(conn, original)).filter(|leg| leg.serves(conn, c.isn));
    c.now.flags & CONN_DIVERTED == 0 || leg.is_some_and(|leg| leg.state != STATE_DEAD && leg.closed == 0)
}

/// Whether the baseline serves a request whose leg cannot be had.
pub(super) fn or_baseline(shared: &Shared, event: &Event) -> bool {
    let targets = shared.targets();
    let Lookup::Current(found) = targets.find(event.route, event.version) else { return false };
    event.route != 0 && matches!(found.to, To::Fork { on_unreachable: OnUnreachable::Baseline, .. })
}

/// Whether the route that a leg was asked for is still the one.
pub(super) fn current(shared: &Shared, event: &Event) -> bool {
    event.route == 0 || matches!(shared.targets().find(event.route, event.version), Lookup::Current(_))
}

/// What stands in the slot that a leg is asked for.
pub(super) fn in_slot(shared: &Shared, event: &Event) -> LegRef {
    let c = shared.maps.connections.find(&event.conn);
    c.and_then(|c| c.legs.get(event.slot as usize).copied()).unwrap_or_default()
}

/// The leg's own tuple.
pub(super) fn tuple(conn: &Tuple, leg: &LegRef) -> Tuple {
    Tuple { local: conn.local, remote: leg.remote, local_port: leg.local_port, remote_port: leg.remote_port }
}

/// Resets a leg's backend and forgets the leg.
pub(super) fn end(shared: &Shared, tuple: &Tuple, leg: &Leg, why: &str) {
    let seq = match leg.state {
        STATE_OWNER => {
            let c = shared.maps.connections.find(&leg.conn).filter(|c| c.isn == leg.isn);
            c.map(|c| c.resp.acked as u32).map(|acked| acked.wrapping_add(leg.cs_off))
        }
        _ => Some(leg.rcv_nxt),
    };
    _ = shared.maps.legs.remove(tuple);
    let Some(member) = shared.attached.find(tuple.local_addr().ip()) else { return };
    if leg.moved != 0 {
        member.ports.give_back(tuple.remote_addr(), tuple.local_addr().port());
    }
    // A leg that was never parked and whose numbers are unknown: the pod's own kernel resets it at its next packet.
    if let Some(seq) = seq {
        let sent = member.raw.send(&reset_packet(tuple, seq, None), tuple.remote_addr().ip());
        debug!(leg = %tuple, why, ?sent, "leg reset");
    }
    // Behind the reset: without what it knows of the leg, the pod's connection tracking would take that for invalid.
    shared.tracked.ended(tuple, leg);
}

/// Resets the backend that a connection has under its own name, where no other has a part in it: whoever sends the held head again, after
/// hours, finds nobody, and not the baseline.
pub(super) fn refuse(shared: &Shared, conn: &Tuple, c: &Connection) {
    if c.now.flags & CONN_DIVERTED != 0 {
        return;
    }
    let Some(member) = shared.attached.find(conn.local_addr().ip()) else { return };
    let sent = member.raw.send(&reset_packet(conn, c.now.held as u32, None), conn.remote_addr().ip());
    debug!(%conn, ?sent, "the backend of a deserted head is reset");
}
