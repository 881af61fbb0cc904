//! Segments that no honest peer sends: what is known of a connection does not change by them

use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    HttpError, Request, Scene,
    lab::BBR,
    scene::{KEY, OTHER_KEY, Via},
    wire::{Segment, Wire},
};

/// Only a reset with the exact next number ends what is known (RFC 5961, section 3.2): any other one turns no steering off, and
/// reaches the client's kernel, which asks for the number and goes on.
#[rstest]
fn a_reset_ends_a_connection_only_by_its_exact_number(#[values(None, Some(KEY))] owner: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("forged-reset", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let wire = Wire::open(&scene.client)?;
    let mut http = scene.client.http(scene.address(Via::Endpoint4))?;
    let pod = if owner.is_some() { &scene.fork_pod } else { &scene.base_pod };
    let exchange = Request::get("/bytes/300").maybe_key(owner);
    let ahead = [1, 2, 1000, 20_000, 1 << 31, u32::MAX, u32::MAX - 1000];
    for (round, (ahead, ack)) in ahead.iter().flat_map(|&ahead| [(ahead, false), (ahead, true)]).enumerate() {
        http.exchange(&exchange)?.verify_bytes(Scene::owner(owner), 300)?;
        let last = wire.last_from(pod.v4().into())?;
        let seq = last.end().wrapping_add(ahead);
        let forged = Segment { seq, ack: last.ack.filter(|_| ack), rst: true, payload: Vec::new(), ..last };
        forged.send(pod)?;
        // In the first rounds the connection stays as it is: an undiverted one must still be known.
        if round < 4 {
            continue;
        }
        for key in [Some(OTHER_KEY), None, Some(KEY), owner] {
            http.exchange(&Request::get("/bytes/300").maybe_key(key))?.verify_bytes(Scene::owner(key), 300)?;
        }
        wire.seen()?;
    }
    http.exchange(&exchange)?.verify_bytes(Scene::owner(owner), 300)?;
    for origin in [&scene.base, &scene.fork, &scene.other] {
        ensure!(origin.clients().len() == 1, "a leg has ended: {}", origin.name());
    }
    let last = wire.last_from(pod.v4().into())?;
    Segment { seq: last.end(), rst: true, payload: Vec::new(), ..last }.send(pod)?;
    let end = http.exchange(&exchange);
    ensure!(matches!(end, Err(HttpError::Reset)), "{end:?}");
    scene.isolated()?;
    agent.no_errors()
}

/// What a parked leg's backend sends again is acknowledged for the client, once each; a bare acknowledgement is not answered, or
/// two sides that answer each other's would never end.
#[test]
fn only_what_takes_sequence_numbers_is_acknowledged_for_a_parked_leg() -> Result<()> {
    let Some(scene) = Scene::open("forged-parked", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let wire = Wire::open(&scene.client)?;
    let mut http = scene.client.http(scene.address(Via::Endpoint4))?;
    let (fork, address) = (&scene.fork_pod, scene.fork_pod.v4().into());
    http.exchange(&Request::get("/bytes/300").key(KEY))?;
    let last = wire.last_from(address)?;
    http.exchange(&Request::get("/bytes/300"))?;
    wire.seen()?;
    let (kept, acked) = (agent.counter("parked_kept")?, agent.counter("parked_acked")?);

    let answers = |forged: &Segment, times: usize| -> Result<Vec<Segment>> {
        for _ in 0..times {
            forged.send(fork)?;
        }
        Ok(wire.seen()?.into_iter().filter(|s| s.to.ip() == address).collect())
    };
    // A bare acknowledgement, and old ones.
    for ack in [0, u32::MAX, u32::MAX - 30, u32::MAX - 60].map(|n| last.ack.map(|ack| ack.wrapping_add(n))) {
        let bare = Segment { seq: last.end(), ack, payload: Vec::new(), ..last.clone() };
        let back = answers(&bare, 5)?;
        ensure!(back.is_empty(), "{bare:?} was answered: {back:?}");
    }
    ensure!(agent.counter("parked_kept")? == kept + 20);
    // Its last segment once more, and a part of it.
    let half = last.payload.len() / 2;
    for again in [last.clone(), Segment { payload: last.payload[..half].to_vec(), ..last.clone() }] {
        let back = answers(&again, 3)?;
        ensure!(back.len() == 3, "{} answers to three", back.len());
        for s in &back {
            ensure!(s.ack == Some(last.end()) && s.payload.is_empty() && s.from == last.to, "{s:?}");
        }
    }
    ensure!(agent.counter("parked_acked")? == acked + 6);
    // The leg is as good as before, and the client has seen nothing of all this.
    for key in [Some(KEY), None, Some(KEY)] {
        http.exchange(&Request::get("/bytes/300").maybe_key(key))?.verify_bytes(Scene::owner(key), 300)?;
    }
    ensure!(agent.counter("splice_cold")? == 1, "the leg was made anew\n{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}
