//! huskarl's client at our authorization server and our resource server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use huskarl::authorizer::{HttpAuthorizer, dpop_resend_advised, extract_dpop_nonce};
use huskarl::cache::{GrantTokenSource, InMemoryRefreshTokenStore, InMemoryTokenCache};
use huskarl::core::client_auth::{ClientSecret, NoAuth};
use huskarl::core::crypto::signer::AsymmetricJwsSignerSelector as _;
use huskarl::core::dpop::{DPoP, ResourceServerDPoP, hash_access_token_for_dpop};
use huskarl::core::jwk::PublicJwk;
use huskarl::core::jwt::Jwt;
use huskarl::core::secrets::{ProvidedSecret, SecretString};
use huskarl::core::server_metadata::AuthorizationServerMetadata;
use huskarl::grant::authorization_code::{AuthorizationCodeGrant, CompleteInput, StartInput};
use huskarl::grant::client_credentials::{
    ClientCredentialsGrant, ClientCredentialsGrantParameters,
};
use huskarl::grant::refresh::RefreshGrantParameters;
use huskarl::prelude::*;
use huskarl::token::AccessToken;
use huskarl_crypto_native::asymmetric::signer::{GenerateAlgorithm, PrivateKey};
use huskarl_reqwest::ReqwestClient;
use reqwest::header::{AUTHORIZATION, LOCATION};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::servers::{Nonces, http, our_authorization_server, our_resource_server, outcome};

const SCOPE: &str = "orders.read";

/// Tokens and requests as huskarl's documentation shows them: one attempt, and another if a nonce was demanded.
#[tokio::test]
async fn gets_a_token_and_calls_the_resource() {
    for nonces in [Nonces::None, Nonces::Required] {
        let issuer = our_authorization_server(nonces).await;
        let api = our_resource_server(&issuer, nonces).await;
        let url = format!("{api}/orders");
        for algorithm in [
            GenerateAlgorithm::Es256,
            GenerateAlgorithm::Es384,
            GenerateAlgorithm::Ed25519,
            GenerateAlgorithm::Ps256 {
                modulus_length: 2048,
            },
        ] {
            let name = format!("{nonces:?}, {algorithm:?}");
            let key = PrivateKey::generate(algorithm, None).unwrap();
            let authorizer = authorizer(service(&issuer, key).await);
            for round in 1..=3 {
                let mut response = call(&authorizer, &url).await;
                let demanded = dpop_resend_advised(response.status(), response.headers());
                assert_eq!(demanded, nonces == Nonces::Required && round == 1, "{name}");
                if demanded {
                    response = call(&authorizer, &url).await;
                }
                assert_eq!(response.status(), StatusCode::OK, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_accepted_gets_no_token() {
    let issuer = our_authorization_server(Nonces::None).await;
    let rs256 = GenerateAlgorithm::Rs256 {
        modulus_length: 2048,
    };
    let key = PrivateKey::generate(rs256, None).unwrap();
    let grant = service(&issuer, key).await;
    let error = grant.exchange(parameters()).await.unwrap_err();
    let error = format!("{error:#} {error:?}");
    assert!(error.contains("invalid_dpop_proof"), "{error}");
}

/// PAR, PKCE, `iss` in the response, a token, and its renewal.
#[tokio::test]
async fn logs_in_and_refreshes() {
    for nonces in [Nonces::None, Nonces::Required] {
        let issuer = our_authorization_server(nonces).await;
        let api = our_resource_server(&issuer, nonces).await;
        let key = es256();
        let grant: AuthorizationCodeGrant =
            AuthorizationCodeGrant::builder_from_metadata(&metadata(&issuer).await)
                .unwrap()
                .client_id("app")
                .http_client(ReqwestClient::from(http()))
                .client_auth(NoAuth)
                .redirect_uri("http://127.0.0.1/callback")
                .dpop(DPoP::builder().signer(key.clone()).build())
                .build()
                .await
                .unwrap();
        let start = grant
            .start(StartInput::scope(vec![SCOPE.into()]))
            .await
            .unwrap();
        let browser = http()
            .get(start.authorization_url.to_string())
            .send()
            .await
            .unwrap();
        let callback: CompleteInput = browser.headers()[LOCATION]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let tokens = grant
            .complete(&start.pending_state, callback)
            .await
            .unwrap();
        let tokens = tokens.token_response;
        assert!(
            matches!(tokens.access_token(), AccessToken::DPoP(_)),
            "{nonces:?}"
        );

        let refresh = tokens.refresh_token().unwrap().clone();
        let refreshed = grant
            .to_refresh_grant()
            .exchange(RefreshGrantParameters::refresh_token(refresh.clone()))
            .await
            .unwrap();
        let dpop = grant.dpop().to_resource_server_dpop();
        let url = format!("{api}/orders");
        let caller = Caller::new(key, dpop, refreshed.access_token(), url).await;
        if nonces == Nonces::Required {
            assert_eq!(caller.good().await, "401 use_dpop_nonce");
        }
        assert_eq!(caller.good().await, "200", "{nonces:?}");

        let again = grant
            .to_refresh_grant()
            .exchange(RefreshGrantParameters::refresh_token(refresh))
            .await;
        assert!(again.is_err(), "{nonces:?}: a refresh token passed twice");
    }
}

/// A proof that huskarl signs, with one change. The request before and the request after it pass.
#[tokio::test]
async fn proofs_with_one_change_are_rejected() {
    type Change = fn(&mut Draft);
    let rows: [(&str, Change, &str); 15] = [
        ("no change", |_| {}, "200"),
        ("an exp to come", |draft| draft.exp = Some(60), "200"),
        ("a query in htu", |draft| draft.add("htu", "?a=b"), "200"),
        (
            "typ JWT",
            |draft| draft.typ = "JWT",
            "401 invalid_dpop_proof",
        ),
        ("no jwk", |draft| draft.jwk = None, "401 invalid_dpop_proof"),
        ("no iat", |draft| draft.iat = None, "401 invalid_dpop_proof"),
        (
            "iat an hour ago",
            |draft| draft.iat = Some(-3600),
            "401 invalid_dpop_proof",
        ),
        (
            "iat in an hour",
            |draft| draft.iat = Some(3600),
            "401 invalid_dpop_proof",
        ),
        (
            "an exp that has passed",
            |draft| draft.exp = Some(-60),
            "401 invalid_dpop_proof",
        ),
        (
            "no jti",
            |draft| draft.jti = false,
            "401 invalid_dpop_proof",
        ),
        (
            "htm of another method",
            |draft| draft.set("htm", "PUT"),
            "401 invalid_dpop_proof",
        ),
        (
            "htu of another path",
            |draft| draft.add("htu", "/2"),
            "401 invalid_dpop_proof",
        ),
        (
            "no htu",
            |draft| draft.remove("htu"),
            "401 invalid_dpop_proof",
        ),
        (
            "ath of another token",
            |draft| draft.add("ath", "A"),
            "401 invalid_dpop_proof",
        ),
        (
            "no ath",
            |draft| draft.remove("ath"),
            "401 invalid_dpop_proof",
        ),
    ];
    for nonces in [Nonces::None, Nonces::Required] {
        let caller = Caller::of_service(nonces, es256()).await;
        for (name, change, expected) in rows {
            let name = format!("{nonces:?}: {name}");
            assert_eq!(caller.good().await, "200", "{name}: before");
            let mut draft = caller.draft();
            change(&mut draft);
            let proof = draft.sign(&caller.key).await;
            let response = caller.send("DPoP", Some(&proof)).await;
            assert_eq!(outcome(response).await, expected, "{name}");
            assert_eq!(caller.good().await, "200", "{name}: after");
        }
    }
}

#[tokio::test]
async fn tokens_in_other_hands_are_rejected() {
    for nonces in [Nonces::None, Nonces::Required] {
        let caller = Caller::of_service(nonces, es256()).await;
        let without_proof = match nonces {
            Nonces::None => "401 invalid_dpop_proof",
            Nonces::Required => "401 use_dpop_nonce",
        };
        assert_eq!(caller.good().await, "200");

        let proof = caller.draft().sign(&caller.key).await;
        let first = caller.send("DPoP", Some(&proof)).await;
        assert_eq!(outcome(first).await, "200", "{nonces:?}");
        let again = caller.send("DPoP", Some(&proof)).await;
        assert_eq!(
            outcome(again).await,
            "401 invalid_dpop_proof",
            "{nonces:?}: a replay"
        );

        let thief = es256();
        let mut draft = caller.draft();
        draft.jwk = Some(public(&thief).await);
        let proof = draft.sign(&thief).await;
        let response = caller.send("DPoP", Some(&proof)).await;
        assert_eq!(
            outcome(response).await,
            "401 invalid_token",
            "{nonces:?}: another key"
        );
        let proof = caller.draft().sign(&thief).await;
        let response = caller.send("DPoP", Some(&proof)).await;
        assert_eq!(
            outcome(response).await,
            "401 invalid_dpop_proof",
            "{nonces:?}: another signature"
        );

        let response = caller.send("Bearer", None).await;
        assert_eq!(
            outcome(response).await,
            "401 invalid_token",
            "{nonces:?}: Bearer"
        );
        let proof = caller.draft().sign(&caller.key).await;
        let response = caller.send("Bearer", Some(&proof)).await;
        assert_eq!(
            outcome(response).await,
            "401 invalid_token",
            "{nonces:?}: Bearer with a proof"
        );
        let response = caller.send("DPoP", None).await;
        assert_eq!(
            outcome(response).await,
            without_proof,
            "{nonces:?}: no proof"
        );
        assert_eq!(caller.good().await, "200");
    }
}

/// The proof that a token request needs, with one change.
#[tokio::test]
async fn token_requests_with_one_change_are_rejected() {
    type Change = fn(&mut Draft);
    let rows: [(&str, Change, &str); 6] = [
        ("no change", |_| {}, "200"),
        (
            "typ JWT",
            |draft| draft.typ = "JWT",
            "400 invalid_dpop_proof",
        ),
        ("no jwk", |draft| draft.jwk = None, "400 invalid_dpop_proof"),
        (
            "iat an hour ago",
            |draft| draft.iat = Some(-3600),
            "400 invalid_dpop_proof",
        ),
        (
            "htm of another method",
            |draft| draft.set("htm", "GET"),
            "400 invalid_dpop_proof",
        ),
        (
            "htu of another path",
            |draft| draft.add("htu", "/2"),
            "400 invalid_dpop_proof",
        ),
    ];
    let issuer = our_authorization_server(Nonces::None).await;
    let url = format!("{issuer}/token");
    let key = es256();
    for (name, change, expected) in rows {
        let mut draft = Draft::new(public(&key).await, json!({ "htm": "POST", "htu": url }));
        change(&mut draft);
        let request = http()
            .post(&url)
            .basic_auth("service", Some("service-secret"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body("grant_type=client_credentials");
        let response = request
            .header("DPoP", draft.sign(&key).await)
            .send()
            .await
            .unwrap();
        assert_eq!(outcome(response).await, expected, "{name}");
    }
}

/// A token of huskarl's client, and the requests with it.
struct Caller {
    key: PrivateKey,
    jwk: PublicJwk,
    dpop: Arc<dyn ResourceServerDPoP>,
    token: SecretString,
    jkt: String,
    url: String,
    nonce: Mutex<Option<String>>,
}

impl Caller {
    async fn of_service(nonces: Nonces, key: PrivateKey) -> Self {
        let issuer = our_authorization_server(nonces).await;
        let api = our_resource_server(&issuer, nonces).await;
        let grant = service(&issuer, key.clone()).await;
        let tokens = grant.exchange(parameters()).await.unwrap();
        let dpop = grant.dpop().to_resource_server_dpop();
        let caller = Self::new(key, dpop, tokens.access_token(), format!("{api}/orders")).await;
        let demand = (nonces == Nonces::Required).then_some("401 use_dpop_nonce");
        assert_eq!(caller.good().await, demand.unwrap_or("200"));
        caller
    }

    async fn new(
        key: PrivateKey,
        dpop: Arc<dyn ResourceServerDPoP>,
        token: &AccessToken,
        url: String,
    ) -> Self {
        let AccessToken::DPoP(token) = token else {
            panic!("not a DPoP token");
        };
        Self {
            jwk: public(&key).await,
            key,
            dpop,
            token: token.token().clone(),
            jkt: token.jkt().to_owned(),
            url,
            nonce: Mutex::new(None),
        }
    }

    /// The outcome of a request as huskarl makes it.
    async fn good(&self) -> String {
        let url = self.url.parse().unwrap();
        let proof = self
            .dpop
            .proof(&Method::GET, &url, &self.token, &self.jkt)
            .await;
        let proof = proof.unwrap().unwrap();
        let response = self.send("DPoP", Some(proof.expose_secret())).await;
        if let Some(nonce) = self.nonce.lock().unwrap().clone() {
            self.dpop.update_nonce(&url, nonce);
        }
        outcome(response).await
    }

    async fn send(&self, scheme: &str, proof: Option<&str>) -> Response {
        let mut request = http().get(&self.url);
        request = request.header(
            AUTHORIZATION,
            format!("{scheme} {}", self.token.expose_secret()),
        );
        if let Some(proof) = proof {
            request = request.header("DPoP", proof);
        }
        let response = request.send().await.unwrap();
        if let Some(nonce) = extract_dpop_nonce(response.headers()) {
            *self.nonce.lock().unwrap() = Some(nonce);
        }
        response
    }

    fn draft(&self) -> Draft {
        let ath = hash_access_token_for_dpop(self.token.expose_secret());
        let mut claims = json!({ "htm": "GET", "htu": self.url, "ath": ath });
        if let Some(nonce) = &*self.nonce.lock().unwrap() {
            claims["nonce"] = json!(nonce);
        }
        Draft::new(self.jwk.clone(), claims)
    }
}

/// A proof that is valid until it is changed. Times are in seconds from now.
struct Draft {
    typ: &'static str,
    jwk: Option<PublicJwk>,
    iat: Option<i64>,
    exp: Option<i64>,
    jti: bool,
    claims: Value,
}

impl Draft {
    fn new(jwk: PublicJwk, claims: Value) -> Self {
        Self {
            typ: "dpop+jwt",
            jwk: Some(jwk),
            iat: Some(0),
            exp: None,
            jti: true,
            claims,
        }
    }

    fn set(&mut self, claim: &str, value: &str) {
        self.claims[claim] = json!(value);
    }

    fn add(&mut self, claim: &str, more: &str) {
        let value = format!("{}{more}", self.claims[claim].as_str().unwrap());
        self.set(claim, &value);
    }

    fn remove(&mut self, claim: &str) {
        self.claims.as_object_mut().unwrap().remove(claim).unwrap();
    }

    async fn sign(self, key: &PrivateKey) -> String {
        let mut jwt = Jwt::builder().typ(self.typ).claims(self.claims).build();
        jwt.jwk = self.jwk;
        jwt.iat = self.iat.map(from_now);
        jwt.exp = self.exp.map(from_now);
        if !self.jti {
            jwt.jti = None;
        }
        let signer = key.select_asymmetric_signer().await;
        let proof = jwt.to_jws_compact(&*signer).await.unwrap();
        proof.expose_secret().to_owned()
    }
}

fn from_now(seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::now() - by
    } else {
        SystemTime::now() + by
    }
}

fn es256() -> PrivateKey {
    PrivateKey::generate(GenerateAlgorithm::Es256, None).unwrap()
}

async fn public(key: &PrivateKey) -> PublicJwk {
    let signer = key.select_asymmetric_signer().await;
    signer.public_key_jwk().into_owned()
}

async fn metadata(issuer: &str) -> AuthorizationServerMetadata {
    let http = ReqwestClient::from(http());
    let metadata = AuthorizationServerMetadata::fetch().http_client(&http);
    metadata.issuer(issuer).call().await.unwrap()
}

async fn service(issuer: &str, key: PrivateKey) -> ClientCredentialsGrant {
    let secret = ProvidedSecret::new(SecretString::new("service-secret"));
    ClientCredentialsGrant::builder_from_metadata(&metadata(issuer).await)
        .client_id("service")
        .http_client(ReqwestClient::from(http()))
        .client_auth(ClientSecret::new(secret))
        .dpop(DPoP::builder().signer(key).build())
        .build()
}

fn parameters() -> ClientCredentialsGrantParameters {
    let parameters = ClientCredentialsGrantParameters::builder();
    parameters.scope(vec![SCOPE.into()]).build()
}

fn authorizer(grant: ClientCredentialsGrant) -> HttpAuthorizer {
    let source = GrantTokenSource::builder()
        .grant(grant)
        .grant_parameters(parameters())
        .refresh_store(InMemoryRefreshTokenStore::default())
        .build();
    let cache = InMemoryTokenCache::builder().source(source).build();
    HttpAuthorizer::builder().cache(cache).build()
}

async fn call(authorizer: &HttpAuthorizer, url: &str) -> Response {
    let uri = url.parse().unwrap();
    let headers = authorizer.get_headers(&Method::GET, &uri).await.unwrap();
    let response = http().get(url).headers(headers).send().await.unwrap();
    authorizer.process_response(&uri, response.headers());
    response
}
