//! Requests to issuers: which URLs, over which connections, and what is no answer. Over
//! [`RemoteKeys`], which are what makes such requests.

use std::mem::discriminant;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tower_dpop::RemoteKeys;
use tower_dpop::tokens::{
    EndpointUrl, HttpClient, HttpClientError, InvalidEndpointUrl, IssuerDocument, RemoteKeysError,
};

use crate::tokens::server::{KEYS, OAUTH, Reply, Server, within_reason};
use common::{block_on, issuer_jwks};

/// One for all, because to read the system's roots takes a while.
fn http() -> HttpClient {
    static HTTP: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new().unwrap());
    HTTP.clone()
}

/// What comes of asking for keys there.
async fn ask(http: HttpClient, url: &str) -> Result<RemoteKeys, RemoteKeysError> {
    let keys = RemoteKeys::at(EndpointUrl::insecure_http(url).unwrap(), http);
    within_reason(keys.fetched()).await
}

/// Nothing that was sent is repeated where an attacker could read it, and no URL is.
#[track_caller]
fn reason(name: &str, outcome: Result<RemoteKeys, RemoteKeysError>) -> String {
    match outcome.unwrap_err() {
        RemoteKeysError::Unreachable { reason, .. } => {
            assert!(!reason.contains("://"), "{name}: {reason}");
            reason
        }
        error => panic!("{name}: {error}"),
    }
}

#[test]
fn an_endpoint_is_https_or_on_this_machine() {
    use InvalidEndpointUrl::{Malformed, NotHttps};

    type Outcome = Result<(), fn(String) -> InvalidEndpointUrl>;

    // Under both rules, where they differ.
    let rows: [(&str, Outcome, Outcome); 52] = [
        ("https://as.example.com", Ok(()), Ok(())),
        ("https://as.example.com/", Ok(()), Ok(())),
        ("https://as.example.com:8443/tenant/1", Ok(()), Ok(())),
        ("https://as.example.com/keys?version=2", Ok(()), Ok(())),
        ("HTTPS://AS.example.com", Ok(()), Ok(())),
        ("https://192.0.2.1", Ok(()), Ok(())),
        ("https://[2001:db8::1]/", Ok(()), Ok(())),
        ("http://127.0.0.1:9000", Ok(()), Ok(())),
        ("http://127.1.2.3", Ok(()), Ok(())),
        ("http://[::1]:9000", Ok(()), Ok(())),
        ("http://localhost:9000/realm", Ok(()), Ok(())),
        ("http://as.example.com", Err(NotHttps), Ok(())),
        ("http://192.0.2.1", Err(NotHttps), Ok(())),
        ("http://0.0.0.0", Err(NotHttps), Ok(())),
        ("http://[::]", Err(NotHttps), Ok(())),
        ("http://localhost.example.com", Err(NotHttps), Ok(())),
        ("http://127.0.0.1.example.com", Err(NotHttps), Ok(())),
        ("http://127.0.0.1.", Ok(()), Ok(())),
        (
            "https://user@as.example.com",
            Err(Malformed),
            Err(Malformed),
        ),
        (
            "https://user:secret@as.example.com",
            Err(Malformed),
            Err(Malformed),
        ),
        (
            "https://as.example.com#part",
            Err(Malformed),
            Err(Malformed),
        ),
        ("https://as.example.com/#", Err(Malformed), Err(Malformed)),
        ("as.example.com", Err(Malformed), Err(Malformed)),
        ("//as.example.com", Err(Malformed), Err(Malformed)),
        ("/jwks", Err(Malformed), Err(Malformed)),
        ("", Err(Malformed), Err(Malformed)),
        ("https://", Err(Malformed), Err(Malformed)),
        ("https:///as.example.com", Err(Malformed), Err(Malformed)),
        ("https:as.example.com", Err(Malformed), Err(Malformed)),
        ("https:/as.example.com/?://", Err(Malformed), Err(Malformed)),
        ("https:\\\\as.example.com", Err(Malformed), Err(Malformed)),
        (
            "https://as.example.com\\@evil.example.com",
            Err(Malformed),
            Err(Malformed),
        ),
        (" https://as.example.com", Err(Malformed), Err(Malformed)),
        ("https://as.example.com\n", Err(Malformed), Err(Malformed)),
        ("https://as.\texample.com", Err(Malformed), Err(Malformed)),
        (
            "https://as.example.com:99999",
            Err(Malformed),
            Err(Malformed),
        ),
        ("file:///etc/passwd", Err(Malformed), Err(Malformed)),
        // What a browser mends: the text would be one issuer, and the place another.
        ("https://@as.example.com", Err(Malformed), Err(Malformed)),
        ("https://:@as.example.com", Err(Malformed), Err(Malformed)),
        ("http://@localhost", Err(Malformed), Err(Malformed)),
        ("http://%6cocalhost", Err(Malformed), Err(Malformed)),
        ("https://as%2eexample.com", Err(Malformed), Err(Malformed)),
        ("http://local\u{ad}host", Err(Malformed), Err(Malformed)),
        ("http://localhost\u{ad}", Err(Malformed), Err(Malformed)),
        ("http://\u{ff4c}ocalhost", Err(Malformed), Err(Malformed)),
        ("http://127。0。0。1", Err(Malformed), Err(Malformed)),
        ("https://ås.example.com", Err(Malformed), Err(Malformed)),
        ("https://as.example.com/ä", Err(Malformed), Err(Malformed)),
        ("https://xn--s-zfa.example.com", Ok(()), Ok(())),
        ("https://as.example.com/@tenant", Ok(()), Ok(())),
        ("https://as.example.com/a%20b", Ok(()), Ok(())),
        ("https://as.example.com/keys?for=a@b", Ok(()), Ok(())),
    ];
    for (url, strict, insecure) in rows {
        let parsed = url.parse::<EndpointUrl>();
        if let Ok(parsed) = &parsed {
            assert_eq!(parsed.as_str(), url, "as it was written");
            assert_eq!(parsed.to_string(), url);
        }
        let kinds = |outcome: Outcome| outcome.map_err(|make| discriminant(&make(String::new())));
        let kind = |parsed: Result<EndpointUrl, InvalidEndpointUrl>| {
            parsed.map(drop).map_err(|error| discriminant(&error))
        };
        assert_eq!(kind(parsed), kinds(strict), "{url}");
        let parsed = EndpointUrl::insecure_http(url);
        assert_eq!(kind(parsed), kinds(insecure), "{url}, insecure");
    }
}

/// A server that answers with these bytes, and then closes the connection or leaves it open. The
/// requests it got.
async fn raw(
    response: impl Into<Vec<u8>>,
    closes: bool,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let response = response.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut request).await.unwrap() > 0
            {}
            let _ = requests.send(String::from_utf8(request).unwrap());
            // The client may have heard enough before the end.
            let _ = stream.write_all(&response).await;
            if !closes {
                open.push(stream);
            }
        }
    });
    (address, received)
}

/// Nothing of the request that waits for the answer is in it.
#[test]
fn asks_for_json_and_tells_nothing() {
    block_on(async {
        let jwks = issuer_jwks();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{jwks}",
            jwks.len()
        );
        let (address, mut requests) = raw(response, true).await;
        ask(http(), &format!("http://{address}/jwks?version=2"))
            .await
            .unwrap();
        let request = requests.recv().await.unwrap().to_lowercase();
        let mut lines: Vec<_> = request.lines().filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        let host = format!("host: {address}");
        let agent = concat!("user-agent: tower-dpop/", env!("CARGO_PKG_VERSION"));
        let expected = [
            "accept: application/json",
            "get /jwks?version=2 http/1.1",
            &host,
            agent,
        ];
        assert_eq!(lines, expected);
    });
}

#[test]
fn rejects_what_is_no_whole_answer() {
    let head = "HTTP/1.1 200 OK\r\n";
    let jwks = issuer_jwks();
    let long = jwks.clone() + &" ".repeat(300_000);
    let chunks = format!("{head}transfer-encoding: chunked\r\n\r\n")
        + &format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(5);
    let rows = [
        ("nothing", String::new(), "no complete response"),
        (
            "not HTTP",
            "SSH-2.0-OpenSSH_9.9\r\n".into(),
            "no complete response",
        ),
        (
            "half a head",
            "HTTP/1.1 200 OK\r\ncontent-".into(),
            "no complete response",
        ),
        (
            "half a body",
            format!("{head}content-length: 9999\r\n\r\n{jwks}"),
            "no complete response",
        ),
        (
            "half a chunk",
            format!("{head}transfer-encoding: chunked\r\n\r\nfff\r\n{jwks}"),
            "no complete response",
        ),
        (
            "endless fields",
            head.to_owned() + &"x: y\r\n".repeat(10_000),
            "no complete response",
        ),
        (
            "long",
            format!("{head}content-length: {}\r\n\r\n{long}", long.len()),
            "too long",
        ),
        (
            "long, of unknown length",
            format!("{head}\r\n{long}"),
            "too long",
        ),
        ("many chunks", chunks, "too long"),
    ];
    for (name, response, expected) in rows {
        block_on(async {
            let (address, _requests) = raw(response, true).await;
            let outcome = ask(http(), &format!("http://{address}")).await;
            if expected == "too long" {
                let too_long = RemoteKeysError::TooLong(IssuerDocument::KeySet);
                assert_eq!(outcome.unwrap_err(), too_long, "{name}");
            } else {
                let reason = reason(name, outcome);
                assert!(reason.starts_with(expected), "{name}: {reason}");
            }
        });
    }
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let nobody = reason("nobody", ask(http(), &format!("http://{address}")).await);
        assert!(nobody.starts_with("no connection: "), "{nobody}");
    });
}

/// An answer that was encoded is not the document.
#[test]
fn decodes_nothing() {
    block_on(async {
        let server = Server::start().await;
        // `{"keys":[]}` in gzip, its length and checksum left out: it is not looked into.
        let gzip: &[u8] =
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xabV\xcaN\xad,V\xb2\x8a\x8e\xad\x05\x00";
        server.set(
            KEYS,
            Reply::text(gzip).with_header("content-encoding", "gzip"),
        );
        let error = ask(http(), &server.at(KEYS)).await.unwrap_err();
        assert_eq!(error, RemoteKeysError::Malformed(IssuerDocument::KeySet));
    });
}

/// The timeout is for all of it: to connect, the head, and the body.
#[test]
fn waits_no_longer_than_it_was_told() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    let rows = [
        ("no answer", String::new()),
        ("half a head", "HTTP/1.1 200".into()),
        ("a head alone", head.into()),
        ("half a body", format!("{head}{{\"keys\":")),
    ];
    let hasty = HttpClient::builder()
        .with_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    for (name, response) in rows {
        block_on(async {
            let (address, _requests) = raw(response, false).await;
            let error = ask(hasty.clone(), &format!("http://{address}"))
                .await
                .unwrap_err();
            assert_eq!(error, RemoteKeysError::TimedOut, "{name}");
        });
    }
}

#[test]
fn follows_redirects_within_one_origin() {
    type Row = (
        &'static str,
        u16,
        Option<String>,
        Result<(), RemoteKeysError>,
    );

    block_on(async {
        let (server, elsewhere) = (Server::start().await, Server::start().await);
        for place in [&server, &elsewhere] {
            place.set("/here", Reply::text(issuer_jwks()));
        }
        let redirected = RemoteKeysError::Redirected(IssuerDocument::KeySet);
        let status = |status| RemoteKeysError::Status {
            document: IssuerDocument::KeySet,
            status: StatusCode::from_u16(status).unwrap(),
        };
        let port = server.address().port();
        let rows: Vec<Row> = vec![
            ("301", 301, Some("/here".into()), Ok(())),
            ("302", 302, Some("/here".into()), Ok(())),
            ("303", 303, Some("/here".into()), Ok(())),
            ("307", 307, Some("/here".into()), Ok(())),
            ("308", 308, Some("/here".into()), Ok(())),
            ("absolute", 302, Some(server.at("/here")), Ok(())),
            (
                "another port",
                302,
                Some(elsewhere.at("/here")),
                Err(redirected.clone()),
            ),
            (
                "another name of this machine",
                302,
                Some(format!("http://localhost:{port}/here")),
                Err(redirected.clone()),
            ),
            (
                "another scheme",
                302,
                Some(format!("https://127.0.0.1:{port}/here")),
                Err(redirected.clone()),
            ),
            ("in circles", 302, Some(KEYS.into()), Err(redirected)),
            ("nowhere", 302, None, Err(status(302))),
            ("a choice", 300, Some("/here".into()), Err(status(300))),
        ];
        for (name, status, to, expected) in rows {
            server.set(
                KEYS,
                match to {
                    Some(to) => Reply::redirect(status, &to),
                    None => Reply::status(status),
                },
            );
            let outcome = ask(http(), &server.at(KEYS)).await;
            assert_eq!(outcome.map(drop), expected, "{name}");
        }
        assert_eq!(elsewhere.requests(), [""; 0], "nobody was sent there");

        for (from, to) in [("/4", "/3"), ("/3", "/2"), ("/2", "/1"), ("/1", "/here")] {
            server.set(from, Reply::redirect(302, to));
        }
        assert!(ask(http(), &server.at("/3")).await.is_ok(), "three");
        let error = ask(http(), &server.at("/4")).await.unwrap_err();
        assert_eq!(
            error,
            RemoteKeysError::Redirected(IssuerDocument::KeySet),
            "four"
        );
    });
}

/// A root of our own (PEM), and a server that it certifies as `127.0.0.1`, if not changed.
fn certified(change: impl FnOnce(&mut CertificateParams)) -> (String, TlsAcceptor) {
    let mut root = CertificateParams::new([]).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let root = rcgen::Issuer::new(root, root_key);

    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &root).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    (root_pem, TlsAcceptor::from(Arc::new(config)))
}

fn trusting(roots: &str) -> HttpClient {
    let builder = HttpClient::builder().add_root_certificates_pem(roots.as_bytes());
    builder.unwrap().build().unwrap()
}

#[test]
fn trusts_who_is_certified_by_a_root_that_was_added() {
    block_on(async {
        let (root, tls) = certified(|_| ());
        let (other_root, _) = certified(|_| ());
        let server = Server::start_tls(tls).await;
        server.set(KEYS, Reply::text(issuer_jwks()));
        let url = server.at(KEYS);
        assert!(url.starts_with("https://"));

        let strange = reason("no root", ask(http(), &url).await);
        assert!(strange.starts_with("no connection: "), "{strange}");
        reason("another root", ask(trusting(&other_root), &url).await);
        assert_eq!(server.requests(), [""; 0], "nothing was asked");
        ask(trusting(&root), &url).await.unwrap();
        ask(trusting(&format!("{other_root}\n{root}")), &url)
            .await
            .unwrap();
        let builder = HttpClient::builder().add_root_certificates_pem(other_root.as_bytes());
        let builder = builder.unwrap().add_root_certificates_pem(root.as_bytes());
        ask(builder.unwrap().build().unwrap(), &url).await.unwrap();

        let plain = url.replace("https", "http");
        reason("http to a server of https", ask(http(), &plain).await);
    });
}

#[test]
fn trusts_no_certificate_that_does_not_hold() {
    type Change = fn(&mut CertificateParams);
    let rows: [(&str, Change); 3] = [
        ("another name", |params| {
            *params = CertificateParams::new(["as.example.com".to_owned()]).unwrap();
        }),
        ("expired", |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }),
        ("not valid yet", |params| {
            params.not_before = date_time_ymd(3000, 1, 1);
        }),
    ];
    for (name, change) in rows {
        block_on(async {
            let (root, tls) = certified(change);
            let server = Server::start_tls(tls).await;
            server.set(KEYS, Reply::text(issuer_jwks()));
            reason(name, ask(trusting(&root), &server.at(KEYS)).await);
            assert_eq!(server.requests(), [""; 0], "{name}");
        });
    }
}

/// Behind `https`, everything is `https`, this machine's documents too.
#[test]
fn an_https_issuer_sends_nobody_to_http() {
    block_on(async {
        let (root, tls) = certified(|_| ());
        let (server, plain) = (Server::start_tls(tls).await, Server::start().await);
        plain.set(KEYS, Reply::text(issuer_jwks()));
        server.set("/here", Reply::text(issuer_jwks()));
        let http = trusting(&root);
        let discover = async |issuer: EndpointUrl| {
            let keys = RemoteKeys::discover(issuer, http.clone());
            within_reason(keys.fetched()).await.map(drop)
        };
        let strict = || server.url().parse().unwrap();
        let insecure = || EndpointUrl::insecure_http(&server.url()).unwrap();

        server.set(OAUTH, Reply::metadata(&server.url(), &server.at("/here")));
        assert_eq!(discover(strict()).await, Ok(()));
        server.set(OAUTH, Reply::metadata(&server.url(), &plain.at(KEYS)));
        let rejected = Err(RemoteKeysError::JwksUri(InvalidEndpointUrl::NotHttps(
            plain.at(KEYS),
        )));
        assert_eq!(discover(strict()).await, rejected);
        assert_eq!(
            discover(insecure()).await,
            rejected,
            "what is allowed is not asked for"
        );
        server.set(OAUTH, Reply::metadata(&server.url(), &server.at(KEYS)));
        server.set(KEYS, Reply::redirect(302, &plain.at(KEYS)));
        let redirected = Err(RemoteKeysError::Redirected(IssuerDocument::KeySet));
        assert_eq!(discover(strict()).await, redirected);
        assert_eq!(plain.requests(), [""; 0]);
    });
}

#[test]
fn asks_through_the_proxy_it_was_given() {
    block_on(async {
        let proxy = Server::start().await;
        proxy.set(KEYS, Reply::text(issuer_jwks()));
        let address = proxy.address();
        for url in [
            format!("http://{address}"),
            format!("http://user:secret@{address}/"),
        ] {
            let http = HttpClient::builder().with_proxy(&url).unwrap();
            assert!(!format!("{http:?}").contains("secret"));
            let http = http.build().unwrap();
            assert!(!format!("{http:?}").contains("secret"));
            ask(http, "http://as.example.com/jwks").await.unwrap();
        }
        assert_eq!(proxy.requests(), [KEYS, KEYS]);

        proxy.hang_up();
        let http = HttpClient::builder().with_proxy(&format!("http://user:secret@{address}"));
        let http = http.unwrap().build().unwrap();
        let reason = reason("a tunnel", ask(http, "https://as.example.com/jwks").await);
        assert!(!reason.contains("secret"), "{reason}");
    });
}

#[test]
fn rejects_settings_that_cannot_be() {
    let proxies = [
        "",
        "proxy.example.com",
        "proxy.example.com:3128",
        "//proxy.example.com",
        "socks5://proxy.example.com:1080",
        "ftp://proxy.example.com",
        "http://",
    ];
    for proxy in proxies {
        let rejected = HttpClient::builder().with_proxy(proxy).unwrap_err();
        assert_eq!(rejected, HttpClientError::Proxy, "{proxy}");
    }
    let key = KeyPair::generate().unwrap().serialize_pem();
    let (root, _) = certified(|_| ());
    let cut: String = root.chars().take(root.len() / 2).collect();
    let pems = [
        ("nothing", ""),
        ("no PEM", "MIIB"),
        ("a key", &key),
        ("half of it", &cut),
    ];
    for (name, pem) in pems {
        let rejected = HttpClient::builder().add_root_certificates_pem(pem.as_bytes());
        assert_eq!(
            rejected.unwrap_err(),
            HttpClientError::Certificate,
            "{name}"
        );
    }
    let forged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let forged = HttpClient::builder().add_root_certificates_pem(forged.as_bytes());
    assert!(matches!(
        forged.unwrap().build().unwrap_err(),
        HttpClientError::Tls(_)
    ));
}
