//! Who drives the proxies: a client of the lab's own, which works off a plan as the programs do.

use super::{
    plan::{CLIENT, KIND, LONGEST, PAUSE, Plan, SENT, USUAL, WORKERS},
    said::{Exchange, Line, Said},
    stage::Stage,
    timeline::now,
};
use crate::{
    digest::{Dice, body},
    http::{Http, Request},
    lab::Pod,
};
use anyhow::{Context as _, Result, anyhow, ensure};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// How an exchange ended that did not go well.
enum Bad {
    Failed(String),
    Wrong(anyhow::Error),
}

/// Starts one in `pod`.
///
/// # Errors
/// When no thread can be started.
pub fn start(pod: &Pod, plan: &Plan) -> Result<JoinHandle<Result<Said>>> {
    let (pod, plan) = (pod.clone(), plan.clone());
    let thread = std::thread::Builder::new().name(format!("visitor-{}", plan.client));
    thread.spawn(move || run(&pod, &plan)).context("cannot start a thread")
}

fn run(pod: &Pod, plan: &Plan) -> Result<Said> {
    let said = Arc::new(Mutex::new(Said::default()));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let said = Arc::clone(&said);
                scope.spawn(move || -> Result<()> {
                    crate::lab::join(pod.netns())?;
                    let mut dice = Dice::new(number as u64);
                    let mut http = None;
                    while !plan.stop.exists() {
                        let line = exchange(pod, plan, &mut http, &mut dice);
                        said.lock().unwrap_or_else(PoisonError::into_inner).add(line);
                        std::thread::sleep(Duration::from_millis(dice.below(PAUSE as usize) as u64));
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker has panicked"))?)
    })?;
    let mut said = Arc::into_inner(said).context("all workers have ended")?.into_inner()?;
    said.add(Line::End);
    Ok(said)
}

fn exchange(pod: &Pod, plan: &Plan, http: &mut Option<Http>, dice: &mut Dice) -> Line {
    let kind = dice.pick(&plan.kinds).clone();
    let bound = if dice.below(50) == 0 { LONGEST } else { USUAL };
    let length = dice.below(bound);
    let bytes = format!("/bytes/{length}");
    let upload = || body(Stage::SERVERS[0], length);
    let (request, what) = match dice.below(100) {
        0..15 => (Request::get(&format!("/chunked/{length}/5")), "GET chunked"),
        15..20 => (Request::head(&bytes), "HEAD"),
        20..30 => (Request::post("/mirror", upload()).chunked(9000), "POST chunked"),
        30..60 => (Request::post("/mirror", upload()), "POST"),
        _ => (Request::get(&bytes), "GET"),
    };
    let sent = now();
    let request = request.header(CLIENT, &plan.client).header(KIND, kind.name).header(SENT, &sent.to_string());
    let request = match &kind.header {
        Some((name, value)) => request.header(name, value),
        None => request,
    };
    let outcome = attempt(pod, *dice.pick(&plan.to), http, &request, kind.servers, what, length);
    let bad = |error: String| Exchange {
        kind: kind.name.to_owned(),
        request: format!("{what} of {length} bytes"),
        error,
        sent,
        ended: now(),
    };
    match outcome {
        Ok(server) => Line::Served { kind: kind.name.to_owned(), server, count: 1 },
        Err(Bad::Failed(error)) => Line::Failed(bad(error)),
        Err(Bad::Wrong(error)) => Line::Wrong(bad(format!("{error:#}"))),
    }
}

/// Over the connection that is there, or a new one; who has answered.
fn attempt(
    pod: &Pod,
    to: SocketAddr,
    connection: &mut Option<Http>,
    request: &Request,
    servers: &[&str],
    what: &str,
    length: usize,
) -> Result<String, Bad> {
    let mut http = match connection.take() {
        Some(http) => http,
        None => Http::dial(SocketAddr::new(pod.ip_like(to), 0), to).map_err(|error| Bad::Failed(error.to_string()))?,
    };
    let response = http.exchange(request).map_err(|error| Bad::Failed(error.to_string()))?;
    if http.is_open() {
        *connection = Some(http);
    }
    // What a proxy says whose own connection was reset.
    if (500..600).contains(&response.status()) {
        return Err(Bad::Failed(format!("status {}", response.status())));
    }
    let server = response.served_by().to_owned();
    let checked = || -> Result<()> {
        ensure!(servers.contains(&server.as_str()), "served by {server:?}");
        match what {
            "HEAD" => ensure!(response.status() == 200 && response.body.is_empty(), "{response:?}"),
            "GET" | "GET chunked" => response.verify_bytes(&server, length)?,
            _ => ensure!(response.status() == 200 && response.body == body(Stage::SERVERS[0], length), "{response:?}"),
        }
        Ok(())
    };
    checked().map_err(Bad::Wrong)?;
    Ok(server)
}
