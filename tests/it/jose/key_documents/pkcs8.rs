//! Private keys in PKCS#8, as DER and PEM.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};
use tower_dpop::Algorithm;
use tower_dpop::jose::{InvalidJwk, SigningKey, SigningKeyError};

use super::{assert_rejected, der, order};
use crate::jose::keys::{
    ED25519, MESSAGE, P256, RFC_7515, RSA_2048, assert_signs, hex, jwk, number, rsa,
};

const P384: &str = include_str!("../keys/p384.pem");

const P521: &str = include_str!("../keys/p521.pem");

const RSA_1024: &str = include_str!("../keys/rsa1024.pem");

const RSA_THREE_PRIMES: &str = include_str!("../keys/rsa_three_primes.pem");

const SECP256K1: &str = include_str!("../keys/secp256k1.pem");

const X25519: &str = include_str!("../keys/x25519.pem");

#[test]
fn reads_the_keys_of_openssl() {
    for (document, algorithm, public, thumbprint) in [
        (
            P256,
            Algorithm::Es256,
            r#"{"crv":"P-256","kty":"EC","x":"1d0eVCFuWbp9eBfoQfnTJ0B306RTLVlPHHxByuYKbpQ","y":"Rio88Y9uS5ls0i-ojRxEjuSftBbiuZGJRgUFVmpovYo"}"#,
            "5lvOY0JGIiosoauh77T11ntas22PW4shEV0vMTfcQKQ",
        ),
        (
            P384,
            Algorithm::Es384,
            r#"{"crv":"P-384","kty":"EC","x":"WaJ-GdAeDmGxnY8CWINMCK6nlaXtDGicCHC9vFwTZlGSkbvV7Q3jkcLcHDiSGZTK","y":"jjq5HXCRRcq3T1Pa-b3DXqFgCTVCSxwNvNwart16wwbPARbNK96HgUSGsrMAGUbb"}"#,
            "sso61W3axsZmYjRiB8iIcpMVy-y_gTLV4gcn-l4Gswk",
        ),
        (
            P521,
            Algorithm::Es512,
            r#"{"crv":"P-521","kty":"EC","x":"AMogoIf3EfRrcSImrT-J_I9CDa5PYPs1aJ5R27DKMOMTQXbuyOfAuvRxgvID1mO-bBsgxO4M3CHfs-QBd_p6Sxdo","y":"ACjYksQxFxwfiFLmjZhPfTphMS0Ql2Nzyi8NV_RbiurFODps_-d3I1h-MzMrsJCQmLeQKgYf2p2PIi9EP8WzOpsY"}"#,
            "_ozA2sOD1AdUIpAWqv4RywebhClrh5aRm75CP-p3gv4",
        ),
        (
            ED25519,
            Algorithm::Ed25519,
            r#"{"crv":"Ed25519","kty":"OKP","x":"k19VJTXSAguAVKi4v5NhIht4qKwZ3rC2RDHBQn4NPG4"}"#,
            "mOzWr1Dl6WTMXGmx8VkYS8CeJJyCmU1gXclJjAInn7g",
        ),
        (
            RSA_2048,
            Algorithm::Ps256,
            r#"{"e":"AQAB","kty":"RSA","n":"ra6n60WTTrjuU-kTMApdJjK01e_PoZioQUCmRQ4X4q0AQwI7-74KKfBFWch8YMUIZ_pJOD9QqPXHdg9Yc20_eG2fMsZ0abctELVryr-y3yXiYH9bpigfS65cno62mJnLIhC2tYa75nKeT1o6yshsYjL7aseoRcvQDhy__XXCE9w5ebpkg0iwPDEBrAhSUmnNH-VlqtA203XY5RrmHwjI_VIBQJLNrpIv-w_wA960yM-C9y3imL1BkEKcFjjN82UBkvohxqkGHEmhsByZNTg-7AKrdwy0f67m65HTy5AzTH3wA3uZx4M37wf5fiqRZc9V6ljnJS9IbZP32AIgzDFcgQ"}"#,
            "MpRUOwPvGrAbkixaIMgXivsoqhPWgOSO9RZnI3ldIjc",
        ),
    ] {
        let key = SigningKey::from_pkcs8_pem(document).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(serde_json::to_string(key.public_key()).unwrap(), public);
        assert_eq!(key.thumbprint().to_string(), thumbprint, "{algorithm}");
        assert_signs(algorithm.name(), &key, &public.parse().unwrap());

        // What OpenSSL wrote is what is written here, to the byte.
        let block = &document[document.find("-----").unwrap()..];
        assert_eq!(key.to_pkcs8_pem().unwrap().as_str(), block, "{algorithm}");
    }
}

fn rsa_by_aws_lc(size: KeySize) -> Vec<u8> {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};

    let document: Pkcs8V1Der<'_> = RsaKeyPair::generate(size).unwrap().as_der().unwrap();
    document.as_ref().to_vec()
}

#[test]
fn aws_lc_reads_what_is_written_and_signs_with_it() {
    let random = SystemRandom::new();
    let ecdsa: [(Algorithm, &'static EcdsaSigningAlgorithm); 3] = [
        (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
        (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    for (algorithm, signing) in ecdsa {
        let key = SigningKey::generate_for(algorithm).unwrap();
        let document = key.to_pkcs8_der().unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(signing, document.as_bytes()).unwrap();
        let signature = pair.sign(&random, MESSAGE).unwrap();
        let verified = key
            .public_key()
            .verify(algorithm, MESSAGE, signature.as_ref());
        assert!(verified.is_ok(), "{algorithm}");

        let theirs = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let key = SigningKey::from_pkcs8_der(theirs.as_ref()).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert_signs("theirs", &key, key.public_key());
    }

    let key = SigningKey::generate_for(Algorithm::Ed25519).unwrap();
    let document = key.to_pkcs8_der().unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_bytes()).unwrap();
    let signature = pair.sign(MESSAGE);
    assert_eq!(signature.as_ref(), key.sign_now(MESSAGE).unwrap());
    // The second version of PKCS#8, with the public half.
    let theirs = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let key = SigningKey::from_pkcs8_der(theirs.as_ref()).unwrap();
    assert_signs("theirs", &key, key.public_key());

    let key = rsa();
    let document = key.to_pkcs8_der().unwrap();
    let pair = RsaKeyPair::from_pkcs8(document.as_bytes()).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&signature::RSA_PSS_SHA256, &random, MESSAGE, &mut signature)
        .unwrap();
    let verified = key
        .public_key()
        .verify(Algorithm::Ps256, MESSAGE, &signature);
    assert!(verified.is_ok());
    let theirs = rsa_by_aws_lc(KeySize::Rsa2048);
    let key = SigningKey::from_pkcs8_der(&theirs).unwrap();
    assert_signs("theirs", &key, key.public_key());
}

fn replaced(document: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = document
        .windows(from.len())
        .position(|window| window == from)
        .expect("the document has it");
    [&document[..at], to, &document[at + from.len()..]].concat()
}

#[test]
fn rejects_what_is_no_pkcs8() {
    let p256 = der(P256);
    assert_rejected(
        SigningKey::from_pkcs8_der,
        [
            ("nothing", vec![], SigningKeyError::Pkcs8),
            ("garbage", b"garbage".to_vec(), SigningKeyError::Pkcs8),
            (
                "an byte behind it",
                [p256.as_slice(), &[0]].concat(),
                SigningKeyError::Pkcs8,
            ),
            (
                "an ECPrivateKey alone",
                p256[29..].to_vec(),
                SigningKeyError::Pkcs8,
            ),
            (
                "version 3",
                replaced(&p256, &hex("020100"), &hex("020102")),
                SigningKeyError::Pkcs8,
            ),
            (
                "version 2 without a public half",
                replaced(&p256, &hex("020100"), &hex("020101")),
                SigningKeyError::Pkcs8,
            ),
            ("megabytes", vec![0x30; 4 << 20], SigningKeyError::TooLong),
        ],
    );
    for document in [p256, der(ED25519), der(RSA_2048)] {
        for end in 0..document.len() {
            let read = SigningKey::from_pkcs8_der(&document[..end]);
            assert_eq!(read.unwrap_err(), SigningKeyError::Pkcs8, "{end} bytes");
        }
    }
}

/// The P-256 document with the first byte of its scalar dropped.
fn short_scalar(document: &[u8]) -> Vec<u8> {
    let mut short = replaced(document, &hex("308187"), &hex("308186"));
    short = replaced(
        &short,
        &hex("046d306b0201010420"),
        &hex("046c306a020101041f"),
    );
    let at = short.len() - 101;
    short.remove(at);
    short
}

/// A P-256 document without a public half, whose `ECPrivateKey` names a curve.
fn with_curve(d: &[u8], oid: &str) -> Vec<u8> {
    let tagged =
        |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let sec1 = [hex("020101"), tagged(0x04, d), tagged(0xa0, &hex(oid))].concat();
    let fields = [
        hex("020100"),
        hex("301306072a8648ce3d020106082a8648ce3d030107"),
        tagged(0x04, &tagged(0x30, &sec1)),
    ];
    tagged(0x30, &fields.concat())
}

#[test]
fn rejects_broken_ec_keys_in_pkcs8() {
    let p256 = der(P256);
    let key = jwk(&SigningKey::from_pkcs8_pem(P256).unwrap());
    let (d, x) = (number(&key, "d"), number(&key, "x"));
    let other_x = number(&serde_json::from_str(RFC_7515).unwrap(), "x");
    let mut other_d = order();
    *other_d.last_mut().unwrap() -= 1;
    assert_rejected(
        SigningKey::from_pkcs8_der,
        [
            (
                "a curve without a name here",
                replaced(
                    &p256,
                    &hex("06082a8648ce3d030107"),
                    &hex("06082a8648ce3d030101"),
                ),
                SigningKeyError::KeyType,
            ),
            (
                "the OID of no algorithm here",
                replaced(
                    &p256,
                    &hex("06072a8648ce3d0201"),
                    &hex("06072a8648ce3d0202"),
                ),
                SigningKeyError::KeyType,
            ),
            (
                "an ECPrivateKey of version 2",
                replaced(&p256, &hex("0201010420"), &hex("0201020420")),
                SigningKeyError::Pkcs8,
            ),
            (
                "another curve in the ECPrivateKey",
                with_curve(&d, "06052b81040022"),
                SigningKeyError::Mismatch,
            ),
            (
                "a scalar of zero",
                replaced(&p256, &d, &[0; 32]),
                SigningKeyError::Scalar,
            ),
            (
                "a scalar of n",
                replaced(&p256, &d, &order()),
                SigningKeyError::Scalar,
            ),
            (
                "a scalar above n",
                replaced(&p256, &d, &[0xff; 32]),
                SigningKeyError::Scalar,
            ),
            (
                "a scalar of 31 bytes",
                short_scalar(&p256),
                SigningKeyError::Length,
            ),
            (
                "another's scalar",
                replaced(&p256, &d, &other_d),
                SigningKeyError::Mismatch,
            ),
            (
                "another's x",
                replaced(&p256, &x, &other_x),
                SigningKeyError::Mismatch,
            ),
        ],
    );
    assert!(SigningKey::from_pkcs8_der(&with_curve(&d, "06082a8648ce3d030107")).is_ok());
    assert!(SigningKey::from_pkcs8_der(&with_curve(&other_d, "06082a8648ce3d030107")).is_ok());
}

/// The Ed25519 document with the last byte of its seed dropped.
fn short_seed(document: &[u8]) -> Vec<u8> {
    let short = replaced(document, &hex("302e"), &hex("302d"));
    let mut short = replaced(&short, &hex("04220420"), &hex("0421041f"));
    short.pop();
    short
}

#[test]
fn rejects_broken_ed25519_keys_in_pkcs8() {
    let ed25519 = der(ED25519);
    let key = jwk(&SigningKey::from_pkcs8_pem(ED25519).unwrap());
    // The public half behind it: [1], 33 bytes.
    let version_2 = |unused_bits: u8, x: &[u8]| {
        let head = hex("3051020101300506032b657004220420");
        [&head, &number(&key, "d"), &[0x81, 0x21, unused_bits][..], x].concat()
    };
    let x = number(&key, "x");
    assert!(SigningKey::from_pkcs8_der(&version_2(0, &x)).is_ok());
    assert_rejected(
        SigningKey::from_pkcs8_der,
        [
            (
                "the OID of Ed448",
                replaced(&ed25519, &hex("2b6570"), &hex("2b6571")),
                SigningKeyError::KeyType,
            ),
            (
                "a seed of 31 bytes",
                short_seed(&ed25519),
                SigningKeyError::Pkcs8,
            ),
            (
                "another's public half",
                version_2(0, &[7; 32]),
                SigningKeyError::Mismatch,
            ),
            (
                "a public half of 31 bytes",
                replaced(
                    &replaced(&version_2(0, &x[1..]), &hex("3051"), &hex("3050")),
                    &hex("8121"),
                    &hex("8120"),
                ),
                SigningKeyError::Mismatch,
            ),
            (
                "a public half of 255 bits",
                version_2(1, &[&x[..31], &[0]].concat()),
                SigningKeyError::Mismatch,
            ),
        ],
    );
}

#[test]
fn rejects_broken_rsa_keys_in_pkcs8() {
    let rsa_2048 = der(RSA_2048);
    let key = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    assert_rejected(
        SigningKey::from_pkcs8_der,
        [(
            "the OID of RSASSA-PSS",
            replaced(
                &rsa_2048,
                &hex("2a864886f70d010101"),
                &hex("2a864886f70d01010a"),
            ),
            SigningKeyError::KeyType,
        )],
    );
    for member in ["n", "d", "p", "q", "dp", "dq", "qi"] {
        let bytes = number(&key, member);
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        let document = replaced(&rsa_2048, &bytes, &changed);
        assert_rejected(
            SigningKey::from_pkcs8_der,
            [(member, document, SigningKeyError::Mismatch)],
        );
    }
}

#[test]
fn rejects_pem_of_another_kind() {
    let label = |label: &str| P256.replace("PRIVATE KEY", label);
    assert_rejected(
        SigningKey::from_pkcs8_pem,
        [
            ("nothing", String::new(), SigningKeyError::Pem),
            ("garbage", "garbage".into(), SigningKeyError::Pem),
            ("a public key", label("PUBLIC KEY"), SigningKeyError::Pem),
            ("SEC 1", label("EC PRIVATE KEY"), SigningKeyError::Pem),
            ("PKCS#1", label("RSA PRIVATE KEY"), SigningKeyError::Pem),
            (
                "encrypted",
                label("ENCRYPTED PRIVATE KEY"),
                SigningKeyError::Pem,
            ),
            (
                "labels that differ",
                P256.replace("END PRIVATE", "END PUBLIC"),
                SigningKeyError::Pem,
            ),
            (
                "no end",
                P256[..P256.find("-----END").unwrap()].into(),
                SigningKeyError::Pem,
            ),
            ("base64url", P256.replace('/', "_"), SigningKeyError::Pem),
            (
                "two documents",
                format!("{P256}{P256}"),
                SigningKeyError::Pem,
            ),
            ("another curve", SECP256K1.into(), SigningKeyError::KeyType),
            (
                "a key for agreement",
                X25519.into(),
                SigningKeyError::KeyType,
            ),
            (
                "RSA of 1024 bits",
                RSA_1024.into(),
                SigningKeyError::Public(InvalidJwk::RsaSize),
            ),
            (
                "RSA with three primes",
                RSA_THREE_PRIMES.into(),
                SigningKeyError::Primes,
            ),
            ("megabytes", "A".repeat(4 << 20), SigningKeyError::TooLong),
        ],
    );
    for (name, document) in [
        ("white space around it", format!("\n\n{P256}\n\n")),
        ("line ends of another system", P256.replace('\n', "\r\n")),
    ] {
        assert!(SigningKey::from_pkcs8_pem(&document).is_ok(), "{name}");
    }
}
