//! Something that wants attention, or may come to: which check it is of, how bad it is, since when, what is so, what helps.
//!
//! Invariant: pure. `status` prints a finding as a line, `health` as part of its check's row: both know the same of it.

/// The checks of `health`, in its order. Names are API.
pub(super) const CHECKS: [(Check, &str); 11] = [
    (Check::Versions, "versions"),
    (Check::Attachment, "attachment"),
    (Check::Triggers, "triggers"),
    (Check::Worker, "worker"),
    (Check::Refresh, "refresh"),
    (Check::Pending, "pending"),
    (Check::Holders, "holders"),
    (Check::Failures, "failures"),
    (Check::HitRate, "hit_rate"),
    (Check::ProfileTable, "profile_table"),
    (Check::Replication, "replication"),
];

/// What a check says that cannot be made.
pub(super) const NOT_LOOKED_AT: &str =
    "not looked at, because of what the check of the attachment says";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Check {
    Versions,
    Attachment,
    Triggers,
    Worker,
    Refresh,
    Pending,
    Holders,
    Failures,
    HitRate,
    ProfileTable,
    Replication,
}

/// How bad something is.
///
/// Critical: reads fail or wait, an answer may be wrong, or the cache is of no use and will not mend itself. What is slow and
/// right is a warning, and what may be over in a minute is neither until it has lasted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Grade {
    Ok,
    Warning,
    Critical,
}

impl Grade {
    pub fn name(self) -> &'static str {
        match self {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Critical => "critical",
        }
    }
}

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

/// For how long, in microseconds, something is borne that may end by itself.
pub(super) struct Patience {
    warning: i64,
    critical: i64,
}

/// With what makes reads slow. The worker and cron come each minute: what they have left five times is in somebody's way, and
/// after an hour nobody is looking after it.
pub(super) const SLOW_READS: Patience = Patience { warning: 5 * MINUTE, critical: 60 * MINUTE };
/// With what makes reads, or commits, wait: whoever waits a minute has gone.
pub(super) const WAITING: Patience = Patience { warning: 10 * SECOND, critical: MINUTE };

impl Patience {
    /// How bad it is by now. What has lasted for nobody knows how long is a warning.
    pub fn grade(&self, since: Option<i64>, now: i64) -> Grade {
        match since.map(|since| now.saturating_sub(since)) {
            Some(age) if age >= self.critical => Grade::Critical,
            Some(age) if age < self.warning => Grade::Ok,
            _ => Grade::Warning,
        }
    }

    /// Whether that was long ago.
    pub fn is_over(&self, at: i64, now: i64) -> bool {
        self.grade(Some(at), now) == Grade::Critical
    }
}

pub(super) struct Finding {
    pub check: Check,
    pub grade: Grade,
    pub since: Option<i64>,
    /// What is so.
    pub what: String,
    /// Which ones, where `status` has them in a column of their own.
    pub which: Option<String>,
    /// The one command or page that helps.
    pub help: String,
    /// What stands between the two in a line.
    between: &'static str,
}

impl Finding {
    pub fn new(
        check: Check,
        grade: Grade,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Finding {
        let (what, help) = (what.into(), help.into());
        Finding { check, grade, since: None, what, which: None, help, between: ": " }
    }

    pub fn since(self, since: Option<i64>) -> Finding {
        Finding { since, ..self }
    }

    pub fn which(self, which: &[String]) -> Finding {
        Finding { which: Some(which.join(", ")), ..self }
    }

    pub fn joined_by(self, between: &'static str) -> Finding {
        Finding { between, ..self }
    }

    /// As a line of `status.warnings`.
    pub fn line(&self) -> String {
        [&self.what, self.between, &self.help].concat()
    }

    /// As `health` says it, which has a column for what helps.
    pub fn detail(&self) -> String {
        match &self.which {
            Some(which) => format!("{}: {which}", self.what),
            None => self.what.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_gets_worse() {
        let now = 1_000 * MINUTE;
        let grade = |age: i64| SLOW_READS.grade(Some(now - age), now);
        assert_eq!(grade(0), Grade::Ok);
        assert_eq!(grade(5 * MINUTE - 1), Grade::Ok);
        assert_eq!(grade(5 * MINUTE), Grade::Warning);
        assert_eq!(grade(60 * MINUTE - 1), Grade::Warning);
        assert_eq!(grade(60 * MINUTE), Grade::Critical);
        // A clock that has been put back, and infinities.
        assert_eq!(grade(-MINUTE), Grade::Ok);
        assert_eq!(SLOW_READS.grade(Some(i64::MIN), now), Grade::Critical);
        assert_eq!(SLOW_READS.grade(Some(i64::MAX), now), Grade::Ok);
        assert_eq!(SLOW_READS.grade(None, now), Grade::Warning);
    }

    #[test]
    fn each_check_is_there_once() {
        for (n, (check, name)) in CHECKS.iter().enumerate() {
            assert!(CHECKS.iter().skip(n + 1).all(|(c, other)| c != check && other != name));
        }
    }
}
