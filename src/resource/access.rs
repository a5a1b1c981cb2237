//! The token of a request, for handlers that make their own decision behind the layer and reject
//! requests as the layer would.

use std::fmt;

use http::{Extensions, Response};

use crate::resource::bearer::{AcceptedToken, BearerError};
use crate::resource::guard::{Enforcement, Guard};
use crate::resource::rejection::Rejection;
use crate::resource::requirement::{AuthorizationError, Requirement};
use crate::tokens::claims::Claims;

/// The access token of a request. A handler that decides for itself can also reject the request with it.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower_dpop::resource::{Access, ScopeRequirement};
/// use tower_dpop::Claims;
///
/// fn orders(request: &Request<String>, needed: &ScopeRequirement) -> Response<String> {
///     let Some(access) = Access::<Claims>::of(request.extensions()) else {
///         unreachable!("the layer has put it there");
///     };
///     match access.check(needed) {
///         Ok(()) => Response::new(format!("hello {}", access.token().claims().subject().unwrap_or("a machine"))),
///         Err(denied) => denied.into_response(), // 403, in the scheme that was used
///     }
/// }
/// # let _ = orders;
/// ```
pub struct Access<C = Claims> {
    token: AcceptedToken<C>,
    guard: Guard,
}

impl<C: Send + Sync + 'static> Access<C> {
    /// The access of a request that the layer accepted with a token.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        Some(Self {
            token: AcceptedToken::of(extensions)?,
            guard: extensions.get::<Guard>()?.clone(),
        })
    }
}

impl<C> Access<C> {
    /// The token.
    pub const fn token(&self) -> &AcceptedToken<C> {
        &self.token
    }

    /// The claims of the token.
    pub fn claims(&self) -> &C {
        self.token.claims()
    }

    /// Checks whether the token is sufficient. In report-only mode it always is, and an unmet
    /// requirement is only reported, in an event and in the metrics.
    pub fn check(&self, requirement: &impl Requirement<C>) -> Result<(), Denied> {
        match (self.evaluate(requirement), self.guard.enforcement) {
            (Ok(()), _) => Ok(()),
            (Err(rejection), Enforcement::Enforced) => Err(Denied::by(&self.guard, rejection)),
            (Err(rejection), _) => {
                self.guard.report(&rejection);
                Ok(())
            }
        }
    }

    pub(crate) fn evaluate(&self, requirement: &impl Requirement<C>) -> Result<(), Rejection> {
        let now = self.guard.policy.now();
        let reported_in_its_scheme = |error: AuthorizationError| match self.token {
            AcceptedToken::Bearer(_) => Rejection::Bearer(BearerError::Authorization(error)),
            AcceptedToken::Bound(_) => Rejection::Authorization(error),
        };
        requirement
            .check(self.token.claims(), now)
            .map_err(reported_in_its_scheme)
    }
}

/// Whether the outer layer lets requests through without a token, so that a handler may find none.
#[cfg(feature = "axum")]
pub(crate) fn may_lack_token(extensions: &Extensions) -> bool {
    extensions
        .get::<Guard>()
        .is_some_and(|guard| guard.enforcement != Enforcement::Enforced)
}

/// The rejection of a request under the Bearer scheme, if the token must be bound. `None` for any
/// other request, and in report-only mode.
#[cfg(feature = "axum")]
pub(crate) fn deny_bearer<C: Send + Sync + 'static>(extensions: &Extensions) -> Option<Denied> {
    extensions.get::<crate::resource::bearer::BearerToken<C>>()?;
    let guard = extensions.get::<Guard>()?;
    (guard.enforcement == Enforcement::Enforced)
        .then(|| Denied::by(guard, BearerError::Unbound.into()))
}

/// The rejection of a request whose token is not sufficient. [`Access`] makes it.
#[derive(Debug)]
pub struct Denied {
    rejection: Box<Rejection>,
    response: Response<()>,
}

impl Denied {
    fn by(guard: &Guard, rejection: Rejection) -> Self {
        Self {
            response: guard.reject(rejection.clone()),
            rejection: Box::new(rejection),
        }
    }

    /// Why the request is rejected.
    pub fn rejection(&self) -> &Rejection {
        &self.rejection
    }

    /// The response: status, challenge, the [`Rejection`] in its extensions, and an empty body.
    pub fn into_response<B: Default>(self) -> Response<B> {
        self.response.map(|()| B::default())
    }
}

impl<C> fmt::Debug for Access<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
