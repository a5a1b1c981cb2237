//! One request through `Verifier::verify`, beside the raw verification of the same signature by
//! AWS-LC in the same run.
//!
//! ```text
//! cargo bench --bench verify                                             # engine aws-lc-rs
//! cargo bench --bench verify --no-default-features --features rust-crypto
//! ```
//!
//! First a table of ratios, then divan's absolute times. Ratios are what to read: each is the
//! median over rounds that measure both sides in turn, a fraction of a millisecond apart, because
//! on a shared machine the speed of one minute is not that of the next. Access tokens are not
//! verified here (a verifier that knows the token stands in for a cache), so what remains is the
//! proof's cost.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use http::request::Parts;
use serde_json::{Value, json};
use tower_dpop::credentials::PresentedToken;
use tower_dpop::freshness::Timestamp;
use tower_dpop::jose::jwk::Thumbprint;
use tower_dpop::token::{AccessToken, AccessTokenVerifier, Confirmation, TokenError};
use tower_dpop::{Algorithms, MemoryReplayStore, NonceSecret, StatelessNonces, Verifier};

use common::{AUDIENCE, Attempt, AttemptExt as _, Key, KeyExt as _, NOW, at, fresh_jti};

/// Requests of one round, each with a `jti` of its own.
const REQUESTS: usize = 50;
const ROUNDS: usize = 101;

/// Knows every token, as a cache would.
struct KnownToken(Thumbprint);

impl AccessTokenVerifier for KnownToken {
    type Claims = ();

    async fn verify(
        &self,
        _token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<()>, TokenError> {
        Ok(AccessToken::new(Confirmation::Thumbprint(self.0), ()))
    }
}

type Subject = Verifier<KnownToken>;

fn subject(key: &Key) -> Subject {
    let every: Algorithms = "ES256 ES384 ES512 PS256 PS384 PS512 Ed25519 EdDSA RS256 RS384 RS512"
        .parse()
        .unwrap();
    let tokens = KnownToken(key.thumbprint());
    Verifier::new(AUDIENCE.parse().unwrap(), tokens)
        .with_algorithms(every)
        .with_clock(|| at(NOW))
}

/// Nothing here waits for anything.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("neither the store nor the token verifier waits"),
    }
}

/// Requests that pass, each once.
struct Round {
    heads: Vec<Parts>,
    /// The same proofs, as a library for signatures wants them.
    signed: Vec<(Vec<u8>, Vec<u8>)>,
}

fn round(key: &Key, requests: usize) -> Round {
    let mut attempt = Attempt::with_key(key.clone());
    attempt.token = Some(attempt.token());
    let heads: Vec<Parts> = (0..requests)
        .map(|_| {
            attempt.proof_claims["jti"] = json!(fresh_jti());
            attempt.request().into_parts().0
        })
        .collect();
    let signed = heads
        .iter()
        .map(|head| {
            let (input, signature) = head.headers["dpop"]
                .to_str()
                .unwrap()
                .rsplit_once('.')
                .unwrap();
            (
                input.as_bytes().to_vec(),
                URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
        })
        .collect();
    Round { heads, signed }
}

fn raw_key(key: &Key) -> ParsedPublicKey {
    let jwk = key.public_jwk();
    let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = || [vec![4], member("x"), member("y")].concat();
    match key.alg() {
        "ES256" => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point()),
        "ES384" => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point()),
        "Ed25519" => ParsedPublicKey::new(&signature::ED25519, member("x")),
        "PS256" => PublicKeyComponents {
            n: member("n"),
            e: member("e"),
        }
        .to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256),
        "RS256" => PublicKeyComponents {
            n: member("n"),
            e: member("e"),
        }
        .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256),
        alg => panic!("{alg} is not measured"),
    }
    .unwrap()
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("a number"));
    values[values.len() / 2]
}

fn pass(verifier: &Subject, heads: &[Parts]) {
    for head in heads {
        black_box(now(verifier.verify(head)).expect("the request passes"));
    }
}

fn raw(key: &ParsedPublicKey, signed: &[(Vec<u8>, Vec<u8>)]) {
    for (message, signature) in signed {
        black_box(key.verify_sig(message, signature)).unwrap();
    }
}

fn micros(time: Duration, requests: usize) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(u32::try_from(requests).unwrap())
}

fn print_ratios() {
    println!(
        "engine: {}",
        if cfg!(feature = "aws-lc-rs") {
            "aws-lc-rs"
        } else {
            "rust-crypto"
        }
    );
    println!(
        "{:<9} {:>12} {:>14} {:>16} {:>16}",
        "alg", "raw, µs", "request, µs", "ratio, known key", "ratio, new key"
    );
    for key in [
        Key::es256(),
        Key::es384(),
        Key::ed25519("Ed25519"),
        Key::rsa("PS256"),
        Key::rsa("RS256"),
    ] {
        let parsed = raw_key(&key);
        // One memory for all rounds: a new one would measure how it grows.
        let replays = MemoryReplayStore::default();
        let known = subject(&key).with_replay_store(replays.clone());
        let mut samples = Vec::new();
        for _ in 0..ROUNDS {
            let Round { heads, signed } = round(&key, REQUESTS);
            let fresh = round(&key, REQUESTS).heads;
            pass(&known, &round(&key, 1).heads);
            let raw_time = timed(|| raw(&parsed, &signed));
            let known_time = timed(|| pass(&known, &heads));
            // A verifier that has not seen the key parses it.
            let unknown: Vec<Subject> = fresh
                .iter()
                .map(|_| subject(&key).with_replay_store(replays.clone()))
                .collect();
            let new_time = timed(|| {
                for (verifier, head) in unknown.iter().zip(&fresh) {
                    black_box(now(verifier.verify(head)).expect("the request passes"));
                }
            });
            samples.push((raw_time, known_time, new_time));
        }
        let ratio = |part: fn(&(Duration, Duration, Duration)) -> f64| {
            median(samples.iter().map(part).collect())
        };
        println!(
            "{:<9} {:>12.1} {:>14.1} {:>16.3} {:>16.3}",
            key.alg(),
            micros(
                median(samples.iter().map(|sample| sample.0).collect()),
                REQUESTS
            ),
            micros(
                median(samples.iter().map(|sample| sample.1).collect()),
                REQUESTS
            ),
            ratio(|(raw, known, _)| known.as_secs_f64() / raw.as_secs_f64()),
            ratio(|(raw, _, new)| new.as_secs_f64() / raw.as_secs_f64()),
        );
    }
    print_refusals();
}

/// Requests that are refused before any signature is looked at, one for each kind of check.
fn refusals() -> Vec<(&'static str, Attempt)> {
    type Change = fn(&mut Attempt);
    let changes: Vec<(&str, Change)> = vec![
        ("no token", |a| a.authorization = Some(vec![])),
        ("no proof", |a| a.dpop = Some(vec![])),
        ("not a JWT", |a| a.dpop = Some(vec!["x".parse().unwrap()])),
        ("typ", |a| a.proof_header["typ"] = json!("JWT")),
        ("alg", |a| a.proof_header["alg"] = json!("none")),
        ("private jwk", |a| a.proof_header["jwk"]["d"] = json!("AA")),
        ("htm", |a| a.proof_claims["htm"] = json!("POST")),
        ("htu", |a| {
            a.proof_claims["htu"] = json!("https://api.example.com/other");
        }),
        ("iat", |a| a.proof_claims["iat"] = json!(NOW - 91)),
        ("ath", |a| {
            a.proof_claims["ath"] = json!(common::ath("another"));
        }),
        ("jkt", |a| {
            let other = Key::es256();
            a.proof_header["jwk"] = other.public_jwk();
            a.key = other;
        }),
        ("nonce", |a| {
            a.proof_claims["nonce"] = Value::from("foreign");
        }),
    ];
    changes
        .into_iter()
        .map(|(name, change)| (name, Attempt::but(change)))
        .collect()
}

fn refusing_subject() -> Subject {
    subject(&common::keys::client()).with_nonces(StatelessNonces::new(NonceSecret::generate()))
}

fn print_refusals() {
    let verifier = refusing_subject();
    println!(
        "\n{:<12} {:>12} {:>24}",
        "refused for", "µs", "of one raw ES256 verify"
    );
    let key = Key::es256();
    let (parsed, signed) = (raw_key(&key), round(&key, REQUESTS).signed);
    for (name, attempt) in refusals() {
        let head = attempt.request().into_parts().0;
        assert!(now(verifier.verify(&head)).is_err(), "{name} is refused");
        let samples: Vec<(Duration, Duration)> = (0..ROUNDS)
            .map(|_| {
                let raw_time = timed(|| raw(&parsed, &signed));
                let refused = timed(|| {
                    for _ in 0..REQUESTS {
                        black_box(now(verifier.verify(black_box(&head)))).expect_err("refused");
                    }
                });
                (raw_time, refused)
            })
            .collect();
        println!(
            "{name:<12} {:>12.2} {:>24.3}",
            micros(
                median(samples.iter().map(|sample| sample.1).collect()),
                REQUESTS
            ),
            median(
                samples
                    .iter()
                    .map(|(raw, refused)| refused.as_secs_f64() / raw.as_secs_f64())
                    .collect()
            ),
        );
    }
    println!();
}

#[divan::bench(args = ["ES256", "ES384", "Ed25519", "PS256", "RS256"])]
fn request(bencher: Bencher<'_, '_>, alg: &str) {
    let key = key(alg);
    let verifier = subject(&key);
    bencher
        .with_inputs(|| round(&key, 1).heads.remove(0))
        .bench_values(|head| now(verifier.verify(&head)).expect("the request passes"));
}

#[divan::bench(args = ["ES256", "ES384", "Ed25519", "PS256", "RS256"])]
fn raw_signature(bencher: Bencher<'_, '_>, alg: &str) {
    let key = key(alg);
    let parsed = raw_key(&key);
    let (message, signature) = round(&key, 1).signed.remove(0);
    bencher.bench(|| parsed.verify_sig(&message, &signature));
}

fn key(alg: &str) -> Key {
    match alg {
        "ES256" => Key::es256(),
        "ES384" => Key::es384(),
        "Ed25519" => Key::ed25519("Ed25519"),
        "PS256" => Key::rsa("PS256"),
        "RS256" => Key::rsa("RS256"),
        alg => panic!("{alg} is not measured"),
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratios();
    }
    divan::main();
}
