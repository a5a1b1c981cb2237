mod algorithm;
mod base64url;
mod engine;
mod json;
mod jwk;
mod jws;
#[cfg(feature = "precomputed-keys")]
mod key_cache;
mod key_documents;
mod keys;
mod private_key;
#[cfg(feature = "precomputed-keys")]
mod recurring_key;
mod signing_key;
mod thumbprint;
mod wycheproof;
mod wycheproof_jws;
