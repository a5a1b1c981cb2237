//! The layer for the authorization server: the client's own authentication, and every grant.

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

use super::{Answered, Kind, Server, TOKEN_URL, ask, collected, key, ok, url};

/// C-9, C-12: at the token endpoint there is no token, and the client's authentication stays.
#[test]
fn a_token_request_goes_out_with_a_proof_and_its_own_authentication() {
    let rows: [(&str, &[&str], &[&str]); 10] = [
        ("none", &[], &[]),
        ("Basic", &["Basic YTpi"], &["Basic YTpi"]),
        ("Bearer", &["Bearer x"], &["Bearer x"]),
        ("DPoP", &["DPoP x"], &[]),
        ("DPoP in another case", &["dpOp x"], &[]),
        ("DPoP behind a blank", &[" \tDPoP x"], &[]),
        ("DPoP before a tab", &["DPoP\tx"], &[]),
        ("DPoP alone", &["DPoP"], &[]),
        ("both", &["Basic YTpi", "DPoP x"], &["Basic YTpi"]),
        ("a longer scheme", &["DPoPlus x"], &["DPoPlus x"]),
    ];
    for (name, given, expected) in rows {
        let server = Server::new(|_, _| ok());
        let mut request = Kind::Token.request();
        request.headers_mut().append("dpop", field(b"one"));
        for value in given {
            let value = field(value.as_bytes());
            request.headers_mut().append("authorization", value);
        }
        ask(&Kind::Token.client(&server), request);
        let [head] = server.seen().try_into().unwrap();
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

/// An authorization server of a few lines: `grant`, `dpop_jkt` and `bound` come as fields, because
/// forms are not what is tested.
fn authorization_server(
    nonces: bool,
) -> impl Service<Request<String>, Response = Answered, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let mut rules = ProofRules::new(url(ISSUER)).with_clock(|| at(NOW));
    if nonces {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let endpoint = Arc::new(TokenEndpoint::new(rules));
    let rejecting = Arc::clone(&endpoint);
    let grants = service_fn(move |request: Request<String>| {
        let rejecting = Arc::clone(&rejecting);
        async move {
            let key: &ProvenKey = request.extensions().get().unwrap();
            let text = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap());
            let bound = |name: &str| text(name).map(|jkt| jkt.parse::<Thumbprint>().unwrap());
            let outcome = check_code_binding(Some(key), bound("x-dpop-jkt"))
                .and_then(|()| check_refresh_binding(Some(key), bound("x-bound")));
            if let Err(rejection) = outcome {
                return Ok::<_, Infallible>(rejecting.reject::<String>(rejection));
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

/// C-12, C-13, C-14, C-26, C-27: the whole way, against our own servers.
#[test]
fn a_client_gets_a_token_refreshes_it_and_uses_it() {
    for nonces in [false, true] {
        let server = authorization_server(nonces);
        let key = key();
        let jkt = key.thumbprint().to_string();
        let tokens = |key: &SigningKey| {
            TokenClientLayer::new(key.clone(), url(ISSUER))
                .with_clock(|| at(NOW))
                .layer(server.clone())
                .and_then(collected)
        };
        let request = |headers: &[(&'static str, &str)]| {
            let mut request = Request::post(TOKEN_URL).body(String::new()).unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            request
        };
        let mine = tokens(&key);
        let rows = [
            ("C-12: any grant", vec![], 200),
            (
                "C-26: a code bound by dpop_jkt",
                vec![("x-dpop-jkt", jkt.as_str())],
                200,
            ),
            (
                "C-14: refreshed with the same key",
                vec![("x-bound", jkt.as_str())],
                200,
            ),
        ];
        for (name, headers, status) in &rows {
            let response = block_on(mine.clone().oneshot(request(headers))).unwrap();
            assert_eq!(response.status(), *status, "{name}");
            let granted = TokenResponse::from_json(response.body()).unwrap();
            let api = DpopLayer::new(verifier()).layer(service_fn(async |_: Request<String>| {
                Ok::<_, Infallible>(Response::new(()))
            }));
            let api =
                DpopClientLayer::new(key.clone(), granted.access_token().clone(), url(AUDIENCE))
                    .with_clock(|| at(NOW))
                    .layer(api);
            let response = block_on(api.oneshot(Kind::Resource.request())).unwrap();
            assert_eq!(response.status(), 200, "C-13: {name}");
        }
        // Another key has a good proof, and no right to what is bound to the first.
        let other = tokens(&SigningKey::generate().unwrap());
        for (name, headers, _) in &rows[1..] {
            let response = block_on(other.clone().oneshot(request(headers))).unwrap();
            assert_eq!(response.status(), 400, "{name}");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["error"], "invalid_grant", "{name}");
        }
        // C-27: a pushed authorization request has a proof by the same layer.
        let pushed = Request::post("https://as.example.com/par")
            .body(String::new())
            .unwrap();
        let response = block_on(mine.oneshot(pushed)).unwrap();
        assert_eq!(response.status(), 200, "C-27");
    }
}
