//! The header fields with the access token and the proof.

use std::convert::Infallible;

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, ath, field, verifier};
use http::{HeaderMap, HeaderName, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::CredentialsError;
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{Claims, DpopLayer, Rejection, Timestamp, Verifier};

/// Replaces the `Authorization` fields. `TOKEN` stands for the token of the attempt.
pub(crate) fn set_authorization(attempt: &mut Attempt, authorization: &[&str]) {
    let token = attempt.token();
    let fields = authorization
        .iter()
        .map(|text| field(text.replace("TOKEN", &token).as_bytes()));
    attempt.authorization = Some(fields.collect());
    attempt.token = Some(token);
}

pub(crate) fn with_authorization(authorization: &[&str]) -> Attempt {
    Attempt::but(|a| set_authorization(a, authorization))
}

#[test]
fn the_authorization_field_must_follow_its_grammar() {
    let malformed = Err(CredentialsError::Malformed);
    let missing = Err(CredentialsError::Missing);
    let bearer = Err(CredentialsError::Bearer);
    let rows: &[(&str, &str, Result<(), CredentialsError>)] = &[
        ("R-7.1.1: as in the RFC", "DPoP TOKEN", Ok(())),
        ("F-5 R-7.1.1: lower case", "dpop TOKEN", Ok(())),
        ("F-5 R-7.1.1: upper case", "DPOP TOKEN", Ok(())),
        ("F-5 R-7.1.1: mixed case", "dPoP TOKEN", Ok(())),
        ("F-6 R-7.1.1: two spaces", "DPoP  TOKEN", Ok(())),
        (
            "F-6 R-7.1.1: many spaces",
            "DPoP                TOKEN",
            Ok(()),
        ),
        ("F-6: a tab", "DPoP\tTOKEN", malformed),
        ("F-6: a space and a tab", "DPoP \tTOKEN", malformed),
        ("F-6: a tab and a space", "DPoP\t TOKEN", malformed),
        ("F-7: the scheme alone", "DPoP", malformed),
        ("F-7: the scheme and a space", "DPoP ", malformed),
        ("F-7: a space after the token", "DPoP TOKEN ", malformed),
        ("F-7: a space before the scheme", " DPoP TOKEN", malformed),
        ("F-7: two tokens", "DPoP TOKEN TOKEN", malformed),
        ("F-7: a comma after the token", "DPoP TOKEN,", malformed),
        ("F-7: a semicolon", "DPoP TOKEN;", malformed),
        ("F-7: a quoted token", "DPoP \"TOKEN\"", malformed),
        ("F-7: a parameter", "DPoP token=\"TOKEN\"", malformed),
        ("F-7: = in the middle", "DPoP a=TOKEN", malformed),
        ("F-7: = before the token", "DPoP =TOKEN", malformed),
        ("F-7: only =", "DPoP ==", malformed),
        ("F-7: a colon instead of the space", "DPoP:TOKEN", malformed),
        ("F-7: = instead of the space", "DPoP=TOKEN", malformed),
        ("F-7: a slash instead of the space", "DPoP/TOKEN", malformed),
        ("F-7: percent-encoding", "DPoP %41TOKEN", malformed),
        (
            "F-7: a star, which is not in token68",
            "DPoP *TOKEN",
            malformed,
        ),
        ("F-7: obs-text after the token", "DPoP TOKENé", malformed),
        ("F-7: obs-text in the scheme", "DPoPé TOKEN", malformed),
        ("F-7: an empty field", "", malformed),
        ("F-7: only a space", " ", malformed),
        (
            "F-4: both schemes in one field",
            "Bearer TOKEN, DPoP TOKEN",
            malformed,
        ),
        (
            "F-4: in the other order",
            "DPoP TOKEN, Bearer TOKEN",
            malformed,
        ),
        (
            "F-4: DPoP twice in one field",
            "DPoP TOKEN, DPoP TOKEN",
            malformed,
        ),
        ("F-8: Basic", "Basic YWxpY2U6c2VjcmV0", missing),
        (
            "F-8: Digest with parameters",
            "Digest username=\"alice\", uri=\"/\"",
            missing,
        ),
        ("F-8: Negotiate without parameters", "Negotiate", missing),
        ("F-8: GNAP", "GNAP TOKEN", missing),
        ("F-8: a longer scheme name", "DPoP-RT TOKEN", missing),
        ("F-8: a shorter scheme name", "DPo TOKEN", missing),
        ("F-8: the token without a scheme", "TOKEN", missing),
        ("F-10 F-11 (DPoP only): Bearer", "Bearer TOKEN", bearer),
        ("F-10 F-11 (DPoP only): bearer", "bearer TOKEN", bearer),
        (
            "F-10 F-11 (DPoP only): Bearer and two spaces",
            "Bearer  TOKEN",
            bearer,
        ),
        ("F-7: Bearer alone", "Bearer", malformed),
        ("F-7: Bearer and a tab", "Bearer\tTOKEN", malformed),
    ];
    for (name, authorization, expected) in rows {
        let attempt = with_authorization(&[authorization]);
        match expected {
            Ok(()) => attempt.outcome().assert_passed(name),
            Err(error) => attempt.outcome().assert_reason(name, *error),
        }
    }
    for (name, bytes) in [
        (
            "F-7: a token with bytes that are not UTF-8",
            &b"DPoP to\xffken"[..],
        ),
        ("F-7: a token of one byte that is not UTF-8", b"DPoP \x80"),
        ("F-7: a scheme that is not UTF-8", b"\xff token"),
    ] {
        Attempt::but(|a| a.authorization = Some(vec![field(bytes)]))
            .outcome()
            .assert_reason(name, CredentialsError::Malformed);
    }
}

#[test]
fn several_authorization_fields_are_ambiguous() {
    for (name, fields) in [
        ("F-4: DPoP twice", ["DPoP TOKEN", "DPoP TOKEN"]),
        (
            "F-4: Bearer and DPoP (Figure 19)",
            ["Bearer TOKEN", "DPoP TOKEN"],
        ),
        ("F-4: DPoP and Bearer", ["DPoP TOKEN", "Bearer TOKEN"]),
        ("F-4: Basic and DPoP", ["Basic YTpi", "DPoP TOKEN"]),
        ("F-4: DPoP and an empty field", ["DPoP TOKEN", ""]),
        (
            "F-4: two fields without an access token",
            ["Basic YTpi", "Basic YTpi"],
        ),
    ] {
        with_authorization(&fields)
            .outcome()
            .assert_reason(name, CredentialsError::Ambiguous);
    }
}

#[test]
fn a_token_is_read_from_the_authorization_field_only() {
    let extra = |name: &'static str, scheme: &str| {
        Attempt::but(|a| {
            let token = a.token();
            a.authorization = Some(Vec::new());
            a.extra_headers = vec![(name, format!("{scheme}{token}").parse().unwrap())];
            a.token = Some(token);
        })
    };
    for (name, attempt) in [
        ("F-9 R-4.1: a proof alone", with_authorization(&[])),
        (
            "F-9: neither a token nor a proof",
            Attempt::but(|a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![]))),
        ),
        (
            "F-19 R-7.1.14: Proxy-Authorization",
            extra("proxy-authorization", "DPoP "),
        ),
        (
            "F-19: X-Forwarded-Access-Token",
            extra("x-forwarded-access-token", ""),
        ),
        ("F-19: a cookie", extra("cookie", "access_token=")),
        (
            "F-16 R-AT.8 R-AT.12: a token in the query",
            Attempt::but(|a| {
                let token = a.token();
                a.uri = format!("/orders?access_token={token}");
                a.authorization = Some(Vec::new());
                a.token = Some(token);
            }),
        ),
    ] {
        attempt
            .outcome()
            .assert_reason(name, CredentialsError::Missing);
    }
    for (name, attempt) in [
        (
            "F-16: another token in the query is ignored",
            Attempt::but(|a| a.uri = "/orders?access_token=other".into()),
        ),
        (
            "F-19 R-7.1.14: another token in Proxy-Authorization is ignored",
            Attempt::but(|a| {
                a.extra_headers = vec![("proxy-authorization", field(b"DPoP other"))];
            }),
        ),
    ] {
        attempt.outcome().assert_passed(name);
    }
}

/// F-16, F-20: the layer reads neither a form in the body nor the trailers.
#[test]
fn credentials_in_a_body_are_not_read() {
    let layer = DpopLayer::new(verifier());
    let rejection = |attempt: &Attempt, body: String, trailers: HeaderMap| {
        let body = Full::new(Bytes::from(body)).with_trailers(async { Some(Ok(trailers)) });
        let request = attempt.request().map(|_| body);
        let service = layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(()))));
        let response = common::block_on(service.oneshot(request)).unwrap();
        response.extensions().get::<Rejection>().cloned()
    };
    let trailers = |attempt: &Attempt| {
        let mut fields = HeaderMap::new();
        let token = attempt.token();
        fields.insert("dpop", attempt.proof(&token).parse().unwrap());
        fields.insert("authorization", format!("DPoP {token}").parse().unwrap());
        fields
    };
    let good = Attempt::good();
    assert_eq!(
        rejection(&good, "a=b".into(), HeaderMap::new()),
        None,
        "a request with a body is accepted"
    );
    let without_token = with_authorization(&[]);
    let form = format!("access_token={}", without_token.token());
    assert_eq!(
        rejection(&without_token, form, trailers(&without_token)),
        Some(CredentialsError::Missing.into()),
        "F-16 F-20: a token in the form and in the trailers"
    );
    let without_proof = Attempt::but(|a| {
        set_authorization(a, &["DPoP TOKEN"]);
        a.dpop = Some(Vec::new());
    });
    assert_eq!(
        rejection(&without_proof, String::new(), trailers(&without_proof)),
        Some(ProofError::Missing.into()),
        "F-20: a proof in the trailers"
    );
}

#[test]
fn requires_one_dpop_field_with_one_jwt() {
    let rows: &[(&str, &[&str], Option<ProofError>)] = &[
        ("R-4.3.1: one proof", &["PROOF"], None),
        ("R-7.1.2: no field", &[], Some(ProofError::Missing)),
        (
            "F-1 R-4.3.1: the same proof twice",
            &["PROOF", "PROOF"],
            Some(ProofError::Several),
        ),
        (
            "F-1: a proof and an empty field",
            &["PROOF", ""],
            Some(ProofError::Several),
        ),
        (
            "F-1: an empty field and a proof",
            &["", "PROOF"],
            Some(ProofError::Several),
        ),
        (
            "F-1: the same proof three times",
            &["PROOF", "PROOF", "PROOF"],
            Some(ProofError::Several),
        ),
        (
            "F-2 R-4.1.2: two proofs, joined by a comma and a space",
            &["PROOF, PROOF"],
            Some(ProofError::NotAJwt),
        ),
        (
            "F-2 R-4.1.2: two proofs, joined by a comma",
            &["PROOF,PROOF"],
            Some(ProofError::NotAJwt),
        ),
        (
            "F-2: a comma after the proof",
            &["PROOF,"],
            Some(ProofError::NotAJwt),
        ),
        ("F-3: an empty field", &[""], Some(ProofError::NotAJwt)),
        (
            "R-4.1.2: a space after the proof",
            &["PROOF "],
            Some(ProofError::NotAJwt),
        ),
        (
            "R-4.1.2: a space before the proof",
            &[" PROOF"],
            Some(ProofError::NotAJwt),
        ),
        ("R-4.1.2: quotes", &["\"PROOF\""], Some(ProofError::NotAJwt)),
        (
            "R-4.1.2: a scheme before the proof",
            &["DPoP PROOF"],
            Some(ProofError::NotAJwt),
        ),
        ("R-4.1.3: a tilde", &["PROOF~"], Some(ProofError::NotAJwt)),
        ("R-4.1.3: a plus", &["PROOF+"], Some(ProofError::NotAJwt)),
        ("R-4.1.3: a slash", &["PROOF/"], Some(ProofError::NotAJwt)),
        (
            "R-4.1.3: an equals sign",
            &["PROOF="],
            Some(ProofError::NotAJwt),
        ),
        ("R-4.1.3: not ASCII", &["PROOFé"], Some(ProofError::NotAJwt)),
    ];
    for (name, fields, expected) in rows {
        let attempt = Attempt::but(|a| {
            let token = a.token();
            let proof = a.proof(&token);
            let field = |text: &&str| field(text.replace("PROOF", &proof).as_bytes());
            a.dpop = Some(fields.iter().map(field).collect());
            a.token = Some(token);
        });
        match expected {
            None => attempt.outcome().assert_passed(name),
            Some(error) => attempt.outcome().assert_reason(name, *error),
        }
    }
    Attempt::but(|a| a.dpop = Some(vec![field(b"a.b\xff.c")]))
        .outcome()
        .assert_reason("R-4.1.3: not UTF-8", ProofError::NotAJwt);
}

#[test]
fn the_field_name_is_case_insensitive_and_its_value_is_case_sensitive() {
    let layer = DpopLayer::new(verifier());
    let outcome_of = |name: &[u8], edit: fn(&str) -> String| {
        let attempt = Attempt::good();
        let mut request = attempt.request();
        let proof = request.headers_mut().remove("dpop").unwrap();
        request.headers_mut().insert(
            HeaderName::from_bytes(name).unwrap(),
            edit(proof.to_str().unwrap()).parse().unwrap(),
        );
        common::ask(&layer, request)
    };
    for name in ["DPoP", "DPOP", "dpop", "dPoP"] {
        outcome_of(name.as_bytes(), str::to_owned).assert_passed(&format!("R-4.1.1: {name}"));
    }
    outcome_of(b"DPoP", |proof| proof.replacen('e', "E", 1)).assert_reason(
        "R-4.1.1: one letter of the value in upper case",
        ProofError::HeaderNotJson,
    );
    outcome_of(b"X-DPoP", str::to_owned)
        .assert_reason("R-4.1.1: another field name", ProofError::Missing);
}

/// A JWS of exactly this length, padded with spaces after its JSON texts.
fn jws_of_length(key: &Key, header: &Value, payload: &Value, length: usize) -> String {
    let encoded = |bytes: usize| (bytes * 4).div_ceil(3);
    let (header, payload) = (header.to_string(), payload.to_string());
    let signature = encoded(key.signature(b"").len());
    let (header_spaces, payload_spaces) = (0..3)
        .flat_map(|one| (0..length).map(move |other| (one, other)))
        .find(|(one, other)| {
            encoded(header.len() + one) + encoded(payload.len() + other) + signature + 2 == length
        })
        .unwrap();
    let jws = key.sign_text(
        header + &" ".repeat(header_spaces),
        payload + &" ".repeat(payload_spaces),
    );
    assert_eq!(jws.len(), length);
    jws
}

#[test]
fn a_proof_has_at_most_8_kib_and_a_token_at_most_32_kib() {
    let proof = |length| {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            let proof = jws_of_length(&a.key, &a.proof_header, &a.proof_claims, length);
            a.dpop = Some(vec![proof.parse().unwrap()]);
            a.token = Some(token);
        })
        .outcome()
    };
    proof(8 * 1024).assert_passed("F-18: the longest proof");
    proof(8 * 1024 + 1).assert_reason("F-18: one byte too long", ProofError::TooLong);
    proof(60 * 1024).assert_reason("F-18: a proof of 60 KiB", ProofError::TooLong);
    let token = |length| {
        Attempt::but(|a| {
            let token = jws_of_length(&a.token_key, &a.token_header, &a.token_claims, length);
            a.token = Some(token);
        })
        .outcome()
    };
    token(32 * 1024).assert_passed("F-18: the longest token");
    token(32 * 1024 + 1).assert_reason("F-18: one byte too long", CredentialsError::TokenTooLong);
}

/// Accepts exactly one token, which need not be a JWT.
struct OneToken {
    token: &'static str,
    jkt: String,
}

impl AccessTokenVerifier for OneToken {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        if token.as_str() != self.token {
            return Err(TokenError::Invalid);
        }
        let claims = serde_json::from_value(json!({ "sub": "alice" })).unwrap();
        let confirmation = Confirmation::Thumbprint(self.jkt.parse().unwrap());
        Ok(AccessToken::new(confirmation, claims))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// the token is everything after the spaces.
#[test]
fn a_token_may_be_any_token68() {
    for (name, token) in [
        (
            "R-7.1.1: the token of the RFC",
            "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
        ),
        ("R-7.1.1: one character", "a"),
        ("R-7.1.1: every special character", "-._~+/"),
        ("R-7.1.1: padding", "YQ=="),
        ("R-7.1.1: long padding", "a========"),
    ] {
        for spaces in [" ", "   "] {
            let attempt = Attempt::but(|a| {
                a.token = Some(token.into());
                a.authorization = Some(vec![field(format!("DPoP{spaces}{token}").as_bytes())]);
            });
            let jkt = attempt.key.jkt();
            let verifier = Verifier::new(common::rules(), OneToken { token, jkt });
            attempt
                .outcome_by(&DpopLayer::new(verifier))
                .assert_passed(name);
        }
    }
}

/// Computes an `ath` from the token.
type ComputeAth = fn(&str) -> String;

#[test]
fn ath_must_be_the_hash_of_the_token() {
    let wrong: &[(&str, ComputeAth)] = &[
        ("F-17 R-4.3.12a: of another token", |_| ath("another")),
        ("F-17: of a space and the token", |token| {
            ath(&format!(" {token}"))
        }),
        ("F-17: of the token and a space", |token| {
            ath(&format!("{token} "))
        }),
        ("F-17: of the whole field", |token| {
            ath(&format!("DPoP {token}"))
        }),
        ("F-17: in upper case", |token| {
            ath(token).to_ascii_uppercase()
        }),
        ("F-17: with padding", |token| ath(token) + "="),
        ("F-17: with a space", |token| ath(token) + " "),
        ("F-17: without its last character", |token| {
            ath(token)[..42].into()
        }),
        ("F-17: another encoding of the same bytes", |token| {
            noncanonical(&ath(token))
        }),
        ("F-17: in hexadecimal", |token| {
            let hash = PresentedToken::new(token);
            let digits = hash.sha256().iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits
                .filter_map(|digit| char::from_digit(digit.into(), 16))
                .collect()
        }),
        ("F-17: empty", |_| String::new()),
        ("F-17: the token itself", str::to_owned),
    ];
    for (name, ath) in wrong {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            a.token = Some(token);
        })
        .outcome()
        .assert_reason(name, ProofError::TokenHash);
    }
    for (name, ath) in [
        ("F-17: a number", json!(1)),
        ("F-17: an array", json!(["auto"])),
    ] {
        Attempt::but(|a| a.proof_claims["ath"] = ath)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
    Attempt::but(|a| a.proof_claims["ath"] = json!(null))
        .outcome()
        .assert_reason("F-17: null", ProofError::ClaimMissing);
    Attempt::but(|a| {
        a.proof_claims.as_object_mut().unwrap().remove("ath");
    })
    .outcome()
    .assert_reason("R-4.2.8 R-7.2: no ath", ProofError::ClaimMissing);
}

/// Sets one of the two unused bits in the last character of 32 bytes in base64url. A lax decoder
/// decodes the same bytes.
pub(crate) fn noncanonical(text: &str) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = text.split_at(42);
    let index = alphabet.find(last).unwrap();
    assert_eq!(index % 4, 0, "the text is canonical");
    format!("{start}{}", &alphabet[index + 1..index + 2])
}
