//! What several targets need.
#![allow(dead_code, reason = "no target needs everything")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use serde_json::Value;
use tower_dpop::jose::SigningKey;

/// The result of a future that waits for nothing.
pub fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing to wait for"),
    }
}

/// The P-256 key with this scalar.
pub fn p256_key(scalar: &[u8; 32]) -> SigningKey {
    let secret = p256::SecretKey::from_slice(scalar).expect("a scalar below n");
    let point = secret.public_key().to_uncompressed_point();
    let [x, y] = [&point[1..33], &point[33..]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let d = URL_SAFE_NO_PAD.encode(scalar);
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","d":"{d}"}}"#);
    SigningKey::from_jwk(&jwk).expect("a private key")
}

/// The Ed25519 key of RFC 8037 appendix A.1.
pub fn ed25519_key() -> SigningKey {
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    SigningKey::from_jwk(jwk).expect("a key")
}

/// The number in a member of a JWK, without leading zeros, in any of the spellings that issuers use.
pub fn coordinate(member: &Value) -> Vec<u8> {
    let text = member.as_str().unwrap_or_default().trim_end_matches('=');
    let text = text.replace('+', "-").replace('/', "_");
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}
