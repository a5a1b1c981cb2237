//! What a proof is made of: algorithms, public keys and signed objects, read strictly.
//!
//! - [`algorithm`]: which signature algorithms exist here, and which keys each goes with;
//! - [`jwk`]: a client's public key and its thumbprint (`jkt`);
//! - `json`, `jws`: the strict readers underneath;
//! - `engine`: the only file that names a cryptography crate for verifying, but for
//! - `p256_table`: ES256 for keys that recur, by precomputed multiples of the key's point;
//! - `signing`: the only file that names a cryptography crate for signing;
//! - `private_key`: private keys as documents, PKCS#8 and JWK;
//! - [`SigningKey`]: the key that signs proofs and client assertions;
//! - `recurring_key`: a parsed key, and when it is worth a table;
//! - `key_cache`: the keys of clients whose requests have passed.

pub(crate) mod algorithm;
pub(crate) mod base64url;
pub(crate) mod json;
pub(crate) mod jwk;
pub(crate) mod jws;
pub(crate) mod engine;
#[cfg(feature = "precomputed-keys")]
pub(crate) mod p256_table;
pub(crate) mod recurring_key;
pub(crate) mod key_cache;
#[cfg(feature = "_signing")]
pub(crate) mod signing;
#[cfg(feature = "_signing")]
pub(crate) mod private_key;
#[cfg(feature = "_signing")]
pub(crate) mod signing_key;

pub use crate::jose::algorithm::{AlgorithmsError, UnknownAlgorithm};
pub use crate::jose::jwk::{Jwk, JwkError, NotAThumbprint, SignatureRejected};
#[cfg(feature = "_signing")]
pub use crate::jose::private_key::SigningKeyError;
#[cfg(feature = "_signing")]
pub use crate::jose::signing_key::{SecretBytes, SecretText, SigningError, SigningKey};
