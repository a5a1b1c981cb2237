//! Routes and upstreams.

use super::are_rejected;

#[test]
fn routes() {
    are_rejected(&[
        (
            "methods = [\"POST\"]",
            "methods = [\"post\"]",
            "route[1].methods: \"post\": did you mean POST?",
        ),
        (
            "methods = [\"POST\"]",
            "methods = [\"PO ST\"]",
            "route[1].methods: \"PO ST\": is not a method, expected one such as GET",
        ),
        (
            "methods = [\"POST\"]",
            "methods = [\"*\"]",
            "route[1].methods: \"*\": is not a method: list them",
        ),
        (
            "methods = [\"POST\"]",
            "methods = [\"CONNECT\"]",
            "route[1].methods: \"CONNECT\": requests with this method are never passed on",
        ),
        (
            "upstream = \"stock\"",
            "upstream = \"stok\"",
            "route[2].upstream: there is no [upstream.stok], did you mean stock?",
        ),
        (
            "strip_prefix = \"/orders\"",
            "strip_prefix = \"/order\"",
            "route[1].strip_prefix: \"/order\": must be the beginning of the route's path \"/orders/\", up to a / or its end",
        ),
        (
            "strip_prefix = \"/orders\"",
            "strip_prefix = \"/\"",
            "route[1].strip_prefix: \"/\": removes nothing: remove the setting",
        ),
        (
            "strip_prefix = \"/orders\"",
            "pass_preflights = true",
            "route[1].pass_preflights: must not be set together with [cors], which responds to preflights itself: remove one of them",
        ),
        (
            "strip_prefix = \"/orders\"",
            "max_age_seconds = 0",
            "route[1].max_age_seconds: must be at least 1 second: no token would be accepted",
        ),
        (
            "path = \"/orders/\"\nmethods = [\"POST\"]\nupstream = \"orders\"\nstrip_prefix = \"/orders\"",
            "methods = [\"HEAD\"]\nupstream = \"orders\"\npath = \"/orders/\"",
            "route[1].path: \"/orders/\": the route on line 31 has this path and method",
        ),
    ]);
}

#[test]
fn a_public_route_requires_nothing() {
    for (member, value) in [
        ("scopes", "\"a\""),
        ("any_scope", "\"a\""),
        ("acr_values", "\"a\""),
        ("max_age_seconds", "1"),
    ] {
        are_rejected(&[(
            "access = \"public\"",
            &format!("access = \"public\"\n{member} = {value}"),
            &format!(
                "route[2].{member}: has no effect with access = \"public\", where no token is looked at: remove one of them"
            ),
        )]);
    }
}

#[test]
fn paths() {
    let upper = "must have two hexadecimal digits in upper case after each %";
    let pattern = "must have no pattern (*, {name}, :name): a path is also all below it";
    for (path, problem) in [
        ("cafe", "must begin with /"),
        ("/a?b", "must be a path only, without a query or a fragment"),
        ("/a#b", "must be a path only, without a query or a fragment"),
        ("/a//b", "must have no empty segment (//)"),
        ("/a/../b", "must have no segment . or .."),
        ("/a/.", "must have no segment . or .."),
        (
            "/café",
            "must not have 'é', which requests have percent-encoded",
        ),
        (
            "/a b",
            "must not have ' ', which requests have percent-encoded",
        ),
        ("/orders/*", pattern),
        ("/orders/{id}", pattern),
        ("/orders/:id", pattern),
        ("/caf%c3%A9", upper),
        ("/a%", "must have two hexadecimal digits after each %"),
        ("/a%+1", upper),
        ("/%2e%2E/", upper),
        ("/%41", "must have A instead of %41"),
        ("/%2E%2E/", "must have . instead of %2E"),
        (
            "/a%2Fb",
            "must not have %2F: services read it in different ways",
        ),
        (
            "/a%5Cb",
            "must not have %5C: services read it in different ways",
        ),
        (
            "/a%3Bb",
            "must not have %3B: services read it in different ways",
        ),
        (
            "/a%20/b",
            "must have no space at an end of a segment: services read it in different ways",
        ),
        ("/caf%E9", "must be UTF-8 when it is decoded"),
        (
            "/a%00",
            "must not have %00: services read it in different ways",
        ),
    ] {
        are_rejected(&[(
            "path = \"/caf%C3%A9\"",
            &format!("path = {path:?}"),
            &format!("route[2].path: {path:?}: {problem}"),
        )]);
    }
}

#[test]
fn servers() {
    const EXPECTED: &str = "expected http://host[:port] or https://host[:port]";
    for (server, problem) in [
        ("127.0.0.1:3000", EXPECTED),
        ("localhost:3000", EXPECTED),
        ("ftp://127.0.0.1", EXPECTED),
        ("http://127.0.0.1:0", EXPECTED),
        ("http://127.0.0.1:65536", EXPECTED),
        ("http://[::1", EXPECTED),
        ("http://a b", EXPECTED),
        (
            "http://127.0.0.1/orders",
            "must have a host and a port only: paths are of the requests (see strip_prefix)",
        ),
        (
            "http://127.0.0.1?a",
            "must have a host and a port only: paths are of the requests (see strip_prefix)",
        ),
    ] {
        are_rejected(&[(
            "[\"http://127.0.0.1\"]",
            &format!("[{server:?}]"),
            &format!("upstream.stock.servers[0]: {server:?}: {problem}"),
        )]);
    }
}

#[test]
fn upstreams() {
    let no_tls = "has no effect, because the servers are http: make them https, or remove it";
    for (member, value) in [
        ("roots_file", "\"FOLDER/certificate.pem\""),
        ("server_name", "\"stock.internal\""),
    ] {
        are_rejected(&[(
            "[\"http://127.0.0.1\"]",
            &format!("[\"http://127.0.0.1\"]\n{member} = {value}"),
            &format!("upstream.stock.{member}: {no_tls}"),
        )]);
    }
    are_rejected(&[
        (
            "[\"http://127.0.0.1\"]",
            "[]",
            "upstream.stock.servers: must have at least one URL, such as \"http://127.0.0.1:3000\"",
        ),
        (
            "[\"http://127.0.0.1\"]",
            "[\"http://127.0.0.1\", \"http://127.0.0.1:80\"]",
            "upstream.stock.servers[1]: \"http://127.0.0.1:80\" is listed twice",
        ),
        (
            "[\"http://127.0.0.1\"]",
            "[\"http://127.0.0.1\", \"https://127.0.0.1\"]",
            "upstream.stock.servers[1]: \"https://127.0.0.1\": all servers of an upstream must have the same scheme",
        ),
        (
            "server_name = \"orders.internal\"",
            "server_name = \"orders internal\"",
            "upstream.orders.server_name: \"orders internal\": expected the DNS name or IP address that the certificate has",
        ),
        (
            "server_name = \"orders.internal\"",
            "server_name = \"orders_1.internal\"",
            "upstream.orders.server_name: \"orders_1.internal\": expected the DNS name or IP address that the certificate has",
        ),
        (
            "[\"http://127.0.0.1\"]",
            "[\"https://stock_1.internal\"]",
            "upstream.stock.servers[0]: \"https://stock_1.internal\": no certificate has this name: set server_name",
        ),
        (
            "path = \"/health?full=1\"",
            "path = \"/gesundheit?für=1\"",
            "upstream.orders.health_check.path: \"/gesundheit?für=1\": must begin with /, as in the request line",
        ),
        (
            "trusted_proxies = [\"10.0.0.0/8\"]",
            "client_timeout_seconds = 0",
            "listener[0].client_timeout_seconds: must be 1 to 86400 seconds",
        ),
        (
            "connect_timeout_seconds = 1",
            "connect_timeout_seconds = 0",
            "upstream.orders.connect_timeout_seconds: must be 1 to 86400 seconds",
        ),
        (
            "connect_timeout_seconds = 1",
            "read_timeout_seconds = 0",
            "upstream.orders.read_timeout_seconds: must be 1 to 86400 seconds",
        ),
        (
            "connect_timeout_seconds = 1",
            "write_timeout_seconds = 0",
            "upstream.orders.write_timeout_seconds: must be 1 to 86400 seconds",
        ),
        (
            "connect_timeout_seconds = 1",
            "idle_timeout_seconds = 86401",
            "upstream.orders.idle_timeout_seconds: must be 1 to 86400 seconds",
        ),
        (
            "path = \"/health?full=1\"",
            "path = \"health\"",
            "upstream.orders.health_check.path: \"health\": must begin with /, as in the request line",
        ),
        (
            "path = \"/health?full=1\"",
            "path = \"/health check\"",
            "upstream.orders.health_check.path: \"/health check\": must begin with /, as in the request line",
        ),
        (
            "path = \"/health?full=1\"",
            "interval_seconds = 0",
            "upstream.orders.health_check.interval_seconds: must be 1 to 86400 seconds",
        ),
    ]);
}
