//! The private half of an EC key within PKCS#8.

use pkcs8::ObjectIdentifier;
use pkcs8::der::asn1::{BitStringRef, ContextSpecific, OctetStringRef};
use pkcs8::der::{
    self, Decode as _, DecodeValue, Encode as _, EncodeValue, Header, Length, Reader, Sequence,
    Tag, TagMode, TagNumber, Writer,
};
use zeroize::Zeroizing;

/// An `ECPrivateKey` (RFC 5915 section 3).
pub(crate) struct Sec1<'a> {
    pub(crate) scalar: &'a OctetStringRef,
    /// Never written by this crate: PKCS#8 names the curve itself.
    pub(crate) curve: Option<ObjectIdentifier>,
    pub(crate) public: Option<BitStringRef<'a>>,
}

const SEC1_VERSION: u8 = 1;

impl Sec1<'_> {
    pub(crate) fn write(scalar: &[u8], public: &[u8]) -> der::Result<Zeroizing<Vec<u8>>> {
        let sec1 = Sec1 {
            scalar: OctetStringRef::new(scalar)?,
            curve: None,
            public: Some(BitStringRef::from_bytes(public)?),
        };
        sec1.to_der().map(Zeroizing::new)
    }
}

impl<'a> DecodeValue<'a> for Sec1<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(fields: &mut R, _: Header) -> der::Result<Self> {
        if u8::decode(fields)? != SEC1_VERSION {
            return Err(fields.error(Tag::Integer.value_error()));
        }
        Ok(Self {
            scalar: <&OctetStringRef>::decode(fields)?,
            curve: fields.context_specific(TagNumber(0), TagMode::Explicit)?,
            public: fields.context_specific(TagNumber(1), TagMode::Explicit)?,
        })
    }
}

impl EncodeValue for Sec1<'_> {
    fn value_len(&self) -> der::Result<Length> {
        SEC1_VERSION.encoded_len()?
            + self.scalar.encoded_len()?
            + explicit(0, self.curve).encoded_len()?
            + explicit(1, self.public).encoded_len()?
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        SEC1_VERSION.encode(writer)?;
        self.scalar.encode(writer)?;
        explicit(0, self.curve).encode(writer)?;
        explicit(1, self.public).encode(writer)
    }
}

impl Sequence<'_> for Sec1<'_> {}

fn explicit<T>(number: u32, value: Option<T>) -> Option<ContextSpecific<T>> {
    value.map(|value| ContextSpecific {
        tag_number: TagNumber(number),
        tag_mode: TagMode::Explicit,
        value,
    })
}
