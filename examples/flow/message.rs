//! A request or a response, as it is shown.

use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Request, Response};
use tower_dpop::proof::{DPOP, DPOP_NONCE};

use crate::jwt::{Json, Jwt};
use crate::story::{Party, Route};

pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) from: Party,
    pub(crate) to: Party,
    /// Method and URL without the query, or status and reason.
    pub(crate) start: String,
    /// The same for the diagram: method and path, or the status.
    pub(crate) label: String,
    /// What is in it, in a few words.
    pub(crate) about: &'static str,
    /// Header fields that have a part in the protocol.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) other_fields: Vec<(String, String)>,
    pub(crate) content: Content,
    /// The JWTs in all of this.
    pub(crate) jwts: Vec<Jwt>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Accepted,
    Rejected,
}

/// Names and values, with the name of the place where they are.
pub(crate) struct Content {
    pub(crate) place: &'static str,
    pub(crate) values: Vec<(String, String)>,
}

const SHOWN: [HeaderName; 5] = [AUTHORIZATION, DPOP, DPOP_NONCE, LOCATION, WWW_AUTHENTICATE];

impl Message {
    pub(crate) fn request(route: Route, about: &'static str, request: &Request<String>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        let url = uri.to_string();
        let content = match url.split_once('?') {
            Some((_, query)) => Content::form("query", query),
            None => Content::body(request.headers(), request.body()),
        };
        Self {
            from: route.0,
            to: route.1,
            start: format!("{method} {}", url.split('?').next().unwrap_or_default()),
            label: format!("{method} {}", uri.path()),
            ..Self::new(Kind::Request, about, request.headers(), content)
        }
    }

    pub(crate) fn response(route: Route, about: &'static str, response: &Response<String>) -> Self {
        let status = response.status();
        let kind = if status.as_u16() < 400 {
            Kind::Accepted
        } else {
            Kind::Rejected
        };
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|url| url.to_str().ok());
        let content = match location.and_then(|url| url.split_once('?')) {
            Some((_, query)) => Content::form("query of the location", query),
            None => Content::body(response.headers(), response.body()),
        };
        Self {
            from: route.1,
            to: route.0,
            start: status.to_string(),
            label: status.as_str().to_owned(),
            ..Self::new(kind, about, response.headers(), content)
        }
    }

    fn new(kind: Kind, about: &'static str, headers: &HeaderMap, content: Content) -> Self {
        let (shown, others): (Vec<_>, Vec<_>) =
            headers.iter().partition(|(name, _)| SHOWN.contains(name));
        let texts = |fields: Vec<(&HeaderName, &http::HeaderValue)>| -> Vec<(String, String)> {
            let text =
                |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            fields
                .into_iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect()
        };
        let (fields, other_fields) = (texts(shown), texts(others));
        let values = fields.iter().chain(&content.values);
        let jwts = values.filter_map(|(_, value)| Jwt::decode(value.rsplit(' ').next()?));
        Self {
            kind,
            from: Party::Client,
            to: Party::Client,
            start: String::new(),
            label: String::new(),
            about,
            jwts: jwts.collect(),
            fields,
            other_fields,
            content,
        }
    }
}

impl Content {
    fn form(place: &'static str, form: &str) -> Self {
        let pairs = form_urlencoded::parse(form.as_bytes());
        let values = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
        Self {
            place,
            values: values.collect(),
        }
    }

    /// The parameters of a form, the members of a JSON object, or one text.
    fn body(headers: &HeaderMap, body: &str) -> Self {
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        if content_type == Some("application/x-www-form-urlencoded") {
            return Self::form("form", body);
        }
        let json = Json::read(body)
            .ok()
            .filter(|json| !json.members().is_empty());
        let values = match json {
            Some(json) => {
                let members = json.members().iter();
                members
                    .map(|(name, value)| (name.clone(), value.plain()))
                    .collect()
            }
            None if body.is_empty() => Vec::new(),
            None => vec![("text".to_owned(), body.to_owned())],
        };
        Self {
            place: "body",
            values,
        }
    }
}

/// Shortens each word that is too long for a line, as JWTs are.
pub(crate) fn shortened(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let characters = word.chars().count();
        if characters <= 90 {
            return word.to_owned();
        }
        let start: String = word.chars().take(20).collect();
        let end: String = word.chars().skip(characters - 8).collect();
        format!("{start}…{end} ({characters} characters)")
    });
    words.collect::<Vec<_>>().join(" ")
}
