//! The document and where it is served.

use super::*;

/// The document of a verifier with every default.
fn default_document() -> Value {
    json!({
        "resource": AUDIENCE,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": [],
        "dpop_signing_alg_values_supported": ["ES256", "ES384", "PS256", "Ed25519", "EdDSA"],
        "dpop_bound_access_tokens_required": true,
    })
}

/// A verifier that knows no issuer.
fn without_issuers() -> Verifier {
    Verifier::new(common::rules(), Issuers::<Claims>::new())
}

/// P-1, P-2, P-3, P-4, P-6: one setting of the verifier, or of the document, in each row.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn the_document_says_what_the_verifier_checks() {
    type Make = fn() -> ResourceMetadata;
    type Change = fn(&mut Value);
    let rows: Vec<(&str, Make, Change)> = vec![
        (
            "every default",
            || ResourceMetadata::of(&verifier()),
            |_| {},
        ),
        (
            "P-1: one algorithm",
            || {
                let only = Algorithms::only(Algorithm::Es256);
                ResourceMetadata::of(&verifier_by(|rules| rules.with_algorithms(only)))
            },
            |d| d["dpop_signing_alg_values_supported"] = json!(["ES256"]),
        ),
        (
            "P-1: the algorithms of tokens are another list",
            || {
                let only = Algorithms::only(Algorithm::Es256);
                let tokens = jwt_verifier().with_algorithms(only);
                ResourceMetadata::of(&Verifier::new(
                    AUDIENCE.parse::<PublicUrl>().unwrap(),
                    tokens,
                ))
            },
            |_| {},
        ),
        (
            "P-2: Bearer is allowed",
            || ResourceMetadata::of(&verifier().allow_bearer()),
            |d| {
                d["bearer_methods_supported"] = json!(["header"]);
                let members = d.as_object_mut().unwrap();
                members.remove("dpop_bound_access_tokens_required").unwrap();
            },
        ),
        (
            "P-2: Bearer is allowed, with other confirmations",
            || ResourceMetadata::of(&verifier().allow_insecure_unchecked_cnf()),
            |d| {
                d["bearer_methods_supported"] = json!(["header"]);
                let members = d.as_object_mut().unwrap();
                members.remove("dpop_bound_access_tokens_required").unwrap();
            },
        ),
        (
            "P-3: a prefix",
            || ResourceMetadata::of(&at_url("https://example.com/orders-api")),
            |d| d["resource"] = json!("https://example.com/orders-api"),
        ),
        (
            "P-3: a trailing slash is left out",
            || ResourceMetadata::of(&at_url("https://example.com/")),
            |d| d["resource"] = json!("https://example.com"),
        ),
        (
            "P-3: a port",
            || ResourceMetadata::of(&at_url("https://example.com:8443")),
            |d| d["resource"] = json!("https://example.com:8443"),
        ),
        (
            "P-3: the port of https",
            || ResourceMetadata::of(&at_url("https://example.com:443")),
            |d| d["resource"] = json!("https://example.com"),
        ),
        (
            "P-3: an address",
            || ResourceMetadata::of(&at_url("https://[2001:DB8:0::1]/a")),
            |d| d["resource"] = json!("https://[2001:db8::1]/a"),
        ),
        (
            "P-3: of several URLs the first",
            || {
                let second = "https://second.example.com".parse().unwrap();
                ResourceMetadata::of(&verifier_by(|rules| rules.add_public_url(second)))
            },
            |_| {},
        ),
        (
            "P-4: scopes",
            || ResourceMetadata::of(&verifier().with_scope("a b:c".parse().unwrap())),
            |d| d["scopes_supported"] = json!(["a", "b:c"]),
        ),
        (
            "P-4: a name",
            || ResourceMetadata::of(&verifier()).with_name("Örders \"API\""),
            |d| d["resource_name"] = json!("Örders \"API\""),
        ),
        (
            "P-4: of two names the last",
            || {
                ResourceMetadata::of(&verifier())
                    .with_name("a")
                    .with_name("b")
            },
            |d| d["resource_name"] = json!("b"),
        ),
        (
            "P-4: pages",
            || {
                ResourceMetadata::of(&verifier())
                    .with_documentation("https://example.com/docs")
                    .with_policy("https://example.com/policy")
                    .with_terms_of_service("https://example.com/terms")
            },
            |d| {
                d["resource_documentation"] = json!("https://example.com/docs");
                d["resource_policy_uri"] = json!("https://example.com/policy");
                d["resource_tos_uri"] = json!("https://example.com/terms");
            },
        ),
        (
            "P-6: a list of issuers without any",
            || ResourceMetadata::of(&without_issuers()),
            |d| {
                let members = d.as_object_mut().unwrap();
                members.remove("authorization_servers").unwrap();
            },
        ),
        (
            "P-4: an issuer that is named by hand",
            || {
                ResourceMetadata::of(&without_issuers())
                    .add_authorization_server("https://a.example.com")
                    .add_authorization_server("https://b.example.com")
            },
            |d| {
                d["authorization_servers"] =
                    json!(["https://a.example.com", "https://b.example.com"]);
            },
        ),
        (
            "P-4: one more issuer",
            || ResourceMetadata::of(&verifier()).add_authorization_server("https://b.example.com"),
            |d| d["authorization_servers"] = json!([ISSUER, "https://b.example.com"]),
        ),
        (
            "P-4: several issuers",
            || {
                let tokens = Issuers::new()
                    .add_issuer(JwtVerifier::new("https://b.example.com", AUDIENCE, keys()))
                    .add_issuer(JwtVerifier::new("https://a.example.com", "a", keys()));
                ResourceMetadata::of(&Verifier::new(
                    AUDIENCE.parse::<PublicUrl>().unwrap(),
                    tokens,
                ))
            },
            |d| {
                d["authorization_servers"] =
                    json!(["https://a.example.com", "https://b.example.com"]);
            },
        ),
        (
            "P-4: behind a cache",
            || {
                let tokens = TokenCache::new(jwt_verifier(), Duration::from_secs(1));
                ResourceMetadata::of(&Verifier::new(
                    AUDIENCE.parse::<PublicUrl>().unwrap(),
                    tokens,
                ))
            },
            |_| {},
        ),
        (
            "nonces are not a matter of the document",
            || {
                let nonces = StatelessNonces::new(NonceSecret::generate());
                ResourceMetadata::of(&verifier_by(|rules| rules.with_nonces(nonces)))
            },
            |_| {},
        ),
        (
            "nor are realm and URL of the challenges",
            || {
                let verifier = verifier().with_realm("orders".parse().unwrap());
                ResourceMetadata::of(&verifier.with_well_known_metadata())
            },
            |_| {},
        ),
    ];
    for (name, make, change) in rows {
        let mut expected = default_document();
        change(&mut expected);
        assert_eq!(document(&make()), expected, "{name}");
    }
}

/// An introspection endpoint has an issuer only if one was named.
#[test]
fn an_introspection_endpoints_issuer_is_told_if_it_is_known() {
    use tower_dpop::tokens::{ClientAuthentication, HttpClient, IntrospectionVerifier};

    let tokens = || {
        IntrospectionVerifier::new(
            "https://as.example.com/introspect".parse().unwrap(),
            ClientAuthentication::basic("orders-api", "marker-secret-marker"),
            AUDIENCE,
            HttpClient::new().unwrap(),
        )
    };
    let of = |tokens: IntrospectionVerifier| {
        document(&ResourceMetadata::of(&Verifier::new(
            AUDIENCE.parse::<PublicUrl>().unwrap(),
            tokens,
        )))
    };
    assert_eq!(of(tokens())["authorization_servers"], Value::Null);
    let named = of(tokens().with_issuer(ISSUER));
    assert_eq!(named, default_document());
}

/// P-5: between the host and the path.
#[test]
fn the_place_of_the_document_is_made_from_the_public_url() {
    let rows = [
        ("https://api.example.com", "https://api.example.com", ""),
        ("https://api.example.com/", "https://api.example.com", ""),
        (
            "https://api.example.com:8443",
            "https://api.example.com:8443",
            "",
        ),
        ("HTTPS://API.example.com:443", "https://api.example.com", ""),
        (
            "https://example.com/orders-api",
            "https://example.com",
            "/orders-api",
        ),
        (
            "https://example.com/orders-api/",
            "https://example.com",
            "/orders-api",
        ),
        ("https://example.com/a/b", "https://example.com", "/a/b"),
        (
            "https://example.com/%7ejoe/x/..",
            "https://example.com",
            "/~joe",
        ),
        ("https://[::1]:8443/a", "https://[::1]:8443", "/a"),
    ];
    for (public_url, origin, prefix) in rows {
        let verifier = at_url(public_url).with_well_known_metadata();
        let metadata = ResourceMetadata::of(&verifier);
        let path = format!("{WELL_KNOWN}{prefix}");
        let url = format!("{origin}{path}");
        assert_eq!(metadata.path(), path, "{public_url}");
        assert_eq!(metadata.url(), url, "{public_url}");
        let resource = format!("{origin}{prefix}");
        assert_eq!(
            document(&metadata)["resource"],
            json!(resource),
            "{public_url}"
        );
        let told = Attempt::but(|a| a.authorization = Some(vec![]))
            .outcome_by(&DpopLayer::new(verifier))
            .parameter("resource_metadata");
        assert_eq!(told, Some(url), "{public_url}: as challenges say");
    }
}

/// A service in axum, on the loopback.
struct Server {
    address: SocketAddr,
    reached: Arc<AtomicUsize>,
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    fn assert_is(&self, name: &str, metadata: &ResourceMetadata) {
        assert_eq!(self.status, StatusCode::OK, "{name}");
        assert_eq!(
            self.field("content-type"),
            Some("application/json"),
            "{name}"
        );
        assert_eq!(self.field("cache-control"), Some("max-age=3600"), "{name}");
        assert_eq!(self.body, metadata.to_json(), "{name}");
        let found: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(found, document(metadata), "{name}");
    }

    /// Rejected by the DPoP layer.
    #[track_caller]
    fn assert_rejected(&self, name: &str) {
        assert_eq!(self.status, StatusCode::UNAUTHORIZED, "{name}");
        let challenge = self.field("www-authenticate").unwrap();
        assert!(challenge.starts_with("DPoP algs="), "{name}: {challenge}");
        assert_eq!(self.body, "", "{name}");
    }
}

async fn reply(response: Response<hyper::body::Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn send(address: SocketAddr, mut request: Request<Empty<Bytes>>) -> Reply {
    let host = HeaderValue::from_str(&address.to_string()).unwrap();
    request.headers_mut().insert("host", host);
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    reply(sender.send_request(request).await.unwrap()).await
}

impl Server {
    /// The metadata layer outside, the DPoP layer inside, a handler for every path.
    async fn of(verifier: Verifier, metadata: &ResourceMetadata) -> Self {
        let reached = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reached);
        let handler = any(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { "orders" }
        });
        let router = Router::new()
            .route("/orders", handler)
            .layer(DpopLayer::new(verifier))
            .layer(MetadataLayer::new(metadata));
        Self {
            address: serve(router).await,
            reached,
        }
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Reply {
        send(self.address, request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Empty::new()).unwrap())
            .await
    }
}

/// P-5, P-10, P-11: who has no token yet can read it.
#[test]
fn the_document_is_read_without_a_token_and_nothing_else_is() {
    let rows: [(&str, &str, &[&str]); 2] = [
        (
            AUDIENCE,
            "/.well-known/oauth-protected-resource",
            &[
                "/",
                "/orders",
                "/.well-known",
                "/.well-known/",
                "/.well-known/oauth-protected-resourc",
                "/.well-known/oauth-protected-resources",
                "/.well-known/oauth-protected-resource/",
                "/.well-known/oauth-protected-resource/orders",
                "/.well-known/oauth-protected-resource/../../orders",
                "/.well-known/oauth-protected-resource%2F",
                "/.well-known/oauth-protected-resource;x",
                "/.well-known/OAuth-protected-resource",
                "/.well-known/%6Fauth-protected-resource",
                "//.well-known/oauth-protected-resource",
                "/orders/.well-known/oauth-protected-resource",
                "/./.well-known/oauth-protected-resource",
                "/orders?/.well-known/oauth-protected-resource",
            ],
        ),
        (
            "https://example.com/orders-api",
            "/.well-known/oauth-protected-resource/orders-api",
            &[
                "/orders",
                "/orders-api",
                "/.well-known/oauth-protected-resource",
                "/.well-known/oauth-protected-resource/",
                "/.well-known/oauth-protected-resource/orders-api/",
                "/.well-known/oauth-protected-resource/orders-ap",
                "/.well-known/oauth-protected-resource/orders-api2",
                "/.well-known/oauth-protected-resource/orders-api/orders",
                "/orders-api/.well-known/oauth-protected-resource",
            ],
        ),
    ];
    block_on(async {
        for (public_url, path, others) in rows {
            let verifier = at_url(public_url);
            let metadata = ResourceMetadata::of(&verifier).with_name("Orders");
            let server = Server::of(verifier, &metadata).await;
            server.get(path).await.assert_is(path, &metadata);
            let with_query = format!("{path}?a=/b&c");
            server
                .get(&with_query)
                .await
                .assert_is("a query", &metadata);
            let absolute = format!("http://{}{path}", server.address);
            server
                .get(&absolute)
                .await
                .assert_is("an absolute target", &metadata);
            for other in others {
                server.get(other).await.assert_rejected(other);
            }
            assert_eq!(server.reached.load(Ordering::SeqCst), 0, "{public_url}");
        }
    });
}

/// P-5: GET, and HEAD, which says the same but the body.
#[test]
fn only_safe_methods_are_answered() {
    block_on(async {
        let metadata = ResourceMetadata::of(&verifier());
        let server = Server::of(verifier(), &metadata).await;
        let get = server.get(WELL_KNOWN).await;
        get.assert_is("GET", &metadata);
        let length = metadata.to_json().len().to_string();
        assert_eq!(get.field("content-length"), Some(length.as_str()));
        for method in [
            "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "get",
        ] {
            let request = Request::builder().method(method).uri(WELL_KNOWN);
            let reply = server.send(request.body(Empty::new()).unwrap()).await;
            assert_eq!(reply.body, "", "{method}");
            assert_eq!(reply.field("www-authenticate"), None, "{method}");
            if method == "HEAD" {
                assert_eq!(reply.status, StatusCode::OK);
                for field in ["content-type", "cache-control"] {
                    assert_eq!(reply.field(field), get.field(field), "{method}: {field}");
                }
                // RFC 9110 section 8.6: the length of the document, or none.
                assert_eq!(reply.field("content-length"), None, "{method}");
            } else {
                assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
                assert_eq!(reply.field("allow"), Some("GET, HEAD"), "{method}");
                assert_eq!(reply.field("cache-control"), None, "{method}");
            }
        }
    });
}

/// P-11: the layer inside does not see the request, whatever it carries, and a proof is not spent.
#[test]
fn credentials_on_a_request_for_the_document_are_not_looked_at() {
    let good = Attempt::but(|a| {
        a.uri = WELL_KNOWN.into();
        a.proof_claims["htu"] = json!(format!("{AUDIENCE}{WELL_KNOWN}"));
    });
    block_on(async {
        let metadata = ResourceMetadata::of(&verifier());
        let server = Server::of(verifier(), &metadata).await;
        for name in ["the first time", "a replay"] {
            let request = good.build_with(Empty::<Bytes>::new());
            server.send(request).await.assert_is(name, &metadata);
        }
        for broken in ["DPoP", "DPoP a\"b", "Bearer x", "Basic eDp5"] {
            let mut request = Request::get(WELL_KNOWN).body(Empty::new()).unwrap();
            let field = HeaderValue::from_static(broken);
            request.headers_mut().insert("authorization", field);
            server.send(request).await.assert_is(broken, &metadata);
        }
        let orders = Attempt::good().build_with(Empty::<Bytes>::new());
        let passed = server.send(orders).await;
        assert_eq!(
            (passed.status, passed.body.as_str()),
            (StatusCode::OK, "orders")
        );
        assert_eq!(server.reached.load(Ordering::SeqCst), 1);
    });
}

/// P-7, as a client must do it: the URL is made from the identifier, and `resource` is compared with
/// it.
#[test]
fn a_client_that_compares_the_resource_finds_its_own_identifier() {
    for identifier in [
        AUDIENCE,
        "https://example.com/orders-api",
        "https://example.com/a/b",
    ] {
        let rest = identifier.strip_prefix("https://").unwrap();
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        let path = format!("{WELL_KNOWN}{path}");
        block_on(async {
            let metadata = ResourceMetadata::of(&at_url(identifier));
            let server = Server::of(at_url(identifier), &metadata).await;
            let found: Value = serde_json::from_str(&server.get(&path).await.body).unwrap();
            assert_eq!(found["resource"], json!(identifier));
        });
    }
}

/// Without a layer: an axum route, a service of its own, over HTTP/2.
#[test]
fn a_router_serves_the_document_too() {
    let metadata = ResourceMetadata::of(&verifier());
    let router = Router::new()
        .route("/orders", any(async || "orders"))
        .layer(DpopLayer::new(verifier()))
        .route_service(metadata.path(), metadata.service())
        .route("/copy", any_service(metadata.service()));
    block_on(async {
        let address = serve(router).await;
        let ask = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path);
            send(address, request.body(Empty::new()).unwrap()).await
        };
        ask(Method::GET, WELL_KNOWN)
            .await
            .assert_is("the route", &metadata);
        ask(Method::GET, "/copy")
            .await
            .assert_is("whatever the path", &metadata);
        let head = ask(Method::HEAD, WELL_KNOWN).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.field("content-length"), None);
        let post = ask(Method::POST, WELL_KNOWN).await;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(post.field("allow"), Some("GET, HEAD"));
        ask(Method::GET, "/orders")
            .await
            .assert_rejected("the layer inside");

        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let url = format!("http://api.example.com{WELL_KNOWN}");
        let request = Request::get(&url).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        reply(response).await.assert_is("HTTP/2", &metadata);
        let request = Request::head(url).body(Empty::new()).unwrap();
        let head = reply(sender.send_request(request).await.unwrap()).await;
        assert_eq!(
            (head.status, head.field("content-length")),
            (StatusCode::OK, None)
        );
    });
    let alone = block_on(metadata.service().oneshot(Request::new(()))).unwrap();
    assert_eq!(*alone.body(), metadata.to_json());
}

/// Any body that a text can become will do.
#[test]
fn the_layer_goes_around_services_of_other_bodies() {
    let metadata = ResourceMetadata::of(&verifier());
    let layers = ServiceBuilder::new()
        .layer(MetadataLayer::new(&metadata))
        .layer(DpopLayer::new(verifier()));
    let full = layers.clone().service(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let text = layers.service(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(String::from("orders")))
    }));
    block_on(async {
        let request = Request::get(WELL_KNOWN).body(()).unwrap();
        let response = full.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, metadata.to_json());
        let request = Request::get("/orders").body(()).unwrap();
        let rejected = full.oneshot(request).await.unwrap();
        TestResponse::of(&rejected).assert_rejected("orders", 401, None);
        let request = Request::get(WELL_KNOWN).body(Body::empty()).unwrap();
        let response = text.oneshot(request).await.unwrap();
        assert_eq!(*response.body(), metadata.to_json());
    });
}

#[test]
fn what_is_debug_shows_the_document_and_no_service() {
    let metadata = ResourceMetadata::of(&verifier());
    let layer = MetadataLayer::new(&metadata);
    let service = layer.layer("marker-service-marker");
    for shown in [
        format!("{metadata:?}"),
        format!("{layer:?}"),
        format!("{service:?}"),
        format!("{:?}", metadata.service()),
    ] {
        assert!(shown.contains(AUDIENCE), "{shown}");
        assert!(!shown.contains("marker"), "{shown}");
    }
}
