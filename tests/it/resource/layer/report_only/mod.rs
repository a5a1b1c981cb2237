//! `with_insecure_report_only`: every request passes. What would have been rejected is in the extensions of the request
//! and of its response, and in one event. A layer without the mode shows no trace of it.

mod inner_layers;
mod requests;

use std::convert::Infallible;
use std::future::ready;

use common::block_on;
use http::{Request, Response, StatusCode};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::resource::{Access, CredentialsError, ReportedRejection};
use tower_dpop::{AcceptedToken, BearerToken, BoundToken, Claims, DpopLayer, Rejection};

/// What the service behind the layer saw, and its response as the client gets it.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: StatusCode,
    challenges: usize,
    nonces: usize,
    /// From the response's extensions, where enforcing layers put it.
    rejection: Option<Rejection>,
    /// From the response's extensions.
    reported: Option<Rejection>,
    seen: Option<SeenByService>,
}

#[derive(Clone, Debug, PartialEq)]
struct SeenByService {
    /// From the request's extensions.
    reported: Option<Rejection>,
    is_bound: bool,
    is_bearer: bool,
    has_access: bool,
}

fn reported(extensions: &http::Extensions) -> Option<Rejection> {
    let reported: Option<&ReportedRejection> = extensions.get();
    reported.map(|reported| reported.rejection().clone())
}

fn seen(request: &Request<String>) -> SeenByService {
    let extensions = request.extensions();
    let seen = SeenByService {
        reported: reported(extensions),
        is_bound: extensions.get::<BoundToken<Claims>>().is_some(),
        is_bearer: extensions.get::<BearerToken<Claims>>().is_some(),
        has_access: Access::<Claims>::of(extensions).is_some(),
    };
    let is_accepted = AcceptedToken::<Claims>::of(extensions).is_some();
    assert_eq!(is_accepted, seen.is_bound || seen.is_bearer);
    assert!(extensions.get::<Rejection>().is_none());
    seen
}

/// A service that responds with this status.
fn service_with_status(
    status: StatusCode,
) -> impl Service<Request<String>, Response = Response<()>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    service_fn(move |request: Request<String>| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response.extensions_mut().insert(seen(&request));
        ready(Ok::<_, Infallible>(response))
    })
}

fn send_to(
    service: impl Service<Request<String>, Response = Response<()>, Error = Infallible>,
    request: Request<String>,
) -> Outcome {
    let response = block_on(service.oneshot(request)).unwrap();
    let count = |name| response.headers().get_all(name).iter().count();
    Outcome {
        status: response.status(),
        challenges: count("www-authenticate"),
        nonces: count("dpop-nonce"),
        rejection: response.extensions().get().cloned(),
        reported: reported(response.extensions()),
        seen: response.extensions().get().cloned(),
    }
}

fn send_through<C: Send + Sync + 'static>(
    layer: &DpopLayer<C>,
    request: Request<String>,
) -> Outcome {
    send_to(layer.layer(service_with_status(StatusCode::OK)), request)
}

/// Passed without a token, and reported.
fn passed_but_reported(rejection: impl Into<Rejection>) -> Outcome {
    let rejection = rejection.into();
    Outcome {
        status: StatusCode::OK,
        challenges: 0,
        nonces: 0,
        rejection: None,
        reported: Some(rejection.clone()),
        seen: Some(SeenByService {
            reported: Some(rejection),
            is_bound: false,
            is_bearer: false,
            has_access: false,
        }),
    }
}

/// Accepted, as an enforcing layer would accept it.
fn passed(is_bound: bool) -> Outcome {
    Outcome {
        reported: None,
        seen: Some(SeenByService {
            reported: None,
            is_bound,
            is_bearer: !is_bound,
            has_access: true,
        }),
        ..passed_but_reported(CredentialsError::Missing)
    }
}

/// The lines about requests that this crate logs during the work.
fn logged<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let (result, lines) = common::log::logged(work);
    let targets = [" tower_dpop: ", " tower_dpop::resource::authorization: "];
    let is_ours = |line: &&str| targets.iter().any(|target| line.contains(target));
    let ours = lines.lines().filter(is_ours);
    (result, ours.map(str::to_owned).collect())
}

/// One event: at `ERROR` for a server error, otherwise at `INFO`.
#[track_caller]
fn assert_one_event(name: &str, lines: &[String], message: &str, rejection: &Rejection) {
    let [line] = lines else {
        panic!("{name}: expected one event, not {lines:?}");
    };
    let scheme = match rejection.scheme() {
        Some(tower_dpop::resource::Scheme::Bearer) => "bearer",
        None if !matches!(rejection, Rejection::Unavailable(_)) => "none",
        Some(_) | None => "dpop",
    };
    let is_server_error = matches!(rejection, Rejection::Unavailable(_));
    for part in [
        if is_server_error { "ERROR" } else { " INFO" },
        message,
        &format!("description={rejection}"),
        &format!(r#"reason="{}""#, rejection.reason()),
        &format!(r#"scheme="{scheme}""#),
    ] {
        assert!(line.contains(part), "{name}: {part} is not in {line}");
    }
}
