//! Which requests reach the service.

use http::Method;

use crate::support::{Gateway, Parties, Service};

#[tokio::test]
async fn only_a_request_with_a_valid_proof_reaches_the_service() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        [upstream.orders]
        servers = ["{}"]
        [[route]]
        path = "/"
        upstream = "orders"
        [[identity]]
        claim = "sub"
        field = "X-Auth-Subject"
        "#,
        service.url
    );
    let gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::GET, "/orders");
    for defect in request.defects() {
        let response = gateway.send(&request.again().with_defect(defect)).await;
        assert!(
            response.status().is_client_error(),
            "{defect:?}: {}",
            response.status()
        );
    }
    assert!(service.received().is_empty());
    assert_eq!(gateway.send(&request).await.status(), 200);
    let [(head, _)] = &service.received()[..] else {
        panic!("expected one request");
    };
    assert!(head.headers.contains_key("x-auth-subject"));
    assert!(!head.headers.contains_key("authorization"));
    assert_eq!(gateway.send(&request).await.status(), 401);
}
