//! Programs of others on a pod's interface still see its packets.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Request, Scene,
    gate::{self, Need},
    lab::BBR,
    probe::{Counters, Hook},
    scene::{KEY, OTHER_KEY},
    wait_for,
};
use std::time::Duration;

/// Exchanges of each kind; each is at least one packet either way.
const EXCHANGES: u64 = 20;

/// Runs exchanges with every owner and fails unless both counters grew with each of them.
fn seen(scene: &Scene, counters: &Counters, agent: &Agent) -> Result<()> {
    let mut http = scene.http()?;
    for key in [None, Some(KEY), Some(OTHER_KEY), None, Some(KEY)] {
        let (egress, ingress) = (counters.egress()?, counters.ingress()?);
        for _ in 0..EXCHANGES {
            http.exchange(&Request::get("/bytes/100").maybe_key(key))?.verify_bytes(Scene::owner(key), 100)?;
        }
        let (egress, ingress) = (counters.egress()? - egress, counters.ingress()? - ingress);
        ensure!(
            egress >= EXCHANGES && ingress >= EXCHANGES,
            "{key:?}: {egress} packets out and {ingress} in, for {EXCHANGES} exchanges\n{}",
            agent.explain()
        );
    }
    Ok(())
}

/// What attaching by this hook needs.
fn needs(hook: Hook) -> &'static [Need] {
    match hook {
        Hook::Tcx => &[Need::Tcx],
        Hook::Clsact => &[Need::Tc],
    }
}

#[rstest]
fn a_program_that_was_there_before_sees_its_packets(#[values(Hook::Tcx, Hook::Clsact)] hook: Hook) -> Result<()> {
    if !gate::open(needs(hook)) {
        return Ok(());
    }
    let Some(scene) = Scene::open("before", BBR)? else { return Ok(()) };
    let counters = Counters::attach(&scene.client, hook)?;
    let agent = scene.agent()?;
    seen(&scene, &counters, &agent)?;
    agent.no_errors()
}

#[rstest]
fn a_program_that_came_after_sees_its_packets(#[values(Hook::Tcx, Hook::Clsact)] hook: Hook) -> Result<()> {
    if !gate::open(needs(hook)) {
        return Ok(());
    }
    let Some(scene) = Scene::open("after", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let counters = Counters::attach(&scene.client, hook)?;
    seen(&scene, &counters, &agent)?;
    // Programs are swapped in place: the order stays.
    agent.term()?;
    agent.restart()?;
    seen(&scene, &counters, &agent)?;
    agent.no_errors()
}

#[rstest]
fn status_shows_the_neighbours_and_purge_leaves_them(#[values(Hook::Tcx, Hook::Clsact)] hook: Hook) -> Result<()> {
    if !gate::open(needs(hook)) {
        return Ok(());
    }
    let Some(scene) = Scene::open("shown", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let counters = Counters::attach(&scene.client, hook)?;
    let by = if hook == Hook::Tcx { "tcx" } else { "clsact" };
    let status = agent.pod("client").unwrap_or_default();
    for direction in ["egress", "ingress"] {
        let shown = status["hooks"][direction].as_array().cloned().unwrap_or_default();
        ensure!(shown.len() == 2, "{direction}: {status:#}");
        ensure!(shown[0]["ours"] == true && shown[1]["ours"] == false && shown[1]["by"] == by, "{status:#}");
    }
    agent.term()?;
    agent.purge()?;
    let before = counters.egress()?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "base");
    ensure!(counters.egress()? > before);
    Ok(())
}

/// Whether the client's interface has a clsact qdisc.
fn has_clsact(scene: &Scene) -> Result<bool> {
    Ok(scene.client.tc("qdisc show dev eth0")?.contains("clsact"))
}

/// An agent as on a kernel without tcx, at work in the client.
fn by_filters(scene: &Scene) -> Result<Agent<'_>> {
    let agent = Agent::start_without_tcx(&scene.lab, &scene.routes())?;
    agent.wait_attached(["client"])?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    Ok(agent)
}

#[test]
fn purge_removes_the_qdisc_that_was_made_for_its_filters() -> Result<()> {
    if !gate::open(&[Need::Tc]) {
        return Ok(());
    }
    let Some(scene) = Scene::open("qdisc-made", BBR)? else { return Ok(()) };
    ensure!(!has_clsact(&scene)?);
    let mut agent = by_filters(&scene)?;
    // A successor that adopts the filters knows as much.
    agent.kill9()?;
    agent.restart()?;
    agent.wait_attached(["client"])?;
    agent.term()?;
    ensure!(has_clsact(&scene)?, "what is attached goes on without an agent");
    agent.purge()?;
    ensure!(!has_clsact(&scene)?, "{}", scene.client.tc("qdisc show dev eth0")?);
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "base");
    Ok(())
}

#[test]
fn purge_leaves_a_qdisc_that_was_there_before_though_it_is_empty() -> Result<()> {
    if !gate::open(&[Need::Tc]) {
        return Ok(());
    }
    let Some(scene) = Scene::open("qdisc-before", BBR)? else { return Ok(()) };
    scene.client.tc("qdisc add dev eth0 clsact")?;
    let mut agent = by_filters(&scene)?;
    agent.term()?;
    agent.purge()?;
    ensure!(has_clsact(&scene)?, "somebody else's qdisc is gone");
    for hook in ["egress", "ingress"] {
        let left = scene.client.tc(&format!("filter show dev eth0 {hook}"))?;
        ensure!(left.trim().is_empty(), "{hook}: {left}");
    }
    Ok(())
}

#[test]
fn purge_leaves_the_qdisc_that_it_has_made_while_somebody_else_uses_it() -> Result<()> {
    if !gate::open(&[Need::Tc]) {
        return Ok(());
    }
    let Some(scene) = Scene::open("qdisc-shared", BBR)? else { return Ok(()) };
    let mut agent = by_filters(&scene)?;
    let counters = Counters::attach(&scene.client, Hook::Clsact)?;
    agent.term()?;
    agent.purge()?;
    ensure!(has_clsact(&scene)?);
    let before = (counters.egress()?, counters.ingress()?);
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "base");
    ensure!(
        counters.egress()? > before.0 && counters.ingress()? > before.1,
        "the other's filters see nothing any more"
    );
    Ok(())
}

#[test]
fn purge_leaves_a_qdisc_that_somebody_else_has_put_in_the_place_of_its_own() -> Result<()> {
    if !gate::open(&[Need::Tc]) {
        return Ok(());
    }
    let Some(scene) = Scene::open("qdisc-replaced", BBR)? else { return Ok(()) };
    let mut agent = by_filters(&scene)?;
    agent.term()?;
    scene.client.tc("qdisc del dev eth0 clsact")?;
    scene.client.tc("qdisc add dev eth0 clsact")?;
    agent.restart()?;
    agent.wait_attached(["client"])?;
    agent.term()?;
    agent.purge()?;
    ensure!(has_clsact(&scene)?, "somebody else's qdisc is gone");
    Ok(())
}

#[test]
fn purge_leaves_the_filters_of_an_agent_with_another_pin_directory() -> Result<()> {
    if !gate::open(&[Need::Tc]) {
        return Ok(());
    }
    let Some(scene) = Scene::open("two-directories", BBR)? else { return Ok(()) };
    let mut first = by_filters(&scene)?;
    first.term()?;
    // Filters have one place on an interface: who comes later takes it.
    let mut second = first.elsewhere();
    second.restart()?;
    second.wait_routes(&scene.routes())?;
    second.wait_attached(["client"])?;
    let mut open = scene.http()?;
    ensure!(open.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    first.purge()?;
    // Nothing is pinned there any more: what is left over may go, and a living agent's filters are none of it.
    first.purge()?;
    for http in [&mut open, &mut scene.http()?] {
        for key in [None, Some(KEY), Some(OTHER_KEY)] {
            let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| second.explain())?;
            ensure!(response.served_by() == Scene::owner(key), "{key:?}\n{}", second.explain());
        }
    }
    second.term()?;
    second.purge()?;
    ensure!(filters(&scene)?.is_empty(), "{}", filters(&scene)?);
    scene.isolated()
}

/// The filters of the client's interface, as `tc` shows them.
fn filters(scene: &Scene) -> Result<String> {
    Ok(scene.client.tc("filter show dev eth0 egress")? + &scene.client.tc("filter show dev eth0 ingress")?)
}

#[test]
fn purge_removes_filters_whose_pins_were_removed_by_hand_once_their_agent_is_gone() -> Result<()> {
    if !gate::open(&[Need::Tc]) {
        return Ok(());
    }
    let Some(scene) = Scene::open("pins-by-hand", BBR)? else { return Ok(()) };
    let mut agent = by_filters(&scene)?;
    let pins = scene.lab.pin_dir();
    std::fs::remove_dir_all(&pins)?;
    agent.purge()?;
    ensure!(
        scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork",
        "a living agent's filters went"
    );
    agent.kill9()?;
    let cleared = || (agent.purge().is_ok() && filters(&scene).is_ok_and(|left| left.is_empty())).then_some(());
    wait_for("the filters of a dead agent to be removed", Duration::from_secs(10), cleared)?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "base");
    Ok(())
}
