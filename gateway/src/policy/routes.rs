//! Finds the route of a request.
//!
//! The longest path applies that is equal to the request's path, or a parent of it. If no route with this path has the
//! request's method, it gets 405; a shorter path is not tried, so that `POST /admin` cannot pass by the rules of `/` because
//! the route `/admin` is for `GET`. At one path, an `exact` route comes before one that is not, and one with methods before
//! one for all. As in axum, a route for `GET` is also for `HEAD`.
//!
//! All readings of the path must lead to the same route ([`paths`](crate::policy::paths)). If they do, the path is passed on
//! as it was sent.

use std::sync::Arc;

use http::Method;

use crate::config::{self, ConfigError, Document};
use crate::policy::layers::Layers;
use crate::policy::paths::{Path, READINGS, Rest};

/// A route, and the layers that decide about its requests.
pub(crate) struct Route {
    pub(crate) settings: config::Route,
    methods: Vec<Method>,
    pub(crate) layers: Layers,
}

/// The longest path first.
pub(crate) struct Routes(Vec<Place>);

/// A path, and its routes: exact ones first, then those with methods.
struct Place {
    readings: [String; READINGS],
    routes: Vec<Arc<Route>>,
}

pub(crate) enum Found {
    Route(Arc<Route>),
    None,
    /// There is a route for the path, but not for this method. With the value of `Allow`.
    Method(String),
    /// Services could read the path differently than the gateway does, and it would match another route.
    Ambiguous,
    /// The path has characters that must be percent-encoded.
    Malformed,
}

impl Routes {
    pub(crate) fn new(
        document: &Document,
        layers: impl Fn(&config::Route) -> Result<Layers, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut places: Vec<Place> = Vec::new();
        for settings in &document.route {
            let readings = readings(&settings.path)?;
            let methods = settings.methods.iter();
            let methods = methods.map(|method| config::parsed("route.methods", method));
            let route = Arc::new(Route {
                methods: methods.collect::<Result<_, _>>()?,
                layers: layers(settings)?,
                settings: settings.clone(),
            });
            match places.iter_mut().find(|place| place.readings == readings) {
                Some(place) => place.routes.push(route),
                None => places.push(Place {
                    readings,
                    routes: vec![route],
                }),
            }
        }
        places.sort_by_key(|place| std::cmp::Reverse(place.readings[0].len()));
        for place in &mut places {
            place
                .routes
                .sort_by_key(|route| (!route.settings.exact, route.methods.is_empty()));
        }
        Ok(Self(places))
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Found {
        // `OPTIONS *` is about the server, not about a path.
        if path == "*" {
            return Found::None;
        }
        let Some(path) = Path::read(path) else {
            return Found::Malformed;
        };
        let mut found = None;
        for (number, reading) in path.readings.iter().enumerate() {
            let there = self.routes_of(number, reading);
            let candidates = match path.rest {
                Rest::None => there,
                // Servers may read this path, or any below it.
                Rest::Unclear => {
                    let below = self.routes_of(number, &format!("{reading}/?"));
                    if !same(there, below) || self.has_places_below(number, reading) {
                        return Found::Ambiguous;
                    }
                    below
                }
            };
            if found.is_some_and(|found| !same(found, candidates)) {
                return Found::Ambiguous;
            }
            found = Some(candidates);
        }
        of_method(found.unwrap_or_default(), method)
    }

    /// The routes at the most specific place of a path.
    fn routes_of(&self, number: usize, path: &str) -> &[Arc<Route>] {
        let of_place = |place: &'_ Place| match path.strip_prefix(&*place.readings[number])? {
            "" => Some(0),
            below if below.starts_with('/') => Some(place.exact()),
            _ => None,
        };
        let mut found = self.0.iter().filter_map(|place| {
            let routes = &place.routes[of_place(place)?..];
            (!routes.is_empty()).then_some(routes)
        });
        found.next().unwrap_or_default()
    }

    fn has_places_below(&self, number: usize, path: &str) -> bool {
        self.0.iter().any(|place| {
            let below = place.readings[number].strip_prefix(path);
            below.is_some_and(|below| below.starts_with('/'))
        })
    }
}

impl Place {
    /// How many come first.
    fn exact(&self) -> usize {
        self.routes.partition_point(|route| route.settings.exact)
    }
}

fn same(one: &[Arc<Route>], other: &[Arc<Route>]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| Arc::ptr_eq(one, other))
}

fn of_method(routes: &[Arc<Route>], method: &Method) -> Found {
    let with = |method: &Method| {
        let mut routes = routes.iter();
        routes.find(|route| route.methods.is_empty() || route.methods.contains(method))
    };
    let found = match with(method) {
        None if *method == Method::HEAD => with(&Method::GET),
        found => found,
    };
    match found {
        Some(route) => Found::Route(Arc::clone(route)),
        None if routes.is_empty() => Found::None,
        None => Found::Method(allowed(routes)),
    }
}

fn allowed(routes: &[Arc<Route>]) -> String {
    let mut allowed: Vec<&str> = Vec::new();
    for method in routes.iter().flat_map(|route| &route.methods) {
        let with_get = (*method == Method::GET).then_some("HEAD");
        for name in [method.as_str()].into_iter().chain(with_get) {
            if !allowed.contains(&name) {
                allowed.push(name);
            }
        }
    }
    allowed.join(", ")
}

/// `/orders/` is the same as `/orders`.
fn readings(path: &str) -> Result<[String; READINGS], ConfigError> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let read = Path::read(if trimmed.is_empty() { "/" } else { trimmed });
    match read.filter(|read| read.rest == Rest::None && path.starts_with('/')) {
        Some(read) => Ok(read.readings),
        None => Err(ConfigError {
            place: format!("route {path}: path"),
            problem: "expected a path that all servers read in the same way".to_owned(),
        }),
    }
}
