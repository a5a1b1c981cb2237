//! The example of RFC 9449 section 7.1, and one change of it for each check.

use super::*;

/// Figure 12.
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
/// Section 6.1.
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

/// A part of the example that is replaced.
#[derive(Default)]
struct Change<'c> {
    method: Option<&'c str>,
    target: Option<&'c str>,
    authorization: Option<&'c str>,
    /// In the JSON of the header and of the payload.
    replaced: Option<(&'c str, &'c str)>,
    dpop_fields: Option<usize>,
    now: u64,
    nonces: Option<Vec<(String, u64)>>,
    used: HashSet<Identity>,
}

fn judge_example(change: &Change<'_>) -> Judgement {
    let [header, payload, signature] = PROOF.split('.').collect::<Vec<_>>()[..] else {
        panic!("three segments");
    };
    let replace = |segment: &str| {
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap();
        let (from, to) = change.replaced.unwrap_or_default();
        let json = if from.is_empty() {
            json
        } else {
            json.replace(from, to)
        };
        URL_SAFE_NO_PAD.encode(json)
    };
    let proof = [replace(header), replace(payload), signature.to_owned()].join(".");
    let authorization = format!("DPoP {TOKEN}");
    let authorization = change.authorization.unwrap_or(&authorization);
    let request = Request {
        method: change.method.unwrap_or("GET"),
        target: change.target.unwrap_or("/protectedresource"),
        authorization: vec![authorization.as_bytes()],
        dpop: vec![proof.as_bytes(); change.dpop_fields.unwrap_or(1)],
    };
    let server = Server {
        host: "resource.example.org",
        port: 443,
        now: 1_562_262_618 + change.now,
        nonces: change.nonces.as_deref(),
        token: &|token| match token {
            TOKEN => Token::BoundTo(JKT.into()),
            "of-another-key" => Token::BoundTo("another".into()),
            _ => Token::Invalid,
        },
        used: &change.used,
    };
    judge(&request, &server)
}

#[test]
fn accepts_the_example_of_the_standard() {
    let judgement = judge_example(&Change::default());
    assert!(judgement.accepts(), "{judgement:?}");
    assert_eq!(
        judgement.identity,
        Some((JKT.into(), "e1j3V_bKic8-LAEB".into()))
    );
}

#[test]
fn each_check_finds_its_change() {
    let replaced = |from, to| Change {
        replaced: Some((from, to)),
        ..Change::default()
    };
    let used = HashSet::from([(JKT.to_owned(), "e1j3V_bKic8-LAEB".to_owned())]);
    for (check, change) in [
        (
            Check::Credentials,
            Change {
                authorization: Some("Bearer x"),
                ..Change::default()
            },
        ),
        (
            Check::Token,
            Change {
                authorization: Some("DPoP x"),
                ..Change::default()
            },
        ),
        (
            Check::C1,
            Change {
                dpop_fields: Some(2),
                ..Change::default()
            },
        ),
        (
            Check::C1,
            Change {
                dpop_fields: Some(0),
                ..Change::default()
            },
        ),
        (Check::C2, replaced("{\"typ\"", "[\"typ\"")),
        (Check::C2, replaced("\"typ\"", "\"crit\":[\"x\"],\"typ\"")),
        (Check::C3, replaced("\"ath\"", "\"other\"")),
        (Check::C4, replaced("dpop+jwt", "JWT")),
        (Check::C5, replaced("ES256", "none")),
        (Check::C6, replaced("e1j3V", "e1j3W")),
        (Check::C7, replaced("\"kty\"", "\"d\":\"AA\",\"kty\"")),
        (
            Check::C8,
            Change {
                method: Some("POST"),
                ..Change::default()
            },
        ),
        (
            Check::C9,
            Change {
                target: Some("/ProtectedResource"),
                ..Change::default()
            },
        ),
        (
            Check::C10,
            Change {
                nonces: Some(Vec::new()),
                ..Change::default()
            },
        ),
        (
            Check::C11,
            Change {
                now: 91,
                ..Change::default()
            },
        ),
        (
            Check::C12Hash,
            Change {
                authorization: Some("DPoP of-another-key"),
                ..Change::default()
            },
        ),
        (
            Check::C12Key,
            Change {
                authorization: Some("DPoP of-another-key"),
                ..Change::default()
            },
        ),
        (Check::JwtTimes, replaced("\"iat\"", "\"exp\":1,\"iat\"")),
        (
            Check::Replay,
            Change {
                used,
                ..Change::default()
            },
        ),
    ] {
        let judgement = judge_example(&change);
        let found = judgement.failed.iter().any(|(failed, _)| *failed == check);
        assert!(found, "{check:?}: {judgement:?}");
    }
}

/// What a proof need not differ in (sections 4.2 and 4.3, RFC 3986).
#[test]
fn accepts_other_spellings_of_the_example() {
    for target in [
        "/protectedresource?a=1",
        "/protected%72esource",
        "/./protectedresource",
        "https://RESOURCE.example.org:443/protectedresource",
    ] {
        let change = Change {
            target: Some(target),
            ..Change::default()
        };
        let judgement = judge_example(&change);
        assert!(judgement.accepts(), "{target}: {judgement:?}");
    }
    let late = judge_example(&Change {
        now: 90,
        ..Change::default()
    });
    assert!(late.accepts(), "{late:?}");
}

/// RFC 9112 section 3.2.3.
#[test]
fn no_target_of_connect_has_a_url() {
    for target in [
        "/protectedresource",
        "https://resource.example.org/protectedresource",
        "resource.example.org:443",
    ] {
        let judgement = judge_example(&Change {
            method: Some("CONNECT"),
            target: Some(target),
            ..Change::default()
        });
        assert!(judgement.strict.contains(&Strictness::Target), "{target}");
    }
}
