//! Malformed values of `Authorization` and `DPoP`: mutated, truncated, random, repeated or too long.

use common::{Attempt, AttemptExt as _, base64url};
use serde_json::json;

use super::{CANARY, Case, Good, Random, RejectedBy, TOKEN_START, line, signed};

/// One byte replaced, inserted or removed. Never just the case of a letter of the scheme, nor a
/// space behind it: those make no difference.
pub(super) fn mutated_bytes(random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..35 {
        for field in ["Authorization", "DPoP"] {
            for mutation in ["replaced", "inserted", "removed"] {
                let good = Good::new();
                let (value, start) = match field {
                    "Authorization" => (&good.authorization, TOKEN_START),
                    _ => (&good.dpop, 0),
                };
                let mut value = value.clone().into_bytes();
                let at = random.within(start..value.len());
                match mutation {
                    "replaced" => {
                        let was = value[at];
                        while value[at] == was {
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

/// One character of the token replaced, with a proof for what came out, so that the token itself is
/// looked at.
pub(super) fn mutated_tokens(random: &mut Random) -> Vec<Case> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~+/";
    let mut cases = Vec::new();
    for number in 0..40 {
        let mut token = Attempt::good().token().into_bytes();
        let at = random.within(0..token.len());
        let was = token[at];
        while token[at] == was {
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
    let good = Good::new();
    for length in (0..good.authorization.len()).step_by(23) {
        let good = Good::new();
        cases.push(Case::new(
            format!("Authorization: {length} bytes of it"),
            &good.authorization[..length],
            good.dpop,
        ));
    }
    for length in (0..good.dpop.len()).step_by(23) {
        let good = Good::new();
        cases.push(Case::new(
            format!("DPoP: {length} bytes of it (F-3: none)"),
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
        cases.push(Case::new(name("Authorization"), &noise, Good::new().dpop));
        cases.push(Case::new(
            name("F-7: a token"),
            [b"DPoP ", noise.as_slice(), b"\""].concat(),
            Good::new().dpop,
        ));
        cases.push(Case::new(name("DPoP"), Good::new().authorization, &noise));
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
        cases.push(Case::new(name, authorization, Good::new().dpop));
    }
    cases
}

/// Three segments, or about as many, of valid base64url or nearly so.
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
        cases.push(Case::new(name("a proof"), Good::new().authorization, &jwt));
        cases.push(Case::new(
            name("a token"),
            format!("DPoP {jwt}"),
            Good::new().dpop,
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
        ("J-17: zeros", |proof| {
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
        let good = Good::new();
        cases.push(Case::new(name, good.authorization, change(&good.dpop)));
        let good = Good::new();
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
        let good = Good::new();
        let [authorization, dpop] = good.lines().try_into().unwrap();
        let mut lines = vec![authorization; authorizations];
        lines.extend(vec![dpop; proofs]);
        let name = format!("F-1, F-4: {authorizations} Authorization, {proofs} DPoP");
        cases.push(Case {
            lines: lines.clone(),
            ..Case::new(name.clone(), "", "")
        });
        lines.reverse();
        cases.push(Case {
            lines,
            ..Case::new(format!("{name}, in the other order"), "", "")
        });
    }
    for other in ["", "canary", "Bearer canary", "Basic canary"] {
        let good = Good::new();
        let mut lines = good.lines();
        lines.push(line("Authorization", other));
        cases.push(Case {
            lines,
            ..Case::new(format!("F-4: a second Authorization: {other}"), "", "")
        });
    }
    for other in ["", "canary"] {
        let good = Good::new();
        let mut lines = good.lines();
        lines.push(line("DPoP", other));
        cases.push(Case {
            lines,
            ..Case::new(format!("F-1: a second DPoP: {other}"), "", "")
        });
    }
    cases
}

/// Beyond our limits, within those of the server.
pub(super) fn huge() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [8 * 1024 + 1, 32 * 1024 + 1, 64 * 1024, 300_000] {
        for filler in ["a", "A.", "=", "{", "\"", "\\", "é", ".", " x"] {
            let noise = filler.repeat(length / filler.len());
            let name = |what: &str| format!("F-18: {what} of {length} bytes, {filler}");
            let good = Good::new();
            cases.push(Case::new(name("a proof"), good.authorization, &noise));
            let good = Good::new();
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
    cases.push(signed("J-22: a huge RSA key", |a| {
        a.proof_header["alg"] = json!("PS256");
        a.proof_header["jwk"] = json!({ "kty": "RSA", "e": "AQAB", "n": modulus });
    }));
    cases
}

/// What hyper itself rejects: control bytes in a value, folded lines, broken names.
pub(super) fn no_http() -> Vec<Case> {
    let mut cases = Vec::new();
    for byte in [0x00, 0x01, 0x08, 0x0B, 0x0D, 0x1B, 0x1F, 0x7F] {
        let good = Good::new();
        let broken = [good.authorization.as_bytes(), &[byte], b"canary"].concat();
        let name = format!("R-4.1.2: byte {byte:#04x} in Authorization");
        cases.push(Case::new(name, broken, good.dpop));
        let good = Good::new();
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
        let good = Good::new();
        let (one, other) = good.dpop.split_at(40);
        let broken = format!("{one}{between}{other}");
        cases.push(Case::new(
            format!("R-4.1.2: DPoP {name}"),
            good.authorization,
            broken,
        ));
        let good = Good::new();
        let (one, other) = good.authorization.split_at(40);
        let broken = format!("{one}{between}{other}");
        cases.push(Case::new(
            format!("R-7.1.1: Authorization {name}"),
            broken,
            good.dpop,
        ));
    }
    for name in ["DPoP ", "DP oP", "\"DPoP\"", "DPo\u{e9}P", ""] {
        let good = Good::new();
        let mut case = Case::new(format!("R-4.1.1: a field named {name:?}"), "", "");
        case.lines = vec![
            line("Authorization", good.authorization),
            line(name, good.dpop),
        ];
        cases.push(case);
    }
    for case in &mut cases {
        case.rejected_by = RejectedBy::Hyper;
    }
    cases
}
