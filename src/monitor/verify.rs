//! `verify`: what readers are served, compared with the view.
//!
//! Invariant: whether a document would be served is judged by the reader's own rule ([`FreshnessRule`]); no more than a page
//! of rows is in memory.

use super::counts::blocks;
use crate::attachment::Attached;
use crate::definition::LookedAt;
use crate::document;
use crate::error::{Error, check_interrupts};
use crate::pending::PendingKeys;
use crate::pg::guard::LocalSettings;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::{Uuid, Value, scratch};
use crate::read::{CachedRow, FreshnessRule};
use crate::rights::as_owner;
use crate::xact_state;

const PAGE: i64 = 500;

/// Compares stored documents that a reader would be served, and what it would be served, with the
/// view; `sample`: that many profiles, from a random place in key order on. Reports problems.
pub fn verify(
    a: &Attached,
    sample: Option<i64>,
    mut report: impl FnMut(&Uuid, &str, Option<Value>, Option<Value>),
) {
    let _pinned = LocalSettings::new();
    let checked = Checked::new(a);
    let mut left = sample.unwrap_or(i64::MAX);
    let mut after = sample.and_then(|_| random_key(a));
    let mut wrapped = sample.is_none();
    let start = after;
    while left > 0 {
        check_interrupts();
        let (n, last) = scratch(|| {
            let page = keys_of_page(a, after, left.min(PAGE));
            // A sample ends where it began.
            let until = start.filter(|_| wrapped && sample.is_some());
            let within = page.partition_point(|key| until.is_none_or(|until| *key <= until));
            checked.compare(page.get(..within).unwrap_or_default(), &mut report);
            (page.len() as i64, page.last().copied())
        });
        left -= n;
        after = last;
        let past_start = wrapped && start.is_some() && after > start;
        if after.is_none() || past_start {
            if wrapped {
                break;
            }
            wrapped = true;
        }
    }
}

fn keys_of_page(a: &Attached, after: Option<Uuid>, size: i64) -> Vec<Uuid> {
    let _owner = as_owner(a.owner);
    let args = [Arg::uuid(after.as_ref()), Arg::int8(Some(size))];
    let keys = spi::all(&a.sql.page(), Snapshot::Active, &args, |r| r.uuid(1));
    keys.into_iter().flatten().collect()
}

/// What `verify` compares with, of the caller's snapshot.
struct Checked<'a> {
    a: &'a Attached,
    judge: FreshnessRule<'a>,
    keys: PendingKeys,
}

impl<'a> Checked<'a> {
    fn new(a: &'a Attached) -> Checked<'a> {
        Checked { a, judge: FreshnessRule::new(a), keys: PendingKeys::load(a, Snapshot::Active) }
    }

    /// Compares these profiles with the view. One for which the view raises is reported, and the others go on.
    fn compare(
        &self,
        keys: &[Uuid],
        report: &mut impl FnMut(&Uuid, &str, Option<Value>, Option<Value>),
    ) {
        if keys.is_empty() {
            return;
        }
        let view = |keys: &[Uuid]| self.with_view(keys);
        document::contained(keys, view, |keys, found| match found {
            Ok(rows) => {
                for row in rows {
                    let Some(key) = row.looked.key else { continue };
                    if row.n > 1 {
                        let problem = "the view has more than one row for it";
                        report(&key, problem, None, row.expected);
                    } else if self.trusted(&row.looked) && !same(row.stored, row.expected) {
                        let problem = "the cached document differs from the view's";
                        report(&key, problem, row.stored, row.expected);
                    }
                }
            }
            Err(failure) => {
                let problem = format!("the view fails with SQLSTATE {}", failure.sqlstate);
                for key in keys {
                    report(key, &problem, self.served(key), None);
                }
            }
        });
    }

    /// These profiles beside the view.
    fn with_view(&self, keys: &[Uuid]) -> Vec<Compared> {
        let (named, args) = self.keys.named(self.a, 2);
        let args: Vec<Arg> = std::iter::once(Arg::uuids(keys)).chain(args).collect();
        let _owner = as_owner(self.a.owner);
        let missing = || Error::Internal("the view's rows could not be counted".into()).raise();
        spi::all(&self.a.sql.compared(&named), Snapshot::Active, &args, |r| Compared {
            looked: self.look(r),
            stored: r.jsonb(LookedAt::DOCUMENT),
            expected: r.jsonb(LookedAt::EXPECTED),
            n: r.int8(LookedAt::VIEW_ROWS).unwrap_or_else(missing),
        })
    }

    /// The stored document that a reader would be served.
    fn served(&self, key: &Uuid) -> Option<Value> {
        let (named, args) = self.keys.named(self.a, 2);
        let args: Vec<Arg> = std::iter::once(Arg::uuid(Some(key))).chain(args).collect();
        let _owner = as_owner(self.a.owner);
        let sql = self.a.sql.stored(&named);
        let row = spi::one(spi::point(&sql), Snapshot::Active, &args, |r| {
            (self.look(r), r.jsonb(LookedAt::DOCUMENT))
        });
        let (looked, stored) = row?;
        stored.filter(|_| self.trusted(&looked))
    }

    fn look(&self, r: &spi::Row) -> CachedRow {
        CachedRow::from_row(r, self.a, |names| self.keys.any(names))
    }

    /// Whether a reader would be served the stored document.
    fn trusted(&self, looked: &CachedRow) -> bool {
        self.a.degraded.is_none() && !xact_state::must_read_live() && self.judge.of(looked).is_ok()
    }
}

/// A profile, and what the view says of it: a document, and how many rows there are.
struct Compared {
    looked: CachedRow,
    stored: Option<Value>,
    expected: Option<Value>,
    n: i64,
}

/// Equal to the byte: jsonb's own equality takes 1.0 for 1.00.
fn same(a: Option<Value>, b: Option<Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same_image(b),
        (None, None) => true,
        _ => false,
    }
}

/// A key of the table's own, at random: from a few blocks of it.
fn random_key(a: &Attached) -> Option<Uuid> {
    let _owner = as_owner(a.owner);
    let share = (20.0 / blocks(a).max(1) as f64).min(1.0);
    spi::one(&a.sql.random_key(), Snapshot::Active, &[Arg::float4(100.0 * share as f32)], |r| {
        r.uuid(1)
    })
    .flatten()
}
