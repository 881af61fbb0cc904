//! The commands that ask a cluster's API server: what can be said, and which verb it means.

mod fork_args;
mod get;
mod list;
mod run;
mod show;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueHint};
use sidetrack_objects::parse_duration;

pub use self::{
    fork_args::ForkArgs,
    run::run,
    show::{Form, Shape},
};
use super::{EXIT_FAILED, EXIT_NOTHING, EXIT_REFUSED, EXIT_TIMEOUT, EXIT_USAGE};
use crate::{
    access::Access,
    sandboxes::{Failure, condition::Aim},
};

/// How long it is waited where nothing else is said.
const WAIT: &str = "2m";

/// Commands for Sandboxes, by a cluster's API server.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Make a Sandbox: copies of workloads, which serve the requests that carry its key.
    Create(CreateArgs),
    /// Make Sandboxes be what a file says, by server-side apply.
    Apply(ApplyArgs),
    /// Show the Sandboxes of a namespace, or of all.
    List(ListArgs),
    /// Show a Sandbox: its forks, their pods and nodes, and why one is not ready.
    Get(GetArgs),
    /// Let a Sandbox live longer.
    Extend(ExtendArgs),
    /// Restart the pods of a Sandbox's forks, or of one of them.
    Restart(RestartArgs),
    /// Show what the pods of a Sandbox's forks say.
    Logs(LogsArgs),
    /// Delete Sandboxes, and with them their forks.
    Delete(DeleteArgs),
    /// Show the header that a request to a Sandbox carries.
    Key(KeyArgs),
    /// Wait until a Sandbox is ready, routed, forked, expired or gone.
    Wait(WaitArgs),
}

/// Which cluster, and which namespace.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Namespace; without it that of the context.
    #[arg(short, long, value_name = "NAME", help_heading = "Cluster")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; without it the current one.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// The cluster's kubeconfig. Without it: KUBECONFIG, the pod's own ServiceAccount, or ~/.kube/config.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// How its API server is reached.
    #[must_use]
    pub fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// Whether it is waited for.
#[derive(Clone, Debug, Args)]
pub struct TimeoutArgs {
    /// Give up waiting after so long, with exit code 4.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = WAIT)]
    pub timeout: Duration,
}

/// Who only asks what would come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// The API server checks the object and stores nothing.
    Server,
    /// The object is shown, and not sent.
    Client,
}

/// `sidetrack create`.
#[derive(Debug, Args)]
#[command(
    after_help = "--image, --env and --replicas belong to the --fork before them; with a single --fork they may stand anywhere."
)]
pub struct CreateArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// What is forked, and how.
    #[command(flatten)]
    pub forks: ForkArgs,
    /// Requests with this key are steered; several times. Without it: NAME.NAMESPACE.
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// How long it lives, as in 90m or 2h; without it as the cluster's settings say.
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<String>,
    /// What becomes of requests whose fork cannot be reached: an error, or the baseline's answer.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub on_unreachable: Unreachable,
    /// Wait until every node steers its requests.
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// How long.
    #[command(flatten)]
    pub timeout: TimeoutArgs,
    /// Make nothing: let the API server check it, or only show it.
    #[arg(long, value_enum, value_name = "WHO")]
    pub dry_run: Option<DryRun>,
    /// Show the object in place of what was done.
    #[arg(short, long, value_enum)]
    pub output: Option<Shape>,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What becomes of requests whose fork cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Unreachable {
    /// They are answered with an error.
    #[default]
    Fail,
    /// The baseline answers them.
    Baseline,
}

/// `sidetrack apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// YAML or JSON, one object or several; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Store nothing: let the API server check it.
    #[arg(long, value_name = "WHO", value_parser = ["server"])]
    pub dry_run: Option<String>,
    /// Take over fields that others have written.
    #[arg(long)]
    pub force_conflicts: bool,
    /// Show the objects in place of what was done.
    #[arg(short, long, value_enum)]
    pub output: Option<Shape>,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only those with these labels, as in team=shop.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Form,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Form,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack extend`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("how").required(true))]
pub struct ExtendArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// It lives so long from its creation on, as in 8h.
    #[arg(long, value_name = "TIME", group = "how", value_parser = ttl)]
    pub ttl: Option<String>,
    /// It lives so much longer; one whose time is over lives so long from now on.
    #[arg(long, value_name = "TIME", group = "how", value_parser = duration)]
    pub by: Option<Duration>,
    /// Show the object in place of what was done.
    #[arg(short, long, value_enum)]
    pub output: Option<Shape>,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// Only this fork.
    pub fork: Option<String>,
    /// Show the object in place of what was done.
    #[arg(short, long, value_enum)]
    pub output: Option<Shape>,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// Only this fork.
    pub fork: Option<String>,
    /// Go on as more is said, of the pods that are there when it begins.
    #[arg(short, long)]
    pub follow: bool,
    /// Only this container; without it all that are no init containers.
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// What each container said before it was started again.
    #[arg(short, long)]
    pub previous: bool,
    /// Only the last lines of each container.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Only what was said lately, as in 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Names of the Sandboxes.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// One that is not there is no error.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Wait until they are gone: until then their forks may still run.
    #[arg(long)]
    pub wait: bool,
    /// How long.
    #[command(flatten)]
    pub timeout: TimeoutArgs,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// Show each key in each carrier that is read.
    #[arg(long, conflicts_with = "curl")]
    pub all: bool,
    /// Show a whole command that asks for this URL.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub curl: Option<String>,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `sidetrack wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Name of the Sandbox.
    pub name: String,
    /// For what.
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    pub aim: Aim,
    /// How long.
    #[command(flatten)]
    pub timeout: TimeoutArgs,
    /// Cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// A duration as Go writes it.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// One that stays as it was written.
fn ttl(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

/// The exit code for a failure.
#[must_use]
pub fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => EXIT_USAGE,
        Failure::NotFound { .. } | Failure::Nothing(_) => EXIT_NOTHING,
        Failure::TimedOut { .. } => EXIT_TIMEOUT,
        Failure::Unauthorized { .. }
        | Failure::Forbidden { .. }
        | Failure::Policy { .. }
        | Failure::NotInstalled(_)
        | Failure::Exists(_)
        | Failure::Invalid { .. }
        | Failure::Conflict { .. } => EXIT_REFUSED,
        // What went wrong first.
        Failure::Several(all) => all.first().map_or(EXIT_FAILED, exit_code),
        Failure::File { .. }
        | Failure::Manifest(_)
        | Failure::NoCluster(_)
        | Failure::Access(_)
        | Failure::Unreachable { .. }
        | Failure::Refused { .. }
        | Failure::Answer { .. }
        | Failure::Never(_)
        | Failure::Output(_) => EXIT_FAILED,
    }
}

#[cfg(test)]
mod tests;
