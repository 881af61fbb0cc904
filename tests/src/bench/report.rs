//! What came out.

use super::{
    bound::{Verdict, bound},
    cast::{Condition, head_length},
    machine::Machine,
    measure::{Measure, Pace, Quantity},
    programs::Cost,
    rounds::Taken,
    statistics::{median, ratios, spread},
};
use serde::Serialize;

/// Everything, as `-o json` says it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// How many rounds.
    pub rounds: u32,
    /// Bytes of the small request's head.
    pub request_head: usize,
    /// The ratios.
    pub items: Vec<Row>,
    /// The programs.
    pub programs: Vec<Cost>,
}

/// One quantity under one condition.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// How load was put on.
    pub measure: Measure,
    /// By which tool.
    pub tool: &'static str,
    /// The quantity.
    pub quantity: Quantity,
    /// The condition.
    pub condition: Condition,
    /// What it is compared with.
    pub reference: Condition,
    /// Median of the rounds of that: without any program, mostly.
    pub plain: f64,
    /// Median of the rounds under this condition.
    pub value: f64,
    /// Median of the rounds' ratios to the reference of the same round.
    pub ratio: f64,
    /// The lowest and the highest of them.
    pub range: (f64, f64),
    /// The bound of the ratio.
    pub bound: Option<f64>,
    /// By how much A/A misses 1 in the middle round.
    pub spread: f64,
    /// Whether the bound was kept.
    pub verdict: Verdict,
}

impl Report {
    /// Sets the ratios against the bounds.
    pub fn new(machine: Machine, pace: Pace, rounds: u32, taken: &Taken, programs: Vec<Cost>) -> Self {
        let items = taken.keys().filter(|key| key.2 != key.0.reference()).map(|&key| row(taken, pace, key)).collect();
        Self { machine, rounds, request_head: head_length(), items, programs }
    }

    /// Whether a bound was missed, or could not be judged in a run that was to judge it.
    pub fn fails(&self) -> bool {
        self.items.iter().any(|row| row.verdict.fails())
    }
}

fn row(taken: &Taken, pace: Pace, (measure, quantity, condition): (Measure, Quantity, Condition)) -> Row {
    let values = |condition| taken.get(&(measure, quantity, condition)).map_or(&[][..], Vec::as_slice);
    let reference = measure.reference();
    let plain = values(reference);
    let of_plain = ratios(values(condition), plain);
    let spread = spread(&ratios(values(Condition::Again), plain));
    let ratio = median(of_plain.clone());
    let bound = bound(measure, quantity, condition);
    let verdict = match bound {
        None => Verdict::NoBound,
        Some(_) if !pace.judged => Verdict::NotJudged,
        Some(bound) => Verdict::of(ratio, bound, quantity.rises(), spread),
    };
    let lowest = of_plain.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = of_plain.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Row {
        measure,
        tool: measure.tool(),
        quantity,
        condition,
        reference,
        plain: median(plain.to_vec()),
        value: median(values(condition).to_vec()),
        ratio,
        range: (lowest, highest),
        bound,
        spread,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_compares_rounds_with_their_own_plain() {
        let key = |condition| (Measure::Single, Quantity::P50, condition);
        // The machine is twice as slow in the second round.
        let taken = Taken::from([
            (key(Condition::Plain), vec![10.0, 20.0, 10.0]),
            (key(Condition::Again), vec![10.1, 20.2, 9.9]),
            (key(Condition::Keyed), vec![11.0, 22.0, 11.0]),
        ]);
        let row = row(&taken, Pace::FULL, key(Condition::Keyed));
        assert!((row.ratio - 1.1).abs() < 1e-9 && (row.spread - 0.01).abs() < 1e-9, "{row:?}");
        assert_eq!(row.verdict, Verdict::Holds);
    }

    #[test]
    fn turns_are_compared_with_the_keyed_request_of_their_round() {
        let key = |condition| (Measure::Turns, Quantity::P50, condition);
        let taken = Taken::from([
            (key(Condition::Keyed), vec![20.0, 40.0, 20.0]),
            (key(Condition::Again), vec![20.2, 40.4, 19.8]),
            (key(Condition::Turns), vec![24.0, 48.0, 24.0]),
        ]);
        let row = row(&taken, Pace::FULL, key(Condition::Turns));
        assert!((row.ratio - 1.2).abs() < 1e-9 && (row.spread - 0.01).abs() < 1e-9, "{row:?}");
        assert_eq!((row.verdict, row.bound), (Verdict::Holds, Some(1.3)));
    }
}
