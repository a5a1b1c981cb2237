//! base64url without padding, in its one canonical form (RFC 7515 section 2, RFC 4648 section 3.5).
//!
//! A decoder that accepts stray bits, padding or white space gives one value several spellings, and
//! with them one key several thumbprints and one proof several texts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Decodes text of any length that the caller has bounded.
pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Decodes text that must come out at exactly `N` octets.
pub(crate) fn decode_exact<const N: usize>(text: impl AsRef<[u8]>) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut octets).ok()?;
    (length == N).then_some(octets)
}

pub(crate) fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

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
