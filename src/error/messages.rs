//! What each error says: SQLSTATE, message, detail, and a hint.
//!
//! Invariant: every error has a message and a hint. One table, so that the compiler finds the error that lacks
//! its line.

use super::Error;
use crate::query_tree::bounds;
use pgrx::PgSqlErrorCode as Code;

impl Error {
    /// SQLSTATE, message, detail and hint.
    pub(super) fn report(self) -> (Code, String, Option<String>, String) {
        use Error::*;
        match self {
            // What is attached, and what of it is gone or broken.
            NotAttached => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "profile_cache is not attached to a profile table".into(),
                None,
                "Run SELECT profile_cache.attach() as the owner of user_profile.".into(),
            ),
            AttachedElsewhere(t) => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("profile_cache is already attached to table {t}"),
                None,
                "Run SELECT profile_cache.detach() first: a database has one attachment.".into(),
            ),
            NoProfileTable(t) => (
                Code::ERRCODE_UNDEFINED_TABLE,
                format!("table {t} does not exist"),
                None,
                "Name the profile table: SELECT profile_cache.attach('schema.table'); or put its schema on search_path.".into(),
            ),
            ProfileGone => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the attached profile table no longer exists".into(),
                None,
                "Run SELECT profile_cache.detach(), then attach the table that replaces it.".into(),
            ),
            DocumentGone => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the document view of profile_cache no longer exists".into(),
                Some("Without it no document can be computed or trusted.".into()),
                "Run SELECT profile_cache.attach() again, with the same arguments; create a view of your own first.".into(),
            ),
            ColumnsGone => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the cache columns or the key column of the attached profile table are gone or of another type".into(),
                None,
                "Run SELECT profile_cache.attach() again, with the same arguments, to add them anew.".into(),
            ),
            Layout(layout) => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the library of profile_cache and its SQL objects are of different versions".into(),
                Some(format!(
                    "This session has the library of version {}; the SQL objects have the tables of layout {}.",
                    env!("CARGO_PKG_VERSION"),
                    layout.map_or("unknown".into(), |n| n.to_string())
                )),
                "Reconnect, since the session may have loaded an older library; else install the packages of one version, and run ALTER EXTENSION profile_cache UPDATE.".into(),
            ),
            DocumentWidened => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the document view was replaced and depends on more than before".into(),
                Some("Changes of that in transactions under way have not been followed.".into()),
                "Run SELECT profile_cache.attach() again, with the same arguments.".into(),
            ),
            DocumentBroken(why) => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the document view of profile_cache cannot be used".into(),
                Some(why),
                "Mend it, then run SELECT profile_cache.attach() again, with the same arguments.".into(),
            ),
            // The document view: its columns, and the rows that it reads.
            NotAView(v) => (
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{v} is not a view"),
                None,
                "Give attach() a plain view with the key, a column document jsonb and, where it depends on the time, valid_until timestamptz.".into(),
            ),
            DocumentShape(why) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view cannot be used: {why}"),
                None,
                "It needs the key's column, document jsonb and, where it depends on the time, valid_until timestamptz.".into(),
            ),
            ExcludeWithDocument => (
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "exclude is for the view that attach() writes, not for one of your own".into(),
                None,
                "Leave the column out of your view.".into(),
            ),
            NoKeyInView(key) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view has no column that is the profile's key, {key}"),
                None,
                "Select the key itself, not an expression, under its own name.".into(),
            ),
            KeyDoesNotPass(table) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view computes over several rows of table {table} at once"),
                Some("A LIMIT, a window, DISTINCT ON, an aggregate or a UNION stands between the key and its table, so another profile may change this one's document.".into()),
                "Select the key from one occurrence of its table; PARTITION BY the key, or move the rest into a LATERAL subquery on other tables.".into(),
            ),
            Unsupported(what) if bounds::ALL.contains(&what) => (
                Code::ERRCODE_STATEMENT_TOO_COMPLEX,
                format!("the document view is too complex to be proven: it has {what}"),
                None,
                "A WITH query or a view counts as often as it is used, with all that it uses. Write it with fewer uses and levels, or show less.".into(),
            ),
            Unsupported(what) => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("the document view uses {what}"),
                Some("What a change touches through it is not proven.".into()),
                "Write the view without it.".into(),
            ),
            Untied { table, compared } => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("nothing ties table {table} to the profile in the document view"),
                Some(match compared {
                    Some((column, with)) => format!("Its column {column} is compared with {with}, which is no foreign key between them, by its own operator and collation, nor a unique column and a constant."),
                    None => "No condition that all of its rows must meet says that one of its columns equals one of a table that is tied.".into(),
                }),
                "Join it by all columns of a foreign key (added, VALIDATEd, its triggers enabled), with AND or in each arm of an OR, in WHERE or in the ON of the join that may leave it out, inside of any LIMIT, window or aggregate; or compare a unique column with a constant.".into(),
            ),
            AskedWhole(table) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("nothing ties table {table} to the profile in the document view"),
                Some("As a value, x IN (SELECT …) asks every row of the subquery: it is NULL, for everyone, as soon as one of them is.".into()),
                "Write EXISTS (SELECT FROM … WHERE its column = x), which asks the rows that are equal and no other.".into(),
            ),
            BehindWindow(table) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("nothing ties table {table} to the profile in the document view"),
                Some("A window stands between it and the condition that joins it, and counts or sums over the rows of other profiles as well.".into()),
                "Write LEFT JOIN LATERAL (SELECT … FROM … WHERE its foreign key = … ORDER BY … LIMIT 1) AS … ON true, which is faster, too; or PARTITION BY the column that is joined.".into(),
            ),
            ManyNumbered(what) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                "the document view may have several rows for one profile".into(),
                Some(format!("In it, {what} may have several rows for one profile, whatever number row_number() gives them.")),
                "For the first of several rows, write LEFT JOIN LATERAL (SELECT … FROM … WHERE its foreign key = … ORDER BY … LIMIT 1) AS … ON true, which is faster, too.".into(),
            ),
            ManyRows(what) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                "the document view may have several rows for one profile".into(),
                Some(format!("In it, {what} may have several rows for one profile.")),
                "Aggregate them in a subquery: LEFT JOIN LATERAL (SELECT jsonb_agg(…) AS … FROM … WHERE …) AS … ON true. One row is proven by a unique index on the joined columns (not deferrable or on an expression; of a partial one, with its predicate as a condition), GROUP BY the key, or LIMIT 1.".into(),
            ),
            ViewRaises { profile, code, message, detail, hint } => {
                let whose = profile.map_or("even where there is no profile".into(), |p| format!("for profile {p}"));
                let why = format!("The document view raises this {whose}, read as the tables' owner under the pinned settings.");
                // Class 42: names that are not found, among others.
                let names = code as i32 & 0xfff == Code::ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION as i32 & 0xfff;
                let own = if names {
                    "Reads would raise it, too. The pinned search_path is pg_catalog: qualify each name by its schema."
                } else {
                    "Reads would raise it, too: mend the view, or the rows that it shows."
                };
                (
                    code,
                    message,
                    Some(detail.map_or_else(|| why.clone(), |d| format!("{d}\n{why}"))),
                    hint.unwrap_or(own.into()),
                )
            }
            ReadWhole(table) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view reads table {table} whole to compute one document"),
                Some("A subquery groups or numbers it before it is joined, and PostgreSQL cannot move the join's condition into that.".into()),
                "Write LEFT JOIN LATERAL (SELECT … FROM … WHERE its foreign key = …) ON true.".into(),
            ),
            SystemColumn { column, table } => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("the document view uses the system column {column} of table {table}"),
                Some("It changes without any statement that changes a document.".into()),
                "Use ordinary columns only.".into(),
            ),
            WholeProfile { table, alias, columns } => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("the document view uses whole rows of table {table}"),
                Some("They hold the cached document itself, so that the view would show another document after each write of one.".into()),
                format!("In place of to_jsonb({alias}), write (SELECT to_jsonb(r) FROM (SELECT {columns}) AS r), without what it should not show."),
            ),
            OwnColumn { column, alias, columns } => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("the document view uses the cache's own column {column}"),
                None,
                format!("Leave it out of the view. Where {alias}.* brings it along, write {columns}."),
            ),
            // The code behind the view, and the values that it shows.
            VolatileFunction(f) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view calls function {f}, which is VOLATILE"),
                Some("Each call may give another result.".into()),
                "Use IMMUTABLE functions; for the time, now() and a column valid_until.".into(),
            ),
            StableFunction(f) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view calls function {f}, which is STABLE"),
                Some("Its result may depend on more than its arguments.".into()),
                "Declare it IMMUTABLE if it does not, or write its query into the view.".into(),
            ),
            FunctionReads { function, table } => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("function {function} in the document view reads {table}"),
                Some("It says IMMUTABLE, and is not: a change there would change documents.".into()),
                "Write its query into the view.".into(),
            ),
            CallsBehind { of, calls, which } => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("{of}, which the document view uses, calls {calls}, {which}"),
                Some("Its result may be another for the same arguments, whatever it says of itself.".into()),
                "Give it what changes as an argument, or write it into the view.".into(),
            ),
            AnotherLanguage { function, language, signature } => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                if language == "sql" {
                    format!("function {function}, which reading the document view can run, has its SQL in a string")
                } else {
                    format!("function {function}, which reading the document view can run, is written in {language}")
                },
                Some("What its names and literals mean depends on the session that calls it first, and what it calls is not known.".into()),
                format!("CREATE OR REPLACE FUNCTION {signature} LANGUAGE sql IMMUTABLE RETURN …; or write the expression into the view."),
            ),
            Unsafe { why, hint } => (
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("documents cannot be computed: {why}"),
                Some("Reading the document view could run another role's code as the tables' owner.".into()),
                hint.unwrap_or("Mend it, or run SELECT profile_cache.attach() again, with the same arguments, which says what to do.".into()),
            ),
            Unfollowed(what) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view uses a value of type {what} that is not a constant"),
                Some("Changes of what it names would change documents, and nothing says which they are.".into()),
                "Write the name itself into the view, as in to_tsvector('english', …); or one CASE branch for each.".into(),
            ),
            Encoding(encoding) => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("profile_cache needs a database in UTF8, and this one is in {encoding}"),
                Some("Keys and values that lead to profiles are kept as UTF-8.".into()),
                "Dump the database and restore it into one that was created with ENCODING 'UTF8'.".into(),
            ),
            SessionValue(what) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view uses {what}, which depends on more than its arguments: the session, its settings or the moment"),
                Some("A cached document is the same for everyone, until a row of it changes.".into()),
                "Leave it out. For the time use now() and valid_until; to filter by user, row security on the profile table.".into(),
            ),
            NeedsValidUntil(what) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view uses {what}, which depends on the time, and has no column valid_until"),
                None,
                match what_reads(&what) {
                    Some(instead) => format!("The text may say 'today' or the like. {instead}"),
                    None => "Add valid_until timestamptz: the next moment at which the document changes by itself, NULL for never.".into(),
                },
            ),
            PrintsNames(what) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("the document view prints a value of type {what}, which is the name of another object"),
                Some("Renaming that object would change the document, and nothing that it depends on.".into()),
                "Leave it out.".into(),
            ),
            // What makes a table unfit.
            NotATable(t) => (
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{t} is not an ordinary table"),
                None,
                "Use an ordinary table, not a view, materialized view, foreign table or sequence.".into(),
            ),
            NotYours(t) => (
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("table {t} belongs to the system or to an extension"),
                None,
                "Use the app's own tables.".into(),
            ),
            NotPermanent(t) => (
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("table {t} is temporary or unlogged"),
                Some("The cache outlives a crash and is read on standbys; such a table does neither.".into()),
                "Use a permanent table (ALTER TABLE … SET LOGGED).".into(),
            ),
            Partitioned { table, profile } => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("table {table} is partitioned, or a partition"),
                Some("A statement on a partition fires no statement trigger of the whole table, nor the other way round; and a partition that is attached, detached, dropped or truncated does not say whose rows come and go.".into()),
                if profile {
                    "Use an ordinary table.".into()
                } else {
                    "Keep what the document shows of it in an ordinary table with a foreign key to the profile, by a trigger FOR EACH ROW on the partitioned table: docs/views.md, \"Partitioned tables\", has one.".into()
                },
            ),
            Inherited(t) => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("table {t} takes part in table inheritance"),
                Some("Changes made through another table of the hierarchy would not be seen.".into()),
                "Use a table without parents and children.".into(),
            ),
            ForcedRowSecurity(t) => (
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("table {t} has FORCE ROW LEVEL SECURITY"),
                Some("Documents are computed as the tables' owner, whom forced policies would filter.".into()),
                format!("ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY; policies keep applying to every other role."),
            ),
            // Who is in the way, and who may.
            TablesBusy(by) => (
                Code::ERRCODE_LOCK_NOT_AVAILABLE,
                "could not lock the tables for profile_cache: other transactions hold them".into(),
                Some(if by.is_empty() {
                    "It waits a few seconds at most, so that the app never queues behind it for long. Whoever held them is gone by now.".into()
                } else {
                    format!("It waits a few seconds at most, so that the app never queues behind it for long. In the way: {}.", by.join("; "))
                }),
                "Try again when that is over, or end it: SELECT pg_terminate_backend(…), ROLLBACK PREPARED '…'. On profile_cache.attachment it is DDL that is not committed, on profile_cache.epoch_progress a refresh.".into(),
            ),
            NoPrivilege(t) => (
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for table {t}"),
                None,
                format!("get_profile shows what SELECT cached_profile would: GRANT SELECT ON {t} (or on its key and cached_profile) and USAGE on its schema."),
            ),
            NotOwner(t) => (
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of table {t}"),
                None,
                "Run this as the tables' owner, or as a member of that role.".into(),
            ),
            OtherOwner { kind, name, owner, expected, relation } => (
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{kind} {name} belongs to {owner}, the profile table to {expected}"),
                Some(if relation {
                    "Documents are computed as one owner, who must own every table they show.".into()
                } else {
                    format!("The document view reaches it, so that code behind it would run as {expected}. It may belong to that role or to a superuser.")
                }),
                if kind == "table" {
                    format!("Where it is the app's own, make {expected} its owner: ALTER {} … OWNER TO. Where it is a service's, as auth.users, leave it: have a trigger on it copy the columns that the view shows into the profile table or another one of the app's, and show that.", kind.to_uppercase())
                } else {
                    format!("ALTER {} {name} OWNER TO {expected};", kind.to_uppercase())
                },
            ),
            NotExtensionMember(owner) => (
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be a member of role {owner}, who owns the extension profile_cache"),
                None,
                format!("Run CREATE EXTENSION as the tables' owner, or GRANT {owner} to that role."),
            ),
            // The key, the conventional tables, and names that are taken.
            NoKeyColumn { table, key } => (
                Code::ERRCODE_UNDEFINED_COLUMN,
                format!("table {table} has no column {key}"),
                None,
                "Name the uuid column that the app looks profiles up by: SELECT profile_cache.attach(key => '…').".into(),
            ),
            KeyName(key) => (
                Code::ERRCODE_DUPLICATE_COLUMN,
                format!("the key column cannot be named {key}"),
                Some("The document view has columns document and valid_until of its own.".into()),
                "Rename the column.".into(),
            ),
            KeyNotUuid { table, key, is } => (
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("column {key} of table {table} is of type {is}, not uuid"),
                None,
                "get_profile(uuid) looks profiles up by a uuid column; name it with key => '…'.".into(),
            ),
            KeyNotUnique { table, key, found } => (
                Code::ERRCODE_INVALID_TABLE_DEFINITION,
                format!("column {key} of table {table} is not unique"),
                found.map(|i| format!("Index {i} does not count: it is deferrable, partial, invalid, or on more than this column.")),
                format!("CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({key});"),
            ),
            NoForeignKey { table, to } => (
                Code::ERRCODE_INVALID_TABLE_DEFINITION,
                format!("table {table} has no valid, enabled foreign key between it and {to}"),
                Some("Without one, nothing orders a change there against a change of the profile.".into()),
                format!("Add the foreign key (ALTER TABLE … ADD FOREIGN KEY …), on one column of {table}, VALIDATE it, and enable its triggers if they are disabled."),
            ),
            ColumnTaken { table, column, is, wanted } => (
                Code::ERRCODE_DUPLICATE_COLUMN,
                format!("column {column} of table {table} is of type {is}, not {wanted}"),
                Some("attach() adds this column for its own use.".into()),
                format!("Rename or drop your column {column}."),
            ),
            ViewTaken(v) => (
                Code::ERRCODE_DUPLICATE_TABLE,
                format!("relation {v} exists and was not written by profile_cache.attach()"),
                None,
                "Rename or drop it: attach() writes its document view under this name.".into(),
            ),
            WrongType { table, column, is, wanted } => (
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("column {column} of table {table} is of type {is}, not {wanted}"),
                None,
                "Change its type, or rename it: by its name it belongs to the conventional tables.".into(),
            ),
            UnknownExclude { table, column } => (
                Code::ERRCODE_UNDEFINED_COLUMN,
                format!("table {table} has no column {column} to exclude"),
                None,
                "Correct the name in exclude => '{…}'.".into(),
            ),
            // Computing and storing a document.
            TwoDocuments => (
                Code::ERRCODE_CARDINALITY_VIOLATION,
                "the document view has more than one row for this profile".into(),
                None,
                "Aggregate in the view, so that it has one row for each profile.".into(),
            ),
            TooDeep => (
                Code::ERRCODE_STATEMENT_TOO_COMPLEX,
                "an index, a CHECK or statistics of a used table are nested more than 1000 deep".into(),
                Some("Reading the document view may run what is in them, and it cannot be told what that is.".into()),
                "Drop them, or put the expression into a function with a parsed SQL body.".into(),
            ),
            IndexChecked(index) => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("a document cannot be stored where index {index} needs an entry for it"),
                Some("It is being built, keeps the cache's own columns apart, or runs code that a document view may not reach.".into()),
                "Let it be built, or drop it.".into(),
            ),
            ChecksQueued(table) => (
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("this transaction still has constraints of table {table} to check"),
                None,
                "Run it in a transaction of its own, as CALL profile_cache.refresh() does.".into(),
            ),
            EventsPending(table) => (
                Code::ERRCODE_OBJECT_IN_USE,
                format!("this transaction has changed rows of table {table}, and constraints of it are still to be checked"),
                Some("PostgreSQL alters no table with pending trigger events, such as a deferred foreign key's.".into()),
                "Run SET CONSTRAINTS ALL IMMEDIATE before, or put this into a migration of its own.".into(),
            ),
            // How a function of ours is called.
            NullArgument(a) => (
                Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("argument {a} must not be null"),
                None,
                "Leave it out to get its default.".into(),
            ),
            BatchSize(n) => (
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("batch_size must be between 1 and 100000, not {n}"),
                None,
                "The default, 5000, suits most tables.".into(),
            ),
            Sample(n) => (
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("sample must be at least 1, not {n}"),
                None,
                "Leave it out to verify every profile.".into(),
            ),
            InTransaction => (
                Code::ERRCODE_INVALID_TRANSACTION_TERMINATION,
                "profile_cache.refresh() commits after each batch and cannot run inside a transaction block or a function".into(),
                None,
                "Send CALL profile_cache.refresh() as a statement of its own, in autocommit mode.".into(),
            ),
            OneSnapshot => (
                Code::ERRCODE_INVALID_TRANSACTION_STATE,
                "profile_cache.refresh_step() needs a READ COMMITTED transaction".into(),
                None,
                "Use CALL profile_cache.refresh(), which begins its own.".into(),
            ),
            NotATrigger(f) => (
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("function {f} was not called by the trigger manager"),
                None,
                "Its triggers are made by profile_cache.attach().".into(),
            ),
            WrongTrigger(f) => (
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("function {f} was fired by a trigger of the wrong timing or level"),
                None,
                "Its triggers are made by profile_cache.attach(); drop this one.".into(),
            ),
            Internal(what) => (
                Code::ERRCODE_INTERNAL_ERROR,
                format!("profile_cache: {what}"),
                None,
                "This is a defect; please report it.".into(),
            ),
        }
    }
}

/// What to write where a text is read as a date or a time by this function, which knows words for the moment.
fn what_reads(function: &str) -> Option<&'static str> {
    match function.split('(').next()? {
        "date_in" => Some(
            "Write to_date(…, 'YYYY-MM-DD') instead of a cast to date, or keep it in a column of type date.",
        ),
        "timestamp_in" | "timestamptz_in" => Some(
            "Write to_timestamp(…, 'YYYY-MM-DD\"T\"HH24:MI:SS') instead of a cast, or keep it in a column of its type.",
        ),
        "time_in" | "timetz_in" => Some("Keep it in a column of its type."),
        _ => None,
    }
}
