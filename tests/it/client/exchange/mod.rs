mod clock;
mod demands;
mod destination;
mod inner_service;
