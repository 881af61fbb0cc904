//! What can be set, and what holds when it is not.

mod file;

use std::time::Duration;

use sidetrack_splice::{
    abi::{self, control::DEAD_AFTER_NS},
    carrier,
};

pub use self::file::{KIND, load, parse};

/// The route table's file, `--routes`.
pub const ENV_ROUTES: &str = "SIDETRACK_ROUTES";
/// Where health and metrics are served, `--listen`.
pub const ENV_LISTEN: &str = "SIDETRACK_LISTEN";
/// Where a controller hears agents, `--reports`.
pub const ENV_REPORTS: &str = "SIDETRACK_REPORTS";
/// A pod's address, of the downward API.
pub const ENV_POD_IP: &str = "POD_IP";
/// Namespace of the controller, `--controller-namespace`.
pub const ENV_CONTROLLER_NAMESPACE: &str = "SIDETRACK_CONTROLLER_NAMESPACE";
/// The agent's token for the controller, `--controller-token`.
pub const ENV_CONTROLLER_TOKEN: &str = "SIDETRACK_CONTROLLER_TOKEN";
/// Directories of named network namespaces, `--netns-dir`; several are separated by colons, as in `PATH`.
pub const ENV_NETNS_DIR: &str = "SIDETRACK_NETNS_DIR";
/// Where programs, links and maps are pinned, `--pin-dir`.
pub const ENV_PIN_DIR: &str = "SIDETRACK_PIN_DIR";
/// The configuration file, `--config`.
pub const ENV_CONFIG: &str = "SIDETRACK_CONFIG";
/// `text` or `json`, `--log-format`.
pub const ENV_LOG_FORMAT: &str = "SIDETRACK_LOG_FORMAT";
/// A level, or filters by target as in `info,sidetrack::cold=debug`, `--log-level`.
pub const ENV_LOG_LEVEL: &str = "SIDETRACK_LOG_LEVEL";
/// The pod's own namespace, as the downward API gives it: `--namespace`.
pub const ENV_POD_NAMESPACE: &str = "POD_NAMESPACE";
/// The pod's own name, as the downward API gives it: `--identity`.
pub const ENV_POD_NAME: &str = "POD_NAME";

/// Where the deployment puts everything.
pub const DEFAULT_NAMESPACE: &str = "sidetrack-system";
/// Where `ip netns` and most CNIs mount namespaces by name.
pub const DEFAULT_NETNS_DIR: &str = "/run/netns";
/// Pins outlive the agent, so they lie where every bpffs is mounted by default, in a directory of their own.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/sidetrack";
/// Where the DaemonSet mounts the projected token for the controller.
pub const DEFAULT_CONTROLLER_TOKEN: &str = "/var/run/secrets/sidetrack.dev/token";
/// One line for what a person should know; a splice each is `debug`.
pub const DEFAULT_LOG_LEVEL: &str = "info";

/// Connections that can be followed at once. Map `connections` takes its memory as connections come (no
/// preallocation), about a KiB each with its response side; a node has rarely more than some ten thousand to
/// services that somebody forked.
pub const DEFAULT_CONNECTIONS: u32 = 65_536;
/// Bytes of held frames that may wait for the agent at once: 256 of the largest (64 KiB), or some ten thousand ordinary
/// heads. A full buffer loses nothing, it costs a retransmission.
pub const DEFAULT_RING_BYTES: u32 = 16 << 20;
/// Bytes of held frames that the agent keeps at once, of all connections: four times what fits into the ring buffer, as much as 64
/// clients have held at most (1 MiB each), or some 40,000 ordinary heads.
pub const DEFAULT_HELD_BYTES: u32 = 64 << 20;
/// How long a fork may take to accept. A client whose keyed head has no answer for 2 s shall have a reset by then; what
/// remains is for holding and answering.
pub const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long the baseline has at least, where a leg to it must be dialled anew: for four SYNs, which go after 0, 1, 3 and 7 s (RFC 6298, 5.5).
pub const BASELINE_DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a head waits for the end of the response before it. Servers that stream answer in less, or not at all.
pub const DEFAULT_SWITCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a leg without an exchange is kept: servers close idle connections after 60 s or more, single-worker servers
/// serve nobody else meanwhile, and a new leg costs 0.13 ms.
pub const DEFAULT_PARKED_IDLE: Duration = Duration::from_secs(30);

/// How long an exchange may go on with an endpoint that has left its route: what Kubernetes gives a pod to end.
pub const DEFAULT_ENDPOINT_GRACE: Duration = Duration::from_secs(30);
/// How long connections that records of another ABI follow may go on beside this agent: pools close or renew theirs within minutes.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

/// How long forks are steered to while the cluster's API server is not heard: longer than one is away that is replaced or
/// upgraded, and about as long as a pod's address rests at the least before another gets it.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_mins(5);

/// A heartbeat older than this is a dead agent's.
pub const HEARTBEAT_STALE: Duration = Duration::from_nanos(DEAD_AFTER_NS);
/// How often an agent writes that it is alive: ten missed ones are more than a busy node's delay.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(200);

/// Settings of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where requests may hold their key, in the order in which they decide, as map `config` wants it.
    pub carriers: abi::config::Config,
    /// Connections that can be followed at once: size of map `connections`.
    pub connections: u32,
    /// Size of the ring buffer `events`, a power of two.
    pub ring_bytes: u32,
    /// Bytes of held frames that the agent keeps at once.
    pub held_bytes: u32,
    /// How long a fork may take to accept.
    pub dial_timeout: Duration,
    /// How long a head waits for the end of the response before it.
    pub switch_timeout: Duration,
    /// How long a leg without an exchange is kept.
    pub parked_idle: Duration,
    /// How long an exchange may go on with an endpoint that has left its route.
    pub endpoint_grace: Duration,
    /// How long connections that records of another ABI follow may go on.
    pub drain_timeout: Duration,
    /// How long forks are steered to while the cluster's API server is not heard.
    pub max_stale: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            carriers: carrier::default_carriers(),
            connections: DEFAULT_CONNECTIONS,
            ring_bytes: DEFAULT_RING_BYTES,
            held_bytes: DEFAULT_HELD_BYTES,
            dial_timeout: DEFAULT_DIAL_TIMEOUT,
            switch_timeout: DEFAULT_SWITCH_TIMEOUT,
            parked_idle: DEFAULT_PARKED_IDLE,
            endpoint_grace: DEFAULT_ENDPOINT_GRACE,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            max_stale: DEFAULT_MAX_STALE,
        }
    }
}

/// Sizes of map `connections` that make sense: fewer are full at once, more take gigabytes.
pub const CONNECTIONS_RANGE: std::ops::RangeInclusive<u32> = 256..=1_048_576;
/// Sizes of the ring buffer that make sense: the least holds four frames of 64 KiB.
pub const RING_RANGE: std::ops::RangeInclusive<u32> = 256 << 10..=256 << 20;
/// Bounds of what is held that make sense: the least is what two connections may have held.
pub const HELD_RANGE: std::ops::RangeInclusive<u32> = 2 << 20..=1 << 30;
/// Sensible time-outs of a dial.
pub const DIAL_TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
/// Sensible time-outs of a switch.
pub const SWITCH_TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(1);
/// Sensible times of grace for an exchange with an endpoint that has left.
pub const ENDPOINT_GRACE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// Sensible times to let another ABI's connections go on.
pub const DRAIN_TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// Sensible times to go on without the cluster's API server: while it is silent, a watch is heard every minute or so.
pub const MAX_STALE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_hours(24);
/// Sensible lives of a Sandbox's forks; what a Sandbox itself may ask for is the same.
pub const TTL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(8_760);
/// Sensible times to keep a parked leg.
pub const PARKED_IDLE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
