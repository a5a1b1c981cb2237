//! Tokens of several issuers: each by its own rules and keys, and none by another's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tower_dpop::resource::BindingError;
use tower_dpop::testing::{TestIssuer, TestToken};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, KeySource, KeySourceError, PresentedToken,
    TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, Issuers, JwtVerifier, KeySet, ProofRules, Timestamp,
    Verifier,
};

use common::{
    AUDIENCE, Attempt, AttemptExt as _, Key, KeyExt as _, NOW, TestClock, at, base64url, block_on,
    jwt_verifier,
};

const OURS: &str = "https://as.example.com";
const PARTNERS: &str = "https://login.partner.example";
const PARTNERS_AUDIENCE: &str = "orders";

/// Keys that count how often they are asked for.
struct Counted {
    keys: KeySet,
    asked: Arc<AtomicUsize>,
}

impl KeySource for Counted {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.keys.clone())
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Ok(None)
    }
}

/// Tokens that are no JWTs.
struct Opaque {
    asked: Arc<AtomicUsize>,
    issuers: &'static [&'static str],
}

impl AccessTokenVerifier for Opaque {
    type Claims = Value;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<Value>, TokenError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match token.as_str() {
            "revoked" => Err(TokenError::Invalid),
            "nobody-knows" => Err(TokenError::Unavailable),
            text => {
                let claims = json!({ "opaque": text });
                Ok(AccessToken::new(Confirmation::Unbound, claims))
            }
        }
    }

    fn issuers(&self) -> Vec<&str> {
        self.issuers.to_vec()
    }
}

/// Two issuers whose keys have the same `kid` and the same algorithm. The second has another key
/// besides.
struct World {
    our_key: Key,
    partners_key: Key,
    ours: TestIssuer,
    partners: TestIssuer,
    /// How often the keys of each were asked for, and the verifier of opaque tokens.
    asked: [Arc<AtomicUsize>; 3],
}

impl World {
    fn new() -> Self {
        let (our_key, partners_key) = (Key::es256(), Key::es256());
        Self {
            ours: TestIssuer::new(OURS, AUDIENCE)
                .with_key("1", our_key.clone())
                .with_clock(TestClock::at(NOW)),
            partners: TestIssuer::new(PARTNERS, PARTNERS_AUDIENCE)
                .with_key("2", Key::ed25519("Ed25519"))
                .add_key("1", partners_key.clone())
                .with_clock(TestClock::at(NOW)),
            our_key,
            partners_key,
            asked: Default::default(),
        }
    }

    fn our_verifier(&self) -> JwtVerifier<Counted, Value> {
        JwtVerifier::new(OURS, AUDIENCE, self.keys(&self.ours, 0))
            .with_algorithms(Algorithms::only(Algorithm::Es256))
            .with_claims()
    }

    fn partners_verifier(&self) -> JwtVerifier<Counted, Value> {
        JwtVerifier::new(PARTNERS, PARTNERS_AUDIENCE, self.keys(&self.partners, 1))
            .with_lenient_typ()
            .with_claims()
    }

    fn keys(&self, issuer: &TestIssuer, number: usize) -> Counted {
        Counted {
            keys: issuer.key_set(),
            asked: Arc::clone(&self.asked[number]),
        }
    }

    fn opaque(&self) -> Opaque {
        Opaque {
            asked: Arc::clone(&self.asked[2]),
            issuers: &["https://opaque.example.com"],
        }
    }

    fn issuers(&self) -> Issuers<Value> {
        Issuers::new()
            .add_issuer(self.our_verifier())
            .add_issuer(self.partners_verifier())
    }

    fn our_token(&self) -> TestToken {
        self.ours.token_for(self.our_key.thumbprint())
    }

    fn partners_token(&self) -> TestToken {
        self.partners.token_for(self.our_key.thumbprint())
    }

    /// A token of ours whose claims are this text.
    fn signed(&self, claims: &str) -> String {
        let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": "1" });
        self.our_key.sign_text(header.to_string(), claims)
    }

    fn asked(&self) -> [usize; 3] {
        [0, 1, 2].map(|number: usize| self.asked[number].load(Ordering::SeqCst))
    }
}

fn verify<C>(tokens: &Issuers<C>, token: &str) -> Result<AccessToken<C>, TokenError>
where
    C: Send + Sync + 'static,
{
    block_on(tokens.verify(PresentedToken::new(token), Timestamp::from_unix(NOW)))
}

const NOBODY: [usize; 3] = [0, 0, 0];
const OUR_KEYS: [usize; 3] = [1, 0, 0];
const PARTNERS_KEYS: [usize; 3] = [0, 1, 0];
const OPAQUE: [usize; 3] = [0, 0, 1];

type Make = fn(&World) -> String;
type Row = (&'static str, Make, Result<(), TokenError>, [usize; 3]);

/// What each token gets, and who was asked about it.
#[track_caller]
fn assert_rows(rows: &[Row], tokens: impl Fn(&World) -> Issuers<Value>) {
    for (name, make, expected, asked) in rows {
        let world = World::new();
        let tokens = tokens(&world);
        let token = make(&world);
        let outcome = verify(&tokens, &token).map(drop);
        assert_eq!((&outcome, world.asked()), (expected, *asked), "{name}");
    }
}

/// R-AT.2: `iss` selects, and each issuer has its own audience, algorithms and rule for `typ`.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_token_is_judged_by_the_rules_of_the_issuer_that_it_names() {
    let rows: [Row; 14] = [
        ("ours", |w| w.our_token().to_text(), Ok(()), OUR_KEYS),
        (
            "the partner's",
            |w| w.partners_token().to_text(),
            Ok(()),
            PARTNERS_KEYS,
        ),
        (
            "ours, for the partner's audience",
            |w| {
                let token = w.our_token();
                token.with_claim("aud", PARTNERS_AUDIENCE).to_text()
            },
            Err(TokenError::Audience),
            NOBODY,
        ),
        (
            "the partner's, for our audience",
            |w| w.partners_token().with_claim("aud", AUDIENCE).to_text(),
            Err(TokenError::Audience),
            NOBODY,
        ),
        (
            "ours, for both",
            |w| {
                let both = [PARTNERS_AUDIENCE, AUDIENCE];
                w.our_token().with_claim("aud", both).to_text()
            },
            Ok(()),
            OUR_KEYS,
        ),
        (
            "ours, with typ JWT",
            |w| w.our_token().with_header("typ", "JWT").to_text(),
            Err(TokenError::Type),
            NOBODY,
        ),
        (
            "the partner's, with typ JWT",
            |w| w.partners_token().with_header("typ", "JWT").to_text(),
            Ok(()),
            PARTNERS_KEYS,
        ),
        (
            "ours, by an algorithm of the partner's",
            |w| {
                let key = Key::ed25519("Ed25519");
                let token = w.our_token().with_header("alg", "Ed25519");
                token.signed_by(key).to_text()
            },
            Err(TokenError::Algorithm),
            NOBODY,
        ),
        (
            "the partner's, by an algorithm that is not ours",
            |w| {
                let partners = w.partners.clone();
                let key = Key::ed25519("Ed25519");
                let token = partners.token_for(key.thumbprint());
                let token = token.with_header("alg", "Ed25519").with_header("kid", "2");
                token.signed_by(key).to_text()
            },
            Err(TokenError::Signature),
            PARTNERS_KEYS,
        ),
        (
            "ours, with the partner's signature",
            |w| w.our_token().signed_by(w.partners_key.clone()).to_text(),
            Err(TokenError::Signature),
            OUR_KEYS,
        ),
        (
            "the partner's, with our signature",
            |w| w.partners_token().signed_by(w.our_key.clone()).to_text(),
            Err(TokenError::Signature),
            PARTNERS_KEYS,
        ),
        (
            "the partner's whole, with our name",
            |w| {
                let token = w.partners_token().with_claim("aud", AUDIENCE);
                token.with_claim("iss", OURS).to_text()
            },
            Err(TokenError::Signature),
            OUR_KEYS,
        ),
        (
            "ours, with a kid of the partner's",
            |w| w.our_token().with_header("kid", "2").to_text(),
            Err(TokenError::Key),
            OUR_KEYS,
        ),
        (
            "ours, with our name in JSON escapes",
            |w| {
                w.signed(&format!(
                    r#"{{"iss":"https:\/\/as.ex\u0061mple.com","aud":"{AUDIENCE}","exp":{}}}"#,
                    NOW + 1
                ))
            },
            Ok(()),
            OUR_KEYS,
        ),
    ];
    assert_rows(&rows, World::issuers);
}

/// What an unknown issuer, or a token that names none or several, costs: nothing.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_token_that_names_no_issuer_of_ours_causes_no_look_at_keys() {
    let rows: [Row; 24] = [
        (
            "another issuer",
            |w| {
                let token = w.our_token().with_claim("iss", "https://evil.example.com");
                token.to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "a trailing slash",
            |w| {
                w.our_token()
                    .with_claim("iss", format!("{OURS}/"))
                    .to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "another case",
            |w| {
                let token = w.our_token().with_claim("iss", "https://AS.example.com");
                token.to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "more behind it",
            |w| {
                let token = w
                    .our_token()
                    .with_claim("iss", format!("{OURS}.evil.example"));
                token.to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "white space",
            |w| {
                w.our_token()
                    .with_claim("iss", format!(" {OURS}"))
                    .to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "an empty name",
            |w| w.our_token().with_claim("iss", "").to_text(),
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "no issuer",
            |w| w.our_token().without_claim("iss").to_text(),
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "an issuer in the header",
            |w| {
                let token = w.our_token().without_claim("iss");
                token.with_header("iss", OURS).to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "an issuer further inside",
            |w| {
                let token = w.our_token().without_claim("iss");
                token.with_claim("x", json!({ "iss": OURS })).to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "Iss",
            |w| {
                let token = w.our_token().without_claim("iss");
                token.with_claim("Iss", OURS).to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "a number",
            |w| w.our_token().with_claim("iss", 1).to_text(),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "null",
            |w| w.our_token().with_claim("iss", Value::Null).to_text(),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "an array",
            |w| w.our_token().with_claim("iss", [OURS]).to_text(),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "an object",
            |w| {
                w.our_token()
                    .with_claim("iss", json!({ "a": OURS }))
                    .to_text()
            },
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "ours and then another",
            |w| w.signed(&format!(r#"{{"iss":"{OURS}","iss":"{PARTNERS}"}}"#)),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "another and then ours",
            |w| w.signed(&format!(r#"{{"iss":"{PARTNERS}","iss":"{OURS}"}}"#)),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "ours twice",
            |w| w.signed(&format!(r#"{{"iss":"{OURS}","iss":"{OURS}"}}"#)),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "ours twice, once in escapes",
            |w| w.signed(&format!(r#"{{"iss":"{OURS}","\u0069ss":"{OURS}"}}"#)),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "another member twice",
            |w| w.signed(&format!(r#"{{"iss":"{OURS}","x":1,"x":1}}"#)),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "claims that are no object",
            |w| w.signed(&format!(r#"["iss","{OURS}"]"#)),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "claims that are no JSON",
            |w| w.signed(OURS),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "no claims",
            |w| w.signed(""),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "no JWT",
            |_| "opaque".into(),
            Err(TokenError::Malformed),
            NOBODY,
        ),
        (
            "ours, expired",
            |w| w.our_token().with_claim("exp", NOW - 30).to_text(),
            Err(TokenError::Expired),
            NOBODY,
        ),
    ];
    assert_rows(&rows, World::issuers);
    // Where opaque tokens are spoken, too: only what is no JWT is one.
    let rows: Vec<Row> = rows
        .into_iter()
        .filter(|(name, ..)| *name != "no JWT")
        .collect();
    assert_rows(&rows, |w| w.issuers().with_opaque_tokens(w.opaque()));
}

/// What is no JWT goes to the verifier for opaque tokens, and nothing else does.
#[test]
fn opaque_tokens_have_a_verifier_of_their_own() {
    let rows: [Row; 17] = [
        (
            "opaque",
            |_| "2YotnFZFEjr1zCsicMWpAA".into(),
            Ok(()),
            OPAQUE,
        ),
        ("padded", |_| "AbCd/+==".into(), Ok(()), OPAQUE),
        ("two segments", |_| "ya29.a0AfH6S".into(), Ok(()), OPAQUE),
        (
            "a JWE",
            |_| jwe(&json!({ "alg": "dir", "enc": "A256GCM" })),
            Ok(()),
            OPAQUE,
        ),
        (
            "a JWE for a key, with more in its header",
            |_| jwe(&json!({ "typ": "at+jwt", "alg": "RSA-OAEP", "enc": "A256GCM", "kid": "1" })),
            Ok(()),
            OPAQUE,
        ),
        ("dots all over", |_| "..a...b.".into(), Ok(()), OPAQUE),
        (
            "a JSON object without an algorithm",
            |_| jwe(&json!({ "kid": "1" })),
            Ok(()),
            OPAQUE,
        ),
        (
            "the beginning of a JSON object",
            |_| "eyJhbGciOiJFUzI1NiI.eyJ.A".into(),
            Ok(()),
            OPAQUE,
        ),
        (
            "the header of a JWT, and no more",
            |_| base64url(r#"{"alg":"ES256"}"#),
            Ok(()),
            OPAQUE,
        ),
        (
            "revoked",
            |_| "revoked".into(),
            Err(TokenError::Invalid),
            OPAQUE,
        ),
        (
            "out of reach",
            |_| "nobody-knows".into(),
            Err(TokenError::Unavailable),
            OPAQUE,
        ),
        (
            "three segments that are not base64url",
            |_| "v1.public.A".into(),
            Ok(()),
            OPAQUE,
        ),
        ("a JWT", |w| w.our_token().to_text(), Ok(()), OUR_KEYS),
        (
            "a forged JWT",
            |w| w.our_token().signed_by(Key::es256()).to_text(),
            Err(TokenError::Signature),
            OUR_KEYS,
        ),
        (
            "a JWT of the issuer of opaque tokens",
            |w| {
                let token = w
                    .our_token()
                    .with_claim("iss", "https://opaque.example.com");
                token.to_text()
            },
            Err(TokenError::Issuer),
            NOBODY,
        ),
        (
            "a JWT without a signature",
            |w| {
                let token = w.our_token().with_header("alg", "none").to_text();
                format!("{}.", token.rsplit_once('.').unwrap().0)
            },
            Err(TokenError::Algorithm),
            NOBODY,
        ),
        (
            "three segments of base64url",
            |_| "AAAA.AAAA.AAAA".into(),
            Err(TokenError::Malformed),
            NOBODY,
        ),
    ];
    assert_rows(&rows, |w| w.issuers().with_opaque_tokens(w.opaque()));
    let world = World::new();
    let tokens = Issuers::new().with_opaque_tokens(world.opaque());
    let token = verify(&tokens, "opaque").unwrap();
    assert_eq!(*token.claims(), json!({ "opaque": "opaque" }));
    assert_eq!(token.confirmation(), Confirmation::Unbound);
}

/// Five segments behind this header.
fn jwe(header: &Value) -> String {
    format!("{}..AAAA.AAAA.AAAA", base64url(header.to_string()))
}

/// Not the client chooses by whose rules its token is judged: a JWT that it has spoilt is still none
/// of the opaque tokens, however lax the server is that knows those.
#[test]
fn a_spoilt_jwt_is_no_opaque_token() {
    type Spoil = fn(&str) -> String;
    let tokens: [(&str, Make); 5] = [
        ("ours", |w| w.our_token().to_text()),
        ("the partner's", |w| w.partners_token().to_text()),
        ("an expired one", |w| {
            w.our_token().with_claim("exp", NOW - 60).to_text()
        }),
        ("another issuer's", |w| {
            let token = w.our_token();
            token
                .with_claim("iss", "https://evil.example.com")
                .to_text()
        }),
        ("one without a typ", |w| {
            w.our_key.sign_text(r#"{"alg":"ES256"}"#, "{}")
        }),
    ];
    let spoils: [(&str, Spoil); 12] = [
        ("padded", |token| format!("{token}=")),
        ("padded twice", |token| format!("{token}==")),
        ("a dot more", |token| format!("{token}.")),
        ("a tilde more", |token| format!("{token}~")),
        ("padding and a dot", |token| format!("{token}=.")),
        ("another alphabet", |token| format!("{token}+")),
        ("a segment more", |token| format!("{token}.AAAA")),
        ("five segments", |token| format!("{token}.AAAA.AAAA")),
        ("white space", |token| format!("{token} ")),
        // An ES256 signature has four bits to spare.
        ("stray bits in the signature", |token| {
            let (rest, last) = token.split_at(token.len() - 1);
            let last = last.bytes().next().unwrap();
            assert!(b"AQgw".contains(&last));
            format!("{rest}{}", char::from(last + 1))
        }),
        ("padded claims", |token| {
            let (signing_input, signature) = token.rsplit_once('.').unwrap();
            format!("{signing_input}=.{signature}")
        }),
        ("no signature", |token| {
            token.rsplit_once('.').unwrap().0.to_owned()
        }),
    ];
    for (whose, make) in tokens {
        for (how, spoil) in spoils {
            let world = World::new();
            let tokens = world.issuers().with_opaque_tokens(world.opaque());
            let outcome = verify(&tokens, &spoil(&make(&world))).map(drop);
            assert_eq!(
                (outcome, world.asked()),
                (Err(TokenError::Malformed), NOBODY),
                "{whose}, {how}"
            );
        }
    }
}

/// Whatever verifies tokens of known issuers, verifies those of each of them.
#[test]
fn a_verifier_serves_every_issuer_that_it_names() {
    let of = |world: &World, issuers| Opaque {
        issuers,
        ..world.opaque()
    };
    let ours: Make = |w| w.our_token().to_text();
    let partners: Make = |w| w.partners_token().to_text();
    let no = || Err(TokenError::Issuer);

    let both: [Row; 2] = [
        ("ours, by one of two issuers", ours, Ok(()), OPAQUE),
        (
            "the partner's, by one of two issuers",
            partners,
            Ok(()),
            OPAQUE,
        ),
    ];
    assert_rows(&both, |w| {
        Issuers::new().add_issuer(of(w, &[OURS, PARTNERS]))
    });

    let none: [Row; 3] = [
        ("ours, by one of no issuer", ours, no(), NOBODY),
        ("the partner's, by one of no issuer", partners, no(), NOBODY),
        (
            "one that names nobody, by one of no issuer",
            |w| w.our_token().with_claim("iss", "").to_text(),
            no(),
            NOBODY,
        ),
    ];
    assert_rows(&none, |w| Issuers::new().add_issuer(of(w, &[])));

    let taken_over: [Row; 2] = [
        ("ours, by a later one of its own", ours, Ok(()), OUR_KEYS),
        ("the partner's, by the one before", partners, Ok(()), OPAQUE),
    ];
    assert_rows(&taken_over, |w| {
        Issuers::new()
            .add_issuer(of(w, &[OURS, PARTNERS]))
            .add_issuer(w.our_verifier())
    });

    let lists: [Row; 2] = [
        ("ours, by a list in a list", ours, Ok(()), OUR_KEYS),
        (
            "the partner's, by a list in a list",
            partners,
            Ok(()),
            PARTNERS_KEYS,
        ),
    ];
    assert_rows(&lists, |w| Issuers::new().add_issuer(w.issuers()));
    let world = World::new();
    let tokens = Issuers::new().add_issuer(world.issuers());
    assert_eq!(tokens.issuers(), [OURS, PARTNERS]);
}

/// Of several verifiers for one issuer the last counts, alone.
#[test]
fn the_last_verifier_of_an_issuer_counts() {
    let world = World::new();
    let first = JwtVerifier::new(OURS, "first", world.keys(&world.ours, 1)).with_claims();
    let tokens: Issuers<Value> = Issuers::new()
        .add_issuer(first)
        .add_issuer(world.our_verifier());
    assert_eq!(tokens.issuers(), [OURS]);
    let for_the_first = world.our_token().with_claim("aud", "first").to_text();
    let rejected = verify(&tokens, &for_the_first).map(drop);
    assert_eq!(rejected, Err(TokenError::Audience));
    let token = world.our_token().to_text();
    assert_eq!(verify(&tokens, &token).map(drop), Ok(()));
    assert_eq!(world.asked(), OUR_KEYS);

    let other = Opaque {
        asked: Arc::clone(&world.asked[1]),
        issuers: &["https://first.example.com"],
    };
    let tokens = tokens
        .with_opaque_tokens(other)
        .with_opaque_tokens(world.opaque());
    assert_eq!(verify(&tokens, "opaque").map(drop), Ok(()));
    assert_eq!(world.asked(), [1, 0, 1]);
    assert_eq!(tokens.issuers(), [OURS, "https://opaque.example.com"]);
}

/// Each verifier has verdicts of its own, and the same token to another list of issuers is a stranger.
#[test]
fn verdicts_stay_with_their_issuer() {
    let world = World::new();
    let tokens = world.issuers();
    let (ours, partners) = (
        world.our_token().to_text(),
        world.partners_token().to_text(),
    );
    for _ in 0..3 {
        assert_eq!(verify(&tokens, &ours).map(drop), Ok(()));
        assert_eq!(verify(&tokens, &partners).map(drop), Ok(()));
    }
    let only_ours = Issuers::new().add_issuer(world.our_verifier());
    assert_eq!(verify(&only_ours, &ours).map(drop), Ok(()));
    let rejected = verify(&only_ours, &partners).map(drop);
    assert_eq!(rejected, Err(TokenError::Issuer));
}

#[test]
fn without_issuers_every_token_is_rejected() {
    let world = World::new();
    for tokens in [Issuers::<Value>::new(), Issuers::default()] {
        let token = world.our_token().to_text();
        assert_eq!(verify(&tokens, &token).map(drop), Err(TokenError::Issuer));
        let rejected = verify(&tokens, "opaque").map(drop);
        assert_eq!(rejected, Err(TokenError::Malformed));
        assert_eq!(tokens.issuers(), [""; 0]);
        assert_eq!(format!("{tokens:?}"), "Issuers { issuers: [] }");
    }
}

/// In order, each once, whoever names it.
#[test]
fn the_list_of_issuers_is_whole_and_sorted() {
    let world = World::new();
    let tokens = Issuers::new()
        .add_issuer(world.partners_verifier())
        .add_issuer(world.our_verifier())
        .with_opaque_tokens(world.opaque());
    let list = [OURS, PARTNERS, "https://opaque.example.com"];
    assert_eq!(tokens.issuers(), list);
    let shown = format!("Issuers {{ issuers: {list:?} }}");
    assert_eq!(
        format!("{tokens:?}"),
        shown,
        "names, and nothing of keys or tokens"
    );
    let same = Opaque {
        issuers: &[OURS],
        ..world.opaque()
    };
    let tokens = tokens.with_opaque_tokens(same);
    assert_eq!(tokens.issuers(), [OURS, PARTNERS]);
}

/// R-4.3.12b: behind the layer, a token of either issuer needs the key that it is bound to, and the
/// application learns whose subject it is.
#[test]
fn behind_the_layer_each_issuers_tokens_are_bound_as_ever() {
    let partners_key = Key::es256();
    let partners = TestIssuer::new(PARTNERS, PARTNERS_AUDIENCE)
        .with_key("1", partners_key)
        .with_clock(TestClock::at(NOW));
    let tokens: Issuers<Claims> = Issuers::new()
        .add_issuer(jwt_verifier())
        .add_issuer(partners.jwt_verifier());
    let layer = DpopLayer::new(Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW)),
        tokens,
    ));
    let mut subjects = Vec::new();
    for (name, token) in [
        ("ours", None),
        (
            "the partner's",
            Some(
                partners
                    .token_for(Attempt::good().key.thumbprint())
                    .to_text(),
            ),
        ),
    ] {
        let mut attempt = Attempt::good();
        attempt.token.clone_from(&token);
        let outcome = attempt.outcome_by(&layer);
        outcome.assert_passed(name);
        let claims = outcome.token.as_ref().unwrap().claims().clone();
        subjects.push((
            claims.claim::<String>("iss").unwrap(),
            claims.subject().to_owned(),
        ));

        let mut stolen = Attempt::with_key(Key::es256());
        stolen.token = Some(token.unwrap_or_else(|| attempt.token()));
        stolen
            .outcome_by(&layer)
            .assert_reason(name, BindingError::OtherKey);
    }
    assert_eq!(
        subjects,
        [
            (OURS.into(), "alice".into()),
            (PARTNERS.into(), "alice".into())
        ]
    );
}
