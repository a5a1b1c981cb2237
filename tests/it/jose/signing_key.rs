//! Signing keys: generation, algorithms and signatures.

use std::error::Error as _;
use std::fmt::Debug;

use common::proofs::assert_shows_nothing;
use common::{Key, KeyExt as _};
use tower_dpop::Algorithm;
use tower_dpop::client::ProofSigner;
use tower_dpop::jose::{Jwk, SigningError, SigningKey, SigningKeyError};

use super::keys::{ALGORITHMS, MESSAGE, RFC_7515, assert_signs, private_jwk};
use crate::proof::decode_base64url;

fn key_for(algorithm: Algorithm) -> SigningKey {
    match Key::rsa("PS256").with_algorithm(algorithm) {
        Ok(key) => key,
        Err(_) => SigningKey::generate_for(algorithm).unwrap(),
    }
}

#[test]
fn a_key_of_every_algorithm_signs_and_survives_an_export() {
    for algorithm in ALGORITHMS {
        let name = algorithm.name();
        let key = key_for(algorithm);
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.thumbprint(), key.public_key().thumbprint(), "{name}");
        assert_signs(name, &key, key.public_key());

        let from_jwk = SigningKey::from_jwk(key.to_jwk().unwrap().as_str()).unwrap();
        assert_eq!(from_jwk.algorithm(), algorithm, "from the alg of the JWK");
        let from_der = SigningKey::from_pkcs8_der(key.to_pkcs8_der().unwrap().as_bytes()).unwrap();
        let from_pem = SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
        for (form, read) in [("JWK", from_jwk), ("DER", from_der), ("PEM", from_pem)] {
            let name = format!("{name}: {form}");
            assert_eq!(read.thumbprint(), key.thumbprint(), "{name}");
            let read = read.with_algorithm(algorithm).unwrap();
            assert_signs(&name, &read, key.public_key());
            assert_eq!(private_jwk(&read), private_jwk(&key), "{name}");
        }
    }
}

#[test]
fn every_generated_key_is_different() {
    for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
        let [one, other] = [(); 2].map(|()| SigningKey::generate_for(algorithm).unwrap());
        assert_ne!(one.thumbprint(), other.thumbprint(), "{algorithm}");
    }
    assert_eq!(
        SigningKey::generate().unwrap().algorithm(),
        Algorithm::Es256
    );
    let n = decode_base64url(private_jwk(&Key::rsa("PS256"))["n"].as_str().unwrap());
    assert_eq!((n.len(), n[0] >> 7), (256, 1), "2048 bits");
}

#[test]
fn with_algorithm_requires_an_algorithm_for_the_same_type_of_key() {
    for (from, to, fits) in [
        (Algorithm::Es256, Algorithm::Es256, true),
        (Algorithm::Es256, Algorithm::Es384, false),
        (Algorithm::Es256, Algorithm::Ed25519, false),
        (Algorithm::Es512, Algorithm::Es384, false),
        (Algorithm::Ed25519, Algorithm::EdDsa, true),
        (Algorithm::EdDsa, Algorithm::Rs256, false),
        (Algorithm::Ps256, Algorithm::Rs512, true),
        (Algorithm::Rs256, Algorithm::Ps384, true),
        (Algorithm::Rs256, Algorithm::Es256, false),
    ] {
        let key = key_for(from);
        let thumbprint = key.thumbprint();
        match key.with_algorithm(to) {
            Ok(key) => {
                assert!(fits, "{from} to {to}");
                assert_eq!((key.algorithm(), key.thumbprint()), (to, thumbprint));
                assert_signs(to.name(), &key, key.public_key());
            }
            Err(error) => {
                assert!(!fits, "{from} to {to}");
                assert_eq!(error, SigningKeyError::Algorithm);
            }
        }
    }
}

/// C-18
#[test]
fn picks_an_algorithm_from_the_servers_list() {
    for (algs, expected) in [
        ("RS256 foo ES256", Ok(Algorithm::Es256)),
        ("ES384", Ok(Algorithm::Es384)),
        ("ES512 ES384 none", Ok(Algorithm::Es384)),
        (" EdDSA  ES384 ", Ok(Algorithm::EdDsa)),
        ("EdDSA Ed25519", Ok(Algorithm::Ed25519)),
        ("none HS256 foo", Err(SigningKeyError::NoCommonAlgorithm)),
        ("es256", Err(SigningKeyError::NoCommonAlgorithm)),
        ("ES256,ES384", Err(SigningKeyError::NoCommonAlgorithm)),
        ("", Err(SigningKeyError::NoCommonAlgorithm)),
    ] {
        let picked = SigningKey::generate_for_one_of(algs).map(|key| key.algorithm());
        assert_eq!(picked, expected, "{algs:?}");
    }
}

/// C-28: the key of a signer can stay outside of this process.
#[tokio::test]
async fn a_remote_signer_works_like_a_local_key() {
    /// Signs asynchronously, as a remote key does.
    struct Remote(SigningKey);

    impl ProofSigner for Remote {
        fn algorithm(&self) -> Algorithm {
            self.0.algorithm()
        }

        fn public_key(&self) -> &Jwk {
            self.0.public_key()
        }

        async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SigningError> {
            tokio::task::yield_now().await;
            self.0.sign_now(signing_input)
        }
    }

    async fn verifies(signer: impl ProofSigner) -> bool {
        let signature = signer.sign(MESSAGE).await.unwrap();
        signer
            .public_key()
            .verify(signer.algorithm(), MESSAGE, &signature)
            .is_ok()
    }

    let key = SigningKey::generate().unwrap();
    let clone = key.clone();
    assert!(verifies(key).await);
    // In a task, after the other clone was dropped.
    let task = tokio::spawn(verifies(Remote(clone)));
    assert!(task.await.unwrap());
}

#[test]
fn a_signing_error_keeps_its_source() {
    let error = SigningError::new(std::io::Error::other("the HSM is gone"));
    assert_eq!(error.to_string(), "the key could not sign");
    assert_eq!(error.source().unwrap().to_string(), "the HSM is gone");
    assert_eq!(
        SigningError::new("text").source().unwrap().to_string(),
        "text"
    );
}

#[test]
fn debug_output_and_errors_show_no_key() {
    fn shown(values: &[&dyn Debug]) -> String {
        format!("{values:?} {values:#?}")
    }

    for algorithm in [
        Algorithm::Es256,
        Algorithm::Es512,
        Algorithm::Ed25519,
        Algorithm::Rs256,
    ] {
        let key = key_for(algorithm);
        let (pem, der, text) = (
            key.to_pkcs8_pem().unwrap(),
            key.to_pkcs8_der().unwrap(),
            key.to_jwk().unwrap(),
        );
        let shown = shown(&[
            &key,
            &key.clone(),
            &pem,
            &der,
            &text,
            key.public_key(),
            &key.thumbprint(),
        ]);
        let bytes = format!("{:02x?}", der.as_bytes()).replace(", ", "");
        let list = format!("{:?}", der.as_bytes());
        let jwk = private_jwk(&key);
        let mut secrets = vec![bytes, list, key.thumbprint().to_string()];
        // The last line of the key may be short, and the lines around the key are not secret.
        let lines = pem.as_str().lines().filter(|line| line.len() == 64);
        secrets.extend(lines.map(str::to_owned));
        secrets.extend(
            ["d", "p", "q", "dp", "dq", "qi", "x", "y", "n"]
                .iter()
                .filter_map(|member| jwk[member].as_str().map(str::to_owned)),
        );
        assert_shows_nothing(algorithm.name(), &shown, &secrets);
    }
    // The error of a failed import must not show the key.
    let broken = RFC_7515.replace("\"P-256\"", "7");
    let error = SigningKey::from_jwk(&broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key is not a JSON object without duplicate members"
    );
    assert_eq!(format!("{error:?}"), "Json");
}
