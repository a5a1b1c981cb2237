//! Signatures (`src/jose/signing_key.rs`, `private_key.rs`, `rsa_signing.rs`).

use super::*;

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

fn key_for(algorithm: Algorithm) -> SigningKey {
    match rsa().with_algorithm(algorithm) {
        Ok(key) => key,
        Err(_) => SigningKey::generate_for(algorithm).unwrap(),
    }
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
