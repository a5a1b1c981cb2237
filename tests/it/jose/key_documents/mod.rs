//! Private keys as documents: PKCS#8 and JWK.

mod jwk;
mod pkcs8;
mod public_jwk;

use common::base64url;
use tower_dpop::Algorithm;
use tower_dpop::jose::{SigningKey, SigningKeyError};

use crate::jose::keys::{
    ED25519, P256, RFC_7515, RFC_8037, RSA_2048, assert_signs, hex, private_jwk,
};
use crate::proof::decode_base64url;

/// The PKCS#8 document in DER.
fn der(pem: &str) -> Vec<u8> {
    let key = SigningKey::from_pkcs8_pem(pem).unwrap();
    key.to_pkcs8_der().unwrap().as_bytes().to_vec()
}

/// Each row has a name, a document and the error.
#[track_caller]
fn assert_rejected<D: AsRef<T>, T: ?Sized>(
    read: fn(&T) -> Result<SigningKey, SigningKeyError>,
    rows: impl IntoIterator<Item = (&'static str, D, SigningKeyError)>,
) {
    for (name, document, expected) in rows {
        let error = read(document.as_ref()).unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert!(error.to_string().starts_with(char::is_lowercase), "{name}");
    }
}

/// The order of P-256.
fn p256_order() -> Vec<u8> {
    hex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
}

/// RFC 8037 appendix A, RFC 7515 appendix A.3, RFC 8410 section 10.3.
#[test]
fn reads_the_keys_in_the_standards() {
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
    let signature = decode_base64url(
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    let verified = key
        .public_key()
        .verify(Algorithm::Es256, input.as_bytes(), &signature);
    assert!(verified.is_ok(), "the signature in RFC 7515");

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
        assert_eq!(private_jwk(&key)["x"], base64url(&x), "{document}");
    }
}

/// A document with a changed byte is rejected, or it is read as the same key.
#[test]
fn a_changed_document_never_panics_or_becomes_another_key() {
    for (pem, step) in [(P256, 1), (ED25519, 1), (RSA_2048, 13)] {
        let key = SigningKey::from_pkcs8_pem(pem).unwrap();
        let thumbprint = key.thumbprint();
        let private = private_jwk(&key);
        let document = der(pem);
        let text = key.to_jwk().unwrap();
        for at in (0..document.len()).step_by(step) {
            for mask in [0x01, 0x80, 0xff] {
                let mut changed = document.clone();
                changed[at] ^= mask;
                if let Ok(key) = SigningKey::from_pkcs8_der(&changed) {
                    // An Ed25519 document of version 1 has no public half, so a changed seed goes unnoticed.
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
                assert_eq!(private_jwk(&key)["d"], private["d"], "character {at}");
            }
        }
    }
}
