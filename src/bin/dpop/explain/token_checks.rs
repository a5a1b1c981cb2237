//! The checks of an access token, by RFC 9068 section 4, and of its binding.
//!
//! As for proofs, each part is put into a good token, signed here, about which the library decides.

use serde_json::{Map, Value, json};
use tower_dpop::jose::SigningKey;
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{Claims, JwtVerifier, KeySet, Rejection, Timestamp};

use crate::explain::check::{Check, Fault, Outcome, Section};
use crate::explain::jwt::{Jwt, base64url, from_base64url};
use crate::explain::probe::{Probe, object, replaced, sign, sign_segments};
use crate::explain::proof_checks::Found;
use crate::explain::token_rules::{TokenRules, Typ, first_audience, key_set};
use crate::explain::values::{self, text, time};
use crate::failure::Failure;
use crate::terminal::shown;

/// The token, as far as it can be read.
pub(crate) struct FoundToken<'t> {
    pub(crate) rules: &'t TokenRules,
    text: &'t str,
    jwt: Option<Jwt<'t>>,
    pub(crate) key: SigningKey,
    pub(crate) verifier: JwtVerifier<KeySet>,
}

impl<'t> FoundToken<'t> {
    pub(crate) fn new(rules: &'t TokenRules, text: &'t str) -> Result<Self, Failure> {
        let key = SigningKey::generate().map_err(Failure::work)?;
        let jwt = Jwt::of_token(text);
        if rules.jkt.is_some() && jwt.is_some() {
            return Err(Failure::usage(
                "--jkt is for a token that is not a JWT; this one names its key in cnf",
            ));
        }
        let verifier = rules.verifier(jwt.as_ref(), key_set(&key)?);
        Ok(Self {
            rules,
            text,
            jwt,
            key,
            verifier,
        })
    }

    fn header(&self, name: &str) -> Option<&Value> {
        self.jwt.as_ref()?.header.get(name)
    }

    fn claim(&self, name: &str) -> Option<&Value> {
        self.jwt.as_ref()?.payload.get(name)
    }

    /// The key to which the token says that it is bound.
    fn confirmation(&self) -> Option<Confirmation> {
        match (self.rules.jkt, &self.jwt) {
            (Some(jkt), _) => Some(Confirmation::Thumbprint(jkt)),
            (None, None) => None,
            (None, Some(_)) => {
                serde_json::from_value(self.claim("cnf").cloned().unwrap_or_default()).ok()
            }
        }
    }

    pub(crate) async fn checks(&self) -> Vec<Check> {
        let check = |name, outcome| Check::new(Section::Token, name, outcome);
        let Some(jwt) = &self.jwt else {
            return vec![check("well-formed JWT", self.opaque().await)];
        };
        let mut checks = vec![check("well-formed JWT", self.form().await)];
        let is_malformed = checks[0].has_failed();
        if is_malformed && jwt.header.members.is_empty() {
            return checks;
        }
        checks.push(check("typ", self.typ().await));
        checks.push(check("alg", self.alg().await));
        if is_malformed && jwt.payload.members.is_empty() {
            return checks;
        }
        checks.extend([
            check("iss", self.iss().await),
            check("aud", self.aud().await),
            check("exp", self.validity("exp", "expired").await),
            check("nbf", self.validity("nbf", "becomes valid").await),
            check("signature", self.signature().await),
            check("claims", self.claims().await),
        ]);
        checks
    }

    async fn opaque(&self) -> Outcome {
        if self.rules.keys.is_none() {
            return Outcome::not_checked(
                "the token is not a JWT: only its authorization server can read it",
            );
        }
        match self.verify(self.text).await {
            Err(error) => {
                let why = Jwt::read(self.text).map_or_else(
                    || "it does not have the three segments of a JWT".to_owned(),
                    |jwt| fault_of("header", jwt.header.fault.as_deref(), jwt.segments[0]),
                );
                Fault::of(Rejection::from(error)).detail(why).into()
            }
            Ok(_) => Outcome::passed(""),
        }
    }

    async fn form(&self) -> Outcome {
        let Some(jwt) = &self.jwt else {
            return Outcome::not_checked("it is not a JWT");
        };
        let good_header = base64url(as_bytes(&self.good_header()));
        let good_payload = base64url(as_bytes(&self.good_claims()));
        // Each as it is written: the library also decides about its base64url.
        let [header, payload, signature] = jwt.segments;
        let (header_fault, payload_fault) = (&jwt.header.fault, &jwt.payload.fault);
        for (name, segment, fault, token) in [
            (
                "header",
                header,
                header_fault,
                sign_segments(&self.key, header, &good_payload),
            ),
            (
                "payload",
                payload,
                payload_fault,
                sign_segments(&self.key, &good_header, payload),
            ),
            (
                "signature",
                signature,
                &None,
                format!("{good_header}.{good_payload}.{signature}"),
            ),
        ] {
            if let Err(error @ TokenError::Malformed) = self.verify(&token).await {
                return Fault::of(Rejection::from(error))
                    .detail(fault_of(name, fault.as_deref(), segment))
                    .into();
            }
        }
        Outcome::passed("")
    }

    async fn typ(&self) -> Outcome {
        let header = replaced(&self.good_header(), "typ", self.header("typ"));
        match self.probe(&header, &self.own_claims("-")).await {
            Err(error @ TokenError::Type) => match self.unexpected(error, self.header("typ")) {
                Outcome::Failed(fault) => {
                    let detail =
                        "--profile and --lenient-typ check as a server that accepts others";
                    fault.detail(detail).into()
                }
                outcome => outcome,
            },
            _ => Outcome::passed(text(self.header("typ"))),
        }
    }

    async fn alg(&self) -> Outcome {
        let header = replaced(&self.good_header(), "alg", self.header("alg"));
        match self.probe(&header, &self.good_claims()).await {
            Err(error @ TokenError::Algorithm) => self.unexpected(error, self.header("alg")),
            _ => Outcome::passed(text(self.header("alg"))),
        }
    }

    async fn iss(&self) -> Outcome {
        let (found, given) = (self.claim("iss"), self.rules.issuer.is_some());
        match self.probe_claim("iss").await {
            Err(error @ TokenError::Issuer) if given => self.unexpected(error, found),
            Err(error @ TokenError::Issuer) => Fault::of(Rejection::from(error))
                .detail("there is none")
                .into(),
            _ if given => Outcome::passed(text(found)),
            _ => not_compared(found, "--issuer"),
        }
    }

    async fn aud(&self) -> Outcome {
        let (found, given) = (self.claim("aud"), self.rules.audience.is_some());
        match self.probe_claim("aud").await {
            Err(error @ TokenError::Audience) if given => self.unexpected(error, found),
            Err(error @ TokenError::Audience) => Fault::of(Rejection::from(error))
                .detail("there is none")
                .into(),
            _ if given => Outcome::passed(text(found)),
            _ => not_compared(found, "--audience"),
        }
    }

    async fn validity(&self, name: &'static str, what: &str) -> Outcome {
        let (found, now) = (self.claim(name), self.rules.now);
        match self.probe_claim(name).await {
            Err(error @ (TokenError::Expired | TokenError::NotYetValid)) => {
                let fault = Fault::of(Rejection::from(error)).found(time(found, now));
                match found.and_then(Value::as_f64) {
                    Some(at) => fault.detail(format!("{what} {}", values::distance(at, now))),
                    None => fault,
                }
                .into()
            }
            _ if found.is_none() => Outcome::passed("none"),
            _ => Outcome::passed(time(found, now)),
        }
    }

    /// By the issuer's keys, at a time and for an audience at which the token is valid otherwise.
    async fn signature(&self) -> Outcome {
        let Some(keys) = &self.rules.keys else {
            return match self.jwt.as_ref().map(|jwt| jwt.segments[2]) {
                Some("") if !matches!(self.alg().await, Outcome::Failed(_)) => {
                    Fault::of(Rejection::from(TokenError::Signature))
                        .detail("it is empty")
                        .into()
                }
                _ => Outcome::not_checked("no keys of the issuer were given (--jwks or --issuer)"),
            };
        };
        let (Some(exp), Some(_), Some(_)) = (
            self.claim("exp").and_then(Value::as_f64),
            self.claim("iss"),
            first_audience(self.claim("aud")),
        ) else {
            return Outcome::not_checked("it has no iss, aud or exp");
        };
        let verifier = TokenRules {
            issuer: None,
            audience: None,
            keys: None,
            typ: Typ::Lenient,
            jkt: None,
            now: self.rules.now,
        }
        .verifier(self.jwt.as_ref(), keys.clone());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates"
        )]
        let then = Timestamp::from_unix((exp - 1.0) as u64);
        let verified = verifier.verify(PresentedToken::new(self.text), then).await;
        match verified {
            Ok(_) | Err(TokenError::Claims) => Outcome::passed("by a key of the issuer"),
            Err(error @ (TokenError::Key | TokenError::Signature)) => {
                let kid = self.header("kid");
                let known = kid
                    .and_then(Value::as_str)
                    .is_some_and(|kid| keys.has_kid(kid));
                Fault::of(Rejection::from(error))
                    .found(format!("kid {}", text(kid)))
                    .expected(if known {
                        "a signature by the key with this kid".to_owned()
                    } else {
                        format!("the kid of one of the issuer's keys ({})", keys.len())
                    })
                    .into()
            }
            Err(error) => Outcome::not_checked(error.to_string()),
        }
    }

    async fn claims(&self) -> Outcome {
        let claims = replaced(&self.own_claims(""), "sub", self.claim("sub"));
        match self.probe(&self.good_header(), &claims).await {
            Err(error @ TokenError::Claims) => {
                let clients = ["sub", "client_id", "azp", "appid", "cid"];
                let fault = Fault::of(Rejection::from(error));
                if clients.iter().all(|name| self.claim(name).is_none()) {
                    fault.detail("it names neither a user nor a client (sub, client_id)")
                } else {
                    fault.detail("sub, client_id or scope has another type than expected")
                }
                .into()
            }
            _ => Outcome::passed(match (self.claim("sub"), self.claim("client_id")) {
                (Some(subject), _) => format!("sub {}", text(Some(subject))),
                (None, client) => format!("client_id {}", text(client)),
            }),
        }
    }

    /// Check 12, second half.
    pub(crate) async fn binding(&self, probe: &Probe, proof: &Found<'_>) -> Outcome {
        let no_key = || Outcome::not_checked("there is no usable key in the proof");
        let usable = proof.usable_key();
        let is_usable = usable.is_some();
        // The library compares thumbprints before it uses the key, which may be no point of the curve.
        let key = usable.or_else(|| Some((proof.header("jwk")?, proof.header("alg")?.clone())));
        let Some((jwk, alg)) = key else {
            return no_key();
        };
        let Some(confirmation) = self.confirmation() else {
            return Outcome::not_checked(if self.jwt.is_none() {
                "the token is not a JWT; --jkt gives the key that it is bound to"
            } else {
                "the cnf of the token is malformed"
            });
        };
        let found = proof.key().map(|key| key.thumbprint().to_string());
        let found = found.unwrap_or_default();
        match probe.binding(self.text, (jwk, &alg), confirmation).await {
            Err(rejected @ Rejection::Binding(_)) => {
                let fault = Fault::of(rejected).found(format!("jkt of the proof's key: {found}"));
                match confirmation {
                    Confirmation::Thumbprint(jkt) => {
                        fault.expected(format!("jkt in the token's cnf: {jkt}"))
                    }
                    _ => fault
                        .detail(format!(
                            "cnf of the token: {}",
                            values::value(self.claim("cnf"))
                        ))
                        .expected("a cnf with jkt"),
                }
                .into()
            }
            Ok(()) | Err(Rejection::Proof(_)) if is_usable => Outcome::passed(found),
            Ok(()) | Err(Rejection::Proof(_)) => no_key(),
            Err(rejected) => Outcome::not_checked(rejected.to_string()),
        }
    }

    fn unexpected(&self, error: TokenError, found: Option<&Value>) -> Outcome {
        let expected = self.verifier.expected(&error).unwrap_or_default();
        Fault::of(Rejection::from(error))
            .found(text(found))
            .expected(shown(&expected))
            .into()
    }

    fn good_header(&self) -> Map<String, Value> {
        object(json!({ "typ": "at+jwt", "alg": self.key.algorithm() }))
    }

    fn good_claims(&self) -> Map<String, Value> {
        object(json!({
            "iss": self.verifier.issuers().first(),
            "aud": self.rules.audience(self.jwt.as_ref()),
            "exp": self.rules.now.plus(600).as_unix(),
            "sub": "-",
        }))
    }

    /// The claims of the token that no other check is about.
    fn own_claims(&self, subject: &str) -> Map<String, Value> {
        let members = self.jwt.as_ref().map(|jwt| jwt.payload.members.clone());
        let mut claims = members.unwrap_or_default();
        for name in ["nbf", "cnf"] {
            claims.remove(name);
        }
        claims.extend(self.good_claims());
        claims.insert("sub".to_owned(), subject.into());
        claims
    }

    async fn probe_claim(&self, name: &str) -> Result<AccessToken<Claims>, TokenError> {
        let claims = replaced(&self.good_claims(), name, self.claim(name));
        self.probe(&self.good_header(), &claims).await
    }

    async fn probe(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
    ) -> Result<AccessToken<Claims>, TokenError> {
        let token = sign(&self.key, &as_bytes(header), &as_bytes(claims));
        self.verify(&token).await
    }

    async fn verify(&self, token: &str) -> Result<AccessToken<Claims>, TokenError> {
        let token = PresentedToken::new(token);
        self.verifier.verify(token, self.rules.now).await
    }
}

/// What is wrong with a segment that the library does not read.
fn fault_of(name: &str, fault: Option<&str>, segment: &str) -> String {
    let why = match fault {
        None if from_base64url(segment).is_none() => {
            "it is not base64url without padding, in its canonical form"
        }
        fault => fault.unwrap_or("a member is not accepted"),
    };
    format!("{name}: {why}")
}

fn not_compared(found: Option<&Value>, option: &str) -> Outcome {
    Outcome::not_checked(format!("{}; {option} gives the expected one", text(found)))
}

pub(crate) fn as_bytes(members: &Map<String, Value>) -> Vec<u8> {
    json!(members).to_string().into_bytes()
}
