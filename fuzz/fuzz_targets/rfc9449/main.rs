//! Requests with proofs that are changed and then signed: `Verifier` accepts exactly those that a second implementation
//! of RFC 9449 accepts and no stricter rule of the crate rejects. A rejection reports what the second implementation
//! found.
#![no_main]

mod attempt;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tower_dpop::proof::{Claim, Epoch, NonceSource as _, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{
    NonceSecret, ProofRules, Rejection, ReplayStore, StatelessNonces, Timestamp, Verifier,
};
use tower_dpop_fuzz::rfc9449::{Class, Identity, NONCE_PERIOD, Request, Server, Token, judge};

use crate::attempt::{Attempt, known_token};

pub(crate) const NOW: u64 = 1_700_000_050;

/// Which server gets the requests.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Which {
    WithNonces,
    WithoutNonces,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    which: Which,
    first: Attempt<'a>,
    /// Sent after the first, in this order, to the same server.
    others: Option<[Attempt<'a>; 2]>,
}

/// A server, and what the second implementation must know about it.
struct Tested {
    verifier: Verifier<()>,
    store: Store,
    port: u32,
    nonces: Vec<(String, u64)>,
}

static WITHOUT_NONCES: LazyLock<Tested> = LazyLock::new(|| {
    let (rules, store) = rules("https://api.example.com");
    Tested {
        verifier: Verifier::new(rules, Tokens),
        store,
        port: 443,
        nonces: Vec::new(),
    }
});

static WITH_NONCES: LazyLock<Tested> = LazyLock::new(|| {
    let (rules, store) = rules("https://api.example.com:8443");
    let source = StatelessNonces::new(NonceSecret::from_bytes(&[7; 32]).expect("32 bytes"));
    // A new one, some at both ends of the lifetime, and some from the future.
    let ages = [
        0,
        1,
        NONCE_PERIOD,
        2 * NONCE_PERIOD - 1,
        2 * NONCE_PERIOD,
        9_999,
    ];
    let past = ages.map(|age| NOW - age);
    let times = past.into_iter().chain([NOW + 30, NOW + 31]);
    let nonce = |issued| {
        source
            .issue(Timestamp::from_unix(issued), EPOCH)
            .as_str()
            .to_owned()
    };
    let nonces = times.map(|issued| (nonce(issued), issued)).collect();
    Tested {
        verifier: Verifier::new(rules.with_nonces(source), Tokens),
        store,
        port: 8443,
        nonces,
    }
});

fn rules(url: &str) -> (ProofRules, Store) {
    let store = Store::default();
    let rules = ProofRules::new(url.parse().expect("a URL"))
        .with_clock(|| UNIX_EPOCH + Duration::from_secs(NOW))
        .with_replay_store(store.clone());
    (rules, store)
}

fuzz_target!(|input: Input<'_>| {
    let tested = match input.which {
        Which::WithNonces => &*WITH_NONCES,
        Which::WithoutNonces => &*WITHOUT_NONCES,
    };
    tested.store.clear();
    let mut used = HashSet::new();
    compare(tested, &input.first, &mut used);
    for attempt in input.others.iter().flatten() {
        compare(tested, attempt, &mut used);
    }
});

/// Sends a request to both implementations, twice.
fn compare(tested: &Tested, attempt: &Attempt<'_>, used: &mut HashSet<Identity>) {
    let Some(parts) = attempt.request(tested.port, &tested.nonces) else {
        return;
    };
    let target = parts.uri.to_string();
    let fields = |name| {
        let fields = parts.headers.get_all(name).iter();
        fields.map(|value| value.as_bytes()).collect::<Vec<_>>()
    };
    let request = Request {
        method: parts.method.as_str(),
        target: &target,
        authorization: fields("authorization"),
        dpop: fields("dpop"),
    };
    for again in [false, true] {
        let server = Server {
            host: "api.example.com",
            port: tested.port,
            now: NOW,
            nonces: matches!(tested.port, 8443).then_some(&tested.nonces),
            token: &known_token,
            used,
        };
        let judgement = judge(&request, &server);
        let decision = decide(&tested.verifier, &parts);
        match &decision {
            Ok(()) => assert!(judgement.accepts(), "accepted: {parts:?}: {judgement:?}"),
            Err(rejection) => {
                let class = class(rejection);
                let explained = judgement.explains(class);
                assert!(
                    explained,
                    "{again}: {rejection:?}: {parts:?}: {judgement:?}"
                );
            }
        }
        if decision.is_ok() {
            used.insert(judgement.identity.expect("an accepted proof has one"));
        }
    }
}

fn class(rejection: &Rejection) -> Class {
    match rejection.error_code() {
        None => Class::NoCode,
        Some("invalid_request") => Class::InvalidRequest,
        Some("invalid_token") => Class::InvalidToken,
        Some("invalid_dpop_proof") => Class::InvalidDpopProof,
        Some("use_dpop_nonce") => Class::UseDpopNonce,
        Some(other) => panic!("{other}"),
    }
}

/// Nothing here waits for anything.
fn decide(verifier: &Verifier<()>, parts: &http::request::Parts) -> Result<(), Rejection> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(verifier.verify(parts)).poll(&mut context) {
        Poll::Ready(result) => result.map(drop),
        Poll::Pending => panic!("a result in memory has to wait"),
    }
}

/// Opaque tokens, which both know.
struct Tokens;

impl AccessTokenVerifier for Tokens {
    type Claims = ();

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<()>, TokenError> {
        let confirmation = match known_token(token.as_str()) {
            Token::BoundTo(jkt) => Confirmation::Thumbprint(jkt.parse().expect("a thumbprint")),
            Token::Unbound => Confirmation::Unbound,
            Token::Invalid => return Err(TokenError::Invalid),
        };
        Ok(AccessToken::new(confirmation, ()))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// A store that can be emptied, so that each input meets an empty one.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<HashSet<ReplayKey>>>);

const EPOCH: Epoch = Epoch::UNKNOWN;

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
        EPOCH
    }
}
