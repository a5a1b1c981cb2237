//! Signers outside this process.

use std::convert::Infallible;
use std::error::Error as _;

use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::client::{ClientError, DpopClientLayer, ProofSigner, TokenClientLayer};
use tower_dpop::jose::{Jwk, SigningError, SigningKey};
use tower_dpop::{Algorithm, DpopLayer};

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, NOW, at, block_on, verifier};

use super::{Kind, Server, bound_to, good, key, now, ok, token, url};

/// A key that is elsewhere: it takes a while, and can fail.
struct Remote {
    key: SigningKey,
    outcome: fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>,
}

impl ProofSigner for Remote {
    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    fn public_key(&self) -> &Jwk {
        self.key.public_key()
    }

    async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SigningError> {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        (self.outcome)(&self.key, input)
    }
}

#[test]
fn a_signer_may_take_its_time_and_must_keep_to_the_form() {
    type Outcome = fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>;
    let rows: [(&str, Algorithm, Outcome, bool); 10] = [
        ("good", Algorithm::Es256, SigningKey::sign_now, true),
        (
            "out of reach",
            Algorithm::Es256,
            |_, _| Err(SigningError::new("timeout")),
            false,
        ),
        ("empty", Algorithm::Es256, |_, _| Ok(Vec::new()), false),
        ("DER", Algorithm::Es256, |_, _| Ok(vec![0x30; 71]), false),
        (
            "DER, ES384",
            Algorithm::Es384,
            |_, _| Ok(vec![0x30; 102]),
            false,
        ),
        (
            "DER, ES512",
            Algorithm::Es512,
            |_, _| Ok(vec![0x30; 139]),
            false,
        ),
        (
            "shorter than any modulus",
            Algorithm::Ps256,
            |_, _| Ok(vec![1; 255]),
            false,
        ),
        (
            "empty, Ed25519",
            Algorithm::Ed25519,
            |_, _| Ok(vec![]),
            false,
        ),
        ("empty, RSA", Algorithm::Ps256, |_, _| Ok(vec![]), false),
        (
            "endless",
            Algorithm::Es384,
            |_, _| Ok(vec![0; 1 << 20]),
            false,
        ),
    ];
    for (name, algorithm, outcome, passes) in rows {
        let key = SigningKey::generate_for(algorithm).unwrap();
        match block_on(good().sign(&Remote { key, outcome }, now())) {
            Ok(proof) => {
                assert!(passes, "{name}: signed");
                ReadProof::of(proof.as_header_value()).assert_signed(name);
            }
            Err(error) => {
                assert!(!passes, "{name}: {error}");
                assert!(error.source().is_some(), "{name}");
            }
        }
    }
}

/// C-28: with a key that never leaves its place; what it cannot sign is not sent.
#[test]
fn a_remote_signer_signs_or_nothing_is_sent() {
    type Row = (
        &'static str,
        fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>,
        bool,
    );
    let rows: [Row; 4] = [
        ("good", SigningKey::sign_now, true),
        (
            "out of reach",
            |_, _| Err(SigningError::new("timeout")),
            false,
        ),
        ("nothing", |_, _| Ok(Vec::new()), false),
        ("DER", |_, _| Ok(vec![0x30; 70]), false),
    ];
    for (name, outcome, passes) in rows {
        let server = Server::new(|_, _| ok());
        let resource = DpopClientLayer::new(
            Remote {
                key: key(),
                outcome,
            },
            token(),
            url(AUDIENCE),
        )
        .layer(server.clone());
        let tokens = TokenClientLayer::new(
            Remote {
                key: key(),
                outcome,
            },
            url(ISSUER),
        )
        .layer(server.clone());
        let outcomes = [
            block_on(resource.oneshot(Kind::Resource.request())).map(|_| ()),
            block_on(tokens.oneshot(Kind::Token.request())).map(|_| ()),
        ];
        for outcome in outcomes {
            match outcome {
                Ok(()) => assert!(passes, "{name}"),
                Err(ClientError::Signing(_)) => assert!(!passes, "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
        assert_eq!(server.count(), if passes { 2 } else { 0 }, "{name}");
        for proof in server.proofs() {
            proof.assert_signed(name);
        }
    }
    // A signature of the right length that is none: the server's rejection is what the caller sees.
    let garbage = Remote {
        key: key(),
        outcome: |_, _| Ok(vec![1; 64]),
    };
    let token = bound_to(&garbage.key);
    let server = DpopLayer::new(verifier()).layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let service = DpopClientLayer::new(garbage, token, url(AUDIENCE))
        .with_clock(|| at(NOW))
        .layer(server);
    let response = block_on(service.oneshot(Kind::Resource.request())).unwrap();
    assert_eq!(response.status(), 401);
}
