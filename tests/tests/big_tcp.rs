//! BIG TCP: frames over 64 KiB, which tell their length by a header of their own over IPv6, are read and rewritten as any other.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, HttpError, Request, Scene,
    lab::RENO,
    scene::{FAIL_KEY, KEY, OTHER_KEY, Via},
    wire::Wire,
};

/// The largest packet that has an ordinary IPv6 header.
const ORDINARY: usize = 40 + 65_535;
/// A body that takes several of the large ones.
const BODY: usize = 600_000;

/// Lets every interface of the lab take packets of 128 KiB. Their header counts where a node looks at what it forwards
/// (`skb_gso_network_seglen`), and segments that fill a pod's MTU would not pass.
fn enlarge(scene: &Scene) -> Result<()> {
    let large = "gso_max_size 131072 gro_max_size 131072";
    for pod in [&scene.client, &scene.base_pod, &scene.fork_pod, &scene.other_pod] {
        pod.ip(&format!("link set dev eth0 {large}"))?;
        scene.lab.ip(&format!("link set dev {} mtu 1600 {large}", pod.host_interface()))?;
    }
    Ok(())
}

/// A connection that has sent enough to send large frames from the first byte of a request on.
fn warm(scene: &Scene, via: Via, agent: &Agent) -> Result<Http> {
    let mut http = scene.client.http(scene.address(via))?;
    for _ in 0..10 {
        upload(&mut http, None, agent)?;
    }
    Ok(http)
}

fn upload(http: &mut Http, key: Option<&str>, agent: &Agent) -> Result<()> {
    let body = vec![b'x'; BODY];
    let response = http.exchange(&Request::post("/echo", body.clone()).maybe_key(key));
    response.with_context(|| agent.explain())?.verify_echo(Scene::owner(key), &body)
}

/// Head and body are in one frame, in both directions, on legs that are new and on those that were there.
#[rstest]
fn heads_in_large_frames_go_where_their_keys_lead(#[values(Via::ClusterIp6, Via::Endpoint6)] via: Via) -> Result<()> {
    let Some(scene) = Scene::open("big-tcp", RENO)? else { return Ok(()) };
    enlarge(&scene)?;
    let agent = scene.agent()?;
    let mut http = warm(&scene, via, &agent)?;
    for round in 0..5 {
        for key in [Some(KEY), None, Some(OTHER_KEY)] {
            let wire = Wire::open(&scene.client)?;
            upload(&mut http, key, &agent)?;
            let longest = wire.longest()?;
            // A new leg's first request comes again, in smaller packets at first.
            ensure!(round == 0 || longest > ORDINARY, "{longest} bytes are no large packet");
            http.exchange(&Request::get("/bytes/600000").maybe_key(key))?.verify_bytes(Scene::owner(key), BODY)?;
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_client_is_reset_for_what_it_sends_in_a_large_frame() -> Result<()> {
    let Some(scene) = Scene::open("big-reset", RENO)? else { return Ok(()) };
    enlarge(&scene)?;
    let agent = scene.agent()?;
    let mut http = warm(&scene, Via::ClusterIp6, &agent)?;
    let refused = http.exchange(&Request::post("/echo", vec![b'x'; BODY]).key(FAIL_KEY));
    ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}\n{}", agent.explain());
    ensure!(agent.counter("reset_route_fail")? == 1, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}
