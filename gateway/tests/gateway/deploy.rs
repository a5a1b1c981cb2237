//! The files in `deploy/` are true: what they name exists in the program and in the repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize as _;
use serde_yaml::Value;
use toml::{Table, Value as Toml};

use crate::support::Gateway;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The values of a setting of the unit, or of an instruction of the Dockerfile.
fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .collect()
}

/// The documents of the manifest of this kind.
fn manifests(kind: &str) -> Vec<Value> {
    let text = read("deploy/kubernetes.yaml");
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|manifest| manifest["kind"] == kind)
        .collect()
}

fn manifest(kind: &str) -> Value {
    let [manifest] = &manifests(kind)[..] else {
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

fn container() -> Value {
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
    let policies = manifests("NetworkPolicy");
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
    let document = read("src/config/document.rs");
    let socket = document
        .split("upgrade_socket: PathBuf::from(\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(writable(Path::new(socket).parent().unwrap()));
}

#[test]
fn labels_and_times_fit() {
    let deployment = manifest("Deployment");
    let labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    for (what, selector) in [
        ("deployment", deployment["spec"]["selector"]["matchLabels"].clone()),
        ("service", manifest("Service")["spec"]["selector"].clone()),
        ("budget", manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].clone()),
        ("policy", manifests("NetworkPolicy")[1]["spec"]["podSelector"]["matchLabels"].clone()),
        ("from", manifests("NetworkPolicy")[0]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"].clone()),
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

/// The flags that files use, the path of the program, and the path of the configuration are the same everywhere.
#[test]
fn commands_are_those_of_the_program() {
    let help = Command::new(env!("CARGO_BIN_EXE_dpop-gateway"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (unit, dockerfile) = (
        read("deploy/dpop-gateway.service"),
        read("deploy/Dockerfile"),
    );
    let start = "/usr/local/bin/dpop-gateway --config /etc/dpop-gateway/gateway.toml";
    let check = format!("{start} --check");
    assert_eq!(values(&unit, "ExecStart="), [start]);
    assert_eq!(values(&unit, "ExecStartPre="), [check.as_str()]);
    assert_eq!(
        values(&unit, "ExecReload="),
        [check.as_str(), "/bin/kill -HUP $MAINPID"]
    );
    let list = |json: &str| serde_json::from_str::<Vec<String>>(json).unwrap().join(" ");
    let arguments = list(values(&dockerfile, "CMD ")[0]);
    assert_eq!(
        format!(
            "{} {arguments}",
            list(values(&dockerfile, "ENTRYPOINT ")[0])
        ),
        start
    );
    let in_kubernetes: Vec<String> = serde_yaml::from_value(container()["args"].clone()).unwrap();
    assert_eq!(in_kubernetes.join(" "), arguments);
    for flag in check.split(' ').filter(|word| word.starts_with("--")) {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

/// By systemd's own checks. There, a lower exposure is better: 10 is everything, and this is little.
#[test]
fn systemd_accepts_the_unit() {
    let unit = read("deploy/dpop-gateway.service");
    let drain: u64 = values(&unit, "TimeoutStopSec=")[0].parse().unwrap();
    assert!(drain > 60, "the default of process.drain_seconds");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dpop-gateway.service");
    // Verification looks for the program.
    let unit = unit.replace(
        "/usr/local/bin/dpop-gateway",
        env!("CARGO_BIN_EXE_dpop-gateway"),
    );
    std::fs::write(&file, unit).unwrap();
    let checks: [&[&str]; 2] = [
        &["verify"],
        &["security", "--offline=true", "--threshold=20", "--no-pager"],
    ];
    for arguments in checks {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&file)
            .output();
        let output = output.expect("systemd-analyze: on Debian, apt-get install systemd");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert_eq!(said, "", "{arguments:?}");
    }
}

#[test]
fn the_dockerfile_copies_all_that_its_command_needs() {
    let dockerfile = read("deploy/Dockerfile");
    let root = package().parent().unwrap();
    let context = tempfile::tempdir().unwrap();
    let mut copied = BTreeSet::new();
    for copy in values(&dockerfile, "COPY ")
        .into_iter()
        .filter(|copy| !copy.starts_with("--from"))
    {
        let words: Vec<_> = copy.split(' ').collect();
        let (target, sources) = words.split_last().unwrap();
        for source in sources {
            copied.insert((*source).to_owned());
            let target = if sources.len() > 1 || target.ends_with('/') {
                Path::new(target).join(Path::new(source).file_name().unwrap())
            } else {
                PathBuf::from(target)
            };
            copy_all(&root.join(source), &context.path().join(target));
        }
    }
    let ignored = read("deploy/Dockerfile.dockerignore");
    let allowed: BTreeSet<_> = values(&ignored, "!")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(allowed, copied, "Dockerfile.dockerignore");

    // The command, as far as cargo goes without compiling: it reads all manifests, and the lock file fits them.
    let command = values(&dockerfile, "RUN cargo ")[0];
    let words: Vec<_> = command.split(' ').collect();
    let expected = "build --release --locked --manifest-path gateway/Cargo.toml --bin dpop-gateway";
    assert_eq!(command, expected);
    let fetched = Command::new(env!("CARGO"))
        .args(["fetch", "--offline", "--target", "x86_64-unknown-linux-gnu"])
        .args(&words[2..5])
        .current_dir(context.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "{said}");
    let built =
        "--from=build /source/gateway/target/release/dpop-gateway /usr/local/bin/dpop-gateway";
    assert!(values(&dockerfile, "COPY ").contains(&built));
    assert!(values(&dockerfile, "WORKDIR ").contains(&"/source"));
    // The documents that the sources include.
    let guide = std::fs::read_to_string(context.path().join("src/guide.rs")).unwrap();
    assert!(
        guide.contains("../docs/guide/") && context.path().join("docs/guide/README.md").exists()
    );
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    for entry in
        std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()))
    {
        let entry = entry.unwrap();
        copy_all(&entry.path(), &to.join(entry.file_name()));
    }
}

#[test]
fn the_dockerfile_has_a_compiler_that_is_new_enough() {
    let dockerfile = read("deploy/Dockerfile");
    let image = values(&dockerfile, "FROM rust:")[0];
    let of_image = version(image.split('-').next().unwrap());
    for manifest in ["Cargo.toml", "../Cargo.toml"] {
        let manifest: Table = read(manifest).parse().unwrap();
        let needed = version(manifest["package"]["rust-version"].as_str().unwrap());
        assert!(of_image >= needed, "{image}");
    }
    // Both images are of the same Debian, so that the C library is the same.
    assert!(image.contains("bookworm") && dockerfile.contains("cc-debian12"));
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap()).collect()
}
