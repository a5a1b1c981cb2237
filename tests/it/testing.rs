//! The kit with which users test their services, tested as they use it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::{Debug, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{
    IatError, NonceError, NonceSource as _, ProofError, ReplayStoreError, TargetError,
};
use tower_dpop::resource::{AuthorizationError, BearerError, BindingError, CredentialsError};
use tower_dpop::testing::{
    Defect, TestClient, TestClock, TestIssuer, TestRequest, TestResponse, TestToken,
    assert_protected, assert_token_endpoint_protected, sign_jws,
};
use tower_dpop::token_endpoint::{
    DpopJktError, GrantBindingError, TokenEndpoint, TokenEndpointLayer, TokenRequestRejection,
};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, DpopLayer, Freshness, NonceSecret, ProofRules, PublicUrl, Rejection,
    StatelessNonces, Thumbprint, Timestamp, Verifier,
};

const ISSUER: &str = "https://as.example.com";
const API: &str = "https://api.example.com";
const ORDERS: &str = "https://api.example.com/orders?page=2";

fn issuer() -> TestIssuer {
    TestIssuer::new(ISSUER, API)
}

fn public_url() -> PublicUrl {
    API.parse().unwrap()
}

fn verifier(issuer: &TestIssuer) -> Verifier {
    verifier_by(issuer, |rules| rules)
}

fn verifier_by(issuer: &TestIssuer, change: impl FnOnce(ProofRules) -> ProofRules) -> Verifier {
    let rules = ProofRules::new(public_url()).with_clock(issuer.clock().read());
    Verifier::new(change(rules), issuer.jwt_verifier())
}

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::generate())
}

fn app<C: Send + Sync + 'static>(verifier: Verifier<C>) -> Router {
    Router::new()
        .route("/orders", get(async || "orders").post(async || "ordered"))
        .layer(DpopLayer::new(verifier))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn verify<C: Send + Sync + 'static>(
    verifier: &Verifier<C>,
    request: &TestRequest,
) -> Result<(), Rejection> {
    let (head, ()) = request.build().into_parts();
    block_on(verifier.verify(&head)).map(|_| ())
}

/// The rows of the table in the docs, as the code has them.
fn table() -> Vec<String> {
    let row = |defect: &Defect| {
        let rejection = defect.rejection();
        let error = rejection
            .error_code()
            .map_or_else(|| "none".to_owned(), |error| format!("`{error}`"));
        let status = rejection.status().as_u16();
        format!("/// | [`{defect:?}`](Self::{defect:?}) | {status} | {error} | `{rejection:?}` |")
    };
    Defect::ALL.iter().map(row).collect()
}

#[test]
fn the_table_of_the_docs_is_what_the_code_says() {
    let documented: Vec<&str> = include_str!("../../src/testing/defect.rs")
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("/// | [`"))
        .collect();
    let table = table().join("\n");
    assert_eq!(
        documented.join("\n"),
        table,
        "the table ought to be:\n{table}"
    );
}

#[test]
fn each_defect_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Defect::ALL.iter().map(|defect| defect.name()).collect();
    assert_eq!(names.len(), Defect::ALL.len());
}

/// Each defect is rejected for exactly its reason; the same request without it, same `jti` and all,
/// passes.
fn assert_one_thing_wrong(
    name: &str,
    verifier: &Verifier,
    client: &TestClient,
    method: &Method,
    url: &str,
) {
    let made: BTreeSet<Defect> = client.request(method.clone(), url).defects().collect();
    for defect in &made {
        let good = client.request(method.clone(), url);
        let rejected = verify(verifier, &good.clone().with_defect(*defect));
        assert_eq!(
            rejected,
            Err(good.rejection_of(*defect)),
            "{name}: {defect}"
        );
        assert_eq!(verify(verifier, &good), Ok(()), "{name}, without: {defect}");
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong() {
    let issuer = issuer();
    let nonces = nonces();
    let without = verifier(&issuer);
    let with = verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone()));
    let client = TestClient::new(&issuer);
    let asked = client.request(Method::GET, ORDERS).build::<()>();
    let (head, ()) = asked.into_parts();
    let demand: Response<String> = with.reject(block_on(with.verify(&head)).unwrap_err());
    let given = TestResponse::of(&demand).nonces.pop().unwrap();
    let rows = [
        ("no nonces", &without, client.clone()),
        ("a nonce", &with, client.clone().with_nonce(given)),
        ("a source of nonces", &with, client.with_nonces(nonces)),
    ];
    let count = |client: &TestClient| client.request(Method::GET, ORDERS).defects().count();
    assert_eq!(
        rows.each_ref().map(|(_, _, client)| count(client)),
        [4, 2, 0].map(|fewer| Defect::ALL.len() - fewer)
    );
    for (name, verifier, client) in &rows {
        assert_one_thing_wrong(name, verifier, client, &Method::GET, ORDERS);
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong_with_every_request() {
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let verifier = verifier(&issuer);
    for (method, url) in [
        ("POST", API),
        ("QUERY", "https://api.example.com:443/a/%7Eb/"),
    ] {
        let sent: Method = method.parse().unwrap();
        assert_one_thing_wrong(method, &verifier, &client, &sent, url);
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong_under_every_public_url() {
    let issuer = issuer();
    for url in [
        "https://example.com/prefix",
        "https://[::1]:8443",
        "http://127.0.0.1:80",
        "http://localhost:8443/a/b",
    ] {
        let public_url = PublicUrl::http_on_loopback(url).unwrap();
        let verifier = Verifier::new(
            ProofRules::new(public_url).with_clock(issuer.clock().read()),
            issuer.jwt_verifier(),
        );
        let client = TestClient::new(&issuer);
        for defect in client.request(Method::GET, url).defects() {
            let mut good = client.request(Method::GET, &format!("{url}/orders"));
            good.uri = "/orders".into(); // as a proxy leaves it that strips the prefix
            let rejected = verify(&verifier, &good.clone().with_defect(defect));
            assert_eq!(rejected, Err(defect.rejection()), "{url}: {defect}");
            assert_eq!(verify(&verifier, &good), Ok(()), "{url}, without: {defect}");
        }
    }
}

/// A key for the algorithm. RSA keys take long to make, so there is one.
fn key_for(algorithm: Algorithm) -> SigningKey {
    static RSA: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate_for(Algorithm::Ps256).unwrap());
    if algorithm.name().starts_with(['P', 'R']) {
        RSA.clone().with_algorithm(algorithm).unwrap()
    } else {
        SigningKey::generate_for(algorithm).unwrap()
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong_with_every_algorithm() {
    let every_algorithm: Algorithms =
        "ES256 ES384 ES512 Ed25519 EdDSA PS256 PS384 PS512 RS256 RS384 RS512"
            .parse()
            .unwrap();
    let issuer = issuer();
    let verifier = verifier_by(&issuer, |rules| rules.with_algorithms(every_algorithm));
    for algorithm in every_algorithm.iter() {
        let client = TestClient::new(&issuer).with_key(key_for(algorithm));
        assert_one_thing_wrong(algorithm.name(), &verifier, &client, &Method::GET, ORDERS);
    }
}

/// RSASSA-PSS draws random numbers: token and hash still belong together.
#[test]
fn each_defect_is_the_only_thing_wrong_with_other_keys_of_the_issuer() {
    for algorithm in [Algorithm::Ps256, Algorithm::Ed25519] {
        let issuer = issuer().with_key("1", key_for(algorithm));
        let client = TestClient::new(&issuer);
        let verifier = verifier(&issuer);
        assert_one_thing_wrong(algorithm.name(), &verifier, &client, &Method::GET, ORDERS);
    }
}

#[test]
fn a_router_rejects_each_defect() {
    let issuer = issuer();
    let nonces = nonces();
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone())),
            TestClient::new(&issuer).with_nonces(nonces),
        ),
    ] {
        let app = app(verifier);
        let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
        block_on(async {
            for method in [Method::GET, Method::POST] {
                assert_protected(&client.request(method, ORDERS), send).await;
            }
        });
    }
}

/// A service that takes bearer tokens has two challenges, and another reason to reject bound ones.
#[test]
fn a_service_that_takes_bearer_tokens_rejects_each_defect() {
    let issuer = issuer();
    let nonces = nonces();
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone())),
            TestClient::new(&issuer).with_nonces(nonces),
        ),
    ] {
        let app = app(verifier.allow_bearer());
        let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
        let on_the_wire = async |request: Request<Body>| {
            let mut response = send(request).await;
            response.extensions_mut().clear();
            response
        };
        let knowing = client.clone().with_bearer_allowed();
        let request = knowing.request(Method::GET, ORDERS);
        let downgraded = request.rejection_of(Defect::BearerScheme);
        assert_eq!(downgraded, BearerError::Bound.into());
        block_on(async {
            assert_protected(&request, send).await;
            assert_protected(&request, on_the_wire).await;
        });

        // That a service takes bearer tokens unknown to its tests is found out.
        let request = client.request(Method::GET, ORDERS);
        for by in ["reason", "description"] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                block_on(async {
                    match by {
                        "reason" => assert_protected(&request, send).await,
                        _ => assert_protected(&request, on_the_wire).await,
                    }
                });
            }));
            let message = *outcome.expect_err(by).downcast::<String>().unwrap();
            assert!(message.starts_with("the Bearer scheme: "), "{message}");
        }
    }
    // And so is one that is said to and does not.
    let client = TestClient::new(&issuer).with_bearer_allowed();
    let app = app(verifier(&issuer));
    let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
    let request = client.request(Method::GET, ORDERS);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        block_on(assert_protected(&request, send));
    }));
    let message = *outcome.expect_err("rejected").downcast::<String>().unwrap();
    assert!(message.starts_with("the Bearer scheme: "), "{message}");
}

#[test]
fn a_request_as_bearer_passes_where_bearer_is_allowed() {
    type Change = fn(&mut TestRequest);
    let issuer = issuer();
    let client = TestClient::new(&issuer).with_claim("scope", "orders.read");
    let response = |app: &Router, request: &TestRequest| {
        let request: Request<Body> = request.build();
        TestResponse::of(&block_on(app.clone().oneshot(request)).unwrap())
    };
    let (allowing, rejecting) = (
        app(verifier(&issuer).allow_bearer()),
        app(verifier(&issuer)),
    );
    let good = client.request(Method::GET, ORDERS).as_bearer();
    for time in ["once", "twice"] {
        response(&allowing, &good).assert_passed(time);
    }
    let rejected = response(&rejecting, &good);
    rejected.assert_reason("not allowed", CredentialsError::Bearer);

    let request: Request<()> = good.build();
    assert!(!request.headers().contains_key("dpop"));
    let field = &request.headers()["authorization"];
    assert!(field.is_sensitive());
    assert!(field.to_str().unwrap().starts_with("Bearer "));
    assert_eq!(good.token_claims["scope"], "orders.read");

    let key = client.key().thumbprint();
    let mut bound = good.clone();
    bound.token_claims["cnf"] = serde_json::json!({ "jkt": key });
    response(&allowing, &bound).assert_reason("bound", BearerError::Bound);
    let rows: [(&str, Change, TokenError); 3] = [
        (
            "expired",
            |r| r.token_claims["exp"] = 0.into(),
            TokenError::Expired,
        ),
        (
            "of another issuer",
            |r| r.token_claims["iss"] = "https://another.example".into(),
            TokenError::Issuer,
        ),
        (
            "by another key",
            |r| r.token_key = SigningKey::generate().unwrap(),
            TokenError::Signature,
        ),
    ];
    for (name, change, error) in rows {
        let mut request = good.again();
        change(&mut request);
        let rejected = response(&allowing, &request);
        rejected.assert_reason(name, BearerError::Token(error));
        rejected.assert_rejected(name, 401, Some("invalid_token"));
    }

    assert_eq!(good.defects().count(), 0);
    let none = catch_unwind(AssertUnwindSafe(|| {
        good.clone().with_defect(Defect::NoProof)
    }));
    assert!(none.is_err());
}

/// Over the wire the reason goes by status, code and description.
#[test]
fn a_server_rejects_each_defect() {
    let issuer = issuer();
    let nonces = nonces();
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone())),
            TestClient::new(&issuer).with_nonces(nonces),
        ),
    ] {
        block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(axum::serve(listener, app(verifier)).into_future());
            let http: Client<_, Full<bytes::Bytes>> =
                Client::builder(TokioExecutor::new()).build_http();
            let request = client.request(Method::GET, ORDERS).sent_to(&origin);
            assert_protected(&request, async |request| {
                let response = http.request(request).await.unwrap();
                assert!(response.extensions().get::<Rejection>().is_none());
                response
            })
            .await;
        });
    }
}

/// A service with an answer of its own to every window and leeway.
#[test]
fn no_freshness_lets_a_defect_pass() {
    let issuer = issuer();
    let a_day = Duration::from_secs(24 * 60 * 60);
    let longest = Freshness::default()
        .with_max_age(a_day)
        .with_leeway(a_day)
        .with_nonce_period(a_day);
    let nonces = nonces();
    for freshness in [longest, Freshness::mcp(), Freshness::default()] {
        let verifier = verifier_by(&issuer, |rules| {
            rules.with_freshness(freshness).with_nonces(nonces.clone())
        });
        let app = app(verifier);
        let client = TestClient::new(&issuer).with_nonces(nonces.clone());
        block_on(assert_protected(
            &client.request(Method::GET, ORDERS),
            async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
        ));
    }
}

/// What a service leaves to its configuration can be left out, and nothing else is left out with it.
#[test]
fn a_service_of_another_policy_is_held_to_what_it_checks() {
    let (issuer, nonces) = (issuer(), nonces());
    let by_nonce = app(verifier_by(&issuer, |rules| {
        rules
            .with_nonces(nonces.clone())
            .with_freshness(Freshness::fapi2())
    }));
    let client = TestClient::new(&issuer).with_nonces(nonces);
    let request = client.request(Method::GET, ORDERS);
    let all = request.defects().count();
    let request = request.without_defects([Defect::TooOld, Defect::FromTheFuture]);
    assert_eq!(request.defects().count(), all - 2);
    block_on(assert_protected(
        &request,
        async |request: Request<Body>| by_nonce.clone().oneshot(request).await.unwrap(),
    ));
    let whole = client.request(Method::GET, ORDERS);
    let message = message_of(assert_protected(&whole, async |request: Request<Body>| {
        by_nonce.clone().oneshot(request).await.unwrap()
    }));
    assert!(
        message.starts_with("a proof that is too old: "),
        "{message}"
    );
}

fn token_endpoint() -> TokenEndpoint {
    token_endpoint_by(|rules| rules)
}

fn token_endpoint_by(change: impl FnOnce(ProofRules) -> ProofRules) -> TokenEndpoint {
    let rules = ProofRules::new(ISSUER.parse().unwrap()).with_clock(TestClock::default().read());
    TokenEndpoint::new(change(rules))
}

#[test]
fn a_token_endpoint_rejects_each_defect_of_a_proof() {
    let nonces = nonces();
    let client = TestClient::without_issuer(TestClock::default());
    for (endpoint, client) in [
        (token_endpoint(), client.clone()),
        (
            token_endpoint_by(|rules| rules.with_nonces(nonces.clone())),
            client.with_nonces(nonces),
        ),
    ] {
        let layer = TokenEndpointLayer::new(endpoint);
        let request = client.token_request("https://as.example.com/token");
        assert!(
            !request
                .build::<()>()
                .headers()
                .contains_key("authorization")
        );
        let defects: BTreeSet<Defect> = request.defects().collect();
        assert!(!defects.contains(&Defect::NoAth) && defects.contains(&Defect::NoJti));
        let send = async |request: Request<String>| {
            let service = layer.layer(service_fn(async |request: Request<String>| {
                Ok::<_, Infallible>(Response::new(request.into_body()))
            }));
            service.oneshot(request).await.unwrap()
        };
        block_on(async {
            assert_token_endpoint_protected(&request, send).await;
            // As over the wire.
            assert_token_endpoint_protected(&request.again(), async |request| {
                let mut response = send(request).await;
                response.extensions_mut().clear();
                response
            })
            .await;
        });
    }
}

/// Opaque tokens, which the kit's issuer cannot sign.
struct Opaque(Thumbprint);

impl AccessTokenVerifier for Opaque {
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
fn a_client_with_a_token_of_its_own_has_every_defect_but_those_of_the_issuers_tokens() {
    let client = TestClient::without_issuer(TestClock::default()).with_token("opaque-token");
    let request = client.request(Method::GET, ORDERS);
    let defects: BTreeSet<Defect> = request.defects().collect();
    assert!(defects.contains(&Defect::StolenToken) && defects.contains(&Defect::NoAth));
    assert!(!defects.contains(&Defect::TokenExpired) && !defects.contains(&Defect::UnboundToken));
    let verifier = Verifier::new(
        ProofRules::new(public_url()).with_clock(TestClock::default().read()),
        Opaque(client.key().thumbprint()),
    );
    let app = app(verifier);
    block_on(assert_protected(
        &request,
        async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
    ));
}

#[test]
fn a_request_does_not_take_a_defect_that_it_cannot_have() {
    let client = TestClient::new(&issuer());
    let resource = client.request(Method::GET, ORDERS);
    let rows = [
        ("no nonce is known", resource.clone(), Defect::NoNonce),
        (
            "a nonce, but not its secret",
            client.clone().with_nonce("n").request(Method::GET, ORDERS),
            Defect::StaleNonce,
        ),
        (
            "no access token",
            client.token_request("https://as.example.com/token"),
            Defect::OtherTokensHash,
        ),
        (
            "a token of another issuer",
            client.with_token("opaque").request(Method::GET, ORDERS),
            Defect::TokenExpired,
        ),
    ];
    for (name, request, defect) in rows {
        let outcome = catch_unwind(AssertUnwindSafe(|| request.with_defect(defect)));
        assert!(outcome.is_err(), "{name}");
    }
}

#[test]
fn any_field_of_a_request_can_be_changed() {
    type Change = fn(&mut TestRequest);
    let rows: [(&str, Change, Option<Rejection>); 8] = [
        ("nothing", |_| {}, None),
        (
            "what is sent",
            |r| r.method = Method::PUT,
            Some(ProofError::Method.into()),
        ),
        ("a claim", |r| r.proof_claims["extra"] = "x".into(), None),
        (
            "the proof",
            |r| r.edit_proof = |proof| format!("{proof}="),
            Some(ProofError::NotAJwt.into()),
        ),
        (
            "the fields",
            |r| (r.authorization, r.dpop) = (Some(vec![]), Some(vec![])),
            Some(CredentialsError::Missing.into()),
        ),
        (
            "the token",
            |r| r.token = Some("x".into()),
            Some(TokenError::Malformed.into()),
        ),
        (
            "the token's key",
            |r| r.token_key = r.key.clone(),
            Some(TokenError::Signature.into()),
        ),
        (
            "the proof's key",
            |r| r.key = SigningKey::generate().unwrap(),
            Some(ProofError::Signature.into()),
        ),
    ];
    let issuer = issuer();
    let verifier = verifier(&issuer);
    for (name, change, rejected) in rows {
        let mut request = TestClient::new(&issuer).request(Method::GET, ORDERS);
        change(&mut request);
        assert_eq!(verify(&verifier, &request).err(), rejected, "{name}");
    }
}

#[test]
fn a_request_is_sent_once_and_anew_as_often_as_one_likes() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let request = TestClient::new(&issuer).request(Method::GET, ORDERS);
    assert_eq!(verify(&verifier, &request), Ok(()));
    assert_eq!(
        verify(&verifier, &request),
        Err(ProofError::Replayed.into())
    );
    assert_eq!(verify(&verifier, &request.again()), Ok(()));
}

#[test]
fn a_request_goes_where_it_is_sent_and_names_the_public_url() {
    let client = TestClient::new(&issuer());
    for (url, sent, htu) in [
        (ORDERS, "/orders?page=2", "https://api.example.com/orders"),
        (API, "/", "https://api.example.com/"),
        (
            "HTTPS://API.example.com:443/%7ea",
            "/%7ea",
            "https://api.example.com/~a",
        ),
    ] {
        let request = client.request(Method::GET, url);
        assert_eq!(request.build::<()>().uri(), sent, "{url}");
        assert_eq!(request.proof_claims["htu"], htu, "{url}");
        let elsewhere = request.sent_to("http://127.0.0.1:8080/");
        let built = elsewhere.build_with("a body");
        assert_eq!(
            built.uri().to_string(),
            format!("http://127.0.0.1:8080{sent}")
        );
        assert_eq!(
            (*built.body(), &elsewhere.proof_claims["htu"]),
            ("a body", &htu.into())
        );
    }
    for url in [
        "/orders",
        "ftp://example.com/",
        "https://user@example.com/",
        "https://a/ b",
    ] {
        let client = AssertUnwindSafe(&client);
        assert!(
            catch_unwind(|| client.request(Method::GET, url)).is_err(),
            "{url}"
        );
    }
}

#[test]
fn the_clock_is_one_for_service_issuer_and_client() {
    let clock = TestClock::default();
    let issuer = issuer().with_clock(clock.clone());
    let verifier = verifier(&issuer);
    let client = TestClient::new(&issuer);
    let early = client.request(Method::GET, ORDERS);
    clock.advance(Duration::from_secs(91));
    let too_old = ProofError::Iat(IatError::TooOld { by: 1 });
    assert_eq!(verify(&verifier, &early), Err(too_old.into()));
    assert_eq!(
        verify(&verifier, &client.request(Method::GET, ORDERS)),
        Ok(())
    );
    clock.set(1_700_000_090);
    assert_eq!(verify(&verifier, &early), Ok(()), "the last second");
    clock.advance(Duration::from_secs(3600));
    let fresh = client.request(Method::GET, ORDERS);
    assert_eq!(verify(&verifier, &fresh), Ok(()), "a token of then");

    // A client whose clock is wrong.
    let fast = client.with_clock(TestClock::at(clock.now().as_unix() + 31));
    let ahead = ProofError::Iat(IatError::InTheFuture { by: 1 });
    assert_eq!(
        verify(&verifier, &fast.request(Method::GET, ORDERS)),
        Err(ahead.into())
    );

    let of_a_server = UNIX_EPOCH + Duration::from_millis(1_234_567_890_500);
    let clock = TestClock::from(of_a_server);
    assert_eq!(clock.now().as_unix(), 1_234_567_890);
    let read: SystemTime = clock.read()();
    assert_eq!(read, UNIX_EPOCH + Duration::from_secs(1_234_567_890));
}

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
        ("after a break", [unknown(), unknown(), Ok(())]),
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
fn a_token_can_be_changed_in_everything() {
    type Change = fn(TestToken) -> TestToken;
    let rows: [(&str, Change, Option<TokenError>); 9] = [
        ("nothing", |t| t, None),
        ("another claim", |t| t.with_claim("tenant", 7), None),
        (
            "a claim more",
            |t| t.with_claim("aud", [API, "https://another.example"]),
            None,
        ),
        (
            "a claim less",
            |t| t.without_claim("iss"),
            Some(TokenError::Issuer),
        ),
        (
            "the header",
            |t| t.with_header("typ", "JWT"),
            Some(TokenError::Type),
        ),
        (
            "a header less",
            |t| t.without_header("typ"),
            Some(TokenError::Type),
        ),
        (
            "a claim that is not there",
            |t| t.without_claim("nobody"),
            None,
        ),
        (
            "another key",
            |t| t.signed_by(SigningKey::generate().unwrap()),
            Some(TokenError::Signature),
        ),
        (
            "by hand",
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

#[test]
fn a_client_has_its_claims_in_every_token() {
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
    assert_eq!(verified.claims().subject(), "bob");
}

/// A rejection as it comes over the wire, with something in each place that no message may show.
fn rejection(status: u16, challenge: &str, secret: &str) -> TestResponse {
    let mut response = Response::builder()
        .status(status)
        .header("dpop-nonce", secret)
        .header("cache-control", "no-store")
        .header("content-type", "application/json");
    if !challenge.is_empty() {
        response = response.header(
            "www-authenticate",
            format!(r#"{challenge}, realm="{secret}""#),
        );
    }
    TestResponse::of(&response.body(()).unwrap())
}

const QUIET: &str = r#"DPoP algs="ES256""#;
const BOUND: &str = r#"Bearer error="invalid_token", error_description="the access token is bound to a key and needs a DPoP proof""#;
const SEVERAL: &str =
    r#"error="invalid_request", error_description="several Authorization fields""#;
const NOT_ENOUGH: &str = r#"Bearer error="insufficient_scope", error_description="the access token does not allow this request""#;
const SPENT: &str = r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof was used before", algs="ES256""#;
const DEMAND: &str = r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof", algs="ES256""#;

#[test]
fn assertions_hold_of_what_they_say() {
    let passed = TestResponse::of(&Response::builder().status(201).body(()).unwrap());
    passed.assert_passed("a 201");
    let spent = rejection(401, SPENT, "n");
    spent.assert_rejected("a replay", 401, Some("invalid_dpop_proof"));
    spent.assert_reason("a replay", ProofError::Replayed);
    rejection(401, DEMAND, "n").assert_reason("a demand", NonceError::Stale);
    let beside_another = rejection(401, &format!("Bearer, {SPENT}"), "n");
    beside_another.assert_reason("a replay", ProofError::Replayed);
    assert_eq!(beside_another.parameter("algs"), Some("ES256"));
    rejection(401, r#"DPoP algs="ES256""#, "n")
        .assert_reason("no credentials", CredentialsError::Missing);
    let bound = rejection(401, &format!("{BOUND}, {QUIET}"), "n");
    bound.assert_rejected("a downgrade", 401, Some("invalid_token"));
    bound.assert_reason("a downgrade", BearerError::Bound);
    assert_eq!(
        (bound.parameter("error"), bound.parameter("algs")),
        (None, Some("ES256"))
    );
    assert!(
        format!("{bound:?}").contains("401 invalid_token"),
        "{bound:?}"
    );
    let both = rejection(
        400,
        &format!("Bearer {SEVERAL}, DPoP {SEVERAL}, algs=x"),
        "n",
    );
    both.assert_rejected("two tokens", 400, Some("invalid_request"));
    both.assert_reason("two tokens", CredentialsError::Ambiguous);
    let not_enough = rejection(403, NOT_ENOUGH, "n");
    not_enough.assert_rejected("no scope", 403, Some("insufficient_scope"));
    let denied = AuthorizationError::NotMet;
    not_enough.assert_reason("no scope", BearerError::Authorization(denied));
    rejection(503, "", "n").assert_rejected("a full memory", 503, None);
    rejection(503, "", "n").assert_reason("no keys", TokenError::Unavailable);
    let replayed =
        r#"{"error":"invalid_dpop_proof","error_description":"the DPoP proof was used before"}"#;
    let at_a_token_endpoint = rejection(400, "", "n");
    at_a_token_endpoint.assert_token_request_reason("a replay", replayed, ProofError::Replayed);
    for reason in [
        TokenRequestRejection::from(GrantBindingError::CodeOfOtherKey),
        GrantBindingError::RefreshTokenOfOtherKey.into(),
        GrantBindingError::NoProof.into(),
        DpopJktError::Contradictory.into(),
        TargetError::Misdirected.into(),
        NonceError::Stale.into(),
        ReplayStoreError::Full.into(),
    ] {
        let response: Response<String> =
            token_endpoint_by(|rules| rules.with_nonces(nonces())).reject(reason.clone());
        let on_the_wire = Response::from_parts(response.into_parts().0, ());
        let body: Response<String> = token_endpoint().reject(reason.clone());
        let mut response = TestResponse::of(&on_the_wire);
        response.assert_token_request_reason("in process", body.body(), reason.clone());
        response.token_request_rejection = None;
        response.assert_token_request_reason("on the wire", body.body(), reason);
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn assertions_fail_otherwise_and_show_no_secret() {
    type Check<'c> = Box<dyn Fn() + 'c>;
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, ORDERS);
    let secret = request.proof(&request.token());
    let body = |error: &str, description: &str| {
        format!(
            r#"{{"error":"{error}","error_description":"{description}","access_token":"{secret}"}}"#
        )
    };
    let replayed = body("invalid_dpop_proof", "the DPoP proof was used before");
    let s = secret.as_str();
    let ok = || rejection(200, "", s);
    let spent = || rejection(401, SPENT, s);
    let in_process = |reason: ProofError| {
        let mut response = Response::builder()
            .status(401)
            .header("www-authenticate", SPENT)
            .body(())
            .unwrap();
        response.extensions_mut().insert(Rejection::from(reason));
        TestResponse::of(&response)
    };
    let without_nonce = Response::builder()
        .status(401)
        .header("www-authenticate", DEMAND)
        .body(())
        .unwrap();
    let rows: Vec<(&str, Check<'_>)> = vec![
        (
            "a rejection did not pass",
            Box::new(|| spent().assert_passed("row")),
        ),
        (
            "a 500 did not pass",
            Box::new(|| rejection(500, "", s).assert_passed("row")),
        ),
        (
            "a rejection with a 200 did not pass",
            Box::new(|| {
                let mut response = in_process(ProofError::Type);
                response.status = http::StatusCode::OK;
                response.assert_passed("row");
            }),
        ),
        (
            "a 200 is no rejection",
            Box::new(|| ok().assert_rejected("row", 401, None)),
        ),
        (
            "another status",
            Box::new(|| spent().assert_rejected("row", 403, Some("invalid_dpop_proof"))),
        ),
        (
            "another error",
            Box::new(|| spent().assert_rejected("row", 401, Some("invalid_token"))),
        ),
        (
            "an error where none is due",
            Box::new(|| spent().assert_rejected("row", 401, None)),
        ),
        (
            "no challenge",
            Box::new(|| rejection(401, "", s).assert_rejected("row", 401, None)),
        ),
        (
            "a challenge of another scheme",
            Box::new(|| rejection(401, "Bearer", s).assert_rejected("row", 401, None)),
        ),
        (
            "two challenges",
            Box::new(|| {
                let twice = format!("{SPENT}, {SPENT}");
                rejection(401, &twice, s).assert_rejected("row", 401, Some("invalid_dpop_proof"));
            }),
        ),
        (
            "a challenge without algorithms",
            Box::new(|| rejection(401, "DPoP x=y", s).assert_rejected("row", 401, None)),
        ),
        (
            "a challenge for a fault of the server's",
            Box::new(|| rejection(503, SPENT, s).assert_rejected("row", 503, None)),
        ),
        (
            "a Bearer challenge for a fault of the server's",
            Box::new(|| rejection(503, "Bearer", s).assert_rejected("row", 503, None)),
        ),
        (
            "an error in Bearer alone, and no other challenge",
            Box::new(|| {
                rejection(401, BOUND, s).assert_rejected("row", 401, Some("invalid_token"))
            }),
        ),
        (
            "an error in Bearer without algorithms beside it",
            Box::new(|| {
                let challenges = format!("{BOUND}, DPoP x=y");
                rejection(401, &challenges, s).assert_rejected("row", 401, Some("invalid_token"));
            }),
        ),
        (
            "an error in Bearer where none is due",
            Box::new(|| {
                let challenges = format!("{BOUND}, {QUIET}");
                rejection(401, &challenges, s).assert_reason("row", CredentialsError::Missing);
            }),
        ),
        (
            "the error of DPoP in Bearer",
            Box::new(|| {
                let challenges = SPENT.replacen("DPoP ", "Bearer ", 1);
                let challenges = format!("{challenges}, {QUIET}");
                rejection(401, &challenges, s).assert_reason("row", ProofError::Replayed);
            }),
        ),
        (
            "the error of DPoP in Bearer as well",
            Box::new(|| {
                let challenges = format!("{BOUND}, {SPENT}");
                rejection(401, &challenges, s).assert_reason("row", ProofError::Replayed);
            }),
        ),
        (
            "the error of Bearer in DPoP",
            Box::new(|| {
                let challenges = BOUND.replacen("Bearer ", "DPoP ", 1);
                let challenges = format!(r#"Bearer, {challenges}, algs="ES256""#);
                rejection(401, &challenges, s).assert_reason("row", BearerError::Bound);
            }),
        ),
        (
            "a challenge of DPoP for a bearer token that is not enough",
            Box::new(|| {
                let challenges = format!("{NOT_ENOUGH}, {QUIET}");
                rejection(403, &challenges, s).assert_rejected(
                    "row",
                    403,
                    Some("insufficient_scope"),
                );
            }),
        ),
        (
            "another description",
            Box::new(|| spent().assert_reason("row", ProofError::Signature)),
        ),
        (
            "another reason of the same status and error",
            Box::new(|| {
                in_process(ProofError::Signature).assert_reason("row", ProofError::Replayed);
            }),
        ),
        (
            "a demand without a nonce",
            Box::new(|| TestResponse::of(&without_nonce).assert_reason("row", NonceError::Missing)),
        ),
        (
            "a token endpoint's 401",
            Box::new(|| {
                spent().assert_token_request_reason("row", &replayed, ProofError::Replayed);
            }),
        ),
        (
            "a token endpoint's 400 without JSON",
            Box::new(|| {
                let response = rejection(400, "", s);
                response.assert_token_request_reason("row", s, ProofError::Replayed);
            }),
        ),
        (
            "a token endpoint's 400 with another error",
            Box::new(|| {
                let response = rejection(400, "", s);
                let other = body("invalid_request", "the DPoP proof was used before");
                response.assert_token_request_reason("row", other, ProofError::Replayed);
            }),
        ),
        (
            "a token endpoint's 400 with another description",
            Box::new(|| {
                let response = rejection(400, "", s);
                response.assert_token_request_reason("row", &replayed, ProofError::Type);
            }),
        ),
        (
            "a token endpoint's 400 that may be cached",
            Box::new(|| {
                let mut response = rejection(400, "", s);
                response.cache_control = None;
                response.assert_token_request_reason("row", &replayed, ProofError::Replayed);
            }),
        ),
    ];
    let mut failed = Vec::new();
    for (name, check) in &rows {
        let outcome = catch_unwind(AssertUnwindSafe(check));
        let message = *outcome.expect_err(name).downcast::<String>().unwrap();
        assert!(message.starts_with("row: "), "{name}: {message}");
        assert_shows_nothing(name, &message, &secret);
        failed.push(message);
    }
    assert_eq!(failed.len(), rows.len());
    assert!(failed[0].contains("401 invalid_dpop_proof (the DPoP proof was used before)"));
}

/// No run of eight characters of a secret. The header of a JWT is like any other's, but for the key
/// at its end.
#[track_caller]
fn assert_shows_nothing(name: &str, shown: &str, jws: &str) {
    let segments: Vec<&str> = jws.split('.').collect();
    let secrets = [&segments[0][40..], segments[1], segments[2]];
    for secret in secrets {
        for at in 0..secret.len() - 7 {
            assert!(!shown.contains(&secret[at..at + 8]), "{name}: {shown}");
        }
    }
}

#[test]
fn debug_of_the_kit_shows_no_secret() {
    let issuer = issuer();
    let client = TestClient::new(&issuer).with_nonce("a-nonce-of-the-server");
    let request = client.request(Method::GET, ORDERS);
    let token = issuer.token_for(client.key().thumbprint());
    let response = rejection(401, SPENT, "a-nonce-of-the-server");
    let (sent_token, built) = (request.token(), request.build::<()>());
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
    show(&issuer);
    show(&client);
    show(&request);
    show(&token);
    show(&response);
    show(&TestClock::default());
    show(&Defect::NoJti);
    show(&built);
    assert!(!shown.contains("a-nonce"), "{shown}");
    assert_shows_nothing("a token", &shown, &sent_token);
    assert_shows_nothing("a proof", &shown, &request.proof(&sent_token));
    assert_shows_nothing("another token", &shown, &token.to_text());
}

fn message_of(check: impl Future<Output = ()>) -> String {
    let outcome = catch_unwind(AssertUnwindSafe(|| block_on(check)));
    *outcome.expect_err("a panic").downcast::<String>().unwrap()
}

/// What the kit is for: services that are not behind the layer as they ought to be.
#[test]
fn a_service_that_is_not_protected_is_found_out() {
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, ORDERS);
    let open = Router::new().route("/orders", get(async || "orders"));
    let elsewhere: PublicUrl = "https://internal.example".parse().unwrap();
    let misconfigured = Verifier::new(
        ProofRules::new(elsewhere).with_clock(issuer.clock().read()),
        issuer.jwt_verifier(),
    );
    let lenient = issuer.jwt_verifier().with_claims::<serde_json::Value>();
    let lenient = Verifier::new(
        ProofRules::new(public_url()).with_clock(issuer.clock().read()),
        lenient,
    );
    let rows = [
        ("no layer", open, "the same request again: "),
        ("another public URL", app(misconfigured), "a good request: "),
        ("claims without sub", app(lenient), "a token without sub: "),
    ];
    for (name, app, expected) in rows {
        let message = message_of(assert_protected(
            &request.again(),
            async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
        ));
        assert!(message.starts_with(expected), "{name}: {message}");
        assert_shows_nothing(name, &message, &request.proof(&request.token()));
    }

    let request = client.token_request("https://as.example.com/token");
    let message = message_of(assert_token_endpoint_protected(
        &request,
        async |request: Request<String>| Response::new(request.into_body()),
    ));
    assert!(message.starts_with("the same request again: "), "{message}");
}

/// A source of nonces of the user's own, and a token by hand.
#[test]
fn parts_of_the_kit_work_by_themselves() {
    let nonces = nonces();
    let issuer = issuer();
    let verifier = verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone()));
    let key = SigningKey::generate().unwrap();
    let by_hand = nonces.issue(issuer.clock().now());
    let client = TestClient::new(&issuer)
        .with_key(key.clone())
        .with_nonce(by_hand.as_str());
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
