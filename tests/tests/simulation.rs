//! Hours of connections in virtual time: real TCP stacks, a network without mercy, the rules of the kernel and of the agent.

use sidetrack_tests::sim::Scenario;

#[test]
fn in_a_network_without_faults_every_exchange_is_answered_by_its_side() {
    let mut n = 0;
    let only: Option<u64> = std::env::var("SIDETRACK_SIM_SEED").ok().and_then(|s| s.parse().ok());
    for seed in 0..20 {
        if only.is_some_and(|o| o != seed) { continue; }
        let started = std::time::Instant::now();
        let world = match Scenario::calm().play(seed, only.is_some()) { Ok(w) => w, Err(e) => { eprintln!("{}", e); continue } }; if only.is_some() { eprintln!("{}", world.book.log()); }
        n += world.book.answered;
        eprintln!("{seed}: {} answered, {} s, {:?}: {}", world.book.answered, (world.now - 1000000000000)/1000000000, started.elapsed(), world.book.failures());
    }
    eprintln!("{n}");
}
