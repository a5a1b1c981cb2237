//! The crate `oauth2` over our layer, as the guide shows it.

use std::error::Error;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use oauth2::{ClientId, ClientSecret, HttpRequest, TokenResponse as _, TokenUrl, basic};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::PublicUrl;
use tower_dpop::client::{AccessTokenText, ClientError, DpopClientLayer, TokenClientLayer};
use tower_dpop::jose::SigningKey;

use super::dpop_client::{SECRET, World};

/// A token by client credentials, bound to this key.
async fn token(
    key: SigningKey,
    issuer: &str,
    id: &str,
    secret: &str,
) -> Result<AccessTokenText, Box<dyn Error + Send + Sync>> {
    let no_redirects = reqwest::redirect::Policy::none();
    let http = reqwest::Client::builder().redirect(no_redirects).build()?;
    let send = service_fn(move |request: HttpRequest| {
        let http = http.clone();
        async move {
            let response = http.execute(request.try_into()?).await?;
            Ok::<_, reqwest::Error>(http::Response::<reqwest::Body>::from(response))
        }
    });
    let service = TokenClientLayer::new(key, issuer.parse::<PublicUrl>()?).layer(send);
    let signed = |request: HttpRequest| {
        let service = service.clone();
        async move {
            let (head, body) = service.oneshot(request).await?.into_parts();
            let body = Limited::new(body, 256 * 1024).collect().await;
            let body = body.map_err(ClientError::Transport)?.to_bytes();
            Ok::<_, ClientError>(http::Response::from_parts(head, body.to_vec()))
        }
    };
    let client = basic::BasicClient::new(ClientId::new(id.to_owned()))
        .set_client_secret(ClientSecret::new(secret.to_owned()))
        .set_token_uri(TokenUrl::new(format!("{issuer}/token"))?);
    let granted = client
        .exchange_client_credentials()
        .request_async(&signed)
        .await?;
    // Any other type works for anyone who has the token.
    if !matches!(granted.token_type(), basic::BasicTokenType::Extension(name) if name.eq_ignore_ascii_case("DPoP"))
    {
        return Err("the token is not bound to the key".into());
    }
    Ok(granted.access_token().secret().parse()?)
}

#[tokio::test]
async fn the_crate_oauth2_gets_a_bound_token_over_the_layer() {
    let world = World::start().await;
    // The layer inside the function reads the real time.
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    world.clock.set(now);
    let key = SigningKey::generate().unwrap();
    let token = token(key.clone(), &world.issuer, "service", SECRET);
    let token = token.await.unwrap();
    assert_eq!(world.issued(), 1);
    let layer = DpopClientLayer::new(key, token, world.api.parse().unwrap());
    let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let client = layer.layer(http);
    let request = http::Request::get(world.orders()).body(Full::default());
    let response = client.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
}

/// The page has the function above, line by line.
#[test]
fn the_guide_shows_this_code() {
    let begin = "/// A token by client credentials, bound to this key.\n";
    let code = |text: &'static str, end: &str| {
        let (_, rest) = text.split_once(begin).unwrap();
        rest.split_once(end).unwrap().0
    };
    let here = code(include_str!("crate_oauth2.rs"), "\n#[tokio::test]");
    let page = code(include_str!("../../../docs/guide/client.md"), "```");
    assert_eq!(here.trim(), page.trim());
}
