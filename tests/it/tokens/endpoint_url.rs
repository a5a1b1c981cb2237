//! The URLs of issuers: `https`, or `http` on this machine.

use std::mem::discriminant;

use tower_dpop::tokens::{EndpointUrl, InvalidEndpointUrl};

#[test]
fn an_endpoint_is_https_or_on_loopback() {
    use InvalidEndpointUrl::{Malformed, NotHttps};

    type Expected = Result<(), fn(String) -> InvalidEndpointUrl>;

    // The URL, the result of `parse`, and the result of `insecure_http`.
    let rows: [(&str, Expected, Expected); 54] = [
        ("https://as.example.com", Ok(()), Ok(())),
        ("https://as.example.com/", Ok(()), Ok(())),
        ("https://as.example.com:8443/tenant/1", Ok(()), Ok(())),
        ("https://as.example.com/keys?version=2", Ok(()), Ok(())),
        ("HTTPS://AS.example.com", Ok(()), Ok(())),
        ("https://192.0.2.1", Ok(()), Ok(())),
        ("https://[2001:db8::1]/", Ok(()), Ok(())),
        ("http://127.0.0.1:9000", Ok(()), Ok(())),
        ("http://127.1.2.3", Ok(()), Ok(())),
        ("http://[::1]:9000", Ok(()), Ok(())),
        ("http://localhost:9000/realm", Ok(()), Ok(())),
        ("http://as.example.com", Err(NotHttps), Ok(())),
        ("http://192.0.2.1", Err(NotHttps), Ok(())),
        ("http://0.0.0.0", Err(NotHttps), Ok(())),
        ("http://[::]", Err(NotHttps), Ok(())),
        ("http://localhost.example.com", Err(NotHttps), Ok(())),
        ("http://127.0.0.1.example.com", Err(NotHttps), Ok(())),
        ("http://127.0.0.1.", Err(NotHttps), Ok(())),
        ("http://127.1", Err(NotHttps), Ok(())),
        ("http://LOCALHOST", Ok(()), Ok(())),
        (
            "https://user@as.example.com",
            Err(Malformed),
            Err(Malformed),
        ),
        (
            "https://user:secret@as.example.com",
            Err(Malformed),
            Err(Malformed),
        ),
        (
            "https://as.example.com#part",
            Err(Malformed),
            Err(Malformed),
        ),
        ("https://as.example.com/#", Err(Malformed), Err(Malformed)),
        ("as.example.com", Err(Malformed), Err(Malformed)),
        ("//as.example.com", Err(Malformed), Err(Malformed)),
        ("/jwks", Err(Malformed), Err(Malformed)),
        ("", Err(Malformed), Err(Malformed)),
        ("https://", Err(Malformed), Err(Malformed)),
        ("https:///as.example.com", Err(Malformed), Err(Malformed)),
        ("https:as.example.com", Err(Malformed), Err(Malformed)),
        ("https:/as.example.com/?://", Err(Malformed), Err(Malformed)),
        ("https:\\\\as.example.com", Err(Malformed), Err(Malformed)),
        (
            "https://as.example.com\\@evil.example.com",
            Err(Malformed),
            Err(Malformed),
        ),
        (" https://as.example.com", Err(Malformed), Err(Malformed)),
        ("https://as.example.com\n", Err(Malformed), Err(Malformed)),
        ("https://as.\texample.com", Err(Malformed), Err(Malformed)),
        (
            "https://as.example.com:99999",
            Err(Malformed),
            Err(Malformed),
        ),
        ("file:///etc/passwd", Err(Malformed), Err(Malformed)),
        // URLs that browsers repair. The repaired URL would differ from the issuer's identifier.
        ("https://@as.example.com", Err(Malformed), Err(Malformed)),
        ("https://:@as.example.com", Err(Malformed), Err(Malformed)),
        ("http://@localhost", Err(Malformed), Err(Malformed)),
        ("http://%6cocalhost", Err(Malformed), Err(Malformed)),
        ("https://as%2eexample.com", Err(Malformed), Err(Malformed)),
        ("http://local\u{ad}host", Err(Malformed), Err(Malformed)),
        ("http://localhost\u{ad}", Err(Malformed), Err(Malformed)),
        ("http://\u{ff4c}ocalhost", Err(Malformed), Err(Malformed)),
        ("http://127。0。0。1", Err(Malformed), Err(Malformed)),
        ("https://ås.example.com", Err(Malformed), Err(Malformed)),
        ("https://as.example.com/ä", Err(Malformed), Err(Malformed)),
        ("https://xn--s-zfa.example.com", Ok(()), Ok(())),
        ("https://as.example.com/@tenant", Ok(()), Ok(())),
        ("https://as.example.com/a%20b", Ok(()), Ok(())),
        ("https://as.example.com/keys?for=a@b", Ok(()), Ok(())),
    ];
    for (url, strict, insecure) in rows {
        let parsed = url.parse::<EndpointUrl>();
        if let Ok(parsed) = &parsed {
            assert_eq!(parsed.as_str(), url, "unchanged");
            assert_eq!(parsed.to_string(), url);
        }
        let expected =
            |expected: Expected| expected.map_err(|make| discriminant(&make(String::new())));
        let kind = |parsed: Result<EndpointUrl, InvalidEndpointUrl>| {
            parsed.map(drop).map_err(|error| discriminant(&error))
        };
        assert_eq!(kind(parsed), expected(strict), "{url}");
        let parsed = EndpointUrl::insecure_http(url);
        assert_eq!(kind(parsed), expected(insecure), "{url}, insecure");
    }
}
