//! One request with a token, through reqwest: how to turn its client into a service of `http`
//! requests, and how to configure it.
//!
//! ```sh
//! cargo run --example reqwest -- http://127.0.0.1:8080/protected ACCESS-TOKEN KEY.pem
//! ```
//!
//! The key must be the one that the token is bound to (PKCS#8).

use std::env;
use std::error::Error;
use std::fs;

use bytes::Bytes;
use http::{Request, Response, Uri};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_dpop::client::{AccessTokenText, DpopClientLayer};
use tower_dpop::jose::SigningKey;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, token, key] = arguments.as_slice() else {
        return Err("usage: reqwest URL ACCESS-TOKEN KEY.pem".into());
    };
    let key = SigningKey::from_pkcs8_pem(&fs::read_to_string(key)?)?;
    let token: AccessTokenText = token.parse()?;
    let url: Uri = url.parse()?;

    let layer = DpopClientLayer::new(key, token, origin(&url)?.parse()?);
    let client = layer.layer(http_service()?);

    let request = Request::get(url).body(Bytes::new())?;
    let response = reqwest::Response::from(client.oneshot(request).await?);
    println!("{}", response.status());
    println!("{}", response.text().await?);
    Ok(())
}

/// reqwest as a service of `http` requests. A body of `Bytes` can be sent again. For
/// `reqwest::Body`, configure how with `with_body_copy`.
fn http_service() -> reqwest::Result<
    impl Service<
        Request<Bytes>,
        Response = Response<reqwest::Body>,
        Error = reqwest::Error,
        Future: Send,
    > + Clone
    + Send,
> {
    let client = reqwest::Client::builder()
        // A redirect inside of the layer would send the proof on to any server.
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    Ok(service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move { Ok(client.execute(request.try_into()?).await?.into()) }
    }))
}

fn origin(url: &Uri) -> Result<String, Box<dyn Error + Send + Sync>> {
    match (url.scheme_str(), url.authority()) {
        (Some(scheme), Some(authority)) => Ok(format!("{scheme}://{authority}")),
        _ => Err("the URL must be absolute".into()),
    }
}
