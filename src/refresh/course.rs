//! What a refresh remembers between its transactions, and how many profiles its next step takes.
//!
//! Invariant: pure. A course says only where to go on: one that is lost costs time and nothing else.

use serde::{Deserialize, Serialize};

/// What a refresh remembers between its transactions. Nothing is lost with it but time.
#[derive(Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Course {
    /// How many profiles the next step takes; 0: not measured yet.
    pub(super) size: i32,
    /// A step has done something since the turn came round.
    pub(super) worked: bool,
    /// Nothing has been done for a whole round: what is left of the pending keys is looked at once more.
    pub(super) settling: bool,
    /// The last pending key of the sweep under way, and when that began, by the clock.
    pub(super) key: Option<[u8; 16]>,
    pub(super) swept: i64,
    /// The pending epoch that had its turn last.
    pub(super) epoch: i64,
    /// A pass, and the first key of the claims of it that were taken last.
    pub(super) claimed: Option<([u8; 16], [u8; 16])>,
    /// What is left of a pass is in the hands of other sessions.
    pub(super) in_hand: bool,
    /// Since when, by the clock, it has had nothing to do but to see what others do; 0: it has.
    pub(super) idle: i64,
    /// The next transaction begins with a nap.
    pub(super) nap: bool,
    /// Pending epochs that this call has passed once more.
    pub(super) again: Vec<i64>,
    /// When the last expired document that was looked at had expired, and whose it was.
    pub(super) expired: Option<(i64, [u8; 16])>,
    /// No more of them are to be found, no failure is to be tried, no part of the table is to be looked through
    /// in this call.
    pub(super) none_expired: bool,
    pub(super) none_failed: bool,
    pub(super) looked: bool,
    /// How long, in microseconds, this call has looked through the table.
    pub(super) looking: i64,
    /// It looks through the whole table, from its beginning.
    #[serde(skip)]
    pub(super) whole: Option<Whole>,
    /// The last step was one of a pass over everybody, or of what has expired, and nothing else waits.
    #[serde(skip)]
    pub(super) filling: bool,
    /// The last step has listed more than one session's work.
    #[serde(skip)]
    pub(super) shared: bool,
}

/// How far a look through the whole table has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whole {
    Wanted,
    UnderWay,
    Done,
}

/// With how many profiles it begins.
const FIRST: i32 = 10;
/// Pending keys that could not be dealt with are looked at again after this time, in microseconds.
pub(super) const PAUSE: i64 = 1_000_000;

/// How long, in microseconds, a refresh looks on where only others have something to do.
const PATIENCE: i64 = 2_000_000;

impl Course {
    /// One that ends by looking through the whole table.
    pub fn through_all() -> Course {
        Course { whole: Some(Whole::Wanted), ..Course::default() }
    }

    /// Whether it has looked through the whole table.
    pub fn is_through(&self) -> bool {
        self.whole == Some(Whole::Done)
    }

    /// Where the claims of a pass that are left begin, but for those that somebody has given back.
    pub(super) fn from(&self, pass: &[u8; 16]) -> Option<[u8; 16]> {
        self.claimed.filter(|(of, _)| of == pass).map(|(_, from)| from)
    }

    /// Whether it is worth another look at what others do, after a nap.
    pub(super) fn look_on(&mut self, now: i64) -> bool {
        if self.idle == 0 {
            self.idle = now;
        }
        self.nap = now - self.idle < PATIENCE;
        self.nap
    }

    /// Whether others would find something to do now.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether the last step can be followed by a rest: nothing that somebody has changed waits for the next one.
    pub fn is_filling(&self) -> bool {
        self.filling
    }

    /// How many profiles the next step takes, of `most`.
    pub(super) fn size(&self, most: i32) -> i32 {
        let first = if self.size == 0 { FIRST } else { self.size };
        first.clamp(1, most)
    }
}

/// How many profiles take a step's time, where so many took `took` microseconds. A few say little of many: it
/// grows by steps, and shrinks at once. `step`: how long the rows of one may stay locked, since a writer of theirs waits.
pub(super) fn next_size(number: i64, took: i64, step: i64) -> Option<i32> {
    if number == 0 {
        return None;
    }
    let size = number.saturating_mul(step) / took.max(1);
    i32::try_from(size.clamp(1, number.saturating_mul(4))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_as_many_as_its_time_allows() {
        // 5,000 took a second: 500 take 100 ms.
        assert_eq!(next_size(5000, 1_000_000, 100_000), Some(500));
        assert_eq!(next_size(1, 3_000_000, 100_000), Some(1));
        assert_eq!(next_size(100, 1000, 100_000), Some(400));
        assert_eq!(next_size(100, 0, 100_000), Some(400));
        assert_eq!(next_size(0, 1000, 100_000), None);
        let course = Course { size: 4000, ..Course::default() };
        assert_eq!(course.size(1000), 1000);
        assert_eq!(Course::default().size(5000), FIRST);
        assert_eq!(Course::default().size(1), 1);
    }

    #[test]
    fn a_course_is_read_back_and_nothing_else_is_believed() {
        let course = Course {
            key: Some([7; 16]),
            expired: Some((-5, [1; 16])),
            again: vec![1, 2],
            ..Course::default()
        };
        let text = serde_json::to_string(&course).unwrap_or_default();
        let back = serde_json::from_str::<Course>(&text).ok();
        assert_eq!(format!("{back:?}"), format!("{:?}", Some(course)));
        assert!(serde_json::from_str::<Course>("5").is_err());
    }
}
