//! The HTTP client of the tool.

use std::env;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, Url};

use crate::failure::Failure;

/// The proxy for `https`, as curl finds it.
const PROXY: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The settings for both servers.
///
/// The environment's proxy is for `https` only, which it forwards without reading it. Plain `http` is for servers on this
/// machine: a proxy would send secret, token and proof elsewhere.
pub(crate) fn settings() -> Result<ClientBuilder, Failure> {
    let builder = Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("dpop/", env!("CARGO_PKG_VERSION")));
    let mut set = PROXY
        .iter()
        .filter_map(|name| Some((name, env::var(name).ok().filter(|url| !url.is_empty())?)));
    let Some((name, url)) = set.next() else {
        return Ok(builder);
    };
    // The URL may have a password.
    let proxy = proxy(&url).ok_or_else(|| {
        Failure::usage(format_args!(
            "{name} is not the URL of an HTTP proxy: http://host:port"
        ))
    })?;
    Ok(builder.proxy(proxy.no_proxy(NoProxy::from_env())))
}

/// Without a scheme it is `http`, as with curl.
fn proxy(url: &str) -> Option<Proxy> {
    let url = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let url = Url::parse(&url).ok()?;
    // reqwest silently bypasses a proxy of a kind that it does not know.
    matches!(url.scheme(), "http" | "https").then_some(())?;
    Proxy::https(url).ok()
}
