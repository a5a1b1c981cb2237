//! How long proofs and keys take to read, by others and through this crate's own types.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tower_dpop::Algorithm;
use tower_dpop::jose::Jwk;

use crate::parties::{Client, Parties, proof};
use crate::raw::{Signed, signed};
use crate::results::{Label, Rows, Section};
use crate::timing::{REQUESTS, Row, Subject, measure};

/// What others do with the same proofs.
pub fn section(parties: &Parties, rounds: usize) -> Section {
    let row = |name: &str, note: &str, input, read| {
        Row::new(
            Label::new(name).note(note),
            Reading {
                client: parties.client(Algorithm::Es256),
                input,
                read,
                texts: Vec::new(),
            },
        )
    };
    let rows = vec![
        row(
            "header to a `serde_json::Value`",
            "base64url included",
            Input::Proof,
            |proof| {
                black_box(segment(proof, 0));
            },
        ),
        row(
            "header and payload to `Value`s, signature to bytes",
            "what is decoded by the time that another method is found, above",
            Input::Proof,
            |proof| {
                black_box((segment(proof, 0), segment(proof, 1), bytes(proof, 2)));
            },
        ),
        row(
            "`jsonwebtoken::decode_header`",
            "header only",
            Input::Proof,
            |proof| {
                black_box(jsonwebtoken::decode_header(proof)).expect("a header");
            },
        ),
        row(
            "`Jwk` from JSON",
            "this crate's, checks included",
            Input::Jwk,
            |json| {
                black_box(parse(json));
            },
        ),
        row(
            "`Jwk` from JSON, and its thumbprint",
            "this crate's",
            Input::Jwk,
            |json| {
                black_box(parse(json).thumbprint());
            },
        ),
    ];
    let text = "\
        The same kind of proof, read by others; and its key, read by this crate. 500 in a row, as \
        above.";
    Section::new(
        "Parsing, for comparison",
        text,
        Rows::Micros(measure(rounds, || parties.tick(), rows)),
    )
}

/// Texts that are read.
struct Reading {
    client: Client,
    input: Input,
    read: fn(&str),
    texts: Vec<String>,
}

/// What is read of a proof.
#[derive(Clone, Copy)]
enum Input {
    Proof,
    Jwk,
}

impl Subject for Reading {
    fn prepare(&mut self) -> Vec<Signed> {
        let proofs: Vec<String> = (0..REQUESTS)
            .map(|_| proof(&self.client.head()).to_owned())
            .collect();
        let signed = signed(proofs.iter().map(String::as_str));
        self.texts = match self.input {
            Input::Proof => proofs,
            Input::Jwk => signed.iter().map(|it| it.jwk.to_string()).collect(),
        };
        signed
    }

    fn run(&mut self) {
        for text in &self.texts {
            (self.read)(black_box(text));
        }
    }

    fn runs(&self) -> u16 {
        10
    }
}

fn parse(json: &str) -> Jwk {
    json.parse().expect("the key of a client is good")
}

fn segment(proof: &str, place: usize) -> Value {
    serde_json::from_slice(&bytes(proof, place)).expect("JSON")
}

fn bytes(proof: &str, place: usize) -> Vec<u8> {
    let text = proof.split('.').nth(place).expect("three segments");
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}
