//! Times that can be compared.

use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::raw::Signed;
use crate::results::{Label, Spread, Time};

/// Requests of one round of one row.
pub const REQUESTS: u16 = 50;

/// The first rounds are not counted: caches of processor and allocator fill.
const WARM_UP: usize = 3;

/// Something that is done [`REQUESTS`] times in each round.
pub trait Subject {
    /// Makes what the next round needs, outside of what is timed, and gives the signatures that the
    /// time is held against: [`REQUESTS`] of them.
    fn prepare(&mut self) -> Vec<Signed>;

    /// What is timed.
    fn run(&mut self);

    /// How often the subject is run on what was prepared. More than once where that can be, and one
    /// run is so short that it would mostly be waiting for code and data to come into the caches.
    fn runs(&self) -> u16 {
        1
    }
}

/// A row that has yet to be measured.
pub struct Row<'p> {
    label: Label,
    subject: Box<dyn Subject + 'p>,
    samples: Vec<Sample>,
}

/// One round of one row, in microseconds: one raw verification, and one request.
#[derive(Clone, Copy)]
struct Sample {
    raw: f64,
    own: f64,
}

impl<'p> Row<'p> {
    /// A row of this subject.
    pub fn new(label: Label, subject: impl Subject + 'p) -> Self {
        Self {
            label,
            subject: Box::new(subject),
            samples: Vec::new(),
        }
    }

    /// Half of the raw verifications are done before the subject and half after it, so that a
    /// machine that gets slower meanwhile gets slower for both.
    fn sample(&mut self) {
        let signed = self.subject.prepare();
        let (before, after) = signed.split_at(signed.len() / 2);
        let raw_before = processor_time(|| before.iter().for_each(Signed::verify));
        let runs = self.subject.runs();
        let own = processor_time(|| (0..runs).for_each(|_| self.subject.run()));
        let raw_after = processor_time(|| after.iter().for_each(Signed::verify));
        self.samples.push(Sample {
            raw: (raw_before + raw_after) / f64::from(REQUESTS),
            own: own / f64::from(REQUESTS) / f64::from(runs),
        });
    }

    fn finish(self) -> Time {
        let counted = &self.samples[WARM_UP..];
        let all = |part: fn(&Sample) -> f64| Spread::of(counted.iter().map(part).collect());
        Time {
            label: self.label,
            ratio: all(|sample| sample.own / sample.raw),
            micros: all(|sample| sample.own).median,
            raw_micros: all(|sample| sample.raw).median,
        }
    }
}

/// Measures the rows in turn, in so many rounds, each of which begins with another row.
pub fn measure(rounds: usize, tick: impl Fn(), mut rows: Vec<Row<'_>>) -> Vec<Time> {
    let count = rows.len();
    for round in 0..WARM_UP + rounds {
        tick();
        for place in 0..count {
            rows[(round + place) % count].sample();
        }
    }
    rows.into_iter().map(Row::finish).collect()
}

/// The processor time that this takes on this thread, in microseconds. On a shared machine the
/// turns of other processes are left out, and so is waiting, which nothing here does.
fn processor_time(work: impl FnOnce()) -> f64 {
    let start = thread_micros();
    work();
    thread_micros() - start
}

#[expect(clippy::cast_precision_loss, reason = "a run takes minutes")]
fn thread_micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The time that passes until a thread has done its share, in microseconds: the mean over threads that begin at the same
/// moment, one for each share.
pub fn on_threads<S: Sync>(shares: &[S], work: impl Fn(&S) + Sync) -> f64 {
    let waiting = AtomicUsize::new(shares.len());
    let work = |share| {
        waiting.fetch_sub(1, Ordering::SeqCst);
        while waiting.load(Ordering::SeqCst) > 0 {
            hint::spin_loop();
        }
        wall_time(|| work(share))
    };
    let times: f64 = thread::scope(|scope| {
        let threads: Vec<_> = shares
            .iter()
            .map(|share| scope.spawn(|| work(share)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no share panics"))
            .sum()
    });
    times / f64::from(u32::try_from(shares.len()).expect("there are few threads"))
}

/// The time that passes meanwhile, in microseconds: for what waits for other threads.
pub fn wall_time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}
