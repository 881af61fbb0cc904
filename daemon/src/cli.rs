//! The command line: what can be asked for, and how the answers look.
//!
//! `docs/cli.md` describes commands, exit codes and the JSON forms.

mod color;
mod counter;
mod flows;
mod output;
mod program;
mod routes;
pub mod sandboxes;
mod status;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::LazyLock,
};

use clap::{Args, Parser, Subcommand};
use sidetrack_splice::abi::ABI;

pub use self::{
    counter::UnknownCounter,
    output::{FlowsOutput, Output},
    program::{CompletionArgs, complete, completion, parse},
    sandboxes::SandboxCommand,
};
use crate::{
    config::{
        DEFAULT_CONTROLLER_TOKEN, DEFAULT_LOG_LEVEL, DEFAULT_NAMESPACE, DEFAULT_NETNS_DIR, DEFAULT_PIN_DIR, ENV_CONFIG,
        ENV_CONTROLLER_NAMESPACE, ENV_CONTROLLER_TOKEN, ENV_LISTEN, ENV_LOG_FORMAT, ENV_LOG_LEVEL, ENV_NETNS_DIR,
        ENV_PIN_DIR, ENV_POD_IP, ENV_POD_NAME, ENV_POD_NAMESPACE, ENV_REPORTS, ENV_ROUTES,
    },
    sandboxes::Failure,
    state::{self, Pins, Snapshot, StateError},
    telemetry::LogFormat,
};

/// It went well.
pub const EXIT_OK: u8 = 0;
/// It failed; standard error says why and what to do.
pub const EXIT_FAILED: u8 = 1;
/// The command line cannot be understood (clap's own number).
pub const EXIT_USAGE: u8 = 2;
/// There is nothing to show: no agent has run with this pin directory, or only one of another ABI; no such object in the cluster.
pub const EXIT_NOTHING: u8 = 3;
/// What was waited for has not come to be in time.
pub const EXIT_TIMEOUT: u8 = 4;
/// The API server refuses: not allowed, not valid, or not installed. To ask again does not help.
pub const EXIT_REFUSED: u8 = 5;

static VERSION: LazyLock<String> = LazyLock::new(|| format!("{} (ABI {ABI})", env!("CARGO_PKG_VERSION")));

/// Steers requests that carry a sandbox key to forked pods, inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "sidetrack", version = VERSION.as_str(), max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "routes, flows and status read what is pinned in the kernel: they work with the agent dead.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// By the API server of a cluster.
    #[command(flatten)]
    Sandboxes(SandboxCommand),
    /// Attach to the pods of this node and steer their requests.
    Agent(AgentArgs),
    /// Make the forks that a cluster's Sandboxes ask for, and remove them again.
    Controller(ControllerArgs),
    /// Show which key leads where, at which service.
    Routes(ShowArgs),
    /// Show connections, and who serves each.
    Flows(FlowsArgs),
    /// Show the agent, the pods it is attached to, its programs and their neighbours, and what was counted.
    Status(StatusArgs),
    /// Remove every program, link and map, from every namespace. Connections that are spliced break.
    Purge(PurgeArgs),
    /// Say what a counter of `sidetrack status` means; without a name, what all of them mean.
    ExplainCounter(ExplainArgs),
    /// Write a script by which a shell completes commands and options.
    Completion(CompletionArgs),
}

/// Where the pins are.
#[derive(Clone, Debug, Args)]
pub struct PinArgs {
    /// Directory of a bpffs in which programs, links and maps are pinned.
    #[arg(long, value_name = "DIR", env = ENV_PIN_DIR, default_value = DEFAULT_PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// Where the namespaces are.
#[derive(Clone, Debug, Args)]
pub struct NetnsArgs {
    /// Directory of named network namespaces; may be given several times.
    #[arg(long = "netns-dir", value_name = "DIR", env = ENV_NETNS_DIR, value_delimiter = ':',
          default_value = DEFAULT_NETNS_DIR)]
    pub netns_dirs: Vec<PathBuf>,
}

/// How to show it.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// For people, or one JSON object.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `sidetrack agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The route table, read again whenever it changes. Without it routes come from the cluster.
    #[arg(long, value_name = "FILE", env = ENV_ROUTES)]
    pub routes: Option<PathBuf>,
    /// The cluster, where there is no --routes. Without it: KUBECONFIG, the pod's own ServiceAccount, or ~/.kube/config.
    #[arg(long, value_name = "FILE", conflicts_with = "routes")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it the current one.
    #[arg(long, value_name = "NAME", conflicts_with = "routes")]
    pub context: Option<String>,
    /// Namespace of the controller, which is told what is in force on this node; without it nobody is.
    #[arg(long, value_name = "NAMESPACE", env = ENV_CONTROLLER_NAMESPACE, conflicts_with = "routes")]
    pub controller_namespace: Option<String>,
    /// Token of this agent's ServiceAccount for the controller: a projected one, for the audience sidetrack.dev/controller.
    #[arg(long, value_name = "FILE", env = ENV_CONTROLLER_TOKEN, default_value = DEFAULT_CONTROLLER_TOKEN)]
    pub controller_token: PathBuf,
    /// Serve /livez, /readyz and /metrics here, as in "[::]:15020"; without it nothing is served.
    #[arg(long, value_name = "ADDRESS", env = ENV_LISTEN)]
    pub listen: Option<SocketAddr>,
    /// Namespaces to attach in.
    #[command(flatten)]
    pub netns: NetnsArgs,
    /// Pins.
    #[command(flatten)]
    pub pins: PinArgs,
    /// Settings: carriers, limits, time-outs.
    #[arg(long, value_name = "FILE", env = ENV_CONFIG)]
    pub config: Option<PathBuf>,
    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `sidetrack controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// The cluster. Without it: KUBECONFIG, the pod's own ServiceAccount, or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace that it runs in: its Lease is there, and nothing is forked.
    #[arg(long, value_name = "NAME", env = ENV_POD_NAMESPACE, default_value = DEFAULT_NAMESPACE)]
    pub namespace: String,
    /// Its name among several; without it the host's.
    #[arg(long, value_name = "NAME", env = ENV_POD_NAME)]
    pub identity: Option<String>,
    /// Serve /livez, /readyz and /metrics here, as in "[::]:15021"; without it nothing is served.
    #[arg(long, value_name = "ADDRESS", env = ENV_LISTEN)]
    pub listen: Option<SocketAddr>,
    /// Hear here what agents say is in force, as in "[::]:15443"; without it condition Routed is not written.
    #[arg(long, value_name = "ADDRESS", env = ENV_REPORTS)]
    pub reports: Option<SocketAddr>,
    /// The address by which agents reach it, where --reports is all addresses.
    #[arg(long, value_name = "IP", env = ENV_POD_IP)]
    pub address: Option<IpAddr>,
    /// ServiceAccount of the agents, in the same namespace.
    #[arg(long, value_name = "NAME", default_value = "sidetrack-agent")]
    pub agents: String,
    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Logs.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines look.
    #[arg(long, value_enum, env = ENV_LOG_FORMAT, default_value_t)]
    pub log_format: LogFormat,
    /// error, warn, info, debug or trace; or filters by target, as in "info,sidetrack=debug".
    #[arg(long, value_name = "LEVEL", env = ENV_LOG_LEVEL, default_value = DEFAULT_LOG_LEVEL)]
    pub log_level: String,
}

/// `sidetrack routes`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Pins.
    #[command(flatten)]
    pub pins: PinArgs,
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `sidetrack flows`.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Pins.
    #[command(flatten)]
    pub pins: PinArgs,
    /// For people, the same with a line for each leg, or one JSON object.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: FlowsOutput,
    /// Closed connections too, which are kept for a minute for their last segments.
    #[arg(short, long)]
    pub all: bool,
    /// Only connections to this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only connections whose current exchange is served by a fork of this key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// `sidetrack status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Pins and form.
    #[command(flatten)]
    pub show: ShowArgs,
    /// Namespaces to look into for other programs on the pods' interfaces.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// `sidetrack purge`.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Pins.
    #[command(flatten)]
    pub pins: PinArgs,
    /// Namespaces to clean.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// `sidetrack explain-counter`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of the counter.
    pub name: Option<String>,
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `sidetrack routes`, as text.
pub fn routes(args: &ShowArgs) -> Result<String, StateError> {
    let snapshot = Snapshot::routes(&Pins::open(&args.pins.pin_dir)?)?;
    Ok(args.output.output.show(&state::routes::Routes::of(&snapshot), routes::table))
}

/// `sidetrack flows`, as text.
pub fn flows(args: &FlowsArgs) -> Result<String, StateError> {
    let snapshot = Snapshot::flows(&Pins::open(&args.pins.pin_dir)?)?;
    let filter = state::flows::Filter { closed: args.all, service: args.service.clone(), key: args.key.clone() };
    let flows = state::flows::Flows::of(&snapshot, &filter);
    Ok(match args.output {
        FlowsOutput::Table => flows::table(&flows),
        FlowsOutput::Wide => flows::wide(&flows),
        FlowsOutput::Json => Output::Json.show(&flows, flows::table),
    })
}

/// `sidetrack status`, as text.
pub fn status(args: &StatusArgs) -> Result<String, StateError> {
    let pins = Pins::open(&args.show.pins.pin_dir)?;
    let status = state::status::Status::read(&pins, &args.netns.netns_dirs)?;
    Ok(args.show.output.output.show(&status, status::table))
}

/// `sidetrack explain-counter`, as text.
pub fn explain(args: &ExplainArgs) -> Result<String, UnknownCounter> {
    counter::explain(args.name.as_deref(), args.output.output)
}

/// The exit code for an error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UnknownCounter>() {
        return EXIT_USAGE;
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return sandboxes::exit_code(failure);
    }
    match error.downcast_ref::<StateError>() {
        Some(StateError::NoPins(_) | StateError::OtherAbi { .. }) => EXIT_NOTHING,
        _ => EXIT_FAILED,
    }
}

#[cfg(test)]
mod tests;
