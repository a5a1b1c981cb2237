//! A valid request with changes, most of which are made before the proof is signed.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use p256::elliptic_curve::ops::Reduce as _;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{FieldBytes, ProjectivePoint, Scalar};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop_fuzz::rfc9449::{Token, thumbprint};

use crate::NOW;

#[derive(Arbitrary, Debug)]
pub(crate) struct Attempt<'a> {
    key: Key,
    token: Presented<'a>,
    jti: u8,
    changes: Vec<Change<'a>>,
    after: Vec<After<'a>>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Key {
    Es256,
    OtherEs256,
    Ed25519,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Presented<'a> {
    BoundToTheKey,
    BoundTo(Key),
    Unbound,
    Any(&'a str),
}

/// Where a member is.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Object {
    Header,
    Jwk,
    Claims,
}

/// A change before the proof is signed.
#[derive(Arbitrary, Debug)]
enum Change<'a> {
    Set(Object, u8, Json<'a>),
    Add(Object, Name<'a>, Json<'a>),
    Remove(Object, u8),
    Iat(Seconds),
    Exp(Seconds),
    Nbf(Seconds),
    /// One of those that the server issued.
    Nonce(u8),
    AthOf(&'a str),
    Htm(&'a str),
    Method(u8),
    MethodAndHtm(&'a str),
    Htu(Edit<'a>),
    Target(Edit<'a>),
    HtuAndTarget(Edit<'a>),
    /// The URL of the target, written as absolute-form.
    AbsoluteForm,
    SignBy(Key),
    /// Some bytes of the header's or the payload's JSON.
    Bytes {
        claims: bool,
        at: u16,
        length: u8,
        by: &'a [u8],
    },
    /// Bits after the last byte, in the base64url of the header, the payload, the signature, or `x`.
    StrayBits {
        segment: u8,
        bits: u8,
    },
    /// The other signature of ECDSA that verifies.
    NegateS,
}

/// A change of what is sent.
#[derive(Arbitrary, Debug)]
enum After<'a> {
    Field {
        name: Field,
        instead: bool,
        value: &'a [u8],
    },
    Repeat(Field),
    Remove(Field),
    Bytes {
        name: Field,
        at: u16,
        length: u8,
        by: &'a [u8],
    },
    Scheme(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Field {
    Authorization,
    Dpop,
}

#[derive(Arbitrary, Debug)]
enum Name<'a> {
    Known(u8),
    Any(&'a str),
}

/// The names of the standards.
const NAMES: [&str; 35] = [
    "typ", "alg", "jwk", "cty", "crit", "b64", "enc", "zip", "kid", "jku", "x5u", "kty", "crv",
    "x", "y", "n", "e", "d", "k", "p", "priv", "use", "key_ops", "jti", "htm", "htu", "iat", "ath",
    "nonce", "exp", "nbf", "iss", "aud", "oth", "qi",
];

#[derive(Arbitrary, Debug)]
enum Json<'a> {
    Null,
    Bool(bool),
    Number(i8),
    Word(u8),
    Text(&'a str),
    /// This many bytes.
    Long(u16),
    Words([u8; 2]),
    Object(Name<'a>, Name<'a>),
    /// Any JSON, or none.
    Raw(&'a str),
}

const WORDS: [&str; 26] = [
    "dpop+jwt",
    "DPoP+JWT",
    "application/dpop+jwt",
    "JWT",
    "jwt",
    "ES256",
    "ES384",
    "ES512",
    "PS256",
    "RS256",
    "HS256",
    "none",
    "Ed25519",
    "EdDSA",
    "EC",
    "OKP",
    "RSA",
    "oct",
    "P-256",
    "P-384",
    "sig",
    "enc",
    "verify",
    "sign",
    "GET",
    "",
];

impl Json<'_> {
    fn text(&self) -> String {
        let word = |at: &u8| json!(WORDS[usize::from(*at) % WORDS.len()]).to_string();
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Word(at) => word(at),
            Self::Text(text) => json!(text).to_string(),
            Self::Long(length) => json!("a".repeat(usize::from(*length) % 9_000)).to_string(),
            Self::Words([one, two]) => format!("[{},{}]", word(one), word(two)),
            Self::Object(one, two) => {
                format!("{{{}:1,{}:2}}", json!(one.text()), json!(two.text()))
            }
            Self::Raw(text) => (*text).to_owned(),
        }
    }
}

impl Name<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Known(at) => NAMES[usize::from(*at) % NAMES.len()],
            Self::Any(text) => text,
        }
    }
}

/// A NumericDate near the ends of what is accepted, or any.
#[derive(Arbitrary, Debug)]
enum Seconds {
    FromNow(i8),
    Fraction(i8, u8),
    Any(f64),
}

impl Seconds {
    fn text(&self) -> String {
        match self {
            Self::FromNow(seconds) => (NOW.cast_signed() + i64::from(*seconds)).to_string(),
            Self::Fraction(seconds, digits) => {
                format!("{}.{digits}", NOW.cast_signed() + i64::from(*seconds))
            }
            Self::Any(number) => json!(number).to_string(),
        }
    }
}

/// A change of a URL or a path.
#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    Insert(u8, Piece<'a>),
    /// The percent-encoding of a character.
    Encode {
        at: u8,
        lower: bool,
    },
    SwapCase(u8),
    Remove(u8, u8),
    Append(Piece<'a>),
    Whole(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Known(u8),
    Any(&'a str),
}

const PIECES: [&str; 30] = [
    "/", "/.", "/..", "/./", "/../", "//", ".", "..", "%2e", "%2E%2E", "%2F", "%2f", "%", "%7e",
    "%41", "%5B", "[", "\\", "?", "#", "@", ":", ":443", ":8443", ":0443", "HTTPS", "*", ";a=1",
    " ", "\u{e9}",
];

impl Edit<'_> {
    fn apply(&self, text: &mut String) {
        let place = |text: &str, at: u8| {
            let at = usize::from(at) % (text.len() + 1);
            text.floor_char_boundary(at)
        };
        match self {
            Self::Insert(at, piece) => text.insert_str(place(text, *at), piece.text()),
            Self::Encode { at, lower } => {
                let at = place(text, *at);
                if let Some(character) = text[at..].chars().next().filter(char::is_ascii) {
                    let byte = u32::from(character);
                    let code = if *lower {
                        format!("%{byte:02x}")
                    } else {
                        format!("%{byte:02X}")
                    };
                    text.replace_range(at..=at, &code);
                }
            }
            Self::SwapCase(at) => {
                let at = place(text, *at);
                if let Some(character) = text[at..].chars().next().filter(char::is_ascii_alphabetic)
                {
                    let other = char::from(u8::try_from(character).expect("ASCII") ^ 32);
                    text.replace_range(at..=at, &other.to_string());
                }
            }
            Self::Remove(at, length) => {
                let at = place(text, *at);
                let end = text.len().min(at + usize::from(*length));
                text.replace_range(at..text.floor_char_boundary(end), "");
            }
            Self::Append(piece) => text.push_str(piece.text()),
            Self::Whole(whole) => *text = (*whole).to_owned(),
        }
    }
}

impl Piece<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Known(at) => PIECES[usize::from(*at) % PIECES.len()],
            Self::Any(text) => text,
        }
    }
}

/// Members with their JSON, in order, and perhaps twice.
type Members = Vec<(String, String)>;

/// The parts of a proof and its request, which are changed before the proof is signed.
struct Draft {
    header: Members,
    jwk: Members,
    claims: Members,
    method: String,
    target: String,
    htu: String,
    signs: Key,
    bytes: Vec<(bool, u16, u8, Vec<u8>)>,
    stray_bits: [u8; 4],
    negate_s: bool,
}

impl Attempt<'_> {
    /// `None` if no HTTP parser would deliver it.
    pub(crate) fn request(&self, port: u32, nonces: &[(String, u64)]) -> Option<Parts> {
        let token = match self.token {
            Presented::BoundToTheKey => bound_to(self.key).to_owned(),
            Presented::BoundTo(key) => bound_to(key).to_owned(),
            Presented::Unbound => UNBOUND.to_owned(),
            Presented::Any(text) => text.to_owned(),
        };
        let mut draft = self.good(&token, port, nonces);
        for change in &self.changes {
            draft.apply(change, port, nonces);
        }
        let proof = draft.signed();
        let mut fields = vec![
            (Field::Authorization, format!("DPoP {token}").into_bytes()),
            (Field::Dpop, proof.into_bytes()),
        ];
        for after in &self.after {
            after.apply(&mut fields);
        }
        let method = Method::from_bytes(draft.method.as_bytes()).ok()?;
        let uri = Uri::try_from(draft.target).ok()?;
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            // A parser removes white space at both ends (RFC 9110 section 5.5).
            let value = value.trim_ascii();
            request = request.header(name.name(), HeaderValue::from_bytes(value).ok()?);
        }
        Some(request.body(()).ok()?.into_parts().0)
    }

    fn good(&self, token: &str, port: u32, nonces: &[(String, u64)]) -> Draft {
        let mut claims = vec![
            ("jti".into(), format!("\"number {}\"", self.jti)),
            ("htm".into(), "\"GET\"".into()),
            ("htu".into(), String::new()),
            ("iat".into(), NOW.to_string()),
            ("ath".into(), json!(hash(token)).to_string()),
        ];
        if let Some((nonce, _)) = nonces.first() {
            claims.push(("nonce".into(), json!(nonce).to_string()));
        }
        let alg = match self.key {
            Key::Es256 | Key::OtherEs256 => "\"ES256\"",
            Key::Ed25519 => "\"EdDSA\"",
        };
        let jwk = public(self.key).iter();
        Draft {
            header: vec![
                ("typ".into(), "\"dpop+jwt\"".into()),
                ("alg".into(), alg.into()),
                ("jwk".into(), String::new()),
            ],
            jwk: jwk
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect(),
            claims,
            method: "GET".into(),
            target: "/orders/1".into(),
            htu: format!("{}/orders/1", origin(port)),
            signs: self.key,
            bytes: Vec::new(),
            stray_bits: [0; 4],
            negate_s: false,
        }
    }
}

fn origin(port: u32) -> String {
    match port {
        443 => "https://api.example.com".into(),
        port => format!("https://api.example.com:{port}"),
    }
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

impl Draft {
    fn apply(&mut self, change: &Change<'_>, port: u32, nonces: &[(String, u64)]) {
        match change {
            Change::Set(object, at, value) => {
                let members = self.object(*object);
                if let Some(at) = usize::from(*at).checked_rem(members.len()) {
                    members[at].1 = value.text();
                }
            }
            Change::Add(object, name, value) => {
                self.object(*object)
                    .push((name.text().to_owned(), value.text()));
            }
            Change::Remove(object, at) => {
                let members = self.object(*object);
                if let Some(at) = usize::from(*at).checked_rem(members.len()) {
                    members.remove(at);
                }
            }
            Change::Iat(seconds) => self.claim("iat", seconds.text()),
            Change::Exp(seconds) => self.claim("exp", seconds.text()),
            Change::Nbf(seconds) => self.claim("nbf", seconds.text()),
            Change::Nonce(at) => {
                if let Some(at) = usize::from(*at).checked_rem(nonces.len()) {
                    self.claim("nonce", json!(nonces[at].0).to_string());
                }
            }
            Change::AthOf(token) => self.claim("ath", json!(hash(token)).to_string()),
            Change::Htm(method) => self.claim("htm", json!(method).to_string()),
            Change::Method(at) => {
                const METHODS: [&str; 6] = ["OPTIONS", "POST", "get", "CONNECT", "HEAD", "GET"];
                self.method = METHODS[usize::from(*at) % METHODS.len()].into();
                self.claim("htm", json!(self.method).to_string());
            }
            Change::MethodAndHtm(method) => {
                self.method = (*method).into();
                self.claim("htm", json!(method).to_string());
            }
            Change::Htu(edit) => edit.apply(&mut self.htu),
            Change::Target(edit) => edit.apply(&mut self.target),
            Change::HtuAndTarget(edit) => {
                edit.apply(&mut self.target);
                self.htu = format!("{}{}", origin(port), self.target);
            }
            Change::AbsoluteForm => self.target = format!("{}{}", origin(port), self.target),
            Change::SignBy(key) => self.signs = *key,
            Change::Bytes {
                claims,
                at,
                length,
                by,
            } => {
                self.bytes.push((*claims, *at, *length, by.to_vec()));
            }
            Change::StrayBits { segment, bits } => {
                self.stray_bits[usize::from(*segment) % 4] = *bits
            }
            Change::NegateS => self.negate_s = !self.negate_s,
        }
    }

    fn object(&mut self, object: Object) -> &mut Members {
        match object {
            Object::Header => &mut self.header,
            Object::Jwk => &mut self.jwk,
            Object::Claims => &mut self.claims,
        }
    }

    fn claim(&mut self, name: &str, json: String) {
        match self.claims.iter_mut().find(|(known, _)| known == name) {
            Some(claim) => claim.1 = json,
            None => self.claims.push((name.to_owned(), json)),
        }
    }

    fn signed(&self) -> String {
        // Members that were not replaced since.
        let htu = json!(self.htu).to_string();
        let mut jwk = self.jwk.clone();
        if let Some((_, x)) = jwk.iter_mut().find(|(name, _)| name == "x")
            && let Some(text) = x.strip_prefix('"').and_then(|x| x.strip_suffix('"'))
        {
            *x = format!(
                "\"{}\"",
                with_stray_bits(text.to_owned(), self.stray_bits[3])
            );
        }
        let mut header = object(&self.header, &object(&jwk, "")).into_bytes();
        let mut claims = object(&self.claims, &htu).into_bytes();
        for (of_claims, at, length, by) in &self.bytes {
            splice(
                if *of_claims { &mut claims } else { &mut header },
                *at,
                *length,
                by,
            );
        }
        let [header, claims] = [(header, 0), (claims, 1)].map(|(text, segment)| {
            with_stray_bits(URL_SAFE_NO_PAD.encode(text), self.stray_bits[segment])
        });
        let signed = format!("{header}.{claims}");
        let signature = sign(self.signs, &signed, self.negate_s);
        let signature = with_stray_bits(URL_SAFE_NO_PAD.encode(signature), self.stray_bits[2]);
        format!("{signed}.{signature}")
    }
}

/// An object of these members. An empty value stands for this one.
fn object(members: &Members, empty: &str) -> String {
    let members = members.iter().map(|(name, value)| {
        let value = if value.is_empty() { empty } else { value };
        format!("{}:{value}", json!(name))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// The same bytes, with some of the bits set that belong to none.
fn with_stray_bits(mut text: String, bits: u8) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let free = match text.len() % 4 {
        2 => 0x0f,
        3 => 0x03,
        _ => 0,
    };
    if let Some(last) = text.pop() {
        let value = ALPHABET.iter().position(|known| char::from(*known) == last);
        text.push(value.map_or(last, |value| {
            char::from(ALPHABET[value | usize::from(bits & free)])
        }));
    }
    text
}

fn splice(bytes: &mut Vec<u8>, at: u16, length: u8, by: &[u8]) {
    let start = usize::from(at) % (bytes.len() + 1);
    let end = bytes.len().min(start + usize::from(length));
    bytes.splice(start..end, by.iter().copied());
}

impl Field {
    const fn name(self) -> HeaderName {
        match self {
            Self::Authorization => http::header::AUTHORIZATION,
            Self::Dpop => HeaderName::from_static("dpop"),
        }
    }

    const fn same(self, other: Self) -> bool {
        self as u8 == other as u8
    }
}

impl After<'_> {
    fn apply(&self, fields: &mut Vec<(Field, Vec<u8>)>) {
        let find = |fields: &[(Field, Vec<u8>)], name: Field| {
            fields.iter().position(|(known, _)| known.same(name))
        };
        match *self {
            Self::Field {
                name,
                instead,
                value,
            } => {
                if instead {
                    fields.retain(|(known, _)| !known.same(name));
                }
                fields.push((name, value.to_vec()));
            }
            Self::Repeat(name) => {
                if let Some(at) = find(fields, name) {
                    let (_, value) = fields[at].clone();
                    fields.push((name, value));
                }
            }
            Self::Remove(name) => fields.retain(|(known, _)| !known.same(name)),
            Self::Bytes {
                name,
                at,
                length,
                by,
            } => {
                if let Some(found) = find(fields, name) {
                    splice(&mut fields[found].1, at, length, by);
                }
            }
            Self::Scheme(at) => {
                const SCHEMES: [&str; 7] = [
                    "dpop ",
                    "DPOP   ",
                    "Bearer ",
                    "Basic ",
                    "DPoP\t",
                    "DPoP",
                    "DPoP, DPoP ",
                ];
                if let Some(found) = find(fields, Field::Authorization) {
                    let value = &mut fields[found].1;
                    let end = value.len().min(5);
                    value.splice(..end, SCHEMES[usize::from(at) % SCHEMES.len()].bytes());
                }
            }
        }
    }
}

const UNBOUND: &str = "unbound";

const fn bound_to(key: Key) -> &'static str {
    match key {
        Key::Es256 => "of.the-first_key",
        Key::OtherEs256 => "of+another/key==",
        Key::Ed25519 => "of~the~edwards~key",
    }
}

/// What the server knows about this token.
pub(crate) fn known_token(text: &str) -> Token {
    for key in [Key::Es256, Key::OtherEs256, Key::Ed25519] {
        if text == bound_to(key) {
            return Token::BoundTo(thumbprint(public(key)).expect("a key"));
        }
    }
    if text == UNBOUND {
        Token::Unbound
    } else {
        Token::Invalid
    }
}

/// The public keys, as JWKs.
fn public(key: Key) -> &'static Map<String, Value> {
    static KEYS: LazyLock<[Map<String, Value>; 3]> = LazyLock::new(|| {
        let ec = |secret: Scalar| {
            let point = (ProjectivePoint::GENERATOR * secret)
                .to_affine()
                .to_uncompressed_point();
            let [x, y] = [&point[1..33], &point[33..]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
            json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
        };
        let x = URL_SAFE_NO_PAD.encode(edwards_key().public_key());
        let okp = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let keys = [ec(secret(Key::Es256)), ec(secret(Key::OtherEs256)), okp];
        keys.map(|key| key.as_object().expect("an object").clone())
    });
    &KEYS[key as usize]
}

fn secret(key: Key) -> Scalar {
    Scalar::reduce(&FieldBytes::from([key as u8 + 1; 32]))
}

fn edwards_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("32 bytes")
}

/// Deterministic and fast: ECDSA with one nonce for all signatures, which reveals the key, so the key must be for tests
/// only.
fn sign(key: Key, text: &str, negate_s: bool) -> Vec<u8> {
    /// The first half of all signatures, and the inverse of their nonce.
    static ONCE: LazyLock<(FieldBytes, Scalar)> = LazyLock::new(|| {
        let number = Scalar::reduce(&FieldBytes::from([5; 32]));
        let point = (ProjectivePoint::GENERATOR * number).to_affine();
        let r = Scalar::reduce(&point.x()).to_bytes();
        (r, number.invert().expect("not zero"))
    });
    match key {
        Key::Es256 | Key::OtherEs256 => {
            let (r, inverse) = &*ONCE;
            let hash: [u8; 32] = Sha256::digest(text).into();
            let z = Scalar::reduce(&FieldBytes::from(hash));
            let s = *inverse * (z + Scalar::reduce(r) * secret(key));
            [
                r.to_vec(),
                if negate_s { -s } else { s }.to_bytes().to_vec(),
            ]
            .concat()
        }
        Key::Ed25519 => edwards_key().sign(text.as_bytes()).as_ref().to_vec(),
    }
}
