//! JSON is read strictly, and in one way only.

use serde_json::Value;
use tower_dpop::proof::ProofError;

use crate::proof::{Rewrite, raw, with_members};
use common::AttemptExt as _;

/// The same edit, in the header and then in the payload.
#[track_caller]
fn assert_no_part_may_be(name: &str, edit: Rewrite) {
    raw(edit, String::into_bytes)
        .outcome()
        .assert_reason(&format!("{name}, header"), ProofError::HeaderNotJson);
    raw(String::into_bytes, edit)
        .outcome()
        .assert_reason(&format!("{name}, payload"), ProofError::PayloadNotJson);
}

/// A string with these bytes in it as the value of a member that nobody knows.
fn in_unknown_value(json: &str, bytes: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 4] = [br#"{"z":"a"#, bytes, br#"b","#, &json.as_bytes()[1..]];
    parts.concat()
}

/// Puts members in front of those of the key.
fn in_jwk(json: &str, members: &str) -> Vec<u8> {
    let (before, jwk) = json.split_once(r#""jwk":{"#).unwrap();
    format!(r#"{before}"jwk":{{{members},{jwk}"#).into_bytes()
}

#[test]
fn text_that_two_parsers_could_read_differently_is_rejected() {
    let rows: &[(&str, Rewrite)] = &[
        ("J-15: a byte order mark", |json| {
            format!("\u{feff}{json}").into_bytes()
        }),
        ("J-15: an object behind", |json| {
            format!("{json}{{}}").into_bytes()
        }),
        ("J-15: the same once more", |json| {
            format!("{json}{json}").into_bytes()
        }),
        ("J-15: a comma behind", |json| {
            format!("{json},").into_bytes()
        }),
        ("J-15: a NUL behind", |json| {
            format!("{json}\0").into_bytes()
        }),
        ("J-15: a letter in front", |json| {
            format!("x{json}").into_bytes()
        }),
        ("J-15: a comma behind the last member", |json| {
            format!("{},}}", &json[..json.len() - 1]).into_bytes()
        }),
        ("J-15: an open end", |json| json[..json.len() - 1].into()),
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
        ("J-15: nothing", |_| Vec::new()),
        ("J-15: white space", |_| b" ".into()),
        ("J-15: UTF-16, big end first", |json| {
            json.encode_utf16().flat_map(u16::to_be_bytes).collect()
        }),
        ("J-15: UTF-16, little end first", |json| {
            json.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }),
        ("J-15: invalid UTF-8 in a value", |json| {
            in_unknown_value(&json, b"\xff")
        }),
        ("J-15: half a character", |json| {
            in_unknown_value(&json, b"\xc3")
        }),
        ("J-15: an overlong slash", |json| {
            in_unknown_value(&json, b"\xc0\xaf")
        }),
        ("J-15: a surrogate in UTF-8", |json| {
            in_unknown_value(&json, b"\xed\xa0\x80")
        }),
        ("J-15: a lone high surrogate", |json| {
            in_unknown_value(&json, br"\ud800")
        }),
        ("J-15: a lone low surrogate", |json| {
            in_unknown_value(&json, br"\udc00")
        }),
        ("J-15: surrogates in the wrong order", |json| {
            in_unknown_value(&json, br"\udc00\ud800")
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
            in_unknown_value(&json, b"\n")
        }),
        ("J-15: an unknown escape", |json| {
            in_unknown_value(&json, br"\x41")
        }),
        ("J-15: a deep nest of arrays", |json| {
            with_members(
                &json,
                &format!(r#""z":{}{}"#, "[".repeat(200), "]".repeat(200)),
            )
        }),
        ("J-15: a deep nest of objects", |json| {
            let (open, close) = (r#"{"a":"#.repeat(200), "}".repeat(200));
            with_members(&json, &format!(r#""z":{open}1{close}"#))
        }),
        ("J-15: a deep nest without an end", |json| {
            with_members(&json, &format!(r#""z":{}"#, "[".repeat(2000)))
        }),
        ("J-15: a number that is none", |json| {
            with_members(&json, r#""z":01"#)
        }),
        ("J-15: NaN", |json| with_members(&json, r#""z":NaN"#)),
    ];
    for (name, edit) in rows {
        assert_no_part_may_be(name, *edit);
    }
}

#[test]
fn members_may_not_be_repeated_at_any_level() {
    let anywhere: &[(&str, Rewrite)] = &[
        ("J-12: an unknown member", |json| {
            with_members(&json, r#""z":1,"z":1"#)
        }),
        ("J-12: with another value", |json| {
            with_members(&json, r#""z":1,"z":[]"#)
        }),
        ("J-12: one of them escaped", |json| {
            with_members(&json, r#""z":1,"\u007a":1"#)
        }),
        ("J-12: both escaped, in two ways", |json| {
            with_members(&json, r#""\u00e9":1,"\u00E9":1"#)
        }),
        ("J-12: one escaped, one in UTF-8", |json| {
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
        ("J-12: escaped there", |json| {
            with_members(&json, r#""z":{"y":1,"\u0079":1}"#)
        }),
        ("J-12: in an array", |json| {
            with_members(&json, r#""z":[1,{"y":1,"y":1}]"#)
        }),
        ("J-12: deep down", |json| {
            with_members(&json, r#""z":[[{"x":{"w":[{"y":1,"y":1}]}}]]"#)
        }),
    ];
    for (name, edit) in anywhere {
        assert_no_part_may_be(name, *edit);
    }
    let in_the_header: &[(&str, Rewrite)] = &[
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
        ("J-12: kty", |json| in_jwk(&json, r#""kty":"EC""#)),
        ("J-12: another kty", |json| in_jwk(&json, r#""kty":"oct""#)),
        ("J-12: kty, escaped", |json| {
            in_jwk(&json, r#""\u006bty":"EC""#)
        }),
        ("J-12: crv", |json| in_jwk(&json, r#""crv":"P-256""#)),
        ("J-12: x", |json| in_jwk(&json, r#""x":"AA""#)),
        ("J-12: x, escaped", |json| in_jwk(&json, r#""\u0078":"AA""#)),
        ("J-12: y", |json| in_jwk(&json, r#""y":"AA""#)),
        ("J-12: n", |json| in_jwk(&json, r#""n":"AA","n":"AA""#)),
        ("J-12: use", |json| {
            in_jwk(&json, r#""use":"sig","use":"sig""#)
        }),
        ("J-12: d", |json| in_jwk(&json, r#""d":"AA","d":"AA""#)),
        ("J-12: an unknown one in jwk", |json| {
            in_jwk(&json, r#""z":1,"z":1"#)
        }),
        ("J-12: escaped in jwk", |json| {
            in_jwk(&json, r#""z":1,"\u007a":1"#)
        }),
        ("J-12: in an unknown one in jwk", |json| {
            in_jwk(&json, r#""z":{"y":1,"y":1}"#)
        }),
        ("J-12: in crit", |json| {
            with_members(&json, r#""crit":[{"y":1,"y":1}]"#)
        }),
    ];
    for (name, edit) in in_the_header {
        raw(*edit, String::into_bytes)
            .outcome()
            .assert_reason(name, ProofError::HeaderNotJson);
    }
    let in_the_payload: &[(&str, Rewrite)] = &[
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
        raw(String::into_bytes, *edit)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
}

#[test]
fn unknown_members_and_other_ways_to_write_json_do_no_harm() {
    let rows: &[(&str, Rewrite)] = &[
        ("J-13: as the OpenID suite sends it", |json| {
            with_members(&json, r#""tx_id":"1","tx_id_key":"2""#)
        }),
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
        ("J-13: a name that means something elsewhere", |json| {
            with_members(
                &json,
                r#""$serde_json::private::Number":"1","__proto__":{}"#,
            )
        }),
        ("J-15: a nest that is not deep", |json| {
            with_members(
                &json,
                &format!(r#""z":{}{}"#, "[".repeat(50), "]".repeat(50)),
            )
        }),
        ("J-15: a pair of surrogates", |json| {
            in_unknown_value(&json, br"\ud83d\ude00")
        }),
        ("J-15: white space", |json| {
            format!(" \t\r\n{}\n ", json.replace("\":", "\"\t:\n ")).into_bytes()
        }),
        ("J-15: other than ASCII", |json| {
            in_unknown_value(&json, "é😀\u{2028}".as_bytes())
        }),
    ];
    for (name, edit) in rows {
        raw(*edit, String::into_bytes)
            .outcome()
            .assert_passed(&format!("{name}, header"));
        raw(String::into_bytes, *edit)
            .outcome()
            .assert_passed(&format!("{name}, payload"));
    }
    raw(
        |json| in_jwk(&json, r#""z":{"y":[1,null]},"KTY":"oct""#),
        String::into_bytes,
    )
    .outcome()
    .assert_passed("J-13: in the key");
    raw(
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
    .assert_passed("J-12: one escaped name is one name");
}
