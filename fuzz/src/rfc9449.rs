//! RFC 9449 once more, from its text alone, to compare the crate with: sections 4.3, 7, 8, 9 and 11.1.
//!
//! [`judge`] makes every check of a request, in the plainest way, and names those that fail. A server may reject more
//! than the standards demand. Each rule of this kind that the crate has is a [`Strictness`], so that both must accept exactly the
//! same requests.

mod json;
mod url;

use std::collections::HashSet;

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ED25519, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Verifier as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use self::json::repeats_a_member;
use self::url::{expected_url, names, normal_url};

/// Without padding (RFC 7515 section 2). By RFC 4648 section 3.5 a decoder may ignore the bits after the last byte.
const BASE64URL: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// A rule of the standards. `C` numbers are the checks of RFC 9449 section 4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Section 7.1: an access token under the scheme `DPoP`.
    Credentials,
    /// "There is not more than one DPoP HTTP request header field", and by section 7.1 there is one.
    C1,
    /// "The DPoP HTTP request header field value is a single and well-formed JWT."
    C2,
    /// "All required claims per Section 4.2 are contained in the JWT."
    C3,
    /// "The typ JOSE Header Parameter has the value dpop+jwt."
    C4,
    /// "The alg JOSE Header Parameter indicates a registered asymmetric digital signature algorithm …, is not none, is
    /// supported by the application, and is acceptable per local policy."
    C5,
    /// "The JWT signature verifies with the public key contained in the jwk JOSE Header Parameter."
    C6,
    /// "The jwk JOSE Header Parameter does not contain a private key."
    C7,
    /// "The htm claim matches the HTTP method of the current request."
    C8,
    /// "The htu claim matches the HTTP URI value for the HTTP request in which the JWT was received, ignoring any query
    /// and fragment parts."
    C9,
    /// "If the server provided a nonce value to the client, the nonce claim matches the server-provided nonce value."
    C10,
    /// "The creation time of the JWT … is within an acceptable window".
    C11,
    /// "ensure that the value of the ath claim equals the hash of that access token"
    C12Hash,
    /// "and confirm that the public key to which the access token is bound matches the public key from the DPoP proof."
    C12Key,
    /// RFC 7519 sections 4.1.4 and 4.1.5: `exp` and `nbf`, if present.
    JwtTimes,
    /// Section 11.1: a `jti` is accepted once.
    Replay,
    /// The access token itself is valid.
    Token,
}

/// Where the crate rejects a request that the standards let a server accept. `D` numbers are in `docs/guide/decisions.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// D9: a JSON member twice, at any level. RFC 7519 section 4 also allows a reader that uses the last one.
    DuplicateMember,
    /// D2: percent-encoding in the host of a URL.
    EncodedHost,
    /// D9: `b64`, `enc` or `zip` without a `crit` that names it.
    Extension,
    /// D10: `jti` is empty or has more than 512 bytes.
    JtiLength,
    /// D8: `use`, `key_ops` or `alg` of the key contradict. RFC 7517 sections 4.2 to 4.4 do not oblige a reader.
    KeyUse,
    /// A member that the crate reads has another JSON type than its definition, although no check needs it.
    MemberType,
    /// A port with leading zeros.
    PortZeros,
    /// D8: a member that only private keys of another key type have, or symmetric keys.
    PrivateMember,
    /// D10: more than 8 KiB.
    ProofLength,
    /// D24: bits after the last byte of base64url, which RFC 4648 section 3.5 lets a decoder reject.
    StrayBits,
    /// D1: the request names another server, or its target has no URL that a proof could name.
    Target,
    /// D2: the path of the request has characters that are not visible ASCII.
    TargetCharacters,
}

/// The `error` of the challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    NoCode,
    InvalidRequest,
    InvalidToken,
    InvalidDpopProof,
    UseDpopNonce,
}

/// A request as an HTTP parser delivers it.
pub struct Request<'r> {
    pub method: &'r str,
    /// The request target (RFC 9112 section 3.2).
    pub target: &'r str,
    pub authorization: Vec<&'r [u8]>,
    pub dpop: Vec<&'r [u8]>,
}

/// What the server knows.
pub struct Server<'s> {
    pub host: &'s str,
    pub port: u32,
    pub now: u64,
    /// If nonces are required: those that the server issued, and when.
    pub nonces: Option<&'s [(String, u64)]>,
    pub token: &'s dyn Fn(&str) -> Token,
    /// Of accepted proofs.
    pub used: &'s HashSet<Identity>,
}

/// The thumbprint of the key, and `jti`.
pub type Identity = (String, String);

/// What the server knows about an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The thumbprint in its `cnf`.
    BoundTo(String),
    Unbound,
    Invalid,
}

/// Section 11.1 leaves the window and the lifetime of nonces to the server (D4, D5). In seconds.
pub const MAX_AGE: u64 = 60;
pub const LEEWAY: u64 = 30;
pub const NONCE_PERIOD: u64 = 120;

/// What is wrong with a request, if anything is.
#[derive(Debug, Default)]
pub struct Judgement {
    pub failed: Vec<(Check, Vec<Class>)>,
    pub strict: Vec<Strictness>,
    /// Of the proof, if it has one.
    pub identity: Option<Identity>,
}

impl Judgement {
    pub fn accepts(&self) -> bool {
        self.failed.is_empty() && self.strict.is_empty()
    }

    /// Whether a rejection may report this. If several checks fail, the standards do not say which comes first.
    pub fn explains(&self, class: Class) -> bool {
        let strict = !self.strict.is_empty() && class == Class::InvalidDpopProof;
        let mut failed = self.failed.iter();
        strict || failed.any(|(_, classes)| classes.contains(&class))
    }

    fn require(&mut self, is_so: bool, check: Check) {
        if !is_so {
            self.fail(check, &[Class::InvalidDpopProof]);
        }
    }

    fn fail(&mut self, check: Check, classes: &[Class]) {
        self.failed.push((check, classes.to_vec()));
    }

    fn strict_if(&mut self, applies: bool, rule: Strictness) {
        if applies {
            self.strict.push(rule);
        }
    }
}

/// Makes every check.
pub fn judge(request: &Request<'_>, server: &Server<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    let token = match access_token(&request.authorization) {
        Ok(token) => token,
        Err(classes) => {
            judgement.fail(Check::Credentials, classes);
            return judgement;
        }
    };
    let known = (server.token)(token);
    if !matches!(known, Token::BoundTo(_)) {
        judgement.fail(Check::Token, &[Class::InvalidToken]);
    }
    let url = expected_url(request, server, &mut judgement);
    let [field] = request.dpop[..] else {
        let mut classes = vec![Class::InvalidDpopProof];
        if server.nonces.is_some() && request.dpop.is_empty() {
            // Section 9: a request without a nonce.
            classes.push(Class::UseDpopNonce);
        }
        judgement.fail(Check::C1, &classes);
        return judgement;
    };
    judgement.strict_if(field.len() > 8192, Strictness::ProofLength);
    let Some(jwt) = Jwt::read(field, &mut judgement) else {
        judgement.require(false, Check::C2);
        return judgement;
    };
    let jkt = check_header(&jwt, &mut judgement);
    let expected = Expected {
        url,
        token,
        method: request.method,
        server,
    };
    check_claims(&jwt.claims, &expected, &mut judgement);
    if let Token::BoundTo(bound_to) = known
        && jkt.as_ref() != Some(&bound_to)
    {
        judgement.fail(Check::C12Key, &[Class::InvalidToken]);
    }
    if let (Some(jkt), Some(jti)) = (jkt, text(&jwt.claims, "jti")) {
        let identity = (jkt, jti.to_owned());
        judgement.require(!server.used.contains(&identity), Check::Replay);
        judgement.identity = Some(identity);
    }
    judgement
}

/// Section 7.1: `credentials = "DPoP" 1*SP token68`. The name of a scheme has no case (RFC 9110 section 11.1).
fn access_token<'r>(fields: &[&'r [u8]]) -> Result<&'r str, &'static [Class]> {
    let field = match fields {
        // RFC 6750 section 3.1: a request without authentication information gets no error code.
        [] => return Err(&[Class::NoCode]),
        [field] => field,
        _ => return Err(&[Class::InvalidRequest]),
    };
    let of_a_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = field.iter().take_while(of_a_name).count();
    let (scheme, rest) = field.split_at(length);
    let token = rest.trim_ascii_start();
    let spaces = &rest[..rest.len() - token.len()];
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let characters = &token[..token.len() - padding];
    let mut characters = characters.iter().peekable();
    let is_token68 = characters.peek().is_some()
        && characters.all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte));
    let follows = !spaces.is_empty() && spaces.iter().all(|byte| *byte == b' ') && is_token68;
    if scheme.is_empty() {
        // No authentication information that could be read.
        Err(&[Class::NoCode, Class::InvalidRequest])
    } else if scheme.eq_ignore_ascii_case(b"DPoP") {
        let token = str::from_utf8(token).ok().filter(|_| follows);
        token.ok_or(&[Class::InvalidRequest])
    } else if scheme.eq_ignore_ascii_case(b"Bearer") && follows {
        // An authentication method that is not supported, or section 7.2: "… MUST reject" a token that is bound.
        Err(&[Class::NoCode, Class::InvalidToken])
    } else if scheme.eq_ignore_ascii_case(b"Bearer") {
        Err(&[Class::NoCode, Class::InvalidRequest])
    } else {
        Err(&[Class::NoCode])
    }
}

/// A JWS in its compact serialisation, whose payload is a claims set (RFC 7519 section 7.2).
struct Jwt<'r> {
    signed: &'r str,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'r> Jwt<'r> {
    fn read(field: &'r [u8], judgement: &mut Judgement) -> Option<Self> {
        let text = str::from_utf8(field).ok()?;
        let segments: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = segments[..] else {
            return None;
        };
        let header_text = decode(header, judgement)?;
        let claims_text = decode(payload, judgement)?;
        let signature = decode(signature, judgement)?;
        let (Ok(Value::Object(header_object)), Ok(Value::Object(claims))) = (
            serde_json::from_slice(&header_text),
            serde_json::from_slice(&claims_text),
        ) else {
            return None;
        };
        let repeats = repeats_a_member(&header_text) || repeats_a_member(&claims_text);
        judgement.strict_if(repeats, Strictness::DuplicateMember);
        let cty = self::text(&header_object, "cty");
        // RFC 7515 section 4.1.11: the server understands no extension. RFC 7519 section 7.2, step 8: the payload would
        // be a JWT, not a claims set.
        let nested = cty.is_some_and(|cty| cty.eq_ignore_ascii_case("JWT"));
        (!header_object.contains_key("crit") && !nested).then_some(Self {
            signed: &text[..=header.len() + payload.len()],
            header: header_object,
            claims,
            signature,
        })
    }
}

fn decode(text: &str, judgement: &mut Judgement) -> Option<Vec<u8>> {
    let bytes = BASE64URL.decode(text).ok()?;
    let stray_bits = URL_SAFE_NO_PAD.encode(&bytes) != text;
    judgement.strict_if(stray_bits, Strictness::StrayBits);
    Some(bytes)
}

fn text<'j>(object: &'j Map<String, Value>, name: &str) -> Option<&'j str> {
    object.get(name).and_then(Value::as_str)
}

/// Whether each of these members is a string, `null` (D9) or absent.
fn are_texts(object: &Map<String, Value>, names: &[&str]) -> bool {
    let mut members = names.iter().filter_map(|name| object.get(*name));
    members.all(|value| value.is_null() || value.is_string())
}

/// Checks 4 to 7. Returns the thumbprint of the key.
fn check_header(jwt: &Jwt<'_>, judgement: &mut Judgement) -> Option<String> {
    let header = &jwt.header;
    judgement.require(text(header, "typ") == Some("dpop+jwt"), Check::C4);
    let alg = text(header, "alg").unwrap_or_default();
    // The local policy: D6.
    let accepted = ["ES256", "ES384", "PS256", "Ed25519", "EdDSA"];
    judgement.require(accepted.contains(&alg), Check::C5);
    let extended = ["b64", "enc", "zip"]
        .iter()
        .any(|name| header.contains_key(*name));
    judgement.strict_if(extended, Strictness::Extension);
    let are_texts = are_texts(header, &["typ", "alg", "cty"]);
    judgement.strict_if(!are_texts, Strictness::MemberType);
    let Some(Value::Object(jwk)) = header.get("jwk") else {
        judgement.require(false, Check::C6);
        return None;
    };
    judgement.require(!jwk.contains_key("d"), Check::C7);
    let others = ["p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    let is_private = others.iter().any(|name| jwk.contains_key(*name));
    judgement.strict_if(is_private, Strictness::PrivateMember);
    check_use(jwk, alg, judgement);
    let verifies = verifies(jwt, jwk, alg, judgement);
    judgement.require(verifies == Some(true), Check::C6);
    thumbprint(jwk)
}

/// What a key says about its use.
fn check_use(jwk: &Map<String, Value>, alg: &str, judgement: &mut Judgement) {
    let key_ops = match jwk.get("key_ops") {
        None | Some(Value::Null) => None,
        Some(Value::Array(list)) => Some(&list[..]),
        Some(_) => {
            judgement.strict.push(Strictness::MemberType);
            None
        }
    };
    let names = ["kty", "crv", "x", "y", "n", "e", "alg", "use"];
    let typed = are_texts(jwk, &names) && key_ops.unwrap_or(&[]).iter().all(Value::is_string);
    judgement.strict_if(!typed, Strictness::MemberType);
    let signs = text(jwk, "use").is_none_or(|usage| usage == "sig")
        && key_ops.is_none_or(|list| list.contains(&Value::from("verify")));
    let edwards = |name: &str| name == "Ed25519" || name == "EdDSA";
    let same = text(jwk, "alg").is_none_or(|own| own == alg || edwards(own) && edwards(alg));
    judgement.strict_if(!signs || !same, Strictness::KeyUse);
}

/// Check 6, by RFC 7518 sections 3.4, 3.5 and 6, and RFC 8037. `None` if there is no key of this algorithm.
fn verifies(
    jwt: &Jwt<'_>,
    jwk: &Map<String, Value>,
    alg: &str,
    judgement: &mut Judgement,
) -> Option<bool> {
    let mut member = |name| decode(text(jwk, name)?, judgement);
    let (signed, signature) = (jwt.signed.as_bytes(), &jwt.signature[..]);
    // RFC 7518 section 6.2.1.2: a coordinate has the full length.
    let mut point = |length| {
        let (x, y) = (member("x")?, member("y")?);
        (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
    };
    Some(match (alg, text(jwk, "kty")?, text(jwk, "crv")) {
        ("ES256", "EC", Some("P-256")) => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(32)?).ok()?;
            let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
            key.verify(signed, &signature).is_ok()
        }
        ("ES384", "EC", Some("P-384")) => {
            let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point(48)?);
            key.verify(signed, signature).is_ok()
        }
        ("Ed25519" | "EdDSA", "OKP", Some("Ed25519")) => {
            let key = UnparsedPublicKey::new(&ED25519, member("x")?);
            key.verify(signed, signature).is_ok()
        }
        ("PS256", "RSA", _) => {
            let key = RsaPublicKeyComponents {
                n: member("n")?,
                e: member("e")?,
            };
            key.verify(&RSA_PSS_2048_8192_SHA256, signed, signature)
                .is_ok()
        }
        _ => return None,
    })
}

/// RFC 7638 section 3.
pub fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let names: &[&str] = match text(jwk, "kty")? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let mut members = Vec::new();
    for name in names {
        members.push(format!("\"{name}\":{}", Value::from(text(jwk, name)?)));
    }
    let json = format!("{{{}}}", members.join(","));
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(json)))
}

struct Expected<'e> {
    /// In its normal form. `None` if no proof can name the request's target.
    url: Option<String>,
    token: &'e str,
    method: &'e str,
    server: &'e Server<'e>,
}

/// Checks 3 and 8 to 12.
fn check_claims(claims: &Map<String, Value>, expected: &Expected<'_>, judgement: &mut Judgement) {
    let texts = ["jti", "htm", "htu", "ath"].map(|name| text(claims, name));
    let [jti, htm, htu, ath] = texts;
    let number = |name| claims.get(name).and_then(Value::as_f64);
    let iat = number("iat");
    judgement.require(
        texts.iter().all(Option::is_some) && iat.is_some(),
        Check::C3,
    );
    judgement.require(htm == Some(expected.method), Check::C8);
    let htu = htu.and_then(|htu| normal_url(htu, judgement));
    let is_url = htu
        .zip(expected.url.as_ref())
        .is_some_and(|(htu, url)| names(&htu, url));
    judgement.require(is_url, Check::C9);
    check_nonce(text(claims, "nonce"), expected.server, judgement);

    let [now, leeway, age] = [expected.server.now, LEEWAY, MAX_AGE].map(|seconds| seconds as f64);
    let is_fresh = |iat| now - age - leeway <= iat && iat <= now + leeway;
    judgement.require(iat.is_some_and(is_fresh), Check::C11);
    let in_time = number("exp").is_none_or(|exp| now < exp + leeway)
        && number("nbf").is_none_or(|nbf| nbf - leeway <= now);
    judgement.require(in_time, Check::JwtTimes);
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(expected.token));
    judgement.require(ath == Some(&hash[..]), Check::C12Hash);

    let is_number = |name: &&str| {
        let value = claims.get(*name);
        value.is_none_or(|value| value.is_null() || value.is_number())
    };
    let typed = are_texts(claims, &["jti", "htm", "htu", "ath", "nonce"])
        && ["iat", "exp", "nbf"].iter().all(is_number);
    judgement.strict_if(!typed, Strictness::MemberType);
    let unusual = jti.is_some_and(|jti| jti.is_empty() || jti.len() > 512);
    judgement.strict_if(unusual, Strictness::JtiLength);
}

/// Check 10. By section 9 a server that requires nonces reports `use_dpop_nonce`.
fn check_nonce(nonce: Option<&str>, server: &Server<'_>, judgement: &mut Judgement) {
    let Some(nonces) = server.nonces else { return };
    let issued = nonces.iter().find(|(text, _)| Some(&text[..]) == nonce);
    let is_current = issued
        .is_some_and(|(_, at)| *at <= server.now + LEEWAY && server.now < *at + 2 * NONCE_PERIOD);
    if !is_current {
        judgement.fail(Check::C10, &[Class::UseDpopNonce]);
    }
}

#[cfg(test)]
mod tests;
