//! Colours, where a person looks at a terminal.

use std::{
    io::{self, IsTerminal},
    sync::LazyLock,
};

use comfy_table::{Cell, Color};

/// Standard output is a terminal, and nobody said `NO_COLOR` (<https://no-color.org>).
static ON: LazyLock<bool> =
    LazyLock::new(|| io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));

/// What a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Sidetrack's doing: a fork, a key.
    Ours,
    /// Worth a look.
    Odd,
    /// Broken.
    Bad,
    /// Beside the point.
    Faint,
}

/// A cell in a tone.
pub(super) fn cell(text: impl ToString, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    if *ON { cell.fg(color(tone)) } else { cell }
}

fn color(tone: Tone) -> Color {
    match tone {
        Tone::Good => Color::Green,
        Tone::Ours => Color::Cyan,
        Tone::Odd => Color::Yellow,
        Tone::Bad => Color::Red,
        Tone::Faint => Color::DarkGrey,
    }
}

/// A text in a tone.
pub(super) fn paint(text: &str, tone: Tone) -> String {
    let code = match tone {
        Tone::Good => 32,
        Tone::Ours => 36,
        Tone::Odd => 33,
        Tone::Bad => 31,
        Tone::Faint => 90,
    };
    if *ON { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
