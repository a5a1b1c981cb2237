//! `dpop explain`: which checks a request passes and fails, and by how much.
//!
//! - `arguments`: what the user gives;
//! - `request`: the request, from a pasted head or from arguments;
//! - `jwt`, `values`: reads proof and token leniently, to show what is in them;
//! - `token_rules`: what the server requires of access tokens;
//! - `probe`: asks the library about one part of a proof;
//! - `check`: one check and its result;
//! - `proof_checks`, `key_checks`, `token_checks`: the checks, in the order of the standards;
//! - `unsigned`: the decision about a token whose keys were not given;
//! - `print`: for people, and as JSON.

mod arguments;
mod request;
mod jwt;
mod values;
mod check;
mod probe;
mod proof_checks;
mod key_checks;
mod token_rules;
mod token_checks;
mod unsigned;
mod print;

use std::process::ExitCode;

use http::header::AUTHORIZATION;
use tower_dpop::proof::DPOP;
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::{Rejection, Timestamp, Verifier};

pub(crate) use crate::explain::arguments::Explain;
use crate::explain::check::{Check, Fault, Outcome, Rejected, Section};
use crate::explain::jwt::Jwt;
use crate::explain::probe::Probe;
use crate::explain::proof_checks::{Found, Window};
use crate::explain::request::Received;
use crate::explain::token_checks::FoundToken;
use crate::explain::token_rules::TokenRules;
use crate::explain::unsigned::Unsigned;
use crate::failure::{Done, Failure};
use crate::input::wait_for;
use crate::terminal::shown;

/// What is printed.
struct Explanation {
    method: String,
    url: String,
    is_guessed: bool,
    /// Whether the nonce of the server was given.
    has_nonce: bool,
    now: Timestamp,
    checks: Vec<Check>,
    decision: Result<(), Rejected>,
}

impl Explain {
    pub(crate) fn run(self) -> Done {
        let explanation = wait_for(self.explain())??;
        let printed = if self.json {
            explanation.print_json()
        } else {
            explanation.print(self.color)
        };
        printed.map_err(|error| Failure::output(&error))?;
        Ok(match explanation.decision {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(1),
        })
    }

    async fn explain(&self) -> Result<Explanation, Failure> {
        let request = self.received()?;
        let rules = self.server.rules(request.public_url.clone());
        let (now, has_nonce) = (rules.now, rules.nonce.is_some());
        let probe = Probe::new(rules, &request)?;
        let (checks, decision) = if self.is_token_request() {
            explain_token_request(&probe, &request, &self.server.window())
        } else {
            let tokens = self.tokens.rules(now).await?;
            explain_request(&probe, &request, &self.server.window(), &tokens).await?
        };
        Ok(Explanation {
            method: request.head.method.to_string(),
            url: request.url(),
            is_guessed: request.is_guessed,
            has_nonce,
            now,
            checks,
            decision,
        })
    }
}

type Explained = (Vec<Check>, Result<(), Rejected>);

/// A request to a token endpoint: a proof, and no access token.
fn explain_token_request(probe: &Probe, request: &Received, window: &Window) -> Explained {
    let fields = request.fields(&DPOP);
    let proof = Found::new(probe, request, fields.first().map(String::as_str));
    let mut checks = vec![target(probe)];
    checks.extend(proof.checks(false, window));
    checks.push(replay());
    let endpoint = TokenEndpoint::new(probe.rules().to_proof_rules());
    let decision = endpoint.check(&request.head).map(|_| ());
    (checks, decision.map_err(Rejected::from))
}

/// A request to a resource server.
async fn explain_request(
    probe: &Probe,
    request: &Received,
    window: &Window,
    tokens: &TokenRules,
) -> Result<Explained, Failure> {
    let fields = request.fields(&DPOP);
    let proof = Found::new(probe, request, fields.first().map(String::as_str));
    let authorization = request.fields(&AUTHORIZATION);
    let presented = authorization
        .first()
        .and_then(|field| field.split_once(' '));
    // A malformed field has no token, which its own check reports.
    let presented = presented.map_or("", |(_, token)| token.trim());
    let presented = if presented.contains(' ') {
        ""
    } else {
        presented
    };
    let token = FoundToken::new(tokens, presented)?;

    let mut checks = vec![credentials(probe, request).await, target(probe)];
    checks.extend(proof.checks(true, window));
    let no_token = || Outcome::not_checked("there is no access token");
    if !fields.is_empty() {
        let ath = match presented {
            "" => no_token(),
            token => proof.ath(token).await,
        };
        checks.push(Check::of_proof(12, "ath", ath));
    }
    let binding = if presented.is_empty() {
        no_token()
    } else {
        checks.extend(token.checks().await);
        token.binding(probe, &proof).await
    };
    checks.push(Check {
        number: Some(12),
        ..Check::new(Section::Binding, "cnf.jkt", binding)
    });
    checks.push(replay());

    let rules = probe.rules().to_proof_rules();
    let decision = if let Some(keys) = &tokens.keys {
        let verifier = tokens.verifier(Jwt::of_token(presented).as_ref(), keys.clone());
        let verifier = Verifier::new(rules, verifier);
        verifier.verify(&request.head).await.map(|_| ())
    } else {
        let verifier = Verifier::new(rules, Unsigned::new(token, &proof));
        verifier.verify(&request.head).await.map(|_| ())
    };
    Ok((checks, decision.map_err(Rejected::from)))
}

/// RFC 9449 section 7.1: one field, the scheme, the form of the token.
async fn credentials(probe: &Probe, request: &Received) -> Check {
    let mut head = request.head.clone();
    head.headers.remove(DPOP);
    let outcome = match probe.credentials(&head).await {
        Err(rejected @ Rejection::Credentials(_)) => {
            let fields = request.fields(&AUTHORIZATION);
            let described: Vec<_> = fields.iter().map(|field| described(field)).collect();
            Fault::of(rejected)
                .found(match described.as_slice() {
                    [] => "no Authorization field".to_owned(),
                    [one] => one.clone(),
                    several => format!("{} fields: {}", several.len(), several.join("; ")),
                })
                .expected("one field: DPoP and the access token, of at most 32 KiB")
                .into()
        }
        _ => Outcome::passed("scheme DPoP"),
    };
    Check::new(Section::Request, "Authorization", outcome)
}

/// The scheme of an `Authorization` field, and how much follows: that is a secret.
fn described(field: &str) -> String {
    let mut words = field.split(' ').filter(|word| !word.is_empty());
    let scheme = shown(words.next().unwrap_or_default());
    match (words.next(), words.count()) {
        (None, _) => format!("{scheme} and nothing else"),
        (Some(token), 0) => format!("{scheme} and {} bytes", token.len()),
        (Some(_), more) => format!("{scheme} and {} words", more + 1),
    }
}

/// A request has a URL that a proof can name.
fn target(probe: &Probe) -> Check {
    let outcome = match probe.target() {
        Ok(()) => Outcome::passed(""),
        Err(rejected) => Fault::of(rejected)
            .expected(format!("a request for {}", probe.rules().public_url))
            .into(),
    };
    Check::new(Section::Request, "request target", outcome)
}

/// RFC 9449 section 11.1.
fn replay() -> Check {
    let why = "only the server knows whether the proof was used before";
    Check::new(Section::Binding, "first use", Outcome::not_checked(why))
}
