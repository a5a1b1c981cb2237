//! Two processes race for the same proofs.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_dpop::proof::Claim;

use super::{connected, key, now};
use crate::proxy::{Cut, Proxy};
use crate::servers::Redis;

const KEYS: u64 = 10_000;
const TASKS: u64 = 64;

/// The argument of the other process: a URL and the series of its keys.
const RACE: &str = "TOWER_DPOP_NODES_RACE";

/// What one process says about each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    First,
    Replayed,
    Error,
}

/// Runs in a process of its own, which [`other_process`] starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the other process of the tests in this file"]
async fn claims_all_keys() {
    let Ok(argument) = env::var(RACE) else { return };
    let (url, series) = argument.split_once(' ').unwrap();
    let (store, series) = (connected(url).await, series.parse().unwrap());
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut said = Vec::new();
            for number in (task..KEYS).step_by(TASKS.try_into().unwrap()) {
                let letter = match super::claim(&store, key(series, number)).await {
                    Ok(Claim::First) => 'f',
                    Ok(Claim::Replayed) => 'r',
                    Err(_) => 'e',
                };
                said.push((number, letter));
            }
            said
        });
    }
    let mut said: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    said.sort_unstable();
    let letters: String = said.iter().map(|&(_, letter)| letter).collect();
    println!("said {letters}");
}

struct Racer(Child, BufReader<std::process::ChildStdout>);

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Racer {
    /// This test binary again, with only [`claims_all_keys`], once it is connected.
    fn start(url: &str, series: u64) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "faults::race::claims_all_keys"])
            .args(["--ignored", "--nocapture"])
            .env(RACE, format!("{url} {series}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut racer = Self(child, output);
        racer.line("ready");
        racer
    }

    fn go(&mut self) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(b"go\n").unwrap();
    }

    /// The rest of the next line that begins like this.
    fn line(&mut self, start: &str) -> String {
        let mut line = String::new();
        while self.1.read_line(&mut line).unwrap() > 0 {
            // libtest writes the name of the test without a line break.
            if let Some((_, rest)) = line.split_once(start) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("the process ended without saying {start:?}");
    }

    fn said(&mut self) -> Vec<Said> {
        let letters = self.line("said ");
        let said = letters.chars().map(|letter| match letter {
            'f' => Said::First,
            'r' => Said::Replayed,
            _ => Said::Error,
        });
        said.collect()
    }
}

/// What each of the two said about each key, with this between start and end.
fn race(urls: [&str; 2], meanwhile: impl FnOnce()) -> Vec<[Said; 2]> {
    let series = now().as_unix() ^ u64::from(std::process::id()) << 32;
    let [mut one, mut other] = urls.map(|url| Racer::start(url, series));
    one.go();
    other.go();
    meanwhile();
    let said: Vec<_> = one.said().into_iter().zip(other.said()).collect();
    assert_eq!(said.len(), usize::try_from(KEYS).unwrap());
    said.into_iter().map(|(one, other)| [one, other]).collect()
}

fn winners(said: [Said; 2]) -> usize {
    said.iter().filter(|&&said| said == Said::First).count()
}

#[test]
fn each_key_has_one_winner_of_two_processes() {
    let redis = Redis::start();
    let url = redis.url();
    let said = race([&url, &url], || {});
    for (number, &said) in said.iter().enumerate() {
        let mut sorted = said;
        sorted.sort_by_key(|&said| said != Said::First);
        assert_eq!(sorted, [Said::First, Said::Replayed], "key {number}");
    }
    for process in 0..2 {
        let won = said
            .iter()
            .filter(|said| said[process] == Said::First)
            .count();
        println!("process {process} won {won} of {KEYS}");
        assert!(won > 0, "it was no race");
    }
    assert_eq!(redis.keys(), said.len() + 1, "with the store's own key");
}

#[test]
fn with_cut_connections_each_key_has_at_most_one_winner() {
    let redis = Redis::start();
    let proxies = [Proxy::to(redis.port()), Proxy::to(redis.port())];
    let urls = [proxies[0].url(), proxies[1].url()];
    let said = race([&urls[0], &urls[1]], || {
        for round in 0..40 {
            proxies[round % 2].cut(if round % 4 < 2 {
                Cut::Reset
            } else {
                Cut::Close
            });
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let (mut errors, mut none) = (0, 0);
    for (number, &said) in said.iter().enumerate() {
        let failed = said.contains(&Said::Error);
        errors += usize::from(failed);
        match winners(said) {
            1 => {}
            0 if failed => none += 1,
            other => panic!("key {number}: {other} winners: {said:?}"),
        }
    }
    println!("{errors} of {KEYS} keys with an error, {none} without a winner");
}
