//! What the ratios must reach.

use super::{
    cast::Condition::{self, Keyed, Turns, Unkeyed, Unwatched},
    measure::{
        Measure,
        Quantity::{self, Cpu, P50, Throughput, Time},
    },
};
use serde::Serialize;

/// The bound of a row, at most; for throughput, at least.
pub fn bound(measure: Measure, quantity: Quantity, condition: Condition) -> Option<f64> {
    use Measure::{Crowd, Fresh, LargeDown, LargeUp, MediumDown, MediumUp, Single};
    let bound = match (measure, quantity, condition) {
        (Single, P50, Keyed) => 1.15,
        (Single, P50, Unkeyed) => 1.05,
        (Single, P50, Unwatched) | (Crowd, Cpu, Unwatched) => 1.02,
        (Crowd | MediumDown | MediumUp, Throughput, Keyed) => 0.88,
        (Crowd, Throughput, Unkeyed) => 0.96,
        (Crowd, Throughput, Unwatched) => 0.98,
        (Crowd, Cpu, Keyed) => 1.20,
        (Crowd | MediumDown | MediumUp, Cpu, Unkeyed) => 1.06,
        (MediumDown | MediumUp, Throughput, Unkeyed) => 0.95,
        (MediumDown | MediumUp | LargeDown | LargeUp, Cpu, Keyed) => 1.12,
        (LargeDown | LargeUp, Time, Keyed) => 1.10,
        (Fresh, P50, Keyed) => 3.0,
        (Measure::Turns, P50, Turns) => 1.3,
        _ => return None,
    };
    Some(bound)
}

/// Whether a bound was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was.
    Holds,
    /// It was missed by no more than two equal things differ by in this run.
    WithinNoise,
    /// It was not.
    Missed,
    /// Two equal things differ by so much in this run that it cannot tell.
    TooNoisy,
    /// There is none.
    NoBound,
    /// The run was too short to tell.
    NotJudged,
}

impl Verdict {
    /// Judges a ratio; `spread` is what A/A differ by.
    pub fn of(ratio: f64, bound: f64, rises: bool, spread: f64) -> Self {
        // With a spread as wide as this, nothing could ever miss its bound.
        if spread > (bound - 1.0).abs().max(0.1) / 2.0 {
            return Self::TooNoisy;
        }
        let missed_by = if rises { bound - ratio } else { ratio - bound };
        match missed_by {
            by if by <= 0.0 => Self::Holds,
            by if by <= spread => Self::WithinNoise,
            // No number, as of a round in which nothing was done, is not below any bound.
            _ => Self::Missed,
        }
    }

    /// Whether the run has not shown that the bound is kept.
    pub fn fails(self) -> bool {
        matches!(self, Self::Missed | Self::TooNoisy)
    }

    /// As it stands in the table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::WithinNoise => "within A/A",
            Self::Missed => "MISSED",
            Self::TooNoisy => "too noisy",
            Self::NoBound => "",
            Self::NotJudged => "not judged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_has_a_lower_bound_and_the_rest_an_upper_one() {
        assert_eq!(Verdict::of(0.9, 0.88, true, 0.0), Verdict::Holds);
        assert_eq!(Verdict::of(0.87, 0.88, true, 0.0), Verdict::Missed);
        assert_eq!(Verdict::of(1.1, 1.15, false, 0.0), Verdict::Holds);
        assert_eq!(Verdict::of(1.2, 1.15, false, 0.0), Verdict::Missed);
    }

    #[test]
    fn a_bound_may_be_missed_by_the_spread_of_equal_things() {
        assert_eq!(Verdict::of(1.16, 1.15, false, 0.02), Verdict::WithinNoise);
        assert_eq!(Verdict::of(1.18, 1.15, false, 0.02), Verdict::Missed);
        assert_eq!(Verdict::of(1.01, 1.02, false, 0.06), Verdict::TooNoisy);
        assert_eq!(Verdict::of(2.9, 3.0, false, 0.06), Verdict::Holds);
        assert_eq!(Verdict::of(f64::NAN, 1.15, false, 0.02), Verdict::Missed);
    }
}
