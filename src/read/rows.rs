//! What the rule of reading judges, fetched: the columns of a row, and what the active snapshot shows as pending.
//!
//! Invariant: reads only, and decides nothing but that what cannot be read is distrusted.
//!
//! Rules: R6.

use super::follow;
use super::rule::{Beside, CachedRow, LinkChange, Miss, Pending, PendingEpoch};
use crate::attachment::Attached;
use crate::definition::LookedAt;
use crate::error::Error;
use crate::pg::scan::{HeapRow, KeyHash};
use crate::pg::spi;
use crate::pg::value::Value;
use crate::pg::xact;
use std::cell::RefCell;

/// How many pending epochs a read looks at.
pub const MOST: usize = 200;

impl CachedRow {
    /// Of a row of [`Sql::stored`](crate::definition::Sql::stored) and its kin. `any`: whether one of these keys is
    /// pending.
    pub fn from_row(r: &spi::Row, a: &Attached, any: impl Fn(&[KeyHash]) -> bool) -> CachedRow {
        CachedRow {
            epoch: r.int8(LookedAt::EPOCH),
            valid_until: r.timestamptz(LookedAt::VALID_UNTIL),
            updated_at: r.timestamptz(LookedAt::UPDATED_AT),
            // None that can be read counts as the newest.
            xmin: r.int8(LookedAt::XMIN).and_then(|x| u32::try_from(x).ok()).unwrap_or(0),
            named: r.bool(LookedAt::NAMED).unwrap_or(true) || any(&CachedRow::names(r, a)),
            key: r.uuid(LookedAt::KEY),
        }
    }

    /// How pending keys that have a hash would name the row.
    pub fn names(r: &spi::Row, a: &Attached) -> Vec<KeyHash> {
        let missing = || Error::Internal("a profile's names are missing".into()).raise();
        let mut texts = r.texts(LookedAt::NAMES).unwrap_or_else(missing).into_iter();
        let names = a.naming.iter().filter(|n| n.plain);
        names.map(|n| n.hash(&texts.by_ref().take(n.types.len()).collect::<Vec<_>>())).collect()
    }
}

/// The rule, with what the active snapshot shows as pending. What is asked of it beside, it asks once.
pub struct FreshnessRule<'a> {
    a: &'a Attached,
    pending: Pending,
    now: i64,
    next_xid: u64,
    /// Of epochs that have been asked for, up to which xmin they have been passed.
    passed: RefCell<Vec<(i64, Option<u64>)>>,
}

impl<'a> FreshnessRule<'a> {
    /// In the active snapshot.
    pub fn new(a: &'a Attached) -> FreshnessRule<'a> {
        let mut pending = Pending::default();
        let look = a.epochs.look(|row| {
            pending.overflow = pending.epochs.len() == MOST;
            if !pending.overflow {
                pending.epochs.push(PendingEpoch {
                    epoch: row.int8(a.epochs.number),
                    change: follow::change(a, row),
                });
            }
            pending.overflow
        });
        pending.current = look.current;
        pending.overflow |= !look.complete;
        let next_xid = if pending.epochs.is_empty() { 0 } else { xact::next_full_xid() };
        FreshnessRule { a, pending, now: xact::now(), next_xid, passed: RefCell::default() }
    }

    /// Whether it concerns everybody that something is pending, whatever their stamps.
    pub fn concerns_all(&self) -> bool {
        let all = |e: &PendingEpoch| e.epoch.is_none() && e.change.is_none();
        self.pending.overflow || self.pending.epochs.iter().any(all)
    }

    /// Of a profile's row that is found anew where its columns are needed.
    pub fn of(&self, l: &CachedRow) -> Result<(), Miss> {
        self.judge(l, &|reach| {
            let (key, probe) = l.key.zip(self.a.probe)?;
            probe.find(self.a.profile, Value::uuid(&key).datum, |row| reach(row))??
        })
    }

    /// Of this row, which is at hand.
    pub fn of_row(&self, l: &CachedRow, row: &HeapRow) -> Result<(), Miss> {
        self.judge(l, &|reach| reach(row))
    }

    fn judge(&self, l: &CachedRow, row: &WithRow) -> Result<(), Miss> {
        let asked = Asked { rule: self, row, reached: RefCell::default() };
        self.pending.judge(l, self.a.trusted_from, self.now, self.next_xid, &asked)
    }
}

/// Hands the profile's row to what is told, and returns what that makes of it.
type WithRow<'a> = dyn Fn(&dyn Fn(&HeapRow) -> Reached) -> Reached + 'a;

/// What is asked about one row: by each link once.
struct Asked<'a> {
    rule: &'a FreshnessRule<'a>,
    row: &'a WithRow<'a>,
    /// What links lead from, to this row; None where that is not known.
    reached: RefCell<Vec<(LinkNumber, Reached)>>,
}

/// A table's number, and that of a link of its.
type LinkNumber = (usize, usize);
type Reached = Option<Vec<String>>;

impl Beside for Asked<'_> {
    fn passed_xmin(&self, epoch: i64) -> Option<u64> {
        let mut known = self.rule.passed.borrow_mut();
        if let Some((_, passed)) = known.iter().find(|(number, _)| *number == epoch) {
            return *passed;
        }
        let passed = self.rule.a.epochs.passed_xmin(epoch);
        known.push((epoch, passed));
        passed
    }

    fn leads(&self, change: &LinkChange) -> bool {
        change.links.iter().any(|link| {
            let mut known = self.reached.borrow_mut();
            let found = known.iter().position(|(l, _)| l == link);
            let at = found.unwrap_or_else(|| {
                let reached = (self.row)(&|row| follow::reached(self.rule.a, *link, row));
                known.push((*link, reached));
                known.len() - 1
            });
            let reached = known.get(at).and_then(|(_, reached)| reached.as_ref());
            reached.is_none_or(|values| values.iter().any(|v| change.values.contains(v)))
        })
    }
}
