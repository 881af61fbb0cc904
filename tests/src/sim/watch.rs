//! Observers on both sides of the splice. They read each segment by themselves, and check what a stack would not forgive.
//!
//! What is acknowledged was sent, blocks of selective acknowledgements too; and no side ever sees the other's clock go back. The
//! stacks at the ends check sequence numbers and checksums; they know neither selective acknowledgements as senders nor PAWS
//! (RFC 7323, section 5).

use std::collections::BTreeMap;

use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use sidetrack_splice::abi::addr::Tuple;

/// What is looked at of a segment.
#[derive(Clone, Debug, Default)]
struct Seen {
    seq: u32,
    /// Behind all that it takes.
    end: u32,
    ack: Option<u32>,
    payload: bool,
    syn: bool,
    stamps: Option<(u32, u32)>,
    blocks: Vec<(u32, u32)>,
}

fn read(frame: &[u8]) -> Option<Seen> {
    let packet = SlicedPacket::from_ip(frame.get(14..)?).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    let len = tcp.payload().len() as u32;
    let seq = tcp.sequence_number();
    let mut seen = Seen {
        seq,
        end: seq.wrapping_add(len + u32::from(tcp.syn()) + u32::from(tcp.fin())),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        payload: len != 0,
        syn: tcp.syn(),
        ..Seen::default()
    };
    for option in tcp.options_iterator().flatten() {
        match option {
            TcpOptionElement::Timestamp(val, ecr) => seen.stamps = Some((val, ecr)),
            TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                seen.blocks = std::iter::once(first).chain(more.into_iter().flatten()).collect();
            }
            _ => {}
        }
    }
    Some(seen)
}

const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// One direction of a connection or of a leg.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// The first number.
    first: u32,
    /// Behind the highest.
    most: u32,
    /// Behind all without a gap.
    next: u32,
    /// The latest time that counts, `TS.Recent`.
    recent: Option<u32>,
    /// The latest that was seen of owners before this one.
    past: Option<u32>,
    /// The latest that was seen.
    latest: Option<u32>,
    /// What it has last acknowledged of the other direction.
    ack: Option<u32>,
    /// Who speaks.
    by: Tuple,
}

impl Flow {
    const fn new(seen: &Seen, by: Tuple) -> Self {
        Self {
            first: seen.seq,
            most: seen.end,
            next: seen.end,
            recent: None,
            past: None,
            latest: None,
            ack: seen.ack,
            by,
        }
    }

    /// Takes a segment in. `strict`: none is lost or overtaken on its way to here.
    fn take(&mut self, seen: &Seen, by: Tuple, strict: bool) -> Result<(), String> {
        if self.by != by {
            self.by = by;
            self.past = self.latest;
        }
        let new = seen.end != seen.seq && before(self.most, seen.end);
        if let Some((val, _)) = seen.stamps {
            if new && seen.payload && self.past.is_some_and(|past| before(val, past)) {
                return Err(format!(
                    "its clock says {val}, and {} was said before the owner changed",
                    self.past.unwrap_or(0)
                ));
            }
            let in_order = !before(self.next, seen.seq);
            if strict && new && in_order && self.recent.is_some_and(|recent| before(val, recent)) {
                return Err(format!("its clock says {val}, behind {}", self.recent.unwrap_or(0)));
            }
            if in_order && self.recent.is_none_or(|recent| !before(val, recent)) {
                self.recent = Some(val);
            }
            if self.latest.is_none_or(|latest| before(latest, val)) {
                self.latest = Some(val);
            }
        }
        self.ack = seen.ack.or(self.ack);
        if new {
            self.most = seen.end;
        }
        if !before(self.next, seen.seq) && before(self.next, seen.end) {
            self.next = seen.end;
        }
        Ok(())
    }

    /// Checks that what is acknowledged was sent. Not `strict`: it may be a frame from long ago, of which nobody needs anything.
    fn acknowledged(&self, seen: &Seen, strict: bool) -> Result<(), String> {
        let within = |number: u32| (!strict || !before(number, self.first)) && !before(self.most, number);
        if let Some(ack) = seen.ack.filter(|ack| !within(*ack)) {
            return Err(format!("it acknowledges {ack}, of {}..{}", self.first, self.most));
        }
        match seen.blocks.iter().find(|(from, to)| !within(*from) || !within(*to) || !before(*from, *to)) {
            Some((from, to)) => Err(format!("it acknowledges {from}..{to}, of {}..{}", self.first, self.most)),
            None => Ok(()),
        }
    }
}

/// The observers of one pod.
#[derive(Default)]
pub struct Watch {
    /// What clients have sent, by connection, and what they have got.
    client: BTreeMap<Tuple, (Flow, Option<Flow>)>,
    /// What backends have sent, by leg, and what they have got.
    backend: BTreeMap<Tuple, (Option<Flow>, Option<Flow>)>,
    /// Segments that were looked at.
    pub segments: u64,
}

impl Watch {
    /// The client's stack sends.
    pub fn client_sends(&mut self, conn: &Tuple, frame: &[u8]) {
        let Some(seen) = read(frame) else { return };
        if seen.syn {
            let again = self.client.get(conn).is_some_and(|(sent, _)| sent.first == seen.seq);
            if !again {
                self.client.insert(*conn, (Flow::new(&seen, *conn), None));
                self.backend.remove(conn);
            }
        } else if let Some((sent, _)) = self.client.get_mut(conn) {
            // It may count as sent what is held.
            _ = sent.take(&seen, *conn, false);
        }
    }

    /// The client's stack gets what has come by a leg.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn client_gets(&mut self, conn: &Tuple, leg: &Tuple, frame: &[u8], strict: bool) -> Result<(), String> {
        let Some(seen) = read(frame) else { return Ok(()) };
        let Some((sent, got)) = self.client.get_mut(conn) else { return Ok(()) };
        self.segments += 1;
        sent.acknowledged(&seen, strict)?;
        match got {
            None if seen.syn => *got = Some(Flow::new(&seen, *leg)),
            Some(got) if !seen.syn => got.take(&seen, *leg, strict)?,
            _ => {}
        }
        Ok(())
    }

    /// The number behind all that a client has got, and what it has last acknowledged.
    #[must_use]
    pub fn got_by_client(&self, conn: &Tuple) -> Option<(u32, u32)> {
        let (sent, got) = self.client.get(conn)?;
        Some((got.as_ref()?.most, sent.ack?))
    }

    /// A backend's segment comes to the pod.
    pub fn backend_sends(&mut self, leg: &Tuple, frame: &[u8]) {
        let Some(seen) = read(frame) else { return };
        let (sent, _) = self.backend.entry(*leg).or_default();
        match sent {
            Some(sent) if seen.syn && sent.first == seen.seq => {}
            // A port that is used again.
            _ if seen.syn => *sent = Some(Flow::new(&seen, *leg)),
            Some(sent) => _ = sent.take(&seen, *leg, false),
            None => {}
        }
    }

    /// A segment leaves the pod for a backend.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn backend_gets(&mut self, leg: &Tuple, frame: &[u8], strict: bool) -> Result<(), String> {
        let Some(seen) = read(frame) else { return Ok(()) };
        self.segments += 1;
        let known = self.backend.get_mut(leg);
        if seen.syn {
            let again = known.is_some_and(|(_, got)| got.is_some_and(|got| got.first == seen.seq));
            if !again {
                self.backend.insert(*leg, (None, Some(Flow::new(&seen, *leg))));
            }
            return Ok(());
        }
        let Some((sent, got)) = known else { return Ok(()) };
        // What has been delivered long ago may come again, and say anything: nobody takes anything of it.
        let old = !strict && seen.payload && got.is_some_and(|got| !before(got.most, seen.end));
        if let Some(sent) = sent.filter(|_| !old) {
            sent.acknowledged(&seen, strict)?;
        }
        if let Some(got) = got {
            got.take(&seen, *leg, strict)?;
        }
        Ok(())
    }
}
