//! Any text as a JWK: no panic, and a key that can be read has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_dpop::jose::Jwk;

fuzz_target!(|text: &str| {
    let Ok(jwk) = text.parse::<Jwk>() else {
        return;
    };
    let written = serde_json::to_string(&jwk).expect("a JWK is JSON");
    let again: Jwk = written.parse().expect("what was written can be read");
    assert_eq!(again.thumbprint(), jwk.thumbprint());
    assert_eq!(
        serde_json::to_string(&again).expect("a JWK is JSON"),
        written
    );
    for algorithm in tower_dpop::Algorithms::default().iter() {
        for length in [64, 96, 256] {
            let signature = vec![0x5a; length];
            let result = jwk.verify(algorithm, text.as_bytes(), &signature);
            assert!(result.is_err(), "no one has signed this");
        }
    }
});
