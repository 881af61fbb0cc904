//! Heads as TCP delivers them: long, cut anywhere, byte by byte.

use anyhow::{Context, Result, bail, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, HttpError, Request, Scene,
    digest::{Dice, body},
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, Via},
};

/// The longest head that is read.
const LONGEST: usize = 16 << 10;

/// A head of exactly `length` bytes with its key at the very end.
fn long(length: usize, key: Option<&str>) -> Request {
    let empty = Request::get("/bytes/3000").header("Cookie", "").maybe_key(key).head_bytes().len();
    Request::get("/bytes/3000").header("Cookie", &"c".repeat(length - empty)).maybe_key(key)
}

/// Sends the request cut in the given places, each part acknowledged before the next if `settle`, and checks the answer.
fn cut(http: &mut Http, request: &Request, cuts: &[usize], settle: bool, owner: &str) -> Result<()> {
    let wire = request.wire();
    let mut from = 0;
    for &to in cuts.iter().chain([&wire.len()]) {
        http.send(&wire[from..to])?;
        if settle {
            http.settle()?;
        }
        from = to;
    }
    http.response(request)?.verify_bytes(owner, 3000)
}

/// No server but the owner was given a head to its end; [`Scene::isolated`] says the rest.
fn check(scene: &Scene, agent: &Agent) -> Result<()> {
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn a_key_at_the_end_of_a_long_head_is_found(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("long", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut reused = scene.client.http(scene.address(via))?;
    for length in [1400, 1448, 1460, 7000, 7240, 7300, 8192, 14_480, 16_000, LONGEST - 1, LONGEST] {
        for key in [None, Some(KEY), Some(OTHER_KEY)] {
            let request = long(length, key);
            ensure!(request.wire().len() == length);
            for (http, which) in [(&mut scene.client.http(scene.address(via))?, "fresh"), (&mut reused, "reused")] {
                let context = || format!("{length} bytes, {key:?}, {which}\n{}", agent.explain());
                let response = http.exchange(&request).with_context(context)?;
                response.verify_bytes(Scene::owner(key), 3000).with_context(context)?;
            }
        }
    }
    check(&scene, &agent)
}

#[rstest]
fn a_head_that_is_too_long_never_reaches_the_wrong_side(#[values(17_000, 40_000)] length: usize) -> Result<()> {
    let Some(scene) = Scene::open("too-long", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for before in [None, Some(None), Some(Some(KEY))] {
        for key in [None, Some(KEY)] {
            let mut http = scene.http()?;
            if let Some(key) = before {
                http.exchange(&Request::get("/").maybe_key(key))?;
            }
            match http.exchange(&long(length, key)) {
                Ok(response) => response.verify_bytes(Scene::owner(key), 3000)?,
                Err(HttpError::Reset) => {}
                Err(error) => return Err(error).with_context(|| agent.explain()),
            }
        }
    }
    check(&scene, &agent)
}

#[rstest]
fn a_head_cut_at_every_byte_reaches_its_owner_on_a_fresh_connection(
    #[values(None, Some(KEY))] key: Option<&str>,
    #[values(false, true)] settle: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("cut-fresh", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let request = Request::get("/bytes/3000").maybe_key(key).header("x-last", "z");
    for at in 1..request.wire().len() {
        let mut http = scene.http()?;
        cut(&mut http, &request, &[at], settle, Scene::owner(key))
            .with_context(|| format!("cut at byte {at}\n{}", agent.explain()))?;
    }
    check(&scene, &agent)
}

#[rstest]
fn a_head_cut_at_every_byte_reaches_its_owner_on_a_reused_connection(
    #[values(false, true)] settle: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("cut-reused", RENO)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let length = Request::get("/bytes/3000").key(KEY).wire().len();
    let mut dice = Dice::new(5);
    for at in (1..length).step_by(2) {
        let key = *dice.pick(&[None, Some(KEY), Some(OTHER_KEY)]);
        let request = Request::get("/bytes/3000").maybe_key(key);
        let at = at.min(request.wire().len() - 1);
        cut(&mut http, &request, &[at], settle, Scene::owner(key))
            .with_context(|| format!("{key:?} cut at byte {at}\n{}", agent.explain()))?;
    }
    check(&scene, &agent)
}

#[rstest]
fn a_head_sent_byte_by_byte_reaches_its_owner(
    #[values(None, Some(KEY))] key: Option<&str>,
    #[values(false, true)] settle: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("bytewise", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let request = Request::get("/bytes/3000").maybe_key(key);
    let everywhere: Vec<_> = (1..request.wire().len()).collect();
    let mut reused = scene.http()?;
    for round in 0..4 {
        for (http, which) in [(&mut scene.http()?, "fresh"), (&mut reused, "reused")] {
            cut(http, &request, &everywhere, settle, Scene::owner(key))
                .with_context(|| format!("round {round}, {which}\n{}", agent.explain()))?;
        }
    }
    check(&scene, &agent)
}

#[rstest]
fn long_heads_with_bodies_cut_at_random_reach_their_owner(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("random-cuts", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut dice = Dice::new(11);
    for round in 0..25 {
        let mut http = scene.http()?;
        for exchange in 0..6 {
            let key = *dice.pick(&[None, Some(KEY), Some(OTHER_KEY)]);
            let upload = body("up", dice.below(20_000));
            let request = Request::post("/echo", upload.clone()).pad_to(600 + dice.below(12_000)).maybe_key(key);
            let wire = request.wire();
            let mut cuts: Vec<_> = (0..dice.below(6)).map(|_| 1 + dice.below(wire.len() - 1)).collect();
            cuts.sort_unstable();
            let context = || format!("round {round}, exchange {exchange}, {key:?}, {cuts:?}\n{}", agent.explain());
            http.send_cut(&wire, &cuts).with_context(context)?;
            http.response(&request)
                .with_context(context)?
                .verify_echo(Scene::owner(key), &upload)
                .with_context(context)?;
        }
    }
    check(&scene, &agent)
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_head_had_nothing_executed() -> Result<()> {
    let Some(scene) = Scene::open("leaves", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let wire = Request::get("/never").key(KEY).wire();
    for at in (10..wire.len()).step_by(20) {
        let mut http = scene.http()?;
        http.send(&wire[..at])?;
        http.settle()?;
        http.finish()?;
    }
    scene.http()?.exchange(&Request::get("/"))?;
    for origin in [&scene.base, &scene.fork, &scene.other] {
        ensure!(origin.journal().matching(|seen| seen.target == "/never").is_empty(), "{}", origin.name());
    }
    check(&scene, &agent)
}

/// A request with `length` bytes of headers of no interest: one cookie, or lines of some hundred bytes.
fn filled(request: Request, length: usize, cookie: bool) -> Request {
    if cookie {
        return request.header("Cookie", &"c".repeat(length));
    }
    (0..length.div_ceil(400)).fold(request, |r, n| r.header(&format!("X-Filler-{n}"), &"f".repeat(400)))
}

/// An unkeyed head beyond the window reaches the baseline whole, and what stands behind it on the connection goes where
/// it belongs.
#[rstest]
fn an_unkeyed_head_beyond_the_window_is_not_touched(
    #[values(20_000, 40_000, 60_000, 100_000)] length: usize,
    #[values(false, true)] cookie: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("beyond", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let upload = body("up", 5000);
    let requests = [
        Request::get("/echo"),
        Request::post("/echo", upload.clone()),
        Request::post("/echo", upload.clone()).chunked(700),
    ];
    for (n, part) in [usize::MAX, 1000, 7240].into_iter().enumerate() {
        let mut http = scene.http()?;
        let context = || format!("in parts of {part}\n{}", agent.explain());
        for request in &requests {
            let request = filled(request.clone(), length, cookie);
            http.send_in_parts(&request.wire(), part).with_context(context)?;
            let sent = request.body_bytes().is_empty();
            let expected: &[u8] = if sent { &[] } else { &upload };
            http.response(&request).with_context(context)?.verify_echo("base", expected).with_context(context)?;
            for key in [KEY, OTHER_KEY] {
                let keyed = Request::get("/bytes/3000").key(key);
                http.exchange(&keyed).with_context(context)?.verify_bytes(Scene::owner(Some(key)), 3000)?;
            }
            let unkeyed = Request::get("/bytes/3000");
            http.exchange(&unkeyed).with_context(context)?.verify_bytes("base", 3000)?;
        }
        let whole = scene
            .base
            .journal()
            .matching(|seen| seen.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > length);
        ensure!(whole.len() == requests.len() * (n + 1), "{} of them at the baseline", whole.len());
    }
    ensure!(agent.counter("head_long")? == 9, "{}", agent.explain());
    check(&scene, &agent)
}

/// A key anywhere in a head beyond the window: nobody is given it.
#[rstest]
fn a_keyed_head_beyond_the_window_is_reset(#[values(20_000, 60_000)] length: usize) -> Result<()> {
    let Some(scene) = Scene::open("keyed-beyond", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let carrier = "v".repeat(17_000);
    for before in [None, Some(None), Some(Some(KEY))] {
        for part in [usize::MAX, 1000, 7240] {
            let requests = [
                filled(Request::get("/never").key(KEY), length, false),
                filled(Request::get("/never"), length, false).key(KEY),
                filled(Request::get("/never").key(KEY), length, true),
                filled(Request::get("/never"), length, true).key(KEY),
                Request::get("/never").header("baggage", &format!("a={carrier},sidetrack={KEY}")),
            ];
            for request in requests {
                let mut http = scene.http()?;
                if let Some(key) = before {
                    http.exchange(&Request::get("/").maybe_key(key))?;
                }
                let sent = http.send_in_parts(&request.wire(), part);
                let answer = sent.and_then(|()| http.response(&request));
                ensure!(matches!(answer, Err(HttpError::Reset)), "{before:?}, {part}: {answer:?}\n{}", agent.explain());
            }
        }
    }
    for origin in [&scene.base, &scene.fork, &scene.other] {
        ensure!(origin.journal().matching(|seen| seen.target == "/never").is_empty(), "{}", origin.name());
    }
    ensure!(agent.counter("reset_head_too_long")? >= 45, "{}", agent.explain());
    check(&scene, &agent)
}

/// More heads beyond the window at one time than are followed, and one beyond all bounds: each is the baseline's, or reset.
#[test]
fn heads_beyond_the_window_are_bounded_in_number_and_length() -> Result<()> {
    let Some(scene) = Scene::open("bounded", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let request = filled(Request::get("/echo"), 20_000, false);
    let wire = request.wire();
    let (begun, rest) = wire.split_at(wire.len() - 300);
    let mut clients = (0..400).map(|_| scene.http()).collect::<Result<Vec<_>, _>>()?;
    for (n, http) in clients.iter_mut().enumerate() {
        http.send(begun)?;
        http.settle().with_context(|| format!("client {n}\n{}", agent.explain()))?;
    }
    let (mut served, mut ended) = (0, 0);
    for http in &mut clients {
        match http.send(rest).and_then(|()| http.response(&request)) {
            Ok(answer) => {
                answer.verify_echo("base", &[])?;
                served += 1;
            }
            Err(HttpError::Reset) => ended += 1,
            Err(error) => bail!("{error}\n{}", agent.explain()),
        }
    }
    // 128 are followed; the kernel may let go some of them early (LRU).
    ensure!(served > 0 && ended >= 400 - 128, "{served} served, {ended} reset");
    ensure!(agent.counter("reset_head_too_long")? == ended, "{ended} were reset\n{}", agent.explain());

    for key in [None, Some(KEY)] {
        let mut http = scene.http()?;
        let request = filled(Request::get("/never"), 300_000, false).maybe_key(key);
        let answer = http.send(&request.wire()).and_then(|()| http.response(&request));
        ensure!(matches!(answer, Err(HttpError::Reset)), "{answer:?}");
    }
    for origin in [&scene.base, &scene.fork, &scene.other] {
        ensure!(origin.journal().matching(|seen| seen.target == "/never").is_empty(), "{}", origin.name());
    }
    ensure!(agent.counter("reset_head_too_long")? == ended + 2, "{}", agent.explain());
    check(&scene, &agent)
}
