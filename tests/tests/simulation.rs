//! Hours of connections in virtual time: real TCP stacks, a network without mercy, the rules of the kernel and of the agent.

use sidetrack_tests::sim::Scenario;

#[test]
fn in_a_network_without_faults_every_exchange_is_answered_by_its_side() {
    let mut n = 0;
    for seed in 0..20 {
        let started = std::time::Instant::now();
        let verbose = std::env::var_os("SIDETRACK_SIM_SEED").is_some();
        let world = Scenario::calm().play(seed, verbose).unwrap_or_else(|e| panic!("{e}"));
        n += world.book.answered;
        eprintln!("{seed}: {} answered, {} s, {:?}: {}", world.book.answered, (world.now - 1000000000000)/1000000000, started.elapsed(), world.book.failures());
    }
    eprintln!("{n}");
}
