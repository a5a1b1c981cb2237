//! The private keys of clients: made, signed with, written and read.
//!
//! `keys/*.pem` are OpenSSL's (3.0); the first line of each is the command that made it.

use std::error::Error as _;
use std::fmt::Debug;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use num_bigint::BigUint;
use serde_json::{Value, json};
use tower_dpop::client::ProofSigner;
use tower_dpop::jose::{InvalidJwk, Jwk, SigningError, SigningKey, SigningKeyError};
use tower_dpop::{Algorithm, Thumbprint};

use common::base64url;

const MESSAGE: &[u8] = b"a message";

const ALGORITHMS: [Algorithm; 11] = [
    Algorithm::Es256,
    Algorithm::Es384,
    Algorithm::Es512,
    Algorithm::Ed25519,
    Algorithm::EdDsa,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
];

const P256: &str = include_str!("keys/p256.pem");
const P384: &str = include_str!("keys/p384.pem");
const P521: &str = include_str!("keys/p521.pem");
const ED25519: &str = include_str!("keys/ed25519.pem");
const RSA_2048: &str = include_str!("keys/rsa2048.pem");
const RSA_1024: &str = include_str!("keys/rsa1024.pem");
const RSA_THREE_PRIMES: &str = include_str!("keys/rsa_three_primes.pem");
const SECP256K1: &str = include_str!("keys/secp256k1.pem");
const X25519: &str = include_str!("keys/x25519.pem");

/// RFC 8037 appendix A.1.
const RFC_8037: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// RFC 7515 appendix A.3.1.
const RFC_7515: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

/// One RSA key for all tests: they are dear to make.
fn rsa() -> SigningKey {
    static RSA: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate_for(Algorithm::Ps256).unwrap());
    RSA.clone()
}

fn key_for(algorithm: Algorithm) -> SigningKey {
    match rsa().with_algorithm(algorithm) {
        Ok(key) => key,
        Err(_) => SigningKey::generate_for(algorithm).unwrap(),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn der(pem: &str) -> Vec<u8> {
    let key = SigningKey::from_pkcs8_pem(pem).unwrap();
    key.to_pkcs8_der().unwrap().as_bytes().to_vec()
}

fn jwk(key: &SigningKey) -> Value {
    serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap()
}

#[track_caller]
fn assert_signs(name: &str, key: &SigningKey, public: &Jwk) {
    let signature = key.sign_now(MESSAGE).unwrap();
    let verified = public.verify(key.algorithm(), MESSAGE, &signature);
    assert!(verified.is_ok(), "{name}");
    let other = public.verify(key.algorithm(), b"another", &signature);
    assert!(other.is_err(), "{name}: another message");
}

#[test]
fn every_algorithm_signs_and_outlives_its_process() {
    for algorithm in ALGORITHMS {
        let name = algorithm.name();
        let key = key_for(algorithm);
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.thumbprint(), key.public_key().thumbprint(), "{name}");
        assert_signs(name, &key, key.public_key());

        let from_jwk = SigningKey::from_jwk(key.to_jwk().unwrap().as_str()).unwrap();
        assert_eq!(from_jwk.algorithm(), algorithm, "the JWK names it");
        let from_der = SigningKey::from_pkcs8_der(key.to_pkcs8_der().unwrap().as_bytes()).unwrap();
        let from_pem = SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
        for (form, read) in [("JWK", from_jwk), ("DER", from_der), ("PEM", from_pem)] {
            let name = format!("{name}: {form}");
            assert_eq!(read.thumbprint(), key.thumbprint(), "{name}");
            let read = read.with_algorithm(algorithm).unwrap();
            assert_signs(&name, &read, key.public_key());
            assert_eq!(jwk(&read), jwk(&key), "{name}");
        }
    }
}

#[test]
fn generated_keys_are_new_ones() {
    for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
        let [one, other] = [(); 2].map(|()| SigningKey::generate_for(algorithm).unwrap());
        assert_ne!(one.thumbprint(), other.thumbprint(), "{algorithm}");
    }
    assert_eq!(
        SigningKey::generate().unwrap().algorithm(),
        Algorithm::Es256
    );
    let n = decoded(jwk(&rsa())["n"].as_str().unwrap());
    assert_eq!((n.len(), n[0] >> 7), (256, 1), "2048 bits");
}

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

/// RFC 8037 appendix A, RFC 7515 appendix A.3, RFC 8410 section 10.3.
#[test]
fn reads_the_keys_of_the_standards() {
    let key = SigningKey::from_jwk(RFC_8037).unwrap();
    let thumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    assert_eq!(key.thumbprint().to_string(), thumbprint);
    let signature = key.sign_now(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
    assert_eq!(
        base64url(signature.unwrap()),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );

    let key = SigningKey::from_jwk(RFC_7515).unwrap();
    assert_signs("RFC 7515", &key, key.public_key());
    let input = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = decoded(
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    let verified = key
        .public_key()
        .verify(Algorithm::Es256, input.as_bytes(), &signature);
    assert!(verified.is_ok(), "the standard's signature is by this key");

    let version_1 = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    let version_2_with_attributes = "-----BEGIN PRIVATE KEY-----\n\
        MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
        Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PRIVATE KEY-----\n";
    let x = hex("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    for document in [version_1, version_2_with_attributes] {
        let key = SigningKey::from_pkcs8_pem(document).unwrap();
        assert_eq!(jwk(&key)["x"], base64url(&x), "{document}");
    }
}

/// C-30: the nonce of an ECDSA signature comes from the key and the message, never from a source of
/// randomness. RFC 6979 appendices A.2.5 to A.2.7, RFC 8032 section 7.1.
#[test]
fn signatures_are_deterministic() {
    for (name, jwk, message, signature) in [
        (
            "P-256, sample",
            ec(
                "P-256",
                "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
                "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
                "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
            ),
            &b"sample"[..],
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
             F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            "P-256, test",
            ec(
                "P-256",
                "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
                "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
                "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
            ),
            b"test",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367\
             019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
        (
            "P-384, sample",
            ec(
                "P-384",
                "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D8\
                 96D5724E4C70A825F872C9EA60D2EDF5",
                "EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64\
                 DEF8F0EA9055866064A254515480BC13",
                "8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1\
                 288B231C3AE0D4FE7344FD2533264720",
            ),
            b"sample",
            "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C\
             81A648152E44ACF96E36DD1E80FABE46\
             99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94F\
             A329C145786E679E7B82C71A38628AC8",
        ),
        (
            "P-521, sample",
            ec(
                "P-521",
                "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75\
                 CAA896EB32F1F47C70855836A6D16FCC1466F6D8FBEC67DB89EC0C08B0E996B8\
                 3538",
                "01894550D0785932E00EAA23B694F213F8C3121F86DC97A04E5A7167DB4E5BCD\
                 371123D46E45DB6B5D5370A7F20FB633155D38FFA16D2BD761DCAC474B9A2F50\
                 23A4",
                "00493101C962CD4D2FDDF782285E64584139C2F91B47F87FF82354D6630F746A\
                 28A0DB25741B5B34A828008B22ACC23F924FAAFBD4D33F81EA66956DFEAA2BFD\
                 FCF5",
            ),
            b"sample",
            "00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F\
             174E25A1EE9017B5D450606ADD152B534931D7D4E8455CC91F9B15BF05EC36E3\
             77FA\
             00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF\
             282623EAA63E5B5C0723D8B8C37FF0777B1A20F8CCB1DCCC43997F1EE0E44DA4\
             A67A",
        ),
        (
            "Ed25519, test 1",
            okp(
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            b"",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "Ed25519, test 2",
            okp(
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
            b"\x72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "Ed25519, test 3",
            okp(
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            ),
            b"\xaf\x82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let key = SigningKey::from_jwk(&jwk.to_string()).unwrap();
        for _ in 0..2 {
            assert_eq!(key.sign_now(message).unwrap(), hex(signature), "{name}");
        }
    }
}

fn ec(crv: &str, d: &str, x: &str, y: &str) -> Value {
    let [d, x, y] = [d, x, y].map(|number| base64url(hex(number)));
    json!({ "kty": "EC", "crv": crv, "d": d, "x": x, "y": y })
}

fn okp(d: &str, x: &str) -> Value {
    let [d, x] = [d, x].map(|number| base64url(hex(number)));
    json!({ "kty": "OKP", "crv": "Ed25519", "d": d, "x": x })
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

fn rsa_by_aws_lc(size: KeySize) -> Vec<u8> {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};

    let document: Pkcs8V1Der<'_> = RsaKeyPair::generate(size).unwrap().as_der().unwrap();
    document.as_ref().to_vec()
}

/// Each row reads one document.
#[track_caller]
fn assert_rejected<D: AsRef<T>, T: ?Sized>(
    read: fn(&T) -> Result<SigningKey, SigningKeyError>,
    rows: impl IntoIterator<Item = (&'static str, D, SigningKeyError)>,
) {
    for (name, document, expected) in rows {
        assert_eq!(read(document.as_ref()).unwrap_err(), expected, "{name}");
    }
}

/// The order of P-256.
fn order() -> Vec<u8> {
    hex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
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

fn number(jwk: &Value, member: &str) -> Vec<u8> {
    decoded(jwk[member].as_str().unwrap())
}

fn replaced(document: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = document
        .windows(from.len())
        .position(|window| window == from)
        .expect("the document has it");
    [&document[..at], to, &document[at + from.len()..]].concat()
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

/// The Ed25519 document with the last byte of its seed dropped.
fn short_seed(document: &[u8]) -> Vec<u8> {
    let short = replaced(document, &hex("302e"), &hex("302d"));
    let mut short = replaced(&short, &hex("04220420"), &hex("0421041f"));
    short.pop();
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

fn but(jwk: &Value, member: &str, value: impl Into<Value>) -> String {
    let mut changed = jwk.clone();
    changed[member] = value.into();
    changed.to_string()
}

fn without(jwk: &Value, member: &str) -> String {
    let mut changed = jwk.clone();
    changed.as_object_mut().unwrap().remove(member).unwrap();
    changed.to_string()
}

/// With one bit of a number turned.
fn turned(jwk: &Value, member: &str) -> String {
    let mut bytes = number(jwk, member);
    bytes[20] ^= 1;
    but(jwk, member, base64url(bytes))
}

/// With a zero byte before a number.
fn longer(jwk: &Value, member: &str) -> String {
    but(
        jwk,
        member,
        base64url([vec![0], number(jwk, member)].concat()),
    )
}

#[test]
fn rejects_what_is_no_jwk_for_signing() {
    let ec = jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let duplicate = |member: &str| {
        let text = ec.to_string();
        format!("{},\"{member}\":{}}}", &text[..text.len() - 1], ec[member])
    };
    let escaped = {
        let d = ec["d"].as_str().unwrap();
        let escaped = format!("\\u00{:02x}{}", d.as_bytes()[0], &d[1..]);
        ec.to_string().replace(d, &escaped)
    };
    assert_rejected(
        SigningKey::from_jwk,
        [
            ("nothing", String::new(), SigningKeyError::Json),
            ("garbage", "garbage".into(), SigningKeyError::Json),
            ("an array", format!("[{ec}]"), SigningKeyError::Json),
            ("two of them", format!("{ec}{ec}"), SigningKeyError::Json),
            ("a duplicate d", duplicate("d"), SigningKeyError::Json),
            ("a duplicate x", duplicate("x"), SigningKeyError::Json),
            (
                "a duplicate unknown member",
                ec.to_string().replacen('{', r#"{"a":1,"a":1,"#, 1),
                SigningKeyError::Json,
            ),
            ("d is a number", but(&ec, "d", 1), SigningKeyError::Json),
            (
                "d is null",
                but(&ec, "d", Value::Null),
                SigningKeyError::Json,
            ),
            ("d with an escape", escaped, SigningKeyError::Json),
            ("megabytes", " ".repeat(4 << 20), SigningKeyError::TooLong),
            ("use is enc", but(&ec, "use", "enc"), SigningKeyError::Use),
            (
                "key_ops is verify",
                but(&ec, "key_ops", json!(["verify"])),
                SigningKeyError::Use,
            ),
            (
                "key_ops is empty",
                but(&ec, "key_ops", json!([])),
                SigningKeyError::Use,
            ),
            (
                "alg of another curve",
                but(&ec, "alg", "ES384"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg of another type",
                but(&rsa, "alg", "ES256"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg of an encryption",
                but(&ec, "alg", "ECDH-ES"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg none",
                but(&ec, "alg", "none"),
                SigningKeyError::Algorithm,
            ),
        ],
    );
}

#[test]
fn accepts_what_does_not_contradict_a_jwk_for_signing() {
    let ec = jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let okp = jwk(&SigningKey::from_jwk(RFC_8037).unwrap());
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    for (name, text, algorithm) in [
        ("kid", but(&ec, "kid", "1"), Algorithm::Es256),
        ("use is sig", but(&ec, "use", "sig"), Algorithm::Es256),
        (
            "key_ops has sign",
            but(&ec, "key_ops", json!(["verify", "sign"])),
            Algorithm::Es256,
        ),
        ("no alg, EC", without(&ec, "alg"), Algorithm::Es256),
        ("no alg, OKP", without(&okp, "alg"), Algorithm::Ed25519),
        ("no alg, RSA", without(&rsa, "alg"), Algorithm::Ps256),
        ("EdDSA", but(&okp, "alg", "EdDSA"), Algorithm::EdDsa),
        ("RS384", but(&rsa, "alg", "RS384"), Algorithm::Rs384),
    ] {
        let key = SigningKey::from_jwk(&text).unwrap();
        assert_eq!(key.algorithm(), algorithm, "{name}");
    }
}

#[test]
fn rejects_broken_ec_and_okp_jwks() {
    let ec = jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let okp = jwk(&SigningKey::from_jwk(RFC_8037).unwrap());
    let another = jwk(&SigningKey::from_pkcs8_pem(P256).unwrap());
    let padded = format!("{}=", ec["d"].as_str().unwrap());
    let no_type = SigningKeyError::Public(InvalidJwk::KeyType);
    let no_coordinate = SigningKeyError::Public(InvalidJwk::Coordinate);
    assert_rejected(
        SigningKey::from_jwk,
        [
            (
                "no kty",
                without(&ec, "kty"),
                SigningKeyError::Public(InvalidJwk::Missing),
            ),
            ("a symmetric key", but(&ec, "kty", "oct"), no_type),
            ("no curve", without(&ec, "crv"), no_type),
            ("another curve", but(&ec, "crv", "secp256k1"), no_type),
            ("X25519", but(&okp, "crv", "X25519"), no_type),
            ("no x", without(&ec, "x"), no_coordinate),
            ("no y", without(&ec, "y"), no_coordinate),
            ("a longer x", longer(&ec, "x"), no_coordinate),
            ("no d", without(&ec, "d"), SigningKeyError::Missing),
            ("OKP: no d", without(&okp, "d"), SigningKeyError::Missing),
            (
                "d with padding",
                but(&ec, "d", padded),
                SigningKeyError::Member,
            ),
            ("an empty d", but(&ec, "d", ""), SigningKeyError::Length),
            ("a longer d", longer(&ec, "d"), SigningKeyError::Length),
            (
                "OKP: a longer d",
                longer(&okp, "d"),
                SigningKeyError::Length,
            ),
            (
                "a shorter d",
                but(&ec, "d", base64url([1; 31])),
                SigningKeyError::Length,
            ),
            (
                "a d of zero",
                but(&ec, "d", base64url([0; 32])),
                SigningKeyError::Scalar,
            ),
            (
                "a d of n",
                but(&ec, "d", base64url(order())),
                SigningKeyError::Scalar,
            ),
            ("another d", turned(&ec, "d"), SigningKeyError::Mismatch),
            (
                "OKP: another d",
                turned(&okp, "d"),
                SigningKeyError::Mismatch,
            ),
            (
                "another's d",
                but(&ec, "d", another["d"].clone()),
                SigningKeyError::Mismatch,
            ),
            (
                "another's x",
                but(&ec, "x", another["x"].clone()),
                SigningKeyError::Mismatch,
            ),
            (
                "another's y",
                but(&ec, "y", another["y"].clone()),
                SigningKeyError::Mismatch,
            ),
        ],
    );
}

#[test]
fn rejects_broken_rsa_jwks() {
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let swapped = {
        let mut changed = rsa.clone();
        changed["p"] = rsa["q"].clone();
        changed["q"] = rsa["p"].clone();
        changed.to_string()
    };
    // Congruent to d, so that nothing else is wrong with it.
    let long_exponent = {
        let number = |name: &str| BigUint::from_bytes_be(&number(&rsa, name));
        let d = number("d") + (number("p") - 1_u8) * (number("q") - 1_u8);
        assert!(d > number("n"));
        but(&rsa, "d", base64url(d.to_bytes_be()))
    };
    let integer = SigningKeyError::Public(InvalidJwk::Integer);
    let missing = SigningKeyError::Public(InvalidJwk::Missing);
    assert_rejected(
        SigningKey::from_jwk,
        [
            ("no n", without(&rsa, "n"), missing),
            ("no e", without(&rsa, "e"), missing),
            ("a longer n", longer(&rsa, "n"), integer),
            ("an e of one", but(&rsa, "e", "AQ"), integer),
            ("another e", but(&rsa, "e", "Aw"), SigningKeyError::Mismatch),
            ("a longer p", longer(&rsa, "p"), SigningKeyError::Length),
            ("an empty qi", but(&rsa, "qi", ""), SigningKeyError::Length),
            (
                "a p of three",
                but(&rsa, "p", "Aw"),
                SigningKeyError::Primes,
            ),
            (
                "other primes",
                but(&rsa, "oth", json!([])),
                SigningKeyError::Primes,
            ),
            ("a d above n", long_exponent, SigningKeyError::Mismatch),
            ("p and q swapped", swapped, SigningKeyError::Mismatch),
        ],
    );
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        assert_rejected(
            SigningKey::from_jwk,
            [(member, without(&rsa, member), SigningKeyError::Missing)],
        );
    }
    for member in ["n", "d", "p", "q", "dp", "dq", "qi"] {
        assert_rejected(
            SigningKey::from_jwk,
            [(member, turned(&rsa, member), SigningKeyError::Mismatch)],
        );
    }
}

/// n is the product of p and q, d is an inverse of e, the other numbers follow: only q is no prime.
#[test]
fn rejects_rsa_keys_whose_primes_are_none() {
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let number = |name: &str| BigUint::from_bytes_be(&decoded(rsa[name].as_str().unwrap()));
    let one = BigUint::from(1_u8);
    let (p, e) = (number("p"), number("e"));
    let mut q = number("q") + 2_u8;
    let (phi, d) = loop {
        let phi = (&p - &one) * (&q - &one);
        match e.modinv(&phi) {
            Some(d) => break (phi, d),
            None => q += 2_u8,
        }
    };
    assert_eq!((&d * &e) % phi, one);
    let mut composite = rsa.clone();
    for (name, value) in [
        ("n", &p * &q),
        ("q", q.clone()),
        ("dp", &d % (&p - &one)),
        ("dq", &d % (&q - &one)),
        ("qi", q.modinv(&p).unwrap()),
        ("d", d),
    ] {
        composite[name] = json!(base64url(value.to_bytes_be()));
    }
    let read = SigningKey::from_jwk(&composite.to_string());
    assert_eq!(read.unwrap_err(), SigningKeyError::Mismatch);
}

/// Whatever is read in spite of a turned byte is still the same key.
#[test]
fn no_changed_document_panics_or_becomes_another_key() {
    for (pem, step) in [(P256, 1), (ED25519, 1), (RSA_2048, 13)] {
        let key = SigningKey::from_pkcs8_pem(pem).unwrap();
        let thumbprint = key.thumbprint();
        let private = jwk(&key);
        let document = der(pem);
        let text = key.to_jwk().unwrap();
        for at in (0..document.len()).step_by(step) {
            for mask in [0x01, 0x80, 0xff] {
                let mut changed = document.clone();
                changed[at] ^= mask;
                if let Ok(key) = SigningKey::from_pkcs8_der(&changed) {
                    // A version 1 document of Ed25519 has no public half that could contradict.
                    let seed = pem == ED25519 && at >= document.len() - 32;
                    assert!(seed || key.thumbprint() == thumbprint, "byte {at}");
                }
            }
        }
        for at in (0..text.as_str().len()).step_by(step) {
            let mut changed = text.as_str().to_owned();
            changed.replace_range(at..=at, "~");
            if let Ok(key) = SigningKey::from_jwk(&changed) {
                assert_eq!(key.thumbprint(), thumbprint, "character {at}");
                assert_eq!(jwk(&key)["d"], private["d"], "character {at}");
            }
        }
    }
}

#[test]
fn another_algorithm_must_fit_the_key() {
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
fn picks_an_algorithm_of_the_servers_list() {
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

/// C-28: what signs need not be a key that this process can read.
#[tokio::test]
async fn keys_and_whoever_keeps_them_sign_alike() {
    /// Answers later, as something remote does.
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
    // On another thread, after the first clone is gone.
    let task = tokio::spawn(verifies(Remote(clone)));
    assert!(task.await.unwrap());
}

#[test]
fn a_failure_to_sign_keeps_its_cause() {
    let error = SigningError::new(std::io::Error::other("the HSM is gone"));
    assert_eq!(error.to_string(), "the key could not sign");
    assert_eq!(error.source().unwrap().to_string(), "the HSM is gone");
    assert_eq!(
        SigningError::new("text").source().unwrap().to_string(),
        "text"
    );
}

#[test]
fn nothing_shows_a_key() {
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
        let jwk = jwk(&key);
        let mut secrets = vec![bytes, list, key.thumbprint().to_string()];
        secrets.extend(pem.as_str().lines().skip(1).map(str::to_owned));
        secrets.extend(
            ["d", "p", "q", "dp", "dq", "qi", "x", "y", "n"]
                .iter()
                .filter_map(|member| jwk[member].as_str().map(str::to_owned)),
        );
        for secret in secrets {
            for at in 0..secret.len().saturating_sub(7) {
                let part = &secret[at..at + 8];
                assert!(!shown.contains(part), "{algorithm}: {shown}");
            }
        }
    }
    // Whoever tries to read a key must not find it in the error.
    let broken = RFC_7515.replace("\"P-256\"", "7");
    let error = SigningKey::from_jwk(&broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key is not a JSON object without duplicate members"
    );
    assert_eq!(format!("{error:?}"), "Json");
}

/// C-4: a header carries the required public members and nothing else.
#[test]
fn a_jwk_is_written_with_its_required_members_only() {
    for (name, text, written) in [
        (
            "EC",
            r#"{"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","kid":"1","use":"sig","alg":"ES256","crv":"P-256","kty":"EC"}"#,
            r#"{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        ),
        (
            "OKP",
            r#"{"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP","crv":"Ed25519","key_ops":["verify"]}"#,
            r#"{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        ),
    ] {
        let jwk: Jwk = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&jwk).unwrap(), written, "{name}");
        let again: Jwk = serde_json::from_str(written).unwrap();
        assert_eq!(again.thumbprint(), jwk.thumbprint(), "{name}");
        let from_value: Jwk = serde_json::from_value(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(from_value.thumbprint(), jwk.thumbprint(), "{name}");
    }
    let public = serde_json::to_value(rsa().public_key()).unwrap();
    let members: Vec<_> = public.as_object().unwrap().keys().collect();
    assert_eq!(members, ["e", "kty", "n"]);
}

#[test]
fn a_jwk_inside_other_json_is_read_as_strictly_as_alone() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (name, text, expected) in [
        ("private", RFC_8037.to_owned(), InvalidJwk::Private),
        (
            "no kty",
            format!(r#"{{"crv":"Ed25519","x":"{x}"}}"#),
            InvalidJwk::Missing,
        ),
        (
            "X25519",
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{x}"}}"#),
            InvalidJwk::KeyType,
        ),
        (
            "short",
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
            InvalidJwk::Coordinate,
        ),
        (
            "enc",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#),
            InvalidJwk::Use,
        ),
        (
            "twice",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","x":"{x}"}}"#),
            InvalidJwk::Json,
        ),
        (
            "nested twice",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","a":{{"b":1,"b":1}}}}"#),
            InvalidJwk::Json,
        ),
        ("a string", format!("\"{x}\""), InvalidJwk::Json),
        ("null", "null".to_owned(), InvalidJwk::Json),
    ] {
        assert_eq!(text.parse::<Jwk>().unwrap_err(), expected, "{name}");
        let inside = serde_json::from_str::<Vec<Jwk>>(&format!("[{text}]")).unwrap_err();
        if expected != InvalidJwk::Json {
            let message = inside.to_string();
            assert!(
                message.starts_with(&expected.to_string()),
                "{name}: {message}"
            );
        }
    }
}

#[test]
fn thumbprints_and_algorithms_are_json_strings() {
    let jkt = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let thumbprint: Thumbprint = serde_json::from_str(&format!("\"{jkt}\"")).unwrap();
    assert_eq!(serde_json::to_value(thumbprint).unwrap(), json!(jkt));
    for broken in [
        json!(&jkt[1..]),
        json!(format!("{jkt}=")),
        json!(1),
        Value::Null,
    ] {
        assert!(serde_json::from_value::<Thumbprint>(broken).is_err());
    }
    for algorithm in ALGORITHMS {
        let value = serde_json::to_value(algorithm).unwrap();
        assert_eq!(value, json!(algorithm.name()));
        assert_eq!(
            serde_json::from_value::<Algorithm>(value).unwrap(),
            algorithm
        );
    }
    for broken in [
        json!("es256"),
        json!("none"),
        json!("HS256"),
        json!({ "ES256": null }),
    ] {
        assert!(serde_json::from_value::<Algorithm>(broken).is_err());
    }
}
