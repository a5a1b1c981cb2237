//! Settings that contradict each other or the files, or mean something else than it seems.

use super::{Folder, are_rejected, changed};

#[test]
fn addresses_and_networks() {
    are_rejected(&[
        (
            "[operations]\naddress = \"127.0.0.1:8082\"",
            "[operations]\naddress = \"127.0.0.1:8080\"",
            "operations.address: 127.0.0.1:8080 is taken by 127.0.0.1:8080 of listener[0]",
        ),
        (
            "[operations]\naddress = \"127.0.0.1:8082\"",
            "[operations]\naddress = \"0.0.0.0:8080\"",
            "operations.address: 0.0.0.0:8080 is taken by 127.0.0.1:8080 of listener[0]",
        ),
        (
            "[operations]\naddress = \"127.0.0.1:8082\"",
            "[operations]\naddress = \"[::]:8080\"",
            "operations.address: [::]:8080 is taken by 127.0.0.1:8080 of listener[0]",
        ),
        (
            "[\"127.0.0.0/8\", \"::1/128\"]",
            "[]",
            "forward_auth[0].from: no one could ask: name the networks of the proxies, such as [\"10.0.0.0/8\"]",
        ),
        (
            "asked_by = \"envoy-http\"\nfrom = [\"127.0.0.0/8\", \"::1/128\"]\npath_prefix",
            "asked_by = \"nginx\"\nfrom = [\"127.0.0.0/8\"]\npath_prefix",
            "forward_auth[0].path_prefix: only asked_by = \"envoy-http\" has a prefix: remove it",
        ),
        (
            "path_prefix = \"/check\"",
            "path_prefix = \"check\"",
            "forward_auth[0].path_prefix: \"check\": must begin with /",
        ),
        (
            "threads = 2",
            "threads = 0",
            "process.threads: must be 1 to 1024",
        ),
        (
            "threads = 2",
            "drain_seconds = 86401",
            "process.drain_seconds: must be 0 to 86400",
        ),
    ]);
}

#[test]
fn identity_fields() {
    for field in [
        "Authorization",
        "Connection",
        "Content-Length",
        "Cookie",
        "DPoP",
        "Forwarded",
        "Host",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Transfer_Encoding",
        "Upgrade",
        "X-Forwarded-For",
        "X_Forwarded_User",
        "X-Real-IP",
        "Proxy-User",
    ] {
        are_rejected(&[(
            "field = \"X-Auth-Key\"",
            &format!("field = {field:?}"),
            &format!(
                "identity[1].field: {field:?}: must be a name that has no other meaning, such as X-Auth-Subject"
            ),
        )]);
    }
    are_rejected(&[
        (
            "field = \"X-Auth-Key\"",
            "field = \":path\"",
            "identity[1].field: \":path\": is not the name of a header field",
        ),
        (
            "field = \"X-Auth-Key\"",
            "field = \"X Key\"",
            "identity[1].field: \"X Key\": is not the name of a header field",
        ),
        (
            "field = \"X-Auth-Key\"",
            "field = \"x-auth-subject\"",
            "identity[1].field: \"x-auth-subject\": is set twice",
        ),
        (
            "field = \"X-Auth-Key\"",
            "field = \"X_Auth_Subject\"",
            "identity[1].field: \"X_Auth_Subject\": services that turn names into variables take it for \"X-Auth-Subject\"",
        ),
        (
            "field = \"X-Auth-Key\"",
            "field = \"X.Auth.Subject\"",
            "identity[1].field: \"X.Auth.Subject\": services that turn names into variables take it for \"X-Auth-Subject\"",
        ),
    ]);
}

#[test]
fn cors() {
    const EXPECTED: &str =
        "expected scheme://host[:port], without a path and without a / at the end";
    for (origin, problem) in [
        ("*", "is every origin, so it must be the only one"),
        (
            "null",
            "is the origin of any page in a sandbox: list the origins of your pages",
        ),
        ("app.example.com", "expected scheme://host[:port]"),
        ("https://app.example.com/", EXPECTED),
        ("https://app.example.com/a", EXPECTED),
        (
            "https://App.example.com",
            "must be in lower case, as browsers send it",
        ),
        (
            "https://app.example.com:443",
            "must not have the port, which browsers leave out because it is the default",
        ),
    ] {
        are_rejected(&[(
            "\"http://localhost:5173\"",
            &format!("{origin:?}"),
            &format!("cors.allow_origins[1]: {origin:?}: {problem}"),
        )]);
    }
    are_rejected(&[
        (
            "[\"https://app.example.com\", \"http://localhost:5173\"]",
            "[]",
            "cors.allow_origins: must have at least one origin, such as \"https://app.example.com\"",
        ),
        (
            "allow_methods = [\"GET\"]",
            "allow_methods = []",
            "cors.allow_methods: must have at least one method, such as \"GET\"",
        ),
        (
            "allow_methods = [\"GET\"]",
            "allow_methods = [\"*\"]",
            "cors.allow_methods[0]: \"*\": is not a method: list them",
        ),
        (
            "[\"X-Request-Id\"]",
            "[\"*\"]",
            "cors.allow_headers[0]: \"*\": list the header fields",
        ),
        (
            "[\"X-Request-Id\"]",
            "[\"X Request\"]",
            "cors.allow_headers[0]: \"X Request\": is not the name of a header field",
        ),
    ]);
}

#[test]
fn files() {
    let tls =
        "tls = { certificate_file = \"FOLDER/certificate.pem\", key_file = \"FOLDER/key.pem\" }";
    let not_found = "No such file or directory (os error 2)";
    for (certificate, key, problem) in [
        (
            "none.pem",
            "key.pem",
            format!("certificate_file: \"FOLDER/none.pem\": {not_found}"),
        ),
        (
            "nonces",
            "key.pem",
            "certificate_file: \"FOLDER/nonces\": expected certificates in PEM".to_owned(),
        ),
        (
            "key.pem",
            "key.pem",
            "certificate_file: \"FOLDER/key.pem\": expected certificates in PEM".to_owned(),
        ),
        (
            "certificate.pem",
            "none.pem",
            format!("key_file: {not_found}: expected the path of a file with the key"),
        ),
        (
            "certificate.pem",
            "certificate.pem",
            "key_file: expected a private key in PEM, not encrypted".to_owned(),
        ),
        (
            "certificate.pem",
            "other-key.pem",
            "key_file: does not belong to the first certificate in certificate_file".to_owned(),
        ),
    ] {
        let files = format!(
            "tls = {{ certificate_file = \"FOLDER/{certificate}\", key_file = \"FOLDER/{key}\" }}"
        );
        are_rejected(&[(
            &format!("[\"10.0.0.0/8\"]\n{tls}"),
            &format!("[\"10.0.0.0/8\"]\n{files}"),
            &format!("listener[0].tls.{problem}"),
        )]);
        let client = "client_certificate = { certificate_file = \"FOLDER/certificate.pem\", key_file = \"FOLDER/key.pem\" }";
        are_rejected(&[(
            client,
            &files.replace("tls =", "client_certificate ="),
            &format!("upstream.orders.client_certificate.{problem}"),
        )]);
    }
    are_rejected(&[(
        "roots_file = \"FOLDER/certificate.pem\"",
        "roots_file = \"FOLDER/nonces\"",
        "upstream.orders.roots_file: \"FOLDER/nonces\": expected certificates in PEM",
    )]);
}

#[test]
fn a_configuration_with_warnings_is_valid() {
    let folder = Folder::new();
    for (from, to, warning) in [
        (
            "[\"10.0.0.0/8\"]",
            "[\"::/0\"]",
            "listener[0].trusted_proxies: ::/0 is every address: every client can set its own X-Forwarded-* fields",
        ),
        (
            "[\"127.0.0.0/8\", \"::1/128\"]",
            "[\"0.0.0.0/0\"]",
            "forward_auth[0].from: 0.0.0.0/0 is every address: anyone who reaches the address can ask",
        ),
        (
            "upstream = \"stock\"",
            "upstream = \"orders\"",
            "upstream.stock: no route uses it",
        ),
        (
            "[\"http://127.0.0.1\"]",
            "[\"http://127.0.0.1\"]\nprotocol = \"negotiated\"",
            "upstream.stock.protocol: is always HTTP/1.1 here, because the servers are http: choose \"http1\" or \"http2\", or make them https",
        ),
    ] {
        let (status, errors) = folder.check(&changed(from, to));
        assert!(
            errors.ends_with(&format!(": warning: {warning}\n")),
            "{errors}"
        );
        assert_eq!((status, errors.lines().count()), (0, 1), "{errors}");
    }
    let unresolved = changed("http://127.0.0.1\"", "http://stock.invalid\"");
    let (status, errors) = folder.check(&unresolved);
    assert!(
        errors.contains(": warning: upstream.stock.servers[0]: \"http://stock.invalid\": "),
        "{errors}"
    );
    assert_eq!(status, 0);
}
