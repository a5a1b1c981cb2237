//! What the server requires of access tokens.

use serde_json::{Value, json};
use tower_dpop::jose::SigningKey;
use tower_dpop::tokens::{AccessTokenVerifier as _, Profile};
use tower_dpop::{JwtVerifier, KeySet, Thumbprint, Timestamp};

use crate::explain::jwt::Jwt;
use crate::failure::Failure;

/// What the server requires of access tokens, as far as it was given.
pub(crate) struct TokenRules {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) keys: Option<KeySet>,
    pub(crate) typ: Typ,
    /// The key to which the token is bound, if the token cannot say it.
    pub(crate) jkt: Option<Thumbprint>,
    pub(crate) now: Timestamp,
}

/// Which `typ` is accepted.
#[derive(Clone, Copy)]
pub(crate) enum Typ {
    AtJwt,
    Lenient,
    Of(Profile),
}

impl Typ {
    fn set(self, verifier: JwtVerifier<KeySet>) -> JwtVerifier<KeySet> {
        match self {
            Self::AtJwt => verifier,
            Self::Lenient => verifier.with_lenient_typ(),
            Self::Of(profile) => verifier.with_profile(profile),
        }
    }

    /// The name of an issuer, as the product writes it. The verifier knows it, whatever its keys are.
    pub(crate) fn issuer(self, issuer: &str) -> Result<String, Failure> {
        let key = SigningKey::generate().map_err(Failure::work)?;
        let verifier = self.set(JwtVerifier::new(issuer, "", key_set(&key)?));
        Ok(verifier.issuers().concat())
    }
}

/// The public half of this key.
pub(crate) fn key_set(key: &SigningKey) -> Result<KeySet, Failure> {
    let json = json!(key.public_key()).to_string();
    json.parse().map_err(Failure::work)
}

impl TokenRules {
    /// A verifier by these rules. What was not given is what the token has.
    pub(crate) fn verifier(&self, token: Option<&Jwt<'_>>, keys: KeySet) -> JwtVerifier<KeySet> {
        let stated = token.and_then(|jwt| jwt.payload.get("iss")?.as_str());
        let issuer = self.issuer.as_deref().or(stated).unwrap_or_default();
        let verifier = JwtVerifier::new(issuer, self.audience(token), keys);
        self.typ.set(verifier)
    }

    pub(crate) fn audience(&self, token: Option<&Jwt<'_>>) -> String {
        let stated = token.and_then(|jwt| first_audience(jwt.payload.get("aud")));
        self.audience
            .as_deref()
            .or(stated)
            .unwrap_or_default()
            .to_owned()
    }
}

pub(crate) fn first_audience(aud: Option<&Value>) -> Option<&str> {
    match aud? {
        Value::Array(several) => several.first()?.as_str(),
        one => one.as_str(),
    }
}
