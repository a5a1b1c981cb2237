//! `with_insecure_report_only`: every request passes. What would have been rejected is in the extensions of the request
//! and of its response, and in one event. A layer without the mode shows no trace of it.

mod inner_layers;
mod requests;

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex};

use common::block_on;
use http::{Request, Response, StatusCode};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::resource::{Access, CredentialsError, ReportedRejection};
use tower_dpop::{AcceptedToken, BearerToken, BoundToken, Claims, DpopLayer, Rejection};

/// What a service behind the layer has seen, and what came back of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: StatusCode,
    challenges: usize,
    nonces: usize,
    /// In the response's extensions: what enforcing layers leave there.
    rejection: Option<Rejection>,
    /// In the response's extensions.
    reported: Option<Rejection>,
    seen: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    /// In the request's extensions.
    reported: Option<Rejection>,
    is_bound: bool,
    is_bearer: bool,
    has_access: bool,
}

fn reported(extensions: &http::Extensions) -> Option<Rejection> {
    let reported: Option<&ReportedRejection> = extensions.get();
    reported.map(|reported| reported.rejection().clone())
}

fn seen(request: &Request<()>) -> Seen {
    let extensions = request.extensions();
    let seen = Seen {
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

/// A service that answers with this status.
fn answering(
    status: StatusCode,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    service_fn(move |request: Request<()>| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response.extensions_mut().insert(seen(&request));
        ready(Ok::<_, Infallible>(response))
    })
}

fn outcome_of(
    service: impl Service<Request<()>, Response = Response<()>, Error = Infallible>,
    request: Request<()>,
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

fn outcome<C: Send + Sync + 'static>(layer: &DpopLayer<C>, request: Request<()>) -> Outcome {
    outcome_of(layer.layer(answering(StatusCode::OK)), request)
}

/// Passed, and reported.
fn passed_although(rejection: impl Into<Rejection>) -> Outcome {
    let rejection = rejection.into();
    Outcome {
        status: StatusCode::OK,
        challenges: 0,
        nonces: 0,
        rejection: None,
        reported: Some(rejection.clone()),
        seen: Some(Seen {
            reported: Some(rejection),
            is_bound: false,
            is_bearer: false,
            has_access: false,
        }),
    }
}

/// Passed as it would have without the mode.
fn passed(is_bound: bool) -> Outcome {
    Outcome {
        reported: None,
        seen: Some(Seen {
            reported: None,
            is_bound,
            is_bearer: !is_bound,
            has_access: true,
        }),
        ..passed_although(CredentialsError::Missing)
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The crate's lines while something is done.
fn logged<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    common::enable_tracing_callsites();
    let done = tracing::subscriber::with_default(subscriber, work);
    let bytes = log.0.lock().unwrap().clone();
    let lines = String::from_utf8(bytes).unwrap();
    let ours = lines.lines().filter(|line| line.contains("tower_dpop"));
    (done, ours.map(str::to_owned).collect())
}

/// One event, at `INFO` or, for a fault of ours, at `ERROR`.
#[track_caller]
fn assert_one_event(name: &str, lines: &[String], message: &str, rejection: &Rejection) {
    let [line] = lines else {
        panic!("{name}: one event, not {lines:?}");
    };
    let scheme = match rejection.scheme() {
        Some(tower_dpop::resource::Scheme::Bearer) => "bearer",
        Some(_) => "dpop",
        None => "none",
    };
    let is_ours = matches!(rejection, Rejection::Unavailable(_));
    for part in [
        if is_ours { "ERROR" } else { " INFO" },
        message,
        &format!("description={rejection}"),
        &format!(r#"reason="{}""#, rejection.reason()),
        &format!(r#"scheme="{scheme}""#),
    ] {
        assert!(line.contains(part), "{name}: {part} in {line}");
    }
}
