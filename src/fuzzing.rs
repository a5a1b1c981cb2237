//! Functions that only the targets in `fuzz/` call: readers that otherwise need a server. This module exists only under
//! `--cfg fuzzing`.

use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri};

use crate::client::new_proof::{Htu, InvalidRequestUrl};
use crate::issuer::endpoint_url::EndpointUrl;
use crate::issuer::http::HttpResponse;
use crate::issuer::metadata::read_own;
use crate::jose::p256_table::P256Table;
use crate::proof::public_url::PublicUrl;
use crate::proof::target::{TargetError, Targets, UrlMismatch};
use crate::time::Timestamp;
use crate::tokens::access_token::{AccessToken, TokenError};
use crate::tokens::introspection::claims::IntrospectedClaims;
use crate::tokens::introspection::response::read_response;
use crate::tokens::introspection::signed_responses::SignedResponses;
use crate::tokens::introspection::verifier::IntrospectionVerifier;
use crate::tokens::jwks::documents::{self, IssuerDocument, Metadata, RemoteKeysError};
use crate::tokens::key_set::KeySet;
use crate::uri::{PathSyntax, normalise_path};

/// Verifies with a table, as for a recurring key, but without the eight requests before it.
pub struct PrecomputedKey(P256Table);

impl PrecomputedKey {
    /// Reads `04 ‖ x ‖ y`. `None` if it is not a point on the curve.
    pub fn new(point: &[u8; 65]) -> Option<Self> {
        P256Table::new(point).map(Self)
    }

    /// Whether `r ‖ s` is a valid signature of a message with this digest.
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        self.0.verify_digest(digest, signature).is_ok()
    }
}

impl std::fmt::Debug for PrecomputedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrecomputedKey(..)")
    }
}

/// The keys in a document that `RemoteKeys` fetched.
pub fn read_key_set(document: &[u8], issuer: &EndpointUrl) -> Result<KeySet, RemoteKeysError> {
    documents::read_key_set(document, issuer)
}

/// The `jwks_uri` in metadata that `RemoteKeys` fetched.
pub fn read_metadata(document: &[u8], issuer: &EndpointUrl) -> Result<String, RemoteKeysError> {
    let metadata: Metadata = read_own(document, issuer)
        .map_err(|error| RemoteKeysError::of(IssuerDocument::Metadata, issuer.url(), error))?;
    metadata.jwks_uri(issuer).map(String::from)
}

/// The members of an introspection response, if the token is active, or why the response is unusable.
pub async fn read_introspection(
    status: StatusCode,
    body: &[u8],
    signed: Option<&SignedResponses>,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, String> {
    let response = HttpResponse {
        status,
        headers: HeaderMap::new(),
        body: body.to_owned(),
    };
    let members = read_response(response, signed, now).await;
    members.map_err(|failure| failure.to_string())
}

/// The active token that these members describe.
pub fn introspected(
    verifier: &IntrospectionVerifier,
    members: &[u8],
    now: Timestamp,
) -> Result<AccessToken<IntrospectedClaims>, TokenError> {
    Ok(verifier.read_claims(members, now)?.token)
}

/// The normal form of a path: of a configured one, or of one in a request or a proof.
pub fn normalised_path(path: &str, is_configured: bool) -> Option<String> {
    let syntax = if is_configured {
        PathSyntax::Rfc3986
    } else {
        PathSyntax::AsSent
    };
    normalise_path(path, syntax).map(String::from)
}

/// Whether `htu` is the URL of this request behind the public URL.
pub fn check_url(
    public_url: &PublicUrl,
    request: &Parts,
    htu: &str,
) -> Result<Result<(), UrlMismatch>, TargetError> {
    let targets = Targets::new(public_url.clone());
    let target = targets.of(request)?;
    Ok(target.check_url(htu))
}

/// The `htu` of this crate's own client.
pub fn htu_of(uri: &Uri) -> Result<String, InvalidRequestUrl> {
    let htu = Htu::of(uri)?;
    Ok(format!("{}{}", htu.origin, htu.path))
}
