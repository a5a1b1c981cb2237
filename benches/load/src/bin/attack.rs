//! How long good requests take while ten times as many bad ones arrive.
//!
//! ```text
//! attack RESOURCE-SERVER CORE RSA-KEY ROUNDS SECONDS
//! ```
//!
//! Starts the program `resource_server` on a core, and sends from this one: this many seconds for each kind of bad request,
//! in this many rounds. RSA-KEY is a file of PKCS#8 in PEM. Prints a table.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{Defect, TestClient, TestClock, TestIssuer, TestRequest};

const ISSUER: &str = "https://as.example.com";
const AUDIENCE: &str = "https://api.example.com";
const URL: &str = "https://api.example.com/protected";
/// Per second.
const GOOD: usize = 400;
/// Ten times as many, on connections of their own.
const BAD: usize = 10 * GOOD;
const CONNECTIONS: usize = 16;

type Failure = Box<dyn Error + Send + Sync>;
type Sent = Request<Empty<Bytes>>;

/// Bad requests, sent again and again.
struct Attack {
    name: &'static str,
    requests: Vec<Sent>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, core, rsa, rounds, seconds] = arguments.as_slice() else {
        return Err("usage: attack RESOURCE-SERVER CORE RSA-KEY ROUNDS SECONDS".into());
    };
    let (rounds, seconds): (usize, usize) = (rounds.parse()?, seconds.parse()?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let issuer = TestIssuer::new(ISSUER, AUDIENCE).with_clock(TestClock::at(now.as_secs()));
    let client = TestClient::new(&issuer).with_claim("exp", now.as_secs() + 3_600);
    let token = client.request(Method::GET, URL).token();
    let client = client.with_token(token);
    let server = Server::start(server, core, &issuer.jwks())?;

    let attacks = attacks(&client, &issuer, &fs::read_to_string(rsa)?)?;
    let good = || -> Vec<Sent> {
        (0..GOOD * seconds)
            .map(|_| sent(&request(&client)))
            .collect()
    };
    let replayed = &attacks[0].requests;
    run(&server.address, replayed.clone(), GOOD, StatusCode::OK).await?;
    let mut latencies = vec![Vec::new(); attacks.len() + 1];
    for _ in 0..rounds {
        let alone = run(&server.address, good(), GOOD, StatusCode::OK).await?;
        latencies[0].push(Percentiles::of(alone));
        for (attack, latencies) in attacks.iter().zip(&mut latencies[1..]) {
            let bad = attack.requests.iter().cycle().take(BAD * seconds);
            let (good, _) = tokio::try_join!(
                run(&server.address, good(), GOOD, StatusCode::OK),
                run(
                    &server.address,
                    bad.cloned().collect(),
                    BAD,
                    StatusCode::UNAUTHORIZED
                ),
            )?;
            latencies.push(Percentiles::of(good));
        }
    }

    println!(
        "| {BAD} bad requests per second | p50, µs | p99, µs | p99.9, µs | p99, without attack = 1 |"
    );
    println!("|---|---:|---:|---:|---:|");
    let names = ["none"]
        .into_iter()
        .chain(attacks.iter().map(|attack| attack.name));
    let alone = Percentiles::medians(&latencies[0]);
    for (name, latencies) in names.zip(&latencies) {
        let Percentiles { p50, p99, p999 } = Percentiles::medians(latencies);
        println!(
            "| {name} | {p50:.0} | {p99:.0} | {p999:.0} | {:.2} |",
            p99 / alone.p99
        );
    }
    Ok(())
}

/// The first kind is of proofs that must be used before.
fn attacks(client: &TestClient, issuer: &TestIssuer, rsa: &str) -> Result<Vec<Attack>, Failure> {
    let attack = |name, make: &dyn Fn() -> TestRequest| Attack {
        name,
        requests: (0..200).map(|_| sent(&make())).collect(),
    };
    let defect = |defect| move || request(client).with_defect(defect);
    let stranger = TestClient::new(issuer);
    let made_up_kid = || {
        let mut request = request(&stranger);
        request.token_header["kid"] = "made-up".into();
        request
    };
    let much_json = || {
        let mut request = request(client).with_defect(Defect::OtherMethod);
        let members: Vec<String> = (0..600).map(|i| format!("x{i}")).collect();
        request.proof_header["x"] = members.join(" ").into();
        request.proof_claims["x"] = (0..500).collect();
        request
    };
    let rsa_client = TestClient::new(issuer).with_key(SigningKey::from_pkcs8_pem(rsa)?);
    let rsa_token = request(&rsa_client).token();
    let rsa_client = rsa_client.with_token(rsa_token);
    Ok(vec![
        attack("replays", &|| request(client)),
        attack("no token", &defect(Defect::NoAuthorization)),
        attack(
            "a wrong signature of the proof, with a stolen token",
            &defect(Defect::WrongSignature),
        ),
        attack("a token with a made-up `kid`", &made_up_kid),
        attack("a proof with almost 8 KiB of JSON", &much_json),
        attack(
            "a wrong signature by an RSA key of 4096 bits, whose token is valid",
            &|| request(&rsa_client).with_defect(Defect::WrongSignature),
        ),
    ])
}

fn request(client: &TestClient) -> TestRequest {
    client.request(Method::GET, URL)
}

/// As it is on a connection to the server.
fn sent(request: &TestRequest) -> Sent {
    let mut sent: Sent = request.build();
    let host = sent
        .uri()
        .host()
        .unwrap_or_default()
        .parse()
        .expect("a name is a field value");
    sent.headers_mut().insert(http::header::HOST, host);
    *sent.uri_mut() = Uri::from_static("/protected");
    sent
}

/// Sends requests at a rate, on several connections, and expects a status. Returns the time from the moment at which each was
/// due to its response, in microseconds.
async fn run(
    address: &str,
    requests: Vec<Sent>,
    rate: usize,
    expected: StatusCode,
) -> Result<Vec<f64>, Failure> {
    let mut shares: Vec<Vec<(u32, Sent)>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (number, request) in (0..).zip(requests) {
        shares[number as usize % CONNECTIONS].push((number, request));
    }
    let mut connections = Vec::new();
    for share in shares {
        let (sender, connection) =
            http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        connections.push((sender, share));
    }
    let interval = Duration::from_secs(1) / u32::try_from(rate)?;
    let start = Instant::now() + Duration::from_millis(10);
    let mut tasks = JoinSet::new();
    for (sender, share) in connections {
        let share = share
            .into_iter()
            .map(move |(number, request)| (start + interval * number, request));
        tasks.spawn(send(sender, share, expected));
    }
    let mut latencies = Vec::new();
    while let Some(of_a_connection) = tasks.join_next().await {
        latencies.extend(of_a_connection??);
    }
    Ok(latencies)
}

async fn send(
    mut sender: SendRequest<Empty<Bytes>>,
    share: impl Iterator<Item = (Instant, Sent)>,
    expected: StatusCode,
) -> Result<Vec<f64>, Failure> {
    let mut latencies = Vec::new();
    for (due, request) in share {
        // Timers have steps of a millisecond.
        while Instant::now() < due {
            yield_now().await;
        }
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        if response.status() != expected {
            return Err(format!("the status is {}, not {expected}", response.status()).into());
        }
        response.into_body().collect().await?;
        latencies.push(due.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

#[derive(Clone, Copy)]
struct Percentiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Percentiles {
    fn of(mut latencies: Vec<f64>) -> Self {
        latencies.sort_by(f64::total_cmp);
        let at = |thousandths: usize| latencies[(latencies.len() - 1) * thousandths / 1000];
        Self {
            p50: at(500),
            p99: at(990),
            p999: at(999),
        }
    }

    /// Over the rounds.
    fn medians(rounds: &[Self]) -> Self {
        let median = |part: fn(&Self) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(part).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        Self {
            p50: median(|p| p.p50),
            p99: median(|p| p.p99),
            p999: median(|p| p.p999),
        }
    }
}

/// The server, which ends with this program.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(program: &str, core: &str, jwks: &str) -> Result<Self, Failure> {
        let file = std::env::temp_dir().join(format!("attack-{}.json", std::process::id()));
        fs::write(&file, jwks)?;
        let mut process = Command::new("taskset")
            .args([
                "-c",
                core,
                program,
                "--listen",
                "127.0.0.1:0",
                "--max-age",
                "3600",
            ])
            .args(["--public-url", AUDIENCE, "--issuer", ISSUER, "--jwks"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        fs::remove_file(&file)?;
        let address = line
            .trim()
            .rsplit_once("http://")
            .ok_or("the server did not start")?
            .1
            .to_owned();
        Ok(Self { process, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
