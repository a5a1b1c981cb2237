//! What can be wrong with a request, by name.
//!
//! Longer than other files: a table of more than fifty rows, in the docs and in the code.

use std::fmt;

use crate::credentials::CredentialsError;
use crate::jose::jwk::InvalidJwk;
use crate::proof::checks::ProofError;
use crate::proof::freshness::IatError;
use crate::proof::nonce::NonceError;
use crate::proof::target::UrlMismatch;
use crate::resource::bound_token::BindingError;
use crate::resource::rejection::Rejection;
use crate::tokens::access_token::TokenError;

/// So far from now that no policy accepts it: the longest window is two days.
pub(super) const FAR: u64 = 3 * 24 * 60 * 60;

/// Which requests can have a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Any request.
    Proof,
    /// A request with an access token.
    Token,
    /// A request whose access token the test issuer signs.
    TokenOfIssuer,
    /// A request of a client that knows a nonce of the server.
    Nonce,
    /// A request of a client that knows how the server makes nonces.
    NonceSource,
}

macro_rules! defects {
    ($($(#[$meta:meta])* $defect:ident, $name:literal, $needs:ident, $rejection:expr;)*) => {
        /// What can be wrong with a request, one thing at a time: a defect for each check of [RFC
        /// 9449 section 4.3](https://www.rfc-editor.org/rfc/rfc9449#section-4.3) (the numbers below are
        /// the checks and sections of that RFC), and for every other reason to reject a request.
        ///
        /// A replay is not a defect of a request: send the same request twice.
        ///
        /// # Example
        ///
        /// ```
        /// use http::{Method, Request};
        /// use tower_dpop::testing::{TestResponse, Defect, TestClient};
        ///
        /// # fn example(client: &TestClient, send: impl Fn(Request<String>) -> http::Response<String>) {
        /// let request = client.request(Method::GET, "https://api.example.com/orders");
        /// for defect in request.defects() {
        ///     let response = send(request.again().with_defect(defect).build());
        ///     TestResponse::of(&response).assert_reason(defect.name(), request.rejection_of(defect));
        /// }
        /// # }
        /// ```
        ///
        /// # How a service responds
        ///
        /// The reason is the [`Rejection`](crate::Rejection). Nonces change `NoProof`
        /// ([`TestRequest::rejection_of`](crate::testing::TestRequest::rejection_of)).
        ///
        /// | defect | status | `error` | reason |
        /// |---|---|---|---|
        /// | [`NoAuthorization`](Self::NoAuthorization) | 401 | none | `Credentials(Missing)` |
        /// | [`SeveralAuthorizations`](Self::SeveralAuthorizations) | 400 | `invalid_request` | `Credentials(Ambiguous)` |
        /// | [`MalformedAuthorization`](Self::MalformedAuthorization) | 400 | `invalid_request` | `Credentials(Malformed)` |
        /// | [`BearerScheme`](Self::BearerScheme) | 401 | `invalid_token` | `Credentials(Bearer)` |
        /// | [`TokenTooLong`](Self::TokenTooLong) | 401 | `invalid_token` | `Credentials(TokenTooLong)` |
        /// | [`NoProof`](Self::NoProof) | 401 | `invalid_dpop_proof` | `Proof(Missing)` |
        /// | [`SeveralProofs`](Self::SeveralProofs) | 401 | `invalid_dpop_proof` | `Proof(Several)` |
        /// | [`ProofTooLong`](Self::ProofTooLong) | 401 | `invalid_dpop_proof` | `Proof(TooLong)` |
        /// | [`ProofNotAJwt`](Self::ProofNotAJwt) | 401 | `invalid_dpop_proof` | `Proof(NotAJwt)` |
        /// | [`ProofHeaderNotJson`](Self::ProofHeaderNotJson) | 401 | `invalid_dpop_proof` | `Proof(HeaderNotJson)` |
        /// | [`ProofPayloadNotJson`](Self::ProofPayloadNotJson) | 401 | `invalid_dpop_proof` | `Proof(PayloadNotJson)` |
        /// | [`NoJti`](Self::NoJti) | 401 | `invalid_dpop_proof` | `Proof(ClaimMissing)` |
        /// | [`NoHtm`](Self::NoHtm) | 401 | `invalid_dpop_proof` | `Proof(ClaimMissing)` |
        /// | [`NoHtu`](Self::NoHtu) | 401 | `invalid_dpop_proof` | `Proof(ClaimMissing)` |
        /// | [`NoIat`](Self::NoIat) | 401 | `invalid_dpop_proof` | `Proof(ClaimMissing)` |
        /// | [`NoAth`](Self::NoAth) | 401 | `invalid_dpop_proof` | `Proof(ClaimMissing)` |
        /// | [`NoJwk`](Self::NoJwk) | 401 | `invalid_dpop_proof` | `Proof(NoKey)` |
        /// | [`EmptyJti`](Self::EmptyJti) | 401 | `invalid_dpop_proof` | `Proof(JtiLength)` |
        /// | [`LongJti`](Self::LongJti) | 401 | `invalid_dpop_proof` | `Proof(JtiLength)` |
        /// | [`WrongTyp`](Self::WrongTyp) | 401 | `invalid_dpop_proof` | `Proof(Type)` |
        /// | [`CriticalExtension`](Self::CriticalExtension) | 401 | `invalid_dpop_proof` | `Proof(Extension)` |
        /// | [`AlgNone`](Self::AlgNone) | 401 | `invalid_dpop_proof` | `Proof(Algorithm)` |
        /// | [`AlgHs256`](Self::AlgHs256) | 401 | `invalid_dpop_proof` | `Proof(Algorithm)` |
        /// | [`WrongSignature`](Self::WrongSignature) | 401 | `invalid_dpop_proof` | `Proof(Signature)` |
        /// | [`PrivateJwk`](Self::PrivateJwk) | 401 | `invalid_dpop_proof` | `Proof(Key(Private))` |
        /// | [`JwkWithoutKty`](Self::JwkWithoutKty) | 401 | `invalid_dpop_proof` | `Proof(Key(Missing))` |
        /// | [`JwkOfUnknownType`](Self::JwkOfUnknownType) | 401 | `invalid_dpop_proof` | `Proof(Key(KeyType))` |
        /// | [`JwkForEncryption`](Self::JwkForEncryption) | 401 | `invalid_dpop_proof` | `Proof(Key(Use))` |
        /// | [`JwkForOtherAlgorithm`](Self::JwkForOtherAlgorithm) | 401 | `invalid_dpop_proof` | `Proof(Key(Algorithm))` |
        /// | [`OtherMethod`](Self::OtherMethod) | 401 | `invalid_dpop_proof` | `Proof(Method)` |
        /// | [`MalformedUrl`](Self::MalformedUrl) | 401 | `invalid_dpop_proof` | `Proof(Url(Malformed))` |
        /// | [`OtherScheme`](Self::OtherScheme) | 401 | `invalid_dpop_proof` | `Proof(Url(Scheme))` |
        /// | [`OtherHost`](Self::OtherHost) | 401 | `invalid_dpop_proof` | `Proof(Url(Host))` |
        /// | [`OtherPort`](Self::OtherPort) | 401 | `invalid_dpop_proof` | `Proof(Url(Port))` |
        /// | [`OtherPath`](Self::OtherPath) | 401 | `invalid_dpop_proof` | `Proof(Url(Path))` |
        /// | [`TooOld`](Self::TooOld) | 401 | `invalid_dpop_proof` | `Proof(Iat(TooOld { by: 259110 }))` |
        /// | [`FromTheFuture`](Self::FromTheFuture) | 401 | `invalid_dpop_proof` | `Proof(Iat(InTheFuture { by: 259170 }))` |
        /// | [`Expired`](Self::Expired) | 401 | `invalid_dpop_proof` | `Proof(Expired)` |
        /// | [`NotYetValid`](Self::NotYetValid) | 401 | `invalid_dpop_proof` | `Proof(NotYetValid)` |
        /// | [`OtherTokensHash`](Self::OtherTokensHash) | 401 | `invalid_dpop_proof` | `Proof(TokenHash)` |
        /// | [`TokenNotAJwt`](Self::TokenNotAJwt) | 401 | `invalid_token` | `Token(Malformed)` |
        /// | [`TokenTyp`](Self::TokenTyp) | 401 | `invalid_token` | `Token(Type)` |
        /// | [`TokenAlgNone`](Self::TokenAlgNone) | 401 | `invalid_token` | `Token(Algorithm)` |
        /// | [`TokenIssuer`](Self::TokenIssuer) | 401 | `invalid_token` | `Token(Issuer)` |
        /// | [`TokenAudience`](Self::TokenAudience) | 401 | `invalid_token` | `Token(Audience)` |
        /// | [`TokenExpired`](Self::TokenExpired) | 401 | `invalid_token` | `Token(Expired)` |
        /// | [`TokenNotYetValid`](Self::TokenNotYetValid) | 401 | `invalid_token` | `Token(NotYetValid)` |
        /// | [`TokenKey`](Self::TokenKey) | 401 | `invalid_token` | `Token(Key)` |
        /// | [`TokenSignature`](Self::TokenSignature) | 401 | `invalid_token` | `Token(Signature)` |
        /// | [`TokenWithoutSubject`](Self::TokenWithoutSubject) | 401 | `invalid_token` | `Token(Claims)` |
        /// | [`StolenToken`](Self::StolenToken) | 401 | `invalid_token` | `Binding(OtherKey)` |
        /// | [`UnboundToken`](Self::UnboundToken) | 401 | `invalid_token` | `Binding(Unbound)` |
        /// | [`UnconfirmableToken`](Self::UnconfirmableToken) | 401 | `invalid_token` | `Binding(Unconfirmable)` |
        /// | [`NoNonce`](Self::NoNonce) | 401 | `use_dpop_nonce` | `Nonce(Missing)` |
        /// | [`ForeignNonce`](Self::ForeignNonce) | 401 | `use_dpop_nonce` | `Nonce(Foreign)` |
        /// | [`StaleNonce`](Self::StaleNonce) | 401 | `use_dpop_nonce` | `Nonce(Stale)` |
        /// | [`NonceFromTheFuture`](Self::NonceFromTheFuture) | 401 | `use_dpop_nonce` | `Nonce(InTheFuture)` |
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Defect {
            $($(#[$meta])* $defect,)*
        }

        impl Defect {
            /// Every defect, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$defect,)*];

            /// What is wrong, in a few words. Each defect has its own name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$defect => $name,)*
                }
            }

            /// How a service that does not require nonces rejects the request. The seconds by which
            /// `iat` is off are those of the default [`Freshness`](crate::Freshness);
            /// [`TestResponse::assert_reason`](crate::testing::TestResponse::assert_reason) ignores them.
            pub fn rejection(self) -> Rejection {
                match self {
                    $(Self::$defect => $rejection.into(),)*
                }
            }

            pub(super) const fn needs(self) -> Needs {
                match self {
                    $(Self::$defect => Needs::$needs,)*
                }
            }
        }
    };
}

defects! {
    /// No `Authorization` field.
    NoAuthorization, "no Authorization field", Token, CredentialsError::Missing;
    /// Two `Authorization` fields.
    SeveralAuthorizations, "several Authorization fields", Token, CredentialsError::Ambiguous;
    /// An `Authorization` field that violates its grammar: two tokens in one field.
    MalformedAuthorization, "a malformed Authorization field", Token, CredentialsError::Malformed;
    /// The bound token under the Bearer scheme.
    BearerScheme, "the Bearer scheme", Token, CredentialsError::Bearer;
    /// A token of more than 32 KiB. Servers and proxies with a lower limit for header fields, which
    /// is common with HTTP/2, reject it themselves.
    TokenTooLong, "a token that is too long", TokenOfIssuer, CredentialsError::TokenTooLong;

    /// No `DPoP` field. A service that requires nonces asks for one.
    NoProof, "no proof", Proof, ProofError::Missing;
    /// Two `DPoP` fields (check 1).
    SeveralProofs, "several proofs", Proof, ProofError::Several;
    /// A proof of more than 8 KiB.
    ProofTooLong, "a proof that is too long", Proof, ProofError::TooLong;
    /// A `DPoP` field that is not a JWT (check 2).
    ProofNotAJwt, "a proof that is not a JWT", Proof, ProofError::NotAJwt;
    /// A header with a duplicate member (check 2).
    ProofHeaderNotJson, "a header with a duplicate member", Proof, ProofError::HeaderNotJson;
    /// A payload with a duplicate member (check 2).
    ProofPayloadNotJson, "a payload with a duplicate member", Proof, ProofError::PayloadNotJson;
    /// No `jti` (check 3).
    NoJti, "no jti", Proof, ProofError::ClaimMissing;
    /// No `htm` (check 3).
    NoHtm, "no htm", Proof, ProofError::ClaimMissing;
    /// No `htu` (check 3).
    NoHtu, "no htu", Proof, ProofError::ClaimMissing;
    /// No `iat` (check 3).
    NoIat, "no iat", Proof, ProofError::ClaimMissing;
    /// No `ath`, although there is an access token (check 3).
    NoAth, "no ath", Token, ProofError::ClaimMissing;
    /// No `jwk` (check 3).
    NoJwk, "no jwk", Proof, ProofError::NoKey;
    /// An empty `jti` (check 3).
    EmptyJti, "an empty jti", Proof, ProofError::JtiLength;
    /// A `jti` of more than 512 bytes (section 11.1).
    LongJti, "a jti that is too long", Proof, ProofError::JtiLength;
    /// `typ` is `JWT` (check 4).
    WrongTyp, "another typ", Proof, ProofError::Type;
    /// `crit` demands an unknown extension.
    CriticalExtension, "a critical extension", Proof, ProofError::Extension;
    /// `alg` is `none`, and there is no signature (check 5).
    AlgNone, "the algorithm none", Proof, ProofError::Algorithm;
    /// `alg` is `HS256`, a MAC (check 5).
    AlgHs256, "the algorithm HS256", Proof, ProofError::Algorithm;
    /// A signature with one bit changed (check 6).
    WrongSignature, "a wrong signature", Proof, ProofError::Signature;
    /// The `jwk` has a private member (check 7).
    PrivateJwk, "a private jwk", Proof, ProofError::Key(InvalidJwk::Private);
    /// The `jwk` has no `kty`.
    JwkWithoutKty, "a jwk without kty", Proof, ProofError::Key(InvalidJwk::Missing);
    /// The `kty` of the `jwk` is not a key type that can sign.
    JwkOfUnknownType, "a jwk of an unknown type", Proof, ProofError::Key(InvalidJwk::KeyType);
    /// The `use` of the `jwk` is encryption.
    JwkForEncryption, "a jwk for encryption", Proof, ProofError::Key(InvalidJwk::Use);
    /// The `alg` of the `jwk` differs from the `alg` of the header.
    JwkForOtherAlgorithm, "a jwk for another algorithm", Proof, ProofError::Key(InvalidJwk::Algorithm);
    /// `htm` is another method (check 8).
    OtherMethod, "another method", Proof, ProofError::Method;
    /// `htu` is not an absolute URL (check 9).
    MalformedUrl, "a malformed URL", Proof, ProofError::Url(UrlMismatch::Malformed);
    /// `htu` has `http` instead of `https`, or the reverse (check 9).
    OtherScheme, "another scheme", Proof, ProofError::Url(UrlMismatch::Scheme);
    /// `htu` names another host (check 9).
    OtherHost, "another host", Proof, ProofError::Url(UrlMismatch::Host);
    /// `htu` names another port (check 9).
    OtherPort, "another port", Proof, ProofError::Url(UrlMismatch::Port);
    /// `htu` names another path (check 9).
    OtherPath, "another path", Proof, ProofError::Url(UrlMismatch::Path);
    /// `iat` is three days ago (check 11). A service where nonces replace `iat` accepts it.
    TooOld, "a proof that is too old", Proof, ProofError::Iat(IatError::TooOld { by: FAR - 90 });
    /// `iat` is in three days (check 11). A service where nonces replace `iat` accepts it.
    FromTheFuture, "a proof from the future", Proof,
        ProofError::Iat(IatError::InTheFuture { by: FAR - 30 });
    /// `exp` was three days ago.
    Expired, "a proof that has expired", Proof, ProofError::Expired;
    /// `nbf` is in three days.
    NotYetValid, "a proof that is not valid yet", Proof, ProofError::NotYetValid;
    /// `ath` is the hash of another token (check 12).
    OtherTokensHash, "the hash of another token", Token, ProofError::TokenHash;

    /// A token that is not a JWT.
    TokenNotAJwt, "a token that is not a JWT", TokenOfIssuer, TokenError::Malformed;
    /// A token whose `typ` is that of proofs.
    TokenTyp, "a token of another typ", TokenOfIssuer, TokenError::Type;
    /// A token whose `alg` is `none`, without a signature.
    TokenAlgNone, "a token of the algorithm none", TokenOfIssuer, TokenError::Algorithm;
    /// A token of another issuer.
    TokenIssuer, "a token of another issuer", TokenOfIssuer, TokenError::Issuer;
    /// A token for another audience.
    TokenAudience, "a token for another audience", TokenOfIssuer, TokenError::Audience;
    /// A token that expired three days ago.
    TokenExpired, "a token that has expired", TokenOfIssuer, TokenError::Expired;
    /// A token that becomes valid in three days.
    TokenNotYetValid, "a token that is not valid yet", TokenOfIssuer, TokenError::NotYetValid;
    /// A token with a `kid` that no key of the issuer has.
    TokenKey, "a token of an unknown key", TokenOfIssuer, TokenError::Key;
    /// A token whose signature has one bit changed.
    TokenSignature, "a token with a wrong signature", TokenOfIssuer, TokenError::Signature;
    /// A token with neither a subject nor a client. A service whose claims type needs no `sub` accepts it.
    TokenWithoutSubject, "a token without a subject and a client", TokenOfIssuer, TokenError::Claims;

    /// A stolen token: the proof is valid, but signed with the thief's key (check 12).
    StolenToken, "a stolen token", Token, BindingError::OtherKey;
    /// A token that is not bound to anything (section 6).
    UnboundToken, "a token without cnf", TokenOfIssuer, BindingError::Unbound;
    /// A token that is bound to a TLS certificate.
    UnconfirmableToken, "a token bound to a certificate", TokenOfIssuer, BindingError::Unconfirmable;

    /// No `nonce` (check 10).
    NoNonce, "no nonce", Nonce, NonceError::Missing;
    /// A `nonce` that the server never issued (check 10).
    ForeignNonce, "a foreign nonce", Nonce, NonceError::Foreign;
    /// A `nonce` from three days ago (check 10).
    StaleNonce, "a stale nonce", NonceSource, NonceError::Stale;
    /// A `nonce` from three days in the future (check 10).
    NonceFromTheFuture, "a nonce from the future", NonceSource, NonceError::InTheFuture;
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The variants of an error. A new variant does not compile until it has a name here.
    macro_rules! variants {
        ($function:ident, $type:ty: $($pattern:pat => $name:literal,)*) => {
            fn $function(error: &$type) -> &'static str {
                match error {
                    $($pattern => $name,)*
                }
            }

            impl Variants for $type {
                const ALL: &'static [&'static str] = &[$($name,)*];
            }
        };
    }

    trait Variants {
        const ALL: &'static [&'static str];
    }

    variants! { credentials, CredentialsError:
        CredentialsError::Ambiguous => "Ambiguous",
        CredentialsError::Bearer => "Bearer",
        CredentialsError::Malformed => "Malformed",
        CredentialsError::Missing => "Missing",
        CredentialsError::TokenTooLong => "TokenTooLong",
    }

    variants! { proof, ProofError:
        ProofError::Missing => "Missing",
        ProofError::Several => "Several",
        ProofError::TooLong => "TooLong",
        ProofError::NotAJwt => "NotAJwt",
        ProofError::HeaderNotJson => "HeaderNotJson",
        ProofError::PayloadNotJson => "PayloadNotJson",
        ProofError::ClaimMissing => "ClaimMissing",
        ProofError::NoKey => "NoKey",
        ProofError::JtiLength => "JtiLength",
        ProofError::Type => "Type",
        ProofError::Extension => "Extension",
        ProofError::Algorithm => "Algorithm",
        ProofError::Signature => "Signature",
        ProofError::Key(InvalidJwk::Algorithm) => "Key(Algorithm)",
        ProofError::Key(InvalidJwk::Coordinate) => "Key(Coordinate)",
        ProofError::Key(InvalidJwk::Integer) => "Key(Integer)",
        ProofError::Key(InvalidJwk::Json) => "Key(Json)",
        ProofError::Key(InvalidJwk::KeyType) => "Key(KeyType)",
        ProofError::Key(InvalidJwk::Missing) => "Key(Missing)",
        ProofError::Key(InvalidJwk::Private) => "Key(Private)",
        ProofError::Key(InvalidJwk::RsaSize) => "Key(RsaSize)",
        ProofError::Key(InvalidJwk::RsaTooLarge) => "Key(RsaTooLarge)",
        ProofError::Key(InvalidJwk::Use) => "Key(Use)",
        ProofError::Method => "Method",
        ProofError::Url(UrlMismatch::Malformed) => "Url(Malformed)",
        ProofError::Url(UrlMismatch::Scheme) => "Url(Scheme)",
        ProofError::Url(UrlMismatch::Host) => "Url(Host)",
        ProofError::Url(UrlMismatch::Port) => "Url(Port)",
        ProofError::Url(UrlMismatch::Path) => "Url(Path)",
        ProofError::Url(UrlMismatch::PathPrefix) => "Url(PathPrefix)",
        ProofError::Iat(IatError::TooOld { .. }) => "Iat(TooOld)",
        ProofError::Iat(IatError::InTheFuture { .. }) => "Iat(InTheFuture)",
        ProofError::Expired => "Expired",
        ProofError::NotYetValid => "NotYetValid",
        ProofError::TokenHash => "TokenHash",
        ProofError::Replayed => "Replayed",
    }

    variants! { token, TokenError:
        TokenError::Algorithm => "Algorithm",
        TokenError::Audience => "Audience",
        TokenError::Claims => "Claims",
        TokenError::Expired => "Expired",
        TokenError::InsufficientScope => "InsufficientScope",
        TokenError::Invalid => "Invalid",
        TokenError::Issuer => "Issuer",
        TokenError::Key => "Key",
        TokenError::Malformed => "Malformed",
        TokenError::NotYetValid => "NotYetValid",
        TokenError::Signature => "Signature",
        TokenError::TokenType => "TokenType",
        TokenError::Type => "Type",
        TokenError::Unavailable => "Unavailable",
    }

    variants! { binding, BindingError:
        BindingError::OtherKey => "OtherKey",
        BindingError::Unbound => "Unbound",
        BindingError::Unconfirmable => "Unconfirmable",
    }

    variants! { nonce, NonceError:
        NonceError::Foreign => "Foreign",
        NonceError::InTheFuture => "InTheFuture",
        NonceError::Missing => "Missing",
        NonceError::Stale => "Stale",
    }

    /// Asserts that every variant except these is the rejection of a defect, and that these are
    /// not.
    fn assert_shown<T: Variants>(
        name_of: fn(&T) -> &'static str,
        error_of: fn(&Rejection) -> Option<&T>,
        exceptions: &[&str],
    ) {
        let rejections: Vec<Rejection> = Defect::ALL.iter().map(|it| it.rejection()).collect();
        let shown: BTreeSet<&str> = rejections
            .iter()
            .filter_map(error_of)
            .map(name_of)
            .collect();
        let expected: BTreeSet<&str> = T::ALL
            .iter()
            .copied()
            .filter(|name| !exceptions.contains(name))
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn there_is_a_defect_for_every_rejection() {
        assert_shown(
            credentials,
            |rejection| match rejection {
                Rejection::Credentials(error) => Some(error),
                _ => None,
            },
            &[],
        );
        assert_shown(
            proof,
            |rejection| match rejection {
                Rejection::Proof(error) => Some(error),
                _ => None,
            },
            // A replay needs a second request, a prefix a proxy; the others depend on the type of the key.
            &[
                "Key(Coordinate)",
                "Key(Integer)",
                "Key(Json)",
                "Key(RsaSize)",
                "Key(RsaTooLarge)",
                "Replayed",
                "Url(PathPrefix)",
            ],
        );
        assert_shown(
            token,
            |rejection| match rejection {
                Rejection::Token(error) => Some(error),
                _ => None,
            },
            // The test issuer's verifier of JWTs never returns these.
            &["InsufficientScope", "Invalid", "TokenType", "Unavailable"],
        );
        assert_shown(
            binding,
            |rejection| match rejection {
                Rejection::Binding(error) => Some(error),
                _ => None,
            },
            &[],
        );
        assert_shown(
            nonce,
            |rejection| match rejection {
                Rejection::Nonce(error) => Some(error),
                _ => None,
            },
            &[],
        );
    }
}
