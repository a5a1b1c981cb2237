//! The CORS layer, the outermost one: it responds to preflights, and adds CORS fields to every response.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};
use tower_dpop::resource::{cors_allow_headers, cors_expose_headers};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::config::{ConfigError, Cors};

pub(crate) fn cors_layer(cors: &Cors) -> Result<CorsLayer, ConfigError> {
    let name = |text: &str| text.parse::<HeaderName>().ok();
    let mut allow = cors_allow_headers();
    allow.extend(parsed(
        "allow_headers",
        "the name of a header field",
        &cors.allow_headers,
        name,
    )?);
    let mut expose = cors_expose_headers();
    expose.extend(parsed(
        "expose_headers",
        "the name of a header field",
        &cors.expose_headers,
        name,
    )?);
    let methods = parsed(
        "allow_methods",
        "a method in upper case",
        &cors.allow_methods,
        |text| {
            let upper_case = !text.contains(|c: char| c.is_ascii_lowercase());
            text.parse::<Method>().ok().filter(|_| upper_case)
        },
    )?;
    let layer = CorsLayer::new()
        .allow_origin(origins(&cors.allow_origins)?)
        .allow_methods(methods)
        .allow_headers(allow)
        .expose_headers(expose);
    Ok(match cors.max_age_seconds {
        Some(seconds) => layer.max_age(Duration::from_secs(seconds)),
        None => layer,
    })
}

fn origins(texts: &[String]) -> Result<AllowOrigin, ConfigError> {
    if texts == ["*"] {
        return Ok(Any.into());
    }
    let expected =
        "an origin as browsers send it, such as \"https://app.example.com\" (or \"*\" alone)";
    let origins = parsed("allow_origins", expected, texts, |text| {
        let uri: Uri = text.parse().ok()?;
        let as_sent = format!("{}://{}", uri.scheme_str()?, uri.authority()?).to_ascii_lowercase();
        (as_sent == text).then(|| HeaderValue::try_from(text).ok())?
    })?;
    Ok(AllowOrigin::list(origins))
}

/// Rejects `*`, which would not cover `Authorization`.
fn parsed<T>(
    member: &str,
    expected: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ConfigError> {
    let parse = |text: &String| {
        let parsed = Some(text.as_str())
            .filter(|text| *text != "*")
            .and_then(&parse);
        parsed.ok_or_else(|| ConfigError {
            place: format!("cors.{member}"),
            problem: format!("{text:?} is not {expected}"),
        })
    };
    texts.iter().map(parse).collect()
}
