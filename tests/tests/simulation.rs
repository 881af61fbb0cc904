//! Hours of connections in virtual time: real TCP stacks, a network that loses and reorders, the rules of the programs and of the
//! agent. Natively, without root and kernel.
//!
//! A seed makes a whole run. `SIDETRACK_SIM_SEED` plays that one alone, and prints all of its segments when it fails;
//! `SIDETRACK_SIM_RUNS` says how many runs a test has, and `SIDETRACK_SIM_FROM` with which seed they begin.

use std::{collections::BTreeMap, env, time::Duration};

use sidetrack_splice::abi::reason::Reason;
use sidetrack_tests::sim::{Scenario, book::Failure, net::Weather, world::START};

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")))
}

/// Whether runs enough are played that what is seldom is met.
fn many() -> bool {
    number("SIDETRACK_SIM_SEED").is_none()
}

/// Plays a scenario with some seeds. Returns how many exchanges were answered, and how others have failed.
fn play(scenario: &Scenario, runs: u64) -> (u64, BTreeMap<Failure, u64>) {
    let (answered, failed, _) = play_counting(scenario, runs, Reason::Adopted);
    (answered, failed)
}

/// The same, with what a counter says in the end.
fn play_counting(scenario: &Scenario, runs: u64, reason: Reason) -> (u64, BTreeMap<Failure, u64>, u64) {
    let only = number("SIDETRACK_SIM_SEED");
    let runs = number("SIDETRACK_SIM_RUNS").unwrap_or(runs);
    let from = number("SIDETRACK_SIM_FROM").unwrap_or(0);
    let seeds = only.map_or(from..from + runs, |seed| seed..seed + 1);
    let (mut answered, mut segments, mut counted, mut hours) = (0, 0, 0, 0.0);
    let mut failed = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in seeds {
        match scenario.play(seed, only.is_some()) {
            Ok(world) => {
                answered += world.book.answered;
                segments += world.watch.segments;
                counted += world.kernel.counted(reason);
                hours += Duration::from_nanos(world.now - START).as_secs_f64() / 3600.0;
                for (how, n) in world.book.failed {
                    *failed.entry(how).or_default() += n;
                }
            }
            Err(why) => wrong.push(why),
        }
    }
    eprintln!("{answered} exchanges, {segments} segments, {hours:.1} hours; failed as they may: {failed:?}");
    assert!(wrong.is_empty(), "replay one by SIDETRACK_SIM_SEED=N:\n{}", wrong.join("\n"));
    (answered, failed, counted)
}

#[test]
fn a_seed_makes_the_whole_run() {
    let play = || Scenario::everything().play(7, false).expect("a run");
    let (one, other) = (play(), play());
    assert_eq!(one.now, other.now);
    assert_eq!(one.watch.segments, other.watch.segments);
    assert_eq!(one.kernel.counters, other.kernel.counters);
    assert_eq!(one.book.failed, other.book.failed);
}

#[test]
fn in_a_network_without_faults_every_exchange_is_answered() {
    let (answered, failed) = play(&Scenario::calm(), 20);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(answered > 0);
}

#[test]
fn loss_reordering_and_duplication_cost_no_byte() {
    play(&Scenario::storm(), 20);
}

#[test]
fn long_bodies_come_through_loss() {
    play(&Scenario::freight(), 20);
}

#[test]
fn hours_of_idle_pools_leave_nothing_behind() {
    play(&Scenario::idle(), 20);
}

#[test]
fn agents_that_die_and_are_replaced_cost_no_exchange() {
    let (_, failed) = play(&Scenario::agents(), 20);
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn while_an_agent_is_missed_what_needs_it_is_refused_and_all_else_goes_on() {
    let (answered, failed) = play(&Scenario::without_agents(), 20);
    let refused: u64 = failed.values().sum();
    assert!(!many() || 0 < refused && refused < answered, "{answered} answered, {failed:?}");
}

#[test]
fn where_the_route_says_so_the_baseline_answers_for_forks_that_cannot_be_had() {
    let (_, _, instead) = play_counting(&Scenario::fallback(), 20, Reason::BaselineInstead);
    assert!(!many() || instead > 100, "{instead} requests");
}

#[test]
fn forks_that_die_refuse_or_reset_end_exchanges_for_known_reasons_alone() {
    play(&Scenario::forks(), 20);
}

#[test]
fn connections_that_are_older_than_the_agent_are_steered_from_a_request_on() {
    for weather in [Weather::clear(), Weather::storm()] {
        let (_, _, adopted) = play_counting(&Scenario::older(weather), 30, Reason::Adopted);
        assert!(!many() || adopted > 100, "{adopted} connections were taken up");
    }
}

#[test]
fn while_routes_change_each_request_goes_where_its_route_has_led() {
    play(&Scenario::rerouted(), 20);
}

#[test]
fn everything_at_once_breaks_no_rule() {
    play(&Scenario::everything(), 20);
}
