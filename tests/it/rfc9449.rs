//! The figures of RFC 9449, end to end, and the checks of its section 4.3.
//!
//! `vectors.json` holds the figures as the RFC prints them; every hash and signature in it was
//! recomputed from the text.

use http::{HeaderValue, Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_dpop::jose::{InvalidJwk, Jwk};
use tower_dpop::proof::{IatError, NonceError, ProofError, UrlMismatch};
use tower_dpop::resource::{BindingError, CredentialsError};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, DpopLayer, NonceSecret, ProofRules, Rejection, StatelessNonces,
    Timestamp, Verifier,
};

use common::remove;
use common::{
    Attempt, AttemptExt as _, Key, KeyExt as _, NOW, Outcome, ask, at, keys, verifier, verifier_by,
};

fn figures() -> Value {
    let vectors: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    vectors["rfc9449"].clone()
}

/// The introspection response of Figure 11, for the token of Figure 6.
struct Figure11;

#[derive(Deserialize)]
struct Introspected {
    active: bool,
    exp: u64,
    #[serde(default)]
    cnf: Confirmation,
}

impl AccessTokenVerifier for Figure11 {
    type Claims = ();

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<()>, TokenError> {
        let figures = figures();
        if token.as_str() != figures["fig6_token_response"]["access_token"] {
            return Err(TokenError::Invalid);
        }
        let response = Introspected::deserialize(&figures["fig11_introspection_response"]).unwrap();
        if !response.active || now.as_unix() >= response.exp {
            return Err(TokenError::Expired);
        }
        Ok(AccessToken::new(response.cnf, ()))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// The request of Figure 12 and the settings of its server. A test changes one of them.
struct Figure12 {
    clock: u64,
    public_url: &'static str,
    method: Method,
    path: &'static str,
    authorization: String,
    proof: String,
}

impl Figure12 {
    fn but(change: impl FnOnce(&mut Self)) -> Outcome {
        let figures = figures();
        let text = |name: &str| {
            figures["fig13_resource_request_proof"][name]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let mut request = Self {
            clock: 1_562_262_618,
            public_url: "https://resource.example.org",
            method: Method::GET,
            path: "/protectedresource",
            authorization: format!("DPoP {}", text("access_token")),
            proof: text("jwt"),
        };
        change(&mut request);
        request.send()
    }

    fn send(self) -> Outcome {
        let clock = self.clock;
        let verifier = Verifier::new(
            ProofRules::new(self.public_url.parse().unwrap()).with_clock(move || at(clock)),
            Figure11,
        );
        let request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("host", "resource.example.org")
            .header("authorization", self.authorization)
            .header("dpop", self.proof)
            .body(String::new())
            .unwrap();
        ask(&DpopLayer::new(verifier), request)
    }
}

/// R-7.1, R-7.2, R-7.1.3, R-6.1.1, R-6.2.3: Figures 6, 11, 12 and 13.
#[test]
fn accepts_the_request_of_figure_12() {
    let outcome = Figure12::but(|_| {});
    assert_eq!(
        (outcome.status.as_u16(), outcome.rejection.clone()),
        (200, None)
    );
}

/// R-7.1.4: each row makes one change.
#[test]
fn rejects_the_request_of_figure_12_after_any_one_change() {
    type Change = fn(&mut Figure12);
    let rows: Vec<(&str, Change, Rejection)> = vec![
        (
            "another method",
            |r| r.method = Method::POST,
            ProofError::Method.into(),
        ),
        (
            "another path",
            |r| r.path = "/other",
            ProofError::Url(UrlMismatch::Path).into(),
        ),
        (
            "another host",
            |r| r.public_url = "https://server.example.com",
            ProofError::Url(UrlMismatch::Host).into(),
        ),
        (
            "another port",
            |r| r.public_url = "https://resource.example.org:8443",
            ProofError::Url(UrlMismatch::Port).into(),
        ),
        (
            "a second too late",
            |r| r.clock += 91,
            ProofError::Iat(IatError::TooOld { by: 1 }).into(),
        ),
        (
            "a second too early",
            |r| r.clock -= 31,
            ProofError::Iat(IatError::InTheFuture { by: 1 }).into(),
        ),
        (
            "another token",
            |r| r.authorization.push('x'),
            ProofError::TokenHash.into(),
        ),
        (
            "the Bearer scheme",
            |r| r.authorization = r.authorization.replace("DPoP", "Bearer"),
            CredentialsError::Bearer.into(),
        ),
        (
            "another signature",
            |r| tamper_with_signature(&mut r.proof),
            ProofError::Signature.into(),
        ),
        (
            "a signature of zeros",
            |r| {
                replace_signature(
                    &mut r.proof,
                    &derived_vector("psychic_es256_signature_all_zero"),
                );
            },
            ProofError::Signature.into(),
        ),
        (
            "the same signature in another base64url form",
            |r| {
                let last = r.proof.pop();
                assert_eq!(last, Some('A'));
                r.proof.push('B');
            },
            ProofError::NotAJwt.into(),
        ),
        (
            "the payload of another proof",
            |r| swap_payload(&mut r.proof),
            ProofError::Method.into(),
        ),
        (
            "the proof of Figure 2",
            |r| {
                r.proof = figures()["fig2_fig5_token_request_proof"]["jwt"]
                    .as_str()
                    .unwrap()
                    .into();
            },
            ProofError::Method.into(),
        ),
    ];
    for (name, change, reason) in rows {
        let outcome = Figure12::but(change);
        outcome.assert_reason(name, reason);
    }
}

fn derived_vector(name: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    vectors["derived_not_in_rfc"][name]
        .as_str()
        .unwrap()
        .to_owned()
}

fn replace_signature(proof: &mut String, signature: &str) {
    let signing_input = proof.rsplit_once('.').unwrap().0.to_owned();
    *proof = format!("{signing_input}.{signature}");
}

fn tamper_with_signature(proof: &mut String) {
    let (signing_input, signature) = proof.rsplit_once('.').unwrap();
    let swapped = if signature.starts_with('A') { 'B' } else { 'A' };
    *proof = format!("{signing_input}.{swapped}{}", &signature[1..]);
}

fn swap_payload(proof: &mut String) {
    let other = figures()["fig2_fig5_token_request_proof"]["jwt"]
        .as_str()
        .unwrap()
        .to_owned();
    let payload = other.split('.').nth(1).unwrap().to_owned();
    let parts: Vec<&str> = proof.split('.').collect();
    *proof = format!("{}.{payload}.{}", parts[0], parts[2]);
}

/// J-18: a high S is valid, as in two signatures of the RFC and in one derived from the third.
#[test]
fn verifies_every_signature_of_the_figures() {
    let figures = figures();
    let key: Jwk = figures["proof_public_jwk"].to_string().parse().unwrap();
    assert_eq!(
        key.thumbprint().to_string(),
        figures["jkt"].as_str().unwrap()
    );
    for figure in [
        "fig2_fig5_token_request_proof",
        "fig7_refresh_request_proof",
        "fig13_resource_request_proof",
    ] {
        let (input, signature) = figures[figure]["jwt"]
            .as_str()
            .unwrap()
            .rsplit_once('.')
            .unwrap();
        let signature = decode(signature);
        assert_eq!(
            key.verify(Algorithm::Es256, input.as_bytes(), &signature),
            Ok(()),
            "{figure}"
        );
    }
    let outcome = Figure12::but(|r| {
        replace_signature(
            &mut r.proof,
            &derived_vector("fig13_malleated_signature_r_n_minus_s"),
        );
    });
    assert_eq!(outcome.status.as_u16(), 200, "the same proof with n - s");
}

/// T-15: both signatures (`s` and `n - s`) are of the same proof.
#[test]
fn rejects_a_malleated_signature_as_a_replay() {
    let verifier = Verifier::new(
        ProofRules::new("https://resource.example.org".parse().unwrap())
            .with_clock(|| at(1_562_262_618)),
        Figure11,
    );
    let layer = DpopLayer::new(verifier);
    let figures = figures();
    let figure = &figures["fig13_resource_request_proof"];
    let send = |proof: &str| {
        let request = Request::builder()
            .uri("/protectedresource")
            .header(
                "authorization",
                format!("DPoP {}", figure["access_token"].as_str().unwrap()),
            )
            .header("dpop", proof)
            .body(String::new())
            .unwrap();
        ask(&layer, request)
    };
    let mut proof = figure["jwt"].as_str().unwrap().to_owned();
    assert_eq!(send(&proof).status.as_u16(), 200);
    replace_signature(
        &mut proof,
        &derived_vector("fig13_malleated_signature_r_n_minus_s"),
    );
    send(&proof).assert_reason("r, n - s", ProofError::Replayed);
}

/// J-14, J-26: otherwise one key would have several thumbprints.
#[test]
fn rejects_noncanonical_encodings_of_the_key_of_the_rfc() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    let aliases = vectors["derived_not_in_rfc"]["proof_jwk_x_noncanonical_aliases"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(aliases.len(), 3);
    for alias in aliases {
        let mut jwk = figures()["proof_public_jwk"].clone();
        jwk["x"] = alias;
        assert_eq!(
            jwk.to_string().parse::<Jwk>().unwrap_err(),
            InvalidJwk::Coordinate
        );
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

/// R-7.1.7, R-7.1.9, R-7.1.10, R-7.1.11, R-9.1: exactly Figures 15, 16 and 24, plus `algs`, which
/// Figure 24 omits.
#[test]
fn sends_the_challenges_of_the_figures() {
    let figures = figures();
    let figure = |name: &str| figures["challenges"][name][0].as_str().unwrap().to_owned();
    let es256_ps256 = |rules: ProofRules| {
        rules.with_algorithms(Algorithms::only(Algorithm::Es256).add(Algorithm::Ps256))
    };

    let no_credentials = Attempt::but(|a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![])));
    let outcome = no_credentials.outcome_by(&DpopLayer::new(verifier_by(es256_ps256)));
    assert_eq!(outcome.challenges, [figure("fig15")]);

    let other_key = Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()));
    let outcome = other_key.outcome_by(&DpopLayer::new(verifier_by(|rules| {
        rules.with_algorithms(Algorithms::only(Algorithm::Es256))
    })));
    assert_eq!(outcome.challenges, [figure("fig16")]);

    let nonces = StatelessNonces::new(NonceSecret::generate());
    let outcome = Attempt::good().outcome_by(&DpopLayer::new(verifier_by(|rules| {
        es256_ps256(rules).with_nonces(nonces)
    })));
    assert_eq!(
        outcome.challenges,
        [figure("fig24") + r#", algs="ES256 PS256""#]
    );
}

/// Section 4.3: "the receiving server MUST ensure the following". The rows are in the order of the
/// section.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn rejects_a_request_that_fails_a_check_of_section_4_3() {
    type Change = fn(&mut Attempt);
    let rows: Vec<(&str, Change, Rejection)> = vec![
        (
            "R-4.3.1 check 1: several DPoP fields",
            |a| {
                let proof = a.proof(&a.token());
                a.dpop = Some(vec![proof.parse().unwrap(), proof.parse().unwrap()]);
            },
            ProofError::Several.into(),
        ),
        (
            "R-4.3.2 check 2: not a JWT",
            |a| a.dpop = Some(vec![HeaderValue::from_static("not-a-jwt")]),
            ProofError::NotAJwt.into(),
        ),
        (
            "R-4.3.3 R-4.2.4 check 3: no jti",
            |a| remove(&mut a.proof_claims, "jti"),
            ProofError::ClaimMissing.into(),
        ),
        (
            "R-4.3.3 R-4.2.5 check 3: no htm",
            |a| remove(&mut a.proof_claims, "htm"),
            ProofError::ClaimMissing.into(),
        ),
        (
            "R-4.3.3 R-4.2.6 check 3: no htu",
            |a| remove(&mut a.proof_claims, "htu"),
            ProofError::ClaimMissing.into(),
        ),
        (
            "R-4.3.3 R-4.2.7 check 3: no iat",
            |a| remove(&mut a.proof_claims, "iat"),
            ProofError::ClaimMissing.into(),
        ),
        (
            "R-4.3.3 R-4.2.8 check 3: no ath",
            |a| remove(&mut a.proof_claims, "ath"),
            ProofError::ClaimMissing.into(),
        ),
        (
            "R-4.3.3 R-4.2.3 check 3: no jwk",
            |a| remove(&mut a.proof_header, "jwk"),
            ProofError::NoKey.into(),
        ),
        (
            "R-4.3.4 R-4.2.1 R-11.5.1 check 4: another typ",
            |a| a.proof_header["typ"] = json!("JWT"),
            ProofError::Type.into(),
        ),
        (
            "R-4.3.4 check 4: no typ",
            |a| remove(&mut a.proof_header, "typ"),
            ProofError::Type.into(),
        ),
        (
            "R-4.3.5 R-4.2.2 R-11.6.1 check 5: alg none",
            |a| a.proof_header["alg"] = json!("none"),
            ProofError::Algorithm.into(),
        ),
        (
            "R-4.3.5 check 5: the alg of a MAC",
            |a| a.proof_header["alg"] = json!("HS256"),
            ProofError::Algorithm.into(),
        ),
        (
            "R-4.3.5 check 5: an alg that is not allowed",
            |a| {
                let key = Key::rsa("RS256");
                *a = Attempt::with_key(key);
            },
            ProofError::Algorithm.into(),
        ),
        (
            "R-4.3.5 check 5: no alg",
            |a| remove(&mut a.proof_header, "alg"),
            ProofError::Algorithm.into(),
        ),
        (
            "R-4.3.6 R-3.1 check 6: signed by another key",
            |a| a.key = Key::es256(),
            ProofError::Signature.into(),
        ),
        (
            "R-4.3.7 R-4.2.3 check 7: a private key",
            |a| a.proof_header["jwk"]["d"] = json!("AA"),
            ProofError::Key(InvalidJwk::Private).into(),
        ),
        (
            "R-4.3.8 check 8: another method",
            |a| a.proof_claims["htm"] = json!("POST"),
            ProofError::Method.into(),
        ),
        (
            "R-4.3.9 check 9: another URL",
            |a| a.proof_claims["htu"] = json!("https://api.example.com/other"),
            ProofError::Url(UrlMismatch::Path).into(),
        ),
        (
            "R-4.3.11 R-11.1.1 check 11: too old",
            |a| a.proof_claims["iat"] = json!(NOW - 91),
            ProofError::Iat(IatError::TooOld { by: 1 }).into(),
        ),
        (
            "R-4.3.11 R-11.1.2 check 11: too far ahead",
            |a| a.proof_claims["iat"] = json!(NOW + 31),
            ProofError::Iat(IatError::InTheFuture { by: 1 }).into(),
        ),
        (
            "R-4.3.12a R-7.2 check 12: the hash of another token",
            |a| a.proof_claims["ath"] = json!(common::ath("another")),
            ProofError::TokenHash.into(),
        ),
        (
            "R-4.3.12b R-6.2 check 12: a token bound to another key",
            |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()),
            BindingError::OtherKey.into(),
        ),
    ];
    for (name, change, reason) in rows {
        Attempt::but(change).outcome().assert_reason(name, reason);
    }
}

/// R-4.3.10, R-4.2.9: check 10 applies only if the server requires nonces.
#[test]
fn rejects_a_proof_without_the_nonce_of_the_server() {
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_nonces(StatelessNonces::new(NonceSecret::generate()))
    }));
    let outcome = Attempt::good().outcome_by(&layer);
    outcome.assert_reason("R-4.3.10", NonceError::Missing);
    let [nonce] = outcome.nonces.as_slice() else {
        panic!("expected one nonce: {outcome:?}")
    };
    let retry = Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce));
    retry.outcome_by(&layer).assert_passed("with the nonce");
}

/// R-4.1, R-4.2: a proof is not a credential, and it is accepted once.
#[test]
fn rejects_a_proof_without_a_token_and_a_proof_used_twice() {
    let alone = Attempt::but(|a| a.authorization = Some(vec![]));
    alone
        .outcome()
        .assert_reason("R-4.1", CredentialsError::Missing);

    let layer = DpopLayer::new(verifier());
    let attempt = Attempt::good();
    attempt.outcome_by(&layer).assert_passed("the first time");
    attempt
        .outcome_by(&layer)
        .assert_reason("R-4.2", ProofError::Replayed);
    let same_jti = Attempt::but(|a| {
        a.proof_claims["jti"] = attempt.proof_claims["jti"].clone();
        a.proof_claims["iat"] = json!(NOW - 1);
    });
    same_jti.outcome_by(&layer).assert_reason(
        "R-11.1.3: another proof, the same jti",
        ProofError::Replayed,
    );
}

/// R-4.2.10: in the header, the claims and the key.
#[test]
fn ignores_unknown_members() {
    let attempt = Attempt::but(|a| {
        a.proof_header["tx_id"] = json!({ "a": [1, 2] });
        a.proof_claims["tx_id"] = json!("x");
        a.proof_header["jwk"]["kid"] = json!("k");
    });
    attempt.outcome().assert_passed("R-4.2.10");
    assert_eq!(
        keys::client().jkt(),
        attempt.outcome().token.unwrap().thumbprint().to_string()
    );
}
