//! The checks of a proof, by RFC 9449 section 4.3.

use http::Uri;
use serde_json::Value;
use tower_dpop::Rejection;
use tower_dpop::proof::{DPOP, IatError, ProofError, UrlMismatch};
use tower_dpop::token_endpoint::TokenRequestRejection;

use crate::explain::check::{Check, Fault, Outcome, Section};
use crate::explain::jwt::{Jwt, base64url};
use crate::explain::probe::{Probe, stated_time};
use crate::explain::request::Received;
use crate::explain::values::{self, text, time, value};
use crate::terminal::shown;

/// What a window of time accepts, as the rules say it.
pub(crate) struct Window {
    pub(crate) max_age: u64,
    pub(crate) leeway: u64,
}

/// The proof, as far as it can be read.
pub(crate) struct Found<'p> {
    pub(crate) probe: &'p Probe,
    fields: Vec<String>,
    pub(crate) jwt: Option<Jwt<'p>>,
}

impl<'p> Found<'p> {
    /// The first `DPoP` field of the request.
    pub(crate) fn new(probe: &'p Probe, request: &Received, text: Option<&'p str>) -> Self {
        Self {
            probe,
            fields: request.fields(&DPOP),
            jwt: text.and_then(Jwt::read),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&Value> {
        self.jwt.as_ref()?.header.get(name)
    }

    fn claim(&self, name: &str) -> Option<&Value> {
        self.jwt.as_ref()?.payload.get(name)
    }

    /// The checks 1 to 11, and `exp` and `nbf`. `token` is whether an access token belongs to the proof.
    pub(crate) fn checks(&self, has_token: bool, window: &Window) -> Vec<Check> {
        let mut checks = vec![Check::of_proof(1, "one DPoP field", self.count())];
        if self.fields.is_empty() {
            return checks;
        }
        checks.push(Check::of_proof(2, "well-formed JWT", self.form()));
        if self.jwt.is_none() {
            return checks;
        }
        checks.extend([
            Check::of_proof(3, "required claims", self.required(has_token)),
            Check::of_proof(4, "typ", self.typ()),
            Check::new(Section::Proof, "no extensions", self.extensions()),
            Check::of_proof(5, "alg", self.alg()),
            Check::of_proof(6, "signature", self.signature()),
            Check::of_proof(7, "jwk", self.jwk()),
            Check::of_proof(8, "htm", self.of_target(Self::htm)),
            Check::of_proof(9, "htu", self.of_target(Self::htu)),
            Check::of_proof(10, "nonce", self.nonce()),
            Check::of_proof(11, "iat", self.iat(window)),
        ]);
        for (name, what) in [("exp", "expired"), ("nbf", "becomes valid")] {
            if self.claim(name).is_some() {
                checks.push(Check::new(Section::Proof, name, self.validity(name, what)));
            }
        }
        checks
    }

    fn count(&self) -> Outcome {
        match self.probe.fields(&self.fields) {
            Err(
                rejected @ (TokenRequestRejection::Proof(ProofError::Missing | ProofError::Several)
                | TokenRequestRejection::Nonce(_)),
            ) if self.fields.len() != 1 => {
                let fault = match rejected {
                    TokenRequestRejection::Nonce(_) => Fault::of(rejected).detail(
                        "there is no proof; a server that requires nonces asks for a nonce first",
                    ),
                    _ => Fault::of(rejected),
                };
                fault
                    .found(format!("{} DPoP fields", self.fields.len()))
                    .expected("1")
                    .into()
            }
            _ => Outcome::passed(""),
        }
    }

    fn form(&self) -> Outcome {
        let proof = &self.fields[..1];
        match self.probe.fields(proof) {
            Err(rejected @ TokenRequestRejection::Proof(ProofError::TooLong)) => {
                return Fault::of(rejected)
                    .found(format!("{} bytes", proof[0].len()))
                    .expected("at most 8192 bytes")
                    .into();
            }
            Err(rejected @ TokenRequestRejection::Proof(ProofError::NotAJwt)) => {
                let segments = proof[0].split('.').count();
                return Fault::of(rejected)
                    .found(match segments {
                        3 => "a segment that is not base64url without padding".to_owned(),
                        1 => "no dot".to_owned(),
                        _ => format!("{segments} segments"),
                    })
                    .expected("header.payload.signature, each in base64url")
                    .into();
            }
            _ => {}
        }
        let Some(jwt) = &self.jwt else {
            return Outcome::not_checked("it does not have three segments");
        };
        if let Err(rejected @ TokenRequestRejection::Proof(ProofError::HeaderNotJson)) =
            self.probe.raw_header(&jwt.header.bytes)
        {
            let why = jwt.header.fault.clone();
            return Fault::of(rejected)
                .detail(why.unwrap_or_else(|| self.member_of_wrong_type(true)))
                .into();
        }
        if let Err(rejected @ TokenRequestRejection::Proof(ProofError::PayloadNotJson)) =
            self.probe.raw_payload(&jwt.payload.bytes)
        {
            let why = jwt.payload.fault.clone();
            return Fault::of(rejected)
                .detail(why.unwrap_or_else(|| self.member_of_wrong_type(false)))
                .into();
        }
        Outcome::passed("")
    }

    /// The member that alone makes a header or a payload malformed.
    fn member_of_wrong_type(&self, of_header: bool) -> String {
        let jwt = self.jwt.as_ref();
        let part = jwt.map(|jwt| if of_header { &jwt.header } else { &jwt.payload });
        let wrong = part
            .into_iter()
            .flat_map(|part| &part.members)
            .find(|(name, value)| {
                let probed = if of_header {
                    self.probe.header(name, Some(value))
                } else {
                    self.probe.claim(name, Some(value))
                };
                matches!(
                    probed,
                    Err(TokenRequestRejection::Proof(
                        ProofError::HeaderNotJson | ProofError::PayloadNotJson
                    ))
                )
            });
        wrong.map_or_else(
            || "a member has the wrong type".to_owned(),
            |(name, _)| format!("the member {:?} has the wrong type", shown(name)),
        )
    }

    fn required(&self, has_token: bool) -> Outcome {
        let mut missing = Vec::new();
        let mut fault = None;
        for name in ["jti", "htm", "htu", "iat"] {
            if let Err(rejected @ TokenRequestRejection::Proof(ProofError::ClaimMissing)) =
                self.probe.claim(name, self.claim(name))
            {
                missing.push(name);
                fault = Some(rejected);
            }
        }
        if has_token && self.claim("ath").is_none_or(Value::is_null) {
            missing.push("ath");
            fault = Some(ProofError::ClaimMissing.into());
        }
        // The header is checked first.
        if let Err(rejected @ TokenRequestRejection::Proof(ProofError::NoKey)) =
            self.probe.header("jwk", self.header("jwk"))
        {
            missing.insert(0, "jwk (in the header)");
            fault = Some(rejected);
        }
        if let Some(fault) = fault {
            return Fault::of(fault)
                .detail(format!("missing: {}", missing.join(", ")))
                .expected(if has_token {
                    "jti htm htu iat ath, and jwk in the header"
                } else {
                    "jti htm htu iat, and jwk in the header"
                })
                .into();
        }
        if let Err(rejected @ TokenRequestRejection::Proof(ProofError::JtiLength)) =
            self.probe.claim("jti", self.claim("jti"))
        {
            let length = self
                .claim("jti")
                .and_then(Value::as_str)
                .map_or(0, str::len);
            return Fault::of(rejected)
                .found(format!("a jti of {length} bytes"))
                .expected("1 to 512 bytes")
                .into();
        }
        Outcome::passed("")
    }

    fn typ(&self) -> Outcome {
        match self.probe.header("typ", self.header("typ")) {
            Err(rejected @ TokenRequestRejection::Proof(ProofError::Type)) => Fault::of(rejected)
                .found(text(self.header("typ")))
                .expected("dpop+jwt")
                .into(),
            Err(_) => malformed(),
            Ok(()) => Outcome::passed(text(self.header("typ"))),
        }
    }

    fn extensions(&self) -> Outcome {
        // Each costs a signature, and this may be a stranger's proof.
        const MAX_MEMBERS: usize = 100;

        let members = self.jwt.iter().flat_map(|jwt| &jwt.header.members);
        let extensions: Vec<_> = members
            .take(MAX_MEMBERS)
            .filter(|(name, _)| !["typ", "alg", "jwk"].contains(&name.as_str()))
            .filter_map(|(name, value)| match self.probe.header(name, Some(value)) {
                Err(rejected @ TokenRequestRejection::Proof(ProofError::Extension)) => Some((
                    rejected,
                    format!("{}: {}", shown(name), values::value(Some(value))),
                )),
                _ => None,
            })
            .collect();
        match extensions.into_iter().next() {
            Some((rejected, found)) => Fault::of(rejected).found(found).into(),
            None => Outcome::passed(""),
        }
    }

    fn alg(&self) -> Outcome {
        match self.probe.header("alg", self.header("alg")) {
            Err(rejected @ TokenRequestRejection::Proof(ProofError::Algorithm)) => {
                Fault::of(rejected)
                    .found(text(self.header("alg")))
                    .expected(self.probe.rules().algorithms.to_string())
                    .into()
            }
            Err(TokenRequestRejection::Proof(ProofError::HeaderNotJson)) => malformed(),
            // The key of this tool may be for another algorithm.
            _ => Outcome::passed(text(self.header("alg"))),
        }
    }

    /// The method and the URL are compared with those of the request.
    fn of_target(&self, check: impl FnOnce(&Self) -> Outcome) -> Outcome {
        match self.probe.target() {
            Ok(()) => check(self),
            Err(_) => Outcome::not_checked("no proof can be for this request target"),
        }
    }

    fn htm(&self) -> Outcome {
        let found = self.claim("htm");
        match self.probe.claim("htm", found) {
            Err(rejected @ TokenRequestRejection::Proof(ProofError::Method)) => Fault::of(rejected)
                .found(text(found))
                .expected(shown(self.probe.method().as_str()))
                .into(),
            outcome => passed_or_reported(&outcome, || text(found)),
        }
    }

    fn htu(&self) -> Outcome {
        let found = self.claim("htu");
        match self.probe.claim("htu", found) {
            Err(TokenRequestRejection::Proof(ProofError::Url(mismatch))) => {
                let found = text(found);
                let expected = self.probe.url();
                Fault::of(TokenRequestRejection::from(ProofError::Url(mismatch)))
                    .detail(difference(mismatch, &found, &expected))
                    .found(found)
                    .expected(shown(&expected))
                    .into()
            }
            outcome => passed_or_reported(&outcome, || text(found)),
        }
    }

    fn nonce(&self) -> Outcome {
        let (found, rules) = (self.claim("nonce"), self.probe.rules());
        let Some(given) = &rules.nonce else {
            return Outcome::not_checked(match found {
                None => "the proof has none; --nonce gives the nonce of a server that requires one",
                Some(_) => "only the server knows its nonces; --nonce gives the latest one",
            });
        };
        let stated = found
            .and_then(Value::as_str)
            .and_then(|nonce| stated_time(nonce, rules.now))
            .map(|stated| values::distance(values::seconds_of(stated), rules.now));
        match self.probe.claim("nonce", found) {
            Err(rejected @ TokenRequestRejection::Nonce(_)) => {
                let fault = match (&stated, found) {
                    (Some(stated), _) => Fault::of(rejected).detail(format!("issued {stated}")),
                    _ => Fault::of(rejected),
                };
                fault
                    .found(text(found))
                    .expected(shown(given.as_str()))
                    .into()
            }
            Ok(()) if found.and_then(Value::as_str) == Some(given.as_str()) => {
                Outcome::passed("the given one")
            }
            Ok(()) => Outcome::not_checked(format!(
                "another nonce than the given one, issued {}: only the server knows whether it accepts it",
                stated.unwrap_or_default()
            )),
            Err(_) => malformed(),
        }
    }

    fn iat(&self, window: &Window) -> Outcome {
        let (found, now) = (self.claim("iat"), self.probe.rules().now);
        let Window { max_age, leeway } = window;
        match self.probe.claim("iat", found) {
            Err(TokenRequestRejection::Proof(ProofError::Iat(error))) => {
                let detail = match error {
                    IatError::TooOld { by } => format!("{by} s too old"),
                    IatError::InTheFuture { by } => format!("{by} s too far ahead"),
                    _ => String::new(),
                };
                Fault::of(TokenRequestRejection::from(ProofError::Iat(error)))
                    .detail(detail)
                    .found(time(found, now))
                    .expected(format!(
                        "from {} s before to {leeway} s after the time of the server",
                        max_age + leeway
                    ))
                    .into()
            }
            outcome => passed_or_reported(&outcome, || {
                found
                    .and_then(Value::as_f64)
                    .map_or_else(String::new, |iat| values::distance(iat, now))
            }),
        }
    }

    fn validity(&self, name: &str, what: &str) -> Outcome {
        let (found, now) = (self.claim(name), self.probe.rules().now);
        match self.probe.claim(name, found) {
            Err(
                rejected @ TokenRequestRejection::Proof(
                    ProofError::Expired | ProofError::NotYetValid,
                ),
            ) => Fault::of(rejected)
                .detail(
                    found
                        .and_then(Value::as_f64)
                        .map_or_else(String::new, |at| {
                            format!("{what} {}", values::distance(at, now))
                        }),
                )
                .found(time(found, now))
                .into(),
            outcome => passed_or_reported(&outcome, || time(found, now)),
        }
    }

    /// Check 12, first half.
    pub(crate) async fn ath(&self, token: &str) -> Outcome {
        let found = self.claim("ath");
        match self.probe.ath(token, found).await {
            Ok(()) => Outcome::passed("the hash of the access token"),
            Err(rejected @ Rejection::Proof(ProofError::TokenHash)) => {
                let token = tower_dpop::tokens::PresentedToken::new(token);
                Fault::of(rejected)
                    .detail("the proof was made for another token, or the token was cut when it was copied")
                    .found(text(found))
                    .expected(base64url(token.sha256()))
                    .into()
            }
            Err(Rejection::Proof(ProofError::ClaimMissing)) => {
                Outcome::not_checked("there is none")
            }
            Err(_) => Outcome::not_checked(format!("it cannot be: {}", value(found))),
        }
    }
}

/// A missing claim, or one of the wrong type, is the fault of another check.
fn passed_or_reported(
    outcome: &Result<(), TokenRequestRejection>,
    found: impl FnOnce() -> String,
) -> Outcome {
    match outcome {
        Ok(()) => Outcome::passed(found()),
        Err(TokenRequestRejection::Proof(ProofError::ClaimMissing | ProofError::JtiLength)) => {
            Outcome::not_checked("there is none")
        }
        Err(_) => malformed(),
    }
}

pub(crate) fn malformed() -> Outcome {
    Outcome::not_checked("it has the wrong type")
}

/// Which part of the URL differs, with both values.
fn difference(mismatch: UrlMismatch, found: &str, expected: &str) -> String {
    let part = |name: &str, of: fn(&Uri) -> Option<String>| {
        let values = (found.parse().ok(), expected.parse().ok());
        match (
            values.0.as_ref().and_then(of),
            values.1.as_ref().and_then(of),
        ) {
            (Some(found), Some(expected)) => {
                format!("the {name} differs: {found} instead of {expected}")
            }
            _ => format!("the {name} differs"),
        }
    };
    match mismatch {
        UrlMismatch::Malformed => "it is not an absolute http or https URL".to_owned(),
        UrlMismatch::Scheme => part("scheme", |uri| Some(uri.scheme_str()?.to_owned())),
        UrlMismatch::Host => part("host", |uri| Some(uri.host()?.to_owned())),
        UrlMismatch::Port => part("port", |uri| match (uri.port_u16(), uri.scheme_str()) {
            (Some(port), _) => Some(port.to_string()),
            (None, Some("http")) => Some("80".to_owned()),
            (None, _) => Some("443".to_owned()),
        }),
        UrlMismatch::PathPrefix => format!(
            "{}: does a proxy strip or add a prefix?",
            part("path", |uri| Some(uri.path().to_owned()))
        ),
        _ => part("path", |uri| Some(uri.path().to_owned())),
    }
}
