//! Routes that change all the time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use sidetrack_splice::abi::ABI;
use sidetrack_tests::{
    Request, Routes, Scene,
    lab::BBR,
    scene::{KEY, PORT},
    wait_for,
};

use crate::level::Level;

const CHANGES: u16 = 10_000;
/// Each so many changes the kernel's tables are waited for: those in between may never have been in force.
const AWAITED: u16 = 100;

/// The usual routes, one more key, and one more service, which no other change has.
fn changed(scene: &Scene, number: u16) -> Routes {
    let [high, low] = number.to_be_bytes();
    let address = |n: u8| ([10, 97 + n, high, low], PORT).into();
    let to = if number.is_multiple_of(2) { &scene.fork_pod } else { &scene.other_pod };
    let usual = scene.routes().fork(&format!("change-{number}"), &Scene::endpoints(to));
    usual.addresses(&format!("shop/service-{number}"), &[address(0)]).fork(KEY, &[address(1)])
}

/// Bits that are set in map `filter`.
fn bits(scene: &Scene) -> Result<u32> {
    let path = scene.lab.pin_dir().join(format!("v{ABI}/filter"));
    let map: Array<_, u64> = Map::Array(MapData::from_pin(path)?).try_into()?;
    map.iter().map(|word| Ok(word?.count_ones())).sum()
}

#[test]
fn ten_thousand_changes_of_routes_leave_nothing_behind() -> Result<()> {
    let Some(scene) = Scene::open("many-changes", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let filtered = bits(&scene)?;
    let mut before = Level::now(&scene, &agent)?;
    let mut http = scene.http()?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    // A socket is made ahead for the pod's next dial.
    before.descriptors += 1;
    for number in 1..=CHANGES {
        let routes = changed(&scene, number);
        if number % AWAITED != 0 {
            agent.write(routes.yaml())?;
            continue;
        }
        agent.set_routes(&routes).with_context(|| format!("change {number}"))?;
        let key = format!("change-{number}");
        let response = http.exchange(&Request::get("/").key(&key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == "fork", "{key} was served by {}", response.served_by());
        if number == CHANGES / 5 {
            before.memory = Level::now(&scene, &agent)?.memory;
        }
    }
    drop(http);
    agent.set_routes(&scene.routes())?;
    before.back(&scene, &agent)?;
    agent.no_errors()?;
    // A bit of each address that had a service stays until an agent starts, and no longer.
    ensure!(bits(&scene)? >= filtered + u32::from(CHANGES / AWAITED), "{} bits", bits(&scene)?);
    agent.term()?;
    agent.restart()?;
    let cleared = || bits(&scene).is_ok_and(|bits| bits == filtered).then_some(());
    wait_for("the bits to be cleared", Duration::from_secs(10), cleared)
        .with_context(|| format!("{:?} bits, {filtered} before", bits(&scene)))?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    Ok(())
}
