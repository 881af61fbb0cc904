//! The names by which what the controller writes is known again.

use std::fmt::Write as _;

use ring::digest::{Context, SHA256};
pub use sidetrack_resolve::read::{FORK_LABEL, SANDBOX_LABEL};

/// What all labels and annotations of Sidetrack's begin with.
pub const PREFIX: &str = "sidetrack.dev/";
/// Says on a pod of a fork, and on its Deployment, which copy of which Sandbox it is: by the Sandbox's UID, so that one of the same
/// name, before or after, has another.
pub const COPY_LABEL: &str = "sidetrack.dev/copy";
/// Says on a fork's Deployment what it was made of: while that is the same, nothing is written.
pub const INPUTS: &str = "sidetrack.dev/inputs";
/// Says on a fork's Deployment which pod template was copied.
pub const BASELINE: &str = "sidetrack.dev/baseline";
/// Says on a fork's Deployment what its author should know of the copy: a list in JSON.
pub const HAZARDS: &str = "sidetrack.dev/hazards";
/// On a Sandbox: when somebody has asked for new pods of all its forks, by RFC 3339; with `.` and a fork's name behind it, of that one.
/// Carried into their pod templates.
pub const RESTARTED_AT: &str = "sidetrack.dev/restarted-at";
/// Keeps a Sandbox until its forks have gone.
pub const FINALIZER: &str = "sidetrack.dev/forks";
/// Whose fields the controller's are.
pub const MANAGER: &str = "sidetrack-controller";
/// Forks have this priority class, where there is one of this name.
pub const PRIORITY_CLASS: &str = "sidetrack-forks";

/// So long at most is a label's value, and a name that is part of one.
pub const LABEL_MAX: usize = 63;

/// The first eight hexadecimal digits of a digest.
#[must_use]
pub fn short(parts: &[&str]) -> String {
    hex(parts, 4)
}

/// The first sixteen.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    hex(parts, 8)
}

fn hex(parts: &[&str], bytes: usize) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
        // No part ends in the middle of another.
        context.update(&[0]);
    }
    context.finish().as_ref()[..bytes].iter().fold(String::new(), |mut text, byte| {
        // A string takes all that is written to it.
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// `text` and the hash, as far as a label's value may be long.
#[must_use]
pub fn with_hash(text: &str, hash: &str) -> String {
    let room = LABEL_MAX - hash.len() - 1;
    let end = text.floor_char_boundary(room.min(text.len()));
    // What stands before the hash must not end in a sign.
    let kept = text[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    if kept.is_empty() { hash.to_owned() } else { format!("{kept}-{hash}") }
}

/// What a fork's objects are called. The names of its pods stay within what a host name may be long.
#[must_use]
pub fn object(sandbox: &str, fork: &str, copy: &str) -> String {
    let mut name = format!("{sandbox}-{fork}").replace('.', "-");
    name.truncate(40);
    format!("{}-{copy}", name.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_hash_is_a_labels_value() {
        assert_eq!(with_hash("orders", "0a1b2c3d"), "orders-0a1b2c3d");
        assert_eq!(with_hash("", "0a1b2c3d"), "0a1b2c3d");
        assert_eq!(with_hash(&"x".repeat(63), "0a1b2c3d"), format!("{}-0a1b2c3d", "x".repeat(54)));
        assert_eq!(
            with_hash(&format!("{}-_.yyyyyyyyyyy", "x".repeat(51)), "0a1b2c3d"),
            format!("{}-0a1b2c3d", "x".repeat(51))
        );
    }

    #[test]
    fn names_of_forks_of_different_sandboxes_differ() {
        let (one, other) = (short(&["u1", "c"]), short(&["u2", "b-c"]));
        assert_ne!(object("a-b", "c", &one), object("a", "b-c", &other));
        assert_eq!(object("pr.1", "orders", "0a1b2c3d"), "pr-1-orders-0a1b2c3d");
        assert_eq!(object(&"s".repeat(63), "orders", "0a1b2c3d").len(), 49);
        assert_ne!(short(&["ab", "c"]), short(&["a", "bc"]));
    }
}
