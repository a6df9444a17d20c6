//! DDL that has been committed and that its own event could not look at: refresh and attach() do.
//!
//! Invariant: until then no stamp is trusted. It is decided about only while other DDL is kept out, and where it
//! concerns the document, what is attached is discovered anew before its epoch gets a number.
//!
//! Rules: D3.

use super::reached::{is_written, write_reached};
use super::rediscover::{find, follows_as_before, keep, rediscover};
use crate::attachment::{self, Attached, Degraded, Recorded};
use crate::error::Error;
use crate::pending;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog, locks, xact};
use crate::rights::{as_ourselves, home};
use std::collections::HashSet;

/// What refresh has found to be done about DDL.
pub enum Looked {
    Nothing,
    /// Another transaction is in the way: nothing would be trusted.
    Busy,
    /// It is done, and to be committed.
    Done,
}

/// Looks at DDL that nobody could look at, before its epoch gets a number.
pub fn look_again(a: &Attached) -> Looked {
    let (server, database) = catalog::place();
    let (waiting, written) = {
        let _us = as_ourselves();
        spi::one(
            "SELECT EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL), \
              EXISTS (SELECT FROM profile_cache.reached AS r WHERE (r.server, r.objid, r.classid) = ($1, $2, 'pg_database'::regclass))",
            Snapshot::New,
            &[Arg::int8(Some(server)), Arg::oid(database)],
            |r| (r.bool(1) != Some(false), r.bool(2) == Some(true)),
        )
        .unwrap_or((true, false))
    };
    // An index by which something was proven can go without an event that names it.
    let outdated = matches!(a.degraded, Some(Degraded::Problem(_)));
    if !waiting && !outdated && written {
        return Looked::Nothing;
    }
    let looked = xact::attempt(|| {
        let locked = attachment::try_lock_row()
            && home().is_some_and(|(home, _)| locks::try_lock_against_writers(home));
        // DDL that is under way and that may be about what is new in `reached` has that table locked.
        let ones = if locked { pending::unseen_ones() } else { vec![] };
        let recorded = attachment::recorded().filter(|_| locked && waiting != ones.is_empty());
        let Some(recorded) = recorded else { Error::TablesBusy(vec![]).raise() };
        let mut done = settle(&recorded, &ones, || {
            let found = find(&recorded);
            // Writers since then have gone by the definition of before.
            if no_writers(&recorded) {
                let settled = Recorded { problem: false, ..recorded.clone() };
                rediscover(&settled, found, false);
            } else {
                rediscover(&recorded, found, true);
            }
        });
        if outdated
            && let found = find(&recorded)
            && let Some(d) = follows_as_before(&recorded, &found)
            && recorded.definition.as_ref() != Some(d)
        {
            keep(d);
            done = true;
        }
        done
    });
    match looked {
        Ok(true) => Looked::Done,
        Ok(false) => Looked::Nothing,
        Err(failure) if failure.sqlstate == "55P03" => {
            if !waiting {
                return Looked::Nothing;
            }
            Looked::Busy
        }
        Err(failure) => failure.raise(),
    }
}

/// Keeps writers from the tables until the transaction ends, as attach does, where none is at work now or soon.
fn no_writers(recorded: &Recorded) -> bool {
    let mut tables = attachment::relations_of_view(recorded.document);
    tables.push(recorded.profile);
    tables.retain(|t| catalog::is_table(*t));
    (0..20).any(|_| {
        let locked = xact::subtransaction(|| {
            if !tables.iter().all(|t| locks::try_lock_against_writers(*t)) {
                Error::TablesBusy(vec![]).raise();
            }
        });
        if locked.is_err() {
            xact::sleep(5);
        }
        locked.is_ok()
    })
}

/// Decides about DDL that nobody has looked at, by who keeps all other DDL out: what concerns the document is
/// looked at by `look`, and may get a number then; the rest has never been. Writes `reached` anew. Whether
/// that changed anything.
pub fn settle(recorded: &Recorded, ones: &[pending::Unseen], look: impl FnOnce()) -> bool {
    let about: HashSet<Oid> = ones.iter().flat_map(|u| u.about.clone()).collect();
    let about: Vec<Oid> = about.into_iter().collect();
    let known = || -> HashSet<Oid> {
        let _us = as_ourselves();
        spi::all(
            "SELECT DISTINCT r.objid FROM profile_cache.reached AS r WHERE r.server = $1 AND r.objid = ANY ($2)",
            Snapshot::Latest,
            &[Arg::int8(Some(catalog::place().0)), Arg::oids(&about)],
            |r| r.oid(1),
        )
        .into_iter()
        .flatten()
        .collect()
    };
    let ours = is_written();
    let mut concerned = known();
    write_reached(recorded);
    concerned.extend(known());
    let (real, idle): (Vec<&pending::Unseen>, Vec<&pending::Unseen>) =
        ones.iter().partition(|u| !ours || u.about.iter().any(|o| concerned.contains(o)));
    if !real.is_empty() {
        look();
        write_reached(recorded);
    }
    pending::seen(&real, &idle);
    if !ones.is_empty()
        && let Some((home, _)) = home()
    {
        catalog::invalidate(home);
    }
    !ours || !ones.is_empty()
}
