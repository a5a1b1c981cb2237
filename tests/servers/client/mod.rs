mod crate_oauth2;
mod dpop_client;
mod exchange;
