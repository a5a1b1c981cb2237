mod cache;
mod claims;
mod endpoint_url;
mod issuers;
mod jwt;
mod key_set;
