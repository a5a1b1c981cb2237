//! Which route a request is of.

use std::sync::Arc;

use http::Method;

use crate::config::{self, ConfigError, Document};
use crate::policy::layers::Layers;

/// A route, and the layers that decide about its requests.
pub(crate) struct Route {
    pub(crate) settings: config::Route,
    methods: Vec<Method>,
    pub(crate) layers: Layers,
}

/// The longest path first; of the same paths, those with methods first.
pub(crate) struct Routes(Vec<Arc<Route>>);

pub(crate) enum Found {
    Route(Arc<Route>),
    None,
    /// There is a route, but not for this method.
    Method,
    /// Services could read the path in another way than the gateway, and it would be of another route.
    Ambiguous,
}

impl Routes {
    pub(crate) fn new(
        document: &Document,
        layers: impl Fn(&config::Route) -> Result<Layers, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut routes = Vec::new();
        for route in &document.route {
            let methods = route.methods.iter().map(|method| {
                method.parse().map_err(|_| ConfigError {
                    place: format!("route {}: methods", route.path),
                    problem: format!("{method:?} is no method"),
                })
            });
            routes.push(Arc::new(Route {
                methods: methods.collect::<Result<_, _>>()?,
                layers: layers(route)?,
                settings: route.clone(),
            }));
        }
        routes.sort_by_key(|route| {
            let settings = &route.settings;
            (
                std::cmp::Reverse(settings.path.len()),
                !settings.exact,
                route.methods.is_empty(),
            )
        });
        Ok(Self(routes))
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Found {
        let mut of_path = self.0.iter().filter(|route| route.has(path)).peekable();
        if of_path.peek().is_none() {
            return Found::None;
        }
        of_path
            .find(|route| route.methods.is_empty() || route.methods.contains(method))
            .map_or(Found::Method, |route| Found::Route(Arc::clone(route)))
    }
}

impl Route {
    fn has(&self, path: &str) -> bool {
        let own = self.settings.path.trim_end_matches('/');
        match path.strip_prefix(own) {
            Some("") => true,
            Some(below) => !self.settings.exact && below.starts_with('/'),
            None => false,
        }
    }
}
