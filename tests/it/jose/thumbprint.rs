//! The thumbprint of a key identifies the client.

use serde_json::{Value, json};
use tower_dpop::jose::Jwk;
use tower_dpop::resource::BindingError;

use crate::proof::{bind_token_to_jwk, layer_with_every_algorithm};
use common::{Attempt, AttemptExt as _, Key, KeyExt as _};

/// J-26: the vectors of RFC 7638, RFC 8037 and RFC 9449, in several spellings of their JSON.
#[test]
fn thumbprints_match_the_rfc_vectors() {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors.json")).unwrap();
    let (rfc7638, rfc8037, rfc9449) = (
        &vectors["rfc7638"],
        &vectors["rfc8037_appendix_A"],
        &vectors["rfc9449"],
    );
    let rows = [
        (
            "J-26: RFC 7638 section 3.1",
            &rfc7638["jwk"],
            &rfc7638["thumbprint"],
        ),
        (
            "J-26: RFC 9449 Figure 25",
            &rfc7638["jwk"],
            &rfc9449["fig25_dpop_jkt"],
        ),
        (
            "J-26: RFC 8037 appendix A.3",
            &rfc8037["jwk"],
            &rfc8037["thumbprint_A3"],
        ),
        (
            "J-26: RFC 9449 section 6.1",
            &rfc9449["proof_public_jwk"],
            &rfc9449["jkt"],
        ),
    ];
    for (name, jwk, thumbprint) in rows {
        let thumbprint_of = |json: &str| Some(json.parse::<Jwk>().ok()?.thumbprint().to_string());
        let thumbprint = thumbprint.as_str().map(str::to_owned);
        assert!(thumbprint.is_some());
        assert_eq!(thumbprint_of(&jwk.to_string()), thumbprint, "{name}");

        let members = jwk.as_object().unwrap();
        let reversed: Vec<String> = members
            .iter()
            .rev()
            .map(|(name, value)| format!(" \"{name}\" :\n{value}"))
            .collect();
        let reversed = format!("{{{}}}", reversed.join(","));
        assert_eq!(
            thumbprint_of(&reversed),
            thumbprint,
            "{name}, in another order"
        );

        let escaped = jwk
            .to_string()
            .replace("kty", r"\u006bty")
            .replace('A', r"\u0041");
        assert_eq!(thumbprint_of(&escaped), thumbprint, "{name}, with escapes");

        let mut extended = jwk.clone();
        for (member, value) in [
            ("kid", json!("1")),
            ("use", json!("sig")),
            ("key_ops", json!(["verify"])),
            ("x5c", json!([])),
            ("zzz", json!({ "kty": "oct" })),
        ] {
            extended[member] = value;
        }
        assert_eq!(
            thumbprint_of(&extended.to_string()),
            thumbprint,
            "{name}, with more members"
        );
    }
}

/// J-26, J-27: the thumbprint covers the required members only.
#[test]
fn the_token_must_be_bound_to_the_thumbprint() {
    for key in [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::rsa("PS256"),
    ] {
        let outcome = Attempt::with_key(key.clone()).outcome_by(&layer_with_every_algorithm());
        let name = format!("J-26 J-27: {}", key.alg());
        outcome.assert_passed(&name);
        let thumbprint = outcome.token.unwrap().thumbprint();
        assert_eq!(thumbprint.to_string(), key.jkt(), "{name}");

        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"]["kid"] = json!("1");
        attempt
            .outcome_by(&layer_with_every_algorithm())
            .assert_passed(&format!("{name}, with a kid"));
        bind_token_to_jwk(&mut attempt);
        attempt
            .outcome_by(&layer_with_every_algorithm())
            .assert_reason(
                &format!("{name}, bound to a hash over all members"),
                BindingError::OtherKey,
            );
    }
}
