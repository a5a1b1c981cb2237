//! The layer for the authorization server: the client's own authentication, and each kind of
//! request.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::client::{DpopClientLayer, TokenClientLayer, TokenResponse};
use tower_dpop::jose::SigningKey;
use tower_dpop::token_endpoint::{
    ProvenKey, TOKEN_TYPE, TokenEndpoint, TokenEndpointLayer, check_code_binding,
    check_refresh_binding,
};
use tower_dpop::{DpopLayer, NonceSecret, ProofRules, StatelessNonces, Thumbprint};

use common::proofs::{ReadProof, names};
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, NOW, at, block_on, field, verifier};

use super::{MockResponse, MockServer, ServerKind, TOKEN_URL, collect_body, key, ok, send, url};

/// C-9, C-12: but no access token is sent, and the proof has no `ath`.
#[test]
fn a_token_request_keeps_the_clients_own_authentication() {
    let rows: [(&str, &[&str], &[&str]); 10] = [
        ("none", &[], &[]),
        ("Basic", &["Basic YTpi"], &["Basic YTpi"]),
        ("Bearer", &["Bearer x"], &["Bearer x"]),
        ("DPoP", &["DPoP x"], &[]),
        ("DPoP in mixed case", &["dpOp x"], &[]),
        ("DPoP after blanks", &[" \tDPoP x"], &[]),
        ("DPoP before a tab", &["DPoP\tx"], &[]),
        ("DPoP alone", &["DPoP"], &[]),
        ("both", &["Basic YTpi", "DPoP x"], &["Basic YTpi"]),
        ("a longer scheme", &["DPoPlus x"], &["DPoPlus x"]),
    ];
    for (name, given, expected) in rows {
        let server = MockServer::new(|_, _| ok());
        let mut request = ServerKind::Token.request();
        request.headers_mut().append("dpop", field(b"one"));
        for value in given {
            let value = field(value.as_bytes());
            request.headers_mut().append("authorization", value);
        }
        send(&ServerKind::Token.client(&server), request);
        let [head] = server.requests().try_into().unwrap();
        let sent: Vec<_> = head.headers.get_all("authorization").iter().collect();
        assert_eq!(sent, expected, "{name}");
        let proof = ReadProof::in_headers(&head.headers);
        proof.assert_signed(name);
        assert_eq!(
            names(&proof.claims),
            ["htm", "htu", "iat", "jti"].into(),
            "C-9: {name}"
        );
        assert_eq!(proof.claim("htu"), Some(TOKEN_URL), "{name}");
    }
}

/// A minimal authorization server. `dpop_jkt` and the key of a refresh token are header fields, not
/// form parameters.
fn authorization_server(
    nonces: bool,
) -> impl Service<Request<String>, Response = MockResponse, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let mut rules = ProofRules::new(url(ISSUER)).with_clock(|| at(NOW));
    if nonces {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let endpoint = Arc::new(TokenEndpoint::new(rules));
    let shared = Arc::clone(&endpoint);
    let grants = service_fn(move |request: Request<String>| {
        let endpoint = Arc::clone(&shared);
        async move {
            let key: &ProvenKey = request.extensions().get().unwrap();
            let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap());
            let thumbprint =
                |name: &str| header(name).map(|jkt| jkt.parse::<Thumbprint>().unwrap());
            let binding = check_code_binding(Some(key), thumbprint("x-dpop-jkt"))
                .and_then(|()| check_refresh_binding(Some(key), thumbprint("x-bound")));
            if let Err(rejection) = binding {
                return Ok::<_, Infallible>(endpoint.reject::<String>(rejection));
            }
            let jkt = key.thumbprint().to_string();
            let token = Attempt::but(|a| a.token_claims["cnf"]["jkt"] = jkt.into()).token();
            let granted = json!({ "access_token": token, "token_type": TOKEN_TYPE });
            Ok(Response::new(granted.to_string()))
        }
    });
    TokenEndpointLayer::new(endpoint)
        .layer(grants)
        .map_response(|response| response.map(Full::from))
}

/// C-12, C-13, C-14, C-26, C-27: with our own servers.
#[test]
fn a_client_gets_a_token_refreshes_it_and_uses_it() {
    for nonces in [false, true] {
        let server = authorization_server(nonces);
        let key = key();
        let jkt = key.thumbprint().to_string();
        let client_with = |key: &SigningKey| {
            TokenClientLayer::new(key.clone(), url(ISSUER))
                .with_clock(|| at(NOW))
                .layer(server.clone())
                .and_then(collect_body)
        };
        let request = |headers: &[(&'static str, &str)]| {
            let mut request = Request::post(TOKEN_URL).body(String::new()).unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            request
        };
        let client = client_with(&key);
        let rows = [
            ("C-12: any grant", vec![], 200),
            (
                "C-26: a code bound by dpop_jkt",
                vec![("x-dpop-jkt", jkt.as_str())],
                200,
            ),
            (
                "C-14: a refresh with the same key",
                vec![("x-bound", jkt.as_str())],
                200,
            ),
        ];
        for (name, headers, status) in &rows {
            let response = block_on(client.clone().oneshot(request(headers))).unwrap();
            assert_eq!(response.status(), *status, "{name}");
            let granted = TokenResponse::from_json(response.body()).unwrap();
            let api = DpopLayer::new(verifier()).layer(service_fn(async |_: Request<String>| {
                Ok::<_, Infallible>(Response::new(()))
            }));
            let api =
                DpopClientLayer::new(key.clone(), granted.access_token().clone(), url(AUDIENCE))
                    .with_clock(|| at(NOW))
                    .layer(api);
            let response = block_on(api.oneshot(ServerKind::Resource.request())).unwrap();
            assert_eq!(response.status(), 200, "C-13: {name}");
        }
        // The proof is valid, but the code and the refresh token are bound to the first key.
        let other_client = client_with(&SigningKey::generate().unwrap());
        for (name, headers, _) in &rows[1..] {
            let response = block_on(other_client.clone().oneshot(request(headers))).unwrap();
            assert_eq!(response.status(), 400, "{name}");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["error"], "invalid_grant", "{name}");
        }
        // C-27: a pushed authorization request gets a proof from the same layer.
        let pushed = Request::post("https://as.example.com/par")
            .body(String::new())
            .unwrap();
        let response = block_on(client.oneshot(pushed)).unwrap();
        assert_eq!(response.status(), 200, "C-27");
    }
}
