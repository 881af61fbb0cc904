//! What a frame acknowledges, when it is sent later than it was made.

use sidetrack_splice::seq;

use super::{Frame, FrameError};

/// Lets the frame acknowledge `ack`, unless it acknowledges more. Its checksum is void then.
pub fn acknowledge(bytes: &mut [u8], ack: u32) -> Result<(), FrameError> {
    let frame = Frame::parse(bytes)?;
    let (at, ack) = (frame.tcp_at() + 8, seq::later(ack, frame.ack()));
    bytes[at..at + 4].copy_from_slice(&ack.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Spec, make},
        *,
    };

    #[test]
    fn a_frame_acknowledges_what_is_said_and_never_less_than_before() {
        for (from, to) in [("10.0.0.1:80", "10.0.0.2:90"), ("[fd00::1]:80", "[fd00::2]:90")] {
            let (from, to) = (from.parse().expect("an address"), to.parse().expect("an address"));
            let spec = Spec { l2: [0; 12], from, to, seq: 7, ack: u32::MAX - 4, flags: 0x18, payload: b"GET" };
            for (said, is) in [(u32::MAX - 5, u32::MAX - 4), (u32::MAX, u32::MAX), (3, 3)] {
                let mut bytes = make(&spec);
                let before = bytes.clone();
                acknowledge(&mut bytes, said).expect("a frame");
                let frame = Frame::parse(&bytes).expect("a frame");
                assert_eq!((frame.ack(), frame.seq(), frame.payload()), (is, 7, &b"GET"[..]));
                let at = frame.tcp_at() + 8;
                assert_eq!(
                    (&bytes[..at], &bytes[at + 4..]),
                    (&before[..at], &before[at + 4..]),
                    "nothing else changes"
                );
            }
        }
        acknowledge(&mut [0; 30], 1).expect_err("no frame");
    }
}
