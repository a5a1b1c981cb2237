//! Takes the times of some tables: `measure TABLES OUT [--quick]`.

use std::env;
use std::path::Path;

use tower_dpop_benches::parties::Parties;
use tower_dpop_benches::results::{Results, Section};
use tower_dpop_benches::{cores, engines, parsing, rejections, replays, requests};

/// Rounds of every row: enough for medians that agree from run to run to a hundredth or two.
const ROUNDS: usize = 201;

/// Rounds that only prove that everything still runs.
const QUICK_ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (tables, output, quick) = match arguments[..] {
        [tables, output] => (tables, output, false),
        [tables, output, "--quick"] => (tables, output, true),
        _ => panic!("usage: measure aws-lc-rs|rust-crypto|peers|threads OUT [--quick]"),
    };
    let rounds = if quick { QUICK_ROUNDS } else { ROUNDS };
    let sections = sections(tables, &Parties::new(), rounds);
    Results { quick, sections }.write(Path::new(output));
}

/// All but `threads` are for one thread, pinned to one core.
fn sections(tables: &str, parties: &Parties, rounds: usize) -> Vec<Section> {
    match tables {
        "aws-lc-rs" if requests::ENGINE == tables => vec![
            requests::by_aws_lc_rs(parties, rounds),
            requests::by_algorithm(parties, rounds),
            rejections::section(parties, rounds),
            parsing::section(parties, rounds),
            engines::section(parties, rounds),
        ],
        "rust-crypto" if requests::ENGINE == tables => {
            vec![requests::by_rust_crypto(parties, rounds)]
        }
        #[cfg(feature = "peers")]
        "peers" => vec![tower_dpop_benches::peers::section(parties, rounds)],
        "threads" => vec![
            cores::section(parties, rounds),
            replays::section(parties, rounds),
        ],
        _ => panic!("{tables}: not in this build"),
    }
}
