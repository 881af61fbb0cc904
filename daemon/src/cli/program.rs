//! Under which name the binary was started, and completion.

use std::{env, ffi::OsString, path::Path};

use clap::{Args, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;

use super::Cli;

/// The binary's name where kubectl starts it, as its plugin `sidetrack`.
const PLUGIN: &str = "kubectl-sidetrack";
/// The binary's name where kubectl asks it how a command line goes on.
const COMPLETER: &str = "kubectl_complete-sidetrack";

/// `sidetrack completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// Which shell; `source <(sidetrack completion bash)` makes it known to a running one.
    pub shell: Shell,
}

/// The file's name in the first word of a command line.
fn file_name(first: Option<&OsString>) -> String {
    first
        .map(|first| Path::new(first).file_name().unwrap_or_default().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The command line, by the name under which its user knows it.
fn command(name: &str) -> Command {
    let command = Cli::command();
    if name == PLUGIN { command.name("kubectl sidetrack").bin_name("kubectl sidetrack") } else { command }
}

/// Reads this process's command line; what cannot be understood ends it.
#[must_use]
pub fn parse() -> Cli {
    let words: Vec<_> = env::args_os().collect();
    let matches = command(&file_name(words.first())).get_matches_from(words);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The script for a shell.
#[must_use]
pub fn completion(args: &CompletionArgs) -> String {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sidetrack", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Where kubectl asks how a command line goes on: what may follow. The last word is the one that is being typed.
#[must_use]
pub fn complete() -> Option<String> {
    let words: Vec<_> = env::args_os().collect();
    let asks = file_name(words.first()) == COMPLETER;
    asks.then(|| continued(&words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()))
}

/// Words that may follow, one a line, and what the shell is to do about files: as programs of Cobra answer, which kubectl is.
fn continued(words: &[String]) -> String {
    /// The shell completes files.
    const FILES: &str = ":0";
    /// It does not.
    const NO_FILES: &str = ":4";
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(typed, before)| (typed.as_str(), before));
    let mut command = Cli::command();
    command.build();
    let chosen = before.iter().find_map(|word| command.find_subcommand(word));
    let Some(chosen) = chosen else {
        let all =
            command.get_subcommands().map(|one| (one.get_name().to_owned(), one.get_about().map(ToString::to_string)));
        return lines(all, typed) + NO_FILES + "\n";
    };
    // An option before it, whose value is being typed.
    let option = before.last().and_then(|word| {
        let by_long = |arg: &&clap::Arg| arg.get_long().is_some_and(|long| *word == format!("--{long}"));
        let by_short = |arg: &&clap::Arg| arg.get_short().is_some_and(|short| *word == format!("-{short}"));
        let takes = |arg: &&clap::Arg| arg.get_action().takes_values();
        chosen.get_arguments().filter(takes).find(|arg| by_long(arg) || by_short(arg))
    });
    if let Some(option) = option {
        let values = option.get_possible_values();
        let values =
            values.iter().map(|value| (value.get_name().to_owned(), value.get_help().map(ToString::to_string)));
        let files = if option.get_value_hint() == clap::ValueHint::FilePath { FILES } else { NO_FILES };
        return lines(values, typed) + files + "\n";
    }
    if !typed.starts_with('-') {
        return format!("{NO_FILES}\n");
    }
    let options = chosen.get_arguments().filter_map(|arg| {
        let long = arg.get_long().filter(|_| !arg.is_hide_set())?;
        Some((format!("--{long}"), arg.get_help().map(ToString::to_string)))
    });
    lines(options, typed) + NO_FILES + "\n"
}

/// Those that begin with what is typed, each with its meaning behind a tab.
fn lines(all: impl Iterator<Item = (String, Option<String>)>, typed: &str) -> String {
    let begins = all.filter(|(word, _)| word.starts_with(typed));
    let line = |(word, help): (String, Option<String>)| {
        let help = help.and_then(|help| help.lines().next().map(|first| format!("\t{first}")));
        word + &help.unwrap_or_default() + "\n"
    };
    begins.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn continued(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        super::continued(&words).lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn as_a_plugin_it_speaks_of_itself_as_kubectl_does() {
        let help = |name: &str, words: &[&str]| {
            let words = std::iter::once(name).chain(words.iter().copied());
            command(name).try_get_matches_from(words).expect_err("help").to_string()
        };
        for (words, usage) in [(&["create", "--help"][..], "sidetrack create"), (&["wait"][..], "sidetrack wait")] {
            let (plugin, own) = (help(PLUGIN, words), help("sidetrack", words));
            assert!(plugin.contains(&format!("Usage: kubectl {usage}")), "{plugin}");
            assert!(own.contains(&format!("Usage: {usage}")), "{own}");
        }
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = completion(&CompletionArgs { shell });
            assert!(script.contains("on-unreachable") && script.contains("explain-counter"), "{shell}: {script}");
        }
    }

    #[test]
    fn kubectl_is_told_how_a_command_line_goes_on() {
        assert_eq!(continued(&["cr"]), ["create", ":4"]);
        assert!(continued(&[""]).contains(&"explain-counter".into()));
        assert_eq!(continued(&["create", "pr", "--on"]), ["--on-unreachable", ":4"]);
        assert_eq!(continued(&["create", "pr", "--on-unreachable", ""]), ["fail", "baseline", ":4"]);
        assert_eq!(continued(&["get", "pr", "-o", "y"]), ["yaml", ":4"]);
        assert_eq!(continued(&["apply", "-f", ""]), [":0"]);
        assert_eq!(continued(&["get", ""]), [":4"]);
    }
}
