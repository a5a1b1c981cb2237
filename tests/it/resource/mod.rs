mod authorization;
mod bearer;
mod challenge;
mod cors;
mod layer;
mod metadata;
mod rejection;
mod verifier;
