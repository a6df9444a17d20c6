//! What PostgreSQL calls: the functions behind our C symbols, and the callbacks of the transaction and the caches.
//!
//! Invariant: knows everybody, and nobody knows it. What is kept for a transaction (`xact_state.rs`) follows its
//! subtransactions exactly: gone with the one that made it, handed to the parent when it commits.
//!
//! Rules: B1.

use crate::attach::ddl;
use crate::pg::{Oid, backtrace, bgworker, catalog, counters, shared, symbols, utility, xact};
use crate::{api, attachment, rights, settings, stats, wakeup, worker, write, xact_state};

/// Once in each backend that loads the library.
pub fn init() {
    backtrace::switch_off();
    symbols::set_functions(symbols::Functions {
        get_profile: api::get_profile,
        get_profiles: api::get_profiles,
        changed_since: api::changed_since,
        attach: api::attach,
        detach: api::detach,
        refresh_begin: api::refresh_begin,
        refresh_step: api::refresh_step,
        invalidate: api::invalidate,
        invalidate_all: api::invalidate_all,
        verify: api::verify,
        explain: api::explain,
        set_rights: api::set_rights,
        status: api::status,
        health: api::health,
        routes: api::routes,
        stats: api::stats,
        stats_reset: api::stats_reset,
        iso8601: api::iso8601,
        on_ddl: ddl::on_ddl,
        attachment_changed: write::attachment_changed,
        distrust: write::distrust,
        before_statement: write::before_statement,
        after_statement: write::after_statement,
    });
    xact::register_callbacks(xact::Callbacks {
        before_commit_or_prepare,
        before_commit: write::announce,
        committed,
        ended,
        subtransaction_aborted: xact_state::subtransaction_aborted,
        subtransaction_committed: xact_state::subtransaction_committed,
        relation_changed,
    });
    settings::define();
    if bgworker::preloading() {
        shared::request_board();
        counters::request();
        bgworker::register(bgworker::Entrances {
            launcher: worker::launcher,
            worker: worker::worker,
        });
        utility::watch(utility::Statements {
            alone: wakeup::let_go,
            extension: c"profile_cache",
            committed_prepared: wakeup::wake,
            databases: wakeup::databases_change,
        });
    }
}

/// Others see what it did: now the worker finds it.
fn committed() {
    let left = xact_state::for_the_worker();
    if let Some(at) = left.expires_at {
        wakeup::expires(at);
    }
    if left.work {
        wakeup::wake();
    }
    wakeup::changed(&left.changed);
}

fn ended() {
    xact_state::transaction_ended();
    wakeup::transaction_ended();
    stats::hand_over();
}

fn before_commit_or_prepare() {
    if xact_state::unsettled() && ours_are_there() {
        xact::before_commit(write::before_commit);
    }
    stats::prepare();
}

/// Whether our own tables are there, as far as others have committed: COMMIT itself asks nobody.
fn ours_are_there() -> bool {
    catalog::accept_invalidations();
    rights::home().is_some()
}

fn relation_changed(relation: Oid) {
    attachment::relation_changed(relation);
    rights::relation_changed(relation);
}
