//! Logins: the authorization request, the callback, and the code.

use std::sync::{Arc, Mutex};

use http::header::LOCATION;
use serde_json::{Value, json};
use tower_dpop::client::{DpopClientError, InvalidCallback, PendingLogin};

use super::{Form, REDIRECT_URI, World, parse, value};

async fn start(world: &World) -> PendingLogin {
    world.builder().start_login(REDIRECT_URI).await.unwrap()
}

/// What a browser does: the URL that it is sent back to.
async fn log_in(login: &PendingLogin) -> String {
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let response = browser.build().unwrap().get(login.url()).send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 303);
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

fn query_of(url: &str) -> Form {
    parse(url.split_once('?').unwrap().1)
}

#[tokio::test]
async fn a_login_begins_a_session_that_refreshes() {
    for pushed in [true, false] {
        let world = World::start().await;
        if !pushed {
            world.script().metadata["pushed_authorization_request_endpoint"] = Value::Null;
        }
        let builder = world
            .builder()
            .with_scope("orders.read")
            .add_resource("https://one.example");
        let login = builder.start_login(REDIRECT_URI).await.unwrap();
        let request = if pushed {
            let script = world.script();
            // With a proof, which has the nonce.
            assert_eq!((script.asked.len(), script.nonce_demands()), (2, 1), "C-27");
            script.pushed["urn:request:0"].clone()
        } else {
            query_of(login.url())
        };
        assert_eq!(value(&request, "client_id"), Some("service"));
        assert_eq!(value(&request, "scope"), Some("orders.read"));
        assert_eq!(value(&request, "resource"), Some("https://one.example"));
        assert_eq!(value(&request, "state"), Some(login.state()));
        assert!(value(&request, "dpop_jkt").is_some(), "C-26");

        let client = login.finish(&log_in(&login).await).await.unwrap();
        for _ in 0..2 {
            let response = client.get(world.orders()).send().await.unwrap();
            assert_eq!(response.status(), 200);
            world.advance(600);
        }
        let script = world.script();
        let grants: Vec<_> = script
            .token_requests
            .iter()
            .map(|(_, form)| value(form, "grant_type").unwrap())
            .collect();
        assert_eq!(grants, ["authorization_code", "refresh_token"]);
        let code = &script.token_requests[0].1;
        assert_eq!(value(code, "resource"), Some("https://one.example"));
        assert_eq!(value(code, "scope"), None);
    }
}

#[tokio::test]
async fn states_verifiers_and_keys_are_new_for_each_login() {
    let world = World::start().await;
    world.script().metadata["pushed_authorization_request_endpoint"] = Value::Null;
    let (one, two) = (start(&world).await, start(&world).await);
    let [one, two] = [one, two].map(|login| query_of(login.url()));
    for name in ["state", "code_challenge", "dpop_jkt"] {
        let [one, two] = [&one, &two].map(|query| value(query, name).unwrap());
        assert_ne!(one, two, "{name}");
        assert_eq!(one.len(), 43, "{name}");
    }
}

/// The login goes on, and nothing is sent.
#[tokio::test]
async fn a_callback_of_another_login_or_issuer_is_rejected() {
    use InvalidCallback::{Issuer, Malformed, State};

    let world = World::start().await;
    let login = start(&world).await;
    let good = log_in(&login).await;
    let state = login.state();
    let iss: String = form_urlencoded::byte_serialize(world.issuer.as_bytes()).collect();
    let rows = [
        ("no query", REDIRECT_URI.to_owned(), State),
        ("no state", good.replace("state=", "other="), State),
        ("another state", good.replace(state, "other"), State),
        (
            "a longer state",
            good.replace(state, &format!("{state}x")),
            State,
        ),
        ("no iss", good.replace("iss=", "other="), Issuer),
        (
            "another iss",
            good.replace(&iss, "https://as.example"),
            Issuer,
        ),
        (
            "a trailing slash",
            good.replace(&iss, &format!("{iss}%2F")),
            Issuer,
        ),
        ("no code", good.replace("code=", "other="), Malformed),
        ("two codes", format!("{good}&code=other"), Malformed),
        ("two states", format!("{good}&state={state}"), Malformed),
        ("in the fragment", good.replace('?', "#?"), State),
    ];
    for (name, callback, expected) in rows {
        match login.finish(&callback).await.unwrap_err() {
            DpopClientError::Callback(found) => assert_eq!(found, expected, "{name}"),
            error => panic!("{name}: {error:?}"),
        }
    }
    assert_eq!(world.script().token_requests.len(), 0);
    // As a server on the loopback sees it.
    let target = good.strip_prefix("http://127.0.0.1:51004").unwrap();
    login.finish(target).await.unwrap();
}

/// RFC 6749 section 4.1.2: if a code is used twice, the server revokes the tokens of the first use.
#[tokio::test]
async fn a_login_has_one_code() {
    let world = World::start().await;
    let login = start(&world).await;
    let callback = log_in(&login).await;
    let (one, two) = tokio::join!(login.finish(&callback), login.finish(&callback));
    let other = callback.replace("code=", "code=other");
    for result in [two, login.finish(&other).await] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, DpopClientError::Callback(InvalidCallback::Repeated)),
            "{error:?}"
        );
    }
    assert_eq!(world.script().token_requests.len(), 1);
    let response = one.unwrap().get(world.orders()).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// A web application drops the future if the browser closes the connection.
#[tokio::test]
async fn an_exchange_goes_on_when_its_future_is_dropped() {
    let world = World::start().await;
    let kept: Arc<Mutex<Vec<String>>> = Arc::default();
    let store = Arc::clone(&kept);
    let builder = world
        .builder()
        .with_refresh_token_store(move |token| store.lock().unwrap().push(token.as_str().into()));
    let login = builder.start_login(REDIRECT_URI).await.unwrap();
    let callback = log_in(&login).await;
    world.close();
    let finish = tokio::spawn(async move { login.finish(&callback).await });
    world.until(|script| script.token_requests.len() == 1).await;
    finish.abort();
    assert!(finish.await.unwrap_err().is_cancelled());
    world.open();
    world.until(|_| !kept.lock().unwrap().is_empty()).await;
    assert_eq!(*kept.lock().unwrap(), ["marker-refresh-1"]);
}

/// RFC 9207: only a server whose metadata promise `iss` must send it.
#[tokio::test]
async fn iss_may_be_absent_if_the_metadata_do_not_promise_it() {
    let world = World::start().await;
    world.script().metadata["authorization_response_iss_parameter_supported"] = json!(false);
    let login = start(&world).await;
    let callback = log_in(&login).await;
    let other = callback.replace("iss=http", "iss=https");
    assert!(
        login.finish(&other).await.is_err(),
        "but a wrong one is rejected"
    );
    login
        .finish(&callback.replace("iss=", "other="))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_error_of_the_authorization_server_is_reported() {
    let world = World::start().await;
    let login = start(&world).await;
    let callback = log_in(&login).await;
    let denied = callback.replace("code=", "error=access_denied&error_description=marker&x=");
    let error = login.finish(&denied).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the authorization server did not authorize the client: access_denied"
    );
    // An error in the name of another issuer is none.
    let error = login.finish(&denied.replace("iss=", "iss=x")).await;
    assert!(matches!(
        error.unwrap_err(),
        DpopClientError::Callback(InvalidCallback::Issuer)
    ));
}

/// Without a refresh token, the session ends with the access token.
#[tokio::test]
async fn a_session_without_a_refresh_token_ends() {
    let world = World::start().await;
    let login = start(&world).await;
    let callback = log_in(&login).await;
    let client = login.finish(&callback).await.unwrap();
    world.script().refresh_token = None;
    world.advance(600);
    let error = client.get(world.orders()).send().await.unwrap_err();
    let DpopClientError::Token(reason) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*reason, DpopClientError::LoginRequired));
}

/// RFC 6749 section 3.2.1: a client without credentials sends its identifier, once.
#[tokio::test]
async fn a_public_client_sends_its_identifier() {
    let world = World::start().await;
    let builder = world.builder().with_public_client("service");
    let login = builder.start_login(REDIRECT_URI).await.unwrap();
    let pushed = world.script().pushed["urn:request:0"].clone();
    assert_eq!(value(&pushed, "client_id"), Some("service"));
    let client = login.finish(&log_in(&login).await).await.unwrap();
    for _ in 0..2 {
        let response = client.get(world.orders()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        world.advance(600);
    }
    let script = world.script();
    assert_eq!(script.token_requests.len(), 2);
    for (headers, form) in &script.token_requests {
        assert_eq!(value(form, "client_id"), Some("service"));
        assert!(!headers.contains_key("authorization"));
    }
}
