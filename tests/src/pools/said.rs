//! What a client says: a line of JSON for each exchange that went wrong, and at its end how many went well.

use crate::process::Output;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Line {
    /// An exchange ended without an answer.
    Failed(Exchange),
    /// An answer is not what it must be.
    Wrong(Exchange),
    /// At the end: so many requests of a kind were answered by this server, as they must be.
    Served {
        /// The kind.
        kind: String,
        /// The server.
        server: String,
        /// How many.
        count: u64,
    },
    /// The client has said all.
    End,
}

/// An exchange that did not go well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Exchange {
    /// Its kind.
    pub kind: String,
    /// Method and target.
    pub request: String,
    /// What happened, in the client's own words.
    pub error: String,
    /// When it began, in microseconds since 1970.
    pub sent: u64,
    /// When it ended.
    pub ended: u64,
}

/// All that one client has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Exchanges without an answer.
    pub failed: Vec<Exchange>,
    /// Answers that are not what they must be.
    pub wrong: Vec<Exchange>,
    /// Answers that are, by kind and server.
    pub served: BTreeMap<(String, String), u64>,
    /// Whether it came to its end.
    pub ended: bool,
    /// Lines of another form: an interpreter's own words.
    pub other: Vec<String>,
}

impl Said {
    /// Reads what a program has written.
    #[must_use]
    pub fn read(output: &Output) -> Self {
        let mut said = Self::default();
        for line in output.lines() {
            match serde_json::from_str(&line) {
                Ok(line) => said.add(line),
                Err(_) => said.other.push(line),
            }
        }
        said
    }

    /// Takes in one line.
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Failed(exchange) => self.failed.push(exchange),
            Line::Wrong(exchange) => self.wrong.push(exchange),
            Line::Served { kind, server, count } => *self.served.entry((kind, server)).or_default() += count,
            Line::End => self.ended = true,
        }
    }

    /// How many requests of a kind went well.
    #[must_use]
    pub fn served(&self, kind: &str) -> u64 {
        self.served.iter().filter(|((of, _), _)| of == kind).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_write_is_read() {
        let lines = [
            r#"{"outcome":"failed","kind":"a","request":"GET /","error":"\"reset\"","sent":1,"ended":2}"#,
            r#"{"outcome":"served","kind":"a","server":"steady","count":7}"#,
            r#"{"outcome":"end"}"#,
        ];
        let mut said = Said::default();
        for line in lines {
            said.add(serde_json::from_str(line).unwrap());
        }
        assert_eq!(said.failed[0].error, "\"reset\"");
        assert_eq!((said.served("a"), said.served("b"), said.ended), (7, 0, true));
    }
}
