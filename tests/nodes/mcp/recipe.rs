//! An MCP server that requires DPoP.

use std::sync::Arc;

use axum::Router;
use axum::http::request::Parts;
use rmcp::handler::server::tool::Extension;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, tool, tool_router};
use tower_dpop::proof::InvalidPublicUrl;
use tower_dpop::resource::{MetadataLayer, ResourceMetadata};
use tower_dpop::tokens::KeySource;
use tower_dpop::{BoundToken, DpopLayer, Freshness, JwtVerifier, ProofRules, Verifier};

/// The name of the server. Its endpoint is `/mcp` below it, and its tokens have this audience.
pub const SERVER: &str = "https://mcp.example.com";

pub struct Tools;

#[tool_router(server_handler)]
impl Tools {
    #[tool(description = "Says who uses this server")]
    async fn whoami(&self, Extension(parts): Extension<Parts>) -> Result<String, ErrorData> {
        let token = parts.extensions.get::<BoundToken>();
        let token = token.ok_or_else(|| ErrorData::internal_error("no token", None))?;
        let subject = token.claims().subject().unwrap_or("a machine");
        Ok(format!("hello {subject}"))
    }
}

pub fn app(tokens: JwtVerifier<impl KeySource>) -> Result<Router, InvalidPublicUrl> {
    let rules = ProofRules::new(SERVER.parse()?).with_freshness(Freshness::mcp());
    let mut verifier = Verifier::new(rules, tokens);
    // Names the authorization server and the algorithms. Challenges point to it from now on.
    let metadata = ResourceMetadata::of(&mut verifier).with_name("Orders");

    let config = StreamableHttpServerConfig::default()
        // rmcp itself compares `Host` (against DNS rebinding), and accepts loopback names only by default.
        .with_allowed_hosts(["mcp.example.com"])
        // No sessions: each request is verified, and stands alone.
        .with_legacy_session_mode(false);
    let mcp = StreamableHttpService::new(
        || Ok(Tools),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Ok(Router::new()
        .route_service("/mcp", mcp)
        .route_layer(DpopLayer::new(verifier))
        // Outermost: clients read it before they have a token.
        .layer(MetadataLayer::new(&metadata)))
}
