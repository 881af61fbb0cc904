//! Tables for people, JSON for everything else.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Table,
    /// One JSON object with `items`.
    Json,
}

/// How connections are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FlowsOutput {
    /// A table for people, one line for each connection.
    #[default]
    Table,
    /// The same, with a line for each leg below its connection.
    Wide,
    /// One JSON object with `items`.
    Json,
}

impl Output {
    /// The report as text, with a line end.
    pub(super) fn show<T: Serialize>(self, report: &T, table: impl Fn(&T) -> String) -> String {
        match self {
            Self::Table => table(report),
            Self::Json => {
                let text = serde_json::to_string_pretty(report).expect("reports are structs, lists, texts and numbers");
                text + "\n"
            }
        }
    }
}

/// A text from outside (a namespace's name, a filter's, a key) for a table: what a terminal would obey, or not show, as its code. JSON
/// has its own rule for that.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => plain.push(c),
            c => plain.extend(c.escape_debug()),
        }
    }
    plain
}

/// A table without lines, its head in capitals. Columns of numbers, whose names begin with `>`, end under each other.
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|name| name.trim_start_matches('>')));
    for (column, name) in table.column_iter_mut().zip(head) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table's lines without the blanks that fill its last column, each moved in by some.
pub(super) fn text(table: &Table, indent: usize) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // Cells have a blank on either side.
        let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
        text.push_str(&" ".repeat(indent));
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A time in one unit or two, as people say it.
pub(super) fn age(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    match whole {
        0 => format!("{:.0}ms", seconds.max(0.0) * 1_000.0),
        1..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3_600 % 24),
    }
}

/// A number with its noun.
pub(super) fn many(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// A large number in groups of three.
pub(super) fn grouped(n: u64) -> String {
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
    fn what_a_terminal_would_obey_is_shown_as_its_code_and_all_else_stays() {
        assert_eq!(plain("shop/Bücher-Ελλάς \"a\\b'"), "shop/Bücher-Ελλάς \"a\\b'");
        // a colour, a title, the C1 form of the same, a line's end, and text that runs backwards
        assert_eq!(plain("a\x1b[31m\x1b]0;x\x07"), "a\\u{1b}[31m\\u{1b}]0;x\\u{7}");
        assert_eq!(plain("a\u{9b}2J\r\nb\u{202e}c\u{7f}"), "a\\u{9b}2J\\r\\nb\\u{202e}c\\u{7f}");
    }
}
