//! What happens while the pools are at work: agents die and have successors, routes come and go, a fork ends and starts again.

use super::{
    stage::{GUEST, STEADY, Stage, TURNS, UNKEYED},
    timeline::{Timeline, now},
};
use crate::{agent::Agent, wait_for};
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// So many requests are served between one event and the next.
const BETWEEN: usize = 150;
/// How long that may take: requests that nobody answers take longer.
const PATIENCE: Duration = Duration::from_secs(40);
/// For so long no agent is there, or until so many requests were served without it.
const ORPHANED: Duration = Duration::from_millis(1500);

/// Who makes it, and what was done so far.
#[derive(Debug)]
pub struct Trouble<'a> {
    stage: &'a Stage,
    /// The agent of the moment.
    pub agent: Agent<'a>,
    /// Who might serve what, so far.
    pub timeline: Timeline,
    /// How many agents have died.
    pub deaths: u32,
    turns: &'static [&'static str],
    guest: bool,
}

impl<'a> Trouble<'a> {
    /// Starts the agent, with all forks there.
    ///
    /// # Errors
    /// When it does not start.
    pub fn prepare(stage: &'a Stage) -> Result<Self> {
        let turns: &[_] = &["left"];
        let agent = Agent::start(&stage.lab, &stage.routes(turns, true))?;
        let mut timeline = Timeline::default();
        for (kind, server) in [(UNKEYED, "base"), (super::stage::LOST, "base"), (STEADY, "steady")] {
            timeline.change(kind, &[server], 0, 0);
        }
        timeline.change(TURNS, turns, 0, 0);
        timeline.change(GUEST, &["guest"], 0, 0);
        Ok(Self { stage, agent, timeline, deaths: 0, turns, guest: true })
    }

    /// All that can happen, one after the other, again and again for this long, and once at least.
    ///
    /// # Errors
    /// When requests are no longer served, or the agent does not do what it is told.
    pub fn make(&mut self, length: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            self.round()?;
            if began.elapsed() >= length {
                return Ok(());
            }
        }
    }

    fn round(&mut self) -> Result<()> {
        self.progress()?;
        self.reroute(&["left"], false)?;
        self.progress()?;
        self.die()?;
        self.live()?;
        self.progress()?;
        self.reroute(&["left"], true)?;
        self.progress()?;
        self.reroute(&["right"], true)?;
        self.progress()?;
        // What the file says while no agent runs holds with the next one.
        let begun = now();
        self.die()?;
        self.agent.write(self.stage.routes(&["right"], false).yaml())?;
        self.live()?;
        self.routed(&["right"], false, begun)?;
        self.progress()?;
        self.refuse("right")?;
        self.reroute(&["left", "right"], false)?;
        self.progress()?;
        self.die()?;
        self.live()?;
        self.reroute(&["left", "right"], true)?;
        self.progress()?;
        self.reroute(&["left"], true)
    }

    /// Until requests were served.
    fn progress(&self) -> Result<()> {
        let until = self.stage.count() + BETWEEN;
        let served = || (self.stage.count() >= until).then_some(());
        wait_for("requests to be served", PATIENCE, served).with_context(|| self.agent.explain())
    }

    /// The agent is killed, and requests go on without it.
    fn die(&mut self) -> Result<()> {
        self.timeline.note("an agent dies");
        self.agent.kill9()?;
        self.deaths += 1;
        let until = self.stage.count() + BETWEEN;
        // Requests that need a new leg wait for a successor: soon all may do that.
        drop(wait_for("requests", ORPHANED, || (self.stage.count() >= until).then_some(())));
        Ok(())
    }

    fn live(&mut self) -> Result<()> {
        self.timeline.note("another is started");
        self.agent.restart()?;
        self.timeline.note("it is at work");
        Ok(())
    }

    /// The route file changes.
    fn reroute(&mut self, turns: &'static [&'static str], guest: bool) -> Result<()> {
        let begun = now();
        self.agent.write(self.stage.routes(turns, guest).yaml())?;
        self.routed(turns, guest, begun)
    }

    /// Waits until the kernel's tables say so.
    fn routed(&mut self, turns: &'static [&'static str], guest: bool, begun: u64) -> Result<()> {
        self.agent.wait_routes(&self.stage.routes(turns, guest))?;
        let held = now();
        self.timeline.note(format!("{turns:?} take turns, guest: {guest}"));
        if turns != self.turns {
            self.timeline.change(TURNS, turns, begun, held);
        }
        if guest != self.guest {
            self.timeline.change(GUEST, if guest { &["guest"] } else { &["base"] }, begun, held);
        }
        (self.turns, self.guest) = (turns, guest);
        Ok(())
    }

    /// A fork ends, refuses connections, and starts again.
    fn refuse(&mut self, name: &str) -> Result<()> {
        let begun = now();
        self.timeline.note(format!("{name} refuses"));
        let server = self.stage.server(name);
        server.drain();
        let refused = self.agent.counter("reset_unreachable")?;
        let met = || (self.agent.counter("reset_unreachable").ok()? > refused).then_some(());
        let met = wait_for("a client to meet the refusal", PATIENCE, met).with_context(|| self.agent.explain());
        server.start_again()?;
        self.timeline.note(format!("{name} is there again"));
        self.timeline.refused(begun, now());
        met?;
        self.progress()
    }
}
