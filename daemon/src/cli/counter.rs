//! `sidetrack explain-counter`.

use comfy_table::Cell;
use sidetrack_splice::abi::reason::Reason;

use super::output;

/// A name that no counter has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no counter is named {name:?}{}; `sidetrack explain-counter` lists all", hint(.alike))]
pub struct UnknownCounter {
    name: String,
    alike: Vec<&'static str>,
}

fn hint(alike: &[&str]) -> String {
    if alike.is_empty() { String::new() } else { format!(", but there are {}", alike.join(", ")) }
}

/// What a counter means; all of them without a name.
pub fn explain(name: Option<&str>) -> Result<String, UnknownCounter> {
    let Some(name) = name else {
        let mut table = output::table(&["COUNTER", "MEANING"]);
        for reason in Reason::ALL {
            table.add_row([Cell::new(reason.name()), Cell::new(reason.meaning().trim())]);
        }
        return Ok(output::text(&table, 0));
    };
    let found = Reason::ALL.iter().find(|reason| reason.name().eq_ignore_ascii_case(name));
    found.map(|reason| format!("{}: {}\n", reason.name(), reason.meaning().trim())).ok_or_else(|| {
        let alike = Reason::ALL.iter().map(|reason| reason.name()).filter(|known| shares_word(known, name));
        UnknownCounter { name: name.to_owned(), alike: alike.collect() }
    })
}

fn shares_word(known: &str, asked: &str) -> bool {
    let words = |text: &str| text.to_ascii_lowercase().split(['_', '-', ' ']).map(str::to_owned).collect::<Vec<_>>();
    let asked = words(asked);
    words(known).iter().any(|word| word.len() > 2 && asked.contains(word))
}
