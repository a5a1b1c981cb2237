//! How a request is sent, and when it is sent again.

mod clock;
mod demands;
mod destination;
mod inner_service;
