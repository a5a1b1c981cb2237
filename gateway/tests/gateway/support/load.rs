//! Clients that send requests all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;

use super::{Certificate, Parties, Program};

pub struct Load {
    state: Arc<State>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct State {
    succeeded: AtomicUsize,
    stop: AtomicBool,
    /// From now on, no connection has to be possible.
    may_be_refused: AtomicBool,
}

impl Load {
    /// With HTTP/2, with HTTP/1.1, and with a new connection for each request. Each client trusts these certificates.
    pub fn start(parties: &Arc<Parties>, program: &Arc<Program>, trusted: &[Certificate]) -> Self {
        let mut load = Self {
            state: Arc::default(),
            clients: JoinSet::new(),
        };
        let roots = || {
            let pem = trusted.iter().map(|certificate| certificate.pem.as_bytes());
            let roots = pem.map(|pem| reqwest::Certificate::from_pem(pem).unwrap());
            let client = program.client(reqwest::Client::builder());
            // A request that hangs would end the test without a reason.
            client
                .tls_certs_only(roots)
                .timeout(Duration::from_secs(50))
        };
        for client in [
            roots(),
            roots().http1_only(),
            roots().http1_only(),
            roots().http1_only().pool_max_idle_per_host(0),
        ] {
            let client = client.build().unwrap();
            let (parties, program) = (Arc::clone(parties), Arc::clone(program));
            let state = Arc::clone(&load.state);
            load.clients.spawn(async move {
                while !state.stop.load(Ordering::Relaxed) {
                    let request = parties.request(Method::GET, "/orders");
                    match program.send(&client, &request).await {
                        Ok(status) => assert_eq!(status, 200, "{}", program.log()),
                        Err(error) => {
                            let may_be = state.may_be_refused.load(Ordering::Relaxed);
                            assert!(may_be && error.is_connect(), "{error:?}\n{}", program.log());
                            return;
                        }
                    }
                    state.succeeded.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Waits until so many more requests have succeeded.
    pub async fn more(&mut self, requests: usize) {
        let goal = self.state.succeeded.load(Ordering::Relaxed) + requests;
        while self.state.succeeded.load(Ordering::Relaxed) < goal {
            let tick = tokio::time::sleep(Duration::from_millis(5));
            tokio::select! {
                () = tick => {}
                Some(ended) = self.clients.join_next() => ended.unwrap(),
            }
            assert!(!self.clients.is_empty(), "all clients have ended");
        }
    }

    /// From now on, a client whose connection is refused ends.
    pub fn may_be_refused(&self) {
        self.state.may_be_refused.store(true, Ordering::Relaxed);
    }

    /// Waits until all clients have ended: they stop, or are refused. None of their requests has failed.
    pub async fn end(mut self) {
        if !self.state.may_be_refused.load(Ordering::Relaxed) {
            self.state.stop.store(true, Ordering::Relaxed);
        }
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}
