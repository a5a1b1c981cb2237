//! Proofs and tokens with a valid signature over unexpected JSON, or over no JSON.

use common::{Attempt, AttemptExt as _, KeyExt as _, NOW, ath, fresh_jti};
use serde_json::{Value, json};

use super::{CANARY, Case, GoodFields, signed};

/// Values of every JSON type, with edge cases.
fn values_of_every_type() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(f64::MAX),
        json!(""),
        json!(CANARY),
        json!("canary\"\\\r\n\u{0}\u{e9}\u{1f510}"),
        json!([]),
        json!([CANARY]),
        json!({}),
        json!({ CANARY: CANARY }),
    ]
}

pub(super) fn wrong_types_in_the_proof() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in values_of_every_type() {
        for member in ["typ", "alg", "jwk"] {
            let name = format!("R-4.3.3: {member} is {value}");
            cases.push(signed(name, |a| a.proof_header[member] = value.clone()));
        }
        for member in ["kty", "crv", "x", "y"] {
            let name = format!("J-4, J-5, J-20: {member} is {value}");
            cases.push(signed(name, |a| {
                a.proof_header["jwk"][member] = value.clone();
            }));
        }
        for member in ["d", "k", "p", "oth"] {
            let name = format!("J-3: {member} is {value}");
            cases.push(signed(name, |a| {
                a.proof_header["jwk"][member] = value.clone();
            }));
        }
        for member in ["crit", "b64", "enc", "zip"] {
            let name = format!("J-9, J-10, J-11: {member} is {value}");
            cases.push(signed(name, |a| a.proof_header[member] = value.clone()));
        }
        for member in ["jti", "htm", "htu", "iat", "ath"] {
            // Any unused text is a valid `jti`.
            if member == "jti" && value.is_string() {
                continue;
            }
            let name = format!("R-4.2.4, T-10, H-23: {member} is {value}");
            cases.push(signed(name, |a| a.proof_claims[member] = value.clone()));
        }
        // D9: an optional member that is `null` is absent.
        if !value.is_string() && !value.is_null() {
            let name = format!("T-19: nonce is {value}");
            cases.push(signed(name, |a| a.proof_claims["nonce"] = value.clone()));
        }
        if !value.is_number() && !value.is_null() {
            let name = format!("T-11: exp is {value}");
            cases.push(signed(name, |a| a.proof_claims["exp"] = value.clone()));
            let name = format!("T-11: nbf is {value}");
            cases.push(signed(name, |a| a.proof_claims["nbf"] = value.clone()));
        }
    }
    cases
}

pub(super) fn wrong_types_in_the_token() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in values_of_every_type() {
        for member in ["typ", "alg", "kid"] {
            if member == "kid" && value.is_null() {
                continue;
            }
            let name = format!("R-AT.1: {member} is {value}");
            cases.push(signed(name, |a| a.token_header[member] = value.clone()));
        }
        for member in ["iss", "aud"] {
            let name = format!("R-AT.2, R-AT.3: {member} is {value}");
            cases.push(signed(name, |a| a.token_claims[member] = value.clone()));
        }
        if value != json!(u64::MAX) && value != json!(f64::MAX) {
            let name = format!("R-AT.5: exp is {value}");
            cases.push(signed(name, |a| a.token_claims["exp"] = value.clone()));
        }
        if !value.is_string() && !value.is_null() {
            let name = format!("R-AT.6: sub is {value}");
            cases.push(signed(name, |a| a.token_claims["sub"] = value.clone()));
        }
        let name = format!("F-15: cnf is {value}");
        cases.push(signed(name, |a| a.token_claims["cnf"] = value.clone()));
        let name = format!("F-15: jkt is {value}");
        cases.push(signed(name, |a| {
            a.token_claims["cnf"]["jkt"] = value.clone();
        }));
    }
    cases
}

/// Texts that are not a JSON object, or not a valid one.
fn broken_texts() -> Vec<(String, Vec<u8>)> {
    let mut texts: Vec<(String, Vec<u8>)> = [
        ("J-15: nothing", ""),
        ("J-15: a space", " "),
        ("J-15: a byte order mark", "\u{feff}{}"),
        ("J-15: trailing data", "{} canary"),
        ("J-15: an array", "[]"),
        ("J-15: a text", "\"canary\""),
        ("J-15: a number", "1e400"),
        ("J-15: null", "null"),
        ("J-15: unfinished", "{\"typ\":\"dpop+jwt\",\"alg\":"),
        ("J-15: single quotes", "{'typ':'dpop+jwt'}"),
        ("J-15: a trailing comma", "{\"typ\":\"dpop+jwt\",}"),
        ("J-15: a comment", "{/*canary*/}"),
        ("J-15: a lone surrogate", "{\"typ\":\"\\ud800\"}"),
        ("J-15: an unknown escape", "{\"typ\":\"\\canary\"}"),
        ("J-15: NaN", "{\"iat\":NaN}"),
        (
            "J-12: a member twice",
            "{\"typ\":\"dpop+jwt\",\"typ\":\"dpop+jwt\"}",
        ),
        (
            "J-12: twice, escaped",
            "{\"typ\":\"dpop+jwt\",\"\\u0074yp\":\"dpop+jwt\"}",
        ),
        (
            "J-12: an unknown member twice",
            "{\"canary\":1,\"canary\":1}",
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text.into()))
    .into();
    texts.push((
        "J-15: invalid UTF-8".to_owned(),
        b"{\"typ\":\"\xFF\"}".to_vec(),
    ));
    let utf16 = "{}".encode_utf16().flat_map(u16::to_be_bytes).collect();
    texts.push(("J-15: UTF-16".to_owned(), utf16));
    for depth in [127, 128, 129, 1000, 1500] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            // With a deeper object, the proof would be rejected for its length.
            let depth = if open == "[" { depth } else { depth.min(700) };
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let closed = format!("{{\"canary\":{deep}}}");
            let open_only = format!("{{\"canary\":{}", open.repeat(depth));
            texts.push((format!("J-15: {depth} deep in {open}"), closed.into()));
            texts.push((
                format!("J-15: {depth} deep in {open}, unclosed"),
                open_only.into(),
            ));
        }
    }
    texts
}

/// Texts that no JSON library would write, with a valid signature.
pub(super) fn broken_json() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text) in broken_texts() {
        let attempt = with_fixed_token();
        let (header, claims) = (attempt.proof_header.to_string(), proof_claims(&attempt));
        let authorization = format!("DPoP {}", attempt.token());
        cases.push(Case::new(
            format!("{name}, as the header of the proof"),
            &authorization,
            attempt.key.sign_text(&text, &claims),
        ));
        cases.push(Case::new(
            format!("{name}, as the payload of the proof"),
            &authorization,
            attempt.key.sign_text(&header, &text),
        ));
        let token = |header: &[u8], payload: &[u8]| {
            let token = attempt.token_key.sign_text(header, payload);
            GoodFields::of(&Attempt::but(|a| a.token = Some(token)))
        };
        let (header, claims) = (
            attempt.token_header.to_string(),
            attempt.token_claims.to_string(),
        );
        let good = token(&text, claims.as_bytes());
        cases.push(Case::new(
            format!("{name}, as the header of the token"),
            good.authorization,
            good.dpop,
        ));
        let good = token(header.as_bytes(), &text);
        cases.push(Case::new(
            format!("{name}, as the payload of the token"),
            good.authorization,
            good.dpop,
        ));
    }
    cases
}

/// Numbers and repeated members that `serde_json::Value` cannot represent, in an otherwise good payload.
pub(super) fn broken_members() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, member) in [
        ("T-10: an iat beyond a double", "\"iat\":1e400"),
        (
            "T-10: an iat of a thousand digits",
            &format!("\"iat\":{}", "9".repeat(1000)),
        ),
        ("T-9: an iat in hexadecimal", "\"iat\":0x10"),
        ("T-9: an iat with a leading zero", "\"iat\":01700000000"),
        ("J-12: htm twice", "\"htm\":\"GET\""),
        ("J-12: jti twice", "\"jti\":\"canary\""),
    ] {
        let attempt = with_fixed_token();
        let claims = proof_claims(&attempt);
        let claims = if member.starts_with("\"iat") {
            claims.replace(&format!("\"iat\":{NOW}"), member)
        } else {
            claims.replacen('{', &format!("{{{member},"), 1)
        };
        assert!(claims.contains(member), "{name}");
        cases.push(Case::new(
            name,
            format!("DPoP {}", attempt.token()),
            attempt
                .key
                .sign_text(attempt.proof_header.to_string(), claims),
        ));
    }
    cases
}

/// A good attempt with a fixed token, for proofs that the test signs itself: ECDSA makes another signature
/// each time.
fn with_fixed_token() -> Attempt {
    Attempt::but(|a| a.token = Some(a.token()))
}

/// The claims of a good proof for this attempt's token.
fn proof_claims(attempt: &Attempt) -> String {
    let mut claims = attempt.proof_claims.clone();
    claims["jti"] = json!(fresh_jti());
    claims["ath"] = json!(ath(&attempt.token()));
    claims.to_string()
}
