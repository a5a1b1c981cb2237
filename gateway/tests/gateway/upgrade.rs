//! SIGUSR2: another process takes over. SIGTERM under load.

use std::sync::Arc;

use http::Method;

use crate::reload::Fixture;
use crate::support::{Load, Program, signal_to};

/// Its clients have ended.
fn alone(program: Arc<Program>) -> Program {
    Arc::into_inner(program).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_was_begun_fails_when_the_process_is_told_to_stop() {
    let fixture = Fixture::start("").await;
    let certificates = [fixture.certificate];
    let mut load = Load::start(&fixture.parties, &fixture.program, &certificates);
    load.more(100).await;
    load.may_be_refused();
    fixture.program.signal("TERM");
    load.end().await;
    let mut program = alone(fixture.program);
    assert_eq!(program.ended().code(), Some(0));
    program.await_log("stopped: all requests have ended", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_another_process_takes_over() {
    let fixture = Fixture::start("").await;
    let certificates = [fixture.certificate];
    let mut load = Load::start(&fixture.parties, &fixture.program, &certificates);
    load.more(50).await;
    fixture.program.signal("USR2");
    let program = Arc::clone(&fixture.program);
    tokio::task::block_in_place(|| program.await_log("the new process serves", 1));
    load.more(200).await;
    tokio::task::block_in_place(|| program.await_log("stopped: all requests have ended", 1));
    load.more(50).await;
    load.end().await;
    drop(program);
    let mut program = alone(fixture.program);
    assert_eq!(program.ended().code(), Some(0));
    let [successor] = program.successors()[..] else {
        panic!("{}", program.log());
    };
    assert_ne!(successor, program.id());
    // At the same address.
    program.await_processes(2);
    let output = program.output();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], lines[1]);
    program.await_log("each can be used once more", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_has_the_new_addresses() {
    let fixture = Fixture::start("").await;
    let program = &fixture.program;
    let operations = "[operations]\naddress = \"127.0.0.1:0\"\n[process]\nthreads = 1";
    program.edit("# more routes", operations);
    program.signal("USR2");
    program.await_log("stopped: all requests have ended", 1);
    program.await_processes(2);
    let output = program.output();
    let (first, second) = output.trim().split_once('\n').unwrap();
    let added = second.strip_prefix(first).unwrap();
    let (_, url) = added.split_once(" operations=").unwrap();
    let health = reqwest::get(format!("{url}/healthz")).await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(fixture.get("/orders").await, 200);
    // It is upgraded and stopped as the first one was.
    program.edit(operations, "");
    let successor = program.successors()[0];
    signal_to(successor, "USR2");
    program.await_log("stopped: all requests have ended", 2);
    assert!(reqwest::get(format!("{url}/healthz")).await.is_err());
    assert_eq!(fixture.get("/orders").await, 200);
    signal_to(program.successors()[1], "TERM");
    program.await_log("stopped: all requests have ended", 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_goes_on_if_the_new_one_cannot_start() {
    let fixture = Fixture::start("").await;
    let rows = [
        (
            "path = \"/\"",
            "pfad = \"/\"",
            "route[0].pfad: unknown setting",
        ),
        (
            "public_url = ",
            "public_uri = ",
            "dpop.public_uri: unknown setting",
        ),
        ("server.key", "missing.key", "tls.key_file: "),
    ];
    for (number, (old, new, said)) in rows.into_iter().enumerate() {
        let program = &fixture.program;
        program.edit(old, new);
        program.signal("USR2");
        program.await_log("upgrade failed: this process continues", number + 1);
        let log = program.log();
        let failure = log.lines().rfind(|line| line.contains("upgrade failed"));
        assert!(failure.unwrap().contains(said), "{log}");
        assert_eq!(fixture.get("/orders").await, 200, "{said}");
        program.edit(new, old);
    }
    fixture.program.signal("USR2");
    fixture.program.await_log("the new process serves", 1);
    assert_eq!(fixture.get("/orders").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_argument_of_a_new_process_is_not_for_operators() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_dpop-gateway"))
        .args(["--config", "none", "--upgrade"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("send SIGUSR2 to the running one"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nonces_no_proof_is_used_again_in_the_new_process() {
    let fixture = Fixture::start("nonces = \"generated\"").await;
    let mut request = fixture.parties.request(Method::GET, "/orders");
    let asked = fixture
        .program
        .begin(&fixture.client, &request)
        .await
        .unwrap();
    let nonce = asked.headers()["dpop-nonce"].to_str().unwrap().to_owned();
    request.proof_claims["nonce"] = nonce.into();
    let send = || fixture.program.send(&fixture.client, &request);
    assert_eq!(send().await.unwrap(), 200);
    fixture.program.signal("USR2");
    fixture
        .program
        .await_log("stopped: all requests have ended", 1);
    assert_eq!(send().await.unwrap(), 401);
    assert!(!fixture.program.log().contains("each can be used once more"));
}
