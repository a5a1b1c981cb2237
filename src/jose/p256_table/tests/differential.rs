//! The table's results beside those of AWS-LC and p256.

use std::collections::BTreeMap;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};

use super::cases::{Batch, Case, Stated};
use super::hex;
use crate::jose::p256_table::P256Table;

/// One key, as each of the three has it.
struct Key {
    table: P256Table,
    aws_lc: ParsedPublicKey,
    p256: VerifyingKey,
}

impl Key {
    fn new(point: &[u8; 65]) -> Self {
        Self {
            table: P256Table::new(point).unwrap(),
            aws_lc: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).unwrap(),
            p256: VerifyingKey::from_sec1_bytes(point).unwrap(),
        }
    }

    /// Whether the table, AWS-LC and p256 accept.
    fn results(&self, case: &Case) -> [bool; 3] {
        let Case {
            digest, signature, ..
        } = case;
        let imported = Digest::import_less_safe(digest, &SHA256).unwrap();
        [
            self.table.verify_digest(digest, signature).is_ok(),
            self.aws_lc.verify_digest_sig(&imported, signature).is_ok(),
            Signature::from_slice(signature)
                .is_ok_and(|signature| self.p256.verify_prehash(digest, &signature).is_ok()),
        ]
    }
}

/// Accepted and rejected cases of each family.
type Tally = BTreeMap<&'static str, [u64; 2]>;

/// Runs batches from the first on, until so many cases have run, on all cores.
fn run(first: u64, cases: u64, cases_a_key: usize, report_every: u64) -> Tally {
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let tally = Mutex::new(Tally::new());
    let started = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Tally::new();
                while done.load(Ordering::Relaxed) < cases {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let batch = Batch::new(number, cases_a_key);
                    let key = Key::new(&batch.point);
                    for case in &batch.cases {
                        let accepted = agreed(&key, case).unwrap_or_else(|results| {
                            // Let the other threads end.
                            done.store(cases, Ordering::Relaxed);
                            panic!("batch {number}, key {}: {results}", hex(&batch.point))
                        });
                        mine.entry(case.family).or_default()[usize::from(!accepted)] += 1;
                    }
                    let count = batch.cases.len() as u64;
                    let before = done.fetch_add(count, Ordering::Relaxed);
                    let after = before + count;
                    if before / report_every != after / report_every {
                        let seconds = started.elapsed().as_secs();
                        println!("{after} cases, up to batch {number}, {seconds} s");
                    }
                }
                let mut all = tally.lock().unwrap();
                for (family, [accepted, rejected]) in mine {
                    let counts = all.entry(family).or_default();
                    counts[0] += accepted;
                    counts[1] += rejected;
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// The common result of all three implementations; an error if they differ, or if the known result differs.
fn agreed(key: &Key, case: &Case) -> Result<bool, String> {
    let results = key.results(case);
    let is_right = match case.stated {
        Stated::Good => results == [true; 3],
        Stated::Bad => results == [false; 3],
        Stated::Nothing => results == [results[0]; 3],
    };
    if is_right {
        return Ok(results[0]);
    }
    Err(format!(
        "table, AWS-LC and p256 accept: {results:?}; {:?} by how it was made\n\
         {}\ndigest {}\nsignature {}",
        case.stated,
        case.family,
        hex(&case.digest),
        hex(&case.signature),
    ))
}

/// Families, and how many cases of each the bounded run must have accepted and rejected.
const FAMILIES: [(&str, u64, u64); 30] = [
    ("R is infinity", 0, 360),
    ("a bit of r", 0, 310),
    ("a bit of s", 0, 330),
    ("a bit of the digest", 0, 340),
    ("another digest", 0, 340),
    ("digest + n", 170, 0),
    ("meets at infinity", 40, 0),
    ("meets the opposite point", 100, 0),
    ("meets the same point", 100, 0),
    ("r + n", 0, 570),
    ("r and s swapped", 0, 360),
    ("r at an edge", 0, 330),
    ("r is -x", 0, 320),
    ("r is n - r", 0, 340),
    ("r is x + 1", 0, 330),
    ("r is x + p - n", 0, 320),
    ("r is x - 1", 0, 330),
    ("r is x with a bit turned", 0, 340),
    ("r is y", 0, 320),
    ("r, s and digest at edges", 0, 750),
    ("s + n", 0, 250),
    ("s at an edge", 0, 330),
    ("s chosen", 650, 0),
    ("s is n - s", 660, 0),
    ("signed", 630, 0),
    ("u1 G = ±u2 Q", 310, 0),
    ("u1, u2 chosen", 1_140, 0),
    ("x below p - n", 80, 0),
    ("x from n on", 200, 0),
    ("x is 0 or n", 0, 2),
];

#[test]
fn three_implementations_agree() {
    let tally = run(0, 12_000, 10, u64::MAX);
    for (family, accepted, rejected) in FAMILIES {
        let counts = tally.get(family).copied().unwrap_or_default();
        assert!(
            counts[0] >= accepted && counts[1] >= rejected,
            "{family}: {counts:?} accepted and rejected"
        );
    }
    assert_eq!(tally.len(), FAMILIES.len(), "{:?}", tally.keys());
}

/// The same for hours: `P256_TABLE_CASES` cases (ten million) from batch `P256_TABLE_FIRST` on (0).
#[test]
#[ignore = "takes an hour: run it after a change to p256_table, by the command in CONTRIBUTING.md"]
fn three_implementations_agree_in_many_cases() {
    let setting = |name: &str, default: u64| {
        env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let cases = setting("P256_TABLE_CASES", 10_000_000);
    let tally = run(setting("P256_TABLE_FIRST", 0), cases, 64, 500_000);
    println!("{tally:#?}");
    let ran: u64 = tally.values().flatten().sum();
    assert!(ran >= cases, "only {ran} cases");
}
