//! The report as a table for people.

use super::{
    cast::Condition,
    measure::Quantity,
    report::{Report, Row},
};
use std::fmt::Write;

/// The whole report.
pub fn table(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Linux {}, {} x {}, {}; load average before the start {:.2}\n\
         {} rounds, medians; ratios to the same request with no program in either pod (in turns: to the keyed one);\n\
         request head of {} bytes\n\n",
        machine.kernel,
        machine.cpus,
        machine.processor,
        machine.congestion_control,
        machine.load,
        report.rounds,
        report.request_head
    );
    let mut rows = vec![words([
        "load",
        "tool",
        "condition",
        "quantity",
        "reference",
        "value",
        "ratio",
        "lowest",
        "highest",
        "bound",
        "verdict",
    ])];
    rows.extend(report.items.iter().map(ratio));
    text.push_str(&columns(&rows, 4));
    text.push_str("\nA/A's verdict is its spread: by how much it misses 1 in the middle round.\n\n");
    let mut rows = vec![words(["packets", "condition", "program", "ns/packet", "per request", "packets counted"])];
    rows.extend(report.programs.iter().map(|cost| {
        vec![
            cost.kind.to_owned(),
            cost.condition.label().to_owned(),
            cost.hook.clone(),
            format!("{:.0}", cost.nanoseconds_per_packet),
            format!("{:.1}", cost.packets_per_request),
            cost.packets.to_string(),
        ]
    }));
    text.push_str(&columns(&rows, 3));
    text.push_str("\nThe programs of the client's pod alone. A packet to a fork passes egress twice.\n");
    text
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn ratio(row: &Row) -> Vec<String> {
    let bound = match (row.bound, row.quantity) {
        (None, _) => String::new(),
        (Some(bound), Quantity::Throughput) => format!(">= {bound:.2}"),
        (Some(bound), _) => format!("<= {bound:.2}"),
    };
    let verdict = match row.condition {
        Condition::Again => format!("spread {:.3}", row.spread),
        _ => row.verdict.label().to_owned(),
    };
    vec![
        row.measure.label().to_owned(),
        row.tool.to_owned(),
        row.condition.label().to_owned(),
        row.quantity.label().to_owned(),
        format!("{:.1}", row.plain),
        format!("{:.1}", row.value),
        format!("{:.3}", row.ratio),
        format!("{:.3}", row.range.0),
        format!("{:.3}", row.range.1),
        bound,
        verdict,
    ]
}

/// Columns as wide as what stands in them; the first `left` are words, the others numbers, the last is never padded.
fn columns(rows: &[Vec<String>], left: usize) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let widths: Vec<_> = (0..count).map(|n| rows.iter().map(|row| row[n].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (n, (word, width)) in row.iter().zip(&widths).enumerate() {
            // A String takes all that is written to it.
            let _ = match n {
                n if n < left => write!(line, "{word:width$}  "),
                n if n + 1 == count => write!(line, "{word}"),
                _ => write!(line, "{word:>width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let rows = [words(["a", "n", "end"]), words(["long", "10", ""])];
        assert_eq!(columns(&rows, 1), "a      n  end\nlong  10\n");
    }
}
