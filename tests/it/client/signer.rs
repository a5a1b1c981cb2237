//! Signers other than a key of this process.

use std::convert::Infallible;
use std::error::Error as _;

use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::client::{ClientError, DpopClientLayer, ProofSigner, TokenClientLayer};
use tower_dpop::jose::{Jwk, SigningError, SigningKey};
use tower_dpop::{Algorithm, DpopLayer};

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, NOW, at, block_on, verifier};

use super::{MockServer, ServerKind, key, now, ok, orders_proof, token, token_bound_to, url};

type SignFn = fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>;

/// A signer that returns after a delay, like a key management service. `sign` makes the result.
struct RemoteSigner {
    key: SigningKey,
    sign: SignFn,
}

impl ProofSigner for RemoteSigner {
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
        (self.sign)(&self.key, input)
    }
}

#[test]
fn rejects_signatures_of_the_wrong_length() {
    let rows: [(&str, Algorithm, SignFn, bool); 10] = [
        ("valid", Algorithm::Es256, SigningKey::sign_now, true),
        (
            "unreachable",
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
            "1 MiB",
            Algorithm::Es384,
            |_, _| Ok(vec![0; 1 << 20]),
            false,
        ),
    ];
    for (name, algorithm, sign, passes) in rows {
        let key = SigningKey::generate_for(algorithm).unwrap();
        match block_on(orders_proof().sign(&RemoteSigner { key, sign }, now())) {
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

/// C-28: with a key that this process cannot read.
#[test]
fn sends_nothing_if_the_signer_fails() {
    let rows: [(&str, SignFn, bool); 4] = [
        ("valid", SigningKey::sign_now, true),
        (
            "unreachable",
            |_, _| Err(SigningError::new("timeout")),
            false,
        ),
        ("empty", |_, _| Ok(Vec::new()), false),
        ("DER", |_, _| Ok(vec![0x30; 70]), false),
    ];
    for (name, sign, passes) in rows {
        let server = MockServer::new(|_, _| ok());
        let resource =
            DpopClientLayer::new(RemoteSigner { key: key(), sign }, token(), url(AUDIENCE))
                .layer(server.clone());
        let tokens = TokenClientLayer::new(RemoteSigner { key: key(), sign }, url(ISSUER))
            .layer(server.clone());
        let results = [
            block_on(resource.oneshot(ServerKind::Resource.request())).map(|_| ()),
            block_on(tokens.oneshot(ServerKind::Token.request())).map(|_| ()),
        ];
        for result in results {
            match result {
                Ok(()) => assert!(passes, "{name}"),
                Err(ClientError::Signing(_)) => assert!(!passes, "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
        assert_eq!(server.request_count(), if passes { 2 } else { 0 }, "{name}");
        for proof in server.proofs() {
            proof.assert_signed(name);
        }
    }
    // The layer does not verify signatures. The caller gets the server's rejection.
    let signer = RemoteSigner {
        key: key(),
        sign: |_, _| Ok(vec![1; 64]),
    };
    let token = token_bound_to(&signer.key);
    let server = DpopLayer::new(verifier()).layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let service = DpopClientLayer::new(signer, token, url(AUDIENCE))
        .with_clock(|| at(NOW))
        .layer(server);
    let response = block_on(service.oneshot(ServerKind::Resource.request())).unwrap();
    assert_eq!(response.status(), 401);
}
