mod checks;
mod freshness;
mod nonce;
mod replay;
mod target;
