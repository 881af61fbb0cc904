//! Local ports for legs.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a port rests before it goes to the same backend again: TIME-WAIT (60 s) at either end, and the time-outs of
/// connection tracking for closed connections (120 s), are over by then.
pub const REST: Duration = Duration::from_mins(2);

/// Ports of one pod that are in use or resting, at most. Each takes some 40 bytes.
const CAPACITY: usize = 1 << 16;

/// How long a pod's own range is believed. It is set when a pod is made.
const RANGE_FRESH: Duration = Duration::from_mins(1);

/// Lowest port outside the pod's own range that is taken: below it are the ports that servers listen on.
const LOWEST: u32 = 16384;

/// Below this one, binding needs a capability that the agent does not have.
const UNPRIVILEGED: u32 = 1024;

/// Behind the highest port.
const TOP: u32 = 1 << 16;

/// Why there is no port for a leg.
#[derive(Debug, thiserror::Error)]
pub enum NoPort {
    /// Legs to this backend have had all of them.
    #[error(
        "{in_use} are in use by this pod's legs to it, and {resting} rest for {} s after their use. Keep client connections open \
        instead of making one for each request, or add endpoints to the route", REST.as_secs()
    )]
    Used {
        /// By legs.
        in_use: usize,
        /// Given back.
        resting: usize,
    },
    /// Legs to all backends have had as many as are kept account of.
    #[error(
        "this pod's legs to all endpoints have {CAPACITY} ports in use or at rest, and more are not kept account of. Keep client \
        connections open instead of making one for each request"
    )]
    Full,
    /// Sockets of the pod have them.
    #[error(
        "{tries} in a row belong to other sockets of the pod (the last one: {source}); `ss -tan` in the pod lists them. Leave ports \
        from {LOWEST} on outside its net.ipv4.ip_local_port_range to legs"
    )]
    Busy {
        /// How many were tried.
        tries: usize,
        /// What the kernel said to the last one.
        source: io::Error,
    },
}

/// The local ports of one pod's legs, by backend. A leg's socket is closed while the leg lives, so the kernel does not
/// know that its port is taken: this book does.
#[derive(Debug, Default)]
pub struct PortBook(Mutex<Ports>);

impl PortBook {
    /// One that begins with any port: which ports rest is known to the agent before this one alone, and it has begun with others.
    #[must_use]
    pub fn anywhere() -> Self {
        let begin = RandomState::new().hash_one(()) as usize;
        Self(Mutex::new(Ports { begin, ..Ports::default() }))
    }

    /// Takes a port for a leg to `target`: outside `own` (the pod's `ip_local_port_range`) while there is one, else
    /// inside it. A taken port is in use until [`Self::give_back`].
    pub fn take(&self, target: SocketAddr, own: &RangeInclusive<u16>) -> Result<u16, NoPort> {
        let mut it = self.lock();
        it.take(target, own, Instant::now()).ok_or_else(|| it.shortage(target))
    }

    /// Marks a port as in use: that of a leg which an earlier agent made. False if the book is full.
    pub fn adopt(&self, target: SocketAddr, port: u16) -> bool {
        self.lock().adopt(target, port, Instant::now())
    }

    /// The leg is gone: the port rests for [`REST`] and may then be used again.
    pub fn give_back(&self, target: SocketAddr, port: u16) {
        self.lock().give_back(target, port, Instant::now());
    }

    /// How many ports are in use; those that rest are not.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let it = self.lock();
        it.len - it.resting.len()
    }

    /// The pod's `ip_local_port_range`, read again when it is old. Must be called inside the namespace: the file shows
    /// that of the thread which reads. Reading takes 9 us, a fifth of a dial.
    pub(super) fn own_range(&self) -> io::Result<RangeInclusive<u16>> {
        if let Some(range) = self.known_range() {
            return Ok(range);
        }
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
        let mut ends = text.split_whitespace().map_while(|word| word.parse().ok());
        let (Some(low), Some(high)) = (ends.next(), ends.next()) else {
            return Err(io::Error::other(format!("net.ipv4.ip_local_port_range reads {text:?}")));
        };
        self.lock().own = Some((Instant::now(), low..=high));
        Ok(low..=high)
    }

    /// The same where it is not old: anywhere.
    pub(super) fn known_range(&self) -> Option<RangeInclusive<u16>> {
        let it = self.lock();
        let (read, range) = it.own.as_ref()?;
        (read.elapsed() < RANGE_FRESH).then(|| range.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Leg,
    Rest,
}

#[derive(Debug, Default)]
struct Backend {
    /// Ports in use, and those that rest.
    taken: HashMap<u16, Use>,
    /// Where the last port was found.
    last: Option<u16>,
}

/// The book itself, for whoever brings the time along.
#[derive(Debug, Default)]
pub struct Ports {
    /// The pod's own range, and when it was read.
    own: Option<(Instant, RangeInclusive<u16>)>,
    /// Which port is the first at a backend of which nothing is known, in the order in which they are taken.
    begin: usize,
    backends: HashMap<SocketAddr, Backend>,
    /// In the order in which they were given back.
    resting: VecDeque<(Instant, SocketAddr, u16)>,
    /// Ports in use or resting.
    len: usize,
}

impl Ports {
    /// As [`PortBook::take`]; none where all are in use, or rest.
    pub fn take(&mut self, target: SocketAddr, own: &RangeInclusive<u16>, now: Instant) -> Option<u16> {
        self.wake(now);
        if self.len >= CAPACITY {
            return None;
        }
        let backend = self.backends.entry(target).or_default();
        let port = backend.next(own, self.begin)?;
        backend.last = Some(port);
        backend.taken.insert(port, Use::Leg);
        self.len += 1;
        Some(port)
    }

    /// Why [`Self::take`] has found none.
    fn shortage(&self, target: SocketAddr) -> NoPort {
        if self.len >= CAPACITY {
            return NoPort::Full;
        }
        let count = |state| {
            self.backends.get(&target).map_or(0, |backend| backend.taken.values().filter(|it| **it == state).count())
        };
        NoPort::Used { in_use: count(Use::Leg), resting: count(Use::Rest) }
    }

    /// As [`PortBook::adopt`].
    pub fn adopt(&mut self, target: SocketAddr, port: u16, now: Instant) -> bool {
        self.wake(now);
        if self.len >= CAPACITY {
            return false;
        }
        let was = self.backends.entry(target).or_default().taken.insert(port, Use::Leg);
        self.len += usize::from(was.is_none());
        true
    }

    /// As [`PortBook::give_back`].
    pub fn give_back(&mut self, target: SocketAddr, port: u16, now: Instant) {
        let held = self.backends.get_mut(&target).and_then(|b| b.taken.get_mut(&port));
        if let Some(held @ Use::Leg) = held {
            *held = Use::Rest;
            self.resting.push_back((now, target, port));
        }
    }

    /// Frees what has rested long enough.
    fn wake(&mut self, now: Instant) {
        while let Some(&(since, target, port)) = self.resting.front() {
            if now.saturating_duration_since(since) < REST {
                return;
            }
            self.resting.pop_front();
            if let Some(backend) = self.backends.get_mut(&target) {
                // Adopted meanwhile: in use again.
                if backend.taken.get(&port) == Some(&Use::Rest) {
                    backend.taken.remove(&port);
                    self.len -= 1;
                }
                if backend.taken.is_empty() {
                    self.backends.remove(&target);
                }
            }
        }
    }
}

impl Backend {
    /// The next free port behind the last one, so that each rests as long as there are others: above the pod's own
    /// range and below it in turn, and inside it when there is none.
    fn next(&self, own: &RangeInclusive<u16>, begin: usize) -> Option<u16> {
        let (low, high) = (u32::from(*own.start()), u32::from(*own.end()));
        let above = (high + 1).max(UNPRIVILEGED)..TOP;
        let below = LOWEST..low;
        let inside = low.max(UNPRIVILEGED)..high + 1;
        self.turn(&[above, below], begin).or_else(|| self.turn(&[inside], begin))
    }

    /// The next free port of these ranges behind the last one; without one, from the `begin`th on.
    fn turn(&self, ranges: &[Range<u32>], begin: usize) -> Option<u16> {
        let all = || ranges.iter().cloned().flatten();
        let last = self.last.map(u32::from).filter(|last| ranges.iter().any(|range| range.contains(last)));
        let behind = last.into_iter().flat_map(|last| {
            let at = ranges.iter().position(|range| range.contains(&last)).unwrap_or(0);
            (last + 1..ranges[at].end).chain(ranges[at + 1..].iter().cloned().flatten())
        });
        let first = begin % ranges.iter().map(ExactSizeIterator::len).sum::<usize>().max(1);
        let first = if last.is_none() { first } else { 0 };
        behind.chain(all().skip(first)).chain(all()).map(|port| port as u16).find(|port| !self.taken.contains_key(port))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const OWN: RangeInclusive<u16> = 32768..=60999;

    fn target(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn ports_lie_outside_the_pods_own_range_while_there_are_any() {
        let mut it = Ports::default();
        let outside = usize::from(u16::MAX - 60999) + (32768 - LOWEST) as usize;
        let now = Instant::now();
        let taken: HashSet<u16> = (0..outside).filter_map(|_| it.take(target(80), &OWN, now)).collect();
        assert_eq!(taken.len(), outside);
        assert!(taken.iter().all(|p| !OWN.contains(p) && u32::from(*p) >= LOWEST));
        assert!(taken.contains(&61000) && taken.contains(&u16::MAX));
        assert_eq!(it.take(target(80), &OWN, now), Some(32768));
        assert_eq!(it.take(target(81), &OWN, now), Some(61000), "another backend has its own");
    }

    #[test]
    fn a_pod_whose_range_is_everything_gets_ports_inside_it() {
        let mut it = Ports::default();
        let all = 1..=u16::MAX;
        let now = Instant::now();
        for expected in UNPRIVILEGED as u16..=u16::MAX {
            assert_eq!(it.take(target(80), &all, now), Some(expected));
        }
        assert_eq!(it.take(target(80), &all, now), None);
    }

    #[test]
    fn a_port_is_not_used_again_before_it_has_rested() {
        let mut it = Ports::default();
        let all = 65534..=65535;
        let now = Instant::now();
        it.adopt(target(80), 65535, now);
        for port in LOWEST as u16..65534 {
            it.adopt(target(80), port, now);
        }
        assert_eq!(it.take(target(80), &all, now), Some(65534));
        assert_eq!(it.take(target(80), &all, now), None);
        it.give_back(target(80), 65534, now);
        it.give_back(target(80), 65534, now + REST / 2);
        it.give_back(target(80), 7, now);
        assert_eq!(it.take(target(80), &all, now + REST.mul_f32(0.99)), None);
        assert_eq!(it.take(target(80), &all, now + REST), Some(65534));
        assert_eq!(it.take(target(80), &all, now + REST * 2), None, "given back once");
    }

    #[test]
    fn ports_are_used_in_turn_and_nothing_is_kept_for_an_idle_backend() {
        let mut it = Ports::default();
        let now = Instant::now();
        let first = it.take(target(80), &OWN, now).expect("free");
        it.adopt(target(80), first + 2, now);
        it.give_back(target(80), first, now);
        it.give_back(target(80), first + 2, now);
        let second = it.take(target(80), &OWN, now + REST).expect("free");
        assert_eq!(second, 61000, "nothing is known of a backend without ports");
        it.give_back(target(80), second, now + REST);
        it.wake(now + REST + REST);
        assert_eq!((it.backends.len(), it.resting.len(), it.len), (0, 0, 0));
    }

    #[test]
    fn a_book_that_begins_anywhere_finds_every_port() {
        let (all, own) = ([16384, 16385, 65534, 65535], 16386..=65533);
        for begin in [0, 1, 2, 3, 4, 501, usize::MAX] {
            let mut it = Ports { begin, ..Ports::default() };
            let mut took: Vec<_> = (0..4).filter_map(|_| it.take(target(80), &own, Instant::now())).collect();
            assert_eq!(took[0], [65534, 65535, 16384, 16385][begin % 4]);
            took.sort_unstable();
            assert_eq!(took, all, "from {begin}");
        }
    }

    #[test]
    fn a_shortage_says_where_the_ports_are() {
        let (book, own) = (PortBook::default(), 16384..=65535);
        for port in own.clone() {
            assert_eq!(book.take(target(80), &own).expect("free"), port);
        }
        for port in 20000..20100 {
            book.give_back(target(80), port);
        }
        let said = book.take(target(80), &own).expect_err("none is left").to_string();
        assert!(said.starts_with("49052 are in use by this pod's legs to it, and 100 rest for 120 s after"), "{said}");
        while book.take(target(81), &own).is_ok() {}
        let said = book.take(target(81), &own).expect_err("none is left").to_string();
        assert!(said.starts_with("this pod's legs to all endpoints have 65536 ports in use or at rest"), "{said}");
    }

    #[test]
    fn the_book_is_bounded() {
        let mut it = Ports::default();
        let now = Instant::now();
        for n in 0..CAPACITY {
            assert!(it.adopt(target((n >> 12) as u16), 20000 + (n & 0xfff) as u16, now));
        }
        assert!(!it.adopt(target(9), 9, now));
        assert_eq!(it.take(target(9), &OWN, now), None);
        it.give_back(target(0), 20000, now);
        assert!(it.take(target(9), &OWN, now + REST).is_some());
    }
}
