//! One request: its line in the log, and its part of the metrics.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode, Version};

use crate::config::{Access, LoggedRequests};
use crate::operations::explanation::{self, Explanation};
use crate::operations::metrics;
use crate::policy::{Decision, Policy, Question, Route};

/// What is known about a request until it ends.
pub(crate) struct Record {
    /// `proxy` or `forward_auth`.
    listener: &'static str,
    began: Instant,
    method: Option<Method>,
    path: String,
    route: Option<Arc<Route>>,
    decision: &'static str,
    explanation: Explanation,
    /// The server that the request was last sent to.
    pub(crate) server: Option<String>,
    /// It has its line.
    ended: bool,
}

/// How a request ended.
pub(crate) struct Ended {
    pub(crate) peer: Option<String>,
    pub(crate) protocol: Option<Version>,
    /// `None`: no response was sent.
    pub(crate) status: Option<StatusCode>,
    /// Bytes of the response's body.
    pub(crate) sent: usize,
    pub(crate) failed: Option<Failed>,
}

/// Why a request ended early.
pub(crate) struct Failed {
    /// Has nothing that the client or the service sent.
    pub(crate) description: String,
    /// From a fixed set, for the metric of the service. `None`: the client is the cause.
    pub(crate) cause: Option<&'static str>,
}

impl Record {
    pub(crate) fn start(listener: &'static str) -> Self {
        metrics::in_flight().increment(1.0);
        Self {
            listener,
            began: Instant::now(),
            method: None,
            path: String::new(),
            route: None,
            decision: "error",
            explanation: Explanation::default(),
            server: None,
            ended: false,
        }
    }

    /// Lets the policy decide, and keeps what it decided and why.
    pub(crate) async fn decide(&mut self, policy: &Policy, question: Question) -> Decision {
        self.method = Some(question.method.clone());
        self.path = printable(question.uri.path());
        let (decision, explanation) = explanation::listen(policy.decide(question)).await;
        self.route = match &decision {
            Decision::Pass(passed) => Some(Arc::clone(&passed.route)),
            Decision::Respond(response) => response.extensions().get::<Arc<Route>>().cloned(),
        };
        self.decision = name(&decision, &explanation);
        self.explanation = explanation;
        decision
    }

    /// Records a request that the policy does not see.
    pub(crate) fn malformed(&mut self, question: &Question) {
        self.method = Some(question.method.clone());
        self.path = printable(question.uri.path());
        self.decision = "bad_request";
    }

    /// Writes the line, and counts the request. The line is an error if the gateway could not decide or reach the service.
    pub(crate) fn end(&mut self, ended: &Ended, logged: LoggedRequests) {
        self.ended = true;
        let settings = self.route.as_ref().map(|route| &route.settings);
        let route = settings.map(|settings| settings.path.as_str());
        let upstream = settings
            .and_then(|settings| settings.upstream.as_deref())
            .filter(|_| self.listener == "proxy");
        metrics::requests(route, ended.status, self.decision).increment(1);
        metrics::seconds(route).record(self.began.elapsed());
        let failed = ended.failed.as_ref().filter(|_| self.passed());
        let cause = failed.and_then(|failed| failed.cause);
        if let (Some(cause), Some(upstream)) = (cause, upstream) {
            metrics::upstream_failures(upstream, cause).increment(1);
        }
        if logged == LoggedRequests::Rejected && self.passed() && ended.failed.is_none() {
            return;
        }
        let could_not_decide =
            !self.passed() && ended.status.is_some_and(|status| status.is_server_error());
        self.write(ended, route, upstream, cause.is_some() || could_not_decide);
    }

    fn passed(&self) -> bool {
        matches!(self.decision, "accepted" | "public" | "preflight")
    }

    fn write(&self, ended: &Ended, route: Option<&str>, upstream: Option<&str>, is_fault: bool) {
        /// The level of an event is part of its declaration.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "dpop_gateway::request",
                    listener = self.listener,
                    method = self.method.as_ref().map(short),
                    path = self.path,
                    route,
                    peer = ended.peer,
                    protocol = ended.protocol.map(protocol),
                    decision = self.decision,
                    reason = self.explanation.reason,
                    description = self.explanation.description,
                    expected = self.explanation.expected,
                    detail = self.explanation.detail,
                    hint = self.explanation.hint,
                    scheme = self.explanation.scheme,
                    jkt = self.explanation.jkt,
                    status = ended.status.map(|status| status.as_u16()),
                    upstream,
                    server = self.server,
                    error = ended.failed.as_ref().map(|failed| failed.description.as_str()),
                    duration_ms = milliseconds(self.began),
                    sent = ended.sent,
                    "request"
                )
            };
        }
        if is_fault { line!(error) } else { line!(info) }
    }
}

impl Drop for Record {
    /// A request that a limit of time has ended, or whose peer was gone before there was a decision. Its proof may be used up,
    /// and the service may have had it.
    fn drop(&mut self) {
        metrics::in_flight().decrement(1.0);
        if self.ended || self.method.is_none() {
            return;
        }
        let dropped = Ended {
            peer: None,
            protocol: None,
            status: None,
            sent: 0,
            failed: Some(Failed {
                description: "dropped before its end".to_owned(),
                cause: None,
            }),
        };
        self.end(&dropped, LoggedRequests::All);
    }
}

fn name(decision: &Decision, explanation: &Explanation) -> &'static str {
    match decision {
        Decision::Pass(passed) if passed.route.settings.access == Access::Public => "public",
        Decision::Pass(_) if explanation.is_decision => "accepted",
        Decision::Pass(_) => "preflight",
        Decision::Respond(_) if explanation.reason.is_some() => "rejected",
        Decision::Respond(response) => match response.status() {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            status if status.is_success() => "preflight",
            status if status.is_client_error() => "bad_request",
            _ => "error",
        },
    }
}

/// The path in visible ASCII, and cut: clients choose it.
fn printable(path: &str) -> String {
    const MAX_LENGTH: usize = 256;
    let mut printable = String::with_capacity(path.len().min(MAX_LENGTH));
    for byte in path.bytes() {
        if printable.len() >= MAX_LENGTH {
            printable.push_str("...");
            break;
        }
        if byte.is_ascii_graphic() {
            printable.push(char::from(byte));
        } else {
            let _ = write!(printable, "%{byte:02X}");
        }
    }
    printable
}

/// A method is visible ASCII, and clients can invent long ones.
fn short(method: &Method) -> &str {
    match method.as_str() {
        name if name.len() <= 20 => name,
        _ => "_OTHER",
    }
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

fn milliseconds(began: Instant) -> f64 {
    // Microseconds of any request are far below 2^52.
    #[expect(clippy::cast_precision_loss)]
    let microseconds = began.elapsed().as_micros() as f64;
    microseconds / 1000.0
}
