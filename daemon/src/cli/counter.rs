//! `sidetrack explain-counter`.

use std::fmt::Write;

use comfy_table::Cell;
use serde::Serialize;
use sidetrack_splice::abi::reason::{Effect, Reason};

use super::{
    color::{Tone, cell},
    output::{self, Output},
};

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

/// What is said of counters.
#[derive(Debug, Serialize)]
struct Explained {
    items: Vec<Explanation>,
}

#[derive(Debug, Serialize)]
struct Explanation {
    name: &'static str,
    meaning: &'static str,
    effect: &'static str,
    effect_meaning: &'static str,
    advice: Option<&'static str>,
}

impl Explanation {
    fn of(reason: Reason) -> Self {
        Self {
            name: reason.name(),
            meaning: reason.meaning(),
            effect: reason.effect().name(),
            effect_meaning: reason.effect().words(),
            advice: Some(reason.advice()).filter(|advice| !advice.is_empty()),
        }
    }
}

/// What a counter means, whether it is a problem, and what to do; all of them without a name.
pub fn explain(name: Option<&str>, output: Output) -> Result<String, UnknownCounter> {
    let Some(name) = name else {
        let items = Reason::ALL.iter().map(|reason| Explanation::of(*reason)).collect();
        return Ok(output.show(&Explained { items }, |_| all()));
    };
    let found = Reason::ALL.iter().find(|reason| reason.name().eq_ignore_ascii_case(name));
    let reason = *found.ok_or_else(|| UnknownCounter { name: name.to_owned(), alike: alike(name) })?;
    Ok(output.show(&Explained { items: vec![Explanation::of(reason)] }, |_| one(reason)))
}

fn all() -> String {
    let mut table = output::table(&["COUNTER", "EFFECT", "MEANING"]);
    for reason in Reason::ALL {
        let effect = reason.effect();
        table.add_row([Cell::new(reason.name()), cell(effect.name(), tone(effect)), Cell::new(reason.meaning())]);
    }
    output::text(&table, 0)
}

fn one(reason: Reason) -> String {
    let mut text = format!("{}: {}\n{}\n", reason.name(), reason.meaning(), reason.effect().words());
    if !reason.advice().is_empty() {
        _ = writeln!(text, "{}", reason.advice()); // never fails on a string
    }
    text
}

/// How an effect is painted.
pub(super) fn tone(effect: Effect) -> Tone {
    match effect {
        Effect::None | Effect::Delay => Tone::Good,
        Effect::Unsteered | Effect::Refused => Tone::Odd,
        Effect::Defect => Tone::Bad,
    }
}

/// Names that share a word with what was asked for, or differ from it in few letters; nearest first.
fn alike(asked: &str) -> Vec<&'static str> {
    const MOST: usize = 5;
    let asked = asked.to_ascii_lowercase().replace(['-', ' '], "_");
    let near = |name: &'static str| {
        let far = distance(name, &asked);
        (far * 3 <= name.len().max(asked.len()) || shares_word(name, &asked)).then_some((far, name))
    };
    let mut found: Vec<_> = Reason::ALL.iter().filter_map(|reason| near(reason.name())).collect();
    found.sort_by_key(|(far, _)| *far);
    found.into_iter().take(MOST).map(|(_, name)| name).collect()
}

fn shares_word(known: &str, asked: &str) -> bool {
    known.split('_').any(|word| word.len() > 2 && asked.split('_').any(|other| other == word))
}

/// Letters that are to be put, taken away or changed to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_explained_with_whether_it_is_a_problem_and_what_to_do() {
        let said = |name| explain(Some(name), Output::Table);
        assert_eq!(
            said("splice_hot"),
            Ok("splice_hot: The owner changed to a leg that was there.\nNo problem: all is as it should be.\n".into())
        );
        let ring = said("RING_FULL").expect("case does not count");
        for words in
            ["ring_full: The ring buffer had no room", "a problem only where", "raise `limits.ringBufferBytes`"]
        {
            assert!(ring.contains(words), "{words}\nis not in\n{ring}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        let said = |name| explain(Some(name), Output::Table).expect_err("no such counter").to_string();
        assert!(said("splice-warm").contains("but there are splice_hot, splice_cold"), "{}", said("splice-warm"));
        assert!(said("rign_full").contains("but there are ring_full"), "{}", said("rign_full"));
        assert!(said("zzz").contains("\"zzz\"; `sidetrack explain-counter` lists all"), "{}", said("zzz"));
    }

    #[test]
    fn all_are_listed_without_a_name_and_json_has_the_same() {
        assert_eq!(explain(None, Output::Table).expect("all").lines().count(), Reason::ALL.len() + 1);
        let json = |name| -> serde_json::Value {
            serde_json::from_str(&explain(name, Output::Json).expect("known")).expect("JSON")
        };
        assert_eq!(json(None)["items"].as_array().map(Vec::len), Some(Reason::ALL.len()));
        let one = &json(Some("gone_unsaid"))["items"][0];
        assert_eq!((&one["name"], &one["effect"]), (&"gone_unsaid".into(), &"delay".into()));
        assert!(one["advice"].is_string() && json(Some("tracked"))["items"][0]["advice"].is_null());
    }
}
