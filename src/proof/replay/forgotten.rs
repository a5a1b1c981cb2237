//! Which records the store in memory has dropped, by the last second of their proofs.

use crate::time::Timestamp;

/// Ranges of seconds. A proof whose last second is in one of them may have been used: its record may
/// have been dropped.
///
/// While the clock runs forward, all ranges are in the past, where no proof is valid. Only after the clock
/// was set back does a valid proof expire in a range. Ranges, and not one latest second, because a clock that
/// was ahead for a while leaves a range in the future when it is corrected, and proofs that expire before
/// that range must pass.
#[derive(Clone, Copy)]
pub(crate) struct Forgotten {
    ranges: [(Timestamp, Timestamp); MAX_RANGES],
    /// How often something was added.
    version: u64,
}

/// Beyond it, the two nearest ranges become one.
const MAX_RANGES: usize = 8;

/// Its start is after its end.
const EMPTY: (Timestamp, Timestamp) = (Timestamp::from_unix(u64::MAX), Timestamp::from_unix(0));

impl Forgotten {
    pub(crate) const NOTHING: Self = Self {
        ranges: [EMPTY; MAX_RANGES],
        version: 0,
    };

    pub(crate) fn contains(&self, second: Timestamp) -> bool {
        self.ranges
            .iter()
            .any(|(start, end)| *start <= second && second <= *end)
    }

    /// The last second up to this one that is in no range.
    pub(crate) fn last_outside(&self, second: Timestamp) -> Timestamp {
        let range = self
            .ranges
            .iter()
            .find(|(start, end)| *start <= second && second <= *end);
        range.map_or(second, |(start, _)| {
            // Ranges do not touch.
            Timestamp::from_unix(start.as_unix().saturating_sub(1))
        })
    }

    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Adds all seconds from `start` to `end`.
    pub(crate) fn add(&mut self, mut start: Timestamp, mut end: Timestamp) {
        self.version += 1;
        for range in &mut self.ranges {
            if range.0 <= end.plus(1) && start <= range.1.plus(1) {
                (start, end) = (start.min(range.0), end.max(range.1));
                *range = EMPTY;
            }
        }
        if let Some(range) = self.ranges.iter_mut().find(|range| **range == EMPTY) {
            *range = (start, end);
        } else {
            self.join_nearest();
            // The new range may be between the two.
            self.add(start, end);
        }
    }

    /// Adds the seconds between the two nearest ranges.
    fn join_nearest(&mut self) {
        self.ranges.sort_unstable();
        let gap = |at: &usize| self.ranges[*at].0.as_unix() - self.ranges[at - 1].1.as_unix();
        if let Some(at) = (1..MAX_RANGES).min_by_key(gap) {
            self.ranges[at - 1].1 = self.ranges[at].1;
            self.ranges[at] = EMPTY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(ranges: &[(u64, u64)]) -> Forgotten {
        let mut forgotten = Forgotten::NOTHING;
        for (start, end) in ranges {
            forgotten.add(Timestamp::from_unix(*start), Timestamp::from_unix(*end));
        }
        forgotten
    }

    /// The seconds below 1,000 that are forgotten, as ranges.
    fn seconds(forgotten: &Forgotten) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for second in (0..1_000).filter(|s| forgotten.contains(Timestamp::from_unix(*s))) {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == second => *end = second,
                _ => ranges.push((second, second)),
            }
        }
        ranges
    }

    #[test]
    fn joins_what_overlaps_or_touches_and_nothing_else() {
        for (name, ranges, expected) in [
            ("nothing", &[][..], &[][..]),
            ("a second", &[(5, 5)], &[(5, 5)]),
            ("apart", &[(5, 5), (7, 9)], &[(5, 5), (7, 9)]),
            ("after", &[(5, 6), (7, 9)], &[(5, 9)]),
            ("before", &[(7, 9), (5, 6)], &[(5, 9)]),
            ("within", &[(5, 9), (6, 7)], &[(5, 9)]),
            ("around", &[(6, 7), (5, 9)], &[(5, 9)]),
            ("between", &[(1, 3), (7, 9), (4, 6)], &[(1, 9)]),
            ("the start", &[(0, 0), (1, 1)], &[(0, 1)]),
        ] {
            assert_eq!(seconds(&added(ranges)), expected, "{name}");
        }
        let last = Timestamp::from_unix(u64::MAX);
        let mut end_of_time = added(&[(5, 5)]);
        end_of_time.add(last, last);
        assert!(end_of_time.contains(last) && end_of_time.contains(Timestamp::from_unix(5)));
        assert_eq!(seconds(&end_of_time), [(5, 5)]);
    }

    #[test]
    fn joins_the_nearest_when_there_are_too_many() {
        let ranges: Vec<(u64, u64)> = [10, 20, 30, 35, 40, 60, 80, 100].map(|s| (s, s)).to_vec();
        let mut forgotten = added(&ranges);
        assert_eq!(seconds(&forgotten), ranges);
        forgotten.add(Timestamp::from_unix(200), Timestamp::from_unix(201));
        let joined = [
            (10, 10),
            (20, 20),
            (30, 35),
            (40, 40),
            (60, 60),
            (80, 80),
            (100, 100),
            (200, 201),
        ];
        assert_eq!(seconds(&forgotten), joined);
    }

    #[test]
    fn joins_a_range_that_is_between_the_nearest() {
        let mut ranges: Vec<(u64, u64)> = [10, 20, 100, 200, 300, 400, 500, 600]
            .map(|s| (s, s))
            .to_vec();
        let forgotten = added(&[&ranges[..], &[(15, 15), (700, 700)]].concat());
        ranges.splice(..2, [(10, 20)]);
        ranges.push((700, 700));
        assert_eq!(seconds(&forgotten), ranges);
    }

    /// Whatever is added, it stays.
    #[test]
    fn forgets_nothing_that_was_added() {
        let mut state = 1_u64;
        let mut forgotten = Forgotten::NOTHING;
        let mut all = Vec::new();
        for _ in 0..2_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let (start, length) = ((state >> 33) % 900, (state >> 20) % 3);
            forgotten.add(
                Timestamp::from_unix(start),
                Timestamp::from_unix(start + length),
            );
            all.extend(start..=start + length);
            if all.len() < 40 {
                assert!(
                    all.iter()
                        .all(|s| forgotten.contains(Timestamp::from_unix(*s)))
                );
            }
        }
        assert!(
            all.iter()
                .all(|s| forgotten.contains(Timestamp::from_unix(*s)))
        );
    }
}
