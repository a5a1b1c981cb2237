//! Any metadata document of an issuer: no panic, one result, short errors. An accepted document names the configured
//! issuer and leads to a URL that is as secure.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_dpop::fuzzing::read_metadata;
use tower_dpop::tokens::{EndpointUrl, RemoteKeysError};

static ISSUERS: LazyLock<[EndpointUrl; 2]> = LazyLock::new(|| {
    [
        "https://as.example.com/tenant".parse().expect("a URL"),
        EndpointUrl::insecure_http("http://as.example.com").expect("a URL"),
    ]
});

fuzz_target!(|document: &[u8]| {
    for issuer in &*ISSUERS {
        let read = read_metadata(document, issuer);
        assert_eq!(read, read_metadata(document, issuer));
        match read {
            Ok(url) => assert_is_own(document, issuer, &url),
            Err(error) => {
                // 256 characters of a text, each of which may need an escape.
                let shown = error.to_string();
                assert!(shown.len() < 4 * 1024, "{} bytes", shown.len());
                if let RemoteKeysError::Issuer { configured, found } = error {
                    assert_eq!(configured, issuer.as_str());
                    assert_ne!(configured, found);
                }
            }
        }
    }
});

fn assert_is_own(document: &[u8], issuer: &EndpointUrl, url: &str) {
    // In a member that is not read, serde_json accepts more, for example bytes that are not UTF-8.
    let Ok(value) = serde_json::from_slice::<Value>(document) else {
        return;
    };
    assert_eq!(value["issuer"], issuer.as_str());
    let written = value["jwks_uri"].as_str().expect("it was read");
    let scheme = |url: &str| url.split_once("://").expect("a URL").0.to_ascii_lowercase();
    assert_eq!(scheme(written), scheme(url));
    assert!(scheme(url) == "https" || scheme(issuer.as_str()) == "http");
    let again = EndpointUrl::insecure_http(url).expect("a URL without userinfo");
    assert_eq!(again.as_str(), url);
}
