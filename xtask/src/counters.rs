//! `docs/counters.md`: what each counter means and what to do, out of the list in `splice/src/abi/reason.rs`.

use std::fmt::Write;

use sidetrack_splice::abi::reason::{Effect, Reason};

/// Its place in the source tree.
pub const PATH: &str = "docs/counters.md";

const HEAD: &str = "# Counters

<!-- Written by `cargo xtask docs` from splice/src/abi/reason.rs: change it there. -->

Every way in which a packet's story can end has a counter. `sidetrack status` shows those that are not zero,
`sidetrack explain-counter NAME` says what stands here. [troubleshooting.md](troubleshooting.md) begins with what is seen.
";

/// The whole document.
#[must_use]
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for effect in Effect::ALL {
        let reasons = Reason::ALL.iter().filter(|reason| reason.effect() == effect);
        // Writing to a string never fails.
        _ = writeln!(text, "\n## {}\n\n{}\n", title(effect), effect.words());
        _ = writeln!(text, "| counter | what happened | what to do |\n|---|---|---|");
        for reason in reasons {
            _ = writeln!(text, "| `{}` | {} | {} |", reason.name(), cell(reason.meaning()), cell(reason.advice()));
        }
    }
    text
}

fn title(effect: Effect) -> &'static str {
    match effect {
        Effect::Defect => "Defects",
        Effect::Refused => "Resets and refusals",
        Effect::Unsteered => "Passed on unread",
        Effect::Delay => "Delays",
        Effect::None => "At work",
    }
}

/// A text that ends no column before its time.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_one_line() {
        let text = document();
        for reason in Reason::ALL {
            let lines = text.lines().filter(|line| line.starts_with(&format!("| `{}` |", reason.name())));
            assert_eq!(lines.count(), 1, "{}", reason.name());
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("| `")).count(), Reason::ALL.len());
    }

    #[test]
    fn a_bar_in_a_text_ends_no_column() {
        assert_eq!(cell("a|b"), "a\\|b");
    }
}
