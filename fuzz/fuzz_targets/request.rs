//! Any head of a request, mostly a valid one with changes: no panic, and only the request that the client
//! signed passes, once.
#![no_main]

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tower_dpop::proof::{Claim, Epoch, ProofError, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::testing::{TestClient, TestClock, TestIssuer};
use tower_dpop::{ProofRules, Rejection, ReplayStore, Verifier};

#[path = "shared/mod.rs"]
mod shared;

const NOW: u64 = 1_700_000_000;
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// A change of the valid request.
#[derive(Arbitrary, Debug)]
enum Change<'a> {
    Method(&'a [u8]),
    Uri(&'a [u8]),
    /// One field more, or another in its place.
    Field {
        dpop: bool,
        instead: bool,
        value: &'a [u8],
    },
    /// Some bytes of a field replaced.
    Bytes {
        dpop: bool,
        at: u16,
        length: u8,
        by: &'a [u8],
    },
    /// Some bytes of a segment of the proof or the token replaced, before the segment is base64url-encoded.
    Inside {
        dpop: bool,
        segment: u8,
        at: u16,
        length: u8,
        by: &'a [u8],
    },
    /// Any other field.
    Other(&'a [u8], &'a [u8]),
}

struct Server {
    verifier: Verifier,
    store: Store,
    good: Parts,
}

/// With one client key that has a table of multiples, and one valid request signed with it.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let issuer = TestIssuer::new("https://as.example.com", "https://api.example.com")
        .with_key("issuer", shared::p256_key(&[1; 32]))
        .with_clock(TestClock::at(NOW));
    let store = Store::default();
    let verifier = Verifier::new(
        ProofRules::new("https://api.example.com".parse().expect("a URL"))
            .with_clock(|| UNIX_EPOCH + Duration::from_secs(NOW))
            .with_replay_store(store.clone()),
        issuer.jwt_verifier(),
    );
    let client = TestClient::new(&issuer).with_key(shared::p256_key(&[2; 32]));
    let request = client.request(Method::GET, "https://api.example.com/orders/1");
    for _ in 0..20 {
        let (parts, ()) = request.again().build().into_parts();
        assert!(accepts(&verifier, &parts).is_ok(), "a good request");
    }
    let mut request = request;
    request.proof_claims["jti"] = "a fixed one".into();
    let (good, ()) = Request::<()>::into_parts(request.build());
    Server {
        verifier,
        store,
        good,
    }
});

fuzz_target!(|changes: Vec<Change<'_>>| {
    let server = &*SERVER;
    server.store.clear();
    let mut parts = server.good.clone();
    for change in &changes {
        apply(change, &mut parts);
    }
    let first = accepts(&server.verifier, &parts);
    if first.is_ok() {
        assert_is_the_good_one(&parts, &server.good);
        let again = accepts(&server.verifier, &parts);
        assert_eq!(again, Err(ProofError::Replayed.into()));
    } else {
        // A rejected request has used up no `jti`.
        let good = accepts(&server.verifier, &server.good);
        assert_eq!(good, Ok(()), "the good request after {first:?}");
    }
    let good = accepts(&server.verifier, &server.good);
    assert_eq!(good, Err(ProofError::Replayed.into()));
});

/// What is signed is the same: the token, the proof, the method and the path.
fn assert_is_the_good_one(parts: &Parts, good: &Parts) {
    let field = |parts: &Parts, name| -> Vec<u8> {
        let mut fields = parts.headers.get_all(name).iter();
        let field = fields.next().expect("one field");
        assert_eq!(fields.next(), None);
        field.as_bytes().trim_ascii().to_owned()
    };
    assert_eq!(field(parts, DPOP), field(good, DPOP));
    let token = |parts| {
        let field = field(parts, AUTHORIZATION);
        let (scheme, token) = field.split_at_checked(4).expect("a scheme");
        assert!(scheme.eq_ignore_ascii_case(b"DPoP"));
        token.trim_ascii().to_owned()
    };
    assert_eq!(token(parts), token(good));
    assert_eq!(parts.method, good.method);
    assert_eq!(decoded(parts.uri.path()), good.uri.path());
}

/// A path without its percent-encoding.
fn decoded(path: &str) -> String {
    let mut rest = path;
    let mut decoded = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits = after.get(..2).expect("two digits");
        decoded.push(u8::from_str_radix(digits, 16).expect("two digits").into());
        rest = &after[2..];
    }
    decoded + rest
}

fn apply(change: &Change<'_>, parts: &mut Parts) {
    match *change {
        Change::Method(method) => {
            if let Ok(method) = Method::from_bytes(method) {
                parts.method = method;
            }
        }
        Change::Uri(uri) => {
            if let Ok(uri) = Uri::try_from(uri) {
                parts.uri = uri;
            }
        }
        Change::Field {
            dpop,
            instead,
            value,
        } => {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                if instead {
                    parts.headers.insert(name(dpop), value);
                } else {
                    parts.headers.append(name(dpop), value);
                }
            }
        }
        Change::Bytes {
            dpop,
            at,
            length,
            by,
        } => edit(&mut parts.headers, name(dpop), |mut field| {
            splice(&mut field, at, length, by);
            field
        }),
        Change::Inside {
            dpop,
            segment,
            at,
            length,
            by,
        } => edit(&mut parts.headers, name(dpop), |field| {
            let start = if dpop { 0 } else { 5 };
            let (scheme, jws) = field.split_at(start.min(field.len()));
            let mut segments: Vec<Vec<u8>> = jws
                .split(|byte| *byte == b'.')
                .map(<[u8]>::to_vec)
                .collect();
            let segment = usize::from(segment) % segments.len();
            if let Ok(mut bytes) = URL_SAFE_NO_PAD.decode(&segments[segment]) {
                splice(&mut bytes, at, length, by);
                segments[segment] = URL_SAFE_NO_PAD.encode(bytes).into_bytes();
            }
            [scheme, &segments.join(&b'.')].concat()
        }),
        Change::Other(name, value) => {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                parts.headers.append(name, value);
            }
        }
    }
}

const fn name(dpop: bool) -> HeaderName {
    if dpop { DPOP } else { AUTHORIZATION }
}

fn edit(headers: &mut HeaderMap, name: HeaderName, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    if let Some(field) = headers.get(&name)
        && let Ok(edited) = HeaderValue::from_bytes(&edit(field.as_bytes().to_owned()))
    {
        headers.insert(name, edited);
    }
}

fn splice(bytes: &mut Vec<u8>, at: u16, length: u8, by: &[u8]) {
    let start = usize::from(at) % (bytes.len() + 1);
    let end = bytes.len().min(start + usize::from(length));
    bytes.splice(start..end, by.iter().copied());
}

/// Nothing here waits for anything.
fn accepts(verifier: &Verifier, parts: &Parts) -> Result<(), Rejection> {
    shared::at_once(verifier.verify(parts)).map(drop)
}

/// A store that can be emptied, so that each input meets an empty one.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<HashSet<ReplayKey>>>);

impl Store {
    fn clear(&self) {
        self.0.lock().expect("one thread").clear();
    }
}

impl ReplayStore for Store {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        Ok(if self.0.lock().expect("one thread").insert(proof.key) {
            Claim::First
        } else {
            Claim::Replayed
        })
    }

    fn epoch(&self) -> Epoch {
        Epoch::UNKNOWN
    }
}
