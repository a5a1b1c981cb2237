//! Malformed values of `Authorization` and `DPoP`: mutated, truncated, random, repeated or too long.

use common::{Attempt, AttemptExt as _, base64url};
use serde_json::json;

use super::{CANARY, Case, GoodFields, Random, RejectedBy, TOKEN_START, field_line, signed};

/// One byte replaced, inserted or removed. The scheme and the spaces after it are left alone, because their
/// spelling makes no difference.
pub(super) fn mutated_bytes(random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..35 {
        for field in ["Authorization", "DPoP"] {
            for mutation in ["replaced", "inserted", "removed"] {
                let good = GoodFields::new();
                let (value, start) = match field {
                    "Authorization" => (&good.authorization, TOKEN_START),
                    _ => (&good.dpop, 0),
                };
                let mut value = value.clone().into_bytes();
                let at = random.within(start..value.len());
                match mutation {
                    "replaced" => {
                        let original = value[at];
                        while value[at] == original {
                            value[at] = random.field_byte();
                        }
                    }
                    "inserted" => value.insert(at.max(start + 1), random.field_byte()),
                    _ => drop(value.remove(at)),
                }
                let name = format!("{field}: byte {at} {mutation}, {number}");
                cases.push(match field {
                    "Authorization" => Case::new(name, value, good.dpop),
                    _ => Case::new(name, good.authorization, value),
                });
            }
        }
    }
    cases
}

/// One character of the token replaced. The proof is for the mutated token, so that the token itself is
/// verified.
pub(super) fn mutated_tokens(random: &mut Random) -> Vec<Case> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~+/";
    let mut cases = Vec::new();
    for number in 0..40 {
        let mut token = Attempt::good().token().into_bytes();
        let at = random.within(0..token.len());
        let original = token[at];
        while token[at] == original {
            token[at] = alphabet[random.within(0..alphabet.len())];
        }
        let token = String::from_utf8(token).unwrap();
        let name = format!("R-AT.4: character {at} of the token replaced, {number}");
        cases.push(signed(name, |a| a.token = Some(token)));
    }
    for number in 0..20 {
        let segments = [0; 3].map(|_| {
            let length = random.within(0..90);
            base64url(random.bytes(length))
        });
        let name = format!("R-AT.4: a token of random segments with a proof, {number}");
        cases.push(signed(name, |a| a.token = Some(segments.join("."))));
    }
    cases
}

pub(super) fn truncated() -> Vec<Case> {
    let mut cases = Vec::new();
    let good = GoodFields::new();
    for length in (0..good.authorization.len()).step_by(23) {
        let good = GoodFields::new();
        cases.push(Case::new(
            format!("Authorization: its first {length} bytes"),
            &good.authorization[..length],
            good.dpop,
        ));
    }
    for length in (0..good.dpop.len()).step_by(23) {
        let good = GoodFields::new();
        cases.push(Case::new(
            format!("DPoP: its first {length} bytes (F-3: 0 bytes)"),
            good.authorization,
            &good.dpop[..length],
        ));
    }
    cases
}

pub(super) fn random_values(random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..20 {
        let length = random.within(1..1000);
        let noise = random.field_bytes(length);
        let name = |what: &str| format!("{what}: {length} random bytes, {number}");
        cases.push(Case::new(
            name("Authorization"),
            &noise,
            GoodFields::new().dpop,
        ));
        cases.push(Case::new(
            name("F-7: a token"),
            [b"DPoP ", noise.as_slice(), b"\""].concat(),
            GoodFields::new().dpop,
        ));
        cases.push(Case::new(
            name("DPoP"),
            GoodFields::new().authorization,
            &noise,
        ));
        cases.push(Case::new(name("both"), &noise, &noise));
    }
    for authorization in [
        "",
        "DPoP",
        "DPoP \t",
        "DPoP\tcanary",
        "DPoP =",
        "DPoP ==",
        "DPoP a=b",
        "DPoP canary canary",
        "DPoP canary,",
        "DPoP token=\"canary\"",
        "DPoP \"canary\"",
        "Bearer",
        "Bearer canary",
        "Bearer canary, DPoP canary",
        "Basic Y2FuYXJ5OmNhbmFyeQ==",
        "Digest username=\"canary\"",
        "Negotiate canary",
        "canary",
        ",",
        "\"",
        "\\",
        "DPoPcanary",
        "DPoP-canary canary",
    ] {
        let name = format!("F-7, F-8: Authorization: {authorization}");
        cases.push(Case::new(name, authorization, GoodFields::new().dpop));
    }
    cases
}

/// Up to six segments of base64url, and good JWTs with small changes to their text.
pub(super) fn random_jwts(random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..20 {
        let segments = random.within(0..7);
        let jwt: Vec<_> = (0..segments)
            .map(|_| {
                let length = random.within(0..90);
                base64url(random.bytes(length))
            })
            .collect();
        let jwt = jwt.join(".");
        let name = |what: &str| format!("J-11: {what} of {segments} random segments, {number}");
        cases.push(Case::new(
            name("a proof"),
            GoodFields::new().authorization,
            &jwt,
        ));
        cases.push(Case::new(
            name("a token"),
            format!("DPoP {jwt}"),
            GoodFields::new().dpop,
        ));
    }
    for (name, change) in [
        (
            "J-14: padded",
            (|proof| format!("{proof}=")) as fn(&str) -> String,
        ),
        ("J-14: plus", |proof| format!("{proof}+")),
        ("J-14: slash", |proof| format!("{proof}/")),
        ("J-11: a fourth segment", |proof| {
            format!("{proof}.Y2FuYXJ5")
        }),
        ("J-11: an empty fourth segment", |proof| format!("{proof}.")),
        ("J-11: an empty first segment", |proof| format!(".{proof}")),
        ("J-17: no signature", |proof| without_signature(proof, "")),
        ("J-17: a signature of zeros", |proof| {
            without_signature(proof, &"A".repeat(86))
        }),
        ("J-16: a short signature", |proof| {
            without_signature(proof, &"A".repeat(84))
        }),
        ("J-16: a long signature", |proof| {
            without_signature(proof, &"A".repeat(128))
        }),
        ("R-4.3.2: twice", |proof| format!("{proof}{proof}")),
        ("F-2: folded into one value", |proof| {
            format!("{proof}, {proof}")
        }),
        ("R-4.3.2: quoted", |proof| format!("\"{proof}\"")),
        ("R-4.3.2: with a scheme", |proof| format!("DPoP {proof}")),
    ] {
        let good = GoodFields::new();
        cases.push(Case::new(name, good.authorization, change(&good.dpop)));
        let good = GoodFields::new();
        let token = change(&good.authorization[TOKEN_START..]);
        cases.push(Case::new(
            format!("{name}, the token"),
            format!("DPoP {token}"),
            good.dpop,
        ));
    }
    cases
}

fn without_signature(jwt: &str, signature: &str) -> String {
    let (signed, _) = jwt.rsplit_once('.').unwrap();
    format!("{signed}.{signature}")
}

pub(super) fn repeated() -> Vec<Case> {
    let mut cases = Vec::new();
    for (authorizations, proofs) in [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 1),
        (1, 2),
        (2, 2),
        (0, 2),
        (2, 0),
        (3, 1),
        (1, 40),
        (40, 1),
        (40, 40),
    ] {
        let good = GoodFields::new();
        let [authorization, dpop] = good.field_lines().try_into().unwrap();
        let mut field_lines = vec![authorization; authorizations];
        field_lines.extend(vec![dpop; proofs]);
        let name = format!("F-1, F-4: {authorizations} Authorization, {proofs} DPoP");
        cases.push(Case {
            field_lines: field_lines.clone(),
            ..Case::new(name.clone(), "", "")
        });
        field_lines.reverse();
        cases.push(Case {
            field_lines,
            ..Case::new(format!("{name}, in the other order"), "", "")
        });
    }
    for other in ["", "canary", "Bearer canary", "Basic canary"] {
        let good = GoodFields::new();
        let mut field_lines = good.field_lines();
        field_lines.push(field_line("Authorization", other));
        cases.push(Case {
            field_lines,
            ..Case::new(format!("F-4: a second Authorization: {other}"), "", "")
        });
    }
    for other in ["", "canary"] {
        let good = GoodFields::new();
        let mut field_lines = good.field_lines();
        field_lines.push(field_line("DPoP", other));
        cases.push(Case {
            field_lines,
            ..Case::new(format!("F-1: a second DPoP: {other}"), "", "")
        });
    }
    cases
}

/// Longer than the layer allows, but not longer than hyper does.
pub(super) fn too_long() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [8 * 1024 + 1, 32 * 1024 + 1, 64 * 1024, 300_000] {
        for filler in ["a", "A.", "=", "{", "\"", "\\", "é", ".", " x"] {
            let noise = filler.repeat(length / filler.len());
            let name = |what: &str| format!("F-18: {what} of {length} bytes, {filler}");
            let good = GoodFields::new();
            cases.push(Case::new(name("a proof"), good.authorization, &noise));
            let good = GoodFields::new();
            cases.push(Case::new(
                name("a token"),
                format!("DPoP {noise}"),
                good.dpop,
            ));
        }
    }
    for (name, length) in [("T-13: a long jti", 513), ("T-13: a longer jti", 5000)] {
        let jti = CANARY.repeat(length);
        cases.push(signed(name, |a| {
            a.proof_claims["jti"] = json!(jti[..length]);
        }));
    }
    cases.push(signed("T-13: an empty jti", |a| {
        a.proof_claims["jti"] = json!("");
    }));
    let modulus = "canary".repeat(1000);
    cases.push(signed("J-22: an RSA key that is too long", |a| {
        a.proof_header["alg"] = json!("PS256");
        a.proof_header["jwk"] = json!({ "kty": "RSA", "e": "AQAB", "n": modulus });
    }));
    cases
}

/// Rejected by hyper: control bytes in a value, folded lines, invalid field names.
pub(super) fn invalid_http() -> Vec<Case> {
    let mut cases = Vec::new();
    for byte in [0x00, 0x01, 0x08, 0x0B, 0x0D, 0x1B, 0x1F, 0x7F] {
        let good = GoodFields::new();
        let broken = [good.authorization.as_bytes(), &[byte], b"canary"].concat();
        let name = format!("R-4.1.2: byte {byte:#04x} in Authorization");
        cases.push(Case::new(name, broken, good.dpop));
        let good = GoodFields::new();
        let broken = [good.dpop.as_bytes(), &[byte], b"canary"].concat();
        let name = format!("R-4.1.2: byte {byte:#04x} in DPoP");
        cases.push(Case::new(name, good.authorization, broken));
    }
    for (name, between) in [
        ("folded with a space", "\r\n "),
        ("folded with a tab", "\r\n\t"),
        ("broken by a line feed", "\n"),
        ("broken into two lines", "\r\n"),
    ] {
        let good = GoodFields::new();
        let (first, second) = good.dpop.split_at(40);
        let broken = format!("{first}{between}{second}");
        cases.push(Case::new(
            format!("R-4.1.2: DPoP {name}"),
            good.authorization,
            broken,
        ));
        let good = GoodFields::new();
        let (first, second) = good.authorization.split_at(40);
        let broken = format!("{first}{between}{second}");
        cases.push(Case::new(
            format!("R-7.1.1: Authorization {name}"),
            broken,
            good.dpop,
        ));
    }
    for name in ["DPoP ", "DP oP", "\"DPoP\"", "DPo\u{e9}P", ""] {
        let good = GoodFields::new();
        let mut case = Case::new(format!("R-4.1.1: a field named {name:?}"), "", "");
        case.field_lines = vec![
            field_line("Authorization", good.authorization),
            field_line(name, good.dpop),
        ];
        cases.push(case);
    }
    for case in &mut cases {
        case.rejected_by = RejectedBy::Hyper;
    }
    cases
}
