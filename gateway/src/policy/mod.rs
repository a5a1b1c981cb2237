//! May the request pass, and what does its service learn of the client?
//!
//! The reverse proxy and forward authentication ask the same [`Policy`]. It finds the route of the request, and gives the
//! request to the layers of `tower_dpop` that this route has.

mod decision;
mod identity;
mod layers;
mod routes;

pub(crate) use decision::{Decision, Passed, Policy, Question};
pub(crate) use identity::IdentityFields;
pub(crate) use routes::Route;
