//! Any private key as PKCS#8 in DER or PEM, or as a JWK: no panic. A key that can be read has one form in
//! each of these, is the same key in all, signs, and does not appear in `Debug`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_dpop::jose::{Jwk, SigningKey, SigningKeyError};

fuzz_target!(|document: &[u8]| {
    assert_round_trips(|| SigningKey::from_pkcs8_der(document));
    if let Ok(text) = std::str::from_utf8(document) {
        assert_round_trips(|| SigningKey::from_pkcs8_pem(text));
        assert_round_trips(|| SigningKey::from_jwk(text));
    }
});

fn assert_round_trips(read: impl Fn() -> Result<SigningKey, SigningKeyError>) {
    let key = match (read(), read()) {
        (Ok(key), Ok(again)) => {
            assert_eq!(again.thumbprint(), key.thumbprint());
            key
        }
        (first, second) => {
            assert_eq!(first.err(), second.err());
            return;
        }
    };
    let jwk = key.to_jwk().expect("it was read");
    let der = key.to_pkcs8_der().expect("it was read");
    let pem = key.to_pkcs8_pem().expect("it was read");
    let from_jwk = SigningKey::from_jwk(jwk.as_str()).expect("a JWK");
    assert_eq!(from_jwk.algorithm(), key.algorithm());
    let from_der = SigningKey::from_pkcs8_der(der.as_bytes()).expect("PKCS#8");
    let from_pem = SigningKey::from_pkcs8_pem(pem.as_str()).expect("PEM");
    for again in [from_jwk, from_der, from_pem] {
        assert_eq!(again.thumbprint(), key.thumbprint());
        // PKCS#8 does not name the algorithm.
        let again = again
            .with_algorithm(key.algorithm())
            .expect("the same type");
        assert_eq!(again.to_jwk().expect("a JWK").as_str(), jwk.as_str());
        let der_again = again.to_pkcs8_der().expect("PKCS#8");
        assert_eq!(der_again.as_bytes(), der.as_bytes());
        assert_eq!(again.to_pkcs8_pem().expect("PEM").as_str(), pem.as_str());
    }

    let public = serde_json::to_value(key.public_key()).expect("a JWK");
    let names = public.as_object().expect("an object").keys();
    for name in names {
        assert!(
            ["crv", "e", "kty", "n", "x", "y"].contains(&name.as_str()),
            "{name}"
        );
    }
    let public: Jwk = public.to_string().parse().expect("a public JWK");
    assert_eq!(public.thumbprint(), key.thumbprint());
    let signature = key.sign_now(b"a message").expect("it signs");
    let verify = |message| public.verify(key.algorithm(), message, &signature);
    assert!(verify(b"a message").is_ok() && verify(b"a massage").is_err());

    let written: Value = serde_json::from_str(jwk.as_str()).expect("JSON");
    let shown = format!("{key:?} {jwk:?} {der:?} {pem:?}");
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        let secret = written[member].as_str();
        assert!(
            secret.is_none_or(|secret| !shown.contains(secret)),
            "{shown}"
        );
    }
}
