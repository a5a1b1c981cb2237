//! The layers of `tower_dpop` around a route, which decide about its requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};
use tower_dpop::resource::{ProblemDetailsLayer, RequireAuthenticationLayer};
use tower_dpop::{DpopLayer, RequireScopesLayer, Verifier};
use tower_http::cors::CorsLayer;

use crate::config::{self, Access, ConfigError, Route};
use crate::policy::identity::{IdentityFields, Inexpressible};
use crate::policy::problem::problem;

/// A service whose response is the decision about the request. It gets no request body.
pub(crate) type Layers = BoxCloneSyncService<Request<String>, Response<String>, Infallible>;

/// In the extensions of a response: the layers have accepted the request.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// With these header fields for the service.
    Accepted(HeaderMap),
}

pub(crate) fn around(
    route: &Route,
    cors: Option<CorsLayer>,
    verifier: &Verifier,
    identity: &Arc<IdentityFields>,
) -> Result<Layers, ConfigError> {
    let identity = Arc::clone(identity);
    let accepted = service_fn(move |request: Request<String>| {
        let identity = Arc::clone(&identity);
        async move { Ok::<_, Infallible>(accept(&identity, &request)) }
    });
    let dpop = match route.access {
        // Nothing that is required of a token looks as if it were checked: the checks of the file reject it.
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
    match identity.of(request.extensions()) {
        Ok(fields) => {
            let mut response = Response::new(String::new());
            response.extensions_mut().insert(Outcome::Accepted(fields));
            response
        }
        Err(Inexpressible { claim }) => {
            tracing::error!(
                claim,
                "request rejected: the header field cannot express the value of the claim; change encoding or unrepresentable in \
                 [[identity]]"
            );
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "claim_unrepresentable",
                "a claim of the access token cannot be passed to the service",
            )
        }
    }
}

fn authentication(route: &Route) -> Result<Option<RequireAuthenticationLayer>, ConfigError> {
    let acr_values = route
        .acr_values
        .as_ref()
        .map(|values| config::parsed("route.acr_values", &values.to_string()));
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
