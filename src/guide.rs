//! The guide: one page per task, tutorial first.
//!
//! | page | read it if |
//! |---|---|
//! | [Protect a service](protect_a_service) | you start here: from an empty folder to a 200 response |
//! | [Access tokens](access_tokens) | you choose how access tokens are verified |
//! | [Issuers, product by product](issuers) | your tokens come from Keycloak, Auth0, Okta, Entra ID, Duende or oidc-provider |
//! | [Scopes and step-up authentication](scopes_and_step_up) | routes require different things of a token |
//! | [Moving from Bearer](moving_from_bearer) | your clients send bearer tokens today |
//! | [Behind a proxy](proxies) | nginx, Traefik, Caddy, Envoy or a Kubernetes ingress is in front |
//! | [Forward authentication](forward_authentication) | an application without DPoP support is behind a proxy |
//! | [The gateway](gateway) | a service in any language needs protection, and you do not want to write Rust |
//! | [Configuration of the gateway](gateway_configuration) | you write its configuration |
//! | [The gateway in operation](gateway_operations) | you run `dpop-gateway` |
//! | [Several nodes](several_nodes) | several processes serve your public URL |
//! | [Redis](redis) | nodes share a replay store in Redis or Valkey |
//! | [Configuration](configuration) | settings come from a file or from the environment |
//! | [Logs, metrics, alerts](logs_metrics_alerts) | you run the service |
//! | [Why was a request rejected?](troubleshooting) | a client gets 401 |
//! | [JSON errors and CORS](errors_and_cors) | clients expect a body, or call from another origin |
//! | [Browser apps](browser_apps) | the client is a page with JavaScript |
//! | [The client](client) | your service calls an API that requires DPoP |
//! | [The authorization server](authorization_server) | you issue tokens |
//! | [Testing your service](testing) | you write tests for a service behind the layer |
//! | [Extension points](extension_points) | you write a replay store, a token verifier or a nonce source |
//! | [MCP servers](mcp_servers) | your service is a server of the Model Context Protocol |
//! | [Performance](performance) | you want to know what a request costs |
//! | [Decisions](decisions) | you review what was chosen where the standards leave a choice |
//!
//! The messages between the parties, as `cargo run --example flow` sends them:
//!
//! ![A client gets a token from the authorization server and uses it at the resource server. A thief is rejected.][flow-picture]
//!
//! The pages are the files of `docs/guide` in the repository. There is no code here: the tests compile the code on the pages, with
//! all features of the crate.
#![cfg_attr(doc, doc = "\n", doc = flow_picture!())]

/// The labels by which pages link to each other, as paths of this documentation. In the files, the same labels are defined once
/// more, at the end, as names of files; the first definition counts.
macro_rules! links {
    () => {
        concat!(
            "[protect-a-service]: crate::guide::protect_a_service\n",
            "[access-tokens]: crate::guide::access_tokens\n",
            "[issuers]: crate::guide::issuers\n",
            "[scopes-and-step-up]: crate::guide::scopes_and_step_up\n",
            "[moving-from-bearer]: crate::guide::moving_from_bearer\n",
            "[proxies]: crate::guide::proxies\n",
            "[forward-authentication]: crate::guide::forward_authentication\n",
            "[gateway]: crate::guide::gateway\n",
            "[gateway-configuration]: crate::guide::gateway_configuration\n",
            "[gateway-operations]: crate::guide::gateway_operations\n",
            "[several-nodes]: crate::guide::several_nodes\n",
            "[redis]: crate::guide::redis\n",
            "[configuration]: crate::guide::configuration\n",
            "[logs-metrics-alerts]: crate::guide::logs_metrics_alerts\n",
            "[troubleshooting]: crate::guide::troubleshooting\n",
            "[errors-and-cors]: crate::guide::errors_and_cors\n",
            "[browser-apps]: crate::guide::browser_apps\n",
            "[client]: crate::guide::client\n",
            "[authorization-server]: crate::guide::authorization_server\n",
            "[testing-your-service]: crate::guide::testing\n",
            "[extension-points]: crate::guide::extension_points\n",
            "[mcp-servers]: crate::guide::mcp_servers\n",
            "[performance]: crate::guide::performance\n",
            "[decisions]: crate::guide::decisions\n",
            "\n"
        )
    };
}

/// The label of the picture `docs/guide/flow.svg`. Documentation cannot show images by relative paths.
#[cfg(doc)]
macro_rules! flow_picture {
    () => {
        concat!(
            "[flow-picture]: data:image/svg+xml;base64,",
            include_str!("../docs/guide/flow.svg.base64"),
            "\n"
        )
    };
}

// rustfmt would indent the attribute further each time.
#[rustfmt::skip]
macro_rules! page {
    ($name:ident, $file:literal, $about:literal) => {
        #[doc = $about]
        #[doc = ""]
        #[doc = links!()]
        #[cfg_attr(doc, doc = flow_picture!())]
        #[cfg_attr(
            any(
                not(doctest),
                all(
                    feature = "axum",
                    feature = "introspection",
                    feature = "jwks",
                    feature = "metrics",
                    feature = "redis",
                    feature = "testing",
                )
            ),
            doc = include_str!(concat!("../docs/guide/", $file))
        )]
        pub mod $name {}
    };
}

page!(
    protect_a_service,
    "protect-a-service.md",
    "You start here: from an empty folder to a 200 response."
);
page!(
    access_tokens,
    "access-tokens.md",
    "You choose how access tokens are verified."
);
page!(
    issuers,
    "issuers.md",
    "Your tokens come from Keycloak, Auth0, Okta, Entra ID, Duende or oidc-provider."
);
page!(
    scopes_and_step_up,
    "scopes-and-step-up.md",
    "Routes require different things of a token."
);
page!(
    moving_from_bearer,
    "moving-from-bearer.md",
    "Your clients send bearer tokens today."
);
page!(
    proxies,
    "proxies.md",
    "Nginx, Traefik, Caddy, Envoy or a Kubernetes ingress is in front."
);
page!(
    forward_authentication,
    "forward-authentication.md",
    "An application without DPoP support is behind a proxy."
);
page!(
    gateway,
    "gateway.md",
    "A service in any language needs protection, and you do not want to write Rust."
);
page!(
    gateway_configuration,
    "gateway-configuration.md",
    "You write the configuration of `dpop-gateway`."
);
page!(
    gateway_operations,
    "gateway-operations.md",
    "You run `dpop-gateway`."
);
page!(
    several_nodes,
    "several-nodes.md",
    "Several processes serve your public URL."
);
page!(
    redis,
    "redis.md",
    "Nodes share a replay store in Redis or Valkey."
);
page!(
    configuration,
    "configuration.md",
    "Settings come from a file or from the environment."
);
page!(
    logs_metrics_alerts,
    "logs-metrics-alerts.md",
    "You run the service."
);
page!(troubleshooting, "troubleshooting.md", "A client gets 401.");
page!(
    errors_and_cors,
    "errors-and-cors.md",
    "Clients expect a body, or call from another origin."
);
page!(
    browser_apps,
    "browser-apps.md",
    "The client is a page with JavaScript."
);
page!(
    client,
    "client.md",
    "Your service calls an API that requires DPoP."
);
page!(
    authorization_server,
    "authorization-server.md",
    "You issue tokens."
);
page!(
    testing,
    "testing-your-service.md",
    "You write tests for a service behind the layer."
);
page!(
    extension_points,
    "extension-points.md",
    "You write a replay store, a token verifier or a nonce source."
);
page!(
    mcp_servers,
    "mcp-servers.md",
    "Your service is a server of the Model Context Protocol."
);
page!(
    performance,
    "performance.md",
    "You want to know what a request costs."
);
page!(
    decisions,
    "decisions.md",
    "You review what was chosen where the standards leave a choice."
);
