//! Makes what a load test sends: an issuer's key, clients with an access token each, and proofs, no
//! two of them alike.
//!
//! ```text
//! proofs FOLDER URL CLIENTS THREADS LINES...
//! proofs FOLDER URL CLIENTS THREADS -
//! ```
//!
//! Writes to the folder:
//!
//! - `jwks.json`: the issuer's key set, for `resource_server --jwks`;
//! - `client.pem`: the first client's public key, for `jwt_verify` of HAProxy;
//! - `tokens.txt`: the access tokens, one a line, the first client's first;
//! - for each number of LINES a set of proofs, shared out among the threads of the load generator:
//!   `SET-THREAD.txt`, both counted from 1, a line for each request: the number of the client, a
//!   space, its proof.
//!
//! With `-` it reads LINES from its standard input, one number a line, so that proofs can be signed just before
//! they are sent. When a set is written, its number is printed.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZero;
use std::path::Path;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// The `iss` of the tokens, with which `run` configures the server.
const ISSUER: &str = "https://as.example.com";
/// Tokens are valid for as long as the server is configured to accept proofs.
const LIFE_SECONDS: u64 = 3600;
/// Lines that are held in memory at a time: some 15 MB.
const LINES_AT_ONCE: usize = 20_000;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, url, clients, threads, sets @ ..] = arguments.as_slice() else {
        return Err("usage: proofs FOLDER URL CLIENTS THREADS LINES...".into());
    };
    let (folder, threads): (_, usize) = (Path::new(folder), threads.parse()?);
    let now = seconds_since_1970()?;

    fs::create_dir_all(folder)?;
    let issuer = Key::generate()?;
    fs::write(folder.join("jwks.json"), issuer.key_set())?;
    let clients = (1..=clients.parse()?)
        .map(|number| Client::new(number, &issuer, url, now))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = clients.first() {
        fs::write(folder.join("client.pem"), first.key.pem()?)?;
    }
    let tokens: String = clients.iter().map(|c| c.token.clone() + "\n").collect();
    fs::write(folder.join("tokens.txt"), tokens)?;

    let write_set = |set: usize, lines: &str| {
        let lines = lines.parse::<usize>()? / threads;
        for thread in 1..=threads {
            let file = File::create(folder.join(format!("{set}-{thread}.txt")))?;
            write_proofs(file, lines, &clients)?;
        }
        Ok::<(), Failure>(())
    };
    if sets == ["-"] {
        for (set, lines) in (1..).zip(io::stdin().lines()) {
            write_set(set, &lines?)?;
            println!("{set}");
        }
    } else {
        for (set, lines) in (1..).zip(sets) {
            write_set(set, lines)?;
        }
    }
    Ok(())
}

fn seconds_since_1970() -> Result<u64, Failure> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Writes this many lines, in which the clients take turns, and signs them on all cores.
fn write_proofs(mut file: File, lines: usize, clients: &[Client]) -> Result<(), Failure> {
    let now = seconds_since_1970()?;
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    for start in (0..lines).step_by(LINES_AT_ONCE) {
        let end = lines.min(start + LINES_AT_ONCE);
        let share = (end - start).div_ceil(workers);
        thread::scope(|scope| {
            let parts: Vec<_> = (start..end)
                .step_by(share)
                .map(|first| {
                    scope.spawn(move || proofs(first, end.min(first + share), clients, now))
                })
                .collect();
            for part in parts {
                file.write_all(&part.join().expect("no part panics")?)?;
            }
            Ok::<(), Failure>(())
        })?;
    }
    Ok(())
}

fn proofs(first: usize, end: usize, clients: &[Client], now: u64) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    for line in first..end {
        let client = &clients[line % clients.len()];
        writeln!(text, "{} {}", client.number, client.proof(now)?)?;
    }
    Ok(text)
}

/// A client with its token, and the parts that all its proofs share.
struct Client {
    number: usize,
    key: Key,
    token: String,
    proof_header: String,
    /// The claims but for `jti` and `iat`, with which they begin.
    proof_claims: String,
}

impl Client {
    fn new(number: usize, issuer: &Key, url: &str, now: u64) -> Result<Self, Failure> {
        let key = Key::generate()?;
        let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
        let token = issuer.sign(
            &base64url(r#"{"typ":"at+jwt","alg":"ES256","kid":"1"}"#),
            &format!(
                r#"{{"iss":"{ISSUER}","aud":"{origin}","sub":"client-{number}","client_id":"client-{number}","scope":"orders.read orders.write","iat":{now},"exp":{},"jti":"{}","cnf":{{"jkt":"{}"}}}}"#,
                now + LIFE_SECONDS,
                identifier()?,
                key.thumbprint(),
            ),
        )?;
        let header = format!(
            r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{}}}"#,
            key.members()
        );
        let proof_claims = format!(r#""htm":"GET","htu":"{url}","ath":"{}"}}"#, sha256(&token));
        Ok(Self {
            number,
            key,
            token,
            proof_header: base64url(header),
            proof_claims,
        })
    }

    fn proof(&self, now: u64) -> Result<String, Failure> {
        let claims = format!(
            r#"{{"jti":"{}","iat":{now},{}"#,
            identifier()?,
            self.proof_claims
        );
        self.key.sign(&self.proof_header, &claims)
    }
}

/// A key for ES256.
struct Key(EcdsaKeyPair);

impl Key {
    fn generate() -> Result<Self, Failure> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Ok(Self(pair.map_err(|_| "no key could be made")?))
    }

    /// The public key as a JWK, in the order in which RFC 7638 hashes it.
    fn members(&self) -> String {
        // SEC 1 section 2.3.3: `04 ‖ x ‖ y`.
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (base64url(x), base64url(y));
        format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
    }

    /// The public key as a `SubjectPublicKeyInfo`.
    fn pem(&self) -> Result<String, Failure> {
        let key: PublicKeyX509Der<'_> = self.0.public_key().as_der()?;
        let key = STANDARD.encode(key.as_ref());
        Ok(format!(
            "-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n"
        ))
    }

    fn thumbprint(&self) -> String {
        sha256(&self.members())
    }

    fn key_set(&self) -> String {
        let members = self.members();
        let members = members.strip_prefix('{').unwrap_or(&members);
        format!(r#"{{"keys":[{{"kid":"1","alg":"ES256","use":"sig",{members}]}}"#)
    }

    /// A JWS in its compact form, of a header that is encoded already.
    fn sign(&self, header: &str, payload: &str) -> Result<String, Failure> {
        let input = format!("{header}.{}", base64url(payload));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes());
        let signature = signature.map_err(|_| "nothing could be signed")?;
        Ok(format!("{input}.{}", base64url(signature)))
    }
}

/// A `jti` like no other.
fn identifier() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("no randomness"))?;
    Ok(base64url(bytes))
}

fn sha256(text: &str) -> String {
    base64url(digest(&SHA256, text.as_bytes()))
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
