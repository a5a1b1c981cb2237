//! The CORS layer, the outermost one: it responds to preflights, and adds CORS fields to every response.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use tower_dpop::resource::{cors_allow_headers, cors_expose_headers};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::config::{self, ConfigError, Cors};

pub(crate) fn cors_layer(cors: &Cors) -> Result<CorsLayer, ConfigError> {
    let mut allow = cors_allow_headers();
    allow.extend(parsed("cors.allow_headers", &cors.allow_headers)?);
    let mut expose = cors_expose_headers();
    expose.extend(parsed("cors.expose_headers", &cors.expose_headers)?);
    let methods: Vec<Method> = parsed("cors.allow_methods", &cors.allow_methods)?;
    let origins = if cors.allow_origins == ["*"] {
        Any.into()
    } else {
        AllowOrigin::list(parsed("cors.allow_origins", &cors.allow_origins)?)
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods)
        .allow_headers(allow)
        .expose_headers(expose);
    Ok(match cors.max_age_seconds {
        Some(seconds) => layer.max_age(Duration::from_secs(seconds)),
        None => layer,
    })
}

fn parsed<T: FromStr<Err: Display>>(place: &str, texts: &[String]) -> Result<Vec<T>, ConfigError> {
    let texts = texts.iter();
    texts.map(|text| config::parsed(place, text)).collect()
}
