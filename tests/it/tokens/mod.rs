mod cache;
mod claims;
mod issuers;
mod jwt;
mod key_set;
