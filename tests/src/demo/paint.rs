//! Colours, columns and numbers for people.

use std::io::IsTerminal;

/// Widths of the columns: request, key, over, answered by, mark.
const WIDTHS: [usize; 5] = [19, 6, 9, 32, 2];
/// How far lines are moved in.
const INDENT: usize = 4;

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint(bool);

/// What a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// A heading.
    Strong,
    /// As it should be.
    Good,
    /// Sidetrack's doing: a key, a fork.
    Ours,
    /// Not as it should be.
    Bad,
    /// Beside the point.
    Faint,
}

impl Paint {
    /// Colours if standard output is a terminal, and nobody said `NO_COLOR` (<https://no-color.org>).
    pub fn stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self(wanted && std::io::stdout().is_terminal())
    }

    /// A text in a tone.
    pub fn text(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => 1,
            Tone::Good => 32,
            Tone::Ours => 36,
            Tone::Bad => 31,
            Tone::Faint => 90,
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line of the table.
    pub fn columns(self, cells: [(&str, Tone); 6]) -> String {
        let mut line = " ".repeat(INDENT);
        for (at, (text, tone)) in cells.into_iter().enumerate() {
            let text = WIDTHS.get(at).map_or_else(|| text.to_owned(), |width| pad(text, *width));
            line.push_str(&self.text(&text, tone));
            line.push(' ');
        }
        line
    }
}

/// How wide everything before the mark is.
pub fn before_mark() -> usize {
    WIDTHS[..4].iter().sum::<usize>() + 3
}

/// Filled up with blanks, by characters.
pub fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

/// A time in the unit that suits it, eight characters wide.
pub fn seconds(seconds: f64) -> String {
    let text = match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    };
    format!("{text:>8}")
}

/// A number in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_or_so() {
        let shown = [0.000_084, 0.001_94, 0.0333, 1.5].map(seconds);
        assert_eq!(shown.each_ref().map(|text| text.trim()), ["84 µs", "1.94 ms", "33.3 ms", "1.50 s"]);
    }

    #[test]
    fn the_mark_stands_under_the_marks_of_other_lines() {
        let line = Paint::default().columns([("x", Tone::Plain); 6]);
        assert_eq!(line.chars().count(), INDENT + before_mark() + 1 + WIDTHS[4] + 1 + "x".len() + 1);
        assert_eq!((grouped(1_234_567), grouped(12)), ("1,234,567".into(), "12".into()));
    }
}
