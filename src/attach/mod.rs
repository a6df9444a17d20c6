//! attach() and detach(): columns, triggers, the generated view, and the record of it all.
//!
//! May alter the app's tables, as their owner, and write the attachment. Invariant: table locks first, definitions
//! after; one transaction, all or nothing; no work in proportion to a table's size. Running attach() again mends
//! whatever is missing and, where nothing is, changes nothing.
//!
//! - here: the order of the two
//! - `tables`: the arguments, the tables, their locks
//! - `default_view`, `generated_view`: the view for the conventional tables: its text, and writing it
//! - `added`: the columns and triggers that the tables get
//! - `tried`: one document, to see that the view can be read
//! - `record`: what is written down, and forgotten
//! - `warnings`: what is said and stops nothing
//! - `ddl`: the event triggers, for what is done to any of it later
//!
//! Each of them is used from here; none uses this file.
#![doc = include_str!("README.md")]

mod added;
pub mod ddl;
mod default_view;
mod generated_view;
mod record;
mod tables;
mod tried;
mod warnings;

pub use tables::AttachRequest;

use added::{add_columns, drop_triggers, make_triggers, with_our_triggers};
use generated_view::{VIEW, generate, is_generated};
use record::{attached_profile, forget_everything, record};
use tables::{
    Named, check_key, conventional_tables, lock, named, refuse_events_pending, refuse_unfit,
};

use crate::attachment::{self, State};
use crate::definition::{self, Definition, Table, quote_identifier};
use crate::error::{Error, notice};
use crate::pending;
use crate::pg::guard::current_user;
use crate::pg::spi;
use crate::pg::{Oid, catalog};
use crate::proof::discover::{self, ProfileKey};
use crate::rights::{self, as_ourselves, as_owner, check_extension_member, check_owner};

/// `SELECT profile_cache.attach(…)`.
pub fn attach(request: &AttachRequest) {
    if let Some(encoding) = catalog::other_encoding() {
        Error::Encoding(encoding).raise();
    }
    attachment::check_layout();
    let profile = profile_of(request);
    let user = current_user();
    let _quiet = attachment::Attaching::begin();
    check_extension_member();
    refuse_unfit(&profile, user, None);
    if let Some(other) = attached_profile().filter(|o| *o != profile.oid) {
        Error::AttachedElsewhere(named(other).display).raise();
    }
    let Some(owner) = catalog::owner(profile.oid) else {
        Error::NoProfileTable(profile.display).raise()
    };
    let own = request.document.filter(|d| !is_generated(*d));
    // Reading a view of one's own locks it, so that it stays what it is.
    if let Some(document) = own {
        ddl::hold_row_types(profile.oid, document);
    }
    let others = own.map_or_else(
        || conventional_tables(&profile),
        |document| tables_of_view(document, user, &profile),
    );
    let check = || {
        refuse_unfit(&profile, user, None);
        others.iter().for_each(|t| refuse_unfit(t, user, Some(owner)));
    };
    check();
    // Locks first. SHARE ROW EXCLUSIVE waits for every writer, so that no uncommitted change from
    // before the triggers is left; ADD COLUMN, the view and dropping a trigger need ACCESS EXCLUSIVE.
    let exclusive = altered(&profile, &others);
    lock(&exclusive, &others);
    let unseen = pending::unseen_ones();
    check();
    rights::keep(owner);
    let key = check_key(&profile, &request.key);
    let (document, mut changed) = match own {
        Some(document) => (document, add_columns_beside_view(&profile, owner, request)),
        None => generate(&profile, owner, &others, request),
    };
    let found = {
        let _us = as_ourselves();
        discover::discover(profile.oid, document, ProfileKey::Column(key), None)
            .unwrap_or_else(|e| e.raise())
    };
    let definition = &found.definition;
    ddl::hold_row_types(profile.oid, document);
    tried::compute_one(&profile, owner, &named(document), definition);
    warnings::warn_of_whole_reads(owner, document, definition);
    warnings::warn_of_shown_to_everyone(definition);
    drop_unused_triggers(&exclusive, &profile, definition);
    changed |= make_triggers(definition, profile.oid, owner);
    record(&profile, document, definition, &request.exclude, changed);
    if let Some(recorded) = attachment::recorded() {
        // What was committed before the locks were there, this has seen.
        ddl::settle(&recorded, &unseen, || ());
    }
    warnings::say_when(definition);
    warnings::warn_of_later_triggers(&profile);
    warnings::warn_of_foreign_indexes(&profile);
    warnings::warn_of_readers(&profile, &others);
    warnings::name_what_large_tables_want(&profile, definition);
    warnings::warn_of_open_order(&found.unordered);
    // Where the generated view's rows tie, they show the same.
    if own.is_some() {
        warnings::warn_of_ties(&found.tied);
    }
}

fn profile_of(request: &AttachRequest) -> Named {
    match request.profile.or_else(|| catalog::relation_by_path("user_profile")) {
        Some(oid) => named(oid),
        None => Error::NoProfileTable("user_profile".into()).raise(),
    }
}

/// The tables to be altered: the profile table, and those with triggers of ours that are used no more.
fn altered(profile: &Named, others: &[Named]) -> Vec<Named> {
    let used = |t: &Oid| *t == profile.oid || others.iter().any(|o| o.oid == *t);
    let unused = with_our_triggers().into_iter().filter(|t| !used(t));
    [profile.oid].into_iter().chain(unused).map(named).collect()
}

/// Where the view is the app's own, the columns are all that is to be added; whether any was.
fn add_columns_beside_view(profile: &Named, owner: Oid, request: &AttachRequest) -> bool {
    if !request.exclude.is_empty() {
        Error::ExcludeWithDocument.raise();
    }
    let _owner = as_owner(owner);
    add_columns(profile)
}

/// Those that an earlier attach() put on tables that are used no more.
fn drop_unused_triggers(exclusive: &[Named], profile: &Named, definition: &Definition) {
    for table in exclusive.iter().filter(|t| t.oid != profile.oid) {
        let used = |d: &Table| (&d.schema, &d.name) == (&table.schema, &table.name);
        if !definition.tables.iter().any(used) {
            drop_triggers(table);
        }
    }
}

/// The tables that a view of the app's own reads, but for the profile table.
fn tables_of_view(document: Oid, user: Oid, profile: &Named) -> Vec<Named> {
    let view = named(document);
    check_owner(user, document);
    let _us = as_ourselves();
    let Some(tables) = discover::tables_of(document) else { Error::NotAView(view.display).raise() };
    tables.into_iter().filter(|t| *t != profile.oid).map(named).collect()
}

/// `SELECT profile_cache.detach(…)`.
pub fn detach(drop_columns: bool) {
    attachment::check_layout();
    let user = current_user();
    let _quiet = attachment::Attaching::begin();
    check_extension_member();
    let profile = attached_profile();
    if let Some(oid) = profile {
        check_owner(user, oid);
    }
    if matches!(attachment::load(), State::None) {
        notice("profile_cache is not attached: nothing to detach");
        return;
    }
    let mut tables: Vec<Oid> = profile.into_iter().collect();
    tables.extend(with_our_triggers().into_iter().filter(|t| Some(*t) != profile));
    let tables: Vec<Named> = tables.into_iter().map(named).collect();
    lock(&tables, &[]);
    tables.iter().for_each(drop_triggers);
    // Also one that a view of the app's own has since taken the place of.
    let generated = profile.and_then(|oid| {
        let (schema, _) = catalog::relation_name(oid)?;
        catalog::relation(&schema, VIEW).filter(|v| is_generated(*v))
    });
    if let Some(view) = generated {
        let _owner = as_owner(catalog::owner(view).unwrap_or(user));
        spi::utility(&format!("DROP VIEW {}", named(view).sql));
    }
    if let Some(oid) = profile.filter(|_| drop_columns) {
        let _owner = as_owner(catalog::owner(oid).unwrap_or(user));
        let drops: Vec<String> = definition::COLUMNS
            .iter()
            .filter(|(c, _)| catalog::column_number(oid, c).is_some())
            .map(|(c, _)| format!("DROP COLUMN {}", quote_identifier(c)))
            .collect();
        if !drops.is_empty() {
            refuse_events_pending(&named(oid));
            spi::utility(&format!("ALTER TABLE {} {}", named(oid).sql, drops.join(", ")));
        }
    }
    let _us = as_ourselves();
    forget_everything();
}
