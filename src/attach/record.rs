//! What attach() writes down, and what is forgotten with it.
//!
//! Invariant: where anything is new, every stored document is made pending in the same transaction; where nothing
//! is, nothing is written. An attachment leaves nothing behind that the next could take for its own.

use super::tables::Named;
use crate::attachment;
use crate::definition::Definition;
use crate::pending;
use crate::pg::Oid;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::rights::as_ourselves;

pub(super) fn attached_profile() -> Option<Oid> {
    let _us = as_ourselves();
    spi::one(
        "SELECT a.profile::oid FROM profile_cache.attachment AS a \
         JOIN pg_catalog.pg_class AS c ON c.oid = a.profile",
        Snapshot::Latest,
        &[],
        |r| r.oid(1),
    )
    .flatten()
}

/// Writes the attachment down, and makes everything pending where anything is new.
pub(super) fn record(
    profile: &Named,
    document: Oid,
    definition: &Definition,
    exclude: &[String],
    changed: bool,
) {
    let text = attachment::as_recorded(definition);
    let known = attached_profile().is_some();
    {
        let _us = as_ourselves();
        if known {
            // Its row may have been lost.
            let lost = pending::first_epoch();
            let same = spi::one(
                "SELECT FROM profile_cache.attachment AS a WHERE a.document::oid = $1 \
                 AND a.definition = $2::pg_catalog.jsonb AND a.problem IS NULL",
                Snapshot::New,
                &[Arg::oid(document), Arg::text(&text)],
                |_| (),
            );
            if same.is_some() && !changed && !lost {
                return;
            }
            pending::forget_values();
            spi::run(
                "UPDATE profile_cache.attachment SET document = $1::oid::regclass, definition = $2::pg_catalog.jsonb, \
                 exclude = $3::pg_catalog.name[], problem = NULL, unsafe = false",
                &[Arg::oid(document), Arg::text(&text), Arg::texts(exclude)],
            );
        } else {
            // What an attachment whose table is gone left behind.
            forget_everything();
            spi::run(
                "INSERT INTO profile_cache.attachment (profile, document, exclude, definition) \
                 VALUES ($1::oid::regclass, $2::oid::regclass, $3::pg_catalog.name[], $4::pg_catalog.jsonb)",
                &[Arg::oid(profile.oid), Arg::oid(document), Arg::texts(exclude), Arg::text(&text)],
            );
            pending::first_epoch();
        }
    }
    pending::redefined("attach");
}

pub(super) fn forget_everything() {
    pending::forget_everything();
    for table in ["attachment", "epoch", "reached", "failure", "last_refresh"] {
        spi::run(&format!("DELETE FROM profile_cache.{table}"), &[]);
    }
}
