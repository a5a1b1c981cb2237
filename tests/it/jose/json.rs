//! JSON is read strictly: no repeated members, and nothing that two parsers could read differently.

use serde_json::Value;
use tower_dpop::proof::ProofError;

use crate::proof::{EditJson, with_edited_json, with_members};
use common::AttemptExt as _;

/// Edits the header of one proof and the payload of another.
#[track_caller]
fn assert_rejected_in_both_parts(name: &str, edit: EditJson) {
    with_edited_json(edit, String::into_bytes)
        .outcome()
        .assert_reason(&format!("{name}, header"), ProofError::HeaderNotJson);
    with_edited_json(String::into_bytes, edit)
        .outcome()
        .assert_reason(&format!("{name}, payload"), ProofError::PayloadNotJson);
}

/// Inserts an unknown member, whose value is a string with these bytes.
fn with_unknown_value(json: &str, bytes: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 4] = [br#"{"z":"a"#, bytes, br#"b","#, &json.as_bytes()[1..]];
    parts.concat()
}

/// Inserts members at the start of the key.
fn with_jwk_members(json: &str, members: &str) -> Vec<u8> {
    let (before, jwk) = json.split_once(r#""jwk":{"#).unwrap();
    format!(r#"{before}"jwk":{{{members},{jwk}"#).into_bytes()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn rejects_text_that_two_parsers_could_read_differently() {
    let rows: &[(&str, EditJson)] = &[
        ("J-15: a byte order mark", |json| {
            format!("\u{feff}{json}").into_bytes()
        }),
        ("J-15: an object after the end", |json| {
            format!("{json}{{}}").into_bytes()
        }),
        ("J-15: the same text twice", |json| {
            format!("{json}{json}").into_bytes()
        }),
        ("J-15: a comma after the end", |json| {
            format!("{json},").into_bytes()
        }),
        ("J-15: a NUL after the end", |json| {
            format!("{json}\0").into_bytes()
        }),
        ("J-15: a letter before the start", |json| {
            format!("x{json}").into_bytes()
        }),
        ("J-15: a comma after the last member", |json| {
            format!("{},}}", &json[..json.len() - 1]).into_bytes()
        }),
        ("J-15: a missing closing brace", |json| {
            json[..json.len() - 1].into()
        }),
        ("J-15: a comment", |json| format!("/**/{json}").into_bytes()),
        ("J-15: single quotes", |json| {
            json.replace('"', "'").into_bytes()
        }),
        ("J-15: an array", |json| format!("[{json}]").into_bytes()),
        ("J-15: an array of its values", |_| {
            br#"["dpop+jwt","ES256"]"#.into()
        }),
        ("J-15: a string", |json| {
            Value::from(json).to_string().into_bytes()
        }),
        ("J-15: null", |_| b"null".into()),
        ("J-15: a number", |_| b"1".into()),
        ("J-15: an empty text", |_| Vec::new()),
        ("J-15: only white space", |_| b" ".into()),
        ("J-15: UTF-16, big-endian", |json| {
            json.encode_utf16().flat_map(u16::to_be_bytes).collect()
        }),
        ("J-15: UTF-16, little-endian", |json| {
            json.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }),
        ("J-15: invalid UTF-8 in a value", |json| {
            with_unknown_value(&json, b"\xff")
        }),
        ("J-15: an incomplete UTF-8 character", |json| {
            with_unknown_value(&json, b"\xc3")
        }),
        ("J-15: an overlong encoding of a slash", |json| {
            with_unknown_value(&json, b"\xc0\xaf")
        }),
        ("J-15: a surrogate in UTF-8", |json| {
            with_unknown_value(&json, b"\xed\xa0\x80")
        }),
        ("J-15: a lone high surrogate", |json| {
            with_unknown_value(&json, br"\ud800")
        }),
        ("J-15: a lone low surrogate", |json| {
            with_unknown_value(&json, br"\udc00")
        }),
        ("J-15: surrogates in the wrong order", |json| {
            with_unknown_value(&json, br"\udc00\ud800")
        }),
        ("J-15: a lone surrogate in a name", |json| {
            with_members(&json, r#""\ud800":1"#)
        }),
        ("J-15: invalid UTF-8 in a name", |json| {
            let mut text = b"{\"\xff\":1,".to_vec();
            text.extend(&json.as_bytes()[1..]);
            text
        }),
        ("J-15: a control character", |json| {
            with_unknown_value(&json, b"\n")
        }),
        ("J-15: an unknown escape", |json| {
            with_unknown_value(&json, br"\x41")
        }),
        ("J-15: deeply nested arrays", |json| {
            with_members(
                &json,
                &format!(r#""z":{}{}"#, "[".repeat(200), "]".repeat(200)),
            )
        }),
        ("J-15: deeply nested objects", |json| {
            let (open, close) = (r#"{"a":"#.repeat(200), "}".repeat(200));
            with_members(&json, &format!(r#""z":{open}1{close}"#))
        }),
        ("J-15: nested arrays that are not closed", |json| {
            with_members(&json, &format!(r#""z":{}"#, "[".repeat(2000)))
        }),
        ("J-15: a number with a leading zero", |json| {
            with_members(&json, r#""z":01"#)
        }),
        ("J-15: NaN", |json| with_members(&json, r#""z":NaN"#)),
    ];
    for (name, edit) in rows {
        assert_rejected_in_both_parts(name, *edit);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn rejects_repeated_members_at_any_level() {
    let anywhere: &[(&str, EditJson)] = &[
        ("J-12: an unknown member", |json| {
            with_members(&json, r#""z":1,"z":1"#)
        }),
        ("J-12: with another value", |json| {
            with_members(&json, r#""z":1,"z":[]"#)
        }),
        ("J-12: one of them escaped", |json| {
            with_members(&json, r#""z":1,"\u007a":1"#)
        }),
        ("J-12: both escaped, in different case", |json| {
            with_members(&json, r#""\u00e9":1,"\u00E9":1"#)
        }),
        ("J-12: one escaped, the other in UTF-8", |json| {
            with_members(&json, r#""\u00e9":1,"é":1"#)
        }),
        ("J-12: a pair of surrogates", |json| {
            with_members(&json, r#""\ud83d\ude00":1,"😀":1"#)
        }),
        ("J-12: empty names", |json| {
            with_members(&json, r#""":1,"":1"#)
        }),
        ("J-12: in an unknown object", |json| {
            with_members(&json, r#""z":{"y":1,"y":1}"#)
        }),
        ("J-12: one escaped, in an unknown object", |json| {
            with_members(&json, r#""z":{"y":1,"\u0079":1}"#)
        }),
        ("J-12: in an array", |json| {
            with_members(&json, r#""z":[1,{"y":1,"y":1}]"#)
        }),
        ("J-12: deeply nested", |json| {
            with_members(&json, r#""z":[[{"x":{"w":[{"y":1,"y":1}]}}]]"#)
        }),
    ];
    for (name, edit) in anywhere {
        assert_rejected_in_both_parts(name, *edit);
    }
    let in_the_header: &[(&str, EditJson)] = &[
        ("J-12: typ", |json| {
            with_members(&json, r#""typ":"dpop+jwt""#)
        }),
        ("J-12: another typ", |json| {
            with_members(&json, r#""typ":"JWT""#)
        }),
        ("J-12: typ, escaped", |json| {
            with_members(&json, r#""\u0074yp":"dpop+jwt""#)
        }),
        ("J-12: alg", |json| with_members(&json, r#""alg":"ES256""#)),
        ("J-12: alg none", |json| {
            with_members(&json, r#""alg":"none""#)
        }),
        ("J-12: alg, escaped", |json| {
            with_members(&json, r#""\u0061lg":"ES256""#)
        }),
        ("J-12: jwk", |json| with_members(&json, r#""jwk":{}"#)),
        ("J-12: jwk, escaped", |json| {
            with_members(&json, r#""jw\u006B":{}"#)
        }),
        ("J-12: crit", |json| {
            with_members(&json, r#""crit":[],"crit":[]"#)
        }),
        ("J-12: kid", |json| {
            with_members(&json, r#""kid":"1","kid":"1""#)
        }),
        ("J-12: kty", |json| with_jwk_members(&json, r#""kty":"EC""#)),
        ("J-12: another kty", |json| {
            with_jwk_members(&json, r#""kty":"oct""#)
        }),
        ("J-12: kty, escaped", |json| {
            with_jwk_members(&json, r#""\u006bty":"EC""#)
        }),
        ("J-12: crv", |json| {
            with_jwk_members(&json, r#""crv":"P-256""#)
        }),
        ("J-12: x", |json| with_jwk_members(&json, r#""x":"AA""#)),
        ("J-12: x, escaped", |json| {
            with_jwk_members(&json, r#""\u0078":"AA""#)
        }),
        ("J-12: y", |json| with_jwk_members(&json, r#""y":"AA""#)),
        ("J-12: n", |json| {
            with_jwk_members(&json, r#""n":"AA","n":"AA""#)
        }),
        ("J-12: use", |json| {
            with_jwk_members(&json, r#""use":"sig","use":"sig""#)
        }),
        ("J-12: d", |json| {
            with_jwk_members(&json, r#""d":"AA","d":"AA""#)
        }),
        ("J-12: an unknown member of jwk", |json| {
            with_jwk_members(&json, r#""z":1,"z":1"#)
        }),
        ("J-12: one escaped, in jwk", |json| {
            with_jwk_members(&json, r#""z":1,"\u007a":1"#)
        }),
        ("J-12: in an unknown member of jwk", |json| {
            with_jwk_members(&json, r#""z":{"y":1,"y":1}"#)
        }),
        ("J-12: in crit", |json| {
            with_members(&json, r#""crit":[{"y":1,"y":1}]"#)
        }),
    ];
    for (name, edit) in in_the_header {
        with_edited_json(*edit, String::into_bytes)
            .outcome()
            .assert_reason(name, ProofError::HeaderNotJson);
    }
    let in_the_payload: &[(&str, EditJson)] = &[
        ("J-12: jti", |json| with_members(&json, r#""jti":"other""#)),
        ("J-12: jti, escaped", |json| {
            with_members(&json, r#""jt\u0069":"other""#)
        }),
        ("J-12: htm", |json| with_members(&json, r#""htm":"GET""#)),
        ("J-12: htu", |json| {
            with_members(&json, r#""htu":"https://api.example.com/orders""#)
        }),
        ("J-12: another htu", |json| {
            with_members(&json, r#""htu":"https://evil.example/""#)
        }),
        ("J-12: htu, escaped", |json| {
            with_members(&json, r#""\u0068tu":"https://evil.example/""#)
        }),
        ("J-12: iat", |json| {
            with_members(&json, r#""iat":1700000000"#)
        }),
        ("J-12: ath", |json| with_members(&json, r#""ath":"AA""#)),
        ("J-12: nonce", |json| {
            with_members(&json, r#""nonce":"a","nonce":"b""#)
        }),
        ("J-12: exp", |json| {
            with_members(&json, r#""exp":1800000000,"exp":1800000000"#)
        }),
        ("J-12: nbf", |json| {
            with_members(&json, r#""nbf":0,"nbf":0"#)
        }),
    ];
    for (name, edit) in in_the_payload {
        with_edited_json(String::into_bytes, *edit)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
}

#[test]
fn accepts_unknown_members_and_other_spellings_of_json() {
    let rows: &[(&str, EditJson)] = &[
        (
            "J-13: members that the OpenID conformance suite sends",
            |json| with_members(&json, r#""tx_id":"1","tx_id_key":"2""#),
        ),
        ("J-13: a value of every type", |json| {
            with_members(
                &json,
                r#""a":null,"b":true,"c":-1.5e3,"d1":"","e1":[1,[]],"f":{"g":{}}"#,
            )
        }),
        ("J-13: large integers", |json| {
            with_members(
                &json,
                r#""a":18446744073709551616,"b":-9223372036854775809"#,
            )
        }),
        ("J-13: names that differ in case", |json| {
            with_members(&json, r#""Typ":"x","ALG":"none","Jti":1"#)
        }),
        ("J-13 J-12: the same name at two levels", |json| {
            with_members(&json, r#""z":{"z":{"z":1}}"#)
        }),
        ("J-13 J-12: the same name in two objects", |json| {
            with_members(&json, r#""z":[{"y":1},{"y":1}]"#)
        }),
        ("J-13 J-12: a nested alg and htu", |json| {
            with_members(&json, r#""z":{"alg":"none","htu":"x"}"#)
        }),
        ("J-13 T-12: URLs are not followed", |json| {
            with_members(
                &json,
                r#""jku":"https://127.0.0.1:1/","x5u":"https://127.0.0.1:1/""#,
            )
        }),
        ("J-13: names with a meaning in other software", |json| {
            with_members(
                &json,
                r#""$serde_json::private::Number":"1","__proto__":{}"#,
            )
        }),
        ("J-15: arrays nested 50 deep", |json| {
            with_members(
                &json,
                &format!(r#""z":{}{}"#, "[".repeat(50), "]".repeat(50)),
            )
        }),
        ("J-15: a pair of surrogates", |json| {
            with_unknown_value(&json, br"\ud83d\ude00")
        }),
        ("J-15: white space", |json| {
            format!(" \t\r\n{}\n ", json.replace("\":", "\"\t:\n ")).into_bytes()
        }),
        ("J-15: non-ASCII characters", |json| {
            with_unknown_value(&json, "é😀\u{2028}".as_bytes())
        }),
    ];
    for (name, edit) in rows {
        with_edited_json(*edit, String::into_bytes)
            .outcome()
            .assert_passed(&format!("{name}, header"));
        with_edited_json(String::into_bytes, *edit)
            .outcome()
            .assert_passed(&format!("{name}, payload"));
    }
    with_edited_json(
        |json| with_jwk_members(&json, r#""z":{"y":[1,null]},"KTY":"oct""#),
        String::into_bytes,
    )
    .outcome()
    .assert_passed("J-13: in the key");
    with_edited_json(
        |json| {
            json.replace("typ", r"\u0074yp")
                .replace("dpop+jwt", r"dpop\u002bjwt")
                .into_bytes()
        },
        |json| {
            json.replace("htu", r"\u0068tu")
                .replace('/', r"\/")
                .into_bytes()
        },
    )
    .outcome()
    .assert_passed("J-12: escaped names that are not repeated");
}
