//! The issuer and the client of a test.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use tower_dpop::testing::{TestClient, TestClock, TestIssuer, TestRequest};

/// How clients reach the gateway. It is never compared with the address of a test.
pub const PUBLIC_URL: &str = "https://api.example.com";
const ISSUER: &str = "https://as.example.com";

pub struct Parties {
    pub issuer: TestIssuer,
    pub client: TestClient,
    clock: TestClock,
}

impl Parties {
    pub fn new() -> Self {
        let clock = TestClock::at(now());
        let issuer = TestIssuer::new(ISSUER, PUBLIC_URL).with_clock(clock.clone());
        let client = TestClient::new(&issuer).with_clock(clock.clone());
        Self {
            issuer,
            client,
            clock,
        }
    }

    /// A request that passes, for this path.
    pub fn request(&self, method: Method, path: &str) -> TestRequest {
        self.clock.set(now());
        self.client.request(method, &format!("{PUBLIC_URL}{path}"))
    }
}

/// In seconds. The clock of the kit stands still unless it is set.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}
