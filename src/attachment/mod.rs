//! What is attached, and this backend's resolved copy of it.
//!
//! Invariant: the copy is dropped by relcache invalidation of the attachment or of any used table
//! before a statement that could see the difference runs; it is loaded from the newest committed
//! state, so a transaction that began before attach finds it too.

use crate::definition::{self, Definition, Link, Sql, Step, qualified};
use crate::error::{Error, check_interrupts};
use crate::pg::scan::{self, Epochs, KeyHash, Keys, Probe};
use crate::pg::spi::{self, Arg, At};
use crate::pg::trigger::Column;
use crate::pg::{Oid, catalog, tuple};
use crate::proof::discover;
use crate::proof::reach;
use crate::proof::reach::Reached;
use crate::rights::{as_ourselves, home};
use pgrx::pg_sys::{INT8OID, JSONBOID, TIMESTAMPTZOID, UUIDOID};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Why no stored document may be trusted although the configuration is there.
#[derive(Clone, Debug)]
pub enum Distrust {
    /// Triggers of ours that are missing or not ENABLE ALWAYS.
    Triggers(Vec<String>),
    /// Something that attach() mends or names, in words.
    Problem(String),
    /// Something that attach() does not change, in words, and what ends it.
    Unfit { why: String, advice: String },
}

impl Distrust {
    /// Why, in words.
    pub fn reason(&self) -> String {
        match self {
            Distrust::Triggers(missing) => {
                format!("triggers are missing or not ENABLE ALWAYS: {}", missing.join(", "))
            }
            Distrust::Problem(why) | Distrust::Unfit { why, .. } => why.clone(),
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Distrust::Unfit { advice, .. } => advice.clone(),
            _ => "SELECT profile_cache.attach(), with the same arguments, mends it or says what to do."
                .into(),
        }
    }
}

/// A used table, resolved.
#[derive(Debug)]
pub struct UsedTable {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub links: Vec<UsedLink>,
}

#[derive(Debug)]
pub struct UsedLink {
    pub link: Link,
    pub columns: Vec<Column>,
    /// Columns whose change may change a document, seen this way.
    pub watched: Vec<Column>,
    /// For a member's link: the profile's columns that it references.
    pub targets: Vec<i16>,
    /// How to find the profile of a member's row without SQL.
    pub probe: Option<Probe>,
    /// One of the columns is an enum: its value's text may come to mean another value.
    pub renamable: bool,
}

/// A way in which a pending key may name a profile: the key, or what members refer to.
#[derive(Debug)]
pub struct Naming {
    pub step: Step,
    /// The columns' types, as SQL writes them.
    pub types: Vec<String>,
    /// The columns' numbers and types.
    pub columns: Vec<(i16, Oid)>,
    /// A hash of the columns' names.
    pub set: i64,
    /// Equal values have one text, so that a hash of it finds them.
    pub plain: bool,
}

impl Naming {
    fn of(profile: Oid, step: Step, types: Vec<String>) -> Naming {
        let names = step.column_names();
        let columns = names.iter().filter_map(|name| {
            let number = catalog::column_number(profile, name)?;
            let oid = catalog::base_type(catalog::column_type(profile, number));
            Some((number, oid))
        });
        let columns: Vec<(i16, Oid)> = columns.collect();
        let plain = columns.len() == names.len()
            && step.columns.iter().all(|c| c.operator == definition::BUILT_IN_EQUALS)
            && columns.iter().all(|(number, _)| catalog::has_one_text(profile, *number));
        Naming { set: scan::hash(&names), plain, columns, types, step }
    }

    /// How a pending key with these values stands in the table.
    pub fn hash<S: AsRef<str>>(&self, values: &[S]) -> KeyHash {
        let mut hash = 0;
        if self.plain {
            // Padding of character(n) does not count.
            let texts = values.iter().zip(&self.columns).map(|(value, (_, oid))| {
                let padded = *oid == pgrx::pg_sys::BPCHAROID;
                let text = value.as_ref();
                if padded { text.trim_end_matches(' ') } else { text }
            });
            hash = scan::hash(&texts.collect::<Vec<_>>());
        }
        KeyHash { set: self.set, hash }
    }
}

/// Numbers of the four columns that a profile's row has of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheColumns {
    pub document: i16,
    pub valid_until: i16,
    pub epoch: i16,
    pub updated_at: i16,
}

impl CacheColumns {
    /// In the order of [`definition::COLUMNS`], which is that of [`tuple::Stored`](crate::pg::tuple::Stored) too.
    pub fn all(self) -> [i16; 4] {
        [self.document, self.valid_until, self.epoch, self.updated_at]
    }
}

/// The attachment, resolved.
#[derive(Debug)]
pub struct Attached {
    pub profile: Oid,
    pub profile_name: String,
    pub owner: Oid,
    pub document: Oid,
    pub definition: Definition,
    pub sql: Sql,
    pub key: i16,
    pub columns: CacheColumns,
    /// Empty where the definition cannot be resolved.
    pub tables: Vec<UsedTable>,
    /// What computing reads, and so locks: the tables, their indexes, the view and those nested in it.
    pub read: Vec<Oid>,
    /// Stamps below are of another attachment or another definition, in any snapshot; none is trusted
    /// while that has no number yet.
    pub trusted_from: Option<i64>,
    pub distrust: Option<Distrust>,
    /// How to find a profile by its key without SQL.
    pub probe: Option<Probe>,
    pub epochs: Epochs,
    pub keys: Keys,
    /// Every way in which a pending key may name a profile.
    pub naming: Vec<Naming>,
    /// Their sets, in order.
    pub sets: Vec<i64>,
    /// Indexes of the profile table whose code we may not run.
    pub foreign_indexes: Vec<Oid>,
    /// Writing a row evaluates the app's own code, or meets an index on our columns.
    pub fragile: bool,
    /// There is an index by which expired documents are found.
    pub expiry_indexed: bool,
}

impl Attached {
    pub fn table(&self, oid: Oid) -> Option<&UsedTable> {
        self.tables.iter().find(|t| t.oid == oid)
    }

    /// Whether rows of the profile table are read and written as `other` does it.
    pub fn same_columns(&self, other: &Attached) -> bool {
        self.profile == other.profile
            && self.key == other.key
            && self.columns == other.columns
            && self.foreign_indexes == other.foreign_indexes
            && self.definition == other.definition
    }

    /// The tables whose changes are followed.
    pub fn used(&self) -> Vec<Oid> {
        let tables = self.tables.iter().map(|t| t.oid);
        tables.chain([self.profile]).collect()
    }

    /// How the profile's key names it.
    pub fn key_naming(&self) -> &Naming {
        &self.naming[0]
    }

    /// How what this step finds is named.
    pub fn naming_of(&self, step: &Step) -> &Naming {
        let same = |n: &&Naming| n.step.column_names() == step.column_names();
        self.naming.iter().find(same).unwrap_or(&self.naming[0])
    }

    /// The columns of the profile whose change makes its own document another.
    pub fn own_columns(&self) -> &[Column] {
        let links = self.table(self.profile).map_or(&[][..], |t| &t.links);
        let own = links.iter().find(|l| l.link.member);
        own.map_or(&[], |l| &l.watched)
    }
}

/// The key, and the members' steps, one for each set of referenced columns; with the columns' types.
fn naming(profile: Oid, d: &Definition) -> Vec<Naming> {
    let key = Step::profile(&d.key, definition::BUILT_IN_EQUALS);
    let mut found: Vec<(Step, Vec<String>)> = vec![(key, vec![definition::UUID.into()])];
    for link in d.tables.iter().flat_map(|t| &t.links) {
        if let Some(step) = link.direct()
            && !found.iter().any(|(s, _)| s.column_names() == step.column_names())
        {
            found.push((step.clone(), link.target_types()));
        }
    }
    found.into_iter().map(|(step, types)| Naming::of(profile, step, types)).collect()
}

/// The state of this database.
#[derive(Clone)]
pub enum State {
    None,
    Ready(Rc<Attached>),
    /// Attached, but something that every read needs is gone.
    Gone(Gone),
}

/// What is gone of an attachment that cannot be read at all.
#[derive(Clone)]
pub enum Gone {
    Profile,
    Document,
    Columns,
    Definition,
    /// Reading the view could run another role's code as the tables' owner: why, and what to do.
    Unsafe {
        why: String,
        hint: Option<String>,
    },
    /// The database has this encoding.
    Encoding(String),
}

impl Gone {
    pub fn error(self) -> Error {
        match self {
            Gone::Unsafe { why, hint } => Error::Unsafe { why, hint },
            Gone::Encoding(encoding) => Error::Encoding(encoding),
            Gone::Profile => Error::ProfileGone,
            Gone::Document => Error::DocumentGone,
            Gone::Columns => Error::ColumnsGone,
            Gone::Definition => Error::DocumentBroken("Its definition cannot be read.".into()),
        }
    }
}

thread_local! {
    static COPY: RefCell<Option<State>> = const { RefCell::new(None) };
    static WATCHED: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) };
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static ATTACHING: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, DDL in this backend is attach's or detach's own.
pub struct Attaching(());

impl Attaching {
    pub fn begin() -> Attaching {
        ATTACHING.set(true);
        Attaching(())
    }
    pub fn under_way() -> bool {
        ATTACHING.get()
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        ATTACHING.set(false);
    }
}

/// The relcache callback: `relation` changed (or, where invalid, anything may have).
pub fn relation_changed(relation: Oid) {
    let ours = relation == Oid::INVALID
        || WATCHED.with(|w| w.try_borrow().map_or(true, |w| w.contains(&relation)));
    if ours {
        CHANGED.set(true);
    }
}

/// The attachment as it is now.
pub fn load() -> State {
    if !CHANGED.get()
        && let Some(state) = COPY.with(|c| c.borrow().clone())
    {
        return state;
    }
    // Reading the catalogs may itself process invalidations; a change during it means once more.
    for _ in 0..10 {
        CHANGED.set(false);
        spi::forget_plans();
        let (state, watched) = read();
        let keep = !matches!(state, State::None);
        WATCHED.with(|w| *w.borrow_mut() = watched);
        COPY.with(|c| *c.borrow_mut() = keep.then(|| state.clone()));
        if !CHANGED.get() {
            CHANGED.set(!keep);
            return state;
        }
    }
    COPY.with(|c| c.borrow().clone()).unwrap_or(State::None)
}

/// The attachment as it is now, with its profile table locked for reading: whoever takes a lock looks
/// again, for what has been committed while it waited, or since this session last looked.
pub fn locked() -> State {
    loop {
        check_interrupts();
        catalog::accept_invalidations();
        let state = load();
        if let State::Ready(a) = &state {
            tuple::lock_for_reading(a.profile);
            if changed() {
                continue;
            }
        }
        return state;
    }
}

/// Whether what is attached may be another since it was last loaded.
pub fn changed() -> bool {
    CHANGED.get()
}

/// The attachment, locked for reading; or the error that says what is wrong with it.
pub fn required_locked() -> Rc<Attached> {
    or_error(locked())
}

/// The attachment, or the error that says what is wrong with it.
pub fn required() -> Rc<Attached> {
    or_error(load())
}

fn or_error(state: State) -> Rc<Attached> {
    match state {
        State::Ready(a) => a,
        State::None => Error::NotAttached.raise(),
        State::Gone(gone) => gone.error().raise(),
    }
}

/// What the attachment says, whether or not it still holds.
#[derive(Clone)]
pub struct Recorded {
    pub profile: Oid,
    pub document: Oid,
    pub definition: Option<Definition>,
    /// It has a problem, or there has been DDL that nobody has looked at.
    pub problem: bool,
    /// There has been such DDL.
    pub unseen: bool,
}

/// Locks the attachment's row until the transaction ends, and takes note of what others have
/// committed. False where another transaction has it, or there is none.
pub fn try_lock_row() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.attachment AS a FOR UPDATE SKIP LOCKED";
    let locked = spi::one(sql, At::New, &[], |_| ()).is_some();
    catalog::accept_invalidations();
    locked
}

pub fn recorded() -> Option<Recorded> {
    let _us = as_ourselves();
    let sql = "SELECT a.profile::oid, a.document::oid, a.definition::text, \
         a.problem IS NOT NULL, EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL) \
         FROM profile_cache.attachment AS a";
    spi::one(sql, At::Latest, &[], |r| {
        Some(Recorded {
            profile: r.oid(1)?,
            document: r.oid(2)?,
            definition: r.text(3).and_then(|d| serde_json::from_str(&d).ok()),
            problem: r.bool(4) != Some(false) || r.bool(5) != Some(false),
            unseen: r.bool(5) != Some(false),
        })
    })
    .flatten()
}

fn read() -> (State, Vec<Oid>) {
    let Some((home, _)) = home() else {
        return (State::None, vec![]);
    };
    let _us = as_ourselves();
    let mut watched = vec![home];
    let row = spi::one(
        "SELECT a.profile::oid, a.document::oid, a.definition::text, a.problem, a.unsafe, \
          (SELECT e.trusted_from FROM profile_cache.epoch AS e WHERE NOT EXISTS \
            (SELECT FROM profile_cache.pending_epoch AS p WHERE p.redefined AND p.epoch IS NULL)), \
          EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL) \
         FROM profile_cache.attachment AS a",
        At::Latest,
        &[],
        |r| {
            (
                r.oid(1),
                r.oid(2),
                r.text(3),
                r.text(4),
                r.bool(5),
                r.int8(6),
                r.bool(7) != Some(false),
            )
        },
    );
    let Some((
        Some(profile),
        Some(document),
        Some(definition),
        problem,
        is_unsafe,
        trusted_from,
        unseen,
    )) = row
    else {
        return (State::None, watched);
    };
    if let Some(encoding) = catalog::other_encoding() {
        return (State::Gone(Gone::Encoding(encoding)), watched);
    }
    watched.extend([profile, document]);
    let ours = [
        "epoch",
        "pending_epoch",
        "pending_epoch_horizon",
        "horizon",
        "pending_key",
        "pending_key_probe",
    ];
    watched.extend(ours.iter().filter_map(|name| catalog::relation("profile_cache", name)));
    let sql = |oid| catalog::relation_name(oid).map(|(s, t)| qualified(&s, &t));
    let Some(profile_name) = sql(profile) else {
        return (State::Gone(Gone::Profile), watched);
    };
    let Some(document_name) = sql(document) else {
        return (State::Gone(Gone::Document), watched);
    };
    // Whoever owns what the view reads now, whether or not an event trigger told us: REASSIGN OWNED
    // fires none. A change of a view's owner drops this copy, nested views' too.
    let relations = relations_of(document);
    watched.extend(&relations);
    let definition = serde_json::from_str::<Definition>(&definition).ok();
    let owners = |oid: &Oid| catalog::owner(*oid) == catalog::owner(profile);
    // What a definition says that has a problem is of an earlier view; so may one be where nobody has
    // looked at what DDL has changed.
    let ask = problem.is_some()
        || unseen
        || !relations.iter().all(owners)
        || definition.as_ref().is_none_or(|d| d.own_code)
        || Reached::plans_own_code(&relations);
    if ask
        && let Err(e) = Reached::by_view(profile, document).check(profile)
        && let Error::Unsafe { why, hint } = e.for_readers()
    {
        return (State::Gone(Gone::Unsafe { why, hint }), watched);
    }
    if is_unsafe != Some(false) {
        let why = problem.unwrap_or_default();
        return (State::Gone(Gone::Unsafe { why, hint: None }), watched);
    }
    let Some(definition) = definition.filter(Definition::is_only_names) else {
        return (State::Gone(Gone::Definition), watched);
    };
    let of_type = |name: &str, oid: Oid| {
        catalog::column_number(profile, name).filter(|n| catalog::column_type(profile, *n) == oid)
    };
    let columns = definition::COLUMNS.map(|(name, _)| name);
    let types = [JSONBOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID];
    let numbers = [0, 1, 2, 3].map(|i| of_type(columns[i], types[i]));
    let (Some(key), [Some(a), Some(b), Some(c), Some(d)], Some(owner)) =
        (of_type(&definition.key, UUIDOID), numbers, catalog::owner(profile))
    else {
        return (State::Gone(Gone::Columns), watched);
    };
    let Some((epochs, keys)) = our_tables() else {
        return (State::None, watched);
    };
    let naming = naming(profile, &definition);
    let mut sets: Vec<i64> = naming.iter().map(|n| n.set).collect();
    sets.sort_unstable();
    let plain = naming.iter().filter(|n| n.plain);
    let names = plain.flat_map(|n| n.step.column_names()).collect();
    let tables = resolve(&definition, profile);
    let mut distrust = problem.map(Distrust::Problem);
    match &tables {
        Err(missing) => distrust = Some(Distrust::Problem(format!("{missing} does not exist"))),
        Ok(tables) => {
            watched.extend(tables.iter().map(|t| t.oid));
            let off = triggers_off(profile, tables);
            distrust = off
                .or(distrust)
                .or_else(|| unhealthy(profile, key, tables))
                .or_else(|| not_unique(&definition, tables));
        }
    }
    let attached = Attached {
        profile,
        sql: Sql::new(profile_name.clone(), document_name, &definition, names),
        profile_name,
        owner,
        document,
        key,
        columns: CacheColumns { document: a, valid_until: b, epoch: c, updated_at: d },
        read: read_relations(relations, tables.as_deref().unwrap_or_default()),
        tables: tables.unwrap_or_default(),
        trusted_from,
        distrust,
        probe: probe(profile, key),
        epochs,
        keys,
        naming,
        sets,
        foreign_indexes: reach::foreign_indexes(profile),
        fragile: fragile(profile, &[a, b, c, d]),
        expiry_indexed: expiry_indexed(profile, b),
        definition,
    };
    (State::Ready(Rc::new(attached)), watched)
}

/// Tables, columns and types by their names; or the name that is missing.
fn resolve(d: &Definition, profile: Oid) -> Result<Vec<UsedTable>, String> {
    let column = |table: Oid, name: &str| -> Result<Column, String> {
        let number = catalog::column_number(table, name).ok_or(format!("column {name}"))?;
        Ok(Column::of(table, number))
    };
    d.tables
        .iter()
        .map(|t| {
            let display = qualified(&t.schema, &t.name);
            let oid = catalog::relation(&t.schema, &t.name).ok_or(format!("table {display}"))?;
            let columns = |names: &[String]| -> Result<Vec<Column>, String> {
                names.iter().map(|c| column(oid, c)).collect()
            };
            let links = t
                .links
                .iter()
                .map(|l| {
                    let targets = l.direct().map(Step::column_names).unwrap_or_default();
                    let targets = targets.iter().map(|c| Ok(column(profile, c)?.number));
                    let targets = targets.collect::<Result<Vec<i16>, String>>()?;
                    let own = columns(&l.column_names())?;
                    let probe = match (&own[..], &targets[..]) {
                        ([c], [t]) if c.oid == catalog::column_type(profile, *t) => {
                            probe(profile, *t)
                        }
                        _ => None,
                    };
                    Ok(UsedLink {
                        probe,
                        renamable: own.iter().any(|c| catalog::is_enum(c.oid)),
                        columns: own,
                        watched: columns(&l.watched)?,
                        targets,
                        link: l.clone(),
                    })
                })
                .collect::<Result<_, String>>()?;
            Ok(UsedTable { oid, schema: t.schema.clone(), name: t.name.clone(), links })
        })
        .collect()
}

/// The same, at any time.
pub fn relations_of_view(document: Oid) -> Vec<Oid> {
    let _us = as_ourselves();
    relations_of(document)
}

/// The view, those nested in it, and what they read.
fn relations_of(document: Oid) -> Vec<Oid> {
    spi::all(
        "WITH RECURSIVE nested AS (SELECT $1 AS oid UNION SELECT d.refobjid FROM nested AS n \
          JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = n.oid AND r.ev_type = '1' \
          JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
           AND d.refclassid = 'pg_class'::regclass) \
         SELECT n.oid FROM nested AS n",
        At::Latest,
        &[Arg::oid(document)],
        |r| r.oid(1),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// What computing reads: these relations, the used tables, and their indexes.
///
/// Beside them, as far as they are written down, the relations of row types: whoever prints a row opens its type's.
fn read_relations(relations: Vec<Oid>, tables: &[UsedTable]) -> Vec<Oid> {
    let tables: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let indexes = spi::all(
        "SELECT i.indexrelid FROM pg_catalog.pg_index AS i WHERE i.indrelid = ANY ($1)",
        At::Latest,
        &[Arg::oids(&tables)],
        |r| r.oid(1),
    );
    let rows = spi::all(
        "SELECT t.typrelid FROM profile_cache.reached AS r JOIN pg_catalog.pg_type AS t ON t.oid = r.objid \
         WHERE r.server = $1 AND r.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.typrelid <> 0",
        At::Latest,
        &[Arg::int8(Some(catalog::place().0))],
        |r| r.oid(1),
    );
    let mut read = relations;
    for row in rows.into_iter().flatten() {
        if !read.contains(&row) {
            read.push(row);
        }
    }
    read.retain(|r| !tables.contains(r));
    read.extend(indexes.into_iter().flatten());
    read.extend(tables);
    read
}

/// How to find a profile by one unique column.
fn probe(profile: Oid, column: i16) -> Option<Probe> {
    // An index built over rows whose HOT chains did not fit it is not for older snapshots.
    let index = spi::one(
        &format!(
            "{UNIQUE_KEY} AND NOT i.indcheckxmin AND EXISTS (SELECT FROM pg_catalog.pg_opclass AS o \
             WHERE o.oid = i.indclass[0] AND o.opcdefault AND o.opcnamespace = 'pg_catalog'::regnamespace) LIMIT 1"
        ),
        At::Latest,
        &[Arg::oid(profile), Arg::int8(Some(column.into()))],
        |r| r.oid(1),
    );
    Probe::new(index.flatten()?, catalog::column_type(profile, column))
}

/// Where our own tables stand.
fn our_tables() -> Option<(Epochs, Keys)> {
    let relation = |name| catalog::relation("profile_cache", name);
    let (table, pending, keys) =
        (relation("epoch")?, relation("pending_epoch")?, relation("pending_key")?);
    let horizon = relation("horizon")?;
    let epochs = Epochs {
        table,
        current: catalog::column_number(table, "current")?,
        horizon,
        from: catalog::column_number(horizon, "pending_from")?,
        pending,
        index: relation("pending_epoch_horizon")?,
        number: catalog::column_number(pending, "epoch")?,
    };
    let keys = Keys {
        table: keys,
        index: relation("pending_key_probe")?,
        set: catalog::column_number(keys, "key_set")?,
        hash: catalog::column_number(keys, "key_hash")?,
    };
    Some((epochs, keys))
}

/// Triggers of ours that do not fire.
fn triggers_off(profile: Oid, tables: &[UsedTable]) -> Option<Distrust> {
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let name = |oid| catalog::relation_name(oid).map(|(s, t)| definition::display(&s, &t));
    let missing: Vec<String> = missing_triggers(&oids, profile)
        .into_iter()
        .map(|(oid, trigger)| format!("{trigger} on {}", name(oid).unwrap_or_default()))
        .collect();
    (!missing.is_empty()).then_some(Distrust::Triggers(missing))
}

/// What else would let a change go unnoticed: logical replication's apply (it fires no statement
/// triggers), a key that is no longer unique.
fn unhealthy(profile: Oid, key: i16, tables: &[UsedTable]) -> Option<Distrust> {
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let unfit = spi::one(
        "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ($1) \
         AND (c.relkind <> 'r' OR c.relispartition OR c.relpersistence <> 'p' OR c.relforcerowsecurity \
          OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))) LIMIT 1",
        At::Latest,
        &[Arg::oids(&oids)],
        |r| r.text(1).unwrap_or_default(),
    );
    if let Some(table) = unfit {
        return Some(Distrust::Unfit {
            why: format!(
                "table {table} has become partitioned, inherited or unlogged, or has FORCE ROW LEVEL SECURITY"
            ),
            advice: "make it an ordinary table again, and CALL profile_cache.refresh()".into(),
        });
    }
    let replicated = spi::one(
        "SELECT s.srrelid::pg_catalog.regclass::text FROM pg_catalog.pg_subscription_rel AS s \
         WHERE s.srrelid = ANY ($1) LIMIT 1",
        At::Latest,
        &[Arg::oids(&oids)],
        |r| r.text(1).unwrap_or_default(),
    );
    if let Some(table) = replicated {
        return Some(Distrust::Unfit {
            why: format!(
                "table {table} is a target of logical replication, whose apply fires no statement triggers"
            ),
            advice: "nothing is wrong where it is to stay one; else end that (DROP SUBSCRIPTION, or ALTER \
                SUBSCRIPTION … REFRESH PUBLICATION once it is no longer published), and CALL profile_cache.refresh()"
                .into(),
        });
    }
    let unique =
        spi::one(UNIQUE_KEY, At::Latest, &[Arg::oid(profile), Arg::int8(Some(key.into()))], |_| ());
    unique
        .is_none()
        .then(|| Distrust::Problem("the profile table's key has no unique index any more".into()))
}

/// Columns that were unique when that was proven, and whose index is valid no more. DROP INDEX
/// CONCURRENTLY lets duplicates in long before its event, and for good where it is cancelled.
fn not_unique(definition: &Definition, tables: &[UsedTable]) -> Option<Distrust> {
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let valid = discover::unique_indexes(&oids);
    for (table, used) in definition.tables.iter().zip(tables) {
        for columns in &table.unique {
            let numbers: Option<Vec<i16>> =
                columns.iter().map(|c| catalog::column_number(used.oid, c)).collect();
            let held = valid.iter().any(|u| {
                u.table == used.oid.to_u32()
                    && numbers.as_ref().is_some_and(|n| u.columns.iter().map(|c| &c.0).eq(n))
            });
            if !held {
                return Some(Distrust::Problem(format!(
                    "the unique index on {} ({}) is no longer valid",
                    definition::display(&table.schema, &table.name),
                    columns.join(", ")
                )));
            }
        }
    }
    None
}

/// Whether there is an index that finds documents by their `valid_until`, in column `until`.
pub fn expiry_indexed(profile: Oid, until: i16) -> bool {
    spi::one(
        "SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam \
         WHERE i.indrelid = $1 AND i.indkey[0] = $2 AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' LIMIT 1",
        At::Latest,
        &[Arg::oid(profile), Arg::int8(Some(until.into()))],
        |_| (),
    )
    .is_some()
}

/// Whether what we write may be refused: by an index with an expression, a predicate or an exclusion
/// constraint, on our document, or unique on another of our columns; by the row's size, where documents stay in it; by a
/// publication.
fn fragile(profile: Oid, columns: &[i16; 4]) -> bool {
    let numbers: Vec<String> = columns.iter().map(i16::to_string).collect();
    spi::one(
        "SELECT FROM pg_index AS i WHERE i.indrelid = $1 AND (i.indexprs IS NOT NULL \
          OR i.indpred IS NOT NULL OR i.indisexclusion OR (i.indisunique AND NOT i.indisvalid) OR EXISTS \
          (SELECT FROM unnest(i.indkey) AS k WHERE k::text = ANY ($2) AND (i.indisunique OR k::text = $3))) \
         UNION ALL SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum::text = ANY ($2) \
          AND a.attlen = -1 AND a.attstorage = 'p' \
         UNION ALL SELECT FROM pg_publication AS p WHERE p.puballtables \
          OR EXISTS (SELECT FROM pg_publication_rel AS r WHERE r.prpubid = p.oid AND r.prrelid = $1) \
          OR EXISTS (SELECT FROM pg_publication_namespace AS n JOIN pg_class AS c ON c.oid = $1 \
           WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace) LIMIT 1",
        At::Latest,
        &[
            Arg::oid(profile),
            Arg::texts(&numbers),
            Arg::text(&columns[0].to_string()),
        ],
        |_| (),
    )
    .is_some()
}

/// The triggers of ours that these tables should have and do not have just so, ENABLE ALWAYS.
pub fn missing_triggers(tables: &[Oid], profile: Oid) -> Vec<(Oid, String)> {
    let wanted: Vec<(Oid, &definition::Trigger)> = tables
        .iter()
        .flat_map(|t| definition::triggers(*t == profile).map(move |trigger| (*t, trigger)))
        .collect();
    let texts = |f: fn(&definition::Trigger) -> String| {
        Arg::texts(&wanted.iter().map(|(_, t)| f(t)).collect::<Vec<_>>())
    };
    spi::all(
        "SELECT w.oid, w.name FROM unnest($1, $2, $3, $4, $5, $6) \
          AS w(oid, name, function, type, old_table, new_table) WHERE NOT EXISTS \
         (SELECT FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid \
          WHERE g.tgrelid = w.oid AND g.tgname = w.name::name AND g.tgenabled = 'A' AND g.tgqual IS NULL \
           AND f.pronamespace = 'profile_cache'::regnamespace AND f.proname = w.function::name \
           AND g.tgtype = w.type::int2 AND g.tgnargs = 0 AND g.tgattr = '' \
           AND coalesce(g.tgoldtable::text, '') = w.old_table \
           AND coalesce(g.tgnewtable::text, '') = w.new_table)",
        At::Latest,
        &[
            Arg::oids(&wanted.iter().map(|(t, _)| *t).collect::<Vec<_>>()),
            texts(|t| t.name.into()),
            texts(|t| t.function.into()),
            texts(|t| t.tgtype.to_string()),
            texts(|t| t.old_table.into()),
            texts(|t| t.new_table.into()),
        ],
        |r| r.oid(1).zip(r.text(2)),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// $1: the profile table, $2: the key's column number. A row where a unique index proves the key:
/// immediate, valid, total, on that column alone.
pub const UNIQUE_KEY: &str = "SELECT i.indexrelid FROM pg_catalog.pg_index AS i \
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
    AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = $2";
