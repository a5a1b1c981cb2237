//! base64url without padding, in its canonical form only (RFC 7515 section 2, RFC 4648 section 3.5).
//!
//! If a decoder accepts stray bits, padding or white space, one value has several encodings. Then
//! one key has several thumbprints, and one proof has several texts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Decodes text of any length. The caller must bound the length.
pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Like [`decode`], but appends to `bytes`.
pub(crate) fn decode_onto(text: &str, bytes: &mut Vec<u8>) -> Option<()> {
    URL_SAFE_NO_PAD.decode_vec(text, bytes).ok()
}

/// Decodes text to exactly `N` bytes.
pub(crate) fn decode_exact<const N: usize>(text: impl AsRef<[u8]>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (length == N).then_some(bytes)
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Like [`encode`], but in pieces and without an allocation: every request needs a thumbprint.
pub(crate) fn encoded_pieces<T>(bytes: &[u8], start: T, add: impl Fn(T, &[u8]) -> T) -> T {
    let mut piece = [0; 64];
    // 48 bytes encode to 64 characters, so only the last piece can have a remainder.
    bytes.chunks(48).fold(start, |so_far, bytes| {
        let length = URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut piece)
            .expect("48 bytes are 64 characters");
        add(so_far, &piece[..length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..bytes.len() {
            let bytes = &bytes[..length];
            let pieces = encoded_pieces(bytes, Vec::new(), |so_far, piece| {
                [so_far, piece.to_vec()].concat()
            });
            assert_eq!(pieces, encode(bytes).as_bytes(), "{length} bytes");
        }
    }

    /// J-14
    #[test]
    fn accepts_only_the_canonical_form() {
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
        for (name, text) in [
            ("padding", "-_8="),
            ("the standard alphabet", "+/8"),
            ("stray bits", "-_9"),
            ("a space", "-_8 "),
            ("a line feed", "-_\n8"),
            ("an impossible length", "-_8AA"),
        ] {
            assert_eq!(decode(text), None, "{name}");
        }
        assert_eq!(decode_exact::<1>("AA"), Some([0]));
        assert_eq!(decode_exact::<2>("AA"), None, "too short");
        assert_eq!(decode_exact::<1>("AAA"), None, "too long");
    }
}
