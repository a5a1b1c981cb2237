//! The compact serialisation of signed objects, read strictly (RFC 7515 section 7.1).

use crate::jose::base64url;

/// The segments of a JWS in its compact form. Nothing is decoded.
#[derive(Clone, Copy)]
pub(crate) struct Segments<'a> {
    /// The first two, which are what is signed.
    signing_input: &'a str,
    pub(crate) header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Segments<'a> {
    /// The caller must bound the length of the text.
    pub(crate) fn split(text: &'a str) -> Result<Self, InvalidJws> {
        // With more than three segments, the payload has a separator, which is not base64url.
        let (signing_input, signature) = text.rsplit_once('.').ok_or(InvalidJws)?;
        let (header, payload) = signing_input.split_once('.').ok_or(InvalidJws)?;
        Ok(Self {
            signing_input,
            header,
            payload,
            signature,
        })
    }

    pub(crate) fn decode(self) -> Result<CompactJws<'a>, InvalidJws> {
        self.decode_with(self.header)
    }

    /// For a header that is known already: what is decoded has an empty one.
    pub(crate) fn decode_without_header(self) -> Result<CompactJws<'a>, InvalidJws> {
        self.decode_with("")
    }

    fn decode_with(self, header: &str) -> Result<CompactJws<'a>, InvalidJws> {
        let segments = [header, self.payload, self.signature];
        let mut bytes = Vec::with_capacity(segments.map(str::len).iter().sum());
        let mut decode = |segment: &str| {
            base64url::decode_onto(segment, &mut bytes).ok_or(InvalidJws)?;
            Ok(bytes.len())
        };
        Ok(CompactJws {
            signing_input: self.signing_input,
            header_end: decode(header)?,
            payload_end: decode(self.payload)?,
            bytes: {
                decode(self.signature)?;
                bytes
            },
        })
    }
}

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
        Segments::split(text)?.decode()
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
