//! Any lines of `WWW-Authenticate`: no panic, and no more challenges than are read.
#![no_main]

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tower_dpop::client::Challenge;

fuzz_target!(|lines: Vec<&[u8]>| {
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, line);
        }
    }
    let challenges = Challenge::from_headers(&headers);
    assert!(challenges.len() <= 16);
    for challenge in &challenges {
        let _ = challenge.is_scheme("DPoP");
        for name in ["error", "algs", ""] {
            let _ = challenge.parameter(name);
        }
        let _ = format!("{challenge:?}");
    }
});
