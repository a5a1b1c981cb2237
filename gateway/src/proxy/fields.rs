//! Names of header fields as services may read them, and the removal of fields.

use http::HeaderName;
use pingora::http::RequestHeader;

pub(super) fn remove(request: &mut RequestHeader, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<_> = request
        .headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        request.remove_header(&name);
    }
}

/// Whether services may take its value for the method or the target, instead of those that the gateway has decided about.
pub(super) fn replaces_the_target(name: &HeaderName) -> bool {
    begins(name, "x-original-")
        || begins(name, "x-rewrite-")
        || METHODS.iter().any(|known| is(name, known))
}

/// Known to Rails, Symfony, ASP.NET and others.
const METHODS: [&str; 3] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

pub(super) fn is(name: &HeaderName, known: &str) -> bool {
    folded(name).eq(known.bytes())
}

pub(super) fn begins(name: &HeaderName, start: &str) -> bool {
    folded(name).take(start.len()).eq(start.bytes())
}

/// Services may read `X_Forwarded_For` as `X-Forwarded-For`.
fn folded(name: &HeaderName) -> impl Iterator<Item = u8> {
    let fold = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            b'-'
        }
    };
    name.as_str().bytes().map(fold)
}
