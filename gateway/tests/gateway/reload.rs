//! SIGHUP: what changes, what stays, and that no request fails meanwhile.

use std::sync::Arc;

use http::Method;

use crate::support::{Certificate, Gateway, Load, Parties, Program, Service};

/// One listener with TLS. The certificate is in the folder of the configuration.
pub fn configuration(service: &str, folder: &std::path::Path) -> String {
    let (pem, key) = (folder.join("server.pem"), folder.join("server.key"));
    let (pem, key) = (pem.display(), key.display());
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        tls = {{ certificate_file = '{pem}', key_file = '{key}' }}
        [upstream.orders]
        servers = ["{service}"]
        [[route]]
        path = "/"
        upstream = "orders"
        # more routes
        "#
    )
}

pub struct Fixture {
    pub parties: Arc<Parties>,
    pub service: Service,
    pub certificate: Certificate,
    pub folder: tempfile::TempDir,
    pub program: Arc<Program>,
    pub client: reqwest::Client,
}

impl Fixture {
    pub async fn start(dpop: &str) -> Self {
        let (parties, service) = (Arc::new(Parties::new()), Service::start().await);
        let (certificate, folder) = (Certificate::new(), tempfile::tempdir().unwrap());
        certificate.write(folder.path());
        let config = configuration(&service.url, folder.path());
        let program = Program::start(Gateway::with_dpop(&parties, dpop, &config));
        let client = program.client(reqwest::Client::builder());
        let client = certificate.trusted_by(client);
        Self {
            parties,
            service,
            certificate,
            folder,
            program: Arc::new(program),
            client,
        }
    }

    pub async fn get(&self, path: &str) -> u16 {
        let request = self.parties.request(Method::GET, path);
        self.program.send(&self.client, &request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_changed() {
    let fixture = Fixture::start("").await;
    assert_eq!(fixture.get("/orders").await, 200);
    let route = "path = \"/\"\n        upstream = \"orders\"";
    fixture
        .program
        .edit(route, &format!("{route}\nscopes = \"other\""));
    // Not before the signal.
    assert_eq!(fixture.get("/orders").await, 200);
    fixture.program.reload();
    assert_eq!(fixture.get("/orders").await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_an_error_changes_nothing() {
    let fixture = Fixture::start("").await;
    let rows = [
        ("path = \"/\"", "pfad = \"/\"", "pfad"),
        (
            "public_url = ",
            "public_uri = ",
            "dpop.public_uri: unknown setting",
        ),
        ("server.key", "missing.key", "tls.key_file: "),
    ];
    for (number, (old, new, said)) in rows.into_iter().enumerate() {
        fixture.program.edit(old, new);
        fixture.program.signal("HUP");
        let program = &fixture.program;
        program.await_log(
            "reload failed: the previous configuration stays in use",
            number + 1,
        );
        program.await_log(said, 1);
        assert_eq!(fixture.get("/orders").await, 200, "{said}");
        program.edit(new, old);
    }
    fixture.program.reload();
    assert_eq!(fixture.get("/orders").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_the_rest_is_changed() {
    let fixture = Fixture::start("").await;
    let program = &fixture.program;
    program.edit(
        "[[listener]]\n        address = \"127.0.0.1:0\"",
        "[[listener]]\naddress = \"127.0.0.1:1\"",
    );
    program.edit(
        "# more routes",
        "scopes = \"other\"\n[process]\nthreads = 3",
    );
    program.reload();
    program.await_log(
        "listener 127.0.0.1:0, listener 127.0.0.1:1, process.threads",
        1,
    );
    assert_eq!(fixture.get("/orders").await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_proof_stays_used() {
    let rows = [
        ("the same [dpop]", "path = \"/\"", "path = \"/\" # the same"),
        (
            "another [dpop]",
            "public_url = ",
            "realm = \"orders\"\npublic_url = ",
        ),
    ];
    for (name, old, new) in rows {
        let fixture = Fixture::start("").await;
        let request = fixture.parties.request(Method::GET, "/orders");
        let send = || fixture.program.send(&fixture.client, &request);
        assert_eq!(send().await.unwrap(), 200, "{name}");
        fixture.program.edit(old, new);
        fixture.program.reload();
        assert_eq!(send().await.unwrap(), 401, "{name}");
        fixture.program.await_log("reason=\"proof_replayed\"", 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_issuer_are_read_again() {
    let fixture = Fixture::start("").await;
    assert_eq!(fixture.get("/orders").await, 200);
    std::fs::write(fixture.program.file("jwks.json"), r#"{"keys":"none"}"#).unwrap();
    fixture.program.signal("HUP");
    fixture.program.await_log("issuer.jwks_file", 1);
    assert_eq!(fixture.get("/orders").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_get_the_new_certificate() {
    let fixture = Fixture::start("").await;
    assert_eq!(fixture.get("/orders").await, 200);
    let new = Certificate::new();
    new.write(fixture.folder.path());
    fixture.program.reload();
    // This one has a connection, for which nothing changes.
    assert_eq!(fixture.get("/orders").await, 200);
    let builder = || fixture.program.client(reqwest::Client::builder());
    let request = fixture.parties.request(Method::GET, "/orders");
    let old_only = fixture.certificate.trusted_by(builder());
    assert!(fixture.program.send(&old_only, &request).await.is_err());
    let new_only = new.trusted_by(builder());
    assert_eq!(
        fixture.program.send(&new_only, &request).await.unwrap(),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_configuration_changes() {
    let fixture = Fixture::start("").await;
    let certificates = [fixture.certificate, Certificate::new()];
    let (parties, program) = (&fixture.parties, &fixture.program);
    let mut load = Load::start(parties, program, &certificates);
    let mut routes = "# more routes".to_owned();
    for number in 0..20 {
        load.more(10).await;
        certificates[number % 2].write(fixture.folder.path());
        let other = format!("[[route]]\npath = \"/{number}\"\nupstream = \"orders\"");
        program.edit(&routes, &other);
        routes = other;
        tokio::task::block_in_place(|| program.reload());
    }
    load.more(10).await;
    load.end().await;
    assert!(fixture.service.received().len() > 200);
}
