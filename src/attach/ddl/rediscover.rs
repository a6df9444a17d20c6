//! What the document depends on now, compared with what is recorded, and recording it.
//!
//! Invariant: a wider definition than the one that writers have gone by is not recorded as good: that a document
//! depends on more than was followed is written down as a problem, which only attach() ends, since it waits for
//! writers.
//!
//! Rules: D2, D6.

use crate::attachment::{self, Recorded, State};
use crate::definition::{Definition, Link};
use crate::error::{Error, warning};
use crate::pending;
use crate::pg::spi::{self, Arg};
use crate::pg::{catalog, xact};
use crate::proof::discover::{self, ProfileKey};
use crate::rights::{as_ourselves, home};

/// What the document depends on now. The views that it reads are not kept locked: whoever replaces one next
/// shall not wait for this transaction.
pub(super) fn find(recorded: &Recorded) -> Result<Definition, Error> {
    let looked = xact::look(|| {
        let _us = as_ourselves();
        let before = recorded.definition.as_ref();
        let key = ProfileKey::Shown(before.map_or("", |d| &d.view_key));
        discover::discover(recorded.profile, recorded.document, key, before)
    });
    match looked {
        Ok(found) => found.map(|f| f.definition),
        Err(failure) => failure.raise(),
    }
}

/// The definition, where changes are followed as before.
pub(super) fn follows_as_before<'a>(
    recorded: &Recorded,
    found: &'a Result<Definition, Error>,
) -> Option<&'a Definition> {
    let before = recorded.definition.as_ref().filter(|_| !recorded.problem)?;
    found.as_ref().ok().filter(|d| before.follows_as(d))
}

/// Whether they are, and all is well.
pub(super) fn is_as_before(recorded: &Recorded, found: &Result<Definition, Error>) -> bool {
    follows_as_before(recorded, found).is_some() && is_well()
}

/// Whether what is attached can be used, and documents are trusted.
pub(super) fn is_well() -> bool {
    matches!(attachment::load(), State::Ready(a) if a.degraded.is_none())
}

/// Writes down a definition that follows changes as before.
pub(super) fn keep(d: &Definition) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.attachment SET definition = $1::jsonb WHERE definition <> $1::jsonb",
        &[Arg::text(&attachment::as_recorded(d))],
    );
    if let Some((home, _)) = home() {
        catalog::invalidate(home);
    }
}

/// Writes down that writers may have gone by less than the view shows: attach, which waits for them,
/// ends that.
fn distrust_until_attach() -> u64 {
    spi::run(
        "UPDATE profile_cache.attachment SET problem = $1",
        &[Arg::text(&Error::DocumentWidened.message())],
    )
}

/// Writes down what the document depends on now, or why that can no longer be told. Everything is
/// pending already, and whoever made it so tells every backend to look again.
pub(super) fn rediscover(recorded: &Recorded, found: Result<Definition, Error>, replaced: bool) {
    let _us = as_ourselves();
    let widened = Error::DocumentWidened.message();
    // A renamed or retyped column: what the pending rows say of it means nothing any more.
    let led_by = |d: &Definition| -> Vec<Link> {
        let links = d.tables.iter().flat_map(|t| t.links.clone());
        let watching_nothing = |l| Link { watched: vec![], everyone: vec![], ..l };
        links.map(watching_nothing).collect()
    };
    // What could not be proven when the view was replaced may be provable now: the recorded definition
    // is still the one that writers have gone by.
    let covered = |d: &Definition| {
        let before = recorded.definition.as_ref();
        !(replaced || recorded.problem) || before.is_some_and(|before| discover::covers(before, d))
    };
    if let Ok(d) = &found
        && recorded.definition.as_ref().map(led_by) != Some(led_by(d))
    {
        pending::forget_values();
    }
    // Reads fail as long as the view could run another role's code as the tables' owner.
    let is_unsafe = found.as_ref().is_err_and(Error::is_unsafe);
    let mut news = spi::run(
        "UPDATE profile_cache.attachment SET unsafe = $1 WHERE unsafe <> $1",
        &[Arg::bool(is_unsafe)],
    );
    match found {
        Ok(d) if !covered(&d) => distrust_until_attach(),
        // Only attach, which waits for writers, ends the distrust of a view that has become wider.
        Ok(d) => spi::run(
            "UPDATE profile_cache.attachment SET definition = $1::jsonb, problem = NULL \
             WHERE problem IS DISTINCT FROM $2 AND (definition <> $1::jsonb OR problem IS NOT NULL)",
            &[Arg::text(&attachment::as_recorded(&d)), Arg::text(&widened)],
        ),
        Err(e) => {
            let why = e.message();
            news += spi::run(
                "UPDATE profile_cache.attachment SET problem = $1 \
                 WHERE problem IS DISTINCT FROM $1 AND problem IS DISTINCT FROM $2",
                &[Arg::text(&why), Arg::text(&widened)],
            );
            if is_unsafe && news > 0 {
                warning(
                    &format!("reads of cached profiles fail from now on: {why}"),
                    "SELECT profile_cache.attach(), with the same arguments, says what to do.",
                );
            }
            news
        }
    };
}
