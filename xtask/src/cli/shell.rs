//! Commands that say what they do. Standard output stays free for what was asked for: `demo -o json` is one object.

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use xtask::{process, root};

/// What `cargo run` tells its program about `xtask` itself: nothing for the crates built below it.
const OF_XTASK: &[&str] = &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// A line for the person at the terminal.
pub fn say(text: impl fmt::Display) {
    eprintln!("{} {text}", paint(io::stderr().is_terminal(), "1;36", "xtask:"));
}

/// Coloured where a person looks.
pub fn paint(terminal: bool, code: &str, text: &str) -> String {
    if terminal && env::var_os("NO_COLOR").is_none() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Cargo in the root of the tree, with the user's settings.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(process::cargo());
    for (name, _) in env::vars_os() {
        if OF_XTASK.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.current_dir(root()).arg(subcommand);
    command
}

/// Runs a command to its end, its output on standard error.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    say(&shown);
    let status =
        command.stdout(Stdio::from(io::stderr())).status().with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status}): its messages above say why");
    Ok(())
}

/// The command as it would be typed.
fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().replace('\u{1f}', " ")).collect::<Vec<_>>().join(" ")
}
