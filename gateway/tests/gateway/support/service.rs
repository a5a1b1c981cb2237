//! A service behind the gateway, which remembers what it was sent.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::request::Parts;
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub struct Service {
    pub url: String,
    received: Arc<Mutex<Vec<(Parts, Bytes)>>>,
}

impl Service {
    /// Responds to every request with 200 and `done`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            received: Arc::default(),
        };
        let app = Router::new()
            .fallback(
                async |State(service): State<Self>, head: Parts, body: Bytes| {
                    service.received.lock().unwrap().push((head, body));
                    "done"
                },
            )
            .with_state(service.clone());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        service
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<(Parts, Bytes)> {
        self.received.lock().unwrap().clone()
    }
}
