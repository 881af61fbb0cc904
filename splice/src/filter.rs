//! Which addresses are worth a look: a bitmap that says of most packets at once that they are nobody's business.
//!
//! A bit that is set for an address that is not in use costs a look-up; one that is missing would hide a leg. So bits are
//! only ever added while an agent runs; one that starts takes away those of addresses that nothing has any more.

use crate::abi::addr::Addr;

/// Words of the bitmap: 256 Ki bits, 32 KiB.
pub const WORDS: usize = 4096;

/// The bit of an address and a port (network byte order): word, and mask.
///
/// Multiplicative hashing (Knuth, TAOCP 6.4), twice: the upper bits of a product depend on all bits of the factor.
#[inline(always)]
#[must_use]
pub const fn bit(addr: &Addr, port: u16) -> (u32, u64) {
    let w = addr.0;
    let high = (w[0] as u64) << 32 | w[1] as u64;
    let low = (w[2] as u64) << 32 | w[3] as u64;
    let mixed = high.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) ^ low.wrapping_add((port as u64) << 36);
    let hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash >> 52) as u32, 1 << ((hash >> 46) & 63))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_word_lies_in_the_bitmap() {
        for n in 0..10_000_u32 {
            let (word, mask) = bit(&Addr([n, n.rotate_left(7), n.wrapping_mul(77), n.reverse_bits()]), n as u16);
            assert!((word as usize) < WORDS);
            assert_eq!(mask.count_ones(), 1);
        }
    }

    #[test]
    fn pods_of_a_cluster_are_spread_over_the_bitmap() {
        let mut bits = HashSet::new();
        for host in 0..4096_u32 {
            for port in [80_u16, 8080] {
                bits.insert(bit(&Addr::v4((0x0a60_0000 | host).to_be()), port.to_be()));
            }
        }
        // 8,192 addresses thrown at random into 262,144 bits meet in about 127 of them
        assert!(bits.len() > 8192 - 400, "{}", bits.len());
    }

    #[test]
    fn families_and_ports_are_told_apart() {
        let addresses = [Addr::v4(1), Addr([0, 0, 0, 1]), Addr([1, 0, 0, 0]), Addr([0, 1, 0, 0])];
        let bits: HashSet<_> = addresses.iter().flat_map(|a| [bit(a, 80), bit(a, 81)]).collect();
        assert_eq!(bits.len(), 8);
    }
}
