//! Runs one test runner: its output goes on as it comes, and is read on the way.

use std::{
    io::{self, Read as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::tally::{Reader, Tally};

/// How long the output may stay open after the runner has ended: what a test left behind may hold it.
const AFTER_END: Duration = Duration::from_secs(5);

/// Runs it to its end, or to the end of its time. A runner that fails without naming a failed test counts as one.
pub fn run(name: &str, command: &mut Command, limit: Duration, out: &mut dyn io::Write) -> Result<Tally> {
    let start = Instant::now();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("suite {name} cannot be started"))?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let (sender, output) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut reader = Reader::default();
    let outcome = loop {
        if start.elapsed() > limit {
            break stop(&mut child)?;
        }
        let ended = child.try_wait()?;
        match output.recv_timeout(if ended.is_some() { AFTER_END } else { Duration::from_millis(50) }) {
            Ok(bytes) => {
                reader.read(&bytes);
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break wait(&mut child, start, limit)?,
            Err(mpsc::RecvTimeoutError::Timeout) if ended.is_some() => break ended,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    };
    let mut tally = reader.finish();
    tally.time = start.elapsed();
    match outcome {
        Some(status) if status.success() => {}
        Some(status) if tally.failed == 0 => {
            tally.failed = 1;
            tally.failures.push(format!("{name}: the runner ended with {status}"));
        }
        Some(_) => {}
        None => {
            tally.failed += 1;
            tally.failures.push(format!("{name}: stopped after {} minutes", limit.as_secs() / 60));
        }
    }
    Ok(tally)
}

/// Waits for a runner that has closed its output.
fn wait(child: &mut Child, start: Instant, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    while start.elapsed() <= limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(5));
    }
    stop(child)
}

fn stop(child: &mut Child) -> Result<Option<std::process::ExitStatus>> {
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Tally {
        run("sample", Command::new("sh").args(["-c", script]), limit, &mut io::sink()).expect("sh starts")
    }

    #[test]
    fn a_runner_that_dies_without_a_result_counts_as_a_failure() {
        let tally = sh("exit 3", Duration::from_mins(1));
        assert_eq!(tally.failed, 1);
        assert!(tally.failures[0].contains("exit status: 3"), "{:?}", tally.failures);
    }

    #[test]
    fn a_runner_that_hangs_is_stopped_and_counts_as_a_failure() {
        let tally =
            sh("echo 'test result: ok. 1 passed; 0 failed; 0 ignored;'; exec sleep 600", Duration::from_millis(300));
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }

    #[test]
    fn a_result_is_read_to_its_last_line() {
        let tally = sh("printf 'test result: ok. 7 passed; 0 failed; 0 ignored;'", Duration::from_mins(1));
        assert_eq!((tally.passed, tally.failed), (7, 0));
    }
}
