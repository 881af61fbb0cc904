//! Interleaved rounds: what the machine does meanwhile hits all conditions alike.

use super::{
    cast::{Cast, Condition},
    measure::{Measure, Pace, Quantity},
};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// One value a round, by what was measured under which condition.
pub type Taken = BTreeMap<(Measure, Quantity, Condition), Vec<f64>>;

/// Measures all `loads`, `rounds` times.
pub fn run(cast: &Cast, loads: &[Measure], pace: Pace, rounds: u32) -> Result<Taken> {
    let mut taken = Taken::new();
    for round in 0..rounds {
        for &measure in loads {
            eprintln!("bench: round {} of {rounds}: {}", round + 1, measure.label());
            for condition in order(measure.conditions(), round) {
                let values = measure.take(cast, condition, pace);
                let values = values.with_context(|| format!("{}, {}", measure.label(), condition.label()))?;
                for (quantity, value) in values {
                    taken.entry((measure, quantity, condition)).or_default().push(value);
                }
            }
        }
    }
    Ok(taken)
}

/// Each round begins with another condition, and every other one goes backwards: none always follows the same one.
fn order(conditions: &[Condition], round: u32) -> Vec<Condition> {
    let mut order = conditions.to_vec();
    order.rotate_left(round as usize % conditions.len());
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_measured_once_a_round_and_each_comes_first() {
        let all = Measure::Single.conditions();
        let mut first = Vec::new();
        for round in 0..10 {
            let mut order = order(all, round);
            first.push(order[0]);
            order.sort();
            assert_eq!(order, all);
        }
        first.sort();
        first.dedup();
        assert_eq!(first, all);
    }
}
