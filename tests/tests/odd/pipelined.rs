//! Requests that do not wait for the answer to the one before, and answers that nobody has asked for.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rstest::rstest;
use sidetrack_tests::{
    HttpError, Request, Scene,
    lab::BBR,
    scene::{KEY, OTHER_KEY, Via},
};

#[rstest]
fn pipelined_requests_of_one_owner_are_all_its_own_or_reset(
    #[values(None, Some(KEY))] key: Option<&str>,
) -> Result<()> {
    let Some(scene) = Scene::open("pipelined", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    // More than the 64 whose methods are remembered, too.
    for count in [2_usize, 3, 8, 30, 150] {
        let mut http = scene.http()?;
        let requests: Vec<_> =
            (0..count).map(|n| Request::get(&format!("/bytes/{}", n * 100)).maybe_key(key)).collect();
        http.send(&requests.iter().flat_map(Request::wire).collect::<Vec<_>>())?;
        for (n, request) in requests.iter().enumerate() {
            match http.response(request) {
                Ok(response) => response.verify_bytes(Scene::owner(key), n * 100)?,
                Err(HttpError::Reset) if key.is_some() => break,
                Err(error) => {
                    return Err(error).with_context(|| format!("answer {n} of {count}\n{}", agent.explain()));
                }
            }
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn pipelined_requests_of_several_owners_are_kept_apart_or_reset() -> Result<()> {
    let Some(scene) = Scene::open("pipelined-mixed", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let orders: [&[Option<&str>]; 5] = [
        &[None, Some(KEY)],
        &[Some(KEY), None],
        &[Some(KEY), Some(OTHER_KEY), Some(KEY)],
        &[None, None, Some(KEY), None],
        &[Some(KEY), Some(KEY), None, None, Some(OTHER_KEY)],
    ];
    for order in orders {
        for parts in [usize::MAX, 100, 1000] {
            let mut http = scene.http()?;
            let requests: Vec<_> = order.iter().map(|&key| Request::get("/bytes/3000").maybe_key(key)).collect();
            let wire: Vec<u8> = requests.iter().flat_map(Request::wire).collect();
            if http.send_in_parts(&wire, parts.min(wire.len())).is_err() {
                continue;
            }
            for (request, &key) in requests.iter().zip(order) {
                match http.response(request) {
                    Ok(response) => response.verify_bytes(Scene::owner(key), 3000)?,
                    Err(HttpError::Reset) => break,
                    Err(error) => return Err(error).with_context(|| format!("{order:?}\n{}", agent.explain())),
                }
            }
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

/// One segment, in which each head is for another owner than the one before it: the agent cuts it, and holds the rest.
#[test]
fn many_pipelined_requests_of_alternating_owners_are_all_answered() -> Result<()> {
    let Some(scene) = Scene::open("pipelined-many", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for via in Via::ALL {
        for order in [&[None, Some(KEY)][..], &[Some(KEY), Some(OTHER_KEY), None], &[Some(KEY), Some(OTHER_KEY)]] {
            let mut http = scene.client.http(scene.address(via))?;
            http.patience(Duration::from_secs(8))?;
            let keys: Vec<_> = order.iter().copied().cycle().take(16).collect();
            let requests: Vec<_> =
                keys.iter().zip(1..).map(|(&key, n)| Request::get(&format!("/bytes/{n}")).maybe_key(key)).collect();
            http.send(&requests.iter().flat_map(Request::wire).collect::<Vec<_>>())?;
            for ((request, &key), n) in requests.iter().zip(&keys).zip(1..) {
                let context = || format!("answer {n}, {via:?}, {order:?}\n{}", agent.explain());
                http.response(request).with_context(context)?.verify_bytes(Scene::owner(key), n)?;
            }
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn behind_an_answer_that_nobody_has_asked_for_the_owner_never_changes(
    #[values(None, Some(KEY))] before: Option<&str>,
    #[values(0, 30)] pause: u64,
) -> Result<()> {
    let Some(scene) = Scene::open("unasked", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    http.exchange(&Request::get(&format!("/twice/{pause}")).maybe_key(before))?;
    std::thread::sleep(Duration::from_millis(pause * 3));
    // The client takes the second answer for this request's: it is not to be another side's.
    let after = Request::get("/after").maybe_key(if before.is_some() { None } else { Some(KEY) });
    http.patience(Duration::from_secs(8))?;
    let _ = http.send(&after.wire());
    loop {
        match http.response(&after) {
            Ok(response) => ensure!(response.served_by() == Scene::owner(before)),
            Err(HttpError::Reset | HttpError::Closed(0)) => break,
            Err(error) => bail!("{error}\n{}", agent.explain()),
        }
    }
    for origin in [&scene.base, &scene.fork, &scene.other] {
        ensure!(origin.journal().matching(|seen| seen.target == "/after").is_empty());
    }
    ensure!(agent.counter("reset_sticky")? > 0, "it was not known at once: {:?}", agent.counters()?);
    agent.no_errors()
}

/// The same while another request is under way: its answer is not lost to the next owner's.
#[rstest]
fn an_answer_that_nobody_has_asked_for_is_not_forgotten(#[values(0, 30)] pause: u64) -> Result<()> {
    let Some(scene) = Scene::open("unasked-slow", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let twice = Request::get(&format!("/twice/{pause}"));
    http.exchange(&twice)?;
    // A client that drops what it has not asked for.
    http.response(&twice)?;
    let slow = Request::get("/slow/500");
    http.send(&slow.wire())?;
    std::thread::sleep(Duration::from_millis(150));
    let after = Request::get("/after").key(KEY);
    http.send(&after.wire())?;
    let outcome = http.response(&slow);
    ensure!(
        outcome.as_ref().map_or_else(|error| matches!(error, HttpError::Reset), |answer| answer.served_by() == "base"),
        "an unkeyed request's answer: {outcome:?}\n{}",
        agent.explain()
    );
    ensure!(
        scene.fork.journal().count() == 0 && scene.base.journal().matching(|seen| seen.target == "/after").is_empty()
    );
    ensure!(agent.counter("reset_sticky")? > 0, "{:?}", agent.counters()?);
    agent.no_errors()
}
