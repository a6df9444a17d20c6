//! What `status` and `health` are made of, gathered once.
//!
//! Invariant: waits for no lock; where that of the profile table is not free, its rows are not counted.

use super::counts::{Counts, LastRefresh, Waiting, counts, last_refresh, waiting};
use super::finding::{Grade, SLOW_READS};
use super::transactions::{Transaction, holders};
use crate::attachment::{self, Attached, State};
use crate::error::check_interrupts;
use crate::pg::bgworker::in_recovery;
use crate::pg::{catalog, locks, xact};

pub(super) struct Facts {
    /// By the clock, for how old something is.
    pub now: i64,
    pub state: State,
    /// None where the profile table is not free.
    pub count: Option<Counts>,
    pub waiting: Waiting,
    pub refreshed: LastRefresh,
    pub held_up_by: Vec<Transaction>,
    pub standby: bool,
}

impl Facts {
    pub fn gather() -> Facts {
        let (state, free) = attached();
        let count = match &state {
            State::Ready(a) if free => Some(counts(a)),
            _ => None,
        };
        let us = !matches!(state, State::None);
        Facts {
            now: xact::clock(),
            count,
            waiting: if us { waiting() } else { Default::default() },
            refreshed: if us { last_refresh() } else { Default::default() },
            held_up_by: holders(),
            standby: in_recovery(),
            state,
        }
    }

    pub fn attached(&self) -> Option<&Attached> {
        match &self.state {
            State::Ready(a) => Some(a.as_ref()),
            _ => None,
        }
    }

    /// Nothing would be trusted, so that refresh does nothing, and what is said of that is enough.
    pub fn distrusted(&self) -> bool {
        self.attached().is_some_and(|a| a.degraded.is_some())
    }

    /// Something waits for refresh, as far as is known.
    pub fn undone(&self) -> bool {
        self.waiting.keys + self.waiting.epochs > 0
            || self.count.as_ref().is_none_or(|c| c.stale > 0)
    }

    /// What has refresh run.
    pub fn refresh(&self) -> String {
        let place = if self.standby { " on the primary" } else { "" };
        format!("CALL profile_cache.refresh(){place}")
    }

    /// How bad it is that single profiles wait.
    pub fn grade_of_keys(&self) -> Grade {
        self.old(self.waiting.oldest_key)
    }

    /// How bad it is that changes to many wait. One that refresh is following now may take as long as there are profiles.
    pub fn grade_of_epochs(&self) -> Grade {
        let passing = self.old(self.waiting.oldest_passing);
        let goes_on = self.refreshed.under_way != Some(false);
        let passing = if goes_on { passing.min(Grade::Warning) } else { passing };
        self.old(self.waiting.oldest_unfollowed).max(passing)
    }

    /// How bad it is that refresh does not come through: as bad as what waits for it; where only documents do that have expired
    /// or were never computed, since nobody knows when, a warning.
    pub fn grade_of_refresh(&self) -> Grade {
        let waiting = self.grade_of_keys().max(self.grade_of_epochs());
        if self.waiting.keys + self.waiting.epochs == 0 && self.undone() {
            Grade::Warning
        } else {
            waiting
        }
    }

    fn old(&self, since: Option<i64>) -> Grade {
        since.map_or(Grade::Ok, |at| SLOW_READS.grade(Some(at), self.now))
    }
}

/// What is attached, and whether its profile table could be locked for reading: who asks what is the matter
/// must not be made to wait for it.
fn attached() -> (State, bool) {
    loop {
        check_interrupts();
        catalog::accept_invalidations();
        let state = attachment::load();
        let State::Ready(a) = &state else {
            return (state, false);
        };
        let indexes = a.read.iter().copied();
        let mut indexes = indexes.filter(|r| catalog::table_of_index(*r) == Some(a.profile));
        let free =
            locks::try_lock_for_reading(a.profile) && indexes.all(locks::try_lock_for_reading);
        if !attachment::changed() {
            return (state, free);
        }
    }
}
