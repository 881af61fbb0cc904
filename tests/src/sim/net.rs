//! The network between the pod and the servers: it delays, loses, reorders and duplicates.

use super::{
    host::{MICRO, MILLI, Nanos},
    rng::Rng,
};

/// What a network does. Chances are of a million.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// How long a segment is on its way, from and to.
    pub delay: (Nanos, Nanos),
    /// Segments that are lost.
    pub loss: u32,
    /// Segments that are overtaken.
    pub reorder: u32,
    /// Segments that come twice.
    pub duplicate: u32,
}

impl Weather {
    /// Nothing is lost, and all comes in order.
    #[must_use]
    pub const fn clear() -> Self {
        Self { delay: (20 * MICRO, 200 * MICRO), loss: 0, reorder: 0, duplicate: 0 }
    }

    /// Loss, reordering and duplication.
    #[must_use]
    pub const fn storm() -> Self {
        Self { delay: (50 * MICRO, 5 * MILLI), loss: 10_000, reorder: 20_000, duplicate: 10_000 }
    }

    /// Whether each segment comes, once, and in order.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        self.loss == 0 && self.reorder == 0 && self.duplicate == 0
    }
}

/// One direction of the way between two machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    last: Nanos,
}

impl Link {
    /// When a segment that is sent now arrives: never, once, or twice.
    pub fn carry(&mut self, now: Nanos, weather: &Weather, rng: &mut Rng) -> [Option<Nanos>; 2] {
        if rng.chance(weather.loss) {
            return [None, None];
        }
        let delay = rng.between(weather.delay.0, weather.delay.1);
        let first = if rng.chance(weather.reorder) {
            now + delay + rng.between(weather.delay.0, weather.delay.1 * 6)
        } else {
            self.last = (now + delay).max(self.last + 1);
            self.last
        };
        let again = rng.chance(weather.duplicate).then(|| first + rng.between(1, weather.delay.1 * 4));
        [Some(first), again]
    }
}
