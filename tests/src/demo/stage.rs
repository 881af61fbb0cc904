//! Where the demo is shown as it happens: scene by scene to a person, with progress on standard error where nothing
//! else is to be seen.

use super::{
    paint::{self, Paint, Tone},
    report::{Check, Connection, Report, Row, Scene},
};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How the report is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table for people, line by line as it happens.
    #[default]
    Table,
    /// One JSON object at the end.
    Json,
}

/// The stage, and what was seen on it so far.
#[derive(Debug)]
pub struct Stage {
    seen: Arc<Seen>,
    table: bool,
    /// A person sees the table grow.
    live: bool,
    paint: Paint,
}

/// What was seen so far: an interrupt, on a thread of its own, may be the one that tells it.
#[derive(Debug)]
struct Seen {
    report: Mutex<Report>,
    /// Whether somebody has begun to tell it.
    told: Mutex<bool>,
    began: Instant,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the demo, well or by this error. `None`: it has ended already, and another thread tells how.
    fn end(&self, error: Option<String>) -> Option<Report> {
        if std::mem::replace(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner), true) {
            return None;
        }
        let mut report = self.lock();
        report.error = error;
        report.seconds = self.began.elapsed().as_secs_f64();
        report.ok = report.all_well();
        Some(report.clone())
    }
}

impl Stage {
    /// An empty one.
    #[must_use]
    pub fn new(output: Output) -> Self {
        let table = output == Output::Table;
        let live = table && std::io::stdout().is_terminal();
        let seen = Seen { report: Mutex::default(), told: Mutex::default(), began: Instant::now() };
        Self { seen: Arc::new(seen), table, live, paint: Paint::stdout() }
    }

    /// What was seen.
    pub(super) fn report(&mut self) -> MutexGuard<'_, Report> {
        self.seen.lock()
    }

    /// How to colour a line of the table.
    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// A word to the person who waits.
    pub(super) fn progress(&self, what: &str) {
        eprintln!("{:5.1} s  {what}", self.seen.began.elapsed().as_secs_f64());
    }

    /// Writes a line of the table.
    pub(super) fn line(&self, text: &str) {
        if self.table {
            // Who has closed the other end does not read it: the exit code still says how it went.
            drop(writeln!(std::io::stdout(), "{}", text.trim_end()));
        }
    }

    /// Opens a scene, plays it, and closes it.
    pub(super) fn scene(
        &mut self,
        name: &'static str,
        title: &'static str,
        expected: &'static str,
        play: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let number = self.report().scenes.len() + 1;
        if !self.live {
            self.progress(&format!("scene {number}: {title}"));
        }
        let title_shown = self.paint.text(&format!("{number:>2}  {title}"), Tone::Strong);
        self.line(&format!("\n{title_shown}  {}", self.paint.text(&format!("expected: {expected}"), Tone::Faint)));
        self.report().scenes.push(Scene { name, title, expected, ..Scene::default() });
        let played = play(self);
        self.in_scene(|scene| scene.ok = played.is_ok() && scene.all_well());
        played
    }

    fn in_scene(&mut self, change: impl FnOnce(&mut Scene)) {
        change(self.report().scenes.last_mut().expect("rows and checks belong to a scene that is open"));
    }

    /// The heads of the columns.
    pub(super) fn heads(&self) {
        let heads = columns("REQUEST", "KEY", "OVER", "ANSWERED BY", "", "TIME");
        self.line(&format!("\n{}", self.paint.text(&heads, Tone::Faint)));
    }

    /// Shows and keeps a request.
    pub(super) fn row(&mut self, row: Row) {
        let answered = if row.answered.is_empty() { "nobody".into() } else { row.answered.join(" → ") };
        let connection = match (row.connection, row.count) {
            (Connection::Kept, _) => "kept",
            (Connection::New, 0 | 1) => "new",
            (Connection::New, _) => "new each",
        };
        let forked = row.expected.iter().any(|server| server.contains("-pr-"));
        let (mark, tone) = if row.ok { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        let mut line = self.paint.columns([
            (&row.sent, Tone::Plain),
            (row.key.as_deref().unwrap_or("-"), if row.key.is_some() { Tone::Ours } else { Tone::Faint }),
            (connection, Tone::Faint),
            (&answered, if forked { Tone::Ours } else { Tone::Plain }),
            (mark, tone),
            (&paint::seconds(row.seconds), Tone::Plain),
        ]);
        if row.count > 1 {
            let many = format!(
                "  median of {}, longest {}",
                paint::grouped(row.count),
                paint::seconds(row.slowest_seconds).trim_start()
            );
            line.push_str(&self.paint.text(&many, Tone::Faint));
        }
        if let Some(note) = &row.note {
            line.push_str(&self.paint.text(&format!("  {note}"), Tone::Faint));
        }
        self.line(&line);
        if !row.ok {
            let why = row.error.as_deref().unwrap_or("nobody knows why");
            let words = format!("      expected {}; {why}", row.expected.join(" → "));
            self.line(&self.paint.text(&words, Tone::Bad));
        }
        self.in_scene(|scene| scene.requests.push(row));
    }

    /// Shows and keeps something that had to hold.
    pub(super) fn check(&mut self, what: &str, found: &str, ok: bool) {
        let (mark, tone) = if ok { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        let wide = paint::pad(&format!("{what}: {found}"), paint::before_mark());
        self.line(&format!("    {wide} {}", self.paint.text(mark, tone)));
        self.in_scene(|scene| scene.checks.push(Check { what: what.to_owned(), found: found.to_owned(), ok }));
    }

    /// What an interrupt does: it ends the demo, tells what was seen so far, and ends the process, and with it the lab.
    pub(super) fn at_interrupt(&self) -> impl FnOnce(Signal) + Send + use<> {
        let stage = Self { seen: Arc::clone(&self.seen), ..*self };
        move |signal| {
            let scene = stage.seen.lock().scenes.last().map(|scene| format!(", in the scene \"{}\"", scene.name));
            let why = format!("interrupted by {signal}{}", scene.unwrap_or_default());
            // If the demo has ended already, it is being told, and nothing of the lab is left.
            if let Some(report) = stage.seen.end(Some(why)) {
                stage.last_words(&report);
                std::process::exit(i32::from(!stage.tell(&report)));
            }
        }
    }

    /// Ends the demo, well or by this error. Does not return if an interrupt has ended it.
    pub(super) fn close(self, played: Result<()>) -> bool {
        let Some(report) = self.seen.end(played.err().map(|error| format!("{error:#}"))) else {
            loop {
                std::thread::park(); // the process is about to end
            }
        };
        self.last_words(&report);
        self.tell(&report)
    }

    /// How it went, in a sentence.
    fn last_words(&self, report: &Report) {
        let took = Duration::from_secs_f64(report.seconds);
        let requests: u64 = report.scenes.iter().flat_map(|scene| &scene.requests).map(|row| row.count).sum();
        let (words, tone) = if report.ok {
            (format!("{} requests, each where it belongs, in {took:.0?}", paint::grouped(requests)), Tone::Good)
        } else if let Some(error) = &report.error {
            (format!("the demo could not be played to its end: {error}"), Tone::Bad)
        } else {
            ("something went elsewhere: see the lines marked ✗".into(), Tone::Bad)
        };
        self.line(&format!("\n{}", self.paint.text(&words, tone)));
        if !self.table
            && let Some(error) = &report.error
        {
            eprintln!("the demo could not be played to its end: {error}");
        }
    }

    /// Prints the report where JSON is wanted. Whether all is well.
    fn tell(&self, report: &Report) -> bool {
        if !self.table {
            let text = serde_json::to_string_pretty(report).expect("a report is texts, numbers and lists");
            let mut out = std::io::stdout().lock();
            if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
                eprintln!("cannot write the report to standard output: {error}");
                return false;
            }
        }
        report.ok
    }
}

/// The columns without any colour.
fn columns(request: &str, key: &str, over: &str, answered: &str, mark: &str, time: &str) -> String {
    let plain = Paint::default();
    let time = format!("{time:>8}");
    plain.columns([request, key, over, answered, mark, &time].map(|text| (text, Tone::Plain)))
}
