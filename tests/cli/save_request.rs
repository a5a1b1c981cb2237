//! `dpop curl --save-request`, whose file `dpop explain` reads as it is.

use crate::Folder;
use crate::servers::{Servers, with};

/// The server's configuration has another URL than the one that clients use.
#[tokio::test]
async fn explain_names_the_reason_of_the_server() {
    const PUBLIC: &str = "https://api.example.com";
    let servers = Servers::start_behind("save-request", PUBLIC).await;
    let arguments = with(
        "curl",
        &["--save-request", "request.txt", "{api}/orders?page=2"],
    );
    let rejected = servers.dpop(&arguments, "").await;
    rejected.assert_fails(22, "dpop: status 401 Unauthorized: invalid_dpop_proof");

    // The command that it names, and the URL that the server has.
    let command = rejected.stderr.split('`').nth(1).unwrap();
    let command = command.strip_prefix("dpop ").unwrap();
    assert!(command.starts_with("explain --request request.txt --at "));
    let mut explain: Vec<&str> = command.split(' ').collect();
    let as_sent = servers.dpop(&explain, "").await;
    let text = format!("GET {}/orders (host from the request;", servers.api);
    assert!(as_sent.output().contains(&text), "{as_sent:?}");
    explain.extend(["--public-url", PUBLIC]);
    let explained = servers.dpop(&explain, "").await;
    assert_eq!(explained.status, 1, "{explained:?}");
    let reason = "rejected: proof_htu (status 401 invalid_dpop_proof)\n";
    assert!(explained.stdout.contains(reason), "{explained:?}");
    let description = "the DPoP proof is for another URL";
    assert!(explained.stdout.contains(description), "{explained:?}");
    assert!(rejected.stderr.contains(description), "{rejected:?}");
}

/// The second attempt has the nonce.
#[tokio::test]
async fn the_file_has_the_last_request() {
    let servers = Servers::start("save-request-nonce").await;
    let fields = ["-H", "x-note: a: b", "-d", "a=b"];
    let arguments = [
        &fields[..],
        &["--save-request", "request.txt", "{api}/orders"],
    ]
    .concat();
    // A file of an earlier run, which others can read.
    servers.folder.write("request.txt", "old");
    servers.dpop(&with("curl", &arguments), "").await.output();
    let saved = servers.folder.read("request.txt");
    let host = servers.api.strip_prefix("http://").unwrap();
    let start = format!("* {}\nPOST /orders HTTP/1.1\nhost: {host}\n", servers.api);
    assert!(saved.starts_with(&start), "{saved}");
    for field in [
        "x-note: a: b",
        "content-type: application/x-www-form-urlencoded",
    ] {
        assert!(saved.contains(&format!("\n{field}\n")), "{saved}");
    }
    assert!(saved.ends_with("\n\n"), "{saved}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let path = servers.folder.path("request.txt");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let explain = ["explain", "--json", "--request", "request.txt"];
    let explained = servers.dpop(&explain, "").await;
    let json: serde_json::Value = serde_json::from_str(explained.output()).unwrap();
    let mut checks = json["checks"].as_array().unwrap().iter();
    let nonce = checks.find(|check| check["check"] == "nonce");
    let detail = nonce.unwrap()["detail"].as_str().unwrap();
    assert!(detail.starts_with("only the server knows"), "{detail}");
}

#[tokio::test]
async fn nothing_is_sent_if_the_file_cannot_be_written() {
    let servers = Servers::start("save-request-fails").await;
    for (file, text) in [
        ("none/request.txt", "none/request.txt: "),
        (".", "it is not a file"),
    ] {
        let arguments = with("curl", &["--save-request", file, "{api}/orders"]);
        servers.dpop(&arguments, "").await.assert_fails(3, text);
    }
}

#[test]
fn the_help_says_what_is_in_the_file() {
    let folder = Folder::new("save-request-help");
    let help = folder.dpop(&["curl", "--help"], "").output().to_owned();
    assert!(help.contains("treat the file as a password"), "{help}");
}
