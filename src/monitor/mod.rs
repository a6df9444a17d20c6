//! verify, status, health, routes and stats: what is true of the cache, from the tables and the catalogs, and what has been
//! counted.
//!
//! Invariant: the first three judge rows by the reader's own rule ([`crate::read::FreshnessRule`]); none keeps more than a page of
//! rows in memory. What `status` warns of is what `health` finds, and neither waits for a lock. The room reads, and writes nothing.

mod counts;
mod facts;
mod finding;
mod health;
mod replication;
mod routes;
mod stats;
mod status;
mod tables;
mod transactions;
mod verify;
mod warnings;

pub use health::{health, health_of_another_layout};
pub use routes::routes;
pub use stats::stats;
pub use status::{status, status_of_another_layout};
pub use verify::verify;

use crate::iso8601::iso8601;

fn since(at: Option<i64>) -> String {
    at.map_or_else(String::new, |at| format!(" since {}", iso8601(at)))
}
