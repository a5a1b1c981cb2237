//! What is not TOML, and settings that cannot be read.

use super::{Folder, GOOD, SECRET, are_rejected, changed};

#[test]
fn settings_that_cannot_be_read() {
    are_rejected(&[
        (
            "[log]",
            "[logs]",
            "logs: unknown setting, did you mean log?",
        ),
        (
            "format =",
            "formt =",
            "log.formt: unknown setting, did you mean format?",
        ),
        (
            "threads = 2",
            "cpus = 2",
            "process.cpus: unknown setting, expected one of threads, drain_seconds",
        ),
        (
            "threads = 2",
            "threads = \"2\"",
            "process.threads: expected a whole number, found a string",
        ),
        (
            "threads = 2",
            "threads = -2",
            "process.threads: expected a whole number",
        ),
        (
            "threads = 2",
            "threads = 1.5",
            "process.threads: found a fraction, which no setting accepts",
        ),
        (
            "threads = 2",
            "threads = 99999999999999999999",
            "process.threads: found a number that is too large, which no setting accepts",
        ),
        (
            "threads = 2",
            "threads = 1979-05-27",
            "process.threads: found a date or time, which no setting accepts",
        ),
        (
            "[process]",
            "[[process]]",
            "process: expected one table: write its name in single brackets, as [name]",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:8080\"",
            "[[listener]]\naddress = \"localhost:8080\"",
            "listener[0].address: expected an IP address with a port, such as \"127.0.0.1:8080\" or \"[::]:443\"",
        ),
        (
            "[\"10.0.0.0/8\"]",
            "[\"10.0.0.0/33\"]",
            "listener[0].trusted_proxies[0]: expected a network, such as \"10.0.0.0/8\", \"192.0.2.7/32\" or \"fd00::/8\"",
        ),
        (
            "[\"10.0.0.0/8\"]",
            "\"10.0.0.0/8\"",
            "listener[0].trusted_proxies: expected a list in brackets, found a string",
        ),
        (
            "\"envoy-http\"",
            "\"envoy\"",
            "forward_auth[0].asked_by: \"envoy\" is unknown, expected one of nginx, ingress-nginx, traefik, caddy, envoy-http, envoy-grpc",
        ),
        (
            "asked_by = \"envoy-http\"",
            "asked_by = 1",
            "forward_auth[0].asked_by: expected one of nginx, ingress-nginx, traefik, caddy, envoy-http, envoy-grpc, found a number",
        ),
        (
            "access = \"public\"",
            "access = \"pubic\"",
            "route[2].access: \"pubic\" is unknown, did you mean public?",
        ),
        (
            "claim = \"jkt\"",
            "claim = \"\"",
            "identity[1].claim: must not be empty",
        ),
        (
            "scopes = \"orders:read\"",
            "scopes = [\"a b\"]",
            "route[0].scopes: \"a b\": must not contain spaces in a list",
        ),
        (
            "tls = {",
            "tls = [] # {",
            "listener[0].tls: expected one table: write its name in single brackets, as [name]",
        ),
    ]);
}

/// The place is that of the table.
#[test]
fn settings_that_are_missing() {
    let folder = Folder::new();
    for (from, expected) in [
        (
            "asked_by = \"envoy-http\"\n",
            "15:1: forward_auth[0].asked_by: must be set",
        ),
        (
            "from = [\"127.0.0.0/8\", \"::1/128\"]\n",
            "15:1: forward_auth[0].from: must be set",
        ),
        (
            "allow_methods = [\"GET\"]\n",
            "50:2: cors.allow_methods: must be set",
        ),
        (
            ", key_file = \"FOLDER/key.pem\" }\n[[f",
            "14:1: listener[0].tls.key_file: must be set",
        ),
        (
            "upstream = \"stock\"\n",
            "40:1: route[2].upstream: must be set, because a [[listener]] passes requests on: expected the name of an [upstream.NAME]",
        ),
    ] {
        let to = if from.ends_with('f') { "}\n[[f" } else { "" };
        let (status, errors) = folder.check(&changed(from, to));
        let errors: Vec<_> = errors
            .lines()
            .filter(|line| !line.contains(": warning: "))
            .collect();
        assert_eq!(errors, [format!("gateway.toml:{expected}")]);
        assert_eq!(status, 2);
    }
}

#[test]
fn text_that_is_not_toml() {
    are_rejected(&[
        ("[process]", "[process", "unclosed table, expected `]`"),
        ("threads = 2", "threads = 2\nthreads = 2", "duplicate key"),
        (
            "threads = 2",
            "threads = two",
            "invalid boolean, expected `true`",
        ),
    ]);
}

/// Those of `tower_dpop`, with their place in this file.
#[test]
fn settings_of_the_verifier() {
    are_rejected(&[
        (
            "public_url =",
            "public_uri =",
            "dpop.public_uri: unknown setting, did you mean public_url?",
        ),
        (
            "\"https://api.example.com\"\n",
            "\"http://api.example.com\"\n",
            "dpop.public_url: \"http://api.example.com\": must be https (plain http is accepted on loopback only)",
        ),
        (
            "[[dpop.issuer]]\nurl = \"https://as.example.com\"",
            "[[dpop.issuer]]\nurl = \"\"",
            "dpop.issuer[0].url: must not be empty",
        ),
        (
            "jwks_file = \"FOLDER/jwks.json\"",
            "jwks_file = \"FOLDER/nonces\"",
            "dpop.issuer.jwks_file: FOLDER/nonces: neither a JWK Set nor a JWK",
        ),
        (
            "rediss://127.0.0.1:1",
            "redis://redis.internal",
            "dpop.redis.url: \"redis://redis.internal\": must be rediss:// (redis:// is accepted on loopback only)",
        ),
        (
            "nonces = { file = \"FOLDER/nonces\" }",
            "nonces = { env = \"DPOP_TEST_NOT_SET\" }",
            "dpop.nonces.env: environment variable DPOP_TEST_NOT_SET: not set",
        ),
        (
            "password = { file = \"FOLDER/nonces\" }",
            "password = { file = \"FOLDER/none\" }",
            "dpop.redis.password.file: file FOLDER/none: No such file or directory (os error 2)",
        ),
    ]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let folder = Folder::new();
    let check = |changes: &[(&str, &str)]| {
        let config = changes.iter().fold(GOOD.to_owned(), |config, (from, to)| {
            config.replace(from, to)
        });
        let (status, errors) = folder.check(&config);
        assert_eq!(status, 2);
        let problem = |line: &str| line.split_once(": ").unwrap().1.to_owned();
        errors.lines().map(problem).collect::<Vec<_>>()
    };
    // They cannot be read.
    assert_eq!(
        check(&[
            ("public_url", "public_uri"),
            ("from = [\"127.0.0.0/8\", \"::1/128\"]", "of = 1"),
            ("\"GET\", \"HEAD\"", "1, 2"),
            ("threads = 2", "threads = true")
        ]),
        [
            "dpop.public_uri: unknown setting, did you mean public_url?",
            "forward_auth[0].from: must be set",
            "forward_auth[0].of: unknown setting, expected one of address, tls, asked_by, from, path_prefix, insecure_replays",
            "route[0].methods[0]: expected a string, found a number",
            "route[0].methods[1]: expected a string, found a number",
            "process.threads: expected a whole number, found a boolean",
        ]
    );
    // They contradict each other or the files.
    assert_eq!(
        check(&[
            ("https://as.example.com", "not a URL"),
            ("FOLDER/jwks.json", "FOLDER/none"),
            ("FOLDER/key.pem", "FOLDER/other-key.pem"),
            ("upstream = \"orders\"", "upstream = \"order\""),
            ("X-Auth-Key", "Host")
        ]),
        [
            "dpop.issuer.jwks_file: FOLDER/none: No such file or directory (os error 2)",
            "listener[0].tls.key_file: does not belong to the first certificate in certificate_file",
            "warning: upstream.orders: no route uses it",
            "upstream.orders.client_certificate.key_file: does not belong to the first certificate in certificate_file",
            "route[0].upstream: there is no [upstream.order], did you mean orders?",
            "route[1].upstream: there is no [upstream.order], did you mean orders?",
            "identity[1].field: \"Host\": must be a name that has no other meaning, such as X-Auth-Subject",
        ]
    );
    let nothing = "[dpop]\npublic_url = \"https://api.example.com\"\nissuer = { url = \"https://as.example.com\", jwks_file = \"FOLDER/jwks.json\" }\n";
    assert_eq!(
        folder.check(nothing),
        (
            2,
            "gateway.toml: nothing is served: add a [[listener]] for the reverse proxy, or a [[forward_auth]] for another proxy\n\
             gateway.toml: route: without a [[route]], all requests would get 404: add one, such as path = \"/\"\n".to_owned()
        )
    );
    assert_eq!(
        folder.check(""),
        (2, "gateway.toml: dpop: must be set\n".to_owned())
    );
}

#[test]
fn no_secret_is_shown() {
    let folder = Folder::new();
    let pem = format!("-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n");
    let of_tls = "tls = { certificate_file = \"FOLDER/certificate.pem\", key_file = \"FOLDER/key.pem\" }\n[[forward_auth]]";
    let password = "password = { file = \"FOLDER/nonces\" }";
    let nonces = "nonces = { file = \"FOLDER/nonces\" }";
    for (from, to) in [
        (
            of_tls,
            format!(
                "tls = {{ certificate_file = \"FOLDER/certificate.pem\", key_file = \"{SECRET}\" }}\n[[forward_auth]]"
            ),
        ),
        (
            of_tls,
            format!(
                "tls = {{ certificate_file = \"FOLDER/certificate.pem\", key_file = \"{pem}\" }}\n[[forward_auth]]"
            ),
        ),
        (
            of_tls,
            format!(
                "tls = {{ certificate_file = \"{pem}\", key_file = \"FOLDER/key.pem\" }}\n[[forward_auth]]"
            ),
        ),
        (
            of_tls,
            format!(
                "tls = {{ certificate_file = [\"{pem}\"], key_file = [\"{pem}\"] }}\n[[forward_auth]]"
            ),
        ),
        (of_tls, format!("tls = \"{pem}\"\n[[forward_auth]]")),
        (password, format!("password = \"{SECRET}\"")),
        (password, format!("password = {{ file = \"{SECRET}\" }}")),
        (password, format!("password = {SECRET}")),
        (password, format!("password = \"{SECRET}")),
        (nonces, format!("nonces = \"{SECRET}\"")),
        (nonces, format!("nonces = [\"{SECRET}\"]")),
        (nonces, format!("nonces = {{ file = \"{SECRET}\" }}")),
        (
            "http://127.0.0.1\"",
            format!("http://user:{SECRET}@127.0.0.1\""),
        ),
        (
            "http://127.0.0.1\"",
            format!("https//user:{SECRET}@127.0.0.1\""),
        ),
        (
            "rediss://127.0.0.1:1",
            format!("rediss://user:{SECRET}@127.0.0.1:1"),
        ),
    ] {
        let (status, errors) = folder.check(&changed(from, &to));
        assert_eq!(status, 2, "{to}");
        assert!(errors.starts_with("gateway.toml:"), "{to}: {errors}");
        assert!(!errors.contains(&SECRET[..16]), "{to}: {errors}");
    }
}
