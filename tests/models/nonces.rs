//! `StatelessNonces`: each call issues or checks a nonce under one consistent set of secrets.

use loom::thread;
use tower_dpop::proof::{Epoch, NonceSource};
use tower_dpop::{NonceSecret, NonceSecrets, StatelessNonces, Timestamp};

use crate::explore;

const NOW: Timestamp = Timestamp::from_unix(1_700_000_000);

fn secret(byte: u8) -> NonceSecret {
    NonceSecret::from_bytes(&[byte; 32]).unwrap()
}

/// The steps of the guide: the next secret is accepted, then it issues, and the previous one is still accepted.
#[test]
fn a_rotation_rejects_no_new_nonce() {
    explore("a rotation and two requests", 1500, || {
        let nonces = StatelessNonces::new(secret(1));
        let requests = [0, 1].map(|_| {
            let nonces = nonces.clone();
            thread::spawn(move || {
                let nonce = nonces.issue(NOW, Epoch::UNKNOWN);
                assert_eq!(nonces.issued_at(nonce.as_str(), Epoch::UNKNOWN), Some(NOW));
            })
        });
        nonces.replace_secrets(NonceSecrets::from(secret(1)).add_accepted(secret(2)));
        nonces.replace_secrets(NonceSecrets::from(secret(2)).add_accepted(secret(1)));
        for request in requests {
            request.join().unwrap();
        }
    });
}
