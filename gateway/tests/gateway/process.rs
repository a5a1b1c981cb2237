//! How the process starts and ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use http::Method;
use tower_dpop::testing::TestRequest;

use crate::support::{Certificate, Gateway, Parties, Program, Service, eventually};

/// Listeners of all kinds, with TLS if that is this text.
fn configuration(service: &str, tls: &str) -> String {
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        {tls}
        [[forward_auth]]
        address = "127.0.0.1:0"
        asked_by = "nginx"
        from = ["127.0.0.0/8"]
        {tls}
        [operations]
        address = "127.0.0.1:0"
        [upstream.orders]
        servers = ["{service}"]
        [[route]]
        path = "/"
        upstream = "orders"
        "#
    )
}

fn tls(folder: &std::path::Path) -> String {
    let (pem, key) = (folder.join("server.pem"), folder.join("server.key"));
    let (pem, key) = (pem.display(), key.display());
    format!("tls = {{ certificate_file = '{pem}', key_file = '{key}' }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_have_tls_with_both_protocols() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let (certificate, folder) = (Certificate::new(), tempfile::tempdir().unwrap());
    certificate.write(folder.path());
    let config = configuration(&service.url, &tls(folder.path()));
    let program = Program::start(Gateway::new(&parties, &config));
    let builder = reqwest::Client::builder;
    let rows = [
        ("the best", builder(), http::Version::HTTP_2),
        ("HTTP/1.1", builder().http1_only(), http::Version::HTTP_11),
    ];
    for (name, builder, version) in rows {
        let client = certificate.trusted_by(program.client(builder));
        for listener in ["proxy", "forward_auth"] {
            let url = program.url(listener);
            assert!(url.starts_with("https://127.0.0.1:"), "{url}");
            let response = client.get(url).send().await.unwrap();
            assert_eq!(response.version(), version, "{name}, {listener}");
        }
        let request = parties.request(Method::GET, "/orders");
        assert_eq!(
            program.send(&client, &request).await.unwrap(),
            200,
            "{name}"
        );
    }
    assert!(program.url("operations").starts_with("http://127.0.0.1:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why() {
    let parties = Parties::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let rows = [
        (
            format!("[[listener]]\naddress = \"{taken}\""),
            format!(
                "listener {taken}: cannot listen: Address already in use (os error 98): stop the process"
            ),
        ),
        (
            format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[operations]\naddress = \"{taken}\""),
            format!("operations {taken}: cannot listen: Address already in use"),
        ),
    ];
    for (config, expected) in rows {
        let config = format!(
            "{config}\n[upstream.orders]\nservers = [\"http://127.0.0.1:1\"]\n[[route]]\npath = \"/\"\nupstream = \"orders\""
        );
        let (status, said) = Program::fails(Gateway::new(&parties, &config));
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&expected), "{said}\nexpected: {expected}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// A service that sends the first half of a response, and the second when it is told to.
struct Halves {
    url: String,
    begun: mpsc::Receiver<()>,
    finish: mpsc::Sender<()>,
}

impl Halves {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell_begun, begun) = mpsc::channel();
        let (finish, told_to_finish) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst \r\n";
            stream.write_all(half).unwrap();
            tell_begun.send(()).unwrap();
            // The test may have ended.
            let _ = told_to_finish.recv();
            let _ = stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n");
        });
        Self { url, begun, finish }
    }
}

/// Up to the empty line.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_was_begun_is_finished_before_the_process_ends() {
    for (name, client) in [
        ("HTTP/1.1", reqwest::Client::builder().http1_only()),
        ("HTTP/2", reqwest::Client::builder()),
    ] {
        let (parties, service) = (Parties::new(), Halves::start());
        let (certificate, folder) = (Certificate::new(), tempfile::tempdir().unwrap());
        certificate.write(folder.path());
        let config = configuration(&service.url, &tls(folder.path()));
        let mut program = Program::start(Gateway::new(&parties, &config));
        let client = certificate.trusted_by(program.client(client));
        let request = parties.request(Method::GET, "/orders");
        let response = program.begin(&client, &request).await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        service.begun.recv().unwrap();
        program.signal("TERM");
        program.await_log("stopping", 1);
        let address = program.url("proxy").replace("https://", "");
        eventually("it accepts no connection", || {
            TcpStream::connect(&address).err()
        });
        assert!(program.is_running(), "{name}");
        service.finish.send(()).unwrap();
        assert_eq!(response.text().await.unwrap(), "first second", "{name}");
        // The default drain time is longer than this test waits.
        assert_eq!(program.ended().code(), Some(0), "{name}");
        assert!(program.log().contains("all requests have ended"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_do_not_keep_the_process() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let (certificate, folder) = (Certificate::new(), tempfile::tempdir().unwrap());
    certificate.write(folder.path());
    let config = configuration(&service.url, &tls(folder.path()));
    let config = config + "[process]\ndrain_seconds = 3600";
    let mut program = Program::start(Gateway::new(&parties, &config));
    // One without a handshake, one without a request.
    let addresses = ["proxy", "operations"].map(|name| program.url(name));
    let silent = addresses.map(|url| TcpStream::connect(url.split_once("://").unwrap().1).unwrap());
    let builder = || program.client(reqwest::Client::builder());
    let http1 = certificate.trusted_by(builder().http1_only());
    let http2 = certificate.trusted_by(builder());
    for client in [&http1, &http2] {
        let request = parties.request(Method::GET, "/orders");
        assert_eq!(program.send(client, &request).await.unwrap(), 200);
        let operations = format!("{}/healthz", program.url("operations"));
        client
            .get(operations)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
    }
    program.signal("INT");
    let ended = tokio::task::spawn_blocking(move || program.ended());
    assert_eq!(ended.await.unwrap().code(), Some(0));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_on_its_way_at_the_end_is_the_last_of_its_connection() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let mut program = Program::start(Gateway::new(&parties, &configuration(&service.url, "")));
    let orders = || head(&parties.request(Method::GET, "/orders"), "");
    let described = "X-Original-Method: GET\r\nX-Original-URI: /orders\r\n";
    let question = || head(&parties.request(Method::GET, "/orders"), described);
    let mut connections = [
        ("proxy", orders(), orders()),
        ("forward_auth", question(), question()),
    ]
    .map(|(name, first, second)| {
        let address = program.url(name).replace("http://", "");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        let response = read_response(&mut stream);
        assert!(response.starts_with("HTTP/1.1 200 "), "{name}: {response}");
        assert!(
            !response.contains("connection: close"),
            "{name}: {response}"
        );
        (name, stream, second)
    });
    program.signal("TERM");
    for name in ["proxy", "forward_auth"] {
        let address = program.url(name).replace("http://", "");
        eventually("it accepts no connection", || {
            TcpStream::connect(&address).err()
        });
    }
    for (_, stream, second) in &mut connections {
        stream.write_all(second.as_bytes()).unwrap();
    }
    for (name, stream, _) in &mut connections {
        let response = read_response(stream);
        assert!(response.starts_with("HTTP/1.1 200 "), "{name}: {response}");
        assert!(response.contains("connection: close"), "{name}: {response}");
    }
    assert_eq!(program.ended().code(), Some(0));
}

/// A response with a `Content-Length`. Its head is returned in lower case, but for the first line.
fn read_response(stream: &mut TcpStream) -> String {
    let head = read_head(stream);
    let (status, fields) = head.split_once("\r\n").unwrap();
    let fields = fields.to_lowercase();
    let length = fields.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    stream.read_exact(&mut vec![0; length]).unwrap();
    format!("{status}\r\n{fields}")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_end_with_the_drain_time_or_a_second_signal() {
    for (name, drain, signals, said) in [
        (
            "the drain time",
            1,
            1,
            "closing connections that have not ended in time",
        ),
        (
            "a second signal",
            3600,
            2,
            "stopped at once by a second signal",
        ),
    ] {
        let (parties, service) = (Parties::new(), Halves::start());
        let config = configuration(&service.url, "");
        let config = format!("{config}[process]\ndrain_seconds = {drain}");
        let mut program = Program::start(Gateway::new(&parties, &config));
        let (head, ()) = parties
            .request(Method::GET, "/orders")
            .build::<()>()
            .into_parts();
        let request = reqwest::Client::new().get(format!("{}/orders", program.url("proxy")));
        let response = request.headers(head.headers).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        service.begun.recv().unwrap();
        for number in 0..signals {
            program.signal("TERM");
            if number == 0 {
                program.await_log("stopping", 1);
            }
        }
        assert_eq!(program.ended().code(), Some(0), "{name}");
        assert!(response.text().await.is_err(), "{name}");
        program.await_log(said, 1);
    }
}

/// The head of an HTTP/1.1 request, with the fields of this one.
fn head(request: &TestRequest, extra: &str) -> String {
    let (head, ()) = request.build::<()>().into_parts();
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
    let fields: String = fields.collect();
    format!(
        "{} {} HTTP/1.1\r\nHost: api.example.com\r\n{fields}{extra}\r\n",
        head.method, head.uri
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_goes_on_until_it_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switched).unwrap();
        let mut bytes = [0; 16];
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..read]).unwrap();
        }
    });
    let parties = Parties::new();
    let config = configuration(&url, "") + "[process]\ndrain_seconds = 3600";
    let mut program = Program::start(Gateway::new(&parties, &config));
    let mut stream = TcpStream::connect(program.url("proxy").replace("http://", "")).unwrap();
    let request = parties.request(Method::GET, "/orders");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    stream
        .write_all(head(&request, upgrade).as_bytes())
        .unwrap();
    let response = read_head(&mut stream);
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    program.signal("TERM");
    program.await_log("stopping", 1);
    for message in [b"1st", b"2nd"] {
        stream.write_all(message).unwrap();
        let mut echo = [0; 3];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, message);
    }
    assert!(program.is_running());
    drop(stream);
    assert_eq!(program.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_request_needs_no_more_bytes() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let program = Program::start(Gateway::new(&parties, &configuration(&service.url, "")));
    let mut stream = TcpStream::connect(program.url("proxy").replace("http://", "")).unwrap();
    // Shorter than the preface of HTTP/2, for which the gateway looks here.
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let response = read_head(&mut stream);
    assert!(response.starts_with("HTTP/1."), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_about_the_start_reloads_and_the_end() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let next = || {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let config = configuration(&service.url, "");
    let gateway = Gateway::new(&parties, &config);
    let mut program = Program::start_with(gateway, &[("NOTIFY_SOCKET", &path)]);
    assert_eq!(next(), "READY=1\n");
    program.signal("HUP");
    let reloading = next();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(next(), "READY=1\n");
    program.signal("USR2");
    let main = next();
    assert!(main.starts_with("MAINPID="), "{main}");
    assert_eq!(program.ended().code(), Some(0));
    let successor = main.trim().trim_start_matches("MAINPID=").parse().unwrap();
    assert_eq!(program.successors(), [successor]);
    crate::support::signal_to(successor, "TERM");
    assert_eq!(next(), "STOPPING=1\n");
}
