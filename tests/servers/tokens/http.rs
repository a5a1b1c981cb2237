//! Requests to issuers: over which connections, and which responses are rejected. The
//! requests are made by [`RemoteKeys`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
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

use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, Server, http, in_time};
use common::log::logged;
use common::{block_on, issuer_jwks};

/// Fetches the keys at this URL.
async fn fetch(http: HttpClient, url: &str) -> Result<RemoteKeys, RemoteKeysError> {
    let keys = RemoteKeys::at(EndpointUrl::insecure_http(url).unwrap(), http);
    in_time(keys.fetched()).await
}

/// The reason why the issuer is unreachable. It shows no URL.
#[track_caller]
fn reason(name: &str, result: Result<RemoteKeys, RemoteKeysError>) -> String {
    match result.unwrap_err() {
        RemoteKeysError::Unreachable { reason, .. } => {
            assert!(!reason.contains("://"), "{name}: {reason}");
            reason
        }
        error => panic!("{name}: {error}"),
    }
}

/// A server that responds with these bytes, and then closes the connection or leaves it open. Returns
/// its address and the requests it receives.
async fn raw_server(
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
            // The client may close the connection before the end of the response.
            let _ = stream.write_all(&response).await;
            if !closes {
                open.push(stream);
            }
        }
    });
    (address, received)
}

/// The request contains nothing from the client's request that waits for it.
#[test]
fn sends_only_the_required_headers() {
    block_on(async {
        let jwks = issuer_jwks();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{jwks}",
            jwks.len()
        );
        let (address, mut requests) = raw_server(response, true).await;
        fetch(http(), &format!("http://{address}/jwks?version=2"))
            .await
            .unwrap();
        let request = requests.recv().await.unwrap().to_lowercase();
        let mut lines: Vec<_> = request.lines().filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        let host = format!("host: {address}");
        let agent = concat!("user-agent: tower-dpop/", env!("CARGO_PKG_VERSION"));
        let expected = [
            "accept-encoding: identity",
            "accept: application/json, application/jwk-set+json",
            "get /jwks?version=2 http/1.1",
            &host,
            agent,
        ];
        assert_eq!(lines, expected);
    });
}

#[test]
fn rejects_an_incomplete_or_oversized_response() {
    let head = "HTTP/1.1 200 OK\r\n";
    let jwks = issuer_jwks();
    let long = jwks.clone() + &" ".repeat(300_000);
    let chunks = format!("{head}transfer-encoding: chunked\r\n\r\n")
        + &format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(5);
    let rows = [
        ("an empty response", String::new(), "no complete response"),
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
            "too many header fields",
            head.to_owned() + &"x: y\r\n".repeat(10_000),
            "no complete response",
        ),
        (
            "a long body",
            format!("{head}content-length: {}\r\n\r\n{long}", long.len()),
            "too long",
        ),
        (
            "a long body of unknown length",
            format!("{head}\r\n{long}"),
            "too long",
        ),
        ("many chunks", chunks, "too long"),
    ];
    for (name, response, expected) in rows {
        block_on(async {
            let (address, _requests) = raw_server(response, true).await;
            let result = fetch(http(), &format!("http://{address}")).await;
            if expected == "too long" {
                let too_long = RemoteKeysError::TooLong(IssuerDocument::KeySet);
                assert_eq!(result.unwrap_err(), too_long, "{name}");
            } else {
                let reason = reason(name, result);
                assert!(reason.starts_with(expected), "{name}: {reason}");
            }
        });
    }
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = reason(
            "connection refused",
            fetch(http(), &format!("http://{address}")).await,
        );
        assert!(refused.starts_with("no connection: "), "{refused}");
    });
}

/// Nothing is decompressed. The request says so, and the error names the coding and the remedy.
#[test]
fn a_response_with_a_content_coding_is_an_error() {
    let long = "x".repeat(10_000);
    let rows: [(&str, &[&str], Option<&str>); 10] = [
        ("no coding", &[], None),
        ("identity", &["identity"], None),
        ("capitals", &["Identity"], None),
        ("an empty list", &[" , "], None),
        ("gzip", &["gzip"], Some("gzip")),
        ("Brotli", &["br"], Some("br")),
        ("two codings", &["gzip, br"], Some("gzip, br")),
        ("two fields", &["identity", "zstd"], Some("identity, zstd")),
        ("an unknown coding", &["x-\"a\""], Some("x-\"a\"")),
        ("a long name", &[&long], Some(&long[..64])),
    ];
    block_on(async {
        let server = Server::start().await;
        for (name, fields, coding) in rows {
            let encoded = |reply| {
                let add = |reply: Reply, field: &&str| reply.with_header("content-encoding", field);
                fields.iter().fold(reply, add)
            };
            let expected = |document| {
                coding.map(|coding| RemoteKeysError::Encoded {
                    document,
                    coding: coding.to_owned(),
                })
            };
            server.set(KEYS, encoded(Reply::text(issuer_jwks())));
            let error = fetch(http(), &server.url_of(KEYS)).await.err();
            assert_eq!(error, expected(IssuerDocument::KeySet), "{name}");

            let metadata = Reply::metadata(&server.url(), &server.url_of("/plain"));
            server.set(OAUTH, encoded(metadata));
            server.set("/plain", Reply::text(issuer_jwks()));
            let keys = RemoteKeys::discover(server.url().parse().unwrap(), http());
            let error = in_time(keys.fetched()).await.err();
            assert_eq!(error, expected(IssuerDocument::Metadata), "{name}");
        }
        for status in [400, 404, 503] {
            let reply = Reply::status(status).with_header("content-encoding", "gzip");
            server.set(KEYS, reply);
            let error = fetch(http(), &server.url_of(KEYS)).await.unwrap_err();
            assert!(
                matches!(error, RemoteKeysError::Status { .. }),
                "{status}: {error}"
            );
        }
    });
    let error = RemoteKeysError::Encoded {
        document: IssuerDocument::KeySet,
        coding: "gzip".into(),
    };
    assert_eq!(
        error.to_string(),
        "the issuer's key set has the content coding \"gzip\", although the request asks for none (Accept-Encoding: \
         identity): switch compression off for this URL, at the server or at the proxy in front of it"
    );
}

/// The timeout covers the connection, the head and the body.
#[test]
fn the_timeout_covers_the_whole_exchange() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    let rows = [
        ("no response", String::new()),
        ("half a head", "HTTP/1.1 200".into()),
        ("a head without a body", head.into()),
        ("half a body", format!("{head}{{\"keys\":")),
    ];
    let short_timeout = HttpClient::builder()
        .with_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    for (name, response) in rows {
        block_on(async {
            let (address, _requests) = raw_server(response, false).await;
            let error = fetch(short_timeout.clone(), &format!("http://{address}"))
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
        let (server, other_origin) = (Server::start().await, Server::start().await);
        for target in [&server, &other_origin] {
            target.set("/here", Reply::text(issuer_jwks()));
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
            ("absolute", 302, Some(server.url_of("/here")), Ok(())),
            (
                "another port",
                302,
                Some(other_origin.url_of("/here")),
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
            ("a loop", 302, Some(KEYS.into()), Err(redirected)),
            ("without a location", 302, None, Err(status(302))),
            ("300", 300, Some("/here".into()), Err(status(300))),
        ];
        for (name, status, to, expected) in rows {
            server.set(
                KEYS,
                match to {
                    Some(to) => Reply::redirect(status, &to),
                    None => Reply::status(status),
                },
            );
            let result = fetch(http(), &server.url_of(KEYS)).await;
            assert_eq!(result.map(drop), expected, "{name}");
        }
        assert_eq!(
            other_origin.requests(),
            [""; 0],
            "no request to the other origin"
        );

        for (from, to) in [("/4", "/3"), ("/3", "/2"), ("/2", "/1"), ("/1", "/here")] {
            server.set(from, Reply::redirect(302, to));
        }
        assert!(
            fetch(http(), &server.url_of("/3")).await.is_ok(),
            "three redirects"
        );
        let error = fetch(http(), &server.url_of("/4")).await.unwrap_err();
        assert_eq!(
            error,
            RemoteKeysError::Redirected(IssuerDocument::KeySet),
            "four redirects"
        );
    });
}

/// A new root certificate (PEM), and a TLS acceptor with a certificate from it. The certificate is for
/// `127.0.0.1`, unless `change` changes that.
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
fn trusts_servers_that_an_added_root_certifies() {
    block_on(async {
        let (root, tls) = certified(|_| ());
        let (other_root, _) = certified(|_| ());
        let server = Server::start_tls(tls).await;
        server.set(KEYS, Reply::text(issuer_jwks()));
        let url = server.url_of(KEYS);
        assert!(url.starts_with("https://"));

        let untrusted = reason("no root", fetch(http(), &url).await);
        assert!(untrusted.starts_with("no connection: "), "{untrusted}");
        reason("another root", fetch(trusting(&other_root), &url).await);
        assert_eq!(server.requests(), [""; 0], "no request was sent");
        fetch(trusting(&root), &url).await.unwrap();
        fetch(trusting(&format!("{other_root}\n{root}")), &url)
            .await
            .unwrap();
        let builder = HttpClient::builder().add_root_certificates_pem(other_root.as_bytes());
        let builder = builder.unwrap().add_root_certificates_pem(root.as_bytes());
        fetch(builder.unwrap().build().unwrap(), &url)
            .await
            .unwrap();

        let plain = url.replace("https", "http");
        reason("http to an https server", fetch(http(), &plain).await);
    });
}

#[test]
fn rejects_an_invalid_certificate() {
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
            reason(name, fetch(trusting(&root), &server.url_of(KEYS)).await);
            assert_eq!(server.requests(), [""; 0], "{name}");
        });
    }
}

/// An `https` issuer's documents must be `https` too, even on loopback.
#[test]
fn an_https_issuer_cannot_refer_to_http() {
    block_on(async {
        let (root, tls) = certified(|_| ());
        let (server, plain) = (Server::start_tls(tls).await, Server::start().await);
        plain.set(KEYS, Reply::text(issuer_jwks()));
        server.set("/here", Reply::text(issuer_jwks()));
        let http = trusting(&root);
        let discover = async |issuer: EndpointUrl| {
            let keys = RemoteKeys::discover(issuer, http.clone());
            in_time(keys.fetched()).await.map(drop)
        };
        let strict = || server.url().parse().unwrap();
        let insecure = || EndpointUrl::insecure_http(&server.url()).unwrap();

        server.set(
            OAUTH,
            Reply::metadata(&server.url(), &server.url_of("/here")),
        );
        assert_eq!(discover(strict()).await, Ok(()));
        server.set(OAUTH, Reply::metadata(&server.url(), &plain.url_of(KEYS)));
        let rejected = Err(RemoteKeysError::JwksUri(InvalidEndpointUrl::NotHttps(
            plain.url_of(KEYS),
        )));
        assert_eq!(discover(strict()).await, rejected);
        assert_eq!(
            discover(insecure()).await,
            rejected,
            "even if plain http is allowed"
        );
        server.set(OAUTH, Reply::metadata(&server.url(), &server.url_of(KEYS)));
        server.set(KEYS, Reply::redirect(302, &plain.url_of(KEYS)));
        let redirected = Err(RemoteKeysError::Redirected(IssuerDocument::KeySet));
        assert_eq!(discover(strict()).await, redirected);
        assert_eq!(plain.requests(), [""; 0]);
    });
}

#[test]
fn sends_requests_through_the_configured_proxy() {
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
            fetch(http, "http://as.example.com/jwks").await.unwrap();
        }
        assert_eq!(proxy.requests(), [KEYS, KEYS]);

        proxy.hang_up();
        let http = HttpClient::builder().with_proxy(&format!("http://user:secret@{address}"));
        let http = http.unwrap().build().unwrap();
        let reason = reason(
            "a CONNECT request",
            fetch(http, "https://as.example.com/jwks").await,
        );
        assert!(!reason.contains("secret"), "{reason}");
    });
}

#[test]
fn rejects_invalid_settings() {
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
        let error = HttpClient::builder().with_proxy(proxy).unwrap_err();
        assert_eq!(error, HttpClientError::Proxy, "{proxy}");
    }
    let key = KeyPair::generate().unwrap().serialize_pem();
    let (root, _) = certified(|_| ());
    let cut: String = root.chars().take(root.len() / 2).collect();
    let pems = [
        ("an empty text", ""),
        ("not PEM", "MIIB"),
        ("a private key", &key),
        ("a truncated certificate", &cut),
    ];
    for (name, pem) in pems {
        let result = HttpClient::builder().add_root_certificates_pem(pem.as_bytes());
        assert_eq!(result.unwrap_err(), HttpClientError::Certificate, "{name}");
    }
    let invalid = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let invalid = HttpClient::builder().add_root_certificates_pem(invalid.as_bytes());
    assert!(matches!(
        invalid.unwrap().build().unwrap_err(),
        HttpClientError::Tls(_)
    ));
}

/// A client that sends this value to the origin of this URL.
fn authorized(
    url: &str,
    value: impl Fn() -> io::Result<String> + Send + Sync + 'static,
) -> HttpClient {
    let origin = EndpointUrl::insecure_http(url).unwrap();
    let builder = HttpClient::builder().with_authorization(&origin, value);
    builder.build().unwrap()
}

/// Kubernetes replaces the token of a pod every hour.
#[test]
fn an_authorization_is_made_for_each_request_to_its_origin() {
    block_on(async {
        let (server, other) = (Server::start().await, Server::start().await);
        let count = AtomicUsize::new(0);
        let http = authorized(&server.url_of("/any/path?query"), move || {
            Ok(format!(
                "Bearer {}\n",
                count.fetch_add(1, Ordering::Relaxed)
            ))
        });
        let field = |text: &str| Some(HeaderValue::from_str(text).unwrap());
        server.set(OPENID, Reply::metadata(&server.url(), &server.url_of(KEYS)));
        server.set(KEYS, Reply::text(issuer_jwks()));
        let discover = || RemoteKeys::discover(server.url().parse().unwrap(), http.clone());
        in_time(discover().fetched()).await.unwrap();
        let expected = [
            (OAUTH.to_owned(), field("Bearer 0")),
            (OPENID.to_owned(), field("Bearer 1")),
            (KEYS.to_owned(), field("Bearer 2")),
        ];
        assert_eq!(server.authorizations(), expected);

        // Other origins: another port, and another name of the same server.
        server.clear_requests();
        other.set(KEYS, Reply::text(issuer_jwks()));
        let localhost = format!("http://localhost:{}{KEYS}", server.address().port());
        for jwks_uri in [other.url_of(KEYS), localhost] {
            server.set(OPENID, Reply::metadata(&server.url(), &jwks_uri));
            in_time(discover().fetched()).await.unwrap();
        }
        let without = |server: &Server| {
            let all = server.authorizations().into_iter();
            all.filter(|(_, field)| field.is_none())
                .map(|(path, _)| path)
                .collect::<Vec<_>>()
        };
        assert_eq!(without(&other), [KEYS]);
        assert_eq!(without(&server), [KEYS], "by its other name");
    });
}

#[test]
fn a_redirect_takes_no_authorization_with_it() {
    block_on(async {
        let (server, other) = (Server::start().await, Server::start().await);
        let http = authorized(&server.url(), || Ok("Bearer marker".to_owned()));
        for target in [&server, &other] {
            target.set("/here", Reply::text(issuer_jwks()));
        }
        for (name, to) in [
            ("another path", "/here".to_owned()),
            ("another origin", other.url_of("/here")),
        ] {
            server.set(KEYS, Reply::redirect(307, &to));
            let error = fetch(http.clone(), &server.url_of(KEYS)).await.unwrap_err();
            assert_eq!(
                error,
                RemoteKeysError::Redirected(IssuerDocument::KeySet),
                "{name}"
            );
        }
        assert_eq!(server.requests(), [KEYS, KEYS]);
        assert_eq!(other.requests(), [""; 0]);

        other.set(KEYS, Reply::redirect(307, &server.url_of("/here")));
        let error = fetch(http.clone(), &other.url_of(KEYS)).await.unwrap_err();
        assert_eq!(
            error,
            RemoteKeysError::Redirected(IssuerDocument::KeySet),
            "to the origin"
        );
        other.set(KEYS, Reply::redirect(307, "/here"));
        fetch(http, &other.url_of(KEYS)).await.unwrap();
    });
}

#[test]
fn no_request_is_sent_without_the_configured_authorization() {
    type MakeValue = fn() -> io::Result<String>;
    block_on(async {
        let server = Server::start().await;
        server.set(KEYS, Reply::text(issuer_jwks()));
        let rows: [(&str, MakeValue, &str); 2] = [
            (
                "no value",
                || Err(io::Error::new(io::ErrorKind::NotFound, "no token file")),
                "no authorization: no token file",
            ),
            (
                "two lines",
                || Ok("Bearer marker\r\nx: y".into()),
                "no authorization: not the value of a header field",
            ),
        ];
        for (name, value, expected) in rows {
            let result = fetch(authorized(&server.url(), value), &server.url_of(KEYS)).await;
            assert_eq!(reason(name, result), expected, "{name}");
        }
        assert_eq!(server.requests(), [""; 0]);
    });
}

#[test]
fn an_authorization_is_shown_nowhere() {
    let (shown, log) = logged(|| {
        block_on(async {
            let server = Server::start().await;
            server.set(KEYS, Reply::text(issuer_jwks()));
            let url = server.url_of(KEYS);
            let value = || Ok("Bearer marker".to_owned());
            let builder = HttpClient::builder().with_authorization(&url.parse().unwrap(), value);
            let mut shown = vec![format!("{builder:?}")];
            let http = builder.build().unwrap();
            shown.push(format!("{http:?}"));
            let keys = fetch(http.clone(), &url).await.unwrap();
            shown.push(format!("{keys:?} {:?}", keys.status()));
            server.set(KEYS, Reply::status(401));
            shown.push(format!("{:?}", fetch(http.clone(), &url).await));
            server.hang_up();
            shown.push(format!("{:?}", fetch(http, &url).await));
            shown.concat()
        })
    });
    assert!(
        log.contains("tower_dpop") && log.contains("could not be fetched"),
        "{log}"
    );
    assert!(!shown.contains("marker"), "{shown}");
    assert!(!log.contains("marker"), "{log}");
}
