//! The compact serialisation of signed objects, read strictly (RFC 7515 section 7.1).

use crate::jose::base64url;

/// A JWS in its compact form, split and decoded; nothing about it is verified.
pub(crate) struct CompactJws<'a> {
    /// The first two segments as they came, which is what was signed.
    pub(crate) signing_input: &'a str,
    /// The three segments, decoded, one behind the other: one allocation for every request.
    octets: Vec<u8>,
    header_end: usize,
    payload_end: usize,
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
        let mut octets = Vec::with_capacity(text.len());
        let mut decode = |segment: &str| {
            base64url::decode_onto(segment, &mut octets).ok_or(NotCompactJws)?;
            Ok(octets.len())
        };
        Ok(Self {
            signing_input,
            header_end: decode(header)?,
            payload_end: decode(payload)?,
            octets: {
                decode(signature)?;
                octets
            },
        })
    }

    pub(crate) fn header(&self) -> &[u8] {
        &self.octets[..self.header_end]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.octets[self.header_end..self.payload_end]
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.octets[self.payload_end..]
    }
}

/// The text is not three segments of canonical base64url: a JWE, the JSON serialisation, or no
/// token at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotCompactJws;
