//! The claims of an access token.

use common::{Attempt, AttemptExt as _, NOW};

#[test]
fn the_claims_are_read_from_the_token() {
    let token = Attempt::good().outcome().token.unwrap();
    let claims = token.claims();
    assert_eq!(
        (claims.subject(), claims.client_id()),
        ("alice", Some("app"))
    );
    assert_eq!(
        claims.scopes().collect::<Vec<_>>(),
        ["orders.read", "orders.write"]
    );
    assert!(claims.has_scope("orders.read") && !claims.has_scope("orders"));
    assert_eq!(claims.claim::<String>("jti").as_deref(), Some("token-1"));
    assert_eq!(claims.claim::<u64>("jti"), None);
    assert_eq!(token.expires().unwrap().as_unix(), NOW + 600);
}
