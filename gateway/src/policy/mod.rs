//! May the request pass, and what does its service learn of the client?
//!
//! The reverse proxy and forward authentication ask the same [`Policy`]. It finds the route of the request, and passes the
//! request through the route's layers of `tower_dpop`.

mod cors;
mod decision;
mod identity;
mod layers;
mod paths;
mod problem;
mod routes;

pub(crate) use decision::{Decision, Passed, Policy, Question};
pub(crate) use identity::IdentityFields;
pub(crate) use problem::problem;
pub(crate) use routes::Route;
