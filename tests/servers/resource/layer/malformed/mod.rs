//! Hundreds of malformed requests on keep-alive connections to a hyper server. Each is rejected with a 4xx and one
//! well-formed challenge. None causes a 5xx or a panic, and the connection stays usable.
//!
//! The requests are mutations of a good one, drawn from a generator with a fixed seed.

mod connection;
mod fields;
mod json;

use std::collections::BTreeSet;

use common::{Attempt, AttemptExt as _, block_on};

use connection::{Server, Wire, parse_challenge};
use fields::{
    huge, mutated_bytes, mutated_tokens, no_http, random_jwts, random_values, repeated, truncated,
};
use json::{broken_json, broken_members, wrong_types_in_the_proof, wrong_types_in_the_token};

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

/// A good request, changed in one thing before it was signed.
fn signed(name: impl Into<String>, change: impl FnOnce(&mut Attempt)) -> Case {
    let good = Good::of(&Attempt::but(change));
    Case::new(name, good.authorization, good.dpop)
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
