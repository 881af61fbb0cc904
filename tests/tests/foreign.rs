//! Clients whose addresses are not those of their pod's own interface.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Http, Request, Scene,
    lab::RENO,
    scene::{KEY, Via},
    wait_for,
};
use std::time::Duration;

/// An address that leads to the pod `client`, and is not that of its `eth0`.
const FOREIGN: &str = "10.99.0.200";
const FOREIGN6: &str = "fd00:99::200";

/// Leads the foreign addresses to the pod.
fn routed(scene: &Scene) -> Result<()> {
    let (host, v4, v6) = (scene.client.host_interface(), scene.client.v4(), scene.client.v6());
    scene.lab.ip(&format!("route add {FOREIGN}/32 via {v4} dev {host} onlink"))?;
    scene.lab.ip(&format!("route add {FOREIGN6}/128 via {v6} dev {host} onlink"))
}

#[rstest]
fn a_client_that_binds_an_address_of_another_interface_is_steered(
    #[values(Via::ClusterIp4, Via::ClusterIp6, Via::Endpoint4, Via::Endpoint6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("foreign", RENO)? else { return Ok(()) };
    routed(&scene)?;
    let agent = scene.agent()?;
    // Behind the agent's first look at the pod.
    scene.client.ip(&format!("address add {FOREIGN}/32 dev lo"))?;
    scene.client.ip(&format!("address add {FOREIGN6}/128 dev lo nodad"))?;
    let to = scene.address(via);
    let ask = |port: u16, keys: &[Option<&str>]| {
        let from = format!("{}:{port}", if to.is_ipv4() { FOREIGN.to_owned() } else { format!("[{FOREIGN6}]") });
        let mut http = scene.client.enter(|| Http::dial(from.parse().expect("an address"), to))??;
        for key in keys {
            let response = http.exchange(&Request::get("/").maybe_key(*key)).with_context(|| agent.explain())?;
            ensure!(response.served_by() == Scene::owner(*key), "{key:?}: {}", response.served_by());
            // A sweep or two lie between.
            std::thread::sleep(Duration::from_millis(1200));
        }
        anyhow::Ok(())
    };
    let mut port = 40_000;
    let known = || {
        port += 1;
        ask(port, &[Some(KEY)]).ok()
    };
    wait_for("the address to be known", Duration::from_secs(10), known).with_context(|| agent.explain())?;
    ask(41_000, &[None, Some(KEY), None, Some(KEY)])?;
    scene.isolated()
}

/// Its packets pass the pod's interface, and no socket in the pod is theirs.
#[test]
fn a_client_that_a_pod_forwards_for_is_refused_where_it_has_a_key_and_passes_where_it_has_none() -> Result<()> {
    let Some(scene) = Scene::open("forwarded", RENO)? else { return Ok(()) };
    routed(&scene)?;
    scene.lab.bare_namespace("guest")?;
    for words in [
        "link add guest0 type veth peer name inner netns guest".to_owned(),
        "address add 10.77.0.1/24 dev guest0".to_owned(),
        "link set guest0 up".to_owned(),
        format!("route add {FOREIGN}/32 dev guest0"),
    ] {
        scene.client.ip(&words)?;
    }
    for words in [
        "link set inner up",
        "address add 10.99.0.200/32 dev inner",
        "route add 10.77.0.1/32 dev inner",
        "route add 10.96.0.0/16 via 10.77.0.1",
    ] {
        scene.lab.ip(&format!("-n guest {words}"))?;
    }
    scene.client.sysctl("net/ipv4/ip_forward", "1")?;
    let agent = scene.agent()?;
    let to = format!("http://{}/", scene.service.v4);
    let ask = |words: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "guest", "curl", "-sS", "--max-time", "20"]).args(words);
        scene.lab.run_on_node(command)
    };
    let plain = [to.as_str(), to.as_str(), to.as_str()];
    ask(&plain).with_context(|| agent.explain())?;
    let keyed = format!("baggage: sidetrack={KEY}");
    let error = ask(&[&to, "--next", "-H", &keyed, &to]).expect_err("nobody can make a leg for it");
    ensure!(format!("{error:#}").contains("reset"), "{error:#}");
    ensure!(agent.counter("reset_foreign")? >= 1, "{}", agent.explain());
    ask(&plain).with_context(|| agent.explain())?;
    ensure!(scene.fork.journal().matching(|_| true).is_empty());
    // Held, and over two sweeps: it stays followed.
    let error = ask(&["-H", &keyed, "--max-time", "30", &to]).expect_err("as before");
    ensure!(format!("{error:#}").contains("reset"), "{error:#}");
    scene.isolated()
}
