//! Keys, algorithms and signed objects, read strictly: what proofs and tokens are made of.
//!
//! - `algorithm`: the supported signature algorithms, and the kind of key that each one needs;
//! - `base64url`, `json`, `jws`: the strict readers underneath, and the only writer of compact JWSs;
//! - `jwk`, `thumbprint`: a client's public key, and its thumbprint (`jkt`);
//! - `engine`: the only file that names a cryptography crate for verifying; `ed25519` makes, before it, the checks on
//!   which engines differ; `p256_table` (feature `precomputed-keys`) verifies ES256 for recurring keys;
//! - `recurring_key`, `key_cache`: parsed keys, and the keys of clients whose requests were accepted;
//! - `rsa_signing`, `private_key`: the only files that name a cryptography crate for signing;
//! - `sec1`, `key_documents`: private keys as documents, PKCS#8 and JWK;
//! - `signing_key`: the key that signs proofs and client assertions.

pub(crate) mod algorithm;
pub(crate) mod base64url;
pub(crate) mod json;
pub(crate) mod ed25519;
pub(crate) mod thumbprint;
pub(crate) mod jwk;
pub(crate) mod jws;
pub(crate) mod engine;
#[cfg(feature = "precomputed-keys")]
pub(crate) mod p256_table;
pub(crate) mod recurring_key;
pub(crate) mod key_cache;
#[cfg(feature = "_signing")]
pub(crate) mod rsa_signing;
#[cfg(feature = "_signing")]
pub(crate) mod private_key;
#[cfg(feature = "_signing")]
pub(crate) mod sec1;
#[cfg(feature = "_signing")]
pub(crate) mod key_documents;
#[cfg(feature = "_signing")]
pub(crate) mod signing_key;

pub use crate::jose::algorithm::{InvalidAlgorithm, InvalidAlgorithms};
pub use crate::jose::jwk::{InvalidJwk, Jwk, SignatureRejected};
#[cfg(feature = "_signing")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "client", feature = "introspection"))))]
pub use crate::jose::key_documents::SigningKeyError;
#[cfg(feature = "_signing")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "client", feature = "introspection"))))]
pub use crate::jose::signing_key::{SecretBytes, SecretText, SigningError, SigningKey};
pub use crate::jose::thumbprint::InvalidThumbprint;
