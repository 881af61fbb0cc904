//! Programs of others on a pod's interface still see its packets.

use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Request, Scene,
    gate::{self, Need},
    lab::BBR,
    probe::{Counters, Hook},
    scene::{KEY, OTHER_KEY},
};

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
