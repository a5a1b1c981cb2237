//! The keys as a verifier uses them (`src/tokens/jwks/remote_keys.rs`).

use super::*;

/// A3: a key that the issuer signs with before anyone fetched it.
#[test]
fn looks_for_a_key_that_it_does_not_know() {
    block_on(async {
        let mut world = World::new().await;
        let tokens = world.verifier(world.keys().await);
        let old = world.token().to_text();
        assert_eq!(verify(&tokens, &old, at(0)).await, Ok(()));
        assert_eq!(world.fetches(), 0);

        world.rotate("2");
        let new = world.token().to_text();
        assert_eq!(verify(&tokens, &new, at(1)).await, Ok(()), "an unknown kid");
        assert_eq!(world.fetches(), 1);

        world.rotate("2");
        let other = world.token().to_text();
        assert_eq!(
            verify(&tokens, &other, at(6)).await,
            Ok(()),
            "a known kid, another key"
        );
        assert_eq!(
            verify(&tokens, &new, at(6)).await,
            Err(TokenError::Signature)
        );
        assert_eq!(world.fetches(), 2);

        let unnamed = world.issuer.clone().with_key("3", Key::es256());
        world.server.set(KEYS, Reply::text(unnamed.jwks()));
        world.issuer = unnamed;
        let nameless = world.token().without_header("kid").to_text();
        assert_eq!(verify(&tokens, &nameless, at(11)).await, Ok(()), "no kid");
        assert_eq!(world.fetches(), 3);
    });
}

/// R-AT.4: whichever of the issuer's keys it was, and however they are labelled.
#[test]
fn verifies_by_keys_of_one_name_and_by_keys_without_one() {
    block_on(async {
        let world = World::new().await;
        let issuer = &world.issuer;
        let twins = issuer
            .clone()
            .add_key("1", Key::es256())
            .add_key("1", Key::ed25519("EdDSA"));
        let mut nameless = jwks(&twins);
        for key in nameless["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().remove("kid");
        }
        let mut with_others = jwks(&twins);
        with_others["keys"].as_array_mut().unwrap().extend([
            json!({ "kty": "RSA", "use": "enc", "kid": "1", "n": "AQAB", "e": "AQAB" }),
            json!({ "kty": "oct", "kid": "1", "k": "c2VjcmV0" }),
            json!({ "kty": "of the future", "kid": "1" }),
            json!(7),
        ]);
        let rows = [
            ("one name", jwks(&twins)),
            ("no names", nameless),
            ("among keys of no use", with_others),
        ];
        for (name, document) in rows {
            world.server.set(KEYS, Reply::text(document.to_string()));
            let keys = world.keys().await;
            assert_eq!(keys.status().keys, 3, "{name}");
            let tokens = world.verifier(keys);
            for signer in [issuer, &twins, &twins.clone().add_key("1", Key::es256())] {
                let token = signer.token_for(keys::client().thumbprint()).to_text();
                let expected = if signer.jwks().len() > twins.jwks().len() {
                    Err(TokenError::Signature)
                } else {
                    Ok(())
                };
                assert_eq!(verify(&tokens, &token, at(0)).await, expected, "{name}");
            }
        }
    });
}

/// R-AT.9: a token that was found good is rejected when its key is gone, cached or not.
#[test]
fn a_verdict_ends_with_the_key_it_rests_on() {
    block_on(async {
        let mut world = World::new().await;
        let remote = world.keys().await;
        let tokens = world.verifier(remote.clone());
        let token = world.token().to_text();
        assert_eq!(verify(&tokens, &token, at(0)).await, Ok(()));

        world.rotate("2");
        assert_eq!(
            verify(&tokens, &token, at(449)).await,
            Ok(()),
            "its keys still live"
        );
        assert_eq!(
            verify(&tokens, &token, at(450)).await,
            Ok(()),
            "fetched in the background"
        );
        until(|| remote.status().fetched == Some(at(450))).await;
        assert_eq!(verify(&tokens, &token, at(451)).await, Err(TokenError::Key));
        assert_eq!(
            verify(&tokens, &world.token().to_text(), at(451)).await,
            Ok(())
        );
    });
}

/// The three ways to start while the issuer is down.
#[test]
fn starts_without_the_issuer_in_one_of_three_ways() {
    block_on(async {
        let world = World::new().await;
        world.server.set(OAUTH, Reply::status(503));
        let unavailable = RemoteKeysError::Status {
            document: IssuerDocument::Metadata,
            status: StatusCode::SERVICE_UNAVAILABLE,
        };

        let rejected = world.remote().fetched().await;
        assert_eq!(rejected.unwrap_err(), unavailable);
        assert_eq!(world.server.requests(), [OAUTH, OPENID]);

        let patient = tokio::spawn(world.remote().fetched_within(secs(60)));
        world.server.forget();
        world.server.asked(OAUTH, 2).await;
        world.server.set(
            OAUTH,
            Reply::metadata(&world.server.url(), &world.server.at(KEYS)),
        );
        let patient = within_reason(patient).await.unwrap().unwrap();
        assert_eq!(patient.status().keys, 1);
        assert_eq!(patient.status().failure, None);

        world.server.set(OAUTH, Reply::status(503));
        world.server.forget();
        let lazy = world.remote();
        let tokens = world.verifier(lazy.clone());
        let token = world.token().to_text();
        assert_eq!(
            verify(&tokens, &token, at(0)).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(
            verify(&tokens, &token, at(4)).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(world.server.requests_to(OAUTH), 1, "one attempt a cooldown");
        assert_eq!(
            (lazy.status().keys, lazy.status().failure),
            (0, Some(unavailable))
        );
        world.server.set(
            OAUTH,
            Reply::metadata(&world.server.url(), &world.server.at(KEYS)),
        );
        assert_eq!(verify(&tokens, &token, at(5)).await, Ok(()));
    });
}

#[test]
fn patience_ends_with_the_last_failure() {
    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        let wait = async || {
            let patient = keys.clone().fetched_within(Duration::from_millis(50));
            within_reason(patient).await.unwrap_err()
        };
        world.server.hold();
        assert_eq!(
            wait().await,
            RemoteKeysError::TimedOut,
            "no attempt has ended"
        );
        world.server.set(OAUTH, Reply::status(503));
        world.server.outcome();
        let error = keys.clone().fetched().await.unwrap_err();
        assert!(matches!(error, RemoteKeysError::Status { .. }));
        world.server.hold();
        assert_eq!(wait().await, error);
    });
}

/// For health checks, and for whoever reads the log.
#[test]
fn tells_how_it_is_and_no_url() {
    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        let status = keys.status();
        assert_eq!(
            (status.keys, status.fetched, status.failure),
            (0, None, None)
        );
        assert_eq!((status.lives_until, status.usable_until), (None, None));
        world.server.hang_up();
        let error = keys.clone().fetched().await.unwrap_err();
        assert_eq!(keys.status().failure.as_ref(), Some(&error));
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(
                !text.contains("127.0.0.1") && !text.contains("://"),
                "{text}"
            );
        }

        world.server.outcome();
        let nobody = Server::start().await.at("/nobody");
        let keys = RemoteKeys::at(nobody.parse().unwrap(), http());
        assert_eq!(
            keys.fetched().await.unwrap_err().to_string(),
            "the request for the issuer's key set failed with status 404"
        );
        let shown = format!("{:?}", world.keys().await.status());
        let x = jwks(&world.issuer)["keys"][0]["x"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(!shown.contains(&x), "{shown}");
    });
}

/// Clones are one source, and settings may be made at any time.
#[test]
fn clones_share_the_keys() {
    fn is_source<K: KeySource + Clone>(_: &K) {}

    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        is_source(&keys);
        let clone = keys.clone().with_cooldown(secs(1)).fetched().await.unwrap();
        world.server.forget();
        let set: KeySet = keys.key_set(at(0)).await.unwrap();
        assert!(set.is(&clone.key_set(at(0)).await.unwrap()));
        assert!(clone.newer_key_set(&set, at(0)).await.unwrap().is_none());
        assert!(clone.newer_key_set(&set, at(1)).await.unwrap().is_none());
        assert!(keys.newer_key_set(&set, at(2)).await.unwrap().is_none());
        assert_eq!(
            world.fetches(),
            2,
            "the last one would wait for five seconds"
        );
    });
}
