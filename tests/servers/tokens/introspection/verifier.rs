//! The exchange, its failures and the cache (`src/tokens/introspection/verifier.rs`, `failure.rs`).

use super::*;

/// J-12 for answers: what two parsers could read differently is no answer. It is the server's
/// fault, so the client is not told to get another token.
#[test]
fn answers_that_are_not_of_the_form_are_no_answers() {
    let text = good().to_string();
    let padded = |length: usize| {
        let padding = " ".repeat(length - text.len());
        text.clone() + &padding
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let rows: Vec<(&str, Vec<u8>, bool)> = vec![
        ("64 KiB", padded(64 * 1024).into(), true),
        ("64 KiB and one", padded(64 * 1024 + 1).into(), false),
        ("a MiB", padded(1024 * 1024).into(), false),
        ("nothing", vec![], false),
        ("HTML", b"<html></html>".to_vec(), false),
        ("a JWT", b"e30.e30.e30".to_vec(), false),
        ("an array", format!("[{text}]").into(), false),
        ("true", b"true".to_vec(), false),
        ("half of it", text[..text.len() / 2].into(), false),
        ("more behind it", format!("{text}{{}}").into(), false),
        ("a byte order mark", format!("\u{feff}{text}").into(), false),
        (
            "active twice",
            text.replacen('{', r#"{"active":false,"#, 1).into(),
            false,
        ),
        (
            "active twice under an escape",
            text.replacen('{', r#"{"\u0061ctive":false,"#, 1).into(),
            false,
        ),
        (
            "cnf twice",
            text.replacen('{', r#"{"cnf":{},"#, 1).into(),
            false,
        ),
        (
            "jkt twice",
            text.replacen(r#""cnf":{"#, r#""cnf":{"jkt":"x","#, 1)
                .into(),
            false,
        ),
        (
            "a duplicate where nobody looks",
            text.replacen('{', r#"{"x":[{"y":1,"y":1}],"#, 1).into(),
            false,
        ),
        (
            "too deep",
            text.replacen('{', &format!(r#"{{"x":{deep},"#), 1).into(),
            false,
        ),
        (
            "bytes that are not UTF-8",
            [b"{\"x\":\"\xff\",".as_slice(), &text.as_bytes()[1..]].concat(),
            false,
        ),
    ];
    let server = Server::with_basic();
    block_on(async {
        for (name, body, passes) in rows {
            server.replies(StatusCode::OK, body);
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            if passes {
                outcome.assert_passed(name);
            } else {
                outcome.assert_unavailable(name);
            }
        }
    });
}

/// D13: a good answer under another status is none, and a 401 is about our credentials, not about
/// the client's token.
#[test]
fn a_status_other_than_200_is_no_answer() {
    let server = Server::with_basic();
    block_on(async {
        for status in [
            201, 203, 204, 300, 304, 400, 401, 403, 404, 429, 500, 502, 503,
        ] {
            server.replies(StatusCode::from_u16(status).unwrap(), good().to_string());
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            outcome.assert_unavailable(&status.to_string());
        }
        server.assert_no_complaints("all of them");

        let wrong = ClientAuthentication::basic(CLIENT_ID, "another secret");
        let outcome = ask(&layer(server.verifier_as(wrong)), TOKEN).await;
        outcome.assert_unavailable("a secret that the server does not know");
        assert_eq!(server.known.complaints.lock().unwrap().len(), 1);
    });
}

/// RFC 7662 knows no redirects: neither token nor credentials follow one to another server.
#[test]
fn no_question_goes_to_another_server() {
    let (server, other) = (Server::with_basic(), Server::with_basic());
    block_on(async {
        for status in [301, 302, 303, 307, 308] {
            server.redirects(
                StatusCode::from_u16(status).unwrap(),
                format!("{}/introspect?tenant=1", other.origin),
            );
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            outcome.assert_unavailable(&status.to_string());
        }
        assert_eq!((server.questions(), other.questions()), (5, 0));

        server.redirects(StatusCode::TEMPORARY_REDIRECT, "/elsewhere");
        ask(&layer(server.verifier()), TOKEN)
            .await
            .assert_passed("within one origin");
    });
}

/// D13
#[test]
fn a_server_that_is_down_or_slow_is_no_answer() {
    block_on(async {
        let server = Server::with_basic();
        let stopped = layer(server.verifier());
        drop(server);
        ask(&stopped, TOKEN).await.assert_unavailable("down");

        let server = Server::with_basic();
        server.hold_answers();
        let impatient = HttpClient::builder()
            .with_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let tokens = IntrospectionVerifier::new(
            format!("{}/introspect?tenant=1", server.origin)
                .parse()
                .unwrap(),
            ClientAuthentication::basic(CLIENT_ID, SECRET),
            AUDIENCE,
            impatient,
        );
        ask(&layer(tokens), TOKEN).await.assert_unavailable("slow");
        server.until_asked(1).await;
    });
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let body = good().to_string();
    let whole = body.len();
    let rows = [
        ("nothing at all", String::new()),
        ("half a head", "HTTP/1.1 200 O".to_owned()),
        (
            "half a body",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n{}",
                &body[..whole - 1]
            ),
        ),
        (
            "a body without its end",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{whole:x}\r\n{body}\r\n"),
        ),
        ("another protocol", "SSH-2.0-OpenSSH\r\n".to_owned()),
    ];
    block_on(async {
        for (name, reply) in rows {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // The whole question fits in one read of this size.
                    let mut bytes = vec![0; 16 * 1024];
                    let _ = stream.read(&mut bytes).await;
                    let _ = stream.write_all(reply.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
            let tokens = IntrospectionVerifier::new(
                endpoint.parse().unwrap(),
                ClientAuthentication::basic(CLIENT_ID, SECRET),
                AUDIENCE,
                HttpClient::new().unwrap(),
            );
            ask(&layer(tokens), TOKEN).await.assert_unavailable(name);
        }
    });
}

/// R-6.2.4: an answer serves for its lifetime, and never beyond `exp`.
#[test]
fn an_answer_serves_for_its_life_and_not_beyond_the_tokens() {
    // At which second after NOW, and how many questions there are then.
    type Steps = &'static [(i64, usize)];
    type Settings = fn(IntrospectionVerifier) -> IntrospectionVerifier;

    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let rows: Vec<(&str, Settings, Value, Steps)> = vec![
        (
            "ten seconds",
            |tokens| tokens,
            good(),
            &[(0, 1), (0, 1), (9, 1), (10, 2), (19, 2), (20, 3)],
        ),
        (
            "a life of one's own",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(3)),
            good(),
            &[(0, 1), (2, 1), (3, 2)],
        ),
        (
            "a life beyond exp",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            but(|a| a["exp"] = json!(NOW + 5)),
            &[(0, 1), (4, 1), (5, 2), (6, 3)],
        ),
        (
            "a life beyond an exp with a fraction",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            but(|a| a["exp"] = json!(1_700_000_005.5)),
            &[(0, 1), (5, 1), (6, 2)],
        ),
        (
            "no exp",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            but(|a| remove(a, "exp")),
            &[(0, 1), (59, 1), (60, 2)],
        ),
        (
            "no cache",
            |tokens| tokens.with_cache_lifetime(Duration::ZERO),
            good(),
            &[(0, 1), (0, 2), (1, 3)],
        ),
        (
            "a life below a second",
            |tokens| tokens.with_cache_lifetime(Duration::from_millis(999)),
            good(),
            &[(0, 1), (0, 2)],
        ),
        (
            "a life without end",
            |tokens| tokens.with_cache_lifetime(Duration::MAX),
            good(),
            &[(0, 1), (60, 1)],
        ),
        (
            "a clock that steps back",
            |tokens| tokens,
            good(),
            &[(5, 1), (4, 2), (5, 2), (13, 2), (14, 3)],
        ),
    ];
    block_on(async {
        for (name, settings, outcome, steps) in rows {
            server.answers(&outcome);
            let before = server.questions();
            let layer = layer_at(&clock, settings(server.verifier()));
            for (second, questions) in steps {
                clock.set(NOW.checked_add_signed(*second).unwrap());
                ask(&layer, TOKEN).await.assert_passed(name);
                assert_eq!(server.questions() - before, *questions, "{name}, {second}");
            }
        }
    });
}

/// R-6.2.4: only what is good is remembered, and what was taken back is forgotten.
#[test]
fn neither_rejections_nor_faults_are_remembered() {
    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let layer = layer_at(&clock, server.verifier());
    block_on(async {
        server.answers(&json!({ "active": false }));
        for _ in 0..2 {
            ask(&layer, TOKEN)
                .await
                .assert_reason("inactive", TokenError::Invalid);
        }
        server.answers(&but(|a| a["aud"] = json!("other")));
        ask(&layer, TOKEN)
            .await
            .assert_reason("another audience", TokenError::Audience);
        server.replies(StatusCode::INTERNAL_SERVER_ERROR, "");
        ask(&layer, TOKEN).await.assert_unavailable("a fault");
        server.answers(&good());
        ask(&layer, TOKEN).await.assert_passed("good at last");
        assert_eq!(server.questions(), 5);

        server.answers(&json!({ "active": false }));
        ask(&layer, TOKEN)
            .await
            .assert_passed("revoked, and remembered");
        ask(&layer, "2YotnFZFEjr1-zCsic.MWpA_a~b+c/e==")
            .await
            .assert_reason("a token that differs", TokenError::Invalid);
        clock.set(NOW + 10);
        for (name, second) in [("asked again", 10), ("a clock that steps back", 5)] {
            clock.set(NOW + second);
            ask(&layer, TOKEN)
                .await
                .assert_reason(name, TokenError::Invalid);
        }
        assert_eq!(server.questions(), 8);
    });
}

/// A verdict does not outlive the rules it was found by.
#[test]
fn other_rules_know_no_verdicts() {
    let server = Server::with_basic();
    let now = Timestamp::from_unix(NOW);
    let token = PresentedToken::new(TOKEN);
    block_on(async {
        let tokens = server.verifier();
        assert!(tokens.verify(token, now).await.is_ok());
        assert!(tokens.verify(token, now).await.is_ok());
        assert_eq!(server.questions(), 1);
        let tokens = tokens.with_issuer("https://other.example.com");
        let rejected = tokens.verify(token, now).await.unwrap_err();
        assert_eq!((rejected, server.questions()), (TokenError::Issuer, 2));
    });
}

/// JWTs that can be revoked: the server that is asked about them stands for its issuer, and for no
/// other.
#[test]
fn the_jwts_of_its_issuer_are_asked_about() {
    let server = Server::with_basic();
    let named: Issuers<IntrospectedClaims> =
        Issuers::new().add_issuer(server.verifier().with_issuer(ISSUER));
    assert_eq!(named.issuers(), [ISSUER]);
    let nameless = Issuers::new().add_issuer(server.verifier());
    assert_eq!(nameless.issuers(), [""; 0]);
    let jwt = Attempt::good().token();
    let of_another =
        Attempt::but(|a| a.token_claims["iss"] = json!("https://other.example.com")).token();
    let rows = [
        ("its issuer's", &named, &jwt, Ok(()), 1),
        ("another's", &named, &of_another, Err(TokenError::Issuer), 0),
        (
            "no JWT",
            &named,
            &TOKEN.to_owned(),
            Err(TokenError::Malformed),
            0,
        ),
        ("nobody's", &nameless, &jwt, Err(TokenError::Issuer), 0),
    ];
    let verify = async |tokens: &Issuers<IntrospectedClaims>, token: &str| {
        let verdict = tokens.verify(PresentedToken::new(token), Timestamp::from_unix(NOW));
        verdict.await.map(drop)
    };
    block_on(async {
        for (name, tokens, token, expected, questions) in rows {
            let before = server.questions();
            assert_eq!(verify(tokens, token).await, expected, "{name}");
            assert_eq!(server.questions() - before, questions, "{name}");
        }
        let form = server.known.form.lock().unwrap().clone();
        assert!(
            form.contains(&("token".into(), jwt.clone())),
            "the whole of it"
        );
        server.answers(&json!({ "active": false }));
        let revoked = Attempt::but(|a| a.token_claims["jti"] = json!("token-2")).token();
        assert_eq!(verify(&named, &revoked).await, Err(TokenError::Invalid));
    });
    server.assert_no_complaints("its issuer's");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged meanwhile in this thread, at every level, from every crate.
fn logged(requests: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    common::enable_tracing_callsites();
    tracing::subscriber::with_default(subscriber, requests);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The status, the answer, and the level and the reason of the one event.
type LoggedRow = (u16, String, Option<(&'static str, &'static str)>);

/// D21: the log says that and why a question failed, at `error` where the server rejects ours.
#[test]
fn neither_log_nor_response_repeats_a_token_a_secret_or_an_answer() {
    let token = "marker-token-marker.2YotnFZFEjr1zCsicMWpAA";
    let marked = |change: fn(&mut Value)| {
        let mut outcome = but(change);
        outcome["sub"] = json!("marker-subject-marker");
        outcome.to_string()
    };
    let ours = "tower_dpop::tokens::introspection";
    let rows: Vec<LoggedRow> = vec![
        (200, marked(|_| {}), None),
        (200, marked(|a| a["active"] = json!(false)), None),
        (200, marked(|a| a["cnf"] = json!("marker-cnf-marker")), None),
        (
            200,
            marked(|a| a["active"] = json!("marker-active-marker")),
            Some((" WARN", "not an introspection response")),
        ),
        (
            200,
            " ".repeat(64 * 1024) + &marked(|_| {}),
            Some((" WARN", "too long")),
        ),
        (401, marked(|_| {}), Some(("ERROR", "status 401"))),
        (403, marked(|_| {}), Some(("ERROR", "status 403"))),
        (400, marked(|_| {}), Some((" WARN", "status 400"))),
        (500, marked(|_| {}), Some((" WARN", "status 500"))),
        (307, String::new(), Some((" WARN", "redirected"))),
    ];
    for (registered, client, secrets) in clients() {
        let server = Server::start(registered);
        for (status, body, event) in &rows {
            let name = format!("{client:?}, {status}");
            if *status == 307 {
                server.redirects(StatusCode::TEMPORARY_REDIRECT, "http://127.0.0.1:1/");
            } else {
                server.replies(StatusCode::from_u16(*status).unwrap(), body.clone());
            }
            let layer = layer(server.verifier_as(client.clone()));
            let mut kit = None;
            let log = logged(|| {
                block_on(async { kit = Some(ask(&layer, token).await.kit) });
            });
            server.assert_no_complaints(&name);
            let mut hidden = secrets.clone();
            hidden.extend([token, "marker-subject-marker", "Alice L."].map(str::to_owned));
            hidden.extend(["marker-cnf-marker", "marker-active-marker"].map(str::to_owned));
            let form = server.known.form.lock().unwrap().clone();
            let assertion = form.iter().find(|(name, _)| name == "client_assertion");
            hidden.extend(assertion.map(|(_, assertion)| assertion.clone()));
            assert!(log.contains("tower_dpop") || kit.as_ref().unwrap().status == StatusCode::OK);
            assert_shows_nothing(&name, &log, &hidden);
            let kit = kit.unwrap();
            let told = format!("{:?} {:?}", kit.challenges, kit.nonces);
            assert_shows_nothing(&name, &told, &hidden);
            let events: Vec<&str> = log.lines().filter(|line| line.contains(ours)).collect();
            match event {
                None => assert_eq!(events, [""; 0], "{name}"),
                Some((level, reason)) => {
                    assert_eq!(events.len(), 1, "{name}: {events:?}");
                    assert!(
                        events[0].contains(level) && events[0].contains(reason),
                        "{name}: {events:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn questions_and_remembered_answers_are_counted() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use tower_dpop::telemetry::{INTROSPECTIONS, TOKEN_CACHE};

    let server = Server::with_basic();
    let layer = layer(server.verifier());
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            ask(&layer, "a").await.assert_passed("active");
            ask(&layer, "a").await.assert_passed("remembered");
            server.answers(&json!({ "active": false }));
            ask(&layer, "b")
                .await
                .assert_reason("inactive", TokenError::Invalid);
            server.replies(StatusCode::UNAUTHORIZED, "");
            ask(&layer, "b").await.assert_unavailable("a fault");
        });
    });
    let mut counted = Vec::new();
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let name = key.key().name();
        if [INTROSPECTIONS, TOKEN_CACHE].contains(&name) {
            let labels: Vec<&str> = key.key().labels().map(metrics::Label::value).collect();
            let DebugValue::Counter(count) = value else {
                panic!("{name} is a counter");
            };
            counted.push((name.to_owned(), labels.join(" "), count));
        }
    }
    counted.sort();
    let rows = [
        (INTROSPECTIONS, "active", 1),
        (INTROSPECTIONS, "failed", 1),
        (INTROSPECTIONS, "inactive", 1),
        (TOKEN_CACHE, "hit", 1),
        (TOKEN_CACHE, "miss", 3),
    ];
    let expected = rows.map(|(name, result, count)| (name.to_owned(), result.to_owned(), count));
    assert_eq!(counted, expected);
}
