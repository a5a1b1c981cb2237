//! The checks of a proof's key and signature.

use serde_json::Value;
use tower_dpop::Algorithm;
use tower_dpop::jose::Jwk;
use tower_dpop::proof::ProofError;
use tower_dpop::token_endpoint::TokenRequestRejection;

use crate::explain::check::{Fault, Outcome};
use crate::explain::proof_checks::{Found, malformed};
use crate::explain::values::text;
use crate::terminal::shown;

impl Found<'_> {
    /// The key and an algorithm with which the library accepts it.
    pub(crate) fn usable_key(&self) -> Option<(&Value, Value)> {
        let jwk = self.header("jwk")?;
        let (alg, outcome) = self.try_key(jwk);
        outcome.is_ok().then_some((jwk, alg))
    }

    /// The thumbprint of the key, if it is one.
    pub(crate) fn key(&self) -> Option<Jwk> {
        self.header("jwk")?.to_string().parse().ok()
    }

    /// The signature does not depend on what the library accepts.
    pub(crate) fn signature(&self) -> Outcome {
        let algorithm: Option<Algorithm> = self
            .header("alg")
            .and_then(|alg| alg.as_str()?.parse().ok());
        let (Some(algorithm), Some(jwt)) = (algorithm, &self.jwt) else {
            return Outcome::not_checked("the algorithm has no signature that a key could verify");
        };
        let Some(key) = self.key() else {
            return Outcome::not_checked("there is no usable key in the header");
        };
        if let (_, Err(_)) = self.try_key(self.header("jwk").unwrap_or(&Value::Null)) {
            return Outcome::not_checked("the key is not accepted");
        }
        let signature = jwt.signature.as_deref().unwrap_or_default();
        match key.verify(algorithm, jwt.signing_input.as_bytes(), signature) {
            Ok(()) => Outcome::passed("by the key in the header"),
            Err(_) => Fault::of(TokenRequestRejection::from(ProofError::Signature))
                .detail("the proof was changed after it was signed, or signed with another key")
                .into(),
        }
    }

    /// The result for the key with the algorithm of the proof. If that is not accepted, with any that is, because the
    /// algorithm has a check of its own.
    fn try_key(&self, jwk: &Value) -> (Value, Result<(), TokenRequestRejection>) {
        let own = self.header("alg").cloned().unwrap_or_default();
        let outcome = self.probe.jwk(jwk, &own);
        if !matches!(
            outcome,
            Err(TokenRequestRejection::Proof(
                ProofError::Algorithm | ProofError::HeaderNotJson
            ))
        ) {
            return (own, unless_signature(outcome));
        }
        let mut last = unless_signature(outcome);
        for algorithm in self.probe.rules().algorithms.iter() {
            let alg = Value::from(algorithm.name());
            last = unless_signature(self.probe.jwk(jwk, &alg));
            if last.is_ok() {
                return (alg, last);
            }
        }
        (own, last)
    }

    pub(crate) fn jwk(&self) -> Outcome {
        let Some(jwk) = self.header("jwk") else {
            return Outcome::not_checked("there is none");
        };
        match self.try_key(jwk).1 {
            Ok(()) => Outcome::passed(self.key().map_or_else(String::new, |key| {
                format!("a public key, jkt {}", key.thumbprint())
            })),
            Err(rejected @ TokenRequestRejection::Proof(ProofError::Key(_))) => {
                let members = jwk.as_object().into_iter().flatten();
                // Not the values: one of them may be private.
                let names: Vec<_> = members.map(|(name, _)| shown(name)).collect();
                let shown_ones = ["kty", "crv", "use", "alg"].iter().filter_map(|name| {
                    let value = jwk.get(name)?;
                    Some(format!("{name} {}", text(Some(value))))
                });
                let detail: Vec<_> = shown_ones.collect();
                Fault::of(rejected)
                    .detail(detail.join(", "))
                    .found(format!("the members {}", names.join(" ")))
                    .into()
            }
            Err(_) => malformed(),
        }
    }
}

/// The good proof has another key, so the signature is the last check that can fail.
fn unless_signature(
    outcome: Result<(), TokenRequestRejection>,
) -> Result<(), TokenRequestRejection> {
    match outcome {
        Err(TokenRequestRejection::Proof(ProofError::Signature)) => Ok(()),
        outcome => outcome,
    }
}
