//! Hours of connections in virtual time: real TCP stacks, a network without mercy, the rules of the kernel and of the agent.

use sidetrack_tests::sim::{Scenario, net::Weather, scenario::Act, host::SECOND};

fn run(name: &str, scenario: &Scenario, seeds: std::ops::Range<u64>) {
    let only: Option<u64> = std::env::var("SIDETRACK_SIM_SEED").ok().and_then(|s| s.parse().ok());
    let mut n = 0;
    let mut bad = 0;
    let mut all = std::collections::BTreeMap::new();
    let started = std::time::Instant::now();
    let mut virt = 0;
    for seed in seeds {
        if only.is_some_and(|o| o != seed) { continue; }
        let world = match scenario.play(seed, only.is_some()) { Ok(w) => w, Err(e) => { println!("{}", e.chars().take(if only.is_some() {usize::MAX} else {400}).collect::<String>()); bad += 1; continue } };
        n += world.book.answered;
        virt += (world.now - 1000000000000)/1000000000;
        for (k, v) in &world.book.failed { *all.entry(*k).or_insert(0) += v; }
    }
    println!("{name}: {n} answered, {virt} virtual s, {:?}, bad {bad}, failed: {all:?}", started.elapsed());
}

#[test]
fn calm() { run("calm", &Scenario::calm(), 0..20); }

#[test]
fn storm() {
    let mut s = Scenario::calm();
    s.weather = Weather::storm();
    run("storm", &s, 0..20);
}
#[test]
fn agents() {
    let mut s = Scenario::calm();
    s.acts = vec![Act::KillAgent, Act::StartAgent, Act::StartAgent];
    s.pace = (SECOND/10, 3*SECOND);
    run("agents", &s, 0..20);
}
#[test]
fn forks() {
    let mut s = Scenario::calm();
    s.acts = vec![Act::CutOff, Act::Refuse, Act::Reset, Act::Mend, Act::Mend];
    s.pace = (SECOND/10, 3*SECOND);
    s.mix.may_time_out = true;
    run("forks", &s, 0..20);
}
#[test]
fn reroute() {
    let mut s = Scenario::calm();
    s.acts = vec![Act::Reroute, Act::Reroute, Act::Restore];
    s.pace = (SECOND/100, SECOND);
    run("reroute", &s, 0..20);
}
#[test]
fn idle() {
    let mut s = Scenario::calm();
    s.mix.idles = 300_000;
    s.mix.idle = (SECOND, 400*SECOND);
    s.manners.idle_close = Some(75*SECOND);
    s.mix.per_connection = (1, 60);
    run("idle", &s, 0..20);
}
