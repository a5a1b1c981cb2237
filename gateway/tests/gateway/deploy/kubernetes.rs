//! The manifests for Kubernetes.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_yaml::Value;
use toml::{Table, Value as Toml};

use super::read;
use crate::support::Gateway;

fn manifests(is_wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let text = read("deploy/kubernetes.yaml");
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|manifest| is_wanted(manifest["kind"].as_str().unwrap()))
        .collect()
}

fn policies() -> Vec<Value> {
    manifests(|kind| kind == "NetworkPolicy")
}

fn manifest(kind: &str) -> Value {
    let [manifest] = &manifests(|other| other == kind)[..] else {
        panic!("expected one {kind}");
    };
    manifest.clone()
}

/// The configuration in the ConfigMap.
fn config_map() -> Table {
    let map = manifest("ConfigMap");
    map["data"]["gateway.toml"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn pod() -> Value {
    manifest("Deployment")["spec"]["template"]["spec"].clone()
}

pub fn container() -> Value {
    pod()["containers"][0].clone()
}

fn port_of(address: &Toml) -> u64 {
    address
        .as_str()
        .unwrap()
        .parse::<std::net::SocketAddr>()
        .unwrap()
        .port()
        .into()
}

/// The port of the container that has this name.
fn named_port(name: &Value) -> u64 {
    let ports = container()["ports"].clone();
    let mut named = ports
        .as_sequence()
        .unwrap()
        .iter()
        .filter(|port| port["name"] == *name);
    named.next().unwrap_or_else(|| panic!("no port {name:?}"))["containerPort"]
        .as_u64()
        .unwrap()
}

/// All values that are paths of files.
fn paths(value: &Toml, found: &mut Vec<String>) {
    match value {
        Toml::String(text) if text.starts_with("/run/") => found.push(text.clone()),
        Toml::Array(values) => values.iter().for_each(|value| paths(value, found)),
        Toml::Table(table) => table.values().for_each(|value| paths(value, found)),
        _ => {}
    }
}

/// Puts the files of the configuration into the folder, and replaces their paths, ports and hosts, which are not here.
fn localized(config: &Table, folder: &Path) -> String {
    let mut text = toml::to_string(config).unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let mut named = Vec::new();
    paths(&Toml::Table(config.clone()), &mut named);
    assert!(named.len() >= 5, "{named:?}");
    for path in named {
        let content = match Path::new(&path).file_name().unwrap().to_str().unwrap() {
            "nonce-secrets" => "0f".repeat(32),
            "redis-password" => "a password".to_owned(),
            "redis-ca.crt" | "tls.crt" => certificate.clone(),
            "tls.key" => key.clone(),
            other => panic!("a file that is new here: {other}"),
        };
        let local = folder.join(path.trim_start_matches('/').replace('/', "_"));
        std::fs::write(&local, content).unwrap();
        text = text.replace(&path, local.to_str().unwrap());
    }
    for port in [8443, 9464] {
        text = text.replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0");
    }
    text.replace("orders.default.svc.cluster.local", "127.0.0.1")
        .replace("redis.redis.svc.cluster.local", "127.0.0.1")
        .replace("login.example.com", "127.0.0.1:9")
}

#[tokio::test]
async fn the_program_starts_with_the_configuration_for_kubernetes() {
    let folder = tempfile::tempdir().unwrap();
    let config = localized(&config_map(), folder.path());
    let gateway = Gateway::of_document(&config).start();
    // The paths of the probes. It is not ready: neither the issuer nor Redis is here.
    let expected = [("livenessProbe", 200), ("readinessProbe", 503)];
    for (probe, status) in expected {
        let probe = container()[probe]["httpGet"].clone();
        let url = format!(
            "{}{}",
            gateway.url("operations"),
            probe["path"].as_str().unwrap()
        );
        let response = reqwest::get(url).await.unwrap();
        assert_eq!(
            response.status(),
            status,
            "{}",
            response.text().await.unwrap()
        );
    }
}

/// Each document is read as the type of the API that it names, which checks types and required fields. What is in the document
/// and not in the result is a field that the API does not know.
#[test]
fn the_api_of_kubernetes_knows_all_fields() {
    fn through<T: DeserializeOwned + Serialize>(manifest: &Value) -> Value {
        let typed: T = serde_yaml::from_value(manifest.clone()).unwrap();
        serde_yaml::to_value(typed).unwrap()
    }
    let documents = manifests(|_| true);
    assert_eq!(documents.len(), 6);
    for document in &documents {
        let kind = document["kind"].as_str().unwrap();
        let known = match kind {
            "ConfigMap" => through::<ConfigMap>(document),
            "Deployment" => through::<Deployment>(document),
            "NetworkPolicy" => through::<NetworkPolicy>(document),
            "PodDisruptionBudget" => through::<PodDisruptionBudget>(document),
            "Service" => through::<Service>(document),
            other => panic!("a kind that is new here: {other}"),
        };
        assert_contains(&known, document, kind);
    }
}

fn assert_contains(known: &Value, document: &Value, place: &str) {
    match (document, known) {
        (Value::Mapping(members), Value::Mapping(known)) => {
            for (name, value) in members {
                let place = format!("{place}.{}", name.as_str().unwrap());
                let known = known
                    .get(name)
                    .unwrap_or_else(|| panic!("{place} is not in the API"));
                assert_contains(known, value, &place);
            }
        }
        (Value::Sequence(values), Value::Sequence(known)) => {
            assert_eq!(values.len(), known.len(), "{place}");
            for (value, known) in values.iter().zip(known) {
                assert_contains(known, value, place);
            }
        }
        _ => assert_eq!(document, known, "{place}"),
    }
}

#[test]
fn ports_of_the_manifest_are_those_of_the_configuration() {
    let config = config_map();
    let operations = port_of(&config["operations"]["address"]);
    let listener = port_of(&config["listener"][0]["address"]);
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(
            named_port(&container()[probe]["httpGet"]["port"]),
            operations,
            "{probe}"
        );
    }
    let service = manifest("Service")["spec"]["ports"][0].clone();
    assert_eq!(named_port(&service["targetPort"]), listener);
    let policies = policies();
    let rules = policies[1]["spec"]["ingress"].clone();
    assert_eq!(named_port(&rules[0]["ports"][0]["port"]), listener);
    assert_eq!(named_port(&rules[1]["ports"][0]["port"]), operations);
    // Metrics are not for all.
    assert!(rules[0]["from"].is_null() && rules[1]["from"].is_sequence());
    let upstream = config["upstream"]["orders"]["servers"][0].as_str().unwrap();
    let service_port = policies[0]["spec"]["ingress"][0]["ports"][0]["port"]
        .as_u64()
        .unwrap();
    assert!(upstream.ends_with(&format!(":{service_port}")));
}

/// What the configuration reads is in a volume, and the folder of the socket for upgrades can be written.
#[test]
fn files_of_the_configuration_are_mounted() {
    let mounts = container()["volumeMounts"].clone();
    let mounts: Vec<_> = mounts
        .as_sequence()
        .unwrap()
        .iter()
        .map(|mount| {
            (
                mount["mountPath"].as_str().unwrap(),
                mount["name"].clone(),
                mount["readOnly"] == true,
            )
        })
        .collect();
    let volumes: Vec<_> = pod()["volumes"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    for (path, volume, _) in &mounts {
        assert!(volumes.contains(volume), "{path}: no volume {volume:?}");
    }
    let writable = |folder: &Path| {
        let mut of_folder = mounts.iter().filter(|(path, ..)| Path::new(path) == folder);
        !of_folder
            .next()
            .unwrap_or_else(|| panic!("{} is not mounted", folder.display()))
            .2
    };
    let mut named = vec![container()["args"][1].as_str().unwrap().to_owned()];
    paths(&Toml::Table(config_map()), &mut named);
    for path in named {
        assert!(
            !writable(Path::new(&path).parent().unwrap()),
            "{path} is writable"
        );
    }
}

#[test]
fn labels_and_times_fit() {
    let deployment = manifest("Deployment");
    let labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    for (what, selector) in [
        (
            "deployment",
            deployment["spec"]["selector"]["matchLabels"].clone(),
        ),
        ("service", manifest("Service")["spec"]["selector"].clone()),
        (
            "budget",
            manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].clone(),
        ),
        (
            "policy",
            policies()[1]["spec"]["podSelector"]["matchLabels"].clone(),
        ),
        (
            "from",
            policies()[0]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"].clone(),
        ),
    ] {
        assert_eq!(selector, labels, "{what}");
    }
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap();
    let budget = manifest("PodDisruptionBudget")["spec"]["minAvailable"]
        .as_u64()
        .unwrap();
    assert!(budget < replicas);
    let drain = config_map()["process"]["drain_seconds"]
        .as_integer()
        .unwrap();
    let sleep = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_i64()
        .unwrap();
    let grace = pod()["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace > drain + sleep, "{grace} {drain} {sleep}");
    assert!(
        config_map()["dpop"].get("redis").is_some(),
        "replicas share proofs"
    );
}
