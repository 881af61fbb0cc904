//! `cargo xtask test`: all suites, and a table at the end.

use std::{
    env,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use xtask::root;

use super::{
    apt::is_root,
    binary,
    build::{self, Executable},
    image,
    packages::Scope,
    runner, setup,
    shell::{self, paint},
    suites::{self, Kind, Suite},
    tally::Tally,
};

/// What to run, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Run these suites only: a name, a prefix, or a glob; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Print the suites and end
    #[arg(long)]
    list: bool,
    /// Threads of each runner; by default one where a suite uses the real kernel
    #[arg(long, value_name = "N")]
    test_threads: Option<u32>,
    /// Passed on to every runner: names of tests, `--nocapture` and so on
    #[arg(last = true)]
    runner: Vec<String>,
}

/// Runs the suites; the exit code says whether all held.
pub fn run(args: &Args) -> Result<ExitCode> {
    let all = suites::all()?;
    let count = all.len();
    let chosen = suites::select(all, &args.only)?;
    if args.list {
        print_list(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    let need_root = chosen.iter().filter(|suite| suite.root).map(|suite| suite.name.as_str()).collect::<Vec<_>>();
    if !need_root.is_empty() && !is_root() {
        bail!("{} need root: run `cargo xtask test` as root, or choose others with --only", need_root.join(", "));
    }
    let lab = chosen.iter().any(|suite| suite.root);
    setup::setup(if lab { Scope::All } else { Scope::Build })?;
    if suites::need_kubernetes(&chosen) {
        setup::kubernetes();
    }
    let start = Instant::now();
    let daemon = if suites::need_daemon(&chosen) { Some(binary::daemon()?) } else { None };
    let successor = if suites::need_successor(&chosen) { Some(binary::successor()?) } else { None };
    let image = if suites::need_image(&chosen) { Some(image::for_tests()?) } else { None };
    let executables = build::build("test", &suites::cargo_args(&chosen, count))?;
    let built = start.elapsed();
    let mut rows = Vec::new();
    for (index, suite) in chosen.iter().enumerate() {
        let title = format!("suite {} of {}: {}", index + 1, chosen.len(), suite.name);
        println!("\n{} ({})", paint(io::stdout().is_terminal(), "1", &title), suite.covers);
        rows.push((suite.name.as_str(), run_suite(suite, &executables, [&daemon, &successor, &image], args)?));
    }
    Ok(print_result(&rows, built))
}

fn run_suite(suite: &Suite, executables: &[Executable], binaries: [&Option<PathBuf>; 3], args: &Args) -> Result<Tally> {
    let limit = Duration::from_mins(suite.limit_minutes);
    let mut tally = Tally::default();
    if suite.kind == Kind::Examples {
        let mut command = shell::cargo("test");
        command
            .args(["--doc", "--workspace", "--all-features", "--locked", "--", "--color", color()])
            .args(&args.runner);
        tally.add(runner::run(&suite.name, &mut command, limit, &mut io::stdout())?);
        return Ok(tally);
    }
    for executable in executables.iter().filter(|executable| suite.has(executable)) {
        let mut command = Command::new(&executable.path);
        // As cargo starts a runner.
        command.current_dir(&executable.package_dir).env("CARGO_MANIFEST_DIR", &executable.package_dir);
        command.args(["--color", color()]);
        if let Some(threads) = args.test_threads.or(suite.root.then_some(1)) {
            command.arg(format!("--test-threads={threads}"));
        }
        for (name, binary) in ["SIDETRACK_BIN", "SIDETRACK_SUCCESSOR", "SIDETRACK_IMAGE"].into_iter().zip(binaries) {
            if let Some(binary) = binary {
                command.env(name, binary);
            }
        }
        let place = executable.package_dir.strip_prefix(root()).unwrap_or(&executable.package_dir);
        println!("\n{}: {}", place.display(), executable.target);
        tally.add(runner::run(&suite.name, command.args(&args.runner), limit, &mut io::stdout())?);
    }
    Ok(tally)
}

/// The runners write to a pipe: they are told whether a person reads the other end.
fn color() -> &'static str {
    if io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() { "always" } else { "never" }
}

fn print_list(suites: &[Suite]) {
    let width = suites.iter().map(|suite| suite.name.len()).max().unwrap_or(0);
    for suite in suites {
        let root = if suite.root { "root" } else { "" };
        println!("{:width$}  {root:4}  {}", suite.name, suite.covers);
    }
}

/// Prints the table; the exit code says whether all held.
pub fn print_result(rows: &[(&str, Tally)], built: Duration) -> ExitCode {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("build".len());
    let terminal = io::stdout().is_terminal();
    let minutes = |time: Duration| format!("{:.1}", time.as_secs_f64() / 60.0);
    let mut total = Tally { time: built, ..Tally::default() };
    println!("\n{:width$}  {:>7}  {:>7}  {:>7}  {:>7}", "suite", "passed", "failed", "ignored", "minutes");
    println!("{:width$}  {:>7}  {:>7}  {:>7}  {:>7}", "build", "", "", "", minutes(built));
    for (name, tally) in rows {
        let line = format!(
            "{name:width$}  {:>7}  {:>7}  {:>7}  {:>7}",
            tally.passed,
            tally.failed,
            tally.ignored,
            minutes(tally.time)
        );
        println!("{}", if tally.failed > 0 { paint(terminal, "31", &line) } else { line });
        total.add(tally.clone());
    }
    println!(
        "{:width$}  {:>7}  {:>7}  {:>7}  {:>7}",
        "all",
        total.passed,
        total.failed,
        total.ignored,
        minutes(total.time)
    );
    for failure in &total.failures {
        println!("failed: {failure}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    // A run in which nothing ran has shown nothing.
    if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
