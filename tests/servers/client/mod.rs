mod dpop_client;
mod exchange;
