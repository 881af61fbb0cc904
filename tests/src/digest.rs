//! Bodies that can be made anywhere and recognised anywhere, and a digest for those too long to keep.

/// A running digest of a byte stream. Fast enough for 5 GiB; it finds errors, not attackers.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    state: u64,
    tail: [u8; 8],
    length: u64,
}

impl Digest {
    /// Takes in more bytes; how they are split does not matter.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let filled = (self.length % 8) as usize;
        self.length += bytes.len() as u64;
        if filled > 0 {
            let more = bytes.len().min(8 - filled);
            self.tail[filled..filled + more].copy_from_slice(&bytes[..more]);
            bytes = &bytes[more..];
            if filled + more < 8 {
                return;
            }
            self.word(u64::from_le_bytes(self.tail));
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.tail[..rest.len()].copy_from_slice(rest);
    }

    fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }

    /// How many bytes it has seen.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has seen none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The digest as text.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut end = self.clone();
        let filled = (end.length % 8) as usize;
        end.tail[filled..].fill(0);
        end.word(u64::from_le_bytes(end.tail));
        end.word(end.length);
        format!("{:016x}", end.state ^ (end.state >> 29))
    }

    /// The digest of one piece.
    #[must_use]
    pub fn of(bytes: &[u8]) -> String {
        let mut digest = Self::default();
        digest.update(bytes);
        digest.hex()
    }
}

/// Fills `out` with the bytes from `offset` on of the endless stream that belongs to `name`.
///
/// Every server serves its own stream, so that a body says whose it is at every byte.
pub fn fill(name: &str, offset: u64, out: &mut [u8]) {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut at = offset;
    let mut out = out;
    while !out.is_empty() {
        let word = mix(seed.wrapping_add((at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes();
        let skip = (at % 8) as usize;
        let take = out.len().min(8 - skip);
        out[..take].copy_from_slice(&word[skip..skip + take]);
        out = &mut out[take..];
        at += take as u64;
    }
}

/// The first `length` bytes of the stream that belongs to `name`.
#[must_use]
pub fn body(name: &str, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    fill(name, 0, &mut out);
    out
}

/// The finaliser of splitmix64: neighbouring numbers give unrelated ones.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A small deterministic source of choices, for load and for splits. Two with one seed agree.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) % bound as u64) as usize
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_does_not_depend_on_how_the_bytes_are_split() {
        let bytes = body("base", 1000);
        let whole = Digest::of(&bytes);
        for size in 1..40 {
            let mut digest = Digest::default();
            bytes.chunks(size).for_each(|part| digest.update(part));
            assert_eq!(digest.hex(), whole, "in parts of {size}");
        }
    }

    #[test]
    fn digests_tell_a_missing_last_byte_and_trailing_zeros() {
        assert_ne!(Digest::of(&[1, 2, 0]), Digest::of(&[1, 2]));
        assert_ne!(Digest::of(&[0; 8]), Digest::of(&[0; 16]));
        assert_ne!(Digest::of(b""), Digest::of(&[0]));
    }

    #[test]
    fn a_stream_read_from_the_middle_is_the_same_stream() {
        let whole = body("fork", 100);
        for offset in 0..90 {
            let mut part = [0; 10];
            fill("fork", offset, &mut part);
            assert_eq!(part, whole[offset as usize..][..10]);
        }
        assert_ne!(body("base", 100), whole);
    }
}
