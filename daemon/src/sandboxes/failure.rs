//! What may go wrong with a question to the API server, in words that say what to do.

use std::{error::Error, fmt, io, path::PathBuf, time::Duration};

use kube::core::{Status, response::StatusCause};

use crate::access::AccessError;

/// What was asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `get`, `list` and so on: the API's verb.
    pub verb: &'static str,
    /// Of which objects: in the singular, for people.
    pub kind: String,
    /// Of which one.
    pub name: Option<String>,
    /// In which namespace; none for objects of the cluster, and for all namespaces.
    pub namespace: Option<String>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command cannot be carried out as it stands.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("{}: cannot be read ({source}): check that it is there and that this user may read it", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what was expected.
    #[error("{0}")]
    Manifest(String),
    /// Nothing says where the API server is.
    #[error(
        "nothing says which cluster is meant: name its kubeconfig by --kubeconfig or KUBECONFIG, or run as a pod with a \
         ServiceAccount ({0})"
    )]
    NoCluster(String),
    /// What says so cannot be used.
    #[error(transparent)]
    Access(Box<AccessError>),
    /// Nobody answers.
    #[error(
        "the API server at {server} does not answer: {why}; is it up, and is it the one that is meant (--context, --kubeconfig)?"
    )]
    Unreachable {
        /// Its address.
        server: String,
        /// The system's reason.
        why: String,
    },
    /// Who asks is not known.
    #[error("the API server at {server} does not know who asks: {why}; log in anew, or name another --context")]
    Unauthorized {
        /// Its address.
        server: String,
        /// Its words.
        why: String,
    },
    /// Who asks may not.
    #[error("not allowed: {why}; {advice}")]
    Forbidden {
        /// Which right is missing, in the server's words.
        why: String,
        /// Who has it.
        advice: String,
    },
    /// A policy of the cluster is against it.
    #[error("{asked} is refused by the policy {policy}: {why}")]
    Policy {
        /// What.
        asked: Box<Asked>,
        /// Its name.
        policy: String,
        /// Its words.
        why: String,
    },
    /// The cluster knows no such objects.
    #[error(
        "the cluster at {0} has no Sandboxes: Sidetrack is not installed there; install it, or apply its definitions (deploy/crd)"
    )]
    NotInstalled(String),
    /// There is no such object.
    #[error("there is no {asked}{advice}")]
    NotFound {
        /// What.
        asked: Box<Asked>,
        /// What to do.
        advice: String,
    },
    /// There is one of this name.
    #[error(
        "there is a {0} already: choose another name, change that one by `sidetrack apply`, or let it live longer by `sidetrack \
         extend`"
    )]
    Exists(Box<Asked>),
    /// The object is not valid.
    #[error("{asked} is not valid:{}", lines(mistakes))]
    Invalid {
        /// What.
        asked: Box<Asked>,
        /// Everything that is wrong, each with its field.
        mistakes: Vec<String>,
    },
    /// Somebody else has written these fields.
    #[error(
        "{asked} has fields that others have written:{}\ntake them out of the file, or take them over by --force-conflicts",
        lines(fields)
    )]
    Conflict {
        /// What.
        asked: Box<Asked>,
        /// Which fields, and who.
        fields: Vec<String>,
    },
    /// The server says something else.
    #[error("{asked}: the API server refuses to {} it: {why}", asked.verb)]
    Refused {
        /// What.
        asked: Box<Asked>,
        /// Its words.
        why: String,
        /// Its number.
        code: u16,
    },
    /// The answer makes no sense.
    #[error(
        "{asked}: the API server's answer is not understood ({why}): is this `sidetrack` as new as what is installed?"
    )]
    Answer {
        /// What.
        asked: Box<Asked>,
        /// Why.
        why: String,
    },
    /// It has not come to be in time.
    #[error("{what} after {}: {why}", words(*.limit))]
    TimedOut {
        /// What is not so.
        what: String,
        /// After how long.
        limit: Duration,
        /// How far it is.
        why: String,
    },
    /// It will not come to be.
    #[error("{0}")]
    Never(String),
    /// There is nothing of what was asked for.
    #[error("{0}")]
    Nothing(String),
    /// Some of what was asked for went well, and some did not.
    #[error("{}", several(.0))]
    Several(Vec<Failure>),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

/// Each below the one before, moved in.
fn lines(all: &[String]) -> String {
    all.iter().flat_map(|one| ["\n  ", one]).collect()
}

fn several(all: &[Failure]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A time as it was given: whole seconds, or less than one.
fn words(limit: Duration) -> String {
    if limit.subsec_nanos() == 0 { format!("{}s", limit.as_secs()) } else { format!("{limit:?}") }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Nothing(error) => Self::NoCluster(error.to_string()),
            error => Self::Access(Box::new(error)),
        }
    }
}

impl Failure {
    /// What the failure of a question to this server means.
    #[must_use]
    pub fn of(error: kube::Error, asked: Asked, server: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::status(&status, asked, server),
            kube::Error::SerdeError(error) => Self::Answer { asked: Box::new(asked), why: error.to_string() },
            kube::Error::Auth(error) => Self::Unauthorized { server: server.to_owned(), why: root(&error) },
            error => Self::Unreachable { server: server.to_owned(), why: root(&error) },
        }
    }

    /// What an answer other than the object means.
    #[must_use]
    pub fn status(status: &Status, asked: Asked, server: &str) -> Self {
        let message = status.message.trim();
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        if let Some((policy, why)) = policy(message) {
            return Self::Policy { asked: Box::new(asked), policy, why };
        }
        // By its number: what is no answer of the API's own, such as of a path that is not there, has no reason that is known.
        if status.code == 401 {
            return Self::Unauthorized { server: server.to_owned(), why: message.to_owned() };
        }
        if status.code == 403 {
            return Self::Forbidden { why: right(message), advice: who_may(&asked) };
        }
        if status.code == 404 {
            return Self::missing(status, asked, server);
        }
        if status.is_already_exists() {
            return Self::Exists(Box::new(asked));
        }
        if status.code == 409 && causes.iter().any(|cause| cause.reason == "FieldManagerConflict") {
            let fields = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            return Self::Conflict { asked: Box::new(asked), fields };
        }
        if status.code == 422 && !causes.is_empty() {
            return Self::Invalid { asked: Box::new(asked), mistakes: mistakes(causes) };
        }
        match unknown_fields(message) {
            Some(mistakes) => Self::Invalid { asked: Box::new(asked), mistakes },
            None => Self::Refused { asked: Box::new(asked), why: message.to_owned(), code: status.code },
        }
    }

    /// Something is not there: the object, its namespace, or the objects' definition.
    fn missing(status: &Status, asked: Asked, server: &str) -> Self {
        let kind = status.details.as_ref().map(|details| details.kind.as_str()).unwrap_or_default();
        match kind {
            "namespaces" => {
                let name = asked.namespace.clone();
                let asked = Asked { kind: "namespace".into(), name, namespace: None, ..asked };
                Self::NotFound { asked: Box::new(asked), advice: ": name another one (-n)".into() }
            }
            // Of a definition that is not there nothing is said but that.
            "" if asked.kind == "sandbox" => Self::NotInstalled(server.to_owned()),
            _ => {
                let advice = match (&asked.namespace, asked.kind.as_str()) {
                    (Some(namespace), "sandbox") => format!("; `sidetrack list -n {namespace}` shows which there are"),
                    // It may be something else that is not there: of a log, its node.
                    _ => format!(" ({})", status.message.trim()),
                };
                Self::NotFound { asked: Box::new(asked), advice }
            }
        }
    }

    /// Whether asking again may go better, without anybody doing something.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => *code >= 500 || *code == 429,
            _ => false,
        }
    }
}

/// The last reason in a chain of them: what the system said.
fn root(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Which policy of the cluster has refused something, and its words.
fn policy(message: &str) -> Option<(String, String)> {
    let (_, rest) = message.split_once("ValidatingAdmissionPolicy '")?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, why) = rest.split_once("denied request: ")?;
    Some((name.to_owned(), why.to_owned()))
}

/// Which right is missing: what stands behind the object's name.
fn right(message: &str) -> String {
    message.split_once("is forbidden: ").map_or(message, |(_, why)| why).to_owned()
}

/// Who has such a right.
fn who_may(asked: &Asked) -> String {
    let role = match asked.verb {
        "get" | "list" | "watch" => "view",
        _ => "edit",
    };
    match &asked.namespace {
        Some(namespace) => format!("whoever has the role {role} in namespace {namespace} has it, ask for that"),
        None => {
            format!("whoever has the role {role} in the whole cluster has it; ask for that, or name a namespace (-n)")
        }
    }
}

/// What is wrong with an object, one a line.
fn mistakes(causes: &[StatusCause]) -> Vec<String> {
    // Says that rules were not looked at because of what stands before.
    let all = causes.iter().filter(|cause| cause.field != "<nil>");
    let mut lines: Vec<_> = all.map(|cause| format!("{}: {}", cause.field, mistake(&cause.message))).collect();
    lines.dedup();
    if lines.is_empty() { causes.iter().map(|cause| cause.message.clone()).collect() } else { lines }
}

/// A rule's message stands behind the type of what it is about, which says nothing.
fn mistake(message: &str) -> &str {
    ["object", "array", "string", "integer", "boolean"]
        .iter()
        .find_map(|kind| message.strip_prefix(&format!("Invalid value: \"{kind}\": ")))
        .unwrap_or(message)
}

/// The fields that a definition does not have, as a server-side apply or a strict decoder names them.
fn unknown_fields(message: &str) -> Option<Vec<String>> {
    if let Some((_, list)) = message.split_once("strict decoding error: ") {
        return Some(list.split(", ").map(str::to_owned).collect());
    }
    let (_, list) =
        message.split_once("failed to create typed patch object (").and_then(|(_, it)| it.split_once("): "))?;
    let list = list.strip_prefix("errors:").unwrap_or(list);
    Some(
        list.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| line.trim_start_matches('.').to_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests;
