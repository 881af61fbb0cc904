//! Interleaved rounds, and interleaved slices of each: what the machine does meanwhile hits all conditions alike.

use super::{
    cast::{Cast, Condition},
    load::Load,
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
            for (condition, load) in one(cast, measure, pace, round)? {
                for (quantity, value) in load.values() {
                    taken.entry((measure, quantity, condition)).or_default().push(value);
                }
            }
        }
    }
    Ok(taken)
}

/// One round of a load under all of its conditions.
fn one(cast: &Cast, measure: Measure, pace: Pace, round: u32) -> Result<BTreeMap<Condition, Load<'_>>> {
    cast.place_servers(measure.servers_cpu())?;
    let what = |condition: Condition| format!("{}, {}", measure.label(), condition.label());
    let mut loads = BTreeMap::new();
    for condition in order(measure.conditions(), round) {
        loads.insert(condition, Load::new(cast, measure, condition, pace).with_context(|| what(condition))?);
    }
    for slice in 0..pace.slices {
        for condition in order(measure.conditions(), round + slice) {
            let load = loads.get_mut(&condition).context("each condition has its load")?;
            load.slice(pace).with_context(|| what(condition))?;
        }
    }
    Ok(loads)
}

/// Turns begin with each condition, twice: one goes on forwards, one backwards.
fn order(conditions: &[Condition], turn: u32) -> Vec<Condition> {
    let mut order = conditions.to_vec();
    order.rotate_left(turn as usize / 2 % conditions.len());
    if turn % 2 == 1 {
        order[1..].reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_measured_once_a_turn_and_all_come_first_equally_often() {
        for all in Measure::ALL.map(Measure::conditions) {
            let mut sorted = all.to_vec();
            sorted.sort();
            let mut first = Vec::new();
            for turn in 0..2 * all.len() as u32 {
                let mut order = order(all, turn);
                first.push(order[0]);
                order.sort();
                assert_eq!(order, sorted);
            }
            first.sort();
            assert_eq!(first, sorted.iter().flat_map(|&condition| [condition; 2]).collect::<Vec<_>>());
        }
    }
}
