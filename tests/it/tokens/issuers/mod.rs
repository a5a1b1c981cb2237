//! Tokens of several issuers, each verified by the rules and keys of its own issuer only.

mod opaque_tokens;
mod selection;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tower_dpop::testing::{TestIssuer, TestToken};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, KeySource, KeySourceError, PresentedToken,
    TokenError,
};
use tower_dpop::{Algorithm, Algorithms, Issuers, JwtVerifier, KeySet, Timestamp};

use common::{AUDIENCE, Key, KeyExt as _, NOW, TestClock, block_on};

const OUR_ISSUER: &str = "https://as.example.com";
const PARTNER_ISSUER: &str = "https://login.partner.example";
const PARTNER_AUDIENCE: &str = "orders";

/// A key source that counts how often it is asked.
struct CountedKeys {
    keys: KeySet,
    calls: Arc<AtomicUsize>,
}

impl KeySource for CountedKeys {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(self.keys.clone())
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Ok(None)
    }
}

/// A verifier of tokens that are not JWTs.
struct OpaqueVerifier {
    calls: Arc<AtomicUsize>,
    issuers: &'static [&'static str],
}

impl AccessTokenVerifier for OpaqueVerifier {
    type Claims = Value;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<Value>, TokenError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match token.as_str() {
            "revoked" => Err(TokenError::Invalid),
            "unreachable" => Err(TokenError::Unavailable),
            text => {
                let claims = json!({ "opaque": text });
                Ok(AccessToken::new(Confirmation::Unbound, claims))
            }
        }
    }

    fn issuers(&self) -> Vec<&str> {
        self.issuers.to_vec()
    }
}

/// Two issuers whose keys have the same `kid` and the same algorithm. The second has another key as
/// well.
struct TwoIssuers {
    our_key: Key,
    partners_key: Key,
    ours: TestIssuer,
    partners: TestIssuer,
    /// How often our keys, the partner's keys, and the verifier of opaque tokens were asked.
    calls: [Arc<AtomicUsize>; 3],
}

impl TwoIssuers {
    fn new() -> Self {
        let (our_key, partners_key) = (Key::es256(), Key::es256());
        Self {
            ours: TestIssuer::new(OUR_ISSUER, AUDIENCE)
                .with_key("1", our_key.clone())
                .with_clock(TestClock::at(NOW)),
            partners: TestIssuer::new(PARTNER_ISSUER, PARTNER_AUDIENCE)
                .with_key("2", Key::ed25519("Ed25519"))
                .add_key("1", partners_key.clone())
                .with_clock(TestClock::at(NOW)),
            our_key,
            partners_key,
            calls: Default::default(),
        }
    }

    fn our_verifier(&self) -> JwtVerifier<CountedKeys, Value> {
        JwtVerifier::new(OUR_ISSUER, AUDIENCE, self.keys(&self.ours, 0))
            .with_algorithms(Algorithms::only(Algorithm::Es256))
            .with_claims()
    }

    fn partners_verifier(&self) -> JwtVerifier<CountedKeys, Value> {
        JwtVerifier::new(
            PARTNER_ISSUER,
            PARTNER_AUDIENCE,
            self.keys(&self.partners, 1),
        )
        .with_lenient_typ()
        .with_claims()
    }

    fn keys(&self, issuer: &TestIssuer, number: usize) -> CountedKeys {
        CountedKeys {
            keys: issuer.key_set(),
            calls: Arc::clone(&self.calls[number]),
        }
    }

    fn opaque(&self) -> OpaqueVerifier {
        OpaqueVerifier {
            calls: Arc::clone(&self.calls[2]),
            issuers: &["https://opaque.example.com"],
        }
    }

    fn issuers(&self) -> Issuers<Value> {
        Issuers::new()
            .add_issuer(self.our_verifier())
            .add_issuer(self.partners_verifier())
    }

    fn our_token(&self) -> TestToken {
        self.ours.token_for(self.our_key.thumbprint())
    }

    fn partners_token(&self) -> TestToken {
        self.partners.token_for(self.our_key.thumbprint())
    }

    /// A token of our issuer with this text as its claims.
    fn signed(&self, claims: &str) -> String {
        let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": "1" });
        self.our_key.sign_text(header.to_string(), claims)
    }

    fn calls(&self) -> [usize; 3] {
        [0, 1, 2].map(|number: usize| self.calls[number].load(Ordering::SeqCst))
    }
}

fn verify<C>(tokens: &Issuers<C>, token: &str) -> Result<AccessToken<C>, TokenError>
where
    C: Send + Sync + 'static,
{
    block_on(tokens.verify(PresentedToken::new(token), Timestamp::from_unix(NOW)))
}

const NO_CALLS: [usize; 3] = [0, 0, 0];
const OUR_KEYS: [usize; 3] = [1, 0, 0];
const PARTNER_KEYS: [usize; 3] = [0, 1, 0];
const OPAQUE_VERIFIER: [usize; 3] = [0, 0, 1];

type MakeToken = fn(&TwoIssuers) -> String;

type Row = (&'static str, MakeToken, Result<(), TokenError>, [usize; 3]);

/// Checks the result for each token, and what was asked about it.
#[track_caller]
fn assert_rows(rows: &[Row], tokens: impl Fn(&TwoIssuers) -> Issuers<Value>) {
    for (name, make, expected, calls) in rows {
        let setup = TwoIssuers::new();
        let tokens = tokens(&setup);
        let token = make(&setup);
        let result = verify(&tokens, &token).map(drop);
        assert_eq!((&result, setup.calls()), (expected, *calls), "{name}");
    }
}
