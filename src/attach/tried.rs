//! Whether the view can be read at all, as it will be: one document, computed before attach() says yes.
//!
//! Invariant: only what may run is run, since the view has been proven, and nothing is stored. A profile whose own data
//! the view cannot show stops nothing, as long as there is another that it can.

use super::tables::Named;
use crate::definition::{Definition, Sql};
use crate::error::{Error, warning};
use crate::pg::Oid;
use crate::pg::spi::{self, ActiveSnapshot, Arg, Snapshot};
use crate::pg::value::{Uuid, Value};
use crate::pg::xact::{self, Failure};
use crate::rights::as_owner;

/// Raises what the view raises, if it does so for each profile that is tried.
pub(super) fn compute_one(profile: &Named, owner: Oid, document: &Named, d: &Definition) {
    const TRIES: i64 = 10;
    // The tables are locked meanwhile.
    const PATIENCE: i64 = 1_000_000;
    let began = xact::clock();
    let sql = Sql::new(profile.sql.clone(), document.sql.clone(), d, vec![]);
    let page = [Arg::uuid(None), Arg::int8(Some(TRIES))];
    let keys = read(owner, &sql.page(), &page, |r| r.uuid(1));
    let compute = |key: &Uuid| {
        let key = [Arg::uuid(Some(key))];
        xact::subtransaction(|| {
            if read(owner, &sql.compute_one, &key, |r| Some(r.jsonb(2))).len() > 1 {
                Error::TwoDocuments.raise();
            }
        })
    };
    let mut first: Option<(String, Failure)> = None;
    for key in &keys {
        match compute(key) {
            Ok(()) => return first.iter().for_each(|(key, failure)| warn(key, failure)),
            Err(failure) => {
                first.get_or_insert((Value::uuid(key).to_text(), failure));
                if xact::clock() - began > PATIENCE {
                    break;
                }
            }
        }
    }
    match first {
        Some((key, failure)) => refuse(Some(key), &failure),
        // Of nobody, as far as that goes.
        None => {
            if let Err(failure) = compute(&Uuid::default()) {
                refuse(None, &failure);
            }
        }
    }
}

/// As refresh reads the view.
fn read<T>(owner: Oid, sql: &str, args: &[Arg], each: fn(&spi::Row) -> Option<T>) -> Vec<T> {
    let _snapshot = ActiveSnapshot::new();
    let _owner = as_owner(owner);
    spi::all(sql, Snapshot::Active, args, each).into_iter().flatten().collect()
}

fn refuse(profile: Option<String>, failure: &Failure) -> ! {
    let (code, message, detail, hint) = failure.said();
    Error::ViewRaises { profile, code, message, detail, hint }.raise()
}

fn warn(profile: &str, failure: &Failure) {
    let (_, message, _, _) = failure.said();
    warning(
        &format!("the document of profile {profile} cannot be computed: {message}"),
        "Reads of it raise this, until its data or the view is mended; others are not touched.",
    );
}
