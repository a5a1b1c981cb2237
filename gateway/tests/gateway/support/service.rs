//! A service behind the gateway, which remembers what it was sent.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub struct Service {
    pub url: String,
    received: Arc<Mutex<Vec<(Parts, Bytes)>>>,
    responds: Arc<Mutex<(StatusCode, HeaderMap)>>,
}

impl Service {
    /// Responds to every request with `done`, and with 200 unless [`respond_with`](Self::respond_with) sets another status.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            received: Arc::default(),
            responds: Arc::default(),
        };
        let app = Router::new()
            .fallback(
                async |State(service): State<Self>, head: Parts, body: Bytes| {
                    service.received.lock().unwrap().push((head, body));
                    let (status, fields) = service.responds.lock().unwrap().clone();
                    (status, fields, "done")
                },
            )
            .with_state(service.clone());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        service
    }

    /// Sets the status and the header fields of all further responses.
    pub fn respond_with(&self, status: StatusCode, fields: HeaderMap) {
        *self.responds.lock().unwrap() = (status, fields);
    }

    /// A configuration with one listener, and routes to this service (`upstream = "service"`).
    pub fn behind(&self, routes: &str) -> String {
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.service]\nservers = [{:?}]\n{routes}",
            self.url
        )
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<(Parts, Bytes)> {
        self.received.lock().unwrap().clone()
    }
}
