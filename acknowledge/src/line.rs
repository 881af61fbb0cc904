//! What is in force on a node, and how it is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is in force of one Sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The generation of its `spec` that was looked at.
    pub generation: i64,
    /// Of the routes made of it: the same number in all processes that make the same of it.
    pub hash: u64,
}

/// Of each Sandbox that has routes on a node, by its UID, what is in force.
pub type Report = BTreeMap<String, InForce>;

/// One change of a node's [`Report`], as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "camelCase")]
pub enum Line {
    /// A Sandbox's routes are in force.
    InForce {
        /// Which Sandbox.
        uid: String,
        /// What of it.
        #[serde(flatten)]
        what: InForce,
    },
    /// Nothing of a Sandbox is in force any more.
    Withdrawn {
        /// Which Sandbox.
        uid: String,
    },
    /// All that is in force has been told; changes follow.
    Told,
    /// Nothing has changed.
    Beat,
}

/// A line that an agent of another version, or somebody else, has sent.
#[derive(Debug)]
pub struct UnreadableLine(pub(crate) serde_json::Error);

impl std::fmt::Display for UnreadableLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a line of a report: {}", self.0)
    }
}

impl std::error::Error for UnreadableLine {}

impl Line {
    /// What leads from one report to another.
    #[must_use]
    pub fn between(before: &Report, after: &Report) -> Vec<Self> {
        let withdrawn = before.keys().filter(|uid| !after.contains_key(*uid));
        let withdrawn = withdrawn.map(|uid| Self::Withdrawn { uid: uid.clone() });
        let said = after.iter().filter(|(uid, what)| before.get(*uid) != Some(what));
        withdrawn.chain(said.map(|(uid, what)| Self::InForce { uid: uid.clone(), what: *what })).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn reports() -> impl Strategy<Value = Report> {
        let what = (0..3_i64, 0..3_u64).prop_map(|(generation, hash)| InForce { generation, hash });
        btree_map("[a-d]", what, 0..5)
    }

    proptest! {
        #[test]
        fn lines_lead_from_one_report_to_the_other_and_none_is_idle(before in reports(), after in reports()) {
            let mut report = before.clone();
            let lines = Line::between(&before, &after);
            for line in &lines {
                let earlier = report.clone();
                match Line::read(&line.text()).expect("it was written here") {
                    Line::InForce { uid, what } => drop(report.insert(uid, what)),
                    Line::Withdrawn { uid } => drop(report.remove(&uid)),
                    Line::Told | Line::Beat => {}
                }
                prop_assert!(report != earlier);
            }
            prop_assert_eq!(report, after);
        }
    }

    #[test]
    fn a_line_of_a_later_version_is_named() {
        let error = Line::read(r#"{"said":"sung"}"#).expect_err("it is not known");
        assert!(error.to_string().contains("unknown variant `sung`"), "{error}");
    }
}
