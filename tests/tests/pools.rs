//! Real pools of connections in seven kinds of clients, for a minute, while forks come and go and agents die.

use anyhow::{Context as _, Result, ensure};
use sidetrack_tests::{
    gate::{self, Need},
    pools::{Pool, Stage, Trouble, verdict},
    wait_for,
};
use std::time::Duration;

/// How long clients may take to begin: interpreters and virtual machines start side by side.
const BEGIN: Duration = Duration::from_mins(2);

/// A minute, or what `SIDETRACK_POOLS_SECONDS` says.
fn length() -> Result<Duration> {
    match std::env::var("SIDETRACK_POOLS_SECONDS") {
        Ok(seconds) => Ok(Duration::from_secs(seconds.parse().context("SIDETRACK_POOLS_SECONDS is no number")?)),
        Err(_) => Ok(Duration::from_mins(1)),
    }
}

/// Whether `SIDETRACK_POOLS`, names with commas, leaves this one out.
fn is_wanted(pool: Pool) -> bool {
    std::env::var("SIDETRACK_POOLS").map_or(true, |names| names.split(',').any(|name| name == pool.name()))
}

/// Each client has a pod of its own, all of them one baseline and its forks.
#[test]
fn pools_get_right_answers_and_whole_ones_and_fail_only_while_their_fork_refuses() -> Result<()> {
    if !gate::open(&[Need::Lab, Need::Agent]) {
        return Ok(());
    }
    let pools: Vec<_> = Pool::ALL.into_iter().filter(|&pool| is_wanted(pool) && gate::open(&[pool.need()])).collect();
    let stage = Stage::new()?;
    let visitor = stage.lab.pod("visitor", 30)?;
    let pods: Vec<_> =
        (20..).zip(&pools).map(|(number, pool)| stage.lab.pod(pool.name(), number)).collect::<Result<_>>()?;
    let mut trouble = Trouble::prepare(&stage)?;
    trouble.agent.wait_attached(pools.iter().map(|pool| pool.name()))?;
    let start = |(pool, pod): (&Pool, _)| pool.start(&stage, pod, &visitor).with_context(|| format!("{pool:?}"));
    let mut clients = pools.iter().zip(&pods).map(start).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        let name = client.pool.name();
        let begun = || {
            if let Err(ended) = client.check_alive() {
                return Some(Err(ended));
            }
            let seen = stage.server("base").requests();
            seen.iter().any(|seen| seen.header("x-client") == Some(name)).then_some(Ok(()))
        };
        wait_for(&format!("{name} to begin"), BEGIN, begun)??;
    }
    let troubled = trouble.make(length()?);
    std::fs::write(Pool::stop_file(), "")?;
    let said: Vec<_> = clients.into_iter().map(|client| Ok((client.pool, client.said()?))).collect::<Result<_>>()?;

    let counters = trouble.agent.counters()?;
    let mut wrong = Vec::new();
    for (pool, said) in &said {
        eprintln!("{}", verdict::summary(*pool, said));
        wrong.extend(verdict::of_client(*pool, said, &trouble.timeline));
    }
    eprintln!("{} requests, {} agents died, {counters:?}", stage.count(), trouble.deaths);
    wrong.extend(verdict::of_servers(&stage, &trouble.timeline));
    wrong.extend(verdict::of_counters(&said, &counters));
    wrong.extend(troubled.err().map(|error| format!("{error:#}")));
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), trouble.agent.explain());
    Ok(())
}
