//! `Debug`, `tracing` output and responses contain no part of a token, proof, key or nonce. Only the `DPoP-Nonce`
//! field of a response has a nonce: the one that the client needs.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::io;
use std::sync::Once;

use http::{Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_dpop::jose::Jwk;
use tower_dpop::proof::{Epoch, Nonce, NonceSource as _, ReplayKey, UsedProof};
use tower_dpop::resource::{
    MetadataLayer, ProblemDetailsLayer, RequireAuthenticationLayer, RequireLayer, ResourceMetadata,
    ScopeRequirement,
};
use tower_dpop::tokens::{AccessToken, Confirmation, PresentedToken};
use tower_dpop::{
    Claims, DpopLayer, Freshness, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret,
    NonceSecrets, ReplayStore as _, RequireScopesLayer, StatelessNonces, Thumbprint, Timestamp,
};

use common::proofs::assert_shows_nothing;
use common::{
    Attempt, AttemptExt as _, ISSUER_KEY, Key, KeyExt as _, NOW, Outcome, ask, block_on,
    issuer_jwks, jwt_verifier, verifier, verifier_by,
};

/// The parts of an attempt that no output may contain.
fn secrets_of(attempt: &Attempt, nonce: &str) -> Vec<String> {
    let token = attempt.token();
    let jwk = attempt.key.public_jwk();
    let mut secrets = vec![nonce.to_owned(), attempt.key.jkt(), common::ath(&token)];
    secrets.extend(token.split('.').map(str::to_owned));
    for member in ["x", "y", "n"] {
        secrets.extend(jwk[member].as_str().map(str::to_owned));
    }
    // Not the header of the proof, nor the first characters of the other segments: all proofs share them. The
    // key in the header is covered by its members.
    secrets.extend(
        attempt
            .proof(&token)
            .split('.')
            .skip(1)
            .map(|segment| segment.chars().skip(40).collect()),
    );
    secrets.push("marker-jti-marker".into());
    secrets.push("marker-claim-marker".into());
    secrets.push("marker-path-marker".into());
    secrets.push("marker-query-marker".into());
    secrets.push("MARKER-METHOD-MARKER".into());
    secrets
}

/// A good attempt with markers in the proof and the token.
fn marked() -> Attempt {
    Attempt::but(|a| {
        a.proof_claims["jti"] = json!("marker-jti-marker");
        a.token_claims["private"] = json!("marker-claim-marker");
    })
}

#[test]
fn debug_of_every_public_type_shows_no_secret() {
    subscribe();
    let attempt = marked();
    let secret_bytes = [b's'; 32];
    let secret = NonceSecret::from_bytes(&secret_bytes).unwrap();
    let nonces = StatelessNonces::new(secret.clone());
    let nonce: Nonce = nonces.issue(Timestamp::from_unix(NOW), Epoch::UNKNOWN);
    let mut headers = http::HeaderMap::new();
    nonce.write_to(&mut headers);
    let mut secrets = secrets_of(&attempt, headers["dpop-nonce"].to_str().unwrap());
    secrets.push("ssssssss".into());
    secrets.push("115, 115, 115, 115".into());
    let issuer = ISSUER_KEY.public_jwk();
    secrets.extend(["x", "y"].map(|member| issuer[member].as_str().unwrap().to_owned()));

    let token = attempt.token();
    let bound = attempt.outcome().token.unwrap();
    let jwk: Jwk = attempt.key.public_jwk().to_string().parse().unwrap();
    let thumbprint: Thumbprint = jwk.thumbprint();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces.clone())));
    let service = layer.layer(service_fn(async |_: Request<String>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    }));
    let future = service.clone().call(attempt.request());
    let problems = ProblemDetailsLayer::default();
    let mut problem_details = problems.layer(service.clone());
    let problem_future = problem_details.call(attempt.request());
    let metadata = ResourceMetadata::of(&mut verifier());
    let metadata_layer = MetadataLayer::new(&metadata);
    let mut metadata_service = metadata_layer.layer(service.clone());
    let metadata_future = metadata_service.call(attempt.request());
    let scopes = RequireScopesLayer::all_of("orders.read".parse().unwrap());
    let needed = ScopeRequirement::all_of("orders.read".parse().unwrap());
    let login = RequireAuthenticationLayer::by_acr("mfa".parse().unwrap());
    let store = MemoryReplayStore::default();

    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
    show(&PresentedToken::new(&token));
    show(&bound);
    show(bound.claims());
    show(&jwk);
    show(&thumbprint);
    show(&Confirmation::Thumbprint(thumbprint));
    show(&AccessToken::new(
        Confirmation::Thumbprint(thumbprint),
        token.clone(),
    ));
    show(&nonce);
    show(&secret);
    show(&NonceSecrets::from(secret));
    show(&"ssssssss".parse::<NonceSecret>());
    show(&"ssssssss".parse::<NonceSecrets>());
    show(&nonces);
    let key = ReplayKey::from_parts([b's'; 32], [b's'; 16]);
    let now = Timestamp::from_unix(NOW);
    show(&key);
    show(&Epoch::of(&secret_bytes));
    show(&UsedProof::new(key, now, now, store.epoch()));
    show(&store);
    show(&store.usage());
    show(&jwt_verifier());
    show(&issuer_jwks().parse::<KeySet>().unwrap());
    show(&verifier());
    show(&layer);
    show(&service);
    show(&future);
    show(&problems);
    show(&problem_details);
    show(&problem_future);
    show(&metadata);
    show(&metadata_layer);
    show(&metadata_service);
    show(&metadata_future);
    show(&scopes);
    show(&RequireLayer::<_, Claims>::new(needed));
    show(&login);
    show(&Freshness::default());
    show(&tower_dpop::Algorithms::default());
    show(&attempt.outcome().rejection);
    assert!(shown.len() > 1_000, "no output to check");
    assert_shows_nothing("Debug", &shown, &secrets);
}

/// Appends to the log of the current thread.
struct Log;

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sets one subscriber for the whole process. With one per thread, threads without a subscriber could make
/// tracing cache that an event is disabled.
fn subscribe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(|| Log)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// The log of the requests, at every level and from every crate.
fn logged(requests: impl FnOnce()) -> String {
    subscribe();
    LOGGED.take();
    requests();
    String::from_utf8(LOGGED.take()).unwrap()
}

/// What the line of every decision contains, and no other.
const DECISION: &str = " tower_dpop: ";

type Change = fn(&mut Attempt);

/// One change per reason for a rejection. Changed values contain a marker.
fn rejections() -> Vec<(&'static str, Change)> {
    vec![
        ("no token", |a| a.authorization = Some(vec![])),
        ("a Bearer token", |a| {
            a.authorization = Some(vec![format!("Bearer {}", a.token()).parse().unwrap()]);
        }),
        ("two tokens", |a| {
            a.authorization = Some(vec![format!("DPoP {}", a.token()).parse().unwrap(); 2]);
        }),
        ("a malformed Authorization field", |a| {
            a.authorization = Some(vec![format!("DPoP \"{}", a.token()).parse().unwrap()]);
        }),
        ("no proof", |a| a.dpop = Some(vec![])),
        ("a malformed proof", |a| a.edit_proof = |proof| proof + "="),
        ("another alg", |a| {
            a.proof_header["alg"] = json!("marker-claim-marker");
        }),
        ("another typ", |a| {
            a.proof_header["typ"] = json!("marker-claim-marker");
        }),
        ("a private key", |a| {
            a.proof_header["jwk"]["d"] = json!("marker-claim-marker");
        }),
        ("another method", |a| {
            a.proof_claims["htm"] = json!("marker-claim-marker");
        }),
        ("another host", |a| {
            a.proof_claims["htu"] = json!("https://marker-claim-marker/orders");
        }),
        ("another port", |a| {
            a.proof_claims["htu"] = json!("https://api.example.com:8443/orders");
        }),
        ("another path", |a| {
            a.proof_claims["htu"] = json!("https://api.example.com/marker-claim-marker");
        }),
        ("too old", |a| a.proof_claims["iat"] = json!(NOW - 502)),
        ("a proof for another token", |a| {
            a.proof_claims["ath"] = json!("marker-claim-marker");
        }),
        ("a nonce of another server", |a| {
            a.proof_claims["nonce"] = json!("marker-claim-marker");
        }),
        ("another key", |a| a.key = Key::es256()),
        ("another issuer", |a| {
            a.token_claims["iss"] = json!("https://marker-claim-marker");
        }),
        ("another audience", |a| {
            a.token_claims["aud"] = json!("https://marker-claim-marker");
        }),
        ("an unknown kid", |a| {
            a.token_header["kid"] = json!("marker-claim-marker");
        }),
        ("an invented method", |a| {
            a.method = "MARKER-METHOD-MARKER".parse().unwrap();
        }),
        ("an invented path", |a| {
            a.uri = "/marker-path-marker?marker-query-marker".into();
        }),
        ("a path without its prefix", |a| {
            a.uri = "/marker-path-marker/orders".into();
        }),
        ("a request for another server", |a| {
            a.uri = "https://marker-path-marker.example/orders".into();
        }),
        ("a token bound to another key", |a| {
            a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt());
        }),
    ]
}

/// The parts of a request that no output may contain.
fn secrets_in(attempt: &Attempt, request: &Request<String>) -> Vec<String> {
    let mut secrets = secrets_of(attempt, "marker-nonce-marker");
    for field in request.headers().values() {
        let text = String::from_utf8_lossy(field.as_bytes()).into_owned();
        secrets.push(text.chars().skip(30).take(4_000).collect());
    }
    secrets.retain(|secret| secret.len() >= 8);
    secrets
}

/// D21, R-7.1.10: the log has the reason and by how much a value is off, the response has the reason, and neither
/// echoes anything.
#[test]
fn a_rejection_echoes_no_part_of_the_request_in_log_or_response() {
    for nonces in [false, true] {
        for (name, change) in rejections() {
            let layer = DpopLayer::new(verifier_by(|rules| {
                if nonces {
                    rules.with_nonces(StatelessNonces::new(NonceSecret::generate()))
                } else {
                    rules
                }
            }));
            let mut attempt = marked();
            change(&mut attempt);
            let request = attempt.request();
            let mut secrets = secrets_in(&attempt, &request);
            let mut outcome: Option<Outcome> = None;
            let log = logged(|| outcome = Some(ask(&layer, request)));
            let outcome = outcome.unwrap();
            if name == "a nonce of another server" && !nonces {
                outcome.assert_passed(name);
                continue;
            }
            assert!(!outcome.status.is_success(), "{name}");
            let events = log.lines().filter(|line| line.contains(DECISION)).count();
            assert_eq!(events, 1, "{name}: expected one event, not {log}");
            assert!(
                log.contains("request rejected") && log.contains("reason="),
                "{name}: {log}"
            );
            if let Some(nonce) = outcome.nonces.first() {
                secrets.push(nonce.clone());
            }
            assert_shows_nothing(name, &log, &secrets);
            secrets.retain(|secret| !outcome.nonces.contains(secret));
            assert_shows_nothing(
                name,
                &format!("{:?} {:?}", outcome.challenges, outcome.nonces),
                &secrets,
            );
        }
    }
}

/// D21: nor does the body, which does not have the server's nonce either.
#[test]
fn problem_details_echo_no_part_of_the_request() {
    for (name, change) in rejections() {
        let nonces = StatelessNonces::new(NonceSecret::generate());
        let layer = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces)));
        let service = service_fn(async |_: Request<String>| {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        });
        let service = ProblemDetailsLayer::new().layer(layer.layer(service));
        let mut attempt = marked();
        change(&mut attempt);
        let request = attempt.request();
        let mut secrets = secrets_in(&attempt, &request);
        let response = block_on(service.oneshot(request)).unwrap();
        let nonce = response.headers().get("dpop-nonce");
        secrets.extend(nonce.map(|nonce| nonce.to_str().unwrap().to_owned()));
        assert!(response.body().contains(r#""reason":""#), "{name}");
        assert_shows_nothing(name, response.body(), &secrets);
    }
}

/// D21: seconds for a time, the differing part for a URL.
#[test]
fn the_log_says_how_much_a_time_is_off_and_which_part_of_the_url_differs() {
    let rows: [(&str, Change, &str); 4] = [
        (
            "too old",
            |a| a.proof_claims["iat"] = json!(NOW - 502),
            "412 s too old",
        ),
        (
            "ahead",
            |a| a.proof_claims["iat"] = json!(NOW + 100),
            "70 s too far ahead",
        ),
        (
            "the port",
            |a| a.proof_claims["htu"] = json!("https://api.example.com:8443/orders"),
            "the port differs",
        ),
        (
            "the scheme",
            |a| a.proof_claims["htu"] = json!("http://api.example.com/orders"),
            "the scheme differs",
        ),
    ];
    for (name, change, detail) in rows {
        let log = logged(|| drop(Attempt::but(change).outcome()));
        assert!(log.contains(detail), "{name}: {log}");
    }
}

/// An accepted request is logged in one event at `DEBUG`, with scheme, algorithm and clock skew.
#[test]
fn the_log_of_an_accepted_request_echoes_no_part_of_it() {
    type AssertAccepted = fn(&Attempt);
    let rows: [(&str, Change, AssertAccepted, &str); 2] = [
        (
            "a DPoP token",
            |_| {},
            |a| a.outcome().assert_passed("good"),
            r#"scheme="dpop" algorithm=ES256 skew_seconds=0"#,
        ),
        (
            "a Bearer token",
            |a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
                a.authorization = Some(vec![format!("Bearer {}", a.token()).parse().unwrap()]);
            },
            |a| {
                let outcome = a.outcome_by(&DpopLayer::new(verifier().allow_bearer()));
                outcome.kit.assert_passed("good");
            },
            r#"scheme="bearer""#,
        ),
    ];
    for (name, change, assert_accepted, expected) in rows {
        let mut attempt = marked();
        change(&mut attempt);
        let secrets = secrets_of(&attempt, "marker-nonce-marker");
        let log = logged(|| assert_accepted(&attempt));
        let events = log.lines().filter(|line| line.contains(DECISION));
        assert_eq!(events.count(), 1, "{name}: {log}");
        assert!(
            log.contains("DEBUG") && log.contains(expected),
            "{name}: {log}"
        );
        assert_shows_nothing(name, &log, &secrets);
    }
}

#[test]
fn a_jwt_verifier_is_debug_with_any_claims_type() {
    fn is_debug<T: Debug>(_: &T) {}
    is_debug(&jwt_verifier().with_claims::<Value>());
    is_debug::<JwtVerifier<KeySet>>(&jwt_verifier());
}
