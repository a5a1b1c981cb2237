//! The issuer's keys and tokens.

use http::Method;
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{TestClient, TestIssuer, TestToken};
use tower_dpop::tokens::{AccessTokenVerifier as _, Confirmation, PresentedToken, TokenError};

use common::{AUDIENCE, block_on};

use super::{ORDERS, issuer, verifier, verify};

#[test]
fn an_issuer_rotates_its_keys() {
    let first = issuer();
    let second = first.clone().add_key("2", SigningKey::generate().unwrap());
    let third = second
        .clone()
        .with_key("3", SigningKey::generate().unwrap());
    let issuers = [first, second, third];
    let passes = |signer: &TestIssuer, verifying: &TestIssuer| {
        let request = TestClient::new(signer).request(Method::GET, ORDERS);
        verify(&verifier(verifying), &request)
    };
    let unknown = || Err(TokenError::Key.into());
    let rows = [
        ("before the rotation", [Ok(()), unknown(), unknown()]),
        ("while both are published", [Ok(()), Ok(()), unknown()]),
        (
            "after both keys were replaced",
            [unknown(), unknown(), Ok(())],
        ),
    ];
    for ((name, expected), verifying) in rows.into_iter().zip(&issuers) {
        let found = issuers.each_ref().map(|signer| passes(signer, verifying));
        assert_eq!(found, expected, "{name}");
    }
    let kids = |issuer: &TestIssuer| ["1", "2", "3"].map(|kid| issuer.key_set().has_kid(kid));
    assert_eq!(
        issuers.each_ref().map(kids),
        [
            [true, false, false],
            [true, true, false],
            [false, false, true]
        ]
    );
}

#[test]
fn every_part_of_a_token_can_be_changed() {
    type Change = fn(TestToken) -> TestToken;
    let rows: [(&str, Change, Option<TokenError>); 9] = [
        ("nothing", |t| t, None),
        ("an added claim", |t| t.with_claim("tenant", 7), None),
        (
            "two audiences",
            |t| t.with_claim("aud", [AUDIENCE, "https://another.example"]),
            None,
        ),
        (
            "a removed claim",
            |t| t.without_claim("iss"),
            Some(TokenError::Issuer),
        ),
        (
            "a member of the header",
            |t| t.with_header("typ", "JWT"),
            Some(TokenError::Type),
        ),
        (
            "a removed member of the header",
            |t| t.without_header("typ"),
            Some(TokenError::Type),
        ),
        (
            "a removed claim that was not there",
            |t| t.without_claim("absent"),
            None,
        ),
        (
            "another key",
            |t| t.signed_by(SigningKey::generate().unwrap()),
            Some(TokenError::Signature),
        ),
        (
            "the field of the claims",
            |mut t| {
                t.claims["exp"] = 1.into();
                t
            },
            Some(TokenError::Expired),
        ),
    ];
    let issuer = issuer();
    let key = SigningKey::generate().unwrap();
    for (name, change, rejected) in rows {
        let token = change(issuer.token_for(key.thumbprint())).to_text();
        let verified = block_on(
            issuer
                .jwt_verifier()
                .verify(PresentedToken::new(&token), issuer.clock().now()),
        );
        assert_eq!(verified.as_ref().err(), rejected.as_ref(), "{name}");
        if let Ok(verified) = verified {
            let bound_to = Confirmation::Thumbprint(key.thumbprint());
            assert_eq!(verified.confirmation(), bound_to, "{name}");
        }
    }
}
