//! Proofs that are made without a layer.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request, Uri};
use tower_dpop::client::{
    AccessTokenText, ClientError, InvalidAccessToken, InvalidRequestUrl, InvalidTokenResponse,
    NewProof, ProofSigner, SignedProof, TokenResponse, TokenSourceError,
};
use tower_dpop::jose::{Jwk, SigningError, SigningKey};
use tower_dpop::{Algorithm, Algorithms, Timestamp};

use common::proofs::{ReadProof, assert_shows_nothing, names};
use common::{Attempt, AttemptExt as _, NOW, at, block_on, verifier_by};

use super::{ORDERS, TOKEN, access_token, challenges, now, orders_proof};

fn new_proof(method: &str, url: &str) -> Result<NewProof, InvalidRequestUrl> {
    NewProof::new(&method.parse().unwrap(), &url.parse().unwrap())
}

#[track_caller]
fn signed(proof: &NewProof, key: &impl ProofSigner) -> ReadProof {
    ReadProof::of(block_on(proof.sign(key, now())).unwrap().as_header_value())
}

/// C-4, C-18, C-30: with every kind of key.
#[test]
fn the_header_has_only_typ_alg_and_the_public_key() {
    let rows: &[(Algorithm, &[&str])] = &[
        (Algorithm::Es256, &["crv", "kty", "x", "y"]),
        (Algorithm::Es384, &["crv", "kty", "x", "y"]),
        (Algorithm::Es512, &["crv", "kty", "x", "y"]),
        (Algorithm::Ed25519, &["crv", "kty", "x"]),
        (Algorithm::EdDsa, &["crv", "kty", "x"]),
        (Algorithm::Ps256, &["e", "kty", "n"]),
    ];
    for (algorithm, members) in rows {
        let name = algorithm.name();
        // C-18: the server's list selects the algorithm. Unknown names in it are skipped.
        let key = SigningKey::generate_for_one_of(&format!("none ML-DSA-44 {name}")).unwrap();
        let proof = signed(&orders_proof(), &key);
        assert_eq!(
            names(&proof.header),
            BTreeSet::from(["alg", "jwk", "typ"]),
            "C-4: {name}"
        );
        assert_eq!(proof.header["typ"], "dpop+jwt", "C-4: {name}");
        assert_eq!(proof.header["alg"], name, "C-4");
        assert_eq!(
            names(&proof.header["jwk"]),
            members.iter().copied().collect(),
            "C-4: {name}"
        );
        assert_eq!(proof.thumbprint(), key.thumbprint(), "{name}");
        proof.assert_signed(name);
        let (one, other) = (key.sign_now(b"input"), key.sign_now(b"input"));
        if name.starts_with("ES") {
            assert_eq!(one.unwrap(), other.unwrap(), "C-30: {name}");
        }
    }
}

/// C-9, C-10, C-11
#[test]
fn has_only_the_claims_that_were_set() {
    let key = SigningKey::generate().unwrap();
    let nonce = "eyJ7S_zG.eyJH0-Z.HX4w-7v";
    let with_token = |proof: NewProof| proof.with_access_token(&access_token(TOKEN));
    let with_nonce = |proof: NewProof| proof.with_nonce(nonce.parse().unwrap());
    let rows: [(&str, NewProof, &[&str]); 4] = [
        ("C-11: neither", orders_proof(), &[]),
        ("C-9: with a token", with_token(orders_proof()), &["ath"]),
        ("C-10: with a nonce", with_nonce(orders_proof()), &["nonce"]),
        (
            "with both",
            with_nonce(with_token(orders_proof())),
            &["ath", "nonce"],
        ),
    ];
    for (name, proof, extra) in rows {
        let proof = signed(&proof, &key);
        let mut expected = BTreeSet::from(["jti", "htm", "htu", "iat"]);
        expected.extend(extra);
        assert_eq!(names(&proof.claims), expected, "{name}");
        assert_eq!(
            proof.claim("ath"),
            extra
                .contains(&"ath")
                .then_some("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"),
            "{name}: RFC 9449, Figure 12"
        );
        assert_eq!(
            proof.nonce(),
            extra.contains(&"nonce").then_some(nonce),
            "{name}"
        );
        proof.assert_signed(name);
    }
}

/// C-10
#[test]
fn the_last_token_and_nonce_replace_earlier_ones() {
    let proof = orders_proof()
        .with_nonce("one".parse().unwrap())
        .with_nonce("two".parse().unwrap())
        .with_access_token(&access_token("other"))
        .with_access_token(&access_token(TOKEN));
    let proof = signed(&proof, &SigningKey::generate().unwrap());
    assert_eq!(proof.payload.matches("nonce").count(), 1);
    assert_eq!(proof.nonce(), Some("two"));
    assert_eq!(proof.claim("ath"), Some(common::ath(TOKEN).as_str()));
}

/// A signer without a computation: its signatures are invalid.
struct ConstantSigner(Jwk);

impl ConstantSigner {
    fn new() -> Self {
        Self(SigningKey::generate().unwrap().public_key().clone())
    }
}

impl ProofSigner for ConstantSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Es256
    }

    fn public_key(&self) -> &Jwk {
        &self.0
    }

    async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SigningError> {
        Ok(vec![1; 64])
    }
}

/// C-5: 128 random bits. 10,000 identifiers are all different, and no bit is constant.
#[test]
fn every_jti_is_unique_and_random() {
    let (proof, key) = (orders_proof(), ConstantSigner::new());
    let identifiers: HashSet<[u8; 16]> = (0..10_000)
        .map(|_| {
            let jti = signed(&proof, &key).jti().to_owned();
            URL_SAFE_NO_PAD.decode(jti).unwrap().try_into().unwrap()
        })
        .collect();
    assert_eq!(identifiers.len(), 10_000);
    let (mut ones, mut zeros) = ([0; 16], [0; 16]);
    for identifier in &identifiers {
        for (at, byte) in identifier.iter().enumerate() {
            ones[at] |= byte;
            zeros[at] |= !byte;
        }
    }
    assert_eq!((ones, zeros), ([0xff; 16], [0xff; 16]), "a bit is constant");
}

/// C-6
#[test]
fn htm_is_the_method_unchanged() {
    let key = ConstantSigner::new();
    for method in [
        "GET",
        "get",
        "pAtCh",
        "M-SEARCH",
        "QUERY",
        "!#$%&'*+-.^_`|~",
    ] {
        let proof = signed(&new_proof(method, ORDERS).unwrap(), &key);
        assert_eq!(proof.claim("htm"), Some(method));
    }
}

/// C-7
#[test]
fn htu_is_the_normalised_url() {
    let key = ConstantSigner::new();
    let rows = [
        ("already normalised", ORDERS, ORDERS),
        ("a query", "https://api.example.com/orders?page=2", ORDERS),
        ("an empty query", "https://api.example.com/orders?", ORDERS),
        (
            "a query that looks like a path",
            "https://api.example.com/orders?/../x",
            ORDERS,
        ),
        (
            "a query and no path",
            "https://api.example.com?page=2",
            "https://api.example.com/",
        ),
        (
            "no path",
            "https://api.example.com",
            "https://api.example.com/",
        ),
        (
            "scheme and host in upper case",
            "HTTPS://API.Example.COM/orders",
            ORDERS,
        ),
        (
            "the default port of https",
            "https://api.example.com:443/orders",
            ORDERS,
        ),
        (
            "the default port of http",
            "http://127.0.0.1:80/orders",
            "http://127.0.0.1/orders",
        ),
        (
            "the default port of the other scheme",
            "https://api.example.com:80/orders",
            "https://api.example.com:80/orders",
        ),
        (
            "dot segments",
            "https://api.example.com/a/./b/../../orders",
            ORDERS,
        ),
        (
            "encoded dot segments",
            "https://api.example.com/a/%2e%2E/orders",
            ORDERS,
        ),
        (
            "more dot segments than there are segments",
            "https://api.example.com/../../orders",
            ORDERS,
        ),
        (
            "an encoded letter",
            "https://api.example.com/%6Frders",
            ORDERS,
        ),
        (
            "an encoded tilde",
            "https://api.example.com/%7Ejoe",
            "https://api.example.com/~joe",
        ),
        (
            "an encoded slash is kept, in upper case",
            "https://api.example.com/a%2fb",
            "https://api.example.com/a%2Fb",
        ),
        (
            "a trailing slash is kept",
            "https://api.example.com/orders/",
            "https://api.example.com/orders/",
        ),
        (
            "empty segments are kept",
            "https://api.example.com//a//b",
            "https://api.example.com//a//b",
        ),
        (
            "upper case in the path is kept",
            "https://api.example.com/Orders",
            "https://api.example.com/Orders",
        ),
        (
            "IPv6",
            "https://[2001:DB8:0::1]:8443/",
            "https://[2001:db8::1]:8443/",
        ),
        (
            "a dot after the host is kept",
            "https://api.example.com./",
            "https://api.example.com./",
        ),
    ];
    for (name, url, expected) in rows {
        let proof = signed(&new_proof("GET", url).unwrap(), &key);
        assert_eq!(proof.claim("htu"), Some(expected), "C-7: {name}");
    }
}

/// C-7: `htu` never has userinfo, and a URL that violates RFC 3986 is not corrected.
#[test]
fn rejects_urls_that_cannot_be_an_htu() {
    use InvalidRequestUrl::{NotHttp, Path};
    let rows = [
        ("userinfo", "https://joe:secret@api.example.com/", NotHttp),
        ("empty userinfo", "https://@api.example.com/", NotHttp),
        ("no scheme", "/orders", NotHttp),
        ("only an authority", "api.example.com:443", NotHttp),
        ("an asterisk", "*", NotHttp),
        ("another scheme", "wss://api.example.com/orders", NotHttp),
        (
            "a port with a leading zero",
            "https://api.example.com:0443/",
            NotHttp,
        ),
        ("a bar", "https://api.example.com/a|b", Path),
        ("a bracket", "https://api.example.com/a[0]", Path),
        ("a quote", "https://api.example.com/a\"b", Path),
        ("a brace", "https://api.example.com/{a}", Path),
        (
            "a truncated percent-encoding",
            "https://api.example.com/a%2",
            Path,
        ),
        (
            "an invalid percent-encoding",
            "https://api.example.com/a%zz",
            Path,
        ),
    ];
    for (name, url, expected) in rows {
        assert_eq!(
            new_proof("GET", url).map(|_| ()),
            Err(expected),
            "C-7: {name}"
        );
    }
}

/// C-8
#[test]
fn iat_is_a_whole_number_of_seconds() {
    let key = ConstantSigner::new();
    let rows = [
        ("a fraction", at(NOW) + Duration::from_millis(999), NOW),
        ("before 1970", UNIX_EPOCH - Duration::from_secs(9), 0),
        ("the year 9999", at(253_402_300_799), 253_402_300_799),
    ];
    for (name, time, expected) in rows {
        let signed = block_on(orders_proof().sign(&key, Timestamp::from(time))).unwrap();
        let proof = ReadProof::of(signed.as_header_value());
        assert!(
            proof.payload.contains(&format!(r#""iat":{expected},"#))
                || proof.payload.contains(&format!(r#""iat":{expected}}}"#)),
            "{name}: {}",
            proof.payload
        );
    }
}

/// C-1, C-2, C-15: with our own verifier.
#[test]
fn the_verifier_accepts_each_proof_once() {
    let verifier = verifier_by(|rules| rules.with_algorithms(Algorithms::default()));
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Ed25519] {
        let name = algorithm.name();
        let key = SigningKey::generate_for(algorithm).unwrap();
        let token = access_token(
            &Attempt::but(|a| a.token_claims["cnf"]["jkt"] = key.thumbprint().to_string().into())
                .token(),
        );
        let uri: Uri = "https://API.example.com:443/a/../orders?x=1"
            .parse()
            .unwrap();
        let proof = NewProof::new(&Method::GET, &uri)
            .unwrap()
            .with_access_token(&token);
        let request = || {
            let signed = block_on(proof.sign(&key, now())).unwrap();
            let request = Request::get("/orders?x=1")
                .header("authorization", token.authorization())
                .header("dpop", signed.as_header_value());
            request.body(()).unwrap().into_parts().0
        };
        let one = request();
        assert!(block_on(verifier.verify(&one)).is_ok(), "C-15: {name}");
        assert!(block_on(verifier.verify(&one)).is_err(), "C-2: {name}");
        assert!(block_on(verifier.verify(&request())).is_ok(), "C-2: {name}");
    }
    let plain = "http://api.example.com".parse::<tower_dpop::PublicUrl>();
    assert!(plain.is_err(), "C-1");
}

/// Neither tokens, proofs, nonces nor keys.
#[test]
fn debug_and_errors_show_no_secret() {
    let nonce = "nonce-of-the-server-1234";
    let refresh = "Q..Zkm29lexi8VnWg2zPW1x-tgGad0Ibc3s3EwM_Ni4-g";
    let key = SigningKey::generate().unwrap();
    let private = key.to_jwk().unwrap().as_str().to_owned();
    let private: serde_json::Value = serde_json::from_str(&private).unwrap();
    let jwk = serde_json::to_value(key.public_key()).unwrap();
    let access = access_token(TOKEN);
    let proof = orders_proof()
        .with_access_token(&access)
        .with_nonce(nonce.parse().unwrap());
    let signed: SignedProof = block_on(proof.sign(&key, now())).unwrap();
    let text = signed.as_header_value().to_str().unwrap().to_owned();
    let segments: Vec<&str> = text.split('.').collect();
    let response = TokenResponse::from_json(
        format!(r#"{{"access_token":"{TOKEN}","token_type":"DPoP","refresh_token":"{refresh}","scope":"orders.read"}}"#)
            .as_bytes(),
    )
    .unwrap();
    let challenge = challenges(&[format!(r#"DPoP error="{nonce}", Basic {TOKEN}"#).as_bytes()]);
    let ath = common::ath(TOKEN);
    let thumbprint = key.thumbprint().to_string();
    let mut secrets = vec![TOKEN, nonce, refresh, &ath, &thumbprint];
    secrets.extend(&segments);
    secrets.extend(["x", "y"].map(|member| jwk[member].as_str().unwrap()));
    secrets.push(private["d"].as_str().unwrap());
    let shown: [(&str, &dyn Debug); 15] = [
        ("AccessTokenText", &access),
        ("AccessTokenText::authorization", access.authorization()),
        ("NewProof", &proof),
        ("SignedProof", &signed),
        ("SignedProof::as_header_value", signed.as_header_value()),
        ("TokenResponse", &response),
        ("Challenge", &challenge),
        ("SigningKey", &key),
        ("SecretText", &key.to_jwk().unwrap()),
        ("SecretBytes", &key.to_pkcs8_der().unwrap()),
        ("InvalidRequestUrl", &InvalidRequestUrl::Path),
        ("InvalidTokenResponse", &InvalidTokenResponse::Malformed),
        (
            "InvalidAccessToken",
            &format!("{TOKEN} ").parse::<AccessTokenText>(),
        ),
        ("SigningError", &SigningError::new("timeout")),
        ("TokenSourceError", &TokenSourceError::new("logged out")),
    ];
    for (name, value) in shown {
        assert_shows_nothing(name, &format!("{value:?} {value:#?}"), &secrets);
    }
    let malformed = TokenResponse::from_json(format!(r#"{{"access_token":"{TOKEN}"#).as_bytes());
    let errors: Vec<Box<dyn std::error::Error>> = vec![
        Box::new(malformed.unwrap_err()),
        Box::new(InvalidAccessToken),
        Box::new(InvalidRequestUrl::NotHttp),
        Box::new(ClientError::OtherServer),
        Box::new(ClientError::BodyNotCopyable),
        Box::new(ClientError::Url(InvalidRequestUrl::Path)),
    ];
    for error in errors {
        let text = error.to_string();
        assert_shows_nothing(&text, &format!("{error:?} {text}"), &secrets);
        assert!(error.source().is_none(), "{text}");
        assert!(text.starts_with(char::is_lowercase), "{text}");
    }
}
