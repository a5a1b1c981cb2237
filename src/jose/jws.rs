//! The compact serialisation of signed objects, read strictly (RFC 7515 section 7.1).

use crate::jose::base64url;

/// A JWS in its compact form, split and decoded; nothing about it is verified.
pub(crate) struct CompactJws<'a> {
    /// The first two segments as they came, which is what was signed.
    pub(crate) signing_input: &'a str,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> CompactJws<'a> {
    /// The caller has bounded the length of the text.
    pub(crate) fn parse(text: &'a str) -> Result<Self, NotCompactJws> {
        // Every separator is looked for at most once, whatever the text holds.
        let (signing_input, signature) = text.rsplit_once('.').ok_or(NotCompactJws)?;
        let (header, payload) = signing_input.split_once('.').ok_or(NotCompactJws)?;
        if payload.contains('.') {
            return Err(NotCompactJws);
        }
        let decode = |segment: &str| base64url::decode(segment).ok_or(NotCompactJws);
        Ok(Self {
            signing_input,
            header: decode(header)?,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }
}

/// The text is not three segments of canonical base64url: a JWE, the JSON serialisation, or no
/// token at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotCompactJws;
