//! Clients with given claims, tokens and nonces.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, Request};
use tower::ServiceExt as _;
use tower_dpop::jose::SigningKey;
use tower_dpop::resource::BindingError;
use tower_dpop::testing::{Defect, TestClient, TestClock, assert_protected, sign_jws};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{ProofRules, Thumbprint, Timestamp, Verifier};

use common::block_on;

use super::{ORDERS, app, issuer, nonces, public_url, verifier_by, verify};

#[test]
fn the_claims_of_a_client_are_in_its_tokens() {
    let issuer = issuer();
    let client = TestClient::new(&issuer)
        .with_claim("scope", "orders.read")
        .with_claim("sub", "bob");
    let token = client.request(Method::GET, ORDERS).token();
    let verified = block_on(
        issuer
            .jwt_verifier()
            .verify(PresentedToken::new(&token), issuer.clock().now()),
    )
    .unwrap();
    assert!(verified.claims().has_scope("orders.read"));
    assert_eq!(verified.claims().subject(), Some("bob"));
}

/// Accepts one opaque token, bound to this key. The test issuer makes no opaque tokens.
struct OpaqueVerifier(Thumbprint);

impl AccessTokenVerifier for OpaqueVerifier {
    type Claims = ();

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<()>, TokenError> {
        if token.as_str() == "opaque-token" {
            Ok(AccessToken::new(Confirmation::Thumbprint(self.0), ()))
        } else {
            Err(TokenError::Invalid)
        }
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

#[test]
fn a_given_token_has_no_defects_of_issued_tokens() {
    let client = TestClient::without_issuer(TestClock::default()).with_token("opaque-token");
    let request = client.request(Method::GET, ORDERS);
    let defects: BTreeSet<Defect> = request.defects().collect();
    assert!(defects.contains(&Defect::StolenToken) && defects.contains(&Defect::NoAth));
    assert!(!defects.contains(&Defect::TokenExpired) && !defects.contains(&Defect::UnboundToken));
    let verifier = Verifier::new(
        ProofRules::new(public_url()).with_clock(TestClock::default().read()),
        OpaqueVerifier(client.key().thumbprint()),
    );
    let app = app(verifier);
    block_on(assert_protected(
        &request,
        async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
    ));
}

/// A nonce from the source itself, and a token from `sign_jws`.
#[test]
fn a_client_uses_a_nonce_and_a_token_made_by_the_test() {
    let issuer = issuer();
    let verifier = verifier_by(&issuer, |rules| rules.with_nonces(nonces()));
    let key = SigningKey::generate().unwrap();
    let nonce = verifier.issue_nonce().unwrap();
    let client = TestClient::new(&issuer)
        .with_key(key.clone())
        .with_nonce(nonce.as_str());
    assert_eq!(
        verify(&verifier, &client.request(Method::GET, ORDERS)),
        Ok(())
    );

    let thief = SigningKey::generate().unwrap();
    let stolen = issuer.token_for(key.thumbprint());
    let stolen = sign_jws(&stolen.key, &stolen.header, &stolen.claims);
    let thief = client.with_key(thief).with_token(stolen);
    assert_eq!(
        verify(&verifier, &thief.request(Method::GET, ORDERS)),
        Err(BindingError::OtherKey.into())
    );
}
