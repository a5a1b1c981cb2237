//! Which credentials are looked at, and what each kind of rejection looks like to a client.
//!
//! Only the DPoP scheme is accepted here, so of the rows that tell two kinds of servers apart, the
//! DPoP-only half is tested.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_dpop::proof::{Claim, NonceError, NonceSource, ProofError, ReplayKey, ReplayStoreError};
use tower_dpop::resource::{BindingError, CredentialsError, Unavailable};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, KeySource, KeySourceError, PresentedToken,
    TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret,
    ProofRules, Rejection, ReplayStore, StatelessNonces, Timestamp, Verifier,
};

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, ath, base64url, field,
    verifier, verifier_by,
};

/// Gives an attempt these `Authorization` fields, its token where `TOKEN` stands.
fn present(attempt: &mut Attempt, authorization: &[&str]) {
    let token = attempt.token();
    let fields = authorization
        .iter()
        .map(|text| field(text.replace("TOKEN", &token).as_bytes()));
    attempt.authorization = Some(fields.collect());
    attempt.token = Some(token);
}

fn authorized_by(authorization: &[&str]) -> Attempt {
    Attempt::but(|a| present(a, authorization))
}

#[test]
fn the_authorization_field_follows_its_grammar() {
    let malformed = Err(CredentialsError::Malformed);
    let missing = Err(CredentialsError::Missing);
    let bearer = Err(CredentialsError::Bearer);
    let rows: &[(&str, &str, Result<(), CredentialsError>)] = &[
        ("R-7.1.1: as in the RFC", "DPoP TOKEN", Ok(())),
        ("F-5 R-7.1.1: lower case", "dpop TOKEN", Ok(())),
        ("F-5 R-7.1.1: upper case", "DPOP TOKEN", Ok(())),
        ("F-5 R-7.1.1: any case", "dPoP TOKEN", Ok(())),
        ("F-6 R-7.1.1: two spaces", "DPoP  TOKEN", Ok(())),
        (
            "F-6 R-7.1.1: many spaces",
            "DPoP                TOKEN",
            Ok(()),
        ),
        ("F-6: a TAB", "DPoP\tTOKEN", malformed),
        ("F-6: a space and a TAB", "DPoP \tTOKEN", malformed),
        ("F-6: a TAB and a space", "DPoP\t TOKEN", malformed),
        ("F-7: the scheme alone", "DPoP", malformed),
        ("F-7: the scheme and a space", "DPoP ", malformed),
        ("F-7: a space behind the token", "DPoP TOKEN ", malformed),
        (
            "F-7: a space in front of the scheme",
            " DPoP TOKEN",
            malformed,
        ),
        ("F-7: two tokens", "DPoP TOKEN TOKEN", malformed),
        ("F-7: a comma behind the token", "DPoP TOKEN,", malformed),
        ("F-7: a semicolon", "DPoP TOKEN;", malformed),
        ("F-7: a quoted token", "DPoP \"TOKEN\"", malformed),
        ("F-7: a parameter", "DPoP token=\"TOKEN\"", malformed),
        ("F-7: = in the middle", "DPoP a=TOKEN", malformed),
        ("F-7: = in front", "DPoP =TOKEN", malformed),
        ("F-7: nothing but =", "DPoP ==", malformed),
        ("F-7: a colon for the space", "DPoP:TOKEN", malformed),
        ("F-7: = for the space", "DPoP=TOKEN", malformed),
        ("F-7: a slash for the space", "DPoP/TOKEN", malformed),
        ("F-7: percent-encoding", "DPoP %41TOKEN", malformed),
        (
            "F-7: an underscore is token68, a star is not",
            "DPoP *TOKEN",
            malformed,
        ),
        ("F-7: obs-text behind the token", "DPoP TOKENé", malformed),
        ("F-7: obs-text in the scheme", "DPoPé TOKEN", malformed),
        ("F-7: an empty field", "", malformed),
        ("F-7: a space", " ", malformed),
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
            "F-4: the same twice in one field",
            "DPoP TOKEN, DPoP TOKEN",
            malformed,
        ),
        ("F-8: Basic", "Basic YWxpY2U6c2VjcmV0", missing),
        (
            "F-8: Digest, with its parameters",
            "Digest username=\"alice\", uri=\"/\"",
            missing,
        ),
        ("F-8: Negotiate, without any", "Negotiate", missing),
        ("F-8: GNAP", "GNAP TOKEN", missing),
        ("F-8: a longer name", "DPoP-RT TOKEN", missing),
        ("F-8: a shorter name", "DPo TOKEN", missing),
        ("F-8: the token without a scheme", "TOKEN", missing),
        ("F-10 F-11 (DPoP only): Bearer", "Bearer TOKEN", bearer),
        ("F-10 F-11 (DPoP only): bearer", "bearer TOKEN", bearer),
        (
            "F-10 F-11 (DPoP only): Bearer and two spaces",
            "Bearer  TOKEN",
            bearer,
        ),
        ("F-7: Bearer alone", "Bearer", malformed),
        ("F-7: Bearer and a TAB", "Bearer\tTOKEN", malformed),
    ];
    for (name, authorization, expected) in rows {
        let attempt = authorized_by(&[authorization]);
        match expected {
            Ok(()) => attempt.outcome().assert_passed(name),
            Err(error) => attempt.outcome().assert_reason(name, *error),
        }
    }
    for (name, bytes) in [
        ("F-7: obs-text that is not UTF-8", &b"DPoP to\xffken"[..]),
        ("F-7: and alone", b"DPoP \x80"),
        ("F-7: and as the scheme", b"\xff token"),
    ] {
        Attempt::but(|a| a.authorization = Some(vec![field(bytes)]))
            .outcome()
            .assert_reason(name, CredentialsError::Malformed);
    }
}

#[test]
fn several_authorization_fields_are_ambiguous() {
    for (name, fields) in [
        ("F-4: the same twice", ["DPoP TOKEN", "DPoP TOKEN"]),
        (
            "F-4: Bearer and DPoP (Figure 19)",
            ["Bearer TOKEN", "DPoP TOKEN"],
        ),
        ("F-4: DPoP and Bearer", ["DPoP TOKEN", "Bearer TOKEN"]),
        ("F-4: Basic and DPoP", ["Basic YTpi", "DPoP TOKEN"]),
        ("F-4: DPoP and an empty one", ["DPoP TOKEN", ""]),
        (
            "F-4: two that are no access tokens",
            ["Basic YTpi", "Basic YTpi"],
        ),
    ] {
        authorized_by(&fields)
            .outcome()
            .assert_reason(name, CredentialsError::Ambiguous);
    }
}

#[test]
fn other_places_are_not_searched_for_a_token() {
    let extra = |name: &'static str, scheme: &str| {
        Attempt::but(|a| {
            let token = a.token();
            a.authorization = Some(Vec::new());
            a.extra_headers = vec![(name, format!("{scheme}{token}").parse().unwrap())];
            a.token = Some(token);
        })
    };
    for (name, attempt) in [
        ("F-9 R-4.1: a proof alone", authorized_by(&[])),
        (
            "F-9: neither",
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
            "F-16 R-AT.8 R-AT.12: the query",
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
            "F-19 R-7.1.14: another in Proxy-Authorization, too",
            Attempt::but(|a| {
                a.extra_headers = vec![("proxy-authorization", field(b"DPoP other"))];
            }),
        ),
    ] {
        attempt.outcome().assert_passed(name);
    }
}

/// F-16, F-20: neither the form nor the trailers of a body are the business of the layer.
#[test]
fn a_body_is_not_searched_for_credentials() {
    let layer = DpopLayer::new(verifier());
    let rejection = |attempt: &Attempt, body: String, trailers: HeaderMap| {
        let body = Full::new(Bytes::from(body)).with_trailers(async { Some(Ok(trailers)) });
        let request = attempt.request().map(|()| body);
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
        "a body does no harm"
    );
    let without_token = authorized_by(&[]);
    let form = format!("access_token={}", without_token.token());
    assert_eq!(
        rejection(&without_token, form, trailers(&without_token)),
        Some(CredentialsError::Missing.into()),
        "F-16 F-20: a token in the form and in the trailers"
    );
    let without_proof = Attempt::but(|a| {
        present(a, &["DPoP TOKEN"]);
        a.dpop = Some(Vec::new());
    });
    assert_eq!(
        rejection(&without_proof, String::new(), trailers(&without_proof)),
        Some(ProofError::Missing.into()),
        "F-20: a proof in the trailers"
    );
}

#[test]
fn there_is_one_dpop_field_and_it_holds_one_jwt() {
    let rows: &[(&str, &[&str], Option<ProofError>)] = &[
        ("R-4.3.1: one", &["PROOF"], None),
        ("R-7.1.2: none", &[], Some(ProofError::Missing)),
        (
            "F-1 R-4.3.1: the same twice",
            &["PROOF", "PROOF"],
            Some(ProofError::Several),
        ),
        (
            "F-1: a second empty one",
            &["PROOF", ""],
            Some(ProofError::Several),
        ),
        (
            "F-1: a first empty one",
            &["", "PROOF"],
            Some(ProofError::Several),
        ),
        (
            "F-1: three",
            &["PROOF", "PROOF", "PROOF"],
            Some(ProofError::Several),
        ),
        (
            "F-2 R-4.1.2: folded into one field",
            &["PROOF, PROOF"],
            Some(ProofError::NotAJwt),
        ),
        (
            "F-2 R-4.1.2: folded without a space",
            &["PROOF,PROOF"],
            Some(ProofError::NotAJwt),
        ),
        (
            "F-2: folded with an empty one",
            &["PROOF,"],
            Some(ProofError::NotAJwt),
        ),
        ("F-3: an empty field", &[""], Some(ProofError::NotAJwt)),
        (
            "R-4.1.2: a space behind",
            &["PROOF "],
            Some(ProofError::NotAJwt),
        ),
        (
            "R-4.1.2: a space in front",
            &[" PROOF"],
            Some(ProofError::NotAJwt),
        ),
        ("R-4.1.2: quotes", &["\"PROOF\""], Some(ProofError::NotAJwt)),
        (
            "R-4.1.2: a scheme in front",
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
fn the_name_of_the_field_has_no_case_and_its_value_has() {
    let layer = DpopLayer::new(verifier());
    let asked = |name: &[u8], edit: fn(&str) -> String| {
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
        asked(name.as_bytes(), str::to_owned).assert_passed(&format!("R-4.1.1: {name}"));
    }
    asked(b"DPoP", |proof| proof.replacen('e', "E", 1)).assert_reason(
        "R-4.1.1: its first letter in upper case",
        ProofError::HeaderNotJson,
    );
    asked(b"X-DPoP", str::to_owned).assert_reason("R-4.1.1: another name", ProofError::Missing);
}

/// A JWS of exactly this length, by way of white space behind its JSON texts.
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
fn a_proof_is_at_most_8_kib_and_a_token_at_most_32() {
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
    proof(8 * 1024 + 1).assert_reason("F-18: a longer one", ProofError::TooLong);
    proof(60 * 1024).assert_reason("F-18: a much longer one", ProofError::TooLong);
    let token = |length| {
        Attempt::but(|a| {
            let token = jws_of_length(&a.token_key, &a.token_header, &a.token_claims, length);
            a.token = Some(token);
        })
        .outcome()
    };
    token(32 * 1024).assert_passed("F-18: the longest token");
    token(32 * 1024 + 1).assert_reason("F-18: a longer one", CredentialsError::TokenTooLong);
}

/// Knows one token, of any form.
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

/// R-7.1.1: all of token68, and the token is exactly what stands behind the spaces.
#[test]
fn a_token_may_be_any_token68() {
    for (name, token) in [
        (
            "R-7.1.1: the token of the RFC",
            "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
        ),
        ("R-7.1.1: one character", "a"),
        ("R-7.1.1: every special one", "-._~+/"),
        ("R-7.1.1: padding", "YQ=="),
        ("R-7.1.1: much padding", "a========"),
    ] {
        for spaces in [" ", "   "] {
            let attempt = Attempt::but(|a| {
                a.token = Some(token.into());
                a.authorization = Some(vec![field(format!("DPoP{spaces}{token}").as_bytes())]);
            });
            let jkt = attempt.key.jkt();
            let verifier = Verifier::new(
                ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| common::at(NOW)),
                OneToken { token, jkt },
            );
            attempt
                .outcome_by(&DpopLayer::new(verifier))
                .assert_passed(name);
        }
    }
}

type Ath = fn(&str) -> String;

#[test]
fn ath_is_the_hash_of_the_token_and_nothing_like_it() {
    let other: &[(&str, Ath)] = &[
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
        ("F-17: in another spelling of the same bytes", |token| {
            alias(&ath(token))
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
    for (name, ath) in other {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            a.token = Some(token);
        })
        .outcome()
        .assert_reason(name, ProofError::TokenHash);
    }
    for (name, ath) in [
        ("F-17: null", json!(null)),
        ("F-17: a number", json!(1)),
        ("F-17: an array", json!(["auto"])),
    ] {
        Attempt::but(|a| a.proof_claims["ath"] = ath)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
    Attempt::but(|a| {
        a.proof_claims.as_object_mut().unwrap().remove("ath");
    })
    .outcome()
    .assert_reason("R-4.2.8 R-7.2: none", ProofError::ClaimMissing);
}

/// Base64url of 32 bytes leaves two bits of its last character unused; this sets one of them, so a
/// lax decoder finds the same bytes.
fn alias(text: &str) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = text.split_at(42);
    let place = alphabet.find(last).unwrap();
    assert_eq!(place % 4, 0, "canonical so far");
    format!("{start}{}", &alphabet[place + 1..place + 2])
}

#[test]
fn a_token_passes_only_when_cnf_names_the_proofs_key() {
    let jkt = common::keys::client().jkt();
    let jkt = jkt.as_str();
    let another = Key::es256().jkt();
    let unconfirmable = || Rejection::from(BindingError::Unconfirmable);
    let malformed = || Rejection::Token(TokenError::Malformed);
    // The last character stays: in the other case it would not be canonical.
    let other_case = |character: char| {
        if character.is_ascii_lowercase() {
            character.to_ascii_uppercase()
        } else {
            character.to_ascii_lowercase()
        }
    };
    let in_other_case: String = jkt[..42].chars().map(other_case).collect();
    let rows: Vec<(&str, Value, Option<Rejection>)> = vec![
        ("R-6.1.1: the key", json!({ "jkt": jkt }), None),
        (
            "F-14: and a certificate",
            json!({ "jkt": jkt, "x5t#S256": jkt }),
            None,
        ),
        (
            "F-14: and members of any type",
            json!({ "jkt": jkt, "kid": 1, "jwk": null }),
            None,
        ),
        (
            "R-6.2 R-4.3.12b: another key",
            json!({ "jkt": another }),
            Some(BindingError::OtherKey.into()),
        ),
        (
            "F-13: a certificate only",
            json!({ "x5t#S256": jkt }),
            Some(unconfirmable()),
        ),
        (
            "F-13: a whole key",
            json!({ "jwk": common::keys::client().public_jwk() }),
            Some(unconfirmable()),
        ),
        ("F-13: a kid", json!({ "kid": "1" }), Some(unconfirmable())),
        (
            "F-13: a jku",
            json!({ "jku": "https://as.example.com/jwks" }),
            Some(unconfirmable()),
        ),
        (
            "F-13: an unknown method",
            json!({ "osc": {} }),
            Some(unconfirmable()),
        ),
        ("F-13: nothing at all", json!({}), Some(unconfirmable())),
        (
            "F-13: jkt in upper case",
            json!({ "JKT": jkt }),
            Some(unconfirmable()),
        ),
        ("F-15: cnf is null", json!(null), Some(malformed())),
        ("F-15: cnf is true", json!(true), Some(malformed())),
        ("F-15: cnf is a number", json!(0), Some(malformed())),
        ("F-15: cnf is a string", json!(jkt), Some(malformed())),
        ("F-15: cnf is an empty string", json!(""), Some(malformed())),
        (
            "F-15: cnf is an array",
            json!([{ "jkt": jkt }]),
            Some(malformed()),
        ),
        ("F-15: cnf is an empty array", json!([]), Some(malformed())),
        (
            "F-15: jkt is null",
            json!({ "jkt": null }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is false",
            json!({ "jkt": false }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is a number",
            json!({ "jkt": 43 }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is an array",
            json!({ "jkt": [jkt] }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is an object",
            json!({ "jkt": { "S256": jkt } }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is empty",
            json!({ "jkt": "" }),
            Some(malformed()),
        ),
        (
            "F-15: 42 characters",
            json!({ "jkt": &jkt[..42] }),
            Some(malformed()),
        ),
        (
            "F-15: 44 characters",
            json!({ "jkt": format!("{jkt}A") }),
            Some(malformed()),
        ),
        (
            "F-15: 64 bytes",
            json!({ "jkt": base64url([0; 64]) }),
            Some(malformed()),
        ),
        (
            "F-15: hexadecimal",
            json!({ "jkt": "0f".repeat(32) }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: padding",
            json!({ "jkt": format!("{jkt}=") }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: a space",
            json!({ "jkt": format!("{jkt} ") }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: another spelling",
            json!({ "jkt": alias(jkt) }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: the other alphabet",
            json!({ "jkt": format!("+/{}", &jkt[2..]) }),
            Some(malformed()),
        ),
        (
            "F-15: nothing the decoder knows",
            json!({ "jkt": "é".repeat(43) }),
            Some(malformed()),
        ),
        (
            "J-27: another case is another key",
            json!({ "jkt": in_other_case + &jkt[42..] }),
            Some(BindingError::OtherKey.into()),
        ),
    ];
    for (name, cnf, expected) in rows {
        let attempt = Attempt::but(|a| a.token_claims["cnf"] = cnf.clone());
        match expected {
            None => attempt.outcome().assert_passed(name),
            Some(rejection) => attempt.outcome().assert_reason(name, rejection),
        }
        Attempt::but(|a| {
            a.token_claims["cnf"] = cnf;
            present(a, &["Bearer TOKEN"]);
        })
        .outcome()
        .assert_reason(
            &format!("F-10 F-13 (DPoP only): {name}, as Bearer"),
            CredentialsError::Bearer,
        );
    }
}

#[test]
fn a_token_without_cnf_is_rejected_under_either_scheme() {
    let unbound = |scheme: &str, with_proof: bool| {
        Attempt::but(|a| {
            a.token_claims.as_object_mut().unwrap().remove("cnf");
            present(a, &[&format!("{scheme} TOKEN")]);
            if !with_proof {
                a.dpop = Some(Vec::new());
            }
        })
        .outcome()
    };
    unbound("DPoP", true).assert_reason("F-12: with a proof", BindingError::Unbound);
    unbound("DPoP", false).assert_reason("F-12 R-7.1.2: without", ProofError::Missing);
    for with_proof in [true, false] {
        unbound("Bearer", with_proof).assert_reason(
            "F-11 (DPoP only): an unbound bearer token",
            CredentialsError::Bearer,
        );
    }
}

/// F-15 J-12: two parsers could find two keys.
#[test]
fn a_token_that_names_two_keys_is_rejected() {
    let token_with = |cnf: &str, attempt: &Attempt| {
        let mut claims = attempt.token_claims.clone();
        claims["cnf"] = json!("HERE");
        let claims = claims
            .to_string()
            .replace(r#""HERE""#, &cnf.replace("JKT", &attempt.key.jkt()));
        attempt
            .token_key
            .sign_text(attempt.token_header.to_string(), claims)
    };
    for (name, cnf) in [
        ("two jkt", r#"{"jkt":"JKT","jkt":"JKT"}"#),
        ("one of them escaped", r#"{"jkt":"JKT","j\u006bt":"JKT"}"#),
        ("two others", r#"{"jkt":"JKT","kid":1,"kid":1}"#),
        ("two cnf", r#"{"jkt":"JKT"},"cnf":{"jkt":"JKT"}"#),
    ] {
        Attempt::but(|a| a.token = Some(token_with(cnf, a)))
            .outcome()
            .assert_reason(&format!("F-15 J-12: {name}"), TokenError::Malformed);
    }
    Attempt::but(|a| a.token = Some(token_with(r#"{"j\u006bt":"JKT"}"#, a)))
        .outcome()
        .assert_passed("one, escaped");
}

/// F-14: what is not checked here is the application's to check.
#[test]
fn the_other_members_of_cnf_reach_the_application() {
    let certificate = base64url([7; 32]);
    let outcome =
        Attempt::but(|a| a.token_claims["cnf"]["x5t#S256"] = json!(certificate)).outcome();
    let cnf: Value = outcome.token.unwrap().claims().claim("cnf").unwrap();
    assert_eq!(cnf["x5t#S256"], json!(certificate));
}

/// Everything about a rejection that goes over the wire.
type OnTheWire = (u16, Vec<(String, String)>);

fn on_the_wire<C: Send + Sync + 'static>(layer: &DpopLayer<C>, attempt: &Attempt) -> OnTheWire {
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new("reached the service".to_owned()))
    }));
    let response = common::block_on(service.oneshot(attempt.request())).unwrap();
    assert_eq!(response.body(), "", "a rejection has no body");
    let fields = response.headers().iter().map(|(name, value)| {
        let value = value.to_str().unwrap();
        (name.as_str().to_owned(), value.to_owned())
    });
    (response.status().as_u16(), fields.collect())
}

fn wire(status: u16, fields: &[(&str, &str)]) -> OnTheWire {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (status, fields.collect())
}

/// Rejects every token, for this reason.
#[derive(Clone)]
struct Always(TokenError);

impl AccessTokenVerifier for Always {
    type Claims = Claims;

    async fn verify(
        &self,
        _token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        Err(self.0.clone())
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

struct NoKeys;

impl KeySource for NoKeys {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        Err(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Err(KeySourceError)
    }
}

struct NoStore;

impl ReplayStore for NoStore {
    async fn claim(
        &self,
        _key: ReplayKey,
        _now: Timestamp,
        _expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        Err(ReplayStoreError::Unavailable)
    }
}

const SECRET: [u8; 32] = [7; 32];

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::from_bytes(&SECRET).unwrap())
}

/// The nonce of the period in which the tests run.
fn nonce_of_now() -> String {
    let mut headers = HeaderMap::new();
    nonces()
        .issue(Timestamp::from_unix(NOW - NOW % 120))
        .write_to(&mut headers);
    headers["dpop-nonce"].to_str().unwrap().to_owned()
}

macro_rules! algs {
    () => {
        r#"algs="ES256 ES384 PS256 Ed25519 EdDSA""#
    };
}

/// The rows of the table of outcomes, whole: status and every header field. With nonces on, the
/// attempts carry a good nonce, and nothing else changes: a nonce is given out only where one is
/// asked for.
#[test]
fn every_outcome_has_one_form() {
    let rows: Vec<(&str, Attempt, OnTheWire)> = vec![
        (
            "O0 R-7.2.4: no credentials",
            authorized_by(&[]),
            wire(401, &[("www-authenticate", concat!("DPoP ", algs!()))]),
        ),
        (
            "O0: another scheme",
            authorized_by(&["Basic YTpi"]),
            wire(401, &[("www-authenticate", concat!("DPoP ", algs!()))]),
        ),
        (
            "O1 R-7.1.9 R-7.1.10 R-7.1.11: a bad proof",
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            wire(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof is for another method", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O1: a request that no proof can be for",
            Attempt::but(|a| a.uri = "/%zz".into()),
            wire(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_dpop_proof", error_description="the path of the request is malformed", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3: a bad token",
            Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 600)),
            wire(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="the access token has expired", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3 R-4.3.12b: a token of another key",
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt())),
            wire(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="Invalid DPoP key binding", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3 F-12: an unbound token",
            Attempt::but(|a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
            }),
            wire(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="the access token is not bound to a key", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3 R-7.2.3 F-10 (DPoP only): a bound token as Bearer",
            authorized_by(&["Bearer TOKEN"]),
            wire(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="the access token was presented as a bearer token", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O4 R-7.2.5 (DPoP only): several Authorization fields",
            authorized_by(&["DPoP TOKEN", "Bearer TOKEN"]),
            wire(
                400,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_request", error_description="several Authorization fields", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O4: broken credentials",
            authorized_by(&["DPoP"]),
            wire(
                400,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_request", error_description="the Authorization field is malformed", "#,
                        algs!()
                    ),
                )],
            ),
        ),
    ];
    let nonce = nonce_of_now();
    let without_nonces = DpopLayer::new(verifier());
    let with_nonces = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces())));
    for (name, mut attempt, expected) in rows {
        assert_eq!(on_the_wire(&without_nonces, &attempt), expected, "{name}");
        attempt.proof_claims["nonce"] = json!(nonce);
        assert_eq!(
            on_the_wire(&with_nonces, &attempt),
            expected,
            "{name}, with nonces on"
        );
    }
}

#[test]
fn a_proof_that_is_missing_is_a_bad_proof_or_lacks_a_nonce() {
    let without_proof = Attempt::but(|a| a.dpop = Some(Vec::new()));
    assert_eq!(
        on_the_wire(&DpopLayer::new(verifier()), &without_proof),
        wire(
            401,
            &[(
                "www-authenticate",
                concat!(
                    r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof is missing", "#,
                    algs!()
                )
            )]
        ),
        "O1 R-7.1.2"
    );
    let nonce = nonce_of_now();
    let demand = wire(
        401,
        &[
            (
                "www-authenticate",
                concat!(
                    r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof", "#,
                    algs!()
                ),
            ),
            ("dpop-nonce", &nonce),
            ("cache-control", "no-store"),
        ],
    );
    let with_nonces = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces())));
    assert_eq!(
        on_the_wire(&with_nonces, &without_proof),
        demand,
        "O2 R-7.1.2"
    );
    let bad_nonce = |nonce: Value| Attempt::but(|a| a.proof_claims["nonce"] = nonce);
    for (name, attempt, reason) in [
        ("O2: no nonce", Attempt::good(), NonceError::Missing),
        (
            "O2: a foreign one",
            bad_nonce(json!("foreign")),
            NonceError::Foreign,
        ),
        (
            "O2: an empty one",
            bad_nonce(json!("")),
            NonceError::Foreign,
        ),
    ] {
        assert_eq!(on_the_wire(&with_nonces, &attempt), demand, "{name}");
        attempt.outcome_by(&with_nonces).assert_reason(name, reason);
    }
}

#[test]
fn a_token_that_does_not_suffice_is_forbidden_and_told_the_scope() {
    let verifier = |error| {
        Verifier::new(
            ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| common::at(NOW)),
            Always(error),
        )
    };
    let insufficient = verifier(TokenError::InsufficientScope)
        .with_scope("orders.read orders.write".parse().unwrap());
    assert_eq!(
        on_the_wire(&DpopLayer::new(insufficient), &Attempt::good()),
        wire(
            403,
            &[(
                "www-authenticate",
                concat!(
                    r#"DPoP error="insufficient_scope", error_description="the access token does not allow this request", "#,
                    r#"scope="orders.read orders.write", "#,
                    algs!()
                )
            )]
        ),
        "O5"
    );
}

#[test]
fn a_fault_of_ours_is_no_challenge() {
    let out_of_order = wire(503, &[("retry-after", "1")]);
    let url = || AUDIENCE.parse().unwrap();
    let with_clock = |seconds| move || common::at(seconds);
    let full = verifier_by(|rules| rules.with_replay_store(MemoryReplayStore::with_limit(0)));
    let down = verifier_by(|rules| rules.with_replay_store(NoStore));
    let no_keys = Verifier::new(
        ProofRules::new(url()).with_clock(with_clock(NOW)),
        JwtVerifier::new(ISSUER, AUDIENCE, NoKeys),
    );
    let no_answer = Verifier::new(
        ProofRules::new(url()).with_clock(with_clock(NOW)),
        Always(TokenError::Unavailable),
    );
    let down_with_nonces =
        verifier_by(|rules| rules.with_replay_store(NoStore).with_nonces(nonces()));
    let good = Attempt::good;
    let (full, down, no_keys, no_answer, down_with_nonces) = (
        DpopLayer::new(full),
        DpopLayer::new(down),
        DpopLayer::new(no_keys),
        DpopLayer::new(no_answer),
        DpopLayer::new(down_with_nonces),
    );
    for (name, on_the_wire) in [
        ("O6: the replay store is full", on_the_wire(&full, &good())),
        ("O6: the replay store is down", on_the_wire(&down, &good())),
        (
            "O6: the issuer's keys are out of reach",
            on_the_wire(&no_keys, &good()),
        ),
        ("O6: nobody can say", on_the_wire(&no_answer, &good())),
        (
            "O6: with nonces on",
            on_the_wire(
                &down_with_nonces,
                &Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce_of_now())),
            ),
        ),
    ] {
        assert_eq!(on_the_wire, out_of_order, "{name}");
    }
    let replay = |error| Rejection::Unavailable(Unavailable::Replay(error));
    good()
        .outcome_by(&full)
        .assert_reason("O6 T-18", replay(ReplayStoreError::Full));
    good()
        .outcome_by(&down)
        .assert_reason("O6 T-18", replay(ReplayStoreError::Unavailable));
    for layer_says in [good().outcome_by(&no_keys), good().outcome_by(&no_answer)] {
        layer_says.assert_reason("O6", Rejection::Unavailable(Unavailable::Token));
    }
}

/// Figures 15 and 16 of RFC 9449 to the letter, Figure 24 but for `algs`, which we always tell.
#[test]
fn challenges_are_those_of_the_figures() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    let figure = |name: &str| {
        vectors["rfc9449"]["challenges"][name][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let es256 = Algorithms::only(Algorithm::Es256);
    let challenge = |verifier: tower_dpop::Verifier, attempt: Attempt| {
        attempt
            .outcome_by(&DpopLayer::new(verifier))
            .challenges
            .clone()
    };
    assert_eq!(
        challenge(
            verifier_by(|rules| rules.with_algorithms(es256.add(Algorithm::Ps256))),
            authorized_by(&[])
        ),
        [figure("fig15")],
        "O0"
    );
    assert_eq!(
        challenge(
            verifier_by(|rules| rules.with_algorithms(es256)),
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()))
        ),
        [figure("fig16")],
        "O3"
    );
    assert_eq!(
        challenge(
            verifier_by(|rules| rules.with_algorithms(es256).with_nonces(nonces())),
            Attempt::good()
        ),
        [figure("fig24") + r#", algs="ES256""#],
        "O2"
    );
}

/// R-7.1.8, P-8: each parameter once, in one order.
#[test]
fn what_is_configured_stands_in_every_challenge() {
    let metadata = "https://api.example.com/.well-known/oauth-protected-resource";
    let layer = DpopLayer::new(
        verifier()
            .with_realm("orders".parse().unwrap())
            .with_scope("orders.read".parse().unwrap())
            .with_resource_metadata(metadata.parse().unwrap()),
    );
    let configured = format!(
        r#"scope="orders.read", {}, resource_metadata="{metadata}""#,
        algs!()
    );
    assert_eq!(
        authorized_by(&[]).outcome_by(&layer).challenges,
        [format!(r#"DPoP realm="orders", {configured}"#)],
        "O0 R-7.1.8 P-8"
    );
    assert_eq!(
        authorized_by(&["DPoP"]).outcome_by(&layer).challenges,
        [format!(
            r#"DPoP realm="orders", error="invalid_request", error_description="the Authorization field is malformed", {configured}"#
        )],
        "O4 R-7.1.8 P-8"
    );
}

/// R-7.1.14: the scheme is for servers, never for proxies.
#[test]
fn no_rejection_speaks_to_a_proxy() {
    let layer = DpopLayer::new(verifier());
    for attempt in [
        authorized_by(&[]),
        Attempt::but(|a| {
            a.authorization = Some(Vec::new());
            a.extra_headers = vec![("proxy-authorization", field(b"DPoP token"))];
        }),
        Attempt::but(|a| a.dpop = Some(Vec::new())),
    ] {
        let (status, fields) = on_the_wire(&layer, &attempt);
        assert_eq!(status, 401);
        assert!(!fields.iter().any(|(name, _)| name.starts_with("proxy-")));
    }
}
