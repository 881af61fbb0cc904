//! The internet checksum (RFC 1071).

/// The sum of the bytes as big-endian words, not folded. A last odd byte counts as the upper half of a word.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let sum: u64 = words.by_ref().map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum into 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::{super::testing::ones, *};

    #[test]
    fn sums_are_those_of_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..300_u32).map(|n| (n * 89 + 200) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(fold(sum(&bytes[..len])), ones(&bytes[..len]), "{len} bytes");
        }
        assert_eq!(fold(sum(&vec![0xff; 65534])), 0xffff);
    }
}
