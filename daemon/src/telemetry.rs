//! Logs: to standard error, for people or for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level or filter cannot be read.
    #[error(
        "log level {0:?}: {1}; expected error, warn, info, debug or trace, or filters as in \"info,sidetrack::cold=debug\""
    )]
    Level(String, tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("logging was started twice in one process: start it once, in main")]
    Twice,
}

/// Starts logging to standard error.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level).map_err(|error| TelemetryError::Level(level.to_owned(), error))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_writer(io::stderr);
            registry.with(layer).try_init()
        }
    };
    started.map_err(|_| TelemetryError::Twice)
}
