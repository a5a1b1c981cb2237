//! The files in `deploy/` are true: what they name exists in the program and in the repository.

mod docker;
mod kubernetes;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kubernetes::container;

use crate::support::{Gateway, Parties};

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

/// With `Type=notify`, systemd waits for this, and ends a service that does not say it.
#[test]
fn systemd_is_told_when_the_gateway_listens() {
    let unit = read("deploy/dpop-gateway.service");
    assert_eq!(values(&unit, "Type="), ["notify"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/\"\nupstream = \"orders\"\n\
                  [upstream.orders]\nservers = [\"http://127.0.0.1:1\"]";
    let _gateway = Gateway::new(&Parties::new(), config)
        .with_environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .start();
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).unwrap();
    let message = std::str::from_utf8(&message[..length]).unwrap();
    assert!(message.lines().any(|line| line == "READY=1"), "{message}");
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
