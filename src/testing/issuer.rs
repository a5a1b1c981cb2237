//! An issuer of access tokens whose keys the test controls.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::jose::signing_key::SigningKey;
use crate::jose::thumbprint::Thumbprint;
use crate::testing::clock::TestClock;
use crate::testing::jws::{fresh_id, sign_jws};
use crate::tokens::jwt::JwtVerifier;
use crate::tokens::key_set::KeySet;

/// An issuer of RFC 9068 access tokens for one audience.
///
/// # Example
///
/// ```
/// use tower_dpop::jose::SigningKey;
/// use tower_dpop::testing::TestIssuer;
///
/// let issuer = TestIssuer::new("https://as.example.com", "https://api.example.com");
/// let tokens = issuer.jwt_verifier(); // for the service under test
///
/// let client = SigningKey::generate()?;
/// let token = issuer.token_for(client.thumbprint()).with_claim("scope", "orders.read").to_text();
/// # let _ = (tokens, token);
///
/// // The new key signs; tokens signed with the old key are still valid.
/// let rotated = issuer.clone().add_key("2", SigningKey::generate()?);
/// assert!(rotated.key_set().has_kid("1") && rotated.key_set().has_kid("2"));
/// # Ok::<(), tower_dpop::jose::SigningKeyError>(())
/// ```
#[derive(Clone)]
pub struct TestIssuer {
    issuer: String,
    audience: String,
    keys: Vec<IssuerKey>,
    clock: TestClock,
}

#[derive(Clone)]
struct IssuerKey {
    kid: String,
    key: SigningKey,
}

impl TestIssuer {
    /// An issuer with a new ES256 key whose `kid` is "1", and a [clock](TestClock::default) of its own,
    /// which the service must read, too.
    ///
    /// # Panics
    ///
    /// Panics if the operating system provides no randomness.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let key = SigningKey::generate().expect("the operating system gives randomness");
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            keys: vec![IssuerKey {
                kid: "1".to_owned(),
                key,
            }],
            clock: TestClock::default(),
        }
    }

    /// A verifier of this issuer's tokens, with its keys as of now and the default settings.
    pub fn jwt_verifier(&self) -> JwtVerifier<KeySet> {
        JwtVerifier::new(&self.issuer, &self.audience, self.key_set())
    }

    /// The clock by which tokens are dated.
    pub const fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// A valid token bound to this key, which can be changed before it is signed: issued now, valid for
    /// ten minutes, with the subject `alice`.
    pub fn token_for(&self, jkt: Thumbprint) -> TestToken {
        let (now, IssuerKey { kid, key }) = (self.clock.now(), self.signing_key());
        TestToken {
            header: json!({ "typ": "at+jwt", "alg": key.algorithm(), "kid": kid }),
            claims: json!({
                "iss": self.issuer,
                "aud": self.audience,
                "sub": "alice",
                "client_id": "test-client",
                "iat": now.as_unix(),
                "exp": now.plus(600).as_unix(),
                "jti": fresh_id(),
                "cnf": { "jkt": jkt },
            }),
            key: key.clone(),
        }
    }

    /// Signs with this key and publishes no other, so that tokens signed before are not valid.
    #[must_use]
    pub fn with_key(mut self, kid: impl Into<String>, key: SigningKey) -> Self {
        self.keys.clear();
        self.add_key(kid, key)
    }

    /// Signs with this key from now on, and publishes it next to the existing keys.
    #[must_use]
    pub fn add_key(mut self, kid: impl Into<String>, key: SigningKey) -> Self {
        self.keys.push(IssuerKey {
            kid: kid.into(),
            key,
        });
        self
    }

    /// Dates tokens by this clock.
    #[must_use]
    pub fn with_clock(self, clock: TestClock) -> Self {
        Self { clock, ..self }
    }

    /// The public keys, as an issuer publishes them: a JWK Set.
    pub fn jwks(&self) -> String {
        let keys: Vec<Value> = self
            .keys
            .iter()
            .map(|IssuerKey { kid, key }| {
                let mut jwk = public_jwk(key);
                jwk["kid"] = json!(kid);
                jwk["use"] = json!("sig");
                jwk
            })
            .collect();
        json!({ "keys": keys }).to_string()
    }

    /// The public keys, parsed.
    #[expect(
        clippy::missing_panics_doc,
        reason = "an issuer without a key cannot be made"
    )]
    pub fn key_set(&self) -> KeySet {
        self.jwks().parse().expect("the issuer has a key")
    }

    fn signing_key(&self) -> &IssuerKey {
        self.keys.last().expect("the issuer has a key")
    }
}

impl fmt::Debug for TestIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestIssuer")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// The public half of a key, for headers and key sets that a test changes.
pub(super) fn public_jwk(key: &SigningKey) -> Value {
    serde_json::to_value(key.public_key()).expect("a public key can be written as JSON")
}

/// An unsigned access token. Every part of it can be changed before it is signed.
///
/// # Example
///
/// ```
/// use tower_dpop::jose::SigningKey;
/// use tower_dpop::testing::TestIssuer;
///
/// # fn example(issuer: TestIssuer, client: SigningKey) {
/// let another_tenants = issuer.token_for(client.thumbprint()).with_claim("tenant", 2).to_text();
/// let without_tenant = issuer.token_for(client.thumbprint()).without_claim("tenant").to_text();
/// # let _ = (another_tenants, without_tenant);
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct TestToken {
    /// The JOSE header: `typ`, `alg`, `kid`.
    pub header: Value,
    /// The claims.
    pub claims: Value,
    /// The key that signs the token.
    pub key: SigningKey,
}

impl TestToken {
    /// Sets a claim.
    ///
    /// # Panics
    ///
    /// Panics if the value cannot be written as JSON.
    #[must_use]
    pub fn with_claim(mut self, name: &str, value: impl Serialize) -> Self {
        self.claims[name] = to_json(value);
        self
    }

    /// Removes a claim.
    #[must_use]
    pub fn without_claim(mut self, name: &str) -> Self {
        remove(&mut self.claims, name);
        self
    }

    /// Sets a member of the header.
    ///
    /// # Panics
    ///
    /// Panics if the value cannot be written as JSON.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Serialize) -> Self {
        self.header[name] = to_json(value);
        self
    }

    /// Removes a member of the header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        remove(&mut self.header, name);
        self
    }

    /// Signs with another key. The header's `alg` and `kid` do not change.
    #[must_use]
    pub fn signed_by(self, key: SigningKey) -> Self {
        Self { key, ..self }
    }

    /// Signs the token.
    pub fn to_text(&self) -> String {
        sign_jws(&self.key, &self.header, &self.claims)
    }
}

impl fmt::Debug for TestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestToken(..)")
    }
}

/// Converts a value from a test to JSON.
#[track_caller]
pub(super) fn to_json(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("the value can be written as JSON")
}

/// Removes a member of an object.
pub(super) fn remove(object: &mut Value, member: &str) {
    if let Value::Object(members) = object {
        members.remove(member);
    }
}
