//! Durations as Go writes them: `300ms`, `1.5s`, `1h30m`.

use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: expected a number and a unit (ns, us, ms, s, m, h), as in \"1.5s\" or \"1m30s\"")]
pub struct DurationError(pub String);

/// Nanoseconds in each unit. Longer names stand before those that begin alike.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as Go's `time.ParseDuration` does, but for signs: there are no negative ones here.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(wrong)?;
        total = scaled(number, *nanos).and_then(|nanos| total.checked_add(nanos)).ok_or_else(wrong)?;
        rest = &tail[unit.len()..];
    }
    Ok(Duration::from_nanos(total))
}

/// A decimal number of units, in nanoseconds; what is less than one is cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut nanos = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit)? };
    let mut part = unit;
    for digit in fraction.bytes() {
        // Exact as long as the unit is divisible by ten; a minute's fraction is finer than any of these values needs.
        nanos = nanos.checked_add(u64::from(digit - b'0').checked_mul(part)? / 10)?;
        part /= 10;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("300ms", 300_000_000),
            ("1h2m3s", 3_723_000_000_000),
            ("1m0.25s", 60_250_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("7ns", 7),
            ("1.5h", 5_400_000_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_an_error() {
        for text in ["", "5", "s", ".", ".s", "1.2.3s", "-1s", "1 s", "1d", "1s5", "99999999999h", "1e3s", "١s"] {
            assert_eq!(parse_duration(text), Err(DurationError(text.into())), "{text}");
        }
    }
}
