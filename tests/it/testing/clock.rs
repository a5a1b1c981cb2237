//! The clock of a test.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use tower_dpop::proof::{IatError, ProofError};
use tower_dpop::testing::{TestClient, TestClock};

use super::{ORDERS, issuer, verifier, verify};

#[test]
fn service_issuer_and_client_share_one_clock() {
    let clock = TestClock::default();
    let issuer = issuer().with_clock(clock.clone());
    let verifier = verifier(&issuer);
    let client = TestClient::new(&issuer);
    let early = client.request(Method::GET, ORDERS);
    clock.advance(Duration::from_secs(91));
    let too_old = ProofError::Iat(IatError::TooOld { by: 1 });
    assert_eq!(verify(&verifier, &early), Err(too_old.into()));
    assert_eq!(
        verify(&verifier, &client.request(Method::GET, ORDERS)),
        Ok(())
    );
    clock.set(1_700_000_090);
    assert_eq!(verify(&verifier, &early), Ok(()), "the last second");
    clock.advance(Duration::from_secs(3600));
    let fresh = client.request(Method::GET, ORDERS);
    assert_eq!(verify(&verifier, &fresh), Ok(()), "a new token");

    // A client whose clock is wrong.
    let fast = client.with_clock(TestClock::at(clock.now().as_unix() + 31));
    let ahead = ProofError::Iat(IatError::InTheFuture { by: 1 });
    assert_eq!(
        verify(&verifier, &fast.request(Method::GET, ORDERS)),
        Err(ahead.into())
    );

    let system_time = UNIX_EPOCH + Duration::from_millis(1_234_567_890_500);
    let clock = TestClock::from(system_time);
    assert_eq!(clock.now().as_unix(), 1_234_567_890);
    let read: SystemTime = clock.read()();
    assert_eq!(read, UNIX_EPOCH + Duration::from_secs(1_234_567_890));
}
