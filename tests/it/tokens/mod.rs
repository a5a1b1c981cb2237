mod cache;
mod issuers;
mod jwt;
