//! Access tokens of several issuers, distinguished by `iss`.

use std::collections::HashMap;
use std::fmt;

use crate::cache::Cache;
use crate::credentials::PresentedToken;
use crate::jose::base64url;
use crate::jose::json::{Text, object, read};
use crate::jose::jws::CompactJws;
use crate::time::Timestamp;
use crate::tokens::access_token::{AccessToken, AccessTokenVerifier, AnyTokenVerifier, TokenError};
use crate::tokens::claims::Claims;

/// Combines several verifiers, each with its own audience, algorithms, keys and rule for `typ`.
///
/// A token is passed to the verifier of the issuer that it names, and to no other. If that issuer
/// is not on the list, the token is rejected before anything is fetched. A token that is not a
/// signed JWT, not even a broken one, is passed to the verifier for opaque tokens, if there is one.
///
/// # Example
///
/// ```
/// use tower_dpop::{Claims, Issuers, JwtVerifier, KeySet};
///
/// # fn example(ours: KeySet, partners: KeySet) {
/// let tokens: Issuers<Claims> = Issuers::new()
///     .add_issuer(JwtVerifier::new("https://as.example.com", "https://api.example.com", ours))
///     .add_issuer(JwtVerifier::new("https://login.partner.example", "orders", partners).with_lenient_typ());
/// # let _ = tokens;
/// # }
/// ```
///
/// All verifiers must have the same type of claims. Introspection uses another type by default: to
/// combine it with other verifiers, call `with_claims::<MyClaims>()` on every one of them.
///
/// # Security
///
/// `sub` and `client_id` are names within one issuer: `alice` of one issuer is not `alice` of
/// another. Where you compare or store identities, include `iss`
/// ([`Claims::claim`](crate::Claims::claim)).
pub struct Issuers<C = Claims> {
    by_name: HashMap<String, AnyTokenVerifier<C>>,
    opaque: Option<AnyTokenVerifier<C>>,
    /// The verifiers of tokens that were accepted, by the SHA-256 of the token. `iss` is part of
    /// the token, so it never changes, and reading it again costs more than all other checks of a
    /// known token.
    passed: Cache<[u8; 32], AnyTokenVerifier<C>>,
}

/// In tokens, at about 150 bytes each.
const CAPACITY: u64 = 10_000;

impl<C: Send + Sync + 'static> Issuers<C> {
    /// No issuers yet: every token is rejected.
    pub fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            opaque: None,
            passed: Cache::new(CAPACITY, 1),
        }
    }

    /// Also accepts the tokens of every issuer that this verifier names
    /// ([`AccessTokenVerifier::issuers`]): a [`JwtVerifier`](crate::JwtVerifier), a wrapper around
    /// one, or introspection of JWTs that can be revoked, if its issuer is configured. If several
    /// verifiers name one issuer, the last one is used.
    #[must_use]
    pub fn add_issuer(mut self, tokens: impl AccessTokenVerifier<Claims = C>) -> Self {
        let names: Vec<_> = tokens.issuers().into_iter().map(str::to_owned).collect();
        let tokens = AnyTokenVerifier::new(tokens);
        for name in names {
            self.by_name.insert(name, tokens.clone());
        }
        self.passed.clear();
        self
    }

    /// Also accepts tokens that are not signed JWTs, if this verifier accepts them.
    #[must_use]
    pub fn with_opaque_tokens(mut self, tokens: impl AccessTokenVerifier<Claims = C>) -> Self {
        self.opaque = Some(AnyTokenVerifier::new(tokens));
        self
    }

    fn responsible_for(
        &self,
        token: &PresentedToken<'_>,
    ) -> Result<&AnyTokenVerifier<C>, TokenError> {
        let Ok(jws) = CompactJws::parse(token.as_str()) else {
            return match &self.opaque {
                Some(opaque) if !begins_as_jws(token.as_str()) => Ok(opaque),
                _ => Err(TokenError::Malformed),
            };
        };
        let claims: IssuerClaim<'_> = read(jws.payload()).map_err(|_| TokenError::Malformed)?;
        claims
            .iss
            .and_then(|iss| self.by_name.get(iss.as_str()))
            .ok_or(TokenError::Issuer)
    }
}

/// Whether the token begins as a JWS, whatever its presenter may have appended. The client must not
/// be able to choose the verifier: an authorization server that is asked about
/// `header.payload.signature=` may ignore the last character. The client cannot change the header
/// without breaking the signature.
fn begins_as_jws(token: &str) -> bool {
    let header = token
        .split_once('.')
        .and_then(|(header, _)| base64url::decode(header));
    header.is_some_and(|bytes| {
        read(&bytes).is_ok_and(|header: Header<'_>| header.alg.is_some() && header.enc.is_none())
    })
}

object! {
    struct Header<'de> {
        alg: Text<'de> = "alg",
    }
    forbidden {
        enc = "enc",
    }
}

object! {
    struct IssuerClaim<'de> {
        iss: Text<'de> = "iss",
    }
}

impl<C: Send + Sync + 'static> AccessTokenVerifier for Issuers<C> {
    type Claims = C;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<C>, TokenError> {
        if let Some(tokens) = self.passed.get(token.sha256()) {
            return tokens.verify(token, now).await;
        }
        let tokens = self.responsible_for(&token)?;
        let good = tokens.verify(token, now).await?;
        self.passed.insert(*token.sha256(), tokens.clone(), 1);
        Ok(good)
    }

    fn issuers(&self) -> Vec<&str> {
        self.names()
    }

    /// What each issuer's tokens must have, with the name of the issuer if there are several.
    fn expected(&self, error: &TokenError) -> Option<String> {
        if let TokenError::Issuer = error {
            return Some(self.names().join(" "));
        }
        let mut by_name: Vec<_> = self.by_name.iter().collect();
        if let ([(_, tokens)], None) = (by_name.as_slice(), &self.opaque) {
            return tokens.expected(error);
        }
        by_name.sort_unstable_by_key(|(name, _)| *name);
        let of_each: Vec<_> = by_name
            .into_iter()
            .filter_map(|(name, tokens)| Some(format!("{name}: {}", tokens.expected(error)?)))
            .collect();
        (!of_each.is_empty()).then(|| of_each.join(", "))
    }
}

impl<C: Send + Sync + 'static> Default for Issuers<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Issuers<C> {
    fn names(&self) -> Vec<&str> {
        let opaque = self.opaque.iter().flat_map(|opaque| opaque.issuers());
        let mut issuers: Vec<_> = self.by_name.keys().map(String::as_str).collect();
        issuers.extend(opaque);
        issuers.sort_unstable();
        issuers.dedup();
        issuers
    }
}

impl<C> fmt::Debug for Issuers<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuers")
            .field("issuers", &self.names())
            .finish()
    }
}
