//! The layers of `tower_dpop` around a route: they decide.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};
use tower_dpop::resource::{ProblemDetailsLayer, RequireAuthenticationLayer};
use tower_dpop::{DpopLayer, RequireScopesLayer, Verifier};

use crate::config::{Access, ConfigError, Cors, Route};
use crate::policy::identity::{IdentityFields, Inexpressible};

/// A service that has no request body and makes no response of its own: what it responds is the decision.
pub(crate) type Layers = BoxCloneSyncService<Request<String>, Response<String>, Infallible>;

/// In the extensions of a response: the layers have accepted the request.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// With these header fields for the service.
    Accepted(HeaderMap),
}

pub(crate) fn around(
    route: &Route,
    cors: Option<&Cors>,
    verifier: &Verifier,
    identity: &Arc<IdentityFields>,
) -> Result<Layers, ConfigError> {
    let identity = Arc::clone(identity);
    let accepted = service_fn(move |request: Request<String>| {
        let identity = Arc::clone(&identity);
        async move { Ok::<_, Infallible>(accept(&identity, &request)) }
    });
    let cors = cors.map(cors_layer).transpose()?;
    let dpop = match route.access {
        Access::Public => {
            let layers = ServiceBuilder::new().option_layer(cors).service(accepted);
            return Ok(BoxCloneSyncService::new(layers));
        }
        Access::Dpop => DpopLayer::new(verifier.clone()),
        Access::AllowBearer => DpopLayer::new(verifier.clone().allow_bearer()),
        Access::InsecureUncheckedCnf => {
            DpopLayer::new(verifier.clone().allow_insecure_unchecked_cnf())
        }
    };
    let dpop = if route.pass_preflights {
        dpop.with_preflight_pass_through()
    } else {
        dpop
    };
    let layers = ServiceBuilder::new()
        .option_layer(cors)
        .layer(ProblemDetailsLayer::new())
        .layer(dpop)
        .option_layer(route.scopes.clone().map(RequireScopesLayer::all_of))
        .option_layer(route.any_scope.clone().map(RequireScopesLayer::any_of))
        .option_layer(authentication(route)?)
        .service(accepted);
    Ok(BoxCloneSyncService::new(layers))
}

fn accept(identity: &IdentityFields, request: &Request<String>) -> Response<String> {
    let mut response = Response::new(String::new());
    match identity.of(request.extensions()) {
        Ok(fields) => {
            response.extensions_mut().insert(Outcome::Accepted(fields));
        }
        Err(Inexpressible { claim }) => {
            tracing::error!(
                claim,
                status = 500,
                "request not passed on: the claim cannot be a header field"
            );
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    response
}

fn authentication(route: &Route) -> Result<Option<RequireAuthenticationLayer>, ConfigError> {
    let acr_values = route.acr_values.as_ref().map(|values| {
        values.to_string().parse().map_err(|_| ConfigError {
            place: format!("route {}: acr_values", route.path),
            problem: "expected words of visible ASCII, separated by single spaces".to_owned(),
        })
    });
    let acr_values = acr_values.transpose()?;
    let max_age = route.max_age_seconds.map(Duration::from_secs);
    Ok(match (acr_values, max_age) {
        (Some(acr_values), Some(max_age)) => {
            Some(RequireAuthenticationLayer::by_acr(acr_values).with_max_age(max_age))
        }
        (Some(acr_values), None) => Some(RequireAuthenticationLayer::by_acr(acr_values)),
        (None, Some(max_age)) => Some(RequireAuthenticationLayer::within(max_age)),
        (None, None) => None,
    })
}

fn cors_layer(cors: &Cors) -> Result<tower_http::cors::CorsLayer, ConfigError> {
    use tower_dpop::resource::{cors_allow_headers, cors_expose_headers};

    fn parsed<T: std::str::FromStr>(member: &str, texts: &[String]) -> Result<Vec<T>, ConfigError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| ConfigError {
                place: format!("cors.{member}"),
                problem: format!("{text:?} cannot be in a header field"),
            })
        };
        texts.iter().map(parse).collect()
    }
    let mut allow = cors_allow_headers();
    allow.extend(parsed("allow_headers", &cors.allow_headers)?);
    let mut expose = cors_expose_headers();
    expose.extend(parsed("expose_headers", &cors.expose_headers)?);
    let layer = tower_http::cors::CorsLayer::new()
        .allow_origin(parsed::<http::HeaderValue>(
            "allow_origins",
            &cors.allow_origins,
        )?)
        .allow_methods(parsed::<http::Method>(
            "allow_methods",
            &cors.allow_methods,
        )?)
        .allow_headers(allow)
        .expose_headers(expose);
    Ok(match cors.max_age_seconds {
        Some(seconds) => layer.max_age(Duration::from_secs(seconds)),
        None => layer,
    })
}
