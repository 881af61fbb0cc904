//! One frame into two.

use super::{CHECK, CWR, ETHERNET, FIN, Frame, FrameError, PSH, URG, checksum::fold, checksum::sum, pseudo};

/// Cuts a frame behind `n` bytes of payload. PSH and FIN stay with the second frame only, CWR with the first; both
/// have complete checksums.
pub fn cut(frame: &[u8], n: usize) -> Result<(Vec<u8>, Vec<u8>), FrameError> {
    let it = Frame::parse(frame)?;
    let payload = it.payload();
    if n == 0 || n >= payload.len() {
        return Err(FrameError::Cut { at: n, len: payload.len() });
    }
    let flags = it.tcp + 13;
    let mut first = it.bytes[..it.payload + n].to_vec();
    first[flags] &= !(PSH | FIN);
    let mut second = it.bytes[..it.payload].to_vec();
    second.extend(&payload[n..]);
    second[flags] &= !CWR;
    put(&mut second, it.tcp + 4, &it.seq().wrapping_add(n as u32).to_be_bytes());
    if it.flags() & URG != 0 {
        // The pointer counts from the segment's own sequence number; in the first it may point beyond its end.
        let urgent = usize::from(it.tcp_u16(18));
        if urgent > n {
            put(&mut second, it.tcp + 18, &((urgent - n) as u16).to_be_bytes());
        } else {
            second[flags] &= !URG;
            put(&mut second, it.tcp + 18, &[0; 2]);
        }
    }
    if !it.v6 {
        let id = u16::from_be_bytes([it.bytes[ETHERNET + 4], it.bytes[ETHERNET + 5]]);
        put(&mut second, ETHERNET + 4, &id.wrapping_add(1).to_be_bytes());
    }
    for part in [&mut first, &mut second] {
        finish(part, it.v6, it.tcp);
    }
    Ok((first, second))
}

/// Sets the lengths and checksums of a frame whose TCP header starts at `tcp`.
pub(super) fn finish(frame: &mut [u8], v6: bool, tcp: usize) {
    let len = frame.len();
    if v6 {
        put(frame, ETHERNET + 4, &((len - tcp) as u16).to_be_bytes());
    } else {
        put(frame, ETHERNET + 2, &((len - ETHERNET) as u16).to_be_bytes());
        put(frame, ETHERNET + 10, &[0; 2]);
        let check = !fold(sum(&frame[ETHERNET..tcp]));
        put(frame, ETHERNET + 10, &check.to_be_bytes());
    }
    put(frame, tcp + CHECK, &[0; 2]);
    let check = !fold(u64::from(pseudo(frame, v6, tcp)) + sum(&frame[tcp..]));
    put(frame, tcp + CHECK, &check.to_be_bytes());
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::frame::{ACK, testing::*};

    #[test]
    fn two_frames_hold_what_one_held() {
        let payload: Vec<u8> = (0..1000_u32).map(|n| (n * 7) as u8).collect();
        for v6 in [false, true] {
            for n in [1, 2, 255, 256, 257, 500, 998, 999] {
                let mut made = spec(v6, &payload);
                made.flags = ACK | PSH | FIN | CWR;
                let (first, second) = cut(&make(&made), n).expect("within the payload");
                verify(&first);
                verify(&second);
                let (a, b) = (Frame::parse(&first).expect("a frame"), Frame::parse(&second).expect("a frame"));
                assert_eq!((a.payload(), b.payload()), (&payload[..n], &payload[n..]));
                assert_eq!((a.seq(), b.seq()), (made.seq, made.seq.wrapping_add(n as u32)));
                assert_eq!((a.flags(), b.flags()), (ACK | CWR, ACK | PSH | FIN));
                assert_eq!((a.tuple(), a.ack()), (b.tuple(), b.ack()));
                if !v6 {
                    assert_eq!((&first[18..20], &second[18..20]), (&[0x12, 0x34][..], &[0x12, 0x35][..]));
                }
            }
        }
    }

    #[test]
    fn padding_is_left_behind_and_urgent_data_stays_where_it_is() {
        let mut bytes = make(&spec(false, b"abcdefgh"));
        bytes[47] |= URG;
        bytes[53] = 5;
        bytes.extend([0; 9]);
        let (first, second) = cut(&bytes, 3).expect("within the payload");
        assert_eq!(Frame::parse(&second).expect("a frame").payload(), b"defgh");
        assert_eq!((first[53], second[53], second[47] & URG), (5, 2, URG));
        let (_, second) = cut(&bytes, 5).expect("within the payload");
        assert_eq!((second[53], second[47] & URG), (0, 0));
        verify(&second);
    }

    #[test]
    fn a_cut_outside_the_payload_is_refused() {
        let bytes = make(&spec(true, b"hello"));
        for at in [0, 5, 6] {
            assert_eq!(cut(&bytes, at), Err(FrameError::Cut { at, len: 5 }));
        }
    }
}
