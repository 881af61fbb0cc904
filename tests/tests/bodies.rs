//! Bodies of any size and framing: never read as heads, never cut, never mixed.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, Request, Response, Scene,
    digest::{Dice, body},
    lab::{BBR, RENO},
    origin::PIECE,
    scene::{KEY, OTHER_KEY, Via},
};
use std::time::{Duration, Instant};

/// Sizes around segments, frames and buffers, up to 50 MB.
const SIZES: [usize; 16] =
    [0, 1, 2, 1300, 1447, 1448, 1449, 2896, 7240, 16_383, 16_384, 65_535, 65_536, 65_537, 1_000_003, 50_000_000];

/// A request as it would stand in a body: with a key, and well-formed to the last byte.
fn bait(key: &str) -> Vec<u8> {
    Request::get("/bait").key(key).wire()
}

/// An exchange whose failure shows what the agent saw.
fn exchange(http: &mut Http, request: &Request, agent: &Agent) -> Result<Response> {
    http.exchange(request).with_context(|| agent.explain())
}

#[rstest]
fn posts_of_every_size_arrive_whole(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("posts", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut reused = scene.client.http(scene.address(via))?;
    for size in SIZES {
        let upload = body("up", size);
        for key in [Some(KEY), None] {
            let request = Request::post("/echo", upload.clone()).maybe_key(key);
            for http in [&mut scene.client.http(scene.address(via))?, &mut reused] {
                let response = exchange(http, &request, &agent).with_context(|| format!("{size} bytes, {key:?}"))?;
                response.verify_echo(Scene::owner(key), &upload).with_context(|| format!("{size} bytes, {key:?}"))?;
            }
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

/// A router on the way to the fork, here the node, takes smaller packets than both ends have said. It tells so by ICMP, of a leg of
/// which the client's kernel knows nothing.
#[rstest]
fn a_fork_behind_a_smaller_path_gets_every_body(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("path", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut hot = scene.client.http(scene.address(via))?;
    for key in [None, Some(KEY)] {
        exchange(&mut hot, &Request::get("/").maybe_key(key), &agent)?;
    }
    scene.lab.ip(&format!("link set {} mtu 1300", scene.fork_pod.host_interface()))?;
    let upload = body("up", 300_000);
    let (mut fresh, mut plain) = (scene.client.http(scene.address(via))?, scene.client.http(scene.address(via))?);
    for (http, key) in [(&mut hot, Some(KEY)), (&mut fresh, Some(KEY)), (&mut plain, None)] {
        // The client's kernel remembers the path of the one before.
        scene.client.ip("route flush cache")?;
        scene.client.ip("-6 route flush cache")?;
        let before = agent.counter("too_big")?;
        let began = Instant::now();
        let response = exchange(http, &Request::post("/echo", upload.clone()).maybe_key(key), &agent)?;
        response.verify_echo(Scene::owner(key), &upload)?;
        ensure!(began.elapsed() < Duration::from_secs(2), "it took {:?}\n{}", began.elapsed(), agent.explain());
        ensure!((agent.counter("too_big")? > before) == key.is_some(), "{key:?}\n{}", agent.explain());
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn answers_of_every_size_arrive_whole(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("answers", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    for size in SIZES {
        for path in [format!("/bytes/{size}"), format!("/chunked/{size}/9")] {
            for key in [Some(KEY), None, Some(OTHER_KEY)] {
                let response = exchange(&mut http, &Request::get(&path).maybe_key(key), &agent);
                let response = response.with_context(|| format!("{path} {key:?}"))?;
                response.verify_bytes(Scene::owner(key), size).with_context(|| format!("{path} {key:?}"))?;
            }
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn answers_without_a_body_end_where_they_should(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("bodyless", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let requests = [
        Request::head("/bytes/5000"),
        Request::head("/chunked/5000/3"),
        Request::get("/status/204"),
        Request::get("/status/304"),
        Request::get("/hints"),
        Request::get("/bytes/0"),
        Request::get("/chunked/0/1"),
    ];
    let keys = [None, Some(KEY), Some(OTHER_KEY)];
    for (n, (request, key)) in requests.iter().flat_map(|r| keys.map(|key| (r, key))).cycle().take(84).enumerate() {
        let response = exchange(&mut http, &request.clone().maybe_key(key), &agent);
        let response = response.with_context(|| format!("exchange {n}: {request:?} {key:?}"))?;
        ensure!(response.served_by() == Scene::owner(key), "{request:?} {key:?}: {response:?}");
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn chunked_bodies_go_both_ways_whatever_their_chunks(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("chunked", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let mut dice = Dice::new(1);
    for round in 0..60 {
        let key = *dice.pick(&[None, Some(KEY), Some(OTHER_KEY)]);
        let upload = body("up", *dice.pick(&[0, 1, 15, 16, 17, 1448, 20_000]));
        let request =
            Request::post("/echo", upload.clone()).chunked(*dice.pick(&[1, 7, 16, 1000, 4096])).maybe_key(key);
        let wire = request.wire();
        http.quiet()?;
        match dice.below(3) {
            0 => http.send(&wire)?,
            1 => http.send_in_parts(&wire, 97)?,
            // Chunk sizes and line ends are cut in the middle.
            _ => {
                let head = request.head_bytes().len();
                http.send(&wire[..head])?;
                http.send_in_parts(&wire[head..wire.len().min(head + 200)], 1)?;
                http.send(&wire[wire.len().min(head + 200)..])?;
            }
        }
        let response = http.response(&request).with_context(|| format!("round {round}\n{}", agent.explain()))?;
        response.verify_echo(Scene::owner(key), &upload).with_context(|| format!("round {round}"))?;
        let length = *dice.pick(&[0, 5, 3000, 80_000]);
        let request = Request::get(&format!("/chunked/{length}/{}", 1 + dice.below(20))).maybe_key(key);
        exchange(&mut http, &request, &agent)?.verify_bytes(Scene::owner(key), length)?;
    }
    scene.isolated()?;
    agent.no_errors()
}

/// What comes behind a held head while the agent sends that again must not overtake what it still has.
#[rstest]
fn chunked_uploads_behind_a_cold_head_leave_no_gap(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("chunked-cold", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let upload = body("up", 200_000);
    for round in 0..100 {
        let request = Request::post("/echo", upload.clone()).chunked(1000 + round).key(KEY);
        let mut http = scene.http()?;
        exchange(&mut http, &request, &agent)?
            .verify_echo("fork", &upload)
            .with_context(|| format!("round {round}"))?;
    }
    ensure!(agent.counter("gap")? == 0, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn chunk_extensions_and_trailers_are_no_heads(#[values(None, Some(KEY))] key: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("trailers", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let request = Request::post("/echo", Vec::new()).chunked(1).maybe_key(key);
    let body = "5;sidetrack=pr-12\r\nhello\r\n00\r\nbaggage: sidetrack=pr-12\r\nx-sidetrack-key: pr-12\r\n\r\n";
    for _ in 0..3 {
        http.send(&[&request.head_bytes(), body.as_bytes()].concat())?;
        let response = http.response(&request).with_context(|| agent.explain())?;
        response.verify_echo(Scene::owner(key), b"hello")?;
        exchange(&mut http, &Request::get("/bytes/10"), &agent)?.verify_bytes("base", 10)?;
    }
    scene.isolated()
}

#[rstest]
fn heads_inside_bodies_are_bodies(
    #[values(None, Some(KEY))] key: Option<&str>,
    #[values(false, true)] chunked: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("bait", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let upload = bait(OTHER_KEY).repeat(200);
    let request = Request::post("/echo", upload.clone()).maybe_key(key);
    let request = if chunked { request.chunked(bait(OTHER_KEY).len()) } else { request };
    for settle in [false, true] {
        http.send(&request.head_bytes())?;
        // Each segment begins with what looks like a head.
        let wire = request.body_bytes();
        for part in wire.chunks(wire.len().div_ceil(200)) {
            http.send(part)?;
            if settle {
                http.settle()?;
            }
        }
        let response = http.response(&request).with_context(|| agent.explain())?;
        response.verify_echo(Scene::owner(key), &upload)?;
    }
    exchange(&mut http, &Request::get("/").key(OTHER_KEY), &agent)?;
    ensure!(scene.other.journal().count() == 1, "{:?}", scene.other.journal().requests());
    scene.isolated()
}

/// In 32 bits the sequence numbers of such a body come round, and its bytes would be read as heads.
#[rstest]
#[case::unkeyed(None, KEY)]
#[case::keyed(Some(KEY), OTHER_KEY)]
fn a_body_of_five_gibibytes_is_a_body_to_its_end(#[case] key: Option<&str>, #[case] inside: &str) -> Result<()> {
    const LENGTH: u64 = 5 << 30;
    let Some(scene) = Scene::open("five-gibibytes", RENO)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    exchange(&mut http, &Request::get("/"), &agent)?;
    let request = Request::new("PUT", "/echo").maybe_key(key).announce(LENGTH);
    http.send(&request.head_bytes())?;
    let bait = bait(inside);
    let sent = http.send_made(LENGTH, |_, piece| piece[..bait.len()].copy_from_slice(&bait));
    let digest = sent.with_context(|| agent.explain())?;
    let response = http.response(&request).with_context(|| agent.explain())?;
    response.verify_upload(Scene::owner(key), LENGTH, &digest.hex())?;
    for key in [Some(OTHER_KEY), None, Some(KEY)] {
        exchange(&mut http, &Request::get("/bytes/3000").maybe_key(key), &agent)?
            .verify_bytes(Scene::owner(key), 3000)?;
    }
    ensure!(scene.other.journal().count() == 1, "{:?}", scene.other.journal().requests());
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn an_answer_before_the_body_leaves_the_stream_whole(#[values(None, Some(KEY))] key: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("early", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for split in [false, true] {
        let mut http = scene.http()?;
        let request = Request::post("/early", body("up", 300_000)).maybe_key(key);
        if split {
            http.send(&request.head_bytes())?;
            ensure!(http.response(&request)?.served_by() == Scene::owner(key));
            http.send(&request.body_bytes())?;
        } else {
            http.send(&request.wire())?;
            ensure!(http.response(&request)?.served_by() == Scene::owner(key));
        }
        let next = exchange(&mut http, &Request::get("/bytes/3000").key(OTHER_KEY), &agent)?;
        next.verify_bytes("other", 3000)?;
    }
    scene.isolated()
}

#[rstest]
fn a_dripping_answer_is_never_mixed_with_the_next_one(
    #[values("drip", "dripchunked")] kind: &str,
    #[values(false, true)] one_segment: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("drip", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let keys = [None, Some(KEY), Some(OTHER_KEY)];
    for (first, second) in keys.iter().flat_map(|&a| keys.map(|b| (a, b))) {
        let context = || format!("{first:?} then {second:?}\n{}", agent.explain());
        let mut http = scene.http()?;
        exchange(&mut http, &Request::get("/"), &agent)?;
        let slow = Request::get(&format!("/{kind}/12/25")).maybe_key(first);
        let next = Request::get("/bytes/5000").maybe_key(second);
        if one_segment {
            http.send(&[slow.wire(), next.wire()].concat())?;
        } else {
            http.send(&slow.wire())?;
            http.settle()?;
            http.send(&next.wire())?;
        }
        // The first answer is whole, or a reset comes where it could not be kept apart.
        match http.response(&slow) {
            Ok(response) => response.verify_bytes(Scene::owner(first), 12 * PIECE).with_context(context)?,
            Err(sidetrack_tests::HttpError::Reset) if first != second => continue,
            Err(error) => return Err(error).with_context(context),
        }
        match http.response(&next) {
            Ok(response) => response.verify_bytes(Scene::owner(second), 5000).with_context(context)?,
            Err(sidetrack_tests::HttpError::Reset) if first != second => continue,
            Err(error) => return Err(error).with_context(context),
        }
        exchange(&mut http, &Request::get("/bytes/10").key(KEY), &agent)?.verify_bytes("fork", 10)?;
    }
    scene.isolated()
}

#[rstest]
fn a_long_answer_read_slowly_while_the_next_head_waits(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("slow-reader", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let (first, second) = (Request::get("/bytes/3000000").key(KEY), Request::get("/bytes/5000"));
    http.send(&first.wire())?;
    let head = http.head().with_context(|| agent.explain())?;
    http.send(&second.wire())?;
    let (bytes, _) = http.body(&head, false).with_context(|| agent.explain())?;
    ensure!(bytes == body("fork", 3_000_000));
    match http.response(&second) {
        Ok(response) => response.verify_bytes("base", 5000)?,
        Err(sidetrack_tests::HttpError::Reset) => {}
        Err(error) => return Err(error).with_context(|| agent.explain()),
    }
    scene.isolated()
}

/// Every thirtieth packet between client and servers is lost, after the programs at egress and before those at ingress: selective
/// acknowledgements (SACK) and retransmissions pass a leg in both directions, and no byte is wrong.
#[rstest]
fn a_network_that_loses_packets_changes_nothing(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::Endpoint6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("loss", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for pod in [&scene.client, &scene.base_pod, &scene.fork_pod, &scene.other_pod] {
        // Not 64 KiB at once: a window has many frames, of which one is lost.
        pod.ip("link set dev eth0 gso_max_segs 1")?;
    }
    // The first request makes the leg: what is lost of it is another test's.
    let mut http = scene.client.http(scene.address(via))?;
    http.exchange(&Request::get("/bytes/10").key(KEY))?.verify_bytes("fork", 10)?;
    scene.lab.nft(
        "table inet loss {\nchain forward {\ntype filter hook forward priority 10;\ntcp dport 8080 numgen random mod 30 == 0 drop\n\
         tcp sport 8080 numgen random mod 30 == 0 drop\n}\n}\n",
    )?;
    let size = 1_500_000;
    for round in 0..4 {
        let context = || format!("round {round}\n{}", agent.explain());
        let download = Request::get(&format!("/bytes/{size}")).key(KEY);
        http.exchange(&download).with_context(context)?.verify_bytes("fork", size).with_context(context)?;
        let upload = Request::post("/echo", body("up", size)).key(KEY);
        http.exchange(&upload)
            .with_context(context)?
            .verify_echo("fork", &upload.body_bytes())
            .with_context(context)?;
    }
    for pod in [&scene.client, &scene.fork_pod] {
        let counters = pod.kernel_counters()?;
        let count = |name: &str| counters.get(name).copied().unwrap_or_default();
        ensure!(count("TcpExt:TCPSackRecovery") > 0, "{} has lost nothing: {counters:?}", pod.name());
        let odd = ["Tcp:InCsumErrors", "TcpExt:PAWSEstab", "TcpExt:TCPSACKDiscard", "TcpExt:TCPSACKReneging"];
        let odd: Vec<_> = odd.iter().filter(|name| count(name) != 0).collect();
        ensure!(odd.is_empty(), "{}: {odd:?} in {counters:?}", pod.name());
    }
    scene.isolated()?;
    agent.no_errors()
}
