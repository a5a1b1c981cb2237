//! Services over TLS: none gets a request that has not been verified.

use axum::Router;
use http::Method;
use rcgen::{CertificateParams, date_time_ymd};

use crate::support::{Authority, Client, Gateway, Parties, Started, Upstream, forwarding_to};

fn named(name: &'static str) -> Router {
    Router::new().fallback(async move || name)
}

async fn status(gateway: &Started, parties: &Parties) -> u16 {
    let request = parties.request(Method::GET, "/orders");
    Client::http1(gateway).status(&request).await
}

#[tokio::test]
async fn the_certificate_of_a_server_is_verified() {
    let parties = Parties::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("{:?}", path.display().to_string())
    };
    let roots = file("roots.pem", &authority.pem());
    let others = file("others.pem", &other.pem());
    let client = authority.issue("gateway.internal", |_| {});
    let (certificate, key) = (file("client.pem", &client.0), file("client.key", &client.1));
    let stranger = other.issue("gateway.internal", |_| {});
    let stranger = (
        file("stranger.pem", &stranger.0),
        file("stranger.key", &stranger.1),
    );
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2024, 1, 1);
    let server = async |name: &str, change: fn(&mut CertificateParams), clients| {
        let config = Authority::server(&authority.issue(name, change), &[], clients);
        Upstream::serve_tls(named("one"), config).await
    };
    let (address, localhost, internal, expired, mutual) = (
        server("127.0.0.1", |_| {}, None).await,
        server("localhost", |_| {}, None).await,
        server("orders.internal", |_| {}, None).await,
        server("127.0.0.1", expired, None).await,
        server("127.0.0.1", |_| {}, Some(&authority)).await,
    );
    let our_roots = format!("roots_file = {roots}");
    let with = |more: &str| format!("{our_roots}\n{more}");
    let mutual_by = |certificate: &str, key: &str| {
        with(&format!(
            "client_certificate = {{ certificate_file = {certificate}, key_file = {key} }}"
        ))
    };
    for (name, url, settings, status_) in [
        ("an address", address.url(), with(""), 200),
        ("a name", localhost.url_as("localhost"), with(""), 200),
        (
            "another name that is set",
            internal.url(),
            with("server_name = \"orders.internal\""),
            200,
        ),
        ("the name is another one", internal.url(), with(""), 502),
        (
            "the name is set to another one",
            address.url(),
            with("server_name = \"orders.internal\""),
            502,
        ),
        ("no name for the address", localhost.url(), with(""), 502),
        (
            "unknown authority",
            address.url(),
            format!("roots_file = {others}"),
            502,
        ),
        (
            "not an authority of the system",
            address.url(),
            String::new(),
            502,
        ),
        ("expired", expired.url(), with(""), 502),
        (
            "plain text",
            address.url().replace("https", "http"),
            String::new(),
            502,
        ),
        (
            "client certificate",
            mutual.url(),
            mutual_by(&certificate, &key),
            200,
        ),
        ("no client certificate", mutual.url(), with(""), 502),
        (
            "client certificate of others",
            mutual.url(),
            mutual_by(&stranger.0, &stranger.1),
            502,
        ),
    ] {
        let config = format!("servers = [\"{url}\"]\n{settings}");
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for _ in 0..2 {
            assert_eq!(status(&gateway, &parties).await, status_, "{name}");
        }
    }
}

/// A connection that one upstream has verified is of no use to another one with other roots.
#[tokio::test]
async fn upstreams_share_no_connections() {
    let parties = Parties::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (roots, others) = (
        folder.path().join("roots.pem"),
        folder.path().join("others.pem"),
    );
    std::fs::write(&roots, authority.pem()).unwrap();
    std::fs::write(&others, other.pem()).unwrap();
    let tls = Authority::server(&authority.issue("127.0.0.1", |_| {}), &[], None);
    let upstream = Upstream::serve_tls(named("one"), tls).await;
    let url = upstream.url();
    let config = format!(
        "{}\n[upstream.others]\nservers = [\"{url}\"]\nroots_file = {others:?}\n\
        [[route]]\npath = \"/others\"\nupstream = \"others\"",
        forwarding_to(&format!("servers = [\"{url}\"]\nroots_file = {roots:?}"))
    );
    let gateway = Gateway::new(&parties, &config).start();
    for _ in 0..2 {
        assert_eq!(status(&gateway, &parties).await, 200);
        let request = parties.request(Method::GET, "/others");
        assert_eq!(Client::http1(&gateway).status(&request).await, 502);
    }
}

#[tokio::test]
async fn a_configuration_that_would_verify_nothing_is_rejected() {
    let parties = Parties::new();
    let folder = tempfile::tempdir().unwrap();
    let not_pem = folder.path().join("not.pem");
    std::fs::write(&not_pem, "not a certificate").unwrap();
    for (name, settings) in [
        ("no server", "servers = []".to_owned()),
        (
            "another scheme",
            "servers = [\"ftp://127.0.0.1\"]".to_owned(),
        ),
        (
            "two schemes",
            "servers = [\"http://127.0.0.1\", \"https://127.0.0.1\"]".to_owned(),
        ),
        ("a path", "servers = [\"http://127.0.0.1/path\"]".to_owned()),
        (
            "credentials",
            "servers = [\"http://a@127.0.0.1\"]".to_owned(),
        ),
        ("no host", "servers = [\"http://:80\"]".to_owned()),
        (
            "an empty server_name",
            "servers = [\"https://127.0.0.1\"]\nserver_name = \"\"".to_owned(),
        ),
        (
            "an underscore",
            "servers = [\"https://a_b.internal.example\"]".to_owned(),
        ),
        (
            "no roots",
            format!("servers = [\"https://127.0.0.1\"]\nroots_file = {not_pem:?}"),
        ),
        (
            "roots do not exist",
            "servers = [\"https://127.0.0.1\"]\nroots_file = \"/nowhere\"".to_owned(),
        ),
    ] {
        let gateway = Gateway::new(&parties, &forwarding_to(&settings));
        let started = std::panic::AssertUnwindSafe(|| gateway.start());
        assert!(std::panic::catch_unwind(started).is_err(), "{name}");
    }
}
