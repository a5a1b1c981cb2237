//! A service that calls an API with tokens of its own: discovery, client credentials, proofs, nonces, renewal.
//!
//! ```sh
//! ISSUER=http://127.0.0.1:9000 CLIENT_ID=service CLIENT_SECRET=service-secret API=http://127.0.0.1:8080 \
//!     cargo run --example reqwest -- http://127.0.0.1:8080/protected
//! ```

use std::env;
use std::error::Error;

use tower_dpop::client::DpopClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = DpopClient::builder()
        .with_issuer(env::var("ISSUER")?.parse()?)
        .with_client_secret(env::var("CLIENT_ID")?, env::var("CLIENT_SECRET")?)
        .add_server(env::var("API")?.parse()?) // no other server gets the token
        .build()
        .await?;
    let url = env::args().nth(1).ok_or("usage: reqwest URL")?;
    let response = client.get(url).send().await?.error_for_status()?;
    println!("{}", response.status());
    println!("{}", response.text().await?);
    Ok(())
}
