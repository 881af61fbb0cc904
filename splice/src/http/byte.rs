//! Classes of bytes.

/// Bit n of word n / 64: byte n may stand in a token (RFC 9110, section 5.6.2).
const TOKEN: [u64; 2] = {
    let mut table = [0; 2];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            table[byte as usize / 64] |= 1 << (byte % 64);
        }
        byte += 1;
    }
    table
};

/// Whether `byte` may stand in a token.
#[inline(always)]
pub const fn is_token(byte: u8) -> bool {
    let table = if byte < 64 { TOKEN[0] } else { TOKEN[1] };
    byte < 128 && table >> (byte & 63) & 1 != 0
}

/// Whether `byte` is optional white space.
#[inline(always)]
pub const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}
