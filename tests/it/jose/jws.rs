//! The compact form of a JWS, and header parameters that change what is signed.

use serde_json::json;
use tower_dpop::proof::ProofError;

use crate::proof::{EditText, assert_outcome, segments};
use common::{Attempt, AttemptExt as _};

#[test]
fn a_proof_must_have_three_segments() {
    let rows: &[(&str, EditText)] = &[
        ("J-11: five segments, a JWE", |proof| {
            format!("{proof}.AAAA.AAAA")
        }),
        ("J-11: four segments", |proof| format!("{proof}.AAAA")),
        ("R-4.3.2: two segments", |proof| {
            proof[..proof.rfind('.').unwrap()].into()
        }),
        ("R-4.3.2: one segment", |proof| proof.replace('.', "")),
        ("R-4.3.2: a dot at the end", |proof| format!("{proof}.")),
        ("R-4.3.2: a dot at the start", |proof| format!(".{proof}")),
        ("R-4.3.2: two dots after the header", |proof| {
            proof.replacen('.', "..", 1)
        }),
        ("R-4.3.2: the JSON serialisation", |proof| {
            let [header, payload, signature] = segments(&proof);
            json!({ "protected": header, "payload": payload, "signature": signature }).to_string()
        }),
        ("R-4.3.2: the header as plain JSON", |proof| {
            let [_, payload, signature] = segments(&proof);
            format!("{{}}.{payload}.{signature}")
        }),
    ];
    for (name, edit) in rows {
        Attempt::but(|a| a.edit_proof = *edit)
            .outcome()
            .assert_reason(name, ProofError::NotAJwt);
    }
    for (name, edit, reason) in [
        (
            "R-4.3.2: an empty header",
            (|proof| proof[proof.find('.').unwrap()..].into()) as EditText,
            ProofError::HeaderNotJson,
        ),
        (
            "R-4.3.2: an empty payload",
            |proof| {
                let [header, _, signature] = segments(&proof);
                format!("{header}..{signature}")
            },
            ProofError::PayloadNotJson,
        ),
        (
            "R-4.3.2 R-4.3.6: an empty signature",
            |proof| proof[..=proof.rfind('.').unwrap()].into(),
            ProofError::Signature,
        ),
    ] {
        Attempt::but(|a| a.edit_proof = edit)
            .outcome()
            .assert_reason(name, reason);
    }
}

#[test]
fn rejects_header_parameters_that_change_what_is_signed() {
    let extension = Some(ProofError::Extension);
    let not_json = Some(ProofError::HeaderNotJson);
    for (name, member, value, expected) in [
        (
            "J-9: crit with an unknown name",
            "crit",
            json!(["exp"]),
            extension,
        ),
        (
            "J-9: crit with a known name",
            "crit",
            json!(["alg"]),
            extension,
        ),
        ("J-9: crit with b64", "crit", json!(["b64"]), extension),
        (
            "J-9: crit with a repeated name",
            "crit",
            json!(["x", "x"]),
            extension,
        ),
        ("J-9: an empty crit", "crit", json!([]), extension),
        ("J-9: crit is a string", "crit", json!("exp"), extension),
        ("J-9: crit is null", "crit", json!(null), extension),
        ("J-10: b64 is false", "b64", json!(false), extension),
        ("J-10: b64 is true", "b64", json!(true), extension),
        ("J-10: b64 is null", "b64", json!(null), extension),
        ("J-11: zip", "zip", json!("DEF"), extension),
        ("J-11: enc", "enc", json!("A256GCM"), extension),
        ("J-11: cty JWT", "cty", json!("JWT"), extension),
        ("J-11: cty jwt", "cty", json!("jwt"), extension),
        ("J-11: another cty", "cty", json!("application/json"), None),
        ("J-11: an empty cty", "cty", json!(""), None),
        ("J-11: cty is not a string", "cty", json!(1), not_json),
        ("J-9: CRIT is another member", "CRIT", json!(["exp"]), None),
    ] {
        let outcome = Attempt::but(|a| a.proof_header[member] = value).outcome();
        assert_outcome(name, &outcome, expected);
    }
    Attempt::but(|a| {
        a.proof_header["crit"] = json!(["b64"]);
        a.proof_header["b64"] = json!(false);
    })
    .outcome()
    .assert_reason("J-10: b64 as in RFC 7797", ProofError::Extension);
    Attempt::but(|a| {
        a.proof_header["crit"] = json!(["x"]);
        a.proof_header["x"] = json!(1);
    })
    .outcome()
    .assert_reason(
        "J-9: crit with a parameter that is present",
        ProofError::Extension,
    );
}
