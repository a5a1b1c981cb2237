//! The page `docs/guide/troubleshooting.md`: its commands print what it shows.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use http::Request;
use tower_dpop::testing::TestIssuer;
use tower_dpop::{ProofRules, PublicUrl, Verifier};
use tracing_subscriber::EnvFilter;

use crate::Folder;

const PAGE: &str = include_str!("../../docs/guide/troubleshooting.md");

/// RFC 9449 section 7.1, Figure 12.
const REQUEST: &str = include_str!("rfc9449.txt");

/// The code blocks of the page in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    let parts = PAGE.split(start.as_str()).skip(1);
    parts
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// What the page shows below a command.
pub(crate) fn output_of(command: &str) -> &'static str {
    let prompt = format!("$ {command}");
    let block = blocks("console")
        .into_iter()
        .find_map(|block| block.strip_prefix(prompt.as_str()));
    let (_, output) = block
        .unwrap_or_else(|| panic!("not on the page: {command}"))
        .split_once('\n')
        .unwrap();
    output
}

#[test]
fn shows_what_explain_prints() {
    let folder = Folder::new("guide");
    folder.write("request.txt", REQUEST);
    let command = "explain --request request.txt --public-url https://api.example.org --at 2019-07-04T17:52:30Z";
    let run = folder.dpop(&command.split(' ').collect::<Vec<_>>(), "");
    assert_eq!(run.status, 1);
    assert_eq!(run.stdout, output_of(&format!("dpop {command}")));
    // The other block is compared in `servers.rs`.
    assert_eq!(blocks("console").len(), 2);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same request, rejected by a server.
#[tokio::test]
async fn shows_what_a_server_logs() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("tower_dpop=info"))
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let rules = ProofRules::new("https://api.example.org".parse::<PublicUrl>().unwrap())
        .with_clock(|| UNIX_EPOCH + Duration::from_secs(1_562_262_750));
    let issuer = TestIssuer::new("https://as.example.org", "https://api.example.org");
    let verifier = Verifier::new(rules, issuer.jwt_verifier());
    let mut request = Request::get("/protectedresource");
    for line in REQUEST.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let rejection = verifier.verify(&head).await.unwrap_err();
    let _: http::Response<()> = verifier.reject(rejection);

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let shown = blocks("text").into_iter().next().unwrap();
    assert_eq!(logged, shown);
}

/// Every option in a command on the page is one of that command.
#[test]
fn uses_options_that_exist() {
    let folder = Folder::new("guide-options");
    let mut seen = 0;
    for line in blocks("sh").into_iter().flat_map(str::lines) {
        let mut words = line.split_whitespace();
        if words.next() != Some("dpop") {
            continue;
        }
        let command = words.next().unwrap();
        let help = folder.dpop(&[command, "--help"], "").output().to_owned();
        for option in words.filter(|word| word.starts_with('-')) {
            assert!(
                help.contains(&format!("{option} "))
                    || help.contains(&format!("{option},"))
                    || help.contains(&format!("{option}\n")),
                "{line}: {option}"
            );
            seen += 1;
        }
    }
    let explain = folder.dpop(&["explain", "--help"], "").output().to_owned();
    let table = PAGE
        .split("| option | for |")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    for option in table
        .split(['`', ' '])
        .filter(|word| word.starts_with("--"))
    {
        assert!(explain.contains(option), "{option}");
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}
