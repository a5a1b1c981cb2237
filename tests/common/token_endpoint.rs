//! An authorization server under test, and its token requests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::token_endpoint::{
    ProvenKey, TOKEN_TYPE, TokenEndpoint, TokenEndpointLayer, TokenRequestRejection,
};
use tower_dpop::{NonceSecret, ProofRules, Thumbprint};

use crate::{ISSUER, Key, KeyExt as _, NOW, at, block_on, fresh_jti, keys};

/// A token request that [`endpoint`] accepts. A test changes one thing in it before it is sent.
pub struct Attempt {
    pub method: Method,
    pub uri: String,
    pub key: Key,
    pub header: Value,
    pub claims: Value,
    /// Replaces the `DPoP` fields.
    pub dpop: Option<Vec<HeaderValue>>,
    /// Applied to the signed proof.
    pub edit_proof: fn(String) -> String,
    pub form: String,
}

impl Attempt {
    pub fn good() -> Self {
        Self::with_key(keys::client())
    }

    pub fn with_key(key: Key) -> Self {
        Self {
            method: Method::POST,
            uri: "/token".into(),
            header: json!({ "typ": "dpop+jwt", "alg": key.alg(), "jwk": key.public_jwk() }),
            claims: json!({
                "jti": fresh_jti(),
                "htm": "POST",
                "htu": "https://as.example.com/token",
                "iat": NOW,
            }),
            key,
            dpop: None,
            edit_proof: |proof| proof,
            form: "no-code".into(),
        }
    }

    pub fn but(change: impl FnOnce(&mut Self)) -> Self {
        let mut attempt = Self::good();
        change(&mut attempt);
        attempt
    }

    pub fn without_proof() -> Self {
        Self::but(|a| a.dpop = Some(vec![]))
    }

    pub fn with_nonce(nonce: &str, now: u64) -> Self {
        Self::but(|a| {
            a.claims["nonce"] = json!(nonce);
            a.claims["iat"] = json!(now);
        })
    }

    pub fn proof(&self) -> String {
        (self.edit_proof)(self.key.sign(&self.header, &self.claims))
    }

    pub fn request(&self) -> Request<String> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.uri)
            .body(self.form.clone())
            .unwrap();
        let fields = match &self.dpop {
            None => vec![self.proof().parse().unwrap()],
            Some(fields) => fields.clone(),
        };
        for field in fields {
            request.headers_mut().append("dpop", field);
        }
        request
    }

    pub fn head(&self) -> Parts {
        self.request().into_parts().0
    }

    /// The result of [`TokenEndpoint::verify`].
    pub fn verify(&self, endpoint: &TokenEndpoint) -> Result<ProvenKey, TokenRequestRejection> {
        block_on(endpoint.verify(&self.head()))
    }

    /// The outcome at a server behind the layer.
    pub fn outcome_by(&self, layer: &TokenEndpointLayer, server: &Server) -> Outcome {
        let server = server.clone();
        let service = layer.layer(service_fn(move |request: Request<String>| {
            ready(Ok::<_, Infallible>(server.respond(&request)))
        }));
        Outcome::of(block_on(service.oneshot(self.request())).unwrap())
    }
}

/// The rules of the authorization server `https://as.example.com`: the defaults, with the clock at
/// [`NOW`].
pub fn rules() -> ProofRules {
    ProofRules::new(ISSUER.parse().unwrap()).with_clock(|| at(NOW))
}

pub fn endpoint() -> TokenEndpoint {
    TokenEndpoint::new(rules())
}

pub fn nonce_secret(byte: u8) -> NonceSecret {
    NonceSecret::from_bytes(&[byte; 32]).unwrap()
}

/// The service behind the layer. It redeems each code once, and counts its calls.
#[derive(Clone, Default)]
pub struct Server {
    /// The codes that were not redeemed yet, with the key that each is bound to.
    pub codes: Arc<Mutex<HashMap<String, Option<Thumbprint>>>>,
    pub calls: Arc<AtomicUsize>,
    /// The header fields of its responses.
    pub headers: HeaderMap,
    pub status: StatusCode,
}

impl Server {
    /// A server with one code, which is not bound to a key.
    pub fn with_code(code: &str) -> Self {
        let server = Self::default();
        server.codes.lock().unwrap().insert(code.to_owned(), None);
        server
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn has_code(&self, code: &str) -> bool {
        self.codes.lock().unwrap().contains_key(code)
    }

    pub fn respond(&self, request: &Request<String>) -> Response<String> {
        self.redeem(request.extensions().get(), request.body())
    }

    /// The form is a code, or `no-code` for a request that needs no code.
    pub fn redeem(&self, key: Option<&ProvenKey>, code: &str) -> Response<String> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let known = code == "no-code" || self.codes.lock().unwrap().remove(code).is_some();
        let body = match key {
            _ if !known => json!({ "error": "invalid_grant" }),
            Some(key) => json!({ "cnf": key.cnf(), "token_type": TOKEN_TYPE }),
            None => json!({ "token_type": "Bearer" }),
        };
        let mut response = Response::new(body.to_string());
        *response.status_mut() = if known {
            self.status
        } else {
            StatusCode::BAD_REQUEST
        };
        response.headers_mut().extend(self.headers.clone());
        response
    }
}

/// The response to an [`Attempt`], and the rejection in its extensions.
#[derive(Debug)]
pub struct Outcome {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub rejection: Option<TokenRequestRejection>,
}

impl Outcome {
    pub fn of(response: Response<String>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            rejection: head.extensions.get().cloned(),
            headers: head.headers,
            body,
        }
    }

    pub fn of_rejection(endpoint: &TokenEndpoint, reason: TokenRequestRejection) -> Self {
        Self::of(endpoint.reject(reason))
    }

    pub fn values(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    /// The nonce of the response, which must have exactly one.
    #[track_caller]
    pub fn nonce(&self) -> String {
        let [nonce] = self.values("dpop-nonce")[..] else {
            panic!("A-11: expected exactly one nonce: {self:?}")
        };
        nonce.to_owned()
    }

    /// Asserts that the response contains a token that is bound to this key.
    #[track_caller]
    pub fn assert_bound(&self, name: &str, key: &Key) {
        assert_eq!(
            (self.status, self.rejection.as_ref(), self.body.as_str()),
            (
                StatusCode::OK,
                None,
                &*format!(r#"{{"cnf":{{"jkt":"{}"}},"token_type":"DPoP"}}"#, key.jkt())
            ),
            "{name}"
        );
    }

    /// Asserts a rejection for exactly this reason, with this error code, in the format of RFC 6749
    /// section 5.2.
    #[track_caller]
    pub fn assert_rejected(
        &self,
        name: &str,
        reason: impl Into<TokenRequestRejection>,
        error: Option<&str>,
    ) {
        let reason = reason.into();
        assert_eq!(self.rejection.as_ref(), Some(&reason), "{name}");
        assert_eq!(reason.error_code(), error, "{name}");
        assert_eq!(self.status, reason.status(), "{name}");
        assert_eq!(self.values("cache-control"), ["no-store"], "{name}");
        assert_eq!(self.values("www-authenticate"), [""; 0], "{name}");
        let demands_nonce = error == Some("use_dpop_nonce");
        assert_eq!(
            self.values("dpop-nonce").len(),
            usize::from(demands_nonce),
            "{name}: A-11"
        );
        let Some(error) = error else {
            assert!(matches!(self.status.as_u16(), 429 | 503), "{name}");
            assert_eq!(self.values("retry-after"), ["1"], "{name}");
            assert_eq!(self.values("content-type"), [""; 0], "{name}");
            assert_eq!(self.body, "", "{name}");
            return;
        };
        assert_eq!(self.status.as_u16(), 400, "{name}");
        assert_eq!(self.values("retry-after"), [""; 0], "{name}");
        assert_eq!(self.values("content-type"), ["application/json"], "{name}");
        let description = if demands_nonce {
            "Authorization server requires nonce in DPoP proof".to_owned()
        } else {
            reason.to_string()
        };
        assert_eq!(
            self.body,
            format!(r#"{{"error":"{error}","error_description":"{description}"}}"#),
            "{name}"
        );
        let allowed = |c: char| matches!(c, '\x20'..='\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
        assert!(
            description.chars().all(allowed),
            "{name}: RFC 6749 section 5.2"
        );
    }
}
