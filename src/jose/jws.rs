//! The compact serialisation of signed objects, read strictly (RFC 7515 section 7.1).

use crate::jose::base64url;

/// A JWS in its compact form, split and decoded. Nothing is verified.
pub(crate) struct CompactJws<'a> {
    /// The first two segments as received: the signed input.
    pub(crate) signing_input: &'a str,
    /// The three decoded segments, concatenated: this runs for every request, so it allocates once.
    bytes: Vec<u8>,
    header_end: usize,
    payload_end: usize,
}

impl<'a> CompactJws<'a> {
    /// The caller must bound the length of the text.
    pub(crate) fn parse(text: &'a str) -> Result<Self, InvalidJws> {
        // Every separator is searched for at most once, regardless of the text.
        let (signing_input, signature) = text.rsplit_once('.').ok_or(InvalidJws)?;
        let (header, payload) = signing_input.split_once('.').ok_or(InvalidJws)?;
        if payload.contains('.') {
            return Err(InvalidJws);
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut decode = |segment: &str| {
            base64url::decode_onto(segment, &mut bytes).ok_or(InvalidJws)?;
            Ok(bytes.len())
        };
        Ok(Self {
            signing_input,
            header_end: decode(header)?,
            payload_end: decode(payload)?,
            bytes: {
                decode(signature)?;
                bytes
            },
        })
    }

    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes[..self.header_end]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.header_end..self.payload_end]
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.bytes[self.payload_end..]
    }
}

/// The text is not three segments of canonical base64url: a JWE, the JSON serialisation, or no
/// token at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidJws;

/// The input that a JWS with this header and payload signs: its first two segments.
#[cfg(feature = "_signing")]
pub(crate) fn signing_input(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    format!(
        "{}.{}",
        base64url::encode(header),
        base64url::encode(payload)
    )
}

/// The complete JWS.
#[cfg(feature = "_signing")]
pub(crate) fn with_signature(mut signing_input: String, signature: &[u8]) -> String {
    signing_input.push('.');
    signing_input.push_str(&base64url::encode(signature));
    signing_input
}

/// A new identifier for a JWT (`jti`): 128 random bits. RFC 9449 section 4.2 suggests at least 96.
#[cfg(feature = "_signing")]
pub(crate) fn fresh_jti() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(base64url::encode(bytes))
}

/// Defines the header of a JWS that is verified here: an object made by `object!`, and a check for
/// members that would change what was signed (RFC 7515 section 4.1.11, RFC 7797), or that mark the
/// JWS as encrypted.
macro_rules! jws_header {
    (struct $name:ident<$de:lifetime> { $($field:ident: $type:ty = $member:literal,)* }) => {
        $crate::jose::json::object! {
            struct $name<$de> {
                $($field: $type = $member,)*
            }
            forbidden {
                crit = "crit",
                b64 = "b64",
                enc = "enc",
                zip = "zip",
            }
        }

        impl $name<'_> {
            fn is_extended(&self) -> bool {
                self.crit.is_some() || self.b64.is_some() || self.enc.is_some() || self.zip.is_some()
            }
        }
    };
}
pub(crate) use jws_header;
