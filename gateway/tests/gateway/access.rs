//! What routes require of a token, and where tokens are from.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::CredentialsError;
use tower_dpop::testing::{TestClient, TestIssuer, TestRequest};
use tower_dpop::tokens::TokenError;

use crate::decisions::response;
use crate::support::{Gateway, PUBLIC_URL, Parties, Service};

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn a_route_may_require_scopes_and_how_the_user_was_authenticated() {
    let routes = r#"
        [[route]]
        path = "/all"
        upstream = "service"
        scopes = "read write"
        [[route]]
        path = "/any"
        upstream = "service"
        any_scope = "read admin"
        [[route]]
        path = "/strong"
        upstream = "service"
        acr_values = "gold silver"
        [[route]]
        path = "/recent"
        upstream = "service"
        max_age_seconds = 300
        [[route]]
        path = "/step-up"
        upstream = "service"
        scopes = "write"
        acr_values = "gold"
        max_age_seconds = 300
    "#;
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(routes)).start();
    let scope = |scope: &str| json!({ "scope": scope });
    let issued = parties.request(Method::GET, "/").token_claims["iat"]
        .as_u64()
        .unwrap();
    let rows = [
        ("/all", json!({}), Some("insufficient_scope")),
        ("/all", scope("read"), Some("insufficient_scope")),
        ("/all", scope("write admin read"), None),
        ("/all", json!({ "scope": ["read", "write"] }), None),
        ("/any", scope("write"), Some("insufficient_scope")),
        ("/any", scope("admin"), None),
        (
            "/strong",
            json!({}),
            Some("insufficient_user_authentication"),
        ),
        (
            "/strong",
            json!({ "acr": "bronze" }),
            Some("insufficient_user_authentication"),
        ),
        ("/strong", json!({ "acr": "silver" }), None),
        (
            "/recent",
            json!({}),
            Some("insufficient_user_authentication"),
        ),
        (
            "/recent",
            json!({ "auth_time": issued - 3000 }),
            Some("insufficient_user_authentication"),
        ),
        ("/recent", json!({ "auth_time": issued }), None),
        (
            "/step-up",
            json!({ "acr": "gold", "auth_time": issued }),
            Some("insufficient_scope"),
        ),
        (
            "/step-up",
            json!({ "acr": "gold", "auth_time": issued - 3000, "scope": "write" }),
            Some("insufficient_user_authentication"),
        ),
        (
            "/step-up",
            json!({ "acr": "gold", "auth_time": issued, "scope": "write" }),
            None,
        ),
    ];
    for (path, claims, error) in rows {
        let mut request = parties.request(Method::GET, path);
        let received = service.received().len();
        request
            .token_claims
            .as_object_mut()
            .unwrap()
            .remove("scope");
        for (name, value) in claims.as_object().unwrap() {
            request.token_claims[name] = value.clone();
        }
        let name = format!("{path} {claims}");
        let response = response(&gateway, &request).await;
        match error {
            None => response.assert_passed(&name),
            Some("insufficient_scope") => response.assert_rejected(&name, 403, error),
            Some(_) => response.assert_rejected(&name, 401, error),
        }
        assert_eq!(
            service.received().len() - received,
            usize::from(error.is_none()),
            "{name}"
        );
        if error == Some("insufficient_user_authentication") && path == "/strong" {
            assert_eq!(response.parameter("acr_values"), Some("gold silver"));
        }
    }
}

/// A proof is used up by one route for all of them.
#[tokio::test]
async fn routes_with_other_access_share_the_replay_store() {
    let routes = r#"
        [[route]]
        path = "/bearer"
        upstream = "service"
        access = "allow-bearer"
        [[route]]
        path = "/dpop"
        upstream = "service"
    "#;
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(routes)).start();
    let bearer = |path| parties.request(Method::GET, path).as_bearer();
    response(&gateway, &bearer("/bearer"))
        .await
        .assert_passed("bearer");
    let rejected = response(&gateway, &bearer("/dpop")).await;
    rejected.assert_reason("bearer elsewhere", CredentialsError::Bearer);

    let mut first = parties.request(Method::GET, "/bearer");
    first.proof_claims["jti"] = json!("one proof");
    response(&gateway, &first).await.assert_passed("dpop");
    let mut second = parties.request(Method::GET, "/dpop");
    second.proof_claims["jti"] = json!("one proof");
    let replayed = response(&gateway, &second).await;
    replayed.assert_reason("again elsewhere", ProofError::Replayed);
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    url
}

/// An issuer with metadata and keys at its own URL.
async fn discoverable() -> (String, Arc<Mutex<String>>) {
    let keys: Arc<Mutex<String>> = Arc::default();
    let served = Arc::clone(&keys);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
    let other = metadata.clone();
    let app = Router::new()
        .route(
            "/.well-known/oauth-authorization-server",
            get(async move || json_of(&metadata)),
        )
        .route(
            "/.well-known/openid-configuration",
            get(async move || json_of(&other)),
        )
        .route("/keys", get(async move || served.lock().unwrap().clone()));
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (url, keys)
}

const ROUTE: &str = "[[route]]\npath = \"/\"\nupstream = \"service\"\n[[identity]]\nclaim = \"/realm_access/roles\"\nfield = \"X-Roles\"\nencoding = \"json\"\n";

/// With threads: the test waits for the gateway, which waits for the issuer.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_several_issuers_are_each_verified_by_their_own_keys() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let clock = parties.issuer.clock().clone();
    let keycloak =
        TestIssuer::new("https://id.example.com/realms/shop", "orders").with_clock(clock.clone());
    let (url, keys) = discoverable().await;
    let discovered = TestIssuer::new(&url, PUBLIC_URL).with_clock(clock.clone());
    *keys.lock().unwrap() = discovered.jwks();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keycloak.json");
    std::fs::write(&file, keycloak.jwks()).unwrap();
    let issuers = format!(
        "[[dpop.issuer]]\nurl = \"https://id.example.com/realms/shop\"\nprofile = \"keycloak\"\naudience = \"orders\"\njwks_file = {file:?}\n[[dpop.issuer]]\nurl = \"{url}\"\ninsecure_http = true\n"
    );
    let config = service.behind(&format!("{ROUTE}{issuers}"));
    let gateway = Gateway::new(&parties, &config).start();
    let request_of = |issuer: &TestIssuer| -> TestRequest {
        TestClient::new(issuer).request(Method::GET, &format!("{PUBLIC_URL}/"))
    };
    for (name, issuer) in [("a file", &parties.issuer), ("discovered", &discovered)] {
        let request = request_of(issuer);
        response(&gateway, &request).await.assert_passed(name);
        // Its key is not one of another issuer.
        let mut forged = request.again();
        forged.token_claims["iss"] = json!("https://id.example.com/realms/shop");
        forged.token_claims["aud"] = json!("orders");
        let rejected = response(&gateway, &forged).await;
        rejected.assert_rejected(name, 401, Some("invalid_token"));
    }
    // As Keycloak writes them.
    let mut request = request_of(&keycloak);
    request.token_header["typ"] = json!("JWT");
    request.token_claims["typ"] = json!("DPoP");
    request.token_claims["realm_access"] = json!({ "roles": ["buyer"] });
    response(&gateway, &request).await.assert_passed("keycloak");
    assert_eq!(
        service.received().last().unwrap().0.headers["x-roles"],
        r#"["buyer"]"#
    );
    let mut id_token = request.again();
    id_token.token_claims["typ"] = json!("ID");
    response(&gateway, &id_token)
        .await
        .assert_reason("an ID token", TokenError::Type);
    let stranger = TestIssuer::new("https://stranger.example", PUBLIC_URL).with_clock(clock);
    let rejected = response(&gateway, &request_of(&stranger)).await;
    rejected.assert_reason("a stranger", TokenError::Issuer);
}

#[derive(Clone)]
struct Introspection {
    /// The response to the token `opaque`.
    response: Value,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

async fn introspect(
    State(server): State<Introspection>,
    headers: HeaderMap,
    form: String,
) -> ([(&'static str, &'static str); 1], String) {
    server.asked.lock().unwrap().push(headers);
    let known = form.split('&').any(|pair| pair == "token=opaque");
    let inactive = json!({ "active": false });
    json_of(if known { &server.response } else { &inactive })
}

fn json_of(value: &Value) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "application/json")], value.to_string())
}

#[tokio::test]
async fn opaque_tokens_are_introspected_with_a_secret_from_the_environment() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let key = SigningKey::generate().unwrap();
    let server = Introspection {
        response: json!({
            "active": true,
            "sub": "bob",
            "client_id": "app",
            "aud": PUBLIC_URL,
            "scope": "read",
            "realm_access": { "roles": ["auditor"] },
            "cnf": { "jkt": key.thumbprint() },
        }),
        asked: Arc::default(),
    };
    let app = Router::new()
        .route("/introspect", post(introspect))
        .with_state(server.clone());
    let url = serve(app).await;
    let introspection = format!(
        "[dpop.introspection]\nurl = \"{url}/introspect\"\nclient_id = \"gateway\"\nclient_secret = {{ env = \"INTROSPECTION_SECRET\" }}\ninsecure_http = true\n"
    );
    let config = service.behind(&format!(
        "{ROUTE}[[identity]]\nclaim = \"sub\"\nfield = \"X-Subject\"\n{introspection}"
    ));
    let gateway = Gateway::new(&parties, &config)
        .with_environment("INTROSPECTION_SECRET", "correct horse battery staple")
        .start();
    let client = TestClient::new(&parties.issuer).with_key(key.clone());
    let opaque = |token: &str| {
        let client = client.clone().with_token(token);
        client.request(Method::GET, &format!("{PUBLIC_URL}/"))
    };
    response(&gateway, &opaque("opaque"))
        .await
        .assert_passed("opaque");
    let (head, _) = service.received().pop().unwrap();
    assert_eq!(head.headers["x-subject"], "bob");
    assert_eq!(head.headers["x-roles"], r#"["auditor"]"#);
    {
        let asked = server.asked.lock().unwrap();
        // `gateway:correct+horse+battery+staple`
        let expected = "Basic Z2F0ZXdheTpjb3JyZWN0K2hvcnNlK2JhdHRlcnkrc3RhcGxl";
        assert_eq!(asked[0]["authorization"], expected);
    }
    let unknown = response(&gateway, &opaque("unknown")).await;
    unknown.assert_reason("unknown", TokenError::Invalid);
    let stolen = client
        .clone()
        .with_key(SigningKey::generate().unwrap())
        .with_token("opaque");
    let stolen = stolen.request(Method::GET, &format!("{PUBLIC_URL}/"));
    let rejected = response(&gateway, &stolen).await;
    rejected.assert_rejected("stolen", 401, Some("invalid_token"));
    // JWTs of the issuer are verified here.
    let asked = server.asked.lock().unwrap().len();
    let jwt = parties.request(Method::GET, "/");
    response(&gateway, &jwt).await.assert_passed("a JWT");
    assert_eq!(server.asked.lock().unwrap().len(), asked);
}
