//! Differences of internet checksums (RFC 1624): added up first, applied once.

/// The ones' complement difference of any number of words, each as it is loaded from the packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Diff(u64);

impl Diff {
    /// Of nothing.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Replaces one 32-bit word by another.
    #[inline(always)]
    pub const fn word(&mut self, old: u32, new: u32) {
        self.0 += (!old) as u64 + new as u64;
    }

    /// The sum as the kernel's helpers take it (`__wsum`): any 32-bit number that is congruent.
    #[inline(always)]
    #[must_use]
    pub const fn sum(self) -> u32 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((s & 0xffff_ffff) + (s >> 32)) as u32
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold(mut s: u64) -> u16 {
        while s >> 16 != 0 {
            s = (s & 0xffff) + (s >> 16);
        }
        s as u16
    }

    /// The internet checksum of words (RFC 1071).
    pub(crate) fn checksum(words: &[u32]) -> u16 {
        !fold(words.iter().map(|w| u64::from(w & 0xffff) + u64::from(w >> 16)).sum())
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_checksum_of_the_new_words(
            old in proptest::collection::vec(1u32.., 1..16), new in proptest::collection::vec(1u32.., 16)
        ) {
            let mut d = Diff::new();
            for (o, n) in old.iter().zip(&new) {
                d.word(*o, *n);
            }
            // as csum_replace_by_diff in include/net/checksum.h: ~fold(sum(~check, diff))
            let updated = !fold(u64::from(!checksum(&old)) + u64::from(d.sum()));
            prop_assert_eq!(updated, checksum(&new[..old.len()]));
        }
    }
}
