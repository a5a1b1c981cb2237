//! Asks the library about one part of a proof.
//!
//! A server stops at the first check that fails. To explain all faults of a proof, each part of it is put into a proof that is
//! good in every other respect, signed here with a key made for this, and the library decides about that proof. So no check
//! is written twice: what is shown is what a server with this library decides.

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use serde_json::{Map, Value, json};
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{DPOP, Epoch, Nonce, NonceSource};
use tower_dpop::token_endpoint::{TokenEndpoint, TokenRequestRejection};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{Algorithms, Freshness, ProofRules, PublicUrl, Rejection, Timestamp, Verifier};

use crate::explain::jwt::{base64url, from_base64url};
use crate::explain::request::Received;
use crate::failure::Failure;

/// What the server requires of proofs.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) public_url: PublicUrl,
    pub(crate) algorithms: Algorithms,
    pub(crate) freshness: Freshness,
    /// The nonce that the server issued, if it requires nonces.
    pub(crate) nonce: Option<Nonce>,
    pub(crate) now: Timestamp,
}

impl Rules {
    /// The library's rules, with a replay store of their own: nothing was used before.
    pub(crate) fn to_proof_rules(&self) -> ProofRules {
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.now.as_unix());
        let rules = ProofRules::new(self.public_url.clone())
            .with_algorithms(self.algorithms)
            .with_freshness(self.freshness)
            .with_clock(move || now);
        match &self.nonce {
            Some(nonce) => rules.with_nonces(GivenNonce {
                given: nonce.clone(),
                now: self.now,
            }),
            None => rules,
        }
    }
}

/// A proof that is good for the request, and its parts.
pub(crate) struct Probe {
    endpoint: TokenEndpoint,
    rules: Rules,
    key: SigningKey,
    head: Parts,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    target: Result<(), TokenRequestRejection>,
}

impl Probe {
    pub(crate) fn new(rules: Rules, request: &Received) -> Result<Self, Failure> {
        let key = SigningKey::generate_for_one_of(&rules.algorithms.to_string())
            .map_err(Failure::work)?;
        let mut head = request.head.clone();
        head.headers.clear();
        let mut claims = object(json!({
            "jti": "a proof of dpop explain",
            "htm": head.method.as_str(),
            "htu": request.url(),
            "iat": rules.now.as_unix(),
        }));
        if let Some(nonce) = &rules.nonce {
            claims.insert("nonce".to_owned(), nonce.as_str().into());
        }
        let mut probe = Self {
            endpoint: TokenEndpoint::new(rules.to_proof_rules()),
            header: object(json!({
                "typ": "dpop+jwt",
                "alg": key.algorithm(),
                "jwk": key.public_key(),
            })),
            claims,
            rules,
            key,
            head,
            target: Ok(()),
        };
        probe.target = probe.nothing();
        if probe.target.is_err() {
            probe.replace_target();
        }
        Ok(probe)
    }

    /// A request that no proof can be for: the other parts of its proof are checked for another request.
    fn replace_target(&mut self) {
        self.head.method = Method::GET;
        self.head.uri = Uri::from_static("/");
        let url = format!("{}/", self.rules.public_url);
        self.claims.insert("htm".to_owned(), "GET".into());
        self.claims.insert("htu".to_owned(), url.into());
    }

    /// Whether the request has a method and a URL that a proof can name.
    pub(crate) fn target(&self) -> Result<(), TokenRequestRejection> {
        self.target.clone()
    }

    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) const fn method(&self) -> &Method {
        &self.head.method
    }

    /// The URL that proofs must name.
    pub(crate) fn url(&self) -> String {
        self.claims["htu"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether the good proof is accepted. If not, no proof is: the request has no URL that a proof could name.
    fn nothing(&self) -> Result<(), TokenRequestRejection> {
        self.decide([self.sign(&self.header, &self.claims)])
    }

    /// These fields instead of the good proof.
    pub(crate) fn fields(&self, fields: &[String]) -> Result<(), TokenRequestRejection> {
        self.decide(fields.iter().cloned())
    }

    /// One member of the header.
    pub(crate) fn header(
        &self,
        name: &str,
        value: Option<&Value>,
    ) -> Result<(), TokenRequestRejection> {
        self.decide([self.sign(&replaced(&self.header, name, value), &self.claims)])
    }

    /// One claim.
    pub(crate) fn claim(
        &self,
        name: &str,
        value: Option<&Value>,
    ) -> Result<(), TokenRequestRejection> {
        self.decide([self.sign(&self.header, &replaced(&self.claims, name, value))])
    }

    /// The key, with an algorithm that goes with it. The signature is not by this key.
    pub(crate) fn jwk(&self, jwk: &Value, alg: &Value) -> Result<(), TokenRequestRejection> {
        self.decide([self.sign(&self.with_key(jwk, alg), &self.claims)])
    }

    /// The whole header, as it is written.
    pub(crate) fn raw_header(&self, header: &[u8]) -> Result<(), TokenRequestRejection> {
        let payload = Value::from(self.claims.clone()).to_string();
        self.decide([sign(&self.key, header, payload.as_bytes())])
    }

    /// The whole payload, as it is written.
    pub(crate) fn raw_payload(&self, payload: &[u8]) -> Result<(), TokenRequestRejection> {
        let header = Value::from(self.header.clone()).to_string();
        self.decide([sign(&self.key, header.as_bytes(), payload)])
    }

    /// The fields of a request other than its proof.
    pub(crate) async fn credentials(&self, head: &Parts) -> Result<(), Rejection> {
        let verifier = Verifier::new(self.rules.to_proof_rules(), Known(Confirmation::Unbound));
        verifier.verify(head).await.map(|_| ())
    }

    /// `ath`, for a request with this access token.
    pub(crate) async fn ath(&self, token: &str, ath: Option<&Value>) -> Result<(), Rejection> {
        let proof = self.sign(&self.header, &replaced(&self.claims, "ath", ath));
        let bound = Confirmation::Thumbprint(self.key.thumbprint());
        self.present(token, &proof, bound).await
    }

    /// The key of the proof, for a request with a token that is bound so. The binding is checked before the signature, which
    /// is not by this key.
    pub(crate) async fn binding(
        &self,
        token: &str,
        (jwk, alg): (&Value, &Value),
        confirmation: Confirmation,
    ) -> Result<(), Rejection> {
        let ath = Value::from(base64url(PresentedToken::new(token).sha256()));
        let claims = replaced(&self.claims, "ath", Some(&ath));
        let proof = self.sign(&self.with_key(jwk, alg), &claims);
        self.present(token, &proof, confirmation).await
    }

    async fn present(
        &self,
        token: &str,
        proof: &str,
        confirmation: Confirmation,
    ) -> Result<(), Rejection> {
        let mut head = self.head.clone();
        append(&mut head, AUTHORIZATION, &format!("DPoP {token}"));
        append(&mut head, DPOP, proof);
        let verifier = Verifier::new(self.rules.to_proof_rules(), Known(confirmation));
        verifier.verify(&head).await.map(|_| ())
    }

    fn with_key(&self, jwk: &Value, alg: &Value) -> Map<String, Value> {
        replaced(&replaced(&self.header, "jwk", Some(jwk)), "alg", Some(alg))
    }

    fn sign(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> String {
        let (header, claims) = (json!(header).to_string(), json!(claims).to_string());
        sign(&self.key, header.as_bytes(), claims.as_bytes())
    }

    fn decide(
        &self,
        proofs: impl IntoIterator<Item = String>,
    ) -> Result<(), TokenRequestRejection> {
        let mut head = self.head.clone();
        for proof in proofs {
            append(&mut head, DPOP, &proof);
        }
        self.endpoint.check(&head).map(|_| ())
    }
}

/// A value with a byte that no field can have is left out: it was read from a field.
fn append(head: &mut Parts, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        head.headers.append(name, value);
    }
}

/// A compact JWS over any two texts.
pub(crate) fn sign(key: &SigningKey, header: &[u8], payload: &[u8]) -> String {
    sign_segments(key, &base64url(header), &base64url(payload))
}

/// A compact JWS whose first two segments are these, well-formed or not.
pub(crate) fn sign_segments(key: &SigningKey, header: &str, payload: &str) -> String {
    let input = format!("{header}.{payload}");
    let signature = key.sign_now(input.as_bytes()).unwrap_or_default();
    format!("{input}.{}", base64url(signature))
}

/// The object of a literal.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The members, with this one instead of its namesake, or without it.
pub(crate) fn replaced(
    members: &Map<String, Value>,
    name: &str,
    value: Option<&Value>,
) -> Map<String, Value> {
    let mut members = members.clone();
    match value {
        Some(value) => members.insert(name.to_owned(), value.clone()),
        None => members.remove(name),
    };
    members
}

/// A token that is taken for valid.
struct Known(Confirmation);

impl AccessTokenVerifier for Known {
    type Claims = ();

    async fn verify(
        &self,
        _: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<()>, TokenError> {
        Ok(AccessToken::new(self.0, ()))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// The nonce that the server issued. Nonces of this library state when they were issued; whether they are too old is decided
/// by that.
struct GivenNonce {
    given: Nonce,
    now: Timestamp,
}

impl NonceSource for GivenNonce {
    fn issue(&self, _: Timestamp, _: Epoch) -> Nonce {
        self.given.clone()
    }

    fn issued_at(&self, nonce: &str, _: Epoch) -> Option<Timestamp> {
        let given = self.given.as_str();
        let stated = stated_time(nonce, self.now);
        if nonce == given {
            Some(stated.unwrap_or(self.now))
        } else if stated_time(given, self.now).is_some() && have_one_secret(nonce, given) {
            stated
        } else {
            None
        }
    }
}

/// The time at which a nonce of this library says that it was issued (`StatelessNonces`): a key's id (4 bytes), seconds (8
/// bytes) and a MAC (16 bytes), which only the server can check.
pub(crate) fn stated_time(nonce: &str, now: Timestamp) -> Option<Timestamp> {
    /// Nonces of other servers may happen to have this length; their bytes say a time within ten years almost never.
    const PLAUSIBLE: u64 = 10 * 365 * 24 * 60 * 60;

    let bytes: [u8; 28] = from_base64url(nonce)?.try_into().ok()?;
    let (_, rest) = bytes.split_first_chunk::<4>()?;
    let (seconds, _) = rest.split_first_chunk::<8>()?;
    let seconds = u64::from_be_bytes(*seconds);
    (seconds.abs_diff(now.as_unix()) < PLAUSIBLE).then(|| Timestamp::from_unix(seconds))
}

/// Whether two nonces of this library name the same secret.
fn have_one_secret(one: &str, other: &str) -> bool {
    match (from_base64url(one), from_base64url(other)) {
        (Some(one), Some(other)) => one.get(..4) == other.get(..4),
        _ => false,
    }
}
