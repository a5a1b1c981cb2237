//! Hundreds of malformed requests on keep-alive connections to a hyper server. Each is rejected with a 4xx and one
//! well-formed challenge. None causes a 5xx or a panic, and the connection stays usable.
//!
//! The requests are mutations of a good one, drawn from a generator with a fixed seed.

mod connection;
mod fields;
mod json;

use std::collections::BTreeSet;

use common::{Attempt, AttemptExt as _, block_on};

use connection::{RawResponse, Server, parse_challenge};
use fields::{
    invalid_http, mutated_bytes, mutated_tokens, random_jwts, random_values, repeated, too_long,
    truncated,
};
use json::{broken_json, broken_members, wrong_types_in_the_proof, wrong_types_in_the_token};

/// Part of every made-up value. It must not be in a response.
const CANARY: &str = "canary";

/// Who rejects a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectedBy {
    /// hyper responds to invalid HTTP with a plain 400, and closes the connection.
    Hyper,
    Layer,
}

struct Case {
    name: String,
    /// The field lines with the credentials, as they are sent.
    field_lines: Vec<Vec<u8>>,
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
            field_lines: vec![
                field_line("Authorization", authorization),
                field_line("DPoP", dpop),
            ],
            rejected_by: RejectedBy::Layer,
        }
    }
}

fn field_line(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [name.as_bytes(), b": ", value.as_ref()].concat()
}

/// xorshift64* with a fixed seed: the same numbers in every run.
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

    /// A byte that is allowed in a field value (RFC 9110 section 5.5).
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
struct GoodFields {
    authorization: String,
    dpop: String,
}

impl GoodFields {
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

    fn field_lines(&self) -> Vec<Vec<u8>> {
        vec![
            field_line("Authorization", &self.authorization),
            field_line("DPoP", &self.dpop),
        ]
    }
}

/// Where the token starts in the value of `Authorization`. Mutations start here, because the scheme can be
/// written in several ways.
const TOKEN_START: usize = "DPoP ".len();

fn cases() -> Vec<Case> {
    let mut random = Random(0x9449_0000_2023_0009);
    let mut cases = mutated_bytes(&mut random);
    cases.extend(mutated_tokens(&mut random));
    cases.extend(truncated());
    cases.extend(random_values(&mut random));
    cases.extend(random_jwts(&mut random));
    cases.extend(repeated());
    cases.extend(too_long());
    cases.extend(wrong_types_in_the_proof());
    cases.extend(wrong_types_in_the_token());
    cases.extend(broken_json());
    cases.extend(broken_members());
    cases.extend(invalid_http());
    cases
}

/// A good request with one change, made before it was signed.
fn signed(name: impl Into<String>, change: impl FnOnce(&mut Attempt)) -> Case {
    let good = GoodFields::of(&Attempt::but(change));
    Case::new(name, good.authorization, good.dpop)
}

/// Asserts that the response has no part of the credentials, neither as they were sent (any eleven bytes
/// in a row contain one of the windows) nor decoded.
#[track_caller]
fn assert_no_echo(case: &Case, response: &RawResponse) {
    let text = response.text();
    let contains = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    for decoded in [CANARY, "alice", "jti-", "api.example.com"] {
        assert!(!contains(decoded.as_bytes()), "{}: {decoded}", case.name);
    }
    for line in &case.field_lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        let mut windows = line[colon + 1..].windows(8).step_by(4).take(2000);
        assert!(!windows.any(contains), "{}", case.name);
    }
}

/// Asserts the form that every rejection by the layer has. Returns its `error` and `error_description`.
#[track_caller]
fn assert_rejected_by_the_layer(case: &Case, response: &RawResponse) -> Option<(String, String)> {
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
fn a_malformed_request_gets_a_well_formed_rejection_and_the_connection_stays_usable() {
    block_on(async {
        let mut server = Server::start().await;
        let mut connection = server.connect().await;
        let (mut by_the_layer, mut by_hyper) = (0, 0);
        let mut reasons = BTreeSet::new();
        for case in cases() {
            let name = &case.name;
            let response = connection.send(name, &case.field_lines).await;
            match case.rejected_by {
                RejectedBy::Layer => {
                    reasons.extend(assert_rejected_by_the_layer(&case, &response));
                    by_the_layer += 1;
                }
                RejectedBy::Hyper => {
                    assert_eq!(response.status, 400, "{name}");
                    assert!(response.fields("www-authenticate").is_empty(), "{name}");
                    assert!(connection.is_closed().await, "{name}");
                    connection = server.connect().await;
                    by_hyper += 1;
                }
            }
            let good = connection
                .send(name, &GoodFields::new().field_lines())
                .await;
            assert_eq!(good.status, 200, "after {name}");
            assert_eq!(good.body, b"served", "after {name}");
            assert!(good.fields("www-authenticate").is_empty(), "after {name}");
        }
        assert!(by_the_layer >= 400, "{by_the_layer}");
        // Only the requests of `invalid_http`.
        assert_eq!(by_hyper, 29);
        // The cases fail at many checks, not only at the first one.
        let codes: BTreeSet<_> = reasons.iter().map(|(code, _)| code.as_str()).collect();
        let expected = ["invalid_dpop_proof", "invalid_request", "invalid_token"];
        assert_eq!(codes, expected.into());
        assert!(reasons.len() >= 30, "{reasons:#?}");

        drop(connection);
        while let Some(result) = server.connections.join_next().await {
            if let Err(error) = result.expect("a connection panicked") {
                assert!(error.is_parse(), "{error}");
            }
        }
    });
}
