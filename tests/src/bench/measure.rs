//! What is measured under each condition.

use super::{
    cast::{Ask, Condition, LARGE, MEDIUM},
    machine,
};
use serde::Serialize;
use std::time::Duration;

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Slices of a round.
    pub slices: u32,
    /// Length of a closed loop in a slice.
    pub time: Duration,
    /// New connections in a slice.
    pub connections: u32,
    /// Whether the figures are good enough to be judged.
    pub judged: bool,
}

impl Pace {
    /// The real thing.
    pub const FULL: Self = Self { slices: 10, time: Duration::from_millis(100), connections: 100, judged: true };
    /// A smoke run.
    pub const QUICK: Self = Self { slices: 2, time: Duration::from_millis(50), connections: 5, judged: false };
}

/// Connections of a crowd.
pub const CROWD: usize = 32;

/// A way to put load on a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Small requests, one connection.
    Single,
    /// Small requests, 32 connections.
    Crowd,
    /// Answers of 64 KiB, 32 connections.
    MediumDown,
    /// Requests of 64 KiB, 32 connections.
    MediumUp,
    /// Answers of 200 MB, one connection.
    LargeDown,
    /// Requests of 200 MB, one connection.
    LargeUp,
    /// A new connection for each small request.
    Fresh,
    /// Small requests, one connection, whose owner changes with each.
    Turns,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Median time of a request, in microseconds.
    P50,
    /// Requests per second.
    Throughput,
    /// Mean time of a transfer, in milliseconds.
    Time,
    /// Time of all processors per request, in microseconds.
    Cpu,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Single,
        Self::Crowd,
        Self::MediumDown,
        Self::MediumUp,
        Self::LargeDown,
        Self::LargeUp,
        Self::Fresh,
        Self::Turns,
    ];

    /// As it stands in the table: direction and connections.
    pub fn label(self) -> &'static str {
        match self {
            Self::Single => "small, 1 connection",
            Self::Crowd => "small, 32 connections",
            Self::MediumDown => "64 KiB down, 32 connections",
            Self::MediumUp => "64 KiB up, 32 connections",
            Self::LargeDown => "200 MB down, 1 connection",
            Self::LargeUp => "200 MB up, 1 connection",
            Self::Fresh => "small, a new connection each",
            Self::Turns => "small, 1 connection, in turns",
        }
    }

    /// The load tool.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Single | Self::LargeDown | Self::LargeUp | Self::Fresh | Self::Turns => "own, blocking",
            Self::Crowd | Self::MediumDown | Self::MediumUp => "own, epoll",
        }
    }

    /// Under which conditions.
    pub fn conditions(self) -> &'static [Condition] {
        use Condition::{Again, Keyed, Plain, Turns, Unkeyed, Unwatched};
        match self {
            Self::Single | Self::Crowd => &[Plain, Again, Unwatched, Unkeyed, Keyed],
            Self::Turns => &[Keyed, Again, Turns],
            _ => &[Plain, Again, Unkeyed, Keyed],
        }
    }

    /// The condition that the others are compared with.
    pub fn reference(self) -> Condition {
        match self {
            Self::Turns => Condition::Keyed,
            _ => Condition::Plain,
        }
    }

    /// Whose part a condition's targets have: A/A is the reference once more, on other pods where that is the plain one.
    pub fn part(self, condition: Condition) -> Condition {
        match (self, condition) {
            (Self::Turns, Condition::Again) => Condition::Keyed,
            _ => condition,
        }
    }

    /// What is asked for.
    pub fn ask(self) -> Ask {
        match self {
            Self::Single | Self::Crowd | Self::Fresh | Self::Turns => Ask::Small,
            Self::MediumDown => Ask::Down(MEDIUM),
            Self::MediumUp => Ask::Up(MEDIUM),
            Self::LargeDown => Ask::Down(LARGE),
            Self::LargeUp => Ask::Up(LARGE),
        }
    }

    /// One connection is measured with client and server on one processor: a request then waits for work alone, not for
    /// an idle processor to wake up, which takes longer than all the rest and varies.
    pub fn servers_cpu(self) -> usize {
        match self {
            Self::Single | Self::Fresh | Self::Turns => 0,
            _ => machine::other_cpu(),
        }
    }
}

impl Quantity {
    /// As it stands in the table.
    pub fn label(self) -> &'static str {
        match self {
            Self::P50 => "p50, us",
            Self::Throughput => "requests/s",
            Self::Time => "time, ms",
            Self::Cpu => "CPU us/request",
        }
    }

    /// Whether more is better.
    pub fn rises(self) -> bool {
        self == Self::Throughput
    }
}
