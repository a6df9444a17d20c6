//! The SQL surface, one function each: rights, arguments, call, result.

use crate::attach;
use crate::attachment;
use crate::error::{Error, warning};
use crate::iso8601;
use crate::monitor;
use crate::pending;
use crate::pg::fmgr::{Call, Return, RowSet};
use crate::pg::guard::current_user;
use crate::pg::value::{Uuid, Value};
use crate::pg::{Oid, catalog, locks};
use crate::read;
use crate::refresh::{self, Course, Phase};
use crate::rights::{self, Revoke};
use crate::stats;

/// `get_profile(user_id uuid) RETURNS jsonb`
pub fn get_profile(call: &Call) -> Return {
    value(call.uuid(0).and_then(|key| read::get(&key)))
}

/// `get_profiles(user_ids uuid[]) RETURNS TABLE (user_id uuid, profile jsonb)`
pub fn get_profiles(call: &Call) -> Return {
    let keys = call.uuids(0).unwrap_or_default();
    let mut rows = RowSet::new(call);
    read::get_many(&keys, |key, document| rows.put(&[key.map(Value::uuid), document]));
    Return::Null
}

/// `profile_cache.changed_since(since xid8) RETURNS SETOF uuid`
pub fn changed_since(call: &Call) -> Return {
    let Some(since) = call.xid8(0) else { Error::NullArgument("since").raise() };
    let mut rows = RowSet::of_values(call);
    read::changed_since(since, |key| rows.put(&[key.as_ref().map(Value::uuid)]));
    Return::Null
}

/// `profile_cache.attach(profile regclass, key name, document regclass, exclude name[])`
pub fn attach(call: &Call) -> Return {
    let Some(key) = call.name(1) else { Error::NullArgument("key").raise() };
    let Some(exclude) = call.names(3) else { Error::NullArgument("exclude").raise() };
    attach::attach(&attach::AttachRequest {
        profile: call.oid(0),
        key,
        document: call.oid(2),
        exclude,
    });
    Return::Void
}

/// `profile_cache.detach(drop_columns boolean)`
pub fn detach(call: &Call) -> Return {
    let Some(drop_columns) = call.bool(0) else { Error::NullArgument("drop_columns").raise() };
    attach::detach(drop_columns);
    Return::Void
}

/// `profile_cache.refresh_begin(batch_size integer) RETURNS bigint`: raises what would stop a
/// refresh; about how many profiles there are.
pub fn refresh_begin(call: &Call) -> Return {
    Return::Value(Value::int8(refresh::check(call.int4(0))))
}

/// `profile_cache.refresh_step(batch_size integer, phase text, course text)`: one step.
pub fn refresh_step(call: &Call) -> Return {
    let most = call.int4(0).unwrap_or(1).clamp(1, 100_000);
    let phase = call.text(1).map_or(Phase::Keys, |p| Phase::parse(&p));
    let course = call.text(2);
    let mut course: Course = course.and_then(|c| serde_json::from_str(&c).ok()).unwrap_or_default();
    let (next, stored) = refresh::transaction(phase, &mut course, most);
    Return::Record(vec![
        Value::text(next.name()),
        Value::text(&serde_json::to_string(&course).unwrap_or_default()),
        Some(Value::int8(stored as i64)),
    ])
}

/// `profile_cache.invalidate(user_id uuid)`
pub fn invalidate(call: &Call) -> Return {
    let a = attachment::managed(attachment::required);
    let Some(key) = call.uuid(0) else { Error::NullArgument("user_id").raise() };
    let text = Value::uuid(&key).to_text();
    pending::keys(a.key_naming(), std::iter::once(vec![text]), "invalidate");
    Return::Void
}

/// `profile_cache.invalidate_all()`
pub fn invalidate_all(_: &Call) -> Return {
    attachment::managed(attachment::required);
    pending::invalidate_all("invalidate_all");
    Return::Void
}

/// `profile_cache.verify(sample bigint)`
pub fn verify(call: &Call) -> Return {
    let a = loop {
        let a = attachment::managed(attachment::required_locked);
        locks::lock_for_reading(a.document);
        if !attachment::changed() {
            break a;
        }
    };
    let sample = call.int8(0);
    if let Some(n) = sample.filter(|n| *n < 1) {
        Error::Sample(n).raise();
    }
    let mut rows = RowSet::new(call);
    monitor::verify(&a, sample, |key: &Uuid, problem, served, expected| {
        rows.put(&[Some(Value::uuid(key)), Value::text(problem), served, expected]);
    });
    Return::Null
}

/// `profile_cache.explain(user_id uuid) RETURNS jsonb`
pub fn explain(call: &Call) -> Return {
    value(call.uuid(0).and_then(|key| Value::jsonb(&read::explain(&key))))
}

/// `profile_cache.set_rights()`: for the extension's script, when default privileges may have given away
/// what is new; and for the extension's owner.
pub fn set_rights(_: &Call) -> Return {
    attachment::check_layout();
    let _quiet = attachment::Attaching::begin();
    match rights::home() {
        Some((_, owner)) if owner == current_user() && attachment::recorded().is_none() => {
            rights::set(None, Revoke::All);
        }
        _ => {
            rights::check_extension_member();
            let recorded = attachment::recorded();
            let owner = recorded.and_then(|r| catalog::owner(r.profile));
            rights::set(owner, Revoke::FormerOwners);
        }
    }
    Return::Void
}

/// `profile_cache.status_row()`: what the view `profile_cache.status` shows.
pub fn status(_: &Call) -> Return {
    rights::check_may_watch(tables_owner());
    Return::Record(match attachment::other_layout() {
        Some(gone) => monitor::status_of_another_layout(gone.error()),
        None => monitor::status(),
    })
}

/// `profile_cache.health()`
pub fn health(call: &Call) -> Return {
    rights::check_may_watch(tables_owner());
    let mut rows = RowSet::new(call);
    let health = match &attachment::other_layout() {
        Some(gone) => monitor::health_of_another_layout(gone),
        None => monitor::health(),
    };
    health.iter().for_each(|row| rows.put(row));
    Return::Null
}

/// `profile_cache.stats_row()`: what the view `profile_cache.stats` shows.
pub fn stats(_: &Call) -> Return {
    rights::check_may_watch(tables_owner());
    Return::Record(monitor::stats())
}

/// `profile_cache.routes_rows()`: what the view `profile_cache.routes` shows.
pub fn routes(call: &Call) -> Return {
    rights::check_may_watch(tables_owner());
    attachment::check_layout();
    let mut rows = RowSet::new(call);
    monitor::routes().iter().for_each(|row| rows.put(row));
    Return::Null
}

/// `profile_cache.stats_reset()`
pub fn stats_reset(_: &Call) -> Return {
    rights::check_may_reset(tables_owner());
    if !stats::reset() {
        let (why, hint) = stats::why();
        warning(&format!("nothing is counted: {why}"), hint);
    }
    Return::Void
}

/// Who owns the tables, where something is attached that this library knows.
fn tables_owner() -> Option<Oid> {
    let known = attachment::other_layout().is_none();
    known.then(attachment::recorded).flatten().and_then(|r| catalog::owner(r.profile))
}

/// `profile_cache.iso8601(timestamptz) RETURNS text`
pub fn iso8601(call: &Call) -> Return {
    call.timestamptz(0).map_or(Return::Null, |t| Return::Text(iso8601::iso8601(t)))
}

fn value(v: Option<Value>) -> Return {
    v.map_or(Return::Null, Return::Value)
}
