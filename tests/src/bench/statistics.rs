//! Medians, and what two equal things differ by.

/// The median; of an even number the mean of the two in the middle. Zero of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => 0.0,
        (half, 0) => f64::midpoint(values[half - 1], values[half]),
        (half, _) => values[half],
    }
}

/// Round by round, what one thing is of another.
pub fn ratios(value: &[f64], of: &[f64]) -> Vec<f64> {
    value.iter().zip(of).map(|(value, of)| value / of).collect()
}

/// By how much a ratio of two equal things misses 1 in the middle round.
pub fn spread(ratios: &[f64]) -> f64 {
    median(ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect())
}

/// The median of many times, in microseconds.
pub fn median_micros(nanos: &[u64]) -> f64 {
    median(nanos.iter().map(|&n| n as f64 / 1000.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        assert!((median(vec![900.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 900.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(vec![]).abs() < f64::EPSILON);
    }

    #[test]
    fn the_spread_counts_both_sides_of_one() {
        assert!((spread(&[0.9, 1.1, 0.9]) - 0.1).abs() < 1e-9);
    }
}
