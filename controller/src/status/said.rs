//! What is said in events: the conditions that have changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Somebody should look.
    pub warning: bool,
    /// The condition's reason.
    pub reason: String,
    /// The condition.
    pub action: String,
    /// Its message.
    pub note: String,
}

/// An event's note is at most so long.
const NOTE_MAX: usize = 1000;
/// Reasons of conditions that do not hold, and are no trouble.
const ON_ITS_WAY: &[&str] = &["Starting", "Expired"];

/// What has changed from the old conditions to the new ones.
#[must_use]
pub fn said(old: &[Condition], new: &[Condition]) -> Vec<Said> {
    new.iter().filter_map(|condition| one(old.iter().find(|it| it.type_ == condition.type_), condition)).collect()
}

fn one(old: Option<&Condition>, new: &Condition) -> Option<Said> {
    let holds = new.status == "True";
    // These are good where they hold, the others where they do not.
    let good_if_it_holds = matches!(new.type_.as_str(), "Forked" | "Ready");
    let well = holds == good_if_it_holds;
    match old {
        Some(old) if old.status == new.status && old.reason == new.reason => return None,
        // That a trouble has not come yet is no news.
        None if well && !good_if_it_holds => return None,
        _ => {}
    }
    let on_its_way = !holds && ON_ITS_WAY.contains(&new.reason.as_str());
    let note = if new.type_ == new.reason { new.message.clone() } else { format!("{}: {}", new.type_, new.message) };
    Some(Said {
        warning: !well && !on_its_way && new.type_ != "Expired",
        reason: new.reason.clone(),
        action: new.type_.clone(),
        note: note[..note.floor_char_boundary(NOTE_MAX)].to_owned(),
    })
}
