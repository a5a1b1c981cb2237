//! Decodes the proofs that clients send.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use tower_dpop::jose::Jwk;
use tower_dpop::{Algorithm, Thumbprint};

/// One decoded proof.
#[derive(Clone, Debug)]
pub struct ReadProof {
    pub text: String,
    pub header: Value,
    pub claims: Value,
    /// The payload as text.
    pub payload: String,
    pub signature: Vec<u8>,
}

impl ReadProof {
    #[track_caller]
    pub fn of(field: &HeaderValue) -> Self {
        let text = field.to_str().unwrap().to_owned();
        let segments: Vec<Vec<u8>> = text
            .split('.')
            .map(|segment| URL_SAFE_NO_PAD.decode(segment).unwrap())
            .collect();
        let [header, payload, signature] = segments.try_into().unwrap();
        Self {
            text,
            header: serde_json::from_slice(&header).unwrap(),
            claims: serde_json::from_slice(&payload).unwrap(),
            payload: String::from_utf8(payload).unwrap(),
            signature,
        }
    }

    /// The proof of a request. The request must have exactly one `DPoP` field (C-3).
    #[track_caller]
    pub fn in_headers(headers: &HeaderMap) -> Self {
        let fields: Vec<_> = headers.get_all("dpop").iter().collect();
        let [field] = fields.as_slice() else {
            panic!("C-3: {} DPoP fields", fields.len());
        };
        assert!(field.is_sensitive(), "the proof is not marked as sensitive");
        Self::of(field)
    }

    pub fn jwk(&self) -> Jwk {
        self.header["jwk"].to_string().parse().unwrap()
    }

    pub fn thumbprint(&self) -> Thumbprint {
        self.jwk().thumbprint()
    }

    /// Asserts that the signature verifies with the key in the header.
    #[track_caller]
    pub fn assert_signed(&self, name: &str) {
        let algorithm: Algorithm = self.header["alg"].as_str().unwrap().parse().unwrap();
        let (input, _) = self.text.rsplit_once('.').unwrap();
        let result = self
            .jwk()
            .verify(algorithm, input.as_bytes(), &self.signature);
        assert!(result.is_ok(), "{name}: the signature does not verify");
    }

    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims[name].as_str()
    }

    pub fn jti(&self) -> &str {
        self.claim("jti").unwrap()
    }

    pub fn nonce(&self) -> Option<&str> {
        self.claim("nonce")
    }

    pub fn iat(&self) -> u64 {
        self.claims["iat"].as_u64().unwrap()
    }
}

/// The names of an object's members.
#[track_caller]
pub fn names(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Asserts that no eight consecutive characters of a secret are shown.
#[track_caller]
pub fn assert_shows_nothing(name: &str, shown: &str, secrets: &[impl AsRef<str>]) {
    for secret in secrets {
        let characters: Vec<char> = secret.as_ref().chars().collect();
        assert!(characters.len() >= 8, "{name}: too short to search for");
        for part in characters.windows(8) {
            let part: String = part.iter().collect();
            assert!(
                !shown.contains(&part),
                "{name} shows {part:?} of a secret: {shown}"
            );
        }
    }
}
