//! Signs any content, valid or not: the raw material of tokens and proofs.

use serde_json::Value;

use crate::jose::jws;
use crate::jose::signing_key::SigningKey;

/// A compact JWS over any two JSON values.
///
/// # Panics
///
/// Panics if the key cannot sign.
pub fn sign_jws(key: &SigningKey, header: &Value, claims: &Value) -> String {
    sign_text(key, header.to_string(), claims.to_string())
}

/// A compact JWS over any two texts, JSON or not: for headers and payloads that no JSON library
/// would write.
///
/// # Example
///
/// ```
/// use tower_dpop::jose::SigningKey;
/// use tower_dpop::testing::sign_text;
///
/// let key = SigningKey::generate()?;
/// let proof = sign_text(&key, r#"{"typ":"dpop+jwt","typ":"JWT"}"#, "no JSON at all");
/// assert_eq!(proof.split('.').count(), 3);
/// # Ok::<(), tower_dpop::jose::SigningKeyError>(())
/// ```
///
/// # Panics
///
/// Panics if the key cannot sign.
pub fn sign_text(key: &SigningKey, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let input = jws::signing_input(header, payload);
    let signature = key
        .sign_now(input.as_bytes())
        .expect("a key in memory signs");
    jws::with_signature(input, &signature)
}

/// 128 random bits, for a `jti` that no earlier run has used.
pub(super) fn fresh_id() -> String {
    jws::fresh_jti().expect("the operating system gives randomness")
}
