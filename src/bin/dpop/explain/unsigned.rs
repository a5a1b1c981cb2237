//! Decides about access tokens whose signature cannot be checked, because no keys were given.

use serde_json::{Value, json};
use tower_dpop::jose::SigningKey;
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{Algorithm, Algorithms, Claims, JwtVerifier, KeySet, Timestamp};

use crate::explain::jwt::{Jwt, base64url};
use crate::explain::probe::{replaced, sign_segments};
use crate::explain::proof_checks::Found;
use crate::explain::token_checks::{FoundToken, as_bytes};

/// Decides about a token whose signature cannot be checked, because no keys were given: about the same token with another
/// signature. A token that is not a JWT is taken for valid, and for bound to the key that was given, or to that of the proof.
pub(crate) struct Unsigned {
    key: SigningKey,
    jwt: JwtVerifier<KeySet>,
    opaque: Confirmation,
}

impl Unsigned {
    pub(crate) fn new(token: FoundToken<'_>, proof: &Found<'_>) -> Self {
        let of_proof = proof.key().map(|key| key.thumbprint());
        let jkt = token.rules.jkt.or(of_proof);
        Self {
            opaque: jkt.map_or(Confirmation::Unbound, Confirmation::Thumbprint),
            key: token.key,
            jwt: token.verifier,
        }
    }

    /// The token, signed by this key if its algorithm is one that could have signed it. An empty signature stays empty.
    fn signed_again(&self, jwt: &Jwt<'_>) -> String {
        let alg = jwt.header.get("alg").and_then(Value::as_str);
        let is_known = alg.is_some_and(|alg| alg.parse::<Algorithm>().is_ok_and(is_accepted));
        let [header, payload, signature] = jwt.segments;
        let header = if jwt.header.fault.is_none() && is_known {
            let alg = Value::from(self.key.algorithm().name());
            let header = replaced(&jwt.header.members, "alg", Some(&alg));
            base64url(as_bytes(&replaced(&header, "kid", None)))
        } else {
            header.to_owned()
        };
        match signature {
            "" => format!("{header}.{payload}."),
            _ => sign_segments(&self.key, &header, payload),
        }
    }
}

/// The default of `JwtVerifier`.
fn is_accepted(algorithm: Algorithm) -> bool {
    Algorithms::default()
        .add(Algorithm::Rs256)
        .contains(algorithm)
}

impl AccessTokenVerifier for Unsigned {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        if let Some(jwt) = Jwt::of_token(token.as_str()) {
            // What is malformed as it is written may be well-formed when it is written again.
            if let Err(error @ TokenError::Malformed) = self.jwt.verify(token, now).await {
                return Err(error);
            }
            let again = self.signed_again(&jwt);
            return self.jwt.verify(PresentedToken::new(&again), now).await;
        }
        let claims =
            serde_json::from_value(json!({ "sub": "-" })).map_err(|_| TokenError::Claims)?;
        Ok(AccessToken::new(self.opaque, claims))
    }

    fn issuers(&self) -> Vec<&str> {
        self.jwt.issuers()
    }
}
