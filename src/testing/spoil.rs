//! How a request gets its one defect.

use std::sync::LazyLock;

use serde_json::json;

use crate::jose::algorithm::Algorithm;
use crate::jose::base64url;
use crate::jose::signing_key::SigningKey;
use crate::proof::nonce::NonceError;
use crate::resource::bearer::BearerError;
use crate::resource::rejection::Rejection;
use crate::sync::Mutex;
use crate::testing::defect::{Defect, FAR, Needs};
use crate::testing::issuer::{public_jwk, remove};
use crate::testing::jws::fresh_id;
use crate::testing::request::{Bearer, Nonces, Purpose, TestRequest};
use crate::time::Timestamp;
use crate::uri::{Host, Origin, UrlScheme, split};

/// Longer than any proof or token may be.
const PADDING: usize = 32 * 1024;

impl TestRequest {
    /// The defects that the request can have, in the order of [`Defect::ALL`], without those [left
    /// out](Self::without_defects): those of nonces only if the client knows a nonce, those of access
    /// tokens only if the test issuer signs them.
    pub fn defects(&self) -> impl Iterator<Item = Defect> + use<> {
        let (purpose, issued) = (self.purpose, self.token.is_none());
        let left_out = self.left_out.clone();
        let (nonce, source) = match self.nonces {
            Nonces::None => (false, false),
            Nonces::Given(_) => (true, false),
            Nonces::OfServer(_) => (true, true),
        };
        Defect::ALL
            .iter()
            .copied()
            .filter(move |_| purpose != Purpose::ResourceAsBearer)
            .filter(move |defect| !left_out.contains(defect))
            .filter(move |defect| match defect.needs() {
                Needs::Proof => true,
                Needs::Token => purpose == Purpose::Resource,
                Needs::TokenOfIssuer => purpose == Purpose::Resource && issued,
                Needs::Nonce => nonce,
                Needs::NonceSource => source,
            })
    }

    /// Leaves out defects that the service, by its configuration, does not reject.
    #[must_use]
    pub fn without_defects(mut self, defects: impl IntoIterator<Item = Defect>) -> Self {
        self.left_out.extend(defects);
        self
    }

    /// How the service under test rejects this defect, if it requires nonces as the client has them, and
    /// accepts bearer tokens as the client [expects](crate::testing::TestClient::with_bearer_allowed).
    pub fn rejection_of(&self, defect: Defect) -> Rejection {
        match (defect, self.bearer, &self.nonces) {
            (Defect::BearerScheme, Bearer::Allowed, _) => BearerError::Bound.into(),
            // Without a proof, a service that requires nonces demands one at once.
            (Defect::NoProof, _, Nonces::Given(_) | Nonces::OfServer(_)) => {
                NonceError::Missing.into()
            }
            (defect, _, _) => defect.rejection(),
        }
    }

    /// The request with this defect, and otherwise unchanged.
    ///
    /// # Panics
    ///
    /// Panics if the request cannot have the defect: it is not one of its
    /// [`defects`](Self::defects).
    #[must_use]
    #[track_caller]
    pub fn with_defect(mut self, defect: Defect) -> Self {
        assert!(
            self.defects().any(|possible| possible == defect),
            "this request cannot have the defect: {defect}"
        );
        self.spoil(defect);
        self
    }

    #[expect(clippy::too_many_lines, reason = "a table")]
    fn spoil(&mut self, defect: Defect) {
        let now = self.now.as_unix();
        let (past, future) = (now.saturating_sub(FAR), now.saturating_add(FAR));
        let spoiled = &mut self.spoiled;
        let (header, claims) = (&mut self.proof_header, &mut self.proof_claims);
        let (token_header, token_claims) = (&mut self.token_header, &mut self.token_claims);
        match defect {
            Defect::NoAuthorization => spoiled.authorization = |_| Vec::new(),
            Defect::SeveralAuthorizations => {
                spoiled.authorization = |token| vec![format!("DPoP {token}"); 2];
            }
            Defect::MalformedAuthorization => {
                spoiled.authorization = |token| vec![format!("DPoP {token} {token}")];
            }
            Defect::BearerScheme => {
                spoiled.authorization = |token| vec![format!("Bearer {token}")];
            }
            Defect::TokenTooLong => token_claims["padding"] = json!("x".repeat(PADDING)),

            Defect::NoProof => spoiled.dpop = |_| Vec::new(),
            Defect::SeveralProofs => spoiled.dpop = |proof| vec![proof.to_owned(); 2],
            Defect::ProofTooLong => claims["padding"] = json!("x".repeat(PADDING / 4)),
            Defect::ProofNotAJwt => spoiled.proof = |_| "not-a-jwt".to_owned(),
            Defect::ProofHeaderNotJson => {
                spoiled.proof_header = |header| header.replacen('{', r#"{"typ":"dpop+jwt","#, 1);
            }
            Defect::ProofPayloadNotJson => {
                spoiled.proof_payload = |payload| payload.replacen('{', r#"{"jti":"another","#, 1);
            }
            Defect::NoJti => remove(claims, "jti"),
            Defect::NoHtm => remove(claims, "htm"),
            Defect::NoHtu => remove(claims, "htu"),
            Defect::NoIat => remove(claims, "iat"),
            Defect::NoAth => remove(claims, "ath"),
            Defect::NoJwk => remove(header, "jwk"),
            Defect::EmptyJti => claims["jti"] = json!(""),
            Defect::LongJti => claims["jti"] = json!("x".repeat(513)),
            Defect::WrongTyp => header["typ"] = json!("JWT"),
            Defect::CriticalExtension => {
                header["crit"] = json!(["unknown"]);
                header["unknown"] = json!(true);
            }
            Defect::AlgNone => {
                header["alg"] = json!("none");
                spoiled.proof = without_signature;
            }
            Defect::AlgHs256 => header["alg"] = json!("HS256"),
            Defect::WrongSignature => spoiled.proof = with_wrong_signature,
            Defect::PrivateJwk => header["jwk"]["d"] = json!("AA"),
            Defect::JwkWithoutKty => remove(&mut header["jwk"], "kty"),
            Defect::JwkOfUnknownType => header["jwk"]["kty"] = json!("unknown"),
            Defect::JwkForEncryption => header["jwk"]["use"] = json!("enc"),
            Defect::JwkForOtherAlgorithm => {
                header["jwk"]["alg"] = json!(match self.key.algorithm() {
                    Algorithm::Es384 => Algorithm::Es256,
                    _ => Algorithm::Es384,
                });
            }
            Defect::OtherMethod => {
                claims["htm"] = json!(if self.method == "POST" { "GET" } else { "POST" });
            }
            Defect::MalformedUrl => claims["htu"] = json!("/a/path/alone"),
            Defect::OtherScheme => self.move_htu(|url| {
                url.origin.scheme = match url.origin.scheme {
                    UrlScheme::Http => UrlScheme::Https,
                    UrlScheme::Https => UrlScheme::Http,
                };
            }),
            Defect::OtherHost => self.move_htu(|url| {
                url.origin.host = Host::Name("another-host.invalid".into());
            }),
            Defect::OtherPort => self.move_htu(|url| {
                url.origin.port = if url.origin.port == 8443 { 8444 } else { 8443 };
            }),
            Defect::OtherPath => self.move_htu(|url| url.path.push_str("/another")),
            Defect::TooOld => claims["iat"] = json!(past),
            Defect::FromTheFuture => claims["iat"] = json!(future),
            Defect::Expired => claims["exp"] = json!(past),
            Defect::NotYetValid => claims["nbf"] = json!(future),
            Defect::OtherTokensHash => claims["ath"] = json!(base64url::encode([0; 32])),

            Defect::TokenNotAJwt => spoiled.token = |_| "not-a-jwt".to_owned(),
            Defect::TokenTyp => token_header["typ"] = json!("dpop+jwt"),
            Defect::TokenAlgNone => {
                token_header["alg"] = json!("none");
                spoiled.token = without_signature;
            }
            Defect::TokenIssuer => token_claims["iss"] = json!("https://another-issuer.invalid"),
            Defect::TokenAudience => {
                token_claims["aud"] = json!("https://another-audience.invalid");
            }
            Defect::TokenExpired => token_claims["exp"] = json!(past),
            Defect::TokenNotYetValid => token_claims["nbf"] = json!(future),
            Defect::TokenKey => token_header["kid"] = json!(fresh_id()),
            Defect::TokenSignature => spoiled.token = with_wrong_signature,
            Defect::TokenWithoutSubject => {
                for claim in ["sub", "client_id", "azp", "appid", "cid"] {
                    remove(token_claims, claim);
                }
            }

            Defect::StolenToken => {
                self.key = thiefs_key(self.key.algorithm());
                header["jwk"] = public_jwk(&self.key);
            }
            Defect::UnboundToken => remove(token_claims, "cnf"),
            Defect::UnconfirmableToken => {
                token_claims["cnf"] = json!({ "x5t#S256": base64url::encode([0; 32]) });
            }

            Defect::NoNonce => remove(claims, "nonce"),
            Defect::ForeignNonce => claims["nonce"] = json!(fresh_id()),
            Defect::StaleNonce => self.issue_nonce(Timestamp::from_unix(past)),
            Defect::NonceFromTheFuture => self.issue_nonce(Timestamp::from_unix(future)),
        }
    }

    /// Changes one part of `htu`.
    fn move_htu(&mut self, change: impl FnOnce(&mut Htu)) {
        let htu = self.proof_claims["htu"].as_str().unwrap_or_default();
        // A URL that a test has made malformed stays unchanged.
        if let Ok((origin, path)) = split(htu) {
            let mut htu = Htu {
                origin: origin.into_owned(),
                path: path.to_owned(),
            };
            change(&mut htu);
            self.proof_claims["htu"] = json!(format!("{}{}", htu.origin, htu.path));
        }
    }

    /// Sets the nonce to one of the server with this issue time.
    pub(super) fn issue_nonce(&mut self, issued: Timestamp) {
        if let Nonces::OfServer(rules) = &self.nonces
            && let Some(nonce) = rules.issue_nonce_with(issued)
        {
            self.proof_claims["nonce"] = json!(nonce.as_str());
        }
    }
}

/// The parts of an `htu`.
struct Htu {
    origin: Origin<'static>,
    path: String,
}

/// A key for the same algorithm. RSA keys are slow to generate, so the thief has one per type.
fn thiefs_key(algorithm: Algorithm) -> SigningKey {
    static KEYS: LazyLock<Mutex<Vec<SigningKey>>> = LazyLock::new(Mutex::default);
    let mut keys = KEYS.lock();
    let known = keys
        .iter()
        .find_map(|key| key.clone().with_algorithm(algorithm).ok());
    known.unwrap_or_else(|| {
        let key =
            SigningKey::generate_for(algorithm).expect("the operating system gives randomness");
        keys.push(key.clone());
        key
    })
}

/// Returns the JWS up to the last dot.
fn without_signature(mut jws: String) -> String {
    jws.truncate(jws.rfind('.').map_or(0, |dot| dot + 1));
    jws
}

/// Changes one bit of the signature.
fn with_wrong_signature(jws: String) -> String {
    let Some((input, signature)) = jws.rsplit_once('.') else {
        return jws;
    };
    let mut signature = base64url::decode(signature).unwrap_or_default();
    if let Some(last) = signature.last_mut() {
        *last ^= 1;
    }
    format!("{input}.{}", base64url::encode(signature))
}
