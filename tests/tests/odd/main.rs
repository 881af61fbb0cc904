//! What is out of scope has a verdict with a name: the baseline where no fork is meant, a reset where one is. Never a
//! hang, never the wrong side.

mod pipelined;

use anyhow::{Context, Result, bail, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, HttpError, Origin, Request, Routes, Scene,
    digest::body,
    lab::BBR,
    scene::{KEY, OTHER_KEY},
    wait_for,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A whole answer of this server.
    Served(String),
    /// A reset, or the end of the connection.
    Ended,
}

/// Sends these bytes and takes what comes. Silence is a failure, and so is a stream that is no HTTP.
fn send(http: &mut Http, bytes: &[u8], request: &Request, agent: &Agent) -> Result<Outcome> {
    http.patience(Duration::from_secs(8))?;
    if http.send(bytes).is_err() {
        return Ok(Outcome::Ended);
    }
    match http.response(request) {
        Ok(response) => Ok(Outcome::Served(response.served_by().to_owned())),
        Err(HttpError::Reset | HttpError::Closed(0)) => Ok(Outcome::Ended),
        Err(error) => bail!("{error}\n{}", agent.explain()),
    }
}

/// Who has served on the connection.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    Baseline,
    Fork,
}

/// Makes a request that carries a header line.
type Make = Box<dyn Fn(&str) -> String>;

/// Oddities: a name, and how to make one out of a header line (with its end, or empty).
fn oddities() -> Vec<(&'static str, Make)> {
    fn get(before: &'static str, version: &'static str, extra: &'static str) -> Make {
        Box::new(move |key| format!("{before}GET /bytes/100 {version}\r\nHost: s\r\n{extra}{key}\r\n"))
    }
    vec![
        ("HTTP/1.0", get("", "HTTP/1.0", "")),
        ("HTTP/1.0 with keep-alive", get("", "HTTP/1.0", "Connection: keep-alive\r\n")),
        ("Connection: close", get("", "HTTP/1.1", "Connection: close\r\n")),
        ("a blank line first", get("\r\n", "HTTP/1.1", "")),
        ("an upgrade that is ignored", get("", "HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n")),
        ("a folded line", get("", "HTTP/1.1", "x-folded: a\r\n b: c\r\n")),
        ("no Host", Box::new(|key| format!("GET /bytes/100 HTTP/1.1\r\n{key}\r\n"))),
        ("an unknown method", Box::new(|key| format!("BREW /bytes/100 HTTP/1.1\r\nHost: s\r\n{key}\r\n"))),
        ("an absolute target", Box::new(|key| format!("GET http://s/bytes/100 HTTP/1.1\r\nHost: s\r\n{key}\r\n"))),
        (
            "two lengths",
            Box::new(|key| {
                format!("POST /echo HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\nContent-Length: 0\r\n{key}\r\n")
            }),
        ),
        (
            "a length and chunks",
            Box::new(|key| {
                let framing = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
                format!("POST /echo HTTP/1.1\r\nHost: s\r\n{framing}{key}\r\n0\r\n\r\n")
            }),
        ),
        (
            "a body with an answer that has no length",
            Box::new(|key| format!("GET /rest/1000 HTTP/1.1\r\nHost: s\r\n{key}\r\n")),
        ),
    ]
}

#[test]
fn odd_requests_without_a_key_are_the_baselines() -> Result<()> {
    let Some(scene) = Scene::open("odd-plain", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for (name, make) in oddities() {
        let outcome = send(&mut scene.http()?, make("").as_bytes(), &Request::get("/"), &agent).context(name)?;
        ensure!(outcome == Outcome::Served("base".into()), "{name}: {outcome:?}\n{}", agent.explain());
    }
    ensure!(scene.fork.journal().count() == 0);
    agent.no_errors()
}

#[test]
fn odd_requests_with_a_key_are_the_forks_or_reset() -> Result<()> {
    let Some(scene) = Scene::open("odd-keyed", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let key = format!("baggage: sidetrack={KEY}\r\n");
    for (name, make) in oddities() {
        for before in [None, Some(None), Some(Some(KEY)), Some(Some(OTHER_KEY))] {
            let mut http = scene.http()?;
            if let Some(key) = before {
                http.exchange(&Request::get("/").maybe_key(key))?;
            }
            let context = || format!("{name} after {before:?}");
            let outcome = send(&mut http, make(&key).as_bytes(), &Request::get("/"), &agent).with_context(context)?;
            let fine = [Outcome::Served("fork".into()), Outcome::Ended].contains(&outcome);
            ensure!(fine, "{name} after {before:?}: {outcome:?}\n{}", agent.explain());
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn odd_requests_on_a_forks_connection_never_stay_with_the_fork() -> Result<()> {
    let Some(scene) = Scene::open("odd-after", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for (name, make) in oddities() {
        let mut http = scene.http()?;
        http.exchange(&Request::get("/").key(KEY))?;
        let outcome = send(&mut http, make("").as_bytes(), &Request::get("/"), &agent).context(name)?;
        let fine = [Outcome::Served("base".into()), Outcome::Ended].contains(&outcome);
        ensure!(fine, "{name}: {outcome:?}\n{}", agent.explain());
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn heads_that_end_early_for_a_lenient_server_do_not_reach_the_baseline(
    #[values("\n\n", "\n\r\n", "\r\n\n")] end: &str,
    #[values(Before::Nothing, Before::Baseline, Before::Fork)] before: Before,
) -> Result<()> {
    let Some(scene) = Scene::open("lenient", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    match before {
        Before::Nothing => {}
        Before::Baseline => drop(http.exchange(&Request::get("/"))?),
        Before::Fork => drop(http.exchange(&Request::get("/").key(KEY))?),
    }
    let line = if end == "\n\n" { "\n" } else { "\r\n" };
    let head = format!("GET /lenient HTTP/1.1{line}Host: s{line}baggage: sidetrack={KEY}{end}");
    http.send(head.as_bytes())?;
    // The fork has it, or the client was reset; the origin itself is strict and waits on.
    let reached = || {
        let fragments = scene.fork.journal().fragments();
        let at_fork = fragments.iter().any(|fragment| fragment.bytes == head.as_bytes());
        (at_fork || http.quiet().is_err()).then_some(())
    };
    wait_for("a verdict", Duration::from_secs(5), reached).with_context(|| agent.explain())?;
    for fragment in scene.base.journal().fragments() {
        let text = String::from_utf8_lossy(&fragment.bytes).into_owned();
        ensure!(!text.ends_with(end), "the baseline got {text:?}");
    }
    scene.isolated()
}

#[rstest]
fn garbage_where_a_head_is_due_is_reset_once_http_was_spoken(
    #[values(None, Some(KEY))] key: Option<&str>,
) -> Result<()> {
    let Some(scene) = Scene::open("garbage", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for garbage in ["\x16\x03\x01\x02\x00\x01", "\0\0\0\0\0\0\0\0", "{\"json\": true}\r\n\r\n", "GET\r\n\r\n"] {
        let mut http = scene.http()?;
        http.exchange(&Request::get("/").maybe_key(key))?;
        let bytes = [garbage.as_bytes(), &Request::get("/smuggled").key(OTHER_KEY).wire()].concat();
        let outcome = send(&mut http, &bytes, &Request::get("/"), &agent).context(garbage)?;
        ensure!(outcome == Outcome::Ended, "{garbage:?}: {outcome:?}");
    }
    for origin in [&scene.base, &scene.fork, &scene.other] {
        ensure!(origin.journal().matching(|seen| seen.target == "/smuggled").is_empty());
    }
    scene.isolated()
}

#[test]
fn what_is_not_http_from_its_first_byte_goes_to_the_baseline_untouched() -> Result<()> {
    let Some(scene) = Scene::open("opaque", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let key = Request::get("/").key(KEY).wire();
    for start in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"SSH-2.0-x\r\n", b"\0\0\0\x08", b"*1\r\n$4\r\nPING\r\n"] {
        scene.base.journal().clear();
        let mut http = scene.http()?;
        // A head inside such a stream is none: an origin that is no HTTP server would take it as data.
        let bytes = [start, &key[..key.len() - 4], &body("opaque", 30_000)].concat();
        http.send(&bytes[..start.len()])?;
        http.settle()?;
        http.send(&bytes[start.len()..])?;
        let arrived = || {
            let fragments = scene.base.journal().fragments();
            fragments.iter().any(|fragment| fragment.bytes == bytes).then_some(())
        };
        wait_for("all bytes at the baseline", Duration::from_secs(5), arrived).with_context(|| agent.explain())?;
    }
    ensure!(scene.fork.journal().connections() == 0);
    agent.no_errors()
}

#[test]
fn http2_with_prior_knowledge_goes_to_the_baseline() -> Result<()> {
    let Some(scene) = Scene::open("http2", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    http.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    // The lab's origin speaks no HTTP/2 and says so.
    ensure!(http.response(&Request::get("/"))?.status() == 400);
    ensure!(scene.base.journal().connections() == 1 && scene.fork.journal().connections() == 0);
    agent.no_errors()
}

#[rstest]
fn an_expected_100_comes_from_the_owner(#[values(None, Some(KEY))] key: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("expect", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let upload = body("up", 5000);
    let request = Request::post("/echo", upload.clone()).maybe_key(key).header("Expect", "100-continue");
    for before in [None, Some(None), Some(Some(KEY))] {
        let mut http = scene.http()?;
        if let Some(key) = before {
            http.exchange(&Request::get("/").maybe_key(key))?;
        }
        http.send(&request.head_bytes())?;
        // With a fork in play a reset is a verdict, too; without one there is none but the baseline's answer.
        let mine = key.is_none() && before != Some(Some(KEY));
        match http.head() {
            Ok(head) => ensure!(head.status == 100),
            Err(HttpError::Reset) if !mine => continue,
            Err(error) => return Err(error).with_context(|| agent.explain()),
        }
        http.send(&request.body_bytes())?;
        http.response(&request).with_context(|| agent.explain())?.verify_echo(Scene::owner(key), &upload)?;
        match http.exchange(&Request::get("/bytes/10").key(OTHER_KEY)) {
            Ok(response) => response.verify_bytes("other", 10)?,
            Err(HttpError::Reset) => {}
            Err(error) => return Err(error).with_context(|| agent.explain()),
        }
    }
    scene.isolated()
}

#[rstest]
fn a_refused_expectation_never_lets_the_body_be_read_as_a_head(
    #[values(None, Some(KEY))] key: Option<&str>,
) -> Result<()> {
    let Some(scene) = Scene::open("refused-expect", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let bait = Request::get("/smuggled").key(OTHER_KEY).wire();
    let request = Request::post("/refuse", bait.clone()).maybe_key(key).header("Expect", "100-continue");
    let mut http = scene.http()?;
    http.send(&request.head_bytes())?;
    match http.response(&request) {
        Ok(response) => ensure!(response.status() == 417 && response.served_by() == Scene::owner(key)),
        Err(HttpError::Reset) if key.is_some() => return scene.isolated(),
        Err(error) => return Err(error).with_context(|| agent.explain()),
    }
    // RFC 9110 section 10.1.1: the client may send the body or not. Nobody knows which this is.
    let outcome = send(&mut http, &bait, &Request::get("/"), &agent)?;
    let fine = [Outcome::Served(Scene::owner(key).into()), Outcome::Ended];
    ensure!(fine.contains(&outcome), "{outcome:?}");
    ensure!(scene.other.journal().count() == 0, "a body was taken for a request");
    Ok(())
}

#[rstest]
fn a_connect_is_the_baselines_or_reset(#[values(None, Some(KEY))] key: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("connect", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let request = Request::new("CONNECT", "s:80").maybe_key(key);
    let outcome = send(&mut scene.http()?, &request.wire(), &request, &agent)?;
    let fine = if key.is_some() { Outcome::Ended } else { Outcome::Served("base".into()) };
    ensure!(outcome == fine, "{outcome:?}");
    scene.isolated()
}

#[test]
fn every_verdict_is_counted() -> Result<()> {
    let Some(scene) = Scene::open("counted", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    for key in [None, Some(KEY), None, Some(KEY), Some("nobodys")] {
        http.exchange(&Request::get("/").maybe_key(key))?;
    }
    let counters = agent.counters()?;
    for (name, least) in
        [("tracked", 1), ("head_keyed", 2), ("head_baseline", 2), ("splice_cold", 1), ("splice_hot", 2)]
    {
        ensure!(counters.get(name).is_some_and(|&count| count >= least), "{name} of {counters:?}");
    }
    ensure!(counters.contains_key("key_unrouted"), "{counters:?}");
    agent.no_errors()
}

/// Nobody knows where the next head begins, and without a key it is nobody's business.
#[rstest]
#[case::length_and_coding("Content-Length: 15\r\nTransfer-Encoding: identity")]
#[case::white_space("Content-Length : 15")]
#[case::folded("Content-Length:\r\n 15")]
fn a_first_framing_that_is_not_read_leaves_its_connection_alone(#[case] framing: &str) -> Result<()> {
    let Some(scene) = Scene::open("framing", BBR)? else { return Ok(()) };
    let listener = scene.base_pod.listen(9001)?;
    let at = scene.base_pod.v4_port(9001);
    let routes = Routes::new().addresses("shop/framing", &[at]).fork(KEY, &Scene::endpoints(&scene.fork_pod));
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(at)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    for part in [head.as_bytes(), b"5\r\nhello\r\n0\r\n\r\n", &Request::get("/next").wire()] {
        http.send(part)?;
        let mut got = vec![0; part.len()];
        server.read_exact(&mut got).with_context(|| agent.explain())?;
        ensure!(got == part);
    }
    ensure!(agent.counter("opaque_framing")? == 1, "{}", agent.explain());
    // With a key it is somebody's.
    let mut keyed = scene.client.http(at)?;
    keyed.send(format!("POST / HTTP/1.1\r\nx-sidetrack-key: {KEY}\r\n{framing}\r\n\r\n").as_bytes())?;
    ensure!(matches!(keyed.head(), Err(HttpError::Reset)), "{}", agent.explain());
    ensure!(agent.counter("reset_head_unreadable")? == 1, "{}", agent.explain());
    agent.no_errors()
}

/// Connects with the request in the SYN (TCP Fast Open), where the client has a cookie of the server's.
fn fast_open(scene: &Scene, to: SocketAddr, request: &Request) -> Result<Http> {
    let (wire, pod) = (request.wire(), &scene.client);
    let stream = pod.enter(|| -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let sent = socket.send_to_with_flags(&wire, &to.into(), libc::MSG_FASTOPEN)?;
        assert_eq!(sent, wire.len(), "a request fits");
        Ok(socket.into())
    })??;
    Ok(Http::over(stream)?)
}

#[test]
fn fast_open_does_no_harm_whether_its_service_is_forked_or_not() -> Result<()> {
    let Some(scene) = Scene::open("fast-open", BBR)? else { return Ok(()) };
    for pod in [&scene.client, &scene.base_pod] {
        // As client, as server, and as server for those that do not ask for it.
        pod.sysctl("net/ipv4/tcp_fastopen", "1027")?;
    }
    let _base = Origin::start(&scene.base_pod, "base", 9100)?;
    let at = scene.base_pod.v4_port(9100);
    let request = Request::get("/bytes/100");
    let served = |agent: Option<&Agent>, last: &Request, by: &str| -> Result<()> {
        for _ in 0..3 {
            let mut http = fast_open(&scene, at, &request)?;
            http.patience(Duration::from_secs(8))?;
            let why = || agent.map_or_else(String::new, Agent::explain);
            http.response(&request).with_context(why)?.verify_bytes("base", 100)?;
            http.exchange(&request).with_context(why)?.verify_bytes("base", 100)?;
            http.exchange(last).with_context(why)?.verify_bytes(by, 100)?;
        }
        Ok(())
    };
    served(None, &request, "base")?;
    let unforked = Routes::new().addresses("shop/fast", &[at]);
    let agent = Agent::start(&scene.lab, &unforked)?;
    agent.wait_attached(["client"])?;
    let keyed = Request::get("/bytes/100").key(KEY);
    served(Some(&agent), &keyed, "base")?;
    ensure!(agent.counter("opaque_fast_open")? > 0, "{}", agent.explain());
    agent.set_routes(&unforked.fork(KEY, &Scene::endpoints(&scene.fork_pod)))?;
    served(Some(&agent), &keyed, "fork")?;
    agent.no_errors()
}
