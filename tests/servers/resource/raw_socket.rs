//! Hundreds of malformed requests on keep-alive connections to a hyper server: each is rejected with
//! a 4xx and one well-formed challenge, none is a 5xx or a panic, and the connection goes on.
//!
//! The requests are mutations of a good one, drawn from a generator with a fixed seed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use common::{
    Attempt, AttemptExt as _, KeyExt as _, NOW, ath, base64url, block_on, fresh_jti, verifier,
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::{Layer as _, service_fn};
use tower_dpop::DpopLayer;

/// Stands wherever a value is made up. It must never come back.
const CANARY: &str = "canary";

/// Who rejects a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectedBy {
    /// hyper, which answers a plain 400 to what is no HTTP and closes the connection.
    Hyper,
    Layer,
}

struct Case {
    name: String,
    /// The field lines that carry the credentials, as they go over the wire.
    lines: Vec<Vec<u8>>,
    rejected_by: RejectedBy,
}

impl Case {
    fn new(
        name: impl Into<String>,
        authorization: impl AsRef<[u8]>,
        dpop: impl AsRef<[u8]>,
    ) -> Self {
        Self {
            name: name.into(),
            lines: vec![line("Authorization", authorization), line("DPoP", dpop)],
            rejected_by: RejectedBy::Layer,
        }
    }
}

fn line(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [name.as_bytes(), b": ", value.as_ref()].concat()
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        let width = u64::try_from(range.len()).unwrap();
        range.start + usize::try_from(self.next() % width).unwrap()
    }

    /// An byte that may stand in a field value (RFC 9110 section 5.5).
    fn field_byte(&mut self) -> u8 {
        loop {
            let byte = self.next().to_be_bytes()[0];
            if byte == b'\t' || (byte >= b' ' && byte != 0x7F) {
                return byte;
            }
        }
    }

    fn field_bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.field_byte()).collect()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// The values of both fields of a good request.
struct Good {
    authorization: String,
    dpop: String,
}

impl Good {
    fn new() -> Self {
        Self::of(&Attempt::good())
    }

    fn of(attempt: &Attempt) -> Self {
        let token = attempt.token();
        Self {
            dpop: attempt.proof(&token),
            authorization: format!("DPoP {token}"),
        }
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        vec![
            line("Authorization", &self.authorization),
            line("DPoP", &self.dpop),
        ]
    }
}

/// Where the token starts in the value of `Authorization`. What stands before it may be spelled in
/// several ways.
const TOKEN_START: usize = "DPoP ".len();

fn all_cases() -> Vec<Case> {
    let mut random = Random(0x9449_0000_2023_0009);
    let mut cases = mutated_bytes(&mut random);
    cases.extend(mutated_tokens(&mut random));
    cases.extend(truncated());
    cases.extend(random_values(&mut random));
    cases.extend(random_jwts(&mut random));
    cases.extend(repeated());
    cases.extend(huge());
    cases.extend(wrong_types_in_the_proof());
    cases.extend(wrong_types_in_the_token());
    cases.extend(broken_json());
    cases.extend(broken_members());
    cases.extend(no_http());
    cases
}

/// One byte replaced, inserted or removed. Never just the case of a letter of the scheme, nor a
/// space behind it: those make no difference.
fn mutated_bytes(random: &mut Random) -> Vec<Case> {
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
fn mutated_tokens(random: &mut Random) -> Vec<Case> {
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

fn truncated() -> Vec<Case> {
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

fn random_values(random: &mut Random) -> Vec<Case> {
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
fn random_jwts(random: &mut Random) -> Vec<Case> {
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

fn repeated() -> Vec<Case> {
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
fn huge() -> Vec<Case> {
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

/// A good request, changed in one thing before it was signed.
fn signed(name: impl Into<String>, change: impl FnOnce(&mut Attempt)) -> Case {
    let good = Good::of(&Attempt::but(change));
    Case::new(name, good.authorization, good.dpop)
}

/// One value of every type, and then some.
fn values() -> Vec<Value> {
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

fn wrong_types_in_the_proof() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in values() {
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
            // Any text is a good `jti`, if it has not been used.
            if member == "jti" && value.is_string() {
                continue;
            }
            let name = format!("R-4.2.4, T-10, H-23: {member} is {value}");
            cases.push(signed(name, |a| a.proof_claims[member] = value.clone()));
        }
        if !value.is_string() {
            let name = format!("T-19: nonce is {value}");
            cases.push(signed(name, |a| a.proof_claims["nonce"] = value.clone()));
        }
        if !value.is_number() {
            let name = format!("T-11: exp is {value}");
            cases.push(signed(name, |a| a.proof_claims["exp"] = value.clone()));
            let name = format!("T-11: nbf is {value}");
            cases.push(signed(name, |a| a.proof_claims["nbf"] = value.clone()));
        }
    }
    cases
}

fn wrong_types_in_the_token() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in values() {
        for member in ["typ", "alg", "kid"] {
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
        if !value.is_string() {
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

/// What is no object of JSON, or no good one.
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
            // A deeper object would make the proof longer than is looked at.
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

/// What no JSON library would write, under a good signature.
fn broken_json() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text) in broken_texts() {
        let attempt = with_one_token();
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
            Good::of(&Attempt::but(|a| a.token = Some(token)))
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

/// Numbers and members that `serde_json::Value` cannot hold, in an otherwise good payload.
fn broken_members() -> Vec<Case> {
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
        let attempt = with_one_token();
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

/// A good attempt whose token stays the same, as a proof made by hand needs it: ECDSA signs
/// otherwise each time.
fn with_one_token() -> Attempt {
    Attempt::but(|a| a.token = Some(a.token()))
}

/// The claims of a good proof for the attempt's token.
fn proof_claims(attempt: &Attempt) -> String {
    let mut claims = attempt.proof_claims.clone();
    claims["jti"] = json!(fresh_jti());
    claims["ath"] = json!(ath(&attempt.token()));
    claims.to_string()
}

/// What hyper itself rejects: control bytes in a value, folded lines, broken names.
fn no_http() -> Vec<Case> {
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

/// The layer in hyper's server. Its connections are tasks whose ends are looked at.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
    layer: DpopLayer,
    connections: JoinSet<hyper::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            layer: DpopLayer::new(verifier()),
            connections: JoinSet::new(),
        }
    }

    async fn connect(&mut self) -> Connection {
        let (client, server) =
            tokio::join!(TcpStream::connect(self.address), self.listener.accept());
        let (stream, _) = server.unwrap();
        let service = self.layer.layer(service_fn(async |_: Request<Incoming>| {
            let body = Full::new(Bytes::from("served"));
            Ok::<_, Infallible>(Response::new(body))
        }));
        let service = TowerToHyperService::new(service);
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        self.connections.spawn(connection);
        Connection(BufReader::new(client.unwrap()))
    }
}

struct Connection(BufReader<TcpStream>);

/// A response as it came over the wire.
struct Wire {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Connection {
    async fn ask(&mut self, name: &str, lines: &[Vec<u8>]) -> Wire {
        let mut request = b"GET /orders HTTP/1.1\r\nHost: api.example.com\r\n".to_vec();
        for line in lines {
            request.extend_from_slice(line);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        self.0.get_mut().write_all(&request).await.unwrap();

        let status_line = self.line(name).await;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {status_line}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line(name).await;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut response = Wire {
            status,
            fields,
            body: Vec::new(),
        };
        let length = response.field("content-length").parse().unwrap();
        response.body = vec![0; length];
        self.0.read_exact(&mut response.body).await.unwrap();
        response
    }

    async fn line(&mut self, name: &str) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        match line.strip_suffix("\r\n") {
            Some(line) => line.to_owned(),
            None => panic!("{name}: the connection ended in {line:?}"),
        }
    }

    async fn is_at_end(&mut self) -> bool {
        self.0.read(&mut [0]).await.unwrap() == 0
    }
}

impl Wire {
    fn fields(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    fn field(&self, name: &str) -> &str {
        match self.fields(name)[..] {
            [value] => value,
            _ => panic!("not one {name}: {:?}", self.fields),
        }
    }

    /// Everything that is not the same in every response.
    fn text(&self) -> Vec<u8> {
        let mut text = self.body.clone();
        for (name, value) in &self.fields {
            if name != "date" {
                text.extend_from_slice(format!("\n{name}: {value}").as_bytes());
            }
        }
        text
    }
}

/// The parameters of a challenge, read as strictly as can be: `DPoP`, one space, and parameters of
/// the form `name="value"` with one comma and one space between them.
fn parse_challenge(challenge: &str) -> Result<Vec<(&str, &str)>, &'static str> {
    let mut rest = challenge.strip_prefix("DPoP ").ok_or("not DPoP")?;
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("no opening quote")?;
        let (value, after) = after.split_once('"').ok_or("no closing quote")?;
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            return Err("not a parameter name");
        }
        // RFC 6750 section 3: %x20-21 / %x23-5B / %x5D-7E.
        if !value
            .bytes()
            .all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E))
        {
            return Err("an byte that is not allowed");
        }
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err("a parameter twice");
        }
        parameters.push((name, value));
        if after.is_empty() {
            return Ok(parameters);
        }
        rest = after.strip_prefix(", ").ok_or("no separator")?;
    }
}

/// Nothing of the credentials comes back, neither as it went over the wire (any run of eleven
/// bytes holds one of the windows) nor decoded.
#[track_caller]
fn assert_no_echo(case: &Case, response: &Wire) {
    let text = response.text();
    let holds = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    for decoded in [CANARY, "alice", "jti-", "api.example.com"] {
        assert!(!holds(decoded.as_bytes()), "{}: {decoded}", case.name);
    }
    for line in &case.lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        let mut windows = line[colon + 1..].windows(8).step_by(4).take(2000);
        assert!(!windows.any(holds), "{}", case.name);
    }
}

/// What a rejection by the layer looks like, whatever was rejected: its `error` and
/// `error_description`.
#[track_caller]
fn assert_rejected_by_the_layer(case: &Case, response: &Wire) -> Option<(String, String)> {
    let name = &case.name;
    let challenge = response.field("www-authenticate");
    let parameters =
        parse_challenge(challenge).unwrap_or_else(|error| panic!("{name}: {error}: {challenge}"));
    let value = |name: &str| {
        let parameter = parameters.iter().find(|(other, _)| *other == name);
        parameter.map(|(_, value)| *value)
    };
    for (parameter, _) in &parameters {
        assert!(
            ["error", "error_description", "algs"].contains(parameter),
            "{name}: {challenge}"
        );
    }
    assert_eq!(
        value("algs"),
        Some("ES256 ES384 PS256 Ed25519 EdDSA"),
        "{name}"
    );
    let expected = match value("error") {
        Some("invalid_request") => 400,
        Some("invalid_dpop_proof" | "invalid_token") | None => 401,
        Some(_) => panic!("{name}: {challenge}"),
    };
    assert_eq!(response.status, expected, "{name}: {challenge}");
    assert!(response.body.is_empty(), "{name}");
    for (field, _) in &response.fields {
        assert!(
            ["www-authenticate", "content-length", "date"].contains(&field.as_str()),
            "{name}: {field}"
        );
    }
    assert_no_echo(case, response);
    assert_eq!(
        value("error").is_some(),
        value("error_description").is_some(),
        "{name}"
    );
    Some((
        value("error")?.to_owned(),
        value("error_description")?.to_owned(),
    ))
}

#[test]
fn malformed_requests_are_rejected_in_good_form_and_the_connection_goes_on() {
    block_on(async {
        let mut server = Server::start().await;
        let mut connection = server.connect().await;
        let (mut by_the_layer, mut by_hyper) = (0, 0);
        let mut reasons = BTreeSet::new();
        for case in all_cases() {
            let name = &case.name;
            let response = connection.ask(name, &case.lines).await;
            match case.rejected_by {
                RejectedBy::Layer => {
                    reasons.extend(assert_rejected_by_the_layer(&case, &response));
                    by_the_layer += 1;
                }
                RejectedBy::Hyper => {
                    assert_eq!(response.status, 400, "{name}");
                    assert!(response.fields("www-authenticate").is_empty(), "{name}");
                    assert!(connection.is_at_end().await, "{name}");
                    connection = server.connect().await;
                    by_hyper += 1;
                }
            }
            let good = connection.ask(name, &Good::new().lines()).await;
            assert_eq!(good.status, 200, "after {name}");
            assert_eq!(good.body, b"served", "after {name}");
            assert!(good.fields("www-authenticate").is_empty(), "after {name}");
        }
        assert!(by_the_layer >= 400, "{by_the_layer}");
        // Bytes that HTTP does not allow, and nothing else: see `no_http`.
        assert_eq!(by_hyper, 29);
        // The cases get everywhere, not only to the first check.
        let codes: BTreeSet<_> = reasons.iter().map(|(code, _)| code.as_str()).collect();
        let expected = ["invalid_dpop_proof", "invalid_request", "invalid_token"];
        assert_eq!(codes, expected.into());
        assert!(reasons.len() >= 30, "{reasons:#?}");

        drop(connection);
        while let Some(ended) = server.connections.join_next().await {
            if let Err(error) = ended.expect("no connection panics") {
                assert!(error.is_parse(), "{error}");
            }
        }
    });
}

#[test]
fn the_parser_of_challenges_is_strict() {
    for (name, challenge) in [
        ("another scheme", r#"Bearer error="a""#),
        ("no parameters", "DPoP"),
        ("no quotes", "DPoP error=a"),
        ("an open quote", r#"DPoP error="a"#),
        ("a backslash", r#"DPoP error="a\b""#),
        ("not ASCII", "DPoP error=\"é\""),
        ("twice", r#"DPoP error="a", error="b""#),
        ("no space", r#"DPoP error="a",algs="b""#),
        ("a trailing comma", r#"DPoP error="a", "#),
        (
            "a second challenge",
            r#"DPoP error="a", Bearer error_x="b""#,
        ),
    ] {
        assert!(parse_challenge(challenge).is_err(), "{name}");
    }
    assert_eq!(
        parse_challenge(r#"DPoP error="a b", algs="ES256""#),
        Ok(vec![("error", "a b"), ("algs", "ES256")])
    );
}
