//! Which route a request is of, however its path is written.

use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Gateway, PUBLIC_URL, Parties, Service, Started};

/// Sends a request target byte for byte, and returns the response: its status, and all of it.
async fn raw(gateway: &Started, method: &str, target: &[u8], fields: &HeaderMap) -> (u16, String) {
    let address = gateway.url("proxy").strip_prefix("http://").unwrap();
    let mut request = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
    for (name, value) in fields {
        request.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"Host: api.example.com\r\nConnection: close\r\n\r\n");
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&request).await.unwrap();
    let mut response = Vec::new();
    connection.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    let status = response.split(' ').nth(1).unwrap_or_default();
    (status.parse().unwrap_or_default(), response)
}

async fn statuses(config: &str, rows: &[(&str, &[u8], u16)]) {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(config)).start();
    for (method, target, expected) in rows {
        let (status, response) = raw(&gateway, method, target, &HeaderMap::new()).await;
        let target = target.escape_ascii();
        assert_eq!(status, *expected, "{method} {target}: {response}");
        let from_gateway = response.contains("application/problem+json");
        assert_eq!(
            from_gateway,
            *expected != 200,
            "{method} {target}: {response}"
        );
    }
}

fn gets<'t>(rows: &[(&'t [u8], u16)]) -> Vec<(&'static str, &'t [u8], u16)> {
    rows.iter()
        .map(|(target, status)| ("GET", *target, *status))
        .collect()
}

/// 200: the public route `/`. 401: the route that needs a token. 400: some servers would read it as the other.
#[tokio::test]
async fn a_path_that_servers_read_as_different_routes_is_rejected() {
    let config = r#"
        [[route]]
        path = "/"
        upstream = "service"
        access = "public"
        [[route]]
        path = "/admin"
        upstream = "service"
        [[route]]
        path = "/Reports/"
        upstream = "service"
        [[route]]
        path = "/caf%C3%A9"
        upstream = "service"
    "#;
    let rows: &[(&[u8], u16)] = &[
        (b"/", 200),
        (b"/orders", 200),
        (b"/orders/", 200),
        (b"/adm", 200),
        (b"/administrators", 200),
        (b"/orders/admin", 200),
        (b"/orders?path=/../admin;x", 200),
        (b"/my%20file", 200),
        (b"/%C3%A9t%C3%A9", 200),
        (b"/a.b/~c/$-_.+!*'(),:@&=", 200),
        // Nothing is below `/orders`, and nothing leads back from there.
        (b"/orders/a%2Fb//c/~d", 200),
        (b"/orders/100%25", 200),
        (b"/orders/%61;x=1/.", 200),
        (b"/admin", 401),
        (b"/admin?x", 401),
        (b"/admin/", 401),
        (b"/admin/users", 401),
        (b"/admin/a%2Fb", 401),
        (b"/Reports", 401),
        (b"/Reports/1", 401),
        (b"/caf%C3%A9", 401),
        (b"/caf%c3%a9/x", 401),
        // Case.
        (b"/ADMIN", 400),
        (b"/Admin/users", 400),
        (b"/reports", 400),
        (b"/CAF%C3%89", 400),
        // Percent-encoding.
        (b"/%61dmin", 400),
        (b"/adm%69n/users", 400),
        (b"/%2561dmin", 400),
        (b"/%25%36%31dmin", 400),
        (b"/%u0061dmin", 400),
        (b"/%", 400),
        (b"/%6", 400),
        (b"/%zz", 400),
        // Slashes.
        (b"//admin", 400),
        (b"//", 400),
        (b"/admin%2Fusers", 400),
        (b"/admin%2fusers", 400),
        (b"/%2Fadmin", 400),
        (b"/admin%252Fusers", 400),
        (b"/\\admin", 400),
        (b"/admin\\users", 400),
        (b"/admin%5Cusers", 400),
        // Dot segments.
        (b"/./admin", 400),
        (b"/orders/../admin", 400),
        (b"/orders/..", 400),
        (b"/orders/%2e%2e/admin", 400),
        (b"/orders/.%2E/admin", 400),
        (b"/orders/%252e%252e/admin", 400),
        (b"/orders/%25252e./admin", 400),
        (b"/orders/%2%65%2%65/admin", 400),
        (b"/orders/a;x/../../admin", 400),
        (b"/orders/..%2Fadmin", 400),
        (b"/orders/..%5Cadmin", 400),
        (b"/orders/..;/admin", 400),
        (b"/orders/..;x=1/admin", 400),
        (b"/orders/..%3Bx/admin", 400),
        (b"/orders/x%2F..%2F..%2Fadmin", 400),
        (b"/orders/.%00./admin", 400),
        (b"/orders/.%09./admin", 400),
        (b"/orders/..%20/admin", 400),
        (b"/orders/%u002e%u002e/admin", 400),
        (b"/admin/../orders", 400),
        // What some servers cut off.
        (b"/admin;x=1", 400),
        (b"/admin%3Bx=1", 400),
        (b"/;x/admin", 400),
        (b"/admin.", 400),
        (b"/admin%2E", 400),
        (b"/admin%20", 400),
        (b"/%20admin", 400),
        (b"/admin%00.html", 400),
        (b"/admin%0D%0A", 400),
        (b"/admin%7F", 400),
        (b"/admin%3Fx", 400),
        (b"/admin%23x", 400),
        // Not UTF-8.
        (b"/%C0%AFadmin", 400),
        (b"/orders/%C0%AE%C0%AE/admin", 400),
        (b"/%FF", 400),
        // Not ASCII. (The proxy engine itself rejects what is not UTF-8.)
        ("/été".as_bytes(), 400),
    ];
    statuses(config, &gets(rows)).await;
}

/// The proxy engine has `/` as the path of a target that is no path, and sends the target on.
#[tokio::test]
async fn a_target_that_is_no_path_is_rejected() {
    let routes = r#"
        [[route]]
        path = "/"
        upstream = "service"
        access = "public"
        [[route]]
        path = "/admin"
        upstream = "service"
    "#;
    let rows: &[(&str, &[u8], u16)] = &[
        ("GET", b"http://api.example.com/", 200),
        ("GET", b"http://api.example.com/x?y", 200),
        ("GET", b"http://api.example.com/admin", 401),
        ("GET", b"HTTP://api.example.com/ADMIN", 400),
        ("GET", b"http://api.example.com/x/../admin", 400),
        ("GET", b"http://other.example/", 400),
        ("GET", b"admin", 400),
        ("GET", b"%2Fadmin", 400),
        ("GET", b"\\admin", 400),
        ("GET", b"?x", 400),
        ("GET", b"api.example.com:80", 400),
        ("GET", b"http:/admin", 400),
        ("GET", b"http:///admin", 400),
        ("GET", b"foo:bar://host/admin", 400),
        ("GET", b"http://api.example.com\\/admin", 400),
        ("CONNECT", b"api.example.com:80", 405),
        ("GET", b"*", 400),
        ("OPTIONS", b"*", 404),
    ];
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(routes)).start();
    for (method, target, expected) in rows {
        let (status, response) = raw(&gateway, method, target, &HeaderMap::new()).await;
        let target = target.escape_ascii();
        assert_eq!(status, *expected, "{method} {target}: {response}");
    }
    assert_eq!(service.received().len(), 2);
}

/// A path below a route may be unclear only if no route is below that.
#[tokio::test]
async fn only_the_routes_that_a_path_can_reach_make_it_ambiguous() {
    let config = r#"
        [[route]]
        path = "/files"
        upstream = "service"
        access = "public"
        [[route]]
        path = "/files/private"
        upstream = "service"
        [[route]]
        path = "/login"
        exact = true
        upstream = "service"
        access = "public"
        [[route]]
        path = "/login"
        upstream = "service"
    "#;
    let rows: &[(&[u8], u16)] = &[
        (b"/files/a", 200),
        (b"/files", 200),
        (b"/files/private/x", 401),
        (b"/files/private/a%2Fb", 401),
        (b"/files/a/b%2Fc", 200),
        (b"/files/a%2Fb", 400),
        (b"/files/private%2Fx", 400),
        (b"/files/", 400),
        (b"/files//private", 400),
        (b"/files/a/%2e%2e/private", 400),
        (b"/login", 200),
        (b"/login/x", 401),
        // Some servers read it as `/login`.
        (b"/login/", 400),
        (b"/login;x", 400),
        (b"/", 404),
        (b"/other", 404),
        (b"/other/a%2Fb", 404),
        (b"/other/../files", 400),
        (b"*", 400),
    ];
    statuses(config, &gets(rows)).await;
}

/// With one route, there is nothing to confuse, and the proof names the path as it is.
#[tokio::test]
async fn with_one_route_a_path_passes_unchanged() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = service.behind("[[route]]\npath = \"/\"\nupstream = \"service\"");
    let gateway = Gateway::new(&parties, &config).start();
    let paths = [
        "/a%2Fb//c/~d",
        "/a/./b/../c",
        "/%7e%2E/;v=1/a.",
        "/a\\b/%5c",
        "/%c3%A9/%25/%00",
        "//x",
        "/A?b=%2F..&c",
        "/%FF",
    ];
    for path in paths {
        let mut request = parties.request(Method::GET, "/");
        request.proof_claims["htu"] = format!("{PUBLIC_URL}{path}").into();
        let request = request.build::<()>();
        let (status, response) = raw(&gateway, "GET", path.as_bytes(), request.headers()).await;
        assert_eq!(status, 200, "{path}: {response}");
    }
    let received: Vec<_> = service
        .received()
        .iter()
        .map(|(head, _)| head.uri.to_string())
        .collect();
    assert_eq!(received, paths);
}

#[tokio::test]
async fn the_most_specific_path_decides_and_then_the_method() {
    let config = r#"
        [[route]]
        path = "/"
        upstream = "service"
        access = "public"
        [[route]]
        path = "/orders"
        methods = ["GET"]
        upstream = "service"
        access = "public"
        [[route]]
        path = "/orders"
        methods = ["POST", "DELETE"]
        upstream = "service"
        [[route]]
        path = "/reports"
        methods = ["GET", "HEAD"]
        upstream = "service"
        access = "public"
        [[route]]
        path = "/reports"
        upstream = "service"
    "#;
    let rows: &[(&str, &[u8], u16)] = &[
        ("PUT", b"/", 200),
        ("GET", b"/orders", 200),
        ("HEAD", b"/orders", 200),
        ("POST", b"/orders/1", 401),
        ("DELETE", b"/orders", 401),
        // Not by the rules of `/`.
        ("PUT", b"/orders", 405),
        ("OPTIONS", b"/orders", 405),
        ("get", b"/orders", 405),
        ("HEAD", b"/reports", 200),
        ("PUT", b"/reports", 401),
    ];
    statuses(config, rows).await;

    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(config)).start();
    let (_, response) = raw(&gateway, "PUT", b"/orders", &HeaderMap::new()).await;
    let lines: Vec<_> = response.to_lowercase().lines().map(str::to_owned).collect();
    let allow = "allow: get, head, post, delete".to_owned();
    assert!(lines.contains(&allow), "{response}");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], 405);
    assert_eq!(problem["title"], "Method Not Allowed");
    assert_eq!(problem["reason"], "method_not_allowed");
}
