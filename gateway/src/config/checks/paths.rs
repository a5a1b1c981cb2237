//! Paths in the form that requests have them.

use percent_encoding::percent_decode_str;

/// What is wrong with a path of the configuration: with it, no request would ever match, or not the one that is meant.
pub(super) fn problem(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some("must begin with /".to_owned());
    }
    if path.contains(['?', '#']) {
        return Some("must be a path only, without a query or a fragment".to_owned());
    }
    if path.contains("//") {
        return Some("must have no empty segment (//)".to_owned());
    }
    if path
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return Some("must have no segment . or ..".to_owned());
    }
    if path.contains(';') || path.split('/').any(|segment| segment.ends_with('.')) {
        return Some("must have no ; and no dot at the end of a segment: services read these in different ways".to_owned());
    }
    if path.contains(['*', '{']) || path.contains("/:") {
        return Some(
            "must have no pattern (*, {name}, :name): a path is also all below it".to_owned(),
        );
    }
    if let Some(other) = path.chars().find(|c| !is_in_a_path(*c) && *c != '%') {
        let problem = format!("must not have {other:?}, which requests have percent-encoded");
        return Some(problem);
    }
    let mut encoded = path.split('%').skip(1);
    let problem = encoded.find_map(|after| {
        let Some(digits) = after.get(..2) else {
            return Some("must have two hexadecimal digits after each %".to_owned());
        };
        encoding_problem(digits)
    });
    problem.or_else(|| decoded_problem(path))
}

fn decoded_problem(path: &str) -> Option<String> {
    let Ok(decoded) = percent_decode_str(path).decode_utf8() else {
        return Some("must be UTF-8 when it is decoded".to_owned());
    };
    let mut segments = decoded.split('/');
    let is_cut = segments.any(|segment| segment.trim_matches(' ') != segment);
    is_cut.then(|| {
        "must have no space at an end of a segment: services read it in different ways".to_owned()
    })
}

fn is_in_a_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@".contains(c)
}

fn encoding_problem(digits: &str) -> Option<String> {
    let is_upper = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
    if !digits.chars().all(is_upper) {
        return Some("must have two hexadecimal digits in upper case after each %".to_owned());
    }
    let byte = u8::from_str_radix(digits, 16).ok()?;
    let c = char::from(byte);
    if c.is_ascii_control() || "/\\%;?#".contains(c) {
        return Some(format!(
            "must not have %{digits}: services read it in different ways"
        ));
    }
    let needs_none = c.is_ascii_alphanumeric() || "-._~".contains(c);
    needs_none.then(|| format!("must have {c} instead of %{digits}"))
}
