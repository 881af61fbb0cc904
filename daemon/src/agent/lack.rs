//! What a held head waits for, in words.

use sidetrack_splice::{
    abi::record::Connection,
    conn::{self, Lack},
    seq,
};

/// What the owner of a connection with a held head may not change without; `None` if nothing is lacking.
pub(super) fn words(c: &Connection) -> Option<String> {
    let (now, resp) = (&c.now, &c.resp);
    let acked = seq::extend(resp.next, now.acked);
    Some(match conn::lacks(now, resp, now.held, acked)? {
        Lack::Answers => format!("of {} requests {} are answered", now.asked, resp.answered),
        Lack::End => "the last answer has not ended".into(),
        Lack::Server => {
            let bytes = now.held.wrapping_sub(resp.acked);
            format!("the server has not acknowledged {bytes} bytes of the requests before")
        }
        Lack::Client => {
            let bytes = resp.next.wrapping_sub(acked);
            format!("the client has not acknowledged {bytes} bytes of the answers")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_has_its_words() {
        let mut c = Connection::default();
        (c.now.held, c.resp.acked) = (1 << 33, 1 << 33);
        (c.resp.next, c.resp.response.pos, c.now.acked) = (5 << 32, 5 << 32, 0);
        let of = |change: fn(&mut Connection)| {
            let mut changed = c;
            change(&mut changed);
            words(&changed).unwrap_or_default()
        };
        assert_eq!(of(|_| {}), "");
        assert_eq!(of(|c| c.now.asked = 3), "of 3 requests 0 are answered");
        assert_eq!(of(|c| c.resp.response.pos += 1), "the last answer has not ended");
        assert_eq!(of(|c| c.resp.acked -= 7), "the server has not acknowledged 7 bytes of the requests before");
        assert_eq!(of(|c| c.now.acked = u32::MAX - 8), "the client has not acknowledged 9 bytes of the answers");
    }
}
