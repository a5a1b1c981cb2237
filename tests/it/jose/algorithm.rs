//! The JSON form of algorithms, and of thumbprints.

use serde_json::{Value, json};
use tower_dpop::{Algorithm, Thumbprint};

use super::keys::ALGORITHMS;

#[test]
fn algorithms_and_thumbprints_are_json_strings() {
    let jkt = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let thumbprint: Thumbprint = serde_json::from_str(&format!("\"{jkt}\"")).unwrap();
    assert_eq!(serde_json::to_value(thumbprint).unwrap(), json!(jkt));
    for broken in [
        json!(&jkt[1..]),
        json!(format!("{jkt}=")),
        json!(1),
        Value::Null,
    ] {
        assert!(serde_json::from_value::<Thumbprint>(broken).is_err());
    }
    for algorithm in ALGORITHMS {
        let value = serde_json::to_value(algorithm).unwrap();
        assert_eq!(value, json!(algorithm.name()));
        assert_eq!(
            serde_json::from_value::<Algorithm>(value).unwrap(),
            algorithm
        );
    }
    for broken in [
        json!("es256"),
        json!("none"),
        json!("HS256"),
        json!({ "ES256": null }),
    ] {
        assert!(serde_json::from_value::<Algorithm>(broken).is_err());
    }
}
