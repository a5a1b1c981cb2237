//! Memory and throughput over time, in a file for `plot.py`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::sleep;

use super::load::World;
use crate::resp;

/// How much the memory may grow: by one part in this many, plus this many bytes, for small processes.
const GROWTH: (u64, u64) = (20, 1 << 20);

/// The time after which records have expired, and the cache of tokens is full.
const WARM_UP: f64 = 120.0;

struct Sample {
    second: f64,
    /// Both nodes and Redis, in bytes. Redis is 0 while it is down.
    memory: [u64; 3],
}

pub(super) struct Samples(Vec<Sample>);

impl Samples {
    /// Takes samples until the end.
    pub(super) async fn take(
        world: &World,
        port: &AtomicU16,
        folder: &Path,
        every: Duration,
    ) -> Self {
        let mut file = File::create(folder.join("samples.csv")).unwrap();
        writeln!(file, "second,node_0,node_1,redis,accepted,unavailable").unwrap();
        let mut samples = Vec::new();
        while !world.ending.load(Ordering::Relaxed) {
            let second = world.timeline.began().elapsed().as_secs_f64();
            let [one, other] = [0, 1].map(|node| world.nodes[node].memory());
            let redis = block_in_place(|| redis_memory(port.load(Ordering::Relaxed)));
            let (accepted, unavailable) = world.counts.accepted_and_unavailable();
            writeln!(
                file,
                "{second:.1},{one},{other},{redis},{accepted},{unavailable}"
            )
            .unwrap();
            samples.push(Sample {
                second,
                memory: [one, other, redis],
            });
            sleep(every).await;
        }
        Self(samples)
    }

    /// The median memory of a node or of Redis in each tenth of the time after the warm-up, or `None` if the run is too
    /// short.
    pub(super) fn tenths(&self, part: usize) -> Option<Vec<u64>> {
        let warm: Vec<_> = self
            .0
            .iter()
            .filter(|sample| sample.second >= WARM_UP)
            .map(|sample| sample.memory[part])
            .filter(|&memory| memory > 0)
            .collect();
        if self.0.last()?.second < 5.0 * WARM_UP {
            return None;
        }
        let medians = warm.chunks(warm.len().div_ceil(10)).map(|tenth| {
            let mut tenth = tenth.to_vec();
            tenth.sort_unstable();
            tenth[tenth.len() / 2]
        });
        Some(medians.collect())
    }

    pub(super) fn text(&self, part: usize, name: &str) -> String {
        let Some(tenths) = self.tenths(part) else {
            return format!("memory of {name}: not compared, the run is too short\n");
        };
        let tenths = tenths.into_iter().map(|bytes| {
            let tenths_of_one = bytes * 10 / (1 << 20);
            format!("{}.{}", tenths_of_one / 10, tenths_of_one % 10)
        });
        let tenths = tenths.collect::<Vec<_>>().join(", ");
        format!("memory of {name} in MiB, the medians of each tenth: {tenths}\n")
    }

    /// Checks that the last tenth is larger than the second one by at most [`GROWTH`].
    pub(super) fn assert_flat(&self, part: usize, name: &str) {
        let Some(tenths) = self.tenths(part) else {
            return;
        };
        let (early, late) = (tenths[1], tenths[tenths.len() - 1]);
        assert!(
            late <= early + early / GROWTH.0 + GROWTH.1,
            "THE MEMORY OF {name} GROWS: {tenths:?}"
        );
    }
}

/// 0 if the server does not respond.
fn redis_memory(port: u16) -> u64 {
    let Ok(resp::Reply::Text(info)) = resp::command(port, &["INFO", "memory"]) else {
        return 0;
    };
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}
