//! The raw verification of the same bytes by several libraries.

use std::hint::black_box;

use aws_lc_rs::signature as aws;
use p256::ecdsa::signature::Verifier as _;
use serde_json::Value;
use tower_dpop::Algorithm;

use crate::parties::{Client, Parties, proof};
use crate::raw::{Signed, member, point, signed};
use crate::results::{Label, Party, Rows, Section};
use crate::timing::{REQUESTS, Row, Subject, measure};

/// ES256, and Ed25519 as far as it is verified here.
pub fn section(parties: &Parties, rounds: usize) -> Section {
    let rows = vec![
        row(
            parties,
            Label::new("ES256: aws-lc-rs, parsed key")
                .note("the yardstick, against itself")
                .charted(Party::Others),
            Algorithm::Es256,
            |jwk| {
                aws::ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point(jwk)).expect("a key")
            },
            |key, it| key.verify_sig(&it.message, &it.signature).is_ok(),
        ),
        row(
            parties,
            Label::new("ES256: aws-lc-rs, unparsed key"),
            Algorithm::Es256,
            |jwk| aws::UnparsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point(jwk)),
            |key, it| key.verify(&it.message, &it.signature).is_ok(),
        ),
        row(
            parties,
            Label::new("ES256: ring").note("unparsed key: it has no other"),
            Algorithm::Es256,
            |jwk| {
                ring::signature::UnparsedPublicKey::new(
                    &ring::signature::ECDSA_P256_SHA256_FIXED,
                    point(jwk),
                )
            },
            |key, it| key.verify(&it.message, &it.signature).is_ok(),
        ),
        row(
            parties,
            Label::new("ES256: p256, parsed key").charted(Party::Others),
            Algorithm::Es256,
            |jwk| p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(jwk)).expect("a key"),
            |key, it| {
                p256::ecdsa::Signature::from_slice(&it.signature)
                    .is_ok_and(|signature| key.verify(&it.message, &signature).is_ok())
            },
        ),
        row(
            parties,
            Label::new("Ed25519: aws-lc-rs, parsed key")
                .note("the yardstick of Ed25519, against itself"),
            Algorithm::Ed25519,
            |jwk| aws::ParsedPublicKey::new(&aws::ED25519, member(jwk, "x")).expect("a key"),
            |key, it| key.verify_sig(&it.message, &it.signature).is_ok(),
        ),
        row(
            parties,
            Label::new("Ed25519: ed25519-dalek, parsed key")
                .note("`verify_strict`, as the engine `rust-crypto` does"),
            Algorithm::Ed25519,
            |jwk| {
                let x = member(jwk, "x").try_into().expect("32 bytes");
                ed25519_dalek::VerifyingKey::from_bytes(&x).expect("a key")
            },
            |key, it| {
                ed25519_dalek::Signature::from_slice(&it.signature)
                    .is_ok_and(|signature| key.verify_strict(&it.message, &signature).is_ok())
            },
        ),
    ];
    let text = "\
        The same bytes by several libraries, one key, without anything of this crate.";
    Section::new(
        "Raw verifications",
        text,
        Rows::Micros(measure(rounds, || parties.tick(), rows)),
    )
}

fn row<'p, K: 'p>(
    parties: &Parties,
    label: Label,
    algorithm: Algorithm,
    parse: fn(&Value) -> K,
    verify: fn(&K, &Signed) -> bool,
) -> Row<'p> {
    let client = parties.client(algorithm);
    let [signed] = &signed([proof(&client.head())])[..] else {
        unreachable!("one proof, one signature")
    };
    let library = Library {
        key: parse(&signed.jwk),
        verify,
        client,
        signed: Vec::new(),
    };
    Row::new(label, library)
}

/// One library and one key.
struct Library<K> {
    key: K,
    verify: fn(&K, &Signed) -> bool,
    client: Client,
    signed: Vec<Signed>,
}

impl<K> Subject for Library<K> {
    fn prepare(&mut self) -> Vec<Signed> {
        let heads: Vec<_> = (0..REQUESTS).map(|_| self.client.head()).collect();
        self.signed = signed(heads.iter().map(proof));
        signed(heads.iter().map(proof))
    }

    fn run(&mut self) {
        for signed in &self.signed {
            assert!(
                black_box((self.verify)(&self.key, black_box(signed))),
                "the signature verifies"
            );
        }
    }
}
