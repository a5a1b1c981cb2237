//! Access tokens as the products document them. Only the times, the thumbprint and the signature are ours.

use serde_json::{Value, json};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier as _, Confirmation, PresentedToken, Profile, TokenError,
};
use tower_dpop::{JwtVerifier, KeySet, Timestamp};

use common::{Key, KeyExt as _, NOW, block_on, remove};

/// A token that a product issues, and how this service is configured for it.
#[derive(Clone)]
struct Product {
    name: &'static str,
    profile: Option<Profile>,
    issuer: &'static str,
    audience: &'static str,
    header: Value,
    claims: Value,
    subject: Option<&'static str>,
    client: &'static str,
    scope: Option<&'static str>,
}

fn products() -> Vec<Product> {
    let mut products = vec![
        okta(),
        auth0(),
        auth0_rfc9068(),
        keycloak(),
        duende(),
        oidc_provider(),
    ];
    for product in &mut products {
        product.claims["cnf"] = json!({ "jkt": common::keys::client().jkt() });
    }
    products.extend([entra_id_v1(), entra_id_v2(), entra_id_application()]);
    products
}

/// <https://developer.okta.com/docs/guides/dpop/nonoktaresourceserver/main/>
fn okta() -> Product {
    Product {
        name: "Okta",
        profile: Some(Profile::Okta),
        issuer: "https://example.okta.com/oauth2/default",
        audience: "api://default",
        header: json!({ "kid": "issuer", "alg": "RS256" }),
        claims: json!({
            "ver": 1,
            "jti": "AT.pKoLFoM7X4P4DrJBRvXaJzj9g0-naK1ChGH_oTbStYE",
            "iss": "https://example.okta.com/oauth2/default",
            "aud": "api://default",
            "iat": NOW,
            "exp": NOW + 3600,
            "cid": "0oa4dr9kzkykPrLhq0g7",
            "uid": "00u47ijy7sRLaeSdC0g7",
            "scp": ["openid"],
            "auth_time": NOW - 9000,
            "sub": "user@example.com",
        }),
        subject: Some("user@example.com"),
        client: "0oa4dr9kzkykPrLhq0g7",
        scope: Some("openid"),
    }
}

/// <https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles>, the Auth0 profile.
fn auth0() -> Product {
    Product {
        name: "Auth0",
        profile: Some(Profile::Auth0),
        issuer: "https://my-domain.auth0.com/",
        audience: "https://example.com/health-api",
        header: json!({ "alg": "RS256", "typ": "JWT", "kid": "issuer" }),
        claims: json!({
            "iss": "https://my-domain.auth0.com/",
            "sub": "auth0|123456",
            "aud": ["https://example.com/health-api", "https://my-domain.auth0.com/userinfo"],
            "azp": "my_client_id",
            "exp": NOW + 1000,
            "iat": NOW,
            "scope": "openid profile read:patients read:admin",
            "my_custom_claim": "my_custom_value",
        }),
        subject: Some("auth0|123456"),
        client: "my_client_id",
        scope: Some("read:patients"),
    }
}

/// The same page, the RFC 9068 profile.
fn auth0_rfc9068() -> Product {
    let mut product = auth0();
    product.name = "Auth0, profile RFC 9068";
    product.header["typ"] = json!("at+jwt");
    remove(&mut product.claims, "azp");
    product.claims["client_id"] = json!("my_client_id");
    product.claims["jti"] = json!("73WakrfVbNJBaAmhQtEeDv");
    product
}

/// <https://www.keycloak.org/docs/latest/server_admin/>, with an audience mapper and without the lightweight form.
fn keycloak() -> Product {
    Product {
        name: "Keycloak",
        profile: Some(Profile::Keycloak),
        issuer: "https://sso.example.com/realms/demo",
        audience: "orders-api",
        header: json!({ "alg": "RS256", "typ": "JWT", "kid": "issuer" }),
        claims: json!({
            "exp": NOW + 300,
            "iat": NOW,
            "jti": "onrtac:d58f5dc8-fd8f-462b-8a19-716f8f83985b",
            "iss": "https://sso.example.com/realms/demo",
            "aud": ["orders-api", "account"],
            "sub": "36fa0f91-f94d-4a0c-afed-6b7d952e47da",
            "typ": "DPoP",
            "azp": "demo-app",
            "sid": "2a88c258-f73a-4103-b862-e1fbd8f4e04e",
            "acr": "1",
            "allowed-origins": ["http://localhost:6080"],
            "realm_access": { "roles": ["offline_access", "uma_authorization"] },
            "resource_access": { "account": { "roles": ["manage-account", "view-profile"] } },
            "scope": "email profile",
            "email_verified": true,
            "preferred_username": "username",
        }),
        subject: Some("36fa0f91-f94d-4a0c-afed-6b7d952e47da"),
        client: "demo-app",
        scope: Some("profile"),
    }
}

/// A machine client of <https://docs.duendesoftware.com/identityserver/quickstarts/1-client-credentials/>: no `sub`, and
/// `scope` is an array unless `EmitScopesAsSpaceDelimitedStringInJwt` is set.
fn duende() -> Product {
    Product {
        name: "Duende IdentityServer",
        profile: None,
        issuer: "https://localhost:5001",
        audience: "https://localhost:5001/resources",
        header: json!({ "alg": "RS256", "kid": "issuer", "typ": "at+jwt" }),
        claims: json!({
            "iss": "https://localhost:5001",
            "nbf": NOW,
            "iat": NOW,
            "exp": NOW + 3600,
            "aud": "https://localhost:5001/resources",
            "scope": ["api1"],
            "client_id": "m2m.client",
            "jti": "FF86E33B7756615B609A61109BE0D4C8",
        }),
        subject: None,
        client: "m2m.client",
        scope: Some("api1"),
    }
}

/// <https://github.com/panva/node-oidc-provider/blob/main/lib/models/formats/jwt.js>, a machine client.
fn oidc_provider() -> Product {
    Product {
        name: "oidc-provider",
        profile: None,
        issuer: "https://op.example.com",
        audience: "urn:orders",
        header: json!({ "alg": "RS256", "typ": "at+jwt", "kid": "issuer" }),
        claims: json!({
            "jti": "n5bgTeqqs0Xj5Ao9rOFOH",
            "sub": "app",
            "iat": NOW,
            "exp": NOW + 600,
            "scope": "orders.read",
            "client_id": "app",
            "iss": "https://op.example.com",
            "aud": "urn:orders",
        }),
        subject: Some("app"),
        client: "app",
        scope: Some("orders.read"),
    }
}

/// <https://learn.microsoft.com/entra/identity-platform/access-tokens>, the sample of version 1.0.
fn entra_id_v1() -> Product {
    Product {
        name: "Entra ID 1.0",
        profile: Some(Profile::EntraId),
        issuer: "https://sts.windows.net/fa15d692-e9c7-4460-a743-29f29522229/",
        audience: "ef1da9d4-ff77-4c3e-a005-840c3f830745",
        header: json!({
            "typ": "JWT", "alg": "RS256", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY", "kid": "issuer",
        }),
        claims: json!({
            "aud": "ef1da9d4-ff77-4c3e-a005-840c3f830745",
            "iss": "https://sts.windows.net/fa15d692-e9c7-4460-a743-29f29522229/",
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 3900,
            "acr": "1",
            "amr": ["wia"],
            "appid": "75dbe77f-10a3-4e59-85fd-8c127544f17c",
            "appidacr": "0",
            "oid": "02223b6b-aa1d-42d4-9ec0-1b2bb9194438",
            "scp": "user_impersonation",
            "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA",
            "tid": "fa15d692-e9c7-4460-a743-29f2956fd429",
            "unique_name": "abeli@microsoft.com",
            "uti": "FVsGxYXI30-TuikuuUoFAA",
            "ver": "1.0",
        }),
        subject: Some("l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA"),
        client: "75dbe77f-10a3-4e59-85fd-8c127544f17c",
        scope: Some("user_impersonation"),
    }
}

/// The same page, the sample of version 2.0.
fn entra_id_v2() -> Product {
    Product {
        name: "Entra ID 2.0",
        profile: Some(Profile::EntraId),
        issuer: "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
        audience: "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        header: json!({ "typ": "JWT", "alg": "RS256", "kid": "issuer" }),
        claims: json!({
            "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "iss": "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 3900,
            "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "azpacr": "0",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "scp": "access_as_user",
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
            "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "ver": "2.0",
        }),
        subject: Some("HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ"),
        client: "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        scope: Some("access_as_user"),
    }
}

/// A token of version 2.0 for an application: `roles` instead of `scp`
/// (<https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>).
fn entra_id_application() -> Product {
    let mut product = entra_id_v2();
    product.name = "Entra ID 2.0, an application";
    remove(&mut product.claims, "scp");
    product.claims["roles"] = json!(["Orders.Read.All"]);
    product.scope = None;
    product
}

impl Product {
    fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut product = self.clone();
        change(&mut product);
        product
    }

    fn by_default(&self) -> JwtVerifier<KeySet> {
        let mut jwk = Key::rsa("RS256").public_jwk();
        jwk["kid"] = json!("issuer");
        let keys = json!({ "keys": [jwk] }).to_string();
        JwtVerifier::new(self.issuer, self.audience, keys.parse().unwrap())
    }

    fn by_profile(&self) -> JwtVerifier<KeySet> {
        match self.profile {
            Some(profile) => self.by_default().with_profile(profile),
            None => self.by_default(),
        }
    }

    fn verify(
        &self,
        tokens: &JwtVerifier<KeySet>,
    ) -> Result<AccessToken<tower_dpop::Claims>, TokenError> {
        let token = Key::rsa("RS256").sign(&self.header, &self.claims);
        block_on(tokens.verify(PresentedToken::new(&token), Timestamp::from_unix(NOW)))
    }

    #[track_caller]
    fn assert_rejected(&self, change: &str, expected: TokenError) {
        let reason = self.verify(&self.by_profile()).err();
        assert_eq!(reason, Some(expected), "{}: {change}", self.name);
    }
}

/// D22
#[test]
fn the_documented_token_of_each_product_is_accepted() {
    for product in products() {
        let name = product.name;
        let token = product.verify(&product.by_profile()).expect(name);
        let claims = token.claims();
        assert_eq!(claims.subject(), product.subject, "{name}");
        assert_eq!(claims.client_id(), Some(product.client), "{name}");
        assert!(
            product.scope.is_none_or(|scope| claims.has_scope(scope)),
            "{name}"
        );
        let is_bound = matches!(token.confirmation(), Confirmation::Thumbprint(_));
        assert_eq!(is_bound, !name.starts_with("Entra"), "{name}");
        assert_eq!(
            token.expires().map(Timestamp::as_unix),
            product.claims["exp"].as_u64()
        );
    }
}

#[test]
fn the_default_accepts_the_products_that_write_at_jwt() {
    for product in products() {
        let expected = match product.header.get("typ").and_then(Value::as_str) {
            Some("at+jwt") => None,
            _ => Some(TokenError::Type),
        };
        let name = product.name;
        assert_eq!(
            product.verify(&product.by_default()).err(),
            expected,
            "{name}"
        );
        let lenient = product.by_default().with_lenient_typ();
        assert_eq!(product.verify(&lenient).err(), None, "{name}");
        let with_at_jwt = product.but(|p| p.header["typ"] = json!("at+jwt"));
        assert_eq!(
            with_at_jwt.verify(&product.by_profile()).err(),
            None,
            "{name}"
        );
    }
}

#[test]
fn each_wrong_change_of_a_products_token_is_rejected() {
    type Change = fn(&mut Product);
    let rows: [(&str, Change, TokenError); 10] = [
        (
            "another issuer",
            |p| p.claims["iss"] = json!("https://evil.example.com"),
            TokenError::Issuer,
        ),
        (
            "the other slash",
            |p| {
                let issuer = p
                    .issuer
                    .strip_suffix('/')
                    .map_or(format!("{}/", p.issuer), str::to_owned);
                p.claims["iss"] = json!(issuer);
            },
            TokenError::Issuer,
        ),
        (
            "another audience",
            |p| p.claims["aud"] = json!(p.client.to_owned() + "x"),
            TokenError::Audience,
        ),
        (
            "no audience",
            |p| remove(&mut p.claims, "aud"),
            TokenError::Audience,
        ),
        (
            "HS256",
            |p| p.header["alg"] = json!("HS256"),
            TokenError::Algorithm,
        ),
        (
            "none",
            |p| p.header["alg"] = json!("none"),
            TokenError::Algorithm,
        ),
        (
            "typ of a logout token",
            |p| p.header["typ"] = json!("logout+jwt"),
            TokenError::Type,
        ),
        (
            "typ of a proof",
            |p| p.header["typ"] = json!("dpop+jwt"),
            TokenError::Type,
        ),
        (
            "expired",
            |p| p.claims["exp"] = json!(NOW - 60),
            TokenError::Expired,
        ),
        (
            "sub is a number",
            |p| p.claims["sub"] = json!(7),
            TokenError::Claims,
        ),
    ];
    for product in products() {
        for (name, change, expected) in &rows {
            product.but(change).assert_rejected(name, expected.clone());
        }
    }
}

/// The claim that marks an access token does the work of `typ`.
#[test]
fn a_profile_rejects_tokens_without_the_products_mark() {
    type Change = fn(&mut Product);
    let rows: Vec<(Product, &str, Change)> = vec![
        (okta(), "no cid", |p| remove(&mut p.claims, "cid")),
        (okta(), "cid is null", |p| p.claims["cid"] = json!(null)),
        (okta(), "cid is a number", |p| p.claims["cid"] = json!(1)),
        (okta(), "typ JWT", |p| p.header["typ"] = json!("JWT")),
        (auth0(), "no azp", |p| remove(&mut p.claims, "azp")),
        (auth0(), "no typ", |p| remove(&mut p.header, "typ")),
        (keycloak(), "an ID token", |p| p.claims["typ"] = json!("ID")),
        (keycloak(), "a refresh token", |p| {
            p.claims["typ"] = json!("Refresh");
        }),
        (keycloak(), "no typ in the claims", |p| {
            remove(&mut p.claims, "typ");
        }),
        (keycloak(), "no typ in the header", |p| {
            remove(&mut p.header, "typ");
        }),
        (entra_id_v1(), "no appid", |p| {
            remove(&mut p.claims, "appid");
        }),
        (entra_id_v2(), "no azp", |p| remove(&mut p.claims, "azp")),
        (entra_id_v2(), "no typ", |p| remove(&mut p.header, "typ")),
    ];
    for (product, name, change) in rows {
        product.but(change).assert_rejected(name, TokenError::Type);
    }
    for typ in ["Bearer", "bearer", "DPoP"] {
        let product = keycloak().but(|p| p.claims["typ"] = json!(typ));
        assert!(product.verify(&product.by_profile()).is_ok(), "{typ}");
    }
    let lower_case = auth0().but(|p| p.header["typ"] = json!("jwt"));
    assert!(lower_case.verify(&lower_case.by_profile()).is_ok());
}

/// The documented ID tokens of the products, if a client has the API's identifier.
#[test]
fn a_profile_rejects_the_products_id_tokens() {
    for (product, claims) in [
        (
            okta(),
            json!({ "ver": 1, "jti": "ID.x", "amr": ["pwd"], "at_hash": "fPlsvVszI29LU2UhDyJ9vg" }),
        ),
        (
            auth0(),
            json!({ "name": "Jane Doe", "email": "jane@example.com" }),
        ),
        (
            keycloak(),
            json!({ "typ": "ID", "azp": "demo-app", "at_hash": "x", "sid": "s" }),
        ),
        (
            entra_id_v1(),
            json!({ "name": "Abe", "tid": "t", "ver": "1.0" }),
        ),
        (
            entra_id_v2(),
            json!({ "name": "Abe", "nonce": "n", "tid": "t", "ver": "2.0" }),
        ),
    ] {
        let id_token = product.but(|p| {
            let mut claims = claims;
            for claim in ["iss", "sub", "iat", "exp"] {
                claims[claim] = p.claims[claim].clone();
            }
            claims["aud"] = json!(p.audience);
            p.claims = claims;
        });
        id_token.assert_rejected("an ID token", TokenError::Type);
        let lenient = product.by_default().with_lenient_typ();
        let accepted = id_token.verify(&lenient);
        assert_ne!(accepted.err(), Some(TokenError::Type), "{}", product.name);
    }
}

#[test]
fn a_profile_sets_the_slash_at_the_end_of_the_issuer() {
    for product in products() {
        for slashes in ["", "/", "//"] {
            let issuer = product.issuer.trim_end_matches('/').to_owned() + slashes;
            let configured = product.but(|p| p.issuer = issuer.leak());
            let expected = product.profile.is_none() && !slashes.is_empty();
            let rejected = product.verify(&configured.by_profile()).is_err();
            assert_eq!(rejected, expected, "{} with {slashes:?}", product.name);
        }
    }
    // An issuer of another cloud is taken as it is.
    for (issuer, accepted) in [
        ("https://login.chinacloudapi.cn/t/v2.0", true),
        ("https://login.chinacloudapi.cn/t/v2.0/", false),
    ] {
        let product =
            entra_id_v2().but(|p| p.claims["iss"] = json!("https://login.chinacloudapi.cn/t/v2.0"));
        let configured = product.but(|p| p.issuer = issuer);
        assert_eq!(
            product.verify(&configured.by_profile()).is_ok(),
            accepted,
            "{issuer}"
        );
    }
}

/// The log says it at start-up, and when a token is rejected.
#[test]
fn every_profile_says_which_typ_it_expects() {
    for product in products() {
        let expected = product.by_profile().expected(&TokenError::Type).unwrap();
        let named = product
            .profile
            .map(|profile| format!("(Profile::{profile:?})"));
        assert!(expected.starts_with("at+jwt"), "{expected}");
        assert!(
            expected.ends_with(named.as_deref().unwrap_or("accept others)")),
            "{}: {expected}",
            product.name
        );
    }
}

/// A token that was cached under another rule is verified again.
#[test]
fn a_profile_empties_the_cache() {
    let product = okta().but(|p| remove(&mut p.claims, "cid"));
    let tokens = product.by_default().with_lenient_typ();
    assert!(product.verify(&tokens).is_ok());
    let tokens = tokens.with_profile(Profile::Okta);
    assert_eq!(product.verify(&tokens).err(), Some(TokenError::Type));
}
