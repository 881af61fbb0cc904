//! The demo when it is interrupted: it says so, and leaves nothing behind.

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use rstest::rstest;
use serde_json::Value;
use sidetrack_tests::{
    agent,
    gate::{self, Need},
    wait_for,
};
use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A demo, killed when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already: then both fail, and nothing is left to do.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The children of a process, and theirs.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let own = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>());
    own.flat_map(|child| [vec![child], children(child)].concat()).collect()
}

/// Whether a process has not ended; a dead one that nobody has waited for yet has.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The names of an object's fields.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[rstest]
#[case::in_a_scene("scene 4", Signal::SIGINT, false)]
#[case::as_a_terminal_does("scene 3", Signal::SIGINT, true)]
#[case::while_the_lab_is_made("", Signal::SIGTERM, false)]
fn a_demo_that_is_interrupted_says_so_in_json_and_leaves_nothing(
    #[case] at: &str,
    #[case] signal: Signal,
    #[case] group: bool,
) -> Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    if !gate::open(&[Need::Lab, Need::Nginx, Need::Agent]) {
        return Ok(());
    }
    let mut command = Command::new(program);
    command.args(["-o", "json"]).env("SIDETRACK_BIN", agent::binary()).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = Demo(command.spawn().with_context(|| program.display().to_string())?);
    let (mut stdout, stderr) = (demo.0.stdout.take().context("piped")?, demo.0.stderr.take().context("piped")?);
    let printed = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let mut progress = BufReader::new(stderr).lines();
    let reached = progress.by_ref().map_while(Result::ok).any(|line| line.contains(at));
    ensure!(reached, "it ended before {at:?}");
    let pid = demo.0.id();
    let started = children(pid);
    ensure!(at.is_empty() || started.len() > 3, "nginx and an agent are at work: {started:?}");
    let to = Pid::from_raw(pid.cast_signed());
    if group { killpg(to, signal) } else { kill(to, signal) }?;
    thread::spawn(move || progress.map_while(Result::ok).for_each(drop));
    let ended = wait_for("the demo to end", Duration::from_secs(10), || demo.0.try_wait().transpose())??;
    let text = printed.join().expect("a reader does not panic")?;
    ensure!(ended.code() == Some(1), "{ended}\n{text}");
    let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(report["ok"] == false, "{report:#}");
    let error = report["error"].as_str().unwrap_or_default();
    ensure!(error.starts_with(&format!("interrupted by {signal}")), "{report:#}");
    let fields = ["ok", "error", "version", "kernel", "seconds", "scenes", "servers", "flows", "counters"];
    let mut there = keys(&report);
    there.sort_unstable();
    let mut wanted = fields;
    wanted.sort_unstable();
    ensure!(there == wanted, "{there:?}");
    if let Some(number) = at.strip_prefix("scene ") {
        let scenes = report["scenes"].as_array().context("a list")?;
        ensure!(scenes.len() >= number.parse()?, "{report:#}");
        let (last, before) = scenes.split_last().context("not empty")?;
        ensure!(last["ok"] == false && before.iter().all(|scene| scene["ok"] == true), "{report:#}");
        let named = format!("in the scene \"{}\"", last["name"].as_str().unwrap_or_default());
        ensure!(error.contains(&named), "{error}");
    }
    let gone = || started.iter().all(|&pid| !lives(pid)).then_some(());
    wait_for("all that it has started to be gone", Duration::from_secs(10), gone)
}
