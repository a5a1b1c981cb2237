//! Each defect is the only thing wrong (`src/testing/defect.rs`, `spoil.rs`).

use super::*;

#[test]
fn the_table_of_the_docs_is_what_the_code_says() {
    let documented: Vec<&str> = include_str!("../../../src/testing/defect.rs")
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
