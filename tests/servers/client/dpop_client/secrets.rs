//! No secret is in `Debug`, in the text of an error, or in the log.

use std::error::Error;
use std::fmt::Write as _;

use common::log::Log;
use common::proofs::{ReadProof, assert_shows_nothing};
use tower_dpop::client::{DpopClientError, RefreshToken};
use tower_dpop::jose::SigningKey;

use super::{REDIRECT_URI, SECRET, World, parse, value};

/// The error in every form, with its causes.
fn write_all(shown: &mut String, error: &DpopClientError) {
    write!(shown, "{error:?}\n{error:#?}\n").unwrap();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        writeln!(shown, "{error}").unwrap();
        next = error.source();
    }
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let (log, _guard) = Log::start("trace");
    let world = World::start().await;
    world.script().metadata["pushed_authorization_request_endpoint"] = serde_json::Value::Null;
    let key = SigningKey::generate().unwrap();
    let builder = world.builder().with_key(key.clone());
    let mut shown = format!("{builder:?}\n{builder:#?}\n");
    let login = builder.start_login(REDIRECT_URI).await.unwrap();
    write!(shown, "{login:?}\n{login:#?}\n").unwrap();
    let query = parse(login.url().split_once('?').unwrap().1);
    let mut secrets = vec![SECRET.to_owned(), login.state().to_owned()];
    secrets.push(value(&query, "code_challenge").unwrap().to_owned());
    let private = key.to_jwk().unwrap();
    let private: serde_json::Value = serde_json::from_str(private.as_str()).unwrap();
    secrets.push(private["d"].as_str().unwrap().to_owned());

    // The browser's request is not ours, so its URL is not logged here.
    let callback = {
        let iss: String = form_urlencoded::byte_serialize(world.issuer.as_bytes()).collect();
        let code = "marker-code-marker";
        secrets.push(code.to_owned());
        world.add_code(code, &query);
        format!("/callback?code={code}&state={}&iss={iss}", login.state())
    };
    let client = login.finish(&callback).await.unwrap();
    write!(shown, "{client:?}\n{client:#?}\n").unwrap();
    let request = client.get(world.orders()).body("marker-body-marker");
    writeln!(shown, "{request:?}").unwrap();
    request.send().await.unwrap();
    let refresh_token = "marker-refresh-1";
    writeln!(shown, "{:?}", RefreshToken::new(refresh_token)).unwrap();
    secrets.push(refresh_token.to_owned());
    world.advance(600);
    client.get(world.orders()).send().await.unwrap();

    for (status, body) in [
        (
            400,
            r#"{"error":"invalid_client","error_description":"marker-words-marker"}"#,
        ),
        (
            200,
            r#"{"access_token":"marker-token-marker","token_type":"Bearer"}"#,
        ),
        (200, r#"{"access_token":"marker-token-marker"}"#),
    ] {
        world.script().token_response = Some((status, body));
        world.advance(600);
        let url = format!("{}?secret=marker-query-marker", world.orders());
        write_all(&mut shown, &client.get(url).send().await.unwrap_err());
    }
    let closed = "http://127.0.0.1:1/?secret=marker-query-marker";
    let unreachable = builder.add_server("http://127.0.0.1:1".parse().unwrap());
    world.script().token_response = None;
    let unreachable = unreachable.build().await.unwrap();
    write_all(
        &mut shown,
        &unreachable.get(closed).send().await.unwrap_err(),
    );
    let request = unreachable.get("marker-query-marker").send().await;
    write_all(&mut shown, &request.unwrap_err());

    secrets.extend(
        [
            "marker-query-marker",
            "marker-token-marker",
            "marker-words-marker",
            "marker-body-marker",
        ]
        .map(str::to_owned),
    );
    for headers in world.seen() {
        let proof = ReadProof::of(&headers["dpop"]);
        secrets.extend(proof.nonce().map(str::to_owned));
        secrets.push(proof.text.rsplit_once('.').unwrap().1.to_owned());
        if let Some(token) = headers.get("authorization") {
            let token = token.to_str().unwrap().split_once(' ').unwrap().1;
            secrets.extend(token.split('.').map(str::to_owned));
        }
    }
    assert!(secrets.len() > 20, "{}", secrets.len());
    assert_shows_nothing("Debug and errors", &shown, &secrets);
    let log = log.text();
    assert!(log.contains("tower_dpop"), "the log is there: {log}");
    assert_shows_nothing("the log", &log, &secrets);
}
