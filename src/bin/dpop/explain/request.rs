//! The request that is explained: from a pasted head, or from arguments.

use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use tower_dpop::PublicUrl;
use tower_dpop::proof::DPOP;

use crate::failure::Failure;

/// A request as the server received it.
pub(crate) struct Received {
    pub(crate) head: Parts,
    pub(crate) public_url: PublicUrl,
    /// Whether the public URL was taken from the `Host` field.
    pub(crate) is_guessed: bool,
}

/// Begins a line that was not sent, as in the output of `curl -v`.
const NOTE: &str = "* ";

/// More header fields are no request.
const MAX_FIELDS: usize = 200;

impl Received {
    /// A request to this URL.
    pub(crate) fn to(
        url: &Uri,
        method: Method,
        authorization: Option<&str>,
        proof: Option<&str>,
    ) -> Result<Self, Failure> {
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(Failure::usage(
                "the URL must be absolute: https://host/path",
            ));
        };
        let public_url =
            parse_public_url(&format!("{scheme}://{authority}")).map_err(Failure::usage)?;
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(Failure::usage)?;
        let headers = request.headers_mut();
        for (name, value) in [(AUTHORIZATION, authorization), (DPOP, proof)] {
            if let Some(value) = value {
                headers.insert(name.clone(), field_value(name.as_str(), value)?);
            }
        }
        Ok(Self {
            head: request.into_parts().0,
            public_url,
            is_guessed: false,
        })
    }

    /// A request whose head was pasted: a request line and header fields, as they are sent or as `curl -v` shows them.
    pub(crate) fn pasted(text: &str, public_url: Option<PublicUrl>) -> Result<Self, Failure> {
        // `curl -v` marks what it sends with `>`, what it receives with `<` and its own words with `*`.
        let marked = text.lines().any(|line| line.starts_with('>'));
        let mut lines = text
            .lines()
            .filter_map(|line| {
                if marked {
                    line.strip_prefix('>').map(str::trim)
                } else {
                    Some(line.trim())
                }
            })
            .skip_while(|line| line.is_empty() || line.starts_with(NOTE));
        let line = lines
            .next()
            .ok_or_else(|| Failure::usage("--request: it is empty"))?;
        let (method, uri, version) = request_line(line).ok_or_else(|| {
            Failure::usage(
                "--request: the first line must be a request line, like `GET /orders HTTP/1.1`",
            )
        })?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
            if count == MAX_FIELDS {
                return Err(Failure::usage("--request: too many header fields"));
            }
            let (name, value) = field(line).ok_or_else(|| {
                Failure::usage(format_args!(
                    "--request: header field {} is not of the form `name: value`",
                    count + 1
                ))
            })?;
            request.headers_mut().append(name, value);
        }
        let (head, ()) = request.into_parts();
        let is_guessed = public_url.is_none();
        let public_url = match public_url {
            Some(url) => url,
            None => match noted_origin(text) {
                Some(url) => url,
                None => guess(&head)?,
            },
        };
        Ok(Self {
            head,
            public_url,
            is_guessed,
        })
    }

    /// The URL of the request, as clients reach the server.
    pub(crate) fn url(&self) -> String {
        let path = match self.head.uri.path() {
            "*" => "",
            path => path,
        };
        format!("{}{path}", self.public_url)
    }

    /// The values of a field. Each is text: a proof or a token with other bytes is shown without them.
    pub(crate) fn fields(&self, name: &HeaderName) -> Vec<String> {
        fields(&self.head.headers, name)
    }
}

fn fields(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

/// A public URL, which may be `http`: whether a server would be configured so is not the question here.
pub(crate) fn parse_public_url(url: &str) -> Result<PublicUrl, String> {
    PublicUrl::insecure_http(url).map_err(|error| error.to_string())
}

fn request_line(line: &str) -> Option<(Method, Uri, Version)> {
    let mut words = line.split_ascii_whitespace();
    let method = words.next()?.parse().ok()?;
    let uri = words.next()?.parse().ok()?;
    let version = match words.next()? {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/2" | "HTTP/2.0" => Version::HTTP_2,
        "HTTP/3" | "HTTP/3.0" => Version::HTTP_3,
        _ => return None,
    };
    words.next().is_none().then_some((method, uri, version))
}

fn field(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.parse().ok()?, value.trim().parse().ok()?))
}

fn field_value(name: &str, value: &str) -> Result<HeaderValue, Failure> {
    value.parse().map_err(|_| {
        Failure::usage(format_args!(
            "the field {name} cannot have this value: it has a control character"
        ))
    })
}

/// The scheme and host, as `dpop curl --save-request` notes them in the first line.
fn noted_origin(text: &str) -> Option<PublicUrl> {
    parse_public_url(text.lines().next()?.strip_prefix(NOTE)?).ok()
}

/// The public URL, by the field that servers do not trust.
fn guess(head: &Parts) -> Result<PublicUrl, Failure> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host =
        host.ok_or_else(|| Failure::usage("--request: it has no Host field: add --public-url"))?;
    let http: Option<PublicUrl> = format!("http://{host}").parse().ok();
    // Plain http is a public URL on this machine only.
    http.map_or_else(
        || parse_public_url(&format!("https://{host}")).map_err(Failure::usage),
        Ok,
    )
}
