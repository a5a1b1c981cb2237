mod cache;
mod claims;
mod endpoint_url;
mod issuer_key;
mod issuers;
mod jwt;
mod key_set;
mod profile;
