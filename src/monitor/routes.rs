//! `routes`: a row for each way in which the document depends on a table.
//!
//! Invariant: says what the recorded definition says, and which indexes a reader has now to go by.

use crate::attachment::{self, State};
use crate::pg::catalog;
use crate::pg::value::Value;

/// The columns of `profile_cache.routes`, in order.
pub fn routes() -> Vec<[Option<Value>; 6]> {
    let State::Ready(a) = attachment::load() else {
        return vec![];
    };
    let mut rows = vec![];
    for (n, table) in a.definition.tables.iter().enumerate() {
        let oid = catalog::relation(&table.schema, &table.name);
        for (l, link) in table.links.iter().enumerate() {
            let way = a.tables.get(n).and_then(|t| t.links.get(l)?.walk(&a));
            let everyone = !link.everyone.is_empty();
            rows.push([
                oid.map(Value::regclass),
                Value::texts(&link.watched),
                Value::text(&a.definition.route_in_words(table, link)),
                Some(Value::bool(link.member)),
                Some(Value::bool(everyone)),
                way.map(|way| Value::regclasses(&way.indexes())),
            ]);
        }
    }
    rows
}
